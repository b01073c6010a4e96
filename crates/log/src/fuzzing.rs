//! Entries for fuzzing: puts right checksums on bytes of the log's files, so that what stands behind a
//! checksum is reached. It must not be part of what ships: it exists with the feature `fuzzing` only.

use crc32c::crc32c;

use crate::format::{
    ALIGN, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_FIELDS, SEGMENT_HEADER_BYTES, header_crc,
    u32_at,
};
use crate::slots;

/// Seals a segment of this log: its header's checksum, and those of the records as they follow each other.
pub fn seal_segment(log_id: u64, bytes: &mut [u8]) {
    if bytes.len() < SEGMENT_HEADER_BYTES as usize {
        return;
    }
    bytes[16..24].copy_from_slice(&log_id.to_le_bytes());
    let sum = crc32c(&bytes[..SEGMENT_FIELDS]);
    bytes[SEGMENT_FIELDS..SEGMENT_FIELDS + 4].copy_from_slice(&sum.to_le_bytes());
    let mut nonce = [0; 8];
    nonce.copy_from_slice(&bytes[40..48]);
    let mut at = SEGMENT_HEADER_BYTES as usize;
    while let Some(len) = bytes
        .get_mut(at..)
        .and_then(|rest| seal_record(rest, nonce, at as u64))
    {
        at += len;
    }
}

/// Seals the record that `bytes` begins with and gives the bytes it takes, if all of it is there.
fn seal_record(bytes: &mut [u8], nonce: [u8; 8], offset: u64) -> Option<usize> {
    let header = bytes.get_mut(..RECORD_HEADER_BYTES)?;
    if header.iter().all(|&byte| byte == 0) {
        return None; // reserved space, as it is after the last record
    }
    header[32..].copy_from_slice(&nonce);
    let payload_len = u32_at(header, 8) as usize + u32_at(header, 12) as usize;
    let end = RECORD_HEADER_BYTES + payload_len;
    if let Some(payload) = bytes.get(RECORD_HEADER_BYTES..end) {
        let sum = crc32c(payload);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = header_crc(&bytes[..RECORD_HEADER_BYTES], offset);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    let header = RecordHeader::decode(bytes, u64::from_le_bytes(nonce), offset);
    assert!(header.is_some(), "a sealed header is taken");
    (end < bytes.len()).then(|| end.next_multiple_of(ALIGN as usize))
}

/// Seals the file of slots of this log: its header's checksum and those of all copies.
pub fn seal_slots(log_id: u64, bytes: &mut [u8]) {
    slots::seal(log_id, bytes);
}
