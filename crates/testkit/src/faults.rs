//! One fault after another, each with what must hold during and after it: nothing acknowledged lost, nothing
//! done twice, at most one node that answers, equal states in the end.
//!
//! Each play has a cluster and clients of its own. docs/operate/faults.md lists what is played.

mod clocks;

use crate::afflicted::{Affliction, Hang, afflict};
use crate::silence::{Spy, log_handle};
use crate::{CHECKPOINT_OFTEN, Torture, each_in_a_process, in_own_network, kept_on_failure};
use haven::demo::client::ClientThread;
use haven::demo::lab::{EXPORT, FLOATING, Lab, NODES};
use haven_client::{Client, ClientError, Options};
use haven_config::{MOUNT_PORT_DEFAULT, NFS_PORT_DEFAULT};
use haven_platform::netns::Netns;
use haven_proto::nfs3::{Createhow3, Fh3, Nfsstat3, Sattr3};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Operations that every client completes while or after something is wrong.
const OPERATIONS: u32 = 20;
/// How long a client may wait when a fault must not be felt: less than an election takes.
const UNFELT: Duration = Duration::from_millis(600);
/// And for so long clients go on meanwhile: several leases.
const MEANWHILE: Duration = Duration::from_millis(900);
/// How long anything may take to show.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a client that does one thing at a time waits for an answer before it asks again.
const IMPATIENCE: Duration = Duration::from_secs(5);
/// Pause between looks.
const POLL: Duration = Duration::from_millis(10);
/// What a slow disk adds to every flush, in milliseconds.
const SLOW_MS: u64 = 80;
/// Seconds by which clocks jump: a day.
const JUMP_S: i64 = 86_400;
/// How far a distance between times may be from the real one: of nodes whose clocks are right, what is measured amiss.
const SKEW: Duration = Duration::from_millis(500);
/// Checkpoints so often that the log is soon cut.
const CUT_SOON: &str = "checkpoint_entries = 300\nkeep_entries = 20\n";
/// By then it is.
const CUT_BY: u64 = 1_500;
/// Where a segment's records begin.
const SEGMENT_HEADER_BYTES: u64 = 4096;
/// So short that a checkpoint that hangs shows soon. All else that hangs does by itself.
const IMPATIENT: &str = "checkpoint_ms_max = 1000\n";

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Cables that are cut, or carry one way only.
    Partitions,
    /// Disks that are slow.
    SlowDisks,
    /// Disks that are full.
    FullDisks,
    /// Logs that are damaged, and a store that was emptied.
    Damage,
    /// Disks and machines that hang.
    Hangs,
    /// Clocks that jump.
    Clocks,
}

/// What is asked for.
#[derive(clap::Args, Clone, Debug)]
pub struct Plan {
    /// Which; none: all.
    faults: Vec<Fault>,
    /// So long nodes lead whose clocks are wrong.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..))]
    clock_seconds: u64,
}

type Answer<T> = Result<T, ClientError>;

fn words(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Plays what is asked for, each in a process of its own: a network can be made only before there are
/// threads.
pub fn run(plan: &Plan) -> Result<(), String> {
    use clap::ValueEnum;
    if let [fault] = plan.faults[..] {
        return one(fault, plan);
    }
    let faults = match plan.faults.is_empty() {
        true => Fault::value_variants().to_vec(),
        false => plan.faults.clone(),
    };
    let seconds = plan.clock_seconds.to_string();
    each_in_a_process(faults, |fault, command| {
        let name = fault.to_possible_value().map(|v| v.get_name().to_owned());
        command.arg("faults").args(name);
        command.args(["--clock-seconds", &seconds]);
    })
}

fn one(fault: Fault, plan: &Plan) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(words)?;
    kept_on_failure(|dir| {
        in_own_network(async {
            match fault {
                Fault::Partitions => Play::start(dir, &exe, "").await?.partitions().await,
                Fault::SlowDisks => Play::start(dir, &exe, "").await?.slow_disks().await,
                Fault::FullDisks => full_disks(dir, &exe).await,
                Fault::Damage => Play::start(dir, &exe, CUT_SOON).await?.damage().await,
                Fault::Hangs => {
                    let settings = format!("{CHECKPOINT_OFTEN}{IMPATIENT}");
                    Play::start(dir, &exe, &settings).await?.hangs().await
                }
                Fault::Clocks => {
                    let play = Play::start(dir, &exe, "").await?;
                    clocks::play(play, Duration::from_secs(plan.clock_seconds)).await
                }
            }
        })
    })
}

