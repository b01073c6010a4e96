//! Openraft's log storage over [`haven_log::Log`].
//!
//! Invariants
//! - Entry `i` of openraft is record `i + 1` of the log: openraft counts from 0, where the log's purge
//!   point 0 means that nothing was purged.
//! - Writes take effect in the order of the calls: a vote, cut or purge starts only after all appends
//!   before it are durable. Openraft counts on that, since it takes a durable vote as proof that all
//!   earlier appends are.
//! - The vote and the purge point are durable when their calls return; the committed position is
//!   written without a flush, some time later.
//! - The purge point is saved before records go, so it is never behind the log; opening brings the
//!   log in line with it.
//! - No call blocks the thread of openraft's core: whatever may touch the disk runs on a worker.
//!   Appends are queued by the log, which blocks when more than `LogOptions::queue_*_max` wait. The
//!   bounds on proposals ([`crate::options`]) and on appends under way to a follower
//!   ([`crate::net::client`]) keep below the log's defaults; a log with smaller queues would stop
//!   heartbeats whenever its disk is slow.
//!
//! It must not know what entries mean, nor who reads them.

use std::fmt::Debug;
use std::io;
use std::ops::Bound;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use openraft::EntryPayload;
use openraft::LogState;
use openraft::OptionalSend;
use openraft::RaftLogReader;
use openraft::storage::IOFlushed;
use openraft::storage::RaftLogStorage;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::codec;
use crate::codec::DecodeError;
use crate::lease::Lease;
use crate::pulse::Pulse;
use crate::tail::Tail;
use crate::types::Entry;
use crate::types::LogId;
use crate::types::Types;
use crate::types::Vote;
use crate::types::log_id;
use crate::types::next_index;
use crate::worker::Worker;
use haven_log::Log;
use haven_log::LogError;
use haven_log::Record;
use haven_log::Slot;

/// Entry bytes read at once, and in one batch to the machine. A single larger entry goes alone.
pub(crate) const READ_BYTES_MAX: usize = 4 << 20;

/// Entry bytes in one message to a follower. A single larger entry goes alone.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How often the committed position is written. An older one only makes the next start apply less before it
/// meets a leader.
const COMMITTED_EVERY: Duration = Duration::from_millis(100);

/// A vote that takes longer to save is reported.
const SLOW_VOTE: Duration = Duration::from_millis(50);

/// Record index of openraft's entry index.
pub(crate) const fn record_index(index: u64) -> u64 {
    index + 1
}

/// Openraft's entry index of a record index.
const fn entry_index(record: u64) -> u64 {
    record - 1
}

fn log_failed(error: LogError) -> io::Error {
    io::Error::other(error)
}

