//! Flushes that fail at any moment, then restarts of the process, then power losses: what was acknowledged, and what a
//! process found at its start, is there afterwards.

use std::path::Path;
use std::sync::Arc;

use haven_disk::{Disk, VolatileDisk};
use haven_log::{Log, LogError, LogOptions, Record, Slot};
use proptest::prelude::*;

use crate::common::{append, open, read_all, record, scratch, small};
use crate::model::Model;

/// Tries of an opening whose flush may be the one that fails.
const OPENINGS: usize = 3;

fn disk(root: &Path) -> Arc<VolatileDisk> {
    Arc::new(VolatileDisk::open(root).expect("open the disk"))
}

fn open_on(disk: &Arc<VolatileDisk>, options: &LogOptions) -> Result<Log, LogError> {
    open(&(Arc::clone(disk) as Arc<dyn Disk>), options.clone())
}

/// A log of three records on which `act` fails because its flush with that number does; opened anew by another
/// process, which sees `seen`; then the power goes.
fn after(
    act: &dyn Fn(&Log) -> Result<(), LogError>,
    number: u64,
    seed: u64,
) -> (Vec<Record>, Vec<Record>) {
    let dir = scratch();
    let volatile = disk(dir.path());
    let log = open_on(&volatile, &small()).expect("open");
    append(&log, (1..=3).map(|i| record(i, 100, 1)).collect()).expect("append");
    volatile.fail_flush(number, seed);
    act(&log).expect_err("its flush fails");
    drop(log);
    let log = open_on(&volatile, &small()).expect("open after the failure");
    let seen = read_all(&log);
    volatile.forget();
    drop(log);
    let log = open_on(&disk(dir.path()), &small()).expect("open after the power loss");
    (seen, read_all(&log))
}

#[test]
fn a_group_whose_flush_failed_is_durable_once_another_process_has_seen_it() {
    for seed in 0..50 {
        let more = |log: &Log| append(log, (4..=6).map(|i| record(i, 2000, 1)).collect());
        let (seen, left) = after(&more, 0, seed);
        assert_eq!(seen.len(), 6, "all of it is in memory");
        assert_eq!(left, seen, "seed {seed}");
    }
}

#[test]
fn a_cut_whose_flush_failed_stays_once_another_process_has_seen_it() {
    for seed in 0..50 {
        for number in 0..3 {
            let cut = |log: &Log| log.truncate_after(1).and(append(log, vec![]));
            if let Ok((seen, left)) = std::panic::catch_unwind(|| after(&cut, number, seed)) {
                assert_eq!(left, seen, "seed {seed}, flush {number}");
            }
        }
    }
}

#[test]
fn a_slot_whose_flush_failed_is_durable_once_another_process_has_seen_it() {
    for seed in 0..50 {
        let dir = scratch();
        let volatile = disk(dir.path());
        let log = open_on(&volatile, &small()).expect("open");
        log.save_slot(Slot::Vote, b"old", true).expect("save");
        volatile.fail_flush(0, seed);
        log.save_slot(Slot::Vote, b"new", true)
            .expect_err("its flush fails");
        drop(log);
        let log = open_on(&volatile, &small()).expect("open after the failure");
        let seen = log.read_slot(Slot::Vote).expect("read");
        assert_eq!(seen.as_deref(), Some(&b"new"[..]));
        volatile.forget();
        drop(log);
        let log = open_on(&disk(dir.path()), &small()).expect("open after the power loss");
        assert_eq!(log.read_slot(Slot::Vote).expect("read"), seen);
    }
}

