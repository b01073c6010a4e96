//! The files of a store beside its rows: what lies in its directory, and one data file after the other.
//!
//! Contents are not judged: they carry no checksum of their own, and after a crash they may be newer
//! than the rows. Only where they are is held against the map of blocks that were written.
//!
//! It must not know how rows are read.

use crate::check_blocks;
use crate::check_finding::{Finding, Problem};
use crate::check_metadata::CheckedRows;
use crate::check_rows::Rows;
use crate::check_tree::NodeKind;
use crate::open::{DATA_DIR, METADATA_FILE, PROBE_FILE};
use crate::record::Place;
use crate::{current, data};
use haven_disk::Disk;
use haven_fs::Ino;
use std::io;
use std::path::Path;

const CURRENT: &str = "CURRENT";

/// What the data files told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Files {
    /// Files.
    pub count: u64,
    /// Their lengths together (they may have holes).
    pub bytes: u64,
}

/// What lies in the store's directory beside the valid generation.
pub fn check_directory(
    disk: &dyn Disk,
    dir: &Path,
    valid: Option<u64>,
    found: &mut dyn FnMut(Finding),
) -> io::Result<()> {
    for name in disk.list(dir)? {
        let problem = match current::generation_of(&name) {
            Some(number) if Some(number) == valid => continue,
            Some(_) => Problem::LeftoverGeneration,
            None if name == CURRENT => continue,
            None if current::is_leftover(&name) || name == PROBE_FILE => Problem::LeftoverFile,
            None => Problem::StrangeFile,
        };
        found(Finding::new(problem, dir.join(name).display()));
    }
    Ok(())
}

/// Every data file of the generation in `dir`.
pub fn check_data(
    disk: &dyn Disk,
    dir: &Path,
    (view, rows): (&CheckedRows, &Rows),
    found: &mut dyn FnMut(Finding),
) -> io::Result<Files> {
    let mut files = Files::default();
    for name in disk.list(dir)? {
        if name != METADATA_FILE && name != DATA_DIR {
            found(Finding::new(Problem::StrangeFile, dir.join(name).display()));
        }
    }
    let data_dir = dir.join(DATA_DIR);
    for low in list(disk, &data_dir)? {
        let below = data_dir.join(&low);
        if low == PROBE_FILE {
            found(Finding::new(Problem::LeftoverFile, below.display()));
            continue;
        }
        let names = match disk.list(&below) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                found(Finding::new(Problem::DataName, below.display()));
                continue;
            }
            names => names?,
        };
        for name in names {
            let path = below.join(&name);
            let ino = u64::from_str_radix(&name, 16).ok().map(Ino);
            match ino.filter(|ino| data::file_path(&data_dir, *ino) == path) {
                None if name == PROBE_FILE => {
                    found(Finding::new(Problem::LeftoverFile, path.display()));
                }
                None => found(Finding::new(Problem::DataName, path.display())),
                Some(ino) => {
                    let file = disk.open(&path, false)?;
                    let len = file.len()?;
                    files.count += 1;
                    files.bytes += len;
                    if let Some(problem) = judge(rows, ino, len) {
                        found(Finding::new(problem, path.display()));
                    }
                    if let Some(at) = check_blocks::uncounted(view, rows, ino, file)? {
                        let place = format!("{}: at {at}", path.display());
                        found(Finding::new(Problem::DataUncounted, place));
                    }
                }
            }
        }
    }
    Ok(files)
}

/// What is to be said of a data file of this length.
fn judge(rows: &Rows, ino: Ino, len: u64) -> Option<Problem> {
    match rows.tree.get(ino) {
        Some(node) if node.kind != NodeKind::Regular => Some(Problem::DataOfOther),
        Some(node) if node.place == Place::Row => Some(Problem::DataUnneeded),
        Some(node) => (len > node.size).then_some(Problem::DataLonger),
        None if rows.graves.contains(&ino.0) => Some(Problem::DataBuried),
        None if rows.next_ino.is_none_or(|next| ino.0 >= next) => Some(Problem::DataYounger),
        None => Some(Problem::DataStray),
    }
}

/// The names in a directory that is made with the first file in it.
fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<String>> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}
