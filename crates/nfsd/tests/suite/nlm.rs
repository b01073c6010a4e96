//! NLM while there are no locks: every call of a client gets its answer at once.

use crate::server::{Server, encoded, results};
use bytes::Bytes;
use haven_nfsd::{Prepared, Transport};
use haven_proto::nlm::*;
use haven_rpc::{AcceptError, Outcome, decode_reply};
use haven_xdr::{Decode, Encode, Gather};

fn cookie() -> Netobj {
    Netobj(Bytes::from_static(b"cookie"))
}

fn lock<O>(l_offset: O, l_len: O) -> Lock<O> {
    Lock {
        caller_name: CallerName(Bytes::from_static(b"client")),
        fh: Netobj(Bytes::from_static(b"a handle")),
        oh: Netobj(Bytes::from_static(b"7@client")),
        svid: 7,
        l_offset,
        l_len,
    }
}

/// The answer, for which nothing may be put into the log or asked of the state.
fn answered(s: &mut Server, vers: u32, proc: Procedure, args: Gather) -> Gather {
    let call = s.call(PROGRAM, vers, proc.to_wire(), args);
    match s.prepared(&call, haven_fs::Time::default()) {
        Prepared::Reply(reply) => reply,
        other => panic!("{proc:?} is not answered at once: {other:?}"),
    }
}

fn ask<T: Decode>(s: &mut Server, vers: u32, proc: Procedure, args: Gather) -> T {
    results(answered(s, vers, proc, args))
}

fn refused(s: &mut Server, vers: u32, proc: Procedure, args: Gather) -> AcceptError {
    let reply = answered(s, vers, proc, args).into_bytes();
    match decode_reply(reply).unwrap().outcome {
        Outcome::Error(error) => error,
        other => panic!("{proc:?} of version {vers} is answered: {other:?}"),
    }
}

/// All that concerns a range, by a client of version `vers`.
fn there_are_no_locks<O>(vers: u32, wanted: &Lock<O>)
where
    O: Encode + Decode + Clone + PartialEq + std::fmt::Debug,
{
    let mut s = Server::new();
    let test = Testargs {
        cookie: cookie(),
        exclusive: true,
        alock: wanted.clone(),
    };
    let found: Testres<O> = ask(&mut s, vers, Procedure::Test, encoded(&test));
    let none = Testrply::Other(Stats::DeniedNolocks);
    assert_eq!((found.cookie, found.stat), (cookie(), none));

    let mut res = |proc, args| {
        let Res { cookie: back, stat } = ask(&mut s, vers, proc, args);
        assert_eq!(back, cookie(), "{proc:?}");
        stat
    };
    for block in [false, true] {
        let lock = Lockargs {
            cookie: cookie(),
            block,
            exclusive: true,
            alock: wanted.clone(),
            reclaim: false,
            state: 3,
        };
        assert_eq!(res(Procedure::Lock, encoded(&lock)), Stats::DeniedNolocks);
        if vers != VERSION1 {
            let nm_lock = res(Procedure::NmLock, encoded(&lock));
            assert_eq!(nm_lock, Stats::DeniedNolocks);
        }
    }
    let unlock = Unlockargs {
        cookie: cookie(),
        alock: wanted.clone(),
    };
    assert_eq!(res(Procedure::Unlock, encoded(&unlock)), Stats::Granted);
    let cancel = Cancargs {
        cookie: cookie(),
        block: true,
        exclusive: true,
        alock: wanted.clone(),
    };
    assert_eq!(res(Procedure::Cancel, encoded(&cancel)), Stats::Granted);
    // Nobody here has waited for a lock.
    assert_eq!(res(Procedure::Granted, encoded(&test)), Stats::Denied);
}

#[test]
fn locks_are_denied_and_unlocks_granted_at_once() {
    there_are_no_locks(VERSION1, &lock(0_u32, 0));
    there_are_no_locks(VERSION3, &lock(1_u32, u32::MAX));
    there_are_no_locks(VERSION4, &lock(u64::MAX, 1));
}

