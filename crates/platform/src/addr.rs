//! Floating addresses on interfaces.
//!
//! Invariants: adding what is there and removing what is gone succeed; an IPv6 address is usable at once;
//! an address given a lifetime vanishes by itself when nobody refreshes it.
//!
//! An IPv6 address is put up without the kernel's duplicate address detection (`IFA_F_NODAD`): that would
//! keep the address from use for a second or two, and give it up for good if the old holder still answers.
//! Optimistic addresses (RFC 4429) are usable meanwhile, but are given up in the same way. The takeover
//! decides who has the address; whether a stranger has it too is asked afterwards ([`crate::probe`]).
//!
//! An IPv4 address that is the *first* of its subnet on an interface takes the later ones with it when it
//! goes (unless the sysctl `promote_secondaries` is set). So a machine that has its own address in the
//! subnet should hold it before the floating one comes, or the floating one should be given as /32.
//!
//! Everything acts in the network namespace of the calling thread, and takes well below a millisecond
//! (a fresh IPv6 address at worst 50): the functions may be called from async code.
//!
//! Must not know: when an address may be held.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use rustix::io::Errno;

use crate::error::{PlatformError, Result};
use crate::link::{self, LinkIndex};
use crate::nl::{NLM_F_CREATE, NLM_F_REPLACE, Netlink, Request, attrs, u32_at};

const RTM_NEWADDR: u16 = 20;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTN_LOCAL: u8 = 2;
const RTM_TYPE_OFFSET: usize = 7;
/// Together 50 ms; the kernel normally needs less than one.
const LOCAL_TRIES_MAX: usize = 250;
const LOCAL_PAUSE: Duration = Duration::from_micros(200);
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
/// The kernel's "for ever".
const LIFETIME_INFINITE: u32 = u32::MAX;
const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;

/// An address with the length of its subnet's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    ip: IpAddr,
    prefix_len: u8,
}

impl Subnet {
    /// `prefix_len` at most 32 (IPv4) or 128 (IPv6).
    pub fn new(ip: IpAddr, prefix_len: u8) -> Result<Self> {
        let max = if ip.is_ipv4() { 32 } else { 128 };
        if prefix_len > max {
            let what = format!("{ip}/{prefix_len}: the prefix length is at most {max}");
            return Err(PlatformError::Invalid(what));
        }
        Ok(Self { ip, prefix_len })
    }

    /// The address itself.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The prefix length.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether `ip` lies in this subnet.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (bits4(a), bits4(b), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let host_bits = width - u32::from(self.prefix_len);
        (ours ^ theirs).checked_shr(host_bits).unwrap_or(0) == 0
    }
}

fn bits4(ip: Ipv4Addr) -> u128 {
    u128::from(ip.to_bits())
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

impl FromStr for Subnet {
    type Err = PlatformError;

    /// `192.0.2.1/24` or `2001:db8::1/64`.
    fn from_str(text: &str) -> Result<Self> {
        let parsed = text
            .split_once('/')
            .and_then(|(ip, len)| Some((ip.parse().ok()?, len.parse().ok()?)));
        let Some((ip, prefix_len)) = parsed else {
            let what = format!("{text:?} is no address with a prefix length, such as 192.0.2.1/24");
            return Err(PlatformError::Invalid(what));
        };
        Self::new(ip, prefix_len)
    }
}

/// An address on, or meant for, a certain interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Placed {
    /// The address.
    pub subnet: Subnet,
    /// The interface.
    pub link: LinkIndex,
}

impl Placed {
    /// The bare address.
    pub fn ip(&self) -> IpAddr {
        self.subnet.ip
    }
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.subnet, self.link)
    }
}

/// Finds out where an address belongs: on the interface named, or else on the one that has the closest
/// subnet around it.
pub fn place(subnet: Subnet, interface: Option<&str>) -> Result<Placed> {
    if let Some(name) = interface {
        return Ok(Placed {
            subnet,
            link: link::find(name)?.index,
        });
    }
    let ip = subnet.ip;
    list()?
        .into_iter()
        .filter(|known| known.ip() != ip && known.subnet.contains(ip))
        .max_by_key(|known| (known.subnet.prefix_len, std::cmp::Reverse(known.link)))
        .map(|known| Placed {
            subnet,
            link: known.link,
        })
        .ok_or(PlatformError::NoSubnet { ip })
}

