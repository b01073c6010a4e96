//! The newest log entries in memory, so that replication and applying need not read the log back.
//!
//! Invariants
//! - The entries are consecutive, and equal to those in the log.
//! - Entries and bytes are bounded; the oldest go first.
//!
//! It must not know the log.

use std::collections::VecDeque;

use openraft::EntryPayload;

use crate::types::Entry;

/// Entries kept.
const ENTRIES_MAX: usize = 16_384;

/// Payload bytes kept.
const BYTES_MAX: usize = 16 << 20;

/// See the module's head.
#[derive(Default)]
pub(crate) struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
}

/// What an entry counts for against byte limits.
pub(crate) fn weight(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(command) => command.0.len(),
        _ => 0,
    }
}

impl Tail {
    /// Adds the next entry. One that does not continue the tail starts it afresh.
    pub(crate) fn push(&mut self, entry: Entry) {
        let follows = self
            .entries
            .back()
            .is_none_or(|last| last.log_id.index + 1 == entry.log_id.index);
        if !follows {
            self.clear();
        }
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
        while self.entries.len() > ENTRIES_MAX || (self.bytes > BYTES_MAX && self.entries.len() > 1)
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= weight(&entry);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Forgets the entries from `index` on.
    pub(crate) fn cut_from(&mut self, index: u64) {
        while self
            .entries
            .back()
            .is_some_and(|last| last.log_id.index >= index)
        {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= weight(&entry);
            }
        }
    }

    /// Forgets the entries below `index`.
    pub(crate) fn drop_below(&mut self, index: u64) {
        while self
            .entries
            .front()
            .is_some_and(|first| first.log_id.index < index)
        {
            self.drop_first();
        }
    }

    /// The entries `start..end`, stopping before `bytes_max` would be passed (but giving at least
    /// one). `None` if the tail does not hold `start`.
    pub(crate) fn get(&self, start: u64, end: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.log_id.index;
        let skip = usize::try_from(start.checked_sub(first)?).ok()?;
        if skip >= self.entries.len() {
            return None;
        }
        let mut found = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.range(skip..) {
            bytes += weight(entry);
            if entry.log_id.index >= end || (bytes > bytes_max && !found.is_empty()) {
                break;
            }
            found.push(entry.clone());
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Command;
    use crate::types::log_id;
    use bytes::Bytes;

    fn entry(index: u64, len: usize) -> Entry {
        let command = Command(Bytes::from(vec![0; len]));
        Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Normal(command),
        }
    }

    fn indices(entries: Option<Vec<Entry>>) -> Option<Vec<u64>> {
        entries.map(|found| found.iter().map(|e| e.log_id.index).collect())
    }

    #[test]
    fn gives_what_it_holds_within_limits() {
        let mut tail = Tail::default();
        (5..10).for_each(|i| tail.push(entry(i, 10)));
        assert_eq!(indices(tail.get(4, 9, 100)), None);
        assert_eq!(indices(tail.get(5, 8, 100)), Some(vec![5, 6, 7]));
        assert_eq!(indices(tail.get(6, 100, 25)), Some(vec![6, 7]));
        assert_eq!(
            indices(tail.get(6, 100, 1)),
            Some(vec![6]),
            "one entry at least"
        );
        assert_eq!(indices(tail.get(10, 12, 100)), None);
    }

    #[test]
    fn cuts_both_ends_and_restarts_after_a_gap() {
        let mut tail = Tail::default();
        (5..10).for_each(|i| tail.push(entry(i, 10)));
        tail.cut_from(9);
        tail.drop_below(6);
        assert_eq!(indices(tail.get(6, 100, 1000)), Some(vec![6, 7, 8]));
        assert_eq!(indices(tail.get(5, 100, 1000)), None);
        assert_eq!(tail.bytes, 30);
        tail.push(entry(20, 10));
        assert_eq!(indices(tail.get(6, 100, 1000)), None);
        assert_eq!(indices(tail.get(20, 100, 1000)), Some(vec![20]));
        assert_eq!(tail.bytes, 10);
    }

    #[test]
    fn bounds_entries_and_bytes() {
        let mut tail = Tail::default();
        (0..40).for_each(|i| tail.push(entry(i, 1 << 20)));
        assert_eq!(tail.entries.len(), 16);
        let mut tail = Tail::default();
        (0..20_000).for_each(|i| tail.push(entry(i, 1)));
        assert_eq!(tail.entries.len(), ENTRIES_MAX);
    }
}
