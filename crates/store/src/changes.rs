//! Which rows and which parts of data files changed up to which log index: what another replica that
//! stopped at some index lacks, without a look at anything else.
//!
//! Each checkpoint leaves a record in the same durable step as its rows: the sorted list of the keys it
//! changed (a removed row is a changed key, too), and after them the changed ranges of data files. A
//! record is cut into parts of bounded size, each a row of this replica alone. Old records go when there
//! are too many; what is left is complete from [`History::since`] on.
//!
//! Invariants
//! - A base of index `b` lacks nothing but what the records of indices above `b` name, if
//!   `b >= History::since`: records name all that changed after the one before.
//! - Keys of a record are sorted; ranges sort after all rows.
//! - Records are bounded in number and in bytes.
//!
//! It must not know what rows mean, nor how changes travel.

use crate::base::{self, View};
use crate::fatal;
use crate::keys;
use bytes::Bytes;
use haven_fs::{FsResult, Ino};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound;

/// Bytes of a record's part.
const PART_BYTES: usize = 16 << 10;
/// Bytes of all records. A key takes about six, so this is ten million changed rows.
const RECORDS_BYTES_MAX: u64 = 64 << 20;
/// Records kept: each costs a sender the memory of a part.
const RECORDS_MAX: u64 = 1024;
/// Before the rest of each key: bytes shared with the key before (1), bytes of the rest (2).
const HEAD_BYTES: usize = 3;

/// What the records cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// A base of this index or a later one finds all it lacks.
    pub since: u64,
    /// The index of the newest checkpoint.
    pub last: u64,
    /// Records kept.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A row to set, or (`None`) to remove.
pub type Edit = (Vec<u8>, Option<Vec<u8>>);

impl History {
    /// Nothing but the knowledge that it begins at `index`.
    pub const fn from(index: u64) -> Self {
        Self {
            since: index,
            last: index,
            records: 0,
            bytes: 0,
        }
    }

    /// The stored one.
    pub fn read(view: &View) -> FsResult<Option<Self>> {
        let Some(stored) = base::get(view, keys::HISTORY)? else {
            return Ok(None);
        };
        match Self::decode(&stored) {
            Some(history) => Ok(Some(history)),
            None => Err(fatal("the metadata is damaged", "its history of changes")),
        }
    }

    /// The row's value.
    pub fn encode(self) -> Vec<u8> {
        [self.since, self.last, self.records, self.bytes]
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect()
    }

    /// The history in a row's value.
    pub fn decode(stored: &[u8]) -> Option<Self> {
        let (numbers, []) = stored.as_chunks::<8>() else {
            return None;
        };
        let &[since, last, records, bytes] = numbers else {
            return None;
        };
        let [since, last, records, bytes] = [since, last, records, bytes].map(u64::from_be_bytes);
        Some(Self {
            since,
            last,
            records,
            bytes,
        })
    }
}

/// Writes the record of one checkpoint.
pub struct Recorder {
    index: u64,
    old: Option<History>,
    changed: bool,
    parts: Parts,
}

impl Recorder {
    /// For the checkpoint at `index` (0: not known) after the one that `view` shows.
    pub fn new(view: &View, index: u64) -> FsResult<Self> {
        Ok(Self {
            index,
            old: History::read(view)?,
            changed: false,
            parts: Parts::of(index),
        })
    }

    /// Adds the next key; a part that is full is to be stored.
    pub fn push(&mut self, key: &[u8]) -> Option<Edit> {
        self.changed = true;
        match self.old {
            Some(old) if old.last < self.index => self.parts.push(key),
            _ => None,
        }
    }

    /// What else is to be stored: the last part, what the history is now, and the removal of what is
    /// too old. `view` is the state before.
    pub fn finish(mut self, view: &View) -> FsResult<Vec<Edit>> {
        let mut edits: Vec<Edit> = self.parts.take().into_iter().collect();
        let new = match self.old {
            _ if self.index == 0 => return Ok(edits),
            // Here it begins: what was before is not known.
            None => History::from(self.index),
            Some(old) if !self.changed => History {
                last: old.last.max(self.index),
                ..old
            },
            // Something was applied without its index: nobody's base can be told from another state.
            Some(old) if self.index <= old.last => {
                let mut oldest = Oldest::of(view)?;
                while oldest.next(&mut edits)?.is_some() {}
                History::from(old.last + 1)
            }
            Some(old) => self.shorten(view, old, &mut edits)?,
        };
        edits.push((keys::HISTORY.to_vec(), Some(new.encode())));
        Ok(edits)
    }

