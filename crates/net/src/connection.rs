//! One client connection: records in, replies out, in one task.
//!
//! Every turn begins what has arrived whole, writes what is ready, and then waits for more of either.
//! Requests that take longer run as tasks beside it and hand their verdicts back.
//!
//! Memory for large requests and for answers comes from budgets that all connections share; while there is none, this
//! connection waits for it and goes on with everything else. What its requests take stays accounted for until they are
//! done, also when the connection has ended before.

use crate::budget::{Permit, SHORT, Waiting};
use crate::delivery::{Deliveries, Line, NOTED_IN_ALL_MAX, NOTED_MAX, NOTED_WHEN_MANY_MAX, Seen};
use crate::gate::Entry;
use crate::input::{Input, Lease, Next, SLAB_BYTES};
use crate::listener::Seat;
use crate::output::Output;
use crate::party::{Farewell, Party};
use crate::purse::{self, Purse, Short};
use crate::{Begun, Handler, Pass, Server, Verdict, sys};
use bytes::Bytes;
use haven_rpc::record::HEADER_BYTES;
use haven_xdr::Gather;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

/// Most memory that a connection takes without asking: its slab, its purse, and room for itself and its task.
pub(crate) const OWN_BYTES: usize = SLAB_BYTES + purse::OWN_BYTES + (16 << 10);
/// How often replies that may not leave are looked at again.
const ANSWER_POLL: Duration = Duration::from_millis(2);
/// How often it is looked whether replies have arrived on which a connection waits: nothing else says so.
const OWED_POLL: Duration = Duration::from_millis(20);
/// While more bytes of replies than this wait to be written, nothing new is begun.
const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// What a request takes while it is under way, beside itself and its answer.
const REQUEST_BYTES: usize = 3 << 10;
/// A peer that has sent or taken so much has moved.
const MOVE_BYTES: usize = 32 << 10;

/// Serves the connection until either side ends it or the gate hangs up.
pub(crate) async fn serve<H: Handler>(
    server: &Arc<Server<H>>,
    stream: TcpStream,
    line: Arc<Line>,
    mut seat: Seat<H>,
    mut hang_ups: watch::Receiver<u64>,
) {
    let mut stream = Disconnecting(stream);
    let (read, write) = stream.0.split();
    let (party, mut told) = (Arc::clone(&seat.party), seat.told());
    let peer = line.ends.remote;
    let mut connection = Connection::new(server, Arc::clone(&line), write, seat);
    let mut by_peer = false;
    tokio::select! {
        biased;
        _ = hang_ups.changed() => debug!(%peer, "hung up"),
        () = line.hung_up() => debug!(%peer, "hung up: its client has another connection"),
        Some(why) = async { (&mut told).await.ok() } => tell_farewell(server, peer, why),
        end = connection.run(read) => {
            by_peer = is_by_peer(&end);
            tell_end(server, peer, &end);
        }
        () = party.unused(server.limits.idle) => debug!(%peer, "closed a connection that was not used"),
    }
    connection.conclude(by_peer);
}

