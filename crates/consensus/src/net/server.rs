//! What comes in from peers, handed to openraft.
//!
//! Invariants
//! - A connection serves the one purpose and the one peer its hello named, and ends at the first
//!   message that does not fit.
//! - In the quarantine after a start, votes get no answer but a refusal: this node may have promised a
//!   leader not to elect another before it restarted (see [`crate::lease`]).
//!   The same holds for votes and transfers as long as it does not know what it promised (see [`crate::rejoin`]),
//!   or lacks what was committed (see [`crate::lacking`]).
//! - Connections are bounded, and so are the appends taken from one before they are answered.
//!
//! It must not know how openraft decides.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::StreamExt;
use futures_util::stream;
use openraft::Raft;
use openraft::ServerState;
use openraft::Snapshot;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::RaftError;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::MachineError;
use crate::Replicated;
use crate::SnapshotSink;
use crate::codec;
use crate::lease::Lease;
use crate::machine::Machine;
use crate::machine::Transfer;
use crate::net::affair;
use crate::net::beats;
use crate::net::commits::Commits;
use crate::net::frame::Frame;
use crate::net::frame::FrameReader;
use crate::net::frame::FrameWriter;
use crate::net::frame::WireError;
use crate::net::hints::Board;
use crate::net::link;
use crate::net::link::Link;
use crate::net::link::Place;
use crate::net::message;
use crate::net::message::Ballot;
use crate::net::message::Hello;
use crate::net::message::Purpose;
use crate::net::message::SnapshotPart;
use crate::net::message::Told;
use crate::net::pace::Faults;
use crate::net::pace::Quiet;
use crate::net::visit;
use crate::rejoin::Voice;
use crate::stand::Heard;
use crate::steward::Steward;
use crate::store::Store;
use crate::types::AppendRequest;
use crate::types::SnapshotMeta;
use crate::types::Types;
use crate::types::Vote;
use crate::types::VoteRequest;
use crate::worker::Worker;

/// Connections at a time: of each member one for each purpose, old ones that linger, and room to spare.
const CONNECTIONS_MAX: usize = 512;

/// Of these from addresses where no member lives. They cannot keep members out.
const STRANGERS_MAX: usize = 32;

/// Time for a machine that wants to join, from its hello to the answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause after the system could not accept a connection (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Before a snapshot that cannot be taken is refused: it is offered again at once, and most reasons stay for a while.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// Time for it to read the answer.
const LINGER: Duration = Duration::from_secs(1);

/// Takes and serves connections.
pub(crate) struct Server<R: Send + 'static> {
    pub(crate) place: Arc<Place>,
    pub(crate) raft: Raft<Types, Machine<R>>,
    pub(crate) machine: Arc<dyn Replicated<Reply = R>>,
    pub(crate) transfers: Worker,
    pub(crate) board: Arc<Board>,
    /// Whether votes are answered.
    pub(crate) voice: Arc<Voice>,
    /// One snapshot comes in at a time.
    pub(crate) receiving: Semaphore,
    /// When a leader was heard last.
    pub(crate) heard: Arc<Heard>,
    /// Keeps a peer that comes again and again from filling the log.
    pub(crate) quiet: Quiet,
    /// What was reported of whom.
    pub(crate) faults: Faults,
    /// Places for connections from addresses where no member lives.
    pub(crate) strangers: Arc<Semaphore>,
    pub(crate) steward: Arc<Steward<R>>,
    /// Knows which vote is durable.
    pub(crate) store: Store,
    /// While it is valid, this node helps nobody else to lead.
    pub(crate) lease: Arc<Lease>,
}

/// [`Server::strangers`] at the beginning.
pub(crate) fn places_for_strangers() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(STRANGERS_MAX))
}

