//! Who may do what, and who may change attributes.

use super::{ok, open_dir, user};
use crate::conformance::subject::{Subject, mode_of};
use crate::{Access, Cookie, Cred, FsError, SetAttr, SetTime, Time};

pub(super) fn permission_bits(s: &mut Subject<'_>) {
    let root = Cred::root();
    let top = s.root();
    let dir = ok(s.mkdir(&root, top, "d", 0o700)).ino;
    ok(s.setattr(
        &root,
        dir,
        &SetAttr {
            uid: Some(10),
            gid: Some(20),
            ..SetAttr::default()
        },
    ));
    ok(s.file(&root, dir, "f", 0o644));
    let (owner, group, other) = (user(10, 1), user(11, 20), user(12, 1));
    for (mode, who, see, list, make) in [
        (0o700, &owner, true, true, true),
        (0o700, &group, false, false, false),
        (0o070, &group, true, true, true),
        (0o077, &owner, false, false, false),
        (0o705, &other, true, true, false),
        (0o704, &other, false, true, false),
        (0o701, &other, true, false, false),
        (0o702, &other, false, false, false),
        (0o000, &root, true, true, true),
    ] {
        ok(s.chmod(&root, dir, mode));
        let what = format!("mode {mode:o}, uid {}", who.uid);
        assert_eq!(s.lookup(who, dir, "f").is_ok(), see, "lookup: {what}");
        assert_eq!(s.lookup(who, dir, "..").is_ok(), see, "lookup ..: {what}");
        assert_eq!(
            s.list(who, dir, Cookie(0), 9).is_ok(),
            list,
            "readdir: {what}"
        );
        let made = s.file(who, dir, "new", 0o644);
        assert_eq!(made.is_ok(), make, "create: {what}");
        if make {
            ok(s.remove(who, dir, "new"));
        } else {
            assert_eq!(made, Err(FsError::AccessDenied), "{what}");
            assert_eq!(
                s.remove(who, dir, "f"),
                Err(FsError::AccessDenied),
                "{what}"
            );
        }
    }
}

pub(super) fn supplementary_groups(s: &mut Subject<'_>) {
    let root = Cred::root();
    let dir = open_dir(s, "d");
    let file = ok(s.file(&root, dir, "f", 0o060)).ino;
    ok(s.setattr(
        &root,
        file,
        &SetAttr {
            gid: Some(50),
            ..SetAttr::default()
        },
    ));
    let member = Cred {
        uid: 9,
        gid: 1,
        groups: vec![7, 50],
    };
    let stranger = Cred {
        uid: 9,
        gid: 1,
        groups: vec![7],
    };
    ok(s.write(&member, file, 0, b"x"));
    ok(s.read(&member, file, 0, 1));
    assert_eq!(
        s.write(&stranger, file, 0, b"x"),
        Err(FsError::AccessDenied)
    );
    assert_eq!(s.read(&stranger, file, 0, 1), Err(FsError::AccessDenied));
}

pub(super) fn owner_reads_and_writes(s: &mut Subject<'_>) {
    let dir = open_dir(s, "d");
    let me = user(10, 20);
    let file = ok(s.file(&me, dir, "f", 0)).ino;
    ok(s.write(&me, file, 0, b"x"));
    assert_eq!(&ok(s.read(&me, file, 0, 9)).data[..], b"x");
    let other = user(11, 20);
    assert_eq!(s.read(&other, file, 0, 9), Err(FsError::AccessDenied));
    ok(s.chmod(&me, file, 0o711));
    ok(s.read(&other, file, 0, 9));
    assert_eq!(s.write(&other, file, 0, b"y"), Err(FsError::AccessDenied));
}