/// Whether it is the peer that ended a connection, by FIN or by reset: some clients always reset. A connection that is
/// destroyed on this machine says `ConnectionAborted`.
fn is_by_peer(why: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(why.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Says why a connection ended: aloud, but rarely, if its peer misbehaved.
fn tell_end<H>(server: &Server<H>, peer: SocketAddr, why: &io::Error) {
    use io::ErrorKind::{InvalidData, TimedOut};
    if !matches!(why.kind(), InvalidData | TimedOut) {
        debug!(%peer, %why, "connection ended");
        return;
    }
    server
        .misbehaved
        .note(peer.ip().to_canonical(), Instant::now());
    if let Some(left_out) = server.complaints.misbehaved.speak() {
        warn!(%peer, %why, left_out, "closed a connection whose client misbehaves");
    }
}

/// Says that a connection was ended for others.
fn tell_farewell<H>(server: &Server<H>, peer: SocketAddr, why: Farewell) {
    match why {
        Farewell::GaveWay => debug!(%peer, "closed an idle connection: its place was needed"),
        Farewell::StoodStill => {
            server.lost.note(peer.ip().to_canonical(), Instant::now());
            if let Some(left_out) = server.complaints.lost.speak() {
                warn!(
                    %peer, left_out,
                    "closed a connection: memory is short, and its client has neither sent nor taken anything for {} s",
                    SHORT.as_secs()
                );
            }
        }
    }
}

/// Disconnects when dropped. Closing would not do: another process may hold the socket too, so that a
/// connection outlives ours.
struct Disconnecting(TcpStream);

impl Drop for Disconnecting {
    fn drop(&mut self) {
        // One that is over already needs nothing.
        let _ = rustix::net::connect_unspec(&self.0);
    }
}

struct Connection<'a, H: Handler> {
    server: &'a Arc<Server<H>>,
    line: Arc<Line>,
    write: WriteHalf<'a>,
    party: Arc<Party>,
    input: Input,
    output: Output,
    deliveries: Deliveries,
    /// For what is under way, and for the output.
    purse: Purse,
    /// What waits for memory, and in which queue.
    waiting: Option<(Need, Waiting)>,
    /// A request for whose answer there was no room yet.
    held_back: Option<Request>,
    /// What tasks hand back, and what was taken for them. As many places as tasks: a finished one never waits.
    done: mpsc::Receiver<(Verdict, usize)>,
    done_to: mpsc::Sender<(Verdict, usize)>,
    tasks: usize,
    /// What outlives this connection as long as a task does.
    rest: Arc<Rest<H>>,
    seat: Option<Seat<H>>,
    /// Whether large requests of this client are taken in, by which version of the rules.
    let_in: Option<(u64, bool)>,
    /// Since when the record that is arriving has been.
    record_since: Option<Instant>,
    /// Since when the peer has taken nothing of what waits for it.
    stuck_since: Option<Instant>,
    /// Whether the peer is known to keep us waiting, and the bytes it has sent and taken since it has moved.
    is_still: bool,
    moved_bytes: usize,
}

/// A request that can be begun.
struct Request {
    message: Bytes,
    /// Only its head was taken in.
    is_refused: bool,
    /// What it takes while it is under way, with its answer, at most.
    cost: usize,
}

/// What a connection needs before it can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Memory for what arrives.
    Memory(usize),
    /// Memory for an answer.
    Answer(usize),
}

/// What a connection waits for before it can read on.
enum Blocked {
    /// More bytes.
    Bytes,
    /// Memory of one of the server's budgets.
    Short(Need),
    /// Its own requests: to end, or to be taken by the peer.
    Requests,
}

/// What stays taken when a connection has ended and its tasks have not: the memory, and the place.
struct Rest<H: Handler>(Mutex<Option<(Purse, Seat<H>)>>);

impl<H: Handler> Drop for Connection<'_, H> {
    fn drop(&mut self) {
        self.party.moves();
        if let Some(seat) = &mut self.seat {
            seat.leave();
        }
        let empty = Purse::new(Arc::clone(&self.party), Arc::clone(&self.server.answers));
        let purse = std::mem::replace(&mut self.purse, empty);
        *self.rest.0.lock() = self.seat.take().map(|seat| (purse, seat));
    }
}

impl<'a, H: Handler> Connection<'a, H> {
    fn new(
        server: &'a Arc<Server<H>>,
        line: Arc<Line>,
        write: WriteHalf<'a>,
        seat: Seat<H>,
    ) -> Self {
        let (done_to, done) = mpsc::channel(server.limits.inflight_per_connection_max);
        let (own, requests) = (Arc::clone(&seat.party), Arc::clone(&server.requests));
        Self {
            server,
            line,
            write,
            input: Input::new(Arc::clone(&own), requests, &server.limits),
            output: Output::default(),
            deliveries: Deliveries::new(),
            purse: Purse::new(Arc::clone(&own), Arc::clone(&server.answers)),
            party: own,
            waiting: None,
            held_back: None,
            done,
            done_to,
            tasks: 0,
            rest: Arc::new(Rest(Mutex::new(None))),
            seat: Some(seat),
            let_in: None,
            record_since: None,
            stuck_since: None,
            is_still: false,
            moved_bytes: 0,
        }
    }

    async fn run(&mut self, mut read: ReadHalf<'_>) -> io::Error {
        loop {
            if let Err(why) = self.turn(&mut read).await {
                return why;
            }
        }
    }

