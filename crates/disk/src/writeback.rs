//! Telling the kernel to begin writing a range of a file to the device. All `unsafe` of this crate is here: no safe
//! wrapper offers the call.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Begins writing back what is changed in the range; does not wait for it, and makes nothing durable.
#[allow(unsafe_code)]
pub(crate) fn start(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), Errno> {
    let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else {
        return Err(Errno::OVERFLOW);
    };
    // SAFETY: the call takes numbers and an open descriptor only; it touches no memory of ours.
    let result =
        unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .map_or(Errno::IO, Errno::from_raw_os_error)),
    }
}
