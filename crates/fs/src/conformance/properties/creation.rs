//! Making objects and the attributes they get.

use super::{names, ok, open_dir, user};
use crate::conformance::subject::{Subject, mode_of};
use crate::rules;
use crate::{Create, Cred, Device, FsError, Ino, Kind, SetAttr, SetTime, Time};

pub(super) fn initial_state(s: &mut Subject<'_>) {
    assert_eq!(s.root(), Ino(1));
    assert_eq!(
        s.attr(s.root()),
        rules::root_attr(),
        "as rules::root_attr says"
    );
    assert!(names(s, s.root()).is_empty());
}

pub(super) fn inodes_are_numbered_in_order(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    assert_eq!(ok(s.file(&cred, root, "a", 0o644)).ino, Ino(2));
    assert_eq!(s.file(&cred, root, "a", 0o644), Err(FsError::Exists));
    assert_eq!(
        ok(s.mkdir(&cred, root, "b", 0o755)).ino,
        Ino(3),
        "a failure takes no number"
    );
    assert_eq!(ok(s.symlink(&cred, root, "c", b"x")).ino, Ino(4));
    assert_eq!(ok(s.mknod(&cred, root, "d", Kind::Fifo)).ino, Ino(5));
}

pub(super) fn times_and_change_of_create(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let attr = ok(s.file(&cred, root, "f", 0o640));
    let now = s.now();
    assert_eq!(
        (attr.atime, attr.mtime, attr.ctime),
        (now.time, now.time, now.time)
    );
    assert_eq!(
        (attr.change, attr.generation, attr.nlink),
        (now.index, now.index as u32, 1)
    );
    assert_eq!(
        (attr.kind, attr.mode, attr.size, attr.used),
        (Kind::Regular, 0o640, 0, 0)
    );
    let dir = s.attr(root);
    assert_eq!(
        (dir.mtime, dir.ctime, dir.change),
        (now.time, now.time, now.index)
    );
    assert_eq!(
        s.attr(attr.ino),
        attr,
        "what create returned is what is there"
    );
    assert_eq!(ok(s.lookup(&cred, root, "f")), attr);
}

pub(super) fn guarded_create(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let first = ok(s.file(&cred, root, "f", 0o644));
    assert_eq!(s.file(&cred, root, "f", 0o600), Err(FsError::Exists));
    assert_eq!(s.attr(first.ino), first);
}

pub(super) fn unchecked_create(s: &mut Subject<'_>) {
    let cred = Cred::root();
    let dir = open_dir(s, "d");
    let how = Create::Unchecked(SetAttr {
        size: Some(0),
        ..mode_of(0o600)
    });
    let keep = Create::Unchecked(mode_of(0o600));
    let file = ok(s.create(&cred, dir, "f", &how));
    assert_eq!(file.mode, 0o600);
    ok(s.chmod(&cred, file.ino, 0o640));
    let written = ok(s.write(&cred, file.ino, 0, b"hello"));
    assert_eq!(
        ok(s.create(&cred, dir, "f", &keep)),
        written,
        "no size, nothing to do"
    );
    let cut = ok(s.create(&cred, dir, "f", &how));
    assert_eq!(
        (cut.ino, cut.size, cut.mode),
        (file.ino, 0, 0o640),
        "only the size is applied"
    );
    assert_eq!(
        s.create(&user(5, 5), dir, "f", &how),
        Err(FsError::AccessDenied)
    );
    ok(s.mkdir(&cred, dir, "sub", 0o755));
    assert_eq!(
        s.create(&cred, dir, "sub", &keep),
        Err(FsError::IsDirectory)
    );
    let fifo = ok(s.mknod(&cred, dir, "p", Kind::Fifo));
    assert_eq!(ok(s.create(&cred, dir, "p", &how)), fifo);
}

pub(super) fn exclusive_create(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let how = Create::Exclusive(*b"verifier");
    let file = ok(s.create(&cred, root, "f", &how));
    assert_eq!((file.mode, file.size), (0, 0));
    let changed = ok(s.chmod(&cred, file.ino, 0o644));
    assert_eq!(
        ok(s.create(&cred, root, "f", &how)),
        changed,
        "the same request again"
    );
    let other = Create::Exclusive(*b"another!");
    assert_eq!(s.create(&cred, root, "f", &other), Err(FsError::Exists));
    ok(s.file(&cred, root, "g", 0o644));
    assert_eq!(s.create(&cred, root, "g", &how), Err(FsError::Exists));
}

pub(super) fn creation_attributes(s: &mut Subject<'_>) {
    let dir = open_dir(s, "d");
    let time = Time { secs: 77, nanos: 5 };
    let set = SetAttr {
        mode: Some(0o100_6755),
        uid: Some(3),
        gid: Some(4),
        size: Some(5_000),
        atime: Some(SetTime::Client(time)),
        mtime: Some(SetTime::Server),
    };
    let mine = ok(s.create(&user(10, 20), dir, "mine", &Create::Guarded(set.clone())));
    assert_eq!(
        (mine.uid, mine.gid),
        (10, 20),
        "only the superuser gives files away"
    );
    assert_eq!((mine.mode, mine.size, mine.used), (0o6755, 5_000, 0));
    assert_eq!((mine.atime, mine.mtime), (time, s.now().time));
    let theirs = ok(s.create(&Cred::root(), dir, "theirs", &Create::Guarded(set)));
    assert_eq!((theirs.uid, theirs.gid), (3, 4));
    let bare = ok(s.create(
        &user(1, 2),
        dir,
        "bare",
        &Create::Unchecked(SetAttr::default()),
    ));
    assert_eq!(bare.mode, 0, "nothing is granted unasked");
    let sub = ok(s.mkdir(&user(1, 2), dir, "sub", 0o6751));
    assert_eq!((sub.mode, sub.nlink, sub.uid, sub.gid), (0o751, 2, 1, 2));
    let bad = SetAttr {
        mtime: Some(SetTime::Client(Time {
            secs: 0,
            nanos: 1_000_000_000,
        })),
        ..SetAttr::default()
    };
    let refused = s.create(&Cred::root(), dir, "bad", &Create::Guarded(bad));
    assert_eq!(refused, Err(FsError::Invalid));
}

