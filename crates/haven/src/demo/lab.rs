//! The demo's laboratory: a network of its own on this machine, and three nodes in it.
//!
//! Each node lives in a network namespace with one cable to a bridge, so addresses, ARP and partitions
//! are real. Nothing touches the machine's own network, and everything vanishes with this process.

use haven_admin::{Client, MoveRequest, NodeReport, Phase, StateHash};
use haven_pki::Identity;
use haven_platform::netns::Netns;
use haven_platform::{addr, link, neigh};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nodes of the demo.
pub const NODES: usize = 3;
/// The floating address.
pub const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// The address of this process's own network in the laboratory.
const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// What is exported.
pub const EXPORT: &str = "/data";
/// Bits of the network's prefix.
const PREFIX: u8 = 24;
/// Port between the nodes.
const PEER_PORT: u16 = 7400;
/// How long a node may take to answer on its control socket.
const CONTROL_PATIENCE: Duration = Duration::from_millis(500);
/// A state hash reads everything.
const HASH_PATIENCE: Duration = Duration::from_secs(60);
/// A node that tells something each quarter of a second has been heard within this.
const HEARD_MS_MAX: u64 = 1_000;
/// Pause between looks at the nodes.
const POLL: Duration = Duration::from_millis(10);
/// How long the cluster may take to get anywhere.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node of the demo.
pub struct Node {
    /// Its name: a, b, c.
    pub name: String,
    netns: Arc<Netns>,
    dir: PathBuf,
    process: Option<Child>,
}

/// The laboratory.
pub struct Lab {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The client's namespace.
    pub client: Arc<Netns>,
    exe: PathBuf,
}

fn words(e: impl std::fmt::Display) -> String {
    e.to_string()
}

fn node_name(index: usize) -> char {
    char::from(b'a' + u8::try_from(index).unwrap_or(0))
}

fn node_ip(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(index + 1).unwrap_or(u8::MAX))
}

impl Lab {
    /// Builds the network and writes the nodes' configurations below `dir`, with `more` lines in each one's
    /// `[node]`. Must be called in a network namespace made for the demo.
    ///
    /// # Errors
    /// What the kernel refused, in words.
    pub fn build(dir: &Path, exe: &Path, more: &str) -> Result<Self, String> {
        link::add_bridge("haven0").map_err(words)?;
        link::set_up("haven0", true).map_err(words)?;
        let here = addr::Subnet::new(IpAddr::V4(HERE), PREFIX).map_err(words)?;
        let here = addr::place(here, Some("haven0")).map_err(words)?;
        addr::add(&here, None).map_err(words)?;
        let client = Arc::new(plug("client", Ipv4Addr::new(10, 77, 0, 200))?);
        let mut nodes = Vec::new();
        // A cluster that nobody else can join: its authority is thrown away with it.
        let identities = Identity::found(NODES as u64, |_| Ok(Vec::new())).map_err(words)?;
        for (index, identity) in identities.iter().enumerate() {
            let name = node_name(index).to_string();
            let netns = Arc::new(plug(&name, node_ip(index))?);
            let node = Node {
                dir: dir.join(&name),
                name,
                netns,
                process: None,
            };
            fs::create_dir_all(&node.dir).map_err(words)?;
            fs::write(node.config(), config(&node, more)).map_err(words)?;
            identity.save(&node.dir.join("data")).map_err(words)?;
            nodes.push(node);
        }
        Ok(Self {
            nodes,
            client,
            exe: exe.to_owned(),
        })
    }

    /// The address of a node's own that never moves.
    pub fn own_address(index: usize) -> Ipv4Addr {
        node_ip(index)
    }