    /// Adds this record to `old` and removes the oldest ones beyond the bounds.
    fn shorten(&self, view: &View, old: History, edits: &mut Vec<Edit>) -> FsResult<History> {
        let mut new = History {
            since: old.since,
            last: self.index,
            records: old.records + 1,
            bytes: old.bytes + self.parts.bytes,
        };
        let mut oldest = Oldest::of(view)?;
        while new.records > RECORDS_MAX || new.bytes > RECORDS_BYTES_MAX {
            let Some((index, bytes)) = oldest.next(edits)? else {
                break;
            };
            new.since = index;
            new.records = new.records.saturating_sub(1);
            new.bytes = new.bytes.saturating_sub(bytes);
        }
        Ok(new)
    }
}

/// Sorted keys, cut into parts.
struct Parts {
    index: u64,
    part: u32,
    out: Vec<u8>,
    last_key: Vec<u8>,
    bytes: u64,
}

impl Parts {
    const fn of(index: u64) -> Self {
        Self {
            index,
            part: 0,
            out: Vec::new(),
            last_key: Vec::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, key: &[u8]) -> Option<Edit> {
        let full = self.out.len() + HEAD_BYTES + key.len() > PART_BYTES;
        let edit = if full { self.take() } else { None };
        let shared = self.last_key.iter().zip(key).take_while(|(a, b)| a == b);
        // A part begins with a whole key.
        let shared = match self.out.is_empty() {
            true => 0,
            false => u8::try_from(shared.count()).unwrap_or(u8::MAX),
        };
        let rest = key.get(usize::from(shared)..).unwrap_or_default();
        self.out.push(shared);
        // Keys are far shorter than that: see `keys::is_well_formed`.
        let len = u16::try_from(rest.len()).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&len.to_be_bytes());
        self.out.extend_from_slice(rest);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        edit
    }

    /// The part so far.
    fn take(&mut self) -> Option<Edit> {
        if self.out.is_empty() {
            return None;
        }
        let key = keys::changes(self.index, self.part);
        self.part += 1;
        let value = std::mem::take(&mut self.out);
        self.bytes += value.len() as u64;
        Some((key.to_vec(), Some(value)))
    }
}

/// The stored records, oldest first.
struct Oldest {
    rows: base::ViewRange,
    ahead: Option<(u64, Vec<u8>, u64)>,
}

impl Oldest {
    fn of(view: &View) -> FsResult<Self> {
        let end = keys::after_prefix(keys::CHANGES).unwrap_or_default();
        let rows = base::range(view, Bound::Included(keys::CHANGES), Bound::Excluded(&end))?;
        let mut oldest = Self { rows, ahead: None };
        oldest.look()?;
        Ok(oldest)
    }

    fn look(&mut self) -> FsResult<()> {
        let row = base::next(&mut self.rows)?;
        self.ahead = row.and_then(|(key, value)| {
            let (index, _) = keys::index_of_changes(key.value())?;
            Some((index, key.value().to_vec(), value.value().len() as u64))
        });
        Ok(())
    }

    /// Removes the next record; its index and bytes.
    fn next(&mut self, edits: &mut Vec<Edit>) -> FsResult<Option<(u64, u64)>> {
        let mut found: Option<(u64, u64)> = None;
        while let Some((index, key, bytes)) = self.ahead.take() {
            if found.is_some_and(|(at, _)| at != index) {
                self.ahead = Some((index, key, bytes));
                break;
            }
            found = Some((index, found.map_or(0, |(_, sum)| sum) + bytes));
            edits.push((key, None));
            self.look()?;
        }
        Ok(found)
    }
}

/// All keys of the records above an index, sorted, each once.
pub struct Changed {
    cursors: Vec<Cursor>,
    heads: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    last: Option<Vec<u8>>,
}

impl Changed {
    /// Of the records in `view` above `base`; `None` if they do not tell all that changed since.
    pub fn since(view: &View, base: u64) -> FsResult<Option<Self>> {
        match History::read(view)? {
            Some(history) if base >= history.since && base <= history.last => {}
            _ => return Ok(None),
        }
        let mut changed = Self {
            cursors: Vec::new(),
            heads: BinaryHeap::new(),
            last: None,
        };
        let mut index = base;
        while let Some(next) = next_record(view, index)? {
            let mut cursor = Cursor::new(next);
            if let Some(key) = cursor.next(view)? {
                changed.heads.push(Reverse((key, changed.cursors.len())));
                changed.cursors.push(cursor);
            }
            index = next;
        }
        Ok(Some(changed))
    }

    /// The next key.
    pub fn next(&mut self, view: &View) -> FsResult<Option<Vec<u8>>> {
        while let Some(Reverse((key, at))) = self.heads.pop() {
            if let Some(cursor) = self.cursors.get_mut(at)
                && let Some(next) = cursor.next(view)?
            {
                self.heads.push(Reverse((next, at)));
            }
            if self.last.as_ref() != Some(&key) {
                self.last = Some(key.clone());
                return Ok(Some(key));
            }
        }
        Ok(None)
    }
}

