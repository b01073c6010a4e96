//! The shape of a snapshot stream: a header with the position, rows in key order, file data in (inode,
//! offset) order, an end mark with counts and a hash of everything before it.
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
const VERSION: u32 = 2;
const HEADER: u8 = 1;
const ROWS: u8 = 2;
const DATA: u8 = 3;
const END: u8 = 4;
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
        /// The position that the rows belong to.
        position: &'a [u8],
    },
    /// Rows one after another, see [`RowIter`].
    Rows(&'a [u8]),
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
        END => parse_end(body).ok_or(SnapshotError::Bad("end mark of the wrong length")),
        _ => Err(SnapshotError::Bad("unknown kind of chunk")),
    }
}

/// The header chunk.
pub fn header(position: &[u8]) -> Vec<u8> {
    let mut out = vec![HEADER];
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
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

    /// Adds a row if it fits.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> bool {
        let len = self.0.len() + ROW_HEAD_BYTES + key.len() + value.len();
        let (Ok(key_len), Ok(value_len)) = (u32::try_from(key.len()), u32::try_from(value.len()))
        else {
            return false;
        };
        if len > CHUNK_BYTES_MAX {
            return false;
        }
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
        Some(
            row.map(|(key, value, _)| (key, value))
                .ok_or(SnapshotError::Bad("row cut off")),
        )
    }
}

fn split_row(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key_len, bytes) = bytes.split_first_chunk::<4>()?;
    let (value_len, bytes) = bytes.split_first_chunk::<4>()?;
    let (key, bytes) = bytes.split_at_checked(length(key_len)?)?;
    let (value, rest) = bytes.split_at_checked(length(value_len)?)?;
    Some((key, value, rest))
}

fn length(bytes: &[u8; 4]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(*bytes)).ok()
}

fn parse_header(body: &[u8]) -> Result<Chunk<'_>, SnapshotError> {
    let body = body
        .strip_prefix(MAGIC)
        .ok_or(SnapshotError::Bad("not a snapshot"))?;
    let (version, position) = body
        .split_first_chunk::<4>()
        .ok_or(SnapshotError::Bad("header cut off"))?;
    if u32::from_be_bytes(*version) != VERSION {
        return Err(SnapshotError::Bad(
            "the sender writes another version of snapshots",
        ));
    }
    if position.len() > keys::POSITION_BYTES_MAX {
        return Err(SnapshotError::Bad("position too long"));
    }
    Ok(Chunk::Header { position })
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
