//! `haven serve`: one node, wired together from its parts.

use crate::addresses::Addresses;
use crate::control::{self, Control, Request, StateHash, Status};
use crate::driver::{Driver, Handle, Parts};
use crate::engine::Engine;
use crate::peers::Clients;
use crate::service::Service;
use haven_cluster::Phase;
use haven_config::Config;
use haven_consensus::{CheckpointPolicy, Consensus, ConsensusOptions, Timing};
use haven_disk::Disk;
use haven_log::{Log, LogOptions};
use haven_net::{Gate, Limits, Server};
use serde_json::Value;
use std::io::ErrorKind::AddrInUse;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// Directory of the log within the data directory.
pub(crate) const LOG_DIR: &str = "log";
/// How long a port may be taken: the guard of a server that has just died holds it until the floating
/// addresses are off.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// How often a taken port is tried.
const PORT_POLL: Duration = Duration::from_millis(10);
/// How often consensus is asked whether it still runs. (A node that failed is mute at once, by its lease;
/// this only ends the process.)
const FAILURE_POLL: Duration = Duration::from_millis(100);

/// How often a starting node is asked whether it serves.
const FIRST_POLL: std::time::Duration = std::time::Duration::from_millis(5);

/// The ports a node listens on, once it does.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// NFS.
    pub nfs: u16,
    /// MOUNT.
    pub mount: u16,
}

/// Runs a node until SIGTERM or SIGINT, or until it cannot go on.
///
/// `exe` is the binary to start the address guard from; `serving` is called when clients are answered here for the
/// first time.
///
/// # Errors
/// What went wrong and what to do, in words.
pub async fn serve(
    config: Config,
    disk: Arc<dyn Disk>,
    exe: &Path,
    serving: impl FnOnce(Ports) + Send + 'static,
) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let node = Node::start(config, disk, exe).await?;
    let handle = node.handle.clone();
    tokio::spawn(first_served(handle.clone(), node.ports, serving));
    let mut driver = tokio::spawn(node.driver.run());
    let stopped = node.consensus.clone();
    let end = tokio::select! {
        end = &mut driver => end,
        () = failed(stopped) => {
            // The state may no longer equal the others': nothing is served any more.
            node.gate.close();
            return Err("this node cannot go on; the log above says why".into());
        }
        _ = terminate.recv() => { handle.shut_down().await; driver.await }
        _ = interrupt.recv() => { handle.shut_down().await; driver.await }
    };
    end.map_err(|e| format!("the takeover ended: {e}"))?;
    node.gate.close();
    node.consensus.shutdown().await;
    info!("stopped");
    Ok(())
}

/// Waits until this node serves, then says so.
async fn first_served(handle: Handle, ports: Ports, serving: impl FnOnce(Ports)) {
    while handle.view().phase != Phase::Serving {
        tokio::time::sleep(FIRST_POLL).await;
    }
    serving(ports);
}

/// Returns when consensus has stopped by itself: a disk or the state machine failed.
async fn failed(consensus: Consensus<crate::engine::Outcome>) {
    while consensus.status().role != haven_consensus::Role::Stopped {
        tokio::time::sleep(FAILURE_POLL).await;
    }
}

struct Node {
    driver: Driver,
    handle: Handle,
    consensus: Consensus<crate::engine::Outcome>,
    gate: Arc<Gate>,
    ports: Ports,
}