/// The index of the first record above `index`.
fn next_record(view: &View, index: u64) -> FsResult<Option<u64>> {
    let Some(from) = index.checked_add(1).map(|index| keys::changes(index, 0)) else {
        return Ok(None);
    };
    let end = keys::after_prefix(keys::CHANGES).unwrap_or_default();
    let mut rows = base::range(view, Bound::Included(&from), Bound::Excluded(&end))?;
    let first = base::next(&mut rows)?;
    Ok(first.and_then(|(key, _)| Some(keys::index_of_changes(key.value())?.0)))
}

/// Reads one record.
struct Cursor {
    index: u64,
    part: u32,
    bytes: Bytes,
    key: Vec<u8>,
}

impl Cursor {
    const fn new(index: u64) -> Self {
        Self {
            index,
            part: 0,
            bytes: Bytes::new(),
            key: Vec::new(),
        }
    }

    fn next(&mut self, view: &View) -> FsResult<Option<Vec<u8>>> {
        if self.bytes.is_empty() {
            let Some(bytes) = base::get(view, &keys::changes(self.index, self.part))? else {
                return Ok(None);
            };
            self.part += 1;
            self.bytes = bytes;
            self.key.clear();
        }
        match split(&self.bytes) {
            Some((shared, rest, taken)) if shared <= self.key.len() => {
                self.key.truncate(shared);
                self.key.extend_from_slice(rest);
                let _ = self.bytes.split_to(taken);
                Ok(Some(self.key.clone()))
            }
            _ => Err(fatal("the metadata is damaged", "a record of changes")),
        }
    }
}

/// Bytes shared with the key before, the rest, and how long both are in a part.
fn split(bytes: &[u8]) -> Option<(usize, &[u8], usize)> {
    let (&shared, rest) = bytes.split_first()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let len = usize::from(u16::from_be_bytes(*len));
    Some((usize::from(shared), rest.get(..len)?, HEAD_BYTES + len))
}

/// Whether a part can be read.
pub fn is_readable(mut part: &[u8]) -> bool {
    let mut length = 0;
    while let Some((shared, rest, taken)) = split(part) {
        if shared > length {
            return false;
        }
        length = shared + rest.len();
        part = &part[taken..];
    }
    part.is_empty()
}

/// Changed ranges of one data file that overlap or touch, one after another, as one.
pub struct Ranges {
    ahead: Option<(Ino, u64, u64)>,
}

impl Ranges {
    /// No range.
    pub const fn none() -> Self {
        Self { ahead: None }
    }

    /// Begins with the range in `key`.
    pub fn from(key: &[u8]) -> Self {
        Self {
            ahead: keys::range_of(key),
        }
    }

    /// The next range: inode, first byte, end ([`u64::MAX`]: all that follows).
    pub fn next(
        &mut self,
        keys_left: &mut Changed,
        view: &View,
    ) -> FsResult<Option<(Ino, u64, u64)>> {
        let Some((ino, start, mut end)) = self.ahead.take() else {
            return Ok(None);
        };
        while let Some(key) = keys_left.next(view)? {
            let range = keys::range_of(&key)
                .ok_or_else(|| fatal("the metadata is damaged", "a changed range of a file"))?;
            if range.0 != ino || range.1 > end {
                self.ahead = Some(range);
                break;
            }
            end = end.max(range.2);
        }
        Ok(Some((ino, start, end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_parts() {
        let names: Vec<Vec<u8>> = (0..3000u32)
            .map(|n| format!("ndirectory/{n:06}-{}", "x".repeat(n as usize % 300)).into_bytes())
            .collect();
        let mut writer = Parts::of(7);
        let mut parts: Vec<Edit> = names.iter().filter_map(|n| writer.push(n)).collect();
        parts.extend(writer.take());
        assert!(parts.len() > 10);
        let mut seen = Vec::new();
        for (_, part) in parts {
            let part = part.unwrap();
            assert!(part.len() <= PART_BYTES && is_readable(&part));
            let (mut rest, mut key) = (&part[..], Vec::new());
            while let Some((shared, tail, taken)) = split(rest) {
                key.truncate(shared);
                key.extend_from_slice(tail);
                seen.push(key.clone());
                rest = &rest[taken..];
            }
        }
        assert_eq!(seen, names);
        assert!(!is_readable(&[1, 0, 1, 9]), "shares with nothing");
        assert!(!is_readable(&[0, 0, 9, 1]), "cut off");
    }

    #[test]
    fn histories_survive_their_encoding() {
        let history = History {
            since: 3,
            last: 900,
            records: 2,
            bytes: 77,
        };
        assert_eq!(History::decode(&history.encode()), Some(history));
        assert_eq!(History::decode(&history.encode()[..31]), None);
    }
}
