use std::collections::BTreeMap;

use futures_util::stream;
use parking_lot::Mutex;

use super::*;
use crate::roster::Record;
use crate::types::Command;
use crate::types::Membership;

use crate::types::log_id;

/// Applies at most so many entries in a turn, and remembers what it was told.
struct Slow {
    most: usize,
    turns: Mutex<Vec<(Vec<u64>, SnapshotMeta)>>,
}

impl Replicated for Slow {
    type Reply = u64;

    fn position(&self) -> Result<Option<Bytes>, MachineError> {
        Ok(None)
    }
    fn apply(&self, _entries: &[(u64, Bytes)], _position: Bytes) -> Result<Vec<u64>, MachineError> {
        Err(MachineError("only turns are asked for".into()))
    }
    fn apply_turn(
        &self,
        entries: &[(u64, Bytes)],
        position: &dyn Fn(usize) -> Bytes,
    ) -> Result<Vec<u64>, MachineError> {
        let applied = entries.iter().map(|(index, _)| *index);
        let applied: Vec<u64> = applied.take(self.most).collect();
        let at = codec::read_position(&position(applied.len())).unwrap();
        self.turns.lock().push((applied.clone(), at));
        Ok(applied)
    }
    fn checkpoint(&self) -> Result<Option<Bytes>, MachineError> {
        Ok(None)
    }
    fn snapshot(&self) -> Result<Option<Box<dyn SnapshotSource>>, MachineError> {
        Ok(None)
    }
    fn receive(&self, _position: Bytes) -> Result<Box<dyn SnapshotSink>, MachineError> {
        Err(MachineError("not in this test".into()))
    }
}

fn members(ids: &[u64]) -> Membership {
    let nodes: BTreeMap<u64, Record> = ids.iter().map(|id| (*id, Record::default())).collect();
    Membership::new(vec![ids.iter().copied().collect()], nodes).unwrap()
}

/// The log: what is no number is not seen by the machine.
fn log() -> Vec<Entry> {
    let payloads = "-12a3-b45-".chars().map(|kind| match kind {
        '-' => EntryPayload::Blank,
        'a' => EntryPayload::Membership(members(&[1, 2])),
        'b' => EntryPayload::Membership(members(&[1, 2, 3])),
        other => EntryPayload::Normal(Command(Bytes::from(other.to_string()))),
    });
    let entry = |(index, payload)| Entry {
        log_id: log_id(1, index),
        payload,
    };
    (10..).zip(payloads).map(entry).collect()
}

/// What was applied in each turn, up to which index, with how many members, when a turn takes so many entries.
async fn turns(most: usize) -> io::Result<Vec<(Vec<u64>, u64, usize)>> {
    let slow = Arc::new(Slow {
        most,
        turns: Mutex::default(),
    });
    let (in_use, _released) = mpsc::channel(1);
    let pressure = Arc::new(Pressure::new(&CheckpointPolicy::default(), 0));
    let transfers = Worker::start("transfers").unwrap();
    let mut machine = Machine::open(slow.clone(), transfers, pressure, in_use).unwrap();
    let entries = log().into_iter().map(|entry| Ok((entry, None)));
    let applied = machine.apply(stream::iter(entries)).await;
    let (last, members) = machine.applied_state().await.unwrap();
    applied?;
    assert_eq!(last, Some(log_id(1, 19)));
    assert_eq!(members.voter_ids().count(), 3);
    let turns = slow.turns.lock().clone().into_iter();
    let turn = |(applied, at): (Vec<u64>, SnapshotMeta)| {
        let index = at.last_log_id.map_or(0, |id| id.index);
        (applied, index, at.last_membership.voter_ids().count())
    };
    Ok(turns.map(turn).collect())
}

#[tokio::test]
async fn every_turn_has_the_position_that_it_leads_to() {
    let whole = [(vec![11, 12, 14, 17, 18], 19, 3)];
    assert_eq!(turns(5).await.unwrap(), whole);
    assert_eq!(turns(1000).await.unwrap(), whole);
    let by_two = [
        (vec![11, 12], 12, 0),
        (vec![14, 17], 17, 3),
        (vec![18], 19, 3),
    ];
    assert_eq!(turns(2).await.unwrap(), by_two);
    let one_by_one = [
        (vec![11], 11, 0),
        (vec![12], 12, 0),
        (vec![14], 14, 2),
        (vec![17], 17, 3),
        (vec![18], 19, 3),
    ];
    assert_eq!(turns(1).await.unwrap(), one_by_one);
}

#[tokio::test]
async fn a_machine_that_does_not_get_on_is_an_error() {
    let why = turns(0).await.unwrap_err().to_string();
    assert!(why.contains("0 replies to 5 entries"), "{why}");
}
