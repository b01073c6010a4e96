//! One node on loopback, killed at moments that follow from a seed: under load, shortly after its start,
//! while it replays, while it makes checkpoints. Each time its data directory is checked before it
//! starts again; then every client holds what it finds against what it was told.
//!
//! A power loss is the death of a node whose unflushed writes live in its process only.

use crate::mixed::{Mixed, Tally, words};
use haven::classic::{self, Load, Recorder, Target};
use haven::demo::random::Random;
use haven::quick::free_port;
use haven_pki::Identity;
use serde::Serialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is exported.
const EXPORT: &str = "/data";
/// Operations that every worker completes between two blows, at most.
const CALM_OPERATIONS_MAX: u64 = 60;
/// A blow that falls after a start falls this soon: before, while or just after the node replays.
const START_MS_MAX: u64 = 400;
/// One blow in so many falls after a start.
const EARLY_ONE_IN: u64 = 4;
/// Entries between checkpoints, by chance: so few that blows fall into them, or so many that a restart
/// replays for a while.
const CHECKPOINT_ENTRIES: [u64; 4] = [100, 100, 500, 20_000];
/// Entries kept behind a checkpoint.
const KEEP_ENTRIES: [u64; 2] = [0, 50];
/// Findings told in words.
const FINDINGS_MAX: usize = 10;

/// What is asked for.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Plan {
    /// How many times the node is killed (SIGKILL).
    #[arg(long, default_value_t = 20)]
    pub rounds: u32,
    /// How many times it loses its power on top of that.
    #[arg(long, default_value_t = 0)]
    pub power_losses: u32,
    /// Where the faults and the clients' choices come from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Clients of the mixed load; one more appends lines and makes names.
    #[arg(long, default_value_t = 3)]
    pub clients: usize,
    /// Print one JSON object at the end instead of a line for each round.
    #[arg(long)]
    pub json: bool,
}

/// How the node dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    PowerLoss,
}

/// When it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    AfterStart(Duration),
    AfterOperations(u32),
}

/// One round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    blow: Blow,
    moment: Moment,
    checkpoint_entries: u64,
    keep_entries: u64,
}

/// All faults of a plan: the same for the same seed.
fn schedule(plan: &Plan) -> Vec<Fault> {
    let mut random = Random::new(plan.seed);
    let (mut kills, mut losses) = (u64::from(plan.rounds), u64::from(plan.power_losses));
    let mut faults = Vec::new();
    while kills + losses > 0 {
        let blow = if random.next() % (kills + losses) < kills {
            kills -= 1;
            Blow::Kill
        } else {
            losses -= 1;
            Blow::PowerLoss
        };
        let moment = if random.next().is_multiple_of(EARLY_ONE_IN) {
            Moment::AfterStart(Duration::from_millis(random.next() % START_MS_MAX))
        } else {
            Moment::AfterOperations(1 + (random.next() % CALM_OPERATIONS_MAX) as u32)
        };
        faults.push(Fault {
            blow,
            moment,
            checkpoint_entries: CHECKPOINT_ENTRIES
                [random.next() as usize % CHECKPOINT_ENTRIES.len()],
            keep_entries: KEEP_ENTRIES[random.next() as usize % KEEP_ENTRIES.len()],
        });
    }
    faults
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    seed: u64,
    rounds: u32,
    power_losses: u32,
    acknowledged: u64,
    lost: u64,
    done_twice: u64,
    half_done: u64,
    out_of_order: u64,
    checks: u32,
    check_findings: u64,
    check_notes: u64,
    longest_restart_ms: u64,
    problems: Vec<String>,
}

impl Outcome {
    fn is_clean(&self) -> bool {
        let wrong = self.lost + self.done_twice + self.half_done + self.out_of_order;
        wrong + self.check_findings == 0 && self.problems.is_empty()
    }

    fn take(&mut self, tally: Tally) {
        self.lost += tally.lost;
        self.done_twice += tally.doubled;
        self.half_done += tally.half;
        self.problems.extend(tally.problems);
    }

