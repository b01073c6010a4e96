//! Many client connections as bytes: what a node keeps of them for its next start.
//!
//! Format: [`MAGIC`], a sequence number (64 bits), the length of the rest (32 bits), a CRC-32C of sequence number and
//! rest (32 bits), then tables ([`ClientTable`]), each behind its length (16 bits). What follows is left over from a longer list
//! that was in the same place.
//!
//! Invariants: bounded; one that was written halfway, or damaged, is no list.

use crate::Endpoint;
use crate::table::{CONNECTIONS_PER_TABLE_MAX, ClientTable, TABLE_BYTES_MAX};
use bytes::{Buf, BufMut, Bytes, BytesMut};

const MAGIC: &[u8; 8] = b"hvnclnt1";
const HEAD_BYTES: usize = 8 + 8 + 4 + 4;

/// So many connections fit one list.
pub const CONNECTIONS_PER_LIST_MAX: usize = 1 << 17;
/// Longest list, in bytes.
pub const LIST_BYTES_MAX: usize =
    HEAD_BYTES + CONNECTIONS_PER_LIST_MAX / CONNECTIONS_PER_TABLE_MAX * (2 + TABLE_BYTES_MAX);

/// Connections, and which of several lists is the newest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientList {
    /// Rises from one list to the next.
    pub sequence: u64,
    /// The connections.
    pub endpoints: Vec<Endpoint>,
}

impl ClientList {
    /// The list of the first [`CONNECTIONS_PER_LIST_MAX`] of these.
    pub fn encode(sequence: u64, endpoints: &[Endpoint]) -> Bytes {
        let endpoints = &endpoints[..endpoints.len().min(CONNECTIONS_PER_LIST_MAX)];
        let mut body = BytesMut::new();
        for some in endpoints.chunks(CONNECTIONS_PER_TABLE_MAX) {
            let table = ClientTable::encode(0, some);
            // A table is shorter than that.
            body.put_u16(u16::try_from(table.len()).unwrap_or(u16::MAX));
            body.put_slice(&table);
        }
        let mut out = BytesMut::with_capacity(HEAD_BYTES + body.len());
        out.put_slice(MAGIC);
        out.put_u64(sequence);
        out.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        out.put_u32(checksum(sequence, &body));
        out.put_slice(&body);
        out.freeze()
    }

    /// `None` if it is no list.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < HEAD_BYTES || bytes.split_to(MAGIC.len()) != MAGIC[..] {
            return None;
        }
        let sequence = bytes.get_u64();
        let len = usize::try_from(bytes.get_u32()).ok()?;
        let sum = bytes.get_u32();
        if len > bytes.len() || len > LIST_BYTES_MAX {
            return None;
        }
        let mut body = bytes.split_to(len);
        if checksum(sequence, &body) != sum {
            return None;
        }
        let mut endpoints = Vec::new();
        while body.has_remaining() {
            let len = usize::from(body.try_get_u16().ok()?);
            if len > body.len() {
                return None;
            }
            endpoints.extend(ClientTable::decode(body.split_to(len))?.endpoints);
            if endpoints.len() > CONNECTIONS_PER_LIST_MAX {
                return None;
            }
        }
        Some(Self {
            sequence,
            endpoints,
        })
    }
}

fn checksum(sequence: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&sequence.to_be_bytes()), body)
}

/// See [`crate::fuzzing`].
#[cfg(feature = "fuzzing")]
pub(crate) fn put_right(bytes: &mut [u8]) {
    let Some((head, body)) = bytes.split_at_mut_checked(HEAD_BYTES) else {
        return;
    };
    let mut sequence = [0; 8];
    sequence.copy_from_slice(&head[8..16]);
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    head[16..20].copy_from_slice(&len.to_be_bytes());
    let sum = checksum(u64::from_be_bytes(sequence), body);
    head[20..24].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(n: usize) -> Endpoint {
        let [_, _, _, _, a, b, c, d] = n.to_be_bytes();
        Endpoint {
            local: "192.0.2.100:2049".parse().unwrap(),
            remote: ([10 + a, b, c, d], 700).into(),
        }
    }

    #[test]
    fn lists_come_back_whatever_follows_and_are_bounded() {
        for count in [
            0,
            1,
            CONNECTIONS_PER_TABLE_MAX,
            CONNECTIONS_PER_LIST_MAX + 1,
        ] {
            let all: Vec<Endpoint> = (0..count).map(numbered).collect();
            let bytes = ClientList::encode(5, &all);
            assert!(bytes.len() <= LIST_BYTES_MAX);
            let longer = [&bytes[..], b"of before"].concat();
            let list = ClientList::decode(longer.into()).unwrap();
            let kept = count.min(CONNECTIONS_PER_LIST_MAX);
            assert!(list.sequence == 5 && list.endpoints == all[..kept]);
        }
    }

    #[test]
    fn one_that_is_cut_or_changed_is_none() {
        let all: Vec<Endpoint> = (0..300).map(numbered).collect();
        let bytes = ClientList::encode(5, &all);
        for cut in (0..bytes.len()).step_by(7) {
            assert_eq!(ClientList::decode(bytes.slice(..cut)), None);
            let mut changed = bytes.to_vec();
            changed[cut] ^= 4;
            assert_eq!(ClientList::decode(changed.into()), None, "byte {cut}");
        }
    }
}
