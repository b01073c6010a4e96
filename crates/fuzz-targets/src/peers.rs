//! What nodes send each other, and what they keep of it.

use crate::Seed;
use bytes::Bytes;
use haven_admin::{Bulletin, Cause, Conflict, Failover, NodeReport};
use haven_consensus::{HINT_BYTES_MAX, fuzzing};
use haven_net::{ClientList, ClientTable, Endpoint};

/// The node that all messages come from.
const FROM: u64 = 2;
/// Bytes that arrive at once in a stream.
const STEP_BYTES: usize = 7;

const MESSAGE: u8 = 0;
const STORED: u8 = 1;
const STREAM: u8 = 2;
const FRAMED: u8 = 3;
/// Before a list whose checksum is put right.
const RIGHT: u8 = 1;

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
    let write = |bulletin: &Bulletin| {
        let Bulletin { number, report } = bulletin.clone();
        Bulletin::encode(number, report, HINT_BYTES_MAX)
    };
    // Written out, a report may be longer than it was.
    let Some(written) = write(&bulletin) else {
        return;
    };
    match Bulletin::decode(written.clone(), HINT_BYTES_MAX) {
        Some(again) => {
            assert_eq!(again.number, bulletin.number);
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
    let reports = [("follower", NodeReport::default()), ("leader", report)];
    let seeds = reports.into_iter().filter_map(|(name, report)| {
        let bytes = Bulletin::encode(9, report, HINT_BYTES_MAX)?;
        Some(Seed::new(name, bytes))
    });
    seeds.collect()
}

/// A table of client connections: it has one form.
pub(crate) fn client_table(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Some(ClientTable { term, endpoints }) = ClientTable::decode(bytes.clone()) {
        assert_eq!(ClientTable::encode(term, &endpoints), bytes);
    }
}

pub(crate) fn client_table_seeds() -> Vec<Seed> {
    vec![
        Seed::new("both-families", ClientTable::encode(7, &connections())),
        Seed::new("empty", ClientTable::encode(7, &[])),
    ]
}

/// A list of client connections on disk: what is read is written and read again. The first byte of an input says whether
/// the checksum is put right, which is hard to guess.
pub(crate) fn client_list(input: &[u8]) {
    let Some((&tag, rest)) = input.split_first() else {
        return;
    };
    let mut bytes = rest.to_vec();
    if tag == RIGHT {
        haven_net::fuzzing::put_list_right(&mut bytes);
    }
    if let Some(list) = ClientList::decode(bytes.into()) {
        let written = ClientList::encode(list.sequence, &list.endpoints);
        assert_eq!(ClientList::decode(written), Some(list));
    }
}

pub(crate) fn client_list_seeds() -> Vec<Seed> {
    let tagged = |tag: u8, bytes: &[u8]| [&[tag], bytes].concat();
    let some = ClientList::encode(3, &connections());
    vec![
        Seed::new("some", tagged(RIGHT, &some)),
        Seed::new("as-it-is", tagged(0, &some)),
        Seed::new("empty", tagged(RIGHT, &ClientList::encode(1, &[]))),
        Seed::new("cut", tagged(RIGHT, &some[..some.len() - 9])),
    ]
}

fn connections() -> [Endpoint; 2] {
    let v4 = |last, port| ([192, 0, 2, last], port).into();
    let v6 = |last, port| ([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], port).into();
    [
        Endpoint {
            local: v4(100, 2049),
            remote: v4(7, 812),
        },
        Endpoint {
            local: v6(1, 2049),
            remote: v6(2, 900),
        },
    ]
}
