//! `haven demo`: a three-node cluster on this one machine, a client that takes the classic test at its
//! floating address, and a row of faults on whichever node leads. At the end: how long the client stood
//! still, and whether anything was lost or done twice.

pub mod client;
pub mod lab;
pub mod random;
mod report;
mod scene;
mod stage;

use client::ClientThread;

use crate::classic::Recorder;
use crate::term::is_terminal;
use haven_platform::netns;
use lab::{EXPORT, FLOATING, Lab, Workplace};
use random::Random;
use report::{Fault, Report};
use scene::Condition;
use stage::Stage;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Operations that every worker of the client completes between two faults, at least.
const CALM_OPERATIONS: u32 = 100;
/// And up to so many more, by chance.
const CALM_JITTER: u64 = 200;
/// Operations after a fault that show that service is back.
const BACK_OPERATIONS: u32 = 20;

/// Pause before a fault for those who look on.
const LOOK: Duration = Duration::from_millis(1_500);

/// What the demo is asked to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often each kind of fault happens.
    pub rounds: u32,
    /// Where the choices of order and moment come from.
    pub seed: u64,
    /// One JSON object instead of a story.
    pub json: bool,
    /// Clients, each with a connection of its own and three operations under way.
    pub clients: usize,
    /// Leave the cluster running until interrupted.
    pub keep: bool,
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
    let clean = match runtime.block_on(stage_and_keep(options, place.dir(), exe)) {
        Ok(None) => return Err("interrupted".into()),
        Ok(Some(clean)) => Ok(clean),
        Err(why) => Err(why),
    };
    if !clean.as_ref().is_ok_and(|clean| *clean) {
        place.keep();
        eprintln!(
            "the nodes' logs and data are kept in {}",
            place.dir().display()
        );
    }
    clean
}

/// Whether nothing was lost or done twice; `None`: somebody ended it.
async fn stage_and_keep(options: Options, dir: &Path, exe: &Path) -> Result<Option<bool>, String> {
    let end = ended()?;
    let mut demo = Demo::prepare(options, dir, exe)?;
    let outcome = tokio::select! {
        outcome = demo.play() => Some(outcome),
        () = end => None,
    };
    // Gives the terminal back, however it ended.
    demo.stage.end().await;
    let Some(outcome) = outcome else {
        return Ok(None);
    };
    let report = outcome?;
    if options.json {
        println!(
            "{}",
            serde_json::to_string(&report).map_err(|e| e.to_string())?
        );
    } else {
        println!("\n{report}");
    }
    if options.keep {
        demo.keep().await?;
    }
    Ok(Some(report.is_clean()))
}

