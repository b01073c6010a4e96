//! Puts a node together: runtime, log, machine, openraft, transport.
//!
//! It must not know what comes after the start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::Config;
use openraft::Raft;
use openraft::SnapshotPolicy;
use openraft::StepDownPolicy;
use openraft::async_runtime::watch::WatchReceiver;
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
use crate::consensus::Inner;
use crate::consensus::ROOM_UNIT;
use crate::lease::KernelClocks;
use crate::lease::Lease;
use crate::machine::Machine;
use crate::machine::Pressure;
use crate::monitor::Monitor;
use crate::net::client::Network;
use crate::net::hints;
use crate::net::hints::Board;
use crate::net::link::Place;
use crate::net::pace::Pacer;
use crate::net::pace::Quiet;
use crate::net::server::Server;
use crate::options::CLUSTER_NAME_MAX;
use crate::options::ConsensusOptions;
use crate::options::PROPOSAL_BYTES_MAX;
use crate::options::PROPOSALS_MAX;
use crate::options::StartError;
use crate::rejoin;
use crate::rejoin::Voice;
use crate::stand;
use crate::stand::Heard;
use crate::store::Store;
use crate::types::Types;
use crate::worker::Worker;
use haven_log::Log;

/// Threads of the consensus runtime: openraft's core on one, messages on the other.
const THREADS: usize = 2;
/// A node alone has no messages: a second thread would only hand work to and fro.
const THREADS_ALONE: usize = 1;

/// Nice value of these threads where permitted: before client IO.
const NICE: i32 = -10;

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
    let threads = match options.peers.len() {
        1 => THREADS_ALONE,
        _ => THREADS,
    };
    let runtime = runtime(threads).map_err(StartError::Thread)?;
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
    if !options.peers.contains_key(&options.node_id) {
        return bad(format!("node {} is not among the peers", options.node_id));
    }
    if options.checkpoints.entries == 0 || options.checkpoints.bytes == 0 {
        return bad("checkpoints after 0 entries or bytes".into());
    }
    options.timing.check().map_err(StartError::Options)
}

fn runtime(threads: usize) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("haven-raft")
        .enable_all()
        .on_thread_start(|| {
            // Needs a privilege; without it the threads run like all others.
            let _ = rustix::process::setpriority_process(None, NICE);
        })
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
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.checkpoints.entries),
        max_in_snapshot_log_to_keep: options.checkpoints.keep_entries,
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
    let addr = options.listen;
    let listening = TcpListener::bind(addr).await;
    let listener = listening.map_err(|error| StartError::Listen { addr, error })?;

    let transfers = Worker::start("haven-raft-snap").map_err(StartError::Thread)?;
    let pressure = Arc::new(Pressure::new(options.checkpoints.bytes));
    let single = options.peers.len() == 1;
    let lease = Arc::new(Lease::new(
        KernelClocks,
        options.timing.lease_window(),
        single,
    ));
    let (in_use, released) = mpsc::channel(1);
    let opening = open(
        log,
        machine.clone(),
        transfers.clone(),
        pressure.clone(),
        lease.clone(),
        in_use,
    );
    let (store, adapter) = opening.await?;

    let fresh = store.is_fresh();
    let free = single || fresh;
    let votes_from = if free {
        started
    } else {
        started + options.timing.lease
    };
    let forgot = store.forgot();
    if single && forgot.is_some() {
        let text =
            "this log was made for a node that lost its own, but there is no other to learn from";
        return Err(StartError::Recover(text.into()));
    }
    let voice = Arc::new(Voice::new(votes_from, forgot.is_some()));
    let vote_pulse = store.vote_pulse();
    let memory = store.clone();
    let place = Arc::new(Place {
        node_id: options.node_id,
        cluster: options.cluster.clone(),
        peers: options.peers.clone(),
        severed: watch::Sender::new(BTreeSet::new()),
        pacer: Pacer::new(options.peers.keys().copied()),
    });
    let network = Network {
        place: place.clone(),
        lease: lease.clone(),
        transfers: transfers.clone(),
    };
    let raft = recover(&options, free, network, store, adapter).await?;

    let mut tasks = JoinSet::new();
    let board = Arc::new(Board::new());
    let heard = Arc::new(Heard::default());
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
    };
    tasks.spawn(Arc::new(server).run(listener));
    spawn_helpers(
        &mut tasks,
        &raft,
        &options,
        fresh,
        (!free).then_some((votes_from, voice.clone())),
    );
    if let Some(forgot) = forgot {
        tasks.spawn(rejoin::regain(raft.clone(), memory, voice.clone(), forgot));
    }
    tasks.spawn(checkpoint_on_pressure(raft.clone(), pressure));
    let standing = stand::stand(
        raft.clone(),
        heard,
        options.timing,
        options.peers.keys().copied().collect(),
        options.node_id,
        votes_from + ELECTION_PAUSE,
    );
    tasks.spawn(async move {
        voice.regained().await;
        standing.await;
    });
    for peer in place.others() {
        tasks.spawn(hints::tell(place.clone(), board.clone(), peer));
    }

    let (standing, public) = (watch::Sender::default(), watch::Sender::default());
    let (revoked, quorum) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    tasks.spawn(ask_quorum(raft.clone(), quorum.clone()));
    let (standing_seen, public_seen) = (standing.subscribe(), public.subscribe());
    let monitor = Monitor {
        lease: lease.clone(),
        timing: options.timing,
        single,
        metrics: raft.metrics(),
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
        timing_lease: options.timing.lease,
        standing: standing_seen,
        public: public_seen,
        revoked,
        quorum,
        vote_pulse,
        board,
        slots: Semaphore::new(PROPOSALS_MAX),
        room: Semaphore::new(PROPOSAL_BYTES_MAX / ROOM_UNIT),
        handle: tokio::runtime::Handle::current(),
        runtime: Mutex::new(None),
        tasks: Mutex::new(tasks),
        released: tokio::sync::Mutex::new(released),
    })
}

