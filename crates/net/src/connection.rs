//! One client connection: records in, replies out, in one task.
//!
//! Every turn begins what has arrived whole, writes what is ready, and then waits for more of either.
//! Requests that take longer run as tasks beside it and hand their verdicts back.

use crate::delivery::{Deliveries, Line, NOTED_IN_ALL_MAX, NOTED_MAX, NOTED_WHEN_MANY_MAX, Seen};
use crate::gate::Entry;
use crate::input::{Accounted, Input, Next};
use crate::output::Output;
use crate::{Begun, Handler, Pass, Server, Verdict, sys};
use bytes::Bytes;
use haven_xdr::Gather;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

/// How often replies that may not leave are looked at again.
const ANSWER_POLL: Duration = Duration::from_millis(2);
/// While more bytes of replies than this wait to be written, nothing new is begun.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// Serves the connection until either side ends it or the gate hangs up.
pub(crate) async fn serve<H: Handler>(
    server: &Arc<Server<H>>,
    stream: TcpStream,
    line: Arc<Line>,
    mut hang_ups: watch::Receiver<u64>,
) {
    let mut stream = Disconnecting(stream);
    let (read, write) = stream.0.split();
    let activity = Activity::default();
    let peer = line.ends.remote;
    let mut connection = Connection::new(server, Arc::clone(&line), write, &activity);
    let mut by_peer = false;
    tokio::select! {
        biased;
        _ = hang_ups.changed() => debug!(%peer, "hung up"),
        () = line.hung_up() => debug!(%peer, "hung up: its client has another connection"),
        end = connection.run(read) => {
            by_peer = is_by_peer(&end);
            tell_end(server, peer, &end);
        }
        () = activity.over(server.limits.idle) => debug!(%peer, "closed a connection that was not used"),
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
    } else if let Some(left_out) = server.complaints.misbehaved.speak() {
        warn!(%peer, %why, left_out, "closed a connection whose client misbehaves");
    }
}

/// Whether a connection is used: looked at now and then, so that no request pays for a timer.
#[derive(Default)]
struct Activity {
    requests: AtomicU64,
    tasks: AtomicUsize,
}

