//! The shape of a snapshot stream: a header with the position and about how much follows, rows in key order, file data
//! in (inode, offset) order, an end mark with counts and a hash of everything before it.
//!
//! A stream of changes looks the same, but holds only what changed since a base that the receiver has: its
//! rows may be gone, and files may have holes where there was something.
//!
//! Invariants
//! - A chunk has at most [`CHUNK_BYTES_MAX`] bytes; records never span chunks.
//! - Parsing answers an error for anything that is no such chunk, and never panics.
//!
//! It must not know where chunks come from or go to.

use crate::keys;
use crate::room::{self, Announced};
use haven_fs::{FsError, Ino};

/// Most bytes in a chunk of a snapshot.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"HAVNSNAP";
const VERSION: u32 = 4;
const HEADER: u8 = 1;
const ROWS: u8 = 2;
const DATA: u8 = 3;
const END: u8 = 4;
const EDITS: u8 = 5;
const PIECE_DATA: u8 = 1;
const PIECE_HOLE: u8 = 2;
/// In place of a value's length: the row is gone.
const GONE: u32 = u32::MAX;
const INO_BYTES: usize = 8;
const ROW_HEAD_BYTES: usize = 8;
const HASH_BYTES: usize = 32;
/// Pieces of a file go into one chunk until it has so many bytes: half a chunk, a multiple of every block size in use.
const PIECES_BYTES: usize = CHUNK_BYTES_MAX / 2;
/// With less room than this the next piece goes into the next chunk.
const ROOM_BYTES_MIN: usize = 4096;

/// Why a snapshot could not be sent or received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The stream is not one that this store could have written: the sender is broken or of another
    /// version, or bytes changed on the way. Ask for the snapshot again.
    #[error("bad snapshot stream: {0}")]
    Bad(&'static str),
    /// It does not fit on this machine's disk. Nothing was changed.
    #[error("{}: {}", room::what(*.need_bytes, *.free_bytes, *.partial), room::advice(*.partial))]
    NoRoom {
        /// About how much it takes until it is installed.
        need_bytes: u64,
        /// What is free.
        free_bytes: u64,
        /// Whether it holds only what changed.
        partial: bool,
    },
    /// The state that was being sent was itself replaced by a snapshot. Begin a new one.
    #[error("the state being sent was replaced meanwhile")]
    Replaced,
    /// This machine's disk or store failed.
    #[error(transparent)]
    Store(#[from] FsError),
}

impl SnapshotError {
    /// What is wrong and what to do, in words, if there is no room.
    pub fn shortage(&self) -> Option<(String, &'static str)> {
        match *self {
            Self::NoRoom {
                need_bytes,
                free_bytes,
                partial,
            } => Some((
                room::what(need_bytes, free_bytes, partial),
                room::advice(partial),
            )),
            _ => None,
        }
    }
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
        /// About how much follows.
        announced: Announced,
        /// The position that the rows belong to.
        position: &'a [u8],
    },
    /// Rows one after another, see [`RowIter`].
    Rows(&'a [u8]),
    /// Changed rows one after another, see [`EditIter`].
    Edits(&'a [u8]),
    /// Pieces of a file one after another, see [`PieceIter`].
    Data {
        /// Of which file.
        ino: Ino,
        /// The pieces.
        pieces: &'a [u8],
    },
    /// Comes last.
    End {
        /// What was sent.
        totals: Totals,
        /// Hash of all chunks before this one.
        hash: [u8; HASH_BYTES],
    },
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes.
    Data {
        /// Where they are.
        offset: u64,
        /// At least one.
        bytes: &'a [u8],
    },
    /// Nothing but zeros.
    Hole {
        /// From where.
        start: u64,
        /// To where, above `start`; [`u64::MAX`]: to the file's end.
        end: u64,
    },
}

impl Piece<'_> {
    /// First byte and end.
    pub const fn span(&self) -> (u64, u64) {
        match *self {
            Self::Data { offset, bytes } => (offset, offset.saturating_add(bytes.len() as u64)),
            Self::Hole { start, end } => (start, end),
        }
    }
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
        END => parse_end(body).ok_or(SnapshotError::Bad("end mark of the wrong length")),
        _ => Err(SnapshotError::Bad("unknown kind of chunk")),
    }
}

