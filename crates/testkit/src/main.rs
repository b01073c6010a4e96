//! Torture of a whole cluster on this machine: `torture kills`, `torture power-losses`, `torture linearizable`,
//! `torture steady`, `torture loads`; and of one node: `torture one-node`, `torture rude`.
//!
//! The nodes of a cluster are this same binary, in network namespaces of their own, on a disk that can be made to
//! forget what was not flushed. Exit status 0 only if every acknowledged operation is there exactly once
//! and all nodes hold the same state.

mod afflicted;
mod blips;
mod faults;
mod linear;
mod loads;
mod mixed;
mod one_node;
mod operate;
mod rude;
mod silence;
mod twins;

use clap::{Parser, Subcommand};
use haven::demo::client::ClientThread;
use haven::demo::lab::{Lab, NODES, Workplace};
use haven::demo::random::Random;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::Duration;

/// Operations that every worker completes between two blows, at least.
const CALM_OPERATIONS: u32 = 20;
/// And up to so many more, by chance.
const CALM_JITTER: u64 = 100;
/// So often that blows fall into checkpoints, and that nodes which were away need snapshots.
const CHECKPOINT_OFTEN: &str = "checkpoint_entries = 2000\nkeep_entries = 200\n";

#[derive(Parser)]
#[command(about = "Torture of a whole cluster on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kill random nodes (SIGKILL) under load, one or two at a time.
    Kills(Plan),
    /// Kill all nodes at once, losing everything that was not flushed.
    PowerLosses(Plan),
    /// Full load without faults: counts elections and log flushes per request.
    Steady {
        /// How long, in seconds.
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        /// Clients, each with a connection of its own.
        #[arg(long, default_value_t = 16)]
        clients: usize,
    },
    /// Full and lossy networks under load: they cost throughput, and neither a lease nor a connection.
    Loads(loads::Plan),
    /// Freeze and cut off the leader, and listen to what it says: it must be nothing.
    Silence,
    /// Operate a cluster as people do: status in every case, moves, standby.
    Operate,
    /// Kill one node again and again, at any moment, and check its data directory each time.
    OneNode(one_node::Plan),
    /// Clients that take no answers, peers that announce and do not send, and clients with like numbers, beside honest ones.
    Rude(rude::Plan),
    /// Play one kind of fault after another, and check what must hold during each.
    Faults(faults::Plan),
    /// Short faults of every kind, on each node or several; and a second one right after the first.
    Blips(blips::Plan),
    /// Play random faults while clients note every call and answer: some order must explain them all.
    Linearizable(linear::Plan),
    /// A node whose machine can be made to fail (started by the others).
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        config: PathBuf,
    },
    /// The address guard (started by a node).
    #[command(hide = true)]
    Guard,
}

#[derive(clap::Args, Clone, Copy)]
struct Plan {
    /// How many times.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Where the choices come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients, each with a connection of its own.
    #[arg(long, default_value_t = 4)]
    clients: usize,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve { config } => afflicted::serve(&config),
        Command::Guard => haven_platform::guard::run_child(std::io::stdin(), std::io::stdout())
            .map_err(|e| e.to_string()),
        Command::Kills(plan) => torture(plan, Blow::Kill),
        Command::PowerLosses(plan) => torture(plan, Blow::PowerLoss),
        Command::OneNode(plan) => kept_on_failure(|dir| one_node::run(&plan, dir, &haven_exe()?)),
        Command::Rude(plan) => kept_on_failure(|dir| rude::run(&plan, dir, &haven_exe()?)),
        Command::Operate => kept_on_failure(|dir| {
            let exe = haven_exe()?;
            in_own_network(operate::run(&exe, dir))
        }),
        Command::Silence => kept_on_failure(|dir| silence::run(&haven_exe()?, dir)),
        Command::Faults(plan) => faults::run(&plan),
        Command::Blips(plan) => blips::run(&plan),
        Command::Loads(plan) => loads::run(&plan),
        Command::Linearizable(plan) => linear::run(plan),
        Command::Steady { seconds, clients } => steady(Duration::from_secs(seconds), clients),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("torture: {why}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    PowerLoss,
}

/// The binary the nodes run: `HAVEN` in the environment, or the one beside this.
fn haven_exe() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("HAVEN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let beside = own.with_file_name("haven");
    if beside.exists() {
        return Ok(beside);
    }
    Err(format!(
        "no haven binary at {}; build it, or name it in HAVEN",
        beside.display()
    ))
}

/// Before any thread exists: a network of our own; then a runtime on this thread only.
fn in_own_network<F: Future<Output = Result<(), String>>>(play: F) -> Result<(), String> {
    haven::demo::isolate()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(|e| e.to_string())?.block_on(play)
}

/// Plays each case in a process of its own, with the arguments that `ask` adds: a network can be made only before there are
/// threads. Goes on after one that failed.
fn each_in_a_process<C: std::fmt::Debug>(
    cases: Vec<C>,
    ask: impl Fn(&C, &mut process::Command),
) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut failed = Vec::new();
    for case in cases {
        let mut command = process::Command::new(&exe);
        ask(&case, &mut command);
        if !command.status().map_err(|e| e.to_string())?.success() {
            failed.push(case);
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("failed: {failed:?}")),
    }
}

