//! A small NFSv3 client over TCP, for the demo, the benches and the tests.
//!
//! It behaves as a hard mount does: a request stays until it is answered. When the connection breaks,
//! or an answer is overdue, the client connects again and sends every unanswered request again, with the
//! same transaction id and the same bytes, so that the server can recognise it.
//!
//! Invariants
//! - The number of requests in flight is bounded; whoever comes later waits.
//! - What a caller has given up (its future was dropped) is forgotten at once.
//! - Nothing the server sends can panic or make the client allocate beyond a named limit.
//!
//! It must not know how the server is built: it speaks the protocols and nothing else.

mod calls;
mod client;
mod error;
mod options;
mod stream;
mod table;
mod transport;

pub use client::Client;
pub use error::ClientError;
pub use options::Options;
pub use transport::Stats;
