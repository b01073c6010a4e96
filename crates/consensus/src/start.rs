//! Puts a node together: runtime, log, machine, openraft, transport.
//!
//! It must not know what comes after the start.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use haven_pki::Issued;
use openraft::Config;
use openraft::Raft;
use openraft::SnapshotPolicy;
use openraft::StepDownPolicy;
use openraft::StorageHelper;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::storage::RaftLogStorage;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Replicated;
use crate::candidacy::Candidacy;
use crate::consensus::Inner;
use crate::consensus::ROOM_UNIT;
use crate::handover::Orders;
use crate::lacking;
use crate::lease::KernelClocks;
use crate::lease::Lease;
use crate::machine::Machine;
use crate::machine::Pressure;
use crate::members;
use crate::monitor::Monitor;
use crate::net::client::Network;
use crate::net::doubles::Doubles;
use crate::net::hints::Board;
use crate::net::link::Place;
use crate::net::pace::Faults;
use crate::net::pace::Pacer;
use crate::net::pace::Quiet;
use crate::net::server;
use crate::net::server::Server;
use crate::net::turns::Turns;
use crate::net::visit::Parlour;
use crate::options::CLUSTER_NAME_MAX;
use crate::options::ConsensusOptions;
use crate::options::PROPOSAL_BYTES_MAX;
use crate::options::PROPOSALS_MAX;
use crate::options::SnapshotsSent;
use crate::options::StartError;
use crate::purge::Purger;
use crate::rejoin;
use crate::rejoin::Voice;
use crate::roster::Applicant;
use crate::roster::Book;
use crate::roster::Entitlement;
use crate::roster::Record;
use crate::roster::Roster;
use crate::roster::TOKENS_MAX;
use crate::stand;
use crate::stand::Heard;
use crate::steward::Steward;
use crate::store::Store;
use crate::store::record_index;
use crate::threads;
use crate::types::LogId;
use crate::types::Membership;
use crate::types::Types;
use crate::types::next_index;
use crate::witness;
use crate::worker::Worker;
use haven_log::Log;

/// Threads of the consensus runtime. A change passes several of its tasks, each with little to do: with a second thread
/// they would mostly hand it to and fro. What takes long (flushes, the machine, snapshots) has threads of its own, and
/// the longest thing here is to encrypt one message of [`crate::store::MESSAGE_BYTES_MAX`].
const THREADS: usize = 1;

/// Entries in one message to a follower.
const MESSAGE_ENTRIES_MAX: u64 = 1000;

/// Batches waiting for the machine. Openraft's core waits when they are used up, and a core that waits
/// sends no heartbeats; so this is out of reach (a waiting batch is small).
const MACHINE_QUEUE_MAX: u64 = 1 << 20;

/// Pause between a start and the first election of this node, beyond its quarantine.
const ELECTION_PAUSE: Duration = Duration::from_millis(20);

/// Shortest time between heartbeats out of turn.
pub(crate) const QUORUM_PAUSE: Duration = Duration::from_millis(10);

/// Starts a node.
pub(crate) async fn start<R: Send + 'static>(
    options: ConsensusOptions,
    log: Log,
    machine: Arc<dyn Replicated<Reply = R>>,
) -> Result<Inner<R>, StartError> {
    check(&options)?;
    let runtime = runtime().map_err(StartError::Thread)?;
    let handle = runtime.handle().clone();
    let parts = handle.spawn(assemble(options, log, machine)).await;
    let mut inner = match parts {
        Ok(Ok(inner)) => inner,
        failed => {
            runtime.shutdown_background();
            return Err(match failed {
                Ok(Err(error)) => error,
                _ => StartError::Recover("the start was aborted".into()),
            });
        }
    };
    inner.runtime = Mutex::new(Some(runtime));
    Ok(inner)
}

