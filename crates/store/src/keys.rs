//! The key space: which table a key belongs to and how keys are made, so that byte order is the order
//! in which rows are visited.
//!
//! Invariants
//! - The first byte of a key is its table; numbers are big-endian.
//! - Keys of [`LOCAL`] belong to this replica alone: they are not in the state hash nor in snapshots.
//!
//! It must not know what values mean (`record` does) nor where rows live (`layers` does).

use crate::row_key::RowKey;
use haven_fs::{Cookie, Ino, NAME_BYTES_MAX};

/// Contents of small regular files by inode.
pub const CONTENTS: u8 = b'b';
/// Entries by (directory, cookie): inode and name.
pub const ENTRY_BY_COOKIE: u8 = b'c';
/// Inodes by number.
pub const INODE: u8 = b'i';
/// Symbolic link targets by inode.
pub const TARGET: u8 = b'l';
/// Counters of the file system.
pub const META: u8 = b'm';
/// Entries by (directory, name): inode and cookie.
pub const ENTRY_BY_NAME: u8 = b'n';
/// The system table.
pub const SYSTEM: u8 = b's';
/// Chunks of maps of blocks by (inode, number).
pub const BLOCKS: u8 = b'u';
/// Bookkeeping of this replica.
pub const LOCAL: u8 = b'z';

/// The next inode number and the number of inodes.
pub const COUNTERS: &[u8] = b"mcounters";
/// The position blob of the last applied entry.
pub const POSITION: &[u8] = b"zposition";
/// Data files to unlink: removed inodes.
pub const GRAVEYARD: &[u8] = b"zgraveyard/";

/// What was cut off data files and is still in them.
pub const REMAINS: &[u8] = b"zremains/";
/// The log index of the last entry in this checkpoint.
pub const APPLIED: &[u8] = b"zapplied";
/// What the records of changes cover.
pub const HISTORY: &[u8] = b"zhistory";
/// Records of changes by (index, part).
pub const CHANGES: &[u8] = b"zchanges/";
/// Not a table: changed ranges of data files in records of changes, after the keys of all rows.
pub const RANGE: u8 = b'y';

/// Longest position blob in bytes.
pub const POSITION_BYTES_MAX: usize = 64 << 10;

const NUMBER_BYTES: usize = 8;
/// Length of a key that is a table byte and an inode number.
pub const INO_KEY_BYTES: usize = 1 + NUMBER_BYTES;
/// Length of a key that is a table byte, a directory and a cookie.
pub const COOKIE_KEY_BYTES: usize = INO_KEY_BYTES + NUMBER_BYTES;

/// Length of a key that is a table byte, an inode and the number of a chunk.
pub const BLOCKS_KEY_BYTES: usize = INO_KEY_BYTES + 4;

const CHANGES_KEY_BYTES: usize = CHANGES.len() + NUMBER_BYTES + 4;
const RANGE_KEY_BYTES: usize = 1 + 3 * NUMBER_BYTES;

/// A key of a table that is ordered by inode number.
pub fn by_ino(table: u8, ino: Ino) -> [u8; INO_KEY_BYTES] {
    let mut key = [table; INO_KEY_BYTES];
    key[1..].copy_from_slice(&ino.0.to_be_bytes());
    key
}

/// The inode row of `ino`.
pub fn inode(ino: Ino) -> [u8; INO_KEY_BYTES] {
    by_ino(INODE, ino)
}

/// The contents row of the regular file `ino`.
pub fn contents(ino: Ino) -> [u8; INO_KEY_BYTES] {
    by_ino(CONTENTS, ino)
}

/// The target row of the symbolic link `ino`.
pub fn target(ino: Ino) -> [u8; INO_KEY_BYTES] {
    by_ino(TARGET, ino)
}

/// The row of the entry of `dir` with this cookie.
pub fn entry_by_cookie(dir: Ino, cookie: Cookie) -> [u8; COOKIE_KEY_BYTES] {
    let mut key = [0; COOKIE_KEY_BYTES];
    key[..INO_KEY_BYTES].copy_from_slice(&by_ino(ENTRY_BY_COOKIE, dir));
    key[INO_KEY_BYTES..].copy_from_slice(&cookie.0.to_be_bytes());
    key
}

