//! The duplicate request cache: replies to mutating requests, so that a retry gets the answer of the
//! first execution instead of being executed again, on whichever replica and after whatever crash.
//!
//! It is part of the replicated state: kept in the system table, key `r/` and log index, and mirrored
//! in memory. A request is known by client address, transaction id and checksum; the client's port is
//! not part of it, because clients reconnect from others.
//!
//! Invariants
//! - Memory and table hold the same replies: loading gives an equal cache.
//! - At most [`REPLIES_PER_CLIENT_MAX`] replies per client and [`REPLIES_MAX`] in all; the oldest by log
//!   index goes first.
//!
//! It must not know what the replies say.

use crate::Fatal;
use crate::entry::{Cursor, EntryError, put_ip};
use crate::rows::PREFIX_REPLY;
use bytes::{BufMut, Bytes, BytesMut};
use haven_fs::SystemTable;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::ControlFlow;

/// Most replies kept for one client.
pub const REPLIES_PER_CLIENT_MAX: usize = 4_096;
/// Most replies kept in all.
pub const REPLIES_MAX: usize = 131_072;
/// Longest reply to a mutating request.
pub const REPLY_BYTES_MAX: usize = 1_024;

/// What makes two requests the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestKey {
    pub(crate) client: IpAddr,
    pub(crate) xid: u32,
    pub(crate) checksum: u64,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    per_client: usize,
    total: usize,
}

/// The cache in memory.
#[derive(Debug)]
pub(crate) struct ReplyCache {
    limits: Limits,
    replies: BTreeMap<RequestKey, Bytes>,
    by_index: BTreeMap<u64, RequestKey>,
    /// Log indexes of each client's replies, oldest first.
    by_client: BTreeMap<IpAddr, VecDeque<u64>>,
}

impl PartialEq for ReplyCache {
    fn eq(&self, other: &Self) -> bool {
        self.replies == other.replies
            && self.by_index == other.by_index
            && self.by_client == other.by_client
    }
}

impl ReplyCache {
    fn empty(limits: Limits) -> Self {
        Self {
            limits,
            replies: BTreeMap::new(),
            by_index: BTreeMap::new(),
            by_client: BTreeMap::new(),
        }
    }

    /// What the table holds.
    pub(crate) fn load(table: &impl SystemTable) -> Result<Self, Fatal> {
        let limits = Limits {
            per_client: REPLIES_PER_CLIENT_MAX,
            total: REPLIES_MAX,
        };
        Self::load_with(table, limits)
    }

    fn load_with(table: &impl SystemTable, limits: Limits) -> Result<Self, Fatal> {
        let mut cache = Self::empty(limits);
        let mut bad = None;
        let scanned = table.system_scan(PREFIX_REPLY, &mut |key, value| match (
            index_of(key),
            decode(&Bytes::copy_from_slice(value)),
        ) {
            (Some(index), Ok((request, reply))) => {
                cache.remember(index, request, reply);
                ControlFlow::Continue(())
            }
            _ => {
                bad = Some(key.to_vec());
                ControlFlow::Break(())
            }
        });
        scanned.map_err(|error| Fatal::from_fs("reading cached replies", &error))?;
        match bad {
            Some(key) => Err(Fatal(format!("cached reply {key:?} is malformed"))),
            None => Ok(cache),
        }
    }

    /// How many replies there are.
    pub(crate) fn len(&self) -> usize {
        self.replies.len()
    }

    /// The reply to the same request.
    pub(crate) fn get(&self, request: &RequestKey) -> Option<&Bytes> {
        self.replies.get(request)
    }

    /// Keeps the reply of the request executed at `index`, and drops what is beyond the limits.
    pub(crate) fn insert(
        &mut self,
        table: &mut impl SystemTable,
        index: u64,
        request: RequestKey,
        reply: Bytes,
    ) -> Result<(), Fatal> {
        if reply.len() > REPLY_BYTES_MAX {
            let len = reply.len();
            return Err(Fatal(format!(
                "a reply of {len} bytes is beyond the cache's limit"
            )));
        }
        put(table, index, Some(&encode(&request, &reply)))?;
        self.remember(index, request, reply);
        while let Some(oldest) = self.surplus(request.client) {
            put(table, oldest, None)?;
            self.forget(oldest);
        }
        Ok(())
    }

    fn remember(&mut self, index: u64, request: RequestKey, reply: Bytes) {
        self.replies.insert(request, reply);
        self.by_index.insert(index, request);
        self.by_client
            .entry(request.client)
            .or_default()
            .push_back(index);
    }

    /// The log index of a reply that must go.
    fn surplus(&self, client: IpAddr) -> Option<u64> {
        match self.by_client.get(&client) {
            Some(own) if own.len() > self.limits.per_client => own.front().copied(),
            _ if self.by_index.len() > self.limits.total => self.by_index.keys().next().copied(),
            _ => None,
        }
    }

