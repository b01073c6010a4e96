//! Who is connected, told to the other nodes, so that the next leader can tickle every client.
//!
//! Soft state: the table of the newest term wins, a lost one costs a client the wait for its own timers.
//! It travels with the leader's bulletins.

use bytes::Bytes;
use haven_net::{ClientTable, Endpoint};
use haven_platform::sockets::Connection;
use haven_platform::tickle;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// Pauses before a tickle is repeated.
const TICKLE_PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(600),
];

/// The tables of client connections: our own, and the last one another leader told us.
#[derive(Clone)]
pub struct Clients {
    own: Arc<dyn Fn() -> Vec<Endpoint> + Send + Sync>,
    changed: watch::Receiver<u64>,
    told: Arc<Mutex<ClientTable>>,
    floating: Arc<Vec<IpAddr>>,
    /// Who was connected here when this node fell silent last.
    before: Arc<Mutex<Vec<Endpoint>>>,
    /// Rises whenever tickling begins or ends.
    turn: Arc<AtomicU64>,
}

impl Clients {
    /// `own` lists this node's connections, `changed` says when to look; only connections to a
    /// `floating` address can be tickled from elsewhere.
    pub fn new(
        own: impl Fn() -> Vec<Endpoint> + Send + Sync + 'static,
        changed: watch::Receiver<u64>,
        floating: Vec<IpAddr>,
    ) -> Self {
        Self {
            own: Arc::new(own),
            changed,
            told: Arc::default(),
            floating: Arc::new(floating),
            before: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// How many are connected here.
    pub fn count(&self) -> usize {
        (self.own)().len()
    }

    /// Waits until nobody is connected here.
    pub async fn wait_none(&self) {
        let mut changed = self.changed.clone();
        loop {
            changed.mark_unchanged();
            if (self.own)().is_empty() || changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// This node falls silent: nobody is tickled any more, and those who are connected will be when it serves again.
    pub fn rest(&self) {
        self.turn.fetch_add(1, Ordering::SeqCst);
        let mut before = self.before.lock();
        before.extend((self.own)());
        before.sort_unstable();
        before.dedup();
    }

    /// Makes the former leader's clients reconnect, and those of before a silence: at once, and again after pauses, for
    /// a client's TCP answers such segments only so often, and an announcement may have been lost.
    pub async fn tickle(&self) {
        let turn = self.turn.fetch_add(1, Ordering::SeqCst) + 1;
        let mut all = self.told.lock().endpoints.clone();
        all.extend(std::mem::take(&mut *self.before.lock()));
        let clients = self.tickle_once(&all).await;
        info!(clients, "tickled");
        let again = self.clone();
        tokio::spawn(async move {
            for pause in TICKLE_PAUSES {
                tokio::time::sleep(pause).await;
                if again.turn.load(Ordering::SeqCst) != turn {
                    return;
                }
                again.tickle_once(&all).await;
            }
        });
    }

    async fn tickle_once(&self, told: &[Endpoint]) -> usize {
        // A client may have come back from the same port: its living connection is left alone.
        let here = (self.own)();
        let connections: Vec<Connection> = told
            .iter()
            .filter(|e| self.floating.contains(&e.local.ip()) && !here.contains(e))
            .map(|e| Connection {
                local: e.local,
                remote: e.remote,
            })
            .collect();
        tickle::tickle(&connections).await.unwrap_or_else(|why| {
            warn!(%why, "cannot tickle the clients; they reconnect by their own timers");
            0
        })
    }

    /// Our table in `term`, in at most so many bytes: connections to floating addresses.
    pub fn table(&self, term: u64, bytes_max: usize) -> Bytes {
        let own = (self.own)();
        let floating = own
            .into_iter()
            .filter(|e| self.floating.contains(&e.local.ip()));
        ClientTable::encode(term, floating, bytes_max)
    }

    /// Changes whenever our table does.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Takes a table from another node.
    pub fn hear(&self, from: u64, hint: Bytes) {
        match ClientTable::decode(hint) {
            Some(table) => {
                let mut told = self.told.lock();
                // A former leader that is back may repeat its old table.
                if table.term >= told.term {
                    *told = table;
                }
            }
            None => debug!(from, "a table of connections that cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(local: &str, remote: &str) -> Endpoint {
        Endpoint {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    #[test]
    fn only_connections_to_floating_addresses_are_told() {
        let own = vec![
            endpoint("192.0.2.100:2049", "192.0.2.7:812"),
            endpoint("192.0.2.1:2049", "192.0.2.7:813"),
        ];
        let (_, changed) = watch::channel(0);
        let floating = vec!["192.0.2.100".parse().unwrap()];
        let here = own.clone();
        let clients = Clients::new(move || here.clone(), changed, floating);
        let told = ClientTable::decode(clients.table(7, 1 << 10)).unwrap();
        assert_eq!((told.term, &told.endpoints[..]), (7, &own[..1]));
    }

    #[test]
    fn an_old_table_does_not_replace_a_newer_one() {
        let floating: IpAddr = "192.0.2.100".parse().unwrap();
        let (_, changed) = watch::channel(0);
        let clients = Clients::new(Vec::new, changed, vec![floating]);
        let table = |term, remote| {
            let endpoints = [endpoint("192.0.2.100:2049", remote)];
            ClientTable::encode(term, endpoints.into_iter(), 1 << 10)
        };
        clients.hear(1, table(5, "192.0.2.7:1"));
        clients.hear(2, table(4, "192.0.2.7:2"));
        assert_eq!(clients.told.lock().endpoints[0].remote.port(), 1);
        clients.hear(2, table(6, "192.0.2.7:3"));
        assert_eq!(clients.told.lock().endpoints[0].remote.port(), 3);
    }
}
