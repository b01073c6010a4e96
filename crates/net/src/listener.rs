//! Listening sockets, and who is connected.

use crate::budget::Budget;
use crate::delivery::Line;
use crate::ledger::Ledger;
use crate::party::{Farewell, Party};
use crate::seats::{Seats, Taken, TooMany};
use crate::{Gate, Handler, Limits, Pressure, Quiet, connection};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

/// Connections waiting for `accept`, per listener.
const BACKLOG: i32 = 1024;
/// Pause after a failed `accept` (out of descriptors): the only cure is time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A peer that vanished is noticed after this much silence, and so many unanswered probes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// Pause between the probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How many.
const KEEPALIVE_PROBES: u32 = 4;

/// Opens a listening TCP socket. `SO_REUSEADDR` is set: a restarted server must get its port back
/// while old connections linger.
///
/// # Errors
/// What the system says (address in use, permission for ports below 1024).
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // `::` means both kinds, whatever the system is set to.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The two ends of a client connection, or of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Our end.
    pub local: SocketAddr,
    /// The client's end.
    pub remote: SocketAddr,
}

/// Told of a connection before it is served, with its socket.
type OnConnection = Box<dyn Fn(BorrowedFd<'_>, Endpoint) + Send + Sync>;

/// Accepts connections and serves them with a handler.
pub struct Server<H> {
    pub(crate) handler: Arc<H>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) limits: Limits,
    /// Memory of requests: those that arrive, and those that are under way.
    pub(crate) requests: Arc<Budget>,
    /// Memory of answers, and of what it takes to find them.
    pub(crate) answers: Arc<Budget>,
    seats: Mutex<Seats>,
    table_changed: watch::Sender<u64>,
    on_connection: OnceLock<OnConnection>,
    pub(crate) complaints: Complaints,
    /// Replies of all connections that are noted and have not arrived.
    pub(crate) noted: AtomicUsize,
    /// Connections that stood still while memory was short.
    pub(crate) lost: Ledger,
    /// Large requests of clients that no rule lets in.
    pub(crate) refused: Ledger,
    /// Connections whose peers misbehaved.
    pub(crate) misbehaved: Ledger,
}

/// What peers can make this server say.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    accept: Quiet,
    too_many: Quiet,
    pub(crate) misbehaved: Quiet,
    pub(crate) lost: Quiet,
    pub(crate) refused: Quiet,
}

