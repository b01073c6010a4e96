//! Network interfaces: which there are; making and connecting virtual ones.
//!
//! Everything acts in the network namespace of the calling thread.
//!
//! Must not know: floating addresses.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use crate::error::{PlatformError, Result};
use crate::nl::{NLM_F_CREATE, NLM_F_EXCL, Netlink, Request, attrs, u32_at};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 0x40;
/// The longest interface name, as the kernel has it.
const NAME_BYTES_MAX: usize = 15;

/// The kernel's number of an interface, within one network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<[u8; 6]>,
    /// Whether it is switched on (which says nothing about a cable).
    pub up: bool,
    /// Whether it can carry traffic: switched on, with a cable. The kernel may notice that up to a second
    /// late for a fresh interface.
    pub running: bool,
}

/// All interfaces.
pub fn list() -> Result<Vec<Link>> {
    let doing = "listing network interfaces";
    let mut netlink = Netlink::route().map_err(|errno| PlatformError::kernel(doing, errno))?;
    let mut links: Vec<Link> = Vec::new();
    netlink
        .dump(
            || Request::new(RTM_GETLINK, 0, &info(None, 0, 0)),
            |kind, body| {
                let link = (kind == RTM_NEWLINK).then(|| parse(body)).flatten();
                if let Some(link) = link
                    && links.iter().all(|known| known.index != link.index)
                {
                    links.push(link);
                }
            },
        )
        .map_err(|errno| PlatformError::kernel(doing, errno))?;
    Ok(links)
}

/// The interface named `name`.
pub fn find(name: &str) -> Result<Link> {
    list()?
        .into_iter()
        .find(|link| link.name == name)
        .ok_or_else(|| PlatformError::NoInterface {
            name: name.to_owned(),
        })
}

/// Switches an interface on or off.
pub fn set_up(name: &str, up: bool) -> Result<()> {
    let link = find(name)?;
    let flags = if up { IFF_UP } else { 0 };
    let request = Request::new(RTM_NEWLINK, 0, &info(Some(link.index), flags, IFF_UP));
    execute(request, || {
        format!(
            "switching interface {name} {}",
            if up { "on" } else { "off" }
        )
    })
}

/// Makes a bridge and switches it on. A port forwards only once it is [`Link::running`].
pub fn add_bridge(name: &str) -> Result<()> {
    let request = Request::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info(None, 0, 0))
        .attr(IFLA_IFNAME, &terminated(name)?)
        .nest(IFLA_LINKINFO, &[], |info| {
            info.attr(IFLA_INFO_KIND, b"bridge")
        });
    execute(request, || format!("making bridge {name}"))?;
    set_up(name, true)
}

/// Makes a virtual cable: `name` here, `peer_name` in the network namespace behind `peer_netns`. Both
/// ends are off.
pub fn add_veth(name: &str, peer_name: &str, peer_netns: impl AsFd) -> Result<()> {
    let fd = peer_netns.as_fd().as_raw_fd() as u32;
    let peer_name_z = terminated(peer_name)?;
    let request = Request::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info(None, 0, 0))
        .attr(IFLA_IFNAME, &terminated(name)?)
        .nest(IFLA_LINKINFO, &[], |kind| {
            kind.attr(IFLA_INFO_KIND, b"veth")
                .nest(IFLA_INFO_DATA, &[], |data| {
                    data.nest(VETH_INFO_PEER, &info(None, 0, 0), |peer| {
                        peer.attr(IFLA_IFNAME, &peer_name_z)
                            .attr(IFLA_NET_NS_FD, &fd.to_ne_bytes())
                    })
                })
        });
    execute(request, || {
        format!("making the interface pair {name} and {peer_name}")
    })
}

/// Connects an interface to a bridge.
pub fn attach(name: &str, bridge: &str) -> Result<()> {
    set_master(name, find(bridge)?.index)
}

/// Disconnects an interface from its bridge: a pulled cable whose owner still sees a carrier.
pub fn detach(name: &str) -> Result<()> {
    set_master(name, LinkIndex(0))
}

/// Removes a virtual interface (a cable with both ends).
pub fn remove(name: &str) -> Result<()> {
    let link = find(name)?;
    let request = Request::new(RTM_DELLINK, 0, &info(Some(link.index), 0, 0));
    execute(request, || format!("removing interface {name}"))
}

fn set_master(name: &str, master: LinkIndex) -> Result<()> {
    let link = find(name)?;
    let request = Request::new(RTM_NEWLINK, 0, &info(Some(link.index), 0, 0))
        .attr(IFLA_MASTER, &master.0.to_ne_bytes());
    execute(request, || format!("connecting interface {name}"))
}

fn execute(request: Request, doing: impl Fn() -> String) -> Result<()> {
    Netlink::route()
        .and_then(|mut netlink| netlink.execute(request))
        .map_err(|errno| PlatformError::kernel(doing(), errno))
}

/// `struct ifinfomsg` of rtnetlink(7).
fn info(index: Option<LinkIndex>, flags: u32, change: u32) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[4..8].copy_from_slice(&index.map_or(0, |index| index.0).to_ne_bytes());
    raw[8..12].copy_from_slice(&flags.to_ne_bytes());
    raw[12..16].copy_from_slice(&change.to_ne_bytes());
    raw
}

fn parse(body: &[u8]) -> Option<Link> {
    let index = LinkIndex(u32_at(body, 4)?);
    let flags = u32_at(body, 8)?;
    let (up, running) = (flags & IFF_UP != 0, flags & IFF_RUNNING != 0);
    let mut link = Link {
        index,
        name: String::new(),
        mac: None,
        up,
        running,
    };
    for (kind, value) in attrs(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => {
                let text = value.strip_suffix(&[0]).unwrap_or(value);
                link.name = String::from_utf8_lossy(text).into_owned();
            }
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some(link)
}

fn terminated(name: &str) -> Result<Vec<u8>> {
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(['/', '\0']);
    if !fits {
        let what = format!("{name:?} is no interface name: 1 to {NAME_BYTES_MAX} bytes, no slash");
        return Err(PlatformError::Invalid(what));
    }
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}
