//! Makes the clients of the previous leader reconnect at once.
//!
//! A client whose server moved waits for its retransmission timer. A bare ACK from the floating address,
//! with a sequence number that cannot be right, makes the client's TCP state its own numbers (RFC 9293
//! section 3.10.7.4); our kernel knows no such connection and answers that with a reset, which the client
//! believes because the numbers are its own.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] connections per call, at most [`BATCH`] in [`BATCH_PAUSE`].
//! A segment that cannot be sent is skipped: the client then only reconnects later.
//!
//! Must not know: where the list of connections comes from.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use crate::checksum::{fold, pseudo, sum};
use crate::error::{PlatformError, Result};
use crate::sockets::Connection;

/// Connections tickled without a pause.
pub const BATCH: usize = 100;
/// The pause between batches; together 10,000 connections a second.
pub const BATCH_PAUSE: Duration = Duration::from_millis(10);
/// Connections beyond this are not tickled.
pub const CONNECTIONS_MAX: usize = 100_000;

/// Whatever the client expects, one of two opposite sequence numbers is outside its window.
const SEQUENCE_NUMBERS: [u32; 2] = [0, 1 << 31];
const TCP_BYTES: usize = 20;
const TCP_FLAG_ACK: u8 = 0x10;
const TCP_WINDOW: u16 = 1024;
const HOP_LIMIT: u8 = 64;
const PROTOCOL_TCP: u8 = libc::IPPROTO_TCP as u8;

/// Tickles all `connections`; their local addresses must be on this machine by now. Returns for how
/// many the kernel accepted the segments. Fails only if there is no raw socket at all.
pub async fn tickle(connections: &[Connection]) -> Result<usize> {
    let sender = Sender::open()?;
    let mut sent = 0;
    let bounded = &connections[..connections.len().min(CONNECTIONS_MAX)];
    for (number, batch) in bounded.chunks(BATCH).enumerate() {
        if number > 0 {
            tokio::time::sleep(BATCH_PAUSE).await;
        }
        sent += batch
            .iter()
            .filter(|connection| sender.send(connection))
            .count();
    }
    Ok(sent)
}

/// Raw sockets of both families, which take whole IP packets.
pub(crate) struct Sender {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
}

impl Sender {
    pub(crate) fn open() -> Result<Self> {
        let open = |family| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socket_with(family, SocketType::RAW, flags, Some(ipproto::RAW))
        };
        let (v4, v6) = (open(AddressFamily::INET), open(AddressFamily::INET6));
        match (v4, v6) {
            (Err(errno), Err(_)) => Err(PlatformError::kernel(
                "opening a raw socket to tickle clients",
                errno,
            )),
            (v4, v6) => Ok(Self {
                v4: v4.ok(),
                v6: v6.ok(),
            }),
        }
    }

    /// Whether the kernel took the segments.
    pub(crate) fn send(&self, connection: &Connection) -> bool {
        SEQUENCE_NUMBERS
            .into_iter()
            .all(|seq| match (connection.local, connection.remote) {
                (SocketAddr::V4(local), SocketAddr::V4(remote)) => self.send4(local, remote, seq),
                (SocketAddr::V6(local), SocketAddr::V6(remote)) => self.send6(local, remote, seq),
                _ => false,
            })
    }

    fn send4(&self, local: SocketAddrV4, remote: SocketAddrV4, seq: u32) -> bool {
        let Some(fd) = &self.v4 else { return false };
        let packet = packet4(local, remote, seq);
        // Raw sockets take no port in the destination.
        let to = SocketAddrV4::new(*remote.ip(), 0);
        sendto(fd, &packet, SendFlags::empty(), &to).is_ok()
    }

    fn send6(&self, local: SocketAddrV6, remote: SocketAddrV6, seq: u32) -> bool {
        let Some(fd) = &self.v6 else { return false };
        let packet = packet6(local, remote, seq);
        let to = SocketAddrV6::new(*remote.ip(), 0, 0, remote.scope_id());
        sendto(fd, &packet, SendFlags::empty(), &to).is_ok()
    }
}

/// RFC 791 header (the kernel writes identification and checksum) and segment.
fn packet4(local: SocketAddrV4, remote: SocketAddrV4, seq: u32) -> [u8; 20 + TCP_BYTES] {
    let mut packet = [0; 20 + TCP_BYTES];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&((20 + TCP_BYTES) as u16).to_be_bytes());
    packet[6] = 0x40; // do not fragment
    packet[8] = HOP_LIMIT;
    packet[9] = PROTOCOL_TCP;
    packet[12..16].copy_from_slice(&local.ip().octets());
    packet[16..20].copy_from_slice(&remote.ip().octets());
    let pseudo = pseudo(
        &local.ip().octets(),
        &remote.ip().octets(),
        PROTOCOL_TCP,
        TCP_BYTES,
    );
    packet[20..].copy_from_slice(&segment(local.port(), remote.port(), seq, pseudo));
    packet
}

/// RFC 8200 header and segment.
fn packet6(local: SocketAddrV6, remote: SocketAddrV6, seq: u32) -> [u8; 40 + TCP_BYTES] {
    let mut packet = [0; 40 + TCP_BYTES];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(TCP_BYTES as u16).to_be_bytes());
    packet[6] = PROTOCOL_TCP;
    packet[7] = HOP_LIMIT;
    packet[8..24].copy_from_slice(&local.ip().octets());
    packet[24..40].copy_from_slice(&remote.ip().octets());
    let pseudo = pseudo(
        &local.ip().octets(),
        &remote.ip().octets(),
        PROTOCOL_TCP,
        TCP_BYTES,
    );
    packet[40..].copy_from_slice(&segment(local.port(), remote.port(), seq, pseudo));
    packet
}

/// RFC 9293 section 3.1, with the checksum over the pseudo header whose sum is given.
fn segment(from: u16, to: u16, seq: u32, pseudo: u32) -> [u8; TCP_BYTES] {
    let mut header = [0; TCP_BYTES];
    header[0..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    header[12] = ((TCP_BYTES / 4) as u8) << 4;
    header[13] = TCP_FLAG_ACK;
    header[14..16].copy_from_slice(&TCP_WINDOW.to_be_bytes());
    let checksum = !fold(pseudo + sum(&header));
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_verify_as_a_receiver_does() {
        let tcp = |from: &[u8], to: &[u8]| pseudo(from, to, PROTOCOL_TCP, TCP_BYTES);
        let (a, b): (SocketAddrV4, SocketAddrV4) = (
            "192.0.2.1:2049".parse().unwrap(),
            "198.51.100.7:791".parse().unwrap(),
        );
        let packet = packet4(a, b, 1 << 31);
        assert_eq!(
            fold(tcp(&a.ip().octets(), &b.ip().octets()) + sum(&packet[20..])),
            0xffff
        );
        assert_eq!(&packet[20..24], [0x08, 0x01, 0x03, 0x17]);

        let (a, b): (SocketAddrV6, SocketAddrV6) = (
            "[2001:db8::1]:2049".parse().unwrap(),
            "[2001:db8::2]:700".parse().unwrap(),
        );
        let packet = packet6(a, b, 0);
        assert_eq!(
            fold(tcp(&a.ip().octets(), &b.ip().octets()) + sum(&packet[40..])),
            0xffff
        );
    }
}
