//! Taking names away and moving them.

use super::{names, ok, open_dir, user};
use crate::conformance::subject::{Subject, mode_of};
use crate::{Cookie, Cred, FsError, Ino, Level, MOVE_DEPTH_MAX, SetAttr};

pub(super) fn remove_rules(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    ok(s.mkdir(&cred, root, "d", 0o755));
    assert_eq!(s.remove(&cred, root, "d"), Err(FsError::IsDirectory));
    assert_eq!(s.remove(&cred, root, "none"), Err(FsError::NotFound));
    assert_eq!(s.remove(&user(9, 9), root, "none"), Err(FsError::NotFound));
    assert_eq!(s.remove(&user(9, 9), root, "d"), Err(FsError::AccessDenied));
    let file = ok(s.file(&cred, root, "f", 0o644)).ino;
    ok(s.write(&cred, file, 0, b"data"));
    ok(s.remove(&cred, root, "f"));
    assert_eq!(s.attr(root).mtime, s.now().time);
    assert_eq!(s.read(&cred, file, 0, 9), Err(FsError::Stale));
    assert_eq!(names(s, root), ["d"]);
}

pub(super) fn sticky_directory(s: &mut Subject<'_>) {
    let root = Cred::root();
    let dir = open_dir(s, "d");
    ok(s.setattr(
        &root,
        dir,
        &SetAttr {
            uid: Some(5),
            ..mode_of(0o1777)
        },
    ));
    let (owner, mine, other) = (user(5, 5), user(10, 20), user(11, 20));
    for name in ["a", "b", "c"] {
        ok(s.file(&mine, dir, name, 0o666));
    }
    assert_eq!(s.remove(&other, dir, "a"), Err(FsError::NotPermitted));
    ok(s.remove(&mine, dir, "a"));
    ok(s.remove(&owner, dir, "b"));
    ok(s.remove(&root, dir, "c"));
    ok(s.mkdir(&mine, dir, "sub", 0o777));
    assert_eq!(s.rmdir(&other, dir, "sub"), Err(FsError::NotPermitted));
    ok(s.rmdir(&mine, dir, "sub"));
}

pub(super) fn rmdir_rules(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let dir = ok(s.mkdir(&cred, root, "d", 0o755)).ino;
    ok(s.file(&cred, dir, "f", 0o644));
    assert_eq!(s.rmdir(&cred, root, "d"), Err(FsError::NotEmpty));
    assert_eq!(s.rmdir(&cred, dir, "f"), Err(FsError::NotDirectory));
    assert_eq!(s.rmdir(&cred, root, "none"), Err(FsError::NotFound));
    ok(s.remove(&cred, dir, "f"));
    ok(s.rmdir(&cred, root, "d"));
    assert_eq!(s.fs.attr(dir), Err(FsError::Stale));
    assert_eq!(s.file(&cred, dir, "f", 0o644), Err(FsError::Stale));
}

pub(super) fn rename_file(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let a = ok(s.mkdir(&cred, root, "a", 0o755)).ino;
    let b = ok(s.mkdir(&cred, root, "b", 0o755)).ino;
    let file = ok(s.file(&cred, a, "f", 0o644)).ino;
    ok(s.rename(&cred, (a, "f"), (b, "g")));
    let now = s.now();
    assert_eq!(s.lookup(&cred, a, "f"), Err(FsError::NotFound));
    let moved = ok(s.lookup(&cred, b, "g"));
    assert_eq!(
        (moved.ino, moved.ctime, moved.change),
        (file, now.time, now.index)
    );
    assert_ne!(moved.mtime, now.time);
    for dir in [a, b] {
        let dir = s.attr(dir);
        assert_eq!(
            (dir.mtime, dir.ctime, dir.change),
            (now.time, now.time, now.index)
        );
    }
    ok(s.rename(&cred, (b, "g"), (b, "h")));
    assert_eq!(names(s, b), ["h"]);
    assert_eq!(
        s.rename(&cred, (b, "none"), (b, "x")),
        Err(FsError::NotFound)
    );
    assert_eq!(
        s.rename(&user(9, 9), (b, "h"), (b, "x")),
        Err(FsError::AccessDenied)
    );
}

