//! The demo as one picture: who leads, where the address is, what the client feels, what happened.
//!
//! A function of its state: no clock, no terminal. The picture has at most 23 rows and 80 columns.

use haven_admin::{NodeReport, Phase};
use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::time::Duration;

/// Rows of the picture, one less than a small terminal has.
const ROWS: usize = 23;
/// Columns of the picture.
const COLUMNS: usize = 80;
/// Columns before the words of a story: its time.
const STORY_INDENT: usize = 11;
/// Rows of everything but the nodes and the story.
const FIXED_ROWS: usize = 10;
/// Columns of the strip: 100 ms each.
const STRIP_COLUMNS: usize = 68;
/// Latencies up to these, in milliseconds, have a level each; above, and without an answer, the highest.
const LEVELS_MS: [u64; 7] = [3, 6, 12, 25, 50, 100, 200];
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const LETTERS: [char; 8] = ['.', ':', '-', '=', '+', '*', '%', '#'];

/// What the demo has done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Nothing.
    #[default]
    Well,
    /// Its process is dead.
    Killed,
    /// Its cable is pulled.
    CutOff,
    /// Its process is stopped.
    Frozen,
}

/// A node of the picture.
#[derive(Debug, Clone, Default)]
pub struct Actor {
    /// Its name.
    pub name: String,
    /// What was done to it.
    pub condition: Condition,
    /// How it sees itself; `None`: it does not answer.
    pub report: Option<NodeReport>,
}

/// What the client felt within 100 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Operations that were answered.
    pub operations: u64,
    /// The longest wait among them.
    pub longest: Duration,
}

/// Everything that is shown.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    /// Since the beginning.
    pub elapsed: Duration,
    /// Where the choices come from.
    pub seed: u64,
    /// The nodes.
    pub actors: Vec<Actor>,
    /// The floating address.
    pub floating: String,
    /// Operations answered in all.
    pub acknowledged: u64,
    /// Latest last.
    pub beats: VecDeque<Beat>,
    /// What happened, latest last.
    pub story: Vec<String>,
    /// What is done now.
    pub now: String,
    /// The terminal knows blocks.
    pub blocks: bool,
}

impl Scene {
    /// Adds what the client felt.
    pub fn beat(&mut self, beat: Beat) {
        if self.beats.len() == STRIP_COLUMNS {
            self.beats.pop_front();
        }
        self.beats.push_back(beat);
    }

    /// The picture.
    pub fn draw(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f32();
        writeln!(
            out,
            "\x1b[1mhaven demo\x1b[0m   three nodes and a client on this machine   seed {}   {seconds:6.1} s\n",
            self.seed
        )?;
        writeln!(
            out,
            "  node  {:<24}  {:>10}  floating address",
            "state", "applied"
        )?;
        for actor in &self.actors {
            self.actor(actor, out)?;
        }
        let last_second = self.beats.iter().rev().take(10);
        let rate: u64 = last_second.clone().map(|b| b.operations).sum();
        let longest = last_second.map(|b| b.longest).max().unwrap_or_default();
        let felt = match rate {
            0 => "no answer for a second".to_owned(),
            _ => format!(
                "{rate:5} operations/s, the slowest took {} ms",
                longest.as_millis()
            ),
        };
        writeln!(out, "\n  client  {felt}, {} in all", self.acknowledged)?;
        writeln!(out, "  waits   {}", self.strip())?;
        writeln!(
            out,
            "          one column is 100 ms; low: up to {} ms, high: over {} ms or no answer\n",
            LEVELS_MS[0],
            LEVELS_MS[LEVELS_MS.len() - 1]
        )?;
        let rows = ROWS.saturating_sub(FIXED_ROWS + self.actors.len());
        let told: Vec<String> = self.story.iter().flat_map(|line| wrapped(line)).collect();
        for line in told.iter().skip(told.len().saturating_sub(rows)) {
            writeln!(out, "{line}")?;
        }
        for _ in told.len()..rows {
            writeln!(out)?;
        }
        writeln!(out, "\n  now     {}", self.now)
    }

