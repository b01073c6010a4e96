//! Two nodes with files and a witness, as processes: whichever node with files dies under load, nothing
//! that was acknowledged is lost, and the witness serves nobody.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use bytes::Bytes;
use haven_admin::client::{AskError, ask_over};
use haven_admin::{
    Client as Admin, ClusterStatus, NodeReport, Question, RefusalKind, StandbyRequest, StateHash,
    TokenRequest,
};
use haven_client::{Client, Options};
use haven_pki::Identity;
use haven_proto::nfs3::{Createhow3, Fh3, Sattr3, StableHow};
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::{Logged, command, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const PATIENCE: Duration = Duration::from_secs(30);
/// A pause between looks at processes.
const MOMENT: Duration = Duration::from_millis(5);
const NAMES: [&str; 3] = ["a", "b", "c"];
const WITNESS: usize = 2;

struct Cluster {
    dir: PathBuf,
    peers: Vec<u16>,
    identities: Vec<Identity>,
    ports: [(u16, u16); 3],
    nodes: [Option<Logged>; 3],
}

impl Cluster {
    fn new(dir: &Path) -> Self {
        let ports = [(); 3].map(|()| (free_port(), free_port()));
        let peers: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let identities = Identity::found(3, |_| Ok(Vec::new())).unwrap();
        for (index, name) in NAMES.iter().enumerate() {
            let role = if index == WITNESS { "witness" } else { "data" };
            let mut text = format!(
                "[node]\nname = \"{name}\"\ndata = \"{}\"\nrole = \"{role}\"\n\
                 checkpoint_entries = 100\nkeep_entries = 0\nreserve_mib = 128\n\
                 [service]\nsquash = \"none\"\nnfs_port = {}\nmount_port = {}\n\
                 [cluster]\nname = \"pair\"\n[[export]]\npath = \"/data\"\n",
                dir.join(name).display(),
                ports[index].0,
                ports[index].1,
            );
            for (peer, port) in peers.iter().enumerate() {
                text += &format!(
                    "[[cluster.node]]\nid = {}\nname = \"{}\"\naddress = \"127.0.0.1:{port}\"\n",
                    peer + 1,
                    NAMES[peer],
                );
            }
            std::fs::create_dir_all(dir.join(name)).unwrap();
            std::fs::write(dir.join(format!("{name}.toml")), text).unwrap();
            identities[index].save(&dir.join(name)).unwrap();
        }
        Self {
            dir: dir.to_owned(),
            peers,
            identities,
            ports,
            nodes: [const { None }; 3],
        }
    }

    fn start(&mut self, index: usize) {
        let config = self.dir.join(format!("{}.toml", NAMES[index]));
        let mut command = command();
        command.arg("serve").arg("--config").arg(config);
        self.nodes[index] = Some(Logged::start(&mut command));
    }

    /// SIGKILL; what the node had said.
    fn kill(&mut self, index: usize) -> String {
        let node = self.nodes[index].take().unwrap();
        let said = node.said();
        node.kill();
        said
    }

    /// Waits until a node says `text`; all it said.
    fn wait_said(&self, index: usize, text: &str) -> String {
        let node = self.nodes[index].as_ref().unwrap();
        tokio::task::block_in_place(|| node.until(text).join("\n"))
    }

    fn site(&self) -> Site {
        Site {
            sockets: NAMES.map(|name| self.dir.join(name).join("control.sock")),
            ports: self.ports,
        }
    }
}

/// Where the nodes are found.
#[derive(Clone)]
struct Site {
    sockets: [PathBuf; 3],
    ports: [(u16, u16); 3],
}

impl Site {
    async fn status(&self, index: usize) -> Option<NodeReport> {
        let patience = Duration::from_secs(2);
        let node = Admin::unix(&self.sockets[index], patience);
        node.node().await.ok()
    }

    /// The node that serves now, if there is one.
    async fn serving(&self) -> Option<usize> {
        for index in 0..3 {
            if self
                .status(index)
                .await
                .is_some_and(|status| status.serving)
            {
                assert_ne!(index, WITNESS, "a witness serves");
                return Some(index);
            }
        }
        None
    }

    async fn wait_serving(&self) -> usize {
        let start = Instant::now();
        loop {
            if let Some(index) = self.serving().await {
                return index;
            }
            assert!(start.elapsed() < PATIENCE, "nobody serves");
            tokio::time::sleep(MOMENT).await;
        }
    }

    fn client(&self, index: usize) -> Client {
        let (nfs, mount_port) = self.ports[index];
        Client::new(
            SocketAddr::from((Ipv4Addr::LOCALHOST, nfs)),
            Options {
                mount_port,
                request_timeout: Some(Duration::from_secs(2)),
                ..Options::default()
            },
        )
    }

    /// Waits until node `index` has a checkpoint to come back with.
    async fn wait_checkpoint(&self, index: usize) {
        let start = Instant::now();
        let node = Admin::unix(&self.sockets[index], Duration::from_secs(2));
        let at = |metrics: String| -> f64 {
            let mut lines = metrics.lines();
            let at = lines.find_map(|line| line.strip_prefix("haven_checkpoint_index "));
            at.unwrap().parse().unwrap()
        };
        while node.metrics().await.map_or(0.0, at) < 1.0 {
            assert!(start.elapsed() < PATIENCE, "no checkpoint");
            tokio::time::sleep(MOMENT).await;
        }
    }

    /// Waits until node `index` has applied all that the serving node has now.
    async fn wait_caught_up(&self, index: usize) {
        let leader = self.wait_serving().await;
        let want = self.status(leader).await.unwrap().applied;
        let start = Instant::now();
        while self
            .status(index)
            .await
            .is_none_or(|status| status.applied < want)
        {
            assert!(
                start.elapsed() < PATIENCE,
                "{} does not catch up",
                NAMES[index]
            );
            tokio::time::sleep(MOMENT).await;
        }
    }
}

fn contents(n: u32) -> Bytes {
    // Some fit a row, some do not.
    let len = if n.is_multiple_of(3) { 20_000 } else { 500 };
    Bytes::from(vec![n as u8; len + n as usize])
}

async fn put(client: &Client, n: u32) -> Option<()> {
    let root: Fh3 = client.mount("/data").await.ok()?;
    let how = Createhow3::Unchecked(Sattr3::default());
    let made = client
        .create(&root, format!("file-{n}").as_str(), how)
        .await
        .ok()?;
    let data = contents(n);
    client
        .write(&made.obj?, 0, StableHow::FileSync, data)
        .await
        .ok()?;
    Some(())
}

/// Makes files one after another, each until it is acknowledged.
struct Load {
    made: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(site: Site) -> Self {
        let (made, stop) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (own, ends) = (Arc::clone(&made), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut client = site.client(site.wait_serving().await);
            while !ends.load(Ordering::SeqCst) {
                match put(&client, own.load(Ordering::SeqCst)).await {
                    Some(()) => drop(own.fetch_add(1, Ordering::SeqCst)),
                    None => client = site.client(site.wait_serving().await),
                }
            }
        });
        Self { made, stop, task }
    }

    async fn wait_more(&self, more: u32) {
        let want = self.made.load(Ordering::SeqCst) + more;
        let start = Instant::now();
        while self.made.load(Ordering::SeqCst) < want {
            assert!(start.elapsed() < PATIENCE, "no progress");
            tokio::time::sleep(MOMENT).await;
        }
    }

    async fn end(self) -> u32 {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
        self.made.load(Ordering::SeqCst)
    }
}

