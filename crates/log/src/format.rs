//! The bytes of segments and records. `FORMAT.md` describes and justifies them.
//!
//! It must not know files: it only turns values into bytes and back.

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

use crate::{LogError, Record};

/// The version of all that this crate writes.
pub(crate) const VERSION: u32 = 1;
/// Where the first record of a segment begins. The header's page is never written again.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 4096;
/// A record begins with this many bytes.
pub(crate) const RECORD_HEADER_BYTES: usize = 40;
/// What is written begins and ends at multiples of this: whole pages need not be read before they are written, and
/// can go past the page cache.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Records begin at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// Indices and segment numbers beyond this are damage, because no log gets there; arithmetic on those
/// below cannot overflow.
pub(crate) const NUMBER_MAX: u64 = u64::MAX / 4 * 3;
/// Parts shorter than this are copied next to their header: cheaper than a gather entry.
const COPY_BELOW: usize = 1024;

const SEGMENT_MAGIC: [u8; 8] = *b"HAVENSEG";
pub(crate) const SEGMENT_FIELDS: usize = 48;
const NONCE_AT: usize = 32;

/// What distinguishes one segment file from every other, also from an older one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: u64,
    pub(crate) seq: u64,
    pub(crate) first: u64,
    pub(crate) nonce: u64,
    /// Whether the file held an older segment before: what follows the records may then be anything.
    pub(crate) recycled: bool,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&u32::from(self.recycled).to_le_bytes());
        for field in [self.log_id, self.seq, self.first, self.nonce] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&crc32c(&out).to_le_bytes());
        out.resize(SEGMENT_HEADER_BYTES as usize, 0);
        out
    }

    pub(crate) fn decode(name: &str, bytes: &[u8]) -> Result<SegmentHeader, LogError> {
        if bytes.len() < SEGMENT_HEADER_BYTES as usize || bytes[..8] != SEGMENT_MAGIC {
            return Err(LogError::damaged(name, 0, "it has no segment header"));
        }
        // The version stands before the checksum: another version may check differently.
        check_version(name, u32_at(bytes, 8))?;
        if crc32c(&bytes[..SEGMENT_FIELDS]) != u32_at(bytes, SEGMENT_FIELDS) {
            return Err(LogError::damaged(
                name,
                0,
                "the segment header's checksum is wrong",
            ));
        }
        let header = SegmentHeader {
            log_id: u64_at(bytes, 16),
            seq: u64_at(bytes, 24),
            first: u64_at(bytes, 32),
            nonce: u64_at(bytes, 40),
            recycled: u32_at(bytes, 12) != 0,
        };
        if header.first == 0 || header.first > NUMBER_MAX || header.seq > NUMBER_MAX {
            let why = format!(
                "segment {} beginning with record {} cannot be",
                header.seq, header.first
            );
            return Err(LogError::damaged(name, 0, why));
        }
        Ok(header)
    }
}

pub(crate) fn check_version(file: &str, found: u32) -> Result<(), LogError> {
    if found == VERSION {
        return Ok(());
    }
    Err(LogError::Version {
        file: file.to_owned(),
        found,
        known: VERSION,
    })
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    payload_crc: u32,
    pub(crate) head_len: usize,
    pub(crate) body_len: usize,
    pub(crate) index: u64,
    /// The last index that was durable when this record was written.
    pub(crate) durable: u64,
}

impl RecordHeader {
    fn of(record: &Record, durable: u64) -> RecordHeader {
        RecordHeader {
            payload_crc: crc32c_append(crc32c(&record.head), &record.body),
            head_len: record.head.len(),
            body_len: record.body.len(),
            index: record.index,
            durable,
        }
    }

