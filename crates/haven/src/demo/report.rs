//! What the demo found, as a table for people and as one JSON object for programs.

use super::scene::Condition;
use serde::Serialize;
use std::fmt::{self, Display};
use std::time::Duration;

/// What is done to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Its process is killed (SIGKILL).
    Killed,
    /// Its network cable is pulled; it lives on.
    CutOff,
    /// Its process is stopped (SIGSTOP), later continued.
    Frozen,
    /// Nothing: the service is moved by plan.
    Planned,
}

impl Fault {
    /// Doing it to the leader, in words.
    pub fn doing(self) -> &'static str {
        match self {
            Self::Killed => "killing the leader",
            Self::CutOff => "pulling the cable of the leader",
            Self::Frozen => "freezing the leader",
            Self::Planned => "moving the service away by plan from",
        }
    }

    /// What it leaves the leader in.
    pub fn condition(self) -> Condition {
        match self {
            Self::Killed => Condition::Killed,
            Self::CutOff => Condition::CutOff,
            Self::Frozen => Condition::Frozen,
            Self::Planned => Condition::Well,
        }
    }

    /// Every kind, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Killed, Self::CutOff, Self::Frozen, Self::Planned];
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Killed => "killed",
            Self::CutOff => "cut off",
            Self::Frozen => "frozen",
            Self::Planned => "planned move",
        })
    }
}

/// Stalls by kind of fault, in whole milliseconds, in the order in which they happened.
#[derive(Debug, Default, Serialize)]
pub struct Stalls {
    killed: Vec<u64>,
    cut_off: Vec<u64>,
    frozen: Vec<u64>,
    planned: Vec<u64>,
}

impl Stalls {
    /// Notes one.
    pub fn add(&mut self, fault: Fault, stall: Duration) {
        let ms = u64::try_from(stall.as_millis()).unwrap_or(u64::MAX);
        match fault {
            Fault::Killed => self.killed.push(ms),
            Fault::CutOff => self.cut_off.push(ms),
            Fault::Frozen => self.frozen.push(ms),
            Fault::Planned => self.planned.push(ms),
        }
    }

    fn of(&self, fault: Fault) -> &[u64] {
        match fault {
            Fault::Killed => &self.killed,
            Fault::CutOff => &self.cut_off,
            Fault::Frozen => &self.frozen,
            Fault::Planned => &self.planned,
        }
    }
}

/// The whole outcome.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Operations that the client had answered.
    pub acknowledged: u64,
    /// Acknowledged, but not there at the end.
    pub lost: u64,
    /// Done more than once.
    pub doubled: u64,
    /// Lines that stand in the wrong order.
    pub out_of_order: u64,
    /// Whether all nodes hold the same state, byte for byte.
    pub state_hashes_equal: bool,
    /// What the client felt.
    pub stalls_ms: Stalls,
    /// What else went wrong, in words.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether everything is as it must be.
    pub fn is_clean(&self) -> bool {
        self.lost == 0
            && self.doubled == 0
            && self.out_of_order == 0
            && self.state_hashes_equal
            && self.problems.is_empty()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "stall of the client (ms)   times   min   median     max")?;
        for fault in Fault::ALL {
            let mut all = self.stalls_ms.of(fault).to_vec();
            all.sort_unstable();
            let (Some(min), Some(max)) = (all.first(), all.last()) else {
                continue;
            };
            let median = all[all.len() / 2];
            writeln!(f, "  {fault:24} {:5} {min:5} {median:8} {max:7}", all.len())?;
        }
        writeln!(f)?;
        writeln!(f, "operations acknowledged  {:8}", self.acknowledged)?;
        writeln!(f, "lost                     {:8}", self.lost)?;
        writeln!(f, "done twice               {:8}", self.doubled)?;
        writeln!(f, "out of order             {:8}", self.out_of_order)?;
        let hashes = if self.state_hashes_equal {
            "equal"
        } else {
            "DIFFERENT"
        };
        writeln!(f, "state of the nodes       {hashes:>8}")?;
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_promised_keys() {
        let mut report = Report {
            acknowledged: 7,
            state_hashes_equal: true,
            ..Report::default()
        };
        report
            .stalls_ms
            .add(Fault::CutOff, Duration::from_micros(812_900));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["acknowledged"], 7);
        assert_eq!(json["stalls_ms"]["cut_off"], serde_json::json!([812]));
        for key in ["lost", "doubled", "state_hashes_equal"] {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert!(report.is_clean());
        report.lost = 1;
        assert!(!report.is_clean());
    }
}
