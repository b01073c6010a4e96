//! Results as a table that is read in a terminal and rendered by Markdown alike.

use super::result::{Outcome, Series};
use super::spec::Kind;

/// One row of text cells under the headings.
fn grid(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].chars().count()]).max()
    };
    let widths: Vec<_> = (0..headings.len()).map(|c| width(c).unwrap_or(0)).collect();
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<_> = cells.collect();
        format!("| {} |\n", cells.join(" | "))
    };
    // Names to the left, numbers to the right.
    let place = |column: usize, text: &str| {
        if column < NAMES {
            format!("{text:<0$}", widths[column])
        } else {
            format!("{text:>0$}", widths[column])
        }
    };
    let mut out = line(&mut headings.iter().enumerate().map(|(c, h)| place(c, h)));
    out += &line(&mut widths.iter().enumerate().map(|(c, w)| {
        let dashes = "-".repeat(w.saturating_sub(1));
        if c < NAMES {
            format!("{dashes}-")
        } else {
            format!("{dashes}:")
        }
    }));
    for row in rows {
        out += &line(&mut row.iter().enumerate().map(|(c, text)| place(c, text)));
    }
    out
}

/// Columns that hold names.
const NAMES: usize = 2;

/// All results.
pub fn render(outcomes: &[Outcome]) -> String {
    let headings = [
        "workload",
        "server",
        "ops/s",
        "MiB/s",
        "p50 µs",
        "p90 µs",
        "p99 µs",
        "p99.9 µs",
        "max µs",
        "server µs/op",
        "generator µs/op",
        "calls/op",
        "flushes/op",
    ];
    let mut rows = Vec::new();
    for outcome in outcomes {
        for series in &outcome.series {
            rows.push(row(outcome, series));
        }
        for series in outcome.series.iter().skip(1) {
            rows.extend(ratio_row(outcome, series));
        }
    }
    grid(&headings, &rows)
}

fn row(outcome: &Outcome, series: &Series) -> Vec<String> {
    let show = |value: Option<f64>| value.map_or_else(|| "–".into(), number);
    let moves_data = outcome.spec.kind.moves_data() || outcome.spec.kind == Kind::SmallFile;
    let mib = series.median(|r| Some(r.bytes_per_second / f64::from(1 << 20)));
    vec![
        describe(outcome),
        series.label.clone(),
        show(series.median(|r| Some(r.ops_per_second))),
        show(mib.filter(|_| moves_data)),
        show(series.median(|r| Some(r.latency_us.p50))),
        show(series.median(|r| Some(r.latency_us.p90))),
        show(series.median(|r| Some(r.latency_us.p99))),
        show(series.median(|r| Some(r.latency_us.p999))),
        show(series.median(|r| Some(r.latency_us.max))),
        show(series.median(|r| Some(r.server?.cpu_us_per_op))),
        show(series.median(|r| Some(r.generator_cpu_us_per_op))),
        show(series.median(|r| Some(r.calls as f64 / r.ops.max(1) as f64))),
        show(series.median(|r| Some(r.log?.flushes_per_op))),
    ]
}

fn ratio_row(outcome: &Outcome, other: &Series) -> Option<Vec<String>> {
    let first = outcome.series.first()?;
    let ratios = outcome.ratios(other)?;
    let times = |value: f64| format!("× {value:.2}");
    let mut row = vec![String::new(); 13];
    row[1] = format!("{} / {}", first.label, other.label);
    row[2] = times(ratios.ops_per_second);
    row[6] = times(ratios.p99);
    row[9] = ratios
        .ops_per_cpu_second
        .filter(|r| *r > 0.0)
        .map_or_else(String::new, |r| times(1.0 / r));
    Some(row)
}

/// The workload and what shapes it.
pub(super) fn describe(outcome: &Outcome) -> String {
    let spec = &outcome.spec;
    let lanes = if spec.depth == 1 {
        format!("{}", spec.connections)
    } else {
        format!("{}×{}", spec.connections, spec.depth)
    };
    let block = match spec.kind {
        Kind::SmallFile => format!(", {}", bytes(spec.block_bytes())),
        kind if kind.moves_data() => format!(", {}", bytes(spec.block_bytes())),
        _ => String::new(),
    };
    format!("{} ({lanes}{block})", spec.kind.name())
}

/// A number of bytes.
fn bytes(n: u64) -> String {
    match n {
        n if n >= 1 << 20 && n.is_multiple_of(1 << 20) => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 && n.is_multiple_of(1 << 10) => format!("{} KiB", n >> 10),
        n => format!("{n} B"),
    }
}

/// Three significant digits, or all of a large number, in groups.
pub(super) fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => grouped(v.round() as u64),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{v:.2}"),
        v => format!("{v:.4}"),
    }
}

fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{bytes, number};

    #[test]
    fn numbers_have_as_many_digits_as_they_deserve() {
        let shown = [0.0, 0.01234, 1.0, 12.34, 123.4, 1234.5, 1_234_567.0].map(number);
        assert_eq!(
            shown,
            [
                "0.00",
                "0.0123",
                "1.00",
                "12.3",
                "123",
                "1,235",
                "1,234,567"
            ]
        );
        assert_eq!(
            [512, 4096, 1 << 20, 1025].map(bytes),
            ["512 B", "4 KiB", "1 MiB", "1025 B"]
        );
    }
}
