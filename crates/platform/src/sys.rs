//! The few system calls that no safe wrapper offers. All `unsafe` of this crate is here.
//!
//! Must not know: why they are made.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Detaches the calling thread from the namespaces named by `flags`, of which `FILES` must not be one.
#[allow(unsafe_code)]
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(rustix::io::Errno::INVAL);
    }
    // SAFETY: the call is unsafe only for `FILES`, which can pull descriptors away from other threads; it
    // was excluded above.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Makes `command` run in the network namespace behind `netns`.
#[allow(unsafe_code)]
pub(crate) fn spawn_in_netns(command: &mut Command, netns: OwnedFd) {
    let enter = move || -> io::Result<()> {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one system call; it neither allocates nor locks,
    // and the descriptor it owns stays open as long as the command exists.
    unsafe { command.pre_exec(enter) };
}

/// Lets the process live through the signals that end its neighbours.
#[allow(unsafe_code)]
pub(crate) fn ignore_ending_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE] {
        // SAFETY: SIG_IGN runs no code of ours in signal context.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Where a frame goes: an interface and a protocol, for packet sockets.
pub(crate) struct LinkDestination {
    raw: libc::sockaddr_ll,
}

impl LinkDestination {
    /// To `mac` over the interface `index`, as Ethernet protocol `ethertype`.
    pub(crate) fn new(index: u32, ethertype: u16, mac: [u8; 6]) -> Self {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&mac);
        let raw = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: ethertype.to_be(),
            sll_ifindex: index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: address,
        };
        Self { raw }
    }
}

// SAFETY: `with_sockaddr` hands out a pointer to a whole, initialised `sockaddr_ll` with that type's size;
// it lives as long as `self`, so for the whole call.
#[allow(unsafe_code)]
unsafe impl SocketAddrArg for LinkDestination {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f(
            (&raw const self.raw).cast(),
            size_of::<libc::sockaddr_ll>() as SocketAddrLen,
        )
    }
}
