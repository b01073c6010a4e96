//! MOUNT, and what is answered to programs and procedures that do not exist.

use crate::server::{DATA, Server, encoded, everybody, plain, results};
use bytes::Bytes;
use haven_nfsd::Outcome;
use haven_proto::mount::{self, Dirpath, Fhstatus, Mountstat3, Procedure};
use haven_proto::{nfs3, portmap};
use haven_rpc::{AcceptError, decode_reply};
use haven_xdr::Gather;

fn path(text: &str) -> Dirpath {
    Dirpath(Bytes::copy_from_slice(text.as_bytes()))
}

fn link(s: &mut Server, dir: &nfs3::Fh3, name: &str, target: &str) {
    let args = nfs3::SymlinkArgs {
        place: s.at(dir, name),
        symlink_attributes: nfs3::Sattr3::default(),
        symlink_data: target.into(),
    };
    s.nfs::<nfs3::SymlinkRes>(nfs3::Args3::Symlink(args))
        .ok_or_status()
        .unwrap();
}

#[test]
fn mnt_of_exports_and_below() {
    let mut s = Server::new();
    let root = s.root.clone();
    let sub = s.dir(&root, "sub");
    let file = s.file(&root, "f");
    assert_eq!(s.mount("/data/"), Ok(root.clone()));
    assert_eq!(s.mount("//data/./sub"), Ok(sub));
    assert_eq!(s.mount("/data/none"), Err(Mountstat3::NoEnt));
    assert_eq!(s.mount("/data/f"), Ok(file), "as a swap file is mounted");
    assert_eq!(s.mount("/data/f/x"), Err(Mountstat3::NotDir));
    for outside in [
        "/",
        "/other",
        "/database",
        "/data/../data",
        "data",
        "",
        "/data/..",
    ] {
        assert_eq!(s.mount(outside), Err(Mountstat3::Acces), "{outside:?}");
    }
    assert_eq!(
        s.mount(&format!("/data/{}", "n".repeat(300))),
        Err(Mountstat3::NameTooLong)
    );
}

#[test]
fn what_is_neither_directory_nor_file_is_not_mounted() {
    let mut s = Server::new();
    let root = s.root.clone();
    let args = nfs3::MknodArgs {
        place: s.at(&root, "fifo"),
        what: nfs3::Mknoddata3::Fifo(nfs3::Sattr3::default()),
    };
    s.nfs::<nfs3::MknodRes>(nfs3::Args3::Mknod(args))
        .ok_or_status()
        .unwrap();
    link(&mut s, &root, "to-fifo", "fifo");
    for path in ["/data/fifo", "/data/to-fifo"] {
        assert_eq!(s.mount(path), Err(Mountstat3::NotDir), "{path}");
    }
}

#[test]
fn symbolic_links_are_followed_within_the_export() {
    let mut s = Server::new();
    let root = s.root.clone();
    let sub = s.dir(&root, "sub");
    let deep = s.dir(&sub, "deep");
    let file = s.file(&deep, "f");
    for (name, target) in [
        ("down", "sub//deep/."),
        ("chain", "./down/f"),
        ("absolute", "/data/sub"),
        ("itself", "/data/"),
        ("dangling", "none"),
        ("through-a-file", "sub/deep/f/x"),
        ("circle", "circle"),
        ("up", "sub/../sub/deep/../.."),
    ] {
        link(&mut s, &root, name, target);
    }
    link(&mut s, &deep, "back", "../../absolute/deep");
    for (path, found) in [
        ("/data/down", Ok(&deep)),
        ("/data/down/f", Ok(&file)),
        ("/data/chain", Ok(&file)),
        ("/data/absolute/deep", Ok(&deep)),
        ("/data/itself", Ok(&root)),
        ("/data/up", Ok(&root)),
        ("/data/sub/deep/back/back/f", Ok(&file)),
        ("/data/dangling", Err(Mountstat3::NoEnt)),
        ("/data/through-a-file", Err(Mountstat3::NotDir)),
        ("/data/chain/x", Err(Mountstat3::NotDir)),
        ("/data/circle", Err(Mountstat3::Acces)),
        ("/data/circle/x", Err(Mountstat3::Acces)),
    ] {
        assert_eq!(s.mount(path), found.cloned(), "{path}");
    }
}

#[test]
fn symbolic_links_do_not_leave_the_export_nor_tell_what_is_outside() {
    let mut s = Server::new();
    s.export(&[
        (DATA, everybody(plain())),
        ("/other", everybody(plain())),
        ("/data/inner", everybody(plain())),
    ]);
    let root = s.root.clone();
    let inner = s.mount("/data/inner").unwrap();
    s.dir(&root, "sub");
    s.dir(&inner, "sub");
    for (name, target) in [
        ("root", "/"),
        ("other", "/other"),
        ("none", "/none"),
        ("database", "/database"),
        ("parent", ".."),
        ("around", "../data/sub"),
        ("around-nothing", "../none/../data/sub"),
        ("deeper", "sub/../../data/sub"),
        ("half", "/data/../data/sub"),
    ] {
        link(&mut s, &root, name, target);
        link(&mut s, &inner, name, target);
    }
    link(&mut s, &inner, "above", "/data/sub");
    for name in [
        "root",
        "other",
        "none",
        "database",
        "parent",
        "around",
        "around-nothing",
        "deeper",
        "half",
    ] {
        for dir in ["/data", "/data/inner"] {
            let path = format!("{dir}/{name}");
            assert_eq!(s.mount(&path), Err(Mountstat3::Acces), "{path}");
        }
    }
    assert_eq!(s.mount("/data/inner/above"), Err(Mountstat3::Acces));
}

