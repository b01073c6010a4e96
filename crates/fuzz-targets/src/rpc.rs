//! Record marking, calls and replies, and what a service makes of a call.

use crate::Seed;
use bytes::{Bytes, BytesMut};
use haven_fs::Time;
use haven_net::Limits;
use haven_net::fuzzing::{Manner, RECORD_EMPTY_FRAGMENTS_MAX, RECORD_HEAD_BYTES_MAX, records};
use haven_nfsd::{
    ChangeId, Client, ClientNames, Entry, Export, ExportId, Exports, Options, Origin, Prepared,
    Service, Transport, Who, prepare,
};
use haven_proto::{mount, nfs3, portmap};
use haven_rpc::record::{FragmentHeader, HEADER_BYTES, frame};
use haven_rpc::{
    AcceptError, AuthStat, AuthSys, Call, Credential, Denial, Outcome, Refusal, Reply,
    accept_error, accepted, decode_call, decode_reply, denied, encode_call,
};
use haven_xdr::{Gather, Writer};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

const CLIENT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 700));
const NOW: Time = Time { secs: 1, nanos: 0 };

/// The first record of a stream, from all of its fragments.
fn record(mut stream: &[u8]) -> Option<Bytes> {
    let mut record = BytesMut::new();
    loop {
        let (mark, rest) = stream.split_first_chunk::<HEADER_BYTES>()?;
        let header = FragmentHeader::parse(*mark);
        assert_eq!(header.encode(), *mark);
        let (fragment, rest) = rest.split_at_checked(header.len as usize)?;
        record.extend_from_slice(fragment);
        if header.last {
            return Some(record.freeze());
        }
        stream = rest;
    }
}

/// Limits that an input can reach.
const SMALL: Limits = Limits {
    connections_max: 1,
    connections_per_address_max: 1,
    inflight_per_connection_max: 1,
    record_bytes_max: 5000,
    inflight_bytes_max: 6000,
    answer_bytes_max: 0,
    patience: Duration::from_secs(1),
    idle: None,
};

/// Size of a slab that an input can outgrow.
const SLAB_BYTES: usize = 64;
/// Bits of the byte that says how a stream is received.
const ADMITS: u8 = 1;
const KEEPS: u8 = 2;

/// What a client sends, after a byte that says in how many pieces it comes, and one that says how it is received: the
/// server cuts the same records out of it however it arrives, and accounts for all memory.
pub(crate) fn record_stream(input: &[u8]) {
    let Some((&[step, how], stream)) = input.split_first_chunk() else {
        return;
    };
    let manner = Manner {
        step: usize::from(step),
        slab_bytes: SLAB_BYTES,
        admits: how & ADMITS != 0,
        keeps: how & KEEPS != 0,
    };
    let cut = records(&SMALL, manner, stream);
    let at_once = Manner {
        step: stream.len(),
        keeps: false,
        ..manner
    };
    assert_eq!(cut, records(&SMALL, at_once, stream));
    let (mut rest, mut expected) = (stream, Vec::new());
    while let Some((record, taken)) = whole_record(rest) {
        let is_large = record.len() > SLAB_BYTES - HEADER_BYTES;
        let kept = match is_large && !manner.admits {
            true => record.len().min(RECORD_HEAD_BYTES_MAX),
            false => record.len(),
        };
        expected.push(record.slice(..kept));
        rest = &rest[taken..];
    }
    assert_eq!(cut.0, expected);
}

/// The first record within the limits, and its length with marks.
fn whole_record(stream: &[u8]) -> Option<(Bytes, usize)> {
    let (mut joined, mut at, mut empty) = (Vec::new(), 0, 0);
    while empty <= RECORD_EMPTY_FRAGMENTS_MAX {
        let header = FragmentHeader::parse(*stream.get(at..)?.first_chunk::<HEADER_BYTES>()?);
        empty += usize::from(header.len == 0 && !header.last);
        let start = at + HEADER_BYTES;
        at = start + header.len as usize;
        joined.extend_from_slice(stream.get(start..at)?);
        if joined.len() > SMALL.record_bytes_max {
            return None;
        }
        if header.last {
            return Some((joined.into(), at));
        }
    }
    None
}

