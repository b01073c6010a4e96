//! What the state machine is applying just now, and for how long: for whoever judges whether it hangs, and why.
//!
//! It beats with each entry, so that many entries one after another are no hang.
//!
//! It must not know what too long is.

use crate::thread_times::{Cause, Times};
use bytes::Bytes;
use haven_nfsd::Entry;
use haven_proto::nfs3::Proc3;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Applying(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    now: Mutex<Option<Now>>,
    /// The thread that applies; 0: none did yet.
    thread: AtomicI32,
}

/// One entry.
#[derive(Debug, Clone)]
struct Now {
    since: Instant,
    index: u64,
    entry: Bytes,
}

/// The entry is being applied as long as this lives.
#[derive(Debug)]
pub struct Beat<'a>(&'a Shared);

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        *self.0.now.lock() = None;
    }
}

impl Applying {
    /// The calling thread is the one that applies.
    pub fn is_here(&self) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        self.0.thread.store(thread, Ordering::Relaxed);
    }

    /// The entry at a log index begins.
    #[must_use]
    pub fn begin(&self, index: u64, entry: &Bytes) -> Beat<'_> {
        *self.0.now.lock() = Some(Now {
            since: Instant::now(),
            index,
            entry: entry.clone(),
        });
        Beat(&self.0)
    }

    fn now(&self) -> Option<Now> {
        self.0.now.lock().clone()
    }

    fn times(&self) -> Option<Times> {
        Times::of(self.0.thread.load(Ordering::Relaxed))
    }
}

/// Watches one [`Applying`] from look to look, to tell what an entry's time goes by with.
#[derive(Debug, Default)]
pub struct Observer {
    /// An entry that was seen, when that was, and how its thread's time was spent up to then.
    seen: Option<(u64, Instant, Option<Times>)>,
}

/// An entry that has been under way for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    /// What it is, and at which index.
    pub what: String,
    /// For how long.
    pub running: Duration,
    /// What the time goes by with, if that can be told.
    pub cause: Cause,
}

impl Observer {
    /// Looks. Tells of an entry from the second look on.
    pub fn look(&mut self, applying: &Applying) -> Option<Slow> {
        let Some(now) = applying.now() else {
            self.seen = None;
            return None;
        };
        match &self.seen {
            Some((index, at, before)) if *index == now.index => {
                let cause = match (before, applying.times()) {
                    (Some(before), Some(after)) => before.cause(&after, at.elapsed()),
                    _ => Cause::Unknown,
                };
                Some(Slow {
                    what: describe(now.index, &now.entry),
                    running: now.since.elapsed(),
                    cause,
                })
            }
            _ => {
                self.seen = Some((now.index, Instant::now(), applying.times()));
                None
            }
        }
    }
}

/// An entry for people.
fn describe(index: u64, entry: &Bytes) -> String {
    let what = match Entry::decode(entry) {
        Ok(Entry::Nfs3(entry)) => {
            let name = Proc3::from_wire(entry.proc).map(|proc| format!("{proc:?}").to_uppercase());
            let name = name.unwrap_or_else(|| format!("procedure {}", entry.proc));
            format!("{name} of client {}", entry.client)
        }
        Ok(Entry::Mount(entry)) => format!("a MOUNT request of client {}", entry.client),
        Ok(Entry::Export { path, .. }) => {
            format!("the making of export {}", String::from_utf8_lossy(&path))
        }
        _ => "an entry of the cluster's own".into(),
    };
    format!("the applying of {what} (log index {index})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_fs::Time;

    fn noop() -> Bytes {
        let time = Time::default();
        Entry::Noop { time }.encode().unwrap()
    }

    #[test]
    fn each_entry_is_a_beat_of_its_own() {
        let (applying, mut observer) = (Applying::default(), Observer::default());
        assert_eq!(observer.look(&applying), None);
        for index in 7..9 {
            let _beat = applying.begin(index, &noop());
            assert_eq!(observer.look(&applying), None, "just begun");
        }
        assert_eq!(observer.look(&applying), None, "ended");
        let _beat = applying.begin(9, &noop());
        assert_eq!(observer.look(&applying), None);
        let slow = observer.look(&applying).unwrap();
        assert!(slow.what.contains("log index 9"), "{}", slow.what);
        assert_eq!(slow.cause, Cause::Unknown, "no thread applies");
    }

    #[test]
    fn entries_are_named() {
        let time = Time::default();
        let path = Bytes::from_static(b"/data");
        let export = Entry::Export {
            path,
            uid: 0,
            gid: 0,
            mode: 0,
            time,
        };
        let text = describe(3, &export.encode().unwrap());
        assert_eq!(
            text,
            "the applying of the making of export /data (log index 3)"
        );
        let text = describe(4, &Bytes::from_static(b"none"));
        assert!(text.contains("log index 4"), "{text}");
    }
}
