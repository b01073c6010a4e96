//! Data past what a local file can hold ([`DATA_END_MAX`]): pages in the key space.
//!
//! Files may be as large as a signed 64-bit offset says, but local file systems end earlier, and a
//! request must never fail on one replica because of the file system below. Hardly anything writes
//! there, so simple and slow is right.
//!
//! Replay safety: pages are rows, which go back to the checkpoint with all others.
//!
//! Invariant: a file has pages only when its size is past [`DATA_END_MAX`], and bytes of a page past the
//! size are zero.

use crate::data::DATA_END_MAX;
use crate::keys;
use crate::open::Store;
use haven_fs::{FsResult, Ino};
use std::ops::ControlFlow;

/// Bytes in a page row.
pub const FAR_PAGE_BYTES: usize = 4096;

const PAGE: u64 = FAR_PAGE_BYTES as u64;

impl Store {
    /// Writes `data` at `offset`, which is not before [`DATA_END_MAX`].
    pub(super) fn far_write(&mut self, ino: Ino, offset: u64, mut data: &[u8]) -> FsResult<()> {
        let mut at = offset;
        while !data.is_empty() {
            let start = (at % PAGE) as usize;
            let (now, later) = data.split_at(data.len().min(FAR_PAGE_BYTES - start));
            let key = keys::far_page(ino, at / PAGE);
            let mut page = self
                .layers
                .get(&key)?
                .map_or(vec![0; FAR_PAGE_BYTES], Vec::from);
            page[start..start + now.len()].copy_from_slice(now);
            self.layers.put(key, page);
            at += now.len() as u64;
            data = later;
        }
        Ok(())
    }

    /// Copies what pages hold of the bytes from `offset` on into `buf`.
    pub(super) fn far_read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> FsResult<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if end <= DATA_END_MAX {
            return Ok(());
        }
        let from = keys::far_page(ino, offset / PAGE);
        let until = keys::far_page(ino, end.div_ceil(PAGE));
        self.layers.scan(&from, Some(&until), &mut |key, page| {
            let page_start = keys::page_of(key).unwrap_or_default().saturating_mul(PAGE);
            let (start, stop) = (
                offset.max(page_start),
                end.min(page_start.saturating_add(PAGE)),
            );
            let (into, out_of) = (start - offset, start - page_start);
            for at in 0..stop.saturating_sub(start) {
                buf[(into + at) as usize] = page[(out_of + at) as usize];
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }

    /// Forgets everything from `size` on, of a file that had `old` bytes.
    pub(super) fn far_cut(&mut self, ino: Ino, old: u64, size: u64) -> FsResult<()> {
        if old <= DATA_END_MAX || size >= old {
            return Ok(());
        }
        let (from, kept) = (keys::far_page(ino, size / PAGE), (size % PAGE) as usize);
        let end = keys::after_prefix(&keys::by_ino(keys::FAR_PAGE, ino));
        let mut pages = Vec::new();
        self.layers.scan(&from, end.as_deref(), &mut |key, value| {
            pages.push((key.to_vec(), value.to_vec()));
            Ok(ControlFlow::Continue(()))
        })?;
        for (key, mut page) in pages {
            if key == from && kept > 0 {
                page[kept..].fill(0);
                self.layers.put(key, page);
            } else {
                self.layers.remove(key);
            }
        }
        Ok(())
    }
}
