//! What is known of clients, kept beside the data for the next start: should all nodes go down, somebody still knows
//! whom to make reconnect.
//!
//! Soft state: a node without it serves all the same. So it is written beside all requests, at a bounded rate and in place,
//! and flushed now and then only.
//!
//! Invariants
//! - Three files take turns: the one flushed last stays as it is, of the others the older one is written. So a list torn by a
//!   crash leaves the one before it, and one torn by a power loss the flushed one.
//! - What cannot be read is as good as nothing. What cannot be written is said, and tried again with the next list.
//!
//! It must not know who is on the list.

use bytes::Bytes;
use haven_disk::{Disk, DiskFile};
use haven_net::{ClientList, Endpoint, LIST_BYTES_MAX};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where they are, in the data directory.
const DIR: &str = "clients";
/// So many files take turns.
const FILES: usize = 3;
/// A list may be flushed no more often than this.
const FLUSH_EVERY: Duration = Duration::from_secs(10);

/// See the module's head comment.
pub(super) struct Keep {
    disk: Arc<dyn Disk>,
    /// Of the list in each file; 0: none.
    sequences: [u64; FILES],
    /// The file whose list is durable, and since when.
    flushed: Option<(usize, Instant)>,
}

impl Keep {
    /// The newest list on the disk, if there is one. Waits for the disk.
    pub(super) fn open(disk: Arc<dyn Disk>) -> (Self, Vec<Endpoint>) {
        let mut sequences = [0; FILES];
        let mut newest = ClientList::default();
        for (n, sequence) in sequences.iter_mut().enumerate() {
            let Some(list) = read(&*disk, &path(n)) else {
                continue;
            };
            *sequence = list.sequence;
            if list.sequence > newest.sequence {
                newest = list;
            }
        }
        let keep = Self {
            disk,
            sequences,
            flushed: None,
        };
        (keep, newest.endpoints)
    }

    /// Writes the next list, and flushes it if that is due or wanted. Waits for the disk.
    ///
    /// # Errors
    /// The disk's. The list before is still there then.
    pub(super) fn write(&mut self, endpoints: &[Endpoint], flush: bool) -> io::Result<()> {
        let newest = self.sequences.iter().copied().max().unwrap_or(0);
        let target = self.target(newest);
        let list = ClientList::encode(newest + 1, endpoints);
        // Should this fail, another file's turn comes next.
        self.sequences[target] = newest;
        let file = self.open_file(&path(target))?;
        file.write_at(0, &list)?;
        self.sequences[target] = newest + 1;
        let due = self
            .flushed
            .is_none_or(|(_, at)| at.elapsed() >= FLUSH_EVERY);
        if flush || due {
            file.sync()?;
            self.flushed = Some((target, Instant::now()));
        } else {
            file.start_writeback(0, list.len() as u64);
        }
        Ok(())
    }

    /// The file with the oldest list that is neither the newest nor the flushed one.
    fn target(&self, newest: u64) -> usize {
        let flushed = self.flushed.map(|(n, _)| n);
        let mut target = 0;
        let mut oldest = u64::MAX;
        for (n, sequence) in self.sequences.into_iter().enumerate() {
            let spare = Some(n) != flushed && (sequence < newest || newest == 0);
            if spare && sequence < oldest {
                (target, oldest) = (n, sequence);
            }
        }
        target
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        match self.disk.open(path, false) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                self.disk.create_dir_all(Path::new(DIR))?;
                let file = self.disk.open(path, true)?;
                // Its name; what is in it is flushed with the others.
                self.disk.sync_dir(Path::new(DIR))?;
                Ok(file)
            }
            opened => opened,
        }
    }
}

fn path(n: usize) -> PathBuf {
    Path::new(DIR).join(n.to_string())
}

