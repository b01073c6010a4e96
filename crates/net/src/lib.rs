//! Clients: listeners, connections, datagrams, in-flight limits, replies.
//!
//! One task serves a connection: it reads, begins requests, and writes. Requests that take longer become
//! tasks of their own, so that replies leave in the order they become ready (ONC RPC matches them by xid).
//! What a request means is the [`Handler`]'s business; whether anything may be answered at all is the
//! [`Gate`]'s.
//!
//! Invariants
//! - No reply is written while the gate is closed, and none to a request that came before a closing.
//! - Memory is bounded: connections, requests in flight per connection, bytes of requests and of answers in all. Every
//!   address has a share of it; small requests get through whatever others have.
//! - A peer that sends garbage, drips, vanishes or does not read costs one connection, never the server.
//! - One host cannot take all connections, and cannot fill the log by misbehaving.
//! - A datagram's answer leaves from the address that was asked, is bounded, and what all answers are larger than
//!   their requests is bounded per second, because a datagram's sender may be forged.
//!
//! It must not know NFS, replication or addresses' meaning.

mod budget;
mod connection;
mod datagram;
mod delivery;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod input;
mod ledger;
mod list;
mod listener;
mod output;
mod party;
mod purse;
mod quiet;
mod seats;
mod sys;
mod table;

use bytes::Bytes;
use haven_xdr::Gather;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use budget::BudgetUse;
pub use datagram::{DATAGRAM_BYTES_MAX, bind_datagram};
pub use delivery::{Line, Look, Seen};
pub use gate::{Gate, Pass};
pub use ledger::Incidents;
pub use list::{CONNECTIONS_PER_LIST_MAX, ClientList, LIST_BYTES_MAX};
pub use listener::{Endpoint, Server, bind};
pub use quiet::Quiet;
pub use table::{CONNECTIONS_PER_TABLE_MAX, ClientTable, TABLE_BYTES_MAX};

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// Send this record.
    Reply(Gather),
    /// Send this record, and say when it has arrived ([`Handler::looked`]), by this number, which is the handler's.
    Noted(Gather, u64),
    /// Send nothing: for a gate that has closed, and for a copy of a request whose answer will come over the same
    /// connection. Otherwise a client waits for ever.
    Silent,
    /// This node cannot answer: end the connection, so that the client asks elsewhere.
    HangUp,
    /// The peer does not speak the protocol: end the connection.
    Garbage,
}

/// Who has the memory of a server, and whom others have suffered from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory of requests.
    pub requests: BudgetUse,
    /// Memory of answers.
    pub answers: BudgetUse,
    /// Connections that were ended because they held memory that others waited for, and neither sent nor took anything.
    pub lost: Incidents,
    /// Large requests that were refused because no rule lets their client in.
    pub refused: Incidents,
    /// Connections that were ended because their peers misbehaved: garbage, or patience was over.
    pub misbehaved: Incidents,
}

/// What [`Handler::begin`] made of a request.
#[derive(Debug)]
pub enum Begun<W> {
    /// It is done.
    Done(Verdict),
    /// It takes longer, or has to wait for something: [`Handler::finish`] goes on with it, beside others.
    Work(W),
}

/// Answers requests, in two steps: most reads are answered at once where they arrive, which costs neither
/// a task nor a change of threads; what has to wait becomes a task.
pub trait Handler: Send + Sync + 'static {
    /// A request that takes longer.
    type Work: Send + 'static;

    /// Looks at one whole record (without its record mark) that came over `connection`, whose other requests
    /// stand still meanwhile: this must neither block nor take long. The connection may have ended meanwhile. The reply
    /// must not keep the record.
    fn begin(&self, connection: &Arc<Line>, record: Bytes) -> Begun<Self::Work>;

    /// A connection was accepted. Nothing has come over it.
    fn opened(&self, _connection: &Arc<Line>) {}

    /// Somebody looked at a connection. What was noted and is acknowledged when a record arrives is told before that
    /// record is begun.
    fn looked(&self, _connection: &Line, _found: Look) {}

    /// A connection has ended; `by_peer`, by a FIN or a reset that came. What is not told to have arrived now never is.
    fn ended(&self, _connection: &Line, _by_peer: bool) {}

    /// Does what takes longer. Dropped when the gate closes: may wait as long as it takes.
    fn finish(&self, work: Self::Work) -> impl Future<Output = Verdict> + Send;

    /// Handles one datagram; `ends` are its sender and where it was sent to. What is not a call must be left [`Verdict::Silent`]: its sender may be
    /// another server, and two that answer each other's garbage would never stop.
    fn handle_datagram(
        &self,
        ends: Endpoint,
        datagram: Bytes,
    ) -> impl Future<Output = Verdict> + Send;

    /// The most memory in bytes that it takes to answer `record`, its reply (without record mark) included. May be
    /// asked with the head of a record that is to be refused.
    fn answer_bytes(&self, record: &[u8]) -> usize;

    /// Whether any rule lets this client in. If none does, nothing large is taken from it: see [`Handler::refuse`].
    fn lets_in(&self, ends: Endpoint) -> impl Future<Output = bool> + Send;

    /// Changes when [`Handler::lets_in`] may say something else.
    fn rules_version(&self) -> u64;

    /// Answers a large record that was not taken in: `head` is its first KiB.
    fn refuse(&self, connection: Endpoint, head: Bytes) -> Verdict;

    /// Asked immediately before replies are written: may this node answer now? While not, replies wait.
    fn may_answer(&self) -> bool;
}

/// Bounds of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; more are closed at once.
    pub connections_max: usize,
    /// Connections from one address at a time; more are closed at once.
    pub connections_per_address_max: usize,
    /// Requests of one connection being handled at a time; beyond it the connection is not read.
    pub inflight_per_connection_max: usize,
    /// Largest record in bytes: a 1 MiB WRITE with its headers.
    pub record_bytes_max: usize,
    /// Bytes of all requests that are not small, as far as they have arrived, until they are handled; beyond it what is
    /// large waits.
    pub inflight_bytes_max: usize,
    /// Bytes of all answers that are not small, from before they are looked for until the socket has them; beyond it
    /// requests for such wait.
    pub answer_bytes_max: usize,
    /// How long a peer may take to complete a record it began, or to take a reply.
    pub patience: Duration,
    /// How long a connection may be without a request; `None`: for ever. Clients connect again when they have
    /// something to ask.
    pub idle: Option<Duration>,
}

impl Limits {
    /// The most memory that connections, their requests and their answers take, as this crate counts it: what the
    /// allocator adds and what the kernel holds for sockets come on top.
    pub const fn memory_bytes_max(&self) -> usize {
        let own = self.connections_max * connection::OWN_BYTES;
        // What arrives in pieces may go beyond the budget, one record at a time.
        let requests = self.inflight_bytes_max + self.record_bytes_max;
        own + requests + self.answer_bytes_max
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_address_max: 1024,
            inflight_per_connection_max: 256,
            record_bytes_max: (1 << 20) + (64 << 10),
            inflight_bytes_max: 256 << 20,
            answer_bytes_max: 256 << 20,
            patience: Duration::from_secs(30),
            idle: Some(Duration::from_secs(600)),
        }
    }
}
