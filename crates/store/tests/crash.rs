//! Random histories with checkpoints and crashes at random moments: after replaying the log from the
//! durable position on, the store must be what it would be without any crash.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{Rng, Twins, diff, index_of, model_at, open_disk, open_store, picture};
use haven_disk::VolatileDisk;
use haven_store::{CheckpointJob, Checkpointed};
use std::path::Path;
use std::sync::Arc;

const OPS: u64 = 260;

/// A checkpoint on its way.
enum Pending {
    None,
    Frozen(CheckpointJob),
    Durable(Checkpointed),
}

struct Machine {
    twins: Twins,
    disk: Arc<VolatileDisk>,
    pending: Pending,
    crashes: u64,
    checkpoints: u64,
    /// Pieces of what was cut off that were given back.
    pieces: u64,
    /// The last position that was said to be durable.
    promised: u64,
}

impl Machine {
    fn new(root: &Path, seed: u64) -> Self {
        let disk = open_disk(root);
        let twins = Twins::new(open_store(&disk), seed);
        Self {
            twins,
            disk,
            pending: Pending::None,
            crashes: 0,
            checkpoints: 0,
            pieces: 0,
            promised: 0,
        }
    }

    /// One step of a checkpoint, so that operations happen between any two.
    fn go_on_with_checkpoint(&mut self) {
        let store = &mut self.twins.store;
        self.pending = match std::mem::replace(&mut self.pending, Pending::None) {
            Pending::None => store
                .freeze()
                .unwrap()
                .map_or(Pending::None, Pending::Frozen),
            Pending::Frozen(job) => Pending::Durable(job.run().unwrap()),
            Pending::Durable(done) => {
                let position = store.finish_checkpoint(&done).unwrap();
                self.promised = index_of(position);
                self.checkpoints += 1;
                Pending::None
            }
        };
    }

    /// Ends the process in one of several ways, opens the store again and replays.
    fn crash(&mut self, root: &Path, rng: &mut Rng) {
        let seed = self.twins.seed;
        let reached = self.twins.index;
        self.crashes += 1;
        self.pending = Pending::None;
        match rng.below(4) {
            // The process dies, the machine stays: file data is ahead of the metadata.
            0 => {}
            // The power goes: everything unflushed is lost.
            1 => self.lose_power(root, || false),
            // The power goes: any part of what was not flushed may have reached the disk.
            2 => self.lose_power(root, || rng.chance(2)),
            _ => self.lose_power(root, || true),
        }
        let durable = self.reopen();
        let promised = self.promised;
        assert!(
            (promised..=reached).contains(&durable),
            "{promised} {durable} {reached}"
        );
        let model = model_at(seed, durable);
        let (store, expected) = (picture(&self.twins.store, false), picture(&model, false));
        assert!(
            store == expected,
            "seed {seed} at {durable}\n{}",
            diff(&store, &expected)
        );
        self.twins.model = model;
        self.twins.index = durable;
        self.twins.steps(reached - durable);
        self.twins.assert_equal();
    }

    fn lose_power(&mut self, root: &Path, keep: impl FnMut() -> bool) {
        self.disk.forget_keeping(keep);
        self.disk = open_disk(root);
    }

    fn reopen(&mut self) -> u64 {
        // The old store goes first, as with the process that held it.
        let placeholder = tempfile::tempdir().unwrap();
        let old = std::mem::replace(
            &mut self.twins.store,
            open_store(&open_disk(placeholder.path())),
        );
        drop(old);
        self.twins.store = open_store(&self.disk);
        let durable = index_of(self.twins.store.durable_position().unwrap());
        assert_eq!(index_of(self.twins.store.position().unwrap()), durable);
        durable
    }
}

fn history(seed: u64) -> [u64; 3] {
    let root = tempfile::tempdir().unwrap();
    let rng = &mut Rng(seed);
    let mut machine = Machine::new(root.path(), seed);
    while machine.twins.index < OPS {
        machine.twins.step();
        if rng.chance(6) {
            machine.go_on_with_checkpoint();
        }
        if rng.chance(8) {
            let piece = machine.twins.store.cutter().piece(1 + rng.below(100_000));
            machine.pieces += u64::from(piece.unwrap().is_some());
        }
        if rng.chance(40) {
            machine.crash(root.path(), rng);
        }
    }
    machine.twins.assert_equal();
    let (good, all) = (machine.twins.succeeded, machine.twins.index);
    assert!(
        good > all / 2,
        "seed {seed}: only {good} of {all} operations did something"
    );

    // A replica without any checkpoint or crash holds the same, byte for byte.
    let other_root = tempfile::tempdir().unwrap();
    let mut other = Twins::new(open_store(&open_disk(other_root.path())), seed);
    other.steps(machine.twins.index);
    let hash = machine.twins.store.state_hash().unwrap();
    assert_eq!(hash, other.store.state_hash().unwrap(), "seed {seed}");
    while picture(&other.model, true) == picture(&machine.twins.model, true) {
        other.step();
    }
    assert_ne!(
        hash,
        other.store.state_hash().unwrap(),
        "seed {seed}: the hash misses a change"
    );
    [machine.crashes, machine.checkpoints, machine.pieces]
}

#[test]
fn replay_restores_every_history() {
    let sums = (1..=8).map(history).fold([0; 3], |sums, counts| {
        std::array::from_fn(|at| sums[at] + counts[at])
    });
    let [crashes, checkpoints, pieces] = sums;
    assert!(
        crashes > 30 && checkpoints > 60 && pieces > 20,
        "{crashes} crashes, {checkpoints} checkpoints, {pieces} pieces given back"
    );
}
