//! The `CURRENT` file: the format of everything below the store's directory, and which generation of
//! it counts. A generation is a directory with one whole state; a received snapshot becomes a new one.
//!
//! Invariants
//! - The file is replaced by rename only: it is always the old one or the new one, whole.
//! - What a start reads here is written anew before anything is done because of it.
//! - Its first line names the format and keeps its shape in every future format.
//!
//! It must not know what a generation holds.

use crate::fatal;
use haven_disk::{Disk, renew};
use haven_fs::FsResult;
use std::io;
use std::path::{Path, PathBuf};

/// The on-disk format that this code writes.
pub const FORMAT: u32 = 5;
/// The oldest that it reads: format 4 is format 5 without maps of blocks (every file counts as one without holes), format 3 is
/// format 4 without rows of what remains of cuts.
pub const FORMAT_OLDEST: u32 = 3;

const NAME: &str = "CURRENT";
const NAME_NEW: &str = "CURRENT.new";
const FIRST_WORDS: &str = "haven-store format ";
const GENERATION_PREFIX: &str = "gen-";
const FILE_BYTES_MAX: usize = 4096;
const CHECKSUM_CHARS: usize = 16;

/// Which generation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Current {
    /// The directory was never used.
    Absent,
    /// The store was being made when the process ended; there is no state yet.
    BeingMade,
    /// This one.
    Generation(u64),
}

/// Where generation `number` is kept.
pub fn generation_dir(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{GENERATION_PREFIX}{number}"))
}

/// The generation that a directory's name stands for.
pub fn generation_of(name: &str) -> Option<u64> {
    name.strip_prefix(GENERATION_PREFIX)?.parse().ok()
}

/// Whether a name in the store's directory is a leftover of [`write`].
pub fn is_leftover(name: &str) -> bool {
    name == NAME_NEW
}

/// Reads the file. What it says need not be durable: a flush may have failed.
///
/// # Errors
/// Fatal when the format is not known or the file is damaged.
pub fn read(disk: &dyn Disk, dir: &Path) -> FsResult<Current> {
    let path = dir.join(NAME);
    let failed = |error| fatal(format!("cannot read {}", path.display()), error);
    let file = match disk.open(&path, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Current::Absent),
        other => other.map_err(failed)?,
    };
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let len = file.read_at(0, &mut bytes).map_err(failed)?;
    bytes.truncate(len);
    parse(&bytes, &path)
}

/// The format that the file names, if it is not known.
pub fn other_format(disk: &dyn Disk, dir: &Path) -> Option<u32> {
    named_format(disk, dir).filter(|format| !(FORMAT_OLDEST..=FORMAT).contains(format))
}

fn named_format(disk: &dyn Disk, dir: &Path) -> Option<u32> {
    let file = disk.open(&dir.join(NAME), false).ok()?;
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let len = file.read_at(0, &mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
    let named = text.lines().next()?.strip_prefix(FIRST_WORDS)?;
    named.parse().ok()
}

/// Makes `generation` (0: none yet) the one that counts, durably.
pub fn write(disk: &dyn Disk, dir: &Path, generation: u64) -> FsResult<()> {
    let path = dir.join(NAME);
    let text = contents(generation);
    renew::replace(disk, &path, &dir.join(NAME_NEW), &[text.as_bytes()])
        .map_err(|error| fatal(format!("cannot write {}", path.display()), error))
}

/// What the file holds.
pub fn contents(generation: u64) -> String {
    contents_in(FORMAT, generation)
}

/// The same in a format that is read.
pub fn contents_in(format: u32, generation: u64) -> String {
    let body = format!("{FIRST_WORDS}{format}\ngeneration {generation}\n");
    let checksum = checksum(&body);
    format!("{body}checksum {checksum}\n")
}

/// What stands behind `body`.
pub fn checksum(body: &str) -> String {
    let mut hex = blake3::hash(body.as_bytes()).to_hex().to_string();
    hex.truncate(CHECKSUM_CHARS);
    hex
}

/// Reads what the file holds.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8], path: &Path) -> FsResult<Current> {
    let shown = path.display();
    let damaged = || {
        fatal(
            format!("{shown} is damaged"),
            "restore it, or empty the store's directory to fetch everything from the other nodes",
        )
    };
    let text = std::str::from_utf8(bytes).map_err(|_| damaged())?;
    let first = text.lines().next().ok_or_else(damaged)?;
    let format = first.strip_prefix(FIRST_WORDS).ok_or_else(damaged)?;
    let known = format.parse().ok();
    let Some(known) = known.filter(|format| (FORMAT_OLDEST..=FORMAT).contains(format)) else {
        return Err(fatal(
            format!("the store's files were written by a newer or other format {format}"),
            format!("this binary knows format {FORMAT}; use the binary that wrote {shown}"),
        ));
    };
    let generation = text
        .lines()
        .nth(1)
        .and_then(|line| line.strip_prefix("generation "));
    let generation = generation
        .and_then(|n| n.parse().ok())
        .ok_or_else(damaged)?;
    if text != contents_in(known, generation) {
        return Err(damaged());
    }
    Ok(if generation == 0 {
        Current::BeingMade
    } else {
        Current::Generation(generation)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> FsResult<Current> {
        parse(text.as_bytes(), Path::new("CURRENT"))
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(parse_text(&contents(7)), Ok(Current::Generation(7)));
        assert_eq!(parse_text(&contents(0)), Ok(Current::BeingMade));
    }

    #[test]
    fn another_format_is_named() {
        let text = contents(7).replace("format 5", "format 1");
        let error = parse_text(&text).unwrap_err().to_string();
        assert!(error.contains("other format 1"), "{error}");
        assert!(error.contains("knows format 5"), "{error}");
    }

    #[test]
    fn the_formats_before_are_read() {
        for format in FORMAT_OLDEST..=FORMAT {
            let text = contents_in(format, 7);
            assert_eq!(parse_text(&text), Ok(Current::Generation(7)));
        }
        let mixed = contents(7).replace("format 5", "format 4");
        let error = parse_text(&mixed).unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
    }

    #[test]
    fn damage_is_refused() {
        let good = contents(7);
        for bad in [
            String::new(),
            good.replace("generation 7", "generation 8"),
            good.trim_end().to_string(),
            format!("{good}\n"),
        ] {
            let error = parse_text(&bad).unwrap_err().to_string();
            assert!(error.contains("is damaged"), "{error}");
        }
    }
}
