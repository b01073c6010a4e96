//! The replicated machine of one service: the protocol machine over the durable store, as the consensus
//! layer wants it.
//!
//! One lock: entries are applied under the write lock in batches, queries share the read lock, so every
//! query sees a state between two batches. A batch that takes longer than a turn is interrupted, so that queries do not wait
//! for all of it. A checkpoint takes the write lock only to begin and to end.
//!
//! What is not durable yet is kept in memory. When changes come faster than checkpoints write them down,
//! they wait for the checkpoint that is under way: memory stays bounded, and clients feel the disk's pace.

use crate::applying::Applying;
use crate::cutting::Cutting;
use crate::metrics::{Buckets, Histogram};
use crate::shortage::Shortage;
use crate::witness;
use bytes::Bytes;
use haven_consensus::{MachineError, Pulse, Replicated, SnapshotSink, SnapshotSource, Wanted};
use haven_disk::Disk;
use haven_nfsd::{Identity, Machine, VolumeId};
use haven_store::{HashStep, SnapshotReader, SnapshotWriter, Store, StoreOptions};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use haven_nfsd::Outcome;

/// Directory of the store within the data directory.
pub(crate) const STORE_DIR: &str = "store";

/// The shape of what [`base`] makes.
const BASE_FORMAT: u8 = 1;

/// Changes wait while more than this is not durable and a checkpoint is under way. A checkpoint begins long
/// before (`haven_config::Checkpoints`).
const PENDING_BYTES_MAX: usize = 320 << 20;

/// After so long the next entry waits until those had their turn that want to look at the state.
const TURN: Duration = Duration::from_millis(4);

/// How often a hash is begun again because something changed.
const HASH_ATTEMPTS: usize = 16;

/// The state, under its lock.
pub type Volume = RwLock<Machine<Store>>;

/// See the module's head comment.
pub struct Engine {
    disk: Arc<dyn Disk>,
    machine: Arc<Volume>,
    turn: Duration,
    pending_bytes_max: usize,
    /// One checkpoint at a time, and none while changes are installed.
    checkpointing: Arc<Mutex<()>>,
    checkpoints: Histogram,
    /// Bytes of changes that the last checkpoint wrote down.
    checkpoint_bytes: AtomicU64,
    pulses: Pulses,
    shortage: Arc<Shortage>,
    /// Ends with this.
    _cutting: Cutting,
}

/// For how long the machine has been at what it does, for whoever judges whether it hangs.
#[derive(Debug, Clone, Default)]
pub struct Pulses {
    /// Applying an entry, without what it waits for a checkpoint.
    pub apply: Applying,
    /// A checkpoint.
    pub checkpoint: Pulse,
}

