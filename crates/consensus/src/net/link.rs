//! Setting up a connection between two nodes: sockets, TLS, timeouts, and who is at the other end.
//!
//! The one place that turns a TCP connection into one between two named members of one cluster. TLS proves that
//! the other end holds a key certified by the cluster's authority for a node; the hello says which node and what
//! for; the roster says whether that node, with that key, is a member.
//!
//! Invariants
//! - Before the hello was accepted, a peer gets [`HELLO_BODY_MAX`] bytes and [`HELLO_TIMEOUT`], TLS included.
//! - Both ends log why they refuse each other, once for each change.
//! - Whoever shows no certificate may ask to join, and nothing else.
//!
//! It must not know what connections carry.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use haven_pki::Tls;
use haven_pki::rustls;
use haven_pki::rustls::pki_types::CertificateDer;
use parking_lot::Mutex;
use socket2::SockRef;
use socket2::TcpKeepalive;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;
use tokio_rustls::TlsStream;

use crate::Gatekeeper;
use crate::answers::Answers;
use crate::net::affair;
use crate::net::doubles;
use crate::net::doubles::Doubles;
use crate::net::doubles::Stray;
use crate::net::frame::FrameReader;
use crate::net::frame::FrameWriter;
use crate::net::frame::WireError;
use crate::net::message;
use crate::net::message::Fault;
use crate::net::message::HELLO_BODY_MAX;
use crate::net::message::Hello;
use crate::net::message::Purpose;
use crate::net::pace::Pacer;
use crate::net::urgency::Urgency;
use crate::net::visit::Parlour;
use crate::roster::Record;
use crate::roster::Roster;
use crate::roster::Standing;

/// Time for a TCP connection to a peer. The peer's kernel answers, however busy its processes are; and
/// the kernel's own second attempt comes only after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);

/// Time for the TLS handshake, the hello and its answer.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// The kernel gives a peer up that acknowledges nothing for this long.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The kernel probes a connection that carried nothing for this long.
const PROBE_AFTER: Duration = Duration::from_secs(2);

/// First byte of every TLS connection: a handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Bytes asked of the socket at once: TLS itself asks for 4 KiB, a fourth of a record.
const READ_STEP: usize = 64 << 10;

/// A socket under TLS.
type Socket = BufReader<TcpStream>;

/// What whoever speaks anything else is told.
const NOT_TLS: &[u8] =
    b"haven: this port is for the nodes of a Haven cluster, which speak TLS; clients mount over NFS\n";

/// This node and its cluster, as connections need to know them.
pub(crate) struct Place {
    pub(crate) node_id: u64,
    /// The protocol version this node speaks.
    pub(crate) version: u32,
    /// `None` for a node that is alone for good.
    pub(crate) tls: Option<Tls>,
    /// Who belongs to the cluster, as far as this node's log says.
    pub(crate) roster: watch::Sender<Arc<Roster>>,
    /// Whom openraft wants to reach; it may be ahead of the roster for a moment.
    pub(crate) targets: Mutex<BTreeMap<u64, Record>>,
    /// Why this node is no member any more, once it knows.
    pub(crate) removed: watch::Sender<Option<String>>,
    /// Who lets machines in.
    pub(crate) gatekeeper: OnceLock<Arc<dyn Gatekeeper>>,
    /// Who receives other members.
    pub(crate) parlour: Parlour,
    /// Peers that this node pretends not to reach, nor to be reached by (fault injection).
    pub(crate) severed: watch::Sender<BTreeSet<u64>>,
    /// When peers that do not answer are tried again.
    pub(crate) pacer: Pacer,
    /// Where this node listens.
    pub(crate) listen: SocketAddr,
    /// The number of this process.
    pub(crate) process: u64,
    /// Processes that are not the one that a member is.
    pub(crate) doubles: Doubles,
    /// Why others do not take this process for the node that it says it is.
    pub(crate) stray: watch::Sender<Option<String>>,
    /// When they answered last.
    pub(crate) answers: Arc<Answers>,
}

impl Place {
    pub(crate) fn is_severed(&self, peer: u64) -> bool {
        self.severed.borrow().contains(&peer)
    }

