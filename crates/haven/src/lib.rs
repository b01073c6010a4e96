//! Haven: wiring of the parts into a node, the control socket, the demo.
//!
//! Everything here is glue: decisions are made in the crates below. `serve` runs a node, `driver` performs
//! what the takeover machine decides, `service` answers clients, `engine` is the replicated machine.

pub mod addresses;
pub mod check;
pub mod classic;
mod clock;
pub mod control;
pub mod demo;
pub mod driver;
pub mod engine;
mod found;
pub mod peers;
pub mod quick;
pub mod serve;
pub mod service;
