//! A small file as a client sees it: cells of four bytes, its size.

use super::history::Operation;
use todc_utils::Specification;

/// Bytes of a cell.
pub const CELL_BYTES: usize = 4;
/// Cells of a file, at most.
pub const CELLS: u8 = 3;

/// An operation on the file, with its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOp {
    /// WRITE of a number that nobody else writes.
    Write { cell: u8, number: u32 },
    /// SETATTR of the size.
    Truncate { cells: u8 },
    /// READ of everything.
    Read(Vec<u8>),
    /// GETATTR: the size.
    Size(u64),
}

impl Operation for FileOp {
    fn only_reads(&self) -> bool {
        matches!(self, FileOp::Read(_) | FileOp::Size(_))
    }
}

/// What a file is. It begins empty.
#[derive(Debug)]
pub struct FileSpec;

impl Specification for FileSpec {
    type State = Vec<u8>;
    type Operation = FileOp;

    fn init() -> Vec<u8> {
        Vec::new()
    }

    fn apply(operation: &FileOp, state: &Vec<u8>) -> (bool, Vec<u8>) {
        let mut next = state.clone();
        match operation {
            FileOp::Write { cell, number } => {
                let (from, to) = (
                    usize::from(*cell) * CELL_BYTES,
                    usize::from(*cell + 1) * CELL_BYTES,
                );
                next.resize(next.len().max(to), 0);
                next[from..to].copy_from_slice(&number.to_be_bytes());
                (true, next)
            }
            FileOp::Truncate { cells } => {
                next.resize(usize::from(*cells) * CELL_BYTES, 0);
                (true, next)
            }
            FileOp::Read(bytes) => (bytes == state, next),
            FileOp::Size(bytes) => (*bytes == state.len() as u64, next),
        }
    }
}
