//! Tells the neighbours where a floating address is now.
//!
//! IPv4: gratuitous ARP (RFC 5227 section 3) in the request and in the reply form, because hosts and
//! switches differ in which they heed. IPv6: an unsolicited neighbour advertisement with the override flag
//! (RFC 4861 section 7.2.6).
//!
//! Invariants: one call sends one announcement per address; the repetition is decided elsewhere.
//!
//! Must not know: leadership, time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, eth, sendto, socket_with};
use socket2::{Domain, Protocol, Socket, Type};

use crate::addr::Placed;
use crate::error::{PlatformError, Result};
use crate::link::{self, Link, LinkIndex};
use crate::sys::LinkDestination;

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
pub(crate) const ARP_BYTES: usize = 28;
const NA_BYTES: usize = 32;
pub(crate) const ND_NEIGHBOR_ADVERT: u8 = 136;
const NA_FLAG_OVERRIDE: u8 = 0x20;
pub(crate) const OPTION_TARGET_LINK_ADDRESS: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// RFC 4861 section 7.1.2: receivers drop anything else.
const ND_HOP_LIMIT: u32 = 255;

/// Announces every address on its interface. All are tried; the first failure is returned. Interfaces
/// without an Ethernet address need no announcement.
pub fn announce(addresses: &[Placed]) -> Result<()> {
    let links = link::list()?;
    let mut outcome = Ok(());
    for placed in addresses {
        let Some(link) = links.iter().find(|link| link.index == placed.link) else {
            let name = format!("#{}", placed.link);
            outcome = outcome.and(Err(PlatformError::NoInterface { name }));
            continue;
        };
        outcome = outcome.and(announce_one(placed.ip(), link));
    }
    outcome
}

fn announce_one(ip: IpAddr, link: &Link) -> Result<()> {
    let Some(mac) = link.mac.filter(|mac| mac != &[0; 6]) else {
        return Ok(());
    };
    match ip {
        IpAddr::V4(ip) => send_arp(ip, mac, link.index)
            .map_err(|errno| PlatformError::kernel(format!("announcing {ip} by ARP"), errno)),
        IpAddr::V6(ip) => send_advertisement(ip, mac, link.index)
            .map_err(|error| PlatformError::io(format!("advertising {ip} to neighbours"), error)),
    }
}

fn send_arp(ip: Ipv4Addr, mac: [u8; 6], link: LinkIndex) -> rustix::io::Result<()> {
    let (fd, to) = arp_socket(link)?;
    for packet in [
        arp(ARP_REQUEST, ip, mac, [0; 6]),
        arp(ARP_REPLY, ip, mac, mac),
    ] {
        sendto(&fd, &packet, SendFlags::empty(), &to)?;
    }
    Ok(())
}

/// A socket for ARP packets, and where all machines on the interface hear them. Does not block.
pub(crate) fn arp_socket(link: LinkIndex) -> rustix::io::Result<(OwnedFd, LinkDestination)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // A datagram packet socket: the kernel writes the Ethernet header.
    let fd = socket_with(
        AddressFamily::PACKET,
        SocketType::DGRAM,
        flags,
        Some(eth::ARP),
    )?;
    Ok((fd, LinkDestination::new(link.0, ETHERTYPE_ARP, BROADCAST)))
}

/// RFC 826: Ethernet, IPv4; sender and target address are both the announced one.
fn arp(operation: u16, ip: Ipv4Addr, sender: [u8; 6], target: [u8; 6]) -> [u8; ARP_BYTES] {
    let mut packet = [0; ARP_BYTES];
    packet[..6].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    packet[6..8].copy_from_slice(&operation.to_be_bytes());
    packet[8..14].copy_from_slice(&sender);
    packet[14..18].copy_from_slice(&ip.octets());
    packet[18..24].copy_from_slice(&target);
    packet[24..28].copy_from_slice(&ip.octets());
    packet
}

fn send_advertisement(ip: Ipv6Addr, mac: [u8; 6], link: LinkIndex) -> std::io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_hops_v6(ND_HOP_LIMIT)?;
    socket.set_multicast_if_v6(link.0)?;
    // A link-local address needs its interface; for others the scope is ignored.
    socket.bind(&SocketAddr::from(SocketAddrV6::new(ip, 0, 0, link.0)).into())?;
    let to = SocketAddr::from(SocketAddrV6::new(ALL_NODES, 0, 0, link.0));
    socket.send_to(&advertisement(ip, mac), &to.into())?;
    Ok(())
}

/// RFC 4861 section 4.4; the kernel fills in the checksum.
fn advertisement(ip: Ipv6Addr, mac: [u8; 6]) -> [u8; NA_BYTES] {
    let mut message = [0; NA_BYTES];
    message[0] = ND_NEIGHBOR_ADVERT;
    message[4] = NA_FLAG_OVERRIDE;
    message[8..24].copy_from_slice(&ip.octets());
    message[24] = OPTION_TARGET_LINK_ADDRESS;
    message[25] = 1;
    message[26..32].copy_from_slice(&mac);
    message
}
