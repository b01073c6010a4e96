//! `haven bench`: a load generator for any NFSv3 server, and comparisons of several.
//!
//! It works in a directory of its own on the export and removes it at the end. Every reply is checked; the first
//! that is not as it must be ends the bench. `target` says where the server is, `spec` what to do; `remote` and `place`
//! prepare; `engine` runs a workload of `work`; `meter` reads what it costs; `result`, `table` and `plot` tell.

mod args;
mod connection;
mod engine;
mod meter;
mod pattern;
mod place;
mod plot;
mod remote;
mod result;
mod spec;
mod table;
mod target;
mod wire;
mod work;

pub use args::Args;

use engine::{Connections, Limit, Tally, Workload};
use meter::{LogCounts, Process};
use pattern::{Pattern, Random};
use place::Place;
use result::{Outcome, Run, Series};
use serde_json::{Value, json};
use spec::{BLOCK_BYTES_MAX, Kind, Spec};
use std::path::PathBuf;
use target::Target;
use work::{Access, Asked, Data, Files, Listing, Make, Mixed, Order, Query, Then};

/// A server under test and what is known about it.
struct Subject {
    target: Target,
    pid: Option<u32>,
    status: Option<PathBuf>,
    place: Place,
}

/// Runs the bench and writes what was asked for.
///
/// # Errors
/// The first thing that went wrong, in words.
pub fn run(args: &Args) -> Result<(), String> {
    let (targets, specs) = (args.targets()?, args.specs()?);
    let pattern = Pattern::new(args.seed, BLOCK_BYTES_MAX as usize);
    let mut subjects = Vec::new();
    let result = targets
        .iter()
        .try_for_each(|target| {
            subjects.push(args.subject(target)?);
            Ok(())
        })
        .and_then(|()| measure(args, &specs, &mut subjects, &pattern));
    if !args.keep {
        clean_up(subjects, &pattern, result.is_ok())?;
    }
    args.tell(&result?, &about(&targets))
}

