//! The replicated machine of one service: the protocol machine over the durable store, as the consensus
//! layer wants it.
//!
//! One lock: entries are applied under the write lock in batches, queries share the read lock, so every
//! query sees a state between two batches. A checkpoint takes the write lock only to begin and to end.

use bytes::Bytes;
use haven_consensus::{MachineError, Replicated, SnapshotSink, SnapshotSource};
use haven_disk::Disk;
use haven_nfsd::{Fatal, Machine};
use haven_store::{SnapshotReader, SnapshotWriter, Store, StoreOptions};
use parking_lot::{Mutex, RwLock};
use std::path::Path;
use std::sync::Arc;

pub use haven_nfsd::Outcome;

/// Directory of the store within the data directory.
pub(crate) const STORE_DIR: &str = "store";

/// See the module's head comment.
pub struct Engine {
    machine: Arc<RwLock<Machine<Store>>>,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
}

impl Engine {
    /// Opens the state in the data directory.
    ///
    /// # Errors
    /// A format this binary does not know, damage, or the disk, in words.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Arc<Self>, String> {
        let store = Store::open(disk, Path::new(STORE_DIR), StoreOptions::default())
            .map_err(|e| e.to_string())?;
        let machine = Machine::new(store).map_err(|e| e.to_string())?;
        Ok(Arc::new(Self {
            machine: Arc::new(RwLock::new(machine)),
            checkpointing: Mutex::default(),
        }))
    }

    /// A hash of the whole state, in hexadecimal. Holds up changes while it reads.
    ///
    /// # Errors
    /// The disk's, in words.
    pub fn state_hash(&self) -> Result<String, String> {
        let hash = self
            .machine
            .read()
            .fs()
            .state_hash()
            .map_err(|e| e.to_string())?;
        Ok(hash.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Looks at the state, unless a batch is being applied.
    pub fn try_read<T>(&self, look: impl FnOnce(&Machine<Store>) -> T) -> Option<T> {
        self.machine.try_read().map(|machine| look(&machine))
    }

    /// Looks at the state between two batches.
    pub fn read<T>(&self, look: impl FnOnce(&Machine<Store>) -> T) -> T {
        look(&self.machine.read())
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

fn stop(why: impl std::fmt::Display) -> MachineError {
    MachineError(why.to_string())
}

impl Replicated for Engine {
    type Reply = Outcome;

    fn position(&self) -> Result<Option<Bytes>, MachineError> {
        self.machine.read().fs().position().map_err(stop)
    }

    fn apply(
        &self,
        entries: &[(u64, Bytes)],
        position: Bytes,
    ) -> Result<Vec<Outcome>, MachineError> {
        let mut machine = self.machine.write();
        let outcomes = entries
            .iter()
            .map(|(index, entry)| machine.apply(*index, entry))
            .collect::<Result<Vec<_>, Fatal>>()
            .map_err(stop)?;
        machine.fs_mut().set_position(position).map_err(stop)?;
        Ok(outcomes)
    }

    fn checkpoint(&self) -> Result<Option<Bytes>, MachineError> {
        let _one = self.checkpointing.lock();
        let Some(job) = self.machine.write().fs_mut().freeze().map_err(stop)? else {
            return self.machine.read().fs().durable_position().map_err(stop);
        };
        let done = job.run().map_err(stop)?;
        self.machine
            .write()
            .fs_mut()
            .finish_checkpoint(&done)
            .map_err(stop)
    }

    fn snapshot(&self) -> Result<Option<Box<dyn SnapshotSource>>, MachineError> {
        let source = self.machine.read().fs().snapshot_source().map_err(stop)?;
        Ok(source.map(|reader| Box::new(Source(reader)) as Box<dyn SnapshotSource>))
    }

    fn receive(&self) -> Result<Box<dyn SnapshotSink>, MachineError> {
        let writer = self.machine.read().fs().receive().map_err(stop)?;
        Ok(Box::new(Sink {
            writer,
            machine: Arc::clone(&self.machine),
        }))
    }
}

struct Source(SnapshotReader);

impl SnapshotSource for Source {
    fn position(&self) -> Bytes {
        self.0.position()
    }

    fn next_chunk(&mut self) -> Result<Option<Bytes>, MachineError> {
        self.0.next_chunk().map_err(stop)
    }
}

struct Sink {
    writer: SnapshotWriter,
    machine: Arc<RwLock<Machine<Store>>>,
}

impl SnapshotSink for Sink {
    fn push(&mut self, chunk: Bytes) -> Result<(), MachineError> {
        self.writer.push(&chunk).map_err(stop)
    }

    fn install(self: Box<Self>) -> Result<(), MachineError> {
        let staged = self.writer.finish().map_err(stop)?;
        let mut machine = self.machine.write();
        machine.fs_mut().install(staged).map_err(stop)?;
        machine.reload().map_err(stop)
    }
}
