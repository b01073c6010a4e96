//! `haven serve`: one node, wired together from its parts.

use crate::addresses::Addresses;
use crate::bulletin::Bulletins;
use crate::clients::Clients;
use crate::clock::{self, ServiceClock};
use crate::cluster::{self, office::Office};
use crate::control;
use crate::desk::Desk;
use crate::driver::{Driver, Handle, Parts};
use crate::exports::Exports;
use crate::history::{History, now_unix_ms};
use crate::insight::Insight;
use crate::listening::Listening;
use crate::notify;
use crate::rebuild;
use crate::reload::reload;
use crate::roll::Roll;
use crate::rpcbind::Rpcbind;
use crate::service::{SLOW_QUERIES_MAX, Service, bindings};
use crate::settings;
use crate::space::SpaceGuard;
use crate::standby::{self, Standby};
use crate::strangers::Strangers;
use crate::timer::Timer;
use crate::watchdog::{self, Vitals};
use crate::witness;
use crate::{exports, resolve};
use haven_config::{Config, Role};
use haven_consensus::{CheckpointPolicy, Consensus, ConsensusOptions, Timing};
use haven_disk::Disk;
use haven_log::Log;
use haven_net::{Gate, Limits, Server};
use haven_nfsd::Binding;
use haven_pki::Identity;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// Directory of the log within the data directory.
pub(crate) const LOG_DIR: &str = "log";
/// How often consensus is asked whether it still runs. (A node that failed is mute at once, by its lease;
/// this only ends the process.)
const FAILURE_POLL: Duration = Duration::from_millis(100);

/// How long rpcbind may take to forget us.
const WITHDRAW_PATIENCE: Duration = Duration::from_secs(2);

/// Pause before a node that is to be removed tries again to hand over.
const LEAVE_AGAIN: Duration = Duration::from_secs(1);

/// Threads for whatever may wait for the disk: queries that take long, and as many for everything else.
pub(crate) const BLOCKING_THREADS: usize = 2 * SLOW_QUERIES_MAX;

/// What a node runs on.
///
/// # Errors
/// What the system says.
pub fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|e| e.to_string())
}

/// The ports a node listens on, once it does.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// NFS.
    pub nfs: u16,
    /// MOUNT.
    pub mount: u16,
    /// The built-in port mapper, if this node is one.
    pub portmap: Option<u16>,
}

/// Runs a node until SIGTERM or SIGINT, or until it cannot go on.
///
/// `exe` is the binary to start the address guard from; `file` is read again at SIGHUP; `serving` is called when
/// clients are answered here for the first time. After an error the caller must end the process without waiting
/// for anything: a disk may hang.
///
/// # Errors
/// What went wrong and what to do, in words.
pub async fn serve(
    config: Config,
    disk: Arc<dyn Disk>,
    exe: &Path,
    file: Option<PathBuf>,
    serving: impl FnOnce(Ports) + Send + 'static,
) -> Result<(), String> {
    let mut signals = Signals::new(config.clone(), file.clone())?;
    if config.node.role == Role::Witness {
        return witness::serve(config, disk, file, &mut signals).await;
    }
    let data = config.node.data.clone();
    let node = tokio::select! {
        node = Node::start(config, disk, exe, file) => node?,
        end = signals.end() => {
            info!(signal = end, "stopped before it began");
            return Ok(());
        }
    };
    signals.exports = Some(Arc::clone(&node.exports));
    let handle = node.handle.clone();
    tokio::spawn(first_served(handle.clone(), node.ports, serving));
    let mut driver = tokio::spawn(node.driver.run());
    let mut hung = node.hung;
    let mut why = tokio::select! {
        () = until_removed(&node.consensus, &data) => Ok("the removal of this node"),
        end = &mut driver => return end.map_err(|e| format!("the takeover ended: {e}")),
        why = gave_up(&node.consensus, &node.log, &mut hung) => Err(why),
        end = signals.end() => Ok(end),
    };
    if let Ok(signal) = why {
        info!(
            signal,
            "stopping: requests under way are finished, and the service is handed over if another node can take it"
        );
        notify::stopping();
        let released = async {
            node.registration.withdraw().await;
            handle.shut_down().await;
            (&mut driver).await
        };
        why = tokio::select! {
            end = released => end.map(|()| signal).map_err(|e| format!("the takeover ended: {e}")),
            why = gave_up(&node.consensus, &node.log, &mut hung) => Err(why),
            signal = signals.end() => Err(format!("stopped at once, by a second {signal}")),
        };
    }
    // From here on nothing is answered. After a failure the state may no longer equal the others'.
    node.gate.close();
    node.clients.end().await;
    why?;
    tokio::select! {
        () = node.consensus.shutdown() => info!("stopped"),
        signal = signals.end() => return Err(format!("stopped at once, by a second {signal}")),
    }
    // All that is left is the machine's watchdog timer, which the watch switches off.
    if node.clean_end.send(()).is_ok() {
        drop(hung.await);
    }
    Ok(())
}

