//! Watches what a node does: one whose disk or state machine hangs must not keep the service.
//!
//! Nothing can be acknowledged while the log, a vote or the machine hangs, and it may never come back; but heartbeats
//! go on, so the other nodes do not notice. So this node soon hands leadership over, which costs clients little if it was
//! too early. If it still leads and hangs when the limit that the configuration gives is over, it tries that once more;
//! if that does not help within a moment, or nobody is there to take it, the process ends, and the address guard takes
//! the addresses off. (A leader that loses its quorum, or that was stopped, needs no watching: its lease ends by itself.)
//!
//! A follower only complains: the leader does not need it, and it may recover.
//!
//! The machine's watchdog timer, if there is one, hears that all is well only while nothing hangs.

use crate::driver::Handle;
use crate::engine::{Outcome, Pulses};
use crate::timer::Timer;
use haven_config::Health;
use haven_consensus::{Consensus, Pulse, Role};
use haven_log::Log;
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::{error, info};

/// How often everything is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Clients shall not wait longer for one node's disk when another node can go on.
const SOON: Duration = Duration::from_secs(1);
/// How long handing leadership over may take.
const HANDOVER: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Say that something hangs.
    Complain,
    /// Say it, and hand leadership over.
    HandOver,
    /// Say that it is over.
    Relieved,
    /// Stop serving.
    Stop,
}

/// Decides, from one look to the next.
#[derive(Debug)]
struct Watchdog {
    /// Another node could lead.
    others: bool,
    /// It was said that something hangs.
    told: bool,
    /// It was tried to hand over: soon, and when the limit was over.
    asked: [bool; 2],
}

/// How late something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// Late enough for another node to take over.
    Soon,
    /// So long beyond its limit.
    Over(Duration),
}

impl Watchdog {
    fn look(&mut self, late: Option<Late>, leading: bool) -> Option<Step> {
        let Some(late) = late else {
            self.asked = [false; 2];
            return std::mem::take(&mut self.told).then_some(Step::Relieved);
        };
        let over = match late {
            Late::Soon if !leading || !self.others => return None,
            Late::Soon => None,
            Late::Over(over) => Some(over),
        };
        let first = !std::mem::replace(&mut self.told, true);
        if !leading {
            return first.then_some(Step::Complain);
        }
        if let Some(over) = over
            && (!self.others || (self.asked[1] && over >= HANDOVER))
        {
            return Some(Step::Stop);
        }
        let asked = &mut self.asked[usize::from(over.is_some())];
        (!std::mem::replace(asked, true)).then_some(Step::HandOver)
    }
}

/// What is watched.
pub struct Vitals {
    /// Its flushes.
    pub log: Log,
    /// Its votes; and who leads.
    pub consensus: Consensus<Outcome>,
    /// Applying entries, and checkpoints.
    pub machine: Pulses,
    /// How long each may take.
    pub health: Health,
}

/// Something that takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hang {
    what: &'static str,
    setting: &'static str,
    running: Duration,
    late: Late,
}

impl Hang {
    /// Something that has been under way for so long, of which another node may relieve it `soon`.
    fn of(
        (what, setting): (&'static str, &'static str),
        running: Duration,
        (soon, max): (Duration, Duration),
    ) -> Option<Self> {
        let late = match running.checked_sub(max) {
            Some(over) => Late::Over(over),
            None if running >= soon => Late::Soon,
            None => return None,
        };
        Some(Self {
            what,
            setting,
            running,
            late,
        })
    }

    fn over(&self) -> Option<Duration> {
        match self.late {
            Late::Soon => None,
            Late::Over(over) => Some(over),
        }
    }
}

impl Vitals {
    /// What is furthest beyond its limit, or would be next.
    fn worst(&self, votes: &Pulse) -> Option<Hang> {
        const FLUSH: &str = "node.flush_ms_max";
        let short = (SOON.min(self.health.flush_max), self.health.flush_max);
        // Clients do not wait for a checkpoint.
        let long = (self.health.checkpoint_max, self.health.checkpoint_max);
        let vote = "the saving of a vote or of where the log begins or ends";
        [
            (
                ("a flush of the log", FLUSH),
                self.log.stats().flush_running,
                short,
            ),
            ((vote, FLUSH), votes.running(), short),
            (
                ("the applying of changes", FLUSH),
                self.machine.apply.running(),
                short,
            ),
            (
                ("a checkpoint", "node.checkpoint_ms_max"),
                self.machine.checkpoint.running(),
                long,
            ),
        ]
        .into_iter()
        .filter_map(|(name, running, limits)| Hang::of(name, running?, limits))
        .max_by_key(|hang| (hang.over(), hang.running))
    }
}