pub(super) fn access_bits(s: &mut Subject<'_>) {
    let root = Cred::root();
    let dir = open_dir(s, "d");
    let all = Access {
        read: true,
        lookup: true,
        modify: true,
        extend: true,
        delete: true,
        execute: true,
    };
    let none = Access::default();
    let dir_all = Access {
        execute: false,
        ..all
    };
    assert_eq!(ok(s.fs.access(&user(1, 1), dir, all)), dir_all);
    assert_eq!(
        ok(s.fs.access(&user(1, 1), dir, none)),
        none,
        "never more than asked"
    );
    ok(s.chmod(&root, dir, 0o755));
    let look = Access {
        read: true,
        lookup: true,
        ..none
    };
    assert_eq!(ok(s.fs.access(&user(1, 1), dir, all)), look);
    let file = ok(s.file(&root, dir, "f", 0o645)).ino;
    let run = Access {
        read: true,
        execute: true,
        ..none
    };
    assert_eq!(ok(s.fs.access(&user(1, 1), file, all)), run);
    let file_all = Access {
        lookup: false,
        delete: false,
        ..all
    };
    assert_eq!(ok(s.fs.access(&root, file, all)), file_all);
    ok(s.chmod(&root, file, 0));
    let no_run = Access {
        execute: false,
        ..file_all
    };
    assert_eq!(
        ok(s.fs.access(&root, file, all)),
        no_run,
        "nobody runs what none may run"
    );
}

pub(super) fn chmod_rules(s: &mut Subject<'_>) {
    let dir = open_dir(s, "d");
    let me = Cred {
        uid: 10,
        gid: 20,
        groups: vec![21],
    };
    let file = ok(s.file(&me, dir, "f", 0o644)).ino;
    assert_eq!(
        s.chmod(&user(11, 20), file, 0o600),
        Err(FsError::NotPermitted)
    );
    let attr = ok(s.chmod(&me, file, 0o7_6755));
    assert_eq!(
        (attr.mode, attr.ctime, attr.change),
        (0o6755, s.now().time, s.now().index)
    );
    assert_ne!(attr.mtime, attr.ctime, "data did not change");
    ok(s.setattr(
        &Cred::root(),
        file,
        &SetAttr {
            gid: Some(99),
            ..SetAttr::default()
        },
    ));
    assert_eq!(
        ok(s.chmod(&me, file, 0o2755)).mode,
        0o755,
        "not a member of the group"
    );
    assert_eq!(ok(s.chmod(&Cred::root(), file, 0o2755)).mode, 0o2755);
    let link = ok(s.symlink(&me, dir, "l", b"t")).ino;
    assert_eq!(
        ok(s.chmod(&me, link, 0)).mode,
        0o777,
        "a symbolic link's mode stays"
    );
}

pub(super) fn chown_rules(s: &mut Subject<'_>) {
    let root = Cred::root();
    let dir = open_dir(s, "d");
    let me = Cred {
        uid: 10,
        gid: 20,
        groups: vec![21],
    };
    let file = ok(s.file(&me, dir, "f", 0o6755)).ino;
    let uid = |uid| SetAttr {
        uid: Some(uid),
        ..SetAttr::default()
    };
    let gid = |gid| SetAttr {
        gid: Some(gid),
        ..SetAttr::default()
    };
    assert_eq!(s.setattr(&me, file, &uid(11)), Err(FsError::NotPermitted));
    assert_eq!(s.setattr(&me, file, &gid(99)), Err(FsError::NotPermitted));
    assert_eq!(
        s.setattr(&user(11, 21), file, &gid(21)),
        Err(FsError::NotPermitted)
    );
    assert_eq!(s.attr(file).mode, 0o6755);
    let attr = ok(s.setattr(&me, file, &gid(21)));
    assert_eq!((attr.gid, attr.mode), (21, 0o755), "setuid and setgid go");
    ok(s.setattr(&me, file, &uid(10)));
    ok(s.chmod(&root, file, 0o6755));
    let both = SetAttr {
        uid: Some(11),
        gid: Some(99),
        ..SetAttr::default()
    };
    let attr = ok(s.setattr(&root, file, &both));
    assert_eq!((attr.uid, attr.gid, attr.mode), (11, 99, 0o755));
    ok(s.chmod(&root, file, 0o2644));
    assert_eq!(
        ok(s.setattr(&root, file, &gid(98))).mode,
        0o2644,
        "no group execution"
    );
    let sub = ok(s.mkdir(&me, dir, "sub", 0o755)).ino;
    ok(s.chmod(&me, sub, 0o2755));
    assert_eq!(
        ok(s.setattr(&me, sub, &gid(21))).mode,
        0o2755,
        "directories keep setgid"
    );
}