/// A cluster under load.
struct Play {
    torture: Torture,
    clients: ClientThread,
}

/// A cluster of nodes on disks that keep what is written, and can be afflicted.
async fn cluster(dir: &Path, exe: &Path, settings: &str) -> Result<Lab, String> {
    let mut lab = Lab::build(dir, exe, settings)?;
    for node in 0..NODES {
        afflict(&lab, node, &Affliction::default()).await?;
    }
    lab.start_all().await?;
    Ok(lab)
}

impl Play {
    async fn start(dir: &Path, exe: &Path, settings: &str) -> Result<Self, String> {
        let lab = cluster(dir, exe, settings).await?;
        let clients = ClientThread::start(&lab.client, 2).await?;
        clients.recorder.wait_fresh(OPERATIONS).await?;
        Ok(Self {
            torture: Torture::new(lab, 1),
            clients,
        })
    }

    fn lab(&self) -> &Lab {
        &self.torture.lab
    }

    async fn leader(&self) -> Result<usize, String> {
        self.lab().wait_serving(None).await
    }

    async fn followers(&self) -> Result<(usize, [usize; 2]), String> {
        let leader = self.leader().await?;
        let others: Vec<usize> = (0..NODES).filter(|node| *node != leader).collect();
        Ok((leader, [others[0], others[1]]))
    }

    async fn served(&self) -> Result<(), String> {
        self.clients.recorder.wait_fresh(OPERATIONS).await
    }

    /// The clients go on and feel nothing.
    async fn unfelt(&self, what: &str) -> Result<(), String> {
        self.clients.recorder.open_window();
        let start = Instant::now();
        while start.elapsed() < MEANWHILE {
            self.served().await?;
        }
        let longest = self.clients.recorder.longest();
        println!(
            "{what}: the clients waited {} ms at most",
            longest.as_millis()
        );
        match longest < UNFELT {
            true => Ok(()),
            false => Err(format!("{what} was felt: {} ms", longest.as_millis())),
        }
    }

    async fn term(&self) -> Result<u64, String> {
        let leader = self.leader().await?;
        Ok(self.lab().status_of_busy(leader).await?.term)
    }

    /// Another node takes over and serves the clients.
    async fn succeeded(&self, old: usize, what: &str) -> Result<usize, String> {
        let next = self.lab().wait_serving(Some(old)).await?;
        self.served().await?;
        let name = |node: usize| &self.lab().nodes[node].name;
        println!("{what}: {} succeeds {}", name(next), name(old));
        Ok(next)
    }

    /// A node is well again.
    async fn back(&self, node: usize) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let leader = self.leader().await?;
            if leader == node {
                return Ok(());
            }
            match self.lab().wait_caught_up(node, leader).await {
                Err(why) if start.elapsed() > PATIENCE => return Err(why),
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Heals a node's machine; starts its process again if that has ended.
    async fn heal(&mut self, node: usize) -> Result<(), String> {
        afflict_dead_or_alive(&mut self.torture.lab, node, &Affliction::default()).await?;
        self.back(node).await
    }

    async fn conclude(self) -> Result<(), String> {
        self.torture.conclude(self.clients).await
    }
}

/// Afflicts a node whose process may be about to end; starts it if it has ended.
async fn afflict_dead_or_alive(
    lab: &mut Lab,
    node: usize,
    affliction: &Affliction,
) -> Result<(), String> {
    if afflict(lab, node, affliction).await.is_err() || lab.status(node).await.is_err() {
        lab.wait_end(node).await?;
        lab.start(node)?;
    }
    Ok(())
}

impl Play {
    async fn partitions(self) -> Result<(), String> {
        let lab = self.lab();
        let (_, [follower, _]) = self.followers().await?;
        let term = self.term().await?;
        lab.cut(follower, true)?;
        self.unfelt("a follower is cut off").await?;
        lab.cut(follower, false)?;
        self.back(follower).await?;
        self.unfelt("it is back").await?;
        if self.term().await? != term {
            return Err("a follower that was cut off disturbed its leader".into());
        }
        let file = log_handle(lab)?;
        for (what, out) in [
            ("what the leader sends vanishes", true),
            ("what is sent to the leader vanishes", false),
        ] {
            let leader = self.leader().await?;
            let mut old = Spy::connect(lab, leader)?;
            old.expect_answer(&file)?;
            self.lab().one_way(leader, out, true)?;
            self.succeeded(leader, what).await?;
            let _ = old.ask(&file);
            old.expect_silence(what)?;
            self.lab().one_way(leader, out, false)?;
            self.back(leader).await?;
        }
        self.scattered().await?;
        self.conclude().await
    }