/// The row of chunk `number` of the map of blocks of `ino`.
pub fn blocks(ino: Ino, number: u32) -> [u8; BLOCKS_KEY_BYTES] {
    let mut key = [0; BLOCKS_KEY_BYTES];
    key[..INO_KEY_BYTES].copy_from_slice(&by_ino(BLOCKS, ino));
    key[INO_KEY_BYTES..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The number in a key made by [`blocks`].
pub fn chunk_of(key: &[u8]) -> Option<u32> {
    let number = key.get(INO_KEY_BYTES..)?;
    Some(u32::from_be_bytes(number.try_into().ok()?))
}

/// The row of the entry of `dir` with this name.
pub fn entry_by_name(dir: Ino, name: &[u8]) -> RowKey {
    RowKey::of_two(&by_ino(ENTRY_BY_NAME, dir), name)
}

/// The row of a key of the system table.
pub fn system(key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + key.len());
    row.push(SYSTEM);
    row.extend_from_slice(key);
    row
}

/// The row that marks the data file of `ino` for removal.
pub fn grave(ino: Ino) -> Vec<u8> {
    let mut row = GRAVEYARD.to_vec();
    row.extend_from_slice(&ino.0.to_be_bytes());
    row
}

/// The row of what was cut off the data file of `ino` and is still in it.
pub fn remains(ino: Ino) -> Vec<u8> {
    let mut row = REMAINS.to_vec();
    row.extend_from_slice(&ino.0.to_be_bytes());
    row
}

/// The row of part `part` of the record of changes of the checkpoint at `index`.
pub fn changes(index: u64, part: u32) -> [u8; CHANGES_KEY_BYTES] {
    let mut key = [0; CHANGES_KEY_BYTES];
    key[..CHANGES.len()].copy_from_slice(CHANGES);
    key[CHANGES.len()..][..NUMBER_BYTES].copy_from_slice(&index.to_be_bytes());
    key[CHANGES.len() + NUMBER_BYTES..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Index and part in a key made by [`changes`].
pub fn index_of_changes(key: &[u8]) -> Option<(u64, u32)> {
    let (index, part) = key
        .strip_prefix(CHANGES)?
        .split_first_chunk::<NUMBER_BYTES>()?;
    let part = u32::from_be_bytes(part.try_into().ok()?);
    Some((u64::from_be_bytes(*index), part))
}

/// A changed range of a data file, in a record of changes.
pub fn range(ino: Ino, start: u64, end: u64) -> [u8; RANGE_KEY_BYTES] {
    let mut key = [RANGE; RANGE_KEY_BYTES];
    for (at, number) in [ino.0, start, end].into_iter().enumerate() {
        key[1 + at * NUMBER_BYTES..][..NUMBER_BYTES].copy_from_slice(&number.to_be_bytes());
    }
    key
}

/// Inode, first byte and end in a key made by [`range`].
pub fn range_of(key: &[u8]) -> Option<(Ino, u64, u64)> {
    let of_range = key.len() == RANGE_KEY_BYTES && key.first() == Some(&RANGE);
    let number = |at: usize| number_at(key, 1 + at * NUMBER_BYTES).filter(|_| of_range);
    Some((Ino(number(0)?), number(1)?, number(2)?))
}

/// The inode number at the start of what follows the table byte.
pub fn ino_of(key: &[u8]) -> Option<Ino> {
    number_at(key, 1).map(Ino)
}

/// The cookie in a key of [`ENTRY_BY_COOKIE`].
pub fn cookie_of(key: &[u8]) -> Option<Cookie> {
    number_at(key, INO_KEY_BYTES).map(Cookie)
}

/// The inode number in a key made by [`grave`].
pub fn ino_of_grave(key: &[u8]) -> Option<Ino> {
    number_at(key, GRAVEYARD.len()).map(Ino)
}

/// The inode number in a key made by [`remains`].
pub fn ino_of_remains(key: &[u8]) -> Option<Ino> {
    let number: &[u8; NUMBER_BYTES] = key.strip_prefix(REMAINS)?.try_into().ok()?;
    Some(Ino(u64::from_be_bytes(*number)))
}

/// Whether the key has the shape its table asks for.
pub fn is_well_formed(key: &[u8]) -> bool {
    match key.first() {
        Some(&CONTENTS | &INODE | &TARGET) => key.len() == INO_KEY_BYTES,
        Some(&ENTRY_BY_COOKIE) => key.len() == COOKIE_KEY_BYTES,
        Some(&BLOCKS) => key.len() == BLOCKS_KEY_BYTES,
        Some(&ENTRY_BY_NAME) => {
            key.len() > INO_KEY_BYTES && key.len() <= INO_KEY_BYTES + NAME_BYTES_MAX
        }
        Some(&META) => key == COUNTERS,
        Some(&SYSTEM) => key.len() <= 1 + crate::SYSTEM_KEY_BYTES_MAX,
        _ => false,
    }
}

/// The first key after all keys that start with `prefix`; `None` when there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

fn number_at(key: &[u8], at: usize) -> Option<u64> {
    let bytes = key.get(at..at + NUMBER_BYTES)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_covers_all_bytes() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(&[7, 255, 255]), Some(vec![8]));
        assert_eq!(after_prefix(&[255]), None);
        assert_eq!(after_prefix(b""), None);
    }

    #[test]
    fn cookies_order_numerically_within_their_directory() {
        let low = entry_by_cookie(Ino(5), Cookie(255));
        let high = entry_by_cookie(Ino(5), Cookie(256));
        let other = entry_by_cookie(Ino(6), Cookie(0));
        assert!(low < high && high < other);
        assert_eq!(cookie_of(&high), Some(Cookie(256)));
        assert_eq!(ino_of(&high), Some(Ino(5)));
        assert_eq!(ino_of_grave(&grave(Ino(77))), Some(Ino(77)));
        assert_eq!(ino_of_remains(&remains(Ino(77))), Some(Ino(77)));
        assert_eq!(ino_of_remains(&grave(Ino(77))), None);
    }

    #[test]
    fn malformed_keys_are_recognised() {
        assert!(is_well_formed(&inode(Ino(1))));
        assert!(is_well_formed(&entry_by_name(Ino(1), b"a")));
        for bad in [&b""[..], b"i", b"n12345678", b"mother", b"zposition", b"q"] {
            assert!(!is_well_formed(bad), "{bad:?}");
        }
    }
}
