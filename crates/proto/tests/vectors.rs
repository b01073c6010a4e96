//! Messages laid out by hand after RFC 1813, RFC 1094 and RFC 1833.

#[path = "common/pieces.rs"]
mod pieces;

use bytes::Bytes;
use haven_proto::{mount, nfs3::*, portmap};
use haven_xdr::{SHARE_BYTES_MIN, decode_all, encode_all};
use pieces::Piece::{self, Hyper, Raw, Word};
use pieces::{is, wire};

fn fh() -> Fh3 {
    Fh3(Bytes::from_static(b"fh-01"))
}

const FH: Piece = Raw(b"\0\0\0\x05fh-01\0\0\0");

fn attr() -> Fattr3 {
    Fattr3 {
        ftype: Ftype3::Reg,
        mode: 0o644,
        nlink: 2,
        uid: 1000,
        gid: 100,
        size: 5,
        used: 4096,
        rdev: Specdata3 {
            specdata1: 8,
            specdata2: 1,
        },
        fsid: 77,
        fileid: Fileid3(99),
        atime: Nfstime3 {
            seconds: 1,
            nseconds: 2,
        },
        mtime: Nfstime3 {
            seconds: 3,
            nseconds: 4,
        },
        ctime: Nfstime3 {
            seconds: 5,
            nseconds: 6,
        },
    }
}

fn attr_pieces() -> Vec<Piece> {
    let mut pieces: Vec<_> = [1, 0o644, 2, 1000, 100].map(Word).into();
    pieces.extend([
        Hyper(5),
        Hyper(4096),
        Word(8),
        Word(1),
        Hyper(77),
        Hyper(99),
    ]);
    pieces.extend([1, 2, 3, 4, 5, 6].map(Word));
    pieces
}

/// `head`, the attributes of [`attr`], `tail`.
fn around_attr(head: Vec<Piece>, tail: Vec<Piece>) -> Vec<Piece> {
    head.into_iter().chain(attr_pieces()).chain(tail).collect()
}

#[test]
fn getattr() {
    is(GetattrArgs { object: fh() }, &[FH]);
    let ok = GetattrRes::Ok(GetattrOk {
        obj_attributes: attr(),
    });
    is(ok, &around_attr(vec![Word(0)], vec![]));
    is(GetattrRes::Fail(Nfsstat3::Stale, ()), &[Word(70)]);
}

#[test]
fn setattr_with_all_kinds_of_fields() {
    let args = SetattrArgs {
        object: fh(),
        new_attributes: Sattr3 {
            mode: Some(0o600),
            uid: None,
            gid: None,
            size: Some(1 << 40),
            atime: SetTime::ServerTime,
            mtime: SetTime::ClientTime(Nfstime3 {
                seconds: 7,
                nseconds: 8,
            }),
        },
        guard: Some(Nfstime3 {
            seconds: 5,
            nseconds: 6,
        }),
    };
    let mut pieces = vec![
        FH,
        Word(1),
        Word(0o600),
        Word(0),
        Word(0),
        Word(1),
        Hyper(1 << 40),
    ];
    pieces.extend([1, 2, 7, 8, 1, 5, 6].map(Word));
    is(args, &pieces);
}

#[test]
fn lookup() {
    let what = Diropargs3 {
        dir: fh(),
        name: "ab".into(),
    };
    is(LookupArgs { what }, &[FH, Raw(b"\0\0\0\x02ab\0\0")]);
    let ok = LookupOk {
        object: fh(),
        obj_attributes: Some(attr()),
        dir_attributes: None,
    };
    is(
        LookupRes::Ok(ok),
        &around_attr(vec![Word(0), FH, Word(1)], vec![Word(0)]),
    );
    is(
        LookupRes::Fail(Nfsstat3::NoEnt, Some(attr())),
        &around_attr(vec![Word(2), Word(1)], vec![]),
    );
}

#[test]
fn read() {
    is(
        ReadArgs {
            file: fh(),
            offset: 1 << 33,
            count: 5,
        },
        &[FH, Hyper(1 << 33), Word(5)],
    );
    let ok = ReadOk {
        file_attributes: None,
        count: 3,
        eof: true,
        data: Bytes::from_static(b"abc"),
    };
    is(
        ReadRes::Ok(ok),
        &[Word(0), Word(0), Word(3), Word(1), Raw(b"\0\0\0\x03abc\0")],
    );
}