/// All addresses of all interfaces.
pub fn list() -> Result<Vec<Placed>> {
    Netlink::route()
        .and_then(|mut netlink| list_with(&mut netlink))
        .map_err(|errno| PlatformError::kernel("listing network addresses", errno))
}

fn list_with(netlink: &mut Netlink) -> std::result::Result<Vec<Placed>, Errno> {
    let mut found: Vec<Placed> = Vec::new();
    netlink.dump(
        || Request::new(RTM_GETADDR, 0, &[0; 8]),
        |kind, body| {
            let placed = (kind == RTM_NEWADDR).then(|| parse(body)).flatten();
            found.extend(placed.filter(|placed| !found.contains(placed)));
        },
    )?;
    Ok(found)
}

/// Whether this machine has the address, on whatever interface.
pub fn is_here(ip: IpAddr) -> Result<bool> {
    Ok(list()?.iter().any(|placed| placed.ip() == ip))
}

/// [`is_here`] over a socket that is already open.
pub(crate) fn is_here_with(netlink: &mut Netlink, ip: IpAddr) -> std::result::Result<bool, Errno> {
    Ok(list_with(netlink)?.iter().any(|placed| placed.ip() == ip))
}

/// Tells which addresses this machine loses, whoever takes them off.
pub struct Losses {
    netlink: Netlink,
}

impl Losses {
    /// From now on, in the network namespace of the calling thread.
    pub fn watch() -> Result<Self> {
        Netlink::route_news(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR)
            .map(|netlink| Self { netlink })
            .map_err(|errno| PlatformError::kernel("watching network addresses", errno))
    }

    /// Waits for losses, a few seconds at most. `None`: too much happened at once, look yourself.
    pub fn wait(&mut self) -> Result<Option<Vec<IpAddr>>> {
        let mut lost = Vec::new();
        let news = self.netlink.news(|kind, body| {
            let placed = (kind == RTM_DELADDR).then(|| parse(body)).flatten();
            lost.extend(placed.map(|placed| placed.ip()));
        });
        match news {
            Ok(()) => Ok(Some(lost)),
            Err(Errno::NOBUFS) => Ok(None),
            Err(errno) => Err(PlatformError::kernel("watching network addresses", errno)),
        }
    }
}

/// Adds an address. With a lifetime (whole seconds, at least one), the kernel removes it by itself that
/// long after the last `add` or [`refresh`].
pub fn add(placed: &Placed, lifetime: Option<Duration>) -> Result<()> {
    let mut request = request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, placed);
    let octets = octets(placed.ip());
    request = request.attr(IFA_ADDRESS, &octets);
    if placed.ip().is_ipv6() {
        request = request.attr(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
    }
    let seconds = match lifetime {
        None => LIFETIME_INFINITE,
        Some(lifetime) => u32::try_from(lifetime.as_secs().max(1)).unwrap_or(LIFETIME_INFINITE),
    };
    request = request.attr(IFA_CACHEINFO, &cache_info(seconds));
    let add = |mut netlink: Netlink| {
        match netlink.execute(request) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        match placed.ip() {
            IpAddr::V4(_) => Ok(()),
            IpAddr::V6(ip) => wait_until_local(&mut netlink, ip),
        }
    };
    Netlink::route()
        .and_then(add)
        .map_err(|errno| PlatformError::kernel(format!("adding address {placed}"), errno))
}

