//! Power losses at random moments, with any part of what was not flushed kept or lost.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use haven_disk::{Disk, VolatileDisk};
use haven_log::{Log, LogError, LogOptions, Record, Slot};
use proptest::prelude::*;

use crate::common::{Control, TestDisk, append, open, read_all, record, scratch, send, small};
use crate::model::Model;

/// A log on a disk that can lose its power.
struct Machine {
    volatile: Arc<VolatileDisk>,
    control: Arc<Control>,
    log: Log,
}

impl Machine {
    fn start(root: &std::path::Path, options: LogOptions) -> Machine {
        let volatile = Arc::new(VolatileDisk::open(root).expect("open the disk"));
        let test = TestDisk::new(Arc::clone(&volatile) as Arc<dyn Disk>);
        let control = Arc::clone(&test.control);
        let disk: Arc<dyn Disk> = test.disk;
        let checked = crate::check::run(&*disk).expect("what a power loss leaves can be checked");
        assert_eq!(checked.0, [], "damage after a power loss");
        let log = open(&disk, options).expect("what a power loss leaves is a log");
        Machine {
            volatile,
            control,
            log,
        }
    }
}

#[test]
fn a_truncation_survives_a_power_loss_and_nothing_cut_comes_back() {
    let dir = scratch();
    let mut expected: Vec<Record> = (1..=5).map(|i| record(i, 3000, 1)).collect();
    let machine = Machine::start(dir.path(), small());
    append(&machine.log, (1..=30).map(|i| record(i, 3000, 1)).collect()).expect("append");
    machine.log.truncate_after(5).expect("truncate");
    machine.volatile.forget();
    drop(machine);
    let machine = Machine::start(dir.path(), small());
    assert_eq!(read_all(&machine.log), expected);
    // Exactly in the place of a removed record of the same length: behind it the old ones would fit.
    append(&machine.log, vec![record(6, 3000, 2)]).expect("append");
    machine.volatile.forget();
    drop(machine);
    expected.push(record(6, 3000, 2));
    let machine = Machine::start(dir.path(), small());
    assert_eq!(read_all(&machine.log), expected);
}

#[test]
fn an_acknowledged_slot_survives_and_a_lazy_one_never_takes_it_down() {
    let dir = scratch();
    let machine = Machine::start(dir.path(), small());
    machine
        .log
        .save_slot(Slot::Committed, b"durable", true)
        .expect("save");
    for n in 0..5u8 {
        machine
            .log
            .save_slot(Slot::Committed, &[n], false)
            .expect("save");
    }
    // Every sector of what was not flushed is torn in the middle of its page.
    let mut n = 0;
    machine
        .log
        .save_slot(Slot::Committed, &[9; 3000], false)
        .expect("save");
    machine.volatile.forget_keeping(|| {
        n += 1;
        n % 2 == 1
    });
    drop(machine);
    let machine = Machine::start(dir.path(), small());
    let value = machine.log.read_slot(Slot::Committed).expect("read");
    assert_eq!(value.as_deref(), Some(&b"durable"[..]));
}

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<usize>),
    TruncateBy(u64),
    PurgeBy(u64),
    ResetTo(u64),
    Save(u8, bool),
    Reopen,
    /// One group is written and not flushed, another is queued, then the power goes; of what was
    /// written, this share of the sectors (of 8) stays.
    Crash(Vec<usize>, Vec<usize>, u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![3 => 0..200usize, 2 => 0..3000usize, 1 => 8000..20_000usize];
    let lens = prop::collection::vec(len, 1..6);
    prop_oneof![
        6 => lens.clone().prop_map(Op::Append),
        2 => (0..8u64).prop_map(Op::TruncateBy),
        2 => (0..12u64).prop_map(Op::PurgeBy),
        1 => (0..60u64).prop_map(Op::ResetTo),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(v, d)| Op::Save(v, d)),
        1 => Just(Op::Reopen),
        4 => (lens.clone(), lens, 0..9u64, any::<u64>())
            .prop_map(|(a, b, share, seed)| Op::Crash(a, b, share, seed)),
    ]
}

fn crash(
    machine: Machine,
    model: &mut Model,
    (first, second): (&[usize], &[usize]),
    share: u64,
    seed: u64,
) -> Vec<Record> {
    let Machine {
        volatile,
        control,
        log,
    } = machine;
    let mut pending = model.make(model.last(), first);
    let more = model.make(model.last() + first.len() as u64, second);
    control.close_gate();
    let answers: [mpsc::Receiver<Result<(), LogError>>; 2] = {
        let written = send(&log, pending.clone());
        control.wait_for_arrival();
        [written, send(&log, more.clone())]
    };
    pending.extend(more);
    let mut state = seed | 1;
    volatile.forget_keeping(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) % 8 < share
    });
    control.open_gate();
    drop(log);
    for answer in answers {
        let result = answer.recv().expect("an answer");
        result.expect_err("nothing is durable after the power loss");
    }
    pending
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_and_nothing_is_invented(
        ops in prop::collection::vec(op(), 1..40),
        zero_ahead_bytes in prop_oneof![Just(0usize), Just(2048)],
        spare_segments in 0..3usize,
    ) {
        let dir = scratch();
        let options = LogOptions { zero_ahead_bytes, spare_segments, ..small() };
        let mut machine = Machine::start(dir.path(), options.clone());
        let mut model = Model {
            purged: 0,
            records: BTreeMap::new(),
            salt: 0,
            durable_slot: None,
            lazy_slots: Vec::new(),
        };
        for op in &ops {
            let log = &machine.log;
            match op {
                Op::Append(lens) => {
                    let records = model.make(model.last(), lens);
                    append(log, records.clone()).expect("append");
                    model.add(&records);
                }
                Op::TruncateBy(n) => {
                    let keep = model.last().saturating_sub(*n).max(model.purged);
                    log.truncate_after(keep).expect("truncate");
                    model.records.split_off(&(keep + 1));
                }
                Op::PurgeBy(n) => {
                    let to = (model.purged + n).min(model.last());
                    log.purge_to(to).expect("purge");
                    model.records = model.records.split_off(&(to + 1));
                    model.purged = to;
                }
                Op::ResetTo(to) => {
                    log.reset_to(*to).expect("reset");
                    model.records.clear();
                    model.purged = *to;
                }
                Op::Save(value, durable) => {
                    log.save_slot(Slot::Vote, &[*value], *durable).expect("save");
                    if *durable {
                        model.lazy_slots.clear();
                        model.durable_slot = Some(*value);
                    } else {
                        model.lazy_slots.push(*value);
                    }
                }
                Op::Reopen => {
                    drop(machine);
                    machine = Machine::start(dir.path(), options.clone());
                }
                Op::Crash(first, second, share, seed) => {
                    let pending = crash(machine, &mut model, (first, second), *share, *seed);
                    machine = Machine::start(dir.path(), options.clone());
                    // Of what was not acknowledged a prefix may be there.
                    let last = machine.log.last_index().unwrap_or(model.purged);
                    let kept: Vec<Record> =
                        pending.into_iter().filter(|r| r.index <= last).collect();
                    model.add(&kept);
                    model.check_slot(&machine.log)?;
                }
            }
            model.check(&machine.log)?;
        }
    }
}
