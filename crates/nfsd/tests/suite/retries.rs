//! Who asks again, and who only looks like it: at the machine, with the leader's knowledge given.

use crate::server::{Server, auth_sys, encoded, mode, results};
use haven_fs::Time;
use haven_fs::model::Model;
use haven_nfsd::{ConnectionId, Entry, KEPT_NS, Machine, News};
use haven_proto::nfs3::*;
use haven_rpc::Call;
use haven_xdr::Gather;

/// A lock file, as O_CREAT with O_EXCL makes it.
fn lock(s: &mut Server) -> Call {
    let root = s.root.clone();
    let args = Args3::Create(CreateArgs {
        place: s.at(&root, "lock"),
        how: Createhow3::Guarded(mode(0o644)),
    });
    s.call(PROGRAM, VERSION, args.proc().to_wire(), encoded(&args))
}

fn removal(s: &mut Server) -> Call {
    let root = s.root.clone();
    let args = Args3::Remove(RemoveArgs {
        object: s.at(&root, "lock"),
    });
    s.call(PROGRAM, VERSION, args.proc().to_wire(), encoded(&args))
}

fn made(reply: Gather) -> bool {
    results::<CreateRes>(reply).ok_or_status().is_ok()
}

fn connection(term: u64, number: u64) -> ConnectionId {
    ConnectionId { term, number }
}

/// News, with nothing asked.
fn tell(s: &mut Server, news: Vec<News>) {
    let time = Time::default();
    s.apply(Entry::News { time, news }.encode().unwrap());
}

#[test]
fn of_two_containers_behind_one_address_one_gets_the_lock() {
    let mut s = Server::new();
    let call = lock(&mut s);
    assert!(made(s.send(&call)));
    s.connection.number += 1;
    assert!(
        !made(s.send(&call)),
        "with the same number, at the same time"
    );
    // Their leader dies before either has its reply: each gets one of the two, whoever comes first.
    s.connection = connection(2, 1);
    let first = made(s.send(&call));
    s.connection.number += 1;
    let second = made(s.send(&call));
    assert!(first != second, "{first} and {second}");
}

#[test]
fn numbers_may_begin_anew() {
    let mut s = Server::new();
    let (lock, removal) = (lock(&mut s), removal(&mut s));
    assert!(made(s.send(&lock)));
    s.send(&removal);
    let news = News::Arrived {
        connection: s.connection,
        first: 1,
        last: s.changes,
    };
    tell(&mut s, vec![news]);
    assert_eq!(s.machine.cached_replies(), 0);
    s.connection = connection(2, 1);
    assert!(made(s.send(&lock)));
    let root = s.root.clone();
    assert!(
        s.lookup(&root, "lock").ok_or_status().is_ok(),
        "it is there"
    );
}

#[test]
fn the_same_number_over_the_same_connection_is_a_new_request() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let write = |s: &mut Server, data: &'static [u8]| {
        let args = Args3::Write(WriteArgs {
            file: file.clone(),
            offset: 0,
            count: data.len() as u32,
            stable: StableHow::Unstable,
            data: data.into(),
        });
        s.call(PROGRAM, VERSION, args.proc().to_wire(), encoded(&args))
    };
    let (a, b) = (write(&mut s, b"AAAA"), write(&mut s, b"BBBB"));
    for call in [&a, &b, &a] {
        s.send(call);
    }
    let read = s.read(&file, 0, 4).ok_or_status().unwrap();
    assert_eq!(&read.data[..], b"AAAA");
}

#[test]
fn another_user_does_not_get_the_reply() {
    let mut s = Server::new();
    let root = s.root.clone();
    s.setattr(&root, mode(0o700), None).ok_or_status().unwrap();
    let call = lock(&mut s);
    assert!(made(s.send(&call)));
    s.connection.term += 1;
    let other = Call {
        cred: auth_sys(1000, 1000, &[]),
        ..call
    };
    let refused = results::<CreateRes>(s.send(&other)).failure();
    assert_eq!(refused, Some(Nfsstat3::Acces));
}

#[test]
fn a_retry_is_recognised_after_ten_thousand_other_changes() {
    let mut s = Server::new();
    let root = s.root.clone();
    let call = lock(&mut s);
    assert!(made(s.send(&call)));
    s.connection.number = 2;
    for n in 0..10_000 {
        s.setattr(&root, mode(0o700 + n % 64), None)
            .ok_or_status()
            .unwrap();
    }
    s.connection.term += 1;
    assert!(made(s.send(&call)));
}

#[test]
fn outages_do_not_count_for_how_long_a_reply_is_kept() {
    let mut s = Server::new();
    let call = lock(&mut s);
    assert!(made(s.send(&call)));
    let kept_s = (KEPT_NS / 1_000_000_000) as i64;
    let mut now = s.machine.last_time().secs;
    let mut serve = |s: &mut Server, by_s: i64, times: i64| {
        for _ in 0..times {
            now += by_s;
            let time = Time {
                secs: now,
                nanos: 0,
            };
            let news = Vec::new();
            s.apply(Entry::News { time, news }.encode().unwrap());
        }
    };
    // A thousand days in which nobody was served.
    serve(&mut s, 1_000 * kept_s, 1);
    s.connection.term += 1;
    assert!(made(s.send(&call)));
    // A change between two in the same second goes on by a second: time is that of the leader's clock.
    serve(&mut s, 1, kept_s - 10);
    let root = s.root.clone();
    s.file(&root, "other");
    s.connection.term += 1;
    assert!(made(s.send(&call)), "asking keeps it");
    serve(&mut s, 1, kept_s + 1);
    s.file(&root, "another");
    s.connection.term += 1;
    assert!(!made(s.send(&call)));
}

/// Ends at every entry and goes on from what was durable, at any entry before: state and replies are what they would have
/// been.
#[test]
fn replaying_after_a_crash_gives_the_same_replies() {
    let mut s = Server::new();
    let root = s.root.clone();
    let mut states = vec![(s.index, s.machine.fs().clone())];
    for round in 0..4 {
        let (lock, removal) = (lock(&mut s), removal(&mut s));
        for call in [&lock, &removal, &lock] {
            s.send(call);
            if round % 2 == 0 {
                s.reconnect();
            }
            s.send(call);
            states.push((s.index, s.machine.fs().clone()));
        }
        s.connection = connection(round + 2, 1);
        s.send(&removal);
        let first = s.changes - 2;
        s.news.push(News::Arrived {
            connection: s.connection,
            first,
            last: s.changes,
        });
        s.file(&root, &format!("f{round}"));
        states.push((s.index, s.machine.fs().clone()));
    }
    for (index, state) in states {
        let mut machine = Machine::new(state).unwrap();
        let rest = (index + 1..).zip(&s.log[index as usize..]);
        for (index, entry) in rest {
            machine.apply(index, entry).unwrap();
        }
        assert!(*machine.fs() == *s.machine.fs(), "from {index} on");
    }
    let mut replica = Machine::new(Model::new()).unwrap();
    for (index, entry) in (1..).zip(&s.log) {
        replica.apply(index, entry).unwrap();
    }
    assert!(*replica.fs() == *s.machine.fs());
}
