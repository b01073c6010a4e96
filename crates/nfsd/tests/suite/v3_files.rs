//! GETATTR, SETATTR, ACCESS, READ, WRITE, COMMIT, FSSTAT, FSINFO, PATHCONF.

use crate::server::{Server, VOLUME_ID, encoded, mode, results, wcc_of};
use bytes::Bytes;
use haven_fs::model::Model;
use haven_fs::{Level, Time};
use haven_nfsd::{Entry, IO_BYTES_MAX, Machine};
use haven_proto::nfs3::*;
use haven_rpc::{AcceptError, Call};
use haven_xdr::Gather;

#[test]
fn getattr() {
    let mut s = Server::new();
    let root = s.root.clone();
    let attr = s.getattr(&root).unwrap();
    assert_eq!((attr.ftype, attr.mode, attr.nlink), (Ftype3::Dir, 0o777, 2));
    assert_eq!(
        (attr.fsid, attr.fileid),
        (0x0102_0304_0506_0708, Fileid3(2))
    );
    let file = s.file(&root, "f");
    s.write(&file, 0, b"hello").ok_or_status().unwrap();
    let attr = s.getattr(&file).unwrap();
    assert_eq!((attr.ftype, attr.size, attr.used), (Ftype3::Reg, 5, 4096));
}

#[test]
fn setattr_with_wcc_and_guard() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let before = s.getattr(&file).unwrap();
    let set = Sattr3 {
        mode: Some(0o600),
        size: Some(100),
        mtime: SetTime::ClientTime(Nfstime3 {
            seconds: 7,
            nseconds: 8,
        }),
        ..Sattr3::default()
    };
    let wcc = s.setattr(&file, set, None).ok_or_status().unwrap();
    let after = s.getattr(&file).unwrap();
    assert_eq!(
        wcc,
        WccData {
            before: wcc_of(&before),
            after: Some(after)
        }
    );
    assert_eq!((after.mode, after.size), (0o600, 100));
    assert_eq!(
        after.mtime,
        Nfstime3 {
            seconds: 7,
            nseconds: 8
        }
    );

    let wrong = Some(before.ctime);
    let refused = s.setattr(&file, mode(0), wrong);
    let unchanged = WccData {
        before: wcc_of(&after),
        after: Some(after),
    };
    assert_eq!(refused, Res3::Fail(Nfsstat3::NotSync, unchanged));
    s.setattr(&file, mode(0o640), Some(after.ctime))
        .ok_or_status()
        .unwrap();

    let bad_time = SetTime::ClientTime(Nfstime3 {
        seconds: 1,
        nseconds: u32::MAX,
    });
    let bad = Sattr3 {
        atime: bad_time,
        ..Sattr3::default()
    };
    assert_eq!(s.setattr(&file, bad, None).failure(), Some(Nfsstat3::Inval));
    let huge = Sattr3 {
        size: Some(u64::MAX),
        ..Sattr3::default()
    };
    assert_eq!(s.setattr(&file, huge, None).failure(), Some(Nfsstat3::FBig));
    s.as_user(7, 7);
    assert_eq!(
        s.setattr(&file, mode(0), None).failure(),
        Some(Nfsstat3::Perm)
    );
}

#[test]
fn access() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let ask = |s: &mut Server, object: &Fh3, access| {
        let args = Args3::Access(AccessArgs {
            object: object.clone(),
            access,
        });
        s.nfs::<AccessRes>(args).ok_or_status().unwrap().access
    };
    s.as_user(7, 7);
    assert_eq!(ask(&mut s, &file, access::ALL), access::READ);
    assert_eq!(ask(&mut s, &file, access::MODIFY), 0);
    let all_of_dir = access::ALL & !access::EXECUTE;
    assert_eq!(ask(&mut s, &root, u32::MAX), all_of_dir);
}

#[test]
fn write_and_read() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let before = s.getattr(&file).unwrap();
    let written = s.write(&file, 3, b"hello").ok_or_status().unwrap();
    let after = s.getattr(&file).unwrap();
    assert_eq!(
        written.file_wcc,
        WccData {
            before: wcc_of(&before),
            after: Some(after)
        }
    );
    assert_eq!((written.count, written.committed), (5, StableHow::FileSync));
    assert_eq!(written.verf.0, VOLUME_ID[8..]);
    let read = s.read(&file, 0, 100).ok_or_status().unwrap();
    assert_eq!(
        (read.count, read.eof, &read.data[..]),
        (8, true, &b"\0\0\0hello"[..])
    );
    assert_eq!(read.file_attributes, Some(after));
    let part = s.read(&file, 3, 2).ok_or_status().unwrap();
    assert_eq!(
        (part.count, part.eof, &part.data[..]),
        (2, false, &b"he"[..])
    );
    let past = s.read(&file, 1 << 40, 2).ok_or_status().unwrap();
    assert_eq!((past.count, past.eof), (0, true));
}

