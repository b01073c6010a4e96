//! `cargo xtask fuzz`: runs the fuzz targets one after another and says what came of it.
//!
//! Each target starts from the seeds in `fuzz/corpus` and what earlier runs here collected under
//! `fuzz/target/corpus`. The fuzzer's own output goes to `fuzz/target/logs`, inputs that break
//! something to `fuzz/artifacts`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Seconds for each target unless `--seconds` says otherwise.
const SECONDS_DEFAULT: u32 = 60;
/// Memory beyond which a run counts as a finding: decoders allocate by what is there.
const RSS_MIB_MAX: u32 = 1024;
/// Seconds for one input beyond which it counts as a finding.
const INPUT_SECONDS_MAX: u32 = 10;

/// What was asked on the command line.
struct Options {
    seconds: u32,
    target: Option<String>,
}

/// What became of a target's run.
struct Outcome {
    executions: Option<u64>,
    findings: Vec<PathBuf>,
    success: bool,
}

/// Runs the targets that `args` ask for: `[--seconds N] [--target T]`.
pub fn run(args: &[String]) -> Result<(), String> {
    let options = parse(args)?;
    let fuzz = super::root().join("fuzz");
    let targets = match options.target {
        Some(target) => vec![target],
        None => targets(&fuzz)?,
    };
    let mut broken = Vec::new();
    for target in targets {
        let outcome = fuzz_one(&fuzz, &target, options.seconds)?;
        let executions = outcome.executions.map_or("no".into(), |n| n.to_string());
        let findings = outcome.findings.len();
        println!("{target:16} {executions:>12} executions {findings:>4} findings");
        for finding in &outcome.findings {
            println!("  {}", finding.display());
        }
        if !outcome.success || findings > 0 {
            let log = log_path(&fuzz, &target);
            println!("  see {}", log.display());
            broken.push(target);
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        Err(format!("look at {}", broken.join(", ")))
    }
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        seconds: SECONDS_DEFAULT,
        target: None,
    };
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let value = args.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--seconds" => {
                let seconds = value.parse().ok().filter(|&seconds| seconds > 0);
                options.seconds = seconds.ok_or(format!("{value} is no number of seconds"))?;
            }
            "--target" => options.target = Some(value.clone()),
            other => {
                return Err(format!(
                    "unknown option {other}: [--seconds N] [--target T]"
                ));
            }
        }
    }
    Ok(options)
}

/// The names of all targets: of the files in `fuzz_targets`.
fn targets(fuzz: &Path) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = files(&fuzz.join("fuzz_targets"))?
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn fuzz_one(fuzz: &Path, target: &str, seconds: u32) -> Result<Outcome, String> {
    let seeds = fuzz.join("corpus").join(target);
    let collected = fuzz.join("target/corpus").join(target);
    let artifacts = fuzz.join("artifacts").join(target);
    for dir in [&collected, &artifacts, &fuzz.join("target/logs")] {
        fs::create_dir_all(dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    }
    let before = files(&artifacts)?;
    let log = log_path(fuzz, target);
    let log_file = File::create(&log).map_err(|e| format!("cannot make {}: {e}", log.display()))?;
    let status = Command::new("cargo")
        .args(["fuzz", "run", target])
        .args([&collected, &seeds])
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={RSS_MIB_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg("-print_final_stats=1")
        // cargo-fuzz uses compiler flags that are not stable yet.
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(super::root())
        .stdout(Stdio::null())
        .stderr(log_file)
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    if text.contains("no such command: `fuzz`") {
        return Err("cargo-fuzz is missing: `cargo install cargo-fuzz --locked`".into());
    }
    let mut findings = files(&artifacts)?;
    findings.retain(|path| !before.contains(path));
    Ok(Outcome {
        executions: executions(&text),
        findings,
        success: status.success(),
    })
}

fn log_path(fuzz: &Path, target: &str) -> PathBuf {
    fuzz.join("target/logs").join(format!("{target}.log"))
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let why = |e| format!("cannot list {}: {e}", dir.display());
    let entries = fs::read_dir(dir).map_err(why)?;
    entries
        .map(|entry| entry.map(|e| e.path()).map_err(why))
        .collect()
}

/// The number in libFuzzer's last `stat::number_of_executed_units: 5`.
fn executions(log: &str) -> Option<u64> {
    let mut lines = log.lines().rev();
    let number = lines.find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    number.trim().parse().ok()
}
