//! Asks the network whether another machine has a floating address.
//!
//! Nobody's table may change by being asked: while this node holds the address, an answer that all could hear would
//! turn clients to the other machine. IPv4: an ARP probe (RFC 5227 section 2.1.1), a request without a sender
//! address; whoever has the address answers the asker alone. IPv6: a neighbour solicitation. Its form without a
//! sender is answered to everybody (`solicit.rs`); so it comes from an address of this machine's own on that
//! interface, best the link-local one, and only a machine that has none there asks without a sender, and only while
//! it does not have the address itself.
//!
//! Asking is no part of putting an address up: a takeover does not wait for it (see [`crate::addr`]).
//!
//! Invariants: an answer with a link-layer address of this machine is no stranger's.
//!
//! Must not know: leadership, who may hold an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, bind, recv, sendto};
use socket2::{Domain, SockFilter, Socket, Type};

use crate::addr::{self, Placed};
use crate::announce::{ARP_BYTES, ARP_REQUEST, ND_NEIGHBOR_ADVERT, arp_socket};
use crate::error::{PlatformError, Result};
use crate::link::{self, LinkIndex};
use crate::solicit;
use crate::sys::LinkDestination;

/// Longer than any answer that counts: an advertisement with a few options, in its frame.
const PACKET_BYTES_MAX: usize = 256;
/// Classic BPF: load a byte, jump if equal, return a constant.
const BPF_LOAD_BYTE: u16 = 0x30;
const BPF_JUMP_EQUAL: u16 = 0x15;
const BPF_RETURN: u16 = 0x06;

/// Where this machine asks from.
struct Asker<'a> {
    link: LinkIndex,
    mac: [u8; 6],
    /// The link-layer addresses of all its interfaces.
    own: &'a [[u8; 6]],
    until: Instant,
}

/// The hardware address of another machine that has this address, if one answers within `patience`. Blocks.
///
/// # Errors
/// What the kernel refuses (packet sockets need CAP_NET_RAW).
pub fn other_holder(placed: &Placed, patience: Duration) -> Result<Option<[u8; 6]>> {
    let links = link::list()?;
    let own = links.iter().find(|link| link.index == placed.link);
    let Some(mac) = own.and_then(|link| link.mac).filter(|mac| mac != &[0; 6]) else {
        return Ok(None);
    };
    let macs: Vec<[u8; 6]> = links.iter().filter_map(|link| link.mac).collect();
    let asker = Asker {
        link: placed.link,
        mac,
        own: &macs,
        until: Instant::now() + patience,
    };
    let answer = match placed.ip() {
        IpAddr::V4(ip) => ask4(ip, &asker),
        IpAddr::V6(ip) => match sender6(ip, placed.link, &addr::list()?) {
            Some(source) => ask6(ip, source, &asker),
            None => return Ok(None),
        },
    };
    answer.map_err(|errno| PlatformError::kernel(format!("asking who has {}", placed.ip()), errno))
}

fn ask4(ip: Ipv4Addr, asker: &Asker<'_>) -> rustix::io::Result<Option<[u8; 6]>> {
    let (fd, network) = arp_socket(asker.link)?;
    bind(&fd, &network)?;
    sendto(&fd, &question(ip, asker.mac), SendFlags::empty(), &network)?;
    asker.hear(&fd, |packet| sender(packet, ip))
}

/// From which address is asked for `ip`: `Some(None)` is from nobody's, `None` is not at all.
fn sender6(ip: Ipv6Addr, link: LinkIndex, here: &[Placed]) -> Option<Option<Ipv6Addr>> {
    let of_link = here.iter().filter(|placed| placed.link == link);
    let own = of_link.filter_map(|placed| match placed.ip() {
        IpAddr::V6(own) if own != ip => Some(own),
        _ => None,
    });
    let best = own.min_by_key(|own| (!own.is_unicast_link_local(), *own));
    let held = here.iter().any(|placed| placed.ip() == ip);
    (best.is_some() || !held).then_some(best)
}

fn ask6(
    ip: Ipv6Addr,
    source: Option<Ipv6Addr>,
    asker: &Asker<'_>,
) -> rustix::io::Result<Option<[u8; 6]>> {
    let socket = advertisements().map_err(|error| {
        rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
    })?;
    let fd = OwnedFd::from(socket);
    let mac = solicit::destination(ip);
    let to = LinkDestination::new(asker.link.0, solicit::ETHERTYPE_IPV6, mac);
    bind(&fd, &to)?;
    let question = solicit::question(source, ip, asker.mac);
    sendto(&fd, &question, SendFlags::empty(), &to)?;
    asker.hear(&fd, |frame| solicit::holder(frame, ip))
}

