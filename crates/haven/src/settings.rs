//! Settings that must be the same on all nodes: what this node tells of its own, and what is said when they differ.
//!
//! Told are digests of what the running process uses: of exports those that were read last, of the rest those that it was
//! started with. Comparing them is `haven_admin`'s business, and which count, `haven_config`'s.
//!
//! Invariant: what is told is bounded, whatever the configuration holds.

use crate::exports::Exports;
use crate::relay::Informed;
use haven_admin::judge::settings::{EXPORTS, line};
use haven_admin::{ClusterStatus, Difference, Settings};
use haven_config::{Config, Export, Role, shared};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// Characters of a digest: of two values that differ, one pair in 2^48 looks the same.
const DIGEST_CHARS: usize = 12;
/// Of exports with longer paths together, only one digest of all is told.
const EXPORT_BYTES_MAX: usize = 4 << 10;
/// How often they are compared, for the log.
const COMPARE: Duration = Duration::from_secs(1);

/// This node's.
pub struct Told {
    fixed: BTreeMap<String, String>,
    exports: Option<Arc<Exports>>,
    /// What was told last, and of which exports.
    last: Mutex<Option<(Arc<[Export]>, Settings)>>,
}

impl Told {
    /// Of a node with this configuration; without `exports`, of one that serves nothing.
    pub fn new(config: &Config, exports: Option<Arc<Exports>>) -> Self {
        Self {
            fixed: keys(config),
            exports: exports.filter(|_| config.cluster.shared),
            last: Mutex::default(),
        }
    }

    /// As of now.
    pub fn now(&self) -> Settings {
        let Some(exports) = &self.exports else {
            return Settings {
                keys: self.fixed.clone(),
                exports: BTreeMap::new(),
            };
        };
        let configured = exports.configured();
        let mut last = self.last.lock();
        if let Some((of, told)) = &*last
            && Arc::ptr_eq(of, &configured)
        {
            return told.clone();
        }
        let told = with_exports(self.fixed.clone(), &configured);
        *last = Some((configured, told.clone()));
        told
    }
}

/// What a node with this configuration would tell.
pub fn of(config: &Config) -> Settings {
    let serves = config.cluster.shared && config.node.role == Role::Data;
    match serves {
        true => with_exports(keys(config), &config.exports),
        false => Settings {
            keys: keys(config),
            exports: BTreeMap::new(),
        },
    }
}

fn keys(config: &Config) -> BTreeMap<String, String> {
    let texts = shared::texts(config).into_iter();
    texts
        .map(|(key, text)| (key.to_owned(), digest(&text)))
        .collect()
}

fn with_exports(mut keys: BTreeMap<String, String>, exports: &[Export]) -> Settings {
    let each = exports.iter();
    let each = each.map(|export| (export.path.clone(), digest(&shared::export(export))));
    let mut each: BTreeMap<String, String> = each.collect();
    let all: Vec<String> = each
        .iter()
        .map(|(path, own)| format!("{path}\n{own}"))
        .collect();
    keys.insert(EXPORTS.to_owned(), digest(&all.join("\n")));
    let bytes = |(path, own): (&String, &String)| path.len() + own.len();
    if each.iter().map(bytes).sum::<usize>() > EXPORT_BYTES_MAX {
        each.clear();
    }
    Settings {
        keys,
        exports: each,
    }
}

fn digest(text: &str) -> String {
    let hash = blake3::hash(text.as_bytes()).to_hex();
    hash.chars().take(DIGEST_CHARS).collect()
}

/// In what node `to` differs from node `from` so that a move does harm, in words; `None`: in nothing that is known.
pub fn objection(status: &ClusterStatus, from: &str, to: &str) -> Option<String> {
    let apart = |found: &&Difference| {
        let group = |node: &str| {
            let mut groups = found.groups.iter();
            groups.position(|group| group.iter().any(|name| name == node))
        };
        let (own, its) = (group(from), group(to));
        found.grave && own.is_some() && its.is_some() && own != its
    };
    let found: Vec<String> = status.differences.iter().filter(apart).map(line).collect();
    (!found.is_empty()).then(|| found.join("; "))
}

