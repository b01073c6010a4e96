//! A cluster's state as text for people: one screen of 80 columns.
//!
//! A function of its input: no clock, no terminal. Words from other nodes are cleaned of control characters.

use crate::types::{Cause, ClusterStatus, Difference, Failover, NodeState, NodeStatus, Verdict};
use std::fmt::{self, Display, Write};

/// Columns that a line may have.
pub const COLUMNS: usize = 80;

/// Of the moves before the last one, the last that was a fault is shown, unless it was longer ago.
const EARLIER_MS: u64 = 3_600_000;

/// How the clocks stand is told if one is further than that from the one that counts.
const CLOCK_MS: i64 = 100;

/// The service's time is told if it is further ahead of the clocks than that.
const TIME_AHEAD_MS: i64 = 1_000;

/// How lines are dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dress {
    /// Bare text.
    Plain,
    /// With colours, for a terminal.
    Colours,
}

/// Draws a cluster.
pub fn draw(status: &ClusterStatus, dress: Dress) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(status, dress, &mut out);
    out
}

fn write(status: &ClusterStatus, dress: Dress, out: &mut String) -> fmt::Result {
    let (word, colour) = match status.verdict {
        Verdict::Healthy => ("HEALTHY", 32),
        Verdict::Degraded => ("DEGRADED", 33),
        Verdict::Down => ("DOWN", 31),
    };
    let word = match dress {
        Dress::Plain => word.to_owned(),
        Dress::Colours => format!("\x1b[1;{colour}m{word}\x1b[0m"),
    };
    let name = match status.nodes.len() {
        1 => format!("service {}", clean(&status.service)),
        _ => format!(
            "cluster {}, service {}",
            clean(&status.cluster),
            clean(&status.service)
        ),
    };
    writeln!(
        out,
        "{name}: {word}   {}   as node {} sees it\n",
        clock(status.now_unix_ms),
        clean(&status.asked)
    )?;
    let wide = status.nodes.iter().map(|n| n.facts.name.len()).max();
    let wide = wide.unwrap_or(0).clamp(4, 16);
    writeln!(
        out,
        "  {:wide$}  {:<22}  {:>9}  {:>9}  {:>7}  address",
        "node", "state", "behind", "free", "clients"
    )?;
    for node in &status.nodes {
        node_line(node, wide, dress, out)?;
    }
    writeln!(out)?;
    for address in &status.addresses {
        let place = match (address.on.as_slice(), &address.conflict) {
            ([], None) => "on no node".to_owned(),
            ([], Some(mac)) => format!("on no node, but {mac} answers for it"),
            (on, None) => format!("on {}", on.join(" and ")),
            (on, Some(mac)) => format!("on {}, and {mac} answers for it too", on.join(" and ")),
        };
        paragraph(out, "  address   ", &format!("{} {place}", address.address))?;
    }
    let now = status.now_unix_ms;
    if let Some((last, earlier)) = status.failovers.split_first() {
        paragraph(out, "  last move ", &moved(last, now))?;
        let recent = |one: &&Failover| now.saturating_sub(one.at_unix_ms) < EARLIER_MS;
        let fault = |one: &&Failover| !matches!(one.cause, Cause::Planned | Cause::Start);
        if let Some(one) = earlier.iter().filter(recent).find(fault) {
            paragraph(out, "  before    ", &moved(one, now))?;
        }
    }
    write_clocks(status, out)?;
    for difference in status.differences.iter().filter(|found| !found.grave) {
        paragraph(out, "  differs   ", &clean(&told(difference)))?;
    }
    for problem in &status.problems {
        writeln!(out)?;
        paragraph(out, "  problem   ", &clean(&problem.what))?;
        paragraph(out, "  to do     ", &clean(&problem.advice))?;
    }
    Ok(())
}

fn write_clocks(status: &ClusterStatus, out: &mut String) -> fmt::Result {
    let report_of = |name: &String| {
        let node = status.nodes.iter().find(|n| n.facts.name == *name);
        node.and_then(|node| node.facts.report.as_ref())
    };
    let clocks = report_of(&status.asked).map(|report| &report.clocks);
    if let Some(clocks) = clocks
        && clocks.values().any(|clock| clock.is_beyond(CLOCK_MS))
    {
        let told = clocks.iter().map(|(name, clock)| {
            let sign = if clock.ahead_ms < 0 { '-' } else { '+' };
            let far = clock.ahead_ms.unsigned_abs();
            format!("{name} {sign}{}.{:03} s", far / 1_000, far % 1_000)
        });
        let told: Vec<String> = told.collect();
        paragraph(out, "  clocks    ", &clean(&told.join(", ")))?;
    }
    let ahead_ms = status.leader.as_ref().and_then(report_of);
    match ahead_ms.map(|report| report.time_ahead_ms) {
        Some(ms) if ms > TIME_AHEAD_MS => {
            let ahead = age(ms.unsigned_abs());
            let told = format!(
                "the service's time is {ahead} ahead of the clocks, and is led back slowly"
            );
            paragraph(out, "  time      ", &told)
        }
        _ => Ok(()),
    }
}

