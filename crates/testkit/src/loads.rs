//! Full and lossy networks: the cables of a laboratory's nodes carry only so much, or lose some of what they carry, while
//! clients write as fast as they are answered.
//!
//! It must cost throughput and nothing else: no lapse of the lease, no election, and no client connection that ends. How
//! fast it goes and how long a client waited at most is told and not judged.

use crate::{
    CHECKPOINT_OFTEN, each_in_a_process, haven_exe, in_own_network, kept_on_failure, start_cluster,
};
use bytes::Bytes;
use clap::ValueEnum;
use haven::demo::lab::{EXPORT, FLOATING, Lab, NODES};
use haven_client::{Client, Options};
use haven_config::{MOUNT_PORT_DEFAULT, NFS_PORT_DEFAULT};
use haven_platform::netns::Netns;
use haven_proto::nfs3::{Createhow3, Fh3, Sattr3, StableHow};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A large block; a client writes one after the other, so many to a file, then over them again.
const BLOCK: usize = 1 << 20;
const BLOCKS: u64 = 16;
/// A small file, and so many of each client are there at a time.
const SMALL: usize = 4 << 10;
const SMALL_FILES: u64 = 64;
/// What a queue before a cable may hold: so much time, and so many bytes at once.
const QUEUE: &str = "50ms";
const BURST: &str = "256kb";
/// How long a client waits before it gives a connection up: as long as a kernel's keepalive.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between looks.
const POLL: Duration = Duration::from_millis(50);
/// How a lapse shows in a node's log.
const LAPSED: &str = "LeaseLapsed";

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Cables without a limit, to compare; blocks of 1 MiB.
    Free,
    /// Cables of 1 Gbit/s each way; blocks of 1 MiB.
    #[value(name = "1000mbit")]
    Mbit1000,
    /// 500 Mbit/s.
    #[value(name = "500mbit")]
    Mbit500,
    /// 200 Mbit/s.
    #[value(name = "200mbit")]
    Mbit200,
    /// 50 Mbit/s.
    #[value(name = "50mbit")]
    Mbit50,
    /// Every hundredth packet is lost; small files.
    #[value(name = "loss1")]
    Loss1,
    /// Three of a hundred.
    #[value(name = "loss3")]
    Loss3,
    /// Five.
    #[value(name = "loss5")]
    Loss5,
    /// Cables of 1 Gbit/s, and a node that was away fetches everything meanwhile.
    #[value(name = "catch-up")]
    CatchUp,
}

/// What is asked for.
#[derive(clap::Args, Clone, Debug)]
pub struct Plan {
    /// Which; none: all.
    cases: Vec<Case>,
    /// How long each, in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Clients, each with a connection of its own.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// What a node that was away has to fetch, in MiB.
    #[arg(long, default_value_t = 10 << 10)]
    behind_mib: u64,
}

fn words(e: impl std::fmt::Display) -> String {
    e.to_string()
}

impl Case {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What the cables carry each way, in Mbit/s.
    fn rate_mbit(self) -> Option<u32> {
        match self {
            Case::Mbit1000 | Case::CatchUp => Some(1000),
            Case::Mbit500 => Some(500),
            Case::Mbit200 => Some(200),
            Case::Mbit50 => Some(50),
            Case::Free | Case::Loss1 | Case::Loss3 | Case::Loss5 => None,
        }
    }

    /// How many of a hundred packets are lost.
    fn loss(self) -> Option<u32> {
        match self {
            Case::Loss1 => Some(1),
            Case::Loss3 => Some(3),
            Case::Loss5 => Some(5),
            _ => None,
        }
    }
}

/// Plays what is asked for, each in a process of its own, and prints a table.
///
/// # Errors
/// When not everything is as it must be, in words.
pub fn run(plan: &Plan) -> Result<(), String> {
    if let [case] = plan.cases[..] {
        println!("{}", Figures::HEAD);
        return one(case, plan);
    }
    let cases = match plan.cases.is_empty() {
        true => Case::value_variants().to_vec(),
        false => plan.cases.clone(),
    };
    each_in_a_process(cases, |case, command| {
        command.args(["loads", &case.name()]);
        command.args(["--seconds", &plan.seconds.to_string()]);
        command.args(["--clients", &plan.clients.to_string()]);
        command.args(["--behind-mib", &plan.behind_mib.to_string()]);
    })
}

fn one(case: Case, plan: &Plan) -> Result<(), String> {
    let exe = haven_exe()?;
    let plan = plan.clone();
    kept_on_failure(|dir| in_own_network(play(case, plan, dir, &exe)))
}