pub(crate) fn record_stream_seeds() -> Vec<Seed> {
    let part = |last, bytes: &[u8]| {
        let len = bytes.len() as u32;
        [&FragmentHeader { last, len }.encode()[..], bytes].concat()
    };
    let fragments = [part(false, b"one"), part(false, b""), part(true, b"record")].concat();
    let many = [part(false, b"x").repeat(499), part(true, b"x")].concat();
    let nothing = part(false, b"").repeat(RECORD_EMPTY_FRAGMENTS_MAX + 1);
    let inputs = [
        ("whole", [part(true, b"a call"), part(true, b"")].concat()),
        ("fragments", [fragments, part(true, b"next")].concat()),
        ("cut", part(true, b"a call")[..7].to_vec()),
        ("long", part(true, &[7; 5001])),
        ("many", [many, part(true, b"next")].concat()),
        (
            "large",
            [
                part(false, &[7; 900]),
                part(true, &[8; 900]),
                part(true, b"x"),
            ]
            .concat(),
        ),
        ("empty", [part(false, b"x"), nothing].concat()),
    ];
    let steps = [
        ("bytes", [1, ADMITS]),
        ("pieces", [5, ADMITS | KEEPS]),
        ("refused", [50, KEEPS]),
    ];
    let mut seeds = Vec::new();
    for (how, manner) in steps {
        for (name, stream) in &inputs {
            let input = [&manner[..], stream].concat();
            seeds.push(Seed::new(format!("{name}-{how}"), input));
        }
    }
    seeds
}

/// A stream with a record that is a call; the call as it is, and what the service does about it.
pub(crate) fn call(stream: &[u8]) {
    let Some(message) = record(stream) else {
        return;
    };
    match decode_call(message) {
        Ok(call) => {
            let Call {
                xid,
                prog,
                vers,
                proc,
                ref cred,
                ref args,
            } = call;
            let again = encode_call(xid, prog, vers, proc, cred, args.clone().into());
            assert_eq!(decode_call(again.into_bytes()).as_ref(), Ok(&call));
            serve(&call);
        }
        Err(Refusal::Reply { xid, denial, reply }) => {
            let outcome = Outcome::Denied(denial);
            assert_eq!(decode_reply(reply.into_bytes()), Ok(Reply { xid, outcome }));
        }
        Err(Refusal::Drop(_)) => {}
    }
}

/// A reply of the service answers this call, and an entry can be read by whoever gets it.
fn serve(call: &Call) {
    let origin = Origin {
        peer: CLIENT,
        local: CLIENT.ip(),
        transport: Transport::Stream,
        names: ClientNames::Unasked,
    };
    match prepare(call, origin, &service(), NOW) {
        Prepared::Reply(reply) => match decode_reply(reply.into_bytes()) {
            Ok(reply) => assert_eq!(reply.xid, call.xid),
            Err(error) => panic!("{call:?} gets a reply that is none: {error}"),
        },
        Prepared::Query(request) => assert_eq!(request.xid(), call.xid),
        Prepared::Mutation(change) => match change.entry(ChangeId::default(), Vec::new()) {
            Ok(entry) => readable(call, &entry),
            Err(error) => panic!("{call:?} has no entry: {error}"),
        },
        Prepared::Mount { request, entry } => {
            assert_eq!(request.xid(), call.xid);
            readable(call, &entry);
        }
        Prepared::WantsNames => panic!("{call:?}: no rule is about names"),
    }
}

fn readable(call: &Call, entry: &Bytes) {
    if let Err(error) = Entry::decode(entry) {
        panic!("{call:?} becomes an entry that is none: {error}");
    }
}

