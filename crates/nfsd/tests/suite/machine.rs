//! The machine: exactly once, the same everywhere, and time that only rises.

use crate::server::{DATA, Server, VOLUME_ID, auth_sys, encoded, everybody, mode, results};
use bytes::Bytes;
use haven_fs::model::Model;
use haven_fs::{Filesystem, Ino, Time};
use haven_nfsd::{Entry, Machine, Options, Outcome, Prepared};
use haven_proto::nfs3::*;
use haven_rpc::{AuthSys, Call, Credential};
use std::net::IpAddr;

fn remove_call(s: &mut Server, name: &str) -> Call {
    let root = s.root.clone();
    let args = Args3::Remove(RemoveArgs {
        object: s.at(&root, name),
    });
    s.call(PROGRAM, VERSION, args.proc().to_wire(), encoded(&args))
}

fn status(reply: haven_xdr::Gather) -> Option<Nfsstat3> {
    results::<RemoveRes>(reply).failure()
}

#[test]
fn a_retried_request_is_executed_once() {
    let mut s = Server::new();
    let root = s.root.clone();
    s.file(&root, "f");
    let call = remove_call(&mut s, "f");
    let first = s.send(&call);
    assert_eq!(status(first.clone()), None);
    s.file(&root, "f");
    s.reconnect();
    assert_eq!(s.send(&call), first, "the same reply, byte for byte");
    assert!(
        s.lookup(&root, "f").failure().is_none(),
        "the new file is still there"
    );
}

#[test]
fn retries_are_recognised_after_a_reload_and_on_another_replica() {
    let mut s = Server::new();
    let root = s.root.clone();
    s.file(&root, "f");
    let call = remove_call(&mut s, "f");
    let first = s.send(&call);

    s.machine = Machine::new(s.machine.into_fs()).unwrap();
    s.reconnect();
    assert_eq!(s.send(&call), first);
    s.machine.reload().unwrap();
    s.connection.term += 1;
    assert_eq!(s.send(&call), first);

    let mut other = Machine::new(Model::new()).unwrap();
    for (i, entry) in s.log.iter().enumerate() {
        other.apply(i as u64 + 1, entry).unwrap();
    }
    s.machine = other;
    s.connection.term += 1;
    assert_eq!(s.send(&call), first);
}

#[test]
fn what_makes_another_request() {
    let mut s = Server::new();
    let root = s.root.clone();
    s.file(&root, "f");
    let call = remove_call(&mut s, "f");
    assert_eq!(status(s.send(&call)), None);
    s.connection.term += 1;
    let other_xid = Call {
        xid: call.xid + 1_000,
        ..call.clone()
    };
    assert_eq!(status(s.send(&other_xid)), Some(Nfsstat3::NoEnt));
    let other_args = Call {
        xid: call.xid,
        ..remove_call(&mut s, "g")
    };
    assert_eq!(status(s.send(&other_args)), Some(Nfsstat3::NoEnt));
    let client = s.client;
    s.client = IpAddr::from([192, 0, 2, 2]);
    assert_eq!(status(s.send(&call)), Some(Nfsstat3::NoEnt));
    let IpAddr::V4(v4) = client else {
        panic!("an IPv4 client")
    };
    s.client = IpAddr::V6(v4.to_ipv6_mapped());
    s.connection.term += 1;
    let stamped = Call {
        cred: match auth_sys(0, 0, &[]) {
            Credential::Sys(sys) => Credential::Sys(AuthSys { stamp: 77, ..sys }),
            none => none,
        },
        ..call.clone()
    };
    assert_eq!(
        status(s.send(&stamped)),
        None,
        "the same client over a dual socket, with another stamp"
    );
    s.connection.term += 1;
    let others = [auth_sys(1, 0, &[]), auth_sys(0, 0, &[1]), Credential::None];
    for cred in others {
        let call = Call {
            cred,
            ..call.clone()
        };
        assert_ne!(status(s.send(&call)), None, "another caller");
    }
}

#[test]
fn failures_are_remembered_too() {
    let mut s = Server::new();
    let root = s.root.clone();
    let call = remove_call(&mut s, "f");
    assert_eq!(status(s.send(&call)), Some(Nfsstat3::NoEnt));
    s.file(&root, "f");
    s.reconnect();
    assert_eq!(status(s.send(&call)), Some(Nfsstat3::NoEnt));
}