impl Activity {
    /// Returns after one to two times `limit` without a request.
    async fn over(&self, limit: Option<Duration>) {
        let Some(limit) = limit else {
            return std::future::pending().await;
        };
        let mut seen = 0;
        loop {
            tokio::time::sleep(limit).await;
            let requests = self.requests.load(Ordering::Relaxed);
            if requests == seen && self.tasks.load(Ordering::Relaxed) == 0 {
                return;
            }
            seen = requests;
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
    input: Input,
    output: Output,
    deliveries: Deliveries,
    /// What tasks hand back. As many places as tasks: a finished one never waits.
    done: mpsc::Receiver<Verdict>,
    done_to: mpsc::Sender<Verdict>,
    tasks: usize,
    activity: &'a Activity,
    /// Since when the record that is arriving has been.
    record_since: Option<Instant>,
    /// Since when the peer has taken nothing of what waits for it.
    stuck_since: Option<Instant>,
}

/// What a connection waits for before it can read on.
enum Blocked {
    /// More bytes.
    Bytes,
    /// Memory of the server's budget.
    Memory(u32),
    /// Its own requests: to end, or to be taken by the peer.
    Requests,
}

impl<'a, H: Handler> Connection<'a, H> {
    fn new(
        server: &'a Arc<Server<H>>,
        line: Arc<Line>,
        write: WriteHalf<'a>,
        activity: &'a Activity,
    ) -> Self {
        let (done_to, done) = mpsc::channel(server.limits.inflight_per_connection_max);
        Self {
            server,
            line,
            write,
            input: Input::new(Arc::clone(&server.memory)),
            output: Output::default(),
            deliveries: Deliveries::new(),
            done,
            done_to,
            tasks: 0,
            activity,
            record_since: None,
            stuck_since: None,
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
        let blocked = self.begin_arrived()?;
        let may_answer = self.output.is_empty() || self.write_ready()?;
        if self.owes_much() {
            self.look(false);
        }
        if matches!(blocked, Blocked::Requests) && self.has_room() {
            // What was in the way has just been written.
            return Ok(());
        }
        let held = self.server.gate.is_suspended();
        self.note_progress(&blocked, held);
        let deadline = self.deadline(may_answer, held);
        let (budget, line) = (Arc::clone(&self.server.memory), Arc::clone(&self.line));
        tokio::select! {
            verdict = self.done.recv(), if self.tasks > 0 => {
                self.tasks -= 1;
                self.activity.tasks.store(self.tasks, Ordering::Relaxed);
                if let Some(verdict) = verdict {
                    self.take(verdict)?;
                }
            }
            got = read.read_buf(&mut self.input.buffer), if matches!(blocked, Blocked::Bytes) => {
                if got? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                // Before anything of it is begun.
                if self.deliveries.noted() > 0 {
                    self.look(false);
                }
            }
            () = line.asked() => self.look(true),
            permit = budget.acquire_many_owned(blocked.memory()), if blocked.memory() > 0 => {
                let permit = permit.map_err(|_| io::Error::other("the server is going away"))?;
                self.input.grant(permit);
            }
            ready = self.write.writable(), if may_answer && !self.output.is_empty() => ready?,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                self.check_patience()?;
            }
            () = self.server.gate.resumed(), if held => {}
        }
        Ok(())
    }

    /// Begins every request that has arrived whole.
    fn begin_arrived(&mut self) -> io::Result<Blocked> {
        loop {
            if !self.has_room() {
                return Ok(Blocked::Requests);
            }
            match self.input.next(&self.server.limits)? {
                Next::Record(record) => {
                    self.record_since = None;
                    self.activity.requests.fetch_add(1, Ordering::Relaxed);
                    self.begin(record)?;
                }
                Next::Bytes => return Ok(Blocked::Bytes),
                Next::Memory(bytes) => return Ok(Blocked::Memory(bytes)),
            }
        }
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

    fn begin(&mut self, (record, memory): Accounted) -> io::Result<()> {
        match self.server.gate.try_enter() {
            Entry::Pass(pass) => match self.server.handler.begin(&self.line, record) {
                Begun::Done(verdict) if pass.is_valid() => return self.take(verdict),
                Begun::Done(_) => {}
                Begun::Work(work) => {
                    let server = Arc::clone(self.server);
                    self.spawn(memory, async move { finish(&server, &pass, work).await });
                }
            },
            Entry::Later => {
                let (server, line) = (Arc::clone(self.server), Arc::clone(&self.line));
                self.spawn(memory, async move { admit(&server, &line, record).await });
            }
            Entry::Never => {}
        }
        Ok(())
    }

    /// Runs what takes longer as a task that hands its verdict back.
    fn spawn(
        &mut self,
        memory: OwnedSemaphorePermit,
        work: impl Future<Output = Verdict> + Send + 'static,
    ) {
        let done = self.done_to.clone();
        self.tasks += 1;
        self.activity.tasks.store(self.tasks, Ordering::Relaxed);
        tokio::spawn(async move {
            let verdict = work.await;
            drop(memory);
            // Nobody waits for it any more if the connection has ended.
            let _ = done.send(verdict).await;
        });
    }

    fn take(&mut self, verdict: Verdict) -> io::Result<()> {
        match verdict {
            Verdict::Reply(reply) => {
                self.push(reply, None);
                Ok(())
            }
            Verdict::Noted(reply, number) => {
                self.server.noted.fetch_add(1, Ordering::Relaxed);
                self.push(reply, Some(number));
                Ok(())
            }
            Verdict::Silent => Ok(()),
            Verdict::HangUp => {
                let why = "the peer does not speak ONC RPC";
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }

    fn push(&mut self, reply: Gather, number: Option<u64>) {
        let before = self.output.bytes();
        self.output.push(reply);
        self.deliveries.pushed(self.output.bytes() - before, number);
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
                    self.output.advance(written);
                    self.deliveries.wrote(written, Instant::now().into_std());
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
    fn note_progress(&mut self, blocked: &Blocked, held: bool) {
        if held {
            (self.record_since, self.stuck_since) = (None, None);
            return;
        }
        if matches!(blocked, Blocked::Bytes) && self.input.is_amid_record() {
            self.record_since.get_or_insert_with(Instant::now);
        } else {
            // Nothing arrives, or it is we who do not read.
            self.record_since = None;
        }
        if self.output.is_empty() {
            self.stuck_since = None;
        } else {
            self.stuck_since.get_or_insert_with(Instant::now);
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
        let since = match (self.record_since, self.stuck_since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        since.map(|since| since + self.server.limits.patience)
    }

    fn check_patience(&self) -> io::Result<()> {
        let patience = self.server.limits.patience;
        let over = |since: Option<Instant>| since.is_some_and(|s| s.elapsed() >= patience);
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

impl Blocked {
    const fn memory(&self) -> u32 {
        match self {
            Self::Memory(bytes) => *bytes,
            Self::Bytes | Self::Requests => 0,
        }
    }
}

/// Lets a request in that has to wait at the gate.
async fn admit<H: Handler>(server: &Server<H>, line: &Arc<Line>, record: Bytes) -> Verdict {
    let Some(pass) = server.gate.enter().await else {
        return Verdict::Silent;
    };
    match server.handler.begin(line, record) {
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
