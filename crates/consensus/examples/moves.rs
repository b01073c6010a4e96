//! Measures how leadership moves: planned transfers, cut-off leaders, and what an idle cluster and one
//! with a dead node cost. Three nodes on loopback, in one process, with their logs on a real disk.
//!
//! `cargo run --release -p haven-consensus --example moves`

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a measurement fails by panicking; the tests' helpers are used in part"
)]

#[path = "../tests/cluster/machine.rs"]
mod machine;
#[path = "../tests/cluster/nodes.rs"]
mod nodes;

use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use nodes::Cluster;
use nodes::soon;
use nodes::until;

/// Planned transfers and cuts measured.
const ROUNDS: usize = 30;

/// How long processor time is watched.
const WATCH: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    let mut cluster = Cluster::running(3).await;
    cluster.leader(&[1, 2, 3]).await;
    planned(&cluster).await;
    cut_off(&cluster).await;
    processor_time("idle, three nodes").await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let follower = *cluster.all().iter().find(|id| **id != leader).unwrap();
    cluster.stop(follower).await;
    cluster.propose(leader, "without one").await.unwrap();
    processor_time("one follower dead, two nodes").await;
}

/// Times of one takeover, from its beginning.
#[derive(Default)]
struct Takeover {
    elected: Vec<Duration>,
    barrier: Vec<Duration>,
    lease: Vec<Duration>,
    proposed: Vec<Duration>,
    refused: usize,
}

impl Takeover {
    /// Follows the takeover by one of `among`; gives the new leader.
    async fn follow(&mut self, cluster: &Cluster, among: &[u64], begun: Instant) -> u64 {
        let waits = among.iter().map(|id| {
            let mut seen = cluster.node(*id).consensus.leadership();
            Box::pin(async move {
                seen.wait_for(|l| l.is_leader).await.unwrap();
                *id
            })
        });
        let new = soon("a leader", futures_util::future::select_all(waits))
            .await
            .0;
        self.elected.push(begun.elapsed());
        let node = &cluster.node(new).consensus;
        while node.barrier().await.is_err() {
            self.refused += 1;
            tokio::task::yield_now().await;
        }
        self.barrier.push(begun.elapsed());
        until("a lease", || node.lease_valid()).await;
        self.lease.push(begun.elapsed());
        node.propose(Bytes::from_static(b"x")).await.unwrap();
        self.proposed.push(begun.elapsed());
        new
    }

    fn print(&mut self, what: &str) {
        println!(
            "{what}: {} times, {} barriers refused",
            self.elected.len(),
            self.refused
        );
        for (name, times) in [
            ("elected", &mut self.elected),
            ("barrier", &mut self.barrier),
            ("lease", &mut self.lease),
            ("proposed", &mut self.proposed),
        ] {
            times.sort();
            let ms = |at: usize| times[at].as_secs_f64() * 1e3;
            let last = times.len() - 1;
            println!(
                "  {name:9} min {:7.1}  median {:7.1}  max {:7.1} ms",
                ms(0),
                ms(last / 2),
                ms(last)
            );
        }
    }
}

async fn planned(cluster: &Cluster) {
    let mut takeover = Takeover::default();
    for _ in 0..ROUNDS {
        let old = cluster.leader(&cluster.all()).await;
        let others: Vec<u64> = cluster.all().into_iter().filter(|id| *id != old).collect();
        let node = cluster.node(old).consensus.clone();
        until("a follower is ready", || {
            let status = node.status();
            status
                .peers
                .values()
                .any(|p| p.acked_ms_ago.is_some_and(|age| age < 200))
        })
        .await;
        let begun = Instant::now();
        let moved = tokio::spawn(async move { node.transfer(None).await });
        takeover.follow(cluster, &others, begun).await;
        moved.await.unwrap().unwrap();
    }
    takeover.print("planned transfer");
}

async fn cut_off(cluster: &Cluster) {
    let mut takeover = Takeover::default();
    for _ in 0..ROUNDS {
        let old = cluster.leader(&cluster.all()).await;
        let others: Vec<u64> = cluster.all().into_iter().filter(|id| *id != old).collect();
        // Under load followers are rarely at the same entry.
        let load = (0..8).map(|_| {
            let node = cluster.node(old).consensus.clone();
            tokio::spawn(
                async move { while node.propose(Bytes::from_static(b"load")).await.is_ok() {} },
            )
        });
        let load: Vec<_> = load.collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.node(old).consensus.sever(others.clone());
        let new = takeover.follow(cluster, &others, Instant::now()).await;
        for caller in load {
            soon("a caller ends", caller).await.unwrap();
        }
        cluster.node(old).consensus.sever([]);
        let mut seen = cluster.node(old).consensus.leadership();
        soon(
            "the old leader follows",
            seen.wait_for(|l| l.leader == Some(new)),
        )
        .await
        .unwrap();
        let applied = || cluster.node(old).consensus.applied_index();
        until("it catches up", || {
            applied() >= cluster.node(new).consensus.applied_index()
        })
        .await;
    }
    takeover.print("leader cut off under load");
}

/// Prints the processor time of this process over a while, per node-second.
async fn processor_time(what: &str) {
    let before = ticks();
    tokio::time::sleep(WATCH).await;
    let after = ticks();
    println!(
        "{what}: user {:.2} %, system {:.2} % of a core, in all",
        (after.0 - before.0) as f64 / WATCH.as_secs_f64(),
        (after.1 - before.1) as f64 / WATCH.as_secs_f64()
    );
}

/// User and system time of this process in hundredths of a second.
fn ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse().unwrap(), fields[12].parse().unwrap())
}