/// Returns when somebody ends this process.
fn ended() -> Result<impl Future<Output = ()>, String> {
    let words = |e: std::io::Error| e.to_string();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(words)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(words)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

struct Demo {
    lab: Lab,
    options: Options,
    random: Random,
    stage: Stage,
    report: Report,
}

impl Demo {
    fn prepare(options: Options, dir: &Path, exe: &Path) -> Result<Self, String> {
        let lab = Lab::build(dir, exe, "")?;
        let stage = match options.json || !is_terminal() {
            true => Stage::plain(options.json),
            false => Stage::live(&lab, options.seed)?,
        };
        Ok(Self {
            lab,
            options,
            random: Random::new(options.seed),
            stage,
            report: Report::default(),
        })
    }

    async fn play(&mut self) -> Result<Report, String> {
        let stage = &self.stage;
        stage.say(&format!(
            "three nodes (a, b, c), each in a network namespace of its own; floating address {FLOATING}; seed {}",
            self.options.seed
        ));
        stage.now("the nodes start");
        let leader = self.lab.start_all().await?;
        self.stage.say(&format!(
            "node {} leads and serves",
            self.lab.nodes[leader].name
        ));
        let client = ClientThread::start(&self.lab.client, self.options.clients).await?;
        self.stage.watch(&client.recorder);
        self.stage
            .say("a client has mounted the floating address and writes, flushes, renames, removes, reads");
        let recorder = Arc::clone(&client.recorder);
        let played = self.faults(&recorder).await;
        self.stage.now("reading everything back");
        let (told, verdict) = client.finish().await?;
        played?;
        self.report.acknowledged = told;
        self.report.lost = verdict.lost;
        self.report.doubled = verdict.doubled;
        self.report.out_of_order = verdict.out_of_order;
        self.report.problems.extend(verdict.problems);
        self.stage.now("comparing the nodes' states");
        self.report.state_hashes_equal = self.lab.compare_states().await?;
        Ok(std::mem::take(&mut self.report))
    }

    /// Leaves the cluster running until somebody ends it.
    async fn keep(&self) -> Result<(), String> {
        let end = ended()?;
        let config = self.lab.nodes[0].config();
        let help = kept(&config, std::process::id());
        match self.options.json {
            true => eprintln!("{help}"),
            false => println!("{help}"),
        }
        end.await;
        Ok(())
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
        let name = |lab: &Lab, i: usize| lab.nodes[i].name.clone();
        let old = name(&self.lab, leader);
        if self.stage.is_live() {
            self.stage.now(&format!("next: {} {old}", fault.doing()));
            tokio::time::sleep(LOOK).await;
        }
        self.stage.now(&format!("{} {old}", fault.doing()));
        recorder.open_window();
        match fault {
            Fault::Killed => self.lab.kill(&[leader])?,
            Fault::CutOff => self.lab.cut(leader, true)?,
            Fault::Frozen => self.lab.freeze(leader, true)?,
            Fault::Planned => self.lab.request_move(leader).await?,
        }
        self.stage.condition(leader, fault.condition());
        let next = self.lab.wait_serving(Some(leader)).await?;
        recorder.wait_fresh(BACK_OPERATIONS).await?;
        let stall = recorder.longest();
        self.report.stalls_ms.add(fault, stall);
        self.stage.say(&format!(
            "{fault:12}  leader {old} -> {}   the client waited {:4} ms",
            name(&self.lab, next),
            stall.as_millis()
        ));
        if self.stage.is_live() && fault != Fault::Planned {
            self.stage.now(&format!("{old} stays away for a moment"));
            tokio::time::sleep(LOOK).await;
        }
        match fault {
            Fault::Killed => self.lab.start(leader)?,
            Fault::CutOff => self.lab.cut(leader, false)?,
            Fault::Frozen => self.lab.freeze(leader, false)?,
            Fault::Planned => {}
        }
        self.stage.condition(leader, Condition::Well);
        self.stage.now(&format!("{old} comes back and catches up"));
        let back = Instant::now();
        self.lab.wait_caught_up(leader, next).await?;
        if fault != Fault::Planned {
            self.stage.say(&format!(
                "{:12}  {old} is back and has caught up after {} ms",
                "",
                back.elapsed().as_millis()
            ));
        }
        Ok(())
    }
}

/// What to do with a cluster that was left running.
fn kept(config: &Path, pid: u32) -> String {
    let config = config.display();
    let mount = format!(
        "mount -t nfs -o vers=3,nolock,hard,tcp,port={},mountport={},mountproto=tcp",
        haven_config::NFS_PORT_DEFAULT,
        haven_config::MOUNT_PORT_DEFAULT
    );
    format!(
        "the cluster goes on. From another terminal, as the same user:
  look at it    haven status --watch --config {config}
  move it       haven migrate --config {config}   (any node's file will do)
  mount it      nsenter -t {pid} -n {mount} {FLOATING}:{EXPORT} /mnt
                (nolock: programs lock among themselves on that client; Haven has no locks of its own yet)
                (root only; otherwise: nsenter -t {pid} -U --preserve-credentials -n haven bench nfs://{FLOATING}{EXPORT})
  end it        umount /mnt, then Ctrl-C here, or: kill {pid}"
    )
}
