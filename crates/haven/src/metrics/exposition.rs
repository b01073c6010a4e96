//! The metrics' names, their meaning, and the text that Prometheus reads.
//!
//! A function of a [`Reading`]. Names follow Prometheus' conventions: base units, counters end in `_total`.

use super::histogram::Buckets;
use super::meter::{SLOTS, STATUSES};
use haven_admin::memory::Memory;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// Everything that is told, read at one moment.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Version of the program.
    pub version: String,
    /// Durations of requests by slot of the meter.
    pub durations: Vec<Buckets>,
    /// Errors: slot, status, count.
    pub errors: Vec<(usize, usize, u64)>,
    /// Bytes of calls and replies.
    pub bytes: (u64, u64),
    /// Retransmissions answered from the reply cache.
    pub replays: u64,
    /// Client connections.
    pub connections: u64,
    /// What clients have of this node's memory.
    pub memory: Memory,
    /// Groups that were flushed, and how long that took.
    pub flushes: Buckets,
    /// For how long the present flush has been under way, in seconds.
    pub flush_running: f64,
    /// Records and bytes that were made durable.
    pub log_written: (u64, u64),
    /// Segments of the log.
    pub log_segments: u64,
    /// Last log index: present, committed, applied, in a checkpoint.
    pub indexes: [u64; 4],
    /// Other nodes, as the leader sees them.
    pub peers: Vec<PeerReading>,
    /// Keys that must be the same on all nodes, and whether they differ.
    pub differences: Vec<(String, bool)>,
    /// How many seconds each node's clock is ahead of the one that counts.
    pub clocks: Vec<(String, f64)>,
    /// Seconds that the service's time is ahead of it.
    pub time_ahead: f64,
    /// leader, follower, candidate, learner or stopped.
    pub role: &'static str,
    /// The term.
    pub term: u64,
    /// How often this node was elected.
    pub elections: u64,
    /// The last failover: since when (Unix time), how long silent, first answer, in seconds.
    pub failover: (f64, f64, f64),
    /// Checkpoints made, and how long that took.
    pub checkpoints: Buckets,
    /// Bytes of changes that the last one wrote down.
    pub checkpoint_bytes: u64,
    /// Bytes of changes that are only in memory and in the log.
    pub pending_bytes: u64,
    /// Free bytes where the data are, and those kept in reserve.
    pub space: (u64, u64),
    /// Replies kept for retransmissions.
    pub cached_replies: u64,
    /// Whether the gate is open: clients are let in.
    pub gate_open: bool,
    /// Whether clients are answered.
    pub serving: bool,
    /// This node was asked not to lead.
    pub standby: bool,
    /// Floating addresses here, and those that another machine answers for, too.
    pub addresses: (u64, u64),
}

/// Another node, as the leader sees it.
#[derive(Debug, Clone)]
pub struct PeerReading {
    /// Its name.
    pub name: String,
    /// Entries it does not have yet.
    pub lag_entries: u64,
    /// Seconds since it answered.
    pub silent: f64,
}