/// Openraft on the recovered state, once the voters are known to be the configured ones.
async fn recover<R: Send + 'static>(
    options: &ConsensusOptions,
    may_elect: bool,
    network: Network,
    store: Store,
    adapter: Machine<R>,
) -> Result<Raft<Types, Machine<R>>, StartError> {
    let config = Arc::new(config(options, may_elect)?);
    let raft = Raft::new(options.node_id, config, network, store, adapter).await;
    let raft = raft.map_err(|error| StartError::Recover(error.to_string()))?;
    if let Err(error) = check_members(&raft, options).await {
        let _ = raft.shutdown().await;
        return Err(error);
    }
    Ok(raft)
}

/// Founds the cluster, or ends the quarantine, when it is time.
fn spawn_helpers<R: Send + 'static>(
    tasks: &mut JoinSet<()>,
    raft: &Raft<Types, Machine<R>>,
    options: &ConsensusOptions,
    fresh: bool,
    quarantine: Option<(Instant, Arc<Voice>)>,
) {
    if let Some((end, voice)) = quarantine {
        tasks.spawn(elect_after(raft.clone(), end + ELECTION_PAUSE, voice));
    }
    if fresh {
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

/// The voters in log or machine must be those of the configuration.
async fn check_members<R: Send + 'static>(
    raft: &Raft<Types, Machine<R>>,
    options: &ConsensusOptions,
) -> Result<(), StartError> {
    let stored = raft.with_raft_state(|state| {
        state
            .membership_state
            .effective()
            .voter_ids()
            .collect::<BTreeSet<u64>>()
    });
    let stored = stored
        .await
        .map_err(|error| StartError::Recover(error.to_string()))?;
    let configured: BTreeSet<u64> = options.peers.keys().copied().collect();
    if stored.is_empty() || stored == configured {
        return Ok(());
    }
    let (stored, configured) = (
        stored.into_iter().collect(),
        configured.into_iter().collect(),
    );
    Err(StartError::Members { stored, configured })
}

/// Lets this node stand for election from `when` on, once it has a voice.
async fn elect_after<R: Send + 'static>(
    raft: Raft<Types, Machine<R>>,
    when: Instant,
    voice: Arc<Voice>,
) {
    tokio::time::sleep_until(when).await;
    voice.regained().await;
    raft.runtime_config().elect(true);
}

/// Founds the cluster, with the same first entry on every node. The lowest node begins; the others
/// wait for it a while, so that they do not all stand for election at once.
async fn found<R: Send + 'static>(raft: Raft<Types, Machine<R>>, options: ConsensusOptions) {
    let voters: BTreeSet<u64> = options.peers.keys().copied().collect();
    if voters.first() != Some(&options.node_id) {
        let mut metrics = raft.metrics();
        let heard = metrics.wait_until(|m| m.current_term > 0 || m.last_log_index.is_some());
        let _ = tokio::time::timeout(options.timing.lease * 2, heard).await;
    }
    if let Err(error) = raft.initialize(voters).await {
        // Another node was faster, which is as good.
        tracing::debug!("the cluster exists already: {error}");
    }
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
