//! Two nodes with a state and a witness.

use haven_consensus::Role;
use haven_consensus::TransferError;
use haven_log::LogOptions;

use crate::catchup::eager;
use crate::nodes::Cluster;
use crate::nodes::names;
use crate::nodes::soon;
use crate::nodes::until;

const WITNESS: u64 = 3;

/// Nodes 1 and 2 hold a state, 3 is the witness.
fn pair() -> Cluster {
    let mut cluster = Cluster::of(3);
    cluster.witnesses = vec![WITNESS];
    cluster.checkpoints = eager();
    cluster
}

async fn started(mut cluster: Cluster) -> (Cluster, u64) {
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader(&[1, 2]).await;
    (cluster, leader)
}

async fn propose(cluster: &Cluster, leader: u64, upto: u32, texts: &mut Vec<String>) {
    for text in names(texts.len() as u32..upto) {
        cluster.propose(leader, &text).await.unwrap();
        texts.push(text);
    }
}

fn is_told(cluster: &Cluster, leader: u64) -> bool {
    let status = cluster.node(leader).consensus.status();
    status.peers.get(&WITNESS).is_some_and(|peer| peer.witness)
}

#[tokio::test]
async fn a_witness_makes_the_majority_and_holds_nothing() {
    let (mut cluster, leader) = started(pair()).await;
    let mut texts = Vec::new();
    propose(&cluster, leader, 40, &mut texts).await;
    cluster.all_hold(&texts).await;
    cluster.stop(leader).await;
    let other = 3 - leader;
    assert_eq!(cluster.leader(&[other, WITNESS]).await, other);
    propose(&cluster, other, 80, &mut texts).await;
    until("all is applied", || {
        cluster.node(WITNESS).consensus.status().checkpoint > Some(40)
    })
    .await;
    assert!(cluster.node(WITNESS).machine.texts().is_empty());
    cluster.start(leader).await;
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn entries_that_only_the_witness_has_reach_the_other_node() {
    let (mut cluster, leader) = started(pair()).await;
    let other = 3 - leader;
    let mut texts = Vec::new();
    propose(&cluster, leader, 30, &mut texts).await;
    cluster.all_hold(&texts).await;
    cluster.stop(other).await;
    // The leader cuts its log behind its checkpoints; the witness may not.
    propose(&cluster, leader, 150, &mut texts).await;
    let purged = |id: u64| cluster.node(id).consensus.status().purged;
    until("the leader cuts its log", || purged(leader) > Some(60)).await;
    until("the witness has a checkpoint", || {
        cluster.node(WITNESS).consensus.status().checkpoint > Some(100)
    })
    .await;
    assert!(purged(WITNESS) < Some(40));
    cluster.stop(leader).await;
    // Nobody but the witness has the newest entries now.
    let mut seen = cluster.node(WITNESS).consensus.leadership();
    cluster.start(other).await;
    assert_eq!(cluster.leader(&[other, WITNESS]).await, other);
    assert_eq!(cluster.node(other).machine.texts(), texts);
    assert_eq!(
        *cluster.node(other).machine.installed.lock(),
        0,
        "by the log"
    );
    let now = *seen.borrow_and_update();
    assert!(!now.is_leader && now.leader == Some(other) && now.term > 1);
    // Now the other way round, through a restart of the witness.
    propose(&cluster, other, 170, &mut texts).await;
    cluster.stop(WITNESS).await;
    cluster.start(WITNESS).await;
    propose(&cluster, other, 180, &mut texts).await;
    cluster.start(leader).await;
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn a_witness_keeps_what_somebody_lacks_and_nothing_else() {
    let (mut cluster, leader) = started(pair()).await;
    let other = 3 - leader;
    let mut texts = Vec::new();
    propose(&cluster, leader, 100, &mut texts).await;
    let purged = |cluster: &Cluster| cluster.node(WITNESS).consensus.status().purged;
    until("what all have goes", || purged(&cluster) > Some(60)).await;
    cluster.stop(other).await;
    propose(&cluster, leader, 300, &mut texts).await;
    until("the witness has a checkpoint", || {
        cluster.node(WITNESS).consensus.status().checkpoint > Some(250)
    })
    .await;
    assert!(purged(&cluster) <= Some(104), "{:?}", purged(&cluster));
    cluster.start(other).await;
    cluster.all_hold(&texts).await;
    until("what all have goes", || purged(&cluster) > Some(250)).await;
}

#[tokio::test]
async fn beyond_its_bound_a_witness_drops_entries_and_then_serves_nobody() {
    const SEGMENT: u64 = 64 << 10;
    let mut cluster = pair();
    cluster.checkpoints.keep_bytes = 2 * SEGMENT;
    cluster.log_options = LogOptions {
        segment_bytes: SEGMENT,
        ..LogOptions::default()
    };
    let (mut cluster, leader) = started(cluster).await;
    let other = 3 - leader;
    let mut texts = Vec::new();
    propose(&cluster, leader, 30, &mut texts).await;
    cluster.all_hold(&texts).await;
    cluster.stop(other).await;
    for n in 30..130 {
        let text = format!("entry {n} {}", "x".repeat(8 << 10));
        cluster.propose(leader, &text).await.unwrap();
        texts.push(text);
    }
    until("the witness drops entries", || {
        cluster.node(WITNESS).consensus.status().purged > Some(60)
    })
    .await;
    cluster.stop(leader).await;
    cluster.start(other).await;
    // The witness leads, and cannot help.
    until("the witness leads", || {
        cluster.node(WITNESS).consensus.status().role == Role::Leader
    })
    .await;
    let leadership = cluster.node(WITNESS).consensus.leadership();
    assert!(!leadership.borrow().is_leader);
    assert!(!cluster.node(WITNESS).consensus.lease_valid());
    let held = cluster.node(other).machine.texts();
    assert!(texts[..30].starts_with(&held), "{held:?}");
    // The node that has everything comes back, and all is well.
    cluster.start(leader).await;
    assert_eq!(cluster.leader(&[leader, other, WITNESS]).await, leader);
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn a_witness_that_leads_is_relieved_when_another_node_leads() {
    let (mut cluster, leader) = started(pair()).await;
    let other = 3 - leader;
    let mut texts = Vec::new();
    propose(&cluster, leader, 30, &mut texts).await;
    cluster.all_hold(&texts).await;
    let witness = cluster.node(WITNESS).consensus.clone();
    // A follower leads nobody.
    soon("nothing to wait for", witness.relieved()).await;
    cluster.stop(other).await;
    propose(&cluster, leader, 60, &mut texts).await;
    until("the witness has the newest entries", || {
        witness.status().last_log == cluster.node(leader).consensus.status().last_log
    })
    .await;
    cluster.stop(leader).await;
    cluster.start(other).await;
    // Nobody but the witness can be elected before it has brought the other node up to date.
    let heard = async {
        let mut seen = witness.leadership();
        seen.wait_for(|now| now.leader == Some(WITNESS))
            .await
            .map(drop)
    };
    soon("the witness leads", heard).await.unwrap();
    soon("its end", witness.relieved()).await;
    // What all may read follows what the node itself goes by.
    let mut seen = witness.leadership();
    let seen = soon("its leader", seen.wait_for(|now| now.leader.is_some())).await;
    assert_eq!(seen.unwrap().leader, Some(other));
    assert_eq!(cluster.leader(&[other]).await, other);
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn a_witness_far_behind_gets_a_position_and_no_files() {
    let (mut cluster, leader) = started(pair()).await;
    let mut texts = Vec::new();
    cluster.stop(WITNESS).await;
    propose(&cluster, leader, 150, &mut texts).await;
    let status = || cluster.node(leader).consensus.status();
    until("the log is cut", || status().purged > Some(100)).await;
    cluster.start(WITNESS).await;
    let sent = || cluster.node(leader).consensus.snapshots_sent();
    until("it got a position", || sent().whole > 0).await;
    assert_eq!(sent().bytes, 0);
    cluster.all_hold(&texts).await;
    cluster.stop(leader).await;
    let other = 3 - leader;
    assert_eq!(cluster.leader(&[other, WITNESS]).await, other);
    propose(&cluster, other, 160, &mut texts).await;
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn leadership_is_not_handed_to_a_witness_by_plan() {
    let (cluster, leader) = started(pair()).await;
    until("it says what it is", || is_told(&cluster, leader)).await;
    let consensus = &cluster.node(leader).consensus;
    let refused = consensus.transfer(Some(WITNESS)).await;
    assert_eq!(refused, Err(TransferError::Witness(WITNESS)));
    cluster.hand_over(leader, None).await;
    assert_eq!(cluster.leader(&[1, 2, WITNESS]).await, 3 - leader);
}

#[tokio::test]
async fn nodes_that_hold_files_do_not_leave_a_witness_alone() {
    let (mut cluster, leader) = started(pair()).await;
    let other = 3 - leader;
    let mut texts = Vec::new();
    propose(&cluster, leader, 30, &mut texts).await;
    until("it says what it is", || is_told(&cluster, leader)).await;
    let consensus = cluster.node(leader).consensus.clone();
    soon("a node goes", consensus.remove_node(other))
        .await
        .unwrap();
    cluster.stop(other).await;
    let refused = consensus.remove_node(leader).await.unwrap_err();
    assert!(refused.to_string().contains("only witnesses"), "{refused}");
    // A node that joins may lead, and then the first one may go.
    cluster.token(leader, 1).await;
    let joined = cluster.admit(leader, 1).await.unwrap();
    cluster.start(joined).await;
    let mut left = vec![leader, WITNESS, joined];
    left.sort_unstable();
    cluster.voters(leader, &left).await;
    cluster.all_hold(&texts).await;
    cluster.hand_over(leader, Some(joined)).await;
    assert_eq!(cluster.leader(&[leader, joined]).await, joined);
    until("it knows what the witness is", || is_told(&cluster, joined)).await;
    let gone = cluster.node(joined).consensus.remove_node(leader);
    soon("the first one goes", gone).await.unwrap();
    cluster.stop(leader).await;
    propose(&cluster, joined, 40, &mut texts).await;
    cluster.all_hold(&texts).await;
}
