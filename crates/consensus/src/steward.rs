//! Changes who belongs to the cluster.
//!
//! What somebody asked for is written into the membership at once, as a wish: a new node is a learner, one that is
//! to go is marked. Whoever leads then brings the wishes about ([`care`]): learners that have caught up get a vote,
//! marked nodes lose theirs and are struck out. So nothing is lost when a leader dies in between, and each request
//! may be repeated.
//!
//! Invariants
//! - Every change is compared and set on the membership it was decided on.
//! - One vote is given or taken at a time, so that the quorums before and after have a node in common; the
//!   lease counts on that.
//! - No vote is taken when those that would be left could not decide anything, or hold no files; none is given to a
//!   node that does not answer.
//!
//! It must not know what the applicants said, nor how they were heard.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use haven_pki::KeyId;
use haven_pki::SecretHash;
use openraft::ChangeMembers;
use openraft::Precondition;
use openraft::Raft;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ChangeMembershipError;
use openraft::errors::ClientWriteError;
use openraft::errors::RaftError;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::Gatekeeper;
use crate::consensus::Consensus;
use crate::consensus::Inner;
use crate::heir;
use crate::machine::Machine;
use crate::net::affair;
use crate::net::affair::Affair;
use crate::net::doubles::Stray;
use crate::net::frame::WireError;
use crate::net::hints::Board;
use crate::net::link;
use crate::net::link::Place;
use crate::net::message::Purpose;
use crate::net::message::SMALL_BODY_MAX;
use crate::options::Timing;
use crate::roster::Applicant;
use crate::roster::Record;
use crate::roster::Roster;
use crate::stand::Heard;
use crate::types::Types;

/// How long a change may take, finding a leader included.
const PATIENCE: Duration = Duration::from_secs(15);

/// Pause before a change is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// How often the leader looks what is to be done.
const LOOK: Duration = Duration::from_millis(100);

/// A learner that lacks no more entries than this has caught up.
const PROMOTE_LAG_MAX: u64 = 1_000;

/// A leader that is to leave has this long to hand over in its own way.
const LEAVE_GRACE: Duration = Duration::from_secs(5);

/// A node that heard no leader for this long asks the others whether it is still a member.
const DOUBT_AFTER: Duration = Duration::from_secs(2);

/// How often it asks.
const DOUBT_AGAIN: Duration = Duration::from_secs(1);

/// Why the members did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// It must not be, or makes no sense.
    #[error("{0}")]
    Refused(String),
    /// Nobody leads, or the leader changed.
    #[error("the cluster has no leader at the moment; do a majority of its nodes run?")]
    NoLeader,
    /// No majority answered in time.
    #[error(
        "a majority of the nodes did not agree in time; the change may still take effect. Look at `haven node list`, \
         then try again"
    )]
    Unavailable,
    /// The node has stopped.
    #[error("consensus has stopped on this node")]
    Stopped,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number, never given out again.
    pub id: u64,
    /// Its name; empty for a node that was never part of more than itself.
    pub name: String,
    /// Where it listens for its peers.
    pub address: Option<SocketAddr>,
    /// Its key.
    pub key: Option<KeyId>,
    /// Whether it votes; before, it catches up.
    pub voter: bool,
    /// Whether it is being removed.
    pub leaving: bool,
}

/// See the module's head.
pub(crate) struct Steward<R: Send + 'static> {
    pub(crate) raft: Raft<Types, Machine<R>>,
    pub(crate) place: Arc<Place>,
    pub(crate) timing: Timing,
    /// What this node says of itself.
    pub(crate) own: Option<Applicant>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) board: Arc<Board>,
    /// This node holds nothing but its log.
    pub(crate) witness: bool,
}