#[test]
fn write() {
    let args = WriteArgs {
        file: fh(),
        offset: 9,
        count: 3,
        stable: StableHow::FileSync,
        data: Bytes::from_static(b"abc"),
    };
    is(
        args,
        &[FH, Hyper(9), Word(3), Word(2), Raw(b"\0\0\0\x03abc\0")],
    );
    let before = WccAttr::from(&attr());
    let ok = WriteOk {
        file_wcc: WccData {
            before: Some(before),
            after: None,
        },
        count: 3,
        committed: StableHow::Unstable,
        verf: Writeverf3(*b"verifier"),
    };
    let mut pieces = vec![Word(0), Word(1), Hyper(5)];
    pieces.extend([3, 4, 5, 6, 0, 3, 0].map(Word));
    pieces.push(Raw(b"verifier"));
    is(WriteRes::Ok(ok), &pieces);
}

#[test]
fn create_exclusive() {
    let args = CreateArgs {
        place: Diropargs3 {
            dir: fh(),
            name: "f".into(),
        },
        how: Createhow3::Exclusive(Createverf3(*b"12345678")),
    };
    is(
        args,
        &[FH, Raw(b"\0\0\0\x01f\0\0\0"), Word(2), Raw(b"12345678")],
    );
    let ok = CreateOk {
        obj: Some(fh()),
        obj_attributes: None,
        dir_wcc: WccData::default(),
    };
    is(
        CreateRes::Ok(ok),
        &[Word(0), Word(1), FH, Word(0), Word(0), Word(0)],
    );
}

#[test]
fn mknod() {
    let place = || Diropargs3 {
        dir: fh(),
        name: "f".into(),
    };
    let device = Devicedata3 {
        dev_attributes: Sattr3::default(),
        spec: Specdata3 {
            specdata1: 1,
            specdata2: 3,
        },
    };
    let mut pieces = vec![FH, Raw(b"\0\0\0\x01f\0\0\0")];
    pieces.extend([4, 0, 0, 0, 0, 0, 0, 1, 3].map(Word));
    is(
        MknodArgs {
            place: place(),
            what: Mknoddata3::Chr(device),
        },
        &pieces,
    );
    // The void arm of the union: the server answers NFS3ERR_BADTYPE.
    let what = Mknoddata3::Other(Ftype3::Dir);
    is(
        MknodArgs {
            place: place(),
            what,
        },
        &[FH, Raw(b"\0\0\0\x01f\0\0\0"), Word(2)],
    );
}

#[test]
fn readdirplus() {
    let args = ReaddirplusArgs {
        dir: fh(),
        cookie: Cookie3(3),
        cookieverf: Cookieverf3(*b"cookieve"),
        dircount: 512,
        maxcount: 4096,
    };
    is(
        args,
        &[FH, Hyper(3), Raw(b"cookieve"), Word(512), Word(4096)],
    );
    let entry = Entryplus3 {
        fileid: Fileid3(99),
        name: "abcd".into(),
        cookie: Cookie3(4),
        name_attributes: Some(attr()),
        name_handle: Some(fh()),
    };
    let ok = ReaddirplusOk {
        dir_attributes: None,
        cookieverf: Cookieverf3(*b"cookieve"),
        entries: vec![entry],
        eof: true,
    };
    let head = vec![
        Word(0),
        Word(0),
        Raw(b"cookieve"),
        Word(1),
        Hyper(99),
        Raw(b"\0\0\0\x04abcd"),
        Hyper(4),
        Word(1),
    ];
    is(
        ReaddirplusRes::Ok(ok),
        &around_attr(head, vec![Word(1), FH, Word(0), Word(1)]),
    );
}

#[test]
fn commit() {
    is(
        CommitArgs {
            file: fh(),
            offset: 0,
            count: 0,
        },
        &[FH, Hyper(0), Word(0)],
    );
    let ok = CommitOk {
        file_wcc: WccData::default(),
        verf: Writeverf3(*b"verifier"),
    };
    is(
        CommitRes::Ok(ok),
        &[Word(0), Word(0), Word(0), Raw(b"verifier")],
    );
}

#[test]
fn data_is_not_copied() {
    let data = Bytes::from(vec![1; SHARE_BYTES_MIN]);
    let ok = ReadOk {
        file_attributes: None,
        count: 0,
        eof: false,
        data: data.clone(),
    };
    let gather = encode_all(&ReadRes::Ok(ok));
    assert_eq!(gather.segments()[1].as_ptr(), data.as_ptr());

    let args = WriteArgs {
        file: fh(),
        offset: 0,
        count: 0,
        stable: StableHow::Unstable,
        data: data.clone(),
    };
    let gather = encode_all(&args);
    assert_eq!(gather.segments()[1].as_ptr(), data.as_ptr());
    let wire = gather.into_bytes();
    let decoded: WriteArgs = decode_all(wire.clone()).unwrap();
    assert_eq!(
        decoded.data.as_ptr(),
        wire[wire.len() - SHARE_BYTES_MIN..].as_ptr()
    );
}

