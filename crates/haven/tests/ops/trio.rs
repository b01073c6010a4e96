//! Three nodes with files on loopback.

use crate::support::{Logged, command, free_port};
use haven_admin::{Client as Admin, ClusterStatus, NodeReport};
use haven_pki::Identity;
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A pause between looks at processes.
const MOMENT: Duration = Duration::from_millis(5);
pub const NAMES: [&str; 3] = ["a", "b", "c"];

pub struct Trio {
    dir: PathBuf,
    nodes: [Option<Logged>; 3],
}

impl Trio {
    /// Writes what the nodes need; `settings` is put at the end of a node's configuration.
    pub fn new(dir: &Path, settings: impl Fn(usize) -> String) -> Self {
        let ports = [(); 3].map(|()| (free_port(), free_port()));
        let peers = [(); 3].map(|()| free_port());
        let identities = Identity::found(3, |_| Ok(Vec::new())).unwrap();
        for (index, name) in NAMES.iter().enumerate() {
            let data = dir.join(name);
            let mut text = format!(
                "[node]\nname = \"{name}\"\ndata = \"{}\"\n[service]\nsquash = \"none\"\nportmapper = \"off\"\n\
                 listen = \"127.0.0.1\"\nnfs_port = {}\nmount_port = {}\n[cluster]\nname = \"trio\"\n",
                data.display(),
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
            text += &settings(index);
            std::fs::create_dir_all(&data).unwrap();
            std::fs::write(dir.join(format!("{name}.toml")), text).unwrap();
            identities[index].save(&data).unwrap();
        }
        Self {
            dir: dir.to_owned(),
            nodes: [const { None }; 3],
        }
    }

    pub fn config(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{}.toml", NAMES[index]))
    }

    pub fn start(&mut self, index: usize) {
        let mut command = command();
        command.args(["serve", "--config"]).arg(self.config(index));
        self.nodes[index] = Some(Logged::start(&mut command));
    }

    pub fn start_all(&mut self) {
        (0..3).for_each(|index| self.start(index));
    }

    pub fn node(&self, index: usize) -> &Logged {
        self.nodes[index].as_ref().unwrap()
    }

    /// Replaces text in a node's configuration.
    pub fn edit(&self, index: usize, old: &str, new: &str) {
        let config = self.config(index);
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains(old), "{old}: {text}");
        std::fs::write(config, text.replace(old, new)).unwrap();
    }

    /// Changes by hand where a stopped node listens for the others; from where, and to where.
    pub fn move_peer(&self, index: usize) -> (SocketAddr, SocketAddr) {
        let text = std::fs::read_to_string(self.config(index)).unwrap();
        let own = text.split("[[cluster.node]]").nth(index + 1).unwrap();
        let home = own.split("address = \"").nth(1).unwrap();
        let home: SocketAddr = home.split('"').next().unwrap().parse().unwrap();
        let elsewhere = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        self.edit(index, &home.to_string(), &elsewhere.to_string());
        (home, elsewhere)
    }

    /// A command about the cluster, asked of a node.
    pub fn ask(&self, index: usize, arguments: &[&str]) -> std::process::Command {
        let mut command = command();
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config(index));
        command
    }

    /// SIGTERM, and the end; all that the node said since it was asked last.
    pub fn terminate(&mut self, index: usize) -> String {
        let node = self.nodes[index].take().unwrap();
        node.signal(Signal::TERM);
        let said = node.rest();
        assert!(node.wait().success(), "{said}");
        said
    }

    fn admin(&self, index: usize) -> Admin {
        let socket = self.dir.join(NAMES[index]).join("control.sock");
        Admin::unix(&socket, Duration::from_secs(5))
    }

    /// How a node sees itself, if it answers.
    pub async fn report(&self, index: usize) -> Option<NodeReport> {
        self.admin(index).node().await.ok()
    }

    /// How a node sees the cluster, if it answers.
    pub async fn status(&self, index: usize) -> Option<ClusterStatus> {
        self.admin(index).status().await.ok()
    }

    /// Waits until what is looked for is there.
    pub async fn wait<T>(&self, what: &str, mut look: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self).await {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "{what}");
            tokio::time::sleep(MOMENT).await;
        }
    }

    /// Waits until a node serves: which, and how it sees itself.
    pub async fn serving(&self) -> (usize, NodeReport) {
        self.wait("somebody serves", async |trio| {
            for index in 0..3 {
                let report = trio.report(index).await;
                if let Some(report) = report.filter(|report| report.serving) {
                    return Some((index, report));
                }
            }
            None
        })
        .await
    }

    /// Waits until the leader hears that both others have all entries, and all that run have heard of the leader.
    pub async fn caught_up(&self) -> (usize, NodeReport) {
        self.wait("the others have everything", async |trio| {
            let (leader, report) = trio.serving().await;
            for index in 0..3 {
                let known = trio.status(index).await?;
                known.nodes.iter().find(|node| {
                    node.facts.name == NAMES[leader]
                        && node.facts.report.as_ref().is_some_and(|told| told.serving)
                })?;
            }
            let ready = report.peers.values().filter(|peer| {
                peer.matched == Some(report.last_log)
                    && peer.acked_ms_ago.is_some_and(|ms| ms < 500)
            });
            (ready.count() == 2).then_some((leader, report))
        })
        .await
    }
}