fn check(options: &ConsensusOptions) -> Result<(), StartError> {
    let bad = |text: String| Err(StartError::Options(text));
    if options.cluster.is_empty() || options.cluster.len() > CLUSTER_NAME_MAX {
        return bad(format!(
            "the cluster name must have 1 to {CLUSTER_NAME_MAX} bytes"
        ));
    }
    let founds = options.peers.contains_key(&options.node_id);
    match &options.security {
        None if options.peers.len() > 1 => {
            return bad(
                "nodes talk to each other only with certificates: make the cluster with `haven init`, and let the \
                 others join with `haven join`"
                    .into(),
            );
        }
        Some(_) if options.peers.is_empty() => {}
        Some(security) if !options.peers.keys().eq(security.founders.keys()) => {
            return bad(
                "the nodes of the configuration are not those that the cluster was made of".into(),
            );
        }
        _ if !founds => {
            return bad(format!("node {} is not among the peers", options.node_id));
        }
        _ => {}
    }
    // One that has joined founds nothing.
    if options.witness && (options.security.is_none() || (1..=2).contains(&options.peers.len())) {
        return bad(
            "a witness cannot begin a cluster: it has no files. Make the cluster with two other nodes, and let the \
             witness join it with `haven join`"
                .into(),
        );
    }
    if options.checkpoints.entries == 0 || options.checkpoints.bytes == 0 {
        return bad("checkpoints after 0 entries or bytes".into());
    }
    options.timing.check().map_err(StartError::Options)
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("haven-raft")
        .enable_all()
        .on_thread_start(threads::urgent_in_batches)
        .build()
}

fn config(options: &ConsensusOptions, may_elect: bool) -> Result<Config, StartError> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: options.cluster.clone(),
        heartbeat_interval: ms(options.timing.heartbeat),
        election_timeout_min: ms(options.timing.election_min),
        election_timeout_max: ms(options.timing.lease),
        max_payload_entries: MESSAGE_ENTRIES_MAX,
        // It is asked for: see `Pressure`.
        snapshot_policy: SnapshotPolicy::Never,
        // See `purge`.
        max_in_snapshot_log_to_keep: u64::MAX,
        state_machine_channel_size: Some(MACHINE_QUEUE_MAX),
        enable_elect: may_elect,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        removed_leader_step_down: StepDownPolicy::Never,
        ..Config::default()
    };
    config
        .validate()
        .map_err(|error| StartError::Options(error.to_string()))
}

