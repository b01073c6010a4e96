//! What a connection has received: cuts records (RFC 5531 section 11) out of the bytes.
//!
//! Small records, those that fit into a slab with their mark, lie one behind the other in it; a connection has one of its own, and further ones, while requests
//! that are under way keep it, are from the server's budget. A record that a slab does not hold gets room of its own, from
//! the budget, and only as its bytes come.
//!
//! Invariants
//! - Of the budget a connection has at most [`GROWTH`] times what it has sent, or a slab, as long as memory is not
//!   plentiful. What is only announced counts nothing.
//! - A small record needs nothing of the budget: it is taken in as soon as the connection's former ones are done.
//! - Memory stays accounted for until the requests that lie in it are done: see [`Input::lease`].
//! - A record's fragments are joined as they arrive, each byte moved at most once: how many fragments there are costs
//!   neither memory nor time worth mentioning. (TI-RPC clients send one for each of their send buffers: 1 MiB in 500.)
//! - Its bytes are bounded, and so are fragments that carry nothing.
//!
//! It must not know sockets.

use crate::Limits;
use crate::budget::{Budget, Permit};
use crate::party::Party;
use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use haven_rpc::record::{FragmentHeader, HEADER_BYTES};
use std::io;
use std::sync::{Arc, Weak};

/// Size of a slab.
pub(crate) const SLAB_BYTES: usize = 16 << 10;
/// A slab with less room than this part of it (one in so many) is not read into, if that is not the end of a record that
/// is awaited.
const READ_PART: usize = 8;
/// A record that arrives gets room for so many times what has come of it.
const GROWTH: usize = 4;
/// So much is kept of a record that is not taken in: more than an RPC header has.
pub(crate) const HEAD_BYTES_MAX: usize = 1 << 10;
/// Most fragments of a record that carry nothing and are not its last: a peer that sends more is stalling.
pub(crate) const EMPTY_FRAGMENTS_MAX: usize = 64;

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A whole record.
    Record(Bytes),
    /// The head of a record that was not taken in, which has ended.
    Refused(Bytes),
    /// A record begins that is not small: say by [`Input::admit`] whether to take it in.
    Large,
    /// More bytes are needed: read into [`Input::room`].
    Bytes,
    /// So many bytes of the memory budget are needed first: see [`Input::grant`].
    Memory(usize),
}

/// Accounts for memory in which requests lie, as long as somebody has it.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// `None`: it is the connection's own. Kept for its end only.
    _permit: Option<Permit>,
}

impl Lease {
    fn shared(permit: Permit) -> Arc<Self> {
        Arc::new(Self {
            _permit: Some(permit),
        })
    }
}

/// See the module's head comment.
pub(crate) struct Input {
    party: Arc<Party>,
    budget: Arc<Budget>,
    record_bytes_max: usize,
    /// Size of a slab.
    slab_bytes: usize,
    slab: BytesMut,
    /// Shared with the requests that lie in the slab and are under way.
    slab_lease: Arc<Lease>,
    /// That of the slab that is the connection's own, as long as somebody has it.
    own: Weak<Lease>,
    /// Room for a record that is not small.
    large: Option<Large>,
    /// That of the record that was given last, if it was not small.
    large_lease: Option<Arc<Lease>>,
    arriving: Option<Arriving>,
    /// How much to read at most.
    room: usize,
}

/// Room for one record; nothing else is read into it.
struct Large {
    buffer: BytesMut,
    /// As many bytes as the buffer has room for.
    permit: Permit,
}

/// A record of which at least one mark has arrived.
#[derive(Default)]
struct Arriving {
    /// How many bytes of it have come.
    come: usize,
    /// How many of these lie at the front of the buffer.
    joined: usize,
    /// How many are to come of the present fragment.
    left: usize,
    /// Whether that is the last one.
    last: bool,
    /// Fragments that carried nothing.
    empty: usize,
    /// Whether it is taken in, once that is decided.
    admitted: Option<bool>,
    /// What is kept of it if it is not.
    head: BytesMut,
}

