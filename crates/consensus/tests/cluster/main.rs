//! Whole nodes over real sockets and a real log, on loopback.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, too"
)]

mod catchup;
mod machine;
mod members;
mod nodes;
mod visits;
mod witness;

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use haven_consensus::CheckpointPolicy;
use haven_consensus::Consensus;
use haven_consensus::Farewell;
use haven_consensus::PROTOCOL_VERSION;
use haven_consensus::ProposeError;
use haven_consensus::StartError;
use haven_consensus::TransferError;
use haven_log::Slot;
use haven_pki::rustls::ClientConfig;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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
async fn leadership_is_handed_over_at_once_and_the_old_leader_is_silent_before() {
    let cluster = Cluster::running(3).await;
    let old = cluster.leader(&[1, 2, 3]).await;
    cluster.propose(old, "entry 0").await.unwrap();
    let node = &cluster.node(old).consensus;
    until("a lease", || node.lease_valid()).await;
    assert_eq!(
        node.transfer(Some(77)).await,
        Err(TransferError::NoSuchNode(77))
    );
    assert_eq!(
        node.transfer(Some(old)).await,
        Err(TransferError::NoSuchNode(old))
    );
    assert!(node.lease_valid(), "a refused transfer changes nothing");

    let to = *cluster.all().iter().rfind(|id| **id != old).unwrap();
    until("the successor is ready", || {
        let status = node.status();
        let peer = status.peers[&to];
        peer.matched == status.last_log && peer.acked_ms_ago.is_some_and(|age| age < 100)
    })
    .await;
    let begun = Instant::now();
    let moved = tokio::spawn({
        let node = node.clone();
        async move { node.transfer(Some(to)).await }
    });
    // Whenever somebody else leads, the old lease is over.
    let mut seen = cluster.node(to).consensus.leadership();
    soon("the successor leads", seen.wait_for(|l| l.is_leader))
        .await
        .unwrap();
    assert!(!node.lease_valid());
    println!("handed over after {:?}", begun.elapsed());
    assert_eq!(moved.await.unwrap(), Ok(to));
    soon("a barrier", cluster.node(to).consensus.barrier())
        .await
        .unwrap();
    cluster.propose(to, "entry 1").await.unwrap();
    cluster.all_hold(&names(0..2)).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_node_that_just_started_takes_leadership_from_its_leader() {
    let mut cluster = Cluster::running(3).await;
    let old = cluster.leader(&[1, 2, 3]).await;
    cluster.propose(old, "entry 0").await.unwrap();
    cluster.all_hold(&names(0..1)).await;
    // Were it refused, the other follower's turn would come first.
    let to = *cluster.all().iter().rfind(|id| **id != old).unwrap();
    cluster.stop(to).await;
    let node = &cluster.node(old).consensus;
    assert_eq!(
        node.heir(Some(to)).await,
        Err(TransferError::NoneReady),
        "it was heard a moment ago, but does not answer"
    );
    assert!(node.heir(None).await.is_ok_and(|heir| heir != to));
    // For the whole test it keeps what it may have promised before it stopped.
    let mut options = cluster.options(to);
    options.timing.lease = Duration::from_secs(60);
    cluster.start_with(to, options).await.unwrap();
    let (node, started) = (&cluster.node(old).consensus, Instant::now());
    until("it follows again", || {
        let status = node.status();
        let peer = status.peers[&to];
        let heard = |ms| Duration::from_millis(ms + 1) < started.elapsed();
        peer.acked_ms_ago.is_some_and(heard) && peer.matched == status.last_log
    })
    .await;
    let before = node.status().term;
    assert_eq!(node.transfer(Some(to)).await, Ok(to));
    assert_eq!(cluster.leader(&[to]).await, to);
    assert_eq!(cluster.node(to).consensus.status().term, before + 1);
    cluster.propose(to, "entry 1").await.unwrap();
    cluster.all_hold(&names(0..2)).await;
}

#[tokio::test]
async fn nodes_that_shall_not_lead_are_passed_over_and_leaders_are_known_by_their_farewell() {
    let mut cluster = Cluster::running(3).await;
    let first = cluster.leader(&[1, 2, 3]).await;
    cluster.propose(first, "entry 0").await.unwrap();
    cluster.all_hold(&names(0..1)).await;
    // The follower whose turn would come first.
    let others: Vec<u64> = cluster
        .all()
        .into_iter()
        .filter(|id| *id != first)
        .collect();
    let (unwilling, heir) = (others[0], others[1]);
    for id in cluster.all() {
        let consensus = &cluster.node(id).consensus;
        consensus.set_unwilling([unwilling].into());
    }
    let node = cluster.node(first).consensus.clone();
    until("the heir is ready", || {
        let status = node.status();
        let ready = |peer: &haven_consensus::PeerStatus| {
            peer.matched == status.last_log && peer.acked_ms_ago.is_some_and(|age| age < 100)
        };
        node.lease_valid() && status.peers.values().all(ready)
    })
    .await;
    assert_eq!(node.transfer(None).await, Ok(heir));
    assert_eq!(cluster.leader(&[heir]).await, heir);
    let sign = cluster.node(heir).consensus.leader_sign().unwrap();
    assert_eq!((sign.from, sign.farewell), (first, Farewell::HandedOver));
    // And back, to be killed.
    let node = cluster.node(heir).consensus.clone();
    until("the first is ready", || {
        let status = node.status();
        let ready = status.peers.get(&first);
        ready.is_some_and(|p| {
            p.matched == status.last_log && p.acked_ms_ago.is_some_and(|a| a < 100)
        }) && node.lease_valid()
    })
    .await;
    assert_eq!(node.transfer(Some(first)).await, Ok(first));
    cluster.leader(&[first]).await;
    let heard = || cluster.node(heir).consensus.leader_sign();
    until("its appends", || {
        heard().is_some_and(|sign| sign.from == first)
    })
    .await;
    // With the newest entries alone, the unwilling one would lead.
    let node = cluster.node(first).consensus.clone();
    until("the heir has everything", || {
        let status = node.status();
        let heir = status.peers.get(&heir);
        status.last_log.is_some() && heir.is_some_and(|p| p.matched == status.last_log)
    })
    .await;
    drop(node);
    cluster.stop(first).await;
    assert_eq!(cluster.leader(&[unwilling, heir]).await, heir);
    let sign = cluster.node(heir).consensus.leader_sign().unwrap();
    assert_eq!((sign.from, sign.farewell), (first, Farewell::HungUp));
}

#[tokio::test]
async fn leader_cut_off_stops_answering_before_another_is_elected() {
    let cluster = Cluster::running(3).await;
    let old = cluster.leader(&[1, 2, 3]).await;
    cluster.propose(old, "entry 0").await.unwrap();
    let node = &cluster.node(old).consensus;
    until("a lease", || node.lease_valid()).await;
    let others: Vec<u64> = cluster.all().into_iter().filter(|id| *id != old).collect();
    let elected = {
        let waits = others.iter().map(|id| {
            let mut seen = cluster.node(*id).consensus.leadership();
            Box::pin(async move { seen.wait_for(|l| l.is_leader).await.map(drop) })
        });
        futures_util::future::select_all(waits.collect::<Vec<_>>())
    };
    node.sever(others.clone());
    let cut = Instant::now();
    // The last moment at which the lease still held.
    let watching = async {
        let mut held = cut;
        loop {
            let now = Instant::now();
            if !node.lease_valid() {
                return held - cut;
            }
            held = now;
            tokio::task::yield_now().await;
        }
    };
    let held = tokio::select! {
        biased;
        held = soon("the lease lapses", watching) => held,
        _ = elected => panic!("a new leader while the old lease held"),
    };
    assert!(
        held < cluster.options(old).timing.lease_window(),
        "{held:?}"
    );
    let hanging = cluster.propose(old, "lost").await;
    assert!(
        matches!(
            hanging,
            Err(ProposeError::Unavailable | ProposeError::NotLeader(_))
        ),
        "{hanging:?}"
    );
    let new = cluster.leader(&others).await;
    println!(
        "lease held for {held:?}, new leader after {:?}",
        cut.elapsed()
    );
    cluster
        .leadership(old, "the old leader knows that it is alone", |l| {
            !l.is_leader
        })
        .await;
    cluster.propose(new, "entry 1").await.unwrap();

    node.sever([]);
    cluster.all_hold(&names(0..2)).await;
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

/// A connection to node 1 that shows the certificate of node `from`.
async fn dial(cluster: &Cluster, from: u64) -> TlsStream<TcpStream> {
    let tls = cluster.identities[&from].tls().unwrap();
    dial_with(cluster, tls.client()).await
}

async fn dial_with(cluster: &Cluster, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let name = cluster.identities[&1].tls().unwrap().name_of(1).unwrap();
    let socket = TcpStream::connect(cluster.peers[&1]).await.unwrap();
    TlsConnector::from(config)
        .connect(name, socket)
        .await
        .unwrap()
}

/// What a node answers to bytes before it closes.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    let mut got = Vec::new();
    // The node may reset a connection whose bytes it did not read.
    let _ = soon("the node closes", stream.read_to_end(&mut got)).await;
    got
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend(crc32c::crc32c(body).to_le_bytes());
    frame.extend(body);
    frame
}

/// A hello to node 1. Purpose 0 carries entries, 2 votes.
fn hello(cluster: &str, from: u64, purpose: u8) -> Vec<u8> {
    let mut body = b"\x01HVNC".to_vec();
    body.extend(PROTOCOL_VERSION.to_le_bytes());
    body.extend(from.to_le_bytes());
    body.extend(1u64.to_le_bytes());
    body.push(purpose);
    body.push(cluster.len() as u8);
    body.extend(cluster.as_bytes());
    framed(&body)
}

fn id_of(cluster: &Cluster) -> String {
    cluster.identities[&1].authority().cluster().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn whoever_speaks_no_tls_is_told_so() {
    let cluster = Cluster::running(1).await;
    cluster.leader(&[1]).await;
    for said in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), hello("x", 2, 0)] {
        let socket = TcpStream::connect(cluster.peers[&1]).await.unwrap();
        let told = text(&answer(socket, &said).await);
        assert!(
            told.starts_with("haven: this port is for the nodes"),
            "{told:?}"
        );
    }
    // What begins like TLS and is none, and one that says next to nothing.
    let socket = TcpStream::connect(cluster.peers[&1]).await.unwrap();
    answer(socket, b"\x16\x03\x01\xff\xff garbage garbage garbage").await;
    let mut slow = TcpStream::connect(cluster.peers[&1]).await.unwrap();
    slow.write_all(b"\x16").await.unwrap();
    let mut left = Vec::new();
    soon("the slow one is given up", slow.read_to_end(&mut left))
        .await
        .ok();
    assert_eq!(cluster.propose(1, "still here").await.unwrap(), 1);
}

