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
mod subject;
mod table;
mod target;
mod wire;
mod work;

pub use args::Args;

use pattern::Pattern;
use result::{Outcome, Series};
use serde_json::{Value, json};
use spec::{BLOCK_BYTES_MAX, Spec};
use subject::Subject;
use target::Target;

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
