//! Nodes that come and go.

use haven_consensus::CheckpointPolicy;
use haven_consensus::MembershipError;
use haven_log::Slot;

use crate::nodes::Cluster;
use crate::nodes::names;
use crate::nodes::soon;
use crate::nodes::unhurried;
use crate::nodes::until;

/// A cluster of node 1 that has written some and cut its log, with two more nodes.
async fn grown() -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::of(1);
    cluster.checkpoints = CheckpointPolicy {
        entries: 20,
        bytes: 1 << 20,
        keep_entries: 5,
        ..CheckpointPolicy::default()
    };
    cluster.start(1).await;
    cluster.leader(&[1]).await;
    let mut texts = names(0..60);
    for text in &texts {
        cluster.propose(1, text).await.unwrap();
    }
    for (secret, id) in [(1, 2), (2, 3)] {
        cluster.token(1, secret).await;
        assert_eq!(cluster.admit(1, secret).await, Ok(id));
        cluster.start(id).await;
        cluster.voters(1, &(1..=id).collect::<Vec<_>>()).await;
        let text = format!("with node {id}");
        cluster.propose(1, &text).await.unwrap();
        texts.push(text);
    }
    cluster.all_hold(&texts).await;
    (cluster, texts)
}

#[tokio::test]
async fn a_cluster_grows_from_one_node_and_survives_the_loss_of_the_first() {
    let (mut cluster, mut texts) = grown().await;
    cluster.stop(1).await;
    let leader = cluster.leader(&[2, 3]).await;
    cluster.propose(leader, "without node 1").await.unwrap();
    texts.push("without node 1".into());
    cluster.start(1).await;
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn the_leader_is_removed_through_a_follower_and_is_no_member_for_ever() {
    let (mut cluster, mut texts) = grown().await;
    let first = cluster.leader(&[1, 2, 3]).await;
    let other = if first == 2 { 3 } else { 2 };
    let removing = cluster.node(other).consensus.remove_node(first);
    soon("the removal", removing).await.unwrap();
    let left: Vec<u64> = (1..=3).filter(|id| *id != first).collect();
    cluster.voters(other, &left).await;
    let leader = cluster.leader(&left).await;
    cluster.propose(leader, "with two").await.unwrap();
    texts.push("with two".into());
    // It learns of it, also when it starts anew.
    for _ in 0..2 {
        let mut removed = cluster.node(first).consensus.removed();
        let why = soon("it knows", removed.wait_for(Option::is_some)).await;
        let why = why.unwrap().clone().unwrap();
        assert!(why.contains(&format!("node {first} was removed")), "{why}");
        assert!(!cluster.node(first).consensus.lease_valid());
        cluster.stop(first).await;
        cluster.start(first).await;
    }
    cluster.stop(first).await;
    cluster.all_hold(&texts).await;
    // Numbers are not given out twice.
    cluster.token(leader, 9).await;
    assert_eq!(cluster.admit(leader, 9).await, Ok(4));
    cluster.start(4).await;
    cluster.voters(leader, &[left[0], left[1], 4]).await;
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn a_token_lets_one_machine_in_whoever_leads_and_whatever_restarts() {
    let (mut cluster, _) = grown().await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let (a, b) = (cluster.applicant(7), cluster.applicant(8));
    // Through a follower.
    let follower = if leader == 1 { 2 } else { 1 };
    cluster.token(follower, 9).await;
    let id = cluster.admit_key(follower, 9, &a).await.unwrap();
    cluster.hand_over(leader, None).await;
    let second = cluster.leader(&[1, 2, 3]).await;
    let used = |id| format!("this token was used already (by node {id})");
    for at in [1, 2, 3] {
        assert_eq!(cluster.admit_key(at, 9, &a).await, Ok(id), "the same again");
        match cluster.admit_key(at, 9, &b).await {
            Err(MembershipError::Refused(why)) => assert!(why.contains(&used(id)), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    cluster
        .node(second)
        .consensus
        .trigger_checkpoint()
        .await
        .unwrap();
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let third = cluster.leader(&[1, 2, 3]).await;
    match cluster.admit_key(third, 9, &b).await {
        Err(MembershipError::Refused(why)) => assert!(why.contains(&used(id)), "{why}"),
        other => panic!("{other:?}"),
    }
    // The machine that was let in and never came can be struck out again.
    soon("the removal", cluster.node(third).consensus.remove_node(id))
        .await
        .unwrap();
    cluster.voters(third, &[1, 2, 3]).await;
}

#[tokio::test]
async fn no_node_is_removed_that_the_others_cannot_do_without() {
    let (mut cluster, _) = grown().await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let (dead, alive) = match leader {
        1 => (2, 3),
        2 => (1, 3),
        _ => (1, 2),
    };
    cluster.stop(dead).await;
    let node = cluster.node(leader).consensus.clone();
    until("the leader misses it", || {
        node.status().peers[&dead]
            .acked_ms_ago
            .is_none_or(|age| u128::from(age) > unhurried().quorum_loss().as_millis())
    })
    .await;
    let refused = soon("an answer", node.remove_node(alive)).await;
    match refused {
        Err(MembershipError::Refused(why)) => {
            assert!(
                why.contains("of the 2 nodes that would be left only 1"),
                "{why}"
            );
        }
        other => panic!("{other:?}"),
    }
    // The dead one can go.
    soon("the removal", node.remove_node(dead)).await.unwrap();
    let mut two = [leader, alive];
    two.sort_unstable();
    cluster.voters(leader, &two).await;
    cluster.propose(leader, "on").await.unwrap();
    // And so can the second, which leaves one that needs no answers.
    soon("the removal", node.remove_node(alive)).await.unwrap();
    cluster.stop(alive).await;
    cluster.voters(leader, &[leader]).await;
    cluster.propose(leader, "and on").await.unwrap();
    until("the lease of a single voter", || node.lease_valid()).await;
    let last = soon("an answer", node.remove_node(leader)).await;
    assert!(matches!(last, Err(MembershipError::Refused(_))), "{last:?}");
}

#[tokio::test]
async fn a_node_that_lost_its_log_learns_from_the_others_who_is_a_member() {
    let (mut cluster, mut texts) = grown().await;
    // Node 1's checkpoint may be of when it was alone; node 3 keeps nothing and founded nothing.
    for (loser, keep_machine) in [(1, true), (3, false)] {
        cluster.leader(&[1, 2, 3]).await;
        cluster.stop(loser).await;
        cluster.lose_log(loser, keep_machine);
        cluster.start(loser).await;
        let others: Vec<u64> = (1..=3).filter(|id| *id != loser).collect();
        let forgotten = cluster.node(loser).log.read_slot(Slot::Forgotten).unwrap();
        assert!(forgotten.is_some());
        // The leader of the terms it may have forgotten gives up first.
        let seen = cluster.leadership(loser, "a leader is followed", |l| l.leader.is_some());
        assert!(others.contains(&seen.await.leader.unwrap()));
        let next = cluster.leader(&others).await;
        let text = format!("without a voice of {loser}");
        cluster.propose(next, &text).await.unwrap();
        texts.push(text);
        cluster.all_hold(&texts).await;
        cluster.voters(loser, &[1, 2, 3]).await;
        let forgotten = || cluster.node(loser).log.read_slot(Slot::Forgotten).unwrap();
        until("it knows everything", || forgotten().is_none()).await;
        // Its vote is needed now.
        cluster.stop(next).await;
        let last = cluster.leader(&cluster.all()).await;
        let text = format!("with the vote of {loser}");
        cluster.propose(last, &text).await.unwrap();
        texts.push(text);
        cluster.start(next).await;
        cluster.all_hold(&texts).await;
    }
}
