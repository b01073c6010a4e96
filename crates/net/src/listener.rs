//! Listening sockets and the table of who is connected.

use crate::delivery::Line;
use crate::{Gate, Handler, Limits, Quiet, connection};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
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
    /// Permits are bytes of requests being handled.
    pub(crate) memory: Arc<Semaphore>,
    table: Mutex<Table>,
    table_changed: watch::Sender<u64>,
    on_connection: OnceLock<OnConnection>,
    pub(crate) complaints: Complaints,
    /// Connections so far.
    lines: AtomicU64,
    /// Replies of all connections that are noted and have not arrived.
    pub(crate) noted: AtomicUsize,
}

/// What peers can make this server say.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    accept: Quiet,
    too_many: Quiet,
    pub(crate) misbehaved: Quiet,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Endpoint>,
    /// How many of them come from each address.
    by_address: BTreeMap<IpAddr, usize>,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TooMany {
    InAll,
    FromOne,
}

impl Table {
    fn enroll(&mut self, endpoint: Endpoint, limits: &Limits) -> Result<u64, TooMany> {
        if self.open.len() >= limits.connections_max {
            return Err(TooMany::InAll);
        }
        let of_peer = self.by_address.entry(endpoint.remote.ip()).or_default();
        if *of_peer >= limits.connections_per_address_max {
            return Err(TooMany::FromOne);
        }
        *of_peer += 1;
        let id = self.next;
        self.next += 1;
        self.open.insert(id, endpoint);
        Ok(id)
    }

    fn strike(&mut self, id: u64) {
        let Some(endpoint) = self.open.remove(&id) else {
            return;
        };
        let address = endpoint.remote.ip();
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl<H: Handler> Server<H> {
    /// A server without listeners yet.
    pub fn new(handler: Arc<H>, gate: Arc<Gate>, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            handler,
            gate,
            limits,
            memory: Arc::new(Semaphore::new(limits.inflight_bytes_max)),
            table: Mutex::default(),
            table_changed: watch::Sender::new(0),
            on_connection: OnceLock::new(),
            complaints: Complaints::default(),
            lines: AtomicU64::new(0),
            noted: AtomicUsize::new(0),
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
        self.table.lock().open.values().copied().collect()
    }

    /// The same, by numbers of which none is used twice.
    pub fn connections(&self) -> BTreeMap<u64, Endpoint> {
        self.table.lock().open.clone()
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
        let entry = match self.enroll(endpoint) {
            Ok(entry) => entry,
            Err(why) => return self.complain(remote, why),
        };
        if let Some(tell) = self.on_connection.get() {
            tell(stream.as_fd(), endpoint);
        }
        // From 1 on, in the order in which they are accepted: listeners share the counter.
        let number = self.lines.fetch_add(1, Ordering::SeqCst) + 1;
        let line = Arc::new(Line::new(number, endpoint));
        self.handler.opened(&line);
        let server = Arc::clone(self);
        tokio::spawn(async move {
            connection::serve(&server, stream, line, hang_ups).await;
            drop(entry);
        });
    }

    fn enroll(self: &Arc<Self>, endpoint: Endpoint) -> Result<Enrolled<H>, TooMany> {
        let id = self.table.lock().enroll(endpoint, &self.limits)?;
        self.table_changed.send_modify(|n| *n += 1);
        Ok(Enrolled {
            server: Arc::clone(self),
            id,
        })
    }

    fn complain(&self, remote: SocketAddr, why: TooMany) {
        let Some(left_out) = self.complaints.too_many.speak() else {
            return;
        };
        match why {
            TooMany::InAll => warn!(
                %remote, left_out, limit = self.limits.connections_max,
                "a connection was refused: all are taken (limits.connections)"
            ),
            TooMany::FromOne => warn!(
                %remote, left_out, limit = self.limits.connections_per_address_max,
                "a connection was refused: this address has too many (limits.connections_per_address)"
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

/// A connection's line in the table, struck out when dropped.
struct Enrolled<H: Handler> {
    server: Arc<Server<H>>,
    id: u64,
}

impl<H: Handler> Drop for Enrolled<H> {
    fn drop(&mut self) {
        self.server.table.lock().strike(self.id);
        self.server.table_changed.send_modify(|n| *n += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(remote: &str) -> Endpoint {
        Endpoint {
            local: "192.0.2.1:2049".parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    #[test]
    fn one_address_cannot_take_all_connections() {
        let limits = Limits {
            connections_max: 5,
            connections_per_address_max: 2,
            ..Limits::default()
        };
        let mut table = Table::default();
        let first = table.enroll(from("192.0.2.7:1"), &limits).unwrap();
        table.enroll(from("192.0.2.7:2"), &limits).unwrap();
        assert_eq!(
            table.enroll(from("192.0.2.7:3"), &limits),
            Err(TooMany::FromOne)
        );
        table.enroll(from("192.0.2.8:1"), &limits).unwrap();
        table.strike(first);
        table.enroll(from("192.0.2.7:3"), &limits).unwrap();
        for id in 0..table.next {
            table.strike(id);
        }
        assert!(table.open.is_empty() && table.by_address.is_empty());
        for port in 1..=5 {
            table
                .enroll(from(&format!("192.0.2.{port}:1")), &limits)
                .unwrap();
        }
        assert_eq!(
            table.enroll(from("192.0.2.9:1"), &limits),
            Err(TooMany::InAll)
        );
    }
}