#[test]
fn an_opening_whose_flush_fails_is_refused_and_the_next_one_believes_nothing_more() {
    let mut refused = 0;
    for number in 0.. {
        let dir = scratch();
        let volatile = disk(dir.path());
        let log = open_on(&volatile, &small()).expect("open");
        append(&log, vec![record(1, 100, 1)]).expect("append");
        volatile.fail_flush(0, 7);
        append(&log, vec![record(2, 100, 1)]).expect_err("its flush fails");
        drop(log);
        volatile.fail_flush(number, 7);
        let Err(why) = open_on(&volatile, &small()) else {
            break; // an opening has no more flushes
        };
        assert!(why.to_string().contains("input/output error"), "{why}");
        refused += 1;
        let log = open_on(&volatile, &small()).expect("open");
        let seen = read_all(&log);
        volatile.forget();
        drop(log);
        let log = open_on(&disk(dir.path()), &small()).expect("open after the power loss");
        assert_eq!(read_all(&log), seen);
    }
    assert!(refused >= 4, "{refused}");
}

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<usize>),
    TruncateBy(u64),
    PurgeBy(u64),
    ResetTo(u64),
    Save(u8, bool),
    KeepSpares(bool),
    /// So many flushes later one fails.
    Fail(u64, u64),
    Reopen,
    Evict(u64),
    /// Of what was written and not flushed, and counts as such, this share of the sectors (of 8) stays.
    PowerLoss(u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![3 => 0..200usize, 2 => 0..3000usize, 1 => 8000..20_000usize];
    let lens = prop::collection::vec(len, 1..6);
    prop_oneof![
        6 => lens.prop_map(Op::Append),
        2 => (0..8u64).prop_map(Op::TruncateBy),
        2 => (0..12u64).prop_map(Op::PurgeBy),
        1 => (0..60u64).prop_map(Op::ResetTo),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(v, d)| Op::Save(v, d)),
        1 => any::<bool>().prop_map(Op::KeepSpares),
        6 => (0..8u64, any::<u64>()).prop_map(|(after, seed)| Op::Fail(after, seed)),
        1 => Just(Op::Reopen),
        1 => any::<u64>().prop_map(Op::Evict),
        3 => (0..9u64, any::<u64>()).prop_map(|(share, seed)| Op::PowerLoss(share, seed)),
    ]
}

/// What the operation that failed may have done.
enum Pending {
    Nothing,
    Append(Vec<Record>),
    Truncate(u64),
    Purge(u64),
    Reset(u64),
    Save(u8),
}

struct Machine {
    root: tempfile::TempDir,
    disk: Arc<VolatileDisk>,
    options: LogOptions,
    log: Option<Log>,
    model: Model,
    pending: Pending,
}

fn chances(seed: u64, share: u64) -> impl FnMut() -> bool {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) % 8 < share
    }
}

impl Machine {
    /// What is found at an opening must be what may be there; from then on it must stay.
    fn reopen(&mut self) -> Result<(), TestCaseError> {
        self.log = None;
        let mut opened = Err(LogError::FlusherDied);
        for _ in 0..OPENINGS {
            let planned = self.disk.flush_will_fail();
            opened = open_on(&self.disk, &self.options);
            if let Err(why) = &opened {
                let failed = planned && !self.disk.flush_will_fail();
                prop_assert!(failed, "no flush failed, but: {}", why);
                continue;
            }
            break;
        }
        let log = opened.expect("one flush fails at most");
        self.settle(&log)?;
        self.model.check(&log)?;
        self.model.check_slot(&log)?;
        self.log = Some(log);
        Ok(())
    }

