//! The durable rows: one redb database that changes only by whole checkpoints.
//!
//! A value that would just miss a page of redb, as that of a full small file does, would take two. So the end of such
//! a value is kept in a table of its own, where dozens share a page: half the bytes for each checkpoint to copy, hash
//! and write. Nobody outside this module sees it.
//!
//! Invariants
//! - A value has a tail, maybe an empty one, exactly if what the table of rows holds of it is [`HEAD_BYTES`] long.
//! - Between checkpoints all reads see one and the same committed state through a kept read handle.
//! - No panic of redb leaves this module.
//! - A commit is atomic and durable; it also stores what redb needs to open at once after a crash.
//!
//! It must not know what rows mean, except that values may be absent (removed rows).

use crate::backend::SeamBackend;
use crate::changes::Edit;
use crate::layers::Rows;
use crate::unwritten::PAGE_BYTES;
use crate::{fatal, keys};
use bytes::Bytes;
use haven_disk::Disk;
use haven_fs::{FsError, FsResult, Ino};
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTableMetadata,
    TableDefinition,
};
use std::fmt::Display;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// All rows, of some the beginning.
const ROWS: Table = TableDefinition::new("rows");
/// The ends of those.
const TAILS: Table = TableDefinition::new("tails");

/// What of a value stays with its row: with a key of up to 52 bytes it fits a page.
const HEAD_BYTES: usize = 4032;

/// A consistent view of the durable rows, unaffected by later commits.
pub struct View {
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    tails: Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

/// A pass over rows of a [`View`].
pub struct ViewRange {
    rows: redb::Range<'static, &'static [u8], &'static [u8]>,
    tails: Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

/// Part of a row of a [`View`], borrowed from its page.
pub type Guard = redb::AccessGuard<'static, &'static [u8]>;

/// A value of a [`View`].
pub enum Value {
    /// Borrowed from its page.
    Whole(Guard),
    /// Put together.
    Joined(Vec<u8>),
}

impl Value {
    /// Its bytes.
    pub fn value(&self) -> &[u8] {
        match self {
            Self::Whole(guard) => guard.value(),
            Self::Joined(bytes) => bytes,
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(guard) => Bytes::copy_from_slice(guard.value()),
            Self::Joined(bytes) => bytes.into(),
        }
    }
}

fn split(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    match value.split_at_checked(HEAD_BYTES) {
        Some((head, tail)) if value.len() <= PAGE_BYTES => (head, Some(tail)),
        _ => (value, None),
    }
}

fn join(
    tails: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    key: &[u8],
    head: Guard,
) -> FsResult<Value> {
    if head.value().len() != HEAD_BYTES {
        return Ok(Value::Whole(head));
    }
    let tail = tails.get(key).map_err(unreadable)?;
    let tail = tail.ok_or_else(|| unreadable("the end of a row is missing"))?;
    Ok(Value::Joined([head.value(), tail.value()].concat()))
}

/// Sets a row, or (`None`) removes it.
pub type Put<'a> = &'a mut dyn FnMut(&[u8], Option<&[u8]>) -> FsResult<()>;

const READING: &str = "cannot read metadata";

/// An open database.
#[derive(Clone)]
pub struct Base {
    db: Arc<Database>,
}

impl Base {
    /// Opens the database file at `path`, making it when it is missing or empty.
    ///
    /// An earlier commit may have failed with its last flush: then the header tells of it, but is not durable. redb writes
    /// the header anew and flushes it when it opens the file, before anybody has seen a row (it notes that the file is in
    /// use; a test below holds it to that). All that the header refers to was flushed before it was first written.
    pub fn open(disk: &dyn Disk, path: &Path, cache_bytes: usize) -> FsResult<Self> {
        let shown = path.display();
        let file = disk
            .open(path, true)
            .map_err(|error| fatal(format!("cannot open metadata file {shown}"), error))?;
        let what = format!("cannot open the database in {shown}");
        let db = contained(&what, || {
            redb::Builder::new()
                .set_cache_size(cache_bytes)
                .create_with_backend(SeamBackend::new(file))
                .map_err(|error| fatal(&what, error))
        })?;
        Ok(Self { db: Arc::new(db) })
    }

