//! Listening sockets and the table of who is connected.

use crate::{Gate, Handler, Limits, connection};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

/// Connections waiting for `accept`, per listener.
const BACKLOG: i32 = 1024;
/// Pause after a failed `accept` (out of descriptors): the only cure is time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The two ends of a client connection.
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
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Endpoint>,
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
                    warn!(%why, "cannot accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        // Whatever ends a connection, it ends by a reset: the client reconnects at once, and nothing of
        // it lingers on a node that may lose the address.
        let linger = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        if let Err(why) = linger.and_then(|()| stream.set_nodelay(true)) {
            debug!(%remote, %why, "connection gone before it began");
            return;
        }
        // Before the gate is looked at, so that no hang-up falls in between.
        let hang_ups = self.gate.hang_ups();
        if !self.gate.is_open() {
            debug!(%remote, "connection refused: this node does not serve now");
            return;
        }
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let endpoint = Endpoint { local, remote };
        let Some(entry) = self.enroll(endpoint) else {
            warn!(%remote, limit = self.limits.connections_max, "too many connections");
            return;
        };
        if let Some(tell) = self.on_connection.get() {
            tell(stream.as_fd(), endpoint);
        }
        let server = Arc::clone(self);
        tokio::spawn(async move {
            connection::serve(&server, stream, remote, hang_ups).await;
            drop(entry);
        });
    }

    fn enroll(self: &Arc<Self>, endpoint: Endpoint) -> Option<Enrolled<H>> {
        let mut table = self.table.lock();
        if table.open.len() >= self.limits.connections_max {
            return None;
        }
        let id = table.next;
        table.next += 1;
        table.open.insert(id, endpoint);
        drop(table);
        self.table_changed.send_modify(|n| *n += 1);
        Some(Enrolled {
            server: Arc::clone(self),
            id,
        })
    }
}

/// A connection's line in the table, struck out when dropped.
struct Enrolled<H: Handler> {
    server: Arc<Server<H>>,
    id: u64,
}

impl<H: Handler> Drop for Enrolled<H> {
    fn drop(&mut self) {
        self.server.table.lock().open.remove(&self.id);
        self.server.table_changed.send_modify(|n| *n += 1);
    }
}
