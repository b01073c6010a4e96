//! `haven demo`: a three-node cluster on this one machine, a client that takes the classic test at its
//! floating address, and a row of faults on whichever node leads. At the end: how long the client stood
//! still, and whether anything was lost or done twice.

pub mod client;
pub mod lab;
pub mod random;
mod report;

use client::ClientThread;

use crate::classic::Recorder;
use haven_platform::netns;
use lab::{FLOATING, Lab, Workplace};
use random::Random;
use report::{Fault, Report};
use std::path::Path;
use std::time::Instant;

/// Operations that every worker of the client completes between two faults, at least.
const CALM_OPERATIONS: u32 = 100;
/// And up to so many more, by chance.
const CALM_JITTER: u64 = 200;
/// Operations after a fault that show that service is back.
const BACK_OPERATIONS: u32 = 20;

/// What the demo is asked to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often each kind of fault happens.
    pub rounds: u32,
    /// Where the choices of order and moment come from.
    pub seed: u64,
    /// One JSON object instead of a story.
    pub json: bool,
}

/// Moves this process into a network of its own. Must be called while it has one thread.
///
/// # Errors
/// Why this machine does not allow it and what to do, in words.
pub fn isolate() -> Result<(), String> {
    netns::isolate().map(drop).map_err(|e| {
        format!(
            "the demo needs network namespaces, which this machine does not allow: {e}\n\
             Run it as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1; on Ubuntu also \
             kernel.apparmor_restrict_unprivileged_userns=0)."
        )
    })
}

/// Runs the demo in the network made by [`isolate`]. True if nothing was lost or done twice.
///
/// # Errors
/// What kept it from coming to an end, in words.
pub fn run(options: Options, dir: Option<&Path>, exe: &Path) -> Result<bool, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let mut place = Workplace::new(dir).map_err(|e| format!("cannot make a directory: {e}"))?;
    let outcome = runtime.block_on(Demo::play(options, place.dir(), exe));
    let clean = outcome.as_ref().is_ok_and(Report::is_clean);
    if !clean {
        place.keep();
        eprintln!(
            "the nodes' logs and data are kept in {}",
            place.dir().display()
        );
    }
    let report = outcome?;
    if options.json {
        println!(
            "{}",
            serde_json::to_string(&report).map_err(|e| e.to_string())?
        );
    } else {
        println!("\n{report}");
    }
    Ok(clean)
}

struct Demo {
    lab: Lab,
    options: Options,
    random: Random,
    began: Instant,
    report: Report,
}

impl Demo {
    async fn play(options: Options, dir: &Path, exe: &Path) -> Result<Report, String> {
        let lab = Lab::build(dir, exe, "")?;
        let (random, began) = (Random::new(options.seed), Instant::now());
        let mut demo = Self {
            lab,
            options,
            random,
            began,
            report: Report::default(),
        };
        demo.say(&format!(
            "three nodes (a, b, c), each in a network namespace of its own; floating address {FLOATING}; seed {}",
            options.seed
        ));
        let leader = demo.lab.start_all().await?;
        demo.say(&format!(
            "node {} leads and serves",
            demo.lab.nodes[leader].name
        ));
        let client = ClientThread::start(&demo.lab.client, 1).await?;
        demo.say("a client has mounted the floating address and writes, flushes, renames, removes, reads");
        let played = demo.faults(&client.recorder).await;
        let (told, verdict) = client.finish().await?;
        played?;
        demo.report.acknowledged = told;
        demo.report.lost = verdict.lost;
        demo.report.doubled = verdict.doubled;
        demo.report.out_of_order = verdict.out_of_order;
        demo.report.problems.extend(verdict.problems);
        demo.report.state_hashes_equal = demo.lab.compare_states().await?;
        Ok(std::mem::take(&mut demo.report))
    }

    fn say(&self, what: &str) {
        if !self.options.json {
            println!("{:7.2} s  {what}", self.began.elapsed().as_secs_f32());
        }
    }

    async fn faults(&mut self, recorder: &Recorder) -> Result<(), String> {
        for _ in 0..self.options.rounds {
            let mut order = Fault::ALL;
            for last in (1..order.len()).rev() {
                let chosen = (self.random.next() % (last as u64 + 1)) as usize;
                order.swap(last, chosen);
            }
            for fault in order {
                let jitter = u32::try_from(self.random.next() % CALM_JITTER).unwrap_or(0);
                recorder.wait_fresh(CALM_OPERATIONS + jitter).await?;
                self.fault(fault, recorder).await?;
            }
        }
        recorder.wait_fresh(CALM_OPERATIONS).await
    }

    async fn fault(&mut self, fault: Fault, recorder: &Recorder) -> Result<(), String> {
        let leader = self.lab.wait_serving(None).await?;
        recorder.open_window();
        match fault {
            Fault::Killed => self.lab.kill(&[leader])?,
            Fault::CutOff => self.lab.cut(leader, true)?,
            Fault::Frozen => self.lab.freeze(leader, true)?,
            Fault::Planned => drop(self.lab.request_move(leader).await?),
        }
        let next = self.lab.wait_serving(Some(leader)).await?;
        recorder.wait_fresh(BACK_OPERATIONS).await?;
        let stall = recorder.longest();
        self.report.stalls_ms.add(fault, stall);
        let name = |i: usize| self.lab.nodes[i].name.clone();
        let (old, new) = (name(leader), name(next));
        self.say(&format!(
            "{fault:12}  leader {old} -> {new}   the client waited {:4} ms",
            stall.as_millis()
        ));
        match fault {
            Fault::Killed => self.lab.start(leader)?,
            Fault::CutOff => self.lab.cut(leader, false)?,
            Fault::Frozen => self.lab.freeze(leader, false)?,
            Fault::Planned => {}
        }
        let back = Instant::now();
        self.lab.wait_caught_up(leader, next).await?;
        if fault != Fault::Planned {
            self.say(&format!(
                "{:12}  {old} is back and has caught up after {} ms",
                "",
                back.elapsed().as_millis()
            ));
        }
        Ok(())
    }
}