    /// Returns when `peer` is severed, or no member any more.
    pub(crate) async fn until_cut(&self, peer: u64) {
        let mut severed = self.severed.subscribe();
        let mut roster = self.roster.subscribe();
        let gone = |roster: &Arc<Roster>| {
            !roster.nodes.is_empty()
                && !roster.nodes.contains_key(&peer)
                && peer < roster.book.next_id
        };
        // The senders live in `self`: waiting cannot fail.
        tokio::select! {
            _ = severed.wait_for(|set| set.contains(&peer)) => {}
            _ = roster.wait_for(gone) => {}
        }
    }

    /// The other members.
    pub(crate) fn others(&self) -> Vec<u64> {
        let roster = self.roster.borrow();
        let ids = roster.nodes.keys().copied();
        ids.filter(|id| *id != self.node_id).collect()
    }

    fn target(&self, peer: u64) -> Option<Record> {
        let known = self.roster.borrow().nodes.get(&peer).cloned();
        known.or_else(|| self.targets.lock().get(&peer).cloned())
    }

    /// Whether a member lives at this address.
    pub(crate) fn is_home(&self, ip: IpAddr) -> bool {
        let roster = self.roster.borrow();
        let mut homes = roster.nodes.values().filter_map(|record| record.address);
        homes.any(|home| home.ip() == ip)
    }

    fn tls(&self) -> Result<&Tls, WireError> {
        self.tls
            .as_ref()
            .ok_or(WireError::Peer("this node is alone and has no certificate"))
    }
}

/// A connection whose other end is known.
pub(crate) struct Link {
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
}

impl Link {
    fn new(stream: TlsStream<Socket>) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self {
            reader: FrameReader::new(read, HELLO_BODY_MAX),
            writer: FrameWriter::new(write),
        }
    }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let options = SockRef::from(socket);
    options.set_tcp_user_timeout(Some(SILENCE_MAX))?;
    options.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(PROBE_AFTER)
            .with_interval(Duration::from_secs(1)),
    )?;
    // Until it is known what it is for.
    mark(options, Urgency::First);
    Ok(())
}

/// A system that cannot say how urgent something is carries it all the same.
fn mark(socket: SockRef<'_>, urgency: Urgency) {
    if let Err(error) = urgency.apply(socket) {
        tracing::debug!("cannot mark a connection as {urgency:?}: {error}");
    }
}

/// To the same socket, for when it is under TLS.
fn handle(socket: &TcpStream) -> io::Result<OwnedFd> {
    socket.as_fd().try_clone_to_owned()
}

fn buffered(socket: TcpStream) -> Socket {
    BufReader::with_capacity(READ_STEP, socket)
}

/// What an error on a stream means: TLS wraps its own into those of sockets.
pub(crate) fn io_error(error: io::Error) -> WireError {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(tls) => WireError::Unfit(haven_pki::explain(tls)),
        None => WireError::Io(error),
    }
}

