//! Results as a drawing in SVG: throughput to the left, latency percentiles to the right, one band per workload.
//!
//! It is written as text, without a drawing library: the layout is this one, and SVG needs no fonts or rasters of
//! ours. Workloads differ by orders of magnitude, so bars are compared within a band only (their values are written
//! beside them), while latencies share one logarithmic axis.

use super::result::{Latency, Outcome, Run, Series};
use super::table::{describe, number};
use std::fmt::Write;

const WIDTH: f64 = 1000.0;
/// Where the panels begin and end.
const LABEL_X: f64 = 16.0;
const BARS_X: f64 = 220.0;
const BARS_WIDTH: f64 = 220.0;
const LATENCY_X: f64 = 560.0;
const LATENCY_WIDTH: f64 = 400.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 64.0;
/// Height of one server's line in a band, and what is left between bands.
const LINE: f64 = 20.0;
const GAP: f64 = 16.0;
/// Colours that people with any colour vision can tell apart (Okabe and Ito's palette).
const COLOURS: [&str; 6] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00",
];

/// All results as SVG.
pub fn render(outcomes: &[Outcome]) -> String {
    let bands: f64 = outcomes.iter().map(band_height).sum();
    let height = TOP + bands + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    legend(&mut svg, outcomes);
    let axis = Axis::over(outcomes);
    axis.draw(&mut svg, TOP, TOP + bands);
    let most = outcomes.iter().flat_map(|o| &o.series).map(rate);
    let most = most.fold(0.0, f64::max);
    let mut y = TOP;
    for outcome in outcomes {
        band(&mut svg, outcome, y, most, &axis);
        y += band_height(outcome);
    }
    svg += "</svg>\n";
    svg
}

fn band_height(outcome: &Outcome) -> f64 {
    outcome.series.len() as f64 * LINE + GAP
}

/// The median of what is drawn as a bar: operations per second.
fn rate(series: &Series) -> f64 {
    series.median(|r| Some(r.ops_per_second)).unwrap_or(0.0)
}

fn legend(svg: &mut String, outcomes: &[Outcome]) {
    let runs = outcomes
        .iter()
        .flat_map(|o| &o.series)
        .map(|s| s.runs.len());
    let runs = runs.max().unwrap_or(0);
    let series = outcomes.first().map_or(&[][..], |o| &o.series);
    let mut x = LABEL_X;
    for (i, one) in series.iter().enumerate() {
        rect(svg, (x, 20.0), (12.0, 12.0), colour(i));
        text(svg, (x + 18.0, 30.0), "start", &one.label);
        x += 40.0 + 8.0 * one.label.chars().count() as f64;
    }
    let bars = match (series.len(), runs) {
        (_, 0 | 1) => "throughput".to_owned(),
        (..) => format!("throughput: median of {runs} runs, whisker from lowest to highest"),
    };
    text(svg, (BARS_X, 46.0), "start", &bars);
    text(
        svg,
        (LATENCY_X + LATENCY_WIDTH, 30.0),
        "end",
        "latency: disc p50, ring p99, line p50 to p99.9",
    );
}

fn band(svg: &mut String, outcome: &Outcome, y: f64, most: f64, axis: &Axis) {
    let middle = y + outcome.series.len() as f64 * LINE / 2.0;
    text(svg, (LABEL_X, middle + 4.0), "start", &describe(outcome));
    // Servers are compared with each other; a server alone has only its other workloads to be compared with.
    let scale = match &outcome.series[..] {
        [_] => most,
        several => several
            .iter()
            .map(|s| s.range(per_second).1)
            .fold(0.0, f64::max),
    };
    for (i, series) in outcome.series.iter().enumerate() {
        let centre = y + (i as f64 + 0.5) * LINE;
        bar(svg, outcome, series, (centre, scale), colour(i));
        latency(svg, series, centre, axis, colour(i));
    }
    let rule = y + band_height(outcome) - GAP / 2.0;
    line(svg, (LABEL_X, rule), (WIDTH - LABEL_X, rule), "#ddd", 1.0);
}