fn node_line(node: &NodeStatus, wide: usize, dress: Dress, out: &mut String) -> fmt::Result {
    let report = node.facts.report.as_ref();
    let standby = report.is_some_and(|r| r.standby);
    let (state, colour) = match node.state {
        NodeState::Serving => ("serving", 32),
        NodeState::Leading => ("leading, not serving", 33),
        NodeState::Ready if report.is_some_and(|r| r.witness) => ("witness", 32),
        NodeState::Ready => ("ready", 32),
        NodeState::CatchingUp => ("catching up", 33),
        NodeState::Searching => ("runs, sees no leader", 33),
        NodeState::Down => ("DOWN", 31),
    };
    let state = if standby && node.state != NodeState::Down {
        format!("{state}, standby")
    } else if node.state == NodeState::Down {
        match node.facts.heard_ms_ago {
            Some(ms) => format!("{state} for {}", age(ms)),
            None => format!("{state}, never heard"),
        }
    } else {
        state.to_owned()
    };
    let padded = format!("{state:<22}");
    let padded = match dress {
        Dress::Plain => padded,
        Dress::Colours => format!("\x1b[{colour}m{padded}\x1b[0m"),
    };
    let up = report.filter(|_| node.state != NodeState::Down);
    let behind = match (node.state, node.lag_entries) {
        (NodeState::Serving | NodeState::Leading, _) | (_, None) => "-".to_owned(),
        (_, Some(lag)) => lag.to_string(),
    };
    let free = up.map_or("-".into(), |r| mib(r.free_mib));
    let clients = up.map_or("-".into(), |r| r.connections.to_string());
    let name = clean(&node.facts.name);
    writeln!(
        out,
        "  {name:wide$.wide$}  {padded}  {behind:>9}  {free:>9}  {clients:>7}  {}",
        node.facts.address.ip()
    )
}

/// What is not the same on all nodes, and may be so.
fn told(difference: &Difference) -> String {
    let groups = difference.groups.iter().map(|group| group.join(", "));
    let groups: Vec<String> = groups.collect();
    format!("{} ({})", difference.key, groups.join(" | "))
}

/// The last failover in words.
fn moved(failover: &Failover, now_unix_ms: u64) -> String {
    let ago = age(now_unix_ms.saturating_sub(failover.at_unix_ms));
    let mut text = match &failover.from {
        Some(from) if *from != failover.to => {
            format!(
                "from {} to {}, {ago} ago: ",
                clean(from),
                clean(&failover.to)
            )
        }
        _ => format!("to {}, {ago} ago: ", clean(&failover.to)),
    };
    text += failover.cause.words();
    let wait = match (failover.stall_ms, failover.silent_ms) {
        (Some(ms), _) => format!("; clients waited {ms} ms"),
        (None, Some(ms)) => format!("; no service for {ms} ms, no client asked at once"),
        (None, None) => String::new(),
    };
    text + &wait
}

/// Writes text in lines of [`COLUMNS`], the first of which begins with `head`.
fn paragraph(out: &mut String, head: &str, text: &str) -> fmt::Result {
    let indent = head.chars().count();
    let mut line = head.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        let width = line.chars().count() + usize::from(!empty) + word.chars().count();
        if width > COLUMNS && !empty {
            writeln!(out, "{}", line.trim_end())?;
            line = " ".repeat(indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line += word;
        empty = false;
    }
    writeln!(out, "{}", line.trim_end())
}

/// Without anything that a terminal would obey.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A duration, roughly.
pub fn age(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn mib(mib: u64) -> String {
    match mib {
        0..=9_999 => format!("{mib} MiB"),
        10_000..=10_239_999 => format!("{} GiB", mib >> 10),
        _ => format!("{} TiB", mib >> 20),
    }
}

/// The time of day in UTC.
fn clock(unix_ms: u64) -> impl Display {
    let seconds = unix_ms / 1_000 % 86_400;
    format!(
        "{:02}:{:02}:{:02} UTC",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests;