async fn play(case: Case, plan: Plan, dir: &Path, exe: &Path) -> Result<(), String> {
    let settings = match case {
        Case::CatchUp => CHECKPOINT_OFTEN,
        _ => "",
    };
    let mut lab = start_cluster(dir, exe, settings).await?;
    let leader = lab.wait_serving(None).await?;
    let away = (leader + 1) % NODES;
    if case == Case::CatchUp {
        fall_behind(&mut lab, away, plan.behind_mib).await?;
    }
    for node in 0..NODES {
        restrict(&lab, node, case)?;
    }
    let work = match case.loss() {
        None => Work::Blocks,
        Some(_) => Work::Files,
    };
    let load = Load::start(&lab.client, plan.clients, work)?;
    load.begun().await?;
    if case == Case::CatchUp {
        lab.start(away)?;
    }
    let before = Seen::take(&lab, leader).await?;
    load.open_window();
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(plan.seconds)).await;
    let took = begun.elapsed();
    let done = load.figures();
    let after = Seen::take(&lab, leader).await;
    let figures = Figures {
        case,
        took,
        done,
        before,
        after: after?,
        connections: load.finish().await?,
        clients: plan.clients as u64,
    };
    println!("{figures}");
    for node in 0..NODES {
        free(&lab, node, case)?;
    }
    same_everywhere(&lab).await?;
    figures.judge()
}

/// All nodes hold the same in the end.
async fn same_everywhere(lab: &Lab) -> Result<(), String> {
    let leader = lab.wait_serving(None).await?;
    let begun = Instant::now();
    for node in (0..NODES).filter(|node| *node != leader) {
        while let Err(why) = lab.wait_caught_up(node, leader).await {
            if begun.elapsed() > PATIENCE {
                return Err(why);
            }
        }
    }
    match lab.compare_states().await? {
        true => Ok(()),
        false => Err("the nodes hold different states".into()),
    }
}

/// A node is away while so much is written that the log is no help to it.
async fn fall_behind(lab: &mut Lab, away: usize, mib: u64) -> Result<(), String> {
    lab.kill(&[away])?;
    let load = Load::start(&lab.client, 4, Work::Grow)?;
    load.begun().await?;
    load.open_window();
    while load.figures().bytes >> 20 < mib {
        tokio::time::sleep(POLL).await;
    }
    load.finish().await.map(drop)
}

/// A command in a network: a node's, or the one of the switch.
fn command(netns: Option<&Netns>, line: &str) -> Result<(), String> {
    let mut words_of = line.split_whitespace();
    let mut command = Command::new(words_of.next().unwrap_or_default());
    command.args(words_of);
    if let Some(netns) = netns {
        netns.set_for(&mut command).map_err(words)?;
    }
    let output = command
        .output()
        .map_err(|e| format!("{line}: {e}; it is in Debian's iproute2 (tc) or nftables (nft)"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!("{line}: {}", why.trim()))
        }
    }
}

/// Lets a node's cable carry no more than that both ways, or lose some of what arrives at the node.
fn restrict(lab: &Lab, node: usize, case: Case) -> Result<(), String> {
    let netns = lab.nodes[node].netns();
    if let Some(rate) = case.rate_mbit() {
        let shape = |port: &str| {
            format!(
                "tc qdisc add dev {port} root tbf rate {rate}mbit burst {BURST} latency {QUEUE}"
            )
        };
        command(Some(&netns), &shape("eth0"))?;
        command(None, &shape(&lab.nodes[node].port()))?;
    }
    if let Some(loss) = case.loss() {
        let lines = [
            "nft add table inet loss".to_owned(),
            "nft add chain inet loss in { type filter hook input priority 0 ; }".to_owned(),
            format!("nft add rule inet loss in iifname eth0 numgen random mod 100 < {loss} drop"),
        ];
        for line in lines {
            command(Some(&netns), &line)?;
        }
    }
    Ok(())
}

/// Takes back what [`restrict`] did.
fn free(lab: &Lab, node: usize, case: Case) -> Result<(), String> {
    let netns = lab.nodes[node].netns();
    if case.rate_mbit().is_some() {
        command(Some(&netns), "tc qdisc del dev eth0 root")?;
        command(
            None,
            &format!("tc qdisc del dev {} root", lab.nodes[node].port()),
        )?;
    }
    if case.loss().is_some() {
        command(Some(&netns), "nft delete table inet loss")?;
    }
    Ok(())
}

