//! Watches what a node does: one whose disk or state machine hangs must not keep the service.
//!
//! Nothing can be acknowledged while the log, a vote or the machine hangs, and it may never come back; but heartbeats
//! go on, so the other nodes do not notice. So this node hands leadership over; if that does not help within a moment,
//! or nobody is there to take it, the process ends, and the address guard takes the addresses off. (A leader that
//! loses its quorum, or that was stopped, needs no watching: its lease ends by itself.)
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
    hanging: bool,
    asked: bool,
}

impl Watchdog {
    /// `over`: for how long beyond its limit something has been under way.
    fn look(&mut self, over: Option<Duration>, leading: bool) -> Option<Step> {
        let Some(over) = over else {
            let was = std::mem::take(&mut self.hanging);
            self.asked = false;
            return was.then_some(Step::Relieved);
        };
        let first = !std::mem::replace(&mut self.hanging, true);
        if !leading {
            return first.then_some(Step::Complain);
        }
        if !self.others || (self.asked && over >= HANDOVER) {
            return Some(Step::Stop);
        }
        let ask = !std::mem::replace(&mut self.asked, true);
        ask.then_some(Step::HandOver)
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
    over: Duration,
}

impl Vitals {
    /// What is furthest beyond its limit.
    fn worst(&self, votes: &Pulse) -> Option<Hang> {
        let (short, long) = (self.health.flush_max, self.health.checkpoint_max);
        const FLUSH: &str = "node.flush_ms_max";
        [
            (
                "a flush of the log",
                self.log.stats().flush_running,
                short,
                FLUSH,
            ),
            (
                "the saving of a vote or of where the log begins or ends",
                votes.running(),
                short,
                FLUSH,
            ),
            (
                "the applying of changes",
                self.machine.apply.running(),
                short,
                FLUSH,
            ),
            (
                "a checkpoint",
                self.machine.checkpoint.running(),
                long,
                "node.checkpoint_ms_max",
            ),
        ]
        .into_iter()
        .filter_map(|(what, running, max, setting)| {
            let running = running?;
            let over = running.checked_sub(max)?;
            Some(Hang {
                what,
                setting,
                running,
                over,
            })
        })
        .max_by_key(|hang| hang.over)
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
        hanging: false,
        asked: false,
    };
    let votes = vitals.consensus.vote_pulse();
    loop {
        let hang = vitals.worst(&votes);
        if hang.is_none() {
            timer.well();
        }
        let leading = vitals.consensus.status().role == Role::Leader;
        let step = watchdog.look(hang.map(|hang| hang.over), leading);
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

    const JUST: Option<Duration> = Some(Duration::ZERO);

    fn watchdog(others: bool) -> Watchdog {
        Watchdog {
            others,
            hanging: false,
            asked: false,
        }
    }

    #[test]
    fn a_leader_hands_over_once_and_stops_if_that_does_not_help() {
        let mut dog = watchdog(true);
        assert_eq!(dog.look(None, true), None);
        assert_eq!(dog.look(JUST, true), Some(Step::HandOver));
        assert_eq!(dog.look(JUST, true), None);
        assert_eq!(dog.look(Some(HANDOVER), true), Some(Step::Stop));
    }

    #[test]
    fn a_former_leader_and_a_follower_wait_for_their_disk() {
        let mut dog = watchdog(true);
        assert_eq!(dog.look(JUST, true), Some(Step::HandOver));
        assert_eq!(
            dog.look(Some(HANDOVER * 9), false),
            None,
            "somebody else leads"
        );
        assert_eq!(dog.look(None, false), Some(Step::Relieved));
        assert_eq!(dog.look(JUST, false), Some(Step::Complain));
        assert_eq!(dog.look(JUST, false), None, "once");
    }

    #[test]
    fn a_node_alone_stops() {
        let mut dog = watchdog(false);
        assert_eq!(dog.look(JUST, true), Some(Step::Stop));
    }
}
