//! Nodes that do not know what they promised: just started, or without the log they had.

use std::time::Instant;

use haven_consensus::StartError;
use haven_log::Slot;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::nodes::Cluster;
use crate::nodes::names;
use crate::nodes::soon;
use crate::nodes::until;
use crate::strangers::dial;
use crate::strangers::framed;
use crate::strangers::hello;
use crate::strangers::text;

/// Node 2 asks node 1 for its vote, with the mark of a planned transfer; gives the answer's kind and
/// text.
async fn ask_for_vote(cluster: &Cluster, term: u64) -> (u8, String) {
    let mut bytes = hello(cluster, 2, 2);
    let mut vote = b"\x06".to_vec();
    vote.extend(term.to_le_bytes());
    vote.extend(2u64.to_le_bytes());
    vote.extend(b"\x00\x01");
    vote.extend(term.to_le_bytes());
    vote.extend(1_000_000u64.to_le_bytes());
    vote.push(1);
    bytes.extend(framed(&vote));
    let mut stream = dial(cluster, 2).await;
    stream.write_all(&bytes).await.unwrap();
    let mut welcome = [0; 9];
    soon("a welcome", stream.read_exact(&mut welcome))
        .await
        .unwrap();
    let mut head = [0; 8];
    soon("an answer", stream.read_exact(&mut head))
        .await
        .unwrap();
    let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize];
    soon("the answer's body", stream.read_exact(&mut body))
        .await
        .unwrap();
    (body[0], text(&body[1..]))
}

#[tokio::test]
async fn restarted_node_does_not_vote_until_its_promises_have_lapsed() {
    let (refused, voted) = (3, 8);
    let mut cluster = Cluster::of(2);
    cluster.start(1).await;
    // It founds the cluster and votes for itself, so it is not fresh any more.
    until("a vote", || cluster.node(1).consensus.status().term > 0).await;
    assert_eq!(
        ask_for_vote(&cluster, 1000).await.0,
        voted,
        "a fresh node owes nobody anything"
    );
    cluster.stop(1).await;

    let started = Instant::now();
    cluster.start(1).await;
    let (kind, text) = ask_for_vote(&cluster, 2000).await;
    assert_eq!(
        (kind, text.as_str()),
        (refused, "this node started a moment ago")
    );
    let until_vote = async { while ask_for_vote(&cluster, 2000).await.0 != voted {} };
    soon("a vote after the quarantine", until_vote).await;
    assert!(started.elapsed() >= cluster.options(1).timing.lease);
}

#[tokio::test]
async fn node_that_lost_its_log_joins_again_and_then_votes() {
    for keep_machine in [true, false] {
        let mut cluster = Cluster::of(3);
        cluster.checkpoints.entries = 10;
        for id in 1..=3 {
            cluster.start(id).await;
        }
        let leader = cluster.leader(&[1, 2, 3]).await;
        let mut texts = names(0..30);
        for text in &texts {
            cluster.propose(leader, text).await.unwrap();
        }
        cluster.all_hold(&texts).await;
        let loser = *cluster.all().iter().find(|id| **id != leader).unwrap();
        cluster.stop(loser).await;
        cluster.lose_log(loser, keep_machine);
        cluster.start(loser).await;
        // The leader of the terms it may have forgotten gives up, and another is elected without it.
        let others: Vec<u64> = cluster
            .all()
            .into_iter()
            .filter(|id| *id != loser)
            .collect();
        let seen = cluster.leadership(loser, "a leader is followed", |l| l.leader.is_some());
        let next = seen.await.leader.unwrap();
        assert!(others.contains(&next));
        let next = cluster.leader(&others).await;
        cluster.propose(next, "later").await.unwrap();
        texts.push("later".into());
        cluster.all_hold(&texts).await;
        // Now its vote counts: without it nobody could lead.
        let forgotten = || cluster.node(loser).log.read_slot(Slot::Forgotten).unwrap();
        until("it knows everything", || forgotten().is_none()).await;
        cluster.stop(next).await;
        let last = cluster.leader(&cluster.all()).await;
        cluster.propose(last, "last").await.unwrap();
        texts.push("last".into());
        cluster.all_hold(&texts).await;
    }
}

