//! Whole nodes over real sockets and a real log, on loopback.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, too"
)]

mod catchup;
mod doubles;
mod forgetting;
mod leadership;
mod machine;
mod members;
mod nodes;
mod strangers;
mod visits;
mod witness;

use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use haven_consensus::CheckpointPolicy;
use haven_consensus::Consensus;
use haven_consensus::ProposeError;
use haven_consensus::StartError;
use tokio::net::TcpListener;

use crate::nodes::Cluster;
use crate::nodes::names;
use crate::nodes::soon;
use crate::nodes::until;

#[tokio::test]
async fn single_node_keeps_everything_and_applies_each_entry_once() {
    let mut cluster = Cluster::running(1).await;
    cluster.leader(&[1]).await;
    let texts = names(0..60);
    for (at, text) in texts.iter().enumerate() {
        if at == 20 {
            cluster
                .node(1)
                .consensus
                .trigger_checkpoint()
                .await
                .unwrap();
            until("a checkpoint", || cluster.checkpointed(1) > 0).await;
        }
        assert_eq!(cluster.propose(1, text).await.unwrap(), at + 1);
    }
    assert!(cluster.node(1).consensus.lease_valid());
    let before = cluster.node(1).machine.applied();
    cluster.stop(1).await;
    assert_eq!(cluster.checkpointed(1), 20);

    cluster.start(1).await;
    cluster.leader(&[1]).await;
    // The machine refuses an entry that comes twice.
    assert_eq!(cluster.node(1).machine.applied(), before);
    assert_eq!(cluster.propose(1, "after").await.unwrap(), 61);
}

#[tokio::test]
async fn a_proposal_of_a_term_that_is_over_is_refused() {
    let mut cluster = Cluster::running(1).await;
    cluster.leader(&[1]).await;
    let term = cluster.node(1).consensus.leadership().borrow().term;
    let entry = || Bytes::from_static(b"of its term");
    let consensus = cluster.node(1).consensus.clone();
    assert!(consensus.propose_in(term, entry()).await.is_ok());
    drop(consensus);
    cluster.stop(1).await;

    cluster.start(1).await;
    cluster.leader(&[1]).await;
    let consensus = cluster.node(1).consensus.clone();
    assert!(consensus.leadership().borrow().term > term);
    let before = cluster.node(1).machine.applied();
    let refused = consensus.propose_in(term, entry()).await.map(drop);
    assert_eq!(refused, Err(ProposeError::NotLeader(None)));
    consensus.barrier().await.unwrap();
    assert_eq!(cluster.node(1).machine.applied(), before);
}

