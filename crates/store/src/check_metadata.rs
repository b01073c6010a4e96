//! The metadata database for a check: opened without changing its file, and without believing it.
//!
//! Invariants
//! - What the database repairs when it is opened after a crash stays in memory ([`Overlay`]).
//! - A panic of the database does not pass [`guarded`].
//!
//! It must not know what rows mean.

use crate::base::{self, View, ViewRange};
use crate::layers::Visitor;
use crate::{fatal, keys};
use bytes::Bytes;
use haven_disk::{Disk, DiskFile};
use haven_fs::{FsResult, SystemTable};
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, StorageBackend};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

const PAGE: usize = 4096;
/// Most pages that a repair may change: 256 MiB.
const OVERLAY_PAGES_MAX: usize = 64 << 10;
/// Memory for pages that were read.
const CACHE_BYTES: usize = 64 << 20;

/// Runs what uses the database. It asserts on bytes that it believes it has written itself, so damage
/// may make it panic; nothing that it touches outlives a failed check.
pub fn guarded<T>(work: impl FnOnce() -> FsResult<T>) -> FsResult<T> {
    base::caught(work).unwrap_or_else(|why| Err(fatal("the database gave up", why)))
}

/// The rows of a database that was found readable.
pub struct CheckedRows {
    view: View,
    _db: Database,
}

impl CheckedRows {
    /// Opens the database and lets it check itself; whether it found itself whole.
    pub fn open(disk: &dyn Disk, path: &Path) -> FsResult<(Self, bool)> {
        let shown = path.display();
        let failed = |error: &dyn fmt::Display| fatal(format!("cannot read {shown}"), error);
        let file = disk.open(path, false).map_err(|error| failed(&error))?;
        let overlay = Overlay::new(file).map_err(|error| failed(&error))?;
        if overlay.base_len == 0 {
            return Err(failed(&"it is empty"));
        }
        guarded(|| {
            let mut db = redb::Builder::new()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(overlay)
                .map_err(|error| failed(&error))?;
            let whole = db.check_integrity().map_err(|error| failed(&error))?;
            let txn = db.begin_read().map_err(|error| failed(&error))?;
            let view = View::of(&txn)?;
            Ok((Self { view, _db: db }, whole))
        })
    }

