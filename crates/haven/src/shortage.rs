//! Why this node cannot take the state that it lacks: its disk has no room for it.
//!
//! The leader offers the state again and again, and finds out each time how large it is. So for a while the offer is
//! declined without that, unless so much is free by then as was missing.
//!
//! It must not know how state travels.

use haven_admin::Problem;
use haven_store::SnapshotError;
use parking_lot::Mutex;
use std::time::{Duration, Instant};
use tracing::{error, info};

/// For so long an offer is declined at once: the leader may have less to send by then.
const DECLINED: Duration = Duration::from_secs(60);

/// See the module's head comment.
#[derive(Debug, Default)]
pub struct Shortage(Mutex<Option<Known>>);

#[derive(Debug, Clone)]
struct Known {
    why: Problem,
    need_bytes: u64,
    at: Instant,
}

impl Shortage {
    /// Takes note of why a stream was refused, if it is for want of room.
    pub fn note(&self, refused: &SnapshotError, at: Instant) {
        let (SnapshotError::NoRoom { need_bytes, .. }, Some((what, advice))) =
            (refused, refused.shortage())
        else {
            return;
        };
        error!("this node cannot catch up: {what}: {advice}");
        let advice = advice.to_owned();
        *self.0.lock() = Some(Known {
            why: Problem { what, advice },
            need_bytes: *need_bytes,
            at,
        });
    }

    /// State was taken, or is not needed.
    pub fn clear(&self) {
        if self.0.lock().take().is_some() {
            info!("this node catches up again");
        }
    }

    /// Why this node cannot catch up.
    pub fn why(&self) -> Option<Problem> {
        self.0.lock().as_ref().map(|known| known.why.clone())
    }

    /// Why an offer is declined now, with so much free.
    pub fn declines(&self, free_bytes: u64, now: Instant) -> Option<String> {
        let known = self.0.lock().clone()?;
        let lately = now.saturating_duration_since(known.at) < DECLINED;
        (lately && free_bytes < known.need_bytes).then_some(known.why.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_declined_for_a_while_unless_there_is_room() {
        let (shortage, start) = (Shortage::default(), Instant::now());
        shortage.note(&SnapshotError::Replaced, start);
        assert_eq!((shortage.why(), shortage.declines(0, start)), (None, None));
        let refused = SnapshotError::NoRoom {
            need_bytes: 500 << 20,
            free_bytes: 300 << 20,
            partial: true,
        };
        shortage.note(&refused, start);
        let why = shortage.why().unwrap();
        assert!(why.what.contains("200 MiB are missing"), "{why:?}");
        assert!(why.advice.contains("more space"), "{why:?}");
        let later = start + DECLINED - Duration::from_millis(1);
        assert_eq!(shortage.declines(499 << 20, later), Some(why.what.clone()));
        assert_eq!(shortage.declines(500 << 20, later), None);
        assert_eq!(shortage.declines(0, start + DECLINED), None);
        assert_eq!(
            shortage.why(),
            Some(why),
            "it is so until something is taken"
        );
        shortage.clear();
        assert_eq!(shortage.why(), None);
    }
}
