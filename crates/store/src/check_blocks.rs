//! Data files against the maps of their blocks: what has bytes was written, so it counts.
//!
//! The other way round nothing can be said: zeros are written, too, and whoever got a file from another replica
//! has holes where they are. What lies past the end, or was cut off and is not given back yet, does not count.
//!
//! It must not know how chunks are counted.

use crate::blocks;
use crate::check_metadata::{CheckedRows, guarded};
use crate::check_rows::Rows;
use crate::keys;
use crate::masked::masked;
use crate::record::Place;
use haven_disk::DiskFile;
use haven_fs::Ino;
use haven_fs::blocks::{BlockMap, CHUNK_UNITS, Chunk};
use std::io;
use std::sync::Arc;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 << 10;

/// The first place with data that a file's map does not count, if there is one. What cannot be read of the map was reported
/// with its row, and is not judged again.
pub fn uncounted(
    view: &CheckedRows,
    rows: &Rows,
    ino: Ino,
    file: Arc<dyn DiskFile>,
) -> io::Result<Option<u64>> {
    let node = rows.tree.get(ino);
    let Some(node) = node.filter(|node| node.place == Place::File && !node.is_dense()) else {
        return Ok(None);
    };
    let Ok(file) = guarded(|| masked(file, ino, view.view())) else {
        return Ok(None);
    };
    let unit = node.map.unit_bytes();
    let mut used = Used {
        view,
        ino,
        map: node.map,
        chunk: None,
    };
    let mut at = u64::from(node.map.leading).saturating_mul(unit);
    while let Some(start) = file.next_data(at)?.filter(|start| *start < node.size) {
        let end = file.next_hole(start)?.min(node.size);
        at = start;
        while at < end {
            let next = (at / unit + 1).saturating_mul(unit).min(end);
            if !used.has(at / unit)
                && let Some(found) = first_byte(file.as_ref(), at, next)?
            {
                return Ok(Some(found));
            }
            at = next;
        }
        if at <= start {
            break;
        }
    }
    Ok(None)
}

/// Which units of a file are used.
struct Used<'a> {
    view: &'a CheckedRows,
    ino: Ino,
    map: BlockMap,
    /// The chunk that was looked at last.
    chunk: Option<(u32, Option<Chunk>)>,
}

impl Used<'_> {
    /// Whether a unit is, or its chunk cannot be read.
    fn has(&mut self, unit: u64) -> bool {
        let Ok(unit) = u32::try_from(unit) else {
            return true;
        };
        if unit < self.map.leading {
            return true;
        }
        let (number, bit) = (unit / CHUNK_UNITS, unit % CHUNK_UNITS);
        if self.chunk.as_ref().is_none_or(|(last, _)| *last != number) {
            let read = || match self.view.get(&keys::blocks(self.ino, number))? {
                Some(row) => blocks::decode(&row).map(Some),
                None => Ok(None),
            };
            let Ok(chunk) = guarded(read) else {
                return true;
            };
            self.chunk = Some((number, chunk));
        }
        let chunk = self.chunk.as_ref().and_then(|(_, chunk)| chunk.as_ref());
        chunk.is_some_and(|chunk| chunk.has(bit))
    }
}

/// Where the first byte other than zero is from `start` to `end`.
fn first_byte(file: &dyn DiskFile, start: u64, end: u64) -> io::Result<Option<u64>> {
    let mut bytes = vec![0; PIECE_BYTES.min(usize::try_from(end - start).unwrap_or(PIECE_BYTES))];
    let mut at = start;
    while at < end {
        let wanted = bytes
            .len()
            .min(usize::try_from(end - at).unwrap_or(PIECE_BYTES));
        let read = file.read_at(at, &mut bytes[..wanted])?;
        if let Some(found) = bytes[..read].iter().position(|byte| *byte != 0) {
            return Ok(Some(at + found as u64));
        }
        if read < wanted {
            break;
        }
        at += read as u64;
    }
    Ok(None)
}
