//! MOUNT, and what is answered to programs and procedures that do not exist.

use crate::server::{Server, encoded, everybody, plain, results};
use bytes::Bytes;
use haven_nfsd::Outcome;
use haven_proto::mount::{self, Dirpath, Fhstatus, Mountstat3, Procedure};
use haven_proto::{nfs3, portmap};
use haven_rpc::{AcceptError, decode_reply};
use haven_xdr::Gather;

fn path(text: &str) -> Dirpath {
    Dirpath(Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn mnt_of_exports_and_below() {
    let mut s = Server::new();
    let root = s.root.clone();
    let sub = s.dir(&root, "sub");
    s.file(&root, "f");
    assert_eq!(s.mount("/data/"), Ok(root.clone()));
    assert_eq!(s.mount("//data/./sub"), Ok(sub));
    assert_eq!(s.mount("/data/none"), Err(Mountstat3::NoEnt));
    assert_eq!(s.mount("/data/f"), Err(Mountstat3::NotDir));
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
fn symbolic_links_lead_nowhere() {
    let mut s = Server::new();
    let root = s.root.clone();
    let args = nfs3::SymlinkArgs {
        place: s.at(&root, "l"),
        symlink_attributes: nfs3::Sattr3::default(),
        symlink_data: "/".into(),
    };
    s.nfs::<nfs3::SymlinkRes>(nfs3::Args3::Symlink(args))
        .ok_or_status()
        .unwrap();
    assert_eq!(s.mount("/data/l"), Err(Mountstat3::NotDir));
    assert_eq!(s.mount("/data/l/data"), Err(Mountstat3::NotDir));
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
