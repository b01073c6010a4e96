//! Takeover decisions of one service: events in, actions out.
//!
//! [`Takeover`] decides when this node may serve a service, when it holds the service's floating
//! addresses, and in which order both are taken and released. Whoever drives it reports what happened
//! ([`Event`]) and performs what it is told ([`Action`]).
//!
//! Invariants: the address is the last thing up and the first thing down; no request is answered without
//! leadership, lease and a committed barrier; leadership is handed over only after the addresses are off.
//!
//! [`clock`] decides what time the service has.
//!
//! Must not know: sockets, addresses' values, clocks, tokio, the consensus library.

pub mod clock;
mod event;
mod takeover;

pub use event::{Action, Event, Term};
pub use takeover::{Phase, Takeover, Timing};