/// The kernel acknowledges an IPv6 address first and delivers packets to it a little later, from a work
/// queue. The answer to our first neighbour solicitation would get lost in between, and solicitation is
/// repeated only after a second.
fn wait_until_local(netlink: &mut Netlink, ip: Ipv6Addr) -> std::result::Result<(), Errno> {
    for _ in 0..LOCAL_TRIES_MAX {
        // `struct rtmsg` of rtnetlink(7): family and prefix length, the rest open.
        let mut fixed = [0; 12];
        fixed[..2].copy_from_slice(&[AF_INET6, 128]);
        let request = Request::new(RTM_GETROUTE, 0, &fixed).attr(RTA_DST, &ip.octets());
        let mut local = false;
        let answer = netlink.ask(request, |kind, body| {
            local |= kind == RTM_NEWROUTE && body.get(RTM_TYPE_OFFSET) == Some(&RTN_LOCAL);
        });
        match answer {
            Ok(()) if local => return Ok(()),
            // No route at all, yet.
            Ok(()) | Err(Errno::NETUNREACH | Errno::HOSTUNREACH) => {}
            Err(errno) => return Err(errno),
        }
        std::thread::sleep(LOCAL_PAUSE);
    }
    // It is slow, but the address is there.
    Ok(())
}

/// Starts the lifetime of an address afresh. Also puts it back when it is gone: whoever refreshes must
/// still be entitled to hold it.
pub fn refresh(placed: &Placed, lifetime: Duration) -> Result<()> {
    add(placed, Some(lifetime))
}

/// Removes an address. One that is not there, or whose interface is gone, counts as removed.
pub fn remove(placed: &Placed) -> Result<()> {
    Netlink::route()
        .and_then(|mut netlink| remove_with(&mut netlink, placed))
        .map_err(|errno| PlatformError::kernel(format!("removing address {placed}"), errno))
}

/// [`remove`] over a socket that is already open, for the guard.
pub(crate) fn remove_with(
    netlink: &mut Netlink,
    placed: &Placed,
) -> std::result::Result<(), Errno> {
    match netlink.execute(request(RTM_DELADDR, 0, placed)) {
        Err(Errno::ADDRNOTAVAIL | Errno::NODEV) => Ok(()),
        other => other,
    }
}

/// `struct ifaddrmsg` of rtnetlink(7) with the local address.
fn request(kind: u16, flags: u16, placed: &Placed) -> Request {
    let family = if placed.ip().is_ipv4() {
        AF_INET
    } else {
        AF_INET6
    };
    let mut fixed = [family, placed.subnet.prefix_len, 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&placed.link.0.to_ne_bytes());
    Request::new(kind, flags, &fixed).attr(IFA_LOCAL, &octets(placed.ip()))
}

/// `struct ifa_cacheinfo`: preferred and valid lifetime; the rest is the kernel's.
fn cache_info(seconds: u32) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[0..4].copy_from_slice(&seconds.to_ne_bytes());
    raw[4..8].copy_from_slice(&seconds.to_ne_bytes());
    raw
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn parse(body: &[u8]) -> Option<Placed> {
    let (family, prefix_len) = (*body.first()?, *body.get(1)?);
    let link = LinkIndex(u32_at(body, 4)?);
    let mut local = None;
    let mut address = None;
    for (kind, value) in attrs(body.get(8..)?) {
        match kind {
            IFA_LOCAL => local = ip_from(family, value),
            IFA_ADDRESS => address = ip_from(family, value),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other side; IPv6 often has only IFA_ADDRESS.
    let subnet = Subnet::new(local.or(address)?, prefix_len).ok()?;
    Some(Placed { subnet, link })
}

fn ip_from(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_parse_and_contain() {
        let net = subnet("192.0.2.17/28");
        assert!(net.contains("192.0.2.30".parse().unwrap()));
        assert!(!net.contains("192.0.2.32".parse().unwrap()));
        assert!(!net.contains("::c000:21e".parse().unwrap()));
        assert!(subnet("10.0.0.1/0").contains("203.0.113.9".parse().unwrap()));
        assert!(subnet("::1/0").contains("2001:db8::1".parse().unwrap()));
        assert!(subnet("2001:db8::1/64").contains("2001:db8::ffff:0:0:2".parse().unwrap()));
        assert!(!subnet("2001:db8::1/128").contains("2001:db8::2".parse().unwrap()));
        assert_eq!(net.to_string(), "192.0.2.17/28");
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for text in [
            "",
            "192.0.2.1",
            "192.0.2.1/33",
            "2001:db8::1/129",
            "x/8",
            "192.0.2.1/-1",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
        let error = "192.0.2.1/33".parse::<Subnet>().unwrap_err().to_string();
        assert!(error.contains("at most 32"), "{error}");
    }
}