/// Returns when this node is no member any more; from then on it does not start again.
pub(crate) async fn until_removed(consensus: &Consensus<crate::engine::Outcome>, data: &Path) {
    let mut removed = consensus.removed();
    let why = removed.wait_for(Option::is_some).await;
    let why = why.ok().and_then(|why| why.clone()).unwrap_or_default();
    cluster::note_removed(data, &why);
    error!(
        "{why}: it stops serving, and does not start again. Its data stay in {}; to use the machine again, move them \
         away and let it join with a new token",
        data.display()
    );
}

/// What the outside tells this process.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    file: Option<PathBuf>,
    config: Config,
    /// What a changed configuration changes, once the node has started.
    exports: Option<Arc<Exports>>,
}

impl Signals {
    fn new(config: Config, file: Option<PathBuf>) -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|e| format!("cannot hear signals: {e}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            file,
            config,
            exports: None,
        })
    }

    /// Waits for the signal to stop; gives its name. Reads the configuration again when told to, but not
    /// before the node has started.
    pub(crate) async fn end(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv(), if self.exports.is_some() => self.reload(),
            }
        }
    }

    fn reload(&mut self) {
        match (&self.file, &self.exports) {
            (Some(file), Some(exports)) => {
                self.config = reload(file, self.config.clone(), exports);
            }
            _ => warn!("SIGHUP: there is no configuration file to read again"),
        }
    }
}

/// Returns when this node cannot go on, with the reason.
async fn gave_up(
    consensus: &Consensus<crate::engine::Outcome>,
    log: &Log,
    hung: &mut tokio::task::JoinHandle<Result<(), String>>,
) -> String {
    tokio::select! {
        why = hung => {
            let why = match why {
                Ok(Err(why)) => why,
                Ok(Ok(())) => "the watchdog ended".into(),
                Err(why) => format!("the watchdog ended: {why}"),
            };
            error!("{why}");
            why
        }
        () = failed(consensus.clone()) => match log.failure() {
            Some(why) => format!(
                "this node cannot go on: {why}. What was acknowledged is safe. Look at the disk (is it full?), then \
                 start again"
            ),
            None => "this node cannot go on; the log above says why".into(),
        },
    }
}

/// This node's entries at rpcbind.
struct Registration {
    with: Option<Rpcbind>,
    bindings: Vec<Binding>,
    keeping: Option<tokio::task::JoinHandle<()>>,
}

impl Registration {
    fn new(with: Option<Rpcbind>, bindings: Vec<Binding>) -> Self {
        let keep = |rpcbind: &Rpcbind| tokio::spawn(rpcbind.clone().keep(bindings.clone()));
        Self {
            keeping: with.as_ref().map(keep),
            with,
            bindings,
        }
    }

    async fn withdraw(&self) {
        if let (Some(rpcbind), Some(keeping)) = (&self.with, &self.keeping) {
            keeping.abort();
            if tokio::time::timeout(WITHDRAW_PATIENCE, rpcbind.withdraw(&self.bindings))
                .await
                .is_err()
            {
                warn!("rpcbind takes long to forget this server; left as it is");
            }
        }
    }
}