/// Everything up to a running node, on its own runtime.
async fn assemble<R: Send + 'static>(
    options: ConsensusOptions,
    log: Log,
    machine: Arc<dyn Replicated<Reply = R>>,
) -> Result<Inner<R>, StartError> {
    let started = Instant::now();
    let listener = match &options.security {
        None => None,
        Some(_) => {
            let addr = options.listen;
            let listening = TcpListener::bind(addr).await;
            Some(listening.map_err(|error| StartError::Listen { addr, error })?)
        }
    };

    let transfers = Worker::start_background("haven-raft-snap").map_err(StartError::Thread)?;
    let pressure = Arc::new(Pressure::new(&options.checkpoints, options.node_id));
    let window = options.timing.lease_window();
    let lease = Arc::new(Lease::new(KernelClocks, window, false));
    let (in_use, released) = mpsc::channel(1);
    let opening = open(
        log,
        machine.clone(),
        transfers.clone(),
        pressure.clone(),
        lease.clone(),
        in_use,
    );
    let (mut store, mut adapter) = opening.await?;
    let stored = stored_members(&mut store, &mut adapter).await?;
    check_members(&stored, &options)?;
    let single = stored.voter_ids().eq([options.node_id]);
    let lacks = lacking(&mut store, &adapter, single).await?;

    let fresh = store.is_fresh();
    let forgot = store.forgot();
    let free = fresh || (single && forgot.is_none());
    let votes_from = if free {
        started
    } else {
        started + options.timing.lease
    };
    // Where there may be others, the members as of the last checkpoint need not be those of today.
    if options.security.is_none() && forgot.is_some() {
        let text =
            "this log was made for a node that lost its own, but there is no other to learn from";
        return Err(StartError::Recover(text.into()));
    }
    let voice = Arc::new(Voice::new(votes_from, forgot.is_some(), lacks));
    let vote_pulse = store.vote_pulse();
    let memory = store.clone();
    let place = Arc::new(Place {
        node_id: options.node_id,
        version: options.security.as_ref().map_or(0, |s| s.version),
        tls: options.security.as_ref().map(|s| s.tls.clone()),
        roster: watch::Sender::new(Arc::new(Roster::of(&stored))),
        targets: parking_lot::Mutex::default(),
        removed: watch::Sender::new(None),
        gatekeeper: OnceLock::new(),
        parlour: Parlour::default(),
        severed: watch::Sender::new(BTreeSet::new()),
        pacer: Pacer::default(),
        listen: options.listen,
        process: getrandom::u64().map_err(|why| StartError::Random(why.to_string()))?,
        doubles: Doubles::default(),
        stray: watch::Sender::new(None),
        answers: Arc::default(),
    });
    let sent = Arc::new(Mutex::new(SnapshotsSent::default()));
    let orders = Arc::new(Orders::default());
    let board = Arc::new(Board::new());
    let network = Network {
        place: place.clone(),
        lease: lease.clone(),
        transfers: transfers.clone(),
        sent: sent.clone(),
        witness: options.witness,
        turns: Arc::new(Turns::new(board.clone())),
        orders: orders.clone(),
        traffic: Arc::default(),
    };
    let log = store.clone();
    let raft = recover(&options, free, network, store, adapter).await?;
    let candidacy = Arc::new(Candidacy::new(options.node_id, !free));

    let mut tasks = JoinSet::new();
    let heard = Arc::new(Heard::default());
    let steward = Arc::new(Steward {
        raft: raft.clone(),
        place: place.clone(),
        timing: options.timing,
        own: options.security.as_ref().map(|s| Applicant {
            name: s.name.clone(),
            address: options.listen,
            key: s.tls.key(),
        }),
        heard: heard.clone(),
        board: board.clone(),
        witness: options.witness,
    });
    let server = Server {
        place: place.clone(),
        raft: raft.clone(),
        machine,
        transfers,
        board: board.clone(),
        voice: voice.clone(),
        receiving: Semaphore::new(1),
        quiet: Quiet::default(),
        heard: heard.clone(),
        faults: Faults::default(),
        strangers: server::places_for_strangers(),
        steward: steward.clone(),
        store: log.clone(),
        lease: lease.clone(),
    };
    if let Some(listener) = listener {
        tasks.spawn(Arc::new(server).run(listener));
    }
    spawn_helpers(
        &mut tasks,
        &raft,
        &options,
        fresh,
        (!free).then_some((votes_from, voice.clone())),
        &candidacy,
    );
    if let Some(forgot) = forgot {
        tasks.spawn(rejoin::regain(raft.clone(), memory, voice.clone(), forgot));
    }
    if let Some(lacks) = lacks {
        tasks.spawn(lacking::fetch(raft.clone(), voice.clone(), lacks));
    }
    tasks.spawn(checkpoint_on_pressure(raft.clone(), pressure));
    let standing = stand::stand(
        raft.clone(),
        heard.clone(),
        candidacy.clone(),
        options.timing,
        (options.node_id, options.witness),
        votes_from + ELECTION_PAUSE,
    );
    tasks.spawn(async move {
        voice.regained().await;
        standing.await;
    });
    let purger = Purger {
        raft: raft.clone(),
        store: log,
        place: place.clone(),
        board: board.clone(),
        keep_entries: options.checkpoints.keep_entries,
        keep_bytes: options.checkpoints.keep_bytes,
        witness: options.witness,
    };
    tasks.spawn(purger.run());
    if options.witness {
        let (place, board) = (place.clone(), board.clone());
        tasks.spawn(witness::hand_over(
            raft.clone(),
            place,
            board,
            options.timing,
        ));
    }
    tasks.spawn(members::follow(raft.clone(), place.clone(), board.clone()));

    let (standing, public) = (watch::Sender::default(), watch::Sender::default());
    let (revoked, quorum) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    tasks.spawn(ask_quorum(raft.clone(), quorum.clone()));
    let (standing_seen, public_seen) = (standing.subscribe(), public.subscribe());
    let monitor = Monitor {
        lease: lease.clone(),
        answers: place.answers.clone(),
        timing: options.timing,
        witness: options.witness,
        metrics: raft.metrics(),
        server: raft.server_metrics(),
        standing,
        public,
        revoked: revoked.clone(),
        quorum: quorum.clone(),
    };
    tasks.spawn(monitor.run());
    Ok(Inner {
        raft,
        place,
        lease,
        timing: options.timing,
        standing: standing_seen,
        public: public_seen,
        revoked,
        quorum,
        vote_pulse,
        board,
        sent,
        heard,
        candidacy,
        steward,
        orders,
        slots: Semaphore::new(PROPOSALS_MAX),
        room: Semaphore::new(PROPOSAL_BYTES_MAX / ROOM_UNIT),
        handle: tokio::runtime::Handle::current(),
        runtime: Mutex::new(None),
        tasks: Mutex::new(tasks),
        released: tokio::sync::Mutex::new(released),
    })
}

