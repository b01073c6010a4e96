//! Haven: wiring of the parts into a node, the control socket, the demo.
//!
//! Everything here is glue: decisions are made in the crates below. `serve` runs a node, `driver` performs
//! what the takeover machine decides, `service` answers clients, `engine` is the replicated machine.

pub mod accept;
pub mod addresses;
mod applying;
pub mod bench;
pub mod bound;
mod bulletin;
mod callers;
pub mod check;
pub mod classic;
pub mod clients;
#[doc(hidden)]
pub mod clock;
pub mod cluster;
pub mod control;
mod cutting;
pub mod demo;
mod desk;
pub mod driver;
pub mod engine;
pub mod exports;
pub mod found;
pub mod history;
mod insight;
mod listening;
pub mod logging;
pub mod metrics;
mod notify;
pub mod quick;
mod rebuild;
mod relay;
mod reload;
pub mod resolve;
mod roll;
mod rpcbind;
pub mod serve;
pub mod service;
mod settings;
mod shortage;
pub mod show;
pub mod space;
pub mod standby;
pub mod status;
mod strangers;
mod term;
mod thread_times;
mod timer;
mod watchdog;
mod witness;
