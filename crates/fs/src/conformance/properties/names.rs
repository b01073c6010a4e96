//! What directories hold: names, lookups, cookies, sizes.

use super::{ok, open_dir};
use crate::conformance::subject::Subject;
use crate::{Access, Cookie, Cred, FsError, Ino, Kind};
use std::ops::ControlFlow;

pub(super) fn lookup_dots(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let a = ok(s.mkdir(&cred, root, "a", 0o755)).ino;
    let b = ok(s.mkdir(&cred, a, "b", 0o755)).ino;
    assert_eq!(ok(s.lookup(&cred, b, ".")).ino, b);
    assert_eq!(ok(s.lookup(&cred, b, "..")).ino, a);
    assert_eq!(ok(s.lookup(&cred, a, "..")).ino, root);
    assert_eq!(
        ok(s.lookup(&cred, root, "..")).ino,
        root,
        "the root is its own parent"
    );
    assert_eq!(s.lookup(&cred, root, "none"), Err(FsError::NotFound));
}

pub(super) fn bad_names_are_refused(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let long = "n".repeat(256);
    for (name, error) in [
        ("", FsError::Invalid),
        ("a/b", FsError::Invalid),
        ("a\0b", FsError::Invalid),
        (long.as_str(), FsError::NameTooLong),
    ] {
        assert_eq!(
            s.lookup(&cred, root, name),
            Err(error.clone()),
            "lookup {name:?}"
        );
        assert_eq!(
            s.file(&cred, root, name, 0o644),
            Err(error.clone()),
            "create {name:?}"
        );
        assert_eq!(
            s.mkdir(&cred, root, name, 0o755),
            Err(error.clone()),
            "mkdir {name:?}"
        );
        assert_eq!(
            s.symlink(&cred, root, name, b"t"),
            Err(error.clone()),
            "symlink {name:?}"
        );
        assert_eq!(
            s.remove(&cred, root, name),
            Err(error.clone()),
            "remove {name:?}"
        );
        assert_eq!(
            s.rmdir(&cred, root, name),
            Err(error.clone()),
            "rmdir {name:?}"
        );
        assert_eq!(
            s.rename(&cred, (root, name), (root, "x")),
            Err(error.clone())
        );
        assert_eq!(s.rename(&cred, (root, "x"), (root, name)), Err(error));
    }
    for dot in [".", ".."] {
        assert_eq!(s.file(&cred, root, dot, 0o644), Err(FsError::Exists));
        assert_eq!(s.mkdir(&cred, root, dot, 0o755), Err(FsError::Exists));
        assert_eq!(s.remove(&cred, root, dot), Err(FsError::AccessDenied));
        assert_eq!(s.rmdir(&cred, root, dot), Err(FsError::AccessDenied));
        assert_eq!(
            s.rename(&cred, (root, dot), (root, "x")),
            Err(FsError::NotPermitted)
        );
    }
    ok(s.file(&cred, root, &"n".repeat(255), 0o644));
    ok(s.file(&cred, root, "\u{e4}\u{2603} \n*", 0o644));
}

pub(super) fn not_a_directory_and_stale(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let file = ok(s.file(&cred, root, "f", 0o644)).ino;
    for (dir, error) in [(file, FsError::NotDirectory), (Ino(99), FsError::Stale)] {
        assert_eq!(s.lookup(&cred, dir, "x"), Err(error.clone()));
        assert_eq!(s.file(&cred, dir, "x", 0o644), Err(error.clone()));
        assert_eq!(s.mkdir(&cred, dir, "x", 0o755), Err(error.clone()));
        assert_eq!(s.symlink(&cred, dir, "x", b"t"), Err(error.clone()));
        assert_eq!(s.mknod(&cred, dir, "x", Kind::Fifo), Err(error.clone()));
        assert_eq!(s.remove(&cred, dir, "x"), Err(error.clone()));
        assert_eq!(s.rmdir(&cred, dir, "x"), Err(error.clone()));
        assert_eq!(s.rename(&cred, (dir, "x"), (root, "y")), Err(error.clone()));
        assert_eq!(s.rename(&cred, (root, "f"), (dir, "y")), Err(error.clone()));
        assert_eq!(s.link(&cred, file, dir, "y"), Err(error.clone()));
        assert_eq!(s.list(&cred, dir, Cookie(0), 9), Err(error));
    }
    let gone = Ino(99);
    assert_eq!(s.fs.attr(gone), Err(FsError::Stale));
    assert_eq!(s.read(&cred, gone, 0, 1), Err(FsError::Stale));
    assert_eq!(s.write(&cred, gone, 0, b"x"), Err(FsError::Stale));
    assert_eq!(s.chmod(&cred, gone, 0), Err(FsError::Stale));
    assert_eq!(s.fs.readlink(&cred, gone), Err(FsError::Stale));
    assert_eq!(
        s.fs.access(&cred, gone, Access::default()),
        Err(FsError::Stale)
    );
    assert_eq!(s.link(&cred, gone, root, "y"), Err(FsError::Stale));
    assert_eq!(s.fs.attr(Ino(0)), Err(FsError::Stale), "0 is no inode");
}

