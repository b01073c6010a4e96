use super::*;
use crate::metrics::Meter;
use haven_admin::memory::{Holding, MemoryUse};
use std::collections::BTreeMap;
use std::time::Duration;

const MANUAL: &str = include_str!("../../../../../docs/operate/metrics.md");
const RULES: &str = include_str!("../../../../../packaging/prometheus-rules.yml");

fn reading() -> Reading {
    let meter = Meter::default();
    let mut durations = meter.durations();
    durations[3].counts[0] = 2;
    durations[3].sum = Duration::from_micros(20);
    Reading {
        durations,
        errors: vec![(3, 2, 5)],
        memory: Memory {
            requests: MemoryUse {
                bytes: 5,
                most: Some(Holding {
                    address: "192.0.2.9".parse().unwrap(),
                    bytes: 4,
                }),
                ..MemoryUse::default()
            },
            ..Memory::default()
        },
        role: "leader",
        peers: vec![PeerReading {
            name: "b".into(),
            lag_entries: 7,
            silent: 0.5,
        }],
        ..Reading::default()
    }
}

/// Names of the series and their kinds; histograms without their suffixes.
fn told(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let named = types.map(|line| {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffix = if kind == "counter" { "_total" } else { "" };
        (format!("{name}{suffix}"), kind.to_owned())
    });
    named.collect()
}

#[test]
fn the_manual_names_every_metric_and_no_other() {
    let told = told(&expose(reading()));
    let rows = MANUAL
        .lines()
        .filter_map(|line| line.strip_prefix("| `haven_"));
    let mut documented = BTreeMap::new();
    for row in rows {
        let mut cells = row.split('|').map(str::trim);
        let name = cells.next().unwrap().trim_end_matches('`');
        documented.insert(format!("haven_{name}"), cells.next().unwrap().to_owned());
    }
    assert_eq!(documented, told);
    assert!(told.len() > 30);
}

#[test]
fn the_example_rules_use_metrics_that_exist() {
    let told = told(&expose(reading()));
    let mut used = 0;
    for word in RULES.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if !word.starts_with("haven_") {
            continue;
        }
        used += 1;
        let known = told.iter().any(|(name, kind)| {
            name == word
                || (kind == "histogram"
                    && ["_bucket", "_sum", "_count"]
                        .iter()
                        .any(|end| word == format!("{name}{end}")))
        });
        assert!(known, "{word} is no metric");
    }
    assert!(used > 8);
}

#[test]
fn the_text_is_what_prometheus_reads() {
    let text = expose(reading());
    for line in [
        "# TYPE haven_requests counter",
        "haven_requests_total{program=\"nfs3\",procedure=\"lookup\"} 2",
        "haven_request_duration_seconds_bucket{le=\"0.000016\",program=\"nfs3\",procedure=\"lookup\"} 2",
        "haven_request_duration_seconds_bucket{le=\"+Inf\",program=\"nfs3\",procedure=\"lookup\"} 2",
        "haven_request_errors_total{program=\"nfs3\",procedure=\"lookup\",status=\"noent\"} 5",
        "haven_client_memory_bytes{of=\"requests\"} 5",
        "haven_client_memory_most_bytes{of=\"requests\",address=\"192.0.2.9\"} 4",
        "haven_client_incidents_total{what=\"misbehaved\"} 0",
        "haven_role{role=\"leader\"} 1",
        "haven_role{role=\"follower\"} 0",
        "haven_follower_lag_entries{node=\"b\"} 7",
        "# EOF",
    ] {
        let found = text.lines().any(|l| l.trim_end_matches(".0") == line);
        assert!(found, "{line}\n{text}");
    }
    // A procedure that nobody called has a count, but no histogram.
    assert!(text.contains("haven_requests_total{program=\"nfs3\",procedure=\"write\"} 0"));
    assert!(!text.contains("le=\"+Inf\",program=\"nfs3\",procedure=\"write\""));
}
