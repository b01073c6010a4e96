//! Pages that were written and are not in the file yet.
//!
//! redb writes a page more than once for each commit: early, when its own buffer is full, and again when it has
//! computed the checksums, for which it reads each of them back; and it writes page by page, in no order. So pages
//! are kept here until redb flushes, and go to the file then, each once, neighbours together. (A checkpoint of 50,000
//! entries, which changes 36,000 pages, made 71,000 writes of one page each and 36,000 reads.)
//!
//! Invariants
//! - A read sees what was written last, wherever it is.
//! - A page leaves only when it is in the file; a newer version that came meanwhile stays.
//! - The memory is bounded by whoever writes: see [`Unwritten::bytes`].
//!
//! It must not know files, nor what pages hold.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a page of redb has; kept or not kept as a whole.
pub const PAGE_BYTES: usize = 4096;
/// Pages that are kept side by side: one for each bit of [`Chunk::present`].
const CHUNK_PAGES: usize = u64::BITS as usize;
const CHUNK_BYTES: usize = CHUNK_PAGES * PAGE_BYTES;

/// See the module's head comment.
#[derive(Default)]
pub struct Unwritten {
    /// By the number of chunks that lie before it in the file.
    chunks: Mutex<BTreeMap<u64, Arc<Chunk>>>,
    bytes: AtomicUsize,
}

#[derive(Clone)]
struct Chunk {
    present: u64,
    pages: Vec<u8>,
}

impl Chunk {
    fn has(&self, page: usize) -> bool {
        self.present & (1 << page) != 0
    }
}

/// Where bytes of the file are: the chunk, the page in it, and how many of the bytes are in that page.
struct Place {
    chunk: u64,
    page: usize,
    in_page: usize,
    len: usize,
}

/// The pages that `len` bytes at `offset` touch.
fn places(offset: u64, len: usize) -> impl Iterator<Item = Place> {
    let mut at = offset;
    let end = offset + len as u64;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|left| *left > 0)?;
        let in_chunk = (at % CHUNK_BYTES as u64) as usize;
        let in_page = in_chunk % PAGE_BYTES;
        let len = left.min((PAGE_BYTES - in_page) as u64) as usize;
        let place = Place {
            chunk: at / CHUNK_BYTES as u64,
            page: in_chunk / PAGE_BYTES,
            in_page,
            len,
        };
        at += len as u64;
        Some(place)
    })
}

impl Unwritten {
    /// Memory taken.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Keeps whole pages; false, and nothing is kept, if it is something else.
    pub fn put(&self, offset: u64, data: &[u8]) -> bool {
        if !offset.is_multiple_of(PAGE_BYTES as u64) || !data.len().is_multiple_of(PAGE_BYTES) {
            return false;
        }
        let mut chunks = self.chunks.lock();
        for (place, page) in places(offset, data.len()).zip(data.chunks_exact(PAGE_BYTES)) {
            let chunk = chunks.entry(place.chunk).or_insert_with(|| {
                self.bytes.fetch_add(CHUNK_BYTES, Ordering::Relaxed);
                Arc::new(Chunk {
                    present: 0,
                    pages: vec![0; CHUNK_BYTES],
                })
            });
            // One that is just being written is left as it is.
            let chunk = Arc::make_mut(chunk);
            let at = place.page * PAGE_BYTES;
            chunk.pages[at..at + PAGE_BYTES].copy_from_slice(page);
            chunk.present |= 1 << place.page;
        }
        true
    }

    /// Reads what is kept, and by `read_file` what is not.
    pub fn read(
        &self,
        offset: u64,
        out: &mut [u8],
        mut read_file: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.bytes() == 0 {
            return read_file(offset, out);
        }
        // What is not kept now is in the file, so the file is read afterwards.
        for (from, to) in self.copy(offset, out) {
            read_file(offset + from as u64, &mut out[from..to])?;
        }
        Ok(())
    }

