//! What a node hears from whoever dials it: who is let in, and what is said to the others.

use std::sync::Arc;
use std::time::Duration;

use haven_consensus::PROTOCOL_VERSION;
use haven_pki::rustls::ClientConfig;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::nodes::Cluster;
use crate::nodes::names;
use crate::nodes::soon;

/// The process that hellos come from.
const PROCESS: u64 = 1;

/// A connection to node 1 that shows the certificate of node `from`.
pub async fn dial(cluster: &Cluster, from: u64) -> TlsStream<TcpStream> {
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
pub async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    let mut got = Vec::new();
    // The node may reset a connection whose bytes it did not read.
    let _ = soon("the node closes", stream.read_to_end(&mut got)).await;
    got
}

pub fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend(crc32c::crc32c(body).to_le_bytes());
    frame.extend(body);
    frame
}

/// A hello to node 1, from where the cluster knows the sender. Purpose 0 carries entries, 2 votes.
pub fn hello(cluster: &Cluster, from: u64, purpose: u8) -> Vec<u8> {
    let listens = cluster.peers.get(&from).map(ToString::to_string);
    hello_from(&id_of(cluster), &listens.unwrap_or_default(), from, purpose)
}

fn hello_from(cluster: &str, listens: &str, from: u64, purpose: u8) -> Vec<u8> {
    let mut body = b"\x01HVNC".to_vec();
    body.extend(PROTOCOL_VERSION.to_le_bytes());
    body.extend(from.to_le_bytes());
    body.extend(1u64.to_le_bytes());
    body.push(purpose);
    body.push(cluster.len() as u8);
    body.extend(cluster.as_bytes());
    body.push(listens.len() as u8);
    body.extend(listens.as_bytes());
    body.extend(PROCESS.to_le_bytes());
    framed(&body)
}

pub fn id_of(cluster: &Cluster) -> String {
    cluster.identities[&1].authority().cluster().to_owned()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn whoever_speaks_no_tls_is_told_so() {
    let cluster = Cluster::running(1).await;
    cluster.leader(&[1]).await;
    for said in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        hello_from("x", "", 2, 0),
    ] {
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
        (
            hello_from("other", "", 2, 0),
            format!("this is cluster {id}"),
        ),
        (
            hello(&cluster, 9, 0),
            "the certificate is not that of node 9".into(),
        ),
    ] {
        let said = text(&answer(dial(&cluster, 2).await, &hello).await);
        assert!(said.contains(&want), "{said:?}");
    }
    let itself = hello(&cluster, 1, 0);
    let said = text(&answer(dial(&cluster, 1).await, &itself).await);
    assert!(said.contains("two nodes call themselves 1"), "{said:?}");
    // A member's number, certified by the authority for another key.
    let (_, key) = cluster.applicant(2);
    let address = cluster.peers[&2];
    let good = cluster.identities.remove(&2).unwrap();
    cluster.take_in(2, key, address);
    let said = text(&answer(dial(&cluster, 2).await, &hello(&cluster, 2, 0)).await);
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
        let mut bytes = hello(&cluster, 2, purpose);
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
        let mut frame = hello(&cluster, 2, 0)[8..].to_vec();
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
    let mut bytes = hello(&cluster, 2, 0);
    bytes.extend(framed(b"\x04\xff\xff\xff\xff nonsense"));
    let said = answer(dial(&cluster, 2).await, &bytes).await;
    assert_eq!(said, framed(b"\x02"), "a welcome, then nothing");
    cluster.start(2).await;
    let leader = cluster.leader(&[1, 2]).await;
    cluster.propose(leader, "entry 0").await.unwrap();
    cluster.all_hold(&names(0..1)).await;
}