impl Node {
    async fn start(config: Config, disk: Arc<dyn Disk>, exe: &Path) -> Result<Self, String> {
        let log = Log::open(Arc::clone(&disk), Path::new(LOG_DIR), LogOptions::default())
            .map_err(|e| format!("the log in {}: {e}", config.node.data.display()))?;
        let engine = Engine::open(disk)
            .map_err(|e| format!("the store in {}: {e}", config.node.data.display()))?;
        let listeners = listen(&config).await?;
        let ports = Ports {
            nfs: port(&listeners[0]),
            mount: port(&listeners[1]),
        };
        let socket = control::bind(&config.node.control)
            .map_err(|e| format!("control socket {}: {e}", config.node.control.display()))?;
        let machine = Arc::clone(&engine);
        let consensus = Consensus::start(consensus_options(&config), log.clone(), machine)
            .await
            .map_err(|e| e.to_string())?;
        let gate = Arc::new(Gate::default());
        let service = Service::new(&config, Arc::clone(&engine), consensus.clone(), ports);
        let server = Server::new(Arc::new(service), Arc::clone(&gate), Limits::default());
        let kept = listeners.iter().map(std::net::TcpListener::try_clone);
        let kept = kept.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        for listener in listeners {
            tokio::spawn(Arc::clone(&server).listen(listener));
        }
        let clients = clients(&config, &server);
        tokio::spawn(clients.clone().tell(consensus.clone(), Arc::clone(&gate)));
        tokio::spawn(hear(clients.clone(), consensus.clone()));
        let lost = Arc::new(parking_lot::Mutex::new(None::<Handle>));
        let addresses = addresses(&config, exe, kept, &consensus, Arc::clone(&lost))?;
        if let Some(addresses) = addresses.clone() {
            server.on_connection(move |socket, ends| addresses.keep(socket, ends.local.ip()));
        }
        let (driver, handle) = Driver::new(Parts {
            consensus: consensus.clone(),
            engine: Arc::clone(&engine),
            gate: Arc::clone(&gate),
            clients: clients.clone(),
            addresses,
            exports: config.exports.clone(),
        });
        *lost.lock() = Some(handle.clone());
        let desk = Desk {
            nodes: config
                .cluster
                .nodes
                .iter()
                .map(|n| (n.name.clone(), n.id))
                .collect(),
            name: config.node.name.clone(),
            engine,
            consensus: consensus.clone(),
            log,
            handle: handle.clone(),
            gate: Arc::clone(&gate),
            clients,
            ports,
        };
        tokio::spawn(control::serve(socket, Arc::new(desk)));
        Ok(Self {
            driver,
            handle,
            consensus,
            gate,
            ports,
        })
    }
}

/// NFS, MOUNT and, if wanted, the portmapper: every port answers all programs.
async fn listen(config: &Config) -> Result<Vec<std::net::TcpListener>, String> {
    let patience = Instant::now() + PORT_PATIENCE;
    loop {
        match bind_all(config) {
            Err((why, _)) if why.kind() == AddrInUse && Instant::now() < patience => {
                tokio::time::sleep(PORT_POLL).await;
            }
            end => return end.map_err(|(_, what)| what),
        }
    }
}

/// All listeners, or why not: also in words.
fn bind_all(config: &Config) -> Result<Vec<std::net::TcpListener>, (std::io::Error, String)> {
    let service = &config.service;
    let mut ports = vec![("NFS", service.nfs_port), ("MOUNT", service.mount_port)];
    ports.extend(service.portmap_port.map(|p| ("portmap", p)));
    ports
        .into_iter()
        .map(|(what, port)| {
            let address = SocketAddr::new(service.listen, port);
            haven_net::bind(address).map_err(|why| {
                let words = format!(
                    "cannot listen on {address} for {what}: {why}; is another NFS server running?"
                );
                (why, words)
            })
        })
        .collect()
}

fn port(listener: &std::net::TcpListener) -> u16 {
    listener.local_addr().map_or(0, |a| a.port())
}

fn consensus_options(config: &Config) -> ConsensusOptions {
    let own = config.own();
    ConsensusOptions {
        node_id: own.id,
        cluster: config.cluster.name.clone(),
        peers: config
            .cluster
            .nodes
            .iter()
            .map(|n| (n.id, n.address))
            .collect(),
        listen: own.address,
        timing: Timing::default(),
        checkpoints: CheckpointPolicy {
            entries: config.node.checkpoints.entries,
            bytes: config.node.checkpoints.bytes,
            keep_entries: config.node.checkpoints.keep_entries,
        },
    }
}