    /// The rows as all other readers see them.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> FsResult<Option<Bytes>> {
        base::get(&self.view, key)
    }

    /// Visits the rows whose keys start with `prefix`.
    pub fn each(&self, prefix: &[u8], visit: &mut Visitor<'_>) -> FsResult<()> {
        let end = keys::after_prefix(prefix);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows: ViewRange = base::range(&self.view, Bound::Included(prefix), end)?;
        while let Some(row) = rows.step()? {
            if visit(row.0.value(), row.1.value())?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The first key from `from` on.
    pub fn first_key(&self, from: &[u8]) -> FsResult<Option<Vec<u8>>> {
        let mut rows = base::range(&self.view, Bound::Included(from), Bound::Unbounded)?;
        let first = rows.step()?;
        Ok(first.map(|(key, _)| key.value().to_vec()))
    }

    /// Visits the keys of ends of values that have no beginning.
    pub fn stray_tails(&self, visit: &mut dyn FnMut(&[u8])) -> FsResult<()> {
        self.view.stray_tails(visit)
    }
}

/// The system table, to be checked by whoever wrote it.
impl SystemTable for CheckedRows {
    fn system_get(&self, key: &[u8]) -> FsResult<Option<Bytes>> {
        guarded(|| self.get(&keys::system(key)))
    }

    /// Always [`haven_fs::FsError::Fatal`]: a checked store is only read.
    fn system_put(&mut self, _key: &[u8], _value: Option<&[u8]>) -> FsResult<()> {
        Err(fatal("a checked store is not changed", "it is only read"))
    }

    fn system_scan(
        &self,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> FsResult<()> {
        guarded(|| {
            self.each(&keys::system(prefix), &mut |key, value| {
                Ok(visit(&key[1..], value))
            })
        })
    }
}

/// A file whose changes stay in memory.
struct Overlay {
    file: Arc<dyn DiskFile>,
    base_len: u64,
    state: Mutex<OverlayState>,
}

struct OverlayState {
    len: u64,
    /// How much of the file still shows through; the rest is zeros.
    shown: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Overlay {
    fn new(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let base_len = file.len()?;
        let state = OverlayState {
            len: base_len,
            shown: base_len,
            pages: BTreeMap::new(),
        };
        Ok(Self {
            file,
            base_len,
            state: Mutex::new(state),
        })
    }

    /// Fills `out` with what the file has at `offset`, zeros where it shows nothing.
    fn read_base(&self, shown: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = shown.saturating_sub(offset).min(out.len() as u64) as usize;
        let (from_file, past) = out.split_at_mut(there);
        past.fill(0);
        let read = if there > 0 {
            self.file.read_at(offset, from_file)?
        } else {
            0
        };
        if read < there {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(())
    }
}

/// The pages that a range touches: page number, start within the page, bytes in it.
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = offset;
    let end = offset.saturating_add(len as u64);
    std::iter::from_fn(move || {
        let (page, start) = (at / PAGE as u64, (at % PAGE as u64) as usize);
        let take = (PAGE - start).min(end.saturating_sub(at) as usize);
        at += take as u64;
        (take > 0).then_some((page, start, take))
    })
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Overlay")
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        if offset.saturating_add(out.len() as u64) > state.len {
            let why = format!("the file ends before byte {offset} and {} more", out.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        self.read_base(state.shown, offset, out)?;
        let first = offset / PAGE as u64;
        if state.pages.range(first..).next().is_none() {
            return Ok(());
        }
        let mut done = 0;
        for (page, start, take) in pages(offset, out.len()) {
            if let Some(changed) = state.pages.get(&page) {
                out[done..done + take].copy_from_slice(&changed[start..start + take]);
            }
            done += take;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.len = len;
        state.shown = state.shown.min(len);
        let (last, kept) = (len / PAGE as u64, (len % PAGE as u64) as usize);
        state.pages.split_off(&(last + 1));
        if let Some(page) = state.pages.get_mut(&last) {
            page[kept..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.len = state.len.max(offset.saturating_add(data.len() as u64));
        let mut rest = data;
        for (number, start, take) in pages(offset, data.len()) {
            if !state.pages.contains_key(&number) {
                if state.pages.len() >= OVERLAY_PAGES_MAX {
                    return Err(io::Error::other(
                        "the database wants to repair more than a check keeps in memory",
                    ));
                }
                let mut page = Box::new([0; PAGE]);
                self.read_base(state.shown, number * PAGE as u64, page.as_mut())?;
                state.pages.insert(number, page);
            }
            let (now, later) = rest.split_at(take);
            if let Some(page) = state.pages.get_mut(&number) {
                page[start..start + take].copy_from_slice(now);
            }
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on fails

    use super::*;
    use haven_disk::RealDisk;

    /// Every change reads back, and the file stays as it is.
    #[test]
    fn changes_stay_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path()).unwrap();
        let file = Disk::open(&disk, Path::new("f"), true).unwrap();
        let original: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
        file.write_at(0, &original).unwrap();
        let overlay = Overlay::new(file).unwrap();
        let mut model = original.clone();
        let changes: &[(u64, usize)] = &[(10, 5), (4000, 200), (9_990, 50), (0, 9000), (12_000, 3)];
        for &(offset, len) in changes {
            let data = vec![0xee; len];
            overlay.write(offset, &data).unwrap();
            let end = offset as usize + len;
            model.resize(model.len().max(end), 0);
            model[offset as usize..end].fill(0xee);
            same(&overlay, &model);
        }
        for len in [11_000, 5_000, 20_000, 4096, 4096 * 3] {
            overlay.set_len(len).unwrap();
            model.resize(len as usize, 0);
            same(&overlay, &model);
        }
        assert!(overlay.read(4096 * 3 - 1, &mut [0; 2]).is_err());
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), original);
    }

    fn same(overlay: &Overlay, model: &[u8]) {
        assert_eq!(overlay.len().unwrap(), model.len() as u64);
        let mut all = vec![1; model.len()];
        overlay.read(0, &mut all).unwrap();
        assert!(all == model);
        let mut part = vec![1; model.len() / 2];
        overlay.read(7, &mut part).unwrap();
        assert!(part == model[7..7 + part.len()]);
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let text = guarded::<()>(|| panic!("page {} is odd", 7)).unwrap_err();
        assert!(text.to_string().contains("page 7 is odd"), "{text}");
    }
}
