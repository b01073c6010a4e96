//! Flushes that fail at random moments of random histories, then a restart of the process, then a power loss: whatever
//! checkpoint was promised, or found at a start, is there afterwards, with all file contents.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{
    Rng, Twins, assert_clean, chunks, diff, index_of, model_at, open_disk, open_store, picture,
    receive,
};
use haven_disk::VolatileDisk;
use haven_disk::testing::{DiskOp, FaultyDisk};
use haven_fs::FsResult;
use haven_store::{Store, StoreOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Tries of an opening whose flush may be the one that fails.
const OPENINGS: usize = 3;

/// Opens the store as one that flushes files one by one, or everything at once.
fn try_open(disk: &Arc<VolatileDisk>, flushes_all: bool) -> FsResult<Store> {
    let watched = FaultyDisk::new(disk.clone(), move |op, _| {
        match op == DiskOp::SyncAll && !flushes_all {
            true => Err(io::ErrorKind::Unsupported.into()),
            false => Ok(()),
        }
    });
    let options = StoreOptions {
        cache_bytes: 4 << 20,
    };
    Store::open(Arc::new(watched), Path::new("store"), options)
}

/// One flush fails at most.
fn reopen(disk: &Arc<VolatileDisk>, flushes_all: bool) -> Store {
    for _ in 1..OPENINGS {
        let planned = disk.flush_will_fail();
        match try_open(disk, flushes_all) {
            Ok(store) => return store,
            Err(why) => {
                let failed = planned && !disk.flush_will_fail();
                assert!(failed, "no flush failed, but: {why}");
            }
        }
    }
    try_open(disk, flushes_all).unwrap()
}

struct Machine {
    root: TempDir,
    disk: Arc<VolatileDisk>,
    twins: Option<Twins>,
    seed: u64,
    flushes_all: bool,
    /// The last position that was said to be durable, or was found to be.
    promised: u64,
    /// What was applied, and is in the log.
    reached: u64,
    failures: u64,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let disk = open_disk(root.path());
        Self {
            twins: None,
            root,
            disk,
            seed,
            flushes_all: seed.is_multiple_of(2),
            promised: 0,
            reached: 0,
            failures: 0,
        }
    }

    /// Another process opens the store, and applies the log to it.
    fn restart(&mut self) {
        self.twins = None;
        loop {
            let store = reopen(&self.disk, self.flushes_all);
            let found = index_of(store.durable_position().unwrap());
            assert!(
                (self.promised..=self.reached).contains(&found),
                "seed {}: {found} is not within {}..={}",
                self.seed,
                self.promised,
                self.reached
            );
            // The log up to there may go now.
            self.promised = found;
            let model = model_at(self.seed, found);
            let (rows, expected) = (picture(&store, false), picture(&model, false));
            assert!(rows == expected, "at {found}\n{}", diff(&rows, &expected));
            let mut twins = Twins::resumed(store, self.seed);
            if (found..self.reached).all(|_| twins.try_step().is_ok()) {
                twins.assert_equal();
                self.twins = Some(twins);
                return;
            }
            self.failures += 1;
        }
    }

    fn step(&mut self) {
        let twins = self.twins.as_mut().unwrap();
        self.reached += 1;
        if twins.try_step().is_err() {
            self.failures += 1;
            self.restart();
        }
    }

    /// Whether there is one now.
    fn checkpoint(&mut self) -> bool {
        let twins = self.twins.as_mut().unwrap();
        match twins.store.checkpoint() {
            Ok(position) => {
                self.promised = index_of(position);
                true
            }
            Err(_) => {
                self.failures += 1;
                self.restart();
                false
            }
        }
    }

    fn lose_power(&mut self, rng: &mut Rng) {
        let share = rng.below(3);
        self.disk.forget_keeping(|| rng.below(2) < share);
        self.twins = None;
        assert_clean(self.root.path());
        self.disk = open_disk(self.root.path());
    }

    /// A checkpoint of everything is all that is left of it.
    fn assert_durable(&mut self, rng: &mut Rng) {
        while !self.checkpoint() {}
        assert_eq!(self.promised, self.reached);
        self.lose_power(rng);
        let store = open_store(&self.disk);
        let twins = Twins::resumed(store, self.seed);
        assert_eq!(twins.index, self.reached, "seed {}", self.seed);
        twins.assert_equal();
        self.twins = Some(twins);
    }
}

