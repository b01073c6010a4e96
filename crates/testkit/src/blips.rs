//! A matrix of short faults: how long, on whom, and how; and faults doubled. Clients that wait as kernels do feel each for
//! no longer than no majority could serve, and a moment.
//!
//! Faults that are long enough for another node to lead are played elsewhere, too. These here are mostly too short for that:
//! the same node goes on, and everything that it gave up meanwhile must be there again.
//!
//! What is judged is what clients felt. On a machine that is busy with other things that says little, so the bound is an
//! option: a test run asks only that nobody waits for its keepalive.

mod strike;

use crate::{CHECKPOINT_OFTEN, Torture, in_own_network, kept_on_failure, start_cluster};
use haven::demo::client::ClientThread;
use haven::demo::lab::NODES;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use strike::Machines;

/// Durations of faults in the matrix, in milliseconds.
const LASTS_MS: [u64; 9] = [50, 150, 250, 300, 350, 500, 1_000, 3_000, 10_000];
/// After so many milliseconds of a takeover comes a second fault.
const AGAIN_AFTER_MS: [u64; 4] = [0, 30, 100, 300];
/// Operations of every client before and after a fault.
const OPERATIONS: u32 = 20;
/// A fault begins at any moment between two heartbeats.
const PHASE_MS: u64 = 120;

/// What is asked for.
#[derive(clap::Args, Clone, Debug)]
pub struct Plan {
    /// So many, chosen by the seed out of the whole matrix; 0: all of it, in an order that the seed chooses.
    #[arg(long, default_value_t = 0)]
    random: usize,
    /// No longer ones, in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    longest_ms: u64,
    /// Where the choices come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients, each with a connection of its own.
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// How much longer than no majority could serve a client may wait, in milliseconds.
    #[arg(long, default_value_t = 500)]
    bound_ms: u64,
    /// Only faults whose name has this in it.
    #[arg(long)]
    only: Option<String>,
}

/// How a machine fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// Its processes are stopped.
    Stopped,
    /// Its disk stands still.
    DiskStill,
    /// The switch's port is down: no carrier.
    PortDown,
    /// Its interface is switched off and on.
    InterfaceDown,
    /// What it sends to the other nodes vanishes.
    Mute,
    /// What the other nodes send to it vanishes.
    Deaf,
    /// The switch carries nothing.
    SwitchDead,
    /// Its process is killed, and started after that time.
    Killed,
    /// Its process is told to end, and started after that time.
    Ended,
}

/// Whose machines fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Whoever leads.
    Leader,
    /// One other.
    Follower,
    /// Both others.
    Followers,
    /// All.
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Case {
    /// One fault.
    Once { how: How, who: Who, lasts_ms: u64 },
    /// The leader is killed and started at once; so long after the takeover its successor is.
    Twice { after_ms: u64 },
    /// The service moves by plan; so long after it the new leader is killed.
    MovedAndKilled { after_ms: u64 },
}

impl Case {
    /// Without how long: what the table has a row for.
    fn kind(self) -> String {
        match self {
            Self::Once { how, who, .. } => format!("{how:?} {who:?}"),
            Self::Twice { .. } => "Killed, then its successor".into(),
            Self::MovedAndKilled { .. } => "Moved, then the new leader Killed".into(),
        }
    }

    fn lasts_ms(self) -> u64 {
        match self {
            Self::Once { lasts_ms, .. } => lasts_ms,
            Self::Twice { after_ms } | Self::MovedAndKilled { after_ms } => after_ms,
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ms", self.kind(), self.lasts_ms())
    }
}

/// Every case there is.
fn matrix() -> Vec<Case> {
    use How::{Deaf, DiskStill, Ended, InterfaceDown, Killed, Mute, PortDown, Stopped, SwitchDead};
    let mut cases = Vec::new();
    for lasts_ms in LASTS_MS {
        for who in [Who::Leader, Who::Follower, Who::Followers, Who::All] {
            for how in [Stopped, DiskStill, PortDown, InterfaceDown, Killed, Ended] {
                cases.push(Case::Once { how, who, lasts_ms });
            }
        }
        for who in [Who::Leader, Who::Follower] {
            for how in [Mute, Deaf] {
                cases.push(Case::Once { how, who, lasts_ms });
            }
        }
        let (how, who) = (SwitchDead, Who::All);
        cases.push(Case::Once { how, who, lasts_ms });
    }
    for after_ms in AGAIN_AFTER_MS {
        cases.push(Case::Twice { after_ms });
        cases.push(Case::MovedAndKilled { after_ms });
    }
    cases
}

fn chosen(plan: &Plan, torture: &mut Torture) -> Result<Vec<Case>, String> {
    let mut cases = matrix();
    cases.retain(|case| {
        let named = plan
            .only
            .as_ref()
            .is_none_or(|part| case.to_string().contains(part));
        named && case.lasts_ms() <= plan.longest_ms
    });
    if cases.is_empty() {
        return Err("no fault of the matrix is so short and has such a name".into());
    }
    if plan.random > 0 {
        let all = cases.len() as u64;
        let mut any = || cases[(torture.random.next() % all) as usize];
        return Ok((0..plan.random).map(|_| any()).collect());
    }
    for last in (1..cases.len()).rev() {
        let other = (torture.random.next() % (last as u64 + 1)) as usize;
        cases.swap(last, other);
    }
    Ok(cases)
}

/// What was felt of one kind of fault, beyond what nobody could help.
#[derive(Debug, Default)]
struct Felt {
    times: u32,
    worst: Duration,
    over: u32,
}

/// Plays them.
pub fn run(plan: &Plan) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    kept_on_failure(|dir| in_own_network(play(plan, dir, &exe)))
}

