//! Three nodes as processes on loopback, as they are operated: stopped and started, configured differently.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

mod settings;
mod stopping;
mod trio;