fn history(seed: u64) -> u64 {
    let rng = &mut Rng(seed);
    let mut machine = Machine::new(seed);
    if rng.chance(2) {
        machine.disk.fail_flush(rng.below(20), rng.next());
    }
    machine.restart();
    while machine.reached < 200 {
        machine.step();
        if rng.chance(8) {
            machine.disk.fail_flush(rng.below(30), rng.next());
        }
        if rng.chance(20) {
            machine.disk.evict(|| rng.chance(2));
        }
        match rng.below(40) {
            0..4 => drop(machine.checkpoint()),
            4 => machine.restart(),
            5 => {
                machine.lose_power(rng);
                machine.restart();
            }
            6 => machine.assert_durable(rng),
            _ => {}
        }
    }
    machine.assert_durable(rng);
    machine.failures
}

#[test]
fn histories_survive_whatever_flush_fails() {
    let failures: u64 = (1..=8).map(history).sum();
    assert!(failures > 10, "{failures} failures");
}

/// A store of `seed` after `steps` operations, checkpointed halfway.
fn prepared(disk: &Arc<VolatileDisk>, seed: u64, steps: u64) -> Twins {
    let mut twins = Twins::new(try_open(disk, false).unwrap(), seed);
    twins.steps(steps / 2);
    twins.store.checkpoint().unwrap();
    twins.steps(steps - steps / 2);
    twins
}

/// For every flush of an installation: it fails, another process finds the old state or the new one, and that
/// is still there after a power loss.
fn installation_stays_what_a_restart_finds(receiver_seed: u64, receiver_steps: u64) {
    const SEED: u64 = 6;
    let sender_root = tempfile::tempdir().unwrap();
    let mut sender = prepared(&open_disk(sender_root.path()), SEED, 40);
    sender.steps(10);
    sender.store.checkpoint().unwrap();
    sender.steps(50);
    let mut reader = sender.store.snapshot_source().unwrap().unwrap();
    if receiver_seed == SEED {
        let base = receiver_steps / 2;
        assert!(reader.since(base).unwrap(), "only what changed is sent");
    }
    let sent = chunks(&mut reader);
    let (mut old, mut new) = (0, 0);
    for flush in 0.. {
        let root = tempfile::tempdir().unwrap();
        let disk = open_disk(root.path());
        let mut twins = prepared(&disk, receiver_seed, receiver_steps);
        disk.fail_flush(flush, flush);
        let staged = receive(&twins.store, &sent).ok();
        let installed = staged.is_some_and(|staged| twins.store.install(staged).is_ok());
        let failed_later = disk.flush_will_fail();
        drop(twins);
        let found = index_of(reopen(&disk, false).position().unwrap());
        assert!(found == 50 || !installed, "flush {flush}: it was promised");
        disk.forget();
        let store = open_store(&open_disk(root.path()));
        assert_eq!(
            index_of(store.position().unwrap()),
            found,
            "flush {flush}: another process found what was not durable"
        );
        let seed = match found {
            50 => SEED,
            _ => receiver_seed,
        };
        let mut twins = Twins::resumed(store, seed);
        twins.steps(100 - found);
        twins.assert_equal();
        match found {
            50 => new += 1,
            _ => old += 1,
        }
        if failed_later {
            break;
        }
    }
    assert!(old > 5 && new > 0, "{old} old, {new} new");
}

#[test]
fn an_installation_whose_flush_failed_is_durable_if_a_restart_finds_it() {
    installation_stays_what_a_restart_finds(7, 40);
}

#[test]
fn an_installation_of_changes_whose_flush_failed_is_durable_if_a_restart_finds_it() {
    installation_stays_what_a_restart_finds(6, 40);
}
