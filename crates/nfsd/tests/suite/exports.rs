//! Exports: who is let in, with which rights, and what a handle remembers of the export it came from.

use crate::server::{DATA, Server, auth_sys, encoded, everybody, export_entry, mode, plain};
use bytes::Bytes;
use haven_fs::MOVE_DEPTH_MAX;
use haven_fs::Time;
use haven_fs::model::Model;
use haven_nfsd::Machine;
use haven_nfsd::{
    Client, ClientNames, ExportId, Options, Origin, Outcome, Prepared, Squash, Who, claimed_export,
    prepare,
};
use haven_proto::mount::{self, Mountstat3};
use haven_proto::nfs3::*;
use haven_xdr::Gather;
use std::net::SocketAddr;

fn ro() -> Options {
    Options {
        read_only: true,
        ..plain()
    }
}

fn client(who: Who, options: Options) -> Client {
    Client { who, options }
}

fn address(text: &str) -> Who {
    Who::Address(text.parse().unwrap())
}

fn network(text: &str, bits: u8) -> Who {
    Who::Network(text.parse().unwrap(), bits)
}

/// Exports /data to a list of clients; whoever is let in can tell by what.
fn offering(clients: Vec<Client>) -> Server {
    let mut s = Server::new();
    s.offer(&[(DATA, clients)]);
    s
}

/// Options that can be told from others by whom the caller becomes.
fn anon(anonuid: u32) -> Options {
    Options {
        squash: Squash {
            all: true,
            anonuid,
            ..Squash::default()
        },
        ..Options::default()
    }
}

/// Whom the rule made of the caller, by the owner of a new file.
fn became(s: &mut Server, from: &str) -> Result<u32, Nfsstat3> {
    s.client = from.parse().unwrap();
    let (root, xid) = (s.root.clone(), s.xid);
    let how = Createhow3::Guarded(mode(0o600));
    let made = s.create(&root, &format!("f{xid}"), how).ok_or_status()?;
    s.getattr(&made.obj.unwrap()).map(|attr| attr.uid)
}

#[test]
fn the_kind_of_a_rule_counts_before_its_place() {
    let mut s = offering(vec![
        client(Who::Everybody, anon(1)),
        client(Who::Wildcard("*.example.org".into()), anon(2)),
        client(network("10.0.0.0", 8), anon(3)),
        client(network("10.1.0.0", 16), anon(4)),
        client(address("10.1.0.5"), anon(5)),
        client(address("2001:db8::5"), anon(6)),
    ]);
    s.names = Some(vec![]);
    assert_eq!(became(&mut s, "10.1.0.5"), Ok(5));
    assert_eq!(became(&mut s, "::ffff:10.1.0.5"), Ok(5), "a dual socket");
    assert_eq!(became(&mut s, "10.1.0.6"), Ok(3), "the first of its kind");
    assert_eq!(became(&mut s, "2001:db8::5"), Ok(6));
    assert_eq!(became(&mut s, "192.0.2.1"), Ok(1));
    s.names = Some(vec!["a.example.org".into()]);
    assert_eq!(became(&mut s, "192.0.2.1"), Ok(2));
    assert_eq!(became(&mut s, "10.2.0.1"), Ok(3));
}