#[test]
fn one_mebibyte_at_once() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let data: Vec<u8> = (0..IO_BYTES_MAX).map(|i| (i % 253) as u8).collect();
    assert_eq!(
        s.write(&file, 0, &data).ok_or_status().unwrap().count,
        IO_BYTES_MAX
    );
    s.write(&file, u64::from(IO_BYTES_MAX), b"more")
        .ok_or_status()
        .unwrap();
    let read = s.read(&file, 0, u32::MAX).ok_or_status().unwrap();
    assert_eq!((read.count, read.eof), (IO_BYTES_MAX, false));
    assert_eq!(&read.data[..], &data[..]);
}

#[test]
fn failures_of_write_and_read() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let attr = s.getattr(&file).unwrap();
    let same = WccData {
        before: wcc_of(&attr),
        after: Some(attr),
    };
    let limit = (16 << 40) - 4096;
    for offset in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, limit - 2] {
        let refused = s.write(&file, offset, b"xyz");
        assert_eq!(refused, Res3::Fail(Nfsstat3::FBig, same), "at {offset}");
    }
    for offset in [u64::MAX, 1 << 63] {
        let refused = s.read(&file, offset, u32::MAX);
        assert_eq!(refused, Res3::Fail(Nfsstat3::Inval, Some(attr)));
    }
    let past = s.read(&file, limit + 1, 9).ok_or_status().unwrap();
    assert_eq!((past.count, past.eof), (0, true), "no file has bytes there");
    assert_eq!(s.read(&root, 0, 1).failure(), Some(Nfsstat3::IsDir));
    assert_eq!(s.write(&root, 0, b"x").failure(), Some(Nfsstat3::IsDir));
    s.setattr(&file, mode(0o600), None).ok_or_status().unwrap();
    s.as_user(7, 7);
    assert_eq!(s.read(&file, 0, 1).failure(), Some(Nfsstat3::Acces));
    assert_eq!(s.write(&file, 0, b"x").failure(), Some(Nfsstat3::Acces));
}

#[test]
fn write_count_must_be_the_data_length() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let args = WriteArgs {
        file,
        offset: 0,
        count: 4,
        stable: StableHow::FileSync,
        data: Bytes::from_static(b"abc"),
    };
    let call = s.call(PROGRAM, VERSION, 7, crate::server::encoded(&args));
    let applied = s.index;
    let reply = haven_rpc::decode_reply(s.send(&call).into_bytes()).unwrap();
    assert_eq!(
        reply.outcome,
        haven_rpc::Outcome::Error(AcceptError::GarbageArgs)
    );
    assert_eq!(s.index, applied, "it is not in the log");
}

#[test]
fn commit_is_a_query_with_the_write_verifier() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let verf = s.write(&file, 0, b"x").ok_or_status().unwrap().verf;
    let applied = s.index;
    let commit = |s: &mut Server, file: &Fh3, offset, count| {
        s.nfs::<CommitRes>(Args3::Commit(CommitArgs {
            file: file.clone(),
            offset,
            count,
        }))
    };
    let ok = commit(&mut s, &file, 0, 0).ok_or_status().unwrap();
    assert_eq!(ok.verf, verf);
    assert!(ok.file_wcc.after.is_some());
    assert_eq!(s.index, applied, "nothing was logged");
    assert_eq!(
        commit(&mut s, &file, u64::MAX, 5).failure(),
        Some(Nfsstat3::Inval)
    );
    assert_eq!(commit(&mut s, &root, 0, 0).failure(), Some(Nfsstat3::IsDir));
}

