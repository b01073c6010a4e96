//! What the disk's tests share.

use std::ops::Range;
use std::path::Path;

use haven_disk::Disk;
use tempfile::TempDir;

/// A fresh directory, in memory where the machine has that: the tests flush a lot.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a temporary directory")
}

/// The whole contents of a file, `None` when there is no such file.
pub fn contents(disk: &dyn Disk, path: &str) -> Option<Vec<u8>> {
    let file = match disk.open(Path::new(path), false) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => panic!("open {path}: {e}"),
    };
    let mut bytes = vec![0; file.len().expect("length") as usize];
    let n = file.read_at(0, &mut bytes).expect("read");
    assert_eq!(n, bytes.len(), "{path} is shorter than its length says");
    Some(bytes)
}

/// Where the file says it has data, as far as its length goes.
pub fn data_spans(disk: &dyn Disk, path: &str) -> Vec<Range<usize>> {
    let file = disk.open(Path::new(path), false).expect("open");
    let (mut at, mut spans) = (0, Vec::new());
    while let Some(data) = file.next_data(at).expect("next data") {
        assert!(data >= at, "data is looked for forwards");
        at = file.next_hole(data).expect("next hole");
        assert!(at > data, "data has a length");
        spans.push(data as usize..at as usize);
    }
    let end = file.len().expect("length");
    assert_eq!(file.next_hole(end).expect("next hole"), end);
    spans
}

/// Makes a file with this content, unflushed.
pub fn put(disk: &dyn Disk, path: &str, content: &[u8]) {
    let file = disk.open(Path::new(path), true).expect("create");
    file.set_len(0).expect("cut");
    file.write_at(0, content).expect("write");
}