fn pki(error: haven_pki::PkiError) -> WireError {
    WireError::Io(io::Error::other(error))
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

/// Connects to `peer` without asking when it is time.
pub(crate) async fn connect_now(
    place: &Place,
    peer: u64,
    purpose: Purpose,
    body_max: usize,
) -> Result<Link, WireError> {
    if place.is_severed(peer) {
        return Err(WireError::Peer("severed for a test"));
    }
    let tls = place.tls()?;
    let target = place
        .target(peer)
        .ok_or(WireError::Peer("no member of this cluster"))?;
    let address = target
        .address
        .ok_or(WireError::Peer("its address is not known"))?;
    let socket = open(address).await?;
    let handle = handle(&socket)?;
    let greeting = async {
        let name = tls.name_of(peer).map_err(pki)?;
        let shaken = TlsConnector::from(tls.client())
            .connect(name, buffered(socket))
            .await;
        let stream = shaken.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => WireError::Peer(
                "it hung up during the TLS handshake: it is stopping, or a Haven of a version without TLS",
            ),
            _ => io_error(error),
        })?;
        let shown = stream.get_ref().1.peer_certificates();
        let key = tls.key_of(shown.unwrap_or_default(), peer);
        if target.key.is_some() && key != target.key {
            let why = "it shows another key than the one it became a member with";
            return Err(Turned::Wire(WireError::Unfit(why.into())));
        }
        let hello = Hello {
            version: place.version,
            cluster: tls.cluster().to_owned(),
            from: place.node_id,
            to: peer,
            purpose,
            listens: Some(place.listen),
            process: place.process,
        };
        greet(Link::new(stream.into()), &hello).await
    };
    let greeted = timeout(HELLO_TIMEOUT, greeting)
        .await
        .map_err(|_| WireError::Timeout("the hello"))?;
    let mut link = match greeted {
        Ok(link) => {
            place.stray.send_if_modified(|why| why.take().is_some());
            link
        }
        Err(Turned::Away(Fault::Removed, why)) => {
            place.removed.send_replace(Some(why.clone()));
            return Err(WireError::Unfit(why));
        }
        Err(Turned::Away(Fault::Stray, why)) => {
            place.stray.send_replace(Some(why.clone()));
            return Err(WireError::Unfit(why));
        }
        Err(Turned::Away(_, why)) => return Err(WireError::Unfit(why)),
        Err(Turned::Wire(error)) => return Err(error),
    };
    link.reader.set_body_max(body_max);
    mark(SockRef::from(&handle), Urgency::of(purpose));
    Ok(link)
}

async fn open(address: SocketAddr) -> Result<TcpStream, WireError> {
    let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| WireError::Timeout("connecting"))??;
    prepare(&socket)?;
    Ok(socket)
}

/// Why there is no welcome.
enum Turned {
    Away(Fault, String),
    Wire(WireError),
}

impl From<WireError> for Turned {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

async fn greet(mut link: Link, hello: &Hello) -> Result<Link, Turned> {
    link.writer.send(message::hello(hello)).await?;
    match message::read_reception(&link.reader.next().await?)? {
        Ok(()) => Ok(link),
        Err((theirs, Fault::Version, _)) => {
            let who = match hello.to {
                0 => "that node".to_owned(),
                id => format!("node {id}"),
            };
            let words = versions("this node", hello.version, &who, theirs);
            Err(Turned::Away(Fault::Version, words))
        }
        Err((_, fault, why)) => Err(Turned::Away(fault, why)),
    }
}

/// What to do about two versions of the protocol.
fn versions(own: &str, own_version: u32, other: &str, other_version: u32) -> String {
    let older = if own_version < other_version {
        own
    } else {
        other
    };
    format!(
        "{own} speaks version {own_version} of the protocol between nodes, {other} version {other_version}: update \
         Haven on {older}, so that all nodes run the same version"
    )
}

/// Asks the member at `address` to let this machine in, and gives its answer.
///
/// # Errors
/// Why not, in words for the operator.
pub async fn ask_to_join(
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    request: Bytes,
    patience: Duration,
) -> Result<Bytes, String> {
    let asking = async {
        let socket = open(address).await?;
        let name = haven_pki::member_name().map_err(pki)?;
        let stream = TlsConnector::from(tls)
            .connect(name, buffered(socket))
            .await;
        let hello = Hello {
            version: message::PROTOCOL_VERSION,
            cluster: String::new(),
            from: 0,
            to: 0,
            purpose: Purpose::Join,
            listens: None,
            process: 0,
        };
        let link = Link::new(stream.map_err(io_error)?.into());
        let mut link = greet(link, &hello).await?;
        link.writer.send(affair::join(request)).await?;
        link.reader.set_body_max(message::JOINED_BODY_MAX);
        Ok(affair::read_joined(&link.reader.next().await?)?)
    };
    match timeout(patience, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Turned::Away(_, why) | Turned::Wire(WireError::Refused(why)))) => Err(why),
        Ok(Err(Turned::Wire(WireError::Unfit(why)))) => Err(format!("{address}: {why}")),
        Ok(Err(Turned::Wire(why))) => Err(format!(
            "cannot talk to {address}: {why}; does `haven serve` run there, and can this machine reach it?"
        )),
        Err(_) => Err(format!(
            "{address} does not answer within {patience:?}; does the cluster have a leader?"
        )),
    }
}