/// One export, for everybody.
fn service() -> Service {
    let path = Bytes::from_static(b"/export");
    let everybody = Client {
        who: Who::Everybody,
        options: Options::default(),
    };
    let mut exports = Exports::new(vec![Export {
        path: path.clone(),
        clients: vec![everybody],
    }]);
    exports.bind(&BTreeMap::from([(path, ExportId(1))]));
    Service {
        exports: Arc::new(exports),
        ..Service::default()
    }
}

pub(crate) fn call_seeds() -> Vec<Seed> {
    let sys = Credential::Sys(AuthSys {
        stamp: 7,
        machine_name: Bytes::from_static(b"client"),
        uid: 1000,
        gid: 100,
        gids: vec![100, 10],
    });
    let mut args = Writer::new();
    args.put_opaque(b"/export");
    let path = args.finish();
    let programs = [
        ("nfs-null", nfs3::PROGRAM, nfs3::VERSION, 0, Gather::new()),
        ("nfs-version", nfs3::PROGRAM, 4, 1, Gather::new()),
        ("mnt1", mount::PROGRAM, mount::VERSION1, 1, path.clone()),
        ("mnt3", mount::PROGRAM, mount::VERSION3, 1, path),
        ("export", mount::PROGRAM, mount::VERSION3, 5, Gather::new()),
        (
            "ports",
            portmap::PROGRAM,
            portmap::VERSION,
            4,
            Gather::new(),
        ),
        ("unknown", 99, 1, 0, Gather::new()),
    ];
    let mut seeds = Vec::new();
    for (name, prog, vers, proc, args) in programs {
        for (who, cred) in [("none", &Credential::None), ("sys", &sys)] {
            let call = frame(encode_call(5, prog, vers, proc, cred, args.clone()));
            seeds.push(Seed::new(format!("{name}-{who}"), call.into_bytes()));
        }
    }
    // Each NFS procedure, with the arguments that its own target begins with.
    for seed in crate::wire::nfs3_args_seeds() {
        let Some((&proc, args)) = seed.bytes.split_first() else {
            continue;
        };
        let args = Bytes::copy_from_slice(args);
        let call = encode_call(
            5,
            nfs3::PROGRAM,
            nfs3::VERSION,
            proc.into(),
            &sys,
            args.into(),
        );
        seeds.push(Seed::new(
            format!("nfs-{}", seed.name),
            frame(call).into_bytes(),
        ));
    }
    seeds
}

/// A reply; whatever it says is said again in the same words, but for the verifier.
pub(crate) fn reply(message: &[u8]) {
    if let Ok(reply) = decode_reply(Bytes::copy_from_slice(message)) {
        let again = write(reply.clone());
        assert_eq!(decode_reply(again.into_bytes()), Ok(reply));
    }
}

fn write(Reply { xid, outcome }: Reply) -> Gather {
    match outcome {
        Outcome::Success(results) => accepted(xid, results.into()),
        Outcome::Error(error) => accept_error(xid, error),
        Outcome::Denied(denial) => denied(xid, denial),
    }
}

pub(crate) fn reply_seeds() -> Vec<Seed> {
    let mut seeds = vec![Seed::new(
        "success",
        accepted(5, Bytes::from_static(b"results!").into()).into_bytes(),
    )];
    let errors = [
        ("prog-unavail", AcceptError::ProgUnavail),
        (
            "prog-mismatch",
            AcceptError::ProgMismatch { low: 2, high: 4 },
        ),
        ("proc-unavail", AcceptError::ProcUnavail),
        ("garbage-args", AcceptError::GarbageArgs),
        ("system-err", AcceptError::SystemErr),
    ];
    for (name, error) in errors {
        seeds.push(Seed::new(name, accept_error(5, error).into_bytes()));
    }
    let denials = [
        ("rpc-mismatch", Denial::RpcMismatch { low: 2, high: 2 }),
        ("auth-error", Denial::AuthError(AuthStat::TooWeak)),
    ];
    for (name, denial) in denials {
        seeds.push(Seed::new(name, denied(5, denial).into_bytes()));
    }
    seeds
}
