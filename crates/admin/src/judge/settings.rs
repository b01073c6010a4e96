//! Settings that must be the same on all nodes, compared.
//!
//! A node tells digests of them, not what they are. A key that a node does not tell (it runs another version, or the key
//! does not concern it) is not compared with it.

use crate::types::{Difference, NodeReport, Problem};
use std::collections::{BTreeMap, BTreeSet};

/// The exports as a whole.
pub const EXPORTS: &str = "export";
/// Keys that are as a rule the same, but need not be: machines differ.
const SOFT: [&str; 2] = ["limits", "version"];
/// Most paths that are named.
const PATHS_MAX: usize = 8;

/// In what these nodes differ; each name has its node's report. The group of `leader`, or the largest, comes first.
pub fn differences(nodes: &[(&str, &NodeReport)], leader: Option<&str>) -> Vec<Difference> {
    let mut by_key: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for (name, report) in nodes {
        let told = report.settings.iter().flat_map(|told| &told.keys);
        let version = ("version", report.version.as_str());
        for (key, digest) in told.map(|(k, d)| (k.as_str(), d.as_str())).chain([version]) {
            let groups = by_key.entry(key).or_default();
            groups.entry(digest).or_default().push(name);
        }
    }
    let differ = by_key.into_iter().filter(|(_, groups)| groups.len() > 1);
    differ
        .map(|(key, groups)| Difference {
            key: key.to_owned(),
            grave: !SOFT.contains(&key),
            groups: sorted(groups.into_values().collect(), leader),
            exports: match key {
                EXPORTS => paths(nodes),
                _ => Vec::new(),
            },
        })
        .collect()
}

fn sorted(mut groups: Vec<Vec<&str>>, leader: Option<&str>) -> Vec<Vec<String>> {
    groups.sort_by_key(|group| {
        let leads = leader.is_some_and(|leader| group.contains(&leader));
        (!leads, usize::MAX - group.len(), group[0].to_owned())
    });
    let owned = |group: Vec<&str>| group.into_iter().map(str::to_owned).collect();
    groups.into_iter().map(owned).collect()
}

/// The exports that are not the same on all nodes that tell theirs.
fn paths(nodes: &[(&str, &NodeReport)]) -> Vec<String> {
    let told: Vec<&BTreeMap<String, String>> = nodes
        .iter()
        .filter_map(|(_, report)| report.settings.as_ref())
        .map(|settings| &settings.exports)
        .filter(|exports| !exports.is_empty())
        .collect();
    let all: BTreeSet<&String> = told.iter().flat_map(|exports| exports.keys()).collect();
    let differs = |path: &&String| {
        let of: BTreeSet<_> = told.iter().map(|exports| exports.get(*path)).collect();
        of.len() > 1
    };
    let differ = all.into_iter().filter(differs);
    differ.take(PATHS_MAX).cloned().collect()
}

/// What is wrong, and what to do.
pub fn problem(difference: &Difference) -> Problem {
    let key = &difference.key;
    let mut groups = difference.groups.iter().map(|group| group.join(", "));
    let first = groups.next().unwrap_or_default();
    let rest: Vec<String> = groups.collect();
    let others = rest.join("; ");
    if key == EXPORTS {
        let which = match difference.exports.as_slice() {
            [] => String::new(),
            some => format!(": {}", some.join(", ")),
        };
        return Problem {
            what: format!("node {others} exports something else than node {first}{which}"),
            advice: "make [[export]], exports_file, squash and read_only the same on all nodes, then systemctl reload \
                     haven; before that do not move the service: clients' handles would go stale, or others be let in"
                .into(),
        };
    }
    Problem {
        what: format!("node {others} has another {key} than node {first}"),
        advice: format!(
            "make {key} the same in the configurations of all nodes, then restart those that were changed; before that \
             do not move the service"
        ),
    }
}

/// The same in one line, for logs.
pub fn line(difference: &Difference) -> String {
    let groups: Vec<String> = difference.groups.iter().map(|g| g.join(", ")).collect();
    let mut line = format!("{} differs: {}", difference.key, groups.join(" | "));
    if !difference.exports.is_empty() {
        line += &format!(" ({})", difference.exports.join(", "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Settings;

    fn told(keys: &[(&str, &str)], exports: &[(&str, &str)]) -> NodeReport {
        let owned = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
        };
        NodeReport {
            settings: Some(Settings {
                keys: owned(keys),
                exports: owned(exports),
            }),
            ..NodeReport::default()
        }
    }

    #[test]
    fn what_differs_is_named_with_the_nodes_and_the_leaders_first() {
        let a = told(
            &[("export", "1"), ("limits", "7")],
            &[("/x", "1"), ("/y", "1")],
        );
        let b = told(&[("export", "2"), ("limits", "7")], &[("/x", "1")]);
        let c = told(
            &[("export", "1"), ("limits", "8")],
            &[("/x", "1"), ("/y", "1")],
        );
        let nodes = [("a", &a), ("b", &b), ("c", &c)];
        let found = differences(&nodes, Some("b"));
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].groups, [vec!["b"], vec!["a", "c"]]);
        assert_eq!(
            (found[0].grave, &found[0].exports[..]),
            (true, &["/y".to_owned()][..])
        );
        assert_eq!(line(&found[0]), "export differs: b | a, c (/y)");
        assert!(!found[1].grave);
        assert_eq!(found[1].groups, [vec!["a", "b"], vec!["c"]]);
        let problem = problem(&found[0]);
        assert_eq!(
            problem.what,
            "node a, c exports something else than node b: /y"
        );
    }

    #[test]
    fn who_tells_nothing_is_not_compared() {
        let (a, b) = (told(&[("export", "1")], &[]), NodeReport::default());
        let c = told(&[("service.name", "1")], &[]);
        assert_eq!(differences(&[("a", &a), ("b", &b), ("c", &c)], None), []);
    }

    #[test]
    fn programs_of_two_versions_are_told_without_harm() {
        let version = |version: &str| NodeReport {
            version: version.into(),
            ..NodeReport::default()
        };
        let (a, b) = (version("1"), version("2"));
        let found = differences(&[("a", &a), ("b", &b)], None);
        assert!(found.len() == 1 && !found[0].grave, "{found:?}");
    }
}