fn read(disk: &dyn Disk, path: &Path) -> Option<ClientList> {
    let file = disk.open(path, false).ok()?;
    let len = usize::try_from(file.len().ok()?).ok()?;
    let mut bytes = vec![0; len.min(LIST_BYTES_MAX)];
    let read = file.read_at(0, &mut bytes).ok()?;
    bytes.truncate(read);
    ClientList::decode(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_disk::{RealDisk, VolatileDisk};

    fn client(port: u16) -> Endpoint {
        Endpoint {
            local: "192.0.2.100:2049".parse().unwrap(),
            remote: ([192, 0, 2, 7], port).into(),
        }
    }

    fn ports(list: &[Endpoint]) -> Vec<u16> {
        list.iter().map(|c| c.remote.port()).collect()
    }

    fn real(dir: &Path) -> Arc<dyn Disk> {
        Arc::new(RealDisk::open(dir).unwrap())
    }

    #[test]
    fn the_newest_list_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        for n in 1..6 {
            let (mut keep, before) = Keep::open(real(dir.path()));
            assert_eq!(before.len(), usize::from(n - 1));
            // Longer ones and shorter ones.
            keep.write(&[client(100); 9], false).unwrap();
            let list: Vec<Endpoint> = (0..n).map(client).collect();
            keep.write(&list, false).unwrap();
        }
    }

    /// The file written last.
    fn newest(keep: &Keep) -> PathBuf {
        let files = keep.sequences.iter().enumerate();
        let newest = files.max_by_key(|(_, sequence)| **sequence);
        path(newest.unwrap().0)
    }

    #[test]
    fn a_torn_list_leaves_the_one_before_it() {
        for count in 1..9 {
            let dir = tempfile::tempdir().unwrap();
            let (mut keep, _) = Keep::open(real(dir.path()));
            for n in 1..=count {
                keep.write(&[client(n)], n % 4 == 0).unwrap();
            }
            let newest = dir.path().join(newest(&keep));
            drop(keep);
            let whole = std::fs::read(&newest).unwrap();
            for cut in [0, 5, whole.len() - 1] {
                std::fs::write(&newest, &whole[..cut]).unwrap();
                let (_, found) = Keep::open(real(dir.path()));
                let before: Vec<u16> = (1..count).next_back().into_iter().collect();
                assert_eq!(ports(&found), before);
            }
        }
    }

    /// Whatever had become of the lists that were not flushed.
    #[test]
    fn a_power_loss_leaves_the_list_flushed_last() {
        for count in 1..9 {
            let dir = tempfile::tempdir().unwrap();
            let (mut keep, _) = Keep::open(real(dir.path()));
            for n in 1..=count {
                keep.write(&[client(n)], n == 3).unwrap();
            }
            let (flushed, _) = keep.flushed.unwrap();
            drop(keep);
            for n in (0..FILES).filter(|n| *n != flushed) {
                let _ = std::fs::write(dir.path().join(path(n)), b"hvnclnt1 torn");
            }
            let (_, found) = Keep::open(real(dir.path()));
            // The first is flushed, too: it may be long until the next is.
            assert_eq!(ports(&found), [if count < 3 { 1 } else { 3 }]);
        }
    }

    #[test]
    fn what_was_flushed_is_durable() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(VolatileDisk::open(dir.path()).unwrap());
        let (mut keep, _) = Keep::open(open());
        keep.write(&[client(1)], true).unwrap();
        keep.write(&[client(2)], false).unwrap();
        drop(keep);
        let (mut keep, found) = Keep::open(open());
        assert_eq!(ports(&found), [1]);
        keep.write(&[client(3)], true).unwrap();
        drop(keep);
        assert_eq!(ports(&Keep::open(open()).1), [3]);
    }

    #[test]
    fn garbage_is_as_good_as_nothing_and_a_file_that_cannot_be_written_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(DIR)).unwrap();
        std::fs::write(dir.path().join(path(0)), b"garbage").unwrap();
        std::fs::create_dir(dir.path().join(path(1))).unwrap();
        let disk = real(dir.path());
        let (mut keep, found) = Keep::open(Arc::clone(&disk));
        assert!(found.is_empty());
        let mut last = 0;
        for n in 1..9 {
            if keep.write(&[client(n)], false).is_ok() {
                last = n;
            }
            let (_, found) = Keep::open(Arc::clone(&disk));
            assert_eq!(ports(&found), [last]);
        }
        assert!(last >= 7, "it goes on beside the directory");
    }
}