    /// Applies `rows` (an absent value removes) in one durable step.
    pub fn commit<'a>(
        &self,
        mut rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> FsResult<()> {
        self.commit_all(&mut |put| rows.try_for_each(|(key, value)| put(key, value)))
    }

    /// [`Base::commit`] of all rows that `fill` puts; of none if it fails.
    pub fn commit_all(&self, fill: &mut dyn FnMut(Put<'_>) -> FsResult<()>) -> FsResult<()> {
        contained("cannot write a checkpoint", || self.write(fill))
    }

    fn write(&self, fill: &mut dyn FnMut(Put<'_>) -> FsResult<()>) -> FsResult<()> {
        let failed = |error: &dyn Display| fatal("cannot write a checkpoint", error);
        let mut txn = self.db.begin_write().map_err(|error| failed(&error))?;
        // It also flushes all pages before the header that refers to them.
        txn.set_quick_repair(true);
        {
            let mut rows = txn.open_table(ROWS).map_err(|error| failed(&error))?;
            let mut tails = txn.open_table(TAILS).map_err(|error| failed(&error))?;
            fill(&mut |key, value| {
                let (head, tail) = match value.map(split) {
                    Some((head, tail)) => (Some(head), tail),
                    None => (None, None),
                };
                let before = match head {
                    Some(head) => rows.insert(key, head),
                    None => rows.remove(key),
                };
                let before = before.map_err(|error| failed(&error))?;
                let had_tail = before.is_some_and(|value| value.value().len() == HEAD_BYTES);
                let done = match tail {
                    Some(tail) => tails.insert(key, tail).map(drop),
                    None if had_tail => tails.remove(key).map(drop),
                    None => Ok(()),
                };
                done.map_err(|error| failed(&error))
            })?;
        }
        txn.commit().map_err(|error| failed(&error))
    }

    /// [`Base::commit`] of a whole layer, removal of the graves of inodes that are buried, and `more`.
    pub fn commit_layer(&self, rows: &Rows, buried: &[Ino], more: &[Edit]) -> FsResult<()> {
        let graves: Vec<_> = buried.iter().map(|&ino| keys::grave(ino)).collect();
        let graves = graves.iter().map(|key| (key.as_slice(), None));
        let rows = rows.iter().map(|(key, value)| (&key[..], value.as_deref()));
        let more = more.iter().map(|(key, value)| (&key[..], value.as_deref()));
        self.commit(rows.chain(graves).chain(more))
    }

    /// A view of the last committed state.
    pub fn view(&self) -> FsResult<View> {
        contained(READING, || {
            let txn = self.db.begin_read().map_err(unreadable)?;
            View::of(&txn)
        })
    }
}

impl View {
    /// The rows as `txn` sees them.
    pub fn of(txn: &ReadTransaction) -> FsResult<Self> {
        Ok(Self {
            rows: txn.open_table(ROWS).map_err(unreadable)?,
            tails: Arc::new(txn.open_table(TAILS).map_err(unreadable)?),
        })
    }

    /// How many rows there are.
    pub fn count(&self) -> FsResult<u64> {
        contained(READING, || self.rows.len().map_err(unreadable))
    }

    fn value(&self, key: &[u8]) -> FsResult<Option<Value>> {
        let head = self.rows.get(key).map_err(unreadable)?;
        head.map(|head| join(&self.tails, key, head)).transpose()
    }

    /// Visits the keys of tails that belong to no row, or to one that has none. Only damage makes such.
    pub fn stray_tails(&self, visit: &mut dyn FnMut(&[u8])) -> FsResult<()> {
        contained(READING, || {
            for tail in self.tails.range::<&[u8]>(..).map_err(unreadable)? {
                let (key, _) = tail.map_err(unreadable)?;
                let head = self.rows.get(key.value()).map_err(unreadable)?;
                if head.is_none_or(|head| head.value().len() != HEAD_BYTES) {
                    visit(key.value());
                }
            }
            Ok(())
        })
    }
}

/// The value of `key`.
pub fn get(view: &View, key: &[u8]) -> FsResult<Option<Bytes>> {
    contained(READING, || Ok(view.value(key)?.map(Value::into_bytes)))
}

/// What `read` makes of the value of `key`.
pub fn read<T>(
    view: &View,
    key: &[u8],
    read: impl FnOnce(&[u8]) -> FsResult<T>,
) -> FsResult<Option<T>> {
    contained(READING, || {
        let found = view.value(key)?;
        found.map(|value| read(value.value())).transpose()
    })
}

/// The rows between two bounds, in order.
pub fn range(view: &View, from: Bound<&[u8]>, to: Bound<&[u8]>) -> FsResult<ViewRange> {
    contained(READING, || {
        let rows = view.rows.range::<&[u8]>((from, to)).map_err(unreadable)?;
        let tails = Arc::clone(&view.tails);
        Ok(ViewRange { rows, tails })
    })
}

/// The next row of a pass.
pub fn next(range: &mut ViewRange) -> FsResult<Option<(Guard, Value)>> {
    contained(READING, || range.step())
}

impl ViewRange {
    /// [`next`] for who contains redb's panics himself.
    pub fn step(&mut self) -> FsResult<Option<(Guard, Value)>> {
        let row = self.rows.next().transpose().map_err(unreadable)?;
        row.map(|(key, head)| {
            let value = join(&self.tails, key.value(), head)?;
            Ok((key, value))
        })
        .transpose()
    }
}

fn unreadable(error: impl Display) -> FsError {
    fatal(READING, error)
}

/// Runs redb. It checks much of what it reads by assertions, so a damaged file makes it panic. That must
/// stop this replica with words as any other damage does, not whichever thread came across it. After an
/// error from here nothing of redb's state is relied upon: the error is fatal.
fn contained<T>(what: &str, act: impl FnOnce() -> FsResult<T>) -> FsResult<T> {
    caught(act).unwrap_or_else(|text| {
        Err(fatal(
            what,
            format!(
                "the metadata file is damaged ({text}); empty the store's directory to fetch \
                 everything from the other nodes"
            ),
        ))
    })
}

/// Runs redb; what its panic said, if it panicked.
pub fn caught<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("no reason given").to_owned()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use haven_disk::{RealDisk, VolatileDisk};

    const LENGTHS: [usize; 9] = [
        0,
        1,
        HEAD_BYTES - 1,
        HEAD_BYTES,
        HEAD_BYTES + 1,
        PAGE_BYTES - 1,
        PAGE_BYTES,
        PAGE_BYTES + 1,
        3 * PAGE_BYTES,
    ];

    fn value(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + seed) as u8).collect()
    }