pub(super) fn cookies_are_stable(s: &mut Subject<'_>) {
    let cred = Cred::root();
    let dir = open_dir(s, "d");
    for i in 0..20 {
        ok(s.file(&cred, dir, &format!("f{i}"), 0o644));
    }
    let (all, end) = ok(s.list(&cred, dir, Cookie(0), 100));
    assert!(end && all.len() == 22);
    assert!(all.windows(2).all(|w| w[0].2 < w[1].2), "cookies rise");
    assert_eq!((&all[0].0[..], all[0].2), (&b"."[..], Cookie(1)));
    assert_eq!((&all[1].0[..], all[1].2), (&b".."[..], Cookie(2)));
    assert_eq!(all[2].2, Cookie(3));
    for (i, entry) in all.iter().enumerate() {
        let (rest, end) = ok(s.list(&cred, dir, entry.2, 100));
        assert!(end);
        assert_eq!(rest, all[i + 1..], "after {:?}", entry.2);
    }
    let (some, end) = ok(s.list(&cred, dir, Cookie(5), 4));
    assert_eq!((some.len(), end), (4, false));
    // Removal of what was listed disturbs nobody, and its cookie still means its place.
    let (at, last) = (all[10].2, all[21].2);
    ok(s.remove(&cred, dir, "f8"));
    ok(s.remove(&cred, dir, "f19"));
    let (rest, _) = ok(s.list(&cred, dir, at, 100));
    assert_eq!(rest, all[11..21]);
    let (none, end) = ok(s.list(&cred, dir, last, 100));
    assert!(
        none.is_empty() && end,
        "the removed last entry's cookie is still good"
    );
    ok(s.file(&cred, dir, "new", 0o644));
    let (new, _) = ok(s.list(&cred, dir, last, 100));
    assert_eq!(
        (new.len(), new[0].2),
        (1, Cookie(last.0 + 1)),
        "cookies are not reused"
    );
    ok(s.rename(&cred, (dir, "f0"), (dir, "g0")));
    let (renamed, _) = ok(s.list(&cred, dir, new[0].2, 100));
    assert_eq!(renamed[0].0, b"g0", "a rename makes a new entry");
    for never in [last.0 + 3, u64::MAX] {
        assert_eq!(
            s.list(&cred, dir, Cookie(never), 9),
            Err(FsError::BadCookie)
        );
    }
    let bare = s.fs.readdir(&cred, dir, Cookie(0), false, &mut |entry| {
        assert_eq!(entry.attr, None);
        ControlFlow::Continue(())
    });
    assert_eq!(bare, Ok(true));
}

pub(super) fn directory_size(s: &mut Subject<'_>) {
    let cred = Cred::root();
    let dir = open_dir(s, "d");
    assert_eq!(s.attr(dir).size, 4096);
    for i in 0..65 {
        assert_eq!(s.attr(dir).size, 4096);
        ok(s.file(&cred, dir, &format!("f{i}"), 0o644));
    }
    assert_eq!((s.attr(dir).size, s.attr(dir).used), (8192, 8192));
    ok(s.remove(&cred, dir, "f9"));
    assert_eq!(s.attr(dir).size, 4096);
}

pub(super) fn directory_links(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let nlink = |s: &Subject<'_>, ino| s.attr(ino).nlink;
    let a = ok(s.mkdir(&cred, root, "a", 0o755)).ino;
    let b = ok(s.mkdir(&cred, root, "b", 0o755)).ino;
    ok(s.mkdir(&cred, a, "x", 0o755));
    ok(s.file(&cred, a, "f", 0o644));
    assert_eq!((nlink(s, root), nlink(s, a), nlink(s, b)), (4, 3, 2));
    ok(s.rename(&cred, (a, "x"), (b, "x")));
    assert_eq!((nlink(s, root), nlink(s, a), nlink(s, b)), (4, 2, 3));
    ok(s.mkdir(&cred, a, "x", 0o755));
    ok(s.rename(&cred, (a, "x"), (b, "x")));
    assert_eq!(
        (nlink(s, a), nlink(s, b)),
        (2, 3),
        "replacing adds no subdirectory"
    );
    ok(s.rename(&cred, (b, "x"), (b, "y")));
    assert_eq!(nlink(s, b), 3);
    ok(s.mkdir(&cred, b, "z", 0o755));
    ok(s.rename(&cred, (b, "y"), (b, "z")));
    assert_eq!(nlink(s, b), 3);
    ok(s.rmdir(&cred, b, "z"));
    ok(s.rmdir(&cred, root, "b"));
    assert_eq!(nlink(s, root), 3);
}
