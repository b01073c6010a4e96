//! Carries what another node must do to that node, and brings back its answer.
//!
//! Invariants
//! - What another node brought is never carried on, so nothing goes round in circles: the control socket asks the
//!   [`Relay`], members ask the desk itself ([`Visitors`]), within [`Scope::Members`].
//! - Where the other node was not reached, nothing was done, and that is said. Where it was and did not answer, that is
//!   said, too.
//!
//! Must not know: how anything is answered.

use crate::insight::Insight;
use haven_admin::client::{AskError, ask_over};
use haven_admin::{Answer, Api, Question, Refusal, RefusalKind, Scope, server};
use haven_consensus::{Host, Unreached, Visit};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tracing::info;

/// How long it may take to reach another node.
const REACH_PATIENCE: Duration = Duration::from_secs(2);
/// How long that one may take to answer. Together less than whoever asks waits.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Answers questions, and knows the cluster.
pub(crate) trait Informed: Api {
    /// What it knows of the cluster.
    fn insight(&self) -> &Insight;
}

/// Answers what its desk answers, and carries what that refuses because another node must do it.
pub(crate) struct Relay<A>(pub(crate) Arc<A>);

impl<A: Informed> Api for Relay<A> {
    async fn answer(&self, question: Question) -> Result<Answer, Refusal> {
        let refusal = match self.0.answer(question.clone()).await {
            Err(refusal) if refusal.kind == RefusalKind::Elsewhere => refusal,
            answered => return answered,
        };
        match &refusal.ask {
            Some(node) => carry(self.0.insight(), node, &question).await,
            None => Err(refusal),
        }
    }
}

async fn carry(insight: &Insight, node: &str, question: &Question) -> Result<Answer, Refusal> {
    let id = insight.id_of(node)?;
    let visit = insight.consensus.visit(id, REACH_PATIENCE).await;
    let visit = visit.map_err(|why| unreached(node, insight.is_silent(id), question, &why))?;
    let answered = timeout(ANSWER_PATIENCE, ask_over(visit, question)).await;
    let lost = |why: &dyn std::fmt::Display| {
        let why = format!(
            "node {node} was asked, but its answer did not come ({why}): it may be done or not. Look at haven status, \
             then say it again"
        );
        at(node, Refusal::failed(why))
    };
    match answered {
        Ok(Ok(body)) => {
            let value = serde_json::from_slice(&body);
            value.map(Answer::Json).map_err(|why| lost(&why))
        }
        Ok(Err(AskError::Refused(refusal))) => Err(its_refusal(node, refusal)),
        Ok(Err(AskError::Broken(why))) => Err(lost(&why)),
        Err(_) => Err(lost(&format!("nothing within {ANSWER_PATIENCE:?}"))),
    }
}

fn at(node: &str, refusal: Refusal) -> Refusal {
    Refusal {
        ask: Some(node.to_owned()),
        ..refusal
    }
}

/// What a node refuses that was asked because it could do it.
fn its_refusal(node: &str, refusal: Refusal) -> Refusal {
    match refusal.kind {
        // The lead moved on meanwhile.
        RefusalKind::Elsewhere => {
            let why = format!("node {node} answers: {refusal}. Say it again");
            Refusal::new(RefusalKind::Conflict, why)
        }
        kind => at(
            node,
            Refusal::new(kind, format!("node {node} answers: {refusal}")),
        ),
    }
}

/// A node that must do something was not reached; `silent`: it has not been heard lately, either.
fn unreached(node: &str, silent: bool, question: &Question, why: &Unreached) -> Refusal {
    let how = match silent {
        true => format!("node {node} is down, or cut off from this node ({why})"),
        false => format!("node {node} was heard a moment ago, but is not reached now ({why})"),
    };
    let advice = match question {
        _ if !silent => format!(
            "Say it again, or on node {node} itself; if it stays, repair the network between the two"
        ),
        Question::Standby(request) if request.standby => format!(
            "It does not lead as long as it is down. To keep it from leading when it comes back, make an empty file \
             \"standby\" in its data directory before it starts; if it shall not come back: haven node remove {node}"
        ),
        Question::Move(_) => {
            "If the leader has died, another node takes over by itself in a moment: look at haven status, then say it again"
                .to_owned()
        }
        _ => format!(
            "Start it (systemctl start haven on node {node}), or repair the network between the two; then say it again"
        ),
    };
    at(
        node,
        Refusal::failed(format!("{how}: nothing was done. {advice}")),
    )
}

/// Answers other members: what their own operators asked of them and only this node can do.
pub(crate) struct Visitors<A>(pub(crate) Arc<A>);

impl<A: Informed> Host for Visitors<A> {
    fn receive(&self, from: u64, visit: Visit) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let api = Arc::new(Brought {
            api: Arc::clone(&self.0),
            from,
        });
        Box::pin(server::serve_connection(visit, api, Scope::Members))
    }
}

/// Says in the log who brought what is to be done.
struct Brought<A> {
    api: Arc<A>,
    from: u64,
}

impl<A: Informed> Api for Brought<A> {
    async fn answer(&self, question: Question) -> Result<Answer, Refusal> {
        if !matches!(question, Question::Status { .. }) {
            let name = self.api.insight().roll.name_of(self.from);
            let name = name.unwrap_or_else(|| self.from.to_string());
            info!(
                peer = self.from,
                "node {name} brings a command: {question:?}"
            );
        }
        self.api.answer(question).await
    }
}
