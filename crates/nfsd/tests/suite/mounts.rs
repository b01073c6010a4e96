//! The table of mounts: DUMP, and who changes it.

use crate::server::{DATA, Server, encoded, everybody, plain};
use bytes::Bytes;
use haven_fs::SystemTable;
use haven_fs::model::Model;
use haven_nfsd::{
    Client, Entry, ExportId, Machine, MntRules, MountEntry, MountOp, Options, Transport, Who,
};
use haven_proto::mount::{self, Dirpath, Mountstat3, Name, Procedure};
use haven_xdr::Gather;

fn path(text: &str) -> Dirpath {
    Dirpath(Bytes::copy_from_slice(text.as_bytes()))
}

fn dump(s: &mut Server) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let list: mount::Mountlist = s.mnt(1, Procedure::Dump, Gather::new());
    let rows = list.0.iter();
    rows.map(|row| (text(&row.hostname.0), text(&row.directory.0)))
        .collect()
}

fn from(s: &mut Server, client: &str) {
    s.client = client.parse().unwrap();
}

fn umnt(s: &mut Server, what: &str) {
    let () = s.mnt(3, Procedure::Umnt, encoded(&path(what)));
}

fn row(client: &str, path: &str) -> (String, String) {
    (client.to_owned(), path.to_owned())
}

#[test]
fn mounts_are_told_until_they_are_gone() {
    let mut s = Server::new();
    assert_eq!(dump(&mut s), [row("192.0.2.1", "/data")], "this test's own");
    let root = s.root.clone();
    s.dir(&root, "sub");
    from(&mut s, "2001:db8::1");
    s.mount("//data/sub/").unwrap();
    s.mount("/data").unwrap();
    from(&mut s, "::ffff:192.0.2.1");
    s.mount("/data/sub").unwrap();
    let all = [
        row("192.0.2.1", "/data"),
        row("2001:db8::1", "/data/sub"),
        row("2001:db8::1", "/data"),
        row("192.0.2.1", "/data/sub"),
    ];
    assert_eq!(dump(&mut s), all);

    umnt(&mut s, "/data/./sub");
    assert_eq!(dump(&mut s), all[..3], "one's own only");
    from(&mut s, "2001:db8::1");
    let () = s.mnt(1, Procedure::Umntall, Gather::new());
    assert_eq!(dump(&mut s), all[..1]);
}

#[test]
fn only_changes_are_logged() {
    let mut s = Server::new();
    let root = s.root.clone();
    s.file(&root, "f");
    let applied = s.index;
    assert_eq!(s.mount("/data/none"), Err(Mountstat3::NoEnt));
    assert_eq!(s.mount("/data/f/x"), Err(Mountstat3::NotDir));
    assert_eq!(s.mount("/other"), Err(Mountstat3::Acces));
    umnt(&mut s, "/data/none");
    umnt(&mut s, "no path");
    from(&mut s, "192.0.2.9");
    umnt(&mut s, "/data");
    let () = s.mnt(3, Procedure::Umntall, Gather::new());
    let () = s.mnt(3, Procedure::Null, Gather::new());
    assert_eq!(s.index, applied);
    assert_eq!(dump(&mut s).len(), 1);
}

/// Whoever sends a datagram may write any address into it.
#[test]
fn datagrams_are_answered_and_change_no_rows() {
    let mut s = Server::new();
    let root = s.root.clone();
    let sub = s.dir(&root, "sub");
    let (before, applied) = (dump(&mut s), s.index);
    s.transport = Transport::Datagram;
    assert_eq!(s.mount("/data/sub"), Ok(sub), "it gets its handle");
    assert_eq!(s.mount("/data/none"), Err(Mountstat3::NoEnt));
    for n in 0..5000_u32 {
        let [.., high, low] = n.to_be_bytes();
        from(&mut s, &format!("10.0.{high}.{low}"));
        s.mount("/data").unwrap();
    }
    from(&mut s, "192.0.2.1");
    umnt(&mut s, "/data");
    let () = s.mnt(3, Procedure::Umntall, Gather::new());
    assert_eq!(s.index, applied, "nothing was logged");
    assert_eq!(dump(&mut s), before);
    s.transport = Transport::Stream;
    umnt(&mut s, "/data");
    assert_eq!(dump(&mut s), []);
}

#[test]
fn a_path_stays_until_it_is_unmounted_as_often_as_it_was_mounted() {
    let mut s = Server::new();
    let both = [row("192.0.2.1", "/data"), row("192.0.2.7", "/data")];
    from(&mut s, "192.0.2.7");
    s.mount("/data").unwrap();
    s.mount("//data/").unwrap();
    s.mount("/data/.").unwrap();
    for _ in 0..2 {
        assert_eq!(dump(&mut s), both, "told once");
        umnt(&mut s, "/data");
    }
    assert_eq!(dump(&mut s), both);
    s.machine = Machine::new(s.machine.into_fs()).unwrap();
    umnt(&mut s, "/data");
    assert_eq!(dump(&mut s), both[..1]);
    umnt(&mut s, "/data");
    for _ in 0..2 {
        s.mount("/data").unwrap();
    }
    let () = s.mnt(3, Procedure::Umntall, Gather::new());
    assert_eq!(dump(&mut s), both[..1], "all of them");
}

