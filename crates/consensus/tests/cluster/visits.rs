//! Members that visit each other's hosts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use haven_consensus::Host;
use haven_consensus::Unreached;
use haven_consensus::VISITS_MAX;
use haven_consensus::Visit;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;

use crate::nodes::Cluster;
use crate::nodes::names;
use crate::nodes::soon;
use crate::strangers::answer;
use crate::strangers::dial;
use crate::strangers::framed;
use crate::strangers::hello;
use crate::strangers::text;

/// How a hello says it.
const VISIT: u8 = 7;
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells who came, then says back what it hears.
struct Echo;

impl Host for Echo {
    fn receive(&self, from: u64, visit: Visit) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let (mut read, mut write) = tokio::io::split(visit);
            let _ = write.write_all(&from.to_le_bytes()).await;
            let _ = write.flush().await;
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        })
    }
}

/// Nodes that know of each other and have hosts; one of them leads.
async fn hosts(count: u64) -> Cluster {
    let cluster = Cluster::running(count).await;
    let leader = cluster.leader(&cluster.all()).await;
    cluster.propose(leader, "entry 0").await.unwrap();
    cluster.all_hold(&names(0..1)).await;
    for node in cluster.nodes.values() {
        let host = Arc::new(Echo);
        node.consensus.set_host(Handle::current(), host);
    }
    cluster
}

async fn visit(cluster: &Cluster, from: u64, to: u64) -> Result<Visit, Unreached> {
    let visiting = cluster.node(from).consensus.visit(to, PATIENCE);
    soon("a visit", visiting).await
}

/// Says something, and gives all that comes back.
async fn exchange(visit: Visit, words: Vec<u8>) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(visit);
    let saying = async {
        write.write_all(&words).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let (_, all) = tokio::join!(saying, read.read_to_end(&mut heard));
    all.unwrap();
    heard
}

#[tokio::test]
async fn every_member_reaches_every_others_host() {
    let cluster = hosts(3).await;
    let words: Vec<u8> = (0..300_000u32).map(|at| (at / 7) as u8).collect();
    for (from, to) in [(1, 2), (2, 1), (2, 3), (3, 1)] {
        let reached = visit(&cluster, from, to).await.unwrap();
        let heard = soon("all of it", exchange(reached, words.clone())).await;
        let (who, echo) = heard.split_at(8);
        assert_eq!(who, from.to_le_bytes());
        assert!(echo == words, "{} bytes of {}", echo.len(), words.len());
    }
    // What a visitor says without waiting for the welcome is not lost.
    let mut stream = dial(&cluster, 2).await;
    let early = [hello(&cluster, 2, VISIT), b"good morning".to_vec()].concat();
    stream.write_all(&early).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    soon("an end", stream.read_to_end(&mut heard))
        .await
        .unwrap();
    let want = [
        &framed(b"\x02")[..],
        &framed(b"\x0a"),
        &2u64.to_le_bytes(),
        b"good morning",
    ];
    assert_eq!(text(&heard), text(&want.concat()));
}

#[tokio::test]
async fn visits_are_bounded_and_keep_nothing_else_out() {
    let cluster = hosts(3).await;
    let mut visits = Vec::new();
    for _ in 0..VISITS_MAX {
        let mut reached = visit(&cluster, 2, 1).await.unwrap();
        // It is being served.
        let mut who = [0; 8];
        soon("a greeting", reached.read_exact(&mut who))
            .await
            .unwrap();
        visits.push(reached);
    }
    for from in [2, 3] {
        let why = visit(&cluster, from, 1).await.err().unwrap().to_string();
        assert!(why.contains("16 questions of other nodes already"), "{why}");
    }
    let leader = cluster.leader(&cluster.all()).await;
    cluster.propose(leader, "entry 1").await.unwrap();
    cluster.all_hold(&names(0..2)).await;
    visits.pop();
    let again = async { while visit(&cluster, 3, 1).await.is_err() {} };
    soon("a free seat", again).await;
}

#[tokio::test]
async fn strangers_and_those_whom_the_log_does_not_know_are_turned_away() {
    let mut cluster = hosts(2).await;
    // Certified by the authority, but no member: as good as nobody here, though it might be one elsewhere.
    let (applicant, key) = cluster.applicant(3);
    cluster.take_in(3, key, applicant.address);
    let said = text(&answer(dial(&cluster, 3).await, &hello(&cluster, 3, VISIT)).await);
    assert!(said.contains("node 3 is no member yet"), "{said:?}");
    let said = text(&answer(dial(&cluster, 3).await, &hello(&cluster, 2, VISIT)).await);
    assert!(said.contains("not that of node 2"), "{said:?}");
    // Without a certificate.
    let print = cluster.identities[&1].authority().fingerprint();
    let nobody = haven_pki::join_config(print).unwrap();
    let name = haven_pki::member_name().unwrap();
    let socket = TcpStream::connect(cluster.peers[&1]).await.unwrap();
    let stream = TlsConnector::from(nobody).connect(name, socket).await;
    let said = text(&answer(stream.unwrap(), &hello(&cluster, 2, VISIT)).await);
    assert!(said.contains("not that of node 2"), "{said:?}");
}

#[tokio::test]
async fn whoever_cannot_be_visited_is_told_why_and_a_visit_ends_with_the_connection_between_the_nodes()
 {
    let mut cluster = Cluster::running(3).await;
    cluster.leader(&[1, 2, 3]).await;
    let why = visit(&cluster, 2, 1).await.err().unwrap().to_string();
    assert!(why.contains("not ready yet"), "{why}");
    let why = visit(&cluster, 2, 9).await.err().unwrap().to_string();
    assert!(why.contains("no member of this cluster"), "{why}");
    cluster.stop(3).await;
    let why = visit(&cluster, 2, 3).await.err().unwrap().to_string();
    assert!(why.contains("refused"), "{why}");

    let consensus = cluster.node(1).consensus.clone();
    consensus.set_host(Handle::current(), Arc::new(Echo));
    let mut reached = visit(&cluster, 2, 1).await.unwrap();
    consensus.sever([2]);
    let mut left = Vec::new();
    // Ended in the middle: without a farewell.
    let _ = soon("the end", reached.read_to_end(&mut left)).await;
    let why = visit(&cluster, 2, 1).await.err().unwrap().to_string();
    assert!(why.contains("closed the connection"), "{why}");
    consensus.shutdown().await;
}
