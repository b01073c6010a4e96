//! What nodes send each other, and what they keep of it. The first byte of an input chooses.

use crate::Seed;
use bytes::Bytes;
use haven_consensus::fuzzing;

/// The node that all messages come from.
const FROM: u64 = 2;
/// Bytes that arrive at once in a stream.
const STEP_BYTES: usize = 7;

const MESSAGE: u8 = 0;
const STORED: u8 = 1;
const STREAM: u8 = 2;
const FRAMED: u8 = 3;

/// Messages between nodes, frames, and values beside the log.
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