fn clients(config: &Config, server: &Arc<Server<Service>>) -> Clients {
    let floating = config.service.addresses.iter().map(|a| a.address).collect();
    let own = Arc::clone(server);
    Clients::new(
        move || own.endpoints(),
        server.endpoints_changed(),
        floating,
    )
}

/// Takes the tables of clients that other nodes tell.
async fn hear(clients: Clients, consensus: Consensus<crate::engine::Outcome>) {
    let mut hints = consensus.hints();
    loop {
        for (from, hint) in hints.borrow_and_update().iter() {
            clients.hear(*from, hint.clone());
        }
        if hints.changed().await.is_err() {
            return;
        }
    }
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

/// Answers the control socket.
struct Desk {
    name: String,
    nodes: Vec<(String, u64)>,
    engine: Arc<Engine>,
    consensus: Consensus<crate::engine::Outcome>,
    log: Log,
    handle: Handle,
    gate: Arc<Gate>,
    clients: Clients,
    ports: Ports,
}

impl Desk {
    fn name_of(&self, id: u64) -> Option<String> {
        self.nodes
            .iter()
            .find(|(_, i)| *i == id)
            .map(|(n, _)| n.clone())
    }

    fn status(&self) -> Status {
        let (consensus, view, log) = (
            self.consensus.status(),
            self.handle.view(),
            self.log.stats(),
        );
        Status {
            node: self.name.clone(),
            role: format!("{:?}", consensus.role).to_lowercase(),
            leader: consensus.leader.and_then(|id| self.name_of(id)),
            term: consensus.term,
            phase: format!("{:?}", view.phase),
            serving: self.gate.is_open() && self.consensus.lease_valid(),
            trouble: view.trouble,
            last_log: consensus.last_log.unwrap_or(0),
            committed: consensus.committed.unwrap_or(0),
            applied: consensus.applied.unwrap_or(0),
            log_records: log.appended_records,
            log_flushes: log.flushes,
            connections: self.clients.count() as u64,
            nfs_port: self.ports.nfs,
            mount_port: self.ports.mount,
        }
    }

    /// The hash of a state that did not change while it was read.
    async fn state_hash(&self) -> Result<StateHash, String> {
        loop {
            let applied = self.consensus.applied_index();
            let engine = Arc::clone(&self.engine);
            let hash = tokio::task::spawn_blocking(move || engine.state_hash());
            let hash = hash.await.map_err(|e| e.to_string())??;
            if self.consensus.applied_index() == applied {
                return Ok(StateHash { applied, hash });
            }
        }
    }

    async fn request_move(&self, to: Option<String>) -> Result<(), String> {
        if !self.consensus.leadership().borrow().is_leader {
            let leader = self
                .consensus
                .leadership()
                .borrow()
                .leader
                .and_then(|id| self.name_of(id));
            return Err(match leader {
                Some(leader) => format!("this node does not lead; ask node {leader}"),
                None => "no node leads at the moment".into(),
            });
        }
        let target = match to {
            None => None,
            Some(name) => {
                let found = self.nodes.iter().find(|(n, _)| *n == name);
                Some(found.ok_or_else(|| format!("there is no node {name}"))?.1)
            }
        };
        self.handle.request_move(target).await;
        Ok(())
    }
}

impl Control for Desk {
    async fn handle(&self, request: Request) -> Result<Value, String> {
        let value = match request {
            Request::Status => serde_json::to_value(self.status()),
            Request::StateHash => serde_json::to_value(self.state_hash().await?),
            Request::Move { to } => serde_json::to_value(self.request_move(to).await?),
        };
        value.map_err(|e| e.to_string())
    }
}

/// Opens the data directory of a configuration on the real disk.
///
/// # Errors
/// In use, not readable, of another format: in words.
pub fn open_disk(data: &Path) -> Result<Arc<dyn Disk>, String> {
    let disk = haven_disk::RealDisk::open(data).map_err(|e| e.to_string())?;
    Ok(Arc::new(disk))
}
