//! Entries for fuzzing: rows as they are checked when another node sends them, and snapshot streams that
//! end rightly. It must not be part of what ships: it exists with the feature `fuzzing` only.

use crate::blocks;
use crate::changes::{self, History};
use crate::current::{self, Current};
use crate::keys;
use crate::record::{self, Counters, Entry, Inode, decode_named, encode_named};
use crate::remains::{self, Remains};
use crate::snapshot::absorb;
use crate::stream::{self, Chunk, EditIter, Piece, PieceIter, RowIter, Totals};
use haven_fs::Ino;
use std::path::Path;

/// A row as it could be on disk or in a snapshot. Panics if a decoder does, or if a row that was taken
/// has another form (which the state hash relies on).
pub fn row(key: &[u8], value: &[u8]) {
    if key == keys::HISTORY
        && let Some(history) = History::decode(value)
    {
        assert_eq!(history.encode(), value);
    }
    if let (Some(ino), Some(ranges)) = (keys::ino_of_remains(key), remains::decode(value)) {
        let mut remains = Remains::default();
        remains.load(ino, &ranges);
        assert_eq!(remains.row(ino).as_deref(), Some(value));
    }
    if keys::index_of_changes(key).is_some() {
        let _ = changes::is_readable(value);
    }
    let valid = record::validate(key, value).is_ok();
    let Some(ino) = keys::ino_of(key).filter(|_| valid) else {
        // Not every row is decoded by the check: decoders must do with anything.
        let _ = Counters::decode(value);
        return;
    };
    let again = match key.first() {
        Some(&keys::INODE) => Inode::decode(ino, value).map(|inode| inode.encode()),
        Some(&keys::ENTRY_BY_NAME) => Entry::decode(value).map(|entry| entry.encode().to_vec()),
        Some(&keys::ENTRY_BY_COOKIE) => {
            decode_named(value).map(|(ino, name)| encode_named(ino, name))
        }
        Some(&keys::BLOCKS) => blocks::decode(value).map(|chunk| blocks::encode(&chunk)),
        _ => return,
    };
    assert_eq!(again.as_deref(), Ok(value), "key {key:?}");
}

/// Rows of one replica alone, which no snapshot has.
pub fn local_rows() -> Vec<(Vec<u8>, Vec<u8>)> {
    let history = History {
        since: 5,
        last: 9,
        records: 1,
        bytes: 12,
    };
    // Two keys, of which the second begins as the first.
    let part = b"\0\0\x03iab\x02\0\x01c".to_vec();
    let mut remains = Remains::default();
    remains.load(Ino(3), &[(70_000, 90_000), (100_000, u64::MAX)]);
    let remains = remains.row(Ino(3)).unwrap_or_default();
    vec![
        (keys::HISTORY.to_vec(), history.encode()),
        (keys::changes(9, 0).to_vec(), part),
        (keys::remains(Ino(3)), remains),
    ]
}

/// What could stand in the file that names the generation. Panics if it is taken and has another form.
pub fn current(bytes: &[u8]) {
    let number = match current::parse(bytes, Path::new("CURRENT")) {
        Ok(Current::Generation(number)) => number,
        Ok(Current::BeingMade) => 0,
        Ok(Current::Absent) | Err(_) => return,
    };
    let mut formats = current::FORMAT_OLDEST..=current::FORMAT;
    assert!(formats.any(|format| current::contents_in(format, number).as_bytes() == bytes));
}

/// That file's contents for a generation.
pub fn current_of(generation: u64) -> String {
    current::contents(generation)
}

/// With the right checksum, which is hard to guess.
pub fn sealed_current(body: &str) -> String {
    format!("{body}checksum {}\n", current::checksum(body))
}

/// The rows of a chunk of a snapshot stream, as far as they can be read.
pub fn rows(chunk: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Ok(Chunk::Rows(rows)) = stream::parse(chunk) else {
        return Vec::new();
    };
    let whole = RowIter(rows).map_while(Result::ok);
    whole
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

/// The end mark that belongs to these chunks.
pub fn end(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    let mut totals = Totals::default();
    for chunk in chunks {
        absorb(&mut hasher, chunk);
        match stream::parse(chunk) {
            Ok(Chunk::Rows(rows)) => {
                totals.rows += RowIter(rows).filter(Result::is_ok).count() as u64
            }
            Ok(Chunk::Edits(edits)) => {
                totals.rows += EditIter(edits).filter(Result::is_ok).count() as u64
            }
            Ok(Chunk::Data { pieces, .. }) => {
                totals.data_chunks += 1;
                for piece in PieceIter(pieces).filter_map(Result::ok) {
                    if let Piece::Data { bytes, .. } = piece {
                        totals.data_bytes += bytes.len() as u64;
                    }
                }
            }
            _ => {}
        }
    }
    stream::end(totals, *hasher.finalize().as_bytes())
}
