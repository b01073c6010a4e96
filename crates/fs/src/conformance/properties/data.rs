//! Reading, writing, sizes, and the system table.

use super::{ok, open_dir, user};
use crate::conformance::subject::Subject;
use crate::{Create, Cred, FILE_SIZE_MAX, FsError, Kind, Level, SetAttr};
use std::ops::ControlFlow;

pub(super) fn read_and_write(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let file = ok(s.file(&cred, root, "f", 0o644)).ino;
    let attr = ok(s.write(&cred, file, 0, b"hello world"));
    let now = s.now();
    assert_eq!((attr.size, attr.used), (11, 4096));
    assert_eq!(
        (attr.mtime, attr.ctime, attr.change),
        (now.time, now.time, now.index)
    );
    ok(s.write(&cred, file, 6, b"there"));
    let all = ok(s.read(&cred, file, 0, 100));
    assert_eq!((&all.data[..], all.eof), (&b"hello there"[..], true));
    let part = ok(s.read(&cred, file, 1, 4));
    assert_eq!((&part.data[..], part.eof), (&b"ello"[..], false));
    let exact = ok(s.read(&cred, file, 6, 5));
    assert_eq!((&exact.data[..], exact.eof), (&b"there"[..], true));
    for offset in [11, 12, u64::MAX] {
        let past = ok(s.read(&cred, file, offset, 10));
        assert_eq!((past.data.len(), past.eof), (0, true), "at {offset}");
    }
    assert_eq!(s.read(&cred, root, 0, 1), Err(FsError::IsDirectory));
    assert_eq!(s.write(&cred, root, 0, b"x"), Err(FsError::IsDirectory));
    let link = ok(s.symlink(&cred, root, "l", b"f")).ino;
    assert_eq!(s.read(&cred, link, 0, 1), Err(FsError::Invalid));
    assert_eq!(s.write(&cred, link, 0, b"x"), Err(FsError::Invalid));
    let big: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    ok(s.write(&cred, file, 5, &big));
    assert_eq!(&ok(s.read(&cred, file, 5, 400_000)).data[..], &big[..]);
}

pub(super) fn sparse_file(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let file = ok(s.file(&cred, root, "f", 0o644)).ino;
    ok(s.write(&cred, file, 1_000_000, b"end"));
    let hole = ok(s.read(&cred, file, 999_990, 13));
    assert_eq!(&hole.data[..], b"\0\0\0\0\0\0\0\0\0\0end");
    let far = (1 << 40) + 1;
    let attr = ok(s.write(&cred, file, far, b"x"));
    assert_eq!(attr.size, far + 1);
    assert_eq!(attr.used, 2 * 4_096, "two blocks were written");
    assert_eq!(&ok(s.read(&cred, file, far - 1, 9)).data[..], b"\0x");
}

pub(super) fn used_counts_what_was_written(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let file = ok(s.file(&cred, root, "f", 0o644)).ino;
    assert_eq!(s.attr(file).used, 0);
    let used = |s: &mut Subject<'_>, offset: u64, len: usize| {
        let attr = ok(s.write(&cred, file, offset, &vec![1; len]));
        assert_eq!(s.attr(file), attr);
        attr.used / 4_096
    };
    // Small, where engines may keep contents elsewhere; then grown without a write.
    assert_eq!(ok(s.truncate(&cred, file, 3_000)).used, 0);
    assert_eq!(used(s, 2_000, 10), 1);
    assert_eq!(
        ok(s.truncate(&cred, file, 1_000)).used,
        4_096,
        "a part is left"
    );
    assert_eq!(ok(s.truncate(&cred, file, 1 << 20)).used, 4_096);
    // Beside it, over it again, far away, and between.
    assert_eq!(used(s, 4_096, 4_097), 3);
    assert_eq!(used(s, 0, 12_288), 3);
    assert_eq!(used(s, 50_000, 1), 4);
    assert_eq!(used(s, 50_001, 10), 4);
    assert_eq!(used(s, 1 << 33, 8_192), 6);
    assert_eq!(used(s, 12_288, 36_864), 15);
    assert_eq!(used(s, 49_152, 4_096), 15);
    // Zeros are written, too.
    assert_eq!(ok(s.write(&cred, file, 1 << 22, &[0; 10])).used, 16 * 4_096);
    assert_eq!(ok(s.truncate(&cred, file, (1 << 33) + 1)).used, 15 * 4_096);
    assert_eq!(ok(s.truncate(&cred, file, 4_097)).used, 2 * 4_096);
    assert_eq!(ok(s.truncate(&cred, file, 0)).used, 0);
    assert_eq!(
        ok(s.truncate(&cred, file, 1 << 40)).used,
        0,
        "nothing comes back"
    );
}

