//! The two questions to the kernel about a TCP connection for which there is no safe wrapper. All `unsafe` of this crate
//! is here.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// The state of a connection that neither end has closed (`TCP_ESTABLISHED`).
const ESTABLISHED: u8 = 1;
/// The kernel's clock for this ticks 100 times a second, at the slowest.
const TICK: Duration = Duration::from_millis(10);

/// What the kernel knows of a connection's peer.
pub(crate) struct Peer {
    /// How long ago bytes came; rather too long than too short.
    pub silent: Duration,
    /// Whether it has closed the connection.
    pub is_over: bool,
}

/// Bytes written to a TCP socket that its peer has not acknowledged (`SIOCOUTQ`, tcp(7)).
#[allow(unsafe_code)]
pub(crate) fn unacknowledged_bytes(socket: &impl AsFd) -> io::Result<u64> {
    let fd = socket.as_fd().as_raw_fd();
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the number of TIOCOUTQ) writes one int to where the pointer says, which is one.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// What the kernel knows of the peer (`TCP_INFO`, tcp(7)).
#[allow(unsafe_code)]
pub(crate) fn peer(socket: &impl AsFd) -> io::Result<Peer> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: all bytes zero are a valid `tcp_info`: it consists of integers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointers are to a `tcp_info` and its length; the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer {
        silent: Duration::from_millis(info.tcpi_last_data_recv.into()) + TICK,
        is_over: info.tcpi_state != ESTABLISHED,
    })
}