/// Openraft on the recovered state.
async fn recover<R: Send + 'static>(
    options: &ConsensusOptions,
    may_elect: bool,
    network: Network,
    store: Store,
    adapter: Machine<R>,
) -> Result<Raft<Types, Machine<R>>, StartError> {
    let config = Arc::new(config(options, may_elect)?);
    let raft = Raft::new(options.node_id, config, network, store, adapter).await;
    raft.map_err(|error| StartError::Recover(error.to_string()))
}

/// Founds the cluster, or ends the quarantine, when it is time.
fn spawn_helpers<R: Send + 'static>(
    tasks: &mut JoinSet<()>,
    raft: &Raft<Types, Machine<R>>,
    options: &ConsensusOptions,
    fresh: bool,
    quarantine: Option<(Instant, Arc<Voice>)>,
    candidacy: &Arc<Candidacy>,
) {
    if let Some((end, voice)) = quarantine {
        let (raft, candidacy) = (raft.clone(), candidacy.clone());
        tasks.spawn(elect_after(raft, candidacy, end + ELECTION_PAUSE, voice));
    }
    if fresh && !options.peers.is_empty() {
        tasks.spawn(found(raft.clone(), options.clone()));
    }
}

/// Opens log and machine, off the runtime's threads.
async fn open<R: Send + 'static>(
    log: Log,
    machine: Arc<dyn Replicated<Reply = R>>,
    transfers: Worker,
    pressure: Arc<Pressure>,
    lease: Arc<Lease>,
    in_use: mpsc::Sender<()>,
) -> Result<(Store, Machine<R>), StartError> {
    let opening = tokio::task::spawn_blocking(move || {
        let store = Store::open(log, lease, in_use.clone())?;
        Ok::<_, std::io::Error>((store, Machine::open(machine, transfers, pressure, in_use)?))
    });
    let opened = opening
        .await
        .map_err(|error| StartError::Recover(error.to_string()))?;
    opened.map_err(|error| StartError::Recover(error.to_string()))
}

/// The newest members in log or machine.
async fn stored_members<R: Send + 'static>(
    store: &mut Store,
    adapter: &mut Machine<R>,
) -> Result<Membership, StartError> {
    let found = StorageHelper::new(store, adapter).get_membership().await;
    let found = found.map_err(|error| StartError::Recover(error.to_string()))?;
    Ok(found.effective().membership().clone())
}

