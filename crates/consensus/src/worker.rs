//! A named thread that runs blocking calls one after another, for callers that must not block.
//!
//! Invariants
//! - Calls run in the order in which they were handed over.
//! - The queue is bounded; a caller beyond the bound waits without blocking its thread.
//!
//! It must not know what the calls do.

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::threads;

/// Calls waiting for a worker. Callers await each call, so this is far above what they can have open.
const QUEUE_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// The thread ended: a call panicked, or the node shut down.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the worker thread has ended")]
pub(crate) struct WorkerGone;

impl From<WorkerGone> for std::io::Error {
    fn from(gone: WorkerGone) -> Self {
        std::io::Error::other(gone)
    }
}

/// Handle of a worker thread, which ends with its last handle.
#[derive(Clone)]
pub(crate) struct Worker {
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    /// Starts the thread. `name` has at most 15 bytes (the kernel's limit for thread names).
    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        Self::prepared(name, || {})
    }

    /// [`Worker::start`] of one that nobody waits for.
    pub(crate) fn start_background(name: &str) -> std::io::Result<Self> {
        Self::prepared(name, threads::background)
    }

    fn prepared(name: &str, prepare: fn()) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_MAX);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                prepare();
                while let Some(job) = queue.blocking_recv() {
                    job();
                }
            })?;
        Ok(Self { jobs })
    }

    /// Runs `call` on the thread and waits for its result.
    pub(crate) async fn call<T, F>(&self, call: F) -> Result<T, WorkerGone>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move || drop(answer.send(call())));
        self.jobs.send(job).await.map_err(|_| WorkerGone)?;
        result.await.map_err(|_| WorkerGone)
    }

    /// Hands `call` over if there is room, without waiting for it. For work that may be left out.
    pub(crate) fn offer<F: FnOnce() + Send + 'static>(&self, call: F) -> bool {
        self.jobs.try_send(Box::new(call)).is_ok()
    }
}
