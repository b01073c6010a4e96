//! How the kernel schedules the threads of consensus. All `unsafe` of this crate is here.
//!
//! It must not know what the threads do.

use rustix::process::setpriority_process;

/// Nice value of threads that clients and other nodes wait for, where permitted.
const NICE_URGENT: i32 = -10;

/// Nice value of threads that nobody waits for.
const NICE_BACKGROUND: i32 = 10;

/// For the calling thread: a larger share of the processors than others, but no interrupting of them. Woken for each
/// message and each flush, it would otherwise come before those that bring the next ones, and meet every one alone: a
/// fifth more groups to flush, a tenth more work for each change. What it waits for instead is the end of somebody's
/// turn, some milliseconds; heartbeats have many times that.
pub(crate) fn urgent_in_batches() {
    // Needs a privilege; without it the thread runs like all others.
    let _ = setpriority_process(None, NICE_URGENT);
    take_turns();
}

/// For the calling thread: it works with what others leave.
pub(crate) fn background() {
    // Nobody may refuse it.
    let _ = setpriority_process(None, NICE_BACKGROUND);
}

#[allow(unsafe_code)]
fn take_turns() {
    // SAFETY: all bytes of the structure may be zero.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = 0;
    // SAFETY: the call reads `param`, which lives; 0 is the calling thread. Nothing depends on its success.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const param) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn only_the_calling_thread_changes() {
        // SAFETY: the call only reads.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let inside = std::thread::spawn(move || {
            take_turns();
            policy()
        });
        assert_eq!(inside.join().ok(), Some(libc::SCHED_BATCH));
        assert_eq!(policy(), before);
    }
}
