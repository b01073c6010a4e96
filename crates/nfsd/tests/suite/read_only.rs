//! A read-only export: mutations are refused as queries, with the attributes their failure tells.

use crate::server::{DATA, Server, everybody, plain};
use bytes::Bytes;
use haven_nfsd::Options;
use haven_proto::nfs3::*;

#[test]
fn mutations_get_rofs_and_are_not_logged() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    s.offer(&[(
        DATA,
        everybody(Options {
            read_only: true,
            ..plain()
        }),
    )]);
    let applied = s.index;
    let dir = WccData {
        before: None,
        after: Some(s.getattr(&root).unwrap()),
    };
    let own = WccData {
        before: None,
        after: Some(s.getattr(&file).unwrap()),
    };
    let rofs = Nfsstat3::RoFs;
    let place = s.at(&root, "x");
    let sattr = Sattr3::default();

    assert_eq!(s.setattr(&file, sattr, None), Res3::Fail(rofs, own));
    assert_eq!(s.write(&file, 0, b"x"), Res3::Fail(rofs, own));
    assert_eq!(
        s.create(&root, "x", Createhow3::Guarded(sattr)),
        Res3::Fail(rofs, dir)
    );
    assert_eq!(s.mkdir(&root, "x"), Res3::Fail(rofs, dir));
    assert_eq!(s.remove(&root, "f"), Res3::Fail(rofs, dir));
    assert_eq!(s.rmdir(&root, "f"), Res3::Fail(rofs, dir));
    let args = MknodArgs {
        place: place.clone(),
        what: Mknoddata3::Fifo(sattr),
    };
    assert_eq!(s.nfs::<MknodRes>(Args3::Mknod(args)), Res3::Fail(rofs, dir));
    let args = SymlinkArgs {
        place: place.clone(),
        symlink_attributes: sattr,
        symlink_data: "t".into(),
    };
    assert_eq!(
        s.nfs::<SymlinkRes>(Args3::Symlink(args)),
        Res3::Fail(rofs, dir)
    );
    let args = RenameArgs {
        from: s.at(&root, "f"),
        to: place.clone(),
    };
    let wcc = RenameWcc {
        fromdir_wcc: dir,
        todir_wcc: dir,
    };
    assert_eq!(
        s.nfs::<RenameRes>(Args3::Rename(args)),
        Res3::Fail(rofs, wcc)
    );
    let args = LinkArgs {
        file: file.clone(),
        link: place,
    };
    let wcc = LinkWcc {
        file_attributes: own.after,
        linkdir_wcc: dir,
    };
    assert_eq!(s.nfs::<LinkRes>(Args3::Link(args)), Res3::Fail(rofs, wcc));
    assert_eq!(s.index, applied);

    let bad = Fh3(Bytes::from_static(b"bad"));
    let none = WccData::default();
    assert_eq!(
        s.write(&bad, 0, b"x"),
        Res3::Fail(Nfsstat3::BadHandle, none)
    );
    assert!(s.read(&file, 0, 1).failure().is_none(), "reading goes on");
    let args = Args3::Access(AccessArgs {
        object: root,
        access: access::ALL,
    });
    let granted = s.nfs::<AccessRes>(args).ok_or_status().unwrap().access;
    assert_eq!(granted, access::READ | access::LOOKUP);
}