/// Compares what the nodes tell, for ever: says in the log when settings begin to differ, and when they are alike again;
/// and has this node, when it leads, avoid heirs that differ from it.
pub(crate) async fn watch(
    judged: impl Fn() -> ClusterStatus + Send + 'static,
    insight: Arc<impl Informed>,
) {
    let mut known: Vec<Difference> = Vec::new();
    loop {
        tokio::time::sleep(COMPARE).await;
        let (status, insight) = (judged(), insight.insight());
        complain(&known, &status.differences);
        let nodes = insight.roll.entries().into_iter();
        let apart = nodes.filter(|node| objection(&status, &insight.name, &node.name).is_some());
        let apart: BTreeSet<u64> = apart.map(|node| node.id).collect();
        if apart != insight.consensus.avoided() {
            insight.consensus.set_avoided(apart);
        }
        known = status.differences;
    }
}

fn complain(known: &[Difference], found: &[Difference]) {
    for one in found.iter().filter(|one| !known.contains(one)) {
        match one.grave {
            true => warn!(key = one.key, "the nodes' settings differ: {}", line(one)),
            false => info!(key = one.key, "the nodes' settings differ: {}", line(one)),
        }
    }
    for one in known {
        if !found.iter().any(|now| now.key == one.key) {
            info!(
                key = one.key,
                "the nodes' settings are alike again: {}", one.key
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_admin::{Facts, NodeFacts, NodeReport, Phase, judge::judge};

    const FILE: &str = "[node]\nid = 1\nname = \"a\"\ndata = \"/d\"\n[cluster]\nname = \"c\"\naddress = \"192.0.2.1:7400\"\n\
                        [[export]]\npath = \"/x\"\n";

    #[test]
    fn exports_that_were_read_again_are_told_at_once() {
        let config = Config::parse(FILE).unwrap();
        let exports = Exports::new(&config.exports, Vec::new());
        let told = Told::new(&config, Some(Arc::clone(&exports)));
        let before = told.now();
        assert_eq!(before, of(&config));
        assert_eq!(told.now(), before);
        assert!(before.exports.contains_key("/x"));
        let more = Config::parse(&format!("{FILE}[[export]]\npath = \"/y\"\n")).unwrap();
        exports.set(&more.exports);
        assert_ne!(told.now(), before);
        assert_eq!(told.now(), of(&more));
    }

    #[test]
    fn many_exports_are_told_as_one() {
        let exports: Vec<String> = (0..600)
            .map(|n| format!("[[export]]\npath = \"/e{n}\"\n"))
            .collect();
        let config = Config::parse(&format!("{FILE}{}", exports.concat())).unwrap();
        let told = of(&config);
        assert!(told.exports.is_empty() && told.keys.contains_key(EXPORTS));
    }

    fn facts(digests: [&str; 3]) -> Facts {
        let node = |(at, digest): (usize, &str)| {
            let name = ["a", "b", "c"][at].to_owned();
            let leads = at == 0;
            NodeFacts {
                name: name.clone(),
                address: ([192, 0, 2, 1], 7400).into(),
                heard_ms_ago: Some(0),
                report: Some(NodeReport {
                    node: name,
                    role: if leads {
                        haven_admin::Role::Leader
                    } else {
                        haven_admin::Role::Follower
                    },
                    phase: if leads { Phase::Serving } else { Phase::Idle },
                    serving: leads,
                    leader: Some("a".into()),
                    settings: Some(Settings {
                        keys: [("export".into(), digest.into())].into(),
                        ..Settings::default()
                    }),
                    ..NodeReport::default()
                }),
            }
        };
        Facts {
            cluster: "c".into(),
            service: "nfs".into(),
            asked: "a".into(),
            now_unix_ms: 0,
            nodes: digests.into_iter().enumerate().map(node).collect(),
            floating: Vec::new(),
        }
    }

    #[test]
    fn only_who_differs_is_objected_to() {
        let status = judge(facts(["1", "2", "1"]));
        assert!(
            objection(&status, "a", "b")
                .unwrap()
                .contains("export differs: a, c | b")
        );
        assert_eq!(objection(&status, "a", "c"), None);
        assert_eq!(objection(&judge(facts(["1", "1", "1"])), "a", "b"), None);
    }
}
