//! LOOKUP, READLINK, CREATE, MKDIR, SYMLINK, MKNOD, REMOVE, RMDIR, RENAME, LINK.

use crate::server::{Server, mode, wcc_of};
use haven_proto::nfs3::*;

/// Directory attributes around an operation that changed it.
fn changed(s: &mut Server, before: &Fattr3) -> WccData {
    let root = s.root.clone();
    let after = s.getattr(&root).unwrap();
    assert!(after.ctime > before.ctime, "the directory changed");
    WccData {
        before: wcc_of(before),
        after: Some(after),
    }
}

/// Directory attributes around an operation that did not change it.
fn unchanged(attr: &Fattr3) -> WccData {
    WccData {
        before: wcc_of(attr),
        after: Some(*attr),
    }
}

#[test]
fn lookup() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let dir_attributes = Some(s.getattr(&root).unwrap());
    let obj_attributes = Some(s.getattr(&file).unwrap());
    let found = s.lookup(&root, "f");
    assert_eq!(
        found,
        Res3::Ok(LookupOk {
            object: file.clone(),
            obj_attributes,
            dir_attributes
        })
    );
    assert_eq!(
        s.lookup(&root, "x"),
        Res3::Fail(Nfsstat3::NoEnt, dir_attributes)
    );
    assert_eq!(
        s.lookup(&file, "x"),
        Res3::Fail(Nfsstat3::NotDir, obj_attributes)
    );
    assert_eq!(
        s.lookup(&root, &"n".repeat(256)).failure(),
        Some(Nfsstat3::NameTooLong)
    );
    assert_eq!(s.lookup(&root, "a/b").failure(), Some(Nfsstat3::Inval));
    assert_eq!(s.lookup(&root, "").failure(), Some(Nfsstat3::Inval));
}

#[test]
fn dot_dot_stays_inside_the_export() {
    let mut s = Server::new();
    let root = s.root.clone();
    let sub = s.dir(&root, "sub");
    assert_eq!(s.lookup(&sub, "..").ok_or_status().unwrap().object, root);
    let above = s.lookup(&root, "..").ok_or_status().unwrap();
    let attr = s.getattr(&root).unwrap();
    assert_eq!((above.object, above.obj_attributes), (root, Some(attr)));
}

#[test]
fn create_in_all_modes() {
    let mut s = Server::new();
    let root = s.root.clone();
    let before = s.getattr(&root).unwrap();
    let made = s
        .create(&root, "f", Createhow3::Guarded(mode(0o644)))
        .ok_or_status()
        .unwrap();
    assert_eq!(made.dir_wcc, changed(&mut s, &before));
    let file = made.obj.unwrap();
    assert_eq!(made.obj_attributes, Some(s.getattr(&file).unwrap()));

    let dir = s.getattr(&root).unwrap();
    let again = s.create(&root, "f", Createhow3::Guarded(mode(0o600)));
    assert_eq!(again, Res3::Fail(Nfsstat3::Exist, unchanged(&dir)));
    s.write(&file, 0, b"data").ok_or_status().unwrap();
    let cut = Sattr3 {
        size: Some(0),
        ..mode(0o600)
    };
    let opened = s
        .create(&root, "f", Createhow3::Unchecked(cut))
        .ok_or_status()
        .unwrap();
    assert_eq!(opened.obj, Some(file));
    let attr = opened.obj_attributes.unwrap();
    assert_eq!((attr.size, attr.mode), (0, 0o644));

    let verf = Createhow3::Exclusive(Createverf3([7; 8]));
    let first = s.create(&root, "x", verf).ok_or_status().unwrap();
    let second = s.create(&root, "x", verf).ok_or_status().unwrap();
    assert_eq!(first.obj, second.obj);
    let other = Createhow3::Exclusive(Createverf3([8; 8]));
    assert_eq!(s.create(&root, "x", other).failure(), Some(Nfsstat3::Exist));
    assert_eq!(s.create(&root, "..", verf).failure(), Some(Nfsstat3::Exist));
}