impl Input {
    /// Nothing received yet.
    pub fn new(party: Arc<Party>, budget: Arc<Budget>, limits: &Limits) -> Self {
        Self::with_slabs(SLAB_BYTES, party, budget, limits)
    }

    /// With slabs of another size.
    pub fn with_slabs(
        slab_bytes: usize,
        party: Arc<Party>,
        budget: Arc<Budget>,
        limits: &Limits,
    ) -> Self {
        let lease = Arc::new(Lease::default());
        Self {
            party,
            budget,
            record_bytes_max: limits.record_bytes_max,
            slab_bytes,
            slab: BytesMut::new(),
            own: Arc::downgrade(&lease),
            slab_lease: lease,
            large: None,
            large_lease: None,
            arriving: None,
            room: 0,
        }
    }

    /// Whether a record has begun and is not complete. (Call it when [`Input::next`] wants bytes.)
    pub fn is_amid_record(&self) -> bool {
        self.arriving.is_some() || !self.slab.is_empty()
    }

    /// Whether it has memory of the budget for a record that is not complete.
    pub fn is_amid_large(&self) -> bool {
        self.large.is_some()
    }

    /// Where to read into.
    pub fn room(&mut self) -> Limit<&mut BytesMut> {
        let room = self.room;
        self.buffer().limit(room)
    }

    /// Accounts for the memory of the record that [`Input::next`] gave last: to be kept until that is done.
    pub fn lease(&self) -> Arc<Lease> {
        Arc::clone(self.large_lease.as_ref().unwrap_or(&self.slab_lease))
    }

    /// What a record that waits for memory has already.
    pub fn permit(&self) -> Option<&Permit> {
        self.large.as_ref().map(|large| &large.permit)
    }

    /// Takes what [`Next::Memory`] asked for.
    pub fn grant(&mut self, permit: Permit) {
        if self.large.is_some() || self.outgrows_slab() {
            self.enlarge(permit);
        } else {
            self.change_slab(Lease::shared(permit));
        }
    }

    /// Says whether the record that is [`Next::Large`] is taken in.
    pub fn admit(&mut self, admitted: bool) {
        let Some(arriving) = &mut self.arriving else {
            return;
        };
        arriving.admitted = Some(admitted);
        if !admitted {
            // It is in the slab: a record gets other room only when it is admitted.
            arriving.put_aside(&mut self.slab, 0);
        }
    }

    /// The next record, or what it takes.
    ///
    /// # Errors
    /// A record beyond the limits.
    pub fn next(&mut self) -> io::Result<Next> {
        self.large_lease = None;
        // Bytes of marks between what is joined and what is not looked at yet.
        let mut gap = 0;
        loop {
            if let Some(arriving) = &self.arriving {
                if self.is_large() && arriving.admitted.is_none() {
                    self.close(gap);
                    return Ok(Next::Large);
                }
                gap = self.join(gap);
                let arriving = self.arriving.get_or_insert_default();
                if arriving.left > 0 {
                    self.close(gap);
                    return Ok(self.want());
                }
                if arriving.last {
                    return Ok(self.take(gap));
                }
            }
            let at = gap + self.arriving.as_ref().map_or(0, |a| a.joined);
            let rest = self.buffer().get(at..).unwrap_or_default();
            let Some(mark) = rest.first_chunk() else {
                self.close(gap);
                return Ok(self.want());
            };
            let header = FragmentHeader::parse(*mark);
            self.expect(header)?;
            if at == 0 {
                self.buffer().advance(HEADER_BYTES);
            } else {
                gap += HEADER_BYTES;
            }
        }
    }

    fn buffer(&mut self) -> &mut BytesMut {
        match &mut self.large {
            Some(large) => &mut large.buffer,
            None => &mut self.slab,
        }
    }

    /// Whether the record that arrives is not small.
    fn is_large(&self) -> bool {
        let arriving = self.arriving.as_ref();
        arriving.is_some_and(|a| a.come + a.left > self.slab_bytes - HEADER_BYTES)
    }

