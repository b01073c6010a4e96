//! Asks the network whether another machine has a floating address.
//!
//! IPv4: an ARP probe (RFC 5227 section 2.1.1), a request without a sender address, so that nobody's table
//! changes; whoever has the address answers. IPv6 is not asked: an address is put up without that question too.
//!
//! Must not know: leadership, who may hold an address.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, bind, recv, sendto};

use crate::addr::Placed;
use crate::announce::{ARP_BYTES, ARP_REQUEST, arp_socket};
use crate::error::{PlatformError, Result};
use crate::link::{self, LinkIndex};

/// The hardware address of another machine that has this address, if one answers within `patience`. Blocks.
///
/// # Errors
/// What the kernel refuses (packet sockets need CAP_NET_RAW).
pub fn other_holder(placed: &Placed, patience: Duration) -> Result<Option<[u8; 6]>> {
    let IpAddr::V4(ip) = placed.ip() else {
        return Ok(None);
    };
    let links = link::list()?;
    let own = links.iter().find(|link| link.index == placed.link);
    let Some(mac) = own.and_then(|link| link.mac).filter(|mac| mac != &[0; 6]) else {
        return Ok(None);
    };
    let macs: Vec<[u8; 6]> = links.iter().filter_map(|link| link.mac).collect();
    ask(ip, mac, &macs, placed.link, patience)
        .map_err(|errno| PlatformError::kernel(format!("asking who has {ip}"), errno))
}

fn ask(
    ip: Ipv4Addr,
    mac: [u8; 6],
    own: &[[u8; 6]],
    link: LinkIndex,
    patience: Duration,
) -> rustix::io::Result<Option<[u8; 6]>> {
    let (fd, network) = arp_socket(link)?;
    bind(&fd, &network)?;
    sendto(&fd, &question(ip, mac), SendFlags::empty(), &network)?;
    let until = Instant::now() + patience;
    let mut packet = [0; 128];
    while wait(&fd, until)? {
        let length = match recv(&fd, &mut packet, RecvFlags::empty()) {
            Ok((length, _)) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let sender = packet.get(..length).and_then(|packet| sender(packet, ip));
        if let Some(sender) = sender.filter(|sender| !own.contains(sender)) {
            return Ok(Some(sender));
        }
    }
    Ok(None)
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
}
