//! The load generator's loop: many connections, many calls in flight on each, one thread.
//!
//! A *lane* is one slot of one connection: it has at most one call in flight. An *operation* is one or more calls in
//! a lane, one after the other; its latency runs from the moment its first call is written to the moment its last
//! reply is received. All replies that one receive brings are handled before the calls that follow them are sent
//! with one write. What the calls are is the workload's business.

use super::connection::Connection;
use super::pattern::Pattern;
use super::wire::{Fields, Outbox, Results, Template};
use haven_proto::nfs3::Proc3;
use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Most lanes of one run: a transaction id must have room for the lane and for a count.
pub(super) const LANES_MAX: usize = 4096;
/// Longest latency that is told from longer ones.
const LATENCY_NS_MAX: u64 = 300_000_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;
/// Bytes that can be received, or dropped, at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 64;

/// One slot of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lane {
    /// Among all lanes.
    pub(super) index: usize,
    pub(super) connection: usize,
}

/// What a lane does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A call was written that begins an operation.
    Begin,
    /// A call was written that goes on with the lane's operation, or belongs to none.
    Continue,
    /// Nothing, until another reply has come over this connection.
    Idle,
}

/// What a reply meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The lane's operation is done; it moved so many bytes of file data.
    Done(u64),
    /// It is not, or the call belonged to none.
    More,
}

/// What is to be done in the lanes.
pub(super) trait Workload {
    /// How much of a long reply is looked at.
    fn keep(&self) -> usize {
        usize::MAX
    }

    /// Writes the next call of a lane that has none in flight. A new operation may be begun only if `may_begin`;
    /// once it is false, the workload winds up and in the end leaves every lane idle.
    fn next(&mut self, lane: Lane, may_begin: bool, call: Call<'_>) -> Next;

    /// Takes the reply to the lane's call.
    ///
    /// # Errors
    /// When it is not as it must be, in words.
    fn reply(&mut self, lane: Lane, results: &mut Results<'_>) -> Result<Progress, String>;
}

/// The chance to write one call.
pub(super) struct Call<'a> {
    out: &'a mut Outbox,
    template: &'a Template,
    xid: u32,
}

impl Call<'_> {
    /// Writes it.
    pub(super) fn write(self, proc: Proc3, fields: impl FnOnce(&mut Fields<'_>)) {
        self.out.call(self.template, self.xid, proc, fields);
    }
}

/// When no further operation is begun: whichever comes first.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limit {
    pub(super) ops: Option<u64>,
    pub(super) time: Option<Duration>,
}

/// What was done.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// Latencies of the operations in nanoseconds.
    pub(super) latency: Histogram<u64>,
    pub(super) ops: u64,
    /// Calls, those included that belong to no operation.
    pub(super) calls: u64,
    /// Bytes of file data.
    pub(super) bytes: u64,
    pub(super) elapsed: Duration,
}

/// Connections to one server with everything that belongs to them.
pub(super) struct Connections {
    list: Vec<Connection>,
    epoll: OwnedFd,
    template: Template,
    buffer: Box<[u8]>,
    lanes: Lanes,
    patience: Duration,
}

/// How transaction ids are made: a count above, the lane below. All differ until 2^32 calls were made.
#[derive(Debug)]
struct Lanes {
    depth: usize,
    bits: u32,
    /// Per lane: the count within its transaction ids, and what is in flight.
    counts: Vec<u32>,
}