    /// Takes note of a fragment that is to come.
    fn expect(&mut self, header: FragmentHeader) -> io::Result<()> {
        let most = self.record_bytes_max;
        let arriving = self.arriving.get_or_insert_default();
        arriving.left = header.len as usize;
        arriving.last = header.last;
        arriving.empty += usize::from(header.len == 0 && !header.last);
        let why = if arriving.come + arriving.left > most {
            format!("a record of more than {most} bytes")
        } else if arriving.empty > EMPTY_FRAGMENTS_MAX {
            format!("a record with more than {EMPTY_FRAGMENTS_MAX} empty fragments")
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// Joins what has come of the present fragment, which lies behind the gap, to what there is; gives the gap that
    /// is then left.
    fn join(&mut self, gap: usize) -> usize {
        let buffer = match &mut self.large {
            Some(large) => &mut large.buffer,
            None => &mut self.slab,
        };
        let Some(arriving) = &mut self.arriving else {
            return gap;
        };
        let at = arriving.joined + gap;
        let here = arriving.left.min(buffer.len() - at);
        if gap > 0 {
            buffer.copy_within(at..at + here, arriving.joined);
        }
        arriving.joined += here;
        arriving.come += here;
        arriving.left -= here;
        if arriving.admitted == Some(false) {
            arriving.put_aside(buffer, gap);
            return 0;
        }
        gap
    }

    /// Closes the gap that marks have left behind what is joined.
    fn close(&mut self, gap: usize) {
        if gap > 0 {
            let joined = self.arriving.as_ref().map_or(0, |a| a.joined);
            let buffer = self.buffer();
            buffer.copy_within(joined + gap.., joined);
            buffer.truncate(buffer.len() - gap);
        }
    }

    /// Takes the record, which is complete, out of the buffer, and the marks behind it.
    fn take(&mut self, gap: usize) -> Next {
        let arriving = self.arriving.take().unwrap_or_default();
        if arriving.admitted == Some(false) {
            return Next::Refused(arriving.head.freeze());
        }
        let Some(mut large) = self.large.take() else {
            let record = self.slab.split_to(arriving.joined).freeze();
            self.slab.advance(gap);
            return Next::Record(record);
        };
        // Nothing of the next one has been read into its room.
        large.buffer.truncate(arriving.joined);
        self.large_lease = Some(Lease::shared(large.permit));
        Next::Record(large.buffer.freeze())
    }

    /// Makes room for what is missing of the fragment, or of its mark.
    fn want(&mut self) -> Next {
        let length = self.buffer().len();
        let arriving = self.arriving.as_ref();
        let mark = HEADER_BYTES - (length - arriving.map_or(0, |a| a.joined)).min(HEADER_BYTES);
        let Some(arriving) = arriving else {
            return self.want_in_slab(mark);
        };
        let missing = if arriving.left == 0 {
            mark
        } else {
            arriving.left
        };
        let refused = arriving.admitted == Some(false);
        if self.large.is_some() || self.outgrows_slab() {
            // A fragment that is not the last is followed by a mark, which belongs to the record.
            let follows = if arriving.last || arriving.left == 0 {
                0
            } else {
                HEADER_BYTES
            };
            return self.want_large(missing + follows);
        }
        // What is refused, or will have other room, is read as far as it goes.
        let any = refused || self.is_large();
        self.want_in_slab(if any { 1 } else { missing })
    }

    /// Whether a record that is taken in and is not small has filled what the slab has for it.
    fn outgrows_slab(&self) -> bool {
        let admitted = self.arriving.as_ref().and_then(|a| a.admitted) == Some(true);
        let full = self.slab.capacity() == self.slab.len();
        admitted && full && self.slab.len() >= self.slab_bytes / READ_PART
    }

    /// Makes room in a slab for `least` more bytes.
    fn want_in_slab(&mut self, least: usize) -> Next {
        let length = self.slab.len();
        let own_is_free = self.own.upgrade().is_none();
        // Room behind requests that are done is used again.
        let _ = self
            .slab
            .try_reclaim(self.slab_bytes.saturating_sub(length));
        let spare = self.slab.capacity() - length;
        self.room = spare;
        let enough = (self.slab_bytes / READ_PART)
            .min((self.slab_bytes - length) / 2)
            .max(least);
        if spare >= enough && !own_is_free {
            return Next::Bytes;
        }
        let lease = if own_is_free {
            let own = Arc::new(Lease::default());
            self.own = Arc::downgrade(&own);
            Some(own)
        } else if Arc::strong_count(&self.slab_lease) == 1 {
            Some(Arc::clone(&self.slab_lease))
        } else {
            let permit = self
                .budget
                .try_take(&self.party, self.slab_bytes, self.slab_bytes);
            permit.map(Lease::shared)
        };
        match lease {
            Some(lease) => self.change_slab(lease),
            None if spare >= least => {}
            None => return Next::Memory(self.slab_bytes),
        }
        Next::Bytes
    }

    /// Goes on in a new slab.
    fn change_slab(&mut self, lease: Arc<Lease>) {
        let mut slab = BytesMut::with_capacity(self.slab_bytes);
        slab.extend_from_slice(&self.slab);
        self.room = slab.capacity() - slab.len();
        self.slab = slab;
        self.slab_lease = lease;
    }

    /// Makes room for `extra` more bytes of a record that is not small, or for some.
    fn want_large(&mut self, extra: usize) -> Next {
        let length = self.buffer().len();
        let has = self.large.as_ref().map_or(0, |l| l.permit.bytes());
        if has > length {
            self.room = extra.min(has - length);
            return Next::Bytes;
        }
        // Of a record in small fragments it is not known how long it will be.
        let is_last = self.arriving.as_ref().is_some_and(|a| a.last);
        let known = length + extra;
        let all = if is_last {
            known
        } else {
            known.max(2 * length)
        };
        let most = all.min(self.record_bytes_max + HEADER_BYTES);
        let least = most.min((GROWTH * length).max(self.slab_bytes));
        match self.budget.try_take(&self.party, least - has, most - has) {
            Some(permit) => {
                self.enlarge(permit);
                self.want_large(extra)
            }
            None => Next::Memory(least - has),
        }
    }

    /// Gives the record that arrives so much more room.
    fn enlarge(&mut self, mut permit: Permit) {
        if let Some(large) = self.large.take() {
            permit.merge(large.permit);
            let mut buffer = BytesMut::with_capacity(permit.bytes());
            buffer.extend_from_slice(&large.buffer);
            self.large = Some(Large { buffer, permit });
        } else {
            let mut buffer = BytesMut::with_capacity(permit.bytes());
            buffer.extend_from_slice(&self.slab);
            self.slab.clear();
            self.large = Some(Large { buffer, permit });
        }
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Input {
    /// Checks that what is used is accounted for, and no more than is allowed.
    pub fn check_memory(&self) {
        assert!(self.slab.capacity() <= self.slab_bytes);
        let come = self.arriving.as_ref().map_or(0, |a| a.come);
        if let Some(large) = &self.large {
            assert!(large.buffer.capacity() <= large.permit.bytes());
            // Marks count, too, and there are no more of them than bytes but for the empty ones.
            let sent = 2 * come + EMPTY_FRAGMENTS_MAX;
            let room = HEADER_BYTES * sent;
            let plentiful = self.budget.look().bytes_max / 16;
            let allowed = (GROWTH * room).max(self.slab_bytes).max(plentiful);
            assert!(large.permit.bytes() <= allowed, "{come} bytes have come");
        }
    }
}

impl Arriving {
    /// Drops what is joined, but for the head, and the marks behind it.
    fn put_aside(&mut self, buffer: &mut BytesMut, gap: usize) {
        let kept = self.joined.min(HEAD_BYTES_MAX - self.head.len());
        self.head.extend_from_slice(&buffer[..kept]);
        buffer.advance(self.joined + gap);
        self.joined = 0;
    }
}

#[cfg(test)]
mod tests;
