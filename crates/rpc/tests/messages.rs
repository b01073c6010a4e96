//! Calls and replies against byte vectors laid out by hand after RFC 5531, and both ways.

use bytes::Bytes;
use haven_rpc::record::{FragmentHeader, frame};
use haven_rpc::{
    AcceptError, AuthStat, AuthSys, Call, Credential, Denial, GIDS_MAX, MACHINE_NAME_BYTES_MAX,
    NoReply, Outcome, Refusal, Reply, ReplyError, accept_error, accepted, decode_call,
    decode_reply, denied, encode_call,
};
use haven_xdr::{Gather, Writer};
use proptest::prelude::*;

/// The words as XDR.
fn words(words: &[u32]) -> Bytes {
    words
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect::<Vec<_>>()
        .into()
}

fn flat(gather: &Gather) -> Bytes {
    gather.clone().into_bytes()
}

/// A refusal's transaction id, reason and reply.
fn refused(message: Bytes) -> (u32, Denial, Bytes) {
    match decode_call(message) {
        Err(Refusal::Reply { xid, denial, reply }) => (xid, denial, flat(&reply)),
        other => panic!("expected a refusal with a reply, got {other:?}"),
    }
}

/// A call of procedure 0 with this credential and an empty verifier.
fn call_with_credential(flavor: u32, body: &[u8]) -> Bytes {
    let mut w = Writer::new();
    for word in [9, 0, 2, 100_003, 3, 0, flavor] {
        w.put_u32(word);
    }
    w.put_opaque(body);
    w.put_u32(0);
    w.put_u32(0);
    w.finish().into_bytes()
}

fn auth_sys_body(name_len: usize, gids: usize) -> Bytes {
    let mut w = Writer::new();
    w.put_u32(77);
    w.put_opaque(&vec![b'm'; name_len]);
    w.put_u32(1000);
    w.put_u32(100);
    w.put_array(&vec![5_u32; gids]);
    w.finish().into_bytes()
}

#[test]
fn a_call_without_credential() {
    let args = [0xdead_beef, 1];
    let wire = words(&[0x1234, 0, 2, 100_003, 3, 6, 0, 0, 0, 0, args[0], args[1]]);
    let call = decode_call(wire.clone()).unwrap();
    let expected = Call {
        xid: 0x1234,
        prog: 100_003,
        vers: 3,
        proc: 6,
        cred: Credential::None,
        args: words(&args),
    };
    assert_eq!(call, expected);
    assert_eq!(
        call.args.as_ptr(),
        wire[40..].as_ptr(),
        "arguments are not copied"
    );
    let written = encode_call(
        0x1234,
        100_003,
        3,
        6,
        &Credential::None,
        words(&args).into(),
    );
    assert_eq!(flat(&written), wire);
}

#[test]
fn a_call_with_auth_sys() {
    // stamp 7, name "ab", uid 1000, gid 100, gids 5 and 6: 32 bytes.
    let name = u32::from_be_bytes(*b"ab\0\0");
    let wire = words(&[
        1, 0, 2, 100_005, 3, 1, 1, 32, 7, 2, name, 1000, 100, 2, 5, 6, 0, 0, 42,
    ]);
    let cred = Credential::Sys(AuthSys {
        stamp: 7,
        machine_name: Bytes::from_static(b"ab"),
        uid: 1000,
        gid: 100,
        gids: vec![5, 6],
    });
    assert_eq!(
        flat(&encode_call(1, 100_005, 3, 1, &cred, words(&[42]).into())),
        wire
    );
    assert_eq!(decode_call(wire).unwrap().cred, cred);
}

#[test]
fn auth_sys_limits() {
    let largest = call_with_credential(1, &auth_sys_body(MACHINE_NAME_BYTES_MAX, GIDS_MAX));
    assert!(decode_call(largest).is_ok());
    for body in [
        auth_sys_body(MACHINE_NAME_BYTES_MAX + 1, 0),
        auth_sys_body(0, GIDS_MAX + 1),
    ] {
        let (xid, denial, reply) = refused(call_with_credential(1, &body));
        assert_eq!((xid, denial), (9, Denial::AuthError(AuthStat::BadCred)));
        assert_eq!(reply, words(&[9, 1, 1, 1, 1]));
    }
}