/// A failure to clean up is the bench's failure only if there is no other.
fn clean_up(subjects: Vec<Subject>, pattern: &Pattern, alone: bool) -> Result<(), String> {
    for subject in subjects {
        let label = subject.target.label.clone();
        match subject.place.remove(pattern) {
            Err(e) if alone => return Err(format!("{label}: cannot clean up: {e}")),
            Err(e) => eprintln!("haven: {label}: cannot clean up: {e}"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Every workload, every run; the servers take turns, so that what else happens on the machine meets all alike.
fn measure(
    args: &Args,
    specs: &[Spec],
    subjects: &mut [Subject],
    pattern: &Pattern,
) -> Result<Vec<Outcome>, String> {
    let series = |s: &Subject| Series {
        label: s.target.label.clone(),
        runs: Vec::new(),
    };
    let mut outcomes = Vec::new();
    for spec in specs {
        let mut outcome = Outcome {
            spec: spec.clone(),
            series: subjects.iter().map(series).collect(),
        };
        for round in 0..args.runs {
            for (subject, series) in subjects.iter_mut().zip(&mut outcome.series) {
                let run = subject
                    .run(spec, args, pattern)
                    .map_err(|e| format!("{}: {}: {e}", series.label, spec.kind.name()))?;
                args.progress(spec, &series.label, round, &run);
                series.runs.push(run);
            }
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

impl Subject {
    /// Prepares, runs and clears up one workload.
    fn run(&mut self, spec: &Spec, args: &Args, pattern: &Pattern) -> Result<Run, String> {
        self.check_block(spec)?;
        let mark = self.place.mark();
        let lanes = spec.connections * spec.depth;
        let block = spec.block_bytes() as usize;
        let seed = args.seed;
        let run = match spec.kind {
            Kind::Null | Kind::Getattr | Kind::Lookup | Kind::Access => {
                let query = match spec.kind {
                    Kind::Null => Query::Null,
                    Kind::Getattr => Query::Getattr,
                    Kind::Lookup => Query::Lookup,
                    _ => Query::Access,
                };
                let stock = self.place.stock(spec.files, pattern)?;
                let mut work = Files::new(query, &stock, lanes, seed);
                self.measured(spec, &mut work, pattern)
            }
            Kind::Create | Kind::SmallFile | Kind::CreateRemove => {
                let then = match spec.kind {
                    Kind::Create => Then::Nothing,
                    Kind::CreateRemove => Then::Remove,
                    _ => Then::Write {
                        bytes: block,
                        stable: spec.stable,
                    },
                };
                let dirs = (0..spec.connections)
                    .map(|i| self.place.dir(&format!("new-{mark}-{i}")))
                    .collect::<Result<Vec<_>, _>>()?;
                let mut work = Make::new(&dirs, lanes, then);
                let run = self.measured(spec, &mut work, pattern);
                if run.is_ok() && !args.keep {
                    self.place.clear(mark, pattern)?;
                }
                run
            }
            Kind::WriteSeq | Kind::WriteRand | Kind::ReadSeq | Kind::ReadRand => {
                let access = match spec.kind {
                    Kind::WriteSeq | Kind::WriteRand => Access::Write(spec.stable),
                    _ => Access::Read {
                        verify: args.verify,
                    },
                };
                let order = match spec.kind {
                    Kind::WriteSeq | Kind::ReadSeq => Order::Sequential,
                    _ => Order::Random,
                };
                let files = self.place.data(spec, pattern)?;
                let size = (block, spec.file_size);
                let mut work = Data::new(access, order, size, &files, lanes, (pattern, seed));
                self.measured(spec, &mut work, pattern)
            }
            Kind::Readdir => {
                let stock = self.place.stock(spec.files, pattern)?;
                let mut work = Listing::new(&stock.dir, spec.files, lanes);
                self.measured(spec, &mut work, pattern)
            }
            Kind::Mixed => {
                let stock = self.place.stock(spec.files, pattern)?;
                let data = self.place.data(spec, pattern)?;
                let mut work = Mixed {
                    stock: &stock,
                    data: &data,
                    block,
                    blocks: (spec.file_size / block as u64) as usize,
                    random: Random::new(seed),
                    asked: vec![Asked::Write; lanes],
                };
                self.measured(spec, &mut work, pattern)
            }
        };
        run
    }

    /// Whether the server takes blocks of this size.
    fn check_block(&mut self, spec: &Spec) -> Result<(), String> {
        let (rtmax, wtmax) = self.place.remote.limits()?;
        let (what, max) = match spec.kind {
            Kind::ReadSeq | Kind::ReadRand => ("READ", rtmax),
            Kind::WriteSeq | Kind::WriteRand | Kind::SmallFile => ("WRITE", wtmax),
            Kind::Mixed => ("READ or WRITE", rtmax.min(wtmax)),
            _ => return Ok(()),
        };
        if spec.block_bytes() > max {
            return Err(format!(
                "the server takes at most {max} bytes in one {what}: give a smaller --block"
            ));
        }
        Ok(())
    }

    /// Warms up, then runs a workload between two readings of all meters.
    fn measured(
        &self,
        spec: &Spec,
        work: &mut impl Workload,
        pattern: &Pattern,
    ) -> Result<Run, String> {
        let mut connections: Connections = self.place.connect(spec.connections, spec.depth)?;
        if !spec.warmup().is_zero() {
            let limit = Limit {
                ops: None,
                time: Some(spec.warmup()),
            };
            connections.run(work, pattern, limit)?;
        }
        let limit = match spec.ops {
            Some(ops) => Limit {
                ops: Some(ops),
                time: None,
            },
            None => Limit {
                ops: None,
                time: Some(spec.time),
            },
        };
        let before = self.meters()?;
        let tally: Tally = connections.run(work, pattern, limit)?;
        let after = self.meters()?;
        let since = |(a, b): (Process, Process)| a.since(b);
        Ok(Run::new(
            &tally,
            after.0.since(before.0),
            after.1.zip(before.1).map(since),
            after.2.zip(before.2).map(|(a, b)| a.since(b)),
        ))
    }

    fn meters(&self) -> Result<(Process, Option<Process>, Option<LogCounts>), String> {
        let pid = self.pid.map(|pid| pid.to_string());
        Ok((
            Process::read("self")?,
            pid.map(|pid| Process::read(&pid)).transpose()?,
            self.status.as_deref().map(LogCounts::read).transpose()?,
        ))
    }
}

/// What else a reader of the results wants to know.
fn about(targets: &[Target]) -> Value {
    let line = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found = text.lines().find(|l| l.starts_with(name));
        found.map(|l| {
            l.trim_start_matches(name)
                .trim_matches([' ', '\t', ':'])
                .to_owned()
        })
    };
    let servers: Vec<_> = targets
        .iter()
        .map(|t| json!({ "label": t.label, "url": t.url }))
        .collect();
    json!({
        "haven": env!("CARGO_PKG_VERSION"),
        "kernel": line("/proc/sys/kernel/osrelease", ""),
        "processor": line("/proc/cpuinfo", "model name"),
        "processors": std::thread::available_parallelism().map(std::num::NonZero::get).ok(),
        "servers": servers,
    })
}
