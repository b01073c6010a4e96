//! What an offline check needs to know of the log and the position: terms, places, and that everything
//! decodes. For a node that does not run.
//!
//! Indices here are those of log records, as files and operators see them.
//!
//! It must not know where the bytes come from.

use bytes::Bytes;
use openraft::EntryPayload;

use crate::codec;
use crate::types::LogId;

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The term of the leader that proposed it.
    pub term: u64,
    /// The index of the log record.
    pub record: u64,
}

impl Place {
    fn of(id: LogId) -> Self {
        Self {
            term: id.leader_id.term,
            record: id.index.saturating_add(1),
        }
    }

    /// The index under which the machine applied the entry.
    pub const fn applied_index(self) -> u64 {
        self.record.saturating_sub(1)
    }
}

/// A record of the log.
#[derive(Debug, Clone)]
pub struct CheckedRecord {
    /// Its place.
    pub place: Place,
    /// The machine's entry; `None` for one of the cluster's own.
    pub entry: Option<Bytes>,
}

/// What stands in a log record.
///
/// # Errors
/// Why it cannot be read, in words.
pub fn read_record(record: u64, head: &[u8], body: Bytes) -> Result<CheckedRecord, String> {
    let index = record
        .checked_sub(1)
        .ok_or("there is no record 0 in a log")?;
    let entry = codec::join_entry(index, head, body).map_err(|e| e.to_string())?;
    Ok(CheckedRecord {
        place: Place::of(entry.log_id),
        entry: match entry.payload {
            EntryPayload::Normal(command) => Some(command.0),
            EntryPayload::Blank | EntryPayload::Membership(_) => None,
        },
    })
}

/// The last applied place in a machine's position.
///
/// # Errors
/// Why it cannot be read, in words.
pub fn read_position(bytes: &[u8]) -> Result<Option<Place>, String> {
    let meta = codec::read_position(bytes).map_err(|e| e.to_string())?;
    Ok(meta.last_log_id.map(Place::of))
}

/// The place in a log slot (purge point, committed).
///
/// # Errors
/// Why it cannot be read, in words.
pub fn read_place_slot(bytes: &[u8]) -> Result<Place, String> {
    codec::read_log_id_slot(bytes)
        .map(Place::of)
        .map_err(|e| e.to_string())
}

/// The term of the vote in a log slot.
///
/// # Errors
/// Why it cannot be read, in words.
pub fn read_vote_slot(bytes: &[u8]) -> Result<u64, String> {
    codec::read_vote_slot(bytes)
        .map(|vote| vote.leader_id.term)
        .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Command, Entry, LeaderId, Members, Vote, log_id};
    use openraft::vote::RaftLeaderId;

    #[test]
    fn what_is_written_is_read_and_the_rest_refused() {
        let place = Place { term: 3, record: 8 };
        assert_eq!(place.applied_index(), 7);
        let entry = Entry {
            log_id: log_id(3, 7),
            payload: EntryPayload::Normal(Command(Bytes::from_static(b"change"))),
        };
        let (head, body) = codec::split_entry(&entry);
        let read = read_record(8, &head, body.clone()).unwrap();
        assert_eq!(
            (read.place, read.entry.as_deref()),
            (place, Some(&b"change"[..]))
        );
        assert!(read_record(8, &head[..9], body.clone()).is_err());
        assert!(read_record(0, &head, body).is_err());

        let position = codec::position(Some(log_id(3, 7)), &Members::default());
        assert_eq!(read_position(&position), Ok(Some(place)));
        assert!(read_position(&position[1..]).is_err());
        let slot = codec::log_id_slot(log_id(3, 7));
        assert_eq!(read_place_slot(&slot), Ok(place));
        assert!(read_place_slot(b"").is_err());
        let vote = Vote {
            leader_id: LeaderId::new(9, 2),
            committed: false,
        };
        assert_eq!(read_vote_slot(&codec::vote_slot(vote)), Ok(9));
        assert!(read_vote_slot(&slot).is_err());
    }
}
