//! Openraft's own conformance suite for log storage and state machines, on the real log and disk.
//!
//! Left out are its snapshot transfer, which hands a sender's data to a receiver as it is (here the
//! bytes travel by the transport), and those checks that append entries with gaps before or between
//! them, which our log refuses by design.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haven_disk::RealDisk;
use haven_disk::VolatileDisk;
use haven_log::Log;
use haven_log::LogOptions;
use openraft::StorageError;
use openraft::storage::IOFlushed;
use openraft::storage::RaftLogStorage;
use openraft::testing::log::StoreBuilder;
use openraft::testing::log::Suite;
use openraft::vote::RaftLeaderId;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::MachineError;
use crate::Replicated;
use crate::SnapshotSink;
use crate::SnapshotSource;
use crate::lease::KernelClocks;
use crate::lease::Lease;
use crate::machine::Machine;
use crate::machine::Pressure;
use crate::options::CheckpointPolicy;
use crate::store::Store;
use crate::types::Command;
use crate::types::Entry;
use crate::types::LeaderId;
use crate::types::Types;
use crate::types::Vote;
use crate::types::log_id;
use crate::worker::Worker;

/// Keeps the position and nothing else.
#[derive(Default)]
struct Positioned {
    now: Mutex<Option<Bytes>>,
    checkpoint: Mutex<Option<Bytes>>,
}

struct Empty(Bytes);

impl SnapshotSource for Empty {
    fn position(&self) -> Bytes {
        self.0.clone()
    }
    fn next_chunk(&mut self) -> Result<Option<Bytes>, MachineError> {
        Ok(None)
    }
}

impl Replicated for Positioned {
    type Reply = ();

    fn position(&self) -> Result<Option<Bytes>, MachineError> {
        Ok(self.now.lock().clone())
    }
    fn apply(&self, entries: &[(u64, Bytes)], position: Bytes) -> Result<Vec<()>, MachineError> {
        *self.now.lock() = Some(position);
        Ok(vec![(); entries.len()])
    }
    fn checkpoint(&self) -> Result<Option<Bytes>, MachineError> {
        *self.checkpoint.lock() = self.now.lock().clone();
        Ok(self.checkpoint.lock().clone())
    }
    fn snapshot(&self) -> Result<Option<Box<dyn SnapshotSource>>, MachineError> {
        let position = self.checkpoint.lock().clone();
        Ok(position.map(|position| Box::new(Empty(position)) as Box<dyn SnapshotSource>))
    }
    fn receive(&self, _position: Bytes) -> Result<Box<dyn SnapshotSink>, MachineError> {
        Err(MachineError("not in this test".into()))
    }
}

struct Builder;

fn open_log(dir: &TempDir) -> Log {
    let disk = Arc::new(RealDisk::open(dir.path()).unwrap());
    Log::open(disk, Path::new("log"), LogOptions::default()).unwrap()
}

fn open_store(log: Log) -> (Store, mpsc::Receiver<()>) {
    let (in_use, released) = mpsc::channel(1);
    let lease = Lease::new(KernelClocks, Duration::from_secs(60), false);
    (Store::open(log, Arc::new(lease), in_use).unwrap(), released)
}

impl StoreBuilder<Types, Store, Machine<()>, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Store, Machine<()>), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let (store, _released) = open_store(open_log(&dir));
        let machine = Arc::new(Positioned::default());
        let (in_use, _) = mpsc::channel(1);
        let pressure = Arc::new(Pressure::new(&CheckpointPolicy::default(), 0));
        let transfers = Worker::start("transfers").unwrap();
        Ok((
            dir,
            store,
            Machine::open(machine, transfers, pressure, in_use).unwrap(),
        ))
    }
}

type Checks = Suite<Types, Store, Machine<()>, Builder, TempDir>;

macro_rules! conforms {
    ($($check:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $check() {
            let (_dir, store, machine) = Builder.build().await.unwrap();
            Checks::$check(store, machine).await.unwrap();
        })*
    };
}

conforms!(
    last_membership_in_log_initial,
    get_membership_initial,
    get_membership_from_empty_log_and_sm,
    get_initial_state_without_init,
    get_initial_state_with_state,
    get_initial_state_membership_from_empty_log_and_sm,
    get_initial_state_membership_from_log_insm_is_smaller,
    get_initial_state_last_log_gt_sm,
    get_initial_state_log_ids,
    save_vote,
    get_log_entries,
    limited_get_log_entries,
    leader_bounded_stream,
    entries_stream,
    try_get_log_entry,
    log_reader_reads_new_entries,
    initial_logs,
    get_log_state,
    get_log_id,
    last_id_in_log,
    last_applied_state,
    purge_logs_upto_0,
    purge_logs_upto_5,
    purge_logs_upto_20,
    delete_logs_after_11,
    delete_logs_after_5,
    delete_logs_after_0,
    delete_logs_after_none,
    append_to_log,
    snapshot_meta,
    apply_single,
    apply_multiple,
);

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    let entry = |index| Entry {
        log_id: log_id(1, index),
        payload: openraft::EntryPayload::Normal(Command(Bytes::from(format!("{index}")))),
    };
    range.map(entry).collect()
}

