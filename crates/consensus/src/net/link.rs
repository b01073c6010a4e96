//! Setting up a connection between two nodes: sockets, timeouts, and who is at the other end.
//!
//! The one place that turns a TCP connection into one between two named members of one cluster;
//! encryption and authentication belong here.
//!
//! Invariants
//! - Before the hello was accepted, a peer gets [`HELLO_BODY_MAX`] bytes and [`HELLO_TIMEOUT`].
//! - Both ends log why they refuse each other.
//!
//! It must not know what connections carry.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use socket2::TcpKeepalive;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::net::frame::FrameReader;
use crate::net::frame::FrameWriter;
use crate::net::frame::WireError;
use crate::net::message;
use crate::net::message::HELLO_BODY_MAX;
use crate::net::message::Hello;
use crate::net::message::Purpose;
use crate::net::pace::Pacer;

/// Time for a TCP connection to a peer. The peer's kernel answers, however busy its processes are; and
/// the kernel's own second attempt comes only after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);

/// Time for the hello and its answer.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// The kernel gives a peer up that acknowledges nothing for this long.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The kernel probes a connection that carried nothing for this long.
const PROBE_AFTER: Duration = Duration::from_secs(2);

/// This node and its cluster, as connections need to know them.
pub(crate) struct Place {
    pub(crate) node_id: u64,
    pub(crate) cluster: String,
    pub(crate) peers: BTreeMap<u64, SocketAddr>,
    /// Peers that this node pretends not to reach, nor to be reached by (fault injection).
    pub(crate) severed: watch::Sender<BTreeSet<u64>>,
    /// When peers that do not answer are tried again.
    pub(crate) pacer: Pacer,
}

impl Place {
    pub(crate) fn is_severed(&self, peer: u64) -> bool {
        self.severed.borrow().contains(&peer)
    }

    /// Returns when `peer` is severed.
    pub(crate) async fn until_severed(&self, peer: u64) {
        let mut severed = self.severed.subscribe();
        // The sender lives in `self`: waiting cannot fail.
        let _ = severed.wait_for(|set| set.contains(&peer)).await;
    }

    /// The other voters.
    pub(crate) fn others(&self) -> impl Iterator<Item = u64> + '_ {
        self.peers.keys().copied().filter(|id| *id != self.node_id)
    }
}

/// A connection whose other end is known.
pub(crate) struct Link {
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
}

impl Link {
    fn new(socket: TcpStream) -> Result<Self, WireError> {
        socket.set_nodelay(true)?;
        let options = SockRef::from(&socket);
        options.set_tcp_user_timeout(Some(SILENCE_MAX))?;
        options.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(PROBE_AFTER)
                .with_interval(Duration::from_secs(1)),
        )?;
        let (read, write) = socket.into_split();
        let reader = FrameReader::new(read, HELLO_BODY_MAX);
        Ok(Self {
            reader,
            writer: FrameWriter::new(write),
        })
    }
}

/// Connects to `peer`, when it is time to try; the answers may have up to `body_max` bytes. Whoever gets
/// an answer on the link tells the [`Pacer`].
pub(crate) async fn connect(
    place: &Place,
    peer: u64,
    purpose: Purpose,
    body_max: usize,
) -> Result<Link, WireError> {
    place.pacer.turn(peer, purpose).await;
    let connected = connect_now(place, peer, purpose, body_max).await;
    match &connected {
        Ok(_) => place.pacer.welcomed(peer),
        Err(error) => place.pacer.failed(peer, purpose, error),
    }
    connected
}