#[tokio::test]
async fn certificates_decide_who_is_heard_and_as_whom() {
    let mut cluster = Cluster::of(2);
    cluster.start(1).await;
    let id = id_of(&cluster);
    let said = answer(dial(&cluster, 2).await, &framed(b"\x04 not a hello")).await;
    assert!(said.is_empty(), "{said:?}");
    for (hello, want) in [
        (hello("other", 2, 0), format!("this is cluster {id}")),
        (
            hello(&id, 9, 0),
            "the certificate is not that of node 9".into(),
        ),
        (hello(&id, 1, 0), "two nodes call themselves 1".into()),
    ] {
        let said = text(&answer(dial(&cluster, 2).await, &hello).await);
        assert!(said.contains(&want), "{said:?}");
    }
    // A member's number, certified by the authority for another key.
    let (_, key) = cluster.applicant(2);
    let address = cluster.peers[&2];
    let good = cluster.identities.remove(&2).unwrap();
    cluster.take_in(2, key, address);
    let said = text(&answer(dial(&cluster, 2).await, &hello(&id, 2, 0)).await);
    assert!(said.contains("another key than the one"), "{said:?}");
    cluster.identities.insert(2, good);
    // Without a certificate there is nothing but joining, which nobody decides about here.
    let print = cluster.identities[&1].authority().fingerprint();
    let nobody = haven_pki::join_config(print).unwrap();
    let name = haven_pki::member_name().unwrap();
    for (purpose, want) in [
        (0, "certificate is not that of node 2"),
        (6, "not ready yet"),
    ] {
        let socket = TcpStream::connect(cluster.peers[&1]).await.unwrap();
        let connector = TlsConnector::from(nobody.clone());
        let stream = connector.connect(name.clone(), socket).await.unwrap();
        let mut bytes = hello(&id, 2, purpose);
        bytes.extend(framed(b"\x13 please"));
        let said = text(&answer(stream, &bytes).await);
        assert!(said.contains(want), "{said:?}");
    }
}