    fn show(&self, json: bool) -> Result<(), String> {
        if json {
            let text = serde_json::to_string(self).map_err(words)?;
            println!("{text}");
            return Ok(());
        }
        println!(
            "{} kills, {} power losses; {} operations acknowledged, {} lost, {} done twice, {} half done, {} out \
             of order; {} checks with {} findings; longest restart {} ms",
            self.rounds,
            self.power_losses,
            self.acknowledged,
            self.lost,
            self.done_twice,
            self.half_done,
            self.out_of_order,
            self.checks,
            self.check_findings,
            self.longest_restart_ms
        );
        Ok(())
    }
}

/// Plays the plan with `haven` in `dir`.
///
/// # Errors
/// When not everything is as it must be, in words.
pub fn run(plan: &Plan, dir: &Path, haven: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let own = std::env::current_exe().map_err(words)?;
    let node = Node::new(dir, haven, &own)?;
    let mut play = Play {
        plan: *plan,
        node,
        outcome: Outcome {
            seed: plan.seed,
            ..Outcome::default()
        },
    };
    let played = runtime.map_err(words)?.block_on(play.play());
    if let Err(why) = played {
        play.outcome.problems.push(why);
    }
    play.outcome.show(plan.json)?;
    if play.outcome.is_clean() {
        return Ok(());
    }
    Err(format!(
        "not everything is as it must be: {:#?}",
        play.outcome.problems
    ))
}

struct Play {
    plan: Plan,
    node: Node,
    outcome: Outcome,
}

impl Play {
    async fn play(&mut self) -> Result<(), String> {
        let faults = schedule(&self.plan);
        let Some(first) = faults.first() else {
            return Ok(());
        };
        self.node.start(first)?;
        let target = self.node.target();
        let classic = Load::start(&target, 1).await?;
        let mixed = Mixed::start(&target, self.plan.clients, self.plan.seed).await?;
        let mut result = Ok(());
        for (index, fault) in faults.iter().enumerate() {
            let next = faults.get(index + 1).unwrap_or(fault);
            result = self.round(fault, next, &classic.recorder, &mixed).await;
            if result.is_err() || !mixed.tally().is_clean() || self.outcome.check_findings > 0 {
                break;
            }
            self.say(index + 1, fault, &classic.recorder, &mixed.recorder);
        }
        self.outcome.acknowledged = classic.recorder.acknowledged() + mixed.recorder.acknowledged();
        if let Err(why) = result {
            // Nobody can be asked any more: what the workers saw must do.
            self.outcome.take(mixed.tally());
            return Err(why);
        }
        self.conclude(&target, classic, mixed).await
    }

    /// The node runs; it dies as the fault says, is checked, and runs again as the next one wants it.
    async fn round(
        &mut self,
        fault: &Fault,
        next: &Fault,
        classic: &Recorder,
        mixed: &Mixed,
    ) -> Result<(), String> {
        match fault.moment {
            Moment::AfterStart(time) => {
                let since = self.node.started.elapsed();
                tokio::time::sleep(time.saturating_sub(since)).await;
            }
            Moment::AfterOperations(count) => {
                tokio::select! {
                    why = mixed.failure() => return Err(format!("given up at the first mistake: {why}")),
                    fresh = async {
                        mixed.recorder.wait_fresh(1).await?;
                        classic.wait_fresh(1).await?;
                        let restart = self.node.started.elapsed().as_millis() as u64;
                        self.outcome.longest_restart_ms = self.outcome.longest_restart_ms.max(restart);
                        mixed.verify().await?;
                        mixed.recorder.wait_fresh(count).await
                    } => fresh?,
                }
            }
        }
        self.node.kill()?;
        match fault.blow {
            Blow::Kill => self.outcome.rounds += 1,
            Blow::PowerLoss => self.outcome.power_losses += 1,
        }
        self.check()?;
        self.node.start(next)
    }

    /// Checks the data directory of the dead node.
    fn check(&mut self) -> Result<(), String> {
        let report = haven::check::run(&self.node.data)?;
        self.outcome.checks += 1;
        self.outcome.check_findings += report.findings.count();
        self.outcome.check_notes += report.notes.count();
        for line in report.findings.lines.iter().take(FINDINGS_MAX) {
            self.outcome.problems.push(format!("haven check: {line}"));
        }
        Ok(())
    }