/// The text.
pub fn expose(reading: Reading) -> String {
    let mut registry = Registry::with_prefix("haven");
    registry.register_collector(Box::new(reading));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Labels of one series.
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// Writes families one after the other.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        family.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn histogram(&mut self, name: &str, help: &str, value: &Buckets) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        family.encode_histogram::<NoLabelSet>(
            value.sum.as_secs_f64(),
            value.count(),
            &value.pairs(),
            None,
        )
    }

    fn labelled<'v>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: impl IntoIterator<Item = (Vec<(&'v str, &'v str)>, f64)>,
    ) -> fmt::Result {
        let counter = matches!(kind, MetricType::Counter);
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            let labels = Labels(&labels);
            let mut one = family.encode_family(&labels)?;
            if counter {
                one.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                one.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus' values are floats")]
fn float(value: u64) -> f64 {
    value as f64
}

impl Collector for Reading {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.requests(&mut out)?;
        memory::encode(&self.memory, &mut out)?;
        self.log(&mut out)?;
        self.replication(&mut out)?;
        self.service(&mut out)
    }
}

impl Reading {
    fn requests(&self, out: &mut Out<'_>) -> fmt::Result {
        let seen = || {
            let all = self.durations.iter().zip(SLOTS);
            all.filter(|(buckets, _)| buckets.count() > 0)
        };
        let labels = |(program, procedure)| vec![("program", program), ("procedure", procedure)];
        let counts = self.durations.iter().zip(SLOTS);
        out.labelled(
            "requests",
            "Requests answered",
            MetricType::Counter,
            counts.map(|(buckets, slot)| (labels(slot), float(buckets.count()))),
        )?;
        let mut family = out.0.encode_descriptor(
            "request_duration_seconds",
            "From a request's arrival to its reply",
            None,
            MetricType::Histogram,
        )?;
        for (buckets, slot) in seen() {
            let labels = labels(slot);
            let labels = Labels(&labels);
            let mut one = family.encode_family(&labels)?;
            one.encode_histogram::<NoLabelSet>(
                buckets.sum.as_secs_f64(),
                buckets.count(),
                &buckets.pairs(),
                None,
            )?;
        }
        out.labelled(
            "request_errors",
            "Requests answered with a status other than OK, by that status",
            MetricType::Counter,
            self.errors.iter().filter_map(|(slot, status, count)| {
                let (program, procedure) = *SLOTS.get(*slot)?;
                let status = STATUSES.get(*status)?.1;
                let labels = vec![
                    ("program", program),
                    ("procedure", procedure),
                    ("status", status),
                ];
                Some((labels, float(*count)))
            }),
        )?;
        out.counter(
            "received_bytes",
            "Bytes of requests, without record marks",
            self.bytes.0,
        )?;
        out.counter(
            "sent_bytes",
            "Bytes of replies, without record marks",
            self.bytes.1,
        )?;
        out.counter(
            "replayed_requests",
            "Retransmissions answered with the reply kept since the first time",
            self.replays,
        )?;
        out.gauge(
            "connections",
            "Client connections now",
            float(self.connections),
        )
    }

    fn log(&self, out: &mut Out<'_>) -> fmt::Result {
        out.histogram(
            "log_flush_duration_seconds",
            "Writing and flushing one group of entries; the count is the number of flushes",
            &self.flushes,
        )?;
        out.gauge(
            "log_flush_running_seconds",
            "For how long the present flush has been under way",
            self.flush_running,
        )?;
        out.counter(
            "log_entries_written",
            "Entries made durable; by the number of flushes: entries per flush",
            self.log_written.0,
        )?;
        out.counter(
            "log_written_bytes",
            "Their bytes on disk",
            self.log_written.1,
        )?;
        out.gauge(
            "log_segments",
            "Segment files of the log",
            float(self.log_segments),
        )?;
        let [last, committed, applied, checkpoint] = self.indexes.map(float);
        out.gauge("log_index", "Last entry in the log", last)?;
        out.gauge(
            "committed_index",
            "Last entry known to be committed",
            committed,
        )?;
        out.gauge("applied_index", "Last entry applied", applied)?;
        out.gauge("checkpoint_index", "Last entry in a checkpoint", checkpoint)?;
        out.histogram(
            "checkpoint_duration_seconds",
            "Making one checkpoint",
            &self.checkpoints,
        )?;
        out.gauge(
            "checkpoint_bytes",
            "Bytes of changes that the last checkpoint wrote down",
            float(self.checkpoint_bytes),
        )?;
        out.gauge(
            "pending_bytes",
            "Bytes of changes that wait for a checkpoint in memory (they are durable in the log)",
            float(self.pending_bytes),
        )
    }

    fn replication(&self, out: &mut Out<'_>) -> fmt::Result {
        let roles = ["leader", "follower", "candidate", "learner", "stopped"];
        out.labelled(
            "role",
            "1 for the role that this node has",
            MetricType::Gauge,
            roles.map(|role| (vec![("role", role)], float(u64::from(role == self.role)))),
        )?;
        out.gauge(
            "term",
            "The newest term this node has seen",
            float(self.term),
        )?;
        out.counter(
            "elections_won",
            "How often this node became the leader",
            self.elections,
        )?;
        let peers = |value: fn(&PeerReading) -> f64| {
            let all = self.peers.iter();
            all.map(move |peer| (vec![("node", peer.name.as_str())], value(peer)))
        };
        out.labelled(
            "follower_lag_entries",
            "On the leader: entries that a follower does not have yet",
            MetricType::Gauge,
            peers(|peer| float(peer.lag_entries)),
        )?;
        out.labelled(
            "follower_silent_seconds",
            "On the leader: since a follower answered",
            MetricType::Gauge,
            peers(|peer| peer.silent),
        )?;
        out.labelled(
            "settings_differ",
            "1: nodes that are heard differ in this key of the configuration",
            MetricType::Gauge,
            self.differences
                .iter()
                .map(|(key, differs)| (vec![("key", key.as_str())], float(u64::from(*differs)))),
        )?;
        out.labelled(
            "clock_ahead_seconds",
            "How far a node's clock is ahead of the one that counts, as this node sees it",
            MetricType::Gauge,
            self.clocks
                .iter()
                .map(|(node, ahead)| (vec![("node", node.as_str())], *ahead)),
        )?;
        out.gauge(
            "time_ahead_seconds",
            "How far the service's time is ahead of that clock; it is led back slowly",
            self.time_ahead,
        )?;
        let (at, silent, stall) = self.failover;
        out.gauge(
            "last_failover_timestamp_seconds",
            "When the service last came up on a node, as far as this node knows; 0: never",
            at,
        )?;
        out.gauge(
            "last_failover_silent_seconds",
            "How long nobody served then",
            silent,
        )?;
        out.gauge(
            "last_failover_stall_seconds",
            "How long it took until the first client was answered; 0: none asked at once",
            stall,
        )
    }

    fn service(&self, out: &mut Out<'_>) -> fmt::Result {
        let yes = |yes| float(u64::from(yes));
        out.labelled(
            "build_info",
            "1, with the version of the program",
            MetricType::Gauge,
            [(vec![("version", self.version.as_str())], 1.0)],
        )?;
        out.gauge("serving", "1: clients are answered here", yes(self.serving))?;
        out.gauge(
            "gate_open",
            "1: requests are let in here",
            yes(self.gate_open),
        )?;
        out.gauge(
            "standby",
            "1: this node was asked not to lead",
            yes(self.standby),
        )?;
        out.gauge(
            "floating_addresses",
            "Floating addresses that are up here",
            float(self.addresses.0),
        )?;
        out.gauge(
            "address_conflicts",
            "Of these, how many another machine answers for, too",
            float(self.addresses.1),
        )?;
        out.gauge(
            "cached_replies",
            "Replies kept for retransmissions",
            float(self.cached_replies),
        )?;
        out.gauge(
            "space_free_bytes",
            "Free bytes where the data are",
            float(self.space.0),
        )?;
        out.gauge(
            "space_reserve_bytes",
            "Bytes that are kept free: below, what needs space is refused",
            float(self.space.1),
        )
    }
}

mod memory;
#[cfg(test)]
mod tests;
