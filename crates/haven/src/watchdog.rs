//! Watches the flush of the log: a node whose disk hangs must not keep the service.
//!
//! Nothing can be acknowledged while a flush hangs, and the disk may never come back; but heartbeats go on, so the
//! other nodes do not notice. So this node hands leadership over; if that does not help within a moment, or nobody
//! is there to take it, the process ends, and the address guard takes the addresses off.
//!
//! A follower only complains: the leader does not need it, and it may recover.

use crate::driver::Handle;
use crate::engine::Outcome;
use haven_consensus::{Consensus, Role};
use haven_log::Log;
use std::time::Duration;
use tracing::{error, info};

/// How often the flush is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How long handing leadership over may take.
const HANDOVER: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Say that a flush hangs.
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
    flush_max: Duration,
    /// Another node could lead.
    others: bool,
    hanging: bool,
    asked: bool,
}

impl Watchdog {
    /// `running`: for how long the present flush has been under way.
    fn look(&mut self, running: Option<Duration>, leading: bool) -> Option<Step> {
        let running = running.unwrap_or_default();
        if running < self.flush_max {
            let was = std::mem::take(&mut self.hanging);
            self.asked = false;
            return was.then_some(Step::Relieved);
        }
        let first = !std::mem::replace(&mut self.hanging, true);
        if !leading {
            return first.then_some(Step::Complain);
        }
        if !self.others || (self.asked && running >= self.flush_max + HANDOVER) {
            return Some(Step::Stop);
        }
        let ask = !std::mem::replace(&mut self.asked, true);
        ask.then_some(Step::HandOver)
    }
}

/// Returns when this node must stop serving, with the reason in words.
pub async fn watch(
    log: Log,
    consensus: Consensus<Outcome>,
    handle: Handle,
    flush_max: Duration,
    others: bool,
) -> String {
    let mut watchdog = Watchdog {
        flush_max,
        others,
        hanging: false,
        asked: false,
    };
    loop {
        let running = log.stats().flush_running;
        let leading = consensus.status().role == Role::Leader;
        let ms = running.unwrap_or_default().as_millis();
        match watchdog.look(running, leading) {
            None => {}
            Some(Step::Complain) => error!(ms, "the disk hangs: a flush of the log does not end"),
            Some(Step::HandOver) => {
                error!(
                    ms,
                    "the disk hangs: a flush of the log does not end; handing the service over"
                );
                handle.request_move(None).await;
            }
            Some(Step::Relieved) => info!("the disk works again: the flush has ended"),
            Some(Step::Stop) => {
                return format!(
                    "the disk hangs: a flush of the log has not ended for {ms} ms (node.flush_ms_max); \
                     this node stops serving. What was acknowledged is safe. Look at the disk, then start again"
                );
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(5);
    const LONG: Option<Duration> = Some(MAX);

    fn watchdog(others: bool) -> Watchdog {
        Watchdog {
            flush_max: MAX,
            others,
            hanging: false,
            asked: false,
        }
    }

    #[test]
    fn a_leader_hands_over_once_and_stops_if_that_does_not_help() {
        let mut dog = watchdog(true);
        assert_eq!(dog.look(Some(MAX / 2), true), None);
        assert_eq!(dog.look(LONG, true), Some(Step::HandOver));
        assert_eq!(dog.look(LONG, true), None);
        assert_eq!(dog.look(LONG.map(|l| l + HANDOVER), true), Some(Step::Stop));
    }

    #[test]
    fn a_former_leader_and_a_follower_wait_for_their_disk() {
        let mut dog = watchdog(true);
        assert_eq!(dog.look(LONG, true), Some(Step::HandOver));
        let later = LONG.map(|l| l + HANDOVER * 9);
        assert_eq!(dog.look(later, false), None, "somebody else leads");
        assert_eq!(dog.look(None, false), Some(Step::Relieved));
        assert_eq!(dog.look(LONG, false), Some(Step::Complain));
        assert_eq!(dog.look(LONG, false), None, "once");
    }

    #[test]
    fn a_node_alone_stops() {
        let mut dog = watchdog(false);
        assert_eq!(dog.look(LONG, true), Some(Step::Stop));
    }
}