/// Waits until this node serves, then says so.
async fn first_served(handle: Handle, ports: Ports, serving: impl FnOnce(Ports)) {
    handle.serves().await;
    serving(ports);
}

/// Returns when consensus has stopped by itself: a disk or the state machine failed.
pub(crate) async fn failed(consensus: Consensus<crate::engine::Outcome>) {
    while consensus.status().role != haven_consensus::Role::Stopped {
        tokio::time::sleep(FAILURE_POLL).await;
    }
}

struct Node {
    driver: Driver,
    handle: Handle,
    consensus: Consensus<crate::engine::Outcome>,
    gate: Arc<Gate>,
    clients: Clients,
    ports: Ports,
    log: Log,
    registration: Registration,
    exports: Arc<Exports>,
    /// Ends when this node hangs, with the reason.
    hung: tokio::task::JoinHandle<Result<(), String>>,
    /// To be told when the end is as it should be.
    clean_end: oneshot::Sender<()>,
}

impl Node {
    async fn start(
        config: Config,
        disk: Arc<dyn Disk>,
        exe: &Path,
        file: Option<PathBuf>,
    ) -> Result<Self, String> {
        let identity = cluster::identity(&config)?;
        let (log, engine) = rebuild::open(&disk, &config)?;
        if let Some(identity) = &identity {
            // Before anything is promised to anybody.
            cluster::note_started(&config.node.data, identity)?;
        }
        let standby = Arc::new(Standby::open(Arc::clone(&disk))?);
        let kept_on = Arc::clone(&disk);
        let space = SpaceGuard::new(disk, config.health.reserve_bytes, log.clone())?;
        let Listening {
            streams,
            datagrams,
            ports,
            rpcbind,
        } = Listening::open(&config).await?;
        let socket = control::bind(&config.node.control)
            .map_err(|e| format!("control socket {}: {e}", config.node.control.display()))?;
        let metrics = control::bind_metrics(config.metrics.listen).await?;
        let (machine, pulses) = (Arc::clone(&engine), engine.pulses());
        let options = consensus_options(&config, identity.as_ref())?;
        let consensus = Consensus::start(options, log.clone(), machine)
            .await
            .map_err(|e| e.to_string())?;
        cluster::complain_of_place(&consensus, &config);
        let office = identity.map(|own| Office::open(own, consensus.clone(), &config, file));
        if office.is_some() {
            let data = config.node.data.clone();
            tokio::spawn(cluster::note_voters(data, consensus.clone()));
        }
        if standby.is_wished() {
            consensus.set_unwilling([config.node.id].into());
        }
        let roll = Roll::new(&config, consensus.clone());
        let names = roll.clone();
        let clock = ServiceClock::new(config.node.id);
        clock.members(&roll.voters());
        let history = Arc::new(History::new(&config.node.name, move |id| names.name_of(id)));
        let gate = Arc::new(Gate::default());
        let bindings = bindings(config.service.listen, ports);
        let service = Service::new(
            Exports::new(&config.exports, bindings.clone()),
            Arc::clone(&engine),
            consensus.clone(),
            Arc::clone(&gate),
            Arc::clone(&space),
            Arc::clone(&history),
            Arc::clone(&clock),
        );
        let meter = service.meter();
        let exports = service.exports();
        tokio::spawn(
            service
                .callers()
                .mind(consensus.clone(), Arc::clone(&clock)),
        );
        let (own, log_of) = (Arc::clone(&exports), consensus.clone());
        tokio::spawn(exports::follow(
            own,
            log_of,
            Arc::clone(&engine),
            Arc::clone(&clock),
        ));
        tokio::spawn(resolve::keep_hosts(Arc::clone(&exports)));
        let server = Server::new(Arc::new(service), Arc::clone(&gate), limits(&config.limits));
        tokio::spawn(Arc::clone(&space).watch(consensus.clone(), Arc::clone(&clock)));
        let kept = streams.iter().map(std::net::TcpListener::try_clone);
        let kept = kept.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        for listener in streams {
            tokio::spawn(Arc::clone(&server).listen(listener));
        }
        for socket in datagrams {
            tokio::spawn(Arc::clone(&server).listen_datagrams(socket));
        }
        let clients = clients(&config, &server, kept_on);
        tokio::spawn(clients.clone().run(consensus.clone(), Arc::clone(&gate)));
        let bulletins = Bulletins::new(
            &config,
            roll.clone(),
            Arc::clone(&history),
            Arc::clone(&clock),
        );
        let hear = bulletins.clone();
        tokio::spawn(hear.hear(consensus.clone()));
        let (minds, told) = (Arc::clone(&space), bulletins.clone());
        tokio::spawn(minds.mind_others(config.node.id, consensus.clone(), told));
        let lost = Arc::new(parking_lot::Mutex::new(None::<Handle>));
        let addresses = addresses(&config, exe, kept, &consensus, Arc::clone(&lost))?;
        if let Some(addresses) = addresses.clone() {
            server.on_connection(move |socket, ends| addresses.keep(socket, ends.local.ip()));
        }
        let strangers = Arc::new(Strangers::default());
        let (driver, handle) = Driver::new(Parts {
            consensus: consensus.clone(),
            engine: Arc::clone(&engine),
            gate: Arc::clone(&gate),
            clients: clients.clone(),
            addresses: addresses.clone(),
            exports: Arc::clone(&exports),
            history: Arc::clone(&history),
            clock: Arc::clone(&clock),
        });
        *lost.lock() = Some(handle.clone());
        tokio::spawn(leave(consensus.clone(), handle.clone()));
        let desk = Arc::new(Desk {
            insight: Insight {
                name: config.node.name.clone(),
                started_unix_ms: now_unix_ms(),
                roll,
                office,
                consensus: consensus.clone(),
                log: log.clone(),
                bulletins: bulletins.clone(),
                history,
                settings: settings::Told::new(&config, Some(Arc::clone(&exports))),
                clock: Arc::clone(&clock),
                listens: config.own().address,
            },
            service: config.service.name.clone(),
            engine,
            handle: handle.clone(),
            gate: Arc::clone(&gate),
            clients: clients.clone(),
            space,
            ports,
            standby: Arc::clone(&standby),
            addresses: addresses.clone(),
            strangers: Arc::clone(&strangers),
            meter,
            pressure: Box::new(move || server.pressure()),
        });
        if let Some(addresses) = addresses {
            let of = Arc::clone(&desk);
            tokio::spawn(strangers.watch(addresses, move || of.member_holds()));
        }
        let applied = Arc::clone(&desk.engine);
        let seen = move || applied.try_read(|machine| machine.last_time());
        tokio::spawn(clock::keep(clock, desk.insight.roll.clone(), seen));
        let judged = Arc::clone(&desk);
        let judged = move || judged.insight.judged(judged.report());
        tokio::spawn(settings::watch(judged, Arc::clone(&desk)));
        let (tell, own) = (bulletins.clone(), Arc::clone(&desk));
        let changed = clients.changed();
        tokio::spawn(tell.tell(consensus.clone(), changed, move || own.report()));
        tokio::spawn(standby::follow(
            standby,
            bulletins,
            consensus.clone(),
            handle.clone(),
            config.node.id,
        ));
        control::serve(socket, metrics, &desk);
        tell_start(&config, ports, rpcbind.is_some());
        let others = config.cluster.shared;
        let vitals = Vitals {
            log: log.clone(),
            consensus: consensus.clone(),
            machine: pulses,
            health: config.health.clone(),
        };
        let timer = Timer::start(config.health.watchdog_device.as_deref())?;
        let (clean_end, ended) = oneshot::channel();
        let watch = watchdog::watch(vitals, handle.clone(), others, timer, ended);
        Ok(Self {
            driver,
            handle,
            consensus,
            gate,
            clients,
            ports,
            log,
            registration: Registration::new(rpcbind, bindings),
            exports,
            hung: tokio::spawn(watch),
            clean_end,
        })
    }
}

