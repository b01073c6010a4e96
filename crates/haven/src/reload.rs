//! SIGHUP: what a configuration that was read again changes, and whether this process can take it over.
//!
//! A node never half-adopts a file: one that is wrong changes nothing.

use crate::exports::Exports;
use crate::logging;
use crate::show;
use haven_config::Config;
use std::fmt::Debug;
use std::path::Path;
use tracing::{error, info, warn};

/// A part of the configuration that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    what: &'static str,
    now: String,
    /// Whether the running process takes it over.
    at_once: bool,
}

/// Reads `file` again and takes over what can be. Returns the configuration that holds from now on.
pub fn reload(file: &Path, running: Config, exports: &Exports) -> Config {
    let new = match Config::load(file) {
        Ok(new) => new,
        Err(why) => {
            error!(%why, "the configuration is wrong; everything stays as it is");
            return running;
        }
    };
    let changes = changes(&running, &new);
    if changes.is_empty() {
        info!("the configuration was read again: nothing has changed");
    }
    for Change { what, now, at_once } in changes {
        if at_once {
            info!(what, now, "changed");
        } else {
            warn!(
                what,
                now, "changed in the file, but needs a restart of this node; the old value holds"
            );
        }
    }
    for warning in &new.warnings {
        warn!("{warning}");
    }
    logging::set_level(new.log.level);
    if new.exports != running.exports {
        exports.set(&new.exports);
    }
    Config {
        exports: new.exports,
        warnings: new.warnings,
        log: haven_config::Log {
            level: new.log.level,
            ..running.log
        },
        ..running
    }
}

fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut all = Vec::new();
    let mut compare = |what, old: &dyn Debug, new: &dyn Debug, at_once| {
        let now = format!("{new:?}");
        if format!("{old:?}") != now {
            all.push(Change { what, now, at_once });
        }
    };
    compare("log.level", &old.log.level, &new.log.level, true);
    compare("log.format", &old.log.format, &new.log.format, false);
    compare("limits", &old.limits, &new.limits, false);
    compare("node", &old.node, &new.node, false);
    compare("node (health)", &old.health, &new.health, false);
    compare("metrics", &old.metrics, &new.metrics, false);
    compare("cluster", &old.cluster, &new.cluster, false);
    compare("service", &old.service, &new.service, false);
    if old.exports != new.exports {
        all.push(Change {
            what: "export",
            now: show::exports(&new.exports),
            at_once: true,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "[node]\ndata = \"/d\"\n[log]\nlevel = \"info\"\n[[export]]\npath = \"/data\"\n";

    #[test]
    fn what_changed_is_named_and_whether_it_holds() {
        let old = Config::parse(FILE).unwrap();
        assert_eq!(changes(&old, &old), []);
        let text = FILE.replace("info", "debug").replace("/data", "/other");
        let found = changes(&old, &Config::parse(&text).unwrap());
        let told: Vec<_> = found.iter().map(|c| (c.what, c.at_once)).collect();
        assert_eq!(told, [("log.level", true), ("export", true)]);
    }

    #[test]
    fn a_wrong_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("haven.toml");
        let old = Config::parse(FILE).unwrap();
        std::fs::write(&file, FILE.replace("level", "levle")).unwrap();
        let exports = Exports::new(&old.exports, Vec::new());
        assert_eq!(reload(&file, old.clone(), &exports), old);
        let text = FILE.replace("info", "warn").replace("/data", "/other");
        std::fs::write(&file, text).unwrap();
        let new = reload(&file, old.clone(), &exports);
        assert_eq!(new.log.level, haven_config::LogLevel::Warn);
        assert_eq!(new.exports[0].path, "/other");
        assert_eq!(exports.configured()[..], new.exports[..]);
    }
}
