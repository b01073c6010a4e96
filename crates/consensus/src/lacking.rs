//! A node that knows entries to be committed which its log does not hold.
//!
//! The committed position is noted beside the log without a flush, and may be ahead of it: a follower hears that an
//! entry is committed, because others have it, while it is still writing its own copy; then it is killed, or loses its power.
//! Nothing is wrong then: it never said that it had the entry. But it may also be that its disk lost what it had.
//! Nobody can tell, so it is careful:
//!
//! 1. It helps nobody to lead who lacks what it knows to be committed, as if it had those entries itself: so a leader that
//!    lacks them cannot be elected with its vote. Whoever has them gets its vote.
//! 2. It does not lead, for then others who lack them might follow.
//! 3. It fetches them as any follower does, and when it has applied them it is a voter like any other.
//!
//! A node that is the only voter cannot have heard of them from others: its own disk had them. It is refused
//! ([`StartError::Lost`](crate::StartError::Lost)) rather than serve an older state without a word.
//!
//! Only an operator can say that the lost changes are to be given up: [`give_up`].

use std::sync::Arc;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;

use crate::check;
use crate::codec;
use crate::machine::Machine;
use crate::rejoin::Voice;
use crate::store::record_index;
use crate::types::LogId;
use crate::types::Types;
use crate::types::log_id;
use haven_log::Log;
use haven_log::Slot;

/// Gives up what was committed and is neither in the log nor in the machine, which stands at `position`: from then on the
/// node goes on with what is left. The last record that was committed and the last that is left; `None` when
/// nothing is missing. Blocks.
///
/// # Errors
/// What the log or the position has against it, in words.
pub fn give_up(log: &Log, position: Option<&[u8]>) -> Result<Option<(u64, u64)>, String> {
    let words = |e: haven_log::LogError| e.to_string();
    let slot = |slot| log.read_slot(slot).map_err(words);
    let place = |bytes: Option<bytes::Bytes>| {
        let id = bytes
            .map(|bytes| codec::read_log_id_slot(&bytes))
            .transpose();
        id.map_err(|e| format!("a slot of the log does not decode: {e}"))
    };
    let Some(committed) = place(slot(Slot::Committed)?)? else {
        return Ok(None);
    };
    let meta = position.map(codec::read_position).transpose();
    let meta = meta.map_err(|e| format!("the machine's position does not decode: {e}"))?;
    let last = last_of(log)?.max(place(slot(Slot::Purged)?)?);
    let held = last.max(meta.and_then(|meta| meta.last_log_id));
    if Some(committed) <= held {
        return Ok(None);
    }
    let value = held.map(codec::log_id_slot).unwrap_or_default();
    log.save_slot(Slot::Committed, &value, true)
        .map_err(words)?;
    let left = held.map_or(0, |held| record_index(held.index));
    Ok(Some((record_index(committed.index), left)))
}

fn last_of(log: &Log) -> Result<Option<LogId>, String> {
    let Some(last) = log.last_index() else {
        return Ok(None);
    };
    let records = log.read(last..last + 1, 1).map_err(|e| e.to_string())?;
    let record = records
        .into_iter()
        .next()
        .ok_or("the last record is gone")?;
    let place = check::read_record(record.index, &record.head, record.body)?.place;
    Ok(Some(log_id(place.term, place.applied_index())))
}

/// Notes that this node has everything once it has applied `lacks`.
pub(crate) async fn fetch<R: Send + 'static>(
    raft: Raft<Types, Machine<R>>,
    voice: Arc<Voice>,
    lacks: LogId,
) {
    let upto = record_index(lacks.index);
    tracing::warn!(
        upto,
        "records up to this one were committed, but this node's log ends before: it was stopped while it wrote them, or \
         its disk lost them. It fetches them, and until then votes only for nodes that have them"
    );
    let mut metrics = raft.metrics();
    while metrics.borrow_watched().last_applied < Some(lacks) {
        if metrics.changed().await.is_err() {
            return;
        }
    }
    voice.holds_everything();
    tracing::info!(upto, "this node has fetched what its log lacked");
}