/// A socket, to be bound, for whole frames with neighbour advertisements. The kernel sorts out everything else, so
/// that a loaded server does not have all its packets copied here.
fn advertisements() -> std::io::Result<Socket> {
    let filter = [
        SockFilter::new(BPF_LOAD_BYTE, 0, 0, solicit::PROTOCOL_AT),
        SockFilter::new(BPF_JUMP_EQUAL, 0, 3, solicit::PROTOCOL_ICMPV6.into()),
        SockFilter::new(BPF_LOAD_BYTE, 0, 0, solicit::TYPE_AT),
        SockFilter::new(BPF_JUMP_EQUAL, 0, 1, ND_NEIGHBOR_ADVERT.into()),
        SockFilter::new(BPF_RETURN, 0, 0, PACKET_BYTES_MAX as u32),
        SockFilter::new(BPF_RETURN, 0, 0, 0),
    ];
    // Without a protocol it hears nothing before it is bound.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(&filter)?;
    Ok(socket)
}

impl Asker<'_> {
    /// The first answer in which `claimed` finds an address that is not ours.
    fn hear(
        &self,
        fd: &OwnedFd,
        claimed: impl Fn(&[u8]) -> Option<[u8; 6]>,
    ) -> rustix::io::Result<Option<[u8; 6]>> {
        let mut packet = [0; PACKET_BYTES_MAX];
        while wait(fd, self.until)? {
            let length = match recv(fd, &mut packet, RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let answer = packet.get(..length).and_then(&claimed);
            if let Some(other) = answer.filter(|mac| !self.own.contains(mac)) {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }
}

/// Waits until something can be read; false when the time is over.
fn wait(fd: &OwnedFd, until: Instant) -> rustix::io::Result<bool> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(false);
    }
    let timeout = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    let mut polled = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    match poll(&mut polled, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// RFC 826: Ethernet, IPv4, from nobody.
fn question(ip: Ipv4Addr, mac: [u8; 6]) -> [u8; ARP_BYTES] {
    let mut packet = [0; ARP_BYTES];
    packet[..6].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    packet[6..8].copy_from_slice(&ARP_REQUEST.to_be_bytes());
    packet[8..14].copy_from_slice(&mac);
    packet[24..28].copy_from_slice(&ip.octets());
    packet
}

/// Who says in this packet that it has `ip`.
fn sender(packet: &[u8], ip: Ipv4Addr) -> Option<[u8; 6]> {
    let known = packet.len() >= ARP_BYTES && packet[..6] == [0, 1, 8, 0, 6, 4];
    if !known || packet[14..18] != ip.octets() {
        return None;
    }
    packet[8..14].try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

    #[test]
    fn only_who_says_that_it_has_the_address_is_heard() {
        let mac = [2, 0, 0, 0, 0, 7];
        let asked = question(IP, mac);
        assert_eq!(sender(&asked, IP), None, "a probe claims nothing");
        let mut claim = asked;
        claim[14..18].copy_from_slice(&IP.octets());
        assert_eq!(sender(&claim, IP), Some(mac));
        assert_eq!(sender(&claim, Ipv4Addr::new(192, 0, 2, 10)), None);
        claim[1] = 6;
        assert_eq!(sender(&claim, IP), None, "not Ethernet");
        for cut in 0..ARP_BYTES {
            assert_eq!(sender(&claim[..cut], IP), None);
        }
    }

    #[test]
    fn an_ipv6_address_is_asked_for_so_that_only_this_machine_hears_the_answer() {
        let ip: Ipv6Addr = "fd00::100".parse().unwrap();
        let on = |link: u32, text: &str| Placed {
            subnet: text.parse().unwrap(),
            link: LinkIndex(link),
        };
        let sender = |here: &[Placed]| sender6(ip, LinkIndex(2), here);
        let (held, own, local) = (
            on(2, "fd00::100/64"),
            on(2, "fd00::1/64"),
            on(2, "fe80::1/64"),
        );
        let address = |text: &str| Some(Some(text.parse::<Ipv6Addr>().unwrap()));
        assert_eq!(sender(&[held, own, local]), address("fe80::1"));
        assert_eq!(sender(&[held, own]), address("fd00::1"));
        let elsewhere = [on(3, "fe80::3/64"), on(2, "192.0.2.1/24")];
        assert_eq!(sender(&elsewhere), Some(None), "nobody's");
        assert_eq!(sender(&[held, elsewhere[0]]), None, "all would hear it");
        assert_eq!(sender(&[on(3, "fd00::100/64")]), None, "held elsewhere");
    }
}