#[test]
fn mkdir_and_rmdir() {
    let mut s = Server::new();
    let root = s.root.clone();
    let before = s.getattr(&root).unwrap();
    let made = s.mkdir(&root, "d").ok_or_status().unwrap();
    assert_eq!(made.dir_wcc, changed(&mut s, &before));
    let dir = made.obj.unwrap();
    assert_eq!(s.mkdir(&root, "d").failure(), Some(Nfsstat3::Exist));
    s.file(&dir, "f");
    assert_eq!(s.rmdir(&root, "d").failure(), Some(Nfsstat3::NotEmpty));
    assert_eq!(s.rmdir(&dir, "f").failure(), Some(Nfsstat3::NotDir));
    s.remove(&dir, "f").ok_or_status().unwrap();
    let before = s.getattr(&root).unwrap();
    let wcc = s.rmdir(&root, "d").ok_or_status().unwrap();
    assert_eq!(wcc, changed(&mut s, &before));
    let now = s.getattr(&root).unwrap();
    assert_eq!(
        s.rmdir(&root, "d"),
        Res3::Fail(Nfsstat3::NoEnt, unchanged(&now))
    );
}

#[test]
fn symlink_and_readlink() {
    let mut s = Server::new();
    let root = s.root.clone();
    let before = s.getattr(&root).unwrap();
    let place = s.at(&root, "l");
    let (symlink_attributes, symlink_data) = (Sattr3::default(), "../target".into());
    let args = SymlinkArgs {
        place,
        symlink_attributes,
        symlink_data,
    };
    let made = s
        .nfs::<SymlinkRes>(Args3::Symlink(args.clone()))
        .ok_or_status()
        .unwrap();
    assert_eq!(made.dir_wcc, changed(&mut s, &before));
    assert_eq!(
        s.nfs::<SymlinkRes>(Args3::Symlink(args)).failure(),
        Some(Nfsstat3::Exist)
    );
    let symlink = made.obj.unwrap();
    let read =
        |s: &mut Server, symlink| s.nfs::<ReadlinkRes>(Args3::Readlink(ReadlinkArgs { symlink }));
    let ok = read(&mut s, symlink).ok_or_status().unwrap();
    assert_eq!(ok.data, "../target".into());
    assert_eq!(ok.symlink_attributes, made.obj_attributes);
    let attr = s.getattr(&root).unwrap();
    assert_eq!(read(&mut s, root), Res3::Fail(Nfsstat3::Inval, Some(attr)));
}

#[test]
fn mknod() {
    let mut s = Server::new();
    let root = s.root.clone();
    let make = |s: &mut Server, name: &str, what| {
        let place = s.at(&s.root, name);
        s.nfs::<MknodRes>(Args3::Mknod(MknodArgs { place, what }))
    };
    let spec = Specdata3 {
        specdata1: 8,
        specdata2: 1,
    };
    let device = Devicedata3 {
        dev_attributes: mode(0o600),
        spec,
    };
    let before = s.getattr(&root).unwrap();
    let made = make(&mut s, "b", Mknoddata3::Blk(device))
        .ok_or_status()
        .unwrap();
    assert_eq!(made.dir_wcc, changed(&mut s, &before));
    let attr = made.obj_attributes.unwrap();
    assert_eq!((attr.ftype, attr.rdev), (Ftype3::Blk, spec));
    make(&mut s, "c", Mknoddata3::Chr(device))
        .ok_or_status()
        .unwrap();
    s.as_user(7, 7);
    let fifo = make(&mut s, "p", Mknoddata3::Fifo(mode(0o600)))
        .ok_or_status()
        .unwrap();
    assert_eq!(
        fifo.obj_attributes.map(|a| (a.ftype, a.uid)),
        Some((Ftype3::Fifo, 7))
    );
    make(&mut s, "s", Mknoddata3::Sock(mode(0o600)))
        .ok_or_status()
        .unwrap();
    assert_eq!(
        make(&mut s, "d", Mknoddata3::Chr(device)).failure(),
        Some(Nfsstat3::Perm)
    );
    let dir = s.getattr(&root).unwrap();
    for ftype in [Ftype3::Reg, Ftype3::Dir, Ftype3::Lnk] {
        let refused = make(&mut s, "r", Mknoddata3::Other(ftype));
        assert_eq!(refused, Res3::Fail(Nfsstat3::BadType, unchanged(&dir)));
    }
}