/// Takes a connection: learns who is there and whether it belongs here.
pub(crate) async fn accept(
    place: &Place,
    mut socket: TcpStream,
) -> Result<(Hello, Link), WireError> {
    prepare(&socket)?;
    let caller = socket.peer_addr()?.ip();
    let handle = handle(&socket)?;
    let greeting = async {
        let mut first = [0];
        if socket.peek(&mut first).await? == 0 {
            return Err(WireError::Closed);
        }
        if first[0] != TLS_HANDSHAKE {
            // Whether it is read makes no difference.
            let _ = socket.write_all(NOT_TLS).await;
            return Err(WireError::Unfit(
                "it does not speak TLS: no Haven node, or one of a version without TLS, which must be updated".into(),
            ));
        }
        let shaken = TlsAcceptor::from(place.tls()?.server())
            .accept(buffered(socket))
            .await;
        let stream = shaken.map_err(io_error)?;
        let shown = stream.get_ref().1.peer_certificates();
        let shown: Vec<_> = shown.unwrap_or_default().to_vec();
        welcome(place, (caller, &shown), Link::new(stream.into())).await
    };
    let (hello, link) = timeout(HELLO_TIMEOUT, greeting)
        .await
        .map_err(|_| WireError::Timeout("the hello"))??;
    mark(SockRef::from(&handle), Urgency::of(hello.purpose));
    Ok((hello, link))
}

