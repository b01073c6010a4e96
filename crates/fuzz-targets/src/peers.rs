//! What nodes send each other, and what they keep of it.

use crate::Seed;
use bytes::Bytes;
use haven_admin::{Bulletin, Cause, Conflict, Failover, NodeReport};
use haven_consensus::{HINT_BYTES_MAX, fuzzing};
use haven_net::{ClientTable, Endpoint};

/// The node that all messages come from.
const FROM: u64 = 2;
/// Bytes that arrive at once in a stream.
const STEP_BYTES: usize = 7;

const MESSAGE: u8 = 0;
const STORED: u8 = 1;
const STREAM: u8 = 2;
const FRAMED: u8 = 3;

/// Messages between nodes, frames, and values beside the log. The first byte of an input chooses.
pub(crate) fn peer_messages(input: &[u8]) {
    match input.split_first() {
        Some((&MESSAGE, body)) => fuzzing::message(FROM, &Bytes::copy_from_slice(body)),
        Some((&STORED, value)) => fuzzing::stored(value),
        Some((&STREAM, stream)) => fuzzing::frames(FROM, STEP_BYTES, stream),
        // With the right checksums, which are hard to guess.
        Some((&FRAMED, bodies)) => {
            let framed = bodies
                .split(|&byte| byte == b'\n')
                .flat_map(fuzzing::framed);
            fuzzing::frames(FROM, STEP_BYTES, &framed.collect::<Vec<u8>>());
        }
        _ => {}
    }
}

pub(crate) fn peer_messages_seeds() -> Vec<Seed> {
    let tagged = |tag: u8, bytes: &[u8]| [&[tag], bytes].concat();
    let mut seeds = Vec::new();
    let mut stream = vec![STREAM];
    for (name, body) in fuzzing::messages() {
        seeds.push(Seed::new(name, tagged(MESSAGE, &body)));
        stream.extend(fuzzing::framed(&body));
    }
    seeds.push(Seed::new("stream", stream));
    seeds.push(Seed::new("framed", tagged(FRAMED, b"\x02\n\x0a")));
    for (name, value) in fuzzing::stored_values() {
        seeds.push(Seed::new(format!("stored-{name}"), tagged(STORED, &value)));
    }
    seeds
}

/// A bulletin: what is taken is told again in the same words, but for too long a text.
pub(crate) fn bulletin(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let Some(bulletin) = Bulletin::decode(bytes.clone(), HINT_BYTES_MAX) else {
        return;
    };
    assert_eq!(Bulletin::number_of(&bytes), Some(bulletin.number));
    client_table(&bulletin.rest);
    let write = |bulletin: &Bulletin| {
        let Bulletin { number, report, .. } = bulletin.clone();
        let rest = |bytes_max| bulletin.rest.slice(..bulletin.rest.len().min(bytes_max));
        Bulletin::encode(number, report, HINT_BYTES_MAX, rest)
    };
    // Written out, a report may be longer than it was.
    let Some(written) = write(&bulletin) else {
        return;
    };
    match Bulletin::decode(written.clone(), HINT_BYTES_MAX) {
        Some(again) => {
            assert_eq!(again.number, bulletin.number);
            assert!(bulletin.rest.starts_with(&again.rest));
            assert_eq!(write(&again), Some(written));
        }
        None => panic!("{bulletin:?} is written and then refused"),
    }
}

pub(crate) fn bulletin_seeds() -> Vec<Seed> {
    let report = NodeReport {
        node: "b".into(),
        leader: Some("a".into()),
        applied: 77,
        trouble: Some("the disk is slow".into()),
        failovers: vec![Failover {
            at_unix_ms: 5,
            term: 3,
            from: None,
            to: "a".into(),
            cause: Cause::LostContact,
            silent_ms: Some(400),
            stall_ms: None,
        }],
        conflicts: vec![Conflict {
            address: [192, 0, 2, 100].into(),
            mac: "02:00:00:00:00:01".into(),
        }],
        ..NodeReport::default()
    };
    let table = table();
    let reports = [
        ("follower", NodeReport::default(), Bytes::new()),
        ("leader", report, table),
    ];
    let seeds = reports.into_iter().filter_map(|(name, report, rest)| {
        let bytes = Bulletin::encode(9, report, HINT_BYTES_MAX, |_| rest)?;
        Some(Seed::new(name, bytes))
    });
    seeds.collect()
}

/// A table of client connections: it has one form, and is cut between connections.
pub(crate) fn client_table(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let Some(ClientTable { term, endpoints }) = ClientTable::decode(bytes.clone()) else {
        return;
    };
    let write = |bytes_max| ClientTable::encode(term, endpoints.iter().copied(), bytes_max);
    assert_eq!(write(bytes.len()), bytes);
    if let Some((_, fewer)) = endpoints.split_last() {
        let fewer = fewer.to_vec();
        let table = ClientTable::decode(write(bytes.len() - 1));
        let endpoints = fewer;
        assert_eq!(table, Some(ClientTable { term, endpoints }));
    }
}

pub(crate) fn client_table_seeds() -> Vec<Seed> {
    let empty = ClientTable::encode(7, std::iter::empty(), HINT_BYTES_MAX);
    vec![
        Seed::new("both-families", table()),
        Seed::new("empty", empty),
    ]
}

fn table() -> Bytes {
    let v4 = |last, port| ([192, 0, 2, last], port).into();
    let v6 = |last, port| ([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], port).into();
    let endpoints = [
        Endpoint {
            local: v4(100, 2049),
            remote: v4(7, 812),
        },
        Endpoint {
            local: v6(1, 2049),
            remote: v6(2, 900),
        },
    ];
    ClientTable::encode(7, endpoints.into_iter(), HINT_BYTES_MAX)
}
