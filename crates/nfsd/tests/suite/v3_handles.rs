//! Handles that are short, forged, of other volumes, or of objects that are gone.

use crate::server::{HANDLE_KEY, Server, VOLUME_ID};
use bytes::Bytes;
use haven_fs::Ino;
use haven_nfsd::{ExportId, HandleCodec, HandleKey, Target, VolumeId};
use haven_proto::nfs3::*;

fn codec(volume: [u8; 16], key: [u8; 16]) -> HandleCodec {
    HandleCodec::new(VolumeId(volume), HandleKey(key))
}

fn handle(codec: &HandleCodec, ino: u64, generation: u32) -> Fh3 {
    Fh3(Bytes::copy_from_slice(&codec.encode(Target {
        export: ExportId(1),
        ino: Ino(ino),
        generation,
    })))
}

#[test]
fn mount_gives_the_handle_of_the_layout() {
    let server = Server::new();
    let own = codec(VOLUME_ID, HANDLE_KEY);
    assert_eq!(server.root, handle(&own, 2, 2), "made by the second entry");
}

#[test]
fn bad_handles_are_told_from_stale_ones() {
    let mut s = Server::new();
    let own = codec(VOLUME_ID, HANDLE_KEY);
    let mut forged = s.root.0.to_vec();
    forged[15] ^= 3;
    let mut long = s.root.0.to_vec();
    long.push(0);
    let mut version = s.root.0.to_vec();
    version[0] = 1;
    for bad in [
        forged,
        long,
        version,
        vec![],
        vec![0; 31],
        vec![0; 64],
        vec![0xff; 32],
    ] {
        let bad = Fh3(bad.into());
        assert_eq!(s.getattr(&bad), Err(Nfsstat3::BadHandle), "{bad:?}");
    }
    let no_key = handle(&codec(VOLUME_ID, [1; 16]), 2, 2);
    assert_eq!(s.getattr(&no_key), Err(Nfsstat3::BadHandle));
    for stale in [
        handle(&codec([9; 16], HANDLE_KEY), 2, 2),
        handle(&own, 2, 7),
        handle(&own, 1_000, 2),
        handle(&own, u64::MAX, u32::MAX),
    ] {
        assert_eq!(s.getattr(&stale), Err(Nfsstat3::Stale), "{stale:?}");
    }
}

#[test]
fn every_procedure_refuses_bad_handles() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let bad = Fh3(Bytes::from_static(&[5; 32]));
    let place = s.at(&bad, "x");
    let good = s.at(&root, "x");
    let at = Cookie3(0);
    let verf = Cookieverf3::default();
    let sattr = Sattr3::default();
    let calls = vec![
        Args3::Getattr(GetattrArgs {
            object: bad.clone(),
        }),
        Args3::Setattr(SetattrArgs {
            object: bad.clone(),
            new_attributes: sattr,
            guard: None,
        }),
        Args3::Lookup(LookupArgs {
            what: place.clone(),
        }),
        Args3::Access(AccessArgs {
            object: bad.clone(),
            access: 63,
        }),
        Args3::Readlink(ReadlinkArgs {
            symlink: bad.clone(),
        }),
        Args3::Read(ReadArgs {
            file: bad.clone(),
            offset: 0,
            count: 1,
        }),
        Args3::Write(WriteArgs {
            file: bad.clone(),
            offset: 0,
            count: 1,
            stable: StableHow::FileSync,
            data: Bytes::from_static(b"x"),
        }),
        Args3::Create(CreateArgs {
            place: place.clone(),
            how: Createhow3::Guarded(sattr),
        }),
        Args3::Mkdir(MkdirArgs {
            place: place.clone(),
            attributes: sattr,
        }),
        Args3::Symlink(SymlinkArgs {
            place: place.clone(),
            symlink_attributes: sattr,
            symlink_data: "t".into(),
        }),
        Args3::Mknod(MknodArgs {
            place: place.clone(),
            what: Mknoddata3::Fifo(sattr),
        }),
        Args3::Remove(RemoveArgs {
            object: place.clone(),
        }),
        Args3::Rmdir(RmdirArgs {
            object: place.clone(),
        }),
        Args3::Rename(RenameArgs {
            from: place.clone(),
            to: good.clone(),
        }),
        Args3::Rename(RenameArgs {
            from: good.clone(),
            to: place.clone(),
        }),
        Args3::Link(LinkArgs {
            file: bad.clone(),
            link: good,
        }),
        Args3::Link(LinkArgs { file, link: place }),
        Args3::Readdir(ReaddirArgs {
            dir: bad.clone(),
            cookie: at,
            cookieverf: verf,
            count: 999,
        }),
        Args3::Readdirplus(ReaddirplusArgs {
            dir: bad.clone(),
            cookie: at,
            cookieverf: verf,
            dircount: 999,
            maxcount: 999,
        }),
        Args3::Fsstat(FsstatArgs {
            fsroot: bad.clone(),
        }),
        Args3::Fsinfo(FsinfoArgs {
            fsroot: bad.clone(),
        }),
        Args3::Pathconf(PathconfArgs {
            object: bad.clone(),
        }),
        Args3::Commit(CommitArgs {
            file: bad,
            offset: 0,
            count: 0,
        }),
    ];
    for args in calls {
        let proc = args.proc();
        let status = status_of(&mut s, args);
        assert_eq!(status, Nfsstat3::BadHandle.to_wire(), "{proc:?}");
    }
}

/// The status that a result begins with.
fn status_of(s: &mut Server, args: Args3) -> u32 {
    let call = s.call(
        PROGRAM,
        VERSION,
        args.proc().to_wire(),
        crate::server::encoded(&args),
    );
    let reply = haven_rpc::decode_reply(s.send(&call).into_bytes()).unwrap();
    let haven_rpc::Outcome::Success(body) = reply.outcome else {
        panic!("executed")
    };
    haven_xdr::Reader::new(body).u32().unwrap()
}

#[test]
fn handles_of_removed_objects_are_stale() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    assert!(s.getattr(&file).is_ok());
    s.remove(&root, "f").ok_or_status().unwrap();
    assert_eq!(s.getattr(&file), Err(Nfsstat3::Stale));
    assert_eq!(
        s.write(&file, 0, b"x"),
        Res3::Fail(Nfsstat3::Stale, WccData::default())
    );
    let again = s.file(&root, "f");
    assert_ne!(again, file);
}