fn bad_record(what: &str, error: DecodeError) -> io::Error {
    let text = format!("the log holds a bad {what}: {error}; restore this node from its peers");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The log as openraft sees it. Clones share everything.
#[derive(Clone)]
pub(crate) struct Store {
    log: Log,
    io: Worker,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Appends handed to the log that are not durable yet.
    unflushed: watch::Sender<u64>,
    /// The entries below this are durable.
    durable_end: AtomicU64,
    /// Whether a job that writes the committed position is waiting to run.
    commit_queued: AtomicBool,
    lease: Arc<Lease>,
    /// Saving a vote, purging or truncating: the node does one of these at a time, and nothing else meanwhile.
    voting: Pulse,
    /// Says, by being dropped, that the log is no longer used.
    _in_use: mpsc::Sender<()>,
}

struct State {
    tail: Tail,
    vote: Option<Vote>,
    purged: Option<LogId>,
    /// See [`crate::rejoin`].
    forgot: Option<u64>,
    committed: Option<LogId>,
    /// When it may be written again.
    committed_due: Instant,
}

impl Store {
    /// Brings `log` in line with its purge point. Blocks.
    pub(crate) fn open(log: Log, lease: Arc<Lease>, in_use: mpsc::Sender<()>) -> io::Result<Self> {
        let vote = read_slot(&log, Slot::Vote, "vote", codec::read_vote_slot)?;
        let purged = read_slot(&log, Slot::Purged, "purge point", codec::read_log_id_slot)?;
        let committed = read_slot(
            &log,
            Slot::Committed,
            "committed position",
            codec::read_log_id_slot,
        )?;
        let forgot = read_slot(&log, Slot::Forgotten, "term", codec::read_term_slot)?;
        if let Some(purged) = purged {
            drop_purged(&log, purged)?;
        } else if log.purged_index() > 0 {
            let text = "the log's beginning is gone, but its purge point is missing";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let state = State {
            tail: Tail::default(),
            vote,
            purged,
            forgot,
            committed,
            committed_due: Instant::now(),
        };
        let shared = Shared {
            state: Mutex::new(state),
            unflushed: watch::Sender::new(0),
            durable_end: AtomicU64::new(log.last_index().unwrap_or(0)),
            commit_queued: AtomicBool::new(false),
            lease,
            voting: Pulse::default(),
            _in_use: in_use,
        };
        Ok(Self {
            log,
            io: Worker::start("haven-raft-log")?,
            shared: Arc::new(shared),
        })
    }

    /// The last durable entry.
    pub(crate) fn durable(&self) -> Option<u64> {
        self.shared
            .durable_end
            .load(Ordering::Acquire)
            .checked_sub(1)
    }

    /// The files of the log, oldest first: their first entry and their bytes.
    pub(crate) fn files(&self) -> Vec<(u64, u64)> {
        let files = self.log.files().into_iter();
        files
            .map(|(first, bytes)| (entry_index(first.max(1)), bytes))
            .collect()
    }

    /// Whether this node never voted and holds no entry: then it never answered any leader.
    pub(crate) fn is_fresh(&self) -> bool {
        let state = self.shared.state.lock();
        state.vote.is_none() && state.purged.is_none() && self.log.last_index().is_none()
    }

    /// The newest term of which this node may have forgotten what it did: see [`crate::rejoin`].
    pub(crate) fn forgot(&self) -> Option<u64> {
        self.shared.state.lock().forgot
    }

    /// Notes, when everything taken so far is durable, that nothing is forgotten any more.
    pub(crate) async fn remembered(&self) -> io::Result<()> {
        self.wait_flushed().await?;
        self.on_worker(|log| {
            log.save_slot(Slot::Forgotten, &[], true)
                .map_err(log_failed)
        })
        .await?;
        self.shared.state.lock().forgot = None;
        Ok(())
    }

    /// What is known to be committed, if neither the log nor the machine, which has applied up to `applied`, holds it:
    /// see [`crate::lacking`].
    pub(crate) async fn lacks(&mut self, applied: Option<LogId>) -> io::Result<Option<LogId>> {
        let committed = self.shared.state.lock().committed;
        let held = self.get_log_state().await?.last_log_id.max(applied);
        Ok(committed.filter(|committed| Some(*committed) > held))
    }

    /// The last vote that was saved.
    pub(crate) fn durable_vote(&self) -> Option<Vote> {
        self.shared.state.lock().vote
    }

    /// The saving of votes, purging, truncating.
    pub(crate) fn vote_pulse(&self) -> Pulse {
        self.shared.voting.clone()
    }

    async fn wait_flushed(&self) -> io::Result<()> {
        let mut unflushed = self.shared.unflushed.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        unflushed
            .wait_for(|count| *count == 0)
            .await
            .map(drop)
            .map_err(io::Error::other)
    }

    async fn on_worker<T, F>(&self, call: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Log) -> io::Result<T> + Send + 'static,
    {
        let log = self.log.clone();
        self.io.call(move || call(&log)).await?
    }

    fn write_committed_later(&self) {
        if self.shared.commit_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let (log, shared) = (self.log.clone(), self.shared.clone());
        let queued = self.io.offer(move || {
            shared.commit_queued.store(false, Ordering::Release);
            let committed = shared.state.lock().committed;
            let Some(committed) = committed else { return };
            if let Err(error) =
                log.save_slot(Slot::Committed, &codec::log_id_slot(committed), false)
            {
                // It only makes the next start apply less before it meets a leader.
                tracing::warn!("cannot note the committed position: {error}");
            }
        });
        if !queued {
            self.shared.commit_queued.store(false, Ordering::Release);
        }
    }

    /// Entries from `start` on, before `end`, some at least if `start` exists.
    async fn read_some(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if let Some(found) = self.shared.state.lock().tail.get(start, end, bytes_max) {
            return Ok(found);
        }
        self.on_worker(move |log| {
            let range = record_index(start)..record_index(end);
            let records = log.read(range, bytes_max).map_err(log_failed)?;
            records.into_iter().map(entry_of).collect()
        })
        .await
    }

    /// Clips a range to what the log holds.
    fn clip(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(i) => *i,
            Bound::Excluded(i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(i) => i.saturating_add(1),
            Bound::Excluded(i) => *i,
            Bound::Unbounded => u64::MAX,
        };
        let purged = next_index(self.shared.state.lock().purged);
        // Record `n` is entry `n - 1`, so the last record's index is the end of the entries.
        (
            start.max(purged),
            end.min(self.log.last_index().unwrap_or(0)),
        )
    }
}

fn read_slot<T>(
    log: &Log,
    slot: Slot,
    what: &str,
    decode: fn(&[u8]) -> Result<T, DecodeError>,
) -> io::Result<Option<T>> {
    let bytes = log.read_slot(slot).map_err(log_failed)?;
    bytes
        .map(|bytes| decode(&bytes))
        .transpose()
        .map_err(|error| bad_record(what, error))
}

fn entry_of(record: Record) -> io::Result<Entry> {
    codec::join_entry(entry_index(record.index), &record.head, record.body)
        .map_err(|error| bad_record(&format!("entry {}", entry_index(record.index)), error))
}

/// Removes the records up to the purge point; records that end before it are of no use at all.
fn drop_purged(log: &Log, purged: LogId) -> io::Result<()> {
    let upto = record_index(purged.index);
    if log.last_index().is_none_or(|last| last < upto) {
        if log.purged_index() != upto {
            log.reset_to(upto).map_err(log_failed)?;
        }
        return Ok(());
    }
    if log.purged_index() < upto {
        log.purge_to(upto).map_err(log_failed)?;
    }
    Ok(())
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut start, end) = self.clip(&range);
        let mut entries = Vec::new();
        while start < end {
            let some = self.read_some(start, end, READ_BYTES_MAX).await?;
            let Some(last) = some.last() else {
                return Err(missing(start));
            };
            start = last.log_id.index + 1;
            entries.extend(some);
        }
        Ok(entries)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.clip(&range);
        let pieces = stream::unfold((self.clone(), start), move |(store, start)| async move {
            if start >= end {
                return None;
            }
            match store.read_some(start, end, READ_BYTES_MAX).await {
                Ok(some) => match some.last() {
                    Some(last) => {
                        let next = last.log_id.index + 1;
                        Some((some.into_iter().map(Ok).collect(), (store, next)))
                    }
                    None => Some((vec![Err(missing(start))], (store, end))),
                },
                Err(error) => Some((vec![Err(error)], (store, end))),
            }
        });
        futures_util::StreamExt::flat_map(pieces, |piece: Vec<io::Result<Entry>>| {
            stream::iter(piece)
        })
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.state.lock().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read_some(start, end, MESSAGE_BYTES_MAX).await
    }
}