async fn play(plan: &Plan, dir: &Path, exe: &Path) -> Result<(), String> {
    let lab = start_cluster(dir, exe, CHECKPOINT_OFTEN).await?;
    let clients = ClientThread::start(&lab.client, plan.clients).await?;
    let mut torture = Torture::new(lab, plan.seed);
    let cases = chosen(plan, &mut torture)?;
    let bound = Duration::from_millis(plan.bound_ms);
    let mut felt: BTreeMap<String, Felt> = BTreeMap::new();
    for (number, case) in (1..).zip(&cases) {
        clients.recorder.wait_fresh(OPERATIONS).await?;
        let phase = Duration::from_millis(torture.random.next() % PHASE_MS);
        tokio::time::sleep(phase).await;
        clients.recorder.open_window();
        let mut machines = Machines::new(&mut torture.lab);
        one(*case, &mut machines).await?;
        let helpless = machines.well().await?;
        clients.recorder.wait_fresh(OPERATIONS).await?;
        let stall = clients.recorder.longest();
        let excess = stall.saturating_sub(helpless);
        println!(
            "{number:4}/{}: {case}: waited {} ms, of which nobody could serve for {}{}",
            cases.len(),
            stall.as_millis(),
            helpless.as_millis(),
            if excess > bound { "  TOO LONG" } else { "" }
        );
        let kind = felt.entry(case.kind()).or_default();
        kind.times += 1;
        kind.worst = kind.worst.max(excess);
        kind.over += u32::from(excess > bound);
    }
    println!(
        "\n| fault | times | longest wait beyond what nobody could help (ms) | over {} ms |\n|---|---|---|---|",
        plan.bound_ms
    );
    for (kind, felt) in &felt {
        let (times, worst, over) = (felt.times, felt.worst.as_millis(), felt.over);
        println!("| {kind} | {times} | {worst} | {over} |");
    }
    torture.conclude(clients).await?;
    match felt.values().map(|felt| felt.over).sum::<u32>() {
        0 => Ok(()),
        over => Err(format!(
            "{over} of {} faults were felt for too long",
            cases.len()
        )),
    }
}

async fn one(case: Case, machines: &mut Machines<'_>) -> Result<(), String> {
    let leader = machines.lab.wait_serving(None).await?;
    match case {
        Case::Once { how, who, lasts_ms } => {
            let others = (0..NODES).filter(|node| *node != leader);
            let victims: Vec<usize> = match who {
                Who::Leader => vec![leader],
                Who::Follower => others.take(1).collect(),
                Who::Followers => others.collect(),
                Who::All => (0..NODES).collect(),
            };
            machines.begin(how, &victims).await?;
            tokio::time::sleep(Duration::from_millis(lasts_ms)).await;
            machines.end(how, &victims).await
        }
        Case::Twice { after_ms } => {
            machines.begin(How::Killed, &[leader]).await?;
            machines.lab.start(leader)?;
            let next = successor(machines, leader, after_ms).await?;
            machines.begin(How::Killed, &[next]).await?;
            machines.end(How::Killed, &[leader, next]).await
        }
        Case::MovedAndKilled { after_ms } => {
            // It is refused if another was elected just now; that is as good.
            let _ = machines.lab.request_move(leader).await;
            let next = successor(machines, leader, after_ms).await?;
            machines.begin(How::Killed, &[next]).await?;
            machines.end(How::Killed, &[next]).await
        }
    }
}

/// Whoever took over from `old`, so long ago.
async fn successor(machines: &Machines<'_>, old: usize, after_ms: u64) -> Result<usize, String> {
    let next = machines.lab.wait_serving(Some(old)).await?;
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    Ok(next)
}
