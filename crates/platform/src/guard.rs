//! The address guard: takes the floating addresses off when the server cannot.
//!
//! A server process that is killed, stopped or stuck on a living machine leaves its addresses behind, and
//! the kernel goes on answering ARP for them while another node serves. So a child process that does
//! nothing else watches the server: a thread of the server sends a beat while the lease is valid, and when
//! beats or the pipe itself end, the child removes the addresses and drops their connections.
//!
//! Until the addresses are gone, nobody must hear of the server's death: a client told too early comes
//! back to this node, is refused, and waits for seconds. So the child also holds the listening sockets and
//! the client connections ([`Guard::keeper`]); the kernel closes neither while it does. A client that the
//! next leader does not know of would then notice nothing for a minute, so the child tickles it in the end.
//!
//! Invariants:
//! - [`Guard::hold`] returns before an address is added, and the child knows the addresses then.
//! - A beat carries the time at which the lease was checked, so one that waited in the pipe prolongs nothing.
//! - The addresses go first, then the connections, then what the child kept; then it tickles, if there is anybody to be
//!   tickled, for as long as a client's keepalive, and ends. By then it touches no address: they may be the server's own
//!   again.
//! - After it has acted, the child keeps taking the addresses off until told otherwise: a server that was
//!   frozen in the middle of adding them may still complete that when it wakes.
//!
//! Must not know: what the lease is.

mod child;
mod keep;
mod nudge;
mod wire;

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use child::run_child;
pub use keep::{KEPT_MAX, Keeper};

use crate::addr::Placed;
use crate::error::{PlatformError, Result};
use wire::{HoldId, Order, Report};

/// At most so many addresses are guarded at a time; their list fits an atomic pipe write.
pub const ADDRESSES_MAX: usize = 64;
/// How long the child may take to confirm what it is to hold.
const CONFIRM_MS_MAX: u64 = 1_000;

/// How closely the server is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardTiming {
    /// The distance between beats.
    pub beat_ms: u64,
    /// How old the last proof of a valid lease may get while addresses are held. Must be shorter than the
    /// time after which another node may take the addresses, counted from the end of the lease.
    pub deadline_ms: u64,
}

impl Default for GuardTiming {
    fn default() -> Self {
        Self {
            beat_ms: 50,
            deadline_ms: 400,
        }
    }
}

/// What the guard tells the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardEvent {
    /// The addresses held were taken off: the server was frozen, or its lease was not valid, for too long.
    AddressLost,
    /// The guard ended or does not take orders any more. Release the addresses, or start another guard
    /// and hold them again.
    Died,
}

type OnEvent = Arc<dyn Fn(GuardEvent) + Send + Sync>;

/// What the threads share.
struct Shared {
    orders: ChildStdin,
    held: Option<HoldId>,
    last_id: u64,
    died: bool,
    closing: bool,
}

/// The server's side of the guard. Dropped, it ends the child, which takes off what is still held.
pub struct Guard {
    shared: Arc<Mutex<Option<Shared>>>,
    timing: GuardTiming,
    confirmed: Receiver<HoldId>,
    stop_beat: Option<Sender<()>>,
    beat: Option<JoinHandle<()>>,
    keeper: Keeper,
    child_pid: u32,
}