async fn verify(site: &Site, made: u32) {
    let client = site.client(site.wait_serving().await);
    let root = client.mount("/data").await.unwrap();
    for n in 0..made {
        let found = client.lookup(&root, format!("file-{n}").as_str()).await;
        let file = found
            .unwrap_or_else(|e| panic!("file-{n} of {made}: {e}"))
            .object;
        let data = client.read(&file, 0, 1 << 16).await.unwrap().data;
        assert!(data == contents(n), "file-{n} differs");
    }
}

async fn hash(site: &Site, index: usize) -> StateHash {
    let node = Admin::unix(&site.sockets[index], PATIENCE);
    node.state_hash().await.unwrap()
}

/// What is said on the witness is done where it must be.
async fn the_witness_carries_commands(site: &Site, config: &Path) {
    let say = |arguments: &[&str]| {
        let start = Instant::now();
        loop {
            let mut command = command();
            command.args(arguments).arg("--config").arg(config);
            let output = command.output().unwrap();
            if output.status.success() {
                return;
            }
            // Who is to act may not have heard of the others yet.
            let why = String::from_utf8_lossy(&output.stderr);
            assert!(start.elapsed() < PATIENCE, "{arguments:?}: {why}");
            std::thread::sleep(MOMENT);
        }
    };
    let other = 1 - site.wait_serving().await;
    say(&["standby", NAMES[other]]);
    assert!(site.status(other).await.unwrap().standby);
    say(&["online", NAMES[other]]);
    assert!(!site.status(other).await.unwrap().standby);
    say(&["migrate", NAMES[other]]);
    assert_eq!(site.wait_serving().await, other);
    let why = support::refused_by(command().arg("standby").arg("--config").arg(config));
    assert!(why.contains("a witness never serves"), "{why}");
}

