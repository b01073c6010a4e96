//! Neighbour entries: what a machine believes the Ethernet address of another to be.
//!
//! A wrong one that stays is a cable that carries one way only: packets to that machine vanish on the
//! network, those from it still arrive. For trying clusters out.
//!
//! Must not know: who the machines are.

use std::net::Ipv4Addr;

use rustix::io::Errno;

use crate::error::{PlatformError, Result};
use crate::link;
use crate::nl::{NLM_F_CREATE, NLM_F_REPLACE, Netlink, Request};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const AF_INET: u8 = 2;
/// Locally administered, and nobody's.
const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0xde, 0xad];

/// Sends everything for `to` that leaves through `interface` to nobody, until [`direct`].
///
/// # Errors
/// What the kernel refused.
pub fn misdirect(interface: &str, to: Ipv4Addr) -> Result<()> {
    let request = request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, interface, to)?
        .attr(NDA_LLADDR, &NOBODY);
    Netlink::route()
        .and_then(|mut netlink| netlink.execute(request))
        .map_err(|errno| PlatformError::kernel(format!("misdirecting packets for {to}"), errno))
}

/// Lets the machine find out anew where `to` is.
///
/// # Errors
/// What the kernel refused; that there was no entry is no error.
pub fn direct(interface: &str, to: Ipv4Addr) -> Result<()> {
    let request = request(RTM_DELNEIGH, 0, interface, to)?;
    match Netlink::route().and_then(|mut netlink| netlink.execute(request)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(PlatformError::kernel(
            format!("directing packets for {to}"),
            errno,
        )),
    }
}

/// `struct ndmsg` of rtnetlink(7), and the destination.
fn request(kind: u16, flags: u16, interface: &str, to: Ipv4Addr) -> Result<Request> {
    let link = link::find(interface)?;
    let mut fixed = [0; 12];
    fixed[0] = AF_INET;
    fixed[4..8].copy_from_slice(&link.index.0.to_ne_bytes());
    fixed[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    Ok(Request::new(kind, flags, &fixed).attr(NDA_DST, &to.octets()))
}