    /// The oldest reply of all is the oldest of its client, too: it is always a queue's head that goes.
    fn forget(&mut self, index: u64) {
        let Some(request) = self.by_index.remove(&index) else {
            return;
        };
        self.replies.remove(&request);
        if let Some(own) = self.by_client.get_mut(&request.client) {
            own.pop_front();
            if own.is_empty() {
                self.by_client.remove(&request.client);
            }
        }
    }
}

fn put(table: &mut impl SystemTable, index: u64, value: Option<&[u8]>) -> Result<(), Fatal> {
    table
        .system_put(&key_of(index), value)
        .map_err(|error| Fatal::from_fs("writing a cached reply", &error))
}

/// Big-endian, so that the table's order is the log's.
pub(crate) fn key_of(index: u64) -> Vec<u8> {
    [PREFIX_REPLY, &index.to_be_bytes()].concat()
}

pub(crate) fn index_of(key: &[u8]) -> Option<u64> {
    let index = key.strip_prefix(PREFIX_REPLY)?;
    Some(u64::from_be_bytes(index.try_into().ok()?))
}

pub(crate) fn encode(request: &RequestKey, reply: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(32 + reply.len());
    put_ip(&mut out, request.client);
    out.put_u32_le(request.xid);
    out.put_u64_le(request.checksum);
    out.put_slice(reply);
    out.freeze()
}

pub(crate) fn decode(value: &Bytes) -> Result<(RequestKey, Bytes), EntryError> {
    let mut r = Cursor::new(value);
    let request = RequestKey {
        client: r.ip()?,
        xid: r.u32()?,
        checksum: r.u64()?,
    };
    Ok((request, r.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_fs::model::Model;

    const SMALL: Limits = Limits {
        per_client: 3,
        total: 5,
    };

    fn key(client: u8, xid: u32) -> RequestKey {
        RequestKey {
            client: IpAddr::from([10, 0, 0, client]),
            xid,
            checksum: 1,
        }
    }

    fn fill(requests: &[(u8, u32)]) -> (Model, ReplyCache) {
        let mut table = Model::new();
        let mut cache = ReplyCache::empty(SMALL);
        for (index, &(client, xid)) in requests.iter().enumerate() {
            let reply = Bytes::from(vec![xid as u8; 4]);
            // 250 apart, so that the byte order of the keys matters.
            let index = 250 * (index as u64 + 1);
            cache
                .insert(&mut table, index, key(client, xid), reply)
                .expect("the model never fails");
            assert!(cache.by_index.len() <= SMALL.total);
        }
        (table, cache)
    }

    #[test]
    fn one_client_drops_its_own_oldest() {
        let (_, cache) = fill(&[(1, 1), (2, 2), (1, 3), (1, 4), (1, 5)]);
        assert_eq!(cache.get(&key(1, 1)), None);
        assert!(cache.get(&key(2, 2)).is_some(), "others keep theirs");
        assert_eq!(cache.get(&key(1, 5)).map(|r| &r[..]), Some(&[5; 4][..]));
        assert_eq!(
            cache.get(&RequestKey {
                checksum: 2,
                ..key(1, 5)
            }),
            None
        );
    }

    #[test]
    fn the_oldest_of_all_goes_first() {
        let (_, cache) = fill(&[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7)]);
        assert_eq!(cache.get(&key(1, 1)), None);
        assert_eq!(cache.get(&key(2, 2)), None);
        assert!((3..=7).all(|n| cache.get(&key(n, u32::from(n))).is_some()));
        assert_eq!(
            cache.by_client.len(),
            5,
            "clients without replies are forgotten"
        );
    }

    #[test]
    fn loading_gives_an_equal_cache() {
        let (table, cache) = fill(&[
            (1, 1),
            (2, 2),
            (1, 3),
            (1, 4),
            (1, 5),
            (3, 6),
            (2, 7),
            (2, 8),
        ]);
        let loaded = ReplyCache::load_with(&table, SMALL).expect("well-formed");
        assert_eq!(loaded, cache);
    }

    #[test]
    fn a_malformed_table_is_fatal() {
        let (mut table, _) = fill(&[(1, 1)]);
        table
            .system_put(b"r/short", Some(b"x"))
            .expect("the model never fails");
        assert!(ReplyCache::load(&table).is_err());
    }

    #[test]
    fn long_replies_are_our_own_mistake() {
        let (mut table, mut cache) = fill(&[]);
        let reply = Bytes::from(vec![0; REPLY_BYTES_MAX + 1]);
        assert!(cache.insert(&mut table, 1, key(1, 1), reply).is_err());
    }
}