pub(super) fn rename_same_inode(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let file = ok(s.file(&cred, root, "f", 0o644)).ino;
    ok(s.link(&cred, file, root, "g"));
    let before = (s.attr(root), s.attr(file));
    ok(s.rename(&cred, (root, "f"), (root, "g")));
    ok(s.rename(&cred, (root, "f"), (root, "f")));
    assert_eq!((s.attr(root), s.attr(file)), before, "nothing changes");
    assert_eq!(names(s, root), ["f", "g"]);
}

pub(super) fn rename_replaces(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let (f, g) = (
        ok(s.file(&cred, root, "f", 0o644)).ino,
        ok(s.file(&cred, root, "g", 0o644)).ino,
    );
    ok(s.link(&cred, g, root, "other"));
    ok(s.rename(&cred, (root, "f"), (root, "g")));
    assert_eq!(ok(s.lookup(&cred, root, "g")).ino, f);
    let left = s.attr(g);
    assert_eq!(
        (left.nlink, left.ctime),
        (1, s.now().time),
        "the other name remains"
    );
    ok(s.rename(&cred, (root, "g"), (root, "other")));
    assert_eq!(s.fs.attr(g), Err(FsError::Stale));
    ok(s.mkdir(&cred, root, "d", 0o755));
    assert_eq!(
        s.rename(&cred, (root, "other"), (root, "d")),
        Err(FsError::IsDirectory)
    );
    assert_eq!(
        s.rename(&cred, (root, "d"), (root, "other")),
        Err(FsError::NotDirectory)
    );
    ok(s.symlink(&cred, root, "l", b"d"));
    ok(s.rename(&cred, (root, "l"), (root, "other")));
    assert_eq!(names(s, root), ["d", "other"]);
}

pub(super) fn rename_directories(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let a = ok(s.mkdir(&cred, root, "a", 0o755)).ino;
    let b = ok(s.mkdir(&cred, root, "b", 0o755)).ino;
    ok(s.file(&cred, b, "f", 0o644));
    assert_eq!(
        s.rename(&cred, (root, "a"), (root, "b")),
        Err(FsError::NotEmpty)
    );
    ok(s.rename(&cred, (root, "b"), (root, "a")));
    assert_eq!(
        s.fs.attr(a),
        Err(FsError::Stale),
        "the empty directory is replaced"
    );
    assert_eq!(ok(s.lookup(&cred, root, "a")).ino, b);
    assert_eq!(names(s, b), ["f"]);
    // Another parent rewrites `..`, which needs write permission on the directory itself.
    let open = open_dir(s, "open");
    let open2 = open_dir(s, "open2");
    ok(s.mkdir(&user(5, 5), open, "mine", 0o555));
    assert_eq!(
        s.rename(&user(5, 5), (open, "mine"), (open2, "mine")),
        Err(FsError::AccessDenied)
    );
    ok(s.rename(&user(5, 5), (open, "mine"), (open, "still")));
}

pub(super) fn rename_loops(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let a = ok(s.mkdir(&cred, root, "a", 0o755)).ino;
    let b = ok(s.mkdir(&cred, a, "b", 0o755)).ino;
    let c = ok(s.mkdir(&cred, b, "c", 0o755)).ino;
    for below in [a, b, c] {
        assert_eq!(
            s.rename(&cred, (root, "a"), (below, "x")),
            Err(FsError::Invalid)
        );
    }
    assert_eq!(
        s.rename(&cred, (b, "c"), (root, "a")),
        Err(FsError::NotEmpty)
    );
    ok(s.rename(&cred, (a, "b"), (root, "b")));
    ok(s.rename(&cred, (root, "a"), (c, "a")));
    assert_eq!(ok(s.lookup(&cred, a, "..")).ino, c);
}

pub(super) fn rename_dot_dot(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    let a = ok(s.mkdir(&cred, root, "a", 0o755)).ino;
    let b = ok(s.mkdir(&cred, root, "b", 0o755)).ino;
    ok(s.rename(&cred, (root, "b"), (a, "b")));
    assert_eq!(ok(s.lookup(&cred, b, "..")).ino, a);
    let (entries, _) = ok(s.list(&cred, b, Cookie(0), 9));
    assert_eq!(
        entries,
        [
            (b".".to_vec(), b, Cookie(1)),
            (b"..".to_vec(), a, Cookie(2))
        ]
    );
}

