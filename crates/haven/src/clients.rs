//! Who is connected, and whom to make reconnect: what this node knows of it, tells the others, hears from them, and keeps for
//! its next start.
//!
//! A client whose connection ended without its hearing of it waits for its keepalive, a minute. So every node knows who was
//! connected to the floating addresses, wherever, and whoever has the addresses tickles all that have no connection there.
//!
//! - `known`: who is known (pure); `rounds`: who is tickled when (pure); `parts`: what is told in which part (pure)
//! - `keep`: what is kept on disk
//!
//! Soft state: what is lost of it costs a client the wait for its own timers. Nothing here is waited for by a request.
//!
//! It must not know who leads, nor when to serve.

mod keep;
mod known;
mod parts;
mod rounds;

use crate::engine::Outcome;
use bytes::Bytes;
use haven_consensus::Consensus;
use haven_disk::Disk;
use haven_net::{ClientTable, Endpoint, Gate};
use haven_platform::sockets::Connection;
use haven_platform::tickle;
use keep::Keep;
use known::Known;
use parking_lot::Mutex;
use parts::{PARTS_MAX, Parts};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// After a change has been told, further ones are told together after so long.
const GATHER: Duration = Duration::from_millis(20);
/// And for so many connections it takes a millisecond more, for looking at all of them.
const CONNECTIONS_PER_MS: usize = 1_000;
/// How often what is known grows older, and what to keep of it is looked at.
const REPEAT: Duration = Duration::from_secs(1);
/// A leader that was heard within this is there.
const LEADER_FRESH: Duration = Duration::from_millis(1_500);
/// A list is kept no more often than once in a second for so many connections.
const KEPT_PER_SECOND: usize = 10_000;
/// How long the last list of a node that ends may take.
const LAST_PATIENCE: Duration = Duration::from_millis(500);
/// Connections tickled before living ones are looked at again.
const BATCH: usize = 1_000;

type Own = Arc<dyn Fn() -> BTreeMap<u64, Endpoint> + Send + Sync>;

/// See the module's head comment. Clones share it.
#[derive(Clone)]
pub struct Clients {
    inner: Arc<Inner>,
}

struct Inner {
    own: Own,
    changed: watch::Receiver<u64>,
    floating: Vec<IpAddr>,
    started: Instant,
    state: Mutex<State>,
    /// Somebody is to be tickled, or nobody any more.
    tickle: Notify,
    /// What is told may have changed without a connection.
    tell: Notify,
    /// Rises whenever this node falls silent or serves.
    turn: AtomicU64,
    keep: Mutex<Keep>,
}

#[derive(Default)]
struct State {
    known: Known,
    parts: Parts,
    /// Those to be told.
    changed: BTreeSet<u16>,
    /// How many are connected here.
    count: usize,
    /// What was kept last: see [`Known::changes`].
    kept: u64,
}

impl Clients {
    /// `own` lists this node's connections by numbers of which none is used twice, `changed` says when to look; only
    /// those to a `floating` address can be tickled from elsewhere. What an earlier process knew is on `disk`.
    pub fn new(
        own: impl Fn() -> BTreeMap<u64, Endpoint> + Send + Sync + 'static,
        changed: watch::Receiver<u64>,
        floating: Vec<IpAddr>,
        disk: Arc<dyn Disk>,
    ) -> Self {
        let (keep, before) = Keep::open(disk);
        if !before.is_empty() {
            info!(clients = before.len(), "remembers who was connected before");
        }
        let mut state = State::default();
        state.known.recall(before);
        Self {
            inner: Arc::new(Inner {
                own: Arc::new(own),
                changed,
                floating,
                started: Instant::now(),
                state: Mutex::new(state),
                tickle: Notify::new(),
                tell: Notify::new(),
                turn: AtomicU64::new(0),
                keep: Mutex::new(keep),
            }),
        }
    }

