//! The command line of `haven bench`, and what is told at the end.

use super::meter::Process;
use super::place::Place;
use super::plot;
use super::remote::Caller;
use super::result::{self, Outcome, Run};
use super::spec::{self, Kind, Spec, Stable};
use super::subject::Subject;
use super::table;
use super::target::Target;
use haven_config::Config;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `haven bench`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Server: nfs://HOST[:PORT]/EXPORT[?nfsport=N&mountport=N]. Several, each with a label, are compared:
    /// haven=nfs://... other=nfs://...
    #[arg(required = true, value_name = "[LABEL=]URL")]
    target: Vec<String>,
    /// What to do: null, getattr, lookup, access, create, small-file, create-remove, write-seq, write-rand, read-seq,
    /// read-rand, readdir, mixed. Several with commas; settings of its own behind a colon:
    /// getattr,read-seq:connections=1,block=1M
    #[arg(
        long,
        short,
        default_value = "null,getattr,lookup",
        value_name = "LIST"
    )]
    workload: Vec<String>,
    /// TCP connections.
    #[arg(long, default_value = "16")]
    connections: String,
    /// Calls in flight on each connection.
    #[arg(long, default_value = "1")]
    depth: String,
    /// How long each run lasts.
    #[arg(long, default_value = "5")]
    seconds: String,
    /// Operations of each run, instead of a time.
    #[arg(long, conflicts_with = "seconds")]
    ops: Option<String>,
    /// Seconds of each run that are not measured; default: 1, or 0 with --ops.
    #[arg(long, value_name = "SECONDS")]
    warmup: Option<String>,
    /// Bytes of a READ or WRITE, or of a small file; default: 1M for sequential ones, else 4K.
    #[arg(long, value_name = "BYTES")]
    block: Option<String>,
    /// Bytes of the file that each connection reads or writes.
    #[arg(long, default_value = "64M", value_name = "BYTES")]
    file_size: String,
    /// Files that getattr, lookup, access and readdir work on.
    #[arg(long, default_value = "1000")]
    files: String,
    /// Durability of WRITEs: `commit` (UNSTABLE, then COMMIT where the server wants one) or `file-sync`.
    #[arg(long, default_value = "commit")]
    stable: String,
    /// Compare what is read with what was written.
    #[arg(long)]
    pub(super) verify: bool,
    /// Who asks; default: who runs this.
    #[arg(long)]
    uid: Option<u32>,
    /// With which group; default: that of who runs this.
    #[arg(long)]
    gid: Option<u32>,
    /// Connect from ports below 1024, as some servers insist.
    #[arg(long)]
    reserved_ports: bool,
    /// Seconds without any reply after which the server is given up.
    #[arg(long, default_value = "60", value_name = "SECONDS")]
    timeout: String,
    /// Runs of each workload; medians are shown.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) runs: u32,
    /// Process of the server on this machine, for what it costs: PID, or LABEL=PID for one of several.
    #[arg(long, value_name = "[LABEL=]PID")]
    server_pid: Vec<String>,
    /// Control socket of a Haven node, for its log's flushes: PATH or LABEL=PATH.
    #[arg(long, value_name = "[LABEL=]SOCKET")]
    haven_status: Vec<String>,
    /// Configuration file of a Haven node, to find its control socket: FILE or LABEL=FILE.
    #[arg(long, value_name = "[LABEL=]FILE")]
    config: Vec<String>,
    /// Where pseudo-random choices come from.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Leave the directory haven-bench-... on the server.
    #[arg(long)]
    pub(super) keep: bool,
    /// Write results as JSON; `-` is standard output, instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw results into an SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

impl Args {
    /// The servers.
    pub(super) fn targets(&self) -> Result<Vec<Target>, String> {
        let targets = self
            .target
            .iter()
            .map(|t| t.parse::<Target>().map_err(|e| format!("{t}: {e}")))
            .collect::<Result<Vec<_>, _>>()?;
        for (i, target) in targets.iter().enumerate() {
            if targets[..i].iter().any(|t| t.label == target.label) {
                return Err(format!(
                    "two servers are called {}; give them labels: a=nfs://... b=nfs://...",
                    target.label
                ));
            }
        }
        let known = |label: &str| targets.iter().any(|t| t.label == label);
        for option in [&self.server_pid, &self.haven_status, &self.config] {
            for value in option {
                match value.split_once('=') {
                    Some((label, _)) if !known(label) => {
                        return Err(format!("{value}: no server is called {label}"));
                    }
                    None if targets.len() > 1 => {
                        return Err(format!("{value}: say of which server, LABEL={value}"));
                    }
                    _ => {}
                }
            }
        }
        Ok(targets)
    }