#[test]
fn what_links_make_of_a_path_is_bounded() {
    let mut s = Server::new();
    let root = s.root.clone();
    let sub = s.dir(&root, "sub");
    link(&mut s, &root, "l", "sub");
    for n in 0..40 {
        link(&mut s, &root, &format!("n{n}"), &format!("n{}", n + 1));
    }
    link(&mut s, &root, "before", "n0");
    s.dir(&root, "n40");
    assert!(s.mount("/data/n0").is_ok(), "40 links");
    assert_eq!(s.mount("/data/before"), Err(Mountstat3::Acces));
    link(
        &mut s,
        &root,
        "forty",
        &format!("{}sub", "l/../".repeat(39)),
    );
    link(&mut s, &root, "more", &format!("{}sub", "l/../".repeat(40)));
    assert_eq!(s.mount("/data/forty"), Ok(sub.clone()));
    assert_eq!(s.mount("/data/more"), Err(Mountstat3::Acces));
    let long = "sub/../".repeat(500);
    link(&mut s, &root, "names", &format!("{long}sub"));
    link(&mut s, &root, "more-names", &format!("{long}names"));
    assert_eq!(s.mount("/data/names"), Ok(sub));
    assert_eq!(s.mount("/data/more-names"), Err(Mountstat3::Acces));
}

#[test]
fn version_1() {
    let mut s = Server::new();
    let ok: Fhstatus = s.mnt(1, Procedure::Mnt, encoded(&path("/data")));
    let Fhstatus::Ok(handle) = ok else {
        panic!("not mounted: {ok:?}")
    };
    assert_eq!(handle, s.root.0[..]);
    let refused: Fhstatus = s.mnt(1, Procedure::Mnt, encoded(&path("/data/none")));
    assert_eq!(refused, Fhstatus::Fail(2));
}

#[test]
fn what_does_not_exist() {
    let mut s = Server::new();
    let mismatch = |low, high| AcceptError::ProgMismatch { low, high };
    let cases = [
        ((99, 1, 0), AcceptError::ProgUnavail),
        ((nfs3::PROGRAM, 2, 0), mismatch(3, 3)),
        ((nfs3::PROGRAM, 3, 22), AcceptError::ProcUnavail),
        ((nfs3::PROGRAM, 3, 1), AcceptError::GarbageArgs),
        ((mount::PROGRAM, 2, 0), mismatch(1, 3)),
        ((mount::PROGRAM, 3, 6), AcceptError::ProcUnavail),
        ((mount::PROGRAM, 3, 1), AcceptError::GarbageArgs),
        ((portmap::PROGRAM, 5, 0), mismatch(2, 4)),
        ((portmap::PROGRAM, 1, 0), mismatch(2, 4)),
        ((portmap::PROGRAM, 2, 9), AcceptError::ProcUnavail),
    ];
    for ((prog, vers, proc), error) in cases {
        let call = s.call(prog, vers, proc, Gather::new());
        let reply = decode_reply(s.send(&call).into_bytes()).unwrap();
        assert_eq!(reply.xid, call.xid);
        assert_eq!(
            reply.outcome,
            haven_rpc::Outcome::Error(error),
            "{prog} {vers} {proc}"
        );
    }
    let null = s.call(nfs3::PROGRAM, 3, 0, Gather::new());
    let () = results(s.send(&null));
}

#[test]
fn exports_are_made_once_and_left_alone() {
    let mut s = Server::new();
    let time = haven_fs::Time::default();
    let export = |path: &'static str, mode| {
        let path = Bytes::from_static(path.as_bytes());
        haven_nfsd::Entry::Export {
            path,
            uid: 5,
            gid: 6,
            mode,
            time,
        }
        .encode()
        .unwrap()
    };
    assert_eq!(s.apply(export("/srv/deep/er", 0o2770)), Outcome::Done);
    s.offer(&[
        ("/srv/deep/er", everybody(plain())),
        ("/data", everybody(plain())),
    ]);
    let deep = s.mount("/srv/deep/er").unwrap();
    let attr = s.getattr(&deep).unwrap();
    assert_eq!((attr.mode, attr.uid, attr.gid), (0o2770, 5, 6));
    assert_eq!(s.apply(export("/srv/deep/er", 0o700)), Outcome::Done);
    assert_eq!(
        s.getattr(&deep),
        Ok(attr),
        "an existing one is left as it is"
    );
    let root = s.root.clone();
    s.file(&root, "f");
    for impossible in ["/data/f", "/data/f/x", "relative", "/data/../x"] {
        let refused = s.apply(export(impossible, 0o755));
        assert!(
            matches!(refused, Outcome::Refused(_)),
            "{impossible}: {refused:?}"
        );
    }
}
