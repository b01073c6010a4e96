//! Answers what a witness is asked over its control API. It answers for the cluster like any node, and can do
//! nothing for it.
//!
//! Must not know: how questions travel.

use crate::bulletin::Bulletins;
use crate::cluster::office::Office;
use crate::desk::{peer_readings, peer_views, role};
use crate::engine::Outcome;
use crate::history::{History, now_unix_ms};
use crate::metrics::{self, Meter, Reading};
use crate::roll::Roll;
use haven_admin::judge::judge;
use haven_admin::{Answer, Api, NodeReport, Question, Refusal, RefusalKind};
use haven_consensus::Consensus;
use haven_disk::Disk;
use haven_log::Log;
use std::sync::Arc;

/// See the module's head comment.
pub(super) struct Desk {
    pub(super) name: String,
    /// Who belongs to the cluster.
    pub(super) roll: Roll,
    /// Lets nodes in and out.
    pub(super) office: Option<Arc<Office>>,
    pub(super) started_unix_ms: u64,
    pub(super) consensus: Consensus<Outcome>,
    pub(super) log: Log,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) bulletins: Bulletins,
    pub(super) history: Arc<History>,
}

fn failed(why: String) -> Refusal {
    Refusal::new(RefusalKind::Failed, why)
}

impl Desk {
    /// How this node sees itself.
    pub(super) fn report(&self) -> NodeReport {
        let (consensus, log) = (self.consensus.status(), self.log.stats());
        let name_of = |id| self.roll.name_of(id);
        NodeReport {
            node: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ms: self.started_unix_ms,
            role: role(consensus.role),
            witness: true,
            leader: consensus.leader.and_then(name_of),
            term: consensus.term,
            free_mib: self.free_bytes() >> 20,
            last_log: consensus.last_log.unwrap_or(0),
            committed: consensus.committed.unwrap_or(0),
            applied: consensus.applied.unwrap_or(0),
            log_records: log.appended_records,
            log_flushes: log.flushes,
            peers: peer_views(&consensus, name_of),
            last_failover: self.history.last(),
            ..NodeReport::default()
        }
    }

    fn office(&self) -> Result<&Office, Refusal> {
        self.office
            .as_deref()
            .ok_or_else(|| failed("this witness has no certificate".into()))
    }

    fn free_bytes(&self) -> u64 {
        self.disk.space().map_or(0, |space| space.free_bytes)
    }

    fn metrics(&self) -> String {
        let (report, log) = (self.report(), self.log.stats());
        // No client ever asks: all that is counted of requests is 0.
        let nothing = Meter::default();
        metrics::expose(Reading {
            durations: nothing.durations(),
            flushes: metrics::Buckets {
                counts: log.flush_times,
                sum: log.flush_time,
            },
            flush_running: log.flush_running.unwrap_or_default().as_secs_f64(),
            log_written: (log.appended_records, log.appended_bytes),
            log_segments: log.segments as u64,
            indexes: [
                report.last_log,
                report.committed,
                report.applied,
                self.consensus.status().checkpoint.unwrap_or(0),
            ],
            peers: peer_readings(&report),
            role: report.role.word(),
            term: report.term,
            elections: self.history.elections(),
            space: (self.free_bytes(), 0),
            version: report.version,
            ..Reading::default()
        })
    }
}

impl Api for Desk {
    async fn answer(&self, question: Question) -> Result<Answer, Refusal> {
        let refuse = |why: &str| Err(Refusal::new(RefusalKind::Conflict, why));
        match question {
            Question::Status => {
                Answer::json(&judge(self.bulletins.facts(self.report(), now_unix_ms())))
            }
            Question::Node => Answer::json(&self.report()),
            Question::Metrics => Ok(Answer::Metrics(self.metrics())),
            Question::StateHash => refuse("a witness holds no files"),
            Question::Token(request) => {
                let token = self.office()?.new_token(request.hours).await;
                Answer::json(&token.map_err(failed)?)
            }
            Question::Nodes => Answer::json(&self.office()?.nodes()),
            Question::RemoveNode(request) => {
                let removed = self.office()?.remove_node(&request.node).await;
                Answer::json(&removed.map_err(failed)?)
            }
            Question::Move(_) => refuse("a witness serves nothing; say it on the node that leads"),
            Question::Standby(_) => {
                refuse("a witness never serves; say it on the node that shall not lead")
            }
        }
    }
}