    /// The workloads.
    pub(super) fn specs(&self) -> Result<Vec<Spec>, String> {
        let mut default = Spec {
            kind: Kind::Null,
            connections: 1,
            depth: 1,
            time: Duration::ZERO,
            ops: None,
            warmup: None,
            block: None,
            file_size: 0,
            files: 0,
            stable: Stable::Commit,
        };
        let mut set =
            |key: &str, value: &str| default.set(key, value).map_err(|e| format!("--{e}"));
        set("connections", &self.connections)?;
        set("depth", &self.depth)?;
        set("seconds", &self.seconds)?;
        set("file-size", &self.file_size)?;
        set("files", &self.files)?;
        set("stable", &self.stable)?;
        for (key, value) in [
            ("ops", &self.ops),
            ("warmup", &self.warmup),
            ("block", &self.block),
        ] {
            if let Some(value) = value {
                set(key, value)?;
            }
        }
        let specs = spec::parse(&self.workload.join(","), &default)?;
        if specs.is_empty() {
            return Err("no workload is given".into());
        }
        Ok(specs)
    }

    /// Mounts a server's export and makes the directory there.
    pub(super) fn subject(&self, target: &Target) -> Result<Subject, String> {
        let label = &target.label;
        let own = |e: String| format!("{label}: {e}");
        let pid = match value_for(&self.server_pid, label) {
            None => None,
            Some(pid) => {
                let pid: u32 = pid
                    .parse()
                    .map_err(|_| own(format!("`{pid}` is not a process id")))?;
                Process::read(&pid.to_string()).map_err(own)?;
                Some(pid)
            }
        };
        let status = match (
            value_for(&self.haven_status, label),
            value_for(&self.config, label),
        ) {
            (Some(socket), _) => Some(PathBuf::from(socket)),
            (None, Some(file)) => {
                let config = Config::load(Path::new(file)).map_err(|e| own(e.to_string()))?;
                Some(config.node.control)
            }
            (None, None) => None,
        };
        let uid = self
            .uid
            .unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let gid = self
            .gid
            .unwrap_or_else(|| rustix::process::getegid().as_raw());
        let patience = spec::seconds(&self.timeout).map_err(|e| format!("--timeout: {e}"))?;
        if patience.is_zero() {
            return Err("--timeout: give more than 0 seconds".into());
        }
        let caller = Caller::new(uid, gid, self.reserved_ports, patience);
        let name = format!("haven-bench-{}-{}", self.seed, std::process::id());
        let place = Place::make(target, caller, &name).map_err(own)?;
        Ok(Subject {
            target: target.clone(),
            pid,
            status,
            place,
        })
    }

    /// Says how it goes, if there is more than one run to wait for.
    pub(super) fn progress(&self, spec: &Spec, label: &str, round: u32, run: &Run) {
        eprintln!(
            "{} {label} run {}/{}: {} ops/s",
            spec.kind.name(),
            round + 1,
            self.runs,
            table::number(run.ops_per_second)
        );
    }

    /// Writes table, JSON and plot.
    pub(super) fn tell(&self, outcomes: &[Outcome], about: &Value) -> Result<(), String> {
        let stdout = self.json.as_deref() == Some(Path::new("-"));
        if !stdout {
            print!("{}", table::render(outcomes));
        }
        if let Some(file) = &self.json {
            let json = result::to_json(outcomes, about);
            let text = serde_json::to_string_pretty(&json).map_err(|e| e.to_string())? + "\n";
            if stdout {
                print!("{text}");
            } else {
                write(file, &text)?;
            }
        }
        match &self.plot {
            Some(file) => write(file, &plot::render(outcomes)),
            None => Ok(()),
        }
    }
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

/// What an option says about the server of this label.
fn value_for<'a>(values: &'a [String], label: &str) -> Option<&'a str> {
    values
        .iter()
        .rev()
        .find_map(|value| match value.split_once('=') {
            Some((of, value)) => (of == label).then_some(value),
            None => Some(value),
        })
}
