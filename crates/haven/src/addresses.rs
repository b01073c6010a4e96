//! The floating addresses on this machine: added with a lifetime, guarded, announced, removed.
//!
//! Three things take an address off a node that must not have it: this module, when told; the guard, a
//! process of its own, when this process is dead, frozen or without a lease; the kernel, when nobody
//! refreshed the address for its lifetime (should the guard be dead too). Whoever else takes one off (an operator, an
//! interface that goes down), this module hears of it at once.
//!
//! The guard also holds the listening sockets and every client connection to a floating address, so that
//! no client hears of this process's death before the address is gone.

use haven_config::FloatingAddress;
use haven_platform::addr::{self, Losses, Placed, Subnet};
use haven_platform::guard::{Guard, GuardEvent, GuardTiming, Keeper};
use haven_platform::{announce, sockets};
use parking_lot::Mutex;
use std::net::{IpAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;
use tracing::{debug, info, warn};

/// How long the kernel keeps an address that nobody refreshes.
const LIFETIME: Duration = Duration::from_secs(10);
/// How often it is refreshed: several times within its lifetime.
const REFRESH: Duration = Duration::from_secs(2);
/// Pause before a removal that failed is tried again.
const RETRY: Duration = Duration::from_millis(100);

type LeaseValid = Arc<dyn Fn() -> bool + Send + Sync>;
type OnLost = Arc<dyn Fn() + Send + Sync>;

/// The service's floating addresses. Clones share them.
#[derive(Clone)]
pub struct Addresses {
    inner: Arc<Inner>,
}

struct Inner {
    wanted: Vec<Subnet>,
    interface: Option<String>,
    exe: PathBuf,
    listeners: Vec<TcpListener>,
    lease_valid: LeaseValid,
    on_lost: OnLost,
    guard: Mutex<Option<Guard>>,
    /// Hands sockets to that guard; apart from it, because taking orders may take the guard a while.
    keeper: Mutex<Option<Keeper>>,
    /// Addresses this process put up; the lock is held while any of them is added, refreshed or removed.
    held: Mutex<Vec<Placed>>,
    /// For those who must not wait for that lock.
    seen: Mutex<Vec<IpAddr>>,
}

impl Addresses {
    /// Prepares to hold `wanted` on `interface` (`None`: wherever their network is). `listeners` are those
    /// that clients reach there.
    ///
    /// # Errors
    /// An address that makes no sense, in words.
    pub fn new(
        wanted: &[FloatingAddress],
        interface: Option<&str>,
        exe: &Path,
        listeners: Vec<TcpListener>,
        lease_valid: impl Fn() -> bool + Send + Sync + 'static,
        on_lost: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let wanted = wanted
            .iter()
            .map(|a| Subnet::new(a.address, a.prefix).map_err(|e| e.to_string()))
            .collect::<Result<Vec<_>, _>>()?;
        let inner = Arc::new(Inner {
            wanted,
            interface: interface.map(str::to_owned),
            exe: exe.to_owned(),
            listeners,
            lease_valid: Arc::new(lease_valid),
            on_lost: Arc::new(on_lost),
            guard: Mutex::default(),
            keeper: Mutex::default(),
            held: Mutex::default(),
            seen: Mutex::default(),
        });
        tokio::spawn(refresh_for_ever(Arc::downgrade(&inner)));
        match Losses::watch() {
            Ok(losses) => watch_losses(losses, Arc::downgrade(&inner)),
            Err(why) => {
                warn!(%why, "a floating address that somebody takes off is missed for some seconds")
            }
        }
        Ok(Self { inner })
    }

    /// The bare addresses.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.inner.wanted.iter().map(|s| s.ip()).collect()
    }

    /// What is up here now, with its interface.
    pub fn placed(&self) -> Vec<Placed> {
        self.inner.held.lock().clone()
    }

    /// Where all of them would be on this machine.
    ///
    /// # Errors
    /// What the kernel does not tell, or an interface that is not there, in words.
    pub fn places(&self) -> Result<Vec<Placed>, String> {
        self.inner.place()
    }

    /// The addresses that are up here now. Does not wait: while they change, what was seen last.
    pub fn held(&self) -> Vec<IpAddr> {
        if let Some(held) = self.inner.held.try_lock() {
            *self.inner.seen.lock() = held.iter().map(Placed::ip).collect();
        }
        self.inner.seen.lock().clone()
    }

    /// Keeps a client connection to `local` from being closed by this process's death, if `local` is a
    /// floating address. Never waits.
    pub fn keep(&self, connection: BorrowedFd<'_>, local: IpAddr) {
        let local = local.to_canonical();
        if !self.inner.wanted.iter().any(|w| w.ip() == local) {
            return;
        }
        let keeper = self.inner.keeper.lock().clone();
        if let Some(Err(why)) = keeper.map(|k| k.keep(connection)) {
            debug!(%why, "a client connection would not outlive this process");
        }
    }

    /// Adds all addresses, guarded, if the lease is valid at that moment.
    ///
    /// # Errors
    /// Why not, in words; some may be up then.
    pub async fn add(&self, lease_valid: impl Fn() -> bool + Send + 'static) -> Result<(), String> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.add(lease_valid)).await
    }

    /// Removes all addresses, also leftovers of an earlier process; tries until it is done.
    pub async fn remove(&self) {
        loop {
            let inner = Arc::clone(&self.inner);
            match blocking(move || inner.remove()).await {
                Ok(()) => return,
                Err(why) => {
                    warn!(%why, "cannot remove the floating addresses; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Tells the neighbours where the addresses are.
    pub async fn announce(&self) {
        let inner = Arc::clone(&self.inner);
        let sent = blocking(move || {
            let held = inner.held.lock().clone();
            announce::announce(&held).map_err(|e| e.to_string())
        });
        if let Err(why) = sent.await {
            warn!(%why, "cannot announce the floating addresses");
        }
    }

    /// Drops what the kernel still has of connections to the addresses.
    pub async fn destroy_connections(&self) {
        let ips = self.ips();
        let dropped =
            blocking(move || sockets::drop_connections(&ips).map_err(|e| e.to_string())).await;
        if let Err(why) = dropped {
            info!(%why, "left client connections to the kernel");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| e.to_string())?
}

impl Inner {
    fn place(&self) -> Result<Vec<Placed>, String> {
        let place = |s: &Subnet| addr::place(*s, self.interface.as_deref());
        self.wanted
            .iter()
            .map(place)
            .collect::<Result<_, _>>()
            .map_err(|e| e.to_string())
    }

    fn add(self: &Arc<Self>, lease_valid: impl Fn() -> bool) -> Result<(), String> {
        let placed = self.place()?;
        let mut held = self.held.lock();
        self.guarded(&placed)?;
        for address in &placed {
            if !lease_valid() {
                return Err("the lease ran out meanwhile".into());
            }
            held.push(*address);
            addr::add(address, Some(LIFETIME)).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Makes the guard hold the addresses; a dead guard is replaced.
    fn guarded(self: &Arc<Self>, placed: &[Placed]) -> Result<(), String> {
        let mut slot = self.guard.lock();
        if let Some(guard) = &*slot
            && guard.hold(placed).is_ok()
        {
            return Ok(());
        }
        *slot = None;
        *self.keeper.lock() = None;
        let (lease, weak) = (Arc::clone(&self.lease_valid), Arc::downgrade(self));
        let on_event = move |event| {
            let Some(inner) = weak.upgrade() else { return };
            match event {
                GuardEvent::AddressLost => (inner.on_lost)(),
                // Without a guard the addresses are not safe here: give them up, take them anew.
                GuardEvent::Died => {
                    warn!("the address guard died");
                    (inner.on_lost)();
                }
            }
        };
        let guard = Guard::spawn(
            &self.exe,
            &["guard"],
            GuardTiming::default(),
            move || lease(),
            on_event,
        )
        .map_err(|e| e.to_string())?;
        let keeper = guard.keeper();
        for listener in &self.listeners {
            if let Err(why) = keeper.keep(listener) {
                warn!(%why, "should this process die, clients may be refused for a moment");
            }
        }
        guard.hold(placed).map_err(|e| e.to_string())?;
        *self.keeper.lock() = Some(keeper);
        *slot = Some(guard);
        Ok(())
    }

    fn remove(&self) -> Result<(), String> {
        let mut held = self.held.lock();
        let mut all = held.clone();
        // Leftovers of an earlier process may be on any interface.
        let here = addr::list().map_err(|e| e.to_string())?;
        all.extend(
            here.into_iter()
                .filter(|p| self.wanted.iter().any(|w| w.ip() == p.ip())),
        );
        all.sort_unstable();
        all.dedup();
        for address in &all {
            addr::remove(address).map_err(|e| e.to_string())?;
        }
        held.clear();
        if let Some(guard) = &*self.guard.lock() {
            // A guard that is gone has nothing to let go of.
            let _ = guard.release();
        }
        Ok(())
    }

    /// Starts the lifetimes afresh, as long as the lease says that we may.
    fn refresh(&self) {
        let held = self.held.lock();
        for address in held.iter() {
            if (self.lease_valid)()
                && let Err(why) = addr::refresh(address, LIFETIME)
            {
                warn!(%why, "cannot refresh a floating address");
            }
        }
    }
}

/// On a thread of its own, as long as the addresses are of interest.
fn watch_losses(mut losses: Losses, inner: Weak<Inner>) {
    let watching = move || {
        loop {
            let lost = match losses.wait() {
                Ok(lost) => lost,
                Err(why) => return warn!(%why, "the floating addresses are not watched any more"),
            };
            let Some(inner) = inner.upgrade() else { return };
            // Waits for whoever changes them right now: if that is this process, they are not held any more.
            let mut held = inner.held.lock().clone();
            held.retain(|placed| lost.as_ref().is_none_or(|lost| lost.contains(&placed.ip())));
            let gone = |placed: &Placed| addr::is_here(placed.ip()).is_ok_and(|here| !here);
            if let Some(placed) = held.iter().find(|placed| gone(placed)) {
                warn!(address = %placed.ip(), "a floating address is gone: somebody took it off, or this node's own guard, because this process was too busy to tell it that it lives");
                (inner.on_lost)();
            }
        }
    };
    let spawned = thread::Builder::new()
        .name("haven-addresses".into())
        .spawn(watching);
    if let Err(why) = spawned {
        warn!(%why, "the floating addresses are not watched");
    }
}

async fn refresh_for_ever(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(REFRESH).await;
        let Some(inner) = inner.upgrade() else { return };
        let _ = blocking(move || {
            inner.refresh();
            Ok(())
        })
        .await;
    }
}