/// Gives `play` a directory that is kept if it fails.
fn kept_on_failure(play: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    let mut place = Workplace::new(None).map_err(|e| e.to_string())?;
    let result = play(place.dir());
    if result.is_err() {
        place.keep();
        eprintln!("logs and data are kept in {}", place.dir().display());
    }
    result
}

/// A laboratory whose cluster serves.
async fn start_cluster(dir: &Path, exe: &Path, node_settings: &str) -> Result<Lab, String> {
    let mut lab = Lab::build(dir, exe, node_settings)?;
    lab.start_all().await?;
    Ok(lab)
}

fn torture(plan: Plan, blow: Blow) -> Result<(), String> {
    let exe = match blow {
        Blow::Kill => haven_exe()?,
        Blow::PowerLoss => std::env::current_exe().map_err(|e| e.to_string())?,
    };
    kept_on_failure(|dir| {
        in_own_network(async {
            let lab = start_cluster(dir, &exe, CHECKPOINT_OFTEN).await?;
            let clients = ClientThread::start(&lab.client, plan.clients).await?;
            let mut torture = Torture::new(lab, plan.seed);
            for round in 1..=plan.rounds {
                let calm = CALM_OPERATIONS + (torture.random.next() % CALM_JITTER) as u32;
                clients.recorder.wait_fresh(calm).await?;
                let what = torture.blow(blow).await?;
                clients.recorder.wait_fresh(1).await?;
                let acknowledged = clients.recorder.acknowledged();
                println!("round {round:4}: {what}; {acknowledged} operations acknowledged");
            }
            torture.conclude(clients).await
        })
    })
}

struct Torture {
    lab: Lab,
    random: Random,
}

impl Torture {
    fn new(lab: Lab, seed: u64) -> Self {
        Self {
            lab,
            random: Random::new(seed),
        }
    }

    async fn blow(&mut self, blow: Blow) -> Result<String, String> {
        let first = (self.random.next() % NODES as u64) as usize;
        let victims: Vec<usize> = match blow {
            Blow::PowerLoss => (0..NODES).collect(),
            Blow::Kill if self.random.next().is_multiple_of(4) => vec![first, (first + 1) % NODES],
            Blow::Kill => vec![first],
        };
        self.lab.kill(&victims)?;
        // Sometimes the others notice, sometimes they do not.
        let pause = Duration::from_millis(self.random.next() % 1_500);
        tokio::time::sleep(pause).await;
        for index in &victims {
            self.check(*index)?;
            self.lab.start(*index)?;
        }
        let names: Vec<&str> = victims
            .iter()
            .map(|i| self.lab.nodes[*i].name.as_str())
            .collect();
        let leader = self.lab.wait_serving(None).await?;
        Ok(format!(
            "killed {:5} for {:4} ms; node {} serves",
            names.join(" "),
            pause.as_millis(),
            self.lab.nodes[leader].name
        ))
    }

    /// Checks the data directory of a dead node.
    fn check(&self, index: usize) -> Result<(), String> {
        let node = &self.lab.nodes[index];
        let report = haven::check::run(&node.log().with_file_name("data"))?;
        match report.findings.lines.first() {
            None => Ok(()),
            Some(first) => Err(format!("haven check of node {}: {first}", node.name)),
        }
    }

    async fn conclude(mut self, clients: ClientThread) -> Result<(), String> {
        let (acknowledged, verdict) = clients.finish().await?;
        let equal = self.lab.compare_states().await?;
        let all: Vec<usize> = (0..NODES).collect();
        self.lab.kill(&all)?;
        for index in all {
            self.check(index)?;
        }
        println!(
            "acknowledged {acknowledged}, lost {}, done twice {}, out of order {}, states {}",
            verdict.lost,
            verdict.doubled,
            verdict.out_of_order,
            if equal { "equal" } else { "DIFFERENT" }
        );
        if verdict.is_clean() && equal {
            return Ok(());
        }
        Err(format!(
            "not everything is as it must be: {:?}",
            verdict.problems
        ))
    }
}

fn steady(time: Duration, clients: usize) -> Result<(), String> {
    let exe = haven_exe()?;
    let place = Workplace::new(None).map_err(|e| e.to_string())?;
    in_own_network(async {
        let lab = start_cluster(place.dir(), &exe, "").await?;
        let leader = lab.wait_serving(None).await?;
        let load = ClientThread::start(&lab.client, clients).await?;
        let before = (
            lab.status_of_busy(leader).await?,
            load.recorder.acknowledged(),
        );
        load.recorder.open_window();
        tokio::time::sleep(time).await;
        let after = (
            lab.status_of_busy(leader).await?,
            load.recorder.acknowledged(),
        );
        let (elections, requests) = (after.0.term - before.0.term, after.1 - before.1);
        let (flushes, records) = (
            after.0.log_flushes - before.0.log_flushes,
            after.0.log_records - before.0.log_records,
        );
        println!(
            "{clients} connections, {} s: {requests} requests ({:.0}/s), {records} logged; {flushes} log flushes \
             on the leader: {:.3} per request, {:.3} per logged request; longest wait {} ms; elections {elections}",
            time.as_secs(),
            requests as f64 / time.as_secs_f64(),
            flushes as f64 / requests as f64,
            flushes as f64 / records as f64,
            load.recorder.longest().as_millis(),
        );
        let torture = Torture::new(lab, 0);
        torture.conclude(load).await?;
        if elections > 0 {
            Err(format!("{elections} elections without a fault"))
        } else {
            Ok(())
        }
    })
}
