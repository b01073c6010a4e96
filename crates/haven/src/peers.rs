//! Who is connected, told to the other nodes, so that the next leader can tickle every client.
//!
//! Soft state: the table of the newest term wins, a lost one costs a client the wait for its own timers.
//! It travels with the leader's bulletins.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use haven_consensus::HINT_BYTES_MAX;
use haven_net::Endpoint;
use haven_platform::sockets::Connection;
use haven_platform::tickle;
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// First byte of a table.
const FORMAT: u8 = 1;
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
    told: Arc<Mutex<Told>>,
    floating: Arc<Vec<IpAddr>>,
}

/// What a leader told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// The term it led in.
    term: u64,
    /// Who was connected.
    endpoints: Vec<Endpoint>,
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

    /// Makes the former leader's clients reconnect: at once, and again after pauses, for a client's TCP
    /// answers such segments only so often, and an announcement may have been lost.
    pub async fn tickle(&self) {
        let told = self.told.lock().endpoints.clone();
        let clients = self.tickle_once(&told).await;
        info!(clients, "tickled");
        let again = self.clone();
        tokio::spawn(async move {
            for pause in TICKLE_PAUSES {
                tokio::time::sleep(pause).await;
                again.tickle_once(&told).await;
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

    /// Our table in `term`, in at most so many bytes.
    pub fn table(&self, term: u64, bytes_max: usize) -> Bytes {
        encode(term, &(self.own)(), &self.floating, bytes_max)
    }

    /// Changes whenever our table does.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Takes a table from another node.
    pub fn hear(&self, from: u64, hint: Bytes) {
        match decode(hint) {
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

/// As many connections to floating addresses as fit.
fn encode(term: u64, endpoints: &[Endpoint], floating: &[IpAddr], bytes_max: usize) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(FORMAT);
    out.put_u64(term);
    for endpoint in endpoints
        .iter()
        .filter(|e| floating.contains(&e.local.ip()))
    {
        let before = out.len();
        put(&mut out, endpoint.local);
        put(&mut out, endpoint.remote);
        if out.len() > bytes_max {
            out.truncate(before);
            break;
        }
    }
    out.freeze()
}

fn put(out: &mut BytesMut, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16(address.port());
}

fn decode(mut hint: Bytes) -> Option<Told> {
    if hint.len() > HINT_BYTES_MAX || hint.try_get_u8().ok()? != FORMAT {
        return None;
    }
    let term = hint.try_get_u64().ok()?;
    let mut endpoints = Vec::new();
    while hint.has_remaining() {
        endpoints.push(Endpoint {
            local: get(&mut hint)?,
            remote: get(&mut hint)?,
        });
    }
    Some(Told { term, endpoints })
}

fn get(hint: &mut Bytes) -> Option<SocketAddr> {
    let ip: IpAddr = match hint.try_get_u8().ok()? {
        4 => Ipv4Addr::from_bits(hint.try_get_u32().ok()?).into(),
        6 => Ipv6Addr::from_bits(hint.try_get_u128().ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, hint.try_get_u16().ok()?))
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
    fn tables_survive_the_way() {
        let endpoints = vec![
            endpoint("192.0.2.100:2049", "192.0.2.7:812"),
            endpoint("[2001:db8::1]:2049", "[2001:db8::2]:900"),
        ];
        let floating = [
            "192.0.2.100".parse().unwrap(),
            "2001:db8::1".parse().unwrap(),
        ];
        let told = decode(encode(7, &endpoints, &floating, HINT_BYTES_MAX)).unwrap();
        assert_eq!(
            told,
            Told {
                term: 7,
                endpoints: endpoints.clone()
            }
        );
        let told = decode(encode(7, &endpoints, &floating[..1], HINT_BYTES_MAX)).unwrap();
        assert_eq!(told.endpoints, endpoints[..1]);
    }

    #[test]
    fn an_old_table_does_not_replace_a_newer_one() {
        let floating: IpAddr = "192.0.2.100".parse().unwrap();
        let (_, changed) = watch::channel(0);
        let clients = Clients::new(Vec::new, changed, vec![floating]);
        let table = |term, remote| {
            encode(
                term,
                &[endpoint("192.0.2.100:2049", remote)],
                &[floating],
                HINT_BYTES_MAX,
            )
        };
        clients.hear(1, table(5, "192.0.2.7:1"));
        clients.hear(2, table(4, "192.0.2.7:2"));
        assert_eq!(clients.told.lock().endpoints[0].remote.port(), 1);
        clients.hear(2, table(6, "192.0.2.7:3"));
        assert_eq!(clients.told.lock().endpoints[0].remote.port(), 3);
    }

    #[test]
    fn large_tables_are_cut_and_garbage_is_refused() {
        let many: Vec<Endpoint> = (0..20_000u32)
            .map(|n| {
                endpoint(
                    "192.0.2.100:2049",
                    &format!("10.0.{}.{}:7", n >> 8 & 255, n & 255),
                )
            })
            .collect();
        let hint = encode(1, &many, &["192.0.2.100".parse().unwrap()], HINT_BYTES_MAX);
        assert!(hint.len() <= HINT_BYTES_MAX);
        assert!(decode(hint.clone()).unwrap().endpoints.len() > 4_000);
        for cut in 0..60 {
            let whole = cut >= 9 && (cut - 9) % 14 == 0;
            assert_eq!(decode(hint.slice(..cut)).is_some(), whole, "{cut} bytes");
        }
        assert!(decode(Bytes::from_static(b"\x02")).is_none());
    }
}
