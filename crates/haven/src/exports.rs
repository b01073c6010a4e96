//! What this node exports now: the configured rules, brought together with what is known only at run time,
//! the exports' numbers (from the replicated state) and the addresses of host names (from the resolver).
//!
//! Requests take a finished set of rules with one short lock; whoever changes anything builds a new set and
//! puts it in place. Exports that a change of the configuration adds are made by [`follow`] on the leader;
//! a later leader makes what is missing when it takes over.
//!
//! It must not know how requests are answered.

use crate::clock::ServiceClock;
use crate::engine::{Engine, Outcome};
use crate::found;
use bytes::Bytes;
use haven_config::exports::{Client, Who};
use haven_config::{Export, SquashMode};
use haven_consensus::Consensus;
use haven_nfsd::{Binding, ExportId, Hosts, Squash};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

/// Pause before exports that could not be made are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// See the module's head comment.
pub struct Exports {
    parts: Mutex<Parts>,
    offered: RwLock<Arc<haven_nfsd::Service>>,
    ports: Vec<Binding>,
    /// Counts changes of the configuration.
    changes: watch::Sender<u64>,
    /// Counts whatever may change whom the rules let in.
    version: AtomicU64,
}

#[derive(Default)]
struct Parts {
    configured: Arc<[Export]>,
    ids: BTreeMap<Bytes, ExportId>,
    hosts: Hosts,
}

impl Exports {
    /// As configured; nothing is offered before the first [`Exports::bind`].
    pub fn new(configured: &[Export], ports: Vec<Binding>) -> Arc<Self> {
        let exports = Self {
            parts: Mutex::default(),
            offered: RwLock::default(),
            ports,
            changes: watch::Sender::new(0),
            version: AtomicU64::new(0),
        };
        exports.change(|parts| parts.configured = configured.into());
        Arc::new(exports)
    }

    /// What requests are sorted by.
    pub fn current(&self) -> Arc<haven_nfsd::Service> {
        Arc::clone(&self.offered.read())
    }

    /// Changes whenever [`Exports::current`] does.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The exports as configured.
    pub fn configured(&self) -> Arc<[Export]> {
        Arc::clone(&self.parts.lock().configured)
    }

    /// Takes another configuration. Rules count from the next request on; exports that are new are offered as
    /// soon as they are made.
    pub fn set(&self, configured: &[Export]) {
        self.change(|parts| parts.configured = configured.into());
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Takes the exports' numbers.
    pub fn bind(&self, ids: BTreeMap<Bytes, ExportId>) {
        self.change(|parts| parts.ids = ids);
    }

    /// Takes the addresses of host names.
    pub fn set_hosts(&self, hosts: Hosts) {
        self.change(|parts| parts.hosts = hosts);
    }

    /// Tells of changes of the configuration.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        // Held to the end: of two changes, the later one is put in place last.
        let mut parts = self.parts.lock();
        change(&mut parts);
        let rules = parts.configured.iter().map(rules).collect();
        let mut exports = haven_nfsd::Exports::new(rules);
        exports.bind(&parts.ids);
        exports.set_hosts(&parts.hosts);
        *self.offered.write() = Arc::new(haven_nfsd::Service {
            exports: Arc::new(exports),
            ports: self.ports.clone(),
        });
        // Afterwards: who sees the new number sees the new rules.
        self.version.fetch_add(1, Ordering::Release);
    }
}

fn rules(export: &Export) -> haven_nfsd::Export {
    haven_nfsd::Export {
        path: export.path.clone().into(),
        clients: export.clients.iter().map(rule).collect(),
    }
}

fn rule(client: &Client) -> haven_nfsd::Client {
    let squash = client.options.squash;
    haven_nfsd::Client {
        who: match &client.who {
            Who::Address(address) => haven_nfsd::Who::Address(*address),
            Who::Network { address, prefix } => haven_nfsd::Who::Network(*address, *prefix),
            Who::Host(name) => haven_nfsd::Who::Host(name.clone()),
            Who::Wildcard(pattern) => haven_nfsd::Who::Wildcard(pattern.clone()),
            Who::Everybody => haven_nfsd::Who::Everybody,
        },
        options: haven_nfsd::Options {
            read_only: client.options.read_only,
            secure: client.options.secure,
            squash: Squash {
                root: squash.mode != SquashMode::None,
                all: squash.mode == SquashMode::All,
                anonuid: squash.anonuid,
                anongid: squash.anongid,
            },
        },
    }
}

/// Makes what a change of the configuration adds, while this node leads.
pub async fn follow(
    exports: Arc<Exports>,
    consensus: Consensus<Outcome>,
    engine: Arc<Engine>,
    clock: Arc<ServiceClock>,
) {
    let mut changes = exports.changes();
    let leadership = consensus.leadership();
    while changes.changed().await.is_ok() {
        info!(exports = exports.configured().len(), "exports changed");
        // Whoever leads next makes what is missing before it serves.
        while leadership.borrow().is_leader {
            match found::make_exports(&consensus, &engine, &exports, &clock).await {
                Ok(()) => break,
                Err(why) => {
                    warn!(%why, "new exports are not made yet");
                    sleep(RETRY).await;
                }
            }
        }
    }
}
