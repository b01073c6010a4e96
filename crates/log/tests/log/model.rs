//! What a log must hold after everything that was done to it.

use std::collections::BTreeMap;

use haven_log::{Log, Record, Slot};
use proptest::prelude::*;

use crate::common::{read_all, record};

/// What must be there.
#[derive(Default)]
pub struct Model {
    pub purged: u64,
    pub records: BTreeMap<u64, Record>,
    pub salt: u8,
    pub durable_slot: Option<u8>,
    pub lazy_slots: Vec<u8>,
}

impl Model {
    pub fn last(&self) -> u64 {
        self.records
            .last_key_value()
            .map_or(self.purged, |(&i, _)| i)
    }

    /// New records that follow the last one, unlike all before.
    pub fn make(&mut self, after: u64, lens: &[usize]) -> Vec<Record> {
        self.salt = self.salt.wrapping_add(1);
        let make = |(&len, index)| record(index, len, self.salt);
        lens.iter().zip(after + 1..).map(make).collect()
    }

    pub fn add(&mut self, records: &[Record]) {
        self.records
            .extend(records.iter().map(|r| (r.index, r.clone())));
    }

    pub fn check(&self, log: &Log) -> Result<(), TestCaseError> {
        let expected: Vec<Record> = self.records.values().cloned().collect();
        prop_assert_eq!(log.purged_index(), self.purged);
        prop_assert_eq!(log.last_index(), expected.last().map(|r| r.index));
        prop_assert_eq!(log.first_index(), expected.first().map(|r| r.index));
        let middle = self.purged + expected.len() as u64 / 2;
        let part = log.read(middle..middle + 3, 1000).expect("read");
        prop_assert!(part.iter().all(|r| self.records.get(&r.index) == Some(r)));
        prop_assert_eq!(read_all(log), expected);
        Ok(())
    }

    pub fn check_slot(&mut self, log: &Log) -> Result<(), TestCaseError> {
        let found = log.read_slot(Slot::Vote).expect("read").map(|v| v[0]);
        let allowed =
            found == self.durable_slot || self.lazy_slots.iter().any(|&v| Some(v) == found);
        prop_assert!(allowed, "slot {:?}", found);
        self.durable_slot = found;
        self.lazy_slots.clear();
        Ok(())
    }
}
