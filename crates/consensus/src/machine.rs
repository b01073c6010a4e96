//! The [`Replicated`] machine as openraft's state machine.
//!
//! Invariants
//! - `apply` and the installation of a snapshot run on one thread of their own; checkpoints and
//!   snapshot transfers on two others, so that none of them holds up another or openraft's core.
//! - Every batch carries the position it leads to. Entries the machine does not see (blank ones, the
//!   members) still move the position.
//! - What openraft believes to be applied is what the machine's position says, also after a restart.
//!
//! It must not know what entries mean, nor how snapshots travel.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::StreamExt;
use openraft::EntryPayload;
use openraft::OptionalSend;
use openraft::RaftSnapshotBuilder;
use openraft::Snapshot;
use openraft::alias::SnapshotOf;
use openraft::storage::ApplyResponder;
use openraft::storage::EntryResponder;
use openraft::storage::RaftStateMachine;
use tokio::sync::Notify;
use tokio::sync::mpsc;

use crate::MachineError;
use crate::Replicated;
use crate::SnapshotSink;
use crate::SnapshotSource;
use crate::codec;
use crate::options::CheckpointPolicy;
use crate::store::READ_BYTES_MAX;
use crate::tail;
use crate::types::Entry;
use crate::types::LogId;
use crate::types::Members;
use crate::types::Outcome;
use crate::types::SnapshotMeta;
use crate::types::Types;
use crate::worker::Worker;

/// Entries handed to the machine at once.
const BATCH_ENTRIES_MAX: usize = 1024;

/// Nodes whose checkpoints fall on different times.
const PHASES: u64 = 3;

/// A snapshot on its way.
pub(crate) enum Transfer {
    /// Only its position matters.
    Nothing,
    /// To be sent.
    Source(Box<dyn SnapshotSource>),
    /// Received as a whole, to be installed.
    Sink(Box<dyn SnapshotSink>),
}

/// What was applied since the last checkpoint, and the bell that asks for the next one.
///
/// All nodes apply the same, so they would make their checkpoints at the same time, each while its disk and
/// processors are busiest, and no majority would be quick meanwhile. So a node begins as if it had applied a share
/// already, another one on each of three, and stays that far ahead.
pub(crate) struct Pressure {
    entries: Gauge,
    bytes: Gauge,
    pub(crate) bell: Notify,
}

struct Gauge {
    is: AtomicU64,
    max: u64,
}

impl Gauge {
    fn new(max: u64, node_id: u64) -> Self {
        let share = u128::from(max) * u128::from(node_id % PHASES) / u128::from(PHASES);
        Self {
            is: AtomicU64::new(u64::try_from(share).unwrap_or(0)),
            max: max.max(1),
        }
    }

    /// Whether that passes a multiple of the limit: a checkpoint asked for while one is made is not made, so it is
    /// asked for again.
    fn add(&self, more: u64) -> bool {
        let before = self.is.fetch_add(more, Ordering::Relaxed);
        before / self.max != (before + more) / self.max
    }
}

impl Pressure {
    pub(crate) fn new(policy: &CheckpointPolicy, node_id: u64) -> Self {
        Self {
            entries: Gauge::new(policy.entries, node_id),
            bytes: Gauge::new(policy.bytes, node_id),
            bell: Notify::new(),
        }
    }

    fn add(&self, entries: usize, bytes: usize) {
        let entries = self.entries.add(entries as u64);
        if self.bytes.add(bytes as u64) || entries {
            self.bell.notify_one();
        }
    }

    fn reset(&self) {
        self.entries.is.store(0, Ordering::Relaxed);
        self.bytes.is.store(0, Ordering::Relaxed);
    }
}

fn machine_failed(error: MachineError) -> io::Error {
    io::Error::other(error)
}