/// Holes count before [`Level::COUNTED_BLOCKS`], and those of that time go on to count until they are cut off.
pub(super) fn used_is_the_size_at_first(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    s.fs.set_level(Level::BOUNDED_MOVES);
    let set = SetAttr {
        size: Some(5_000),
        ..SetAttr::default()
    };
    let made = ok(s.create(&cred, root, "made", &Create::Guarded(set)));
    assert_eq!(made.used, 2 * 4_096);
    let small = ok(s.file(&cred, root, "small", 0o644)).ino;
    assert_eq!(ok(s.truncate(&cred, small, 3_000)).used, 4_096);
    let large = ok(s.file(&cred, root, "large", 0o644)).ino;
    let far = 100 << 20;
    assert_eq!(ok(s.write(&cred, large, far, b"x")).used, far + 4_096);
    assert_eq!(ok(s.write(&cred, large, 0, b"x")).used, far + 4_096);
    assert_eq!(ok(s.truncate(&cred, large, 1 << 20)).used, 1 << 20);
    assert_eq!(ok(s.truncate(&cred, large, 2 << 20)).used, 2 << 20);

    s.fs.set_level(Level::COUNTED_BLOCKS);
    for (ino, used) in [(made.ino, 8_192), (small, 4_096), (large, 2 << 20)] {
        assert_eq!(s.attr(ino).used, used, "nothing was done to {ino:?} since");
    }
    assert_eq!(ok(s.write(&cred, large, 4_096, b"x")).used, 2 << 20);
    assert_eq!(ok(s.truncate(&cred, large, 3 << 20)).used, 2 << 20);
    let end = (3 << 20) - 1;
    assert_eq!(ok(s.write(&cred, large, end, b"x")).used, (2 << 20) + 4_096);
    assert_eq!(ok(s.truncate(&cred, large, 8_193)).used, 3 * 4_096);
    assert_eq!(ok(s.truncate(&cred, small, 3_500)).used, 4_096);
    assert_eq!(ok(s.truncate(&cred, small, 0)).used, 0);
    assert_eq!(ok(s.truncate(&cred, small, 3_500)).used, 0);
    assert_eq!(ok(s.truncate(&cred, made.ino, 1 << 30)).used, 8_192);
}

pub(super) fn size_limits(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let file = ok(s.file(&cred, root, "f", 0o644));
    assert_eq!(
        s.write(&cred, file.ino, FILE_SIZE_MAX, b"x"),
        Err(FsError::TooLarge)
    );
    assert_eq!(
        s.write(&cred, file.ino, u64::MAX, b"xy"),
        Err(FsError::TooLarge)
    );
    assert_eq!(
        s.truncate(&cred, file.ino, FILE_SIZE_MAX + 1),
        Err(FsError::TooLarge)
    );
    assert_eq!(
        s.write(&cred, file.ino, FILE_SIZE_MAX - 1, b"xy"),
        Err(FsError::TooLarge),
        "not even the part before the limit"
    );
    assert_eq!(s.attr(file.ino), file);
    let attr = ok(s.write(&cred, file.ino, FILE_SIZE_MAX - 2, b"xy"));
    assert_eq!(attr.size, FILE_SIZE_MAX);
    let tail = ok(s.read(&cred, file.ino, FILE_SIZE_MAX - 3, 9));
    assert_eq!((&tail.data[..], tail.eof), (&b"\0xy"[..], true));
    for offset in [FILE_SIZE_MAX, u64::MAX - 1] {
        let past = ok(s.read(&cred, file.ino, offset, 9));
        assert_eq!((past.data.len(), past.eof), (0, true), "at {offset}");
    }
}