#[test]
fn the_same_entries_give_the_same_state_and_replies() {
    let mut s = Server::new();
    let root = s.root.clone();
    for i in 0..50 {
        s.cred = auth_sys(i % 3, i % 2, &[5]);
        let dir = s.dir(&root, &format!("d{i}"));
        let file = s.file(&dir, "f");
        let _: WriteRes = s.write(&file, u64::from(i) * 1_000, &[i as u8; 3_000]);
        let _: SetattrRes = s.setattr(&file, mode(0o600 + i % 8), None);
        if i % 3 == 0 {
            let _: RemoveRes = s.remove(&dir, "f");
        }
    }
    let replay = || {
        let mut machine = Machine::new(Model::new()).unwrap();
        let apply = |(i, entry)| machine.apply(i as u64 + 1, entry).unwrap();
        let outcomes: Vec<Outcome> = s.log.iter().enumerate().map(apply).collect();
        (machine.into_fs(), outcomes)
    };
    let (a, b) = (replay(), replay());
    assert!(
        a.0 == *s.machine.fs(),
        "the state is equal, the system table included"
    );
    assert!(a == b);
}

#[test]
fn server_time_only_rises() {
    let mut s = Server::new();
    let noop = |secs, nanos| {
        Entry::Noop {
            time: Time { secs, nanos },
        }
        .encode()
        .unwrap()
    };
    s.apply(noop(5_000, 999_999_999));
    assert_eq!(
        s.machine.last_time(),
        Time {
            secs: 5_000,
            nanos: 999_999_999
        }
    );
    s.apply(noop(10, 0));
    assert_eq!(
        s.machine.last_time(),
        Time {
            secs: 5_001,
            nanos: 0
        }
    );
    s.machine = Machine::new(s.machine.into_fs()).unwrap();
    s.apply(noop(10, 0));
    assert_eq!(
        s.machine.last_time(),
        Time {
            secs: 5_001,
            nanos: 1
        },
        "kept with the state"
    );
    let root = s.root.clone();
    let before = s.getattr(&root).unwrap().mtime;
    s.file(&root, "f");
    assert!(s.getattr(&root).unwrap().mtime > before);
    s.apply(noop(i64::MAX, 999_999_999));
    s.apply(noop(0, 0));
    assert_eq!(s.machine.last_time().secs, i64::MAX, "and never overflows");
}

#[test]
fn the_first_genesis_counts() {
    let mut s = Server::new();
    let time = Time::default();
    let other = Entry::Genesis {
        volume_id: [9; 16],
        handle_key: [9; 16],
        time,
    };
    assert_eq!(s.apply(other.encode().unwrap()), Outcome::Done);
    assert_eq!(s.machine.identity().unwrap().volume_id().0, VOLUME_ID);
    let root = s.root.clone();
    assert!(s.getattr(&root).is_ok());
}

#[test]
fn entries_that_cannot_be_understood_are_fatal() {
    let mut machine = Machine::new(Model::new()).unwrap();
    let before = machine.fs().clone();
    for bytes in [&b""[..], b"\x09rubbish", b"\x01"] {
        let error = machine
            .apply(7, &Bytes::copy_from_slice(bytes))
            .unwrap_err();
        assert!(error.to_string().contains("log index 7"), "{error}");
    }
    assert!(*machine.fs() == before);
}

#[test]
fn before_the_first_entry_nothing_is_served() {
    let mut s = Server::new();
    let object = s.root.clone();
    s.machine = Machine::new(Model::new()).unwrap();
    assert_eq!(s.machine.identity(), None);
    let calls = [
        Args3::Getattr(GetattrArgs {
            object: object.clone(),
        }),
        Args3::Setattr(SetattrArgs {
            object,
            new_attributes: mode(0),
            guard: None,
        }),
    ];
    for args in calls {
        let call = s.call(PROGRAM, VERSION, args.proc().to_wire(), encoded(&args));
        let reply = match s.prepared(&call, Time::default()) {
            Prepared::Query(request) => s.machine.query(&request).unwrap(),
            Prepared::Mutation(change) => {
                let entry = s.entry(&change);
                match s.machine.apply(1, &entry).unwrap() {
                    Outcome::Reply { message, .. } => message,
                    other => panic!("a reply, not {other:?}"),
                }
            }
            other => panic!("not sorted: {other:?}"),
        };
        let outcome = haven_rpc::decode_reply(reply.into_bytes()).unwrap().outcome;
        let system_err = haven_rpc::AcceptError::SystemErr;
        assert_eq!(outcome, haven_rpc::Outcome::Error(system_err));
    }
}

#[test]
fn squashed_ids_are_what_counts() {
    let mut s = Server::new();
    s.offer(&[(DATA, everybody(Options::default()))]);
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let attr = s.getattr(&file).unwrap();
    assert_eq!((attr.uid, attr.gid), (65_534, 65_534));
    let stored = s.machine.fs().attr(Ino(attr.fileid.0)).unwrap();
    assert_eq!(stored.uid, 65_534);
}