impl<H: Handler> Server<H> {
    /// A server without listeners yet.
    pub fn new(handler: Arc<H>, gate: Arc<Gate>, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            handler,
            gate,
            limits,
            requests: Budget::new(limits.inflight_bytes_max),
            answers: Budget::new(limits.answer_bytes_max),
            seats: Mutex::default(),
            table_changed: watch::Sender::new(0),
            on_connection: OnceLock::new(),
            complaints: Complaints::default(),
            noted: AtomicUsize::new(0),
            lost: Ledger::default(),
            refused: Ledger::default(),
            misbehaved: Ledger::default(),
        })
    }

    /// Shows every connection from now on to `tell`, which may duplicate the socket and must not block.
    /// A connection that this server ends is disconnected for all holders. Only the first call counts.
    pub fn on_connection(&self, tell: impl Fn(BorrowedFd<'_>, Endpoint) + Send + Sync + 'static) {
        // Said above.
        let _ = self.on_connection.set(Box::new(tell));
    }

    /// Who is connected now.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.seats.lock().open().map(|(_, ends)| ends).collect()
    }

    /// The same, by numbers of which none is used twice.
    pub fn connections(&self) -> BTreeMap<u64, Endpoint> {
        self.seats.lock().open().collect()
    }

    /// Who has the memory, and whom others have suffered from.
    pub fn pressure(&self) -> Pressure {
        let now = Instant::now();
        Pressure {
            requests: self.requests.look(),
            answers: self.answers.look(),
            lost: self.lost.read(now),
            refused: self.refused.read(now),
            misbehaved: self.misbehaved.read(now),
        }
    }

    /// Changes whenever [`Server::endpoints`] does.
    pub fn endpoints_changed(&self) -> watch::Receiver<u64> {
        self.table_changed.subscribe()
    }

    /// Accepts connections for ever. Runs until it is dropped.
    ///
    /// # Errors
    /// When the listener cannot be registered with the runtime.
    pub async fn listen(self: Arc<Self>, listener: std::net::TcpListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => self.admit(stream, remote),
                Err(why) => {
                    if let Some(left_out) = self.complaints.accept.speak() {
                        warn!(%why, left_out, "cannot accept a connection; trying again (raise the limit of open files if that is the reason)");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        // Whatever ends a connection, it ends by a reset: the client reconnects at once, and nothing of
        // it lingers on a node that may lose the address.
        if let Err(why) = prepare(&stream) {
            debug!(%remote, %why, "connection gone before it began");
            return;
        }
        // Before the gate is looked at, so that no hang-up falls in between.
        let hang_ups = self.gate.hang_ups();
        // One that waits in a drain or a suspension is in the table, so that the next leader knows of it.
        if self.gate.is_closed() {
            debug!(%remote, "connection refused: this node does not serve now");
            return;
        }
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let endpoint = Endpoint { local, remote };
        let seat = match self.enroll(endpoint) {
            Ok(seat) => seat,
            Err(why) => return self.complain(remote, why),
        };
        if let Some(tell) = self.on_connection.get() {
            tell(stream.as_fd(), endpoint);
        }
        let line = Arc::new(Line::new(seat.party.number, endpoint));
        self.handler.opened(&line);
        let server = Arc::clone(self);
        tokio::spawn(async move {
            connection::serve(&server, stream, line, seat, hang_ups).await;
        });
    }

    fn enroll(self: &Arc<Self>, endpoint: Endpoint) -> Result<Seat<H>, TooMany> {
        let taken = self.seats.lock().take(endpoint, &self.limits);
        let Taken {
            party,
            told,
            pushed,
        } = taken?;
        self.table_changed.send_modify(|n| *n += 1);
        if pushed && let Some(left_out) = self.complaints.too_many.speak() {
            warn!(
                remote = %endpoint.remote, left_out,
                "all places for connections are taken (limits.connections, limits.connections_per_address): the one \
                 that was idle for longest gave way to a new one"
            );
        }
        Ok(Seat {
            server: Arc::clone(self),
            party,
            told: Some(told),
        })
    }

    fn complain(&self, remote: SocketAddr, why: TooMany) {
        let Some(left_out) = self.complaints.too_many.speak() else {
            return;
        };
        match why {
            TooMany::InAll => warn!(
                %remote, left_out, limit = self.limits.connections_max,
                "a connection was refused: all places are taken, and none is idle (limits.connections)"
            ),
            TooMany::FromOne => warn!(
                %remote, left_out, limit = self.limits.connections_per_address_max,
                "a connection was refused: this address has too many, and none is idle (limits.connections_per_address)"
            ),
        }
    }
}

/// Settings of a client's socket.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO))?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    stream.set_nodelay(true)
}

/// A connection's place: free when dropped.
pub(crate) struct Seat<H: Handler> {
    server: Arc<Server<H>>,
    /// Who has it.
    pub(crate) party: Arc<Party>,
    told: Option<oneshot::Receiver<Farewell>>,
}

impl<H: Handler> Seat<H> {
    /// Where the connection learns that it is to end; only once.
    pub(crate) fn told(&mut self) -> oneshot::Receiver<Farewell> {
        // Of a second call nothing is ever heard.
        self.told.take().unwrap_or_else(|| oneshot::channel().1)
    }

    /// The connection has ended.
    pub(crate) fn leave(&mut self) {
        self.server.seats.lock().leave(&self.party);
        self.server.table_changed.send_modify(|n| *n += 1);
    }
}

impl<H: Handler> Drop for Seat<H> {
    fn drop(&mut self) {
        self.server.seats.lock().free(&self.party);
    }
}
