//! A part of a data file as pieces of data and holes, front to back, as it is now.
//!
//! Invariants
//! - Pieces follow each other without a gap or overlap, from the part's beginning to its end.
//! - Nothing but what the file says may be data is read.
//! - A byte of a hole was zero when it was looked at; a file that is written meanwhile may have another one now, as in
//!   every copy that is taken while its file changes.
//!
//! It must not know who wants to know.

use crate::hash::is_zero;
use crate::stream::Piece;
use haven_disk::DiskFile;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// See the module's head comment.
pub struct Extents {
    file: Arc<dyn DiskFile>,
    /// What was read last.
    buffer: Vec<u8>,
    at: u64,
    end: u64,
    /// Where the file was last found to have data. Kept from part to part: looking for the end of much data takes long.
    data: Range<u64>,
}

impl Extents {
    /// Of no part yet.
    pub const fn new(file: Arc<dyn DiskFile>) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            at: 0,
            end: 0,
            data: 0..0,
        }
    }

    /// Goes on with the bytes from `start` to `end`. What the file does not have reads as zeros.
    pub const fn go_to(&mut self, start: u64, end: u64) {
        (self.at, self.end) = (start, end);
    }

    /// The next piece, of at most `most` bytes if it is data; `None` at the end. Data of zeros only are a hole.
    pub fn next(&mut self, most: usize) -> io::Result<Option<Piece<'_>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        if let Some((start, end)) = self.skip_hole()? {
            return Ok(Some(Piece::Hole { start, end }));
        }
        let offset = self.at;
        let len = usize::try_from(self.data_end() - offset).unwrap_or(usize::MAX);
        self.buffer.clear();
        self.buffer.resize(len.min(most.max(1)), 0);
        self.file.read_at(offset, &mut self.buffer)?;
        self.at += self.buffer.len() as u64;
        Ok(Some(match is_zero(&self.buffer) {
            true => Piece::Hole {
                start: offset,
                end: self.at,
            },
            false => Piece::Data {
                offset,
                bytes: &self.buffer,
            },
        }))
    }

    /// How many bytes of data are left in this part, without reading them.
    pub fn data_bytes(&mut self) -> io::Result<u64> {
        let mut sum = 0;
        while self.at < self.end {
            if self.skip_hole()?.is_none() {
                sum += self.data_end() - self.at;
                self.at = self.data_end();
            }
        }
        Ok(sum)
    }

    /// Goes to the next data, or to the end, if it is not there; first byte and end of the hole that it passed.
    fn skip_hole(&mut self) -> io::Result<Option<(u64, u64)>> {
        let start = self.at;
        if self.data.contains(&start) {
            return Ok(None);
        }
        let Some(data) = self.file.next_data(start)? else {
            self.at = self.end;
            return Ok(Some((start, self.end)));
        };
        // At least a byte, even if the file lost it meanwhile.
        self.data = data..self.file.next_hole(data)?.max(data + 1);
        self.at = data.min(self.end);
        Ok((self.at > start).then_some((start, self.at)))
    }

    fn data_end(&self) -> u64 {
        self.data.end.min(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_disk::{Disk, RealDisk};
    use std::path::Path;

    const KIB: u64 = 1 << 10;

    #[test]
    fn pieces_cover_a_part_and_only_data_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path()).unwrap();
        let file = disk.open(Path::new("f"), true).unwrap();
        file.write_at(100 * KIB, &[1; 10_000]).unwrap();
        file.write_at(300 * KIB, &[0; 8192]).unwrap();
        file.write_at(400 * KIB, &[2; 5]).unwrap();
        let mut extents = Extents::new(Arc::clone(&file));
        let parts = [
            (0, 1000 * KIB),
            (100 * KIB + 5, 100 * KIB + 9),
            (7, 7),
            (90 * KIB, 101 * KIB),
            (105 * KIB, 106 * KIB),
        ];
        for (start, end) in parts {
            extents.go_to(start, end);
            let (mut at, mut data) = (start, Vec::new());
            while let Some(piece) = extents.next(4096).unwrap() {
                match piece {
                    Piece::Hole { start, end } => {
                        assert!(start == at && end > start);
                        at = end;
                    }
                    Piece::Data { offset, bytes } => {
                        assert!(offset == at && bytes.len() <= 4096);
                        at += bytes.len() as u64;
                        data.push((offset, bytes.to_vec()));
                    }
                }
            }
            assert_eq!(at, end);
            extents.go_to(start, end);
            assert!(extents.data_bytes().unwrap() <= (end - start).min(24 << 10));
            let total: usize = data.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(total <= 16 << 10, "{total}");
            for (offset, bytes) in data {
                let mut there = vec![0; bytes.len()];
                file.read_at(offset, &mut there).unwrap();
                assert_eq!(there, bytes);
            }
        }
    }
}