impl<R: Send + 'static> Server<R> {
    /// Serves until aborted; that also ends all connections.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((socket, from)) if connections.len() < CONNECTIONS_MAX => {
                        let stranger = match self.place.is_home(from.ip()) {
                            true => None,
                            false => match self.strangers.clone().try_acquire_owned() {
                                Ok(place) => Some(place),
                                // Not worth a line in the log for each.
                                Err(_) => continue,
                            },
                        };
                        let server = self.clone();
                        connections.spawn(async move {
                            if let Err(error) = server.serve(socket, from).await {
                                server.report(from, &error);
                            }
                            drop(stranger);
                        });
                    }
                    Ok((_, from)) => {
                        tracing::warn!(%from, "refused a connection: {CONNECTIONS_MAX} are open");
                    }
                    Err(error) => {
                        tracing::error!("cannot accept connections from peers: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn report(&self, from: SocketAddr, error: &WireError) {
        if let WireError::Unfit(reason) = error {
            if self.faults.is_news(from.ip(), reason) {
                tracing::warn!(%from, "refused a connection from {from}: {reason}");
            }
            return;
        }
        if let Some(before) = self.quiet.pass() {
            tracing::warn!(%from, before, "closed a connection from {from}: {error}");
        }
    }

    async fn serve(&self, socket: TcpStream, from: SocketAddr) -> Result<(), WireError> {
        let (hello, link) = link::accept(&self.place, socket).await?;
        if hello.purpose == Purpose::Join {
            let joining = timeout(JOIN_TIMEOUT, self.join(link)).await;
            return joining.map_err(|_| WireError::Timeout("a machine that wants to join"))?;
        }
        self.faults.forget(from.ip());
        let served = async {
            match hello.purpose {
                Purpose::Entries => self.appends(&hello, link).await,
                Purpose::Heartbeats => self.heartbeats(&hello, link).await,
                Purpose::Votes => self.ballots(&hello, link).await,
                Purpose::Snapshot => self.snapshot(&hello, link).await,
                Purpose::Hints => self.hints(&hello, link).await,
                Purpose::Affairs => self.affairs(link).await,
                Purpose::Visit => visit::receive(&self.place, hello.from, link).await,
                Purpose::Join => Ok(()),
            }
        };
        let served = tokio::select! {
            served = served => served,
            () = self.place.until_cut(hello.from) => Ok(()),
        };
        match served {
            Err(WireError::Closed) => Ok(()),
            served => served,
        }
    }

    /// A machine wants to become a member. What is said is the gatekeeper's business.
    async fn join(&self, mut link: Link) -> Result<(), WireError> {
        link.reader.set_body_max(message::JOIN_BODY_MAX);
        let request = affair::read_join(&link.reader.next().await?)?;
        let answer = match self.place.gatekeeper.get() {
            Some(gatekeeper) => gatekeeper.admit(request).await,
            None => Err("this node is not ready yet; try again in a moment".into()),
        };
        let answer = answer.map_or_else(|why| message::refused(&why), affair::joined);
        link.writer.send(answer).await?;
        // Until the other end has read it and hangs up. How it does makes no difference.
        let _ = timeout(LINGER, link.reader.next()).await;
        Ok(())
    }

    /// What members ask of the leader.
    async fn affairs(&self, mut link: Link) -> Result<(), WireError> {
        link.reader.set_body_max(message::SMALL_BODY_MAX);
        loop {
            let affair = affair::read_affair(&link.reader.next().await?)?;
            let answer = match self.steward.settle(affair).await {
                Ok(value) => affair::settled(value),
                Err(why) => message::refused(&why.to_string()),
            };
            link.writer.send(answer).await?;
        }
    }

    async fn appends(&self, hello: &Hello, link: Link) -> Result<(), WireError> {
        let Link {
            mut reader,
            mut writer,
        } = link;
        reader.set_body_max(message::APPEND_BODY_MAX);
        // Dropped with this call: ends the stream that openraft reads from.
        let (_alive, ended) = oneshot::channel::<()>();
        let (heard, board) = (self.heard.clone(), self.board.clone());
        let requests = append_stream(hello.from, reader, heard, board).take_until(ended);
        // However this call ends.
        let _farewell = OnEnd(|| self.heard.hung_up(hello.from));
        let mut answers = Box::pin(self.raft.stream_append(requests));
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(|_| WireError::Peer("consensus has stopped here"))?;
            writer.send(message::appended(&answer)).await?;
        }
        Ok(())
    }

    async fn heartbeats(&self, hello: &Hello, link: Link) -> Result<(), WireError> {
        let Link {
            mut reader,
            mut writer,
        } = link;
        reader.set_body_max(message::APPEND_BODY_MAX);
        // However this call ends.
        let _farewell = OnEnd(|| self.heard.hung_up(hello.from));
        loop {
            let request = message::read_append(hello.from, &reader.next().await?)?;
            let is_witness = self.board.is_witness(hello.from);
            self.heard
                .note(hello.from, request.vote.leader_id.term, is_witness);
            let answer = beats::answer(&self.raft, &self.store, request).await?;
            writer.send(message::appended(&answer)).await?;
            // After an error the leader begins anew.
            if answer.is_err() {
                return Ok(());
            }
        }
    }

    async fn ballots(&self, hello: &Hello, link: Link) -> Result<(), WireError> {
        let Link {
            mut reader,
            mut writer,
        } = link;
        reader.set_body_max(message::SMALL_BODY_MAX);
        loop {
            let ballot = message::read_ballot(hello.from, &reader.next().await?)?;
            let double = self.place.doubles.is_double(hello.from, Instant::now());
            let refusal = match &ballot {
                Ballot::Transfer(_) => self.voice.refusal_to_lead(),
                Ballot::Vote(request) | Ballot::PreVote(request) => self.refusal_to_vote(request),
            };
            let refusal = refusal.or(double.then_some("two processes run as your node"));
            if let Some(why) = refusal {
                writer.send(message::refused(why)).await?;
                continue;
            }
            let answer = match ballot {
                Ballot::Vote(request) => self.raft.vote(request).await.map(|r| message::voted(&r)),
                Ballot::PreVote(request) => self.pre_vote(request).await,
                Ballot::Transfer(request) => {
                    self.heard.handed_over(hello.from);
                    let passed = self.raft.handle_transfer_leader(request).await;
                    Ok(match passed {
                        Ok(Ok(())) => message::taken(),
                        Ok(Err(error)) => message::refused(&error.to_string()),
                        Err(_) => return Err(WireError::Peer("consensus has stopped here")),
                    })
                }
            };
            let answer = answer.map_err(|_| WireError::Peer("consensus has stopped here"))?;
            writer.send(answer).await?;
        }
    }

    /// Why this node gives no vote or pre-vote. Openraft knows nothing of answers that came late, so it would help
    /// another to lead while these hold this leader's lease, unless it was asked to by this leader itself.
    fn refusal_to_vote(&self, request: &VoteRequest) -> Option<&'static str> {
        let leads = !request.leadership_transfer && self.lease.valid();
        let refusal = self.voice.refusal(request.last_log_id);
        refusal.or(leads.then_some("this node leads, and a quorum answers it"))
    }

    /// Answers whether this node would vote for another. If not because its own log is longer, this node
    /// stands itself, without waiting for its own timer: the other has seen the leader's silence, and
    /// cannot win. Openraft refuses to stand while this node's promise to a leader holds.
    async fn pre_vote(&self, request: VoteRequest) -> Result<Frame, RaftError<Types>> {
        let theirs = request.last_log_id;
        let answer = self.raft.pre_vote(request).await?;
        let follows = self.raft.metrics().borrow_watched().state == ServerState::Follower;
        if follows && !answer.vote_granted && answer.last_log_id > theirs {
            let standing = self.raft.trigger().elect(true).await;
            standing.map_err(RaftError::Fatal)?;
        }
        Ok(message::voted(&answer))
    }

    async fn hints(&self, hello: &Hello, link: Link) -> Result<(), WireError> {
        let Link {
            mut reader,
            writer: _writer,
        } = link;
        reader.set_body_max(message::HINT_BODY_MAX);
        loop {
            match message::read_told(&reader.next().await?)? {
                Told::Hint(hint) => self.board.put(hello.from, hint),
                Told::Kept(kept) => self.board.put_kept(hello.from, kept),
                Told::Post(topic, bytes) => self.board.posts.put(hello.from, topic, bytes),
            }
        }
    }

    async fn snapshot(&self, hello: &Hello, link: Link) -> Result<(), WireError> {
        let Link {
            mut reader,
            mut writer,
        } = link;
        reader.set_body_max(message::SNAPSHOT_BODY_MAX);
        loop {
            let body = reader.next().await?;
            let SnapshotPart::Begin { vote, meta } = message::read_snapshot(hello.from, &body)?
            else {
                return Err(WireError::Peer("a snapshot without a beginning"));
            };
            let Ok(_one) = self.receiving.try_acquire() else {
                writer
                    .send(message::refused("another snapshot is being received"))
                    .await?;
                return Ok(());
            };
            tracing::info!(peer = hello.from, at = %meta, "receiving a snapshot");
            let answer = match self
                .receive(hello, (&mut reader, &mut writer), vote, *meta)
                .await
            {
                Ok(vote) => message::installed(vote),
                Err(Failure::Wire(error)) => return Err(error),
                Err(Failure::Here(error)) => {
                    tracing::error!("cannot receive a snapshot: {error}");
                    tokio::time::sleep(REFUSAL_PAUSE).await;
                    writer.send(message::refused(&error.to_string())).await?;
                    return Ok(());
                }
            };
            writer.send(answer).await?;
        }
    }

    async fn receive(
        &self,
        hello: &Hello,
        (reader, writer): (&mut FrameReader, &mut FrameWriter),
        vote: Vote,
        meta: SnapshotMeta,
    ) -> Result<Vote, Failure> {
        let machine = self.machine.clone();
        let position = codec::position(meta.last_log_id, &meta.last_membership);
        let begun = self.transfers.call(move || {
            let wanted = machine.wanted()?;
            Ok::<_, MachineError>((wanted, machine.receive(position)?))
        });
        let (wanted, mut sink) = begun.await.map_err(here)?.map_err(here)?;
        writer.send(message::wanted(&wanted)).await?;
        loop {
            match message::read_snapshot(hello.from, &reader.next().await?)? {
                SnapshotPart::Begin { .. } => {
                    return Err(WireError::Peer("a snapshot within a snapshot").into());
                }
                SnapshotPart::Chunk(chunk) => sink = self.push(sink, chunk).await?,
                SnapshotPart::Last => break,
            }
        }
        let snapshot = Snapshot {
            meta,
            snapshot: Transfer::Sink(sink),
        };
        let answer = self
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(here)?;
        Ok(answer.vote)
    }

    async fn push(
        &self,
        mut sink: Box<dyn SnapshotSink>,
        chunk: Bytes,
    ) -> Result<Box<dyn SnapshotSink>, Failure> {
        let pushed = self
            .transfers
            .call(move || sink.push(chunk).map(|()| sink))
            .await;
        pushed.map_err(here)?.map_err(here)
    }
}