/// What the nodes know, and their kernels.
struct Seen {
    term: u64,
    lapses: usize,
    /// Connections that nodes set up to each other.
    links: u64,
}

impl Seen {
    async fn take(lab: &Lab, leader: usize) -> Result<Self, String> {
        let begun = Instant::now();
        let term = loop {
            match lab.status(leader).await {
                Ok(status) => break status.term,
                Err(why) if begun.elapsed() > PATIENCE => return Err(why),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        };
        let (mut lapses, mut links) = (0, 0);
        for node in &lab.nodes {
            let log = fs::read_to_string(node.log()).map_err(words)?;
            lapses += log.matches(LAPSED).count();
            links += node.run(opened)??;
        }
        Ok(Self {
            term,
            lapses,
            links,
        })
    }
}

/// Connections that this network's machine has set up so far (proc_net(5): the second line of TCP has the values).
fn opened() -> Result<u64, String> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").map_err(words)?;
    let mut tcp = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next(), tcp.next());
    let at = names.and_then(|names| names.split(' ').position(|name| name == "ActiveOpens"));
    let value = at.and_then(|at| values?.split(' ').nth(at));
    let value = value.ok_or("the kernel does not count connections")?;
    value.parse().map_err(words)
}

/// What a run came to.
struct Figures {
    case: Case,
    took: Duration,
    done: Done,
    before: Seen,
    after: Seen,
    /// Connections that clients made.
    connections: u64,
    clients: u64,
}

impl Figures {
    const HEAD: &str = "| network | MiB/s | operations/s | longest wait, ms | lapses | elections | clients reconnected | \
                        nodes reconnected |";

    fn lapses(&self) -> usize {
        self.after.lapses - self.before.lapses
    }

    fn elections(&self) -> u64 {
        self.after.term - self.before.term
    }

    fn reconnected(&self) -> u64 {
        self.connections.saturating_sub(self.clients)
    }

    fn judge(&self) -> Result<(), String> {
        let (lapses, elections, reconnected) =
            (self.lapses(), self.elections(), self.reconnected());
        if lapses == 0 && elections == 0 && reconnected == 0 {
            return Ok(());
        }
        Err(format!(
            "{}: {lapses} lapses, {elections} elections, {reconnected} clients reconnected",
            self.case.name()
        ))
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "| {} | {:.1} | {:.0} | {} | {} | {} | {} | {} |",
            self.case.name(),
            self.done.bytes as f64 / seconds / f64::from(1 << 20),
            self.done.operations as f64 / seconds,
            self.done.longest.as_millis(),
            self.lapses(),
            self.elections(),
            self.reconnected(),
            self.after.links - self.before.links,
        )
    }
}

/// What clients did since the window was opened.
#[derive(Default)]
struct Done {
    bytes: u64,
    operations: u64,
    longest: Duration,
}

/// What clients do, one thing after the other.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// Blocks of a file, again and again.
    Blocks,
    /// Blocks of a file that grows.
    Grow,
    /// Small files, which go again later.
    Files,
}

/// Shared by the clients.
#[derive(Default)]
struct Tally {
    bytes: AtomicU64,
    operations: AtomicU64,
    longest_ms: AtomicU64,
    /// Clients that have completed something.
    begun: AtomicU64,
    over: AtomicBool,
    failed: std::sync::Mutex<Option<String>>,
}

