//! Telling the kernel to begin writing a range of a file to the device, and waiting for that. All `unsafe` of this crate
//! is here: no safe wrapper offers the call.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Begins writing back what is changed in the range; does not wait for it, and makes nothing durable.
pub(crate) fn start(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), Errno> {
    sync_range(fd, offset, len, libc::SYNC_FILE_RANGE_WRITE)
}

/// Waits for what is being written back in the range, and makes nothing durable. An error of that writing is told
/// once: the flush of the same descriptor does not tell it again.
pub(crate) fn finish(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), Errno> {
    sync_range(fd, offset, len, libc::SYNC_FILE_RANGE_WAIT_BEFORE)
}

#[allow(unsafe_code)]
fn sync_range(fd: BorrowedFd<'_>, offset: u64, len: u64, flags: libc::c_uint) -> Result<(), Errno> {
    let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else {
        return Err(Errno::OVERFLOW);
    };
    // SAFETY: the call takes numbers and an open descriptor only; it touches no memory of ours.
    let result = unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, len, flags) };
    match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .map_or(Errno::IO, Errno::from_raw_os_error)),
    }
}
