//! Sockets that the guard holds besides the server, so that they outlive it.
//!
//! When a process is killed, the kernel closes its connections with a FIN or a reset, and refuses whoever
//! connects after that, from an address that another node has not taken yet. A refused client waits for
//! seconds. A socket that has a second holder is not closed: its peer hears nothing until the guard has
//! taken the address off, and nothing after that.
//!
//! Invariants: at most [`KEPT_MAX`] sockets, and none that is over, whichever side ended it; what cannot be
//! kept is merely not kept. A server that ends a connection itself must disconnect it, not just close it.
//!
//! Must not know: what the sockets are for.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::error::{PlatformError, Result};

/// The guard holds at most so many sockets; those beyond end with the server.
pub const KEPT_MAX: usize = 1 << 14;
/// Sockets taken in, and ended ones let go, before the guard looks at its orders again.
const BATCH: usize = 64;

/// Hands sockets to the guard. Clones hand them to the same one.
#[derive(Debug, Clone)]
pub struct Keeper {
    channel: Arc<UnixStream>,
}

impl Keeper {
    pub(super) fn new(channel: UnixStream) -> Self {
        Self {
            channel: Arc::new(channel),
        }
    }

    /// Makes the guard hold this socket too, until the connection is over or the guard ends. Never waits:
    /// a guard that is gone or too busy is an error, after which the socket is as good as before.
    pub fn keep(&self, socket: impl AsFd) -> Result<()> {
        let sockets = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(PlatformError::Guard("can be handed no socket"));
        }
        // A message with descriptors needs a byte to travel with.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(&self.channel, &[IoSlice::new(b"k")], &mut control, flags) {
            Ok(_) => Ok(()),
            Err(Errno::AGAIN) => Err(PlatformError::Guard("is too busy to keep a socket")),
            Err(_) => Err(PlatformError::Guard("has ended")),
        }
    }
}

/// The guard's side.
pub(super) struct Kept<'a> {
    /// `None`: nothing comes from there any more.
    channel: Option<BorrowedFd<'a>>,
    /// Watches for connections that are over.
    ends: OwnedFd,
    next: u64,
    sockets: BTreeMap<u64, OwnedFd>,
}

impl<'a> Kept<'a> {
    /// Takes sockets in from `channel`.
    pub(super) fn new(channel: BorrowedFd<'a>) -> Result<Self> {
        let ends = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| PlatformError::kernel("watching the kept sockets", errno))?;
        Ok(Self {
            channel: Some(channel),
            ends,
            next: 0,
            sockets: BTreeMap::new(),
        })
    }

    /// Where sockets come from, while any may come.
    pub(super) fn channel(&self) -> Option<BorrowedFd<'a>> {
        self.channel
    }

    /// Becomes readable when a socket has ended.
    pub(super) fn ends(&self) -> BorrowedFd<'_> {
        self.ends.as_fd()
    }

    /// Takes in what has come, up to a batch.
    pub(super) fn take_in(&mut self) {
        for _ in 0..BATCH {
            let Some(channel) = self.channel else { return };
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            match recvmsg(
                channel,
                &mut [IoSliceMut::new(&mut byte)],
                &mut control,
                flags,
            ) {
                Ok(message) if message.bytes > 0 => {
                    for message in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(sockets) = message {
                            sockets.for_each(|socket| self.add(socket));
                        }
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Its end; or it never was a socket: a guard started by hand.
                Ok(_) | Err(_) => self.channel = None,
            }
        }
    }

    fn add(&mut self, socket: OwnedFd) {
        let id = self.next;
        // A hang-up is reported without being asked for, and nothing else is wanted.
        let nothing = epoll::EventFlags::empty();
        let watched = self.sockets.len() < KEPT_MAX
            && epoll::add(&self.ends, &socket, epoll::EventData::new_u64(id), nothing).is_ok();
        // Without the watch it would be kept for ever.
        if watched {
            self.next += 1;
            self.sockets.insert(id, socket);
        }
    }

    /// Lets go of sockets that have ended, up to a batch.
    pub(super) fn let_go(&mut self) {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        let now = Timespec::default();
        let Ok((ended, _)) = epoll::wait(&self.ends, &mut events, Some(&now)) else {
            return;
        };
        for event in ended {
            if let Some(socket) = self.sockets.remove(&event.data.u64()) {
                // The server may still have it open; then closing ours would leave the watch behind.
                let _ = epoll::delete(&self.ends, &socket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_kept_connection_outlives_its_owner_until_it_is_disconnected() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let keeper = Keeper::new(ours);
        let mut kept = Kept::new(theirs.as_fd()).unwrap();
        let (mut client, server) = connection();
        let (mut other, other_server) = connection();
        keeper.keep(&server).unwrap();
        keeper.keep(&other_server).unwrap();
        kept.take_in();
        kept.let_go();
        assert_eq!(kept.sockets.len(), 2);
        drop(server);
        client.set_nonblocking(true).unwrap();
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        rustix::net::connect_unspec(&other_server).unwrap();
        let error = other.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        kept.let_go();
        assert_eq!(kept.sockets.len(), 1);
        drop(kept);
        client.set_nonblocking(false).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed at last");
    }

    #[test]
    fn a_guard_that_does_not_listen_costs_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let keeper = Keeper::new(ours);
        let (_client, server) = connection();
        // Refused sooner or later, but never waited for.
        while keeper.keep(&server).is_ok() {}
        drop(theirs);
        assert!(matches!(
            keeper.keep(&server),
            Err(PlatformError::Guard("has ended"))
        ));
    }

    #[test]
    fn a_pipe_brings_no_sockets() {
        let (_read, write) = rustix::pipe::pipe().unwrap();
        let mut kept = Kept::new(write.as_fd()).unwrap();
        kept.take_in();
        assert!(kept.channel().is_none());
    }
}