    async fn turn(&mut self, read: &mut ReadHalf<'_>) -> io::Result<()> {
        let blocked = self.begin_arrived().await?;
        let before = self.output.bytes();
        let may_answer = before == 0 || self.write_ready()?;
        let owed = self.owes_much();
        if owed {
            self.look(false);
        }
        let has_gone = self.output.bytes() < before || owed && !self.owes_much();
        if !matches!(blocked, Blocked::Bytes) && has_gone {
            // What was in the way may just have been written, or has arrived.
            return Ok(());
        }
        let held = self.server.gate.is_suspended();
        self.note_progress(&blocked, may_answer, held);
        self.queue(&blocked);
        let deadline = self.deadline(may_answer, held);
        let line = Arc::clone(&self.line);
        tokio::select! {
            verdict = self.done.recv(), if self.tasks > 0 => {
                self.tasks -= 1;
                self.party.set_tasks(self.tasks);
                if let Some((verdict, cost)) = verdict {
                    self.take(verdict, cost)?;
                }
            }
            got = async { read.read_buf(&mut self.input.room()).await }, if matches!(blocked, Blocked::Bytes) => {
                match got? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    bytes => self.moved_bytes += bytes,
                }
                // Before anything of it is begun.
                if self.deliveries.noted() > 0 {
                    self.look(false);
                }
            }
            () = line.asked() => self.look(true),
            permit = granted(&mut self.waiting), if self.waiting.is_some() => self.grant(permit),
            ready = self.write.writable(), if may_answer && !self.output.is_empty() => ready?,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                self.check_patience()?;
            }
            () = self.server.gate.resumed(), if held => {}
        }
        Ok(())
    }

    /// Begins every request that has arrived whole, as far as there is room for the answers.
    async fn begin_arrived(&mut self) -> io::Result<Blocked> {
        loop {
            if !self.has_room() {
                return Ok(Blocked::Requests);
            }
            if let Some(request) = self.held_back.take()
                && let Some(blocked) = self.begin_if_room(request)?
            {
                return Ok(blocked);
            }
            let (message, is_refused) = match self.input.next()? {
                Next::Record(record) => (record, false),
                Next::Refused(head) => (head, true),
                Next::Large => {
                    let is_let_in = self.is_let_in().await;
                    self.input.admit(is_let_in);
                    continue;
                }
                Next::Bytes => return Ok(Blocked::Bytes),
                Next::Memory(bytes) => return Ok(Blocked::Short(Need::Memory(bytes))),
            };
            self.record_since = None;
            self.party.count_request();
            let cost = REQUEST_BYTES + HEADER_BYTES + self.server.handler.answer_bytes(&message);
            self.held_back = Some(Request {
                message,
                is_refused,
                cost,
            });
        }
    }

    /// Begins a request, or keeps it and says what is in the way.
    fn begin_if_room(&mut self, request: Request) -> io::Result<Option<Blocked>> {
        let blocked = match self.purse.take(request.cost) {
            Ok(()) => {
                self.begin(request)?;
                return Ok(None);
            }
            Err(Short::Own) => Blocked::Requests,
            Err(Short::Shared(bytes)) => Blocked::Short(Need::Answer(bytes)),
        };
        self.held_back = Some(request);
        Ok(Some(blocked))
    }

    /// Whether another request may be begun.
    fn has_room(&self) -> bool {
        self.tasks < self.server.limits.inflight_per_connection_max
            && self.output.bytes() <= OUTPUT_BYTES_MAX
            && !self.owes_much()
    }

    /// Whether so many noted replies have not arrived that nothing more is begun.
    fn owes_much(&self) -> bool {
        let max = match self.server.noted.load(Ordering::Relaxed) {
            ..NOTED_IN_ALL_MAX => NOTED_MAX,
            _ => NOTED_WHEN_MANY_MAX,
        };
        self.deliveries.noted() >= max
    }

    /// Asks the kernel what has arrived; `closely`, also what is to be seen of the peer.
    fn look(&mut self, closely: bool) {
        let (socket, now) = (self.write.as_ref(), Instant::now().into_std());
        let Ok(unacknowledged) = sys::unacknowledged_bytes(socket) else {
            // Then it is not known; the socket's end is told by reading.
            return;
        };
        let mut found = self.deliveries.look(unacknowledged, now);
        if closely
            && let Ok(peer) = sys::peer(socket)
            && let Some(heard_at) = now.checked_sub(peer.silent)
        {
            let is_over = peer.is_over;
            found.seen = Some(Seen { heard_at, is_over });
        }
        let arrived = found.arrived.len();
        self.server.noted.fetch_sub(arrived, Ordering::Relaxed);
        self.server.handler.looked(&self.line, found);
    }

    /// The connection has ended.
    fn conclude(mut self, by_peer: bool) {
        self.look(false);
        let left = self.deliveries.noted();
        self.server.noted.fetch_sub(left, Ordering::Relaxed);
        self.server.handler.ended(&self.line, by_peer);
    }

    /// Whether a large request of this client is taken in; not if no rule lets it in.
    async fn is_let_in(&mut self) -> bool {
        let rules = self.server.handler.rules_version();
        let known = self.let_in.filter(|(version, _)| *version == rules);
        let is_let_in = match known {
            Some((_, known)) => known,
            None => self.server.handler.lets_in(self.line.ends).await,
        };
        self.let_in = Some((rules, is_let_in));
        if !is_let_in {
            let peer = self.line.ends.remote;
            self.server.refused.note(self.party.address, Instant::now());
            if let Some(left_out) = self.server.complaints.refused.speak() {
                warn!(%peer, left_out, "refused a large request: nothing is exported to its client");
            }
        }
        is_let_in
    }

    /// Waits in the queue for what is short, and in no other.
    fn queue(&mut self, blocked: &Blocked) {
        let need = match blocked {
            Blocked::Short(need) => *need,
            Blocked::Bytes | Blocked::Requests => {
                self.waiting = None;
                return;
            }
        };
        if self
            .waiting
            .as_ref()
            .is_some_and(|(queued, _)| *queued == need)
        {
            return;
        }
        // Its place first: of two queues it stands in one.
        self.waiting = None;
        let waiting = match need {
            Need::Memory(bytes) => {
                let grows = self.input.permit();
                self.server.requests.wait(&self.party, bytes, grows)
            }
            Need::Answer(bytes) => self.purse.wait(bytes),
        };
        self.waiting = Some((need, waiting));
    }

    fn grant(&mut self, permit: Option<Permit>) {
        match (self.waiting.take(), permit) {
            (Some((Need::Memory(_), _)), Some(permit)) => self.input.grant(permit),
            (Some((Need::Answer(_), _)), Some(permit)) => self.purse.grant(permit),
            _ => {}
        }
    }

    fn begin(&mut self, request: Request) -> io::Result<()> {
        let cost = request.cost;
        match self.server.gate.try_enter() {
            Entry::Pass(pass) => match begin(self.server, &self.line, request) {
                Begun::Done(verdict) if pass.is_valid() => return self.take(verdict, cost),
                Begun::Done(_) => self.purse.settle(cost, 0),
                Begun::Work(work) => {
                    let server = Arc::clone(self.server);
                    self.spawn(cost, async move { finish(&server, &pass, work).await });
                }
            },
            Entry::Later => {
                let (server, line) = (Arc::clone(self.server), Arc::clone(&self.line));
                self.spawn(cost, async move { admit(&server, &line, request).await });
            }
            Entry::Never => self.purse.settle(cost, 0),
        }
        Ok(())
    }

    /// Runs what takes longer as a task that hands its verdict back.
    fn spawn(&mut self, cost: usize, work: impl Future<Output = Verdict> + Send + 'static) {
        let done = self.done_to.clone();
        let held: (Arc<Lease>, Arc<Rest<H>>) = (self.input.lease(), Arc::clone(&self.rest));
        self.tasks += 1;
        self.party.set_tasks(self.tasks);
        tokio::spawn(async move {
            let verdict = work.await;
            let (lease, rest) = held;
            drop(lease);
            // Nobody waits for it any more if the connection has ended.
            let _ = done.send((verdict, cost)).await;
            drop(rest);
        });
    }

    fn take(&mut self, verdict: Verdict, cost: usize) -> io::Result<()> {
        match verdict {
            Verdict::Reply(reply) => {
                self.push(reply, None, cost);
                Ok(())
            }
            Verdict::Noted(reply, number) => {
                self.server.noted.fetch_add(1, Ordering::Relaxed);
                self.push(reply, Some(number), cost);
                Ok(())
            }
            Verdict::Silent => {
                self.purse.settle(cost, 0);
                Ok(())
            }
            Verdict::HangUp => Err(io::Error::other("this node cannot answer")),
            Verdict::Garbage => {
                let why = "the peer does not speak ONC RPC";
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }

    /// Queues a reply, for which `cost` was taken.
    fn push(&mut self, reply: Gather, number: Option<u64>, cost: usize) {
        let before = self.output.bytes();
        self.output.push(reply);
        let bytes = self.output.bytes() - before;
        self.purse.settle(cost, bytes);
        self.deliveries.pushed(bytes, number);
    }

    /// Writes as much as the socket takes; says whether this node may answer at all. An answer is never
    /// dropped on a living connection, the client would wait for it: either this node may answer again
    /// soon, or it loses leadership and hangs up.
    fn write_ready(&mut self) -> io::Result<bool> {
        while !self.output.is_empty() {
            if !self.may_answer() {
                return Ok(false);
            }
            let (slices, count) = self.output.slices();
            match self.write.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    let freed = self.output.advance(written);
                    self.purse.settle(freed, 0);
                    self.deliveries.wrote(written, Instant::now().into_std());
                    self.moved_bytes += written;
                    self.stuck_since = None;
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) => return Err(why),
            }
        }
        Ok(true)
    }

    fn may_answer(&self) -> bool {
        self.server.gate.lets_out() && self.server.handler.may_answer()
    }

    /// What a peer cannot do while this node is `held` at the gate is not counted: it may not even reach it.
    fn note_progress(&mut self, blocked: &Blocked, may_answer: bool, held: bool) {
        let awaited = matches!(blocked, Blocked::Bytes) && !held;
        if awaited && self.input.is_amid_record() {
            self.record_since.get_or_insert_with(Instant::now);
        } else {
            // Nothing arrives, or it is we who do not read.
            self.record_since = None;
        }
        if self.output.is_empty() || held {
            self.stuck_since = None;
        } else {
            self.stuck_since.get_or_insert_with(Instant::now);
        }
        // Whoever holds memory and moves too little has to give way when others need it.
        let owes =
            awaited && self.input.is_amid_large() || self.stuck_since.is_some() && may_answer;
        if !owes && self.is_still {
            self.party.moves();
        } else if owes && (!self.is_still || self.moved_bytes >= MOVE_BYTES) {
            self.party.stands_still(Instant::now());
            self.moved_bytes = 0;
        }
        self.is_still = owes;
        if self.tasks > 0
            || self.held_back.is_some()
            || self.record_since.or(self.stuck_since).is_some()
        {
            self.party.works();
        } else {
            self.party.rests(Instant::now());
        }
    }

    /// When this connection has to be looked at again though nothing happened.
    fn deadline(&self, may_answer: bool, held: bool) -> Option<Instant> {
        if held {
            return None;
        }
        if !may_answer {
            return Some(Instant::now() + ANSWER_POLL);
        }
        let over = |since: Instant| since + self.server.limits.patience;
        let insists_at = self
            .waiting
            .as_ref()
            .map(|(_, waiting)| waiting.insists_at());
        let all = [
            self.record_since.map(over),
            self.stuck_since.map(over),
            self.owes_much().then(|| Instant::now() + OWED_POLL),
            insists_at,
        ];
        all.into_iter().flatten().min()
    }

    fn check_patience(&mut self) -> io::Result<()> {
        let (now, patience) = (Instant::now(), self.server.limits.patience);
        if let Some((_, waiting)) = &mut self.waiting
            && waiting.insists_at() <= now
        {
            waiting.insist(now);
        }
        let over = |since: Option<Instant>| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= patience)
        };
        let timed_out = |what| Err(io::Error::new(io::ErrorKind::TimedOut, what));
        if over(self.record_since) {
            return timed_out("a record took too long");
        }
        // A node that may not answer is not waiting for its peer.
        if over(self.stuck_since) && self.may_answer() {
            return timed_out("the peer does not read");
        }
        Ok(())
    }
}