impl<R: Send + 'static> Steward<R> {
    /// Settles an affair, which only the leader can.
    pub(crate) async fn settle(&self, affair: Affair) -> Result<u64, MembershipError> {
        match affair {
            Affair::Token { hash, expires, now } => {
                let add = |roster: &mut Roster| roster.add_token(hash, expires, now);
                self.amend(add).await.map(|()| 0)
            }
            Affair::Admit {
                secret,
                applicant,
                now,
            } => {
                let admit = |roster: &mut Roster| roster.admit(secret, &applicant, now);
                self.amend(admit).await
            }
            Affair::Remove { id } => {
                self.amend(|roster| {
                    self.can_spare(roster, id)?;
                    roster.leave(id)
                })
                .await?;
                Ok(id)
            }
        }
    }

    /// Settles an affair here or has the leader do it.
    async fn perform(&self, affair: Affair) -> Result<u64, MembershipError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let (leader, stopped) = {
                let metrics = self.raft.metrics();
                let now = metrics.borrow_watched();
                (now.current_leader, now.running_state.is_err())
            };
            let tried = match leader {
                _ if stopped => return Err(MembershipError::Stopped),
                Some(id) if id == self.place.node_id => self.settle(affair.clone()).await,
                Some(id) => self.relay(id, &affair).await,
                None => Err(MembershipError::NoLeader),
            };
            match tried {
                Err(MembershipError::NoLeader) if Instant::now() < until => {
                    tokio::time::sleep(RETRY).await;
                }
                done => return done,
            }
        }
    }

    async fn relay(&self, leader: u64, affair: &Affair) -> Result<u64, MembershipError> {
        let asking = async {
            let connected =
                link::connect(&self.place, leader, Purpose::Affairs, SMALL_BODY_MAX).await;
            let mut link = connected?;
            link.writer.send(affair::affair(affair)).await?;
            let settled = affair::read_settled(&link.reader.next().await?);
            self.place.pacer.answered(leader, Purpose::Affairs);
            settled
        };
        match timeout(PATIENCE, asking).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(WireError::Refused(why))) => Err(MembershipError::Refused(why)),
            Ok(Err(_)) => Err(MembershipError::NoLeader),
            Err(_) => Err(MembershipError::Unavailable),
        }
    }

    /// Changes the roster as a whole, if this node leads. `change` may be called again.
    async fn amend<T>(
        &self,
        mut change: impl FnMut(&mut Roster) -> Result<T, String>,
    ) -> Result<T, MembershipError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let (at, committed, before) = self.current();
            let mut roster = before.clone();
            let value = change(&mut roster).map_err(MembershipError::Refused)?;
            if roster == before {
                if committed {
                    return Ok(value);
                }
            } else {
                let nodes = ChangeMembers::ReplaceAllNodes(roster.into_nodes());
                if self.change(nodes, at, until).await? {
                    return Ok(value);
                }
            }
            if Instant::now() >= until {
                return Err(MembershipError::Unavailable);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn current(&self) -> (Option<crate::types::LogId>, bool, Roster) {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let at = *now.membership_config.log_id();
        let committed = *now.committed_membership_config.log_id() == at;
        (
            at,
            committed,
            Roster::of(now.membership_config.membership()),
        )
    }

    /// Proposes one change to the members as of `at`. False if it has to be decided anew.
    async fn change(
        &self,
        change: ChangeMembers<u64, Record>,
        at: Option<crate::types::LogId>,
        until: Instant,
    ) -> Result<bool, MembershipError> {
        let still = Precondition::LastMembershipLogId {
            last_membership_log_id: at,
        };
        let changing = self.raft.change_membership_if(change, true, [still]);
        let changed = tokio::time::timeout_at(until, changing).await;
        match changed.map_err(|_| MembershipError::Unavailable)? {
            Ok(_) => Ok(true),
            Err(RaftError::Fatal(_)) => Err(MembershipError::Stopped),
            Err(RaftError::APIError(error)) => match error {
                ClientWriteError::ForwardToLeader(_) => Err(MembershipError::NoLeader),
                ClientWriteError::LogEntryDiscarded(_) => Err(MembershipError::Unavailable),
                ClientWriteError::PreconditionFailed(_) => Ok(false),
                ClientWriteError::ChangeMembershipError(why) => match why {
                    ChangeMembershipError::InProgress(_)
                    | ChangeMembershipError::UncommittedLeaderLog(_) => Ok(false),
                    why => Err(MembershipError::Refused(why.to_string())),
                },
            },
        }
    }

    /// Whether the others can decide without node `id`.
    fn can_spare(&self, roster: &Roster, id: u64) -> Result<(), String> {
        if !roster.nodes.contains_key(&id) {
            return Err(format!("the cluster has no node {id}"));
        }
        let stay: Vec<u64> = roster
            .voters
            .iter()
            .copied()
            .filter(|voter| *voter != id && !roster.nodes.get(voter).is_some_and(|r| r.leaving))
            .collect();
        if stay.is_empty() {
            return Err("it is the only node that votes; to end a cluster, stop its nodes".into());
        }
        if stay.iter().all(|voter| self.is_witness(*voter)) {
            return Err(
                "only witnesses would be left to vote, and they hold no files; let another node join first".into(),
            );
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let term = metrics.current_term;
        let alive = stay.iter().filter(|voter| self.answers(term, **voter));
        let (alive, all) = (alive.count(), stay.len());
        if alive > all / 2 {
            return Ok(());
        }
        Err(format!(
            "of the {all} nodes that would be left only {alive} answer, which is no majority: the cluster would stand \
             still. Start the others first, or remove one that does not answer"
        ))
    }

    fn is_witness(&self, id: u64) -> bool {
        match id == self.place.node_id {
            true => self.witness,
            false => self.board.is_witness(id),
        }
    }

    /// Whether `id` answered the leader of `term` lately, which this node is.
    fn answers(&self, term: u64, id: u64) -> bool {
        let ago = self.place.answers.ago(id, term);
        id == self.place.node_id || ago.is_some_and(|ago| ago < self.timing.quorum_loss())
    }

    /// What is to be done next about the members, if this node leads and no change is under way.
    fn next_step(&self) -> Option<(Step, Option<crate::types::LogId>)> {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let at = *now.membership_config.log_id();
        if now.state != ServerState::Leader || *now.committed_membership_config.log_id() != at {
            return None;
        }
        let sides = now.membership_config.get_joint_config();
        let roster = Roster::of(now.membership_config.membership());
        if let (2.., Some(last)) = (sides.len(), sides.last()) {
            return Some((
                Step::Votes(ChangeMembers::ReplaceAllVoters(last.clone())),
                at,
            ));
        }
        if let Some(own) = &self.own
            && let Some(known) = roster.nodes.get(&self.place.node_id)
            && (known.name != own.name || known.address != Some(own.address) || known.key.is_none())
        {
            return Some((Step::Introduce(own.clone()), at));
        }
        // The one that leaves may be the only one with a state; who leads next, has one.
        let mut leaving = roster.nodes.iter().filter(|(_, record)| record.leaving);
        if let Some((id, record)) = leaving.find(|_| !self.witness) {
            if *id == self.place.node_id && roster.voters.contains(id) {
                return Some((Step::HandOver, at));
            }
            tracing::info!(peer = id, "removing node {id} ({})", record.name);
            let step = match roster.voters.contains(id) {
                true => Step::Votes(ChangeMembers::RemoveVoters(BTreeSet::from([*id]))),
                false => Step::Strike,
            };
            return Some((step, at));
        }
        let last = now.last_log_index.unwrap_or(0);
        let caught_up = |id: &u64| {
            heir::matched(&now, *id).is_some_and(|matched| matched + PROMOTE_LAG_MAX >= last)
        };
        let ready = roster.nodes.keys().find(|id| {
            !roster.voters.contains(id) && self.answers(now.current_term, **id) && caught_up(id)
        })?;
        tracing::info!(peer = ready, "node {ready} has caught up and gets a vote");
        let voters = ChangeMembers::AddVoterIds(BTreeSet::from([*ready]));
        Some((Step::Votes(voters), at))
    }
}

/// Something a leader does about the members.
enum Step {
    Votes(ChangeMembers<u64, Record>),
    /// This node's own record is not what it says of itself.
    Introduce(Applicant),
    Strike,
    /// This node itself is to leave.
    HandOver,
}

impl<R: Send + 'static> Consensus<R> {
    /// The members of the cluster, as far as this node's log says.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let roster = self.inner.place.roster.borrow();
        let member = |(id, record): (&u64, &Record)| Member {
            id: *id,
            name: record.name.clone(),
            address: record.address,
            key: record.key,
            voter: roster.voters.contains(id),
            leaving: record.leaving,
        };
        roster.nodes.iter().map(member).collect()
    }

    /// Lets a token count until `expires`, of whose secret this is the hash. Both times are seconds since the
    /// epoch by this node's clock. On any node.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn add_token(
        &self,
        hash: SecretHash,
        expires: u64,
        now: u64,
    ) -> Result<(), MembershipError> {
        let affair = Affair::Token { hash, expires, now };
        self.perform_here(affair).await.map(drop)
    }

    /// Uses up a token: the applicant becomes a learner, and a voter when it has caught up. Gives its number. The
    /// same applicant gets the same answer again, anybody else none. On any node.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn admit(
        &self,
        secret: SecretHash,
        applicant: Applicant,
        now: u64,
    ) -> Result<u64, MembershipError> {
        let affair = Affair::Admit {
            secret,
            applicant,
            now,
        };
        self.perform_here(affair).await
    }

    /// Removes a node, which may be the leader or this one. Returns when it is no member any more. On any node.
    ///
    /// # Errors
    /// See [`MembershipError`]; after `Unavailable` it goes as soon as a majority answers.
    pub async fn remove_node(&self, id: u64) -> Result<(), MembershipError> {
        self.perform_here(Affair::Remove { id }).await?;
        let mut roster = self.inner.place.roster.subscribe();
        let mut removed = self.removed();
        let gone = async {
            tokio::select! {
                _ = roster.wait_for(|roster| !roster.nodes.contains_key(&id)) => {}
                _ = removed.wait_for(Option::is_some) => {}
            }
        };
        timeout(PATIENCE, gone)
            .await
            .map_err(|_| MembershipError::Unavailable)
    }

    async fn perform_here(&self, affair: Affair) -> Result<u64, MembershipError> {
        let steward = Arc::clone(&self.inner.steward);
        let performing = async move { steward.perform(affair).await };
        let performed = self.inner.handle.spawn(performing).await;
        performed.map_err(|_| MembershipError::Stopped)?
    }

    /// Says, once it is known, that this node is no member any more, and why. It can never be one again.
    #[must_use]
    pub fn removed(&self) -> watch::Receiver<Option<String>> {
        self.inner.place.removed.subscribe()
    }

    /// Why others do not take this process for the node that it says it is, if they do not: the cluster knows that
    /// node elsewhere, or another process of it.
    #[must_use]
    pub fn stray(&self) -> Option<String> {
        self.inner.place.stray.borrow().clone()
    }

    /// Processes that say they are members, and that this node refuses for one that is, or was, lately.
    #[must_use]
    pub fn strays(&self) -> Vec<Stray> {
        self.inner.place.doubles.strays(Instant::now())
    }

    /// Returns when this node is to be removed. If it leads, it should hand over; it does so by itself if nothing
    /// else happens for some seconds.
    pub async fn until_leaving(&self) {
        let id = self.inner.place.node_id;
        let mut roster = self.inner.place.roster.subscribe();
        let leaving =
            roster.wait_for(|roster| roster.nodes.get(&id).is_some_and(|record| record.leaving));
        // An error means that the node has stopped.
        let _ = leaving.await;
    }

    /// Who lets machines in from now on; the first call counts.
    pub fn set_gatekeeper(&self, gatekeeper: Arc<dyn Gatekeeper>) {
        if self.inner.place.gatekeeper.set(gatekeeper).is_err() {
            tracing::debug!("there is a gatekeeper already");
        }
    }

    async fn take_step(&self, leaving_since: &mut Option<Instant>) {
        let steward = &self.inner.steward;
        let Some((step, at)) = steward.next_step() else {
            return;
        };
        let until = Instant::now() + PATIENCE;
        let done = match step {
            Step::Votes(change) => steward.change(change, at, until).await.map(drop),
            Step::Introduce(own) => {
                let id = self.inner.place.node_id;
                steward.amend(|roster| roster.update(id, &own)).await
            }
            Step::Strike => {
                let strike = |roster: &mut Roster| {
                    roster.strike();
                    Ok(())
                };
                steward.amend(strike).await
            }
            Step::HandOver => {
                let since = leaving_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= LEAVE_GRACE
                    && let Err(why) = self.transfer(None).await
                {
                    tracing::warn!("this node is to leave and cannot hand over: {why}");
                }
                Ok(())
            }
        };
        if let Err(why) = done {
            tracing::warn!("cannot change the members yet: {why}");
        }
    }
}

