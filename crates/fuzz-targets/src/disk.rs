//! A disk in memory: fast to make and to throw away. Everything is durable at once.
//!
//! Files are sparse, because lengths and offsets come from what is fuzzed.

use haven_disk::{Disk, DiskFile, Space};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PAGE_BYTES: u64 = 4096;

/// Files and directories by path.
#[derive(Default)]
pub(crate) struct MemoryDisk {
    files: Mutex<BTreeMap<PathBuf, Arc<MemoryFile>>>,
    dirs: Mutex<BTreeSet<PathBuf>>,
}

impl MemoryDisk {
    /// Makes a file with these contents.
    pub(crate) fn put(&self, path: &str, contents: &[u8]) {
        let file = MemoryFile::default();
        file.state.lock().write(0, contents);
        self.files.lock().insert(path.into(), Arc::new(file));
    }

    /// The contents of a file that was written and is small.
    pub(crate) fn contents(&self, path: &str) -> Vec<u8> {
        let Some(file) = self.files.lock().get(Path::new(path)).cloned() else {
            return Vec::new();
        };
        let state = file.state.lock();
        let mut out = vec![0; state.len as usize];
        state.read(0, &mut out);
        out
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock();
        if let Some(file) = files.get(path) {
            return Ok(Arc::clone(file) as Arc<dyn DiskFile>);
        }
        if !create {
            return Err(missing());
        }
        let file = Arc::new(MemoryFile::default());
        files.insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let all = path.ancestors().map(Path::to_owned);
        self.dirs.lock().extend(all);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or_else(missing)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.files.lock().remove(path).map(drop).ok_or_else(missing)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.files.lock().retain(|name, _| !name.starts_with(path));
        self.dirs.lock().retain(|name| !name.starts_with(path));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let dirs = self.dirs.lock();
        if !dirs.contains(path) {
            return Err(missing());
        }
        let files = self.files.lock();
        let all = files.keys().chain(dirs.iter());
        let below = all.filter(|name| name.parent() == Some(path));
        let names: BTreeSet<String> = below
            .filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned()))
            .collect();
        Ok(names.into_iter().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.files.lock().contains_key(path) || self.dirs.lock().contains(path))
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space {
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            free_files: None,
        })
    }
}

#[derive(Default)]
struct MemoryFile {
    state: Mutex<Contents>,
}

/// Pages that were written, and the length.
#[derive(Default)]
struct Contents {
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES as usize]>>,
    len: u64,
}

impl Contents {
    /// Reads `out.len()` bytes, zeros where nothing was written.
    fn read(&self, offset: u64, out: &mut [u8]) {
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let within = (at % PAGE_BYTES) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(PAGE_BYTES as usize - within));
            match self.pages.get(&(at / PAGE_BYTES)) {
                Some(page) => now.copy_from_slice(&page[within..within + now.len()]),
                None => now.fill(0),
            }
            at += now.len() as u64;
            rest = later;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let within = (at % PAGE_BYTES) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES as usize - within));
            let page = self.pages.entry(at / PAGE_BYTES);
            let page = page.or_insert_with(|| Box::new([0; PAGE_BYTES as usize]));
            page[within..within + now.len()].copy_from_slice(now);
            at += now.len() as u64;
            rest = later;
        }
        self.len = self.len.max(at);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            let whole = len.div_ceil(PAGE_BYTES);
            self.pages.split_off(&whole);
            if let Some(last) = self.pages.get_mut(&(len / PAGE_BYTES)) {
                last[(len % PAGE_BYTES) as usize..].fill(0);
            }
        }
        self.len = len;
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let state = self.state.lock();
        let there = state.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        state.read(offset, &mut buf[..there]);
        Ok(there)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state.lock().write(offset, data);
        Ok(())
    }

    fn write_vectored_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.write_at(offset, &parts.concat())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state.lock().set_len(len);
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.len = state.len.max(offset.saturating_add(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let state = self.state.lock();
        let written = state.pages.range(offset / PAGE_BYTES..).next();
        let at = written.map(|(page, _)| offset.max(page * PAGE_BYTES));
        Ok(at.filter(|at| *at < state.len))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let state = self.state.lock();
        let mut at = offset;
        while at < state.len && state.pages.contains_key(&(at / PAGE_BYTES)) {
            at = (at / PAGE_BYTES + 1) * PAGE_BYTES;
        }
        Ok(at.min(state.len.max(offset)))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let end = offset.saturating_add(len).min(state.len);
        let (first, last) = (offset / PAGE_BYTES, end.div_ceil(PAGE_BYTES));
        for (number, page) in state.pages.range_mut(first..last.max(first)) {
            let start = number * PAGE_BYTES;
            let from = offset.saturating_sub(start).min(PAGE_BYTES);
            let to = end.saturating_sub(start).min(PAGE_BYTES).max(from);
            page[from as usize..to as usize].fill(0);
        }
        state
            .pages
            .retain(|_, page| page.iter().any(|&byte| byte != 0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_what_was_written() {
        let disk = MemoryDisk::default();
        disk.create_dir_all(Path::new("a/b")).unwrap();
        let file = disk.open(Path::new("a/b/new"), true).unwrap();
        file.write_at(4094, b"border").unwrap();
        file.set_len(4098).unwrap();
        file.allocate(0, 4100).unwrap();
        disk.rename(Path::new("a/b/new"), Path::new("a/b/old"))
            .unwrap();
        let contents = disk.contents("a/b/old");
        assert_eq!(contents.len(), 4100);
        assert_eq!(contents[4090..], *b"\0\0\0\0bord\0\0");
        assert_eq!(file.next_data(10).unwrap(), Some(10));
        assert_eq!(file.next_data(4100).unwrap(), None);
        file.set_len(9000).unwrap();
        assert_eq!(file.next_data(8192).unwrap(), None, "a hole");
        assert_eq!(file.next_hole(10).unwrap(), 8192);
        assert_eq!(file.next_hole(9001).unwrap(), 9001);
        file.punch(4095, 2).unwrap();
        file.punch(4097, u64::MAX).unwrap();
        assert_eq!(disk.contents("a/b/old")[4090..4098], *b"\0\0\0\0b\0\0\0");
        assert_eq!(file.next_hole(0).unwrap(), 4096);
        assert_eq!(disk.list(Path::new("a")).unwrap(), ["b"]);
        assert_eq!(disk.list(Path::new("a/b")).unwrap(), ["old"]);
        disk.remove_dir_all(Path::new("a")).unwrap();
        assert!(disk.list(Path::new("a/b")).is_err());
    }
}
