//! Requests that come as single datagrams: one per datagram, without a record mark.
//!
//! One task a socket takes one datagram after another; while it works, the kernel's queue is the only one. What
//! cannot be answered is dropped: whoever uses datagrams asks again.
//!
//! Invariants
//! - An answer leaves from the address that was asked, however many addresses the socket hears. A datagram to many
//!   (broadcast, multicast) is not answered.
//! - Forged senders gain little: answers are bounded one by one, and what they add to their requests is bounded per
//!   second.

use crate::listener::{Endpoint, Server};
use crate::{Handler, Quiet, Verdict};
use bytes::Bytes;
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tracing::{debug, warn};

/// Largest request and largest answer, in bytes: what libtirpc uses for datagrams.
pub const DATAGRAM_BYTES_MAX: usize = 8800;
/// Bytes a second by which the answers of a socket may exceed their requests.
const SURPLUS_BYTES_PER_SEC: u64 = 1 << 20;
/// How long one datagram may take to answer: its sender asks again after seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause after a failed receive.
const RECEIVE_PAUSE: Duration = Duration::from_millis(50);

/// Opens a datagram socket that learns which address each datagram was sent to.
///
/// # Errors
/// What the system says (address in use, permission for ports below 1024).
pub fn bind_datagram(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    match address {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        SocketAddr::V6(_) => {
            // `::` means both kinds, whatever the system is set to.
            socket.set_only_v6(false)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A datagram, and what is needed to answer it.
struct Received {
    bytes: Bytes,
    peer: SocketAddr,
    asked: Asked,
}

/// Where a datagram was sent to.
#[derive(Debug, Clone, Copy)]
enum Asked {
    V4(Ipv4Addr),
    /// With the interface, without which a link-local address means nothing.
    V6(Ipv6Addr, u32),
}

impl Asked {
    fn ip(self) -> IpAddr {
        match self {
            Self::V4(ip) => ip.into(),
            Self::V6(ip, _) => ip.into(),
        }
    }
}

impl<H: Handler> Server<H> {
    /// Answers datagrams for ever. Runs until it is dropped. The socket comes from [`bind_datagram`].
    ///
    /// # Errors
    /// When the socket cannot be registered with the runtime.
    pub async fn listen_datagrams(self: Arc<Self>, socket: std::net::UdpSocket) -> io::Result<()> {
        let socket = UdpSocket::from_std(socket)?;
        let port = socket.local_addr()?.port();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
        let mut surplus = Surplus::new(Instant::now());
        let (unheard, strange) = (Quiet::default(), Quiet::default());
        loop {
            let received = match socket
                .async_io(Interest::READABLE, || receive(&socket, &mut buffer))
                .await
            {
                Ok(Some(received)) => received,
                Ok(None) => {
                    if let Some(left_out) = strange.speak() {
                        debug!(left_out, "dropped a datagram: too long, or sent to many");
                    }
                    continue;
                }
                Err(why) => {
                    if let Some(left_out) = unheard.speak() {
                        warn!(%why, left_out, "cannot receive a datagram; trying again");
                    }
                    tokio::time::sleep(RECEIVE_PAUSE).await;
                    continue;
                }
            };
            let Ok(Some(reply)) = timeout(PATIENCE, self.answer_datagram(&received, port)).await
            else {
                continue;
            };
            if !surplus.admit(received.bytes.len(), reply.len(), Instant::now()) {
                if let Some(left_out) = strange.speak() {
                    warn!(peer = %received.peer, left_out, "more answers to datagrams than allowed; dropped some (is somebody forging requests?)");
                }
                continue;
            }
            // A full send queue is the network's loss: the client asks again.
            if let Err(why) = send(&socket, &received, &reply) {
                debug!(peer = %received.peer, %why, "an answer could not be sent");
            }
        }
    }

    async fn answer_datagram(&self, received: &Received, port: u16) -> Option<Bytes> {
        let ends = Endpoint {
            local: SocketAddr::new(received.asked.ip(), port),
            remote: received.peer,
        };
        let pass = self.gate.enter().await?;
        let verdict = tokio::select! {
            biased;
            () = pass.spoiled() => Verdict::Silent,
            verdict = self.handler.handle_datagram(ends, received.bytes.clone()) => verdict,
        };
        let Verdict::Reply(reply) = verdict else {
            return None;
        };
        let reply = reply.into_bytes();
        (reply.len() <= DATAGRAM_BYTES_MAX && pass.is_valid() && self.handler.may_answer())
            .then_some(reply)
    }
}

/// Takes one datagram; `None` for one that is not to be answered.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    // Room for either kind.
    let mut control = cmsg_space!(nix::libc::in6_pktinfo, nix::libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let (length, flags) = (message.bytes, message.flags);
    let peer = message.address.as_ref().and_then(socket_address);
    let asked = message.cmsgs()?.find_map(asked);
    let (Some(peer), Some(asked)) = (peer, asked) else {
        return Ok(None);
    };
    let many = match asked {
        Asked::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        Asked::V6(ip, _) => ip.is_multicast(),
    };
    if many || length > DATAGRAM_BYTES_MAX || flags.contains(MsgFlags::MSG_TRUNC) {
        return Ok(None);
    }
    let bytes = buffer
        .get(..length)
        .map_or_else(Bytes::new, Bytes::copy_from_slice);
    Ok(Some(Received { bytes, peer, asked }))
}

fn asked(message: ControlMessageOwned) -> Option<Asked> {
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            let [header, local] = [info.ipi_addr, info.ipi_spec_dst]
                .map(|a| Ipv4Addr::from_bits(u32::from_be(a.s_addr)));
            // They differ for a broadcast: the kernel tells the interface's own address then.
            let to = if header == local {
                local
            } else {
                Ipv4Addr::BROADCAST
            };
            Some(Asked::V4(to))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Asked::V6(
            Ipv6Addr::from(info.ipi6_addr.s6_addr),
            info.ipi6_ifindex,
        )),
        _ => None,
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    address
        .as_sockaddr_in6()
        .map(|v6| SocketAddrV6::from(*v6).into())
}

fn send(socket: &UdpSocket, request: &Received, reply: &[u8]) -> io::Result<()> {
    let parts = [IoSlice::new(reply)];
    let to = SockaddrStorage::from(request.peer);
    let mut v4 = nix::libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: nix::libc::in_addr { s_addr: 0 },
        ipi_addr: nix::libc::in_addr { s_addr: 0 },
    };
    let mut v6 = nix::libc::in6_pktinfo {
        ipi6_addr: nix::libc::in6_addr { s6_addr: [0; 16] },
        ipi6_ifindex: 0,
    };
    let from = match request.asked {
        Asked::V4(ip) => {
            v4.ipi_spec_dst.s_addr = ip.to_bits().to_be();
            ControlMessage::Ipv4PacketInfo(&v4)
        }
        Asked::V6(ip, interface) => {
            v6.ipi6_addr.s6_addr = ip.octets();
            if ip.is_unicast_link_local() {
                v6.ipi6_ifindex = interface;
            }
            ControlMessage::Ipv6PacketInfo(&v6)
        }
    };
    sendmsg(
        socket.as_raw_fd(),
        &parts,
        &[from],
        MsgFlags::MSG_DONTWAIT,
        Some(&to),
    )?;
    Ok(())
}

/// Bytes that answers may still add to their requests: a bucket that fills at a fixed rate.
struct Surplus {
    left: u64,
    at: Instant,
}

impl Surplus {
    const fn new(now: Instant) -> Self {
        Self {
            left: SURPLUS_BYTES_PER_SEC,
            at: now,
        }
    }

    /// Whether an answer of `reply` bytes may follow a request of `request` bytes.
    fn admit(&mut self, request: usize, reply: usize, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let gained = passed.saturating_mul(SURPLUS_BYTES_PER_SEC) / 1000;
        self.left = self.left.saturating_add(gained).min(SURPLUS_BYTES_PER_SEC);
        self.at = now;
        let more = reply.saturating_sub(request) as u64;
        let admitted = more <= self.left;
        if admitted {
            self.left -= more;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_add_to_requests_is_bounded_per_second() {
        let start = Instant::now();
        let mut surplus = Surplus::new(start);
        let burst = (0..10_000)
            .filter(|_| surplus.admit(40, 8040, start))
            .count();
        assert_eq!(burst as u64, SURPLUS_BYTES_PER_SEC / 8000);
        assert!(
            surplus.admit(100, 100, start),
            "answers no larger than requests are free"
        );
        let later = start + Duration::from_millis(100);
        let more = (0..1_000)
            .filter(|_| surplus.admit(40, 8040, later))
            .count() as u64;
        assert_eq!(more, SURPLUS_BYTES_PER_SEC / 10 / 8000);
        let rested = later + Duration::from_secs(3600);
        let burst = (0..10_000)
            .filter(|_| surplus.admit(40, 8040, rested))
            .count();
        assert_eq!(
            burst as u64,
            SURPLUS_BYTES_PER_SEC / 8000,
            "no more than a second's worth is saved"
        );
    }
}