/// What is known to be committed and is not here: see [`crate::lacking`].
async fn lacking<R: Send + 'static>(
    store: &mut Store,
    adapter: &Machine<R>,
    single: bool,
) -> Result<Option<LogId>, StartError> {
    let failed = |error: std::io::Error| StartError::Recover(error.to_string());
    let lacks = store.lacks(adapter.applied()).await.map_err(failed)?;
    let Some(committed) = lacks.filter(|_| single) else {
        return Ok(lacks);
    };
    let state = store.get_log_state().await.map_err(failed)?;
    Err(StartError::Lost {
        committed: record_index(committed.index),
        last: next_index(state.last_log_id.max(adapter.applied())),
    })
}

/// A node that is alone must not run on the data of a cluster.
fn check_members(stored: &Membership, options: &ConsensusOptions) -> Result<(), StartError> {
    let in_cluster = stored.nodes().any(|(_, record)| record.key.is_some());
    let alone = stored.voter_ids().eq([options.node_id]) || stored.voter_ids().next().is_none();
    if options.security.is_some() || (alone && !in_cluster) {
        return Ok(());
    }
    Err(StartError::Members {
        stored: stored.voter_ids().collect(),
        configured: options.peers.keys().copied().collect(),
    })
}

/// Lets this node stand for election from `when` on, once it has a voice.
async fn elect_after<R: Send + 'static>(
    raft: Raft<Types, Machine<R>>,
    candidacy: Arc<Candidacy>,
    when: Instant,
    voice: Arc<Voice>,
) {
    tokio::time::sleep_until(when).await;
    voice.regained().await;
    candidacy.end_quarantine(&raft);
}

/// Founds the cluster, with the same first entry on every node. The lowest node begins; the others
/// wait for it a while, so that they do not all stand for election at once.
async fn found<R: Send + 'static>(raft: Raft<Types, Machine<R>>, options: ConsensusOptions) {
    if options.peers.keys().next() != Some(&options.node_id) {
        let mut metrics = raft.metrics();
        let heard = metrics.wait_until(|m| m.current_term > 0 || m.last_log_index.is_some());
        let _ = tokio::time::timeout(options.timing.lease * 2, heard).await;
    }
    if let Err(error) = raft.initialize(first_members(&options)).await {
        // Another node was faster, which is as good.
        tracing::debug!("the cluster exists already: {error}");
    }
}

/// Who makes the cluster, and which tokens count from its beginning.
fn first_members(options: &ConsensusOptions) -> BTreeMap<u64, Record> {
    let security = options.security.as_ref();
    let record = |(id, address): (&u64, &SocketAddr)| {
        let founder = security.and_then(|s| s.founders.get(id));
        let record = founder.map_or_else(Record::default, |(name, key)| Record {
            name: name.clone(),
            address: Some(*address),
            key: Some(*key),
            ..Record::default()
        });
        (*id, record)
    };
    let mut nodes: BTreeMap<u64, Record> = options.peers.iter().map(record).collect();
    let next_id = nodes.keys().last().map_or(1, |last| last.saturating_add(1));
    let tokens = security.map(|s| s.tokens.iter()).unwrap_or_default();
    let entitlement = |token: &Issued| {
        let (expires, used) = (token.expires, None);
        (token.hash, Entitlement { expires, used })
    };
    let tokens = tokens.take(TOKENS_MAX).map(entitlement).collect();
    if let (Some(first), Some(_)) = (nodes.values_mut().next(), security) {
        first.book = Some(Book { next_id, tokens });
    }
    nodes
}

/// Sends heartbeats out of turn when somebody waits for a quorum's answer.
async fn ask_quorum<R: Send + 'static>(raft: Raft<Types, Machine<R>>, asked: Arc<Notify>) {
    loop {
        asked.notified().await;
        if raft.trigger().heartbeat().await.is_err() {
            return;
        }
        tokio::time::sleep(QUORUM_PAUSE).await;
    }
}

/// Asks for a checkpoint whenever enough bytes were applied.
async fn checkpoint_on_pressure<R: Send + 'static>(
    raft: Raft<Types, Machine<R>>,
    pressure: Arc<Pressure>,
) {
    loop {
        pressure.bell.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
