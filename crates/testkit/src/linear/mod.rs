//! Linearizability under faults: several clients at the floating address, and one on each node that goes on
//! talking to that node's own address whoever leads, work on the same few small files and directories.
//! Every call and answer is noted, and in the end some order must explain each file and each directory.
//!
//! One seed is one schedule of faults: kills, power losses of one node, freezes longer than the lease, cut
//! cables, cables that carry one way only, planned moves.

mod clients;
mod dir;
mod faults;
mod file;
mod history;
#[cfg(test)]
mod tests;

use crate::afflicted::{Affliction, afflict};
use crate::{CHECKPOINT_OFTEN, in_own_network, kept_on_failure};
use clients::Crowd;
use faults::Schedule;
use haven::demo::lab::{Lab, NODES};
use haven::demo::random::Random;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// What is asked for.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Plan {
    /// How many schedules of faults.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// The first one's seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Faults in each.
    #[arg(long, default_value_t = 5)]
    faults: u32,
}

/// Plays all seeds, each in a process of its own: a network can be made only before there are threads.
pub fn run(plan: Plan) -> Result<(), String> {
    if plan.seeds == 1 {
        return one_seed(plan);
    }
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut failed = Vec::new();
    for seed in plan.seed..plan.seed.saturating_add(plan.seeds) {
        let status = Command::new(&exe)
            .args(["linearizable", "--seeds", "1"])
            .args(["--seed", &seed.to_string()])
            .args(["--faults", &plan.faults.to_string()])
            .status();
        if !status.map_err(|e| e.to_string())?.success() {
            failed.push(seed);
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("seeds that failed: {failed:?}")),
    }
}

fn one_seed(plan: Plan) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    kept_on_failure(|dir| in_own_network(play(plan, dir, &exe)))
}

async fn play(plan: Plan, dir: &Path, exe: &Path) -> Result<(), String> {
    let mut random = Random::new(plan.seed);
    let mut lab = Lab::build(dir, exe, CHECKPOINT_OFTEN)?;
    for node in 0..NODES {
        let volatile = random.next().is_multiple_of(2);
        let affliction = Affliction {
            volatile,
            ..Affliction::default()
        };
        afflict(&lab, node, &affliction).await?;
    }
    lab.start_all().await?;
    let crowd = Crowd::start(&lab, random.next()).await?;
    let mut schedule = Schedule::new(lab, random);
    for number in 1..=plan.faults {
        let what = schedule.strike().await?;
        println!("seed {}, fault {number}: {what}", plan.seed);
    }
    let lab = schedule.calm_down().await?;
    let found = crowd.finish().await?;
    let began = Instant::now();
    let judged = found.judge()?;
    let took = began.elapsed();
    if !lab.compare_states().await? {
        return Err("the nodes' states differ".into());
    }
    println!(
        "seed {}: {} operations on {} files and directories, {} never answered, {} by a node's own address; \
         an order explains them all (found in {} ms); states equal",
        plan.seed,
        judged.operations,
        judged.objects,
        judged.unanswered,
        found.by_own_address,
        took.as_millis()
    );
    // A judgement on nothing is none.
    match judged.operations < MEANINGFUL || found.by_own_address == 0 {
        true => Err("the clients hardly did anything".into()),
        false => Ok(()),
    }
}

/// So many operations a seed has at least, or something is wrong with the clients.
const MEANINGFUL: usize = 300;