    /// Copies what is kept; the parts of `out` that are not.
    fn copy(&self, offset: u64, out: &mut [u8]) -> Vec<(usize, usize)> {
        let chunks = self.chunks.lock();
        let mut gaps: Vec<(usize, usize)> = Vec::new();
        let mut at = 0;
        for place in places(offset, out.len()) {
            let end = at + place.len;
            match chunks.get(&place.chunk).filter(|c| c.has(place.page)) {
                Some(chunk) => {
                    let from = place.page * PAGE_BYTES + place.in_page;
                    out[at..end].copy_from_slice(&chunk.pages[from..from + place.len]);
                }
                None => match gaps.last_mut() {
                    Some((_, to)) if *to == at => *to = end,
                    _ => gaps.push((at, end)),
                },
            }
            at = end;
        }
        gaps
    }

    /// Hands all pages to `write`, from the front of the file to its end, neighbours together, and forgets those
    /// that it wrote. After an error the rest is still kept.
    pub fn drain(&self, mut write: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut from = 0;
        loop {
            let next = {
                let chunks = self.chunks.lock();
                let next = chunks.range(from..).next();
                next.map(|(number, chunk)| (*number, Arc::clone(chunk)))
            };
            let Some((number, chunk)) = next else {
                return Ok(());
            };
            let base = number * CHUNK_BYTES as u64;
            for (start, end) in runs(chunk.present) {
                let (start, end) = (start * PAGE_BYTES, end * PAGE_BYTES);
                write(base + start as u64, &chunk.pages[start..end])?;
            }
            self.forget(number, &chunk);
            from = number + 1;
        }
    }

    fn forget(&self, number: u64, written: &Arc<Chunk>) {
        let mut chunks = self.chunks.lock();
        if chunks
            .get(&number)
            .is_some_and(|chunk| Arc::ptr_eq(chunk, written))
        {
            chunks.remove(&number);
            self.bytes.fetch_sub(CHUNK_BYTES, Ordering::Relaxed);
        }
    }

    /// Forgets what lies behind the end of a file that was cut to `len`.
    pub fn cut(&self, len: u64) {
        let mut chunks = self.chunks.lock();
        let last = len / CHUNK_BYTES as u64;
        let gone = chunks.split_off(&(last + 1));
        let gone = gone.len() * CHUNK_BYTES;
        self.bytes.fetch_sub(gone, Ordering::Relaxed);
        if let Some(chunk) = chunks.get_mut(&last) {
            let left = (len % CHUNK_BYTES as u64) as usize;
            let chunk = Arc::make_mut(chunk);
            chunk.pages[left..].fill(0);
            let pages = left.div_ceil(PAGE_BYTES) as u32;
            chunk.present &= 1_u64.checked_shl(pages).map_or(u64::MAX, |bit| bit - 1);
        }
    }
}

