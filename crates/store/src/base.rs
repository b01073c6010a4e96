//! The durable rows: one redb table that changes only by whole checkpoints.
//!
//! Invariants
//! - Between checkpoints all reads see one and the same committed state through a kept read handle.
//! - No panic of redb leaves this module.
//! - A commit is atomic and durable; it also stores what redb needs to open at once after a crash.
//!
//! It must not know what rows mean, except that values may be absent (removed rows).

use crate::backend::SeamBackend;
use crate::changes::Edit;
use crate::layers::Rows;
use crate::{fatal, keys};
use bytes::Bytes;
use haven_disk::Disk;
use haven_fs::{FsError, FsResult, Ino};
use redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition};
use std::fmt::Display;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// All rows.
pub const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

/// A consistent view of the durable rows, unaffected by later commits.
pub type View = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A pass over rows of a [`View`].
pub type ViewRange = redb::Range<'static, &'static [u8], &'static [u8]>;

/// A row of a [`View`], borrowed from its page.
pub type Guard = redb::AccessGuard<'static, &'static [u8]>;

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
        txn.set_quick_repair(true);
        {
            let mut table = txn.open_table(TABLE).map_err(|error| failed(&error))?;
            fill(&mut |key, value| {
                match value {
                    Some(value) => table.insert(key, value).map_err(|error| failed(&error))?,
                    None => table.remove(key).map_err(|error| failed(&error))?,
                };
                Ok(())
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
            txn.open_table(TABLE).map_err(unreadable)
        })
    }
}

/// The value of `key`.
pub fn get(view: &View, key: &[u8]) -> FsResult<Option<Bytes>> {
    read(view, key, |value| Ok(Bytes::copy_from_slice(value)))
}

/// What `read` makes of the value of `key`.
pub fn read<T>(
    view: &View,
    key: &[u8],
    read: impl FnOnce(&[u8]) -> FsResult<T>,
) -> FsResult<Option<T>> {
    contained(READING, || {
        let found = view.get(key).map_err(unreadable)?;
        found.map(|value| read(value.value())).transpose()
    })
}

/// The rows between two bounds, in order.
pub fn range(view: &View, from: Bound<&[u8]>, to: Bound<&[u8]>) -> FsResult<ViewRange> {
    contained(READING, || {
        view.range::<&[u8]>((from, to)).map_err(unreadable)
    })
}

/// The next row of a pass.
pub fn next(range: &mut ViewRange) -> FsResult<Option<(Guard, Guard)>> {
    contained(READING, || range.next().transpose().map_err(unreadable))
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