fn bad_position(error: codec::DecodeError) -> io::Error {
    let text = format!("the machine's position does not decode: {error}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// See the module's head.
pub(crate) struct Machine<R> {
    machine: Arc<dyn Replicated<Reply = R>>,
    applier: Worker,
    checkpointer: Worker,
    transfers: Worker,
    pressure: Arc<Pressure>,
    applied: Option<LogId>,
    members: Members,
    /// Says, by being dropped, that the machine is no longer used.
    _in_use: mpsc::Sender<()>,
}

impl<R: Send + 'static> Machine<R> {
    /// Takes the machine as it is. Blocks.
    pub(crate) fn open(
        machine: Arc<dyn Replicated<Reply = R>>,
        transfers: Worker,
        pressure: Arc<Pressure>,
        in_use: mpsc::Sender<()>,
    ) -> io::Result<Self> {
        let position = machine.position().map_err(machine_failed)?;
        let meta = position
            .map(|p| codec::read_position(&p))
            .transpose()
            .map_err(bad_position)?;
        let meta = meta.unwrap_or_default();
        Ok(Self {
            machine,
            applier: Worker::start("haven-raft-app")?,
            checkpointer: Worker::start_background("haven-raft-chk")?,
            transfers,
            pressure,
            applied: meta.last_log_id,
            members: meta.last_membership,
            _in_use: in_use,
        })
    }

    /// The last entry applied.
    pub(crate) const fn applied(&self) -> Option<LogId> {
        self.applied
    }

    async fn apply_batch(&mut self, batch: &mut Batch) -> io::Result<()> {
        let Some(last) = batch.last.take() else {
            return Ok(());
        };
        let members_before = self.members.clone();
        let work = Arc::new(batch.take_work(last, members_before));
        let (mut done, count) = (0, work.entries.len());
        loop {
            let (machine, own) = (self.machine.clone(), Arc::clone(&work));
            let applied = self.applier.call(move || {
                let position = |more| own.position(done + more);
                machine.apply_turn(&own.entries[done..], &position)
            });
            let replies = applied.await?.map_err(machine_failed)?;
            if replies.len() > count - done || (replies.is_empty() && done < count) {
                let (replies, left) = (replies.len(), count - done);
                let text = format!("the machine gave {replies} replies to {left} entries");
                return Err(io::Error::other(text));
            }
            done += replies.len();
            let (applied, members) = work.after(done);
            (self.applied, self.members) = (Some(applied), members.clone());
            batch.answer(replies.into_iter());
            if done == count {
                break;
            }
        }
        self.pressure.add(count, std::mem::take(&mut batch.bytes));
        Ok(())
    }
}

/// Entries collected for the machine.
#[derive(Default)]
struct Batch {
    entries: Vec<(u64, Bytes)>,
    ids: Vec<LogId>,
    /// One for each entry, those unseen by the machine included: is it a command, who waits for it.
    waiting: VecDeque<(bool, Option<ApplyResponder<Types>>)>,
    /// Members, and how many of `entries` come before them.
    members: Vec<(usize, Members)>,
    last: Option<LogId>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, entry: Entry, responder: Option<ApplyResponder<Types>>) {
        self.bytes += tail::weight(&entry);
        self.last = Some(entry.log_id);
        let is_command = matches!(entry.payload, EntryPayload::Normal(_));
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(command) => {
                self.entries.push((entry.log_id.index, command.0));
                self.ids.push(entry.log_id);
            }
            EntryPayload::Membership(members) => {
                let members = Members::new(Some(entry.log_id), members);
                self.members.push((self.entries.len(), members));
            }
        }
        self.waiting.push_back((is_command, responder));
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= BATCH_ENTRIES_MAX || self.bytes >= READ_BYTES_MAX
    }

    fn take_work(&mut self, last: LogId, members_before: Members) -> Work {
        Work {
            entries: std::mem::take(&mut self.entries),
            ids: std::mem::take(&mut self.ids),
            members: std::mem::take(&mut self.members),
            members_before,
            last,
        }
    }

    /// Answers the next ones with the machine's replies, and those between them that the machine does not see.
    fn answer<R: Send + 'static>(&mut self, mut replies: impl Iterator<Item = R>) {
        while let Some((is_command, responder)) = self.waiting.pop_front() {
            let reply = if is_command { replies.next() } else { None };
            if is_command && reply.is_none() {
                self.waiting.push_front((is_command, responder));
                return;
            }
            if let Some(responder) = responder {
                responder.send(reply.map_or_else(Outcome::none, Outcome::new));
            }
        }
    }
}