    /// All are cut off from all: nobody answers, and afterwards all goes on.
    async fn scattered(&self) -> Result<(), String> {
        let lab = self.lab();
        let file = log_handle(lab)?;
        (0..NODES).try_for_each(|node| lab.cut(node, true))?;
        let start = Instant::now();
        for node in 0..NODES {
            while lab.status_of_busy(node).await?.serving {
                if start.elapsed() > PATIENCE {
                    return Err("a node serves on its own".into());
                }
                tokio::time::sleep(POLL).await;
            }
        }
        println!(
            "all are cut off from all: after {} ms nobody serves",
            start.elapsed().as_millis()
        );
        for node in 0..NODES {
            // No connection is silence, too.
            if let Ok(mut spy) = Spy::connect(lab, node) {
                let _ = spy.ask(&file);
                spy.expect_silence("a node on its own")?;
            }
        }
        (0..NODES).try_for_each(|node| lab.cut(node, false))?;
        self.leader().await?;
        self.served().await
    }

    async fn slow_disks(self) -> Result<(), String> {
        let (leader, [follower, _]) = self.followers().await?;
        let term = self.term().await?;
        let slow = Affliction {
            flush_delay_ms: SLOW_MS,
            ..Affliction::default()
        };
        afflict(self.lab(), follower, &slow).await?;
        self.unfelt("a follower's disk is slow").await?;
        afflict(self.lab(), follower, &Affliction::default()).await?;
        afflict(self.lab(), leader, &slow).await?;
        self.unfelt("the leader's disk is slow").await?;
        // A majority without it is faster. With all of them slow, clients wait for the disks, and for nothing else.
        for node in 0..NODES {
            afflict(self.lab(), node, &slow).await?;
        }
        self.unfelt("all disks are slow").await?;
        let longest = self.clients.recorder.longest();
        for node in 0..NODES {
            afflict(self.lab(), node, &Affliction::default()).await?;
        }
        if longest < Duration::from_millis(SLOW_MS) {
            return Err("the disks were not slow".into());
        }
        if self.term().await? != term {
            return Err("a slow disk cost an election".into());
        }
        self.back(follower).await?;
        self.conclude().await
    }

    async fn damage(mut self) -> Result<(), String> {
        let (_, [follower, other]) = self.followers().await?;
        self.torture.lab.kill(&[follower])?;
        damage_middle(&log_dir(self.lab(), follower))?;
        self.rebuilt(follower, 1, "a follower's damaged log")
            .await?;
        // Its vote is needed now.
        self.torture.lab.kill(&[other])?;
        let leader = self.leader().await?;
        self.torture.lab.kill(&[leader])?;
        self.torture.lab.start(other)?;
        self.succeeded(leader, "a leader killed after a rebuild")
            .await?;
        damage_middle(&log_dir(self.lab(), leader))?;
        self.rebuilt(leader, 1, "a former leader's damaged log")
            .await?;

        let (_, [follower, _]) = self.followers().await?;
        self.torture.lab.kill(&[follower])?;
        damage_tail(&log_dir(self.lab(), follower))?;
        let before = aside(self.lab(), follower);
        self.torture.lab.start(follower)?;
        self.back(follower).await?;
        if aside(self.lab(), follower) != before {
            return Err("a torn end was taken for damage".into());
        }
        println!("a torn end is cut off");

        let before = aside(self.lab(), follower);
        while self.lab().status_of_busy(follower).await?.applied < CUT_BY {
            self.served().await?;
        }
        self.torture.lab.kill(&[follower])?;
        let data = self.lab().nodes[follower].dir().join("data");
        if haven::check::run(&data)?.summary.log_purged == 0 {
            return Err("the log has not been cut: with all of it no other node is needed".into());
        }
        fs::remove_dir_all(data.join("store")).map_err(words)?;
        self.rebuilt(follower, before + 1, "an emptied store")
            .await?;
        self.conclude().await
    }

    /// Starts a node whose log has been set aside so many times then; waits until it is a voter again.
    async fn rebuilt(&mut self, node: usize, times: usize, what: &str) -> Result<(), String> {
        const REGAINED: &str = "takes part in elections again";
        let log = self.lab().nodes[node].log();
        let said = || fs::read_to_string(&log).map_or(0, |text| text.matches(REGAINED).count());
        let before = said();
        let start = Instant::now();
        self.torture.lab.start(node)?;
        self.back(node).await?;
        while said() == before {
            if start.elapsed() > PATIENCE {
                return Err(format!("{what}: the node does not get its voice back"));
            }
            tokio::time::sleep(POLL).await;
        }
        println!(
            "{what}: a voter again after {} ms",
            start.elapsed().as_millis()
        );
        match aside(self.lab(), node) {
            found if found == times => Ok(()),
            found => Err(format!("{what}: {found} logs were set aside")),
        }
    }

