//! Nodes that were away: by the log, by what changed, by everything; and what happens on the way.

use haven_consensus::CheckpointPolicy;
use haven_consensus::Replicated;
use haven_log::LogOptions;

use crate::nodes::Cluster;
use crate::nodes::names;
use crate::nodes::until;

/// Checkpoints every few entries, and hardly any log behind them.
pub fn eager() -> CheckpointPolicy {
    CheckpointPolicy {
        entries: 20,
        bytes: 1 << 20,
        // A follower that is only slow for a moment needs no snapshot.
        keep_entries: 25,
        ..CheckpointPolicy::default()
    }
}

/// Three nodes with 50 entries each, of which one, the second value, is stopped; the first leads.
async fn one_away(cluster: &mut Cluster) -> (u64, u64, Vec<String>) {
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader(&[1, 2, 3]).await;
    let away = *cluster.all().iter().find(|id| **id != leader).unwrap();
    let texts = names(0..50);
    for (done, text) in texts.iter().enumerate() {
        cluster.propose(leader, text).await.unwrap();
        if done == 0 {
            // Nobody who is still connecting shall need a snapshot.
            cluster.all_hold(&texts[..1]).await;
        }
    }
    cluster.all_hold(&texts).await;
    until("a checkpoint", || cluster.checkpointed(away) > 0).await;
    cluster.stop(away).await;
    (leader, away, texts)
}

/// More entries, until the log no longer reaches to what the node that is away lacks.
async fn go_on(cluster: &Cluster, leader: u64, texts: &mut Vec<String>) {
    let from = texts.len() as u32;
    for text in names(from..from + 150) {
        cluster.propose(leader, &text).await.unwrap();
        texts.push(text);
    }
    let status = || cluster.node(leader).consensus.status();
    until("the log is cut", || {
        status().purged.is_some_and(|i| i > 100)
    })
    .await;
}

#[tokio::test]
async fn node_that_was_away_gets_only_what_changed() {
    let mut cluster = Cluster::of(3);
    cluster.checkpoints = eager();
    cluster.nature.partial = true;
    let (leader, away, mut texts) = one_away(&mut cluster).await;
    let had = cluster.checkpointed(away);
    go_on(&cluster, leader, &mut texts).await;
    let position = cluster.node(leader).machine.position().unwrap().unwrap();
    let news = texts[had..].iter();
    let news: usize = news.map(|text| 12 + position.len() + text.len()).sum();

    cluster.start(away).await;
    cluster.all_hold(&texts).await;
    assert!(had > 20 && *cluster.node(away).machine.installed.lock() >= 1);
    let sent = cluster.node(leader).consensus.snapshots_sent();
    assert!(sent.partial >= 1 && sent.whole == 0, "{sent:?}");
    assert!(
        sent.last_bytes > 0 && sent.last_bytes <= news as u64,
        "{sent:?}, news: {news}"
    );
}

/// A cluster whose leader is held up in the middle of sending a snapshot to the node that was away; leader, that
/// node, and what was proposed.
async fn snapshot_on_its_way() -> (Cluster, u64, u64, Vec<String>) {
    let mut cluster = Cluster::of(3);
    cluster.checkpoints = eager();
    let (leader, away, mut texts) = one_away(&mut cluster).await;
    go_on(&cluster, leader, &mut texts).await;
    cluster.nature.gate.shut();
    cluster.start(away).await;
    until("a snapshot is on its way", || {
        cluster.nature.gate.is_waited_at()
    })
    .await;
    (cluster, leader, away, texts)
}