    /// Takes into the model what the failed operation has done.
    fn settle(&mut self, log: &Log) -> Result<(), TestCaseError> {
        let (purged, last) = (log.purged_index(), log.last_index());
        let last = last.unwrap_or(purged);
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => {}
            Pending::Append(records) => {
                let kept: Vec<Record> = records.into_iter().filter(|r| r.index <= last).collect();
                self.model.add(&kept);
            }
            Pending::Truncate(keep) => {
                prop_assert!((keep..=self.model.last()).contains(&last));
                self.model.records.split_off(&(last + 1));
            }
            Pending::Purge(to) => {
                prop_assert!(purged == self.model.purged || purged == to);
                self.model.records = self.model.records.split_off(&(purged + 1));
                self.model.purged = purged;
            }
            Pending::Reset(to) => {
                let done = purged == to && last == to;
                if done {
                    self.model.records.clear();
                    self.model.purged = to;
                }
            }
            Pending::Save(value) => self.model.lazy_slots.push(value),
        }
        Ok(())
    }

    /// The answer of an operation: after a failure the process ends, and another one comes.
    fn heard(
        &mut self,
        answer: Result<(), LogError>,
        pending: Pending,
    ) -> Result<bool, TestCaseError> {
        match answer {
            Ok(()) => Ok(true),
            Err(_) => {
                self.pending = pending;
                self.reopen()?;
                Ok(false)
            }
        }
    }

    fn act(&mut self, op: &Op) -> Result<(), TestCaseError> {
        if let Op::Fail(after, seed) = op {
            self.disk.fail_flush(*after, *seed);
            return Ok(());
        }
        let log = self.log.clone().expect("open");
        match op {
            Op::Append(lens) => {
                let records = self.model.make(self.model.last(), lens);
                let answer = append(&log, records.clone());
                drop(log);
                if self.heard(answer, Pending::Append(records.clone()))? {
                    self.model.add(&records);
                }
            }
            Op::TruncateBy(n) => {
                let keep = self.model.last().saturating_sub(*n).max(self.model.purged);
                let answer = log.truncate_after(keep);
                drop(log);
                if self.heard(answer, Pending::Truncate(keep))? {
                    self.model.records.split_off(&(keep + 1));
                }
            }
            Op::PurgeBy(n) => {
                let to = (self.model.purged + n).min(self.model.last());
                let answer = log.purge_to(to);
                drop(log);
                if self.heard(answer, Pending::Purge(to))? {
                    self.model.records = self.model.records.split_off(&(to + 1));
                    self.model.purged = to;
                }
            }
            Op::ResetTo(to) => {
                let answer = log.reset_to(*to);
                drop(log);
                if self.heard(answer, Pending::Reset(*to))? {
                    self.model.records.clear();
                    self.model.purged = *to;
                }
            }
            Op::Save(value, durable) => {
                let answer = log.save_slot(Slot::Vote, &[*value], *durable);
                drop(log);
                if !self.heard(answer, Pending::Save(*value))? {
                } else if *durable {
                    self.model.lazy_slots.clear();
                    self.model.durable_slot = Some(*value);
                } else {
                    self.model.lazy_slots.push(*value);
                }
            }
            Op::KeepSpares(keep) => {
                let answer = log.keep_spares(*keep);
                drop(log);
                self.heard(answer, Pending::Nothing)?;
            }
            Op::Fail(..) => {}
            Op::Reopen => {
                drop(log);
                self.reopen()?;
            }
            Op::Evict(seed) => self.disk.evict(chances(*seed, 4)),
            Op::PowerLoss(share, seed) => {
                self.disk.forget_keeping(chances(*seed, *share));
                drop(log);
                self.log = None;
                self.disk = disk(self.root.path());
                self.reopen()?;
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_or_found_survives_whatever_flush_fails(
        ops in prop::collection::vec(op(), 1..50),
        zero_ahead_bytes in prop_oneof![Just(0usize), Just(2048)],
        spare_segments in 0..3usize,
        first in prop::option::of((0..8u64, any::<u64>())),
    ) {
        let root = scratch();
        let mut machine = Machine {
            disk: disk(root.path()),
            root,
            options: LogOptions { zero_ahead_bytes, spare_segments, ..small() },
            log: None,
            model: Model::default(),
            pending: Pending::Nothing,
        };
        if let Some((after, seed)) = first {
            machine.act(&Op::Fail(after, seed))?;
        }
        machine.reopen()?;
        for op in &ops {
            machine.act(op)?;
        }
        machine.act(&Op::PowerLoss(0, 1))?;
    }
}