#[test]
fn an_auth_sys_body_cut_short_is_a_bad_credential() {
    let body = auth_sys_body(4, 2);
    for end in 0..body.len() {
        let (_, denial, _) = refused(call_with_credential(1, &body[..end]));
        assert_eq!(denial, Denial::AuthError(AuthStat::BadCred));
    }
}

#[test]
fn an_oversized_credential_is_a_bad_credential() {
    let (_, denial, _) = refused(call_with_credential(0, &[0; 404]));
    assert_eq!(denial, Denial::AuthError(AuthStat::BadCred));
}

#[test]
fn an_unknown_flavour_is_a_bad_credential() {
    // 6 is RPCSEC_GSS, 7 is AUTH_TLS.
    for flavor in [6, 7, u32::MAX] {
        let (_, denial, reply) = refused(call_with_credential(flavor, b""));
        assert_eq!(denial, Denial::AuthError(AuthStat::BadCred));
        assert_eq!(reply, words(&[9, 1, 1, 1, 1]));
    }
}

#[test]
fn a_verifier_of_another_flavour_is_bad() {
    let (_, denial, _) = refused(words(&[9, 0, 2, 100_003, 3, 0, 0, 0, 6, 0]));
    assert_eq!(denial, Denial::AuthError(AuthStat::BadVerf));
}

#[test]
fn another_rpc_version_is_told_ours() {
    let (xid, denial, reply) = refused(words(&[5, 0, 3]));
    assert_eq!((xid, denial), (5, Denial::RpcMismatch { low: 2, high: 2 }));
    assert_eq!(reply, words(&[5, 1, 1, 0, 2, 2]));
}

#[test]
fn what_is_no_call_gets_no_reply() {
    let not_a_call = decode_call(words(&[5, 1, 0, 0, 0, 0]));
    assert_eq!(not_a_call, Err(Refusal::Drop(NoReply::NotACall(1))));
    let whole = words(&[1, 0, 2, 3, 4, 5]);
    for end in 0..whole.len() {
        let refusal = decode_call(whole.slice(..end)).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Drop(NoReply::Malformed(_))),
            "{end}: {refusal:?}"
        );
    }
}

#[test]
fn a_success_reply_shares_its_body() {
    let body = Bytes::from(vec![3; 4096]);
    let reply = frame(accepted(8, body.clone().into()));
    assert_eq!(reply.segments().last().unwrap().as_ptr(), body.as_ptr());
    let wire = flat(&reply);
    assert_eq!(
        wire[..28],
        words(&[0x8000_0000 | (24 + 4096), 8, 1, 0, 0, 0, 0])
    );
    let decoded = decode_reply(wire.slice(4..)).unwrap();
    assert_eq!(
        decoded,
        Reply {
            xid: 8,
            outcome: Outcome::Success(body)
        }
    );
}

#[test]
fn errors_of_accepted_calls() {
    let errors: [(AcceptError, &[u32]); 5] = [
        (AcceptError::ProgUnavail, &[1]),
        (AcceptError::ProgMismatch { low: 1, high: 3 }, &[2, 1, 3]),
        (AcceptError::ProcUnavail, &[3]),
        (AcceptError::GarbageArgs, &[4]),
        (AcceptError::SystemErr, &[5]),
    ];
    for (error, tail) in errors {
        let wire = flat(&accept_error(6, error));
        assert_eq!(wire, words(&[&[6, 1, 0, 0, 0], tail].concat()));
        assert_eq!(
            decode_reply(wire),
            Ok(Reply {
                xid: 6,
                outcome: Outcome::Error(error)
            })
        );
    }
}

