//! What was measured, in the shape in which it is written as JSON. Units are in the names.

use super::engine::Tally;
use super::meter::{LogCounts, Process};
use super::spec::{Spec, Stable};
use serde::Serialize;
use serde_json::{Value, json};

/// Version of the JSON's shape.
const FORMAT: u32 = 1;

/// One run of one workload against one server.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Operations.
    pub ops: u64,
    /// Calls; an operation may take several.
    pub calls: u64,
    /// Bytes of file data.
    pub bytes: u64,
    /// From the first call to the last reply.
    pub seconds: f64,
    /// Operations per second.
    pub ops_per_second: f64,
    /// File data per second.
    pub bytes_per_second: f64,
    /// Latency of operations.
    pub latency_us: Latency,
    /// The generator's own time on a processor.
    pub generator_cpu_us_per_op: f64,
    /// What the server used, if its process is known.
    pub server: Option<Server>,
    /// What its log did, if it is a Haven node whose control socket is known.
    pub log: Option<Log>,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Costs on the server.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Server {
    /// Everything, over the run.
    #[serde(flatten)]
    pub total: Process,
    /// Time on a processor per operation.
    pub cpu_us_per_op: f64,
    /// Operations per second of processor time.
    pub ops_per_cpu_second: f64,
}

/// Work of a log.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Log {
    /// Everything, over the run.
    #[serde(flatten)]
    pub total: LogCounts,
    /// Flushes per operation.
    pub flushes_per_op: f64,
}

impl Run {
    /// From what was counted, and what the generator, the server and its log did meanwhile.
    pub(super) fn new(
        tally: &Tally,
        generator: Process,
        server: Option<Process>,
        log: Option<LogCounts>,
    ) -> Self {
        let ops = tally.ops.max(1) as f64;
        let seconds = tally.elapsed.as_secs_f64().max(1e-9);
        let us = |q: f64| tally.latency.value_at_quantile(q) as f64 / 1e3;
        Self {
            ops: tally.ops,
            calls: tally.calls,
            bytes: tally.bytes,
            seconds,
            ops_per_second: tally.ops as f64 / seconds,
            bytes_per_second: tally.bytes as f64 / seconds,
            latency_us: Latency {
                mean: tally.latency.mean() / 1e3,
                p50: us(0.5),
                p90: us(0.9),
                p99: us(0.99),
                p999: us(0.999),
                max: tally.latency.max() as f64 / 1e3,
            },
            generator_cpu_us_per_op: generator.cpu_us as f64 / ops,
            server: server.map(|total| Server {
                total,
                cpu_us_per_op: total.cpu_us as f64 / ops,
                ops_per_cpu_second: if total.cpu_us == 0 {
                    0.0
                } else {
                    tally.ops as f64 * 1e6 / total.cpu_us as f64
                },
            }),
            log: log.map(|total| Log {
                total,
                flushes_per_op: total.flushes as f64 / ops,
            }),
        }
    }
}

/// All runs of one workload against one server.
#[derive(Debug, Clone)]
pub struct Series {
    /// The server's label.
    pub label: String,
    /// In the order in which they were made.
    pub runs: Vec<Run>,
}

/// A workload's results.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was done.
    pub spec: Spec,
    /// Per server.
    pub series: Vec<Series>,
}

/// The middle value; of an even number, the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (n, half) = (values.len(), values.len() / 2);
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(values[half]),
        _ => Some(f64::midpoint(values[half - 1], values[half])),
    }
}

impl Series {
    /// The median over the runs of what `get` finds in them.
    pub fn median(&self, get: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        median(self.runs.iter().filter_map(get).collect())
    }

    /// Lowest and highest.
    pub fn range(&self, get: impl Fn(&Run) -> f64) -> (f64, f64) {
        let values = self.runs.iter().map(get);
        values.fold((f64::INFINITY, 0.0), |(low, high), v| {
            (v.min(low), v.max(high))
        })
    }

    fn medians(&self) -> Value {
        json!({
            "ops_per_second": self.median(|r| Some(r.ops_per_second)),
            "bytes_per_second": self.median(|r| Some(r.bytes_per_second)),
            "latency_us": {
                "mean": self.median(|r| Some(r.latency_us.mean)),
                "p50": self.median(|r| Some(r.latency_us.p50)),
                "p90": self.median(|r| Some(r.latency_us.p90)),
                "p99": self.median(|r| Some(r.latency_us.p99)),
                "p999": self.median(|r| Some(r.latency_us.p999)),
                "max": self.median(|r| Some(r.latency_us.max)),
            },
            "calls_per_op": self.median(|r| Some(r.calls as f64 / r.ops.max(1) as f64)),
            "generator_cpu_us_per_op": self.median(|r| Some(r.generator_cpu_us_per_op)),
            "server_cpu_us_per_op": self.median(|r| Some(r.server?.cpu_us_per_op)),
            "server_ops_per_cpu_second": self.median(|r| Some(r.server?.ops_per_cpu_second)),
            "log_flushes_per_op": self.median(|r| Some(r.log?.flushes_per_op)),
        })
    }
}

impl Outcome {
    /// How many times as fast, and as cheap, the first server is as another: over 1 is better.
    pub fn ratios(&self, other: &Series) -> Option<Ratios> {
        let first = self.series.first()?;
        let of = |get: fn(&Run) -> Option<f64>| {
            let (a, b) = (first.median(get)?, other.median(get)?);
            (b > 0.0).then_some(a / b)
        };
        Some(Ratios {
            ops_per_second: of(|r| Some(r.ops_per_second))?,
            p99: of(|r| Some(r.latency_us.p99))?,
            ops_per_cpu_second: of(|r| Some(r.server?.ops_per_cpu_second)),
        })
    }
}

/// The first server's medians divided by another's.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ratios {
    /// Over 1: faster.
    pub ops_per_second: f64,
    /// Below 1: shorter waits.
    pub p99: f64,
    /// Over 1: cheaper.
    pub ops_per_cpu_second: Option<f64>,
}

/// Everything as one JSON object.
pub fn to_json(outcomes: &[Outcome], about: &Value) -> Value {
    let workloads: Vec<_> = outcomes.iter().map(outcome_json).collect();
    json!({ "format": FORMAT, "about": about, "workloads": workloads })
}

fn outcome_json(outcome: &Outcome) -> Value {
    let spec = &outcome.spec;
    let servers: Vec<_> = outcome
        .series
        .iter()
        .map(|s| json!({ "label": s.label, "median": s.medians(), "runs": s.runs }))
        .collect();
    let first = outcome.series.first().map(|s| s.label.clone());
    let ratios: Vec<_> = outcome
        .series
        .iter()
        .skip(1)
        .filter_map(|s| Some(json!({ "of": first, "to": s.label, "ratio": outcome.ratios(s)? })))
        .collect();
    json!({
        "name": spec.kind.name(),
        "settings": {
            "connections": spec.connections,
            "depth": spec.depth,
            "seconds": if spec.ops.is_none() { Some(spec.time.as_secs_f64()) } else { None },
            "ops": spec.ops,
            "warmup_seconds": spec.warmup().as_secs_f64(),
            "block_bytes": spec.block_bytes(),
            "file_bytes": spec.file_size,
            "files": spec.files,
            "stable": match spec.stable { Stable::Commit => "commit", Stable::FileSync => "file-sync" },
        },
        "servers": servers,
        "ratios": ratios,
    })
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }
}
