//! The project's one gate, the same here and in CI: `cargo xtask gate`. Beside it, `cargo xtask fuzz`.
//!
//! Each step is a function that says what it checks; the gate runs all of them in order and stops at
//! the first failure. Steps can be run alone: `cargo xtask deps`.

mod fuzz;
mod layers;
mod tidy;

use std::env;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// A step of the gate: its name, what it is for, and what runs it.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<(), String>,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        about: "formatting",
        run: fmt,
    },
    Step {
        name: "layers",
        about: "who may know whom; what pure crates must not name",
        run: layers::check,
    },
    Step {
        name: "tidy",
        about: "leftovers of merges, dead links, long files, names of one machine, mute scripts",
        run: tidy::check,
    },
    Step {
        name: "clippy",
        about: "lints, warnings are errors",
        run: clippy,
    },
    Step {
        name: "deny",
        about: "licences, duplicates and sources of dependencies",
        run: deny,
    },
    Step {
        name: "doc",
        about: "documentation builds without warnings",
        run: doc,
    },
    Step {
        name: "test",
        about: "all tests",
        run: test,
    },
];

fn main() -> ExitCode {
    let asked = env::args().nth(1).unwrap_or_default();
    if asked == "fuzz" {
        let options: Vec<String> = env::args().skip(2).collect();
        return match fuzz::run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("fuzz: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let steps: Vec<&Step> = match asked.as_str() {
        "gate" => STEPS.iter().collect(),
        name => STEPS.iter().filter(|s| s.name == name).collect(),
    };
    if steps.is_empty() {
        eprintln!("usage: cargo xtask gate | STEP | fuzz [--seconds N] [--target T]\n");
        eprintln!("steps of the gate:");
        for step in STEPS {
            eprintln!("  {:8} {}", step.name, step.about);
        }
        return ExitCode::from(2);
    }
    for step in steps {
        println!("== {}: {}", step.name, step.about);
        if let Err(why) = (step.run)() {
            eprintln!("{} failed: {why}", step.name);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The workspace's root directory.
fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or(own.clone(), PathBuf::from)
}

fn cargo(args: &[&str]) -> Result<(), String> {
    cargo_with(args, &[])
}

fn cargo_with(args: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let status = Command::new(cargo)
        .args(args)
        .envs(environment.iter().copied())
        .current_dir(root())
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("cargo {}: {status}", args.join(" ")))
    }
}

fn fmt() -> Result<(), String> {
    cargo(&["fmt", "--all", "--check"])
}

fn clippy() -> Result<(), String> {
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ])
}

/// Advisories need the advisory database from the network: they are checked by `cargo deny check
/// advisories` where it can be reached, not by the gate, which must work offline.
fn deny() -> Result<(), String> {
    cargo(&[
        "deny",
        "--all-features",
        "check",
        "bans",
        "licenses",
        "sources",
    ])
}

fn doc() -> Result<(), String> {
    cargo_with(
        &["doc", "--workspace", "--no-deps", "--locked", "--quiet"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )
}

/// Runs all tests and ends with their number: a run that tested nothing is a failure.
fn test() -> Result<(), String> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut child = Command::new(cargo)
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .current_dir(root())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    let (mut passed, mut failed) = (0, 0);
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|e| e.to_string())?;
            println!("{line}");
            passed += count(&line, " passed");
            failed += count(&line, " failed");
        }
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    println!("{passed} passed, {failed} failed");
    match (status.success(), passed) {
        (true, 1..) => Ok(()),
        (true, 0) => Err("no test ran".into()),
        (false, _) => Err(format!("cargo test: {status}")),
    }
}

/// The number before `what` in a line such as `test result: ok. 5 passed; 0 failed; …`.
fn count(line: &str, what: &str) -> u32 {
    let Some(rest) = line.strip_prefix("test result:") else {
        return 0;
    };
    let Some((before, _)) = rest.split_once(what) else {
        return 0;
    };
    before
        .rsplit(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}
