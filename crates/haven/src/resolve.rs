//! Names: addresses of the host names in the exports, and verified names of clients for wildcards.
//!
//! Looking up may take long and may fail; requests never do it themselves. Host names are looked up again
//! and again by [`keep_hosts`] on every node, so that a node that takes over knows them. Names of a client
//! are looked up when a request first depends on them: the address's name, if that name has the address. The
//! request waits for [`PATIENCE`] at most. Answers are kept for a while and used while they are asked for anew,
//! so that a name server that is down keeps nobody out that was let in lately.
//!
//! Everything is bounded: lookups at once, answers kept, how long they are believed.
//! It must not know what the names decide.

use crate::exports::Exports;
use dns_lookup::lookup_addr;
use haven_nfsd::Hosts;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// How long a request waits for names.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Most lookups at once, of either kind.
const LOOKUPS_MAX: usize = 16;
/// Most clients whose names are kept.
const CLIENTS_MAX: usize = 4_096;
/// Most addresses of a host name.
const ADDRESSES_MAX: usize = 64;
/// When a name that was found is looked up again.
const REFRESH: Duration = Duration::from_secs(300);
/// When it is looked up again that there is no name.
const REFRESH_NONE: Duration = Duration::from_secs(30);
/// How long an answer is believed that cannot be had anew.
const KEEP: Duration = Duration::from_secs(3_600);
/// How often host names are looked up.
const ROUND: Duration = Duration::from_secs(60);

/// Who answers: the system, or a test.
trait Answers: Send + Sync + 'static {
    /// The name of an address, if it has one.
    fn name(&self, address: IpAddr) -> io::Result<Option<String>>;
    /// The addresses of a name.
    fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver: `/etc/hosts`, DNS, or whatever it is told to use.
struct System;

impl Answers for System {
    fn name(&self, address: IpAddr) -> io::Result<Option<String>> {
        let name = lookup_addr(&address)?;
        // The address in digits: it has no name.
        Ok(Some(name).filter(|name| name.parse::<IpAddr>().is_err()))
    }

    fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found: BTreeSet<_> = (name, 0)
            .to_socket_addrs()?
            .map(|address| address.ip().to_canonical())
            .collect();
        Ok(found.into_iter().take(ADDRESSES_MAX).collect())
    }
}

/// Names of clients.
pub struct Resolver {
    answers: Arc<dyn Answers>,
    clients: Mutex<BTreeMap<IpAddr, Known>>,
    lookups: Arc<Semaphore>,
    /// A lookup has ended.
    ended: Notify,
}

struct Known {
    names: Arc<[String]>,
    /// When that was so.
    since: Option<Instant>,
    /// When it is to be looked up again.
    again: Instant,
    /// Somebody does so now.
    asking: bool,
}

impl Known {
    fn usable(&self, now: Instant) -> bool {
        let Some(since) = self.since else {
            return false;
        };
        match self.names.is_empty() {
            true => now < self.again,
            false => now.duration_since(since) < KEEP,
        }
    }
}

impl Resolver {
    /// On the system's resolver.
    pub fn new() -> Arc<Self> {
        Self::on(Arc::new(System))
    }

    fn on(answers: Arc<dyn Answers>) -> Arc<Self> {
        Arc::new(Self {
            answers,
            clients: Mutex::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            ended: Notify::new(),
        })
    }

    /// The names of a client, if they are known; looks again in the background when it is time.
    pub fn known(self: &Arc<Self>, client: IpAddr) -> Option<Arc<[String]>> {
        let now = Instant::now();
        let (names, old) = match self.clients.lock().get(&client) {
            Some(known) if known.usable(now) => (Arc::clone(&known.names), now >= known.again),
            _ => return None,
        };
        if old {
            self.look_up(client, now);
        }
        Some(names)
    }

    /// The names of a client; `None`: not within [`PATIENCE`].
    pub async fn names(self: &Arc<Self>, client: IpAddr) -> Option<Arc<[String]>> {
        self.names_within(client, PATIENCE).await
    }

    async fn names_within(
        self: &Arc<Self>,
        client: IpAddr,
        patience: Duration,
    ) -> Option<Arc<[String]>> {
        let wait = async {
            loop {
                // Before looking: what ends from here on is noticed.
                let ended = self.ended.notified();
                if let Some(known) = self.known(client) {
                    return known;
                }
                self.look_up(client, Instant::now());
                ended.await;
            }
        };
        timeout(patience, wait).await.ok()
    }

