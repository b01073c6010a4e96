//! Network namespaces: a whole cluster with its network on one machine, for trying out and for tests.
//!
//! A namespace lives as long as a descriptor of it, a thread or a process in it; nothing is mounted, so
//! nothing is left behind. Interfaces are made with [`crate::link`], addresses with [`crate::addr`], from
//! a thread that is in the namespace ([`Netns::run`]).
//!
//! Must not know: what runs in the namespaces.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::error::{PlatformError, Result};
use crate::link;
use crate::sys;

/// How [`isolate`] got its namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// The process was privileged: real root with own network and mounts.
    Privileged,
    /// Through a user namespace: root inside, an ordinary user outside (no kernel mounts of NFS, one
    /// user id only).
    UserNamespace,
}

/// Moves this process into network and mount namespaces of its own, through a user namespace if it is not
/// privileged. Loopback is up afterwards.
///
/// Call it first thing in `main`: the kernel makes a user namespace only for a process with a single
/// thread, and threads that exist already would stay in the old network.
pub fn isolate() -> Result<Isolation> {
    let net = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    let isolation = match sys::unshare(net) {
        Ok(()) => Isolation::Privileged,
        Err(rustix::io::Errno::PERM) => {
            unshare_user(net)?;
            Isolation::UserNamespace
        }
        Err(errno) => return Err(PlatformError::kernel("making network namespaces", errno)),
    };
    // Mounts made in here must not appear outside.
    let propagation = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", propagation)
        .map_err(|errno| PlatformError::kernel("making mounts private", errno))?;
    link::set_up("lo", true)?;
    Ok(isolation)
}

fn unshare_user(with: UnshareFlags) -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    sys::unshare(with | UnshareFlags::NEWUSER).map_err(|errno| PlatformError::Kernel {
        doing: "making a user namespace (is it allowed? see the sysctls user.max_user_namespaces, \
                kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
            .to_owned(),
        errno,
    })?;
    // Without giving up setgroups the kernel accepts no group mapping from an ordinary user.
    write_proc("/proc/self/setgroups", "deny")?;
    write_proc("/proc/self/uid_map", &format!("0 {} 1", uid.as_raw()))?;
    write_proc("/proc/self/gid_map", &format!("0 {} 1", gid.as_raw()))
}

fn write_proc(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| PlatformError::io(format!("writing {path}"), error))
}

/// A network namespace, named by a descriptor.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// Makes an empty namespace with loopback up.
    pub fn new() -> Result<Self> {
        on_thread(|| {
            sys::unshare(UnshareFlags::NEWNET)
                .map_err(|errno| PlatformError::kernel("making a network namespace", errno))?;
            link::set_up("lo", true)?;
            Self::current()
        })?
    }

    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        let path = "/proc/thread-self/ns/net";
        let file = File::open(path)
            .map_err(|error| PlatformError::io(format!("opening {path}"), error))?;
        Ok(Self { fd: file.into() })
    }

    /// Moves the calling thread into this namespace, for good. Sockets belong to the namespace in which
    /// they were made, wherever they are used; so a runtime whose threads all do this first lives in it.
    pub fn enter_thread(&self) -> Result<()> {
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| PlatformError::kernel("entering a network namespace", errno))
    }

    /// Runs `work` on a thread in this namespace and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| self.enter_thread().map(|()| work()))?
    }

    /// Makes `command` start in this namespace. (For tokio's command: `command.as_std_mut()`.)
    pub fn set_for(&self, command: &mut Command) -> Result<()> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|error| PlatformError::io("keeping a network namespace open", error))?;
        sys::spawn_in_netns(command, fd);
        Ok(())
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `work` on a thread of its own, which takes its changed namespace with it when it ends.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| PlatformError::io("starting a thread for a namespace", error))?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
