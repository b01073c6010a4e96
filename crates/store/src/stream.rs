//! The shape of a snapshot stream: a header with the position, rows in key order, file data in (inode,
//! offset) order, an end mark with counts and a hash of everything before it.
//!
//! A stream of changes looks the same, but holds only what changed since a base that the receiver has: its
//! rows may be gone, and file data may be zeros.
//!
//! Invariants
//! - A chunk has at most [`CHUNK_BYTES_MAX`] bytes; records never span chunks.
//! - Parsing answers an error for anything that is no such chunk, and never panics.
//!
//! It must not know where chunks come from or go to.

use crate::keys;
use haven_fs::{FsError, Ino};

/// Most bytes in a chunk of a snapshot.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"HAVNSNAP";
const VERSION: u32 = 3;
const HEADER: u8 = 1;
const ROWS: u8 = 2;
const DATA: u8 = 3;
const END: u8 = 4;
const EDITS: u8 = 5;
const ZEROS: u8 = 6;
/// In place of a value's length: the row is gone.
const GONE: u32 = u32::MAX;
const ROW_HEAD_BYTES: usize = 8;
const HASH_BYTES: usize = 32;

/// Why a snapshot could not be sent or received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The stream is not one that this store could have written: the sender is broken or of another
    /// version, or bytes changed on the way. Ask for the snapshot again.
    #[error("bad snapshot stream: {0}")]
    Bad(&'static str),
    /// The state that was being sent was itself replaced by a snapshot. Begin a new one.
    #[error("the state being sent was replaced meanwhile")]
    Replaced,
    /// This machine's disk or store failed.
    #[error(transparent)]
    Store(#[from] FsError),
}

/// What a stream may go on with, at its receiver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The header.
    Start,
    /// Rows.
    Rows,
    /// File data.
    Data,
    /// Nothing.
    Ended,
}

impl Stage {
    /// Goes on to `next`, which may follow any stage from `earliest` on.
    pub fn advance(&mut self, earliest: Stage, next: Stage) -> Result<(), SnapshotError> {
        if *self < earliest || *self > next || *self == Stage::Ended {
            return Err(SnapshotError::Bad("chunks out of order"));
        }
        *self = next;
        Ok(())
    }
}

/// What a snapshot holds, for comparing both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Rows.
    pub rows: u64,
    /// Chunks of file data.
    pub data_chunks: u64,
    /// Bytes of file data.
    pub data_bytes: u64,
}

/// A parsed chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// Comes first.
    Header {
        /// The base, if this is a stream of changes.
        base: Option<u64>,
        /// The log index that the rows belong to; 0: not known.
        applied: u64,
        /// The position that the rows belong to.
        position: &'a [u8],
    },
    /// Rows one after another, see [`RowIter`].
    Rows(&'a [u8]),
    /// Changed rows one after another, see [`EditIter`].
    Edits(&'a [u8]),
    /// A range of a file that is all zeros.
    Zeros {
        /// Of which file.
        ino: Ino,
        /// From where.
        start: u64,
        /// To where; [`u64::MAX`]: to the file's end.
        end: u64,
    },
    /// A piece of a file.
    Data {
        /// Of which file.
        ino: Ino,
        /// Where in it.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Comes last.
    End {
        /// What was sent.
        totals: Totals,
        /// Hash of all chunks before this one.
        hash: [u8; HASH_BYTES],
    },
}

/// Takes a chunk apart.
pub fn parse(chunk: &[u8]) -> Result<Chunk<'_>, SnapshotError> {
    if chunk.len() > CHUNK_BYTES_MAX {
        return Err(SnapshotError::Bad("chunk too long"));
    }
    let (&kind, body) = chunk
        .split_first()
        .ok_or(SnapshotError::Bad("empty chunk"))?;
    match kind {
        HEADER => parse_header(body),
        ROWS => Ok(Chunk::Rows(body)),
        DATA => parse_data(body).ok_or(SnapshotError::Bad("file data cut off")),
        EDITS => Ok(Chunk::Edits(body)),
        ZEROS => parse_zeros(body).ok_or(SnapshotError::Bad("range of zeros of the wrong length")),
        END => parse_end(body).ok_or(SnapshotError::Bad("end mark of the wrong length")),
        _ => Err(SnapshotError::Bad("unknown kind of chunk")),
    }
}

/// The header chunk.
pub fn header(base: Option<u64>, applied: u64, position: &[u8]) -> Vec<u8> {
    let mut out = vec![HEADER];
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.push(u8::from(base.is_some()));
    out.extend_from_slice(&base.unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&applied.to_be_bytes());
    out.extend_from_slice(position);
    out
}

/// A data chunk.
pub fn data(ino: Ino, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(17 + bytes.len());
    out.push(DATA);
    out.extend_from_slice(&ino.0.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

/// A range of zeros.
pub fn zeros(ino: Ino, start: u64, end: u64) -> Vec<u8> {
    let mut out = vec![ZEROS];
    for number in [ino.0, start, end] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out
}

/// The end mark.
pub fn end(totals: Totals, hash: [u8; HASH_BYTES]) -> Vec<u8> {
    let mut out = vec![END];
    for number in [totals.rows, totals.data_chunks, totals.data_bytes] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&hash);
    out
}

/// A chunk of rows being filled.
pub struct RowsChunk(Vec<u8>);

impl RowsChunk {
    /// An empty one.
    pub fn new() -> Self {
        Self(vec![ROWS])
    }

    /// An empty one for changed rows.
    pub fn of_edits() -> Self {
        Self(vec![EDITS])
    }

    /// Adds a row if it fits.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> bool {
        match u32::try_from(value.len()) {
            Ok(len) => self.put(key, len, value),
            Err(_) => false,
        }
    }

    /// Adds a changed row if it fits.
    pub fn push_edit(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        match value {
            Some(value) => self.push(key, value),
            None => self.put(key, GONE, &[]),
        }
    }

    fn put(&mut self, key: &[u8], value_len: u32, value: &[u8]) -> bool {
        let len = self.0.len() + ROW_HEAD_BYTES + key.len() + value.len();
        let Some(key_len) = u32::try_from(key.len())
            .ok()
            .filter(|_| len <= CHUNK_BYTES_MAX)
        else {
            return false;
        };
        self.0.extend_from_slice(&key_len.to_be_bytes());
        self.0.extend_from_slice(&value_len.to_be_bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value);
        true
    }

    /// The chunk; `None` when it has no row.
    pub fn finish(self) -> Option<Vec<u8>> {
        (self.0.len() > 1).then_some(self.0)
    }
}

/// The rows of a chunk.
pub struct RowIter<'a>(pub &'a [u8]);