    async fn hangs(mut self) -> Result<(), String> {
        for hang in [Hang::Log, Hang::Apply, Hang::Checkpoint] {
            let leader = self.leader().await?;
            let what = format!("the leader hangs ({hang:?})");
            let affliction = Affliction {
                hang: Some(hang),
                ..Affliction::default()
            };
            afflict(self.lab(), leader, &affliction).await?;
            self.succeeded(leader, &what).await?;
            self.heal(leader).await?;
        }
        // A vote is saved by a follower when somebody else is elected.
        let (leader, [follower, next]) = self.followers().await?;
        let affliction = Affliction {
            hang: Some(Hang::Vote),
            ..Affliction::default()
        };
        afflict(self.lab(), follower, &affliction).await?;
        self.torture.lab.kill(&[next])?;
        self.torture.lab.start(next)?;
        self.back(next).await?;
        self.lab().request_move(leader).await?;
        self.succeeded(leader, "a follower cannot save its vote")
            .await?;
        self.complained(follower, "the saving of a vote").await?;
        self.heal(follower).await?;
        self.conclude().await
    }

    /// Waits until a node's log says something.
    async fn complained(&self, node: usize, words_wanted: &str) -> Result<(), String> {
        let start = Instant::now();
        let log = self.lab().nodes[node].log();
        while !fs::read_to_string(&log)
            .map_err(words)?
            .contains(words_wanted)
        {
            if start.elapsed() > PATIENCE {
                return Err(format!("the node never says {words_wanted:?}"));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

async fn full_disks(dir: &Path, exe: &Path) -> Result<(), String> {
    let mut lab = cluster(dir, exe, "").await?;
    let leader = lab.wait_serving(None).await?;
    let probe = Probe::new(&lab);
    let no_space = Affliction {
        no_space: true,
        ..Affliction::default()
    };
    probe.create("before")?.map_err(words)?;
    afflict(&lab, leader, &no_space).await?;
    probe.until("no space left", "reserve", |answer| {
        matches!(answer, Err(ClientError::Nfs(Nfsstat3::NoSpc)))
    })?;
    probe.remove("before")?.map_err(words)?;
    println!(
        "the leader's disk has only its reserve: what needs space is refused, removing goes on"
    );
    afflict(&lab, leader, &Affliction::default()).await?;
    probe.until("space again", "after", Result::is_ok)?;
    full_followers(&lab, &probe, leader, &no_space).await?;

    let full = Affliction {
        full: true,
        ..Affliction::default()
    };
    let follower = (leader + 1) % NODES;
    afflict(&lab, follower, &full).await?;
    probe.create("while a follower is full")?.map_err(words)?;
    let end = lab.wait_end(follower).await?;
    probe.create("without the follower")?.map_err(words)?;
    println!("a follower's disk is full: it ends ({end}), the service goes on");
    afflict(&lab, follower, &Affliction::default()).await?;
    lab.start(follower)?;
    lab.wait_caught_up(follower, leader).await?;

    afflict(&lab, leader, &full).await?;
    probe.create("while the leader is full")?.map_err(words)?;
    let end = lab.wait_end(leader).await?;
    let next = lab.wait_serving(Some(leader)).await?;
    println!("the leader's disk is full: it ends ({end}), the next one answers");
    let again = probe.create("while the leader is full")?;
    if !matches!(again, Err(ClientError::Nfs(Nfsstat3::Exist))) {
        return Err(format!("an acknowledged file is not there: {again:?}"));
    }
    afflict(&lab, leader, &Affliction::default()).await?;
    lab.start(leader)?;
    lab.wait_caught_up(leader, next).await?;
    match lab.compare_states().await? {
        true => Ok(()),
        false => Err("the states differ".into()),
    }
}

/// One follower with nothing but its reserve is told of, two are refused for.
async fn full_followers(
    lab: &Lab,
    probe: &Probe,
    leader: usize,
    no_space: &Affliction,
) -> Result<(), String> {
    let [one, two] = [1, 2].map(|step| (leader + step) % NODES);
    afflict(lab, one, no_space).await?;
    let start = Instant::now();
    while !lab.status_of_busy(one).await?.full {
        if start.elapsed() > PATIENCE {
            return Err("a follower does not see that its disk is full".into());
        }
        tokio::time::sleep(POLL).await;
    }
    probe.create("with one full follower")?.map_err(words)?;
    afflict(lab, two, no_space).await?;
    probe.until("no space left", "followers", |answer| {
        matches!(answer, Err(ClientError::Nfs(Nfsstat3::NoSpc)))
    })?;
    let report = lab.status_of_busy(leader).await?;
    let trouble = report.trouble.unwrap_or_default();
    if report.full || !report.refuses_growth || !trouble.contains("no majority") {
        return Err(format!("the leader says {trouble:?}"));
    }
    probe.remove("with one full follower")?.map_err(words)?;
    println!("{trouble}");
    afflict(lab, one, &Affliction::default()).await?;
    probe.until("space again", "majority", Result::is_ok)?;
    afflict(lab, two, &Affliction::default()).await
}

/// A client that does one thing at a time, on the client's machine.
struct Probe(Arc<Netns>);

impl Probe {
    fn new(lab: &Lab) -> Self {
        Self(Arc::clone(&lab.client))
    }

    /// Does something at the root of what is exported.
    fn ask<T: Send, F: Future<Output = Answer<T>>>(
        &self,
        work: impl FnOnce(Client, Fh3) -> F + Send,
    ) -> Result<Answer<T>, String> {
        let body = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.map_err(words).map(|runtime| {
                runtime.block_on(async {
                    let options = Options {
                        mount_port: MOUNT_PORT_DEFAULT,
                        request_timeout: Some(PATIENCE),
                        // Less patient than a kernel: whom a leader lets in shortly before its process ends by itself, the
                        // next one may not know of (docs/operate/failover.md). What is played here is space.
                        retransmit_timeout: IMPATIENCE,
                        ..Options::default()
                    };
                    let server = SocketAddr::from((FLOATING, NFS_PORT_DEFAULT));
                    let client = Client::new(server, options);
                    let root = client.mount(EXPORT).await?;
                    work(client, root).await
                })
            })
        };
        self.0.run(body).map_err(words)?
    }

    fn create(&self, name: &str) -> Result<Answer<()>, String> {
        self.ask(async |client, root| {
            let how = Createhow3::Guarded(Sattr3::default());
            client.create(&root, name, how).await.map(drop)
        })
    }

    fn remove(&self, name: &str) -> Result<Answer<()>, String> {
        self.ask(async |client, root| client.remove(&root, name).await.map(drop))
    }

    /// Makes files until the answer is as wanted.
    fn until(
        &self,
        what: &str,
        name: &str,
        wanted: impl Fn(&Answer<()>) -> bool,
    ) -> Result<(), String> {
        let start = Instant::now();
        let mut number = 0;
        loop {
            let answer = self.create(&format!("{name} {number}"))?;
            number += 1;
            if wanted(&answer) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("{what}: the answer is still {answer:?}"));
            }
            std::thread::sleep(POLL);
        }
    }
}

fn log_dir(lab: &Lab, node: usize) -> PathBuf {
    lab.nodes[node].dir().join("data").join("log")
}

/// How many logs a node has set aside.
fn aside(lab: &Lab, node: usize) -> usize {
    (1..)
        .take_while(|number| {
            let name = format!("damaged-{number}");
            lab.nodes[node].dir().join("data").join(name).exists()
        })
        .count()
}

/// A log's segments, oldest first.
fn segments(log: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(log).map_err(words)? {
        let path = entry.map_err(words)?.path();
        if path.extension().is_some_and(|e| e == "seg") {
            found.push(path);
        }
    }
    found.sort();
    match found.is_empty() {
        true => Err("a log without segments".into()),
        false => Ok(found),
    }
}

/// Changes a bit of the first record.
fn damage_middle(log: &Path) -> Result<(), String> {
    let segment = &segments(log)?[0];
    let file = File::options()
        .read(true)
        .write(true)
        .open(segment)
        .map_err(words)?;
    let at = SEGMENT_HEADER_BYTES + 44;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).map_err(words)?;
    byte[0] ^= 4;
    file.write_all_at(&byte, at).map_err(words)
}

/// Puts behind the last record what a write that was cut short may leave.
fn damage_tail(log: &Path) -> Result<(), String> {
    let segments = segments(log)?;
    let last = &segments[segments.len() - 1];
    let bytes = fs::read(last).map_err(words)?;
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    let behind = (end.next_multiple_of(8) + 512).min(bytes.len() - 512) as u64;
    let file = File::options().write(true).open(last).map_err(words)?;
    file.write_all_at(&[0xa5; 256], behind).map_err(words)
}