impl Tally {
    fn note(&self, begun: Instant, bytes: usize) {
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.longest_ms.fetch_max(took, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn failure(&self) -> Option<String> {
        let failed = self.failed.lock();
        failed.map_or_else(|_| Some("a client panicked".into()), |why| why.clone())
    }
}

/// Clients on a machine of their own.
struct Load {
    tally: Arc<Tally>,
    clients: usize,
    thread: JoinHandle<Result<u64, String>>,
}

impl Load {
    fn start(netns: &Arc<Netns>, clients: usize, work: Work) -> Result<Self, String> {
        let tally = Arc::new(Tally::default());
        let (netns, of_thread) = (Arc::clone(netns), Arc::clone(&tally));
        let body = move || {
            netns.enter_thread().map_err(words)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .map_err(words)?
                .block_on(all(of_thread, clients, work))
        };
        let thread = std::thread::Builder::new().name("clients".into());
        Ok(Self {
            thread: thread.spawn(body).map_err(words)?,
            tally,
            clients,
        })
    }

    /// Waits until every client has completed something.
    async fn begun(&self) -> Result<(), String> {
        let begun = Instant::now();
        while self.tally.begun.load(Ordering::Relaxed) < self.clients as u64 {
            if let Some(why) = self.tally.failure() {
                return Err(why);
            }
            if begun.elapsed() > PATIENCE || self.thread.is_finished() {
                return Err("not all clients come to anything".into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn open_window(&self) {
        for counter in [
            &self.tally.bytes,
            &self.tally.operations,
            &self.tally.longest_ms,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    fn figures(&self) -> Done {
        Done {
            bytes: self.tally.bytes.load(Ordering::Relaxed),
            operations: self.tally.operations.load(Ordering::Relaxed),
            longest: Duration::from_millis(self.tally.longest_ms.load(Ordering::Relaxed)),
        }
    }

    /// Ends it when every client has its answer; the connections that they made.
    async fn finish(self) -> Result<u64, String> {
        self.tally.over.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while !self.thread.is_finished() {
            if begun.elapsed() > PATIENCE {
                return Err("a client does not get its answer".into());
            }
            tokio::time::sleep(POLL).await;
        }
        self.thread.join().map_err(|_| "the clients panicked")?
    }
}

async fn all(tally: Arc<Tally>, clients: usize, work: Work) -> Result<u64, String> {
    let mut each = JoinSet::new();
    for n in 0..clients {
        each.spawn(client(Arc::clone(&tally), n, work));
    }
    let mut connections = 0;
    while let Some(done) = each.join_next().await {
        match done.map_err(words)? {
            Ok(made) => connections += made,
            Err(why) => {
                if let Ok(mut failed) = tally.failed.lock() {
                    *failed = Some(why.clone());
                }
                return Err(why);
            }
        }
    }
    Ok(connections)
}

async fn client(tally: Arc<Tally>, n: usize, work: Work) -> Result<u64, String> {
    let options = Options {
        mount_port: MOUNT_PORT_DEFAULT,
        retransmit_timeout: KEEPALIVE,
        // As long as it takes.
        jukebox_retries_max: u32::MAX,
        ..Options::default()
    };
    let client = Client::new(SocketAddr::from((FLOATING, NFS_PORT_DEFAULT)), options);
    let root = client.mount(EXPORT).await.map_err(words)?;
    match work {
        Work::Blocks => write_blocks(&client, &root, &tally, (n, BLOCKS)).await?,
        Work::Grow => write_blocks(&client, &root, &tally, (n, u64::MAX)).await?,
        Work::Files => make_files(&client, &root, &tally, n).await?,
    }
    Ok(client.stats().connections)
}

async fn new_file(client: &Client, root: &Fh3, name: &str) -> Result<Fh3, String> {
    let how = Createhow3::Unchecked(Sattr3::default());
    let made = client.create(root, name, how).await.map_err(words)?;
    made.obj.ok_or_else(|| "CREATE gave no handle".into())
}

async fn write_blocks(
    client: &Client,
    root: &Fh3,
    tally: &Tally,
    (n, blocks): (usize, u64),
) -> Result<(), String> {
    let name = format!("blocks-{n}-{blocks}");
    let file = new_file(client, root, &name).await?;
    let mut at = 0_u64;
    while !tally.is_over() {
        let block = at % blocks;
        let data = Bytes::from(vec![block as u8; BLOCK]);
        let begun = Instant::now();
        let wrote = client.write(&file, block << 20, StableHow::FileSync, data);
        wrote.await.map_err(words)?;
        tally.note(begun, BLOCK);
        tally.begun.fetch_add(u64::from(at == 0), Ordering::Relaxed);
        at += 1;
    }
    Ok(())
}

async fn make_files(client: &Client, root: &Fh3, tally: &Tally, n: usize) -> Result<(), String> {
    let mut at = 0_u64;
    while !tally.is_over() {
        let begun = Instant::now();
        let file = new_file(client, root, &format!("small-{n}-{at}")).await?;
        tally.note(begun, 0);
        let begun = Instant::now();
        let data = Bytes::from(vec![at as u8; SMALL]);
        let wrote = client.write(&file, 0, StableHow::FileSync, data);
        wrote.await.map_err(words)?;
        tally.note(begun, SMALL);
        if let Some(old) = at.checked_sub(SMALL_FILES) {
            let begun = Instant::now();
            let name = format!("small-{n}-{old}");
            let removed = client.remove(root, name.as_str()).await;
            removed.map_err(words)?;
            tally.note(begun, 0);
        }
        tally.begun.fetch_add(u64::from(at == 0), Ordering::Relaxed);
        at += 1;
    }
    Ok(())
}