    fn say(&self, round: usize, fault: &Fault, classic: &Recorder, mixed: &Recorder) {
        if !self.plan.json {
            let acknowledged = classic.acknowledged() + mixed.acknowledged();
            println!("round {round:4}: {fault:?}; {acknowledged} operations acknowledged");
        }
    }

    async fn conclude(
        &mut self,
        target: &Target,
        classic: Load,
        mixed: Mixed,
    ) -> Result<(), String> {
        let recorders = [classic.recorder.clone(), mixed.recorder.clone()];
        let tally = mixed.finish().await;
        let told = classic.finish().await;
        let verdict = classic::verify(target, &told).await;
        self.node.kill()?;
        self.check()?;
        let outcome = &mut self.outcome;
        outcome.acknowledged = recorders.iter().map(|r| r.acknowledged()).sum();
        outcome.take(tally);
        outcome.lost += verdict.lost;
        outcome.done_twice += verdict.doubled;
        outcome.out_of_order = verdict.out_of_order;
        outcome.problems.extend(verdict.problems);
        Ok(())
    }
}

/// The node's process.
struct Node {
    dir: PathBuf,
    data: PathBuf,
    haven: PathBuf,
    own: PathBuf,
    ports: [u16; 3],
    process: Option<Child>,
    started: Instant,
}

impl Node {
    fn new(dir: &Path, haven: &Path, own: &Path) -> Result<Self, String> {
        let data = dir.join("node");
        // A cluster of one: only there `keep_entries` counts.
        for identity in Identity::found(1, |_| Ok(Vec::new())).map_err(words)? {
            identity.save(&data).map_err(words)?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            data,
            haven: haven.to_owned(),
            own: own.to_owned(),
            ports: [free_port()?, free_port()?, free_port()?],
            process: None,
            started: Instant::now(),
        })
    }

    fn target(&self) -> Target {
        Target::on_loopback(self.ports[0], self.ports[1], EXPORT)
    }

    fn config(&self, fault: &Fault) -> String {
        let [nfs, mount, peer] = self.ports;
        let (entries, keep) = (fault.checkpoint_entries, fault.keep_entries);
        format!(
            "[node]\nname = \"one\"\ndata = \"{}\"\ncheckpoint_entries = {entries}\nkeep_entries = {keep}\n\n\
             [cluster]\nname = \"torture\"\n\n[[cluster.node]]\nid = 1\nname = \"one\"\naddress = \"127.0.0.1:{peer}\"\n\n\
             [service]\nlisten = \"127.0.0.1\"\nnfs_port = {nfs}\nmount_port = {mount}\nsquash = \"none\"\n\n\
             [[export]]\npath = \"{EXPORT}\"\n",
            self.data.display()
        )
    }

    /// Starts the process as the fault that will end it wants it.
    fn start(&mut self, fault: &Fault) -> Result<(), String> {
        let config = self.dir.join("haven.toml");
        fs::write(&config, self.config(fault)).map_err(words)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("node.log"))
            .map_err(words)?;
        let exe = match fault.blow {
            Blow::Kill => &self.haven,
            Blow::PowerLoss => &self.own,
        };
        let mut command = Command::new(exe);
        command.arg("serve").arg("--config").arg(config);
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(words)?).stderr(log);
        self.process = Some(command.spawn().map_err(words)?);
        self.started = Instant::now();
        Ok(())
    }

    /// Kills the process, which must still run.
    fn kill(&mut self) -> Result<(), String> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        if let Some(status) = process.try_wait().map_err(words)? {
            return Err(format!("the node ended by itself: {status}; see its log"));
        }
        process.kill().map_err(words)?;
        process.wait().map(drop).map_err(words)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let plan = |seed| Plan {
            rounds: 90,
            power_losses: 30,
            seed,
            clients: 1,
            json: false,
        };
        let faults = schedule(&plan(5));
        assert_eq!(faults, schedule(&plan(5)));
        assert_ne!(faults, schedule(&plan(6)));
        let losses = faults.iter().filter(|f| f.blow == Blow::PowerLoss).count();
        assert_eq!((faults.len(), losses), (120, 30));
        let early = |f: &&Fault| matches!(f.moment, Moment::AfterStart(_));
        assert!(faults.iter().filter(early).count() > 10);
    }
}