impl Guard {
    /// Starts the child as `exe args..`, which must call [`run_child`] with its standard input and output.
    /// It works in the network namespace of the calling thread. The output is a socket, over which
    /// [`Keeper`] sends.
    ///
    /// `lease_valid` is asked on a thread of its own before each beat; it must not block. `on_event` is
    /// called on other threads.
    pub fn spawn(
        exe: &Path,
        args: &[&str],
        timing: GuardTiming,
        lease_valid: impl Fn() -> bool + Send + 'static,
        on_event: impl Fn(GuardEvent) + Send + Sync + 'static,
    ) -> Result<Self> {
        let wrap = |error| PlatformError::io("starting the address guard", error);
        // Both ways: reports come, sockets go. Orders have their own pipe, which sockets cannot fill.
        let (reports, theirs) = UnixStream::pair().map_err(wrap)?;
        let keeper = Keeper::new(reports.try_clone().map_err(wrap)?);
        let mut child = Command::new(exe)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(OwnedFd::from(theirs))
            .spawn()
            .map_err(wrap)?;
        let Some(orders) = child.stdin.take() else {
            return Err(PlatformError::Guard("has no pipe"));
        };
        // A child that is stuck must not make the server stick.
        rustix::io::ioctl_fionbio(&orders, true).map_err(|errno| wrap(errno.into()))?;
        let child_pid = child.id();
        let on_event: OnEvent = Arc::new(on_event);
        let shared = Shared {
            orders,
            held: None,
            last_id: 0,
            died: false,
            closing: false,
        };
        let shared = Arc::new(Mutex::new(Some(shared)));
        let (confirm, confirmed) = channel();
        let (stop_beat, stopped) = channel();
        let reader = Reader {
            shared: shared.clone(),
            confirm,
            on_event: on_event.clone(),
        };
        let reading = thread::Builder::new().name("guard-reports".to_owned());
        reading
            .spawn(move || reader.run(child, reports))
            .map_err(wrap)?;
        let beating = thread::Builder::new().name("guard-beat".to_owned());
        let shared_beat = shared.clone();
        let pause = Duration::from_millis(timing.beat_ms);
        let beat = beating
            .spawn(move || {
                while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    beat(&shared_beat, &lease_valid, &on_event);
                }
            })
            .map_err(wrap)?;
        let stop_beat = Some(stop_beat);
        Ok(Self {
            shared,
            timing,
            confirmed,
            stop_beat,
            beat: Some(beat),
            keeper,
            child_pid,
        })
    }

    /// Makes the child watch over `addresses`, in place of what it held before. Call it *before* adding
    /// them, with a valid lease; on an error do not add them. Waits for the child's word, which normally
    /// takes less than a millisecond.
    pub fn hold(&self, addresses: &[Placed]) -> Result<()> {
        if addresses.len() > ADDRESSES_MAX {
            let what = format!(
                "{} floating addresses; at most {ADDRESSES_MAX}",
                addresses.len()
            );
            return Err(PlatformError::Invalid(what));
        }
        let id = {
            let mut slot = lock(&self.shared);
            let shared = slot.as_mut().ok_or(PlatformError::Guard("has ended"))?;
            shared.last_id += 1;
            let id = HoldId(shared.last_id);
            let order = Order::Hold {
                id,
                deadline_ms: self.timing.deadline_ms,
                checked_ns: wire::now_ns(),
                addresses: addresses.to_vec(),
            };
            shared.send(&order)?;
            shared.held = Some(id);
            id
        };
        loop {
            match self
                .confirmed
                .recv_timeout(Duration::from_millis(CONFIRM_MS_MAX))
            {
                Ok(found) if found == id => return Ok(()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(PlatformError::Guard("does not answer"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PlatformError::Guard("has ended"));
                }
            }
        }
    }

    /// Ends the watch: the child leaves the addresses alone. Call it *after* removing them, or to keep
    /// them across a restart of the server.
    pub fn release(&self) -> Result<()> {
        let mut slot = lock(&self.shared);
        let shared = slot.as_mut().ok_or(PlatformError::Guard("has ended"))?;
        shared.held = None;
        shared.send(&Order::Release)
    }

    /// Hands sockets to the child.
    pub fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }

    /// The child's process id.
    pub fn child_pid(&self) -> u32 {
        self.child_pid
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(shared) = lock(&self.shared).as_mut() {
            shared.closing = true;
        }
        drop(self.stop_beat.take());
        if let Some(beat) = self.beat.take() {
            // A panic of the closure has been printed already; the child acts on the missing beats.
            let _ = beat.join();
        }
        // Closes the pipe, which ends the child.
        drop(lock(&self.shared).take());
    }
}

impl Shared {
    /// Writes one order: whole, or not at all.
    fn send(&mut self, order: &Order) -> Result<()> {
        let line = order.to_string();
        match self.orders.write(line.as_bytes()) {
            Ok(len) if len == line.len() => Ok(()),
            Ok(_) => Err(PlatformError::Guard("took half an order")),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(PlatformError::Guard("is stuck"))
            }
            Err(_) => Err(PlatformError::Guard("has ended")),
        }
    }
}

/// Sends a beat if addresses are held and the lease is valid *after* the time that the beat carries.
fn beat(shared: &Mutex<Option<Shared>>, lease_valid: &impl Fn() -> bool, on_event: &OnEvent) {
    let holding = lock(shared)
        .as_ref()
        .is_some_and(|shared| shared.held.is_some());
    let checked_ns = wire::now_ns();
    if !holding || !lease_valid() {
        return;
    }
    let failed = {
        let mut slot = lock(shared);
        let Some(shared) = slot.as_mut() else { return };
        let failed = shared.send(&Order::Beat { checked_ns }).is_err();
        failed && !std::mem::replace(&mut shared.died, failed)
    };
    if failed {
        on_event(GuardEvent::Died);
    }
}

/// Listens to the child.
struct Reader {
    shared: Arc<Mutex<Option<Shared>>>,
    confirm: Sender<HoldId>,
    on_event: OnEvent,
}

impl Reader {
    fn run(self, mut child: Child, reports: UnixStream) {
        // The child is our own program and its lines are short, so the reader need not bound them.
        for line in BufReader::new(reports).lines() {
            let Ok(line) = line else { break };
            match line.parse() {
                Ok(Report::Holding(id)) => drop(self.confirm.send(id)),
                Ok(Report::Lost(id)) => self.lost(id),
                Err(()) => break,
            }
        }
        let expected = match lock(&self.shared).as_mut() {
            None => true,
            Some(shared) => shared.closing || std::mem::replace(&mut shared.died, true),
        };
        drop(self.confirm);
        if !expected {
            (self.on_event)(GuardEvent::Died);
        }
        // Nothing can be done about a child that cannot be waited for.
        let _ = child.wait();
    }

    fn lost(&self, id: HoldId) {
        let current = match lock(&self.shared).as_mut() {
            Some(shared) => shared.held == Some(id),
            None => false,
        };
        if current {
            (self.on_event)(GuardEvent::AddressLost);
        }
    }
}

/// A thread that panicked leaves nothing half done in [`Shared`].
fn lock(shared: &Mutex<Option<Shared>>) -> MutexGuard<'_, Option<Shared>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bare addresses, as the connection list wants them.
fn ips(addresses: &[Placed]) -> Vec<IpAddr> {
    addresses.iter().map(Placed::ip).collect()
}
