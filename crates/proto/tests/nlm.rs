//! NLM messages laid out by hand after XNFS and RFC 1813 appendix II.

#[path = "common/pieces.rs"]
mod pieces;

use bytes::Bytes;
use haven_proto::nlm::*;
use haven_xdr::decode_all;
use pieces::Piece::{self, Hyper, Text, Word};
use pieces::{is, wire};

fn object(text: &'static str) -> Netobj {
    Netobj(Bytes::from_static(text.as_bytes()))
}

fn lock<O>(l_offset: O, l_len: O) -> Lock<O> {
    Lock {
        caller_name: CallerName(Bytes::from_static(b"client")),
        fh: object("file"),
        oh: object("7@client"),
        svid: -2,
        l_offset,
        l_len,
    }
}

/// A message with the range of [`lock`] in version 3, and in version 4.
fn around_lock<const B: usize, const A: usize>(
    before: impl Fn() -> [Piece; B],
    after: impl Fn() -> [Piece; A],
) -> (Vec<Piece>, Vec<Piece>) {
    let owner = || [Text("client"), Text("file"), Text("7@client"), Word(!1)];
    let mut narrow: Vec<_> = before().into_iter().chain(owner()).collect();
    narrow.extend([Word(5), Word(9)]);
    narrow.extend(after());
    let mut wide: Vec<_> = before().into_iter().chain(owner()).collect();
    wide.extend([Hyper(1 << 40), Hyper(9)]);
    wide.extend(after());
    (narrow, wide)
}

const NARROW: (u32, u32) = (5, 9);
const WIDE: (u64, u64) = (1 << 40, 9);

#[test]
fn tests_of_a_lock() {
    let (narrow, wide) = around_lock(|| [Text("cookie"), Word(1)], || []);
    let cookie = || object("cookie");
    let args = Testargs {
        cookie: cookie(),
        exclusive: true,
        alock: lock(NARROW.0, NARROW.1),
    };
    is(args, &narrow);
    let args = Testargs {
        cookie: cookie(),
        exclusive: true,
        alock: lock(WIDE.0, WIDE.1),
    };
    is(args, &wide);

    let holder = Holder {
        exclusive: false,
        svid: 3,
        oh: object("o"),
        l_offset: 1_u64 << 33,
        l_len: 0,
    };
    let pieces = [
        Text("cookie"),
        Word(1),
        Word(0),
        Word(3),
        Text("o"),
        Hyper(1 << 33),
        Hyper(0),
    ];
    let denied = Testres {
        cookie: cookie(),
        stat: Testrply::Denied(holder),
    };
    is(denied, &pieces);
    let none = Testres::<u32> {
        cookie: cookie(),
        stat: Testrply::Other(Stats::DeniedNolocks),
    };
    is(none, &[Text("cookie"), Word(2)]);
}

#[test]
fn locks() {
    let (narrow, wide) = around_lock(
        || [Text("cookie"), Word(1), Word(0)],
        || [Word(1), Word(77)],
    );
    fn args<O>(alock: Lock<O>) -> Lockargs<O> {
        Lockargs {
            cookie: object("cookie"),
            block: true,
            exclusive: false,
            alock,
            reclaim: true,
            state: 77,
        }
    }
    is(args(lock(NARROW.0, NARROW.1)), &narrow);
    is(args(lock(WIDE.0, WIDE.1)), &wide);
    let res = Res {
        cookie: object("cookie"),
        stat: Stats::Deadlck,
    };
    is(res, &[Text("cookie"), Word(5)]);
}

#[test]
fn cancellations_and_unlocks() {
    let (narrow, wide) = around_lock(|| [Text("c"), Word(0), Word(1)], || []);
    fn cancel<O>(alock: Lock<O>) -> Cancargs<O> {
        Cancargs {
            cookie: object("c"),
            block: false,
            exclusive: true,
            alock,
        }
    }
    is(cancel(lock(NARROW.0, NARROW.1)), &narrow);
    is(cancel(lock(WIDE.0, WIDE.1)), &wide);

    let (narrow, wide) = around_lock(|| [Text("c")], || []);
    fn unlock<O>(alock: Lock<O>) -> Unlockargs<O> {
        Unlockargs {
            cookie: object("c"),
            alock,
        }
    }
    is(unlock(lock(NARROW.0, NARROW.1)), &narrow);
    is(unlock(lock(WIDE.0, WIDE.1)), &wide);
}

#[test]
fn shares() {
    let args = Shareargs {
        cookie: object("c"),
        share: Share {
            caller_name: CallerName(Bytes::from_static(b"client")),
            fh: object("file"),
            oh: object("o"),
            mode: FshMode::DenyWrite,
            access: FshAccess::Both,
        },
        reclaim: false,
    };
    let pieces = [
        Text("c"),
        Text("client"),
        Text("file"),
        Text("o"),
        Word(2),
        Word(3),
        Word(0),
    ];
    is(args, &pieces);
    let res = Shareres {
        cookie: object("c"),
        stat: Stats::Granted,
        sequence: -1,
    };
    is(res, &[Text("c"), Word(0), Word(!0)]);
}

#[test]
fn a_client_that_has_restarted() {
    let notify = Notify {
        name: Bytes::from_static(b"client"),
        state: 5,
    };
    is(notify, &[Text("client"), Word(5)]);
}

#[test]
fn procedures_belong_to_versions() {
    let numbers: Vec<_> = (0..40)
        .filter(|n| Procedure::from_wire(*n).is_some())
        .collect();
    let all: Vec<u32> = (0..16).chain(20..24).collect();
    assert_eq!(numbers, all);
    let in_version = |version| {
        let all = all.iter().filter_map(|n| Procedure::from_wire(*n));
        all.filter(|procedure| procedure.is_in(version)).count()
    };
    assert_eq!([1, 2, 3, 4, 5].map(in_version), [16, 0, 20, 20, 0]);
}

#[test]
fn limits() {
    let of = |len: usize| {
        let fill = haven_xdr::padding(len);
        Bytes::from([&(len as u32).to_be_bytes()[..], &vec![0; len + fill]].concat())
    };
    assert!(decode_all::<Netobj>(of(1024)).is_ok());
    assert!(decode_all::<Netobj>(of(1025)).is_err());
    assert!(decode_all::<CallerName>(of(1024)).is_ok());
    assert!(decode_all::<CallerName>(of(1025)).is_err());
    let notify = |len| Bytes::from([&of(len)[..], &[0; 4]].concat());
    assert!(decode_all::<Notify>(notify(1025)).is_ok());
    assert!(decode_all::<Notify>(notify(1026)).is_err());
    let unknown = decode_all::<Res>(wire(&[Text("c"), Word(10)])).unwrap_err();
    assert!(unknown.to_string().contains("nlm_stats"), "{unknown}");
}