#[tokio::test]
async fn what_was_committed_with_a_forgetful_node_is_not_led_away_without_it() {
    let mut cluster = Cluster::running(3).await;
    cluster.leader(&[1, 2, 3]).await;
    cluster.stop(3).await;
    let leader = cluster.leader(&[1, 2]).await;
    let mut texts = names(0..10);
    for text in &texts {
        cluster.propose(leader, text).await.unwrap();
    }
    cluster.all_hold(&texts).await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    // Node 3 never heard of these entries, node 1 has forgotten them: together they must not lead.
    cluster.lose_log(1, false);
    cluster.start(1).await;
    cluster.start(3).await;
    let timing = cluster.options(1).timing;
    let led = tokio::time::timeout(timing.lease * 6, async {
        tokio::select! {
            led = cluster.leadership(1, "", |l| l.is_leader) => led,
            led = cluster.leadership(3, "", |l| l.is_leader) => led,
        }
    });
    assert!(led.await.is_err(), "a leader without what was acknowledged");
    let (kind, why) = ask_for_vote(&cluster, 1000).await;
    assert_eq!(kind, 3, "{why}");
    assert!(why.contains("lost its log"), "{why}");

    cluster.start(2).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    assert_eq!(leader, 2, "only it has everything");
    cluster.propose(leader, "entry 10").await.unwrap();
    texts.push("entry 10".into());
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn a_lone_voter_whose_log_ends_before_what_it_committed_is_refused() {
    let mut cluster = Cluster::running(1).await;
    cluster.leader(&[1]).await;
    let texts = names(0..10);
    for text in &texts {
        cluster.propose(1, text).await.unwrap();
    }
    cluster.stop(1).await;
    assert_eq!(cluster.give_up(1), None, "nothing is missing");
    let had = cluster.lose_end(1, 4);
    let why = cluster.start_with(1, cluster.options(1)).await.unwrap_err();
    let StartError::Lost { committed, last } = why else {
        panic!("{why}");
    };
    assert_eq!((committed, last), (had, had - 4));
    // Until somebody says that this is meant.
    assert_eq!(cluster.give_up(1), Some((had, had - 4)));
    cluster.start(1).await;
    cluster.leader(&[1]).await;
    assert_eq!(cluster.node(1).machine.texts(), texts[..6]);
    cluster.propose(1, "more").await.unwrap();
}

#[tokio::test]
async fn a_lone_voter_whose_machine_holds_what_its_log_lacks_goes_on() {
    let mut cluster = Cluster::running(1).await;
    cluster.leader(&[1]).await;
    let texts = names(0..10);
    for text in &texts {
        cluster.propose(1, text).await.unwrap();
    }
    cluster
        .node(1)
        .consensus
        .trigger_checkpoint()
        .await
        .unwrap();
    until("a checkpoint", || cluster.checkpointed(1) == 10).await;
    cluster.stop(1).await;
    cluster.lose_end(1, 4);
    cluster.start(1).await;
    cluster.leader(&[1]).await;
    assert_eq!(cluster.node(1).machine.texts(), texts);
}

#[tokio::test]
async fn nobody_leads_with_the_vote_of_one_who_knows_of_committed_entries_that_both_lack() {
    let mut cluster = Cluster::running(3).await;
    cluster.leader(&[1, 2, 3]).await;
    cluster.stop(3).await;
    let leader = cluster.leader(&[1, 2]).await;
    let mut texts = names(0..10);
    for text in &texts {
        cluster.propose(leader, text).await.unwrap();
    }
    cluster.all_hold(&texts).await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    // Node 3 never heard of these entries, node 1 knows only that there were some.
    cluster.lose_end(1, 10);
    cluster.start(1).await;
    cluster.start(3).await;
    let timing = cluster.options(1).timing;
    let led = tokio::time::timeout(timing.lease * 6, async {
        tokio::select! {
            led = cluster.leadership(1, "", |l| l.is_leader) => led,
            led = cluster.leadership(3, "", |l| l.is_leader) => led,
        }
    });
    assert!(led.await.is_err(), "a leader without what was committed");

    cluster.start(2).await;
    assert_eq!(
        cluster.leader(&[1, 2, 3]).await,
        2,
        "only it has everything"
    );
    cluster.all_hold(&texts).await;
    // Now its vote counts, and it may lead itself.
    cluster.stop(2).await;
    let next = cluster.leader(&[1, 3]).await;
    cluster.propose(next, "entry 10").await.unwrap();
    texts.push("entry 10".into());
    cluster.all_hold(&texts).await;
}