#[test]
fn remove() {
    let mut s = Server::new();
    let root = s.root.clone();
    s.file(&root, "f");
    s.dir(&root, "d");
    let before = s.getattr(&root).unwrap();
    let wcc = s.remove(&root, "f").ok_or_status().unwrap();
    assert_eq!(wcc, changed(&mut s, &before));
    let now = s.getattr(&root).unwrap();
    assert_eq!(
        s.remove(&root, "f"),
        Res3::Fail(Nfsstat3::NoEnt, unchanged(&now))
    );
    assert_eq!(s.remove(&root, "d").failure(), Some(Nfsstat3::IsDir));
    s.setattr(&root, mode(0o1777), None).ok_or_status().unwrap();
    s.file(&root, "mine");
    s.as_user(7, 7);
    assert_eq!(
        s.remove(&root, "mine").failure(),
        Some(Nfsstat3::Perm),
        "sticky"
    );
}

#[test]
fn rename() {
    let mut s = Server::new();
    let root = s.root.clone();
    let (a, b) = (s.dir(&root, "a"), s.dir(&root, "b"));
    let file = s.file(&a, "f");
    let (a_before, b_before) = (s.getattr(&a).unwrap(), s.getattr(&b).unwrap());
    let wcc = s.rename((&a, "f"), (&b, "g")).ok_or_status().unwrap();
    let (a_after, b_after) = (s.getattr(&a).unwrap(), s.getattr(&b).unwrap());
    assert_eq!(
        wcc.fromdir_wcc,
        WccData {
            before: wcc_of(&a_before),
            after: Some(a_after)
        }
    );
    assert_eq!(
        wcc.todir_wcc,
        WccData {
            before: wcc_of(&b_before),
            after: Some(b_after)
        }
    );
    assert_eq!(s.lookup(&b, "g").ok_or_status().unwrap().object, file);
    let refused = s.rename((&a, "f"), (&b, "h"));
    let wcc = RenameWcc {
        fromdir_wcc: unchanged(&a_after),
        todir_wcc: unchanged(&b_after),
    };
    assert_eq!(refused, Res3::Fail(Nfsstat3::NoEnt, wcc));
    assert_eq!(
        s.rename((&root, "a"), (&a, "x")).failure(),
        Some(Nfsstat3::Inval)
    );
    assert_eq!(
        s.rename((&b, "g"), (&root, "a")).failure(),
        Some(Nfsstat3::IsDir)
    );
    assert_eq!(
        s.rename((&root, "a"), (&root, "b")).failure(),
        Some(Nfsstat3::NotEmpty)
    );
}

#[test]
fn link() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let before = s.getattr(&root).unwrap();
    let link = |s: &mut Server, file: &Fh3, name: &str| {
        let link = s.at(&s.root, name);
        s.nfs::<LinkRes>(Args3::Link(LinkArgs {
            file: file.clone(),
            link,
        }))
    };
    let made = link(&mut s, &file, "g").ok_or_status().unwrap();
    assert_eq!(made.linkdir_wcc, changed(&mut s, &before));
    let attr = s.getattr(&file).unwrap();
    assert_eq!((made.file_attributes, attr.nlink), (Some(attr), 2));
    let dir = s.getattr(&root).unwrap();
    let wcc = LinkWcc {
        file_attributes: Some(attr),
        linkdir_wcc: unchanged(&dir),
    };
    assert_eq!(link(&mut s, &file, "g"), Res3::Fail(Nfsstat3::Exist, wcc));
    assert_eq!(link(&mut s, &root, "h").failure(), Some(Nfsstat3::Perm));
}