/// The runs of set bits: first, and behind the last.
fn runs(present: u64) -> impl Iterator<Item = (usize, usize)> {
    let mut left = u128::from(present);
    let mut at = 0;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let zeros = left.trailing_zeros();
        let ones = (left >> zeros).trailing_ones();
        let start = at + zeros as usize;
        at = start + ones as usize;
        left >>= zeros + ones;
        Some((start, at))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    const PAGE: u64 = PAGE_BYTES as u64;

    fn page(fill: u8) -> Vec<u8> {
        vec![fill; PAGE_BYTES]
    }

    /// What `len` bytes at `offset` read as, with a file that is full of 255.
    fn read(unwritten: &Unwritten, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let file = |_: u64, out: &mut [u8]| {
            out.fill(255);
            Ok(())
        };
        unwritten.read(offset, &mut out, file).unwrap();
        out
    }

    fn drained(unwritten: &Unwritten) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        let write = |at, data: &[u8]| {
            all.push((at, data.to_vec()));
            Ok(())
        };
        unwritten.drain(write).unwrap();
        all
    }

    #[test]
    fn neighbours_leave_together_each_page_once_and_in_order() {
        let unwritten = Unwritten::default();
        let chunk = CHUNK_BYTES as u64;
        assert!(unwritten.put(chunk + PAGE, &page(4)));
        assert!(unwritten.put(2 * PAGE, &page(1)));
        assert!(unwritten.put(3 * PAGE, &page(9)));
        assert!(unwritten.put(3 * PAGE, &page(2)));
        // Over the border of two chunks.
        assert!(unwritten.put(chunk - PAGE, &[page(5), page(6)].concat()));
        assert_eq!(unwritten.bytes(), 2 * CHUNK_BYTES);
        let expected = [
            (2 * PAGE, [page(1), page(2)].concat()),
            (chunk - PAGE, page(5)),
            (chunk, [page(6), page(4)].concat()),
        ];
        assert_eq!(drained(&unwritten), expected);
        assert_eq!(unwritten.bytes(), 0);
        assert!(drained(&unwritten).is_empty());
    }

    #[test]
    fn a_read_takes_from_the_file_what_is_not_kept() {
        let unwritten = Unwritten::default();
        assert_eq!(read(&unwritten, 0, 3), [255; 3]);
        unwritten.put(PAGE, &page(1));
        unwritten.put(3 * PAGE, &page(3));
        let expected = [page(255), page(1), page(255), page(3), page(255)].concat();
        assert_eq!(read(&unwritten, 0, 5 * PAGE_BYTES), expected);
        assert_eq!(
            read(&unwritten, 2 * PAGE - 2, 4),
            [1, 1, 255, 255],
            "parts of pages"
        );
    }

    #[test]
    fn what_is_not_whole_pages_is_not_kept() {
        let unwritten = Unwritten::default();
        assert!(!unwritten.put(1, &page(1)));
        assert!(!unwritten.put(0, &[1; 320]));
        assert_eq!(unwritten.bytes(), 0);
    }

    #[test]
    fn what_is_written_while_it_leaves_stays() {
        let unwritten = Unwritten::default();
        unwritten.put(0, &page(1));
        let mut written = Vec::new();
        let write = |_, data: &[u8]| {
            written.push(data[0]);
            if written.len() == 1 {
                unwritten.put(0, &page(2));
            }
            Ok(())
        };
        unwritten.drain(write).unwrap();
        assert_eq!(read(&unwritten, 0, 1), [2]);
        assert_eq!(drained(&unwritten), [(0, page(2))]);
        assert_eq!(written, [1]);
    }

    #[test]
    fn after_an_error_the_rest_is_still_there() {
        let unwritten = Unwritten::default();
        let chunk = CHUNK_BYTES as u64;
        for number in 0..3 {
            unwritten.put(number * chunk, &page(number as u8));
        }
        let write = |at, _: &[u8]| match at {
            0 => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        };
        assert!(unwritten.drain(write).is_err());
        assert_eq!(
            drained(&unwritten),
            [(chunk, page(1)), (2 * chunk, page(2))]
        );
    }

    #[test]
    fn what_lies_behind_a_cut_is_gone() {
        let unwritten = Unwritten::default();
        let chunk = CHUNK_BYTES as u64;
        for at in [0, chunk, chunk + PAGE, 2 * chunk] {
            unwritten.put(at, &page(7));
        }
        unwritten.cut(chunk + 5);
        let mut half = page(0);
        half[..5].fill(7);
        assert_eq!(drained(&unwritten), [(0, page(7)), (chunk, half)]);
        assert_eq!(unwritten.bytes(), 0);
    }

    #[test]
    fn a_cut_within_the_last_page_of_a_chunk_leaves_the_pages_before() {
        let unwritten = Unwritten::default();
        let chunk = CHUNK_BYTES as u64;
        unwritten.put(0, &page(1));
        unwritten.put(chunk - PAGE, &page(2));
        unwritten.cut(chunk - 1);
        let mut short = page(2);
        short[PAGE_BYTES - 1] = 0;
        assert_eq!(drained(&unwritten), [(0, page(1)), (chunk - PAGE, short)]);
    }

    #[test]
    fn runs_of_bits() {
        let all = |bits: u64| runs(bits).collect::<Vec<_>>();
        assert!(all(0).is_empty());
        assert_eq!(all(u64::MAX), [(0, 64)]);
        assert_eq!(all(0b1011), [(0, 2), (3, 4)]);
        assert_eq!(all(1 << 63 | 1), [(0, 1), (63, 64)]);
    }
}
