//! Answers what a witness is asked over its control API. It answers for the cluster like any node. What is to be done
//! for the service it refuses with the name of who can do it: see [`crate::relay`].
//!
//! Must not know: how questions travel.

use crate::cluster::office::Office;
use crate::insight::Insight;
use crate::metrics::{self, Meter, Reading};
use crate::relay::Informed;
use haven_admin::{Answer, Api, NodeReport, Question, Refusal, RefusalKind};
use haven_disk::Disk;
use std::sync::Arc;

/// See the module's head comment.
pub(super) struct Desk {
    /// What it knows of itself and the cluster.
    pub(super) insight: Insight,
    pub(super) disk: Arc<dyn Disk>,
}

impl Desk {
    /// How this node sees itself.
    pub(super) fn report(&self) -> NodeReport {
        NodeReport {
            witness: true,
            free_mib: self.free_bytes() >> 20,
            ..self.insight.report()
        }
    }

    fn office(&self) -> Result<&Office, Refusal> {
        let office = self.insight.office.as_deref();
        office.ok_or_else(|| Refusal::failed("this witness has no certificate"))
    }

    fn free_bytes(&self) -> u64 {
        self.disk.space().map_or(0, |space| space.free_bytes)
    }

    fn metrics(&self) -> String {
        metrics::expose(Reading {
            // No client ever asks: all that is counted of requests is 0.
            durations: Meter::default().durations(),
            space: (self.free_bytes(), 0),
            ..self.insight.reading(&self.report())
        })
    }
}

impl Informed for Desk {
    fn insight(&self) -> &Insight {
        &self.insight
    }
}

impl Api for Desk {
    async fn answer(&self, question: Question) -> Result<Answer, Refusal> {
        let refuse = |why: &str| Err(Refusal::new(RefusalKind::Conflict, why));
        match question {
            Question::Status { node } => self.insight.status(self.report(), node.as_deref()),
            Question::Node => Answer::json(&self.report()),
            Question::Metrics => Ok(Answer::Metrics(self.metrics())),
            Question::StateHash => refuse("a witness holds no files"),
            Question::Token(request) => {
                Answer::json(&self.office()?.new_token(request.hours).await?)
            }
            Question::Nodes => Answer::json(&self.office()?.nodes()),
            Question::RemoveNode(request) => {
                Answer::json(&self.office()?.remove_node(&request.node).await?)
            }
            Question::Move(_) => Err(self.insight.say_to_leader()),
            Question::Standby(request) if request.node == self.insight.name => {
                refuse("a witness never serves anyway; name the node that is meant")
            }
            Question::Standby(request) => {
                self.insight.id_of(&request.node)?;
                let why = format!("say it on node {}, which keeps this wish", request.node);
                Err(Refusal::elsewhere(&request.node, why))
            }
        }
    }
}
