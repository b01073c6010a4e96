//! Watches what a node does: one whose disk or state machine hangs must not keep the service.
//!
//! Nothing can be acknowledged while the log, a vote or the machine hangs, and it may never come back; but heartbeats
//! go on, so the other nodes do not notice. So this node soon hands leadership over, which costs clients little if it was
//! too early. If it still leads and hangs when the limit that the configuration gives is over, it tries that once more;
//! if that does not help within a moment, or nobody is there to take it, the process ends, and the address guard takes
//! the addresses off. (A leader that loses its quorum, or that was stopped, needs no watching: its lease ends by itself.)
//!
//! If the machine computes, on a processor and with its storage at hand, nothing of that helps: the next leader has the
//! same to compute. Then this node only complains.
//!
//! A follower only complains: the leader does not need it, and it may recover.
//!
//! The machine's watchdog timer, if there is one, hears that all is well only while nothing hangs.

use crate::applying::Observer;
use crate::driver::Handle;
use crate::engine::{Outcome, Pulses};
use crate::thread_times::Cause;
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
    /// `shared`: every other node would be as late.
    fn look(&mut self, late: Option<Late>, leading: bool, shared: bool) -> Option<Step> {
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
        if !leading || shared {
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
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hang {
    what: String,
    cause: Cause,
    setting: &'static str,
    running: Duration,
    late: Late,
}

impl Hang {
    /// Something that has been under way for so long, of which another node may relieve it `soon`.
    fn of(
        (what, setting, cause): (String, &'static str, Cause),
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
            cause,
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

    /// What hangs, in a word or two.
    const fn who(&self) -> &'static str {
        match self.cause {
            Cause::Storage => "the disk hangs",
            Cause::NoProcessor => "this node gets no processor",
            Cause::Computing => "this node computes for long",
            Cause::Unknown => "this node hangs",
        }
    }
}

impl Vitals {
    /// What is furthest beyond its limit, or would be next.
    fn worst(&self, votes: &Pulse, observer: &mut Observer) -> Option<Hang> {
        const FLUSH: &str = "node.flush_ms_max";
        let short = (SOON.min(self.health.flush_max), self.health.flush_max);
        // Clients do not wait for a checkpoint.
        let long = (self.health.checkpoint_max, self.health.checkpoint_max);
        let storage = |what: &str, setting| (what.to_owned(), setting, Cause::Storage);
        let vote = "the saving of a vote or of where the log begins or ends";
        let mut all = vec![
            (
                storage("a flush of the log", FLUSH),
                self.log.stats().flush_running,
                short,
            ),
            (storage(vote, FLUSH), votes.running(), short),
            (
                storage("a checkpoint", "node.checkpoint_ms_max"),
                self.machine.checkpoint.running(),
                long,
            ),
        ];
        if let Some(slow) = observer.look(&self.machine.apply) {
            all.push(((slow.what, FLUSH, slow.cause), Some(slow.running), short));
        }
        all.into_iter()
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
    let mut observer = Observer::default();
    loop {
        let hang = vitals.worst(&votes, &mut observer);
        let late = hang.as_ref().map(|hang| hang.late);
        let shared = hang
            .as_ref()
            .is_some_and(|hang| hang.cause == Cause::Computing);
        if shared || late.is_none_or(|late| late == Late::Soon) {
            timer.well();
        }
        let leading = vitals.consensus.status().role == Role::Leader;
        let step = watchdog.look(late, leading, shared);
        act(step, hang.as_ref(), &handle).await?;
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

async fn act(step: Option<Step>, hang: Option<&Hang>, handle: &Handle) -> Result<(), String> {
    let what = hang.map_or("", |hang| &hang.what);
    let who = hang.map_or("", Hang::who);
    let ms = hang.map_or(0, |hang| hang.running.as_millis());
    match step {
        None => {}
        Some(Step::Complain) => error!(ms, "{who}: {what} does not end"),
        Some(Step::HandOver) => {
            error!(ms, "{who}: {what} does not end; handing the service over");
            handle.request_move(None).await;
        }
        Some(Step::Relieved) => info!("nothing hangs any more"),
        Some(Step::Stop) => return Err(hang.map_or_else(String::new, farewell)),
    }
    Ok(())
}

/// Why this node stops serving.
fn farewell(hang: &Hang) -> String {
    let (who, what, setting, ms) = (
        hang.who(),
        &hang.what,
        hang.setting,
        hang.running.as_millis(),
    );
    let advice = match hang.cause {
        Cause::NoProcessor => "Look at what else the machine does",
        _ => "Look at the disk",
    };
    format!(
        "{who}: {what} has not ended for {ms} ms ({setting}); this node stops serving. What was acknowledged is \
         safe. {advice}, then start again"
    )
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
        assert_eq!(dog.look(None, true, false), None);
        assert_eq!(dog.look(SOON, true, false), Some(Step::HandOver));
        assert_eq!(dog.look(SOON, true, false), None);
        assert_eq!(dog.look(JUST, true, false), Some(Step::HandOver));
        assert_eq!(dog.look(JUST, true, false), None);
        assert_eq!(dog.look(LONG, true, false), Some(Step::Stop));
    }

    #[test]
    fn what_is_late_again_is_handed_over_again() {
        let mut dog = watchdog(true);
        assert_eq!(dog.look(SOON, true, false), Some(Step::HandOver));
        assert_eq!(dog.look(None, true, false), Some(Step::Relieved));
        assert_eq!(dog.look(SOON, true, false), Some(Step::HandOver));
    }

    #[test]
    fn a_former_leader_and_a_follower_wait_for_their_disk() {
        let mut dog = watchdog(true);
        assert_eq!(dog.look(JUST, true, false), Some(Step::HandOver));
        assert_eq!(dog.look(LONG, false, false), None, "somebody else leads");
        assert_eq!(dog.look(None, false, false), Some(Step::Relieved));
        assert_eq!(dog.look(SOON, false, false), None, "nobody waits for it");
        assert_eq!(dog.look(JUST, false, false), Some(Step::Complain));
        assert_eq!(dog.look(JUST, false, false), None, "once");
    }

    #[test]
    fn a_node_alone_stops_when_the_limit_is_over() {
        let mut dog = watchdog(false);
        assert_eq!(dog.look(SOON, true, false), None);
        assert_eq!(dog.look(JUST, true, false), Some(Step::Stop));
    }

    #[test]
    fn something_is_late_soon_and_over_beyond_its_limit() {
        let late = |ms, soon, max| {
            let limits = (Duration::from_millis(soon), Duration::from_millis(max));
            let hang = Hang::of(
                (String::new(), "", Cause::Storage),
                Duration::from_millis(ms),
                limits,
            );
            hang.map(|hang| hang.late)
        };
        assert_eq!(late(999, 1000, 5000), None);
        assert_eq!(late(1000, 1000, 5000), SOON);
        assert_eq!(late(5000, 1000, 5000), JUST);
        assert_eq!(late(7000, 1000, 5000), LONG);
        assert_eq!(late(200, 200, 200), JUST);
    }

    #[test]
    fn what_every_node_would_compute_as_long_is_only_complained_of() {
        for leading in [true, false] {
            let mut dog = watchdog(leading);
            assert_eq!(dog.look(JUST, leading, true), Some(Step::Complain));
            assert_eq!(dog.look(LONG, leading, true), None, "once");
            assert_eq!(dog.look(None, leading, false), Some(Step::Relieved));
        }
    }

    #[test]
    fn slow_storage_and_a_long_computation_are_told_apart() {
        let hang = |cause| {
            let what = "the applying of RENAME of client 10.0.0.7 (log index 12)".to_owned();
            let (ms, max) = (Duration::from_millis(5_018), Duration::from_secs(5));
            Hang::of((what, "node.flush_ms_max", cause), ms, (max, max)).unwrap()
        };
        for (cause, word) in [
            (Cause::Storage, "the disk hangs"),
            (Cause::NoProcessor, "no processor"),
            (Cause::Computing, "computes for long"),
            (Cause::Unknown, "this node hangs"),
        ] {
            let text = farewell(&hang(cause));
            let all = [word, "RENAME", "log index 12", "5018 ms", "flush_ms_max"];
            assert!(all.iter().all(|part| text.contains(part)), "{text}");
        }
    }
}
