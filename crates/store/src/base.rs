//! The durable rows: one redb table that changes only by whole checkpoints.
//!
//! Invariants
//! - Between checkpoints all reads see one and the same committed state through a kept read handle.
//! - A commit is atomic and durable; it also stores what redb needs to open at once after a crash.
//!
//! It must not know what rows mean, except that values may be absent (removed rows).

use crate::backend::SeamBackend;
use crate::fatal;
use crate::layers::Rows;
use haven_disk::Disk;
use haven_fs::FsResult;
use redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

/// All rows.
pub const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

/// A consistent view of the durable rows, unaffected by later commits.
pub type View = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A pass over rows of a [`View`].
pub type ViewRange = redb::Range<'static, &'static [u8], &'static [u8]>;

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
        let db = redb::Builder::new()
            .set_cache_size(cache_bytes)
            .create_with_backend(SeamBackend::new(file))
            .map_err(|error| fatal(format!("cannot open the database in {shown}"), error))?;
        Ok(Self { db: Arc::new(db) })
    }

    /// Applies `rows` (an absent value removes) in one durable step.
    pub fn commit<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> FsResult<()> {
        let failed = |error: &dyn std::fmt::Display| fatal("cannot write a checkpoint", error);
        let mut txn = self.db.begin_write().map_err(|error| failed(&error))?;
        txn.set_quick_repair(true);
        {
            let mut table = txn.open_table(TABLE).map_err(|error| failed(&error))?;
            for (key, value) in rows {
                match value {
                    Some(value) => table.insert(key, value).map_err(|error| failed(&error))?,
                    None => table.remove(key).map_err(|error| failed(&error))?,
                };
            }
        }
        txn.commit().map_err(|error| failed(&error))
    }

    /// [`Base::commit`] of a whole layer.
    pub fn commit_layer(&self, rows: &Rows) -> FsResult<()> {
        self.commit(
            rows.iter()
                .map(|(key, value)| (key.as_slice(), value.as_deref())),
        )
    }

    /// A view of the last committed state.
    pub fn view(&self) -> FsResult<View> {
        let txn = self
            .db
            .begin_read()
            .map_err(|error| fatal("cannot read metadata", error))?;
        txn.open_table(TABLE)
            .map_err(|error| fatal("cannot read metadata", error))
    }
}

/// The value of `key`.
pub fn get(view: &View, key: &[u8]) -> FsResult<Option<bytes::Bytes>> {
    let found = view
        .get(key)
        .map_err(|error| fatal("cannot read metadata", error))?;
    Ok(found.map(|value| bytes::Bytes::copy_from_slice(value.value())))
}

/// The rows between two bounds, in order.
pub fn range(view: &View, from: Bound<&[u8]>, to: Bound<&[u8]>) -> FsResult<ViewRange> {
    view.range::<&[u8]>((from, to))
        .map_err(|error| fatal("cannot read metadata", error))
}