#[test]
fn denials_come_back() {
    let denials = [
        Denial::RpcMismatch { low: 2, high: 2 },
        Denial::AuthError(AuthStat::BadCred),
        Denial::AuthError(AuthStat::RejectedVerf),
        Denial::AuthError(AuthStat::TooWeak),
        Denial::AuthError(AuthStat::InvalidResp),
        Denial::AuthError(AuthStat::Failed),
    ];
    for denial in denials {
        let reply = decode_reply(flat(&denied(3, denial)));
        assert_eq!(
            reply,
            Ok(Reply {
                xid: 3,
                outcome: Outcome::Denied(denial)
            })
        );
    }
    // 14 is the last of RFC 5531.
    for number in 1..=14 {
        let reply = decode_reply(words(&[3, 1, 1, 1, number])).unwrap();
        let Outcome::Denied(Denial::AuthError(stat)) = reply.outcome else {
            panic!("{reply:?}");
        };
        assert_eq!(stat.to_wire(), number);
    }
    for number in [0, 15] {
        let error = decode_reply(words(&[3, 1, 1, 1, number])).unwrap_err();
        assert!(error.to_string().contains("auth_stat"), "{error}");
    }
}

#[test]
fn what_is_no_reply_is_refused() {
    assert_eq!(
        decode_reply(words(&[3, 0, 2])),
        Err(ReplyError::NotAReply(0))
    );
    for wire in [
        &[3, 1, 2][..],
        &[3, 1, 0, 0, 0, 6],
        &[3, 1, 1, 2],
        &[3, 1, 0, 0, 0],
    ] {
        assert!(
            matches!(decode_reply(words(wire)), Err(ReplyError::Malformed(_))),
            "{wire:?}"
        );
    }
}

#[test]
fn fragment_headers() {
    let last = FragmentHeader {
        last: true,
        len: 0x0102,
    };
    assert_eq!(last.encode(), [0x80, 0, 1, 2]);
    let more = FragmentHeader {
        last: false,
        len: 0x7fff_ffff,
    };
    assert_eq!(FragmentHeader::parse([0x7f, 0xff, 0xff, 0xff]), more);
}

proptest! {
    #[test]
    fn fragment_headers_come_back(bytes: [u8; 4]) {
        prop_assert_eq!(FragmentHeader::parse(bytes).encode(), bytes);
    }

    #[test]
    fn calls_come_back(
        numbers: [u32; 4],
        sys in proptest::option::of((
            any::<[u32; 3]>(),
            proptest::collection::vec(any::<u8>(), 0..=MACHINE_NAME_BYTES_MAX),
            proptest::collection::vec(any::<u32>(), 0..=GIDS_MAX),
        )),
        args in proptest::collection::vec(any::<u32>(), 0..400),
    ) {
        let [xid, prog, vers, proc] = numbers;
        let cred = match sys {
            None => Credential::None,
            Some(([stamp, uid, gid], name, gids)) => {
                Credential::Sys(AuthSys { stamp, machine_name: name.into(), uid, gid, gids })
            }
        };
        let args = words(&args);
        let wire = encode_call(xid, prog, vers, proc, &cred, args.clone().into()).into_bytes();
        prop_assert_eq!(decode_call(wire), Ok(Call { xid, prog, vers, proc, cred, args }));
    }

    /// Whatever is taken as a reply has the form that is written, but for verifiers and fill bytes.
    #[test]
    fn replies_have_one_form(
        kind in 0_usize..3,
        tail in proptest::collection::vec(prop_oneof![0_u32..8, any::<u32>()], 0..6),
    ) {
        let start: [&[u32]; 3] = [&[1, 1, 0, 0, 0], &[1, 1, 1], &[1, 1]];
        let message = words(&[start[kind], &tail].concat());
        if let Ok(Reply { xid, outcome }) = decode_reply(message.clone()) {
            let again = match outcome {
                Outcome::Success(results) => accepted(xid, results.into()),
                Outcome::Error(error) => accept_error(xid, error),
                Outcome::Denied(denial) => denied(xid, denial),
            };
            let again = flat(&again);
            if kind < 2 {
                prop_assert_eq!(&again[..], &message[..again.len()]);
            }
            prop_assert!(decode_reply(again).is_ok());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = decode_call(bytes.clone().into());
        let _ = decode_reply(bytes.into());
    }

    #[test]
    fn random_bytes_behind_a_good_start_never_panic(bytes: Vec<u8>) {
        for start in [&[1, 0, 2, 100_003, 3, 0, 1][..], &[1, 1], &[1, 1, 0, 0, 0], &[1, 1, 1]] {
            let message = Bytes::from([&words(start)[..], &bytes].concat());
            let _ = decode_call(message.clone());
            let _ = decode_reply(message);
        }
    }
}