/// Visits node 2 as node 1 does.
async fn visit(cluster: &Cluster) -> TlsStream<TcpStream> {
    let framed = |body: &[u8]| {
        let mut frame = (body.len() as u32).to_le_bytes().to_vec();
        frame.extend(crc32c::crc32c(body).to_le_bytes());
        frame.extend(body);
        frame
    };
    let tls = cluster.identities[0].tls().unwrap();
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, cluster.peers[1]));
    let socket = socket.await.unwrap();
    let name = tls.name_of(2).unwrap();
    let shaken = TlsConnector::from(tls.client()).connect(name, socket).await;
    let mut stream = shaken.unwrap();
    let mut hello = b"\x01HVNC".to_vec();
    hello.extend(haven_consensus::PROTOCOL_VERSION.to_le_bytes());
    hello.extend(1u64.to_le_bytes());
    hello.extend(2u64.to_le_bytes());
    // The purpose, the cluster's name, where node 1 listens, and a process of it.
    hello.push(7);
    let listens = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.peers[0]));
    for text in [tls.cluster(), &listens.to_string()] {
        hello.push(text.len() as u8);
        hello.extend(text.as_bytes());
    }
    hello.extend(1u64.to_le_bytes());
    stream.write_all(&framed(&hello)).await.unwrap();
    let want = [framed(b"\x02"), framed(b"\x0a")].concat();
    let mut said = vec![0; want.len()];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(said, want);
    stream
}

async fn what_a_member_brings_is_not_carried_on(cluster: &Cluster) {
    let standby = StandbyRequest {
        node: "a".into(),
        standby: true,
        force: true,
    };
    for (question, want) in [
        (
            Question::Status {
                node: Some("a".into()),
            },
            RefusalKind::Elsewhere,
        ),
        (Question::Standby(standby), RefusalKind::Elsewhere),
        (
            Question::Token(TokenRequest { hours: 1 }),
            RefusalKind::Forbidden,
        ),
        (Question::StateHash, RefusalKind::Forbidden),
    ] {
        match ask_over(visit(cluster).await, &question).await {
            Err(AskError::Refused(refusal)) => assert_eq!(refusal.kind, want, "{question:?}"),
            other => panic!("{question:?}: {other:?}"),
        }
    }
    let answer = ask_over(visit(cluster).await, &Question::Status { node: None }).await;
    let status: ClusterStatus = serde_json::from_slice(&answer.unwrap()).unwrap();
    assert_eq!(status.asked, "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_node_with_files_dies_the_other_serves_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path());
    (0..3).for_each(|index| cluster.start(index));
    let site = cluster.site();
    let load = Load::start(site.clone());
    load.wait_more(20).await;
    let mut said = String::new();
    for victim in [0, 1] {
        site.wait_checkpoint(victim).await;
        said += &cluster.kill(victim);
        load.wait_more(60).await;
        assert_eq!(site.wait_serving().await, 1 - victim);
        said += &cluster.wait_said(
            1 - victim,
            &format!("sending a snapshot to node {}", victim + 1),
        );
        cluster.start(victim);
        site.wait_caught_up(victim).await;
    }
    // One lags, then the other dies: only the witness has what was made between.
    let leader = site.wait_serving().await;
    said += &cluster.kill(1 - leader);
    load.wait_more(100).await;
    let made = load.end().await;
    said += &cluster.kill(leader);
    cluster.start(1 - leader);
    assert_eq!(site.wait_serving().await, 1 - leader);
    verify(&site, made).await;
    let status = site.status(WITNESS).await.unwrap();
    assert!(status.witness && !status.serving, "{status:?}");
    cluster.start(leader);
    site.wait_caught_up(leader).await;
    assert_eq!(hash(&site, 0).await.hash, hash(&site, 1).await.hash);
    the_witness_carries_commands(&site, &dir.path().join("c.toml")).await;
    what_a_member_brings_is_not_carried_on(&cluster).await;
    for index in 0..3 {
        said += &cluster.kill(index);
    }
    assert!(said.contains("got what changed"), "{said}");
    assert!(said.contains("handing leadership over"), "{said}");
}

/// A witness that is asked to end waits a moment for who leads next; not when it is asked twice.
#[test]
fn a_second_signal_stops_a_witness_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path());
    cluster.start(WITNESS);
    let witness = cluster.nodes[WITNESS].take().unwrap();
    witness.until("started as a witness");
    witness.signal(Signal::TERM);
    witness.until("stopping");
    // Alone it sees no leader, so it would wait for the whole moment.
    witness.signal(Signal::TERM);
    let said = witness.rest();
    assert!(!witness.wait().success(), "{said}");
    assert!(
        said.contains("stopped at once, by a second SIGTERM"),
        "{said}"
    );
}
