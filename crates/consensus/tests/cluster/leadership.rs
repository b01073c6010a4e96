//! Who leads: planned moves, and leaders that are cut off.

use std::time::Duration;
use std::time::Instant;

use haven_consensus::Farewell;
use haven_consensus::ProposeError;
use haven_consensus::TransferError;

use crate::nodes::Cluster;
use crate::nodes::names;
use crate::nodes::soon;
use crate::nodes::until;

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
    cluster.hand_over(old, Some(to)).await;
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
    assert_eq!(cluster.hand_over(first, None).await, heir);
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
    cluster.hand_over(heir, Some(first)).await;
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
async fn while_its_followers_disks_stand_still_a_leader_keeps_its_lease() {
    let cluster = Cluster::running(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.propose(leader, "entry 0").await.unwrap();
    cluster.all_hold(&names(0..1)).await;
    let node = cluster.node(leader).consensus.clone();
    until("a lease", || node.lease_valid()).await;
    let term = node.status().term;

    let others: Vec<u64> = cluster
        .all()
        .into_iter()
        .filter(|id| *id != leader)
        .collect();
    let disks: Vec<_> = others.iter().map(|id| &cluster.standstills[id]).collect();
    disks.iter().for_each(|disk| disk.shut());
    let written = tokio::spawn({
        let node = node.clone();
        async move { node.propose("entry 1".into()).await }
    });
    until("the disks hold something up", || {
        disks.iter().all(|disk| disk.is_waited_at())
    })
    .await;
    // Nothing but heartbeats can be answered now.
    for _ in 0..3 {
        let asked = Instant::now();
        until("both answer something that was asked since", || {
            let peers = node.status().peers;
            let after = |ms| Duration::from_millis(ms + 1) < asked.elapsed();
            peers.len() == 2 && peers.values().all(|p| p.acked_ms_ago.is_some_and(after))
        })
        .await;
        until("a lease", || node.lease_valid()).await;
    }
    assert!(!written.is_finished(), "no majority has it");
    disks.iter().for_each(|disk| disk.open());
    soon("it is written", written).await.unwrap().unwrap();
    assert_eq!(node.status().term, term, "nobody stood");
    cluster.all_hold(&names(0..2)).await;
}