async fn granted(waiting: &mut Option<(Need, Waiting)>) -> Option<Permit> {
    waiting.as_mut()?.1.granted().await
}

fn begin<H: Handler>(server: &Server<H>, line: &Arc<Line>, request: Request) -> Begun<H::Work> {
    if request.is_refused {
        return Begun::Done(server.handler.refuse(line.ends, request.message));
    }
    server.handler.begin(line, request.message)
}

/// Lets a request in that has to wait at the gate.
async fn admit<H: Handler>(server: &Server<H>, line: &Arc<Line>, request: Request) -> Verdict {
    let Some(pass) = server.gate.enter().await else {
        return Verdict::Silent;
    };
    match begin(server, line, request) {
        Begun::Done(verdict) if pass.is_valid() => verdict,
        Begun::Done(_) => Verdict::Silent,
        Begun::Work(work) => finish(server, &pass, work).await,
    }
}

/// When the gate closes, the answer is no longer ours to give, and the request must not live on here: the
/// hang-up that follows every closing makes the client ask elsewhere.
async fn finish<H: Handler>(server: &Server<H>, pass: &Pass, work: H::Work) -> Verdict {
    tokio::select! {
        biased;
        () = pass.spoiled() => Verdict::Silent,
        verdict = server.handler.finish(work) => verdict,
    }
}