fn per_second(run: &Run) -> f64 {
    run.ops_per_second
}

fn bar(
    svg: &mut String,
    outcome: &Outcome,
    series: &Series,
    (centre, scale): (f64, f64),
    fill: &str,
) {
    let at = |value: f64| BARS_WIDTH * value / scale.max(f64::MIN_POSITIVE);
    let value = rate(series);
    rect(svg, (BARS_X, centre - 6.0), (at(value), 12.0), fill);
    let (low, high) = series.range(per_second);
    if series.runs.len() > 1 {
        line(
            svg,
            (BARS_X + at(low), centre),
            (BARS_X + at(high), centre),
            "#222",
            1.5,
        );
    }
    let words = if outcome.spec.kind.moves_data() {
        let mib = series.median(|r| Some(r.bytes_per_second / f64::from(1 << 20)));
        format!("{} MiB/s", number(mib.unwrap_or(0.0)))
    } else {
        format!("{} ops/s", number(value))
    };
    let x = BARS_X + at(value.max(high)) + 6.0;
    text(svg, (x, centre + 4.0), "start", &words);
}

fn latency(svg: &mut String, series: &Series, y: f64, axis: &Axis, stroke: &str) {
    let x = |get: fn(&Latency) -> f64| {
        let value = series.median(|r| Some(get(&r.latency_us)));
        axis.x(value.unwrap_or(axis.low))
    };
    let (p50, p99) = (x(|l| l.p50), x(|l| l.p99));
    line(svg, (p50, y), (x(|l| l.p999), y), stroke, 2.0);
    // Writing to a String cannot fail.
    let _ = write!(
        svg,
        "<circle cx=\"{p50:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{stroke}\"/>\n\
         <circle cx=\"{p99:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#fff\" stroke=\"{stroke}\" stroke-width=\"2\"/>\n"
    );
}

/// The logarithmic axis of latencies, in microseconds.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// Powers of ten around everything that is drawn.
    fn over(outcomes: &[Outcome]) -> Self {
        let all = outcomes
            .iter()
            .flat_map(|o| &o.series)
            .flat_map(|s| &s.runs);
        let (mut low, mut high) = (f64::INFINITY, 1.0f64);
        for run in all {
            low = low.min(run.latency_us.p50.max(0.1));
            high = high.max(run.latency_us.p999);
        }
        if !low.is_finite() {
            low = 1.0;
        }
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        Self {
            low: 10f64.powf(low),
            high: 10f64.powf(high.max(low + 1.0)),
        }
    }

    fn x(&self, us: f64) -> f64 {
        let (low, high) = (self.low.log10(), self.high.log10());
        let part = (us.clamp(self.low, self.high).log10() - low) / (high - low);
        LATENCY_X + LATENCY_WIDTH * part
    }

    fn draw(&self, svg: &mut String, top: f64, bottom: f64) {
        let mut us = self.low;
        while us <= self.high * 1.001 {
            let x = self.x(us);
            line(svg, (x, top - 8.0), (x, bottom), "#ccc", 1.0);
            let words = match us {
                us if us >= 1e6 => format!("{} s", us / 1e6),
                us if us >= 1e3 => format!("{} ms", us / 1e3),
                us => format!("{us} µs"),
            };
            text(svg, (x, top - 14.0), "middle", &words);
            text(svg, (x, bottom + 16.0), "middle", &words);
            us *= 10.0;
        }
        let about = "connections, or connections × calls in flight on each, in brackets";
        text(svg, (LABEL_X, bottom + 44.0), "start", about);
    }
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

fn rect(svg: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
    );
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), stroke: &str, width: f64) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{stroke}\" stroke-width=\"{width}\"/>",
        from.0, from.1, to.0, to.1
    );
}

/// `anchor` says which end of the text is at the place: start, middle or end.
fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}
