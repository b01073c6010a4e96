//! What a connection has received: cuts records (RFC 5531 section 11) out of the bytes.
//!
//! Invariants
//! - A record's fragments are joined as they arrive, each byte moved at most once: how many fragments there are costs
//!   neither memory nor time worth mentioning. (TI-RPC clients send one for each of their send buffers: 1 MiB in 500.)
//! - Its bytes are bounded, and so are fragments that carry nothing.
//! - No room is made for bytes that are not accounted for in the server's memory budget.
//!
//! It must not know sockets.

use crate::Limits;
use bytes::{Buf, Bytes, BytesMut};
use haven_rpc::record::{FragmentHeader, HEADER_BYTES};
use std::io;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes asked from the socket at a time while nothing larger is known to come.
const READ_BYTES: usize = 16 << 10;
/// Most fragments of a record that carry nothing and are not its last: a peer that sends more is stalling.
pub(crate) const EMPTY_FRAGMENTS_MAX: usize = 64;

/// A record, and the memory it is accounted for.
pub(crate) type Accounted = (Bytes, OwnedSemaphorePermit);

/// What comes next.
pub(crate) enum Next {
    /// A whole record.
    Record(Accounted),
    /// More bytes are needed; there is room for them in [`Input::buffer`].
    Bytes,
    /// So many bytes of the memory budget are needed first: see [`Input::grant`].
    Memory(u32),
}

/// See the module's head comment.
pub(crate) struct Input {
    /// Where received bytes are appended: behind what has arrived of a record, without its marks.
    pub buffer: BytesMut,
    arriving: Option<Arriving>,
    budget: Arc<Semaphore>,
    /// What the record that is arriving has of the budget.
    held: Option<OwnedSemaphorePermit>,
    held_bytes: usize,
}

/// A record of which at least one mark has arrived.
struct Arriving {
    /// How many bytes of it lie at the front of the buffer.
    joined: usize,
    /// How many are to come of the present fragment.
    left: usize,
    /// Whether that is the last one.
    last: bool,
    /// Fragments that carried nothing.
    empty: usize,
}

impl Input {
    /// Nothing received yet.
    pub fn new(budget: Arc<Semaphore>) -> Self {
        Self {
            buffer: BytesMut::new(),
            arriving: None,
            budget,
            held: None,
            held_bytes: 0,
        }
    }

    /// Whether a record has begun and is not complete. (Call it when [`Input::next`] wants bytes.)
    pub fn is_amid_record(&self) -> bool {
        self.arriving.is_some() || !self.buffer.is_empty()
    }

    /// Adds to what the arriving record has of the budget.
    pub fn grant(&mut self, permit: OwnedSemaphorePermit) {
        self.held_bytes += permit.num_permits();
        match &mut self.held {
            None => self.held = Some(permit),
            Some(held) => held.merge(permit),
        }
    }

    /// The next record, or what it takes.
    ///
    /// # Errors
    /// A record beyond the limits.
    pub fn next(&mut self, limits: &Limits) -> io::Result<Next> {
        // Bytes of marks between what is joined and what is not looked at yet.
        let mut gap = 0;
        loop {
            if let Some(arriving) = &mut self.arriving {
                // Before the bytes are taken in: what is not accounted for is not read.
                let total = arriving.joined + arriving.left;
                if let Some(missing) = self.missing(total) {
                    self.close(gap);
                    return Ok(Next::Memory(missing));
                }
                if let Some(want) = self.join(gap) {
                    self.close(gap);
                    return Ok(self.want(want));
                }
                if self.arriving.as_ref().is_some_and(|a| a.last) {
                    return self.take(gap).map(Next::Record);
                }
            }
            let at = gap + self.arriving.as_ref().map_or(0, |a| a.joined);
            let rest = self.buffer.get(at..).unwrap_or_default();
            let Some(mark) = rest.first_chunk() else {
                let want = HEADER_BYTES - rest.len();
                self.close(gap);
                return Ok(self.want(want));
            };
            let header = FragmentHeader::parse(*mark);
            self.expect(header, limits)?;
            if at == 0 {
                self.buffer.advance(HEADER_BYTES);
            } else {
                gap += HEADER_BYTES;
            }
        }
    }

    /// Takes note of a fragment that is to come.
    fn expect(&mut self, header: FragmentHeader, limits: &Limits) -> io::Result<()> {
        let arriving = self.arriving.get_or_insert(Arriving {
            joined: 0,
            left: 0,
            last: false,
            empty: 0,
        });
        arriving.left = header.len as usize;
        arriving.last = header.last;
        arriving.empty += usize::from(header.len == 0 && !header.last);
        let why = if arriving.joined + arriving.left > limits.record_bytes_max {
            let most = limits.record_bytes_max;
            format!("a record of more than {most} bytes")
        } else if arriving.empty > EMPTY_FRAGMENTS_MAX {
            format!("a record with more than {EMPTY_FRAGMENTS_MAX} empty fragments")
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// Joins what has come of the present fragment, which lies behind the gap, to what there is; says how much is
    /// missing.
    fn join(&mut self, gap: usize) -> Option<usize> {
        let arriving = self.arriving.as_mut()?;
        let at = arriving.joined + gap;
        let here = arriving.left.min(self.buffer.len() - at);
        if gap > 0 {
            self.buffer.copy_within(at..at + here, arriving.joined);
        }
        arriving.joined += here;
        arriving.left -= here;
        (arriving.left > 0).then_some(arriving.left)
    }

    /// Closes the gap that marks have left behind what is joined.
    fn close(&mut self, gap: usize) {
        if gap > 0 {
            let joined = self.arriving.as_ref().map_or(0, |a| a.joined);
            self.buffer.copy_within(joined + gap.., joined);
            self.buffer.truncate(self.buffer.len() - gap);
        }
    }

    /// Takes what a record of `total` bytes still needs of the budget; says how much if it is not there.
    fn missing(&mut self, total: usize) -> Option<u32> {
        // An empty record counts too, so that every record has a permit.
        let missing = total.max(1).saturating_sub(self.held_bytes);
        if missing == 0 {
            return None;
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        match Arc::clone(&self.budget).try_acquire_many_owned(missing) {
            Ok(permit) => {
                self.grant(permit);
                None
            }
            Err(_) => Some(missing),
        }
    }

    fn want(&mut self, bytes: usize) -> Next {
        self.buffer.reserve(bytes.max(READ_BYTES));
        Next::Bytes
    }

    /// Takes the record, which is joined, out of the buffer, and the marks behind it.
    fn take(&mut self, gap: usize) -> io::Result<Accounted> {
        let memory = self.held.take().ok_or(io::ErrorKind::InvalidData)?;
        self.held_bytes = 0;
        let bytes = self.arriving.take().map_or(0, |a| a.joined);
        let record = self.buffer.split_to(bytes).freeze();
        self.buffer.advance(gap);
        Ok((record, memory))
    }
}