/// One line that says what was started.
fn tell_start(config: &Config, ports: Ports, registers: bool) {
    let joined = |words: Vec<String>| words.join(" ");
    let exports = joined(config.exports.iter().map(|e| e.path.clone()).collect());
    let addresses = config.service.addresses.iter();
    let addresses = joined(
        addresses
            .map(|a| format!("{}/{}", a.address, a.prefix))
            .collect(),
    );
    info!(
        version = env!("CARGO_PKG_VERSION"),
        data = %config.node.data.display(),
        listen = %config.service.listen,
        nfs_port = ports.nfs,
        mount_port = ports.mount,
        portmap_port = ports.portmap,
        rpcbind = registers,
        peer_address = %config.own().address,
        addresses,
        exports,
        "started"
    );
    notify::ready(&format!("NFS port {}, exports {exports}", ports.nfs));
}

/// What clients may use.
pub(crate) const fn limits(own: &haven_config::Limits) -> Limits {
    Limits {
        connections_max: own.connections,
        connections_per_address_max: own.connections_per_address,
        inflight_per_connection_max: own.inflight_per_connection,
        record_bytes_max: own.record_bytes,
        inflight_bytes_max: own.inflight_bytes,
        answer_bytes_max: own.answer_bytes,
        patience: own.patience,
        idle: own.idle,
    }
}