impl Connections {
    /// `first_xid` should be random: servers know requests again by their transaction ids.
    pub(super) fn new(
        sockets: Vec<TcpStream>,
        depth: usize,
        template: Template,
        first_xid: u32,
        patience: Duration,
    ) -> Result<Self, String> {
        let count = sockets.len() * depth;
        if count == 0 || count > LANES_MAX {
            return Err(format!(
                "connections times depth must lie between 1 and {LANES_MAX}, this is {count}"
            ));
        }
        let words = |e: io::Error| format!("cannot set up the connections: {e}");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| words(e.into()))?;
        let mut list = Vec::new();
        for (i, socket) in sockets.into_iter().enumerate() {
            let flags = epoll::EventFlags::IN;
            epoll::add(&epoll, &socket, epoll::EventData::new_u64(i as u64), flags)
                .map_err(|e| words(e.into()))?;
            list.push(Connection::new(socket).map_err(words)?);
        }
        Ok(Self {
            list,
            epoll,
            template,
            buffer: vec![0; BUFFER_BYTES].into(),
            lanes: Lanes {
                depth,
                bits: count.next_power_of_two().trailing_zeros(),
                counts: vec![first_xid; count],
            },
            patience,
        })
    }

    /// Runs a workload until the limit is reached and everything begun is done.
    ///
    /// # Errors
    /// The first thing that is not as it must be, in words.
    pub(super) fn run(
        &mut self,
        work: &mut impl Workload,
        pattern: &Pattern,
        limit: Limit,
    ) -> Result<Tally, String> {
        let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
            .map_err(|e| e.to_string())?;
        let start = Instant::now();
        let lanes = self.lanes.counts.len();
        let mut run = Run {
            work,
            pattern,
            limit,
            deadline: limit.time.and_then(|t| start.checked_add(t)),
            now: start,
            begun: 0,
            in_flight: 0,
            flights: vec![Flight::default(); lanes],
            idle: (0..self.list.len()).map(|_| Vec::new()).collect(),
            tally: Tally {
                latency,
                ops: 0,
                calls: 0,
                bytes: 0,
                elapsed: Duration::ZERO,
            },
        };
        for connection in 0..self.list.len() {
            self.list[connection].keep(run.work.keep());
            run.idle[connection].extend(self.lanes.of(connection));
            run.feed(self, connection)?;
        }
        while run.in_flight > 0 {
            self.turn(&mut run)?;
        }
        run.tally.elapsed = run.now - start;
        if run.may_begin() && run.limit.ops.is_some() {
            return Err("the workload ran dry before it had done its operations".into());
        }
        Ok(run.tally)
    }

    /// Waits for the sockets once and does what they allow.
    fn turn<W: Workload>(&mut self, run: &mut Run<'_, W>) -> Result<(), String> {
        let nothing = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        let mut events = [nothing; EVENTS_MAX];
        let timeout = Timespec {
            tv_sec: i64::try_from(self.patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(self.patience.subsec_nanos()),
        };
        let count = match epoll::wait(&self.epoll, &mut events[..], Some(&timeout)) {
            Ok(0) => {
                return Err(format!(
                    "no reply within {:?} ({} calls are unanswered): does the server still run?",
                    self.patience, run.in_flight
                ));
            }
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(e) => return Err(format!("cannot wait for replies: {e}")),
        };
        for event in &events[..count] {
            let (flags, data) = (event.flags, event.data);
            let index = data.u64() as usize;
            if flags.contains(epoll::EventFlags::OUT) {
                self.send(run.pattern, index)?;
            }
            if flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                self.receive(run, index)?;
                run.feed(self, index)?;
            }
        }
        Ok(())
    }

    fn receive<W: Workload>(&mut self, run: &mut Run<'_, W>, index: usize) -> Result<(), String> {
        let (lanes, connection) = (&self.lanes, &mut self.list[index]);
        loop {
            run.now = Instant::now();
            let more = connection.receive(&mut self.buffer, |record, whole| {
                run.take_reply(lanes, index, record, whole)
            })?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Sends what waits on a connection; asks to be told when the socket takes more, if it does not take all.
    fn send(&mut self, pattern: &Pattern, index: usize) -> Result<(), String> {
        let connection = &mut self.list[index];
        let all = connection
            .flush(pattern)
            .map_err(|e| format!("a connection broke: {e}"))?;
        if all == connection.blocked {
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, !all);
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.socket, data, flags)
                .map_err(|e| format!("cannot wait for a connection: {e}"))?;
            connection.blocked = !all;
        }
        Ok(())
    }
}