    /// How many are connected here.
    pub fn count(&self) -> usize {
        (self.inner.own)().len()
    }

    /// Changes whenever that does.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.clone()
    }

    /// Waits until nobody is connected here.
    pub async fn wait_none(&self) {
        let mut changed = self.inner.changed.clone();
        loop {
            changed.mark_unchanged();
            if (self.inner.own)().is_empty() || changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// This node has the addresses in `term`, and has announced them: everybody who has no connection here is made
    /// to reconnect, until [`Clients::rest`].
    pub fn serve(&self, term: u64) {
        self.inner.turn.fetch_add(1, Ordering::SeqCst);
        let clients = {
            let mut state = self.inner.state.lock();
            self.look(&mut state);
            state.known.serve(term, self.now_ms())
        };
        info!(clients, "tickled");
        self.inner.tickle.notify_one();
    }

    /// This node falls silent, and has no address any more. Does not wait: addresses do.
    pub fn rest(&self) {
        let turn = self.inner.turn.fetch_add(1, Ordering::SeqCst) + 1;
        let this = self.clone();
        tokio::spawn(async move {
            let mut state = this.inner.state.lock();
            if this.inner.turn.load(Ordering::SeqCst) == turn {
                this.look(&mut state);
                state.known.silence(this.now_ms());
            }
            drop(state);
            this.inner.tickle.notify_one();
            this.inner.tell.notify_one();
        });
    }

    /// Does for ever what is to be done: tells, hears, tickles, keeps.
    pub async fn run(self, consensus: Consensus<Outcome>, gate: Arc<Gate>) {
        tokio::join!(
            self.tell(&consensus, &gate),
            self.hear(&consensus),
            self.tickle(),
            self.grow_old(&consensus, &gate),
            self.keep(),
        );
    }

    /// Keeps the last list of a node that ends. Does not wait for a disk that hangs.
    pub async fn end(&self) {
        let list = {
            let mut state = self.inner.state.lock();
            self.look(&mut state);
            state.known.everybody()
        };
        let this = self.clone();
        let writing = spawn_blocking(move || this.inner.keep.lock().write(&list, true));
        match timeout(LAST_PATIENCE, writing).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(why))) => warn!(%why, "cannot keep who was connected"),
            Ok(Err(_)) | Err(_) => warn!("it takes long to keep who was connected; left out"),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes over who is connected here.
    fn look(&self, state: &mut State) {
        let floating = &self.inner.floating;
        let own = (self.inner.own)().into_iter();
        let own = own.map(|(id, ends)| (id, plain(ends)));
        let own: BTreeMap<u64, Endpoint> = own
            .filter(|(_, ends)| floating.contains(&ends.local.ip()))
            .collect();
        state.count = own.len();
        let change = state.parts.update(&own);
        // In this order: one that was opened anew lives.
        for connection in change.joined {
            state.known.joined(connection);
        }
        for connection in change.left {
            state.known.left(connection);
        }
        state.changed.extend(change.parts);
    }

    /// Tells the others who is connected: the first change at once, for the machine may fail at any moment.
    async fn tell(&self, consensus: &Consensus<Outcome>, gate: &Gate) {
        let mut changed = self.inner.changed.clone();
        let mut leadership = consensus.leadership();
        let mut told_in = None;
        loop {
            changed.mark_unchanged();
            let now = *leadership.borrow_and_update();
            let term = (now.holds_term && !gate.is_closed()).then_some(now.term);
            let anew = std::mem::replace(&mut told_in, term) != term;
            let (tables, count) = self.tables(term, anew);
            for (part, table) in tables {
                if let Err(why) = consensus.post(part, table) {
                    warn!(%why, "cannot tell the other nodes who is connected");
                }
            }
            sleep(GATHER + Duration::from_millis((count / CONNECTIONS_PER_MS) as u64)).await;
            tokio::select! {
                end = changed.changed() => if end.is_err() { return },
                end = leadership.changed() => if end.is_err() { return },
                () = self.inner.tell.notified() => {}
            }
        }
    }

    /// What is to be told by this node, which serves in `term` or does not: all of it, or what has changed. And how many are
    /// connected here.
    fn tables(&self, term: Option<u64>, all: bool) -> (Vec<(u16, Bytes)>, usize) {
        let mut state = self.inner.state.lock();
        self.look(&mut state);
        let mut parts = std::mem::take(&mut state.changed);
        if all {
            parts = state.parts.all();
        }
        let table = |part| {
            let connections = state.parts.part(part);
            let term = term.filter(|_| !connections.is_empty());
            let table =
                term.map_or_else(Bytes::new, |term| ClientTable::encode(term, &connections));
            (part, table)
        };
        (parts.into_iter().map(table).collect(), state.count)
    }

    async fn hear(&self, consensus: &Consensus<Outcome>) {
        loop {
            for (from, part, bytes) in consensus.posts().await {
                self.take(from, part, bytes);
            }
        }
    }

    fn take(&self, from: u64, part: u16, bytes: Bytes) {
        if part >= PARTS_MAX {
            return;
        }
        let table = match bytes.is_empty() {
            true => None,
            false => match ClientTable::decode(bytes) {
                Some(table) => Some(table),
                None => return debug!(from, "a table of connections that cannot be read"),
            },
        };
        let now_ms = self.now_ms();
        let mut state = self.inner.state.lock();
        match table {
            Some(ClientTable { term, endpoints }) => {
                state.known.told(from, term, part, endpoints, now_ms);
            }
            None => state.known.emptied(from, part, now_ms),
        }
        drop(state);
        self.inner.tickle.notify_one();
    }

    async fn tickle(&self) {
        loop {
            let next_ms = self.inner.state.lock().known.next_due_ms();
            let wait = next_ms.map(|at| Duration::from_millis(at.saturating_sub(self.now_ms())));
            let Some(wait) = wait else {
                self.inner.tickle.notified().await;
                continue;
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.inner.tickle.notified() => continue,
            }
            let due = {
                let mut state = self.inner.state.lock();
                // Those that are back already are left alone.
                self.look(&mut state);
                state.known.due(self.now_ms(), BATCH)
            };
            let connections: Vec<Connection> = due.iter().map(connection).collect();
            if let Err(why) = tickle::tickle(&connections).await {
                warn!(%why, "cannot tickle the clients; they reconnect by their own timers");
            }
        }
    }

    async fn grow_old(&self, consensus: &Consensus<Outcome>, gate: &Gate) {
        loop {
            sleep(REPEAT).await;
            let sign = consensus.leader_sign();
            let elsewhere = sign.is_some_and(|sign| sign.at.elapsed() < LEADER_FRESH);
            let ms = u64::try_from(REPEAT.as_millis()).unwrap_or(u64::MAX);
            let members: Vec<u64> = consensus.members().iter().map(|m| m.id).collect();
            let now_ms = self.now_ms();
            let mut state = self.inner.state.lock();
            if gate.is_open() || elsewhere {
                state.known.pass(ms);
            }
            state.known.keep_members(&members, now_ms);
        }
    }

    /// Keeps what is known for the next start, when it has changed.
    async fn keep(&self) {
        loop {
            sleep(REPEAT).await;
            let list = {
                let mut state = self.inner.state.lock();
                let changes = state.known.changes();
                let news = std::mem::replace(&mut state.kept, changes) != changes;
                news.then(|| state.known.everybody())
            };
            let Some(list) = list else { continue };
            let rest = REPEAT * u32::try_from(list.len() / KEPT_PER_SECOND).unwrap_or(u32::MAX);
            let this = self.clone();
            let writing = spawn_blocking(move || this.inner.keep.lock().write(&list, false));
            if let Ok(Err(why)) = writing.await {
                warn!(%why, "cannot keep who is connected; after a stop of all nodes clients may wait for their timers");
            }
            sleep(rest).await;
        }
    }
}