pub(super) fn write_of_nothing(s: &mut Subject<'_>) {
    let dir = open_dir(s, "d");
    let me = user(10, 20);
    let file = ok(s.file(&me, dir, "f", 0o6755));
    assert_eq!(ok(s.write(&me, file.ino, 500, b"")), file);
    assert_eq!(
        s.write(&user(11, 21), file.ino, 0, b""),
        Err(FsError::AccessDenied)
    );
}

pub(super) fn truncate_and_grow(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let file = ok(s.file(&cred, root, "f", 0o644)).ino;
    ok(s.write(&cred, file, 0, &[7; 10_000]));
    let cut = ok(s.truncate(&cred, file, 5_000));
    assert_eq!(
        (cut.size, cut.used, cut.mtime),
        (5_000, 8_192, s.now().time)
    );
    ok(s.truncate(&cred, file, 9_000));
    let data = ok(s.read(&cred, file, 4_990, 5_000)).data;
    assert_eq!(data.len(), 4_010);
    assert!(data[..10].iter().all(|&b| b == 7), "what was kept is there");
    assert!(
        data[10..].iter().all(|&b| b == 0),
        "what was cut does not come back"
    );
    ok(s.truncate(&cred, file, 0));
    assert_eq!(s.attr(file).used, 0);
    assert_eq!(s.truncate(&cred, root, 0), Err(FsError::IsDirectory));
    let fifo = ok(s.mknod(&cred, root, "p", Kind::Fifo)).ino;
    assert_eq!(s.truncate(&cred, fifo, 0), Err(FsError::Invalid));
}

pub(super) fn write_clears_privileges(s: &mut Subject<'_>) {
    let dir = open_dir(s, "d");
    let me = user(10, 20);
    for (before, after) in [(0o6777, 0o777), (0o4644, 0o644), (0o2644, 0o2644)] {
        let file = ok(s.file(&me, dir, &format!("w{before}"), before)).ino;
        assert_eq!(ok(s.write(&me, file, 0, b"x")).mode, after);
        let file = ok(s.file(&me, dir, &format!("t{before}"), before)).ino;
        assert_eq!(ok(s.truncate(&me, file, 9)).mode, after);
    }
}

pub(super) fn statfs_is_sane(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let stat = ok(s.fs.statfs());
    assert!(stat.total_bytes > 0 && stat.free_bytes <= stat.total_bytes);
    assert!(stat.available_bytes <= stat.free_bytes);
    assert_eq!(stat.total_files - stat.free_files, 1, "the root");
    ok(s.file(&cred, root, "f", 0o644));
    let stat = ok(s.fs.statfs());
    assert_eq!(stat.total_files - stat.free_files, 2);
}

pub(super) fn system_table(s: &mut Subject<'_>) {
    assert_eq!(s.fs.system_get(b"a"), Ok(None));
    for (key, value) in [("a1", "x"), ("b", "y"), ("a", ""), ("a2", "z")] {
        ok(s.fs.system_put(key.as_bytes(), Some(value.as_bytes())));
    }
    ok(s.fs.system_put(b"a2", Some(b"new")));
    assert_eq!(ok(s.fs.system_get(b"a2")).as_deref(), Some(&b"new"[..]));
    assert_eq!(ok(s.fs.system_get(b"a")).as_deref(), Some(&b""[..]));
    let scan = |s: &Subject<'_>, prefix: &[u8], max: usize| {
        let mut keys = Vec::new();
        ok(s.fs.system_scan(prefix, &mut |key, _| {
            keys.push(String::from_utf8_lossy(key).into_owned());
            if keys.len() == max {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }));
        keys
    };
    assert_eq!(scan(s, b"a", 9), ["a", "a1", "a2"]);
    assert_eq!(scan(s, b"a", 2), ["a", "a1"]);
    assert_eq!(scan(s, b"", 9), ["a", "a1", "a2", "b"]);
    assert!(scan(s, b"zz", 9).is_empty());
    ok(s.fs.system_put(b"a1", None));
    ok(s.fs.system_put(b"none", None));
    assert_eq!(scan(s, b"a", 9), ["a", "a2"]);
}
