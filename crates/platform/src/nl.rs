//! A minimal blocking netlink client: builds requests, reads acknowledgements and dumps.
//!
//! Invariants: lengths found in the kernel's answers are checked before use; a dump that the kernel
//! declares inconsistent is repeated, at most [`DUMP_TRIES_MAX`] times.
//!
//! Must not know: what the messages mean.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
    socket_with,
};

/// How often an interrupted dump is tried.
const DUMP_TRIES_MAX: usize = 8;
/// The kernel's dumps come in pieces of at most this size.
const RECEIVE_BYTES: usize = 64 * 1024;
/// No dump we ask for has more messages than this.
const DUMP_MESSAGES_MAX: usize = 1 << 20;
/// How long an answer may take; the kernel normally answers before `send` returns.
const ANSWER_S_MAX: u64 = 2;

const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
/// Make what is not there.
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// Change what is there.
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
/// Fail on what is there.
pub(crate) const NLM_F_EXCL: u16 = 0x200;

/// A request being built.
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Starts a message of type `kind` with its fixed part.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        let mut request = Self { bytes };
        request.pad();
        request
    }

    /// Appends an attribute.
    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        // Attribute values here are addresses, names and numbers: far below 64 KiB.
        let len = (value.len() + 4) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Appends an attribute that holds `fixed` and then the attributes made by `fill`.
    pub(crate) fn nest(mut self, kind: u16, fixed: &[u8], fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        self.pad();
        let mut filled = fill(self);
        let len = (filled.bytes.len() - start) as u16;
        filled.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        filled
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, flags: u16, sequence: u32) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// One message of an answer.
struct Received<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// A netlink socket. It belongs to the network namespace of the thread that opened it.
pub(crate) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket for addresses and links.
    pub(crate) fn route() -> Result<Self, Errno> {
        Self::open(None, 0)
    }

    /// Opens a socket that is told of what happens to addresses and links: a bit for each of rtnetlink(7)'s `groups`.
    pub(crate) fn route_news(groups: u32) -> Result<Self, Errno> {
        Self::open(None, groups)
    }

    /// Opens a socket for socket diagnosis.
    pub(crate) fn sock_diag() -> Result<Self, Errno> {
        Self::open(Some(netlink::SOCK_DIAG), 0)
    }

    fn open(protocol: Option<Protocol>, groups: u32) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC;
        // Protocol 0 is NETLINK_ROUTE.
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        let limit = Some(std::time::Duration::from_secs(ANSWER_S_MAX));
        rustix::net::sockopt::set_socket_timeout(&fd, rustix::net::sockopt::Timeout::Recv, limit)?;
        rustix::net::bind(&fd, &netlink::SocketAddrNetlink::new(0, groups))?;
        Ok(Self {
            fd,
            sequence: 0,
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// Sends a request and waits for its acknowledgement.
    pub(crate) fn execute(&mut self, request: Request) -> Result<(), Errno> {
        self.ask(request, |_, _| {})
    }

    /// Sends a request and hands each answer's type and body to `each`, up to the acknowledgement.
    pub(crate) fn ask(
        &mut self,
        request: Request,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Errno> {
        let sequence = self.send(request, NLM_F_ACK)?;
        loop {
            let len = self.receive()?;
            for message in messages(&self.buffer[..len]) {
                match message.kind {
                    _ if message.sequence != sequence => {}
                    NLMSG_ERROR => return error_of(message.body),
                    kind => each(kind, message.body),
                }
            }
        }
    }

    /// Sends a dump request and hands each answer's type and body to `each`. `request` may be called
    /// again when the kernel's tables changed meanwhile; `each` may then see things twice.
    pub(crate) fn dump(
        &mut self,
        request: impl Fn() -> Request,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Errno> {
        for _ in 0..DUMP_TRIES_MAX {
            let sequence = self.send(request(), NLM_F_DUMP)?;
            if self.read_dump(sequence, &mut each)? {
                return Ok(());
            }
        }
        Err(Errno::AGAIN)
    }

    /// Waits for news, a few seconds at most, and hands each one's type and body to `each`.
    pub(crate) fn news(&mut self, mut each: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
        match self.receive() {
            Ok(len) => messages(&self.buffer[..len]).for_each(|m| each(m.kind, m.body)),
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Whether the dump was consistent.
    fn read_dump(
        &mut self,
        sequence: u32,
        each: &mut impl FnMut(u16, &[u8]),
    ) -> Result<bool, Errno> {
        let mut consistent = true;
        let mut count = 0;
        loop {
            let len = self.receive()?;
            for message in messages(&self.buffer[..len]) {
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        error_of(message.body)?;
                        return Ok(consistent);
                    }
                    kind => each(kind, message.body),
                }
                count += 1;
                if count > DUMP_MESSAGES_MAX {
                    return Err(Errno::NOBUFS);
                }
            }
        }
    }

    fn send(&mut self, request: Request, flags: u16) -> Result<u32, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.finish(flags, self.sequence);
        rustix::io::retry_on_intr(|| send(&self.fd, &bytes, SendFlags::empty()))?;
        Ok(self.sequence)
    }

    fn receive(&mut self) -> Result<usize, Errno> {
        let Self { fd, buffer, .. } = self;
        let (len, _) =
            rustix::io::retry_on_intr(|| recv(&*fd, &mut buffer[..], RecvFlags::empty()))?;
        Ok(len)
    }
}

/// The result code at the start of an acknowledgement or of the end of a dump.
fn error_of(body: &[u8]) -> Result<(), Errno> {
    match u32_at(body, 0) {
        Some(0) | None => Ok(()),
        Some(code) => Err(Errno::from_raw_os_error((code as i32).wrapping_neg())),
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        if len < HEADER_BYTES || len > bytes.len() {
            return None;
        }
        let message = Received {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            body: &bytes[HEADER_BYTES..len],
        };
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
        Some(message)
    })
}

/// Walks over attributes: type (without its flag bits) and value.
pub(crate) fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        if len < 4 || len > bytes.len() {
            return None;
        }
        let value = &bytes[4..len];
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
        Some((kind, value))
    })
}

/// A native 32 bit number at `at`, if there is one.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let raw = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(raw.try_into().ok()?))
}

/// A native 16 bit number at `at`, if there is one.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let raw = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(raw.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_request_reads_back() {
        let request =
            Request::new(16, 0, &[1, 2, 3])
                .attr(3, b"eth0\0")
                .nest(18, &[9; 4], |inner| inner.attr(1, b"veth"));
        let bytes = request.finish(NLM_F_ACK, 7);
        let found: Vec<_> = messages(&bytes).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].kind, found[0].flags, found[0].sequence),
            (16, 5, 7)
        );
        let list: Vec<_> = attrs(&found[0].body[4..]).collect();
        assert_eq!(list[0], (3, &b"eth0\0"[..]));
        assert_eq!(list[1].0, 18);
        assert_eq!(&list[1].1[..4], &[9; 4]);
        assert_eq!(
            attrs(&list[1].1[4..]).collect::<Vec<_>>(),
            [(1, &b"veth"[..])]
        );
    }

    #[test]
    fn broken_lengths_end_the_walk() {
        assert_eq!(attrs(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attrs(&[200, 0, 1, 0, 5]).count(), 0);
        assert_eq!(attrs(&[5, 0, 1, 0, 5]).collect::<Vec<_>>(), [(1, &[5][..])]);
        assert_eq!(messages(&[15, 0, 0, 0, 0, 0]).count(), 0);
        assert_eq!(
            messages(&[255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count(),
            0
        );
    }
}