#[test]
fn limits() {
    // Length word and as many bytes as it says.
    let opaque = |len: usize| {
        let fill = haven_xdr::padding(len);
        Bytes::from([&(len as u32).to_be_bytes()[..], &vec![0; len + fill]].concat())
    };
    assert!(decode_all::<Fh3>(opaque(FHSIZE)).is_ok());
    assert!(decode_all::<Fh3>(opaque(FHSIZE + 1)).is_err());
    assert!(decode_all::<Filename3>(opaque(FILENAME_BYTES_MAX)).is_ok());
    assert!(decode_all::<Filename3>(opaque(FILENAME_BYTES_MAX + 1)).is_err());
    assert!(decode_all::<Nfspath3>(opaque(NFSPATH_BYTES_MAX)).is_ok());
    assert!(decode_all::<Nfspath3>(opaque(NFSPATH_BYTES_MAX + 1)).is_err());
    assert!(decode_all::<mount::Dirpath>(opaque(mount::MNTPATHLEN + 1)).is_err());
}

#[test]
fn the_largest_arguments_fit_their_limit() {
    let place = || Diropargs3 {
        dir: Fh3(vec![0; FHSIZE].into()),
        name: Filename3(vec![0; FILENAME_BYTES_MAX].into()),
    };
    let rename = encode_all(&RenameArgs {
        from: place(),
        to: place(),
    });
    let symlink = encode_all(&SymlinkArgs {
        place: place(),
        symlink_attributes: Sattr3::default(),
        symlink_data: Nfspath3(vec![0; NFSPATH_BYTES_MAX].into()),
    });
    assert!(rename.len().max(symlink.len()) <= ARGS_OVERHEAD_BYTES_MAX);
}

#[test]
fn statuses_and_procedures_are_all_there() {
    let statuses = (0..20_000).filter(|n| Nfsstat3::from_wire(*n).is_some());
    assert_eq!(statuses.count(), 28);
    assert_eq!(Nfsstat3::from_wire(0), None);
    let numbers: Vec<_> = (0..30).filter(|n| Proc3::from_wire(*n).is_some()).collect();
    assert_eq!(numbers, (0..22).collect::<Vec<_>>());
    assert_eq!(Proc3::Commit.to_wire(), 21);
    let unknown = decode_all::<GetattrRes>(Bytes::from_static(&[0, 0, 0, 3])).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "malformed XDR data at byte 0: 3 is not a value of nfsstat3"
    );
}

#[test]
fn arguments_must_fill_the_call() {
    assert_eq!(Args3::decode(Proc3::Null, Bytes::new()), Ok(Args3::Null));
    assert!(Args3::decode(Proc3::Null, Bytes::from_static(&[0; 4])).is_err());
    let getattr = Args3::Getattr(GetattrArgs { object: fh() });
    assert_eq!(Args3::decode(Proc3::Getattr, wire(&[FH])), Ok(getattr));
    assert!(Args3::decode(Proc3::Getattr, wire(&[FH, Word(0)])).is_err());
}

#[test]
fn mount_messages() {
    use mount::*;
    is(
        Dirpath(Bytes::from_static(b"/a")),
        &[Raw(b"\0\0\0\x02/a\0\0")],
    );
    let fhandle = Fhandle3(fh().0);
    is(
        Mountres3::Ok(MountOk {
            fhandle,
            auth_flavors: vec![1],
        }),
        &[Word(0), FH, Word(1), Word(1)],
    );
    is(Mountres3::Fail(Mountstat3::Acces), &[Word(13)]);
    is(
        Fhstatus::Ok([b'x'; FHSIZE]),
        &[Word(0), Raw(&[b'x'; FHSIZE])],
    );
    is(Fhstatus::Fail(2), &[Word(2)]);
    let export = Exportnode {
        dir: Dirpath(Bytes::from_static(b"/a")),
        groups: vec![Name(Bytes::from_static(b"*"))],
    };
    is(
        Exports(vec![export]),
        &[
            Word(1),
            Raw(b"\0\0\0\x02/a\0\0"),
            Word(1),
            Raw(b"\0\0\0\x01*\0\0\0"),
            Word(0),
            Word(0),
        ],
    );
}

#[test]
fn portmap_messages() {
    use portmap::*;
    let mapping = Mapping {
        prog: 100_003,
        vers: 3,
        prot: IPPROTO_TCP,
        port: 2049,
    };
    let words = [100_003, 3, 6, 2049];
    is(mapping, &words.map(Word));
    let mut list = vec![Word(1)];
    list.extend(words.map(Word));
    list.push(Word(0));
    is(Pmaplist(vec![mapping]), &list);
    assert_eq!(Procedure::from_wire(3), Some(Procedure::Getport));
}
