//! How much memory a node takes at most: what `docs/operate/memory.md` states, as functions of the configuration.
//!
//! Tests hold running nodes against it; nothing is decided by it.

use crate::serve::{BLOCKING_THREADS, limits};
use haven_config::{Config, Limits};

/// What a node needs without clients and without changes that wait.
const BASE_BYTES: u64 = 100 << 20;
/// What a thread that waits for the disk keeps.
const THREAD_BYTES: u64 = 2 << 20;
/// What the allocator adds: one part in so many.
const ALLOCATOR_PART: u64 = 4;

/// Most bytes that clients take, as they are counted.
#[must_use]
pub const fn client_bytes_max(of: &Limits) -> u64 {
    limits(of).memory_bytes_max() as u64
}

/// Most bytes of the process that are resident.
#[must_use]
pub const fn resident_bytes_max(config: &Config) -> u64 {
    let clients = client_bytes_max(&config.limits);
    let threads = BLOCKING_THREADS as u64 * THREAD_BYTES;
    clients + clients / ALLOCATOR_PART + threads + BASE_BYTES + config.node.checkpoints.bytes
}
