use super::*;

fn attr(kind: Kind, mode: u32, uid: u32, gid: u32) -> Attr {
    Attr {
        kind,
        mode,
        uid,
        gid,
        ino: Ino(5),
        ..root_attr()
    }
}

fn user(uid: u32, gid: u32) -> Cred {
    Cred {
        uid,
        gid,
        groups: vec![],
    }
}

const AT: Change = Change {
    index: (7 << 32) | 9,
    time: Time { secs: 50, nanos: 1 },
};

#[test]
fn the_first_matching_class_decides() {
    let file = attr(Kind::Regular, 0o047, 1, 2);
    assert!(
        !permitted(&file, &user(1, 2), Perm::READ),
        "the owner's bits, not the group's"
    );
    assert!(permitted(&file, &user(3, 2), Perm::READ));
    assert!(
        !permitted(&file, &user(3, 2), Perm::WRITE),
        "the group's bits, not the others'"
    );
    assert!(permitted(
        &file,
        &user(3, 3),
        Perm::READ | Perm::WRITE | Perm::EXEC
    ));
}

#[test]
fn superuser_executes_only_what_someone_may() {
    let root = Cred::root();
    assert!(!permitted(
        &attr(Kind::Regular, 0o666, 1, 1),
        &root,
        Perm::EXEC
    ));
    assert!(permitted(
        &attr(Kind::Regular, 0o001, 1, 1),
        &root,
        Perm::EXEC
    ));
    assert!(permitted(
        &attr(Kind::Directory, 0, 1, 1),
        &root,
        Perm::WRITE_EXEC
    ));
}

#[test]
fn names() {
    assert_eq!(check_name(b"a"), Ok(()));
    assert_eq!(check_name(b".."), Ok(()));
    assert_eq!(check_name(&[b'a'; 255]), Ok(()));
    assert_eq!(check_name(&[b'a'; 256]), Err(FsError::NameTooLong));
    assert_eq!(check_name(b""), Err(FsError::Invalid));
    assert_eq!(check_new_name(b"..."), Ok(()));
    assert_eq!(check_new_name(b".."), Err(FsError::Exists));
}

#[test]
fn sizes_never_overflow() {
    assert_eq!(used(0), 0);
    assert_eq!(used(1), 4096);
    assert_eq!(used(4096), 4096);
    assert_eq!(used(4097), 8192);
    assert!(used(u64::MAX) > FILE_SIZE_MAX);
    assert_eq!(dir_size(0), 4096);
    assert_eq!(dir_size(64), 4096);
    assert_eq!(dir_size(65), 8192);
    assert_eq!(write_end(FILE_SIZE_MAX, 0), Ok(FILE_SIZE_MAX));
    assert_eq!(write_end(FILE_SIZE_MAX, 1), Err(FsError::TooLarge));
    assert_eq!(write_end(u64::MAX, 1), Err(FsError::TooLarge));
}

#[test]
fn link_limits() {
    assert_eq!(links_after_link(1), Ok(2));
    assert_eq!(links_after_link(LINKS_MAX), Err(FsError::TooManyLinks));
    assert_eq!(links_after_subdir(LINKS_MAX), Ok(LINKS_MAX + 1));
    assert_eq!(links_after_subdir(u32::MAX), Err(FsError::TooManyLinks));
}

#[test]
fn killpriv_keeps_setgid_without_group_execution() {
    assert_eq!(killpriv(0o6755), 0o755);
    assert_eq!(killpriv(0o6745), 0o2745);
    assert_eq!(killpriv(0o1777), 0o1777);
}

#[test]
fn owner_and_mode_in_one_request() {
    let file = attr(Kind::Regular, 0o755, 1, 1);
    let set = SetAttr {
        mode: Some(0o6755),
        uid: Some(2),
        ..SetAttr::default()
    };
    let new = apply_setattr(&file, &set, &Cred::root(), &AT).expect("root may");
    assert_eq!((new.uid, new.mode), (2, 0o755));
    let mode_only = SetAttr {
        mode: Some(0o6755),
        ..SetAttr::default()
    };
    let new = apply_setattr(&file, &mode_only, &Cred::root(), &AT).expect("root may");
    assert_eq!(new.mode, 0o6755);
}

#[test]
fn a_size_sets_mtime_unless_one_is_given() {
    let file = attr(Kind::Regular, 0o4755, 1, 1);
    let set = SetAttr {
        size: Some(10),
        ..SetAttr::default()
    };
    let new = apply_setattr(&file, &set, &user(1, 1), &AT).expect("the owner may");
    assert_eq!(
        (new.mtime, new.size, new.used, new.mode),
        (AT.time, 10, 4096, 0o755)
    );
    let time = Time { secs: 3, nanos: 0 };
    let set = SetAttr {
        mtime: Some(SetTime::Client(time)),
        ..set
    };
    let new = apply_setattr(&file, &set, &user(1, 1), &AT).expect("the owner may");
    assert_eq!(
        (new.mtime, new.ctime, new.change),
        (time, AT.time, AT.index)
    );
}

#[test]
fn generation_is_the_low_half_of_the_index() {
    let parent = attr(Kind::Directory, 0o777, 0, 0);
    let new = new_attr(
        &parent,
        Kind::Regular,
        &SetAttr::default(),
        &user(1, 1),
        &AT,
        Ino(8),
    )
    .expect("nothing to refuse");
    assert_eq!((new.generation, new.change, new.ino), (9, AT.index, Ino(8)));
}

#[test]
fn rename_between_directories_needs_the_directory_itself() {
    let (a, b) = (
        attr(Kind::Directory, 0o777, 0, 0),
        Attr {
            ino: Ino(6),
            ..root_attr()
        },
    );
    let b = Attr { mode: 0o777, ..b };
    let moved = Attr {
        ino: Ino(7),
        ..attr(Kind::Directory, 0o555, 1, 1)
    };
    assert_eq!(check_rename(&a, &moved, &a, None, &user(1, 1)), Ok(()));
    assert_eq!(
        check_rename(&a, &moved, &b, None, &user(1, 1)),
        Err(FsError::AccessDenied)
    );
}
