//! One connection of the load: calls out, records in.
//!
//! Invariant: every byte that was received is either handed on, kept in `record`, or counted and dropped, so one
//! receive buffer serves all connections.

use super::pattern::Pattern;
use super::wire::Outbox;
use haven_proto::nfs3::DATA_BYTES_MAX;
use haven_rpc::record::{FragmentHeader, HEADER_BYTES};
use rustix::net::{RecvFlags, recv};
use std::io;
use std::net::TcpStream;

/// Longest record that is accepted.
const RECORD_BYTES_MAX: usize = DATA_BYTES_MAX + (64 << 10);
/// Most bytes copied in one receive: stays in the processor's cache.
const RECEIVE_BYTES: usize = 64 << 10;
/// From here on it pays to let the kernel drop data instead of copying them to us.
const DISCARD_BYTES_MIN: usize = 32 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) out: Outbox,
    /// Whether calls wait until the socket takes more.
    pub(super) blocked: bool,
    inbox: Inbox,
}

impl Connection {
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            out: Outbox::default(),
            blocked: false,
            inbox: Inbox::default(),
        })
    }

    /// Keeps only the first `bytes` of a record that does not come in one piece.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.inbox.keep = bytes;
    }

    /// Sends what the socket takes. True: nothing is left.
    pub(super) fn flush(&mut self, pattern: &Pattern) -> io::Result<bool> {
        self.out.flush(&mut self.socket, pattern)
    }

    /// Receives once; `deliver` gets every record that is complete, and its length. False: there is no more now.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        mut deliver: impl FnMut(&[u8], usize) -> Result<(), String>,
    ) -> Result<bool, String> {
        let unwanted = self.inbox.unwanted().min(buffer.len());
        let (want, flags) = if unwanted >= DISCARD_BYTES_MIN {
            // For TCP, MSG_TRUNC means that the data are dropped and not copied (tcp(7)).
            (unwanted, RecvFlags::TRUNC)
        } else {
            (buffer.len().min(RECEIVE_BYTES), RecvFlags::empty())
        };
        let got = match recv(&self.socket, &mut buffer[..want], flags) {
            Ok((_, 0)) => return Err("the server closed a connection".into()),
            Ok((_, got)) => got,
            Err(e) if e == rustix::io::Errno::AGAIN || e == rustix::io::Errno::INTR => {
                return Ok(false);
            }
            Err(e) => return Err(format!("a connection broke: {e}")),
        };
        // What was dropped counts as bytes all the same: none of it is kept.
        self.inbox.feed(&buffer[..got], &mut deliver)?;
        Ok(got == want)
    }
}

/// Cuts records out of received bytes.
#[derive(Debug)]
struct Inbox {
    mark: [u8; HEADER_BYTES],
    mark_len: usize,
    /// What is left of the fragment, and whether it is the record's last.
    left: usize,
    last: bool,
    /// The beginning of a record that did not come in one piece, and how much of it came.
    record: Vec<u8>,
    record_len: usize,
    keep: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            mark: [0; HEADER_BYTES],
            mark_len: 0,
            left: 0,
            last: false,
            record: Vec::new(),
            record_len: 0,
            keep: usize::MAX,
        }
    }
}

impl Inbox {
    /// How many of the next bytes are of no interest.
    fn unwanted(&self) -> usize {
        if self.record.len() >= self.keep {
            self.left
        } else {
            0
        }
    }

    fn feed(
        &mut self,
        mut bytes: &[u8],
        deliver: &mut impl FnMut(&[u8], usize) -> Result<(), String>,
    ) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.left == 0 {
                bytes = self.begin_fragment(bytes)?;
            }
            let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
            bytes = rest;
            self.left -= piece.len();
            let complete = self.left == 0 && self.last && self.mark_len == 0;
            if complete && self.record_len == 0 {
                if !piece.is_empty() {
                    deliver(piece, piece.len())?;
                }
                self.last = false;
                continue;
            }
            let room = self.keep.saturating_sub(self.record.len());
            self.record
                .extend_from_slice(&piece[..piece.len().min(room)]);
            self.record_len += piece.len();
            if complete {
                deliver(&self.record, self.record_len)?;
                self.record.clear();
                self.record_len = 0;
                self.last = false;
            }
        }
        Ok(())
    }

    /// Takes a fragment's header, or as much of it as there is; gives the bytes behind it.
    fn begin_fragment<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let (piece, rest) = bytes.split_at((HEADER_BYTES - self.mark_len).min(bytes.len()));
        self.mark[self.mark_len..self.mark_len + piece.len()].copy_from_slice(piece);
        self.mark_len += piece.len();
        if self.mark_len == HEADER_BYTES {
            let header = FragmentHeader::parse(self.mark);
            self.mark_len = 0;
            self.left = header.len as usize;
            self.last = header.last;
            if self.record_len.saturating_add(self.left) > RECORD_BYTES_MAX {
                return Err(format!(
                    "the server sends a record of more than {RECORD_BYTES_MAX} bytes"
                ));
            }
        }
        Ok(rest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::Inbox;

    fn fragment(last: bool, body: &[u8]) -> Vec<u8> {
        let mark = (u32::from(last) << 31) | body.len() as u32;
        [&mark.to_be_bytes()[..], body].concat()
    }

    /// What comes out when the stream is received `step` bytes at a time.
    fn records(stream: &[u8], step: usize, keep: usize) -> Vec<(Vec<u8>, usize)> {
        let mut inbox = Inbox {
            keep,
            ..Inbox::default()
        };
        let mut seen = Vec::new();
        for piece in stream.chunks(step) {
            let mut deliver = |record: &[u8], len| {
                seen.push((record.to_vec(), len));
                Ok(())
            };
            inbox.feed(piece, &mut deliver).unwrap();
        }
        seen
    }

    #[test]
    fn records_are_found_however_the_bytes_come() {
        let stream = [
            fragment(true, b"one record"),
            fragment(false, b"in "),
            fragment(false, b""),
            fragment(true, b"pieces"),
            fragment(false, b"empty end"),
            fragment(true, b""),
            fragment(true, b"last"),
        ]
        .concat();
        let expected: Vec<_> = [&b"one record"[..], b"in pieces", b"empty end", b"last"]
            .iter()
            .map(|r| (r.to_vec(), r.len()))
            .collect();
        for step in 1..=stream.len() {
            let seen = records(&stream, step, usize::MAX);
            // An empty fragment at the very end of a receive is noticed with the next byte.
            assert_eq!(seen, expected, "in steps of {step}");
        }
    }

    #[test]
    fn of_a_record_in_pieces_only_the_beginning_is_kept() {
        let stream = [fragment(true, &[7; 100]), fragment(true, b"next")].concat();
        let seen = records(&stream, 30, 8);
        assert_eq!(seen, [(vec![7; 8], 100), (b"next".to_vec(), 4)]);
    }

    #[test]
    fn an_overlong_record_is_refused() {
        let mut inbox = Inbox::default();
        let mark = 0x7fff_ffff_u32.to_be_bytes();
        let refusal = inbox.feed(&mark, &mut |_, _| Ok(()));
        assert!(refusal.unwrap_err().contains("more than"));
    }
}
