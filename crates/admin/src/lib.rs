//! Operating a cluster: what may be asked of a node, what it answers, and how both travel.
//!
//! | module | holds |
//! |---|---|
//! | [`types`] | questions and answers, as JSON |
//! | [`bulletin`] | what nodes tell each other of themselves, as bytes |
//! | [`memory`] | what clients have of a node's memory |
//! | [`judge`] | what a cluster's state means: healthy, degraded or down, what is wrong, what to do |
//! | [`screen`] | a cluster's state as text for people |
//! | [`server`] | the router: HTTP/1.1 over any connection |
//! | [`client`] | asks a node |
//!
//! Judging and drawing are functions of their input; the server knows no answer, only how to ask for it
//! ([`server::Api`]). Must not know: consensus, files, how addresses move.

pub mod bulletin;
pub mod client;
pub mod judge;
pub mod memory;
pub mod screen;
pub mod server;
pub mod types;

#[cfg(test)]
mod cases;

pub use bulletin::Bulletin;
pub use client::{Client, ClientError};
pub use server::{Answer, Api, Scope};
pub use types::*;