pub(super) fn rename_sticky(s: &mut Subject<'_>) {
    let root = Cred::root();
    let dir = open_dir(s, "d");
    ok(s.chmod(&root, dir, 0o1777));
    let (mine, other) = (user(10, 20), user(11, 20));
    ok(s.file(&mine, dir, "mine", 0o666));
    ok(s.file(&other, dir, "other", 0o666));
    assert_eq!(
        s.rename(&other, (dir, "mine"), (dir, "x")),
        Err(FsError::NotPermitted)
    );
    assert_eq!(
        s.rename(&other, (dir, "other"), (dir, "mine")),
        Err(FsError::NotPermitted)
    );
    ok(s.rename(&mine, (dir, "mine"), (dir, "x")));
}

/// Directories one below the other: the first is the root, so a place in the list is a depth.
fn chain(s: &mut Subject<'_>, levels: usize) -> Vec<Ino> {
    let mut chain = vec![s.root()];
    for level in 0..levels {
        chain.push(ok(s.mkdir(&Cred::root(), chain[level], "d", 0o755)).ino);
    }
    chain
}

pub(super) fn rename_deep_down(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    s.fs.set_level(Level::BOUNDED_MOVES);
    let chain = chain(s, MOVE_DEPTH_MAX + 3);
    let (deepest, too_deep) = (chain[MOVE_DEPTH_MAX + 3], chain[MOVE_DEPTH_MAX + 1]);
    let tree = ok(s.mkdir(&cred, root, "tree", 0o755)).ino;
    ok(s.mkdir(&cred, tree, "below", 0o755));
    let before = (s.attr(root), s.attr(tree), s.attr(too_deep));
    assert_eq!(
        s.rename(&cred, (root, "tree"), (too_deep, "tree")),
        Err(FsError::NameTooLong)
    );
    let after = (s.attr(root), s.attr(tree), s.attr(too_deep));
    assert_eq!(before, after, "nothing changes");
    ok(s.rename(&cred, (root, "tree"), (chain[MOVE_DEPTH_MAX], "tree")));
    assert_eq!(ok(s.lookup(&cred, tree, "..")).ino, chain[MOVE_DEPTH_MAX]);

    // What lies deeper can be made and used, moved within its directory and out, and removed.
    ok(s.mkdir(&cred, root, "empty", 0o755));
    ok(s.rename(&cred, (root, "empty"), (deepest, "empty")));
    ok(s.file(&cred, root, "f", 0o644));
    ok(s.rename(&cred, (root, "f"), (deepest, "f")));
    let tree = ok(s.mkdir(&cred, deepest, "tree", 0o755)).ino;
    ok(s.mkdir(&cred, tree, "below", 0o755));
    ok(s.rename(&cred, (deepest, "tree"), (deepest, "same")));
    assert_eq!(
        s.rename(&cred, (root, "d"), (tree, "loop")),
        Err(FsError::NameTooLong)
    );
    assert_eq!(
        s.rename(&cred, (deepest, "same"), (tree, "loop")),
        Err(FsError::Invalid)
    );
    ok(s.rename(&cred, (deepest, "same"), (root, "out")));
    assert_eq!(
        s.rename(&cred, (deepest, "f"), (root, "d")),
        Err(FsError::IsDirectory)
    );
    ok(s.remove(&cred, deepest, "f"));
    ok(s.rmdir(&cred, deepest, "empty"));
    ok(s.rmdir(&cred, chain[MOVE_DEPTH_MAX + 2], "d"));
}

pub(super) fn rename_deep_down_at_first(s: &mut Subject<'_>) {
    let (root, cred) = (s.root(), Cred::root());
    s.fs.set_level(Level::FIRST);
    let chain = chain(s, MOVE_DEPTH_MAX + 3);
    let deepest = chain[MOVE_DEPTH_MAX + 3];
    let tree = ok(s.mkdir(&cred, root, "tree", 0o755)).ino;
    ok(s.mkdir(&cred, tree, "below", 0o755));
    ok(s.rename(&cred, (root, "tree"), (deepest, "tree")));
    assert_eq!(
        s.rename(&cred, (root, "d"), (tree, "loop")),
        Err(FsError::Invalid)
    );
    ok(s.file(&cred, deepest, "f", 0o644));
    assert_eq!(
        s.rename(&cred, (deepest, "f"), (root, "d")),
        Err(FsError::NotEmpty)
    );
}
