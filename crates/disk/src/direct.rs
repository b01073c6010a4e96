//! Writing around the page cache: much data that nobody reads soon goes to the device from a buffer of our own.
//! Through the page cache it would be copied into pages that were empty a moment ago, which costs about five times
//! the processor time, and push out what is read.
//!
//! Only whole blocks of the file go this way. What is ragged at both ends, and everything on file systems that
//! cannot do it, takes the usual one. Both ways of the same file agree: the kernel writes back and forgets the pages
//! of a range before it is written directly.
//!
//! It must not know what is stored, nor flush: a direct write is as little durable as any other.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

/// Offsets, lengths and memory are multiples of this: no common device asks for more.
pub(crate) const BLOCK: usize = 4096;
/// Writes with fewer bytes than this in whole blocks are cheaper through the page cache.
const DIRECT_MIN: usize = 256 << 10;
/// Bytes handed to the device at once.
const STEP: usize = 4 << 20;

/// The memory from which all files of a disk are written directly, one at a time; made with the first such write.
#[derive(Clone, Default)]
pub(crate) struct Bounce(Arc<Mutex<Vec<u8>>>);

impl fmt::Debug for Bounce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bounce").finish()
    }
}

/// The file opened a second time, for direct writing; nothing inside when it cannot be.
#[derive(Debug, Default)]
pub(crate) struct Direct(OnceLock<Option<OwnedFd>>);

/// How a write is divided: `head` bytes up to a block, `middle` bytes of whole blocks, and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) head: usize,
    pub(crate) middle: usize,
}

impl Division {
    /// `None` when so little is whole blocks that the page cache is better.
    pub(crate) fn of(offset: u64, len: usize) -> Option<Division> {
        let ragged = (offset % BLOCK as u64) as usize;
        let head = if ragged == 0 { 0 } else { BLOCK - ragged };
        let middle = len.checked_sub(head)? / BLOCK * BLOCK;
        (middle >= DIRECT_MIN).then_some(Division { head, middle })
    }
}

impl Direct {
    /// Writes whole blocks; `Ok(false)` when the file system cannot (nothing, or a part, is written then: the
    /// caller writes all of it the usual way).
    ///
    /// # Errors
    /// What the system says of the write.
    pub(crate) fn write(
        &self,
        file: &OwnedFd,
        bounce: &Bounce,
        offset: u64,
        parts: &[&[u8]],
    ) -> Result<bool, Errno> {
        let Some(fd) = self.0.get_or_init(|| reopen(file).ok()) else {
            return Ok(false);
        };
        let mut memory = bounce.0.lock();
        let buffer = aligned(&mut memory);
        let mut source = Source { parts, at: 0 };
        let mut at = offset;
        loop {
            let n = source.fill(buffer);
            if n == 0 {
                return Ok(true);
            }
            let mut done = 0;
            while done < n {
                match retry_on_intr(|| rustix::io::pwrite(fd, &buffer[done..n], at)) {
                    // A part of a block: the rest would not be aligned.
                    Ok(wrote) if wrote % BLOCK != 0 => return Ok(false),
                    Ok(0) | Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(false),
                    Ok(wrote) => {
                        done += wrote;
                        at += wrote as u64;
                    }
                    Err(e) => return Err(e),
                }
            }
        }
    }
}

/// The same file, however it is named by now.
fn reopen(file: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// `STEP` bytes that begin at a multiple of [`BLOCK`].
fn aligned(memory: &mut Vec<u8>) -> &mut [u8] {
    memory.resize(STEP + BLOCK, 0);
    let skip = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
    &mut memory[skip..skip + STEP]
}

/// Parts, read one after another.
struct Source<'a> {
    parts: &'a [&'a [u8]],
    /// Bytes of the first part that were read.
    at: usize,
}

impl Source<'_> {
    /// Fills the buffer as far as there is something; returns how far.
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some((part, later)) = self.parts.split_first() {
            let n = (part.len() - self.at).min(buffer.len() - filled);
            buffer[filled..filled + n].copy_from_slice(&part[self.at..self.at + n]);
            filled += n;
            self.at += n;
            if self.at < part.len() {
                break;
            }
            self.parts = later;
            self.at = 0;
        }
        filled
    }
}

/// The parts' bytes from `from` on, `len` of them.
pub(crate) fn cut<'a>(parts: &[&'a [u8]], from: usize, len: usize) -> Vec<&'a [u8]> {
    let (mut skip, mut left) = (from, len);
    let mut out = Vec::with_capacity(parts.len());
    for part in parts {
        let begin = skip.min(part.len());
        let end = (begin + left).min(part.len());
        skip -= begin;
        left -= end - begin;
        if begin < end {
            out.push(&part[begin..end]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_go_directly_and_only_many() {
        let of = |offset, len| Division::of(offset, len).map(|d| (d.head, d.middle));
        assert_eq!(of(0, DIRECT_MIN), Some((0, DIRECT_MIN)));
        assert_eq!(of(0, DIRECT_MIN - 1), None);
        assert_eq!(of(8, DIRECT_MIN), None);
        assert_eq!(of(8, DIRECT_MIN + BLOCK), Some((BLOCK - 8, DIRECT_MIN)));
        assert_eq!(of(4095, 10), None);
        assert_eq!(of(1, 0), None);
    }

    #[test]
    fn cutting_takes_the_bytes_in_between() {
        let parts: [&[u8]; 4] = [b"abc", b"", b"defg", b"h"];
        for from in 0..=8 {
            for len in 0..=8 - from {
                let got = cut(&parts, from, len).concat();
                assert_eq!(got, b"abcdefgh"[from..from + len]);
            }
        }
    }

    #[test]
    fn a_source_fills_buffers_of_any_size() {
        let parts: [&[u8]; 4] = [b"abc", b"", b"defg", b"h"];
        for size in 1..=9 {
            let mut source = Source {
                parts: &parts,
                at: 0,
            };
            let (mut all, mut buffer) = (Vec::new(), vec![0; size]);
            loop {
                match source.fill(&mut buffer) {
                    0 => break,
                    n => all.extend_from_slice(&buffer[..n]),
                }
            }
            assert_eq!(all, b"abcdefgh");
        }
    }
}