#[test]
fn limits_and_space() {
    let mut s = Server::new();
    let root = s.root.clone();
    let attr = Some(s.getattr(&root).unwrap());
    let info = s
        .nfs::<FsinfoRes>(Args3::Fsinfo(FsinfoArgs {
            fsroot: root.clone(),
        }))
        .ok_or_status()
        .unwrap();
    assert_eq!(info.obj_attributes, attr);
    assert_eq!(
        (info.rtmax, info.wtmax, info.dtpref),
        (1 << 20, 1 << 20, 1 << 16)
    );
    assert_eq!(
        (info.properties, info.maxfilesize),
        (0x1b, (16 << 40) - 4096)
    );
    assert_eq!(
        info.time_delta,
        Nfstime3 {
            seconds: 0,
            nseconds: 1
        }
    );
    let conf = s
        .nfs::<PathconfRes>(Args3::Pathconf(PathconfArgs {
            object: root.clone(),
        }))
        .ok_or_status()
        .unwrap();
    assert_eq!(
        (conf.name_max, conf.no_trunc, conf.case_insensitive),
        (255, true, false)
    );
    assert_eq!((conf.chown_restricted, conf.case_preserving), (true, true));
    let stat = s
        .nfs::<FsstatRes>(Args3::Fsstat(FsstatArgs { fsroot: root }))
        .ok_or_status()
        .unwrap();
    assert!(stat.abytes <= stat.fbytes && stat.fbytes <= stat.tbytes && stat.tbytes > 0);
    assert_eq!(stat.obj_attributes, attr);
}

/// A call that writes one byte.
fn write_of_a_byte(s: &mut Server, file: &Fh3, offset: u64) -> Call {
    let args = Args3::Write(WriteArgs {
        file: file.clone(),
        offset,
        count: 1,
        stable: StableHow::FileSync,
        data: Bytes::from_static(b"x"),
    });
    s.call(PROGRAM, VERSION, args.proc().to_wire(), encoded(&args))
}

fn used(reply: &Gather) -> u64 {
    let written = results::<WriteRes>(reply.clone()).ok_or_status().unwrap();
    written.file_wcc.after.unwrap().used
}

#[test]
fn holes_count_until_the_level_says_otherwise_in_attributes_and_in_replies_that_are_kept() {
    const BLOCK: u64 = 4_096;
    const FAR: u64 = 1 << 30;
    let mut s = Server::new();
    let root = s.root.clone();
    let free = |s: &mut Server| {
        let fsroot = s.root.clone();
        let stat = s.nfs::<FsstatRes>(Args3::Fsstat(FsstatArgs { fsroot }));
        stat.ok_or_status().unwrap().fbytes
    };
    let (old, new) = (s.file(&root, "old"), s.file(&root, "new"));
    let before = free(&mut s);
    let call = write_of_a_byte(&mut s, &old, FAR);
    let reply = s.send(&call);
    assert_eq!(used(&reply), FAR + BLOCK);
    assert_eq!(free(&mut s), before - FAR - BLOCK);

    let (level, time) = (Level::COUNTED_BLOCKS, Time::default());
    s.apply(Entry::Level { level, time }.encode().unwrap());
    s.reconnect();
    assert_eq!(s.send(&call), reply, "what was said then is said again");
    assert_eq!(s.getattr(&old).unwrap().used, FAR + BLOCK);
    let before = free(&mut s);
    let call = write_of_a_byte(&mut s, &new, FAR);
    let reply = s.send(&call);
    assert_eq!(used(&reply), BLOCK);
    assert_eq!(free(&mut s), before - BLOCK);
    let more = write_of_a_byte(&mut s, &new, FAR / 2);
    assert_eq!(used(&s.send(&more)), 2 * BLOCK);
    s.reconnect();
    assert_eq!(s.send(&call), reply);
    for (file, used) in [(&old, FAR + BLOCK), (&new, 2 * BLOCK)] {
        assert_eq!(s.getattr(file).unwrap().used, used);
    }

    let size = |size| Sattr3 {
        size: Some(size),
        ..Sattr3::default()
    };
    for (file, end, expected) in [
        (&old, BLOCK + 1, 2 * BLOCK),
        (&old, FAR, 2 * BLOCK),
        (&new, FAR, BLOCK),
        (&new, 0, 0),
    ] {
        let wcc = s.setattr(file, size(end), None).ok_or_status().unwrap();
        assert_eq!(wcc.after.unwrap().used, expected, "at {end}");
        assert_eq!(wcc.after, Some(s.getattr(file).unwrap()));
        let found = s.lookup(&root, if *file == old { "old" } else { "new" });
        assert_eq!(found.ok_or_status().unwrap().obj_attributes, wcc.after);
    }

    // Whoever applies it all again comes to the same replies and the same state.
    let mut other = Machine::new(Model::new()).unwrap();
    for (index, entry) in (1..).zip(&s.log) {
        other.apply(index, entry).unwrap();
    }
    assert!(other.into_fs() == s.machine.into_fs());
}