fn missing(index: u64) -> io::Error {
    let text = format!("entry {index} is missing from the log; restore this node from its peers");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let last_purged_log_id = self.shared.state.lock().purged;
        let last = self
            .on_worker(|log| {
                let Some(last) = log.last_index() else {
                    return Ok(None);
                };
                let records = log.read(last..last + 1, 1).map_err(log_failed)?;
                let Some(record) = records.first() else {
                    return Err(missing(entry_index(last)));
                };
                let term = codec::head_term(&record.head)
                    .map_err(|error| bad_record("last entry", error))?;
                Ok(Some(log_id(term, entry_index(last))))
            })
            .await?;
        Ok(LogState {
            last_purged_log_id,
            last_log_id: last.or(last_purged_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        // Whoever answers a later term, be it with its own vote, has stopped answering reads in
        // earlier ones: nothing about this vote leaves the node before it is saved.
        self.shared
            .lease
            .revoke(vote.leader_id.term.saturating_sub(1));
        let begun = Instant::now();
        let _voting = self.shared.voting.begin();
        self.wait_flushed().await?;
        self.on_worker(move |log| {
            log.save_slot(Slot::Vote, &codec::vote_slot(vote), true)
                .map_err(log_failed)
        })
        .await?;
        let took = begun.elapsed();
        if took >= SLOW_VOTE {
            tracing::warn!("saving a vote took {took:?}: a slow disk makes takeovers slow");
        }
        self.shared.state.lock().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let due = {
            let mut state = self.shared.state.lock();
            state.committed = committed;
            let now = Instant::now();
            let due = state.committed_due <= now;
            if due {
                state.committed_due = now + COMMITTED_EVERY;
            }
            due
        };
        if due {
            self.write_committed_later();
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let committed = self.shared.state.lock().committed;
        // The position is written without a flush of the log before it. Entries it covers that a
        // power loss took were committed by others (see `lacking`); those that are left are committed too.
        let last = self.get_log_state().await?.last_log_id;
        Ok(committed.min(last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        let mut end = 0;
        {
            let mut state = self.shared.state.lock();
            for entry in entries {
                if let EntryPayload::Membership(members) = &entry.payload
                    && members.voter_ids().count() > 1
                {
                    self.shared.lease.note_plural(entry.log_id.index);
                }
                let (head, body) = codec::split_entry(&entry);
                let index = record_index(entry.log_id.index);
                end = index;
                records.push(Record {
                    index,
                    head: Bytes::copy_from_slice(&head),
                    body,
                });
                state.tail.push(entry);
            }
        }
        self.shared.unflushed.send_modify(|count| *count += 1);
        let shared = self.shared.clone();
        let done = Box::new(move |result: Result<(), LogError>| {
            if result.is_ok() {
                shared.durable_end.fetch_max(end, Ordering::AcqRel);
            }
            callback.io_completed(result.map_err(log_failed));
            shared.unflushed.send_modify(|count| *count -= 1);
        });
        self.log.append(records, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let _truncating = self.shared.voting.begin();
        self.wait_flushed().await?;
        let from = next_index(last);
        self.shared.state.lock().tail.cut_from(from);
        self.shared.durable_end.fetch_min(from, Ordering::AcqRel);
        // Record `from` is the entry before `from`.
        self.on_worker(move |log| log.truncate_after(from).map_err(log_failed))
            .await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let _purging = self.shared.voting.begin();
        self.wait_flushed().await?;
        {
            let mut state = self.shared.state.lock();
            state.purged = state.purged.max(Some(upto));
            state.tail.drop_below(upto.index + 1);
        }
        self.on_worker(move |log| {
            log.save_slot(Slot::Purged, &codec::log_id_slot(upto), true)
                .map_err(log_failed)?;
            drop_purged(log, upto)
        })
        .await
    }
}