pub(crate) fn consensus_options(
    config: &Config,
    identity: Option<&Identity>,
) -> Result<ConsensusOptions, String> {
    let own = config.own();
    let security = identity.map(|identity| cluster::security(config, identity));
    let security = security.transpose()?;
    let founds = |id: &u64| {
        let founders = security.as_ref().map(|security| &security.founders);
        founders.is_none_or(|founders| founders.contains_key(id))
    };
    let peers = config.cluster.nodes.iter().map(|n| (n.id, n.address));
    Ok(ConsensusOptions {
        node_id: own.id,
        cluster: config.cluster.name.clone(),
        peers: peers.filter(|(id, _)| founds(id)).collect(),
        listen: own.address,
        security,
        timing: Timing::default(),
        checkpoints: CheckpointPolicy {
            entries: config.node.checkpoints.entries,
            bytes: config.node.checkpoints.bytes,
            // Without other nodes there is nobody to keep them for.
            keep_entries: match config.cluster.shared {
                false => 0,
                true => config.node.checkpoints.keep_entries,
            },
            keep_bytes: config.node.checkpoints.keep_bytes,
        },
        witness: config.node.role == Role::Witness,
    })
}

/// Hands the service over when this node is to be removed while it leads.
async fn leave(consensus: Consensus<crate::engine::Outcome>, handle: Handle) {
    consensus.until_leaving().await;
    let mut leadership = consensus.leadership();
    while leadership.wait_for(|now| now.is_leader).await.is_ok() {
        info!("this node is to be removed: the service is handed over");
        handle.request_move(None).await;
        tokio::time::sleep(LEAVE_AGAIN).await;
    }
}

fn clients(config: &Config, server: &Arc<Server<Service>>, disk: Arc<dyn Disk>) -> Clients {
    let floating = config.service.addresses.iter().map(|a| a.address).collect();
    let own = Arc::clone(server);
    Clients::new(
        move || own.connections(),
        server.endpoints_changed(),
        floating,
        disk,
    )
}

fn addresses(
    config: &Config,
    exe: &Path,
    listeners: Vec<std::net::TcpListener>,
    consensus: &Consensus<crate::engine::Outcome>,
    handle: Arc<parking_lot::Mutex<Option<Handle>>>,
) -> Result<Option<Addresses>, String> {
    if config.service.addresses.is_empty() {
        return Ok(None);
    }
    let consensus = consensus.clone();
    Addresses::new(
        &config.service.addresses,
        config.service.interface.as_deref(),
        exe,
        listeners,
        move || consensus.lease_valid(),
        move || {
            if let Some(handle) = &*handle.lock() {
                handle.address_lost();
            }
        },
    )
    .map(Some)
}

/// Opens the data directory of a configuration on the real disk.
///
/// # Errors
/// In use, not readable, of another format: in words.
pub fn open_disk(data: &Path) -> Result<Arc<dyn Disk>, String> {
    let disk = haven_disk::RealDisk::open(data).map_err(|e| e.to_string())?;
    Ok(Arc::new(disk))
}