    fn open(dir: &Path) -> Base {
        let disk = RealDisk::open(dir).unwrap();
        Base::open(&disk, Path::new("meta.redb"), 1 << 20).unwrap()
    }

    fn all(view: &View) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = range(view, Bound::Unbounded, Bound::Unbounded).unwrap();
        let mut all = Vec::new();
        while let Some((key, value)) = next(&mut rows).unwrap() {
            all.push((key.value().to_vec(), value.value().to_vec()));
        }
        all
    }

    fn strays(view: &View) -> Vec<Vec<u8>> {
        let mut strays = Vec::new();
        let mut visit = |key: &[u8]| strays.push(key.to_vec());
        view.stray_tails(&mut visit).unwrap();
        strays
    }

    fn in_tables(base: &Base) -> (u64, u64) {
        use redb::ReadableTableMetadata;
        let txn = base.db.begin_read().unwrap();
        let count = |table| txn.open_table(table).unwrap().len().unwrap();
        (count(ROWS), count(TAILS))
    }

    #[test]
    fn values_of_every_length_replace_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let base = open(dir.path());
        for (seed, &before) in LENGTHS.iter().enumerate() {
            for &after in &LENGTHS {
                for len in [before, after] {
                    let value = value(len, seed);
                    base.commit([(&b"key"[..], Some(&value[..]))].into_iter())
                        .unwrap();
                    let view = base.view().unwrap();
                    let got = get(&view, b"key").unwrap().unwrap();
                    assert_eq!(got, value, "{before} {after}");
                    let read = read(&view, b"key", |value| Ok(value.to_vec())).unwrap();
                    assert_eq!(read.as_ref(), Some(&value));
                    assert_eq!(all(&view), [(b"key".to_vec(), value)]);
                    let split = (HEAD_BYTES..=PAGE_BYTES).contains(&len);
                    assert_eq!(in_tables(&base), (1, u64::from(split)));
                    assert!(strays(&view).is_empty());
                }
            }
            base.commit([(&b"key"[..], None)].into_iter()).unwrap();
            assert_eq!(in_tables(&base), (0, 0));
        }
    }

    /// Rows with which the file grows, more than once in a commit.
    fn grow(base: &Base, round: u8) -> FsResult<()> {
        let keys: Vec<_> = (0..300u64)
            .map(|n| [&[round][..], &n.to_be_bytes()].concat())
            .collect();
        let value = vec![round; 3000];
        base.commit(keys.iter().map(|key| (&key[..], Some(&value[..]))))
    }

    fn rows(base: &Base) -> Vec<Vec<u8>> {
        let rows = all(&base.view().unwrap());
        rows.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_is_found_after_a_commit_whose_flush_failed_is_durable() {
        let path = Path::new("meta.redb");
        for (flush, seed) in (0..).flat_map(|flush| (0..8).map(move |seed| (flush, seed))) {
            let dir = tempfile::tempdir().unwrap();
            let disk = VolatileDisk::open(dir.path()).unwrap();
            let base = Base::open(&disk, path, 1 << 20).unwrap();
            grow(&base, 1).unwrap();
            disk.sync_dir(Path::new("")).unwrap();
            disk.fail_flush(flush, seed);
            let failed = grow(&base, 2).is_err();
            drop(base);
            if !failed {
                break;
            }
            let base = Base::open(&disk, path, 1 << 20).unwrap();
            let found = rows(&base);
            assert!([300, 600].contains(&found.len()));
            if seed % 2 == 0 {
                grow(&base, 3).unwrap();
            }
            let last = rows(&base);
            disk.forget();
            drop(base);
            let disk = VolatileDisk::open(dir.path()).unwrap();
            let base = Base::open(&disk, path, 1 << 20).unwrap();
            assert_eq!(rows(&base), last, "flush {flush}, seed {seed}");
            grow(&base, 4).unwrap();
        }
    }

    #[test]
    fn a_full_small_file_takes_one_page() {
        let dir = tempfile::tempdir().unwrap();
        let base = open(dir.path());
        let value = value(PAGE_BYTES, 0);
        let keys: Vec<_> = (1..=2000u64).map(|n| keys::contents(Ino(n))).collect();
        base.commit(keys.iter().map(|key| (&key[..], Some(&value[..]))))
            .unwrap();
        use redb::ReadableTableMetadata;
        let txn = base.db.begin_read().unwrap();
        let pages = |table| {
            let stats = txn.open_table(table).unwrap().stats().unwrap();
            (stats.leaf_pages(), stats.fragmented_bytes())
        };
        let ((rows, loss), (tails, _)) = (pages(ROWS), pages(TAILS));
        assert!(rows == 2000 && tails <= 100, "{rows} {tails}");
        assert!(loss < 2000 * 100, "{loss} bytes of pages of rows lie idle");
    }

    #[test]
    fn a_lost_end_is_damage_and_a_stray_one_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let base = open(dir.path());
        let whole = value(PAGE_BYTES, 0);
        base.commit([(&b"key"[..], Some(&whole[..]))].into_iter())
            .unwrap();
        let txn = base.db.begin_write().unwrap();
        {
            let mut tails = txn.open_table(TAILS).unwrap();
            tails.remove(&b"key"[..]).unwrap();
            tails.insert(&b"other"[..], &b"end"[..]).unwrap();
        }
        txn.commit().unwrap();
        let view = base.view().unwrap();
        let why = get(&view, b"key").unwrap_err().to_string();
        assert!(why.contains("the end of a row is missing"), "{why}");
        assert_eq!(strays(&view), [b"other".to_vec()]);
    }
}