    /// Starts a lookup, unless one is under way for this client or there are too many.
    fn look_up(self: &Arc<Self>, client: IpAddr, now: Instant) {
        let Ok(permit) = Arc::clone(&self.lookups).try_acquire_owned() else {
            return;
        };
        {
            let mut clients = self.clients.lock();
            make_room(&mut clients, client);
            let known = clients.entry(client).or_insert_with(|| Known {
                names: Arc::default(),
                since: None,
                again: now,
                asking: false,
            });
            if known.asking {
                return;
            }
            known.asking = true;
        }
        let own = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let found = verified(&*own.answers, client);
            own.learn(client, found);
            drop(permit);
            own.ended.notify_waiters();
        });
    }

    fn learn(&self, client: IpAddr, found: io::Result<Option<String>>) {
        let now = Instant::now();
        let mut clients = self.clients.lock();
        let Some(known) = clients.get_mut(&client) else {
            return;
        };
        known.asking = false;
        match found {
            Ok(name) => {
                known.again = now
                    + if name.is_some() {
                        REFRESH
                    } else {
                        REFRESH_NONE
                    };
                known.names = name.into_iter().collect();
                known.since = Some(now);
            }
            Err(why) => {
                debug!(%client, %why, "its name cannot be looked up");
                known.again = now + REFRESH_NONE;
                if !known.usable(now) {
                    known.names = Arc::default();
                    known.since = Some(now);
                }
            }
        }
    }
}

/// Lets the answer go that is oldest, if there is no room for one more.
fn make_room(clients: &mut BTreeMap<IpAddr, Known>, client: IpAddr) {
    if clients.len() < CLIENTS_MAX || clients.contains_key(&client) {
        return;
    }
    let idle = clients.iter().filter(|(_, known)| !known.asking);
    let oldest = idle.min_by_key(|(_, known)| known.again);
    if let Some(oldest) = oldest.map(|(client, _)| *client) {
        clients.remove(&oldest);
    }
}

/// The name of an address, if the name has that address: anybody can claim a name in the reverse zone.
fn verified(answers: &dyn Answers, client: IpAddr) -> io::Result<Option<String>> {
    let Some(name) = answers.name(client)? else {
        return Ok(None);
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let own = answers.addresses(&name)?.contains(&client);
    Ok(own.then_some(name))
}

/// Looks up the host names in the exports, for ever.
pub async fn keep_hosts(exports: Arc<Exports>) {
    let mut changes = exports.changes();
    let mut hosts = HostTable::default();
    loop {
        changes.mark_unchanged();
        hosts
            .round(&exports, &(Arc::new(System) as Arc<dyn Answers>))
            .await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep(ROUND) => {}
        }
    }
}

/// Addresses of host names, and when they were found.
#[derive(Default)]
struct HostTable(BTreeMap<String, (Vec<IpAddr>, Instant)>);

impl HostTable {
    /// Looks up all names once. What is found counts as soon as its part of the names is done.
    async fn round(&mut self, exports: &Exports, answers: &Arc<dyn Answers>) {
        let current = exports.current();
        let names: BTreeSet<String> = current.exports.host_names().map(str::to_owned).collect();
        self.0.retain(|name, _| names.contains(name));
        let names: Vec<_> = names.into_iter().collect();
        for part in names.chunks(LOOKUPS_MAX) {
            let mut lookups = JoinSet::new();
            for name in part.iter().cloned() {
                let answers = Arc::clone(answers);
                lookups.spawn_blocking(move || {
                    let found = answers.addresses(&name);
                    (name, found)
                });
            }
            while let Some(done) = lookups.join_next().await {
                if let Ok((name, found)) = done {
                    self.learn(name, found, Instant::now());
                }
            }
            exports.set_hosts(self.hosts());
        }
    }

    fn learn(&mut self, name: String, found: io::Result<Vec<IpAddr>>, now: Instant) {
        let last = self.0.get(&name);
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(why) => {
                match last {
                    Some((known, since)) if !known.is_empty() => {
                        if now.duration_since(*since) < KEEP {
                            return;
                        }
                        warn!(name, %why, "a host in the exports lost its addresses");
                    }
                    Some(_) => {}
                    None => warn!(name, %why, "a host in the exports has no address"),
                }
                Vec::new()
            }
        };
        self.0.insert(name, (addresses, now));
    }

    fn hosts(&self) -> Hosts {
        let pair = |(name, (addresses, _)): (&String, &(Vec<IpAddr>, Instant))| {
            (name.clone(), addresses.clone())
        };
        self.0.iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests;
