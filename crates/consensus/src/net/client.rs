//! Openraft's network: asks of peers what openraft wants asked.
//!
//! One [`Peer`] is one client of openraft and has a connection of its own: one carries entries, one
//! heartbeats, one a snapshot. Votes and transfers are rare and get a fresh connection each, so that
//! none of them meets a stale one.
//!
//! What goes how soon on a connection for appends is up to its [`Pipe`]. A follower that is
//! not needed for a majority gets small ones less often ([`crate::net::turns`]). A
//! caller may drop the stream of answers at any time; the answers it did not wait for are noted and skipped by
//! the next stream on the connection.
//!
//! Openraft tries a peer that refuses connections again at once; [`crate::net::pace`] slows it down.
//!
//! It must not know the log or the machine.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use futures_util::stream::BoxStream;
use openraft::OptionalSend;
use openraft::RaftNetworkFactory;
use openraft::RaftNetworkV2;
use openraft::alias::SnapshotOf;
use openraft::errors::NetworkError;
use openraft::errors::RPCError;
use openraft::errors::ReplicationClosed;
use openraft::errors::StreamingError;
use openraft::errors::Unreachable;
use openraft::network::RPCOption;
use openraft::raft::AppendEntriesResponse;
use openraft::raft::SnapshotResponse;
use openraft::raft::TransferLeaderResponse;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::sleep_until;
use tokio::time::timeout;

use crate::MachineError;
use crate::SnapshotSource;
use crate::Wanted;
use crate::codec;
use crate::handover::Orders;
use crate::lease::Lease;
use crate::machine::Transfer;
use crate::net::frame::WireError;
use crate::net::giving_way;
use crate::net::giving_way::Traffic;
use crate::net::link;
use crate::net::link::LazyLink;
use crate::net::link::Link;
use crate::net::link::Place;
use crate::net::message;
use crate::net::message::Purpose;
use crate::net::message::SMALL_BODY_MAX;
use crate::net::pipe::ANSWER_TIMEOUT;
use crate::net::pipe::Pipe;
use crate::net::turns;
use crate::net::turns::Turns;
use crate::options::SnapshotsSent;
use crate::roster::Record;
use crate::types::AppendRequest;
use crate::types::AppendResult;
use crate::types::TransferRequest;
use crate::types::Types;
use crate::types::Vote;
use crate::types::VoteRequest;
use crate::types::VoteResponse;
use crate::worker::Worker;

/// A heartbeat that is not answered is repeated so often in the time between two. Each counts from its own sending; and
/// where one is lost, the kernel learns it from what arrives after it, and sends it again the sooner.
const REPEATS: u32 = 3;

/// A follower that is busy installing a snapshot for this long is taken for dead.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

/// Makes clients for peers.
pub(crate) struct Network {
    pub(crate) place: Arc<Place>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) transfers: Worker,
    pub(crate) sent: Arc<Mutex<SnapshotsSent>>,
    /// This node has nothing to send.
    pub(crate) witness: bool,
    pub(crate) turns: Arc<Turns>,
    /// Told what becomes of orders to lead.
    pub(crate) orders: Arc<Orders>,
    /// What goes to followers.
    pub(crate) traffic: Arc<Traffic>,
}