/// Brings about what the membership says is wanted, while this node leads. Else, when no leader is heard, finds
/// out whether this node is still a member.
pub(crate) async fn care<R: Send + 'static>(node: Weak<Inner<R>>) {
    let mut leaving_since = None;
    let mut doubts = BTreeMap::new();
    let started = Instant::now();
    let mut asked = started;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(inner) = node.upgrade() else { return };
        let consensus = Consensus { inner };
        let standing = *consensus.inner.standing.borrow();
        if standing.stopped {
            return;
        }
        if standing.leading {
            consensus.take_step(&mut leaving_since).await;
            continue;
        }
        let last = consensus.inner.steward.heard.last();
        let heard = last.map_or(started, |(_, at)| at);
        if heard.elapsed() >= DOUBT_AFTER && asked.elapsed() >= DOUBT_AGAIN {
            asked = Instant::now();
            ask_around(&consensus.inner.place, &mut doubts);
        }
    }
}

/// Connects to the others; one that knows better tells so in its answer to the hello.
fn ask_around(place: &Arc<Place>, under_way: &mut BTreeMap<u64, tokio::task::JoinHandle<()>>) {
    under_way.retain(|_, task| !task.is_finished());
    for peer in place.others() {
        let place = Arc::clone(place);
        under_way.entry(peer).or_insert_with(|| {
            tokio::spawn(async move {
                // Only what it changes in `place` matters.
                let _ = link::connect(&place, peer, Purpose::Affairs, SMALL_BODY_MAX).await;
            })
        });
    }
}