async fn welcome(
    place: &Place,
    (caller, shown): (IpAddr, &[CertificateDer<'_>]),
    mut link: Link,
) -> Result<(Hello, Link), WireError> {
    let body = link.reader.next().await?;
    let (version, from) = message::read_greeting(&body)?;
    let checked = match version == place.version {
        false => Err((
            Fault::Version,
            versions("this node", place.version, &format!("node {from}"), version),
        )),
        true => {
            let hello = message::read_hello(&body)?;
            check(place, shown, &hello)
                .and_then(|()| check_process(place, caller, &hello, Instant::now()))
                .map(|()| hello)
        }
    };
    let hello = match checked {
        Ok(hello) => hello,
        Err((fault, reason)) => {
            link.writer
                .send(message::unfit(place.version, fault, &reason))
                .await?;
            return Err(WireError::Unfit(format!("{reason} (our answer)")));
        }
    };
    if place.is_severed(hello.from) {
        return Err(WireError::Peer("severed for a test"));
    }
    link.writer.send(message::welcome()).await?;
    Ok((hello, link))
}

fn check(
    place: &Place,
    shown: &[CertificateDer<'_>],
    hello: &Hello,
) -> Result<(), (Fault, String)> {
    let other = |why: String| Err((Fault::Other, why));
    if hello.purpose == Purpose::Join {
        return Ok(());
    }
    let Some(tls) = &place.tls else {
        return other("this node is alone".into());
    };
    let from = hello.from;
    if hello.cluster != tls.cluster() {
        return other(format!(
            "this is cluster {}, not {}",
            tls.cluster(),
            hello.cluster
        ));
    }
    if hello.to != place.node_id {
        return other(format!("this is node {}, not {}", place.node_id, hello.to));
    }
    let Some(key) = tls.key_of(shown, from) else {
        return other(format!("the certificate is not that of node {from}"));
    };
    match place.roster.borrow().standing(from, key) {
        Standing::Newer if hello.purpose == Purpose::Visit => other(format!(
            "node {from} is no member yet, as far as this node knows; try again when it has caught up"
        )),
        Standing::Member | Standing::Newer => Ok(()),
        Standing::WrongKey => other(format!(
            "node {from} shows another key than the one it became a member with; remove it and let it join again"
        )),
        Standing::Removed => Err((
            Fault::Removed,
            format!("node {from} was removed from this cluster"),
        )),
    }
}

/// Whether the process that speaks is the one that is the member.
fn check_process(
    place: &Place,
    caller: IpAddr,
    hello: &Hello,
    now: Instant,
) -> Result<(), (Fault, String)> {
    let node = hello.from;
    if hello.purpose == Purpose::Join {
        return Ok(());
    }
    let known = place.roster.borrow().nodes.get(&node).cloned();
    let known = known.and_then(|record| record.address);
    let refuse = |listens, why: String| {
        let stray = Stray {
            node,
            from: caller,
            listens,
        };
        place.doubles.refused(stray, now);
        Err((Fault::Stray, why))
    };
    if node == place.node_id {
        let why = format!(
            "two nodes call themselves {node}: was a data directory copied? Stop one of them"
        );
        return refuse(hello.listens, why);
    }
    if let Some(why) = doubles::elsewhere(node, known, hello.listens) {
        return refuse(hello.listens, why);
    }
    if place.doubles.hear(node, hello.process, now) {
        return Ok(());
    }
    // Its last words, perhaps, which nobody needs any more.
    match place.doubles.is_double(node, now) {
        true => refuse(None, doubles::succeeded(node)),
        false => Err((Fault::Other, doubles::succeeded(node))),
    }
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
    use crate::types::Membership;

    fn place(addr: SocketAddr) -> (Place, haven_pki::Identity) {
        let mut both = haven_pki::Identity::found(2, |_| Ok(Vec::new())).unwrap();
        let record = |id: u64| Record {
            address: Some(addr),
            name: id.to_string(),
            ..Record::default()
        };
        let members = Membership::new(
            vec![BTreeSet::from([1, 2])],
            BTreeMap::from([1, 2].map(|id| (id, record(id)))),
        );
        let place = Place {
            node_id: 1,
            version: message::PROTOCOL_VERSION,
            tls: Some(both[0].tls().unwrap()),
            roster: watch::Sender::new(Arc::new(Roster::of(&members.unwrap()))),
            targets: Mutex::default(),
            removed: watch::Sender::new(None),
            gatekeeper: OnceLock::new(),
            parlour: Parlour::default(),
            severed: watch::Sender::new(BTreeSet::new()),
            pacer: Pacer::default(),
            listen: addr,
            process: 1,
            doubles: Doubles::default(),
            stray: watch::Sender::new(None),
            answers: Arc::default(),
        };
        (place, both.remove(1))
    }

    #[test]
    fn two_processes_of_one_node_at_one_address_are_found_and_neither_votes() {
        let home = SocketAddr::from(([192, 0, 2, 2], 7400));
        let (place, other) = place(home);
        let hello = |process| Hello {
            version: message::PROTOCOL_VERSION,
            cluster: other.authority().cluster().to_owned(),
            from: 2,
            to: 1,
            purpose: Purpose::Votes,
            listens: Some(home),
            process,
        };
        let start = Instant::now();
        let speaks = |process, after| {
            let at = start + Duration::from_secs(after);
            check_process(&place, home.ip(), &hello(process), at).map_err(|(fault, _)| fault)
        };
        assert_eq!(speaks(7, 0), Ok(()));
        assert_eq!(speaks(8, 20), Ok(()));
        let votes = |after| {
            let at = start + Duration::from_secs(after);
            !place.doubles.is_double(2, at)
        };
        assert!(votes(21));
        assert_eq!(speaks(7, 22), Err(Fault::Other));
        assert!(votes(22));
        assert_eq!(speaks(7, 40), Err(Fault::Stray));
        assert_eq!(speaks(8, 41), Ok(()));
        assert!(!votes(41));
        let second = Stray {
            node: 2,
            from: home.ip(),
            listens: None,
        };
        assert_eq!(
            place.doubles.strays(start + Duration::from_secs(41)),
            [second]
        );
    }

    #[tokio::test]
    async fn refused_connections_are_paced() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let (place, _) = place(addr);
        let begun = Instant::now();
        for _ in 0..5 {
            let link = connect(&place, 2, Purpose::Entries, HELLO_BODY_MAX).await;
            assert!(link.is_err());
        }
        let least = Duration::from_millis(20 + 40 + 80 + 160);
        assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    }
}