/// Does something when it is dropped.
struct OnEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Why a snapshot was not received: the connection, or this node.
enum Failure {
    Wire(WireError),
    Here(io::Error),
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

fn here<E: std::error::Error + Send + Sync + 'static>(error: E) -> Failure {
    Failure::Here(io::Error::other(error))
}

/// The appends on a connection, up to the first one that is no good.
fn append_stream(
    from: u64,
    reader: FrameReader,
    heard: Arc<Heard>,
    board: Arc<Board>,
) -> impl Stream<Item = AppendRequest> + Send + 'static {
    Box::pin(stream::unfold(
        (reader, (heard, board), Commits::default()),
        move |(mut reader, (heard, board), mut commits)| async move {
            let request = match reader.next().await {
                Ok(body) => message::read_append(from, &body),
                Err(error) => Err(error),
            };
            match request {
                Ok(mut request) => {
                    let is_witness = board.is_witness(from);
                    heard.note(from, request.vote.leader_id.term, is_witness);
                    commits.pass(&mut request, Instant::now());
                    Some((request, (reader, (heard, board), commits)))
                }
                Err(WireError::Closed) => None,
                Err(error) => {
                    tracing::warn!(
                        peer = from,
                        "closing the append connection of node {from}: {error}"
                    );
                    None
                }
            }
        },
    ))
}