#[test]
fn host_names_count_once_they_are_resolved() {
    let mut s = offering(vec![client(Who::Host("a.example.org".into()), anon(5))]);
    assert_eq!(became(&mut s, "10.1.0.5"), Err(Nfsstat3::Jukebox));
    assert_eq!(s.mount(DATA), Err(Mountstat3::Acces));
    let mut exports = (*s.service.exports).clone();
    assert_eq!(exports.host_names().collect::<Vec<_>>(), ["a.example.org"]);
    let resolved = vec!["10.1.0.5".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    exports.set_hosts(&[("a.example.org".to_owned(), resolved)].into());
    s.service.exports = exports.clone().into();
    assert_eq!(became(&mut s, "10.1.0.5"), Ok(5));
    assert_eq!(became(&mut s, "2001:db8::7"), Ok(5));
    assert_eq!(became(&mut s, "10.1.0.6"), Err(Nfsstat3::Stale));
    exports.set_hosts(&[("a.example.org".to_owned(), vec![])].into());
    s.service.exports = exports.into();
    assert_eq!(became(&mut s, "10.1.0.5"), Err(Nfsstat3::Stale));
}

#[test]
fn a_client_is_let_in_if_any_rule_of_any_export_is_for_it() {
    let secure = Options {
        secure: true,
        ..plain()
    };
    let mut s = Server::new();
    s.offer(&[
        (DATA, vec![client(network("10.0.0.0", 8), secure)]),
        (
            "/not/made",
            vec![
                client(Who::Wildcard("*.example.org".into()), plain()),
                client(Who::Host("a.example.org".into()), plain()),
            ],
        ),
    ]);
    let mut exports = (*s.service.exports).clone();
    let ip = |text: &str| text.parse().unwrap();
    let unasked = ClientNames::Unasked;
    assert_eq!(exports.let_in(ip("10.0.0.1"), unasked), Some(true));
    assert_eq!(exports.let_in(ip("::ffff:10.0.0.1"), unasked), Some(true));
    let why = "the host may have this address";
    assert_eq!(
        exports.let_in(ip("192.0.2.1"), unasked),
        Some(true),
        "{why}"
    );
    exports.set_hosts(&[("a.example.org".to_owned(), vec![ip("192.0.2.7")])].into());
    assert_eq!(exports.let_in(ip("192.0.2.7"), unasked), Some(true));
    assert_eq!(exports.let_in(ip("192.0.2.1"), unasked), None);
    let names = |names| exports.let_in(ip("192.0.2.1"), names);
    assert_eq!(names(ClientNames::Late), Some(true));
    assert_eq!(names(ClientNames::Known(&[])), Some(false));
    let own = ["b.example.org".to_owned()];
    assert_eq!(names(ClientNames::Known(&own)), Some(true));
}

#[test]
fn names_are_asked_for_only_where_they_decide() {
    let mut s = offering(vec![
        client(Who::Wildcard("*.example.org".into()), plain()),
        client(network("10.0.0.0", 8), plain()),
    ]);
    assert!(s.service.exports.want_client_names());
    let root = s.root.clone();
    s.client = "10.0.0.1".parse().unwrap();
    assert!(s.getattr(&root).is_ok(), "the network decides");
    s.client = "192.0.2.1".parse().unwrap();
    let object = root.clone();
    let getattr = s.call(PROGRAM, VERSION, 1, encoded(&GetattrArgs { object }));
    let path = mount::Dirpath(DATA.into());
    let mnt = s.call(mount::PROGRAM, 3, 1, encoded(&path));
    let null = s.call(PROGRAM, VERSION, 0, Gather::new());
    let now = Time::default();
    assert_eq!(s.prepared(&getattr, now), Prepared::WantsNames);
    assert_eq!(s.prepared(&mnt, now), Prepared::WantsNames);
    assert!(matches!(s.prepared(&null, now), Prepared::Reply(_)));
    let late = Origin {
        peer: SocketAddr::new(s.client, 700),
        local: s.local,
        transport: s.transport,
        names: ClientNames::Late,
    };
    let Prepared::Reply(reply) = prepare(&getattr, late, &s.service, now) else {
        panic!("told at once")
    };
    let told = crate::server::results::<GetattrRes>(reply).failure();
    assert_eq!(told, Some(Nfsstat3::Jukebox), "to try again");
    s.names = Some(vec!["other.example.com".into()]);
    assert_eq!(s.getattr(&root), Err(Nfsstat3::Stale));
    assert_eq!(s.mount(DATA), Err(Mountstat3::Acces));
    s.names = Some(vec!["a.example.org".into()]);
    assert!(s.getattr(&root).is_ok());
    assert_eq!(s.mount(DATA), Ok(root));
}

#[test]
fn clients_that_no_rule_is_for_find_nothing() {
    let mut s = offering(vec![client(network("10.0.0.0", 24), plain())]);
    let root = s.root.clone();
    let applied = s.index;
    s.client = "10.0.1.1".parse().unwrap();
    assert_eq!(s.mount(DATA), Err(Mountstat3::Acces));
    assert_eq!(s.getattr(&root), Err(Nfsstat3::Stale));
    let wcc = WccData::default();
    assert_eq!(s.mkdir(&root, "d"), Res3::Fail(Nfsstat3::Stale, wcc));
    assert_eq!(s.index, applied, "nothing gets into the log");
    let null = s.call(PROGRAM, VERSION, 0, Gather::new());
    let () = crate::server::results(s.send(&null));
    s.client = "10.0.0.1".parse().unwrap();
    assert!(s.getattr(&root).is_ok());
}

#[test]
fn secure_exports_want_privileged_ports() {
    let secure = Options {
        secure: true,
        ..plain()
    };
    let mut s = offering(everybody(secure));
    let root = s.root.clone();
    s.port = 1_024;
    assert_eq!(s.getattr(&root), Err(Nfsstat3::Perm));
    assert_eq!(s.mount(DATA), Err(Mountstat3::Acces));
    s.port = 1_023;
    assert!(s.getattr(&root).is_ok());
    assert_eq!(s.mount(DATA), Ok(root.clone()));
    s.offer(&[(DATA, everybody(plain()))]);
    s.port = 40_000;
    assert!(s.getattr(&root).is_ok());
}

/// Exports /a and /b, plainly.
fn two() -> (Server, Fh3, Fh3) {
    let mut s = Server::new();
    s.export(&[("/a", everybody(plain())), ("/b", everybody(plain()))]);
    let (a, b) = (s.mount("/a").unwrap(), s.mount("/b").unwrap());
    (s, a, b)
}

#[test]
fn every_export_has_options_of_its_own() {
    let (mut s, a, b) = two();
    let in_a = s.file(&a, "f");
    s.offer(&[("/a", everybody(ro())), ("/b", everybody(anon(77)))]);
    s.cred = auth_sys(0, 0, &[]);
    assert_eq!(s.mkdir(&a, "x").failure(), Some(Nfsstat3::RoFs));
    assert_eq!(s.write(&in_a, 0, b"x").failure(), Some(Nfsstat3::RoFs));
    assert!(s.read(&in_a, 0, 1).failure().is_none());
    let file = s.file(&b, "f");
    assert_eq!(s.getattr(&file).unwrap().uid, 77);
    let granted = |s: &mut Server, object: &Fh3| {
        let object = object.clone();
        let args = Args3::Access(AccessArgs {
            object,
            access: access::ALL,
        });
        s.nfs::<AccessRes>(args).ok_or_status().unwrap().access
    };
    let changing = access::MODIFY | access::EXTEND | access::DELETE;
    assert_eq!(granted(&mut s, &a) & changing, 0);
    assert_eq!(granted(&mut s, &b) & changing, changing);
}

fn rename(s: &mut Server, from: (&Fh3, &str), to: (&Fh3, &str)) -> Option<Nfsstat3> {
    s.rename(from, to).failure()
}

fn link(s: &mut Server, file: &Fh3, to: (&Fh3, &str)) -> Option<Nfsstat3> {
    let (file, link) = (file.clone(), s.at(to.0, to.1));
    s.nfs::<LinkRes>(Args3::Link(LinkArgs { file, link }))
        .failure()
}

#[test]
fn nothing_is_moved_or_linked_across_exports() {
    let (mut s, a, b) = two();
    let file = s.file(&a, "f");
    let xdev = Some(Nfsstat3::XDev);
    assert_eq!(rename(&mut s, (&a, "f"), (&b, "f")), xdev);
    assert_eq!(link(&mut s, &file, (&b, "f")), xdev);
    assert_eq!(rename(&mut s, (&a, "f"), (&a, "g")), None);
    assert_eq!(link(&mut s, &file, (&a, "h")), None);
    s.offer(&[("/a", everybody(plain())), ("/b", everybody(ro()))]);
    let rofs = Some(Nfsstat3::RoFs);
    assert_eq!(rename(&mut s, (&a, "g"), (&b, "f")), rofs);
    assert_eq!(rename(&mut s, (&b, "g"), (&a, "f")), rofs);
    s.offer(&[("/a", everybody(plain()))]);
    let stale = Some(Nfsstat3::Stale);
    assert_eq!(rename(&mut s, (&a, "g"), (&b, "f")), stale);
    assert_eq!(link(&mut s, &file, (&b, "f")), stale);
}

fn export_of(fh: &Fh3) -> ExportId {
    claimed_export(&fh.0).unwrap()
}

#[test]
fn handles_inherit_the_export() {
    let (mut s, a, b) = two();
    assert_ne!(export_of(&a), export_of(&b));
    for top in [a, b] {
        let dir = s.dir(&top, "d");
        let file = s.file(&dir, "f");
        let found = s.lookup(&dir, "f").ok_or_status().unwrap().object;
        assert_eq!(found, file);
        let args = ReaddirplusArgs {
            dir: dir.clone(),
            cookie: Cookie3(0),
            cookieverf: Cookieverf3::default(),
            dircount: 9_999,
            maxcount: 9_999,
        };
        let listed = s.nfs::<ReaddirplusRes>(Args3::Readdirplus(args));
        let listed = listed.ok_or_status().unwrap().entries;
        let handles: Vec<_> = listed.into_iter().map(|e| e.name_handle.unwrap()).collect();
        assert_eq!(handles, [dir.clone(), top.clone(), file.clone()]);
        let place = s.at(&dir, "l");
        let args = SymlinkArgs {
            place,
            symlink_attributes: Sattr3::default(),
            symlink_data: "t".into(),
        };
        let link = s.nfs::<SymlinkRes>(Args3::Symlink(args));
        for fh in [dir, file, link.ok_or_status().unwrap().obj.unwrap()] {
            assert_eq!(export_of(&fh), export_of(&top));
        }
    }
}

#[test]
fn a_forged_export_is_no_way_in() {
    let (mut s, a, b) = two();
    s.offer(&[("/a", everybody(ro())), ("/b", everybody(plain()))]);
    let mut forged = a.0.to_vec();
    forged[2..4].copy_from_slice(&export_of(&b).0.to_be_bytes());
    let forged = Fh3(forged.into());
    assert_eq!(s.getattr(&forged), Err(Nfsstat3::BadHandle));
    let refused = s.mkdir(&forged, "d").failure();
    assert_eq!(refused, Some(Nfsstat3::BadHandle));
    let mut none = a.0.to_vec();
    none[2..4].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(s.getattr(&Fh3(none.into())), Err(Nfsstat3::Stale));
}

/// What `..` of a directory is: by LOOKUP, READDIRPLUS and READDIR, which must agree.
fn up(s: &mut Server, dir: &Fh3) -> Fh3 {
    let found = s.lookup(dir, "..").ok_or_status().unwrap().object;
    let (cookie, cookieverf) = (Cookie3(1), Cookieverf3::default());
    let args = ReaddirplusArgs {
        dir: dir.clone(),
        cookie,
        cookieverf,
        dircount: 9_999,
        maxcount: 9_999,
    };
    let listed = s.nfs::<ReaddirplusRes>(Args3::Readdirplus(args));
    let first = listed.ok_or_status().unwrap().entries.remove(0);
    assert_eq!(first.name_handle, Some(found.clone()));
    let args = ReaddirArgs {
        dir: dir.clone(),
        cookie,
        cookieverf,
        count: 9_999,
    };
    let listed = s.nfs::<ReaddirRes>(Args3::Readdir(args));
    assert_eq!(
        listed.ok_or_status().unwrap().entries[0].fileid,
        first.fileid
    );
    found
}

#[test]
fn dot_dot_deep_down() {
    let mut s = Server::new();
    let (inner, whole) = ((DATA, everybody(plain())), ("/", everybody(plain())));
    s.export(&[inner, whole]);
    for (path, bounded) in [(DATA, true), ("/", false)] {
        let mut chain = vec![s.mount(path).unwrap()];
        for level in 0..MOVE_DEPTH_MAX + 1 {
            let dir = s.dir(&chain[level], "d");
            chain.push(dir);
        }
        let (above, deepest) = (&chain[MOVE_DEPTH_MAX], &chain[MOVE_DEPTH_MAX + 1]);
        if bounded {
            let told = s.lookup(deepest, "..").failure();
            assert_eq!(told, Some(Nfsstat3::NameTooLong));
            let args = ReaddirArgs {
                dir: deepest.clone(),
                cookie: Cookie3(0),
                cookieverf: Cookieverf3::default(),
                count: 9_999,
            };
            let listed = s.nfs::<ReaddirRes>(Args3::Readdir(args));
            assert_eq!(listed.ok_or_status().unwrap().entries.len(), 2);
        } else {
            assert_eq!(up(&mut s, deepest), *above);
        }
        // In both orders: what was found on the way is remembered.
        for level in [2, MOVE_DEPTH_MAX, 1, MOVE_DEPTH_MAX - 1] {
            assert_eq!(up(&mut s, &chain[level]), chain[level - 1]);
        }
    }
}

#[test]
fn nested_exports() {
    let mut s = Server::new();
    s.export(&[(DATA, everybody(plain())), ("/data/in", everybody(ro()))]);
    let outer = s.root.clone();
    let inner = s.mount("/data/in").unwrap();
    let through = s.lookup(&outer, "in").ok_or_status().unwrap().object;
    assert_eq!(export_of(&through), export_of(&outer), "the way counts");
    let deep = s.dir(&through, "deep");
    assert!(s.mkdir(&inner, "x").failure() == Some(Nfsstat3::RoFs));
    let below = s.mount("/data/in/deep").unwrap();
    assert_eq!(export_of(&below), export_of(&inner), "the deepest counts");

    assert_eq!(up(&mut s, &outer), outer);
    assert_eq!(up(&mut s, &inner), inner);
    assert_eq!(up(&mut s, &through), outer);
    assert_eq!(up(&mut s, &below), inner);
    assert_eq!(up(&mut s, &deep), through);
    // Moved out of the inner export through the outer one: it stays usable, and leads nowhere else.
    assert_eq!(rename(&mut s, (&through, "deep"), (&outer, "moved")), None);
    assert!(s.getattr(&below).is_ok());
    assert_eq!(up(&mut s, &below), below);
    assert_eq!(up(&mut s, &deep), outer);

    s.client = "10.0.0.1".parse().unwrap();
    let only = vec![client(address("10.0.0.2"), ro())];
    s.offer(&[(DATA, everybody(plain())), ("/data/in", only)]);
    let fallen_back = s.mount("/data/in").unwrap();
    assert_eq!(fallen_back, through, "the next export above lets it in");
    assert_eq!(s.getattr(&inner), Err(Nfsstat3::Stale));
}

#[test]
fn removed_exports_are_stale_and_come_back_as_they_were() {
    let (mut s, a, b) = two();
    let file = s.file(&a, "f");
    s.offer(&[("/b", everybody(plain()))]);
    assert_eq!(s.getattr(&a), Err(Nfsstat3::Stale));
    assert_eq!(s.getattr(&file), Err(Nfsstat3::Stale));
    assert_eq!(s.mount("/a"), Err(Mountstat3::Acces));
    assert!(s.getattr(&b).is_ok());
    assert!(s.machine.has_export(b"/a"), "nothing to be made again");
    s.offer(&[("/c", everybody(plain())), ("/a", everybody(plain()))]);
    assert_eq!(s.mount("/a"), Ok(a));
    assert!(s.getattr(&file).is_ok());
    assert_eq!(s.mount("/c"), Err(Mountstat3::Acces), "not made yet");
    assert!(!s.machine.has_export(b"/c"));
}

#[test]
fn numbers_stay_over_restarts_snapshots_and_replays() {
    let (mut s, a, b) = two();
    let ids = s.machine.export_ids();
    assert_eq!(ids.len(), 3);
    s.machine = Machine::new(s.machine.into_fs()).unwrap();
    assert_eq!(s.machine.export_ids(), ids);
    s.machine.reload().unwrap();
    assert_eq!(s.machine.export_ids(), ids);
    let mut other = Machine::new(Model::new()).unwrap();
    for (i, entry) in s.log.iter().enumerate() {
        other.apply(i as u64 + 1, entry).unwrap();
    }
    assert_eq!(other.export_ids(), ids);
    s.machine = other;
    assert_eq!((s.mount("/a"), s.mount("/b")), (Ok(a.clone()), Ok(b)));

    // The entry again, and after the directory is gone: the number belongs to the path.
    s.apply(export_entry("//a/", 0o755));
    assert_eq!(s.machine.export_ids(), ids);
    let parent = s.machine.fs_mut();
    let at = haven_fs::Change {
        index: 1_000,
        time: Time::default(),
    };
    let (cred, top) = (haven_fs::Cred::root(), haven_fs::Filesystem::root(parent));
    haven_fs::Filesystem::rmdir(parent, &at, &cred, top, b"a").unwrap();
    assert!(!s.machine.has_export(b"/a"));
    assert_eq!(s.mount("/a"), Err(Mountstat3::NoEnt));
    s.index = 1_000;
    s.apply(export_entry("/a", 0o755));
    assert_eq!(s.machine.export_ids(), ids);
    assert!(s.machine.has_export(b"/a"));
    let again = s.mount("/a").unwrap();
    assert_eq!(export_of(&again), export_of(&a));
    assert_ne!(again, a, "but it is another directory");
    assert_eq!(up(&mut s, &again), again);
}

#[test]
fn numbers_are_used_up_once() {
    let mut s = Server::new();
    let row = haven_nfsd::rows::ExportRow {
        path: Bytes::from_static(b"/last"),
        id: ExportId(u16::MAX),
        ino: haven_fs::Ino(1),
    };
    let (key, value) = row.encode();
    let fs = s.machine.fs_mut();
    haven_fs::SystemTable::system_put(fs, &key, Some(&value)).unwrap();
    s.machine.reload().unwrap();
    let refused = s.apply(export_entry("/more", 0o755));
    assert!(matches!(refused, Outcome::Refused(why) if why.contains("used up")));
    assert_eq!(s.apply(export_entry(DATA, 0o755)), Outcome::Done);
}

#[test]
fn rows_of_another_version_are_named() {
    let mut s = Server::new();
    let fs = s.machine.fs_mut();
    haven_fs::SystemTable::system_put(fs, b"m/export/data", Some(&[0; 8])).unwrap();
    let why = s.machine.reload().unwrap_err().to_string();
    assert!(
        why.contains("m/export/data") && why.contains("version"),
        "{why}"
    );
}
