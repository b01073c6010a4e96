//! Contents of a sparse file in memory: pages that were written, zeros everywhere else.
//!
//! Invariant: bytes at and beyond the file's size are zero or absent, so that growing a file again
//! shows zeros.

use std::collections::BTreeMap;

const PAGE_BYTES: usize = 4096;

/// A sparse array of bytes; its length is the owner's business.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pages(BTreeMap<u64, Vec<u8>>);

impl Pages {
    /// The `len` bytes at `offset`.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        while out.len() < len {
            let (page, start, count) = span(offset + out.len() as u64, len - out.len());
            match self.0.get(&page) {
                Some(bytes) => out.extend_from_slice(&bytes[start..start + count]),
                None => out.resize(out.len() + count, 0),
            }
        }
        out
    }

    /// Puts `data` at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let (page, start, count) = span(offset + done as u64, data.len() - done);
            let bytes = self.0.entry(page).or_insert_with(|| vec![0; PAGE_BYTES]);
            bytes[start..start + count].copy_from_slice(&data[done..done + count]);
            done += count;
        }
    }

    /// Forgets everything from `size` on.
    pub fn truncate(&mut self, size: u64) {
        let (page, start, _) = span(size, PAGE_BYTES);
        self.0.split_off(&(page + 1));
        if start == 0 {
            self.0.remove(&page);
        } else if let Some(bytes) = self.0.get_mut(&page) {
            bytes[start..].fill(0);
        }
        self.0.retain(|_, bytes| bytes.iter().any(|&b| b != 0));
    }
}

/// Page of `offset`, position in it, and how much of `len` lies in it.
fn span(offset: u64, len: usize) -> (u64, usize, usize) {
    let page_bytes = PAGE_BYTES as u64;
    let start = (offset % page_bytes) as usize;
    (offset / page_bytes, start, len.min(PAGE_BYTES - start))
}