async fn connect_now(
    place: &Place,
    peer: u64,
    purpose: Purpose,
    body_max: usize,
) -> Result<Link, WireError> {
    if place.is_severed(peer) {
        return Err(WireError::Peer("severed for a test"));
    }
    let addr = place
        .peers
        .get(&peer)
        .ok_or(WireError::Peer("not a configured peer"))?;
    let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(addr))
        .await
        .map_err(|_| WireError::Timeout("connecting"))??;
    let mut link = Link::new(socket)?;
    let hello = Hello {
        cluster: place.cluster.clone(),
        from: place.node_id,
        to: peer,
        purpose,
    };
    let greeting = async {
        link.writer.send(message::hello(&hello)).await?;
        message::read_welcome(&link.reader.next().await?)
    };
    let greeted = timeout(HELLO_TIMEOUT, greeting)
        .await
        .map_err(|_| WireError::Timeout("the hello"))?;
    greeted?;
    link.reader.set_body_max(body_max);
    Ok(link)
}

/// Takes a connection: learns who is there and whether it belongs here.
pub(crate) async fn accept(place: &Place, socket: TcpStream) -> Result<(Hello, Link), WireError> {
    let mut link = Link::new(socket)?;
    let greeting = async {
        let hello = message::read_hello(&link.reader.next().await?)?;
        if let Err(reason) = check(place, &hello) {
            link.writer.send(message::refused(&reason)).await?;
            return Err(WireError::Refused(format!("{reason} (our answer)")));
        }
        if place.is_severed(hello.from) {
            return Err(WireError::Peer("severed for a test"));
        }
        link.writer.send(message::welcome()).await?;
        Ok(hello)
    };
    let hello = timeout(HELLO_TIMEOUT, greeting)
        .await
        .map_err(|_| WireError::Timeout("the hello"))??;
    Ok((hello, link))
}

fn check(place: &Place, hello: &Hello) -> Result<(), String> {
    if hello.cluster != place.cluster {
        return Err(format!(
            "this is cluster {:?}, not {:?}",
            place.cluster, hello.cluster
        ));
    }
    if hello.to != place.node_id {
        return Err(format!("this is node {}, not {}", place.node_id, hello.to));
    }
    if hello.from == place.node_id {
        return Err(format!("two nodes call themselves {}", hello.from));
    }
    if !place.peers.contains_key(&hello.from) {
        return Err(format!("node {} is not configured here", hello.from));
    }
    Ok(())
}

/// A link that is set up in the background, so that a caller who gives up waiting does not have to
/// start over next time.
pub(crate) struct LazyLink {
    place: Arc<Place>,
    peer: u64,
    purpose: Purpose,
    body_max: usize,
    connecting: Option<tokio::task::JoinHandle<Result<Link, WireError>>>,
}

impl LazyLink {
    pub(crate) fn new(place: Arc<Place>, peer: u64, purpose: Purpose, body_max: usize) -> Self {
        Self {
            place,
            peer,
            purpose,
            body_max,
            connecting: None,
        }
    }

    /// A new link. May be dropped and called again.
    pub(crate) async fn get(&mut self) -> Result<Link, WireError> {
        let Self {
            place,
            peer,
            purpose,
            body_max,
            connecting,
        } = self;
        let attempt = connecting.get_or_insert_with(|| {
            let (place, peer, purpose, body_max) = (place.clone(), *peer, *purpose, *body_max);
            tokio::spawn(async move { connect(&place, peer, purpose, body_max).await })
        });
        let done = attempt.await;
        self.connecting = None;
        done.map_err(|_| WireError::Peer("the connection attempt was aborted"))?
    }
}

impl Drop for LazyLink {
    fn drop(&mut self) {
        if let Some(attempt) = self.connecting.take() {
            attempt.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn refused_connections_are_paced() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let place = Place {
            node_id: 1,
            cluster: "test".into(),
            peers: [(1, addr), (2, addr)].into(),
            severed: watch::Sender::new(BTreeSet::new()),
            pacer: Pacer::new([1, 2]),
        };
        let begun = Instant::now();
        for _ in 0..5 {
            let link = connect(&place, 2, Purpose::Entries, HELLO_BODY_MAX).await;
            assert!(link.is_err());
        }
        let least = Duration::from_millis(20 + 40 + 80 + 160);
        assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    }
}