/// The header chunk.
pub fn header(base: Option<u64>, applied: u64, announced: Announced, position: &[u8]) -> Vec<u8> {
    let mut out = vec![HEADER];
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.push(u8::from(base.is_some()));
    for number in [
        base.unwrap_or(0),
        applied,
        announced.rows_bytes,
        announced.data_bytes,
    ] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(position);
    out
}

/// A chunk of a file's pieces being filled.
pub struct PiecesChunk {
    out: Vec<u8>,
    data_bytes: usize,
}

impl PiecesChunk {
    /// An empty one.
    pub fn new(ino: Ino) -> Self {
        let mut out = vec![DATA];
        out.extend_from_slice(&ino.0.to_be_bytes());
        Self { out, data_bytes: 0 }
    }

    /// How many bytes the next piece may have; `None`: it goes into another chunk.
    pub fn room(&self) -> Option<usize> {
        let room = PIECES_BYTES.checked_sub(self.out.len())?;
        (room >= ROOM_BYTES_MIN).then_some(room)
    }

    /// Adds a piece for which there was room.
    pub fn push(&mut self, piece: &Piece<'_>) {
        match *piece {
            Piece::Data { offset, bytes } => {
                self.out.push(PIECE_DATA);
                self.out.extend_from_slice(&offset.to_be_bytes());
                // It had room in a chunk.
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                self.out.extend_from_slice(&len.to_be_bytes());
                self.out.extend_from_slice(bytes);
                self.data_bytes += bytes.len();
            }
            Piece::Hole { start, end } => {
                self.out.push(PIECE_HOLE);
                self.out.extend_from_slice(&start.to_be_bytes());
                self.out.extend_from_slice(&end.to_be_bytes());
            }
        }
    }

    /// The chunk and how many bytes of data are in it; `None` when it has no piece.
    pub fn finish(self) -> Option<(Vec<u8>, usize)> {
        (self.out.len() > 1 + INO_BYTES).then_some((self.out, self.data_bytes))
    }
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

/// The pieces of a chunk.
pub struct PieceIter<'a>(pub &'a [u8]);

impl<'a> Iterator for PieceIter<'a> {
    type Item = Result<Piece<'a>, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let piece = split_piece(self.0);
        self.0 = piece.map_or(&[], |(_, rest)| rest);
        let piece = piece.map(|(piece, _)| piece);
        Some(piece.ok_or(SnapshotError::Bad("a piece of a file cut off")))
    }
}

fn split_piece(bytes: &[u8]) -> Option<(Piece<'_>, &[u8])> {
    let (&kind, bytes) = bytes.split_first()?;
    let (first, bytes) = bytes.split_first_chunk::<8>()?;
    let first = u64::from_be_bytes(*first);
    match kind {
        PIECE_DATA => {
            let (len, bytes) = bytes.split_first_chunk::<4>()?;
            let (data, rest) = bytes.split_at_checked(length(len)?)?;
            let piece = Piece::Data {
                offset: first,
                bytes: data,
            };
            (!data.is_empty()).then_some((piece, rest))
        }
        PIECE_HOLE => {
            let (end, rest) = bytes.split_first_chunk::<8>()?;
            let (start, end) = (first, u64::from_be_bytes(*end));
            (start < end).then_some((Piece::Hole { start, end }, rest))
        }
        _ => None,
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
    let (applied, body) = body.split_first_chunk::<8>().ok_or(cut_off.clone())?;
    let (rows_bytes, body) = body.split_first_chunk::<8>().ok_or(cut_off.clone())?;
    let (data_bytes, position) = body.split_first_chunk::<8>().ok_or(cut_off)?;
    let (base, applied) = (u64::from_be_bytes(*base), u64::from_be_bytes(*applied));
    let announced = Announced {
        rows_bytes: u64::from_be_bytes(*rows_bytes),
        data_bytes: u64::from_be_bytes(*data_bytes),
    };
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
        announced,
        position,
    })
}

fn parse_data(body: &[u8]) -> Option<Chunk<'_>> {
    let (ino, pieces) = body.split_first_chunk::<INO_BYTES>()?;
    let ino = Ino(u64::from_be_bytes(*ino));
    (!pieces.is_empty()).then_some(Chunk::Data { ino, pieces })
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