/// Returns when this node must stop serving, with the reason in words; or `Ok` when told that the end is wanted.
pub async fn watch(
    vitals: Vitals,
    handle: Handle,
    others: bool,
    mut timer: Timer,
    mut clean_end: oneshot::Receiver<()>,
) -> Result<(), String> {
    let mut watchdog = Watchdog {
        others,
        told: false,
        asked: [false; 2],
    };
    let votes = vitals.consensus.vote_pulse();
    loop {
        let hang = vitals.worst(&votes);
        if hang.is_none_or(|hang| hang.late == Late::Soon) {
            timer.well();
        }
        let leading = vitals.consensus.status().role == Role::Leader;
        let step = watchdog.look(hang.map(|hang| hang.late), leading);
        act(step, hang, &handle).await?;
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            told = &mut clean_end => {
                if told.is_ok() {
                    timer.off();
                }
                return Ok(());
            }
        }
    }
}

async fn act(step: Option<Step>, hang: Option<Hang>, handle: &Handle) -> Result<(), String> {
    let (what, setting) = hang.map_or(("", ""), |hang| (hang.what, hang.setting));
    let ms = hang.map_or(0, |hang| hang.running.as_millis());
    match step {
        None => {}
        Some(Step::Complain) => error!(ms, "this node hangs: {what} does not end"),
        Some(Step::HandOver) => {
            error!(
                ms,
                "this node hangs: {what} does not end; handing the service over"
            );
            handle.request_move(None).await;
        }
        Some(Step::Relieved) => info!("nothing hangs any more"),
        Some(Step::Stop) => {
            return Err(format!(
                "the disk hangs: {what} has not ended for {ms} ms ({setting}); this node stops serving. What was \
                 acknowledged is safe. Look at the disk, then start again"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Option<Late> = Some(Late::Soon);
    const JUST: Option<Late> = Some(Late::Over(Duration::ZERO));
    const LONG: Option<Late> = Some(Late::Over(HANDOVER));

    fn watchdog(others: bool) -> Watchdog {
        Watchdog {
            others,
            told: false,
            asked: [false; 2],
        }
    }

    #[test]
    fn a_leader_hands_over_soon_and_once_more_and_stops_if_that_does_not_help() {
        let mut dog = watchdog(true);
        assert_eq!(dog.look(None, true), None);
        assert_eq!(dog.look(SOON, true), Some(Step::HandOver));
        assert_eq!(dog.look(SOON, true), None);
        assert_eq!(dog.look(JUST, true), Some(Step::HandOver));
        assert_eq!(dog.look(JUST, true), None);
        assert_eq!(dog.look(LONG, true), Some(Step::Stop));
    }

    #[test]
    fn what_is_late_again_is_handed_over_again() {
        let mut dog = watchdog(true);
        assert_eq!(dog.look(SOON, true), Some(Step::HandOver));
        assert_eq!(dog.look(None, true), Some(Step::Relieved));
        assert_eq!(dog.look(SOON, true), Some(Step::HandOver));
    }

    #[test]
    fn a_former_leader_and_a_follower_wait_for_their_disk() {
        let mut dog = watchdog(true);
        assert_eq!(dog.look(JUST, true), Some(Step::HandOver));
        assert_eq!(dog.look(LONG, false), None, "somebody else leads");
        assert_eq!(dog.look(None, false), Some(Step::Relieved));
        assert_eq!(dog.look(SOON, false), None, "nobody waits for it");
        assert_eq!(dog.look(JUST, false), Some(Step::Complain));
        assert_eq!(dog.look(JUST, false), None, "once");
    }

    #[test]
    fn a_node_alone_stops_when_the_limit_is_over() {
        let mut dog = watchdog(false);
        assert_eq!(dog.look(SOON, true), None);
        assert_eq!(dog.look(JUST, true), Some(Step::Stop));
    }

    #[test]
    fn something_is_late_soon_and_over_beyond_its_limit() {
        let late = |ms, soon, max| {
            let limits = (Duration::from_millis(soon), Duration::from_millis(max));
            let hang = Hang::of(("", ""), Duration::from_millis(ms), limits);
            hang.map(|hang| hang.late)
        };
        assert_eq!(late(999, 1000, 5000), None);
        assert_eq!(late(1000, 1000, 5000), SOON);
        assert_eq!(late(5000, 1000, 5000), JUST);
        assert_eq!(late(7000, 1000, 5000), LONG);
        assert_eq!(late(200, 200, 200), JUST);
    }
}