#[tokio::test]
async fn service_and_checkpoints_go_on_while_a_snapshot_is_sent() {
    let (cluster, leader, _away, mut texts) = snapshot_on_its_way().await;
    let before = cluster.checkpointed(leader);
    for text in names(150..200) {
        cluster.propose(leader, &text).await.unwrap();
        texts.push(text);
    }
    until("a checkpoint", || cluster.checkpointed(leader) > before).await;
    assert!(cluster.nature.gate.is_waited_at());
    cluster.nature.gate.open();
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn sender_that_is_lost_in_the_middle_of_a_snapshot_is_replaced() {
    let (cluster, leader, away, mut texts) = snapshot_on_its_way().await;
    let others: Vec<u64> = cluster
        .all()
        .into_iter()
        .filter(|id| *id != leader)
        .collect();
    cluster.node(leader).consensus.sever(others.clone());
    for id in &others {
        cluster.node(*id).consensus.sever([leader]);
    }
    cluster.nature.gate.open();
    let next = cluster.leader(&others).await;
    assert_ne!(next, away, "it lacks entries");
    cluster.propose(next, "entry 150").await.unwrap();
    texts.push("entry 150".into());
    until("it has all", || cluster.node(away).machine.texts() == texts).await;
    for id in cluster.all() {
        cluster.node(id).consensus.sever([]);
    }
    cluster.all_hold(&texts).await;
}

#[tokio::test]
async fn receiver_that_dies_in_the_middle_of_a_snapshot_gets_it_when_it_is_back() {
    let (mut cluster, leader, away, texts) = snapshot_on_its_way().await;
    cluster.stop(away).await;
    cluster.nature.gate.open();
    let sent = || cluster.node(leader).consensus.snapshots_sent();
    until("the sender notices", || sent().failed > 0).await;
    cluster.start(away).await;
    cluster.all_hold(&texts).await;
    assert_eq!(*cluster.node(away).machine.installed.lock(), 1);
}

#[tokio::test]
async fn log_is_bounded_in_bytes_and_within_them_a_node_catches_up_by_it() {
    const SEGMENT: u64 = 256 << 10;
    const KEEP: u64 = 4 * SEGMENT;
    let mut cluster = Cluster::of(3);
    cluster.checkpoints = CheckpointPolicy {
        entries: 10,
        keep_entries: 1 << 30,
        keep_bytes: KEEP,
        ..CheckpointPolicy::default()
    };
    cluster.log_options = LogOptions {
        segment_bytes: SEGMENT,
        ..LogOptions::default()
    };
    let (leader, away, mut texts) = one_away(&mut cluster).await;
    let bytes = || -> u64 {
        let files = cluster.node(leader).log.files();
        files.iter().map(|(_, bytes)| bytes).sum()
    };
    for n in 50..56u32 {
        let text = format!("entry {n} {}", "x".repeat(64 << 10));
        cluster.propose(leader, &text).await.unwrap();
        texts.push(text);
    }
    assert!(bytes() < KEEP);
    cluster.start(away).await;
    cluster.all_hold(&texts).await;
    assert_eq!(*cluster.node(away).machine.installed.lock(), 0);
    for n in 56..100u32 {
        let text = format!("entry {n} {}", "x".repeat(64 << 10));
        cluster.propose(leader, &text).await.unwrap();
        texts.push(text);
    }
    let bytes = || -> u64 {
        let files = cluster.node(leader).log.files();
        files.iter().map(|(_, bytes)| bytes).sum()
    };
    until("the log is cut", || bytes() <= KEEP + SEGMENT).await;
    cluster.all_hold(&texts).await;
}

/// Entries leave the log for their number or for their bytes, whichever takes more. A leader waits with that for the followers
/// that it is sending entries to; meanwhile comes the next checkpoint, behind which a smaller number may go.
#[tokio::test]
async fn log_is_cut_by_bytes_and_by_number_while_a_follower_lags() {
    const SEGMENT: u64 = 64 << 10;
    let mut cluster = Cluster::of(3);
    cluster.checkpoints = CheckpointPolicy {
        entries: 3,
        keep_entries: 20,
        keep_bytes: SEGMENT,
        ..CheckpointPolicy::default()
    };
    cluster.log_options = LogOptions {
        segment_bytes: SEGMENT,
        ..LogOptions::default()
    };
    let (leader, away, mut texts) = one_away(&mut cluster).await;
    let purged = || cluster.node(leader).consensus.status().purged;
    let (mut seen, mut cuts) = (purged(), 0);
    for n in 50..u32::MAX {
        let text = format!("entry {n} {}", "x".repeat(16 << 10));
        cluster.propose(leader, &text).await.unwrap();
        texts.push(text);
        let now = purged();
        cuts += u32::from(now > seen);
        seen = now;
        if cuts == 20 {
            break;
        }
    }
    cluster.start(away).await;
    cluster.all_hold(&texts).await;
}