    fn encode(&self, nonce: u64, offset: u64) -> [u8; RECORD_HEADER_BYTES] {
        let mut out = [0; RECORD_HEADER_BYTES];
        out[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        // Both are below `RECORD_BYTES_MAX`, checked on append.
        out[8..12].copy_from_slice(&(self.head_len as u32).to_le_bytes());
        out[12..16].copy_from_slice(&(self.body_len as u32).to_le_bytes());
        out[16..24].copy_from_slice(&self.index.to_le_bytes());
        out[24..32].copy_from_slice(&self.durable.to_le_bytes());
        out[NONCE_AT..].copy_from_slice(&nonce.to_le_bytes());
        let crc = header_crc(&out, offset);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`, if there is one that was written there: into the segment
    /// of this nonce, at this offset.
    pub(crate) fn decode(bytes: &[u8], nonce: u64, offset: u64) -> Option<RecordHeader> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        if u64_at(bytes, NONCE_AT) != nonce || u32_at(bytes, 0) != header_crc(bytes, offset) {
            return None;
        }
        Some(RecordHeader {
            payload_crc: u32_at(bytes, 4),
            head_len: u32_at(bytes, 8) as usize,
            body_len: u32_at(bytes, 12) as usize,
            index: u64_at(bytes, 16),
            durable: u64_at(bytes, 24),
        })
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.head_len + self.body_len
    }

    /// Bytes the record takes in the segment.
    pub(crate) fn stored_len(&self) -> u64 {
        stored_len(self.payload_len())
    }

    /// The record of a whole stored record's bytes, if the payload is what was written.
    pub(crate) fn record(&self, stored: &Bytes) -> Option<Record> {
        let payload = RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + self.payload_len();
        if crc32c(stored.get(payload.clone())?) != self.payload_crc {
            return None;
        }
        let body_at = RECORD_HEADER_BYTES + self.head_len;
        Some(Record {
            index: self.index,
            head: stored.slice(RECORD_HEADER_BYTES..body_at),
            body: stored.slice(body_at..payload.end),
        })
    }

    /// Whether the payload in a whole stored record is what was written.
    pub(crate) fn payload_valid(&self, stored: &[u8]) -> bool {
        let payload = RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + self.payload_len();
        stored
            .get(payload)
            .is_some_and(|p| crc32c(p) == self.payload_crc)
    }
}

/// Where in `bytes`, at multiples of [`ALIGN`], a record header of this segment may begin (its nonce
/// stands in the right place).
pub(crate) fn candidates(bytes: &[u8], nonce: u64) -> impl Iterator<Item = usize> + '_ {
    let last = bytes.len().saturating_sub(RECORD_HEADER_BYTES - 1);
    (0..last)
        .step_by(ALIGN as usize)
        .filter(move |&at| u64_at(bytes, at + NONCE_AT) == nonce)
}

/// Bytes a record with this payload takes in a segment.
pub(crate) fn stored_len(payload_len: usize) -> u64 {
    ((RECORD_HEADER_BYTES + payload_len) as u64).next_multiple_of(ALIGN)
}

/// Records encoded for one gathering write: what was copied, and in between the large parts as they
/// came.
pub(crate) struct Batch<'a> {
    copied: Vec<u8>,
    /// Up to which byte of `copied` comes before which large part.
    large: Vec<(usize, &'a [u8])>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new() -> Batch<'a> {
        Batch {
            copied: Vec::new(),
            large: Vec::new(),
        }
    }

    /// Adds the record that goes to `offset`.
    pub(crate) fn push(&mut self, record: &'a Record, durable: u64, nonce: u64, offset: u64) {
        let header = RecordHeader::of(record, durable);
        self.copied.extend_from_slice(&header.encode(nonce, offset));
        self.part(&record.head);
        self.part(&record.body);
        let unpadded = RECORD_HEADER_BYTES + header.payload_len();
        self.zeros(header.stored_len() as usize - unpadded);
    }

    /// Adds bytes that are in their place already, to be written once more.
    pub(crate) fn again(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
    }

    /// The last `n` bytes of what was added so far.
    pub(crate) fn last(&self, n: usize) -> Vec<u8> {
        let mut taken: Vec<&[u8]> = Vec::new();
        let mut missing = n;
        for part in self.parts().iter().rev() {
            let from = part.len() - part.len().min(missing);
            taken.push(&part[from..]);
            missing -= part.len() - from;
        }
        taken.reverse();
        taken.concat()
    }

    pub(crate) fn zeros(&mut self, n: usize) {
        self.copied.resize(self.copied.len() + n, 0);
    }

    fn part(&mut self, bytes: &'a Bytes) {
        if bytes.len() < COPY_BELOW {
            self.copied.extend_from_slice(bytes);
        } else {
            self.large.push((self.copied.len(), bytes));
        }
    }

    /// The parts in the order in which they go to disk.
    pub(crate) fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(2 * self.large.len() + 1);
        let mut from = 0;
        for (up_to, large) in &self.large {
            parts.push(&self.copied[from..*up_to]);
            parts.push(large);
            from = *up_to;
        }
        parts.push(&self.copied[from..]);
        parts
    }
}

pub(crate) fn header_crc(header: &[u8], offset: u64) -> u32 {
    crc32c_append(crc32c(&offset.to_le_bytes()), &header[4..])
}

/// A `u32` at a place that the caller knows to be inside.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

/// A `u64` at a place that the caller knows to be inside.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_be_are_damage_even_with_a_right_checksum() {
        let header = |seq, first| SegmentHeader {
            log_id: 1,
            seq,
            first,
            nonce: 2,
            recycled: true,
        };
        for good in [header(1, 1), header(NUMBER_MAX, NUMBER_MAX)] {
            assert_eq!(SegmentHeader::decode("x", &good.encode()).unwrap(), good);
        }
        for bad in [header(1, 0), header(1, u64::MAX), header(u64::MAX, 1)] {
            let error = SegmentHeader::decode("x", &bad.encode()).unwrap_err();
            assert!(error.to_string().contains("cannot be"), "{error}");
        }
    }
}
