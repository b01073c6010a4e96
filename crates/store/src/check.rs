//! An offline check of a store: every invariant of its format, without changing anything.
//!
//! Findings are handed out one by one, so that their number costs no memory. After a problem the check
//! goes on with whatever can still be read.
//!
//! It must not know what the values of the system table or the position mean; who wrote them checks
//! them through [`Checked::rows`] and [`Checked::position`].

use crate::check_files::{self, Files};
use crate::check_finding::{Finding, Problem};
use crate::check_metadata::{CheckedRows, guarded};
use crate::check_rows::{self, Rows};
use crate::current::{self, Current};
use crate::keys;
use crate::open::METADATA_FILE;
use crate::record::Inode;
use bytes::Bytes;
use haven_disk::Disk;
use haven_fs::{FsError, FsResult, Ino, Kind};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Another version wrote it.
    #[error(
        "the store has format {0}, this binary knows format {known}; check it with the binary that wrote it",
        known = current::FORMAT
    )]
    Format(u32),
    /// The disk refused.
    #[error("cannot read the store: {0}")]
    Disk(#[from] io::Error),
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The valid generation.
    pub generation: Option<u64>,
    /// Inodes by kind.
    pub inodes: BTreeMap<&'static str, u64>,
    /// Directory entries.
    pub entries: u64,
    /// Rows of the system table.
    pub system_rows: u64,
    /// Files whose contents are in the rows.
    pub inline_files: u64,
    /// Data files.
    pub data_files: u64,
    /// Their lengths together.
    pub data_bytes: u64,
}

/// A checked store.
pub struct Checked {
    /// What was looked at.
    pub summary: Summary,
    position: Option<Bytes>,
    rows: Option<CheckedRows>,
}

impl Checked {
    /// The position of its checkpoint, if it has one.
    pub fn position(&self) -> Option<&Bytes> {
        self.position.as_ref()
    }

    /// Its rows, if they can be read: the system table among them.
    pub fn rows(&self) -> Option<&CheckedRows> {
        self.rows.as_ref()
    }

    /// Whether an inode is a directory; `None` when it does not exist.
    pub fn is_directory(&self, ino: Ino) -> FsResult<Option<bool>> {
        let Some(rows) = &self.rows else {
            return Ok(None);
        };
        let value = guarded(|| rows.get(&keys::inode(ino)))?;
        let inode = value.map(|value| Inode::decode(ino, &value)).transpose()?;
        Ok(inode.map(|inode| inode.attr.kind == Kind::Directory))
    }
}

/// Checks the store in `dir`, as it is on disk. Nobody may have it open.
///
/// # Errors
/// [`CheckError`] when nothing can be said at all. Damage is a finding.
pub fn check(
    disk: &dyn Disk,
    dir: &Path,
    found: &mut dyn FnMut(Finding),
) -> Result<Checked, CheckError> {
    let mut checked = Checked {
        summary: Summary::default(),
        position: None,
        rows: None,
    };
    if !disk.exists(dir)? {
        found(Finding::new(
            Problem::NotMade,
            format!("{}: missing", dir.display()),
        ));
        return Ok(checked);
    }
    if let Some(other) = current::other_format(disk, dir) {
        return Err(CheckError::Format(other));
    }
    let valid = valid_generation(disk, dir, found)?;
    let Some(generation) = valid else {
        return Ok(checked);
    };
    check_files::check_directory(disk, dir, Some(generation), found)?;
    checked.summary.generation = Some(generation);
    let generation_dir = current::generation_dir(dir, generation);
    let Some((view, rows)) = check_metadata(disk, &generation_dir, found)? else {
        return Ok(checked);
    };
    let Files { count, bytes } =
        check_files::check_data(disk, &generation_dir, (&view, &rows), found)?;
    checked.summary.inodes = rows.tree.by_kind();
    checked.summary.entries = rows.entries;
    checked.summary.inline_files = rows.inline;
    checked.summary.system_rows = rows.system_rows;
    checked.summary.data_files = count;
    checked.summary.data_bytes = bytes;
    if rows.position.is_none() {
        judge_no_position(&rows, &generation_dir, found);
    }
    checked.position = rows.position;
    checked.rows = Some(view);
    Ok(checked)
}

/// Only a store that was just made has no position.
fn judge_no_position(rows: &Rows, dir: &Path, found: &mut dyn FnMut(Finding)) {
    let untouched = rows.tree.len() <= 1 && rows.system_rows == 0;
    let problem = if untouched {
        Problem::NoCheckpoint
    } else {
        Problem::PositionMissing
    };
    let place = dir.join(METADATA_FILE);
    found(Finding::new(
        problem,
        format!("{}, row zposition", place.display()),
    ));
}

fn valid_generation(
    disk: &dyn Disk,
    dir: &Path,
    found: &mut dyn FnMut(Finding),
) -> Result<Option<u64>, CheckError> {
    let mut say = |problem, what: &dyn std::fmt::Display| {
        let place = format!("{}: {what}", dir.join("CURRENT").display());
        found(Finding::new(problem, place));
    };
    match current::read(disk, dir) {
        Ok(Current::Generation(number)) => return Ok(Some(number)),
        Ok(Current::BeingMade) => say(Problem::NotMade, &"generation 0"),
        Ok(Current::Absent) => {
            let names = disk.list(dir)?;
            match names.iter().find(|n| current::generation_of(n).is_some()) {
                Some(name) => say(Problem::CurrentMissing, &format!("{name} exists")),
                None => say(Problem::NotMade, &"missing"),
            }
        }
        Err(FsError::Fatal(why)) => say(Problem::CurrentDamaged, &why),
        Err(error) => say(Problem::CurrentDamaged, &error),
    }
    Ok(None)
}

/// The rows of a generation, as far as they can be read.
fn check_metadata(
    disk: &dyn Disk,
    dir: &Path,
    found: &mut dyn FnMut(Finding),
) -> Result<Option<(CheckedRows, Rows)>, CheckError> {
    let path = dir.join(METADATA_FILE);
    if !disk.exists(&path)? {
        found(Finding::new(Problem::MetadataMissing, path.display()));
        return Ok(None);
    }
    let damaged = |why: &dyn std::fmt::Display| {
        Finding::new(
            Problem::MetadataDamaged,
            format!("{}: {why}", path.display()),
        )
    };
    let view = match CheckedRows::open(disk, &path) {
        Ok((view, whole)) => {
            if !whole {
                found(damaged(
                    &"its own check found pages that are not what was written",
                ));
            }
            view
        }
        Err(why) => {
            found(damaged(&why));
            return Ok(None);
        }
    };
    match guarded(|| check_rows::check(&view, found)) {
        Ok(rows) => Ok(Some((view, rows))),
        Err(why) => {
            found(damaged(&why));
            Ok(None)
        }
    }
}