#[tokio::test]
async fn entries_reach_all_nodes_and_survive_the_leader() {
    let mut cluster = Cluster::running(3).await;
    let first = cluster.leader(&[1, 2, 3]).await;
    let mut texts = names(0..30);
    for text in &texts {
        cluster.propose(first, text).await.unwrap();
    }
    cluster.all_hold(&texts).await;

    let follower = *cluster.all().iter().find(|id| **id != first).unwrap();
    let refused = cluster.propose(follower, "no").await;
    assert_eq!(refused, Err(ProposeError::NotLeader(Some(first))));
    assert!(!cluster.node(follower).consensus.lease_valid());

    cluster.stop(first).await;
    let gone = Instant::now();
    let second = cluster.leader(&cluster.all()).await;
    println!("new leader after {:?}", gone.elapsed());
    assert_ne!(second, first);
    cluster.propose(second, "entry 30").await.unwrap();
    texts.push("entry 30".into());

    cluster.start(first).await;
    cluster.all_hold(&texts).await;
    let seen = cluster
        .leadership(first, "the old leader follows", |l| l.leader.is_some())
        .await;
    assert!(!seen.is_leader);
    cluster.propose(second, "entry 31").await.unwrap();
    texts.push("entry 31".into());
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn node_far_behind_gets_a_snapshot_and_the_log_from_there() {
    let mut cluster = Cluster::of(3);
    cluster.checkpoints = CheckpointPolicy {
        entries: 20,
        bytes: 1 << 20,
        keep_entries: 5,
        ..CheckpointPolicy::default()
    };
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader(&[1, 2, 3]).await;
    let lagging = *cluster.all().iter().find(|id| **id != leader).unwrap();
    let mut texts = names(0..10);
    for text in &texts {
        cluster.propose(leader, text).await.unwrap();
    }
    cluster.stop(lagging).await;
    for text in names(10..100) {
        cluster.propose(leader, &text).await.unwrap();
        texts.push(text);
    }
    let status = || cluster.node(leader).consensus.status();
    until("the log is cut", || status().purged.is_some_and(|i| i > 50)).await;

    cluster.start(lagging).await;
    cluster.all_hold(&texts).await;
    assert!(*cluster.node(lagging).machine.installed.lock() >= 1);
    // It goes on from its log after a restart, too.
    cluster.propose(leader, "entry 100").await.unwrap();
    texts.push("entry 100".into());
    cluster.all_hold(&texts).await;
    cluster.stop(lagging).await;
    cluster.start(lagging).await;
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn byte_pressure_makes_checkpoints() {
    let mut cluster = Cluster::of(1);
    cluster.checkpoints = CheckpointPolicy {
        entries: 1 << 40,
        bytes: 1000,
        keep_entries: 0,
        ..CheckpointPolicy::default()
    };
    cluster.start(1).await;
    cluster.leader(&[1]).await;
    cluster.propose(1, "short").await.unwrap();
    assert_eq!(cluster.checkpointed(1), 0);
    cluster.propose(1, &"long".repeat(300)).await.unwrap();
    until("a checkpoint", || cluster.checkpointed(1) == 2).await;
}

#[tokio::test]
async fn peer_that_closes_every_connection_is_tried_with_pauses() {
    let mut cluster = Cluster::running(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let dead = *cluster.all().iter().find(|id| **id != leader).unwrap();
    cluster.stop(dead).await;
    let closes = TcpListener::bind(cluster.peers[&dead]).await.unwrap();
    let node = cluster.node(leader).consensus.clone();
    let load =
        tokio::spawn(async move { while node.propose(Bytes::from_static(b"x")).await.is_ok() {} });
    let attempts = async {
        drop(closes.accept().await.unwrap());
        let first = Instant::now();
        for _ in 0..20 {
            drop(closes.accept().await.unwrap());
        }
        first.elapsed()
    };
    let took = soon("attempts", attempts).await;
    // Within this time the pauses allow for 6 connections for entries and 8 for heartbeats.
    assert!(took >= Duration::from_millis(300), "{took:?}");
    drop(closes);
    load.abort();
    // Back again, it is found soon, and nothing else has happened meanwhile.
    cluster.start(dead).await;
    let want = cluster.node(leader).machine.applied();
    until("it catches up", || {
        cluster.node(dead).machine.applied().starts_with(&want)
    })
    .await;
}

#[tokio::test]
async fn first_barrier_of_a_leader_succeeds() {
    for _ in 0..5 {
        let mut cluster = Cluster::of(1);
        cluster.start(1).await;
        let node = &cluster.node(1).consensus;
        let mut seen = node.leadership();
        let led = *soon("a leader", seen.wait_for(|l| l.is_leader))
            .await
            .unwrap();
        assert!(led.term > 0, "{led:?}");
        assert!(soon("a barrier", node.barrier()).await.is_ok());
        cluster.stop(1).await;
    }
}

#[tokio::test]
async fn proposals_that_come_together_share_flushes() {
    let cluster = Cluster::running(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let before = cluster.node(leader).log.stats().flushes;
    let term = cluster.node(leader).consensus.status().term;
    let proposals = (0..64).map(|caller| {
        let node = cluster.node(leader).consensus.clone();
        tokio::spawn(async move {
            for turn in 0..20 {
                let entry = Bytes::from(format!("{caller} {turn}"));
                node.propose(entry).await.unwrap();
            }
        })
    });
    let proposals: Vec<_> = proposals.collect();
    for proposal in proposals {
        soon("a caller ends", proposal).await.unwrap();
    }
    let term_after = cluster.node(leader).consensus.status().term;
    assert_eq!(term_after, term, "no election under load");
    let flushes = cluster.node(leader).log.stats().flushes - before;
    println!("{flushes} flushes for 1280 entries");
    assert!(flushes <= 640, "{flushes} flushes for 1280 entries");
    let want = cluster.node(leader).machine.applied();
    assert_eq!(want.len(), 1280);
    for node in cluster.nodes.values() {
        until("all nodes hold the same", || node.machine.applied() == want).await;
    }
}

#[tokio::test]
async fn large_entries_travel_and_a_node_that_missed_them_catches_up() {
    let mut cluster = Cluster::running(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let absent = *cluster.all().iter().find(|id| **id != leader).unwrap();
    cluster.stop(absent).await;
    let proposals = (0..24u8).map(|caller| {
        let node = cluster.node(leader).consensus.clone();
        tokio::spawn(async move { node.propose(Bytes::from(vec![caller; 1 << 20])).await })
    });
    let proposals: Vec<_> = proposals.collect();
    for proposal in proposals {
        soon("a large proposal", proposal).await.unwrap().unwrap();
    }
    let huge = Bytes::from(vec![1; haven_consensus::ENTRY_BYTES_MAX]);
    assert_eq!(
        cluster.node(leader).consensus.propose(huge.clone()).await,
        Ok(25)
    );
    let more = Bytes::from(vec![1; haven_consensus::ENTRY_BYTES_MAX + 1]);
    let refused = cluster.node(leader).consensus.propose(more).await;
    assert!(
        matches!(refused, Err(ProposeError::TooLarge(_))),
        "{refused:?}"
    );
    cluster.start(absent).await;
    let want = cluster.node(leader).machine.applied();
    for node in cluster.nodes.values() {
        until("all nodes hold the same", || node.machine.applied() == want).await;
    }
}

#[tokio::test]
async fn hints_reach_all_peers_and_the_newest_wins() {
    let mut cluster = Cluster::running(3).await;
    cluster.leader(&[1, 2, 3]).await;
    for text in ["one", "two"] {
        cluster
            .node(1)
            .consensus
            .broadcast_hint(Bytes::from_static(text.as_bytes()))
            .unwrap();
    }
    for id in [2, 3] {
        let mut hints = cluster.node(id).consensus.hints();
        soon(
            "the hint",
            hints.wait_for(|all| all.get(&1).is_some_and(|h| h == "two")),
        )
        .await
        .unwrap();
    }
    cluster.stop(3).await;
    cluster.start(3).await;
    let mut hints = cluster.node(3).consensus.hints();
    soon("the hint again", hints.wait_for(|all| all.contains_key(&1)))
        .await
        .unwrap();
    assert!(
        cluster
            .node(1)
            .consensus
            .broadcast_hint(Bytes::from(vec![0; 70_000]))
            .is_err()
    );
}

#[tokio::test]
async fn whole_cluster_comes_back_after_a_stop() {
    let mut cluster = Cluster::running(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let mut texts = names(0..10);
    for text in &texts {
        cluster.propose(leader, text).await.unwrap();
    }
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.propose(leader, "entry 10").await.unwrap();
    texts.push("entry 10".into());
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn several_nodes_without_certificates_and_a_clusters_data_alone_are_refused() {
    let mut cluster = Cluster::of(2);
    let mut options = cluster.options(1);
    options.security = None;
    let why = cluster.start_with(1, options.clone()).await.unwrap_err();
    assert!(why.to_string().contains("haven init"), "{why}");

    let mut cluster = Cluster::running(1).await;
    cluster.leader(&[1]).await;
    cluster.stop(1).await;
    options.peers = cluster.peers.clone();
    let started = cluster.start_with(1, options).await;
    assert!(
        matches!(started, Err(StartError::Members { .. })),
        "{:?}",
        started.err()
    );
}

#[tokio::test]
async fn a_node_that_was_alone_becomes_the_first_of_a_cluster() {
    let mut cluster = Cluster::of(1);
    let mut alone = cluster.options(1);
    alone.security = None;
    cluster.start_with(1, alone).await.unwrap();
    cluster.leader(&[1]).await;
    cluster.propose(1, "entry 0").await.unwrap();
    cluster.stop(1).await;
    cluster.start(1).await;
    cluster.leader(&[1]).await;
    let consensus = cluster.node(1).consensus.clone();
    until("it is known by its key", || {
        consensus.members()[0].key.is_some()
    })
    .await;
    cluster.token(1, 1).await;
    let second = cluster.admit(1, 1).await.unwrap();
    cluster.start(second).await;
    cluster.voters(1, &[1, 2]).await;
    cluster.all_hold(&names(0..1)).await;
}

#[test]
fn node_works_without_a_runtime_of_the_caller() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let cluster = runtime.block_on(Cluster::running(1));
    let node: Consensus<usize> = cluster.node(1).consensus.clone();
    drop(runtime);
    let mut seen = node.leadership();
    run(async move {
        seen.wait_for(|l| l.is_leader).await.unwrap();
        assert_eq!(node.propose(Bytes::from_static(b"x")).await, Ok(1));
        node.shutdown().await;
        assert_eq!(
            node.propose(Bytes::from_static(b"y")).await,
            Err(ProposeError::Stopped)
        );
    });
}

/// Runs a future with nothing but the standard library.
fn run(work: impl Future<Output = ()>) {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut work = std::pin::pin!(work);
    while work.as_mut().poll(&mut context).is_pending() {
        std::thread::park();
    }
}