    /// Starts a node's process.
    pub fn start(&mut self, index: usize) -> Result<(), String> {
        let node = &mut self.nodes[index];
        let log = File::options()
            .create(true)
            .append(true)
            .open(node.log())
            .map_err(words)?;
        let mut command = Command::new(&self.exe);
        command.arg("serve").arg("--config").arg(node.config());
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(words)?).stderr(log);
        node.netns.set_for(&mut command).map_err(words)?;
        node.process = Some(command.spawn().map_err(words)?);
        Ok(())
    }

    /// Starts every node and waits until one serves; gives that one.
    ///
    /// # Errors
    /// When a process cannot be started, or no node serves in time, in words.
    pub async fn start_all(&mut self) -> Result<usize, String> {
        for index in 0..NODES {
            self.start(index)?;
        }
        self.wait_serving(None).await
    }

    /// Kills the processes of nodes (SIGKILL), all before any is waited for.
    ///
    /// # Errors
    /// What the system said, in words.
    pub fn kill(&mut self, indices: &[usize]) -> Result<(), String> {
        let mut children: Vec<Child> = indices
            .iter()
            .filter_map(|i| self.nodes[*i].process.take())
            .collect();
        for child in &mut children {
            child.kill().map_err(words)?;
        }
        for mut child in children {
            child.wait().map_err(words)?;
        }
        Ok(())
    }

    /// Tells the processes of nodes to end (SIGTERM).
    ///
    /// # Errors
    /// When one is gone, in words.
    pub fn terminate(&self, indices: &[usize]) -> Result<(), String> {
        for index in indices {
            kill_process(self.pid(*index)?, Signal::TERM).map_err(words)?;
        }
        Ok(())
    }

    /// Starts a node's process unless it runs.
    ///
    /// # Errors
    /// What the system said, in words.
    pub fn start_if_ended(&mut self, index: usize) -> Result<(), String> {
        let process = &mut self.nodes[index].process;
        let runs = match process {
            Some(child) => child.try_wait().map_err(words)?.is_none(),
            None => false,
        };
        if runs { Ok(()) } else { self.start(index) }
    }

    fn pid(&self, index: usize) -> Result<Pid, String> {
        let process = self.nodes[index].process.as_ref();
        let pid = process.and_then(|c| Pid::from_raw(i32::try_from(c.id()).ok()?));
        pid.ok_or_else(|| "the node does not run".to_owned())
    }

    /// Stops or continues a node's process. When it returns, every thread has stopped: a signal alone lets
    /// them run on for a moment.
    ///
    /// # Errors
    /// When the process is gone, in words.
    pub fn freeze(&self, index: usize, frozen: bool) -> Result<(), String> {
        let pid = self.pid(index)?;
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        kill_process(pid, signal).map_err(words)?;
        while frozen && !all_stopped(pid.as_raw_nonzero().get())? {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Pulls or plugs a node's cable at the bridge: the node's own link stays up.
    pub fn cut(&self, index: usize, cut: bool) -> Result<(), String> {
        let port = self.nodes[index].port();
        if cut {
            link::detach(&port)
        } else {
            link::attach(&port, "haven0")
        }
        .map_err(words)
    }

    /// Takes the carrier of a node's cable away, or gives it back.
    ///
    /// # Errors
    /// What the kernel refused, in words.
    pub fn port(&self, index: usize, up: bool) -> Result<(), String> {
        link::set_up(&self.nodes[index].port(), up).map_err(words)
    }

    /// Switches a node's own interface off or on.
    ///
    /// # Errors
    /// What the kernel refused, in words.
    pub fn interface(&self, index: usize, up: bool) -> Result<(), String> {
        let work = || link::set_up("eth0", up);
        self.nodes[index].run(work)?.map_err(words)
    }

    /// Switches off or on what all cables end in. They keep their carriers.
    ///
    /// # Errors
    /// What the kernel refused, in words.
    pub fn switch(&self, up: bool) -> Result<(), String> {
        link::set_up("haven0", up).map_err(words)
    }

    /// Makes everything vanish (or arrive again) that a node sends to the others (`out`), or they to it.
    ///
    /// # Errors
    /// What the kernel refused, in words.
    pub fn one_way(&self, index: usize, out: bool, begin: bool) -> Result<(), String> {
        for other in (0..NODES).filter(|other| *other != index) {
            match out {
                true => self.mute(index, other, begin)?,
                false => self.mute(other, index, begin)?,
            }
        }
        Ok(())
    }

    /// Makes everything vanish (or arrive again) that one node sends to another: a cable that carries one
    /// way only.
    ///
    /// # Errors
    /// What the kernel refused, in words.
    pub fn mute(&self, from: usize, to: usize, mute: bool) -> Result<(), String> {
        let work = || match mute {
            true => neigh::misdirect("eth0", node_ip(to)),
            false => neigh::direct("eth0", node_ip(to)),
        };
        self.nodes[from].run(work)?.map_err(words)
    }

    /// Waits until a node's process ends by itself, and how it did.
    ///
    /// # Errors
    /// When it does not run, or does not end, in words.
    pub async fn wait_end(&mut self, index: usize) -> Result<std::process::ExitStatus, String> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let node = &mut self.nodes[index];
            let process = node.process.as_mut().ok_or("the node does not run")?;
            if let Some(status) = process.try_wait().map_err(words)? {
                node.process = None;
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
        Err(format!(
            "node {} has not ended within {PATIENCE:?}",
            self.nodes[index].name
        ))
    }

    /// Whether a node's process has been started and not killed.
    pub fn runs(&self, index: usize) -> bool {
        self.nodes[index].process.is_some()
    }

    /// Asks a node how it is.
    pub async fn status(&self, index: usize) -> Result<NodeReport, String> {
        let client = self.ask(index, CONTROL_PATIENCE);
        client.node().await.map_err(words)
    }

    /// Asks a node until it answers: one that is busy may let a question wait.
    ///
    /// # Errors
    /// When it never does, in words.
    pub async fn status_of_busy(&self, index: usize) -> Result<NodeReport, String> {
        let start = Instant::now();
        loop {
            match self.status(index).await {
                Err(_) if start.elapsed() < PATIENCE => tokio::time::sleep(POLL).await,
                answer => return answer,
            }
        }
    }

    /// One asker for each node, which may take so long to answer.
    pub fn askers(&self, patience: Duration) -> Vec<Client> {
        let nodes = 0..self.nodes.len();
        nodes.map(|index| self.ask(index, patience)).collect()
    }

    fn ask(&self, index: usize, patience: Duration) -> Client {
        Client::unix(&self.nodes[index].control(), patience)
    }

    /// Asks a node for its state hash.
    pub async fn state_hash(&self, index: usize) -> Result<StateHash, String> {
        let client = self.ask(index, HASH_PATIENCE);
        client.state_hash().await.map_err(words)
    }

    /// Asks a node to move the service to another.
    pub async fn request_move(&self, index: usize) -> Result<(), String> {
        let client = self.ask(index, CONTROL_PATIENCE);
        let moved = client.move_service(MoveRequest::default()).await;
        moved.map(drop).map_err(words)
    }

    /// Waits for a node that serves, other than `except`.
    pub async fn wait_serving(&self, except: Option<usize>) -> Result<usize, String> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            for index in (0..NODES).filter(|i| Some(*i) != except) {
                if self.status(index).await.is_ok_and(|s| s.serving) {
                    return Ok(index);
                }
            }
            tokio::time::sleep(POLL).await;
        }
        Err(format!("no node serves within {PATIENCE:?}"))
    }

    /// Waits until a node follows another, has applied what that one has by now, and hears what it tells. Before that, what
    /// happens next happens in the middle of what was before.
    pub async fn wait_caught_up(&self, index: usize, leader: usize) -> Result<(), String> {
        let start = Instant::now();
        let want = self.status_of_busy(leader).await?.applied;
        while start.elapsed() < PATIENCE {
            if let Ok(status) = self.status(index).await
                && status.phase == Phase::Idle
                && status.leader.is_some()
                && status.applied >= want
                && self.hears(index, leader).await
            {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(format!(
            "node {} has not caught up within {PATIENCE:?}",
            self.nodes[index].name
        ))
    }

    /// Whether a node has heard lately what another tells of itself and its clients.
    async fn hears(&self, index: usize, other: usize) -> bool {
        let Ok(status) = self.ask(index, CONTROL_PATIENCE).status().await else {
            return false;
        };
        let mut nodes = status.nodes.iter();
        let known = nodes.find(|node| node.facts.name == self.nodes[other].name);
        let heard = known.and_then(|node| node.facts.heard_ms_ago);
        heard.is_some_and(|ms| ms < HEARD_MS_MAX)
    }

    /// Waits until all nodes have applied the same, and compares their hashes. To be called without load.
    ///
    /// # Errors
    /// When a node does not answer or the nodes do not come to rest, in words.
    pub async fn compare_states(&self) -> Result<bool, String> {
        let start = Instant::now();
        loop {
            let seen = self.state_hashes().await;
            match &seen {
                Ok(hashes) if hashes.iter().all(|h| h.applied == hashes[0].applied) => {
                    return Ok(hashes.iter().all(|h| h.hash == hashes[0].hash));
                }
                _ if start.elapsed() > PATIENCE => {
                    return Err(format!("the nodes do not come to rest: {seen:?}"));
                }
                // A node that was started just now may not answer yet.
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn state_hashes(&self) -> Result<Vec<StateHash>, String> {
        let mut hashes = Vec::new();
        for index in 0..NODES {
            hashes.push(self.state_hash(index).await?);
        }
        Ok(hashes)
    }
}

/// Whether every thread of a process is stopped (proc_pid_stat(5): state T, behind the name in brackets).
fn all_stopped(pid: i32) -> Result<bool, String> {
    for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(words)? {
        // A thread may end while it is looked at.
        let Ok(stat) = fs::read_to_string(task.map_err(words)?.path().join("stat")) else {
            continue;
        };
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        if state != Some('T') {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Drop for Lab {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.process {
                // They may be gone already.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

impl Node {
    /// Runs `work` as if on this node's machine.
    ///
    /// # Errors
    /// When its namespace cannot be entered, in words.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, String> {
        self.netns.run(work).map_err(words)
    }

    /// Where the node's machine is on the network.
    pub fn netns(&self) -> Arc<Netns> {
        Arc::clone(&self.netns)
    }

    /// The switch's end of its cable, in the network of this process.
    pub fn port(&self) -> String {
        port_name(&self.name)
    }

    /// The node's directory: configuration, log, data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("haven.toml")
    }

    fn control(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Where the node's own words go.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// Makes a namespace with a cable to the bridge.
fn plug(name: &str, ip: Ipv4Addr) -> Result<Netns, String> {
    let netns = Netns::new().map_err(words)?;
    let port = port_name(name);
    link::add_veth(&port, "eth0", &netns).map_err(words)?;
    link::attach(&port, "haven0").map_err(words)?;
    link::set_up(&port, true).map_err(words)?;
    netns
        .run(|| {
            let subnet = addr::Subnet::new(IpAddr::V4(ip), PREFIX)?;
            let placed = addr::place(subnet, Some("eth0"))?;
            addr::add(&placed, None)?;
            link::set_up("eth0", true)
        })
        .map_err(words)?
        .map_err(words)?;
    Ok(netns)
}

fn port_name(name: &str) -> String {
    format!("port-{name}")
}

fn config(node: &Node, more: &str) -> String {
    let mut text = format!(
        "[node]\nname = \"{}\"\ndata = \"{}\"\ncontrol = \"{}\"\n{more}\n[cluster]\nname = \"demo\"\n",
        node.name,
        node.dir.join("data").display(),
        node.control().display(),
    );
    for index in 0..NODES {
        let name = node_name(index);
        let address = SocketAddr::from((node_ip(index), PEER_PORT));
        text += &format!(
            "\n[[cluster.node]]\nid = {}\nname = \"{name}\"\naddress = \"{address}\"\n",
            index + 1
        );
    }
    text += &format!(
        "\n[service]\naddresses = [\"{FLOATING}/{PREFIX}\"]\nsquash = \"none\"\nportmapper = \"off\"\n\n[[export]]\npath = \"{EXPORT}\"\n"
    );
    text
}

/// A directory for the demo's files, removed at the end unless something went wrong.
pub struct Workplace {
    dir: PathBuf,
    keep: bool,
}

impl Workplace {
    /// Makes the one that is asked for, to be kept; or one in the system's place for temporary files.
    ///
    /// # Errors
    /// When it cannot be made, or exists.
    pub fn new(asked: Option<&Path>) -> io::Result<Self> {
        let dir = asked.map_or_else(
            || std::env::temp_dir().join(format!("haven-demo-{}", std::process::id())),
            Path::to_owned,
        );
        fs::create_dir(&dir)?;
        Ok(Self {
            dir: dir.canonicalize()?,
            keep: asked.is_some(),
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves it there.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing depends on it.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