#[tokio::test]
async fn another_version_of_the_protocol_is_refused_with_both_named() {
    for (first, second) in [(2u32, 3u32), (3, 2)] {
        let mut cluster = Cluster::of(2);
        cluster.version = first;
        cluster.start(1).await;
        cluster.version = second;
        let mut frame = hello(&id_of(&cluster), 2, 0)[8..].to_vec();
        frame[5..9].copy_from_slice(&second.to_le_bytes());
        let said = text(&answer(dial(&cluster, 2).await, &framed(&frame)).await);
        let older = if first < second {
            "this node"
        } else {
            "node 2"
        };
        let want = format!(
            "this node speaks version {first} of the protocol between nodes, node 2 version {second}: update Haven on \
             {older}"
        );
        assert!(said.contains(&want), "{said:?}");
        // And a whole node: the two never become a cluster.
        cluster.start(2).await;
        let consensus = cluster.node(2).consensus.clone();
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(!consensus.leadership().borrow().is_leader);
        assert_eq!(consensus.leadership().borrow().leader, None);
    }
}

#[tokio::test]
async fn garbage_after_a_good_hello_closes_the_connection_only() {
    let mut cluster = Cluster::of(2);
    cluster.start(1).await;
    let mut bytes = hello(&id_of(&cluster), 2, 0);
    bytes.extend(framed(b"\x04\xff\xff\xff\xff nonsense"));
    let said = answer(dial(&cluster, 2).await, &bytes).await;
    assert_eq!(said, framed(b"\x02"), "a welcome, then nothing");
    cluster.start(2).await;
    let leader = cluster.leader(&[1, 2]).await;
    cluster.propose(leader, "entry 0").await.unwrap();
    cluster.all_hold(&names(0..1)).await;
}

/// Node 2 asks node 1 for its vote, with the mark of a planned transfer; gives the answer's kind and
/// text.
async fn ask_for_vote(cluster: &Cluster, term: u64) -> (u8, String) {
    let mut bytes = hello(&id_of(cluster), 2, 2);
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