pub(super) fn setgid_directory_inherits(s: &mut Subject<'_>) {
    let root = Cred::root();
    let dir = open_dir(s, "d");
    let set = SetAttr {
        gid: Some(50),
        ..SetAttr::default()
    };
    ok(s.setattr(&root, dir, &set));
    ok(s.chmod(&root, dir, 0o2777));
    let me = user(10, 20);
    assert_eq!(ok(s.file(&me, dir, "f", 0o644)).gid, 50);
    let sub = ok(s.mkdir(&me, dir, "sub", 0o755));
    assert_eq!((sub.gid, sub.mode), (50, 0o2755));
    assert_eq!(ok(s.symlink(&me, dir, "l", b"t")).gid, 50);
    assert_eq!(
        ok(s.file(&me, dir, "x", 0o2755)).mode,
        0o755,
        "not a member of the group"
    );
    let member = Cred {
        groups: vec![50],
        ..me
    };
    assert_eq!(ok(s.file(&member, dir, "y", 0o2755)).mode, 0o2755);
}

pub(super) fn symlinks(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let target = vec![b't'; 4096];
    let link = ok(s.symlink(&cred, root, "l", &target));
    assert_eq!(
        (link.kind, link.size, link.mode),
        (Kind::Symlink, 4096, 0o777)
    );
    assert_eq!(ok(s.fs.readlink(&user(9, 9), link.ino)), target);
    let refused = s.symlink(&cred, root, "m", &[b't'; 4097]);
    assert_eq!(refused, Err(FsError::NameTooLong));
    assert_eq!(s.symlink(&cred, root, "m", b""), Err(FsError::NotFound));
    assert_eq!(s.symlink(&cred, root, "m", b"a\0"), Err(FsError::Invalid));
    assert_eq!(s.symlink(&cred, root, "l", b"x"), Err(FsError::Exists));
    assert_eq!(s.fs.readlink(&cred, root), Err(FsError::Invalid));
    assert_eq!(
        s.lookup(&cred, link.ino, "x"),
        Err(FsError::NotDirectory),
        "not followed"
    );
}

pub(super) fn special_files(s: &mut Subject<'_>) {
    let dir = open_dir(s, "d");
    let device = Device {
        major: 8,
        minor: 300,
    };
    let me = user(10, 20);
    for (name, kind) in [
        ("b", Kind::BlockDevice(device)),
        ("c", Kind::CharDevice(device)),
    ] {
        assert_eq!(s.mknod(&me, dir, name, kind), Err(FsError::NotPermitted));
        assert_eq!(ok(s.mknod(&Cred::root(), dir, name, kind)).kind, kind);
    }
    for (name, kind) in [("p", Kind::Fifo), ("s", Kind::Socket)] {
        let attr = ok(s.mknod(&me, dir, name, kind));
        assert_eq!(
            (attr.kind, attr.size, attr.nlink, attr.mode),
            (kind, 0, 1, 0o600)
        );
    }
    for kind in [Kind::Regular, Kind::Directory, Kind::Symlink] {
        assert_eq!(
            s.mknod(&Cred::root(), dir, "x", kind),
            Err(FsError::BadType)
        );
    }
}

pub(super) fn hard_links(s: &mut Subject<'_>) {
    let cred = Cred::root();
    let dir = open_dir(s, "d");
    let file = ok(s.file(&cred, dir, "f", 0o644)).ino;
    let attr = ok(s.link(&cred, file, dir, "g"));
    assert_eq!(
        (attr.nlink, attr.ctime, attr.change),
        (2, s.now().time, s.now().index)
    );
    assert_eq!(s.attr(dir).mtime, s.now().time);
    assert_eq!(ok(s.lookup(&cred, dir, "g")), attr);
    assert_eq!(s.link(&cred, file, dir, "g"), Err(FsError::Exists));
    assert_eq!(s.link(&cred, dir, dir, "h"), Err(FsError::NotPermitted));
    ok(s.remove(&cred, dir, "f"));
    let left = s.attr(file);
    assert_eq!((left.nlink, left.ctime), (1, s.now().time));
    ok(s.remove(&cred, dir, "g"));
    assert_eq!(s.fs.attr(file), Err(FsError::Stale));
    ok(s.chmod(&cred, dir, 0o755));
    let file = ok(s.file(&cred, dir, "f", 0o644)).ino;
    assert_eq!(
        s.link(&user(9, 9), file, dir, "g"),
        Err(FsError::AccessDenied)
    );
}

pub(super) fn inodes_never_reused(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let mut last = s.root();
    for _ in 0..5 {
        let ino = ok(s.file(&cred, root, "f", 0o644)).ino;
        assert!(ino > last);
        last = ino;
        ok(s.remove(&cred, root, "f"));
    }
}
