//! The dependency rule of docs/ARCHITECTURE.md, enforced.
//!
//! Two things are checked. Crates depend on each other only as [`MAY_KNOW`] says (dependencies for
//! tests are free). And crates that must stay pure name nothing that makes a replica differ from
//! another: no runtime, no sockets, no clock, no randomness, no environment.

use std::fs;
use std::path::Path;

/// Crate, and which of our crates it may depend on. `*` is all.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("disk", &[]),
    ("xdr-derive", &[]),
    ("xdr", &["xdr-derive"]),
    ("rpc", &["xdr"]),
    ("proto", &["xdr", "rpc"]),
    ("fs", &[]),
    ("store", &["fs", "disk"]),
    ("nfsd", &["xdr", "rpc", "proto", "fs"]),
    ("log", &["disk"]),
    ("pki", &[]),
    ("consensus", &["log", "pki"]),
    ("cluster", &[]),
    ("platform", &["cluster"]),
    ("net", &["xdr", "rpc"]),
    ("config", &[]),
    ("client", &["xdr", "rpc", "proto"]),
    ("admin", &[]),
    ("haven", &["*"]),
    ("testkit", &["*"]),
    ("fuzz-targets", &["*"]),
];

/// Crates whose behaviour must be a function of their inputs.
const PURE: &[&str] = &["xdr-derive", "xdr", "rpc", "proto", "fs", "nfsd", "cluster"];

/// What a pure crate must not name in code that ships.
const IMPURE: &[&str] = &[
    "tokio",
    "SystemTime",
    "Instant",
    "std::env",
    "std::fs",
    "std::thread",
    "TcpStream",
    "UdpSocket",
    "getrandom",
    "rand::",
    "HashMap",
    "HashSet",
];

pub fn check() -> Result<(), String> {
    let crates = super::root().join("crates");
    let mut faults = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(&crates).map_err(|e| e.to_string())? {
        let path = entry.map_err(|e| e.to_string())?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            continue;
        };
        seen += 1;
        match MAY_KNOW.iter().find(|(n, _)| *n == name) {
            None => faults.push(format!("crate {name} is missing from the table in xtask")),
            Some((_, allowed)) => dependencies(&path, name, allowed, &mut faults)?,
        }
        if PURE.contains(&name) {
            purity(&path.join("src"), &mut faults)?;
        }
    }
    if seen != MAY_KNOW.len() {
        faults.push(format!(
            "{seen} crates, but the table lists {}",
            MAY_KNOW.len()
        ));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(format!("\n  {}", faults.join("\n  ")))
    }
}

fn dependencies(
    path: &Path,
    name: &str,
    allowed: &[&str],
    faults: &mut Vec<String>,
) -> Result<(), String> {
    let manifest = fs::read_to_string(path.join("Cargo.toml")).map_err(|e| e.to_string())?;
    let mut shipping = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            shipping = line.trim() == "[dependencies]";
        }
        let Some(rest) = line.strip_prefix("haven-") else {
            continue;
        };
        let other = rest.split(['.', ' ', '=']).next().unwrap_or_default();
        if shipping && !allowed.contains(&"*") && !allowed.contains(&other) {
            faults.push(format!("{name} must not depend on {other}"));
        }
    }
    Ok(())
}

fn purity(dir: &Path, faults: &mut Vec<String>) -> Result<(), String> {
    for entry in fs::read_dir(dir).map_err(|e| e.to_string())? {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.is_dir() {
            purity(&path, faults)?;
            continue;
        }
        // Files of tests may do as they like; so may test modules, which stand last in a file.
        if path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().contains("tests"))
        {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|e| e.to_string())?;
        for (number, line) in text.lines().enumerate() {
            if line.trim() == "#[cfg(test)]" {
                break;
            }
            let code = line.split("//").next().unwrap_or_default();
            for word in IMPURE.iter().filter(|w| code.contains(**w)) {
                faults.push(format!("{}:{}: names {word}", path.display(), number + 1));
            }
        }
    }
    Ok(())
}