impl Lanes {
    fn of(&self, connection: usize) -> impl Iterator<Item = Lane> + use<> {
        let first = connection * self.depth;
        (first..first + self.depth).map(move |index| Lane { index, connection })
    }

    fn xid(&self, lane: Lane) -> u32 {
        // One lane alone takes no bits, and 32 bits cannot be shifted out: LANES_MAX sees to it.
        (self.counts[lane.index] << self.bits) | lane.index as u32
    }

    fn lane_of(&self, xid: u32) -> usize {
        (xid & ((1 << self.bits) - 1)) as usize
    }
}

/// What a lane has in flight.
#[derive(Debug, Clone, Copy, Default)]
struct Flight {
    xid: Option<u32>,
    /// When its operation began, if it is in one.
    began: Option<Instant>,
}

/// A run under way.
struct Run<'a, W> {
    work: &'a mut W,
    pattern: &'a Pattern,
    limit: Limit,
    deadline: Option<Instant>,
    now: Instant,
    begun: u64,
    in_flight: usize,
    flights: Vec<Flight>,
    /// Per connection: lanes with nothing in flight.
    idle: Vec<Vec<Lane>>,
    tally: Tally,
}

impl<W: Workload> Run<'_, W> {
    fn may_begin(&self) -> bool {
        self.limit.ops.is_none_or(|ops| self.begun < ops)
            && self.deadline.is_none_or(|deadline| self.now < deadline)
    }

    /// Gives every idle lane of a connection its next call, and sends them.
    fn feed(&mut self, all: &mut Connections, index: usize) -> Result<(), String> {
        let mut written = false;
        let mut at = 0;
        while let Some(&lane) = self.idle[index].get(at) {
            let may_begin = self.may_begin();
            let xid = all.lanes.xid(lane);
            let call = Call {
                out: &mut all.list[index].out,
                template: &all.template,
                xid,
            };
            let flight = &mut self.flights[lane.index];
            match self.work.next(lane, may_begin, call) {
                Next::Idle => {
                    at += 1;
                    continue;
                }
                Next::Begin => {
                    debug_assert!(may_begin, "no operation begins after the end");
                    self.begun += 1;
                    flight.began = Some(self.now);
                }
                Next::Continue => {}
            }
            flight.xid = Some(xid);
            let count = &mut all.lanes.counts[lane.index];
            *count = count.wrapping_add(1);
            self.in_flight += 1;
            self.idle[index].swap_remove(at);
            written = true;
        }
        if written && !all.list[index].blocked {
            all.send(self.pattern, index)?;
        }
        Ok(())
    }

    fn take_reply(
        &mut self,
        lanes: &Lanes,
        connection: usize,
        record: &[u8],
        whole: usize,
    ) -> Result<(), String> {
        let (xid, mut results) = Results::open(record, whole)?;
        let lane = Lane {
            index: lanes.lane_of(xid),
            connection,
        };
        let flight = self.flights.get_mut(lane.index);
        let Some(flight) = flight.filter(|f| f.xid == Some(xid)) else {
            return Err(format!("a reply with xid {xid:#x} answers no call"));
        };
        if lane.index / lanes.depth != connection {
            return Err(format!(
                "the reply with xid {xid:#x} came over another connection"
            ));
        }
        flight.xid = None;
        self.in_flight -= 1;
        self.tally.calls += 1;
        if let Progress::Done(bytes) = self.work.reply(lane, &mut results)? {
            let began = flight.began.take().unwrap_or(self.now);
            let took = u64::try_from((self.now - began).as_nanos()).unwrap_or(u64::MAX);
            self.tally.latency.saturating_record(took);
            self.tally.ops += 1;
            self.tally.bytes += bytes;
        }
        self.idle[connection].push(lane);
        Ok(())
    }
}
