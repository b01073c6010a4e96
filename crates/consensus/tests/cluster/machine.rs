//! A machine that remembers what was applied. Its "disk" is a value that outlives it.

use std::sync::Arc;

use bytes::Buf;
use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use haven_consensus::MachineError;
use haven_consensus::Replicated;
use haven_consensus::SnapshotSink;
use haven_consensus::SnapshotSource;
use haven_consensus::Wanted;
use parking_lot::Condvar;
use parking_lot::Mutex;

/// What a machine holds at a position.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct State {
    pub position: Option<Bytes>,
    pub applied: Vec<(u64, Bytes)>,
}

/// What survives the machine: its last checkpoint.
pub type TestDisk = Arc<Mutex<State>>;

/// What a machine is like.
#[derive(Clone, Default)]
pub struct Nature {
    /// It remembers nothing but positions.
    pub witness: bool,
    /// It asks for what it lacks only.
    pub partial: bool,
    /// Holds snapshots up while they are sent.
    pub gate: Arc<Gate>,
}

/// Holds up whoever passes, once it is shut.
#[derive(Default)]
pub struct Gate {
    /// Shut; how many wait before it.
    state: Mutex<(bool, u32)>,
    opened: Condvar,
}

impl Gate {
    pub fn shut(&self) {
        self.state.lock().0 = true;
    }

    pub fn open(&self) {
        self.state.lock().0 = false;
        self.opened.notify_all();
    }

    pub fn is_waited_at(&self) -> bool {
        self.state.lock().1 > 0
    }

    pub fn pass(&self) {
        let mut state = self.state.lock();
        state.1 += 1;
        self.opened.wait_while(&mut state, |state| state.0);
        state.1 -= 1;
    }
}

pub struct TestMachine {
    disk: TestDisk,
    state: Arc<Mutex<State>>,
    nature: Nature,
    /// Snapshots installed since the machine was opened.
    pub installed: Arc<Mutex<u32>>,
}

impl TestMachine {
    /// Opens at the last checkpoint, as after a crash.
    pub fn open(disk: &TestDisk, nature: Nature) -> Arc<Self> {
        let state = disk.lock().clone();
        Arc::new(Self {
            nature,
            disk: disk.clone(),
            state: Arc::new(Mutex::new(state)),
            installed: Arc::default(),
        })
    }

    pub fn applied(&self) -> Vec<(u64, Bytes)> {
        self.state.lock().applied.clone()
    }

    pub fn texts(&self) -> Vec<String> {
        self.applied()
            .iter()
            .map(|(_, b)| String::from_utf8_lossy(b).into_owned())
            .collect()
    }
}

impl Replicated for TestMachine {
    /// How many entries were applied, this one included.
    type Reply = usize;

    fn position(&self) -> Result<Option<Bytes>, MachineError> {
        Ok(self.state.lock().position.clone())
    }

    fn apply(&self, entries: &[(u64, Bytes)], position: Bytes) -> Result<Vec<usize>, MachineError> {
        let mut state = self.state.lock();
        let mut replies = Vec::new();
        for (index, entry) in entries {
            if state.applied.last().is_some_and(|(last, _)| last >= index) {
                return Err(MachineError(format!("entry {index} is applied twice")));
            }
            if !self.nature.witness {
                state.applied.push((*index, entry.clone()));
            }
            replies.push(state.applied.len());
        }
        state.position = Some(position);
        Ok(replies)
    }

    fn checkpoint(&self) -> Result<Option<Bytes>, MachineError> {
        let state = self.state.lock().clone();
        let position = state.position.clone();
        *self.disk.lock() = state;
        Ok(position)
    }

    fn snapshot(&self) -> Result<Option<Box<dyn SnapshotSource>>, MachineError> {
        let state = self.disk.lock().clone();
        let Some(position) = state.position else {
            return Ok(None);
        };
        Ok(Some(Box::new(Source {
            position,
            left: state.applied.into(),
            gate: self.nature.gate.clone(),
        })))
    }

    /// The last index of its checkpoint is a base.
    fn wanted(&self) -> Result<Wanted, MachineError> {
        if self.nature.witness {
            return Ok(Wanted::Position);
        }
        let last = self.disk.lock().applied.last().map(|(index, _)| *index);
        Ok(match last.filter(|_| self.nature.partial) {
            Some(index) => Wanted::Since(Bytes::copy_from_slice(&index.to_be_bytes())),
            None => Wanted::Everything,
        })
    }

    fn receive(&self, position: Bytes) -> Result<Box<dyn SnapshotSink>, MachineError> {
        let got = State {
            position: Some(position),
            ..State::default()
        };
        Ok(Box::new(Sink {
            got,
            disk: self.disk.clone(),
            state: self.state.clone(),
            installed: self.installed.clone(),
        }))
    }
}

struct Source {
    position: Bytes,
    left: std::collections::VecDeque<(u64, Bytes)>,
    gate: Arc<Gate>,
}

impl SnapshotSource for Source {
    fn position(&self) -> Bytes {
        self.position.clone()
    }

    fn since(&mut self, mut base: Bytes) -> Result<bool, MachineError> {
        let base = base.get_u64();
        self.left.retain(|(index, _)| *index > base);
        Ok(true)
    }

    /// One entry in each chunk, the position in each.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, MachineError> {
        self.gate.pass();
        let Some((index, entry)) = self.left.pop_front() else {
            return Ok(None);
        };
        let mut chunk = BytesMut::new();
        chunk.put_u32(self.position.len() as u32);
        chunk.put_slice(&self.position);
        chunk.put_u64(index);
        chunk.put_slice(&entry);
        Ok(Some(chunk.freeze()))
    }
}

struct Sink {
    disk: TestDisk,
    state: Arc<Mutex<State>>,
    installed: Arc<Mutex<u32>>,
    got: State,
}

impl SnapshotSink for Sink {
    fn push(&mut self, mut chunk: Bytes) -> Result<(), MachineError> {
        let len = chunk.get_u32() as usize;
        self.got.position = Some(chunk.split_to(len));
        let index = chunk.get_u64();
        // The first one says where what came begins.
        if self.got.applied.is_empty() {
            let mut had = self.disk.lock().applied.clone();
            had.retain(|(had, _)| *had < index);
            self.got.applied = had;
        }
        self.got.applied.push((index, chunk));
        Ok(())
    }

    fn install(self: Box<Self>) -> Result<(), MachineError> {
        *self.disk.lock() = self.got.clone();
        *self.state.lock() = self.got;
        *self.installed.lock() += 1;
        Ok(())
    }
}