#[test]
fn shares_are_denied_and_given_back() {
    let mut s = Server::new();
    let args = Shareargs {
        cookie: cookie(),
        share: Share {
            caller_name: CallerName(Bytes::from_static(b"client")),
            fh: Netobj::default(),
            oh: Netobj::default(),
            mode: FshMode::DenyWrite,
            access: FshAccess::Both,
        },
        reclaim: false,
    };
    let notify = Notify {
        name: Bytes::from_static(b"client"),
        state: 1,
    };
    for vers in [VERSION3, VERSION4] {
        let mut stat = |proc| {
            let res: Shareres = ask(&mut s, vers, proc, encoded(&args));
            assert_eq!(res.cookie, cookie());
            res.stat
        };
        assert_eq!(stat(Procedure::Share), Stats::DeniedNolocks);
        assert_eq!(stat(Procedure::Unshare), Stats::Granted);
        let () = ask(&mut s, vers, Procedure::FreeAll, encoded(&notify));
    }
    for proc in [Procedure::Share, Procedure::Unshare] {
        let refused = refused(&mut s, VERSION1, proc, encoded(&args));
        assert_eq!(refused, AcceptError::ProcUnavail);
    }
}

#[test]
fn calls_that_are_answered_by_another_call_are_refused() {
    let mut s = Server::new();
    for vers in [VERSION1, VERSION3, VERSION4] {
        for number in 6..=10 {
            let proc = Procedure::from_wire(number).unwrap();
            let refused = refused(&mut s, vers, proc, Gather::new());
            assert_eq!(refused, AcceptError::ProcUnavail, "{proc:?}");
        }
        let res = Res {
            cookie: cookie(),
            stat: Stats::Granted,
        };
        for proc in [
            Procedure::LockRes,
            Procedure::CancelRes,
            Procedure::UnlockRes,
            Procedure::GrantedRes,
        ] {
            let () = ask(&mut s, vers, proc, encoded(&res));
        }
    }
    let res = Testres {
        cookie: cookie(),
        stat: Testrply::<u64>::Other(Stats::Granted),
    };
    let () = ask(&mut s, VERSION4, Procedure::TestRes, encoded(&res));
}

#[test]
fn what_is_no_call_of_nlm() {
    let mut s = Server::new();
    let () = ask(&mut s, VERSION4, Procedure::Null, Gather::new());
    let mut number = |vers, proc| {
        let call = s.call(PROGRAM, vers, proc, Gather::new());
        decode_reply(s.send(&call).into_bytes()).unwrap().outcome
    };
    for vers in [0, 2, 5] {
        let (low, high) = (1, 4);
        let mismatch = AcceptError::ProgMismatch { low, high };
        assert_eq!(number(vers, 0), Outcome::Error(mismatch));
    }
    for proc in [16, 19, 24] {
        let unavailable = Outcome::Error(AcceptError::ProcUnavail);
        assert_eq!(number(VERSION4, proc), unavailable);
    }
    for proc in [1, 2, 3, 4, 5, 11, 12, 13, 14, 15, 20, 21, 22, 23] {
        let garbage = Outcome::Error(AcceptError::GarbageArgs);
        assert_eq!(number(VERSION4, proc), garbage, "{proc}");
    }
    // Offsets of version 4 are too long for version 3.
    let unlock = Unlockargs {
        cookie: cookie(),
        alock: lock(1_u64, 1),
    };
    let refused = refused(&mut s, VERSION3, Procedure::Unlock, encoded(&unlock));
    assert_eq!(refused, AcceptError::GarbageArgs);
}

#[test]
fn an_answer_is_no_longer_than_its_call() {
    let mut s = Server::new();
    s.transport = Transport::Datagram;
    let mut longest = lock(0_u64, 0);
    longest.oh = Netobj(vec![1; MAXNETOBJ_SZ].into());
    let args = Testargs {
        cookie: Netobj(vec![2; MAXNETOBJ_SZ].into()),
        exclusive: false,
        alock: longest,
    };
    let args = encoded(&args);
    let len = args.len();
    let answer = answered(&mut s, VERSION4, Procedure::Test, args);
    assert!(answer.len() < len);
    let found: Testres<u64> = results(answer);
    assert_eq!(found.cookie.0.len(), MAXNETOBJ_SZ);
}
