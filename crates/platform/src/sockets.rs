//! The kernel's TCP connections to floating addresses: list them, drop them.
//!
//! Uses socket diagnosis over netlink, sock_diag(7). Dropping works on kernels with
//! `CONFIG_INET_DIAG_DESTROY`; elsewhere it does nothing.
//!
//! Invariants: listeners are never touched. Dropped after its address has been removed, a connection
//! sends nothing any more; dropped before, it sends a reset. IPv4 refuses to send from an address that is
//! gone; IPv6 does not, so a routing rule holds the reset back meanwhile. A client that heard it would
//! reconnect before the next leader has the address, and then wait for a whole second.
//!
//! Must not know: which process a connection belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;

use crate::addr;
use crate::error::{PlatformError, Result};
use crate::nl::{NLM_F_CREATE, NLM_F_EXCL, Netlink, Request};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FR_ACT_BLACKHOLE: u8 = 6;
/// Right after the local table, before everything that leads outside.
const RULE_PRIORITY: u32 = 1;
const ID_BYTES: usize = 48;
const ID_OFFSET_IN_ANSWER: usize = 4;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;
/// All states but those without a peer.
const CONNECTED_STATES: u32 = 0x1fff & !(1 << TCP_CLOSE) & !(1 << TCP_LISTEN) & !1;
/// More connections than this are not handled in one go.
const CONNECTIONS_MAX: usize = 1 << 18;

/// A TCP connection as this machine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// Our side: a floating address and the service's port.
    pub local: SocketAddr,
    /// The client's side.
    pub remote: SocketAddr,
}

/// A connection with the identity that the kernel wants back.
struct Found {
    family: u8,
    id: [u8; ID_BYTES],
    connection: Connection,
}

/// The connections to any of `addresses`.
pub fn list(addresses: &[IpAddr]) -> Result<Vec<Connection>> {
    let wrap = |errno| PlatformError::kernel("listing TCP connections", errno);
    let mut netlink = Netlink::sock_diag().map_err(wrap)?;
    list_with(&mut netlink, addresses).map_err(wrap)
}

/// [`list`] over a socket that is already open, for the guard.
pub(crate) fn list_with(
    sock_diag: &mut Netlink,
    addresses: &[IpAddr],
) -> std::result::Result<Vec<Connection>, Errno> {
    let found = find(sock_diag, addresses)?;
    Ok(found.into_iter().map(|found| found.connection).collect())
}

/// Drops the connections to any of `addresses`, in whatever process. Returns how many; zero on kernels
/// that cannot do it.
pub fn drop_connections(addresses: &[IpAddr]) -> Result<usize> {
    let open = || Ok((Netlink::sock_diag()?, Netlink::route()?));
    open()
        .and_then(|(mut sock_diag, mut route)| drop_with(&mut sock_diag, &mut route, addresses))
        .map_err(|errno| PlatformError::kernel("dropping TCP connections", errno))
}

/// [`drop_connections`] over sockets that are already open, for the guard.
pub(crate) fn drop_with(
    sock_diag: &mut Netlink,
    route: &mut Netlink,
    addresses: &[IpAddr],
) -> std::result::Result<usize, Errno> {
    let found = find(sock_diag, addresses)?;
    if found.is_empty() {
        return Ok(0);
    }
    let mut muted = Vec::new();
    for ip in addresses {
        if let IpAddr::V6(ip) = ip
            && !addr::is_here_with(route, (*ip).into())?
        {
            // Without policy routing in the kernel the reset cannot be held back.
            let _ = route.execute(mute(RTM_NEWRULE, *ip));
            muted.push(*ip);
        }
    }
    let outcome = destroy(sock_diag, &found);
    for ip in muted {
        let _ = route.execute(mute(RTM_DELRULE, ip));
    }
    outcome
}

fn destroy(sock_diag: &mut Netlink, found: &[Found]) -> std::result::Result<usize, Errno> {
    let mut dropped = 0;
    for found in found {
        match sock_diag.execute(Request::new(
            SOCK_DESTROY,
            0,
            &query(found.family, &found.id),
        )) {
            Ok(()) => dropped += 1,
            // It went away by itself.
            Err(Errno::NOENT) => {}
            Err(Errno::OPNOTSUPP) => return Ok(0),
            Err(errno) => return Err(errno),
        }
    }
    Ok(dropped)
}

/// A rule (`struct fib_rule_hdr`) that swallows what comes from `ip`.
fn mute(kind: u16, ip: Ipv6Addr) -> Request {
    let mut fixed = [0; 12];
    fixed[0] = libc::AF_INET6 as u8;
    fixed[2] = 128;
    fixed[7] = FR_ACT_BLACKHOLE;
    let flags = if kind == RTM_NEWRULE {
        NLM_F_CREATE | NLM_F_EXCL
    } else {
        0
    };
    Request::new(kind, flags, &fixed)
        .attr(FRA_SRC, &ip.octets())
        .attr(FRA_PRIORITY, &RULE_PRIORITY.to_ne_bytes())
}

fn find(netlink: &mut Netlink, addresses: &[IpAddr]) -> std::result::Result<Vec<Found>, Errno> {
    let mut all: Vec<Found> = Vec::new();
    if addresses.is_empty() {
        return Ok(all);
    }
    // A socket listening on [::] has its IPv4 connections in the IPv6 family.
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        netlink.dump(
            || Request::new(SOCK_DIAG_BY_FAMILY, 0, &query(family, &[0; ID_BYTES])),
            |kind, body| {
                let found = (kind == SOCK_DIAG_BY_FAMILY).then(|| parse(body)).flatten();
                let wanted = found.filter(|f| addresses.contains(&f.connection.local.ip()));
                all.extend(wanted.filter(|_| all.len() < CONNECTIONS_MAX));
            },
        )?;
    }
    Ok(all)
}

/// `struct inet_diag_req_v2`.
fn query(family: u8, id: &[u8; ID_BYTES]) -> [u8; 8 + ID_BYTES] {
    let mut raw = [0; 8 + ID_BYTES];
    raw[0] = family;
    raw[1] = libc::IPPROTO_TCP as u8;
    raw[4..8].copy_from_slice(&CONNECTED_STATES.to_ne_bytes());
    raw[8..].copy_from_slice(id);
    raw
}

/// The beginning of `struct inet_diag_msg`: family, state, timer, retransmissions, identity.
fn parse(body: &[u8]) -> Option<Found> {
    let family = *body.first()?;
    let raw = body.get(ID_OFFSET_IN_ANSWER..ID_OFFSET_IN_ANSWER + ID_BYTES)?;
    let id: [u8; ID_BYTES] = raw.try_into().ok()?;
    let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
    let local = SocketAddr::new(ip_at(family, &id, 4)?, port(0));
    let remote = SocketAddr::new(ip_at(family, &id, 20)?, port(2));
    Some(Found {
        family,
        id,
        connection: Connection { local, remote },
    })
}

fn ip_at(family: u8, id: &[u8; ID_BYTES], at: usize) -> Option<IpAddr> {
    if i32::from(family) == libc::AF_INET {
        let octets: [u8; 4] = id.get(at..at + 4)?.try_into().ok()?;
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets: [u8; 16] = id.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).to_canonical())
}
