//! The allocator and how it deals with freed memory. All `unsafe` of this crate is here.
//!
//! A WRITE allocates a megabyte on one thread and frees it on another, and a checkpoint frees hundreds of megabytes that
//! the next one needs again. Given back to the kernel each time, such memory is faulted in and cleared again, which was
//! a tenth of all processor time under small-file load; so it is kept for a minute.

use libmimalloc_sys::{mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, which the bindings have no name for: after how many milliseconds freed memory goes back to
/// the kernel.
const PURGE_DELAY: mi_option_t = 15;

/// Longer than the time from one checkpoint to the next under load, also on a slow machine.
const KEEP_FREED_MS: std::ffi::c_long = 60_000;

/// Makes the allocator keep freed memory for a while. To be called once, before other threads start.
#[allow(unsafe_code)]
pub fn keep_freed_memory() {
    // SAFETY: the call stores a number in the allocator's options; the option exists (there is a test) and
    // no other thread runs yet.
    unsafe { mi_option_set(PURGE_DELAY, KEEP_FREED_MS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: the call reads a number.
        let default = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        // Its default differs from those of its neighbours: 1 (eager commit) and 0 (NUMA nodes).
        assert!([10, 1000].contains(&default), "{default}");
    }
}
