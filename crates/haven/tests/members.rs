//! Clusters made and changed by commands, as an operator does it: real processes, on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use haven_admin::{Client as Admin, NodeReport, NodeRow};
use haven_client::{Client, Options};
use haven_pki::{Fingerprint, Token};
use haven_proto::nfs3::{Createhow3, Fh3, Sattr3};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use support::{Logged, command, free_port, refused_by};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);

/// A machine with a directory of its own.
struct Machine {
    name: &'static str,
    dir: PathBuf,
    peers: SocketAddr,
    process: Option<Logged>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Machine {
    fn new(dir: &Path, name: &'static str) -> Self {
        let own = dir.join(name);
        std::fs::create_dir(&own).unwrap();
        Self {
            name,
            dir: own,
            peers: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
            process: None,
        }
    }

    fn config(&self) -> PathBuf {
        self.dir.join("haven.toml")
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// `haven init` or `haven join` with what says where things go.
    fn setup(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command();
        command.args(arguments).args(["--name", self.name]);
        command.args(["--address", &self.peers.to_string()]);
        command.arg("--config").arg(self.config());
        command.arg("--data").arg(self.data());
        command
    }

    /// Makes a cluster; gives the tokens.
    fn init(&self) -> Vec<String> {
        let told = done(self.setup(&["init"]).output().unwrap());
        // On one machine the nodes cannot have the same ports.
        let config = std::fs::read_to_string(self.config()).unwrap();
        let ports = "[service]\nnfs_port = 0\nmount_port = 0\nlisten = \"127.0.0.1\"\nportmapper = \"off\"\n\
                     squash = \"none\"\n";
        std::fs::write(self.config(), config.replace("[service]\n", ports)).unwrap();
        let tokens = told
            .lines()
            .filter_map(|line| line.trim().strip_prefix("haven join "));
        tokens.map(str::to_owned).collect()
    }

    fn join(&self, token: &str) -> String {
        done(self.setup(&["join", token]).output().unwrap())
    }

    fn start(&mut self) {
        let mut serve = command();
        serve.args(["serve", "--config"]).arg(self.config());
        self.process = Some(Logged::start(&mut serve));
    }

    /// A command about the cluster, asked of this node.
    fn ask(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command();
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    fn nodes(&self) -> Option<Vec<NodeRow>> {
        let output = self.ask(&["node", "list", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until exactly these nodes are members that vote.
    fn await_voters(&self, want: &[&str]) {
        let start = Instant::now();
        loop {
            let nodes = self.nodes().unwrap_or_default();
            let votes = |row: &NodeRow| row.state == "leader" || row.state == "voter";
            if nodes.iter().all(votes)
                && nodes
                    .iter()
                    .map(|row| row.name.as_str())
                    .eq(want.iter().copied())
            {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{want:?}: {nodes:?}");
            std::thread::sleep(POLL);
        }
    }

    async fn status(&self) -> Option<NodeReport> {
        let socket = self.data().join("control.sock");
        let node = Admin::unix(&socket, Duration::from_secs(2));
        node.node().await.ok()
    }
}

fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Changes a bit of a log's last segment, with records before and behind it.
fn damage_middle(log: &Path) {
    let names = std::fs::read_dir(log).unwrap();
    let segments = names.map(|entry| entry.unwrap().path());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|e| e == "seg");
    let last = segments.filter(is_segment).max().unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end * 2 / 3] ^= 1;
    std::fs::write(&last, bytes).unwrap();
}

/// The files written so far, which must never be lost.
#[derive(Default)]
struct Files(Vec<String>);

impl Files {
    /// Waits for a node that serves; gives a client of it and the export's root.
    async fn client(machines: &[&Machine]) -> (Client, Fh3) {
        let start = Instant::now();
        loop {
            for machine in machines {
                let Some(status) = machine.status().await.filter(|status| status.serving) else {
                    continue;
                };
                let options = Options {
                    mount_port: status.mount_port,
                    request_timeout: Some(Duration::from_secs(2)),
                    ..Options::default()
                };
                let client = Client::new(
                    SocketAddr::from((Ipv4Addr::LOCALHOST, status.nfs_port)),
                    options,
                );
                // It may stop serving at any time.
                if let Ok(root) = client.mount("/data").await {
                    return (client, root);
                }
            }
            assert!(start.elapsed() < PATIENCE, "nobody serves");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Writes a file where the service is, and reads all of them.
    async fn write(&mut self, machines: &[&Machine], name: &str) {
        let start = Instant::now();
        loop {
            let (client, root) = Self::client(machines).await;
            let how = Createhow3::Unchecked(Sattr3::default());
            if client.create(&root, name, how).await.is_ok() {
                self.0.push(name.to_owned());
                for name in &self.0 {
                    client.lookup(&root, name.as_str()).await.unwrap();
                }
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{name} cannot be written");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_machines_become_a_cluster_and_the_first_of_them_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Machine::new(dir.path(), "a");
    let mut b = Machine::new(dir.path(), "b");
    let mut c = Machine::new(dir.path(), "c");
    let mut files = Files::default();
    let tokens = a.init();
    assert_eq!(tokens.len(), 2);
    let why = refused_by(&mut a.setup(&["init"]));
    assert!(
        why.contains("belongs to a node of a cluster already"),
        "{why}"
    );
    for secret in ["ca.key", "node.key"] {
        let mode = a
            .data()
            .join("cluster")
            .join(secret)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    a.start();
    files.write(&[&a], "of a").await;

    let told = b.join(&tokens[0]);
    assert!(told.contains("haven serve --config"), "{told}");
    b.start();
    a.await_voters(&["a", "b"]);
    files.write(&[&a, &b], "of two").await;
    // The same token again, on the machine that used it, and on another.
    let why = refused_by(&mut b.setup(&["join", &tokens[0]]));
    assert!(
        why.contains("belongs to a node of a cluster already"),
        "{why}"
    );
    let why = refused_by(&mut c.setup(&["join", &tokens[0]]));
    assert!(why.contains("used already (by node 2)"), "{why}");

    // Joining is cut short again and again.
    for delay_ms in [0, 2, 5, 9, 14, 20] {
        let mut joining = c.setup(&["join", &tokens[1]]);
        let joining = joining.stdout(Stdio::null()).stderr(Stdio::null());
        let mut joining = joining.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        joining.kill().unwrap();
        joining.wait().unwrap();
    }
    if !c.config().exists() {
        c.join(&tokens[1]);
    }
    c.start();
    b.await_voters(&["a", "b", "c"]);
    files.write(&[&a, &b, &c], "of three").await;
    assert!(a.nodes().unwrap().iter().map(|row| row.id).eq([1, 2, 3]));

    // The first goes, which leads or not.
    done(b.ask(&["node", "remove", "a"]).output().unwrap());
    let first = a.process.take().unwrap();
    let log = first.until("was removed from this cluster");
    assert!(
        log.last().unwrap().contains("node 1 was removed"),
        "{log:#?}"
    );
    assert!(first.wait().success());
    let why = refused_by(command().args(["serve", "--config"]).arg(a.config()));
    assert!(why.contains("was removed from its cluster"), "{why}");
    c.await_voters(&["b", "c"]);
    files.write(&[&b, &c], "without a").await;
    // Those that are left can let others in: the authority was not lost with the first.
    let token = done(c.ask(&["token"]).output().unwrap());
    let mut d = Machine::new(dir.path(), "d");
    d.join(token.trim());
    d.start();
    b.await_voters(&["b", "c", "d"]);
    files.write(&[&b, &c, &d], "of three again").await;

    any_node_carries_commands([&b, &c, &d]).await;

    // One dies; all of it is there, and the same everywhere.
    b.process.take().unwrap().kill();
    files.write(&[&c, &d], "without b").await;
    a_dead_node_is_told_of(&c, "b");
    b.start();
    files.write(&[&b, &c, &d], "of all three").await;

    // The log of one that joined is damaged: it fetches what it lost, and is who it was.
    d.process.take().unwrap().kill();
    damage_middle(&d.data().join("log"));
    d.start();
    let rebuilt = d.process.as_ref().unwrap();
    rebuilt.until("the log was damaged and is set aside");
    rebuilt.until("it takes part in elections again");
    b.await_voters(&["b", "c", "d"]);
    c.process.take().unwrap().kill();
    files.write(&[&b, &d], "with the vote of d").await;
    c.start();
    files.write(&[&b, &c, &d], "at the end").await;
    let start = Instant::now();
    loop {
        let mut hashes = Vec::new();
        for machine in [&b, &c, &d] {
            let socket = machine.data().join("control.sock");
            let asked = Admin::unix(&socket, PATIENCE).state_hash().await;
            hashes.extend(asked.ok());
        }
        if hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{hashes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_joins_and_keeps_the_service_going_when_one_of_two_nodes_dies() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Machine::new(dir.path(), "a");
    let mut b = Machine::new(dir.path(), "b");
    let mut w = Machine::new(dir.path(), "w");
    let mut files = Files::default();
    let tokens = a.init();
    a.start();
    files.write(&[&a], "of a").await;
    b.join(&tokens[0]);
    b.start();
    a.await_voters(&["a", "b"]);
    let told = done(
        w.setup(&["join", "--witness", &tokens[1]])
            .output()
            .unwrap(),
    );
    assert!(told.contains("as a witness"), "{told}");
    w.start();
    a.await_voters(&["a", "b", "w"]);
    assert!(w.status().await.unwrap().witness);
    files.write(&[&a, &b], "of three").await;
    a.process.take().unwrap().kill();
    files.write(&[&b], "with the vote of the witness").await;
    // A witness with nobody to join makes no cluster.
    let alone = Machine::new(dir.path(), "alone");
    alone.init();
    let config = std::fs::read_to_string(alone.config()).unwrap();
    let config = config.replace("[node]\n", "[node]\nrole = \"witness\"\n");
    std::fs::write(alone.config(), config).unwrap();
    let serve = ["serve", "--config"];
    let why = refused_by(command().args(serve).arg(alone.config()));
    assert!(why.contains("a witness cannot begin a cluster"), "{why}");
}

/// Says something on a node until it is done: who is to act may not have heard of the others yet.
fn say(on: &Machine, arguments: &[&str]) {
    let start = Instant::now();
    loop {
        let output = on.ask(arguments).output().unwrap();
        if output.status.success() {
            return;
        }
        let why = text(&output.stderr);
        assert!(start.elapsed() < PATIENCE, "{arguments:?}: {why}");
        std::thread::sleep(POLL);
    }
}

/// What is said on a node that neither leads nor is meant.
async fn any_node_carries_commands(nodes: [&Machine; 3]) {
    Files::client(&nodes).await;
    let mut others = Vec::new();
    for node in nodes {
        let status = node.status().await.unwrap();
        if !status.serving {
            others.push(node);
        }
    }
    let [meant, third, ..] = others[..] else {
        panic!("two nodes serve");
    };
    say(third, &["standby", meant.name]);
    assert!(meant.status().await.unwrap().standby);
    assert!(!third.status().await.unwrap().standby);
    say(third, &["online", meant.name]);
    assert!(!meant.status().await.unwrap().standby);
    let mut asking = third.ask(&["status", "--json", "--node", meant.name]);
    let told = asking.output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["asked"], meant.name);
    // The leader may not have heard yet that it may lead again.
    say(third, &["migrate", meant.name]);
    let start = Instant::now();
    while !meant.status().await.is_some_and(|status| status.serving) {
        assert!(start.elapsed() < PATIENCE, "{} does not lead", meant.name);
        tokio::time::sleep(POLL).await;
    }
    // What the other node refuses comes back in its words.
    let why = refused_by(&mut third.ask(&["migrate", meant.name]));
    let want = format!("node {0} answers: node {0} leads already", meant.name);
    assert!(why.contains(&want), "{why}");
    let log = meant.process.as_ref().unwrap();
    log.until(&format!("node {} brings a command: Standby", third.name));
}

fn a_dead_node_is_told_of(on: &Machine, dead: &str) {
    let start = Instant::now();
    let standby = loop {
        let why = refused_by(&mut on.ask(&["standby", dead]));
        assert!(why.contains(&format!("node {dead} ")), "{why}");
        assert!(why.contains("nothing was done"), "{why}");
        if why.contains("is down, or cut off") {
            break why;
        }
        assert!(start.elapsed() < PATIENCE, "{why}");
        std::thread::sleep(POLL);
    };
    assert!(
        standby.contains("does not lead as long as it is down")
            && standby.contains("haven node remove"),
        "{standby}"
    );
    let why = refused_by(&mut on.ask(&["online", dead]));
    assert!(why.contains("systemctl start haven"), "{why}");
    let output = on.ask(&["status", "--node", dead]).output().unwrap();
    let why = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{why}");
    assert!(why.contains("is down, or cut off"), "{why}");
    let why = refused_by(&mut on.ask(&["standby", "nobody"]));
    assert!(why.contains("there is no node nobody"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_none_and_strangers_are_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Machine::new(dir.path(), "a");
    let other = Machine::new(dir.path(), "other");
    let tokens = a.init();
    let good: Token = tokens[0].parse().unwrap();
    // The second has ended long ago.
    let member = a.data().join("cluster/member.json");
    let known = std::fs::read_to_string(&member).unwrap();
    let at = known.rfind(&good.expires.to_string()).unwrap();
    let ended = format!(
        "{}1000{}",
        &known[..at],
        &known[at + good.expires.to_string().len()..]
    );
    std::fs::write(&member, ended).unwrap();
    a.start();
    Files::default().write(&[&a], "a file").await;

    let say = |token: String| refused_by(&mut other.setup(&["join", &token]));
    let why = say(tokens[1].clone());
    assert!(
        why.contains("this token ended") && why.contains("days ago"),
        "{why}"
    );
    let why = say(tokens[0][..tokens[0].len() - 3].to_owned());
    assert!(why.contains("damaged"), "{why}");
    let forged = Token::create(good.authority, good.address.clone(), good.expires).unwrap();
    let why = say(forged.to_string());
    assert!(why.contains("knows no such token"), "{why}");
    let elsewhere =
        Token::create(Fingerprint([7; 32]), good.address.clone(), good.expires).unwrap();
    let why = say(elsewhere.to_string());
    assert!(why.contains("certificate of another cluster"), "{why}");
    let nobody = format!("127.0.0.1:{}", free_port());
    let nowhere = Token::create(good.authority, nobody, good.expires).unwrap();
    let why = say(nowhere.to_string());
    assert!(why.contains("does `haven serve` run there"), "{why}");
    let away = dir.path().join("away");
    std::fs::create_dir(&away).unwrap();
    let twin = Machine::new(&away, "a");
    let mut asked = twin.setup(&["join", &tokens[0]]);
    let why = refused_by(asked.args(["--at", &a.peers.to_string()]));
    assert!(why.contains("haven node remove a"), "{why}");

    // Other things that come to the port.
    let mut plain = TcpStream::connect(a.peers).unwrap();
    plain.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut told = String::new();
    // It is reset behind the answer, because not all was read.
    let _ = plain.read_to_string(&mut told);
    assert!(
        told.contains("this port is for the nodes of a Haven cluster"),
        "{told:?}"
    );
    a.process.as_ref().unwrap().until("it does not speak TLS");
    let slow: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut socket = TcpStream::connect(a.peers).unwrap();
            socket.write_all(b"\x16").unwrap();
            socket
        })
        .collect();
    // They do not keep the member from anything; the good token still counts.
    other.join(&tokens[0]);
    drop(slow);
    let process = a.process.take().unwrap();
    process.signal(Signal::TERM);
    assert!(process.wait().success());
    // A machine must not come back under its number with an empty log.
    std::fs::remove_dir_all(a.data().join("log")).unwrap();
    let mut serve = command();
    let again = refused_by(serve.args(["serve", "--config"]).arg(a.config()));
    assert!(again.contains("the log of this node is gone"), "{again}");
}

#[test]
fn a_configuration_with_a_cluster_needs_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let a = Machine::new(dir.path(), "a");
    a.init();
    std::fs::remove_dir_all(a.data()).unwrap();
    std::fs::create_dir(a.data()).unwrap();
    let why = refused_by(command().args(["serve", "--config"]).arg(a.config()));
    assert!(
        why.contains("haven init") && why.contains("haven join"),
        "{why}"
    );
    let why = refused_by(&mut a.setup(&["init", "--hours", "0"]));
    assert!(why.contains("1 to 8760 hours"), "{why}");
}