async fn append(store: &mut Store, range: std::ops::Range<u64>) {
    let (done, flushed) = <Types as openraft::type_config::TypeConfigExt>::oneshot();
    store
        .append(entries(range), IOFlushed::signal(done))
        .await
        .unwrap();
    flushed.await.unwrap().unwrap();
}

/// Closes the store and opens it anew.
async fn reopen(
    dir: &TempDir,
    store: Store,
    mut released: mpsc::Receiver<()>,
) -> (Store, mpsc::Receiver<()>) {
    drop(store);
    assert!(released.recv().await.is_none());
    open_store(open_log(dir))
}

#[tokio::test]
async fn vote_purge_point_and_reset_survive_a_restart() {
    use openraft::RaftLogReader;
    let dir = tempfile::tempdir().unwrap();
    let (mut store, released) = open_store(open_log(&dir));
    assert!(store.is_fresh());
    append(&mut store, 0..10).await;
    let vote = Vote {
        leader_id: LeaderId::new(4, 2),
        committed: false,
    };
    store.save_vote(&vote).await.unwrap();
    store.purge(log_id(1, 3)).await.unwrap();

    let (mut store, released) = reopen(&dir, store, released).await;
    assert!(!store.is_fresh());
    assert_eq!(store.read_vote().await.unwrap(), Some(vote));
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 3)));
    assert_eq!(state.last_log_id, Some(log_id(1, 9)));
    assert_eq!(store.try_get_log_entries(0..100).await.unwrap().len(), 6);

    // As after a snapshot: the purge point is beyond all entries.
    store.purge(log_id(3, 50)).await.unwrap();
    let (mut store, _released) = reopen(&dir, store, released).await;
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(3, 50)));
    assert_eq!(state.last_log_id, Some(log_id(3, 50)));
    append(&mut store, 51..53).await;
    assert_eq!(store.try_get_log_entries(0..100).await.unwrap().len(), 2);
}

#[tokio::test]
async fn committed_position_never_passes_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, released) = open_store(open_log(&dir));
    append(&mut store, 0..5).await;
    store.save_committed(Some(log_id(1, 9))).await.unwrap();
    // Runs after the job that writes the position.
    store
        .save_vote(&Vote {
            leader_id: LeaderId::new(1, 1),
            committed: true,
        })
        .await
        .unwrap();
    let (mut store, _released) = reopen(&dir, store, released).await;
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 4)));
}

#[tokio::test]
async fn a_vote_whose_flush_failed_is_durable_once_a_restart_has_found_it() {
    use openraft::RaftLogReader;
    let log_on = |disk: &Arc<VolatileDisk>| {
        Log::open(disk.clone(), Path::new("log"), LogOptions::default()).unwrap()
    };
    let vote = |term| Vote {
        leader_id: LeaderId::new(term, 1),
        committed: false,
    };
    for seed in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(VolatileDisk::open(dir.path()).unwrap());
        let (mut store, mut released) = open_store(log_on(&disk));
        store.save_vote(&vote(1)).await.unwrap();
        disk.fail_flush(0, seed);
        store.save_vote(&vote(2)).await.unwrap_err();
        drop(store);
        assert!(released.recv().await.is_none());
        let (mut store, mut released) = open_store(log_on(&disk));
        // It is in memory, so this node would answer with it.
        assert_eq!(store.read_vote().await.unwrap(), Some(vote(2)));
        disk.forget();
        drop(store);
        assert!(released.recv().await.is_none());
        let disk = Arc::new(VolatileDisk::open(dir.path()).unwrap());
        let (mut store, _released) = open_store(log_on(&disk));
        assert_eq!(store.read_vote().await.unwrap(), Some(vote(2)), "{seed}");
    }
}

#[tokio::test]
async fn purge_cut_short_by_a_crash_is_finished_at_the_next_start() {
    use openraft::RaftLogReader;
    let dir = tempfile::tempdir().unwrap();
    let (mut store, released) = open_store(open_log(&dir));
    append(&mut store, 0..10).await;
    drop(store);
    let mut released = released;
    assert!(released.recv().await.is_none());
    let log = open_log(&dir);
    let slot = crate::codec::log_id_slot(log_id(1, 6));
    log.save_slot(haven_log::Slot::Purged, &slot, true).unwrap();
    drop(log);
    let (mut store, _released) = open_store(open_log(&dir));
    let left = store.try_get_log_entries(0..100).await.unwrap();
    assert_eq!(left.first().map(|e| e.log_id.index), Some(7));
    assert_eq!(left.len(), 3);
}

#[tokio::test]
async fn saving_a_later_vote_ends_the_lease_of_earlier_terms() {
    let dir = tempfile::tempdir().unwrap();
    let lease = Arc::new(Lease::new(KernelClocks, Duration::from_secs(60), false));
    let (in_use, _released) = mpsc::channel(1);
    let mut store = Store::open(open_log(&dir), lease.clone(), in_use).unwrap();
    lease.renew(4, lease.now_ns(), Some(Duration::ZERO));
    assert!(lease.valid());
    let vote = Vote {
        leader_id: LeaderId::new(5, 2),
        committed: false,
    };
    store.save_vote(&vote).await.unwrap();
    lease.renew(4, lease.now_ns(), Some(Duration::ZERO));
    assert!(!lease.valid());
    lease.renew(5, lease.now_ns(), Some(Duration::ZERO));
    assert!(lease.valid());
}