impl Network {
    fn peer(&self, id: u64, purpose: Purpose) -> Peer {
        Peer {
            id,
            purpose,
            place: self.place.clone(),
            lease: self.lease.clone(),
            transfers: self.transfers.clone(),
            sent: self.sent.clone(),
            witness: self.witness,
            orders: self.orders.clone(),
            traffic: self.traffic.clone(),
            turns: (purpose == Purpose::Entries).then(|| self.turns.clone()),
            lazy: LazyLink::new(self.place.clone(), id, purpose, SMALL_BODY_MAX),
            pipe: None,
            beat: None,
            repeats_every: None,
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Record) -> Peer {
        self.place.targets.lock().insert(target, node.clone());
        self.peer(target, Purpose::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &Record) -> Peer {
        self.peer(target, Purpose::Heartbeats)
    }

    async fn new_snapshot_client(&mut self, target: u64, _node: &Record) -> Peer {
        self.peer(target, Purpose::Snapshot)
    }
}

/// A client for one peer.
pub(crate) struct Peer {
    id: u64,
    purpose: Purpose,
    place: Arc<Place>,
    lease: Arc<Lease>,
    transfers: Worker,
    sent: Arc<Mutex<SnapshotsSent>>,
    witness: bool,
    orders: Arc<Orders>,
    traffic: Arc<Traffic>,
    /// If it carries entries.
    turns: Option<Arc<Turns>>,
    lazy: LazyLink,
    pipe: Option<Pipe>,
    /// The heartbeat that waits for its answer, and when it is repeated.
    beat: Option<Beat>,
    /// If it carries heartbeats: after how long without an answer one is repeated.
    repeats_every: Option<Duration>,
}

/// A heartbeat that is repeated until it is answered.
struct Beat {
    request: AppendRequest,
    due: Instant,
}

/// What was sent of a snapshot.
#[derive(Debug, Clone, Copy, Default)]
struct Shipped {
    partial: bool,
    bytes: u64,
}

/// The thread that reads snapshots is gone.
const UNREADABLE: WireError = WireError::Peer("reading it failed");

fn unreadable(error: MachineError) -> WireError {
    WireError::Io(std::io::Error::other(error))
}

fn unreachable(error: &WireError) -> Unreachable<Types> {
    Unreachable::from_string(error)
}

/// How openraft should take an error: peers that are not there get time, broken connections are
/// set up again at once.
fn rpc_error(error: &WireError) -> RPCError<Types> {
    match error {
        WireError::Closed | WireError::Timeout(_) => {
            RPCError::Network(NetworkError::from_string(error))
        }
        _ => RPCError::Unreachable(unreachable(error)),
    }
}

impl Peer {
    /// The append connection, ready for a new stream.
    async fn pipe(&mut self) -> Result<&mut Pipe, WireError> {
        let usable = self.pipe.take().and_then(|pipe| pipe.renewed(self.purpose));
        let pipe = match usable {
            Some(pipe) => pipe,
            None => {
                self.forget_turn();
                Pipe::new(self.lazy.get().await?)
            }
        };
        Ok(self.pipe.insert(pipe))
    }

    /// One step of an append stream: sends requests until an answer is there.
    async fn next_answer<S>(
        &mut self,
        input: &mut Option<S>,
    ) -> Option<Result<AppendResult, WireError>>
    where
        S: Stream<Item = AppendRequest> + Unpin,
    {
        loop {
            if self.place.is_severed(self.id) {
                return Some(Err(WireError::Peer("severed for a test")));
            }
            let pipe = self.pipe.as_mut()?;
            let room = pipe.has_room(self.purpose);
            if pipe.open == 0 && input.is_none() {
                return None;
            }
            let owed = pipe.under_way() > 0;
            let repeats = self.beat.as_ref().filter(|_| room && pipe.open > 0);
            let repeat_at = repeats.map_or_else(Instant::now, |beat| beat.due);
            let repeats = repeats.is_some();
            let turns = self.turns.as_ref();
            let waits = !owed
                && turns.is_some_and(|turns| {
                    let voters = &self.place.roster.borrow().voters;
                    turns.may_wait(self.id, voters, Instant::now())
                });
            tokio::select! {
                biased;
                answer = pipe.answer(self.id, &self.place.answers), if owed => {
                    if let Some(answer) = self.answered(answer) {
                        return Some(answer);
                    }
                }
                () = sleep_until(repeat_at), if repeats => {
                    let beat = self.beat.take()?;
                    if let Err(error) = self.pass(beat.request).await {
                        return Some(Err(error));
                    }
                }
                request = next_of(input, waits), if room && input.is_some() => match request {
                    None => *input = None,
                    Some(request) => if let Err(error) = self.pass(request).await {
                        return Some(Err(error));
                    }
                },
            }
        }
    }

    /// Takes an answer, and gives it if somebody waits for it.
    fn answered(
        &mut self,
        answer: Result<AppendResult, WireError>,
    ) -> Option<Result<AppendResult, WireError>> {
        let pipe = self.pipe.as_mut()?;
        if answer.is_ok() {
            self.place.pacer.answered(self.id, self.purpose);
            if let Some(turns) = &self.turns {
                let owes_more = pipe.under_way() > 1;
                turns.answered(self.id, owes_more, Instant::now());
            }
        }
        if answer.is_ok() && pipe.stale > 0 {
            pipe.stale -= 1;
            return None;
        }
        pipe.open = pipe.open.saturating_sub(1);
        if self.beat.take().is_some() {
            // Nobody waits for those to the repeated ones.
            (pipe.stale, pipe.open) = (pipe.under_way(), 0);
        }
        Some(answer)
    }

    /// Sends a request, and remembers it if it is to be repeated.
    async fn pass(&mut self, request: AppendRequest) -> Result<(), WireError> {
        if self.place.is_severed(self.id) {
            return Err(WireError::Peer("severed for a test"));
        }
        if let (Some(turns), Some(last)) = (&self.turns, request.entries.last()) {
            turns.sent(self.id, last.log_id.index, Instant::now());
        }
        let Some(pipe) = &mut self.pipe else {
            return Err(WireError::Closed);
        };
        let sent = pipe.send(&request, self.id, &self.place.answers).await?;
        self.traffic.note(sent);
        self.beat = self.repeats_every.map(|every| Beat {
            request,
            due: Instant::now() + every,
        });
        Ok(())
    }

    /// What was sent to the peer does not count for who comes first any more.
    fn forget_turn(&self) {
        if let Some(turns) = &self.turns {
            turns.lost(self.id);
        }
    }

    async fn ask<T>(
        &self,
        request: crate::net::frame::Frame,
        read: fn(&[u8]) -> Result<T, WireError>,
        limit: Duration,
    ) -> Result<T, WireError> {
        if self.place.doubles.is_double(self.id, Instant::now()) {
            return Err(WireError::Peer("two processes run as that node"));
        }
        let asking = async {
            let mut link =
                link::connect(&self.place, self.id, Purpose::Votes, SMALL_BODY_MAX).await?;
            link.writer.send(request).await?;
            let answer = link.reader.next().await?;
            self.place.pacer.answered(self.id, Purpose::Votes);
            read(&answer)
        };
        let answer = timeout(limit, asking)
            .await
            .map_err(|_| WireError::Timeout("an answer"))??;
        match self.place.is_severed(self.id) {
            true => Err(WireError::Peer("severed for a test")),
            false => Ok(answer),
        }
    }

    async fn send_snapshot(
        &mut self,
        vote: Vote,
        position: bytes::Bytes,
        source: Box<dyn SnapshotSource>,
    ) -> Result<(Vote, Shipped), WireError> {
        let mut link = self.lazy.get().await?;
        link.writer.send(message::snapshot(vote, &position)).await?;
        let waiting = timeout(ANSWER_TIMEOUT, link.reader.next()).await;
        let answer = waiting.map_err(|_| WireError::Timeout("what it needs"))??;
        let shipped = match message::read_wanted(&answer)? {
            Wanted::Position => Shipped::default(),
            Wanted::Everything => self.send_chunks(&mut link, source, false).await?,
            Wanted::Since(base) => {
                let mut source = source;
                let asking = self.transfers.call(move || {
                    let known = source.since(base);
                    (source, known)
                });
                let (source, known) = asking.await.map_err(|_| UNREADABLE)?;
                let partial = known.map_err(unreadable)?;
                self.send_chunks(&mut link, source, partial).await?
            }
        };
        // Before this the peer hands nothing to its openraft, and promises nothing.
        let (term, sent) = (vote.leader_id.term, Instant::now());
        link.writer.send(message::last()).await?;
        let waiting = timeout(INSTALL_TIMEOUT, link.reader.next()).await;
        let theirs = message::read_installed(
            &waiting.map_err(|_| WireError::Timeout("the installation"))??,
        )?;
        if theirs == vote {
            self.place.answers.note(self.id, term, sent);
        }
        self.place.pacer.answered(self.id, self.purpose);
        Ok((theirs, shipped))
    }

    /// Sends all chunks, one in memory at a time.
    async fn send_chunks(
        &self,
        link: &mut Link,
        mut source: Box<dyn SnapshotSource>,
        partial: bool,
    ) -> Result<Shipped, WireError> {
        let mut bytes = 0;
        loop {
            let reading = self.transfers.call(move || {
                let chunk = source.next_chunk();
                (source, chunk)
            });
            let (back, chunk) = reading.await.map_err(|_| UNREADABLE)?;
            source = back;
            let Some(chunk) = chunk.map_err(unreadable)? else {
                return Ok(Shipped { partial, bytes });
            };
            let (len, begun, before) = (chunk.len() as u64, Instant::now(), self.traffic.bytes());
            bytes += len;
            if let Err(error) = link.writer.send(message::chunk(chunk)?).await {
                return Err(self.refusal(link).await.unwrap_or(error));
            }
            let entries = self.traffic.bytes() - before;
            sleep(giving_way::pause(begun.elapsed(), len, entries)).await;
            if self.place.is_severed(self.id) {
                return Err(WireError::Peer("severed for a test"));
            }
        }
    }

    /// Keeps count of what was sent, and says it.
    fn note_sent(&self, shipped: Option<Shipped>) {
        let mut sent = self.sent.lock();
        let Some(shipped) = shipped else {
            sent.failed += 1;
            return;
        };
        sent.whole += u64::from(!shipped.partial);
        sent.partial += u64::from(shipped.partial);
        sent.bytes += shipped.bytes;
        sent.last_bytes = shipped.bytes;
        let what = if shipped.partial {
            "what changed"
        } else {
            "everything"
        };
        let (peer, bytes) = (self.id, shipped.bytes);
        tracing::info!(peer, bytes, "node {peer} got {what}: {bytes} bytes");
    }

    /// Why the receiver closed the connection, if it said so.
    async fn refusal(&self, link: &mut Link) -> Option<WireError> {
        let said = timeout(Duration::from_millis(100), link.reader.next())
            .await
            .ok()?
            .ok()?;
        message::read_installed(&said).err()
    }
}

/// The next request, after a pause if the peer `waits`; `None` if there are no more (the caller then does not ask).
async fn next_of<S: Stream<Item = AppendRequest> + Unpin>(
    input: &mut Option<S>,
    waits: bool,
) -> Option<AppendRequest> {
    if waits {
        sleep(turns::PAUSE).await;
    }
    input.as_mut()?.next().await
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.forget_turn();
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Transfer;

    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let one = Box::pin(stream::once(std::future::ready(request)));
        let mut answers = self.stream_append(one, option).await?;
        match answers.next().await {
            Some(answer) => Ok(answer?.into()),
            None => Err(rpc_error(&WireError::Closed)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        // As long as openraft waits for an answer, which is the time between two heartbeats.
        let every = option.hard_ttl() / REPEATS;
        self.repeats_every = (self.purpose == Purpose::Heartbeats).then_some(every);
        self.beat = None;
        Box::pin(async move {
            self.pipe()
                .await
                .map_err(|error| RPCError::Unreachable(unreachable(&error)))?;
            let answers =
                stream::unfold((Some(self), Some(input)), |(peer, mut input)| async move {
                    let peer = peer?;
                    let answer = peer.next_answer(&mut input).await?;
                    if let Ok(Ok(_)) = answer {
                        return Some((Ok(Ok(answer.ok()?.ok()?)), (Some(peer), input)));
                    }
                    // After an error the follower closes the connection.
                    peer.pipe = None;
                    peer.forget_turn();
                    Some((answer.map_err(|error| rpc_error(&error)), (None, None)))
                });
            let answers: BoxStream<'s, _> = Box::pin(answers);
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RPCError<Types>> {
        let asked = self.ask(
            message::vote(&rpc, false),
            message::read_voted,
            option.hard_ttl(),
        );
        asked
            .await
            .map_err(|error| RPCError::Unreachable(unreachable(&error)))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RPCError<Types>> {
        let asked = self.ask(
            message::vote(&rpc, true),
            message::read_voted,
            option.hard_ttl(),
        );
        asked
            .await
            .map_err(|error| RPCError::Unreachable(unreachable(&error)))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Transfer>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Transfer::Source(source) = snapshot.snapshot else {
            let text = "there is no snapshot to send";
            return Err(StreamingError::Network(NetworkError::from_string(text)));
        };
        if self.witness {
            let text = "this node is a witness and holds no files: start a node that does";
            tracing::warn!(
                peer = self.id,
                "node {} lacks entries that are gone here; {text}",
                self.id
            );
            return Err(StreamingError::Unreachable(Unreachable::from_string(text)));
        }
        let position = codec::position(snapshot.meta.last_log_id, &snapshot.meta.last_membership);
        tracing::info!(peer = self.id, at = %snapshot.meta, "sending a snapshot to node {}", self.id);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, position, source) => match sent {
                Ok((vote, shipped)) => {
                    self.note_sent(Some(shipped));
                    Ok(SnapshotResponse::new(vote))
                }
                Err(error) => {
                    self.note_sent(None);
                    tracing::warn!(peer = self.id, "sending a snapshot failed: {error}");
                    Err(StreamingError::Unreachable(unreachable(&error)))
                }
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferRequest,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        // The order lets voters break their promise: never let it out while the lease may hold.
        let term = request.from_leader().leader_id.term;
        self.lease.revoke(term);
        let sent = (self.id == *request.to_node_id()).then(|| self.orders.sent(term, self.id));
        let asked = self.ask(
            message::transfer(&request),
            message::read_taken,
            option.hard_ttl(),
        );
        match (asked.await, sent) {
            (Ok(()), Some(sent)) => sent.taken(),
            (Ok(()), None) => {}
            (Err(error), sent) => {
                if let Some(sent) = sent.filter(|_| error.is_refused_connection()) {
                    sent.gone();
                }
                return Err(RPCError::Unreachable(unreachable(&error)));
            }
        }
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<openraft::network::Backoff> {
        // A peer that restarts should be met soon; one that is away costs one connection attempt
        // per half second.
        let steps = [10, 25, 50, 100, 200]
            .into_iter()
            .map(Duration::from_millis);
        let steps = steps.chain(std::iter::repeat(Duration::from_millis(500)));
        Some(openraft::network::Backoff::new(steps))
    }
}