/// IPv4 within IPv6 as what it is on the wire.
fn plain(ends: Endpoint) -> Endpoint {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    Endpoint {
        local: plain(ends.local),
        remote: plain(ends.remote),
    }
}

fn connection(ends: &Endpoint) -> Connection {
    Connection {
        local: ends.local,
        remote: ends.remote,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_disk::RealDisk;

    fn clients(dir: &std::path::Path, own: &[(&str, &str)]) -> Clients {
        let own: BTreeMap<u64, Endpoint> = own
            .iter()
            .map(|(l, r)| endpoint(l, r))
            .zip(0..)
            .map(|(e, id)| (id, e))
            .collect();
        let (_, changed) = watch::channel(0);
        let floating = ["192.0.2.100", "2001:db8::100"]
            .map(|ip| ip.parse().unwrap())
            .to_vec();
        let disk = Arc::new(RealDisk::open(dir).unwrap());
        Clients::new(move || own.clone(), changed, floating, disk)
    }

    fn endpoint(local: &str, remote: &str) -> Endpoint {
        Endpoint {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    fn told(clients: &Clients, term: Option<u64>) -> Vec<(u16, Option<ClientTable>)> {
        let (tables, _) = clients.tables(term, false);
        tables
            .into_iter()
            .map(|(part, bytes)| (part, ClientTable::decode(bytes)))
            .collect()
    }

    #[test]
    fn only_connections_to_floating_addresses_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let own = [
            ("192.0.2.100:2049", "192.0.2.7:812"),
            ("192.0.2.1:2049", "192.0.2.7:813"),
        ];
        let clients = clients(dir.path(), &own);
        let table = ClientTable {
            term: 7,
            endpoints: vec![endpoint(own[0].0, own[0].1)],
        };
        assert_eq!(told(&clients, Some(7)), [(0, Some(table))]);
        assert_eq!(told(&clients, Some(7)), [], "no news");
        let (tables, _) = clients.tables(None, true);
        assert_eq!(
            tables,
            [(0, Bytes::new())],
            "not of a node that does not serve"
        );
    }

    #[test]
    fn an_ipv4_client_of_a_socket_of_both_kinds_is_one_of_ipv4() {
        let dir = tempfile::tempdir().unwrap();
        let own = [
            ("[::ffff:192.0.2.100]:2049", "[::ffff:192.0.2.7]:812"),
            ("[2001:db8::100]:2049", "[2001:db8::7]:812"),
        ];
        let clients = clients(dir.path(), &own);
        let endpoints = vec![
            endpoint("192.0.2.100:2049", "192.0.2.7:812"),
            endpoint(own[1].0, own[1].1),
        ];
        let table = ClientTable { term: 7, endpoints };
        assert_eq!(told(&clients, Some(7)), [(0, Some(table))]);
    }

    #[tokio::test]
    async fn a_node_that_ended_knows_its_clients_when_it_starts_again() {
        let dir = tempfile::tempdir().unwrap();
        let own = [("192.0.2.100:2049", "192.0.2.7:812")];
        clients(dir.path(), &own).end().await;
        let again = clients(dir.path(), &[]);
        again.serve(1);
        let due = again.inner.state.lock().known.due(again.now_ms(), 9);
        assert_eq!(due, [endpoint(own[0].0, own[0].1)]);
    }

    #[test]
    fn garbage_from_peers_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let clients = clients(dir.path(), &[]);
        let table = ClientTable::encode(1, &[endpoint("192.0.2.100:2049", "192.0.2.7:1")]);
        clients.take(2, 0, Bytes::from_static(b"garbage"));
        clients.take(2, PARTS_MAX, table.clone());
        assert!(clients.inner.state.lock().known.everybody().is_empty());
        clients.take(2, 0, table);
        assert_eq!(clients.inner.state.lock().known.everybody().len(), 1);
    }
}