impl Engine {
    /// Opens the state in the data directory.
    ///
    /// # Errors
    /// A format this binary does not know, damage, or the disk, in words.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Arc<Self>, String> {
        Self::open_within(disk, PENDING_BYTES_MAX)
    }

    fn open_within(disk: Arc<dyn Disk>, pending_bytes_max: usize) -> Result<Arc<Self>, String> {
        witness::refuse_its_place(disk.as_ref())?;
        let own = Arc::clone(&disk);
        let store = Store::open(own, Path::new(STORE_DIR), StoreOptions::default())
            .map_err(|e| e.to_string())?;
        let machine = Machine::new(store).map_err(|e| e.to_string())?;
        let machine = Arc::new(RwLock::new(machine));
        let cutting = Cutting::start(Arc::clone(&machine));
        let cutting = cutting.map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Arc::new(Self {
            disk,
            machine,
            turn: TURN,
            _cutting: cutting,
            pending_bytes_max,
            checkpointing: Arc::default(),
            checkpoints: Histogram::default(),
            checkpoint_bytes: AtomicU64::new(0),
            pulses: Pulses::default(),
            shortage: Arc::default(),
        }))
    }

    /// Why this node cannot take the state that it lacks.
    pub fn shortage(&self) -> Option<haven_admin::Problem> {
        self.shortage.why()
    }

    /// A hash of the whole state, in hexadecimal, and the log index up to which everything is applied in that state.
    /// Changes go on between its slices; one that comes makes it begin again.
    ///
    /// # Errors
    /// The disk's, in words; or changes come faster than the state can be read.
    pub fn state_hash(&self) -> Result<(String, u64), String> {
        for _ in 0..HASH_ATTEMPTS {
            let mut pass = self.machine.read().fs().begin_hash();
            let found = loop {
                let step = self.machine.read().fs().hash_slice(&mut pass);
                match step.map_err(|e| e.to_string())? {
                    HashStep::More => {}
                    HashStep::Changed => break None,
                    HashStep::Done(hash, applied) => break Some((hash, applied)),
                }
            };
            if let Some((hash, applied)) = found {
                return Ok((hash.iter().map(|b| format!("{b:02x}")).collect(), applied));
            }
        }
        Err("the state changes while it is read; ask again when less is changed".into())
    }

    /// How long checkpoints took, and the bytes of changes that the last one wrote down.
    pub fn checkpoints(&self) -> (Buckets, u64) {
        let bytes = self.checkpoint_bytes.load(Ordering::Relaxed);
        (self.checkpoints.read(), bytes)
    }

    /// How long it has been at what it does.
    pub fn pulses(&self) -> Pulses {
        self.pulses.clone()
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

impl Engine {
    /// Returns when there is memory for changes. Without a checkpoint under way there is nothing to wait for.
    fn wait_for_room(&self) {
        if self.machine.read().fs().pending_bytes() > self.pending_bytes_max {
            drop(self.checkpointing.lock());
        }
    }
}

impl Engine {
    /// Applies entries until the time is over, one at least.
    fn apply_for(
        &self,
        turn: Duration,
        entries: &[(u64, Bytes)],
        position: &dyn Fn(usize) -> Bytes,
    ) -> Result<Vec<Outcome>, MachineError> {
        self.wait_for_room();
        // It has what it lacked, from wherever.
        self.shortage.clear();
        self.pulses.apply.is_here();
        let mut machine = self.machine.write();
        let began = Instant::now();
        let mut outcomes = Vec::new();
        for (index, entry) in entries {
            let _applying = self.pulses.apply.begin(*index, entry);
            outcomes.push(machine.apply(*index, entry).map_err(stop)?);
            machine.fs_mut().set_applied(*index);
            if began.elapsed() >= turn {
                break;
            }
        }
        let position = position(outcomes.len());
        machine.fs_mut().set_position(position).map_err(stop)?;
        if outcomes.len() < entries.len() {
            // Whoever waits comes before the next turn.
            RwLockWriteGuard::unlock_fair(machine);
        }
        Ok(outcomes)
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
        self.apply_for(Duration::MAX, entries, &|_| position.clone())
    }

    fn apply_turn(
        &self,
        entries: &[(u64, Bytes)],
        position: &dyn Fn(usize) -> Bytes,
    ) -> Result<Vec<Outcome>, MachineError> {
        self.apply_for(self.turn, entries, position)
    }

    fn checkpoint(&self) -> Result<Option<Bytes>, MachineError> {
        let _one = self.checkpointing.lock();
        let began = Instant::now();
        let _under_way = self.pulses.checkpoint.begin();
        let (bytes, job) = {
            let mut machine = self.machine.write();
            let bytes = machine.fs().pending_bytes();
            (bytes, machine.fs_mut().freeze().map_err(stop)?)
        };
        let Some(job) = job else {
            return self.machine.read().fs().durable_position().map_err(stop);
        };
        let done = job.run().map_err(stop)?;
        let position = self
            .machine
            .write()
            .fs_mut()
            .finish_checkpoint(&done)
            .map_err(stop);
        self.checkpoints.add(began.elapsed());
        self.checkpoint_bytes.store(bytes as u64, Ordering::Relaxed);
        position
    }

    fn snapshot(&self) -> Result<Option<Box<dyn SnapshotSource>>, MachineError> {
        let machine = self.machine.read();
        let volume = machine.identity().map(Identity::volume_id);
        let reader = machine.fs().snapshot_source().map_err(stop)?;
        Ok(reader.map(|reader| Box::new(Source { reader, volume }) as Box<dyn SnapshotSource>))
    }

    fn wanted(&self) -> Result<Wanted, MachineError> {
        let machine = self.machine.read();
        let volume = machine.identity().map(Identity::volume_id);
        let index = machine.fs().base_index().map_err(stop)?;
        Ok(match (volume, index) {
            (Some(volume), Some(index)) => Wanted::Since(base(volume, index)),
            _ => Wanted::Everything,
        })
    }

    fn receive(&self, _position: Bytes) -> Result<Box<dyn SnapshotSink>, MachineError> {
        let free_bytes = self.disk.space().map_err(stop)?.free_bytes;
        if let Some(why) = self.shortage.declines(free_bytes, Instant::now()) {
            return Err(stop(why));
        }
        Ok(Box::new(Sink {
            writer: self.machine.read().fs().receive(),
            machine: Arc::clone(&self.machine),
            checkpointing: Arc::clone(&self.checkpointing),
            shortage: Arc::clone(&self.shortage),
        }))
    }
}

/// Describes the checkpoint at `index` of a volume to other nodes.
fn base(volume: VolumeId, index: u64) -> Bytes {
    let mut base = vec![BASE_FORMAT];
    base.extend_from_slice(&volume.0);
    base.extend_from_slice(&index.to_be_bytes());
    base.into()
}

/// The index in what [`base`] made for this volume.
fn base_index(volume: VolumeId, base: &[u8]) -> Option<u64> {
    let index = base.strip_prefix(&[BASE_FORMAT])?.strip_prefix(&volume.0)?;
    index.try_into().ok().map(u64::from_be_bytes)
}

struct Source {
    reader: SnapshotReader,
    volume: Option<VolumeId>,
}

impl SnapshotSource for Source {
    fn position(&self) -> Bytes {
        self.reader.position()
    }

    fn since(&mut self, base: Bytes) -> Result<bool, MachineError> {
        match self.volume.and_then(|volume| base_index(volume, &base)) {
            Some(index) => self.reader.since(index).map_err(stop),
            None => Ok(false),
        }
    }

    fn next_chunk(&mut self) -> Result<Option<Bytes>, MachineError> {
        self.reader.next_chunk().map_err(stop)
    }
}

struct Sink {
    writer: SnapshotWriter,
    machine: Arc<RwLock<Machine<Store>>>,
    checkpointing: Arc<Mutex<()>>,
    shortage: Arc<Shortage>,
}

impl SnapshotSink for Sink {
    fn push(&mut self, chunk: Bytes) -> Result<(), MachineError> {
        self.writer.push(&chunk).map_err(|refused| {
            self.shortage.note(&refused, Instant::now());
            stop(refused)
        })
    }

    fn install(self: Box<Self>) -> Result<(), MachineError> {
        let staged = self.writer.finish().map_err(stop)?;
        // Changes go into the present state: a checkpoint under way would undo them.
        let _none = staged.is_partial().then(|| self.checkpointing.lock());
        let mut machine = self.machine.write();
        machine.fs_mut().install(staged).map_err(stop)?;
        machine.reload().map_err(stop)?;
        self.shortage.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_disk::RealDisk;
    use haven_disk::testing::{DiskOp, FaultyDisk};
    use haven_fs::Time;
    use haven_nfsd::Entry;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    /// Long enough for a change that does not wait.
    const MOMENT: Duration = Duration::from_millis(100);

    fn apply(engine: &Engine, index: u64) {
        let entry = Entry::Noop {
            time: Time::default(),
        };
        let entries = [(index, entry.encode().unwrap())];
        engine.apply(&entries, Bytes::from_static(b"here")).unwrap();
    }

    fn noops(indexes: std::ops::Range<u64>) -> Vec<(u64, Bytes)> {
        let time = Time::default();
        let entry = Entry::Noop { time }.encode().unwrap();
        indexes.map(|index| (index, entry.clone())).collect()
    }

    fn number(count: usize) -> Bytes {
        Bytes::copy_from_slice(&count.to_be_bytes())
    }

    #[test]
    fn a_turn_ends_with_its_time_and_a_checkpoint_fits_between_two() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::open(dir.path()).unwrap());
        let mut engine = Engine::open(disk).unwrap();
        // Every entry takes longer than that.
        Arc::get_mut(&mut engine).unwrap().turn = Duration::ZERO;
        let entries = noops(1..6);
        for done in 0..5 {
            let position = |more| number(done + more);
            let replies = engine.apply_turn(&entries[done..], &position).unwrap();
            assert_eq!(replies.len(), 1);
            let durable = engine.checkpoint().unwrap();
            assert_eq!(durable, Some(number(done + 1)), "of what was applied");
        }
        Arc::get_mut(&mut engine).unwrap().turn = Duration::MAX;
        let replies = engine.apply_turn(&noops(6..9), &|more| number(5 + more));
        assert_eq!(replies.unwrap().len(), 3);
        assert_eq!(engine.position().unwrap(), Some(number(8)));
    }

    #[test]
    fn the_state_hash_says_to_which_index_it_belongs_and_gives_up_when_it_is_overtaken() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(Arc::new(RealDisk::open(dir.path()).unwrap())).unwrap();
        apply(&engine, 7);
        let (hash, applied) = engine.state_hash().unwrap();
        assert_eq!((hash.len(), applied), (64, 7));
        apply(&engine, 9);
        let (other, applied) = engine.state_hash().unwrap();
        assert!(other != hash && applied == 9, "{applied}");
        // The lock is free between its slices: a change gets in, and it begins again.
        let mut pass = engine.machine.read().fs().begin_hash();
        apply(&engine, 10);
        let step = engine.machine.read().fs().hash_slice(&mut pass);
        assert_eq!(step, Ok(HashStep::Changed));
    }

    #[test]
    fn what_is_cut_off_is_given_back_without_being_asked_for() {
        use haven_fs::{Change, Create, Cred, Filesystem, SetAttr};
        let (tell, told) = mpsc::channel();
        let dir = tempfile::tempdir().unwrap();
        let real = Arc::new(RealDisk::open(dir.path()).unwrap());
        let disk = FaultyDisk::new(real, move |op: DiskOp, path| {
            if op == DiskOp::SetLen && path.starts_with("store/gen-1/data") {
                let _ = tell.send(std::thread::current().name().map(str::to_owned));
            }
            Ok(())
        });
        let engine = Engine::open(Arc::new(disk)).unwrap();
        let (at, cred) = (
            Change {
                index: 1,
                time: Time::default(),
            },
            Cred::root(),
        );
        {
            let mut machine = engine.machine.write();
            let fs = machine.fs_mut();
            let how = Create::Guarded(SetAttr::default());
            let ino = fs.create(&at, &cred, fs.root(), b"f", &how).unwrap().ino;
            fs.write(&at, &cred, ino, 0, &[7; 1 << 20]).unwrap();
            let none = SetAttr {
                size: Some(0),
                ..SetAttr::default()
            };
            fs.setattr(&at, &cred, ino, &none, None).unwrap();
        }
        assert_eq!(told.recv().unwrap().as_deref(), Some("haven-cut"));
        // Ends its thread, too: nobody holds the directory any more.
        drop(engine);
        drop(RealDisk::open(dir.path()).unwrap());
    }

    #[test]
    fn changes_wait_for_a_checkpoint_when_too_much_is_not_durable() {
        let (ask, asked) = mpsc::channel();
        let (let_go, go) = mpsc::channel::<()>();
        let go = Mutex::new(go);
        // The disk holds the first flush of the checkpoint until told.
        let armed = Arc::new(AtomicBool::new(false));
        let hold = Arc::clone(&armed);
        let dir = tempfile::tempdir().unwrap();
        let real = Arc::new(RealDisk::open(dir.path()).unwrap());
        let disk = FaultyDisk::new(real, move |op: DiskOp, _| {
            if op.is_flush() && hold.swap(false, Ordering::SeqCst) {
                ask.send(()).unwrap();
                go.lock().recv().unwrap();
            }
            Ok(())
        });
        let engine = Engine::open_within(Arc::new(disk), 0).unwrap();
        // Nothing to wait for yet.
        apply(&engine, 1);
        apply(&engine, 2);
        armed.store(true, Ordering::SeqCst);
        let own = Arc::clone(&engine);
        let checkpoint = std::thread::spawn(move || own.checkpoint().map(drop));
        asked.recv().unwrap();
        let (done, over) = mpsc::channel();
        let own = Arc::clone(&engine);
        let change = std::thread::spawn(move || {
            apply(&own, 3);
            done.send(()).unwrap();
        });
        assert!(over.recv_timeout(MOMENT).is_err(), "it did not wait");
        let_go.send(()).unwrap();
        over.recv().unwrap();
        change.join().unwrap();
        checkpoint.join().unwrap().unwrap();
    }

    /// An engine on a disk that says that `free_bytes` are free.
    fn small(dir: &Path, free_bytes: &Arc<AtomicU64>) -> Arc<Engine> {
        let real = Arc::new(RealDisk::open(dir).unwrap());
        let told = Arc::clone(free_bytes);
        let disk = FaultyDisk::new(real, |_, _| Ok(()));
        let disk = disk.with_space(move |space| haven_disk::Space {
            free_bytes: told.load(Ordering::SeqCst),
            ..space
        });
        Engine::open(Arc::new(disk)).unwrap()
    }

    fn offer(from: &Engine, to: &Engine) -> Result<(), MachineError> {
        let mut source = from.snapshot()?.unwrap();
        let mut sink = to.receive(source.position())?;
        while let Some(chunk) = source.next_chunk()? {
            sink.push(chunk)?;
        }
        sink.install()
    }

    #[test]
    fn a_node_without_room_for_the_state_says_so_until_it_has_it() {
        let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let free = Arc::new(AtomicU64::new(1 << 20));
        let leader = small(dir.path(), &free);
        apply(&leader, 1);
        leader.checkpoint().unwrap();
        let node = small(other_dir.path(), &free);
        assert_eq!(node.shortage(), None);
        let why = offer(&leader, &node).unwrap_err().to_string();
        assert!(why.contains("MiB are missing"), "{why}");
        let told = node.shortage().unwrap();
        assert!(
            why.contains(&told.what) && why.contains(&told.advice),
            "{why}"
        );
        // Before the leader has found out how much it would be.
        let declined = node.receive(Bytes::new()).map(drop).unwrap_err();
        assert_eq!(declined.to_string(), told.what);
        free.store(1 << 30, Ordering::SeqCst);
        offer(&leader, &node).unwrap();
        assert_eq!(node.shortage(), None);
        // Or it goes on from its log, because another node leads.
        free.store(1 << 20, Ordering::SeqCst);
        offer(&leader, &node).unwrap_err();
        assert!(node.shortage().is_some());
        apply(&node, 2);
        assert_eq!(node.shortage(), None);
    }
}