pub(super) fn utimes_rules(s: &mut Subject<'_>) {
    let dir = open_dir(s, "d");
    let me = user(10, 20);
    let file = ok(s.file(&me, dir, "f", 0o602)).ino;
    let time = Time { secs: -5, nanos: 3 };
    let client = SetAttr {
        atime: Some(SetTime::Client(time)),
        mtime: Some(SetTime::Client(time)),
        ..SetAttr::default()
    };
    let server = SetAttr {
        mtime: Some(SetTime::Server),
        ..SetAttr::default()
    };
    let attr = ok(s.setattr(&me, file, &client));
    assert_eq!(
        (attr.atime, attr.mtime, attr.ctime),
        (time, time, s.now().time)
    );
    let writer = user(11, 21);
    assert_eq!(
        s.setattr(&writer, file, &client),
        Err(FsError::NotPermitted)
    );
    let attr = ok(s.setattr(&writer, file, &server));
    assert_eq!((attr.atime, attr.mtime), (time, s.now().time));
    ok(s.chmod(&me, file, 0o600));
    assert_eq!(
        s.setattr(&writer, file, &server),
        Err(FsError::AccessDenied)
    );
    let bad = SetAttr {
        atime: Some(SetTime::Client(Time {
            secs: 1,
            nanos: u32::MAX,
        })),
        ..SetAttr::default()
    };
    assert_eq!(s.setattr(&me, file, &bad), Err(FsError::Invalid));
}

pub(super) fn guard(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let file = ok(s.file(&cred, root, "f", 0o644));
    let at = s.advance();
    let wrong = Some(Time { secs: 0, nanos: 0 });
    let refused = s.fs.setattr(&at, &cred, file.ino, &mode_of(0o600), wrong);
    assert_eq!(refused, Err(FsError::NotSync));
    assert_eq!(s.attr(file.ino), file);
    let at = s.advance();
    ok(s.fs.setattr(&at, &cred, file.ino, &mode_of(0o600), Some(file.ctime)));
    assert_eq!(s.attr(file.ino).mode, 0o600);
}

pub(super) fn empty_setattr(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let file = ok(s.file(&cred, root, "f", 0o644));
    assert_eq!(
        ok(s.setattr(&user(9, 9), file.ino, &SetAttr::default())),
        file
    );
}

pub(super) fn failed_mutations_change_nothing(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let dir = ok(s.mkdir(&cred, root, "d", 0o755)).ino;
    let file = ok(s.file(&cred, dir, "f", 0o644)).ino;
    let before = (s.attr(root), s.attr(dir), s.attr(file));
    let me = user(9, 9);
    assert!(s.write(&me, file, 0, b"x").is_err());
    assert!(s.remove(&me, dir, "f").is_err());
    assert!(s.file(&me, dir, "g", 0o644).is_err());
    assert!(s.rename(&me, (dir, "f"), (root, "f")).is_err());
    assert!(s.link(&me, file, dir, "g").is_err());
    assert!(s.rmdir(&cred, root, "d").is_err());
    let mixed = SetAttr {
        mode: Some(0o600),
        uid: Some(9),
        ..SetAttr::default()
    };
    assert!(s.setattr(&me, file, &mixed).is_err());
    let half = SetAttr {
        size: Some(0),
        uid: Some(9),
        ..SetAttr::default()
    };
    assert!(s.setattr(&me, file, &half).is_err());
    assert_eq!((s.attr(root), s.attr(dir), s.attr(file)), before);
}