impl<'a> Iterator for RowIter<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let row = split_row(self.0);
        self.0 = row.map_or(&[], |(_, _, rest)| rest);
        let row = row.and_then(|(key, value, _)| Some((key, value?)));
        Some(row.ok_or(SnapshotError::Bad("row cut off")))
    }
}

/// The changed rows of a chunk; `None`: the row is gone.
pub struct EditIter<'a>(pub &'a [u8]);

impl<'a> Iterator for EditIter<'a> {
    type Item = Result<(&'a [u8], Option<&'a [u8]>), SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let row = split_row(self.0);
        self.0 = row.map_or(&[], |(_, _, rest)| rest);
        let row = row.map(|(key, value, _)| (key, value));
        Some(row.ok_or(SnapshotError::Bad("row cut off")))
    }
}

/// Key, value and what follows.
type SplitRow<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

fn split_row(bytes: &[u8]) -> Option<SplitRow<'_>> {
    let (key_len, bytes) = bytes.split_first_chunk::<4>()?;
    let (value_len, bytes) = bytes.split_first_chunk::<4>()?;
    let (key, bytes) = bytes.split_at_checked(length(key_len)?)?;
    if u32::from_be_bytes(*value_len) == GONE {
        return Some((key, None, bytes));
    }
    let (value, rest) = bytes.split_at_checked(length(value_len)?)?;
    Some((key, Some(value), rest))
}

fn length(bytes: &[u8; 4]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(*bytes)).ok()
}

fn parse_header(body: &[u8]) -> Result<Chunk<'_>, SnapshotError> {
    let body = body
        .strip_prefix(MAGIC)
        .ok_or(SnapshotError::Bad("not a snapshot"))?;
    let cut_off = SnapshotError::Bad("header cut off");
    let (version, body) = body.split_first_chunk::<4>().ok_or(cut_off.clone())?;
    if u32::from_be_bytes(*version) != VERSION {
        return Err(SnapshotError::Bad(
            "the sender writes another version of snapshots",
        ));
    }
    let ([changes], body) = body.split_first_chunk::<1>().ok_or(cut_off.clone())?;
    let (base, body) = body.split_first_chunk::<8>().ok_or(cut_off.clone())?;
    let (applied, position) = body.split_first_chunk::<8>().ok_or(cut_off)?;
    let (base, applied) = (u64::from_be_bytes(*base), u64::from_be_bytes(*applied));
    let base = match (changes, base) {
        (0, 0) => None,
        (1, base) if base > 0 && base < applied => Some(base),
        _ => return Err(SnapshotError::Bad("a base that cannot be")),
    };
    if position.len() > keys::POSITION_BYTES_MAX {
        return Err(SnapshotError::Bad("position too long"));
    }
    Ok(Chunk::Header {
        base,
        applied,
        position,
    })
}

fn parse_zeros(body: &[u8]) -> Option<Chunk<'_>> {
    let (numbers, []) = body.as_chunks::<8>() else {
        return None;
    };
    let &[ino, start, end] = numbers else {
        return None;
    };
    let [ino, start, end] = [ino, start, end].map(u64::from_be_bytes);
    let few = end == u64::MAX || end.checked_sub(start)? <= CHUNK_BYTES_MAX as u64;
    (start < end && few).then_some(Chunk::Zeros {
        ino: Ino(ino),
        start,
        end,
    })
}

fn parse_data(body: &[u8]) -> Option<Chunk<'_>> {
    let (ino, body) = body.split_first_chunk::<8>()?;
    let (offset, bytes) = body.split_first_chunk::<8>()?;
    let (ino, offset) = (Ino(u64::from_be_bytes(*ino)), u64::from_be_bytes(*offset));
    (!bytes.is_empty()).then_some(Chunk::Data { ino, offset, bytes })
}

fn parse_end(body: &[u8]) -> Option<Chunk<'_>> {
    let (rows, body) = body.split_first_chunk::<8>()?;
    let (data_chunks, body) = body.split_first_chunk::<8>()?;
    let (data_bytes, body) = body.split_first_chunk::<8>()?;
    let totals = Totals {
        rows: u64::from_be_bytes(*rows),
        data_chunks: u64::from_be_bytes(*data_chunks),
        data_bytes: u64::from_be_bytes(*data_bytes),
    };
    Some(Chunk::End {
        totals,
        hash: body.try_into().ok()?,
    })
}