/// A batch on the machine's thread.
struct Work {
    entries: Vec<(u64, Bytes)>,
    ids: Vec<LogId>,
    members: Vec<(usize, Members)>,
    members_before: Members,
    last: LogId,
}

impl Work {
    /// What is applied, and who the members are, after so many of the entries that the machine sees. With the last of them
    /// everything is applied that follows.
    fn after(&self, count: usize) -> (LogId, &Members) {
        let whole = count == self.entries.len();
        let last = self.ids[..count].last().filter(|_| !whole);
        let mut members = self.members.iter().rev();
        let members = members.find(|(before, _)| whole || *before < count);
        (
            *last.unwrap_or(&self.last),
            members.map_or(&self.members_before, |(_, members)| members),
        )
    }

    fn position(&self, count: usize) -> Bytes {
        let (applied, members) = self.after(count);
        codec::position(Some(applied), members)
    }
}

impl<R: Send + 'static> RaftStateMachine<Types> for Machine<R> {
    type SnapshotData = Transfer;
    type SnapshotBuilder = Checkpoint<R>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Members), io::Error> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batch = Batch::default();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            batch.add(entry, responder);
            if batch.is_full() {
                self.apply_batch(&mut batch).await?;
            }
        }
        self.apply_batch(&mut batch).await
    }

    async fn get_snapshot_builder(&mut self) -> Checkpoint<R> {
        Checkpoint {
            machine: self.machine.clone(),
            worker: self.checkpointer.clone(),
            pressure: self.pressure.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Transfer,
    ) -> Result<(), io::Error> {
        let Transfer::Sink(sink) = snapshot else {
            // Openraft installs its own snapshot at start only if it is ahead of the machine.
            return Err(io::Error::other("the machine is behind its own checkpoint"));
        };
        let machine = self.machine.clone();
        let installed = self.applier.call(move || {
            sink.install()?;
            machine.position()
        });
        let position = installed.await?.map_err(machine_failed)?;
        let Some(position) = position else {
            return Err(io::Error::other(
                "the machine has no position after a snapshot",
            ));
        };
        let found = codec::read_position(&position).map_err(bad_position)?;
        if found != *meta {
            let text = format!("the machine stands at {found} after a snapshot of {meta}");
            return Err(io::Error::other(text));
        }
        self.applied = found.last_log_id;
        self.members = found.last_membership;
        self.pressure.reset();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Types, Transfer>>, io::Error> {
        let machine = self.machine.clone();
        let source = self
            .transfers
            .call(move || machine.snapshot())
            .await?
            .map_err(machine_failed)?;
        let Some(source) = source else {
            return Ok(None);
        };
        let meta = codec::read_position(&source.position()).map_err(bad_position)?;
        Ok(Some(Snapshot {
            meta,
            snapshot: Transfer::Source(source),
        }))
    }
}

/// Makes one checkpoint.
pub(crate) struct Checkpoint<R> {
    machine: Arc<dyn Replicated<Reply = R>>,
    worker: Worker,
    pressure: Arc<Pressure>,
}

impl<R: Send + 'static> RaftSnapshotBuilder<Types> for Checkpoint<R> {
    type SnapshotData = Transfer;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Transfer>, io::Error> {
        let (machine, pressure) = (self.machine.clone(), self.pressure.clone());
        let position = self
            .worker
            .call(move || {
                // Not before: the worker may have to wait for a processor, and two checkpoints shall not be closer than
                // the policy says.
                pressure.reset();
                machine.checkpoint()
            })
            .await?
            .map_err(machine_failed)?;
        let meta = position
            .map(|p| codec::read_position(&p))
            .transpose()
            .map_err(bad_position)?;
        Ok(Snapshot {
            meta: meta.unwrap_or_default(),
            snapshot: Transfer::Nothing,
        })
    }
}

#[cfg(test)]
mod tests;
