//! A data file as it counts for a checkpoint that is sent: what remained in it of cuts reads as zeros, whatever became of
//! it since.
//!
//! Why the remains of the checkpoint and not the present ones: a byte that was cut off before the checkpoint is zero in it,
//! and whoever receives the checkpoint applies what came after. A byte that was cut off since may still show what it
//! was: the receiver cuts it off, too.
//!
//! It must not know who reads.

use crate::base::{self, View};
use crate::data::hide;
use crate::{fatal, keys, remains};
use haven_disk::DiskFile;
use haven_fs::{FsResult, Ino};
use std::io;
use std::sync::Arc;

/// The data file of `ino` as it counts for the checkpoint in `view`.
pub fn masked(file: Arc<dyn DiskFile>, ino: Ino, view: &View) -> FsResult<Arc<dyn DiskFile>> {
    let Some(row) = base::get(view, &keys::remains(ino))? else {
        return Ok(file);
    };
    let remains = remains::decode(&row)
        .ok_or_else(|| fatal("the metadata is damaged", "what was cut off a data file"))?;
    Ok(Arc::new(Masked { file, remains }))
}

/// For reading only.
struct Masked {
    file: Arc<dyn DiskFile>,
    remains: Vec<(u64, u64)>,
}

impl Masked {
    /// The range that holds `at`, or else the next one.
    fn at_or_after(&self, at: u64) -> Option<(u64, u64)> {
        let place = self.remains.partition_point(|range| range.1 <= at);
        self.remains.get(place).copied()
    }
}

fn only_read<T>() -> io::Result<T> {
    let text = "a data file that is sent is only read";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

impl DiskFile for Masked {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(offset, buf)?;
        let first = self.remains.partition_point(|range| range.1 <= offset);
        let end = offset.saturating_add(read as u64);
        let within = self.remains[first..].partition_point(|range| range.0 < end);
        hide(&mut buf[..read], offset, &self.remains[first..][..within]);
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let mut at = offset;
        while let Some(found) = self.file.next_data(at)? {
            match self.at_or_after(found) {
                Some((start, end)) if start <= found => at = end,
                _ => return Ok(Some(found)),
            }
        }
        Ok(None)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let found = self.file.next_hole(offset)?;
        let hidden = self.at_or_after(offset).map_or(u64::MAX, |range| range.0);
        Ok(found.min(hidden.max(offset)))
    }

    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        only_read()
    }

    fn write_vectored_at(&self, _offset: u64, _parts: &[&[u8]]) -> io::Result<()> {
        only_read()
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        only_read()
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        only_read()
    }

    fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
        only_read()
    }

    fn sync(&self) -> io::Result<()> {
        only_read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_disk::{Disk, RealDisk};
    use std::path::Path;

    const BLOCK: u64 = 4096;

    #[test]
    fn what_remains_of_cuts_is_a_hole() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path()).unwrap();
        let file = disk.open(Path::new("f"), true).unwrap();
        for block in [0, 1, 2, 3, 6, 7] {
            file.write_at(block * BLOCK, &[7; BLOCK as usize]).unwrap();
        }
        let remains = vec![(BLOCK, BLOCK + 9), (2 * BLOCK, 5 * BLOCK)];
        let masked = Masked { file, remains };
        let mut expected = vec![7; 8 * BLOCK as usize];
        for (start, end) in [(BLOCK, BLOCK + 9), (2 * BLOCK, 6 * BLOCK)] {
            expected[start as usize..end as usize].fill(0);
        }
        for (start, len) in [
            (0, 8 * BLOCK),
            (BLOCK + 3, 100),
            (3 * BLOCK, 4 * BLOCK),
            (9 * BLOCK, 5),
        ] {
            let mut bytes = vec![9; len as usize];
            let read = masked.read_at(start, &mut bytes).unwrap();
            let shown = expected.get(start as usize..).unwrap_or_default();
            assert_eq!(bytes[..read], shown[..read]);
            assert_eq!(read, shown.len().min(len as usize));
        }
        let data = |at| masked.next_data(at).unwrap();
        assert_eq!(data(5), Some(5));
        assert_eq!(data(BLOCK), Some(BLOCK + 9));
        assert_eq!(data(2 * BLOCK), Some(6 * BLOCK));
        assert_eq!(data(8 * BLOCK), None);
        let hole = |at| masked.next_hole(at).unwrap();
        assert_eq!(
            (hole(0), hole(BLOCK), hole(BLOCK + 3)),
            (BLOCK, BLOCK, BLOCK + 3)
        );
        assert_eq!((hole(BLOCK + 9), hole(3 * BLOCK)), (2 * BLOCK, 3 * BLOCK));
        assert_eq!((hole(6 * BLOCK), hole(9 * BLOCK)), (8 * BLOCK, 9 * BLOCK));
        assert!(masked.write_at(0, b"x").is_err() && masked.sync().is_err());
    }
}
