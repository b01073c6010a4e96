//! One server address, one connection at a time, many requests in flight.
//!
//! A task of its own keeps the connection: it connects, sends what is unanswered, and when the
//! connection breaks or stalls, it does so again, for as long as the transport lives.

use crate::options::Options;
use crate::stream::{RecordReader, write_all};
use crate::table::Table;
use haven_rpc::{Outcome, decode_reply};
use haven_xdr::Gather;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// What a client has been through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connections made.
    pub connections: u64,
    /// Requests sent again.
    pub retransmissions: u64,
}

/// The transport's handle: dropping it closes the connection.
pub(crate) struct Transport {
    shared: Arc<Shared>,
    slots: Semaphore,
    task: JoinHandle<()>,
}

struct Shared {
    table: Table,
    connections: AtomicU64,
}

impl Transport {
    /// Starts connecting. Must be called within a tokio runtime.
    pub(crate) fn start(server: SocketAddr, options: &Options, first_xid: u32) -> Self {
        let table = Table::new(first_xid);
        let shared = Arc::new(Shared {
            table,
            connections: AtomicU64::new(0),
        });
        let driver = Driver {
            server,
            options: options.clone(),
            shared: shared.clone(),
        };
        let slots = Semaphore::new(options.requests_max.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            shared,
            slots,
            task: tokio::spawn(driver.run()),
        }
    }

    /// Sends the call that `encode` makes for a transaction id and waits for its answer, for ever.
    /// `None`: the runtime is shutting down.
    pub(crate) async fn call(&self, encode: impl FnOnce(u32) -> Gather) -> Option<Outcome> {
        let _slot = self.slots.acquire().await.ok()?;
        let table = &self.shared.table;
        let xid = table.new_xid();
        let answer = table.insert(xid, haven_rpc::record::frame(encode(xid)));
        let _forget = ForgetOnDrop { table, xid };
        answer.await.ok()
    }

    pub(crate) fn new_xid(&self) -> u32 {
        self.shared.table.new_xid()
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            connections: self.shared.connections.load(Ordering::Relaxed),
            retransmissions: self.shared.table.retransmissions(),
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes a request out of the table when its caller is done with it, answered or not. Comes after the
/// slot in the caller's frame, so that the slot is free only when the table's entry is gone.
struct ForgetOnDrop<'a> {
    table: &'a Table,
    xid: u32,
}

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        self.table.forget(self.xid);
    }
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// No answer came over it, or it was never made.
    InVain,
    /// It brought an answer, then the server ended it in order.
    Ended,
    /// It brought an answer, then it broke, or answers stayed away.
    Broken,
}

struct Driver {
    server: SocketAddr,
    options: Options,
    shared: Arc<Shared>,
}

impl Driver {
    async fn run(self) {
        let mut pause = self.options.reconnect_pause_min;
        loop {
            let began = Instant::now();
            let end = self.one_connection().await;
            if end != End::InVain {
                pause = self.options.reconnect_pause_min;
            }
            if end == End::Broken {
                // It worked until now: the server is there, or another takes its address.
                continue;
            }
            match began.checked_add(pause) {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
            pause = next_pause(pause, &self.options);
        }
    }

    /// Connects and serves until the connection ends.
    async fn one_connection(&self) -> End {
        let connecting = TcpStream::connect(self.server);
        let Ok(Ok(stream)) = timeout(self.options.connect_timeout, connecting).await else {
            return End::InVain;
        };
        // Without it, small requests would wait for the answers to earlier ones.
        if stream.set_nodelay(true).is_err() {
            return End::InVain;
        }
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.shared.table.requeue_all();
        let (read, write) = stream.into_split();
        let mut answered = false;
        // Whichever ends first ends the connection.
        let ended_by_server = tokio::select! {
            end = self.receive(RecordReader::new(read), &mut answered) => {
                end.is_err_and(|why| why.kind() == io::ErrorKind::UnexpectedEof)
            }
            _ = self.send(write) => false,
            () = self.stalled() => false,
        };
        match (answered, ended_by_server) {
            (false, _) => End::InVain,
            (true, true) => End::Ended,
            (true, false) => End::Broken,
        }
    }

    async fn receive(
        &self,
        mut records: RecordReader<impl tokio::io::AsyncRead + Unpin>,
        answered: &mut bool,
    ) -> io::Result<()> {
        loop {
            let reply = decode_reply(records.next().await?)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if self.shared.table.complete(reply.xid, reply.outcome) {
                *answered = true;
            }
        }
    }

    async fn send(&self, mut stream: OwnedWriteHalf) -> io::Result<()> {
        loop {
            let batch = self.shared.table.next_batch().await;
            write_all(&mut stream, &batch).await?;
        }
    }

    /// Returns when an answer is overdue.
    async fn stalled(&self) {
        let limit = self.options.retransmit_timeout;
        loop {
            let now = Instant::now();
            // What is sent after this look is overdue after the next one at the earliest.
            let from = self.shared.table.oldest_sent().unwrap_or(now);
            match from.checked_add(limit) {
                Some(due) if due <= now => return,
                Some(due) => sleep_until(due).await,
                // Beyond the clock's range: no answer is ever overdue.
                None => std::future::pending().await,
            }
        }
    }
}

fn next_pause(pause: Duration, options: &Options) -> Duration {
    pause.saturating_mul(2).min(options.reconnect_pause_max)
}