    fn actor(&self, actor: &Actor, out: &mut String) -> fmt::Result {
        let report = actor.report.as_ref();
        let (state, colour) = match (actor.condition, report) {
            (Condition::Killed, _) => ("KILLED", 31),
            (Condition::Frozen, _) => ("FROZEN", 31),
            (Condition::CutOff, Some(r)) if r.serving => ("CUT OFF, still serves", 31),
            (Condition::CutOff, _) => ("CUT OFF", 31),
            (Condition::Well, None) => ("starts", 33),
            (Condition::Well, Some(r)) => match r.phase {
                Phase::Serving if r.serving => ("leads and serves", 32),
                Phase::Serving | Phase::TakingOver => ("takes over", 33),
                Phase::Suspended => ("waits for a majority", 33),
                Phase::Moving | Phase::Releasing => ("hands over", 33),
                _ if r.leader.is_none() => ("sees no leader", 33),
                _ => ("follows", 0),
            },
        };
        let applied = report.map_or("-".into(), |r| r.applied.to_string());
        let here = report.is_some_and(|r| !r.addresses.is_empty());
        let address = if here { self.floating.as_str() } else { "" };
        writeln!(
            out,
            "  {:<4}  \x1b[{colour}m{state:<24}\x1b[0m  {applied:>10}  {address}",
            actor.name
        )
    }

    fn strip(&self) -> String {
        let glyphs = if self.blocks { BLOCKS } else { LETTERS };
        let mut strip = String::new();
        let mut red = false;
        for beat in &self.beats {
            let ms = u64::try_from(beat.longest.as_millis()).unwrap_or(u64::MAX);
            let level = LEVELS_MS.iter().filter(|bound| ms > **bound).count();
            let stands = beat.operations == 0 || level == LEVELS_MS.len();
            if stands != red {
                strip += if stands { "\x1b[31m" } else { "\x1b[0m" };
                red = stands;
            }
            strip.push(glyphs[if stands { LEVELS_MS.len() } else { level }]);
        }
        if red {
            strip += "\x1b[0m";
        }
        strip
    }
}

/// A line of the story in lines that fit.
fn wrapped(line: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let last = lines.last().map_or(0, |l| l.chars().count());
        if last + word.trim_end().chars().count() > COLUMNS && last > STORY_INDENT {
            lines.push(" ".repeat(STORY_INDENT));
        }
        if let Some(last) = lines.last_mut() {
            *last += word;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Scene {
        let report = |name: &str, serving| NodeReport {
            node: name.into(),
            leader: Some("b".into()),
            applied: 12_345,
            serving,
            phase: if serving { Phase::Serving } else { Phase::Idle },
            addresses: match serving {
                true => vec!["10.77.0.100".parse().unwrap()],
                false => Vec::new(),
            },
            ..NodeReport::default()
        };
        let actor = |name: &str, condition, report| Actor {
            name: name.into(),
            condition,
            report,
        };
        let mut scene = Scene {
            elapsed: Duration::from_millis(12_340),
            seed: 1,
            actors: vec![
                actor("a", Condition::Killed, None),
                actor("b", Condition::Well, Some(report("b", true))),
                actor("c", Condition::Well, Some(report("c", false))),
            ],
            floating: "10.77.0.100".into(),
            acknowledged: 51_234,
            story: (0..20)
                .map(|n| format!("   0.{n:02} s  line {n}"))
                .collect(),
            now: "killing the leader, a".into(),
            blocks: false,
            ..Scene::default()
        };
        for (operations, ms) in [(90, 1), (80, 4), (0, 0), (0, 0), (9, 380), (95, 20)] {
            scene.beat(Beat {
                operations,
                longest: Duration::from_millis(ms),
            });
        }
        scene
    }

    /// What is left without colours.
    fn bare(text: &str) -> String {
        let mut parts = text.split('\x1b');
        let first = parts.next().unwrap_or_default().to_owned();
        first
            + &parts
                .map(|p| p.split_once('m').unwrap().1)
                .collect::<String>()
    }

    #[test]
    fn the_picture_is_as_agreed() {
        let drawn = bare(&scene().draw());
        let expect = "\
haven demo   three nodes and a client on this machine   seed 1     12.3 s

  node  state                        applied  floating address
  a     KILLED                             -  
  b     leads and serves               12345  10.77.0.100
  c     follows                        12345  

  client    274 operations/s, the slowest took 380 ms, 51234 in all
  waits   .:###=
          one column is 100 ms; low: up to 3 ms, high: over 200 ms or no answer

";
        assert!(drawn.starts_with(expect), "{drawn}");
        assert!(drawn.ends_with("line 19\n\n  now     killing the leader, a\n"));
    }

    #[test]
    fn it_never_outgrows_a_terminal() {
        let mut scene = scene();
        for _ in 0..200 {
            scene.beat(Beat {
                operations: 1,
                longest: Duration::from_secs(99),
            });
        }
        scene.story.push("word ".repeat(60));
        for blocks in [false, true] {
            scene.blocks = blocks;
            let drawn = bare(&scene.draw());
            assert_eq!(drawn.lines().count(), ROWS);
            for line in drawn.lines() {
                assert!(line.trim_end().chars().count() <= COLUMNS, "{line}");
            }
        }
        scene.story.clear();
        assert_eq!(scene.draw().lines().count(), ROWS);
    }
}