#[test]
fn a_mount_that_is_sent_again_counts_once() {
    let mut s = Server::new();
    from(&mut s, "192.0.2.7");
    let mut calls = Vec::new();
    for procedure in [Procedure::Mnt, Procedure::Mnt, Procedure::Umnt] {
        let args = encoded(&path("/data"));
        calls.push(s.call(mount::PROGRAM, 3, procedure.to_wire(), args));
    }
    let told = |s: &mut Server| dump(s).len();
    for call in &calls {
        let first = s.send(call);
        let applied = s.index;
        assert_eq!(s.send(call), first);
        assert_eq!(s.index, applied, "only looked at");
        assert_eq!(told(&mut s), 2);
    }
    // As by a leader that proposed the copy before the first was applied.
    let again = s.log.last().unwrap().clone();
    s.apply(again);
    assert_eq!(told(&mut s), 2);
    umnt(&mut s, "/data");
    assert_eq!(told(&mut s), 1);
}

/// Entries mean the same for ever: what an earlier version put into the log does not count mounts.
#[test]
fn mounts_in_logs_of_earlier_versions_are_what_they_were() {
    let mut s = Server::new();
    let root = s.root.clone();
    s.file(&root, "f");
    let client = "192.0.2.7".parse().unwrap();
    let entry = |xid, path: &'static str| {
        let op = MountOp::Mnt {
            rules: MntRules::First,
            version: 3,
            export: ExportId(1),
            path: Bytes::from_static(path.as_bytes()),
        };
        let time = haven_fs::Time::default();
        let entry = MountEntry {
            time,
            client,
            xid,
            op,
        };
        Entry::Mount(entry).encode().unwrap()
    };
    for (xid, path) in [(1, "/data"), (2, "/data"), (3, "/data/f")] {
        s.apply(entry(xid, path));
    }
    let told = dump(&mut s);
    assert_eq!(told[1..], [row("192.0.2.7", "/data")]);
    let mut rows = Vec::new();
    let scanned = s.machine.fs().system_scan(b"m/mount/", &mut |_, value| {
        rows.push(value.to_vec());
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(scanned, Ok(()));
    assert_eq!(rows[1], b"\x04\xc0\0\x02\x07data", "and so is the row");
    from(&mut s, "192.0.2.7");
    umnt(&mut s, "/data");
    assert_eq!(dump(&mut s).len(), 1);
}

#[test]
fn the_table_is_the_same_after_restarts_and_on_other_replicas() {
    let mut s = Server::new();
    from(&mut s, "192.0.2.7");
    s.mount("/data").unwrap();
    from(&mut s, "192.0.2.8");
    s.mount("/data").unwrap();
    umnt(&mut s, "/data");
    let told = dump(&mut s);
    assert_eq!(told.len(), 2);
    s.machine = Machine::new(s.machine.into_fs()).unwrap();
    assert_eq!(dump(&mut s), told);
    let mut other = Machine::new(Model::new()).unwrap();
    for (i, entry) in s.log.iter().enumerate() {
        other.apply(i as u64 + 1, entry).unwrap();
    }
    assert!(other.fs() == s.machine.fs(), "the system table included");
    s.machine = other;
    assert_eq!(dump(&mut s), told);
}

#[test]
fn exports_are_listed_with_their_clients() {
    let mut s = Server::new();
    let client = |who| Client {
        who,
        options: Options::default(),
    };
    let clients = vec![
        client(Who::Network("10.0.0.0".parse().unwrap(), 24)),
        client(Who::Address("2001:db8::1".parse().unwrap())),
        client(Who::Host("a.example.org".into())),
        client(Who::Wildcard("*.example.org".into())),
    ];
    s.offer(&[("/other", clients), (DATA, everybody(plain()))]);
    let list: mount::Exports = s.mnt(3, Procedure::Export, Gather::new());
    let node = |dir: &str, groups: &[&str]| mount::Exportnode {
        dir: path(dir),
        groups: (groups.iter())
            .map(|g| Name(Bytes::copy_from_slice(g.as_bytes())))
            .collect(),
    };
    let groups = [
        "10.0.0.0/24",
        "2001:db8::1",
        "a.example.org",
        "*.example.org",
    ];
    assert_eq!(list.0, [node("/other", &groups), node("/data", &["*"])]);
}
