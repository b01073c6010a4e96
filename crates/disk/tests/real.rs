//! The real disk: opening, locking, paths, and plain file operations.

mod common;

use std::io::ErrorKind;
use std::path::Path;

use common::{contents, data_spans, put, scratch};
use haven_disk::{Disk, DiskError, RealDisk};

#[test]
fn a_root_is_made_private_and_held_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = scratch();
    let root = dir.path().join("a/b");
    let disk = RealDisk::open(&root).expect("open");
    let mode = std::fs::metadata(&root).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let second = RealDisk::open(&root).expect_err("held");
    let DiskError::InUse { pid, .. } = &second else {
        panic!("{second}");
    };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(
        second
            .to_string()
            .contains("already in use by another process")
    );
    assert!(second.to_string().contains("a/b"));

    let file = disk.open(Path::new("x"), true).expect("file");
    drop(disk);
    RealDisk::open(&root).expect_err("an open file still holds the root");
    drop(file);
    RealDisk::open(&root).expect("free again");
}

#[test]
fn a_root_that_is_no_directory_is_refused_by_name() {
    let dir = scratch();
    let root = dir.path().join("file");
    std::fs::write(&root, b"x").expect("write");
    let error = RealDisk::open(&root).expect_err("a file");
    assert!(matches!(error, DiskError::NotADirectory { .. }), "{error}");
    let below = RealDisk::open(&root.join("sub")).expect_err("below a file");
    assert!(below.to_string().contains("file"), "{below}");
}

#[test]
fn paths_stay_inside_and_off_the_disks_own_names() {
    let dir = scratch();
    let disk = RealDisk::open(dir.path()).expect("open");
    for bad in [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "LOCK",
        ".volatile/1",
        "",
    ] {
        let error = disk.open(Path::new(bad), true).err().expect(bad);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        let error = disk.remove_file(Path::new(bad)).expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
    }
    assert_eq!(disk.list(Path::new("")).expect("list"), [""; 0]);
    assert_eq!(disk.list(Path::new(".")).expect("list"), [""; 0]);
}

#[test]
fn a_vectored_write_of_more_parts_than_one_call_takes_is_whole() {
    let dir = scratch();
    let disk = RealDisk::open(dir.path()).expect("open");
    let file = disk.open(Path::new("f"), true).expect("file");
    let parts: Vec<Vec<u8>> = (0..3000u32)
        .map(|i| vec![i as u8; (i % 5) as usize])
        .collect();
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    file.write_vectored_at(7, &slices).expect("write");
    let mut expected = vec![0; 7];
    expected.extend(parts.concat());
    assert_eq!(contents(&disk, "f"), Some(expected));
}

#[test]
fn writes_past_the_cache_and_through_it_see_each_other() {
    let dir = scratch();
    let disk = RealDisk::open(dir.path()).expect("open");
    let file = disk.open(Path::new("f"), true).expect("file");
    let mut expected = vec![0; 12 << 20];
    file.allocate(0, expected.len() as u64).expect("allocate");
    // Ragged at both ends, in parts of odd lengths, below and above what goes to the device at once, each over
    // bytes that the other way wrote before.
    let writes = [
        (13, 5 << 20),
        (4096, 1 << 20),
        (5 << 20, 9),
        (777_777, 6_543_210),
        (1, 300 << 10),
    ];
    for (round, (at, len)) in writes.into_iter().cycle().take(10).enumerate() {
        let data: Vec<u8> = (0..len)
            .map(|i| (i * 31 + i / 4096 + round) as u8)
            .collect();
        let parts: Vec<&[u8]> = data.chunks(100_001).collect();
        if round % 3 == 2 {
            file.write_vectored_at(at as u64, &parts).expect("write");
        } else {
            file.write_past_cache_at(at as u64, &parts).expect("write");
        }
        expected[at..at + len].copy_from_slice(&data);
        assert!(
            contents(&disk, "f").as_deref() == Some(&expected[..]),
            "round {round}"
        );
    }
}

#[test]
fn reserved_space_reads_as_zeros_and_keeps_what_was_there() {
    let dir = scratch();
    let disk = RealDisk::open(dir.path()).expect("open");
    let file = disk.open(Path::new("f"), true).expect("file");
    file.write_at(0, b"abc").expect("write");
    file.allocate(2, 4).expect("allocate");
    assert_eq!(contents(&disk, "f").as_deref(), Some(&b"abc\0\0\0"[..]));
    file.allocate(0, 1).expect("allocate inside");
    assert_eq!(file.len().expect("len"), 6);
}

#[test]
fn renames_replace_files_but_no_directories() {
    let dir = scratch();
    let disk = RealDisk::open(dir.path()).expect("open");
    disk.create_dir_all(Path::new("d/e")).expect("mkdir");
    put(&disk, "a", b"1");
    put(&disk, "b", b"2");
    disk.rename(Path::new("a"), Path::new("b"))
        .expect("replace");
    assert_eq!(contents(&disk, "b").as_deref(), Some(&b"1"[..]));
    assert_eq!(contents(&disk, "a"), None);
    let kind = |from: &str, to: &str| {
        let result = disk.rename(Path::new(from), Path::new(to));
        result.expect_err("refused").kind()
    };
    assert_eq!(kind("b", "d"), ErrorKind::AlreadyExists);
    assert_eq!(kind("d", "b"), ErrorKind::AlreadyExists);
    assert_eq!(kind("d", "d/e/x"), ErrorKind::InvalidInput);
    assert_eq!(kind("none", "x"), ErrorKind::NotFound);
    disk.rename(Path::new("d"), Path::new("g"))
        .expect("directory");
    disk.remove_dir_all(Path::new("g")).expect("remove");
    assert!(!disk.exists(Path::new("g/e")).expect("exists"));
    assert_eq!(disk.list(Path::new("")).expect("list"), ["b"]);
}

#[test]
fn space_is_that_of_the_file_system() {
    let dir = scratch();
    let space = RealDisk::open(dir.path())
        .expect("open")
        .space()
        .expect("space");
    assert!(space.total_bytes >= space.free_bytes && space.total_bytes > 0);
}

#[test]
fn everything_is_flushed_at_once_and_holes_are_skipped() {
    let dir = scratch();
    let disk = RealDisk::open(dir.path()).expect("open");
    let file = disk.open(Path::new("f"), true).expect("file");
    assert_eq!(file.next_data(0).expect("next data"), None);
    file.write_at(5 << 20, b"data").expect("write");
    file.set_len(9 << 20).expect("grow");
    disk.sync_all().expect("flush everything");
    let found = file
        .next_data(1)
        .expect("next data")
        .expect("there is some");
    assert!((4 << 20..=5 << 20).contains(&found), "{found}");
    assert_eq!(file.next_data(8 << 20).expect("next data"), None);
    let spans = data_spans(&disk, "f");
    assert!(spans.len() == 1 && spans[0].len() <= 1 << 20, "{spans:?}");

    let mut out = b"kept".to_vec();
    let read = file.read_onto((5 << 20) + 1, 3, &mut out).expect("read");
    assert_eq!((read, &out[..]), (3, &b"keptata"[..]));
    let read = file.read_onto((9 << 20) - 2, 50, &mut out).expect("read");
    assert_eq!((read, &out[..]), (2, &b"keptata\0\0"[..]), "it ends there");
}
