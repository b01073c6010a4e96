//! The duplicate request cache: replies to mutating requests, so that a retry gets the answer of the
//! first execution instead of being executed again, on whichever replica and after whatever crash.
//!
//! It is part of the replicated state: rows of the system table (`r/` and log index, `g/` and connection),
//! mirrored in memory. Whose a reply is, and for how long it is kept:
//! docs/decisions/0009-who-asks-again.md.
//!
//! Invariants
//! - Memory and table hold the same replies: loading gives an equal cache.
//! - A reply answers another connection's request only when its own connection is gone.
//! - A reply leaves when it has arrived, when it was kept for [`KEPT_NS`] of service, or when there are more than
//!   [`REPLIES_MAX`]: then the oldest of the address that has most.
//! - A connection is noted as gone exactly as long as there are replies that came over it.
//!
//! It must not know what the replies say.

use crate::Fatal;
use crate::over::{Asked, ChangeId, ConnectionId, News};
use crate::rows::{PREFIX_GONE, PREFIX_REPLY, ReplyOver, ReplyRow, gone_connection, gone_key};
use bytes::Bytes;
use haven_fs::SystemTable;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::{ControlFlow, RangeInclusive};

/// Most replies to entries of version 1 kept for one client.
pub const REPLIES_PER_CLIENT_MAX: usize = 4_096;
/// Most replies kept in all.
pub const REPLIES_MAX: usize = 131_072;
/// Longest reply to a mutating request.
pub const REPLY_BYTES_MAX: usize = 1_024;
/// For how much time of service a reply is kept that did not arrive, in nanoseconds: a day.
pub const KEPT_NS: u64 = 24 * 3600 * 1_000_000_000;
/// Most replies that leave for their age with one entry: more than one comes with each.
const EXPIRE_MAX: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Limits {
    per_client: usize,
    total: usize,
    kept_ns: u64,
}

const LIMITS: Limits = Limits {
    per_client: REPLIES_PER_CLIENT_MAX,
    total: REPLIES_MAX,
    kept_ns: KEPT_NS,
};

/// A request as an entry tells of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) client: IpAddr,
    pub(crate) xid: u32,
    pub(crate) checksum: u64,
    /// `None` in entries of version 1.
    pub(crate) asked: Option<&'a Asked>,
}

/// Address, transaction id, checksum, and log index of a reply's row.
type Key = (IpAddr, u32, u64, u64);

/// The cache in memory.
#[derive(Debug)]
pub(crate) struct ReplyCache {
    limits: Limits,
    rows: BTreeMap<u64, ReplyRow>,
    by_key: BTreeSet<Key>,
    by_id: BTreeMap<ChangeId, u64>,
    /// Connections that are gone and that have replies.
    gone: BTreeSet<ConnectionId>,
    /// Log indexes of each client's replies.
    by_client: BTreeMap<IpAddr, BTreeSet<u64>>,
    /// How many each client has: the last one has most.
    by_count: BTreeSet<(usize, IpAddr)>,
}

impl PartialEq for ReplyCache {
    fn eq(&self, other: &Self) -> bool {
        // The others follow from these.
        self.rows == other.rows && self.gone == other.gone
    }
}

impl ReplyCache {
    fn empty(limits: Limits) -> Self {
        Self {
            limits,
            rows: BTreeMap::new(),
            by_key: BTreeSet::new(),
            by_id: BTreeMap::new(),
            gone: BTreeSet::new(),
            by_client: BTreeMap::new(),
            by_count: BTreeSet::new(),
        }
    }

    /// What the table holds.
    pub(crate) fn load(table: &impl SystemTable) -> Result<Self, Fatal> {
        Self::load_with(table, LIMITS)
    }

    fn load_with(table: &impl SystemTable, limits: Limits) -> Result<Self, Fatal> {
        let mut cache = Self::empty(limits);
        scan(table, PREFIX_REPLY, |key, value| {
            let index = ReplyRow::index(key)?;
            cache.remember(index, ReplyRow::decode(value)?);
            Some(())
        })?;
        scan(table, PREFIX_GONE, |key, _| {
            cache.gone.insert(gone_connection(key)?);
            Some(())
        })?;
        Ok(cache)
    }

    /// How many replies there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is a reply to this request, once its entry's news are heard.
    pub(crate) fn find(&self, request: &Request<'_>) -> Option<&[u8]> {
        let news = request.asked.map_or(&[][..], |asked| &asked.news);
        let index = self.answer(request, news)?;
        self.rows.get(&index).map(|row| &row.reply[..])
    }

    /// Hears what became of connections.
    pub(crate) fn hear(
        &mut self,
        table: &mut impl SystemTable,
        news: &[News],
    ) -> Result<(), Fatal> {
        for one in news {
            match *one {
                News::Arrived {
                    connection,
                    first,
                    last,
                } => {
                    let arrived = self.by_id.range(changes(connection, first..=last));
                    let arrived: Vec<u64> = arrived.map(|(_, index)| *index).collect();
                    for index in arrived {
                        self.remove(table, index)?;
                    }
                }
                News::Gone { connection } => {
                    if self.has_replies(connection) && self.gone.insert(connection) {
                        put(table, &gone_key(connection), Some(&[]))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The reply to the same request; from now on it belongs to this entry's connection.
    pub(crate) fn take(
        &mut self,
        table: &mut impl SystemTable,
        index: u64,
        request: &Request<'_>,
        served_ns: u64,
    ) -> Result<Option<Bytes>, Fatal> {
        let Some(found) = self.answer(request, &[]) else {
            return Ok(None);
        };
        let Some(row) = self.rows.get(&found) else {
            return Ok(None);
        };
        let reply = Bytes::copy_from_slice(&row.reply);
        let same = row.over.map(|over| over.id) == request.asked.map(|asked| asked.id);
        if !same && let Some(asked) = request.asked {
            let row = ReplyRow {
                over: Some(over(asked, served_ns)),
                ..row.clone()
            };
            self.remove(table, found)?;
            self.put(table, index, row)?;
        }
        Ok(Some(reply))
    }

    /// Keeps the reply of the request executed at `index`, and drops what is too old or too much.
    pub(crate) fn keep(
        &mut self,
        table: &mut impl SystemTable,
        index: u64,
        request: &Request<'_>,
        reply: &[u8],
        served_ns: u64,
    ) -> Result<(), Fatal> {
        if reply.len() > REPLY_BYTES_MAX {
            let len = reply.len();
            return Err(Fatal(format!(
                "a reply of {len} bytes is beyond the cache's limit"
            )));
        }
        let row = ReplyRow {
            client: request.client,
            xid: request.xid,
            checksum: request.checksum,
            over: request.asked.map(|asked| over(asked, served_ns)),
            reply: reply.into(),
        };
        self.put(table, index, row)?;
        match request.asked {
            None => self.bound_as_version_1(table, request.client),
            Some(_) => self.bound(table, served_ns),
        }
    }

    /// The log index of the reply to this request.
    fn answer(&self, request: &Request<'_>, news: &[News]) -> Option<u64> {
        let of = |index| (request.client, request.xid, request.checksum, index);
        let same = self.by_key.range(of(0)..=of(u64::MAX));
        // Newest first.
        let mut rows = same.rev().filter_map(|key| self.rows.get_key_value(&key.3));
        let Some(asked) = request.asked else {
            return rows.next().map(|(index, _)| *index);
        };
        let mut answer = None;
        for (index, row) in rows {
            let Some(over) = row.over else {
                answer = answer.or(Some(*index));
                continue;
            };
            if over.caller != asked.caller {
                continue;
            }
            if over.id == asked.id {
                // The same proposal, twice in the log.
                return Some(*index);
            }
            let free = self.is_gone(over.id.connection, asked, news) && !has_arrived(over.id, news);
            if free && over.port == asked.port {
                return Some(*index);
            }
            if free {
                answer = answer.or(Some(*index));
            }
        }
        answer
    }

    /// Whether who used a connection may ask over that of `asked`.
    fn is_gone(&self, connection: ConnectionId, asked: &Asked, news: &[News]) -> bool {
        connection.term != asked.id.connection.term
            || self.gone.contains(&connection)
            || news.contains(&News::Gone { connection })
    }

    fn has_replies(&self, connection: ConnectionId) -> bool {
        let mut all = self.by_id.range(changes(connection, 0..=u64::MAX));
        all.next().is_some()
    }

    /// As nodes did when they wrote entries of version 1, so that whoever applies one of those, now or then, gets the same
    /// rows.
    fn bound_as_version_1(
        &mut self,
        table: &mut impl SystemTable,
        client: IpAddr,
    ) -> Result<(), Fatal> {
        loop {
            let oldest = match self.by_client.get(&client) {
                Some(own) if own.len() > self.limits.per_client => own.first().copied(),
                _ if self.rows.len() > self.limits.total => self.rows.keys().next().copied(),
                _ => None,
            };
            match oldest {
                Some(index) => self.remove(table, index)?,
                None => return Ok(()),
            }
        }
    }

    fn bound(&mut self, table: &mut impl SystemTable, served_ns: u64) -> Result<(), Fatal> {
        for _ in 0..EXPIRE_MAX {
            // Those without a time are from before it was kept, when nothing had been served.
            let since = |row: &ReplyRow| row.over.map_or(0, |over| over.served_ns);
            let oldest = self.rows.first_key_value();
            match oldest.map(|(index, row)| (*index, served_ns.saturating_sub(since(row)))) {
                Some((index, kept_ns)) if kept_ns > self.limits.kept_ns => {
                    self.remove(table, index)?;
                }
                _ => break,
            }
        }
        while self.rows.len() > self.limits.total {
            let most = self.by_count.last().map(|(_, client)| *client);
            let own = most.and_then(|client| self.by_client.get(&client));
            match own.and_then(|own| own.first().copied()) {
                Some(index) => self.remove(table, index)?,
                None => break,
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        table: &mut impl SystemTable,
        index: u64,
        row: ReplyRow,
    ) -> Result<(), Fatal> {
        // Never, but in a table that was not written here: one change has one reply, and so has an index.
        if let Some(before) = row.over.and_then(|over| self.by_id.get(&over.id).copied()) {
            self.remove(table, before)?;
        }
        self.remove(table, index)?;
        put(table, &ReplyRow::key(index), Some(&row.value()))?;
        self.remember(index, row);
        Ok(())
    }

    fn remember(&mut self, index: u64, row: ReplyRow) {
        self.by_key.insert(key(index, &row));
        if let Some(over) = row.over {
            self.by_id.insert(over.id, index);
        }
        self.count(row.client, |own| {
            own.insert(index);
        });
        self.rows.insert(index, row);
    }

    fn remove(&mut self, table: &mut impl SystemTable, index: u64) -> Result<(), Fatal> {
        let Some(row) = self.rows.remove(&index) else {
            return Ok(());
        };
        put(table, &ReplyRow::key(index), None)?;
        self.by_key.remove(&key(index, &row));
        self.count(row.client, |own| {
            own.remove(&index);
        });
        if let Some(over) = row.over {
            if self.by_id.get(&over.id) == Some(&index) {
                self.by_id.remove(&over.id);
            }
            let connection = over.id.connection;
            if !self.has_replies(connection) && self.gone.remove(&connection) {
                put(table, &gone_key(connection), None)?;
            }
        }
        Ok(())
    }

    /// Changes what a client has.
    fn count(&mut self, client: IpAddr, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let own = self.by_client.entry(client).or_default();
        let before = own.len();
        change(own);
        let now = own.len();
        if now == before {
            return;
        }
        self.by_count.remove(&(before, client));
        if now == 0 {
            self.by_client.remove(&client);
        } else {
            self.by_count.insert((now, client));
        }
    }
}

fn key(index: u64, row: &ReplyRow) -> Key {
    (row.client, row.xid, row.checksum, index)
}

fn over(asked: &Asked, served_ns: u64) -> ReplyOver {
    ReplyOver {
        caller: asked.caller,
        id: asked.id,
        port: asked.port,
        served_ns,
    }
}

/// The names of a connection's changes.
fn changes(connection: ConnectionId, seqs: RangeInclusive<u64>) -> RangeInclusive<ChangeId> {
    let id = |seq| ChangeId { connection, seq };
    id(*seqs.start())..=id(*seqs.end())
}

fn has_arrived(id: ChangeId, news: &[News]) -> bool {
    news.iter().any(|one| match *one {
        News::Arrived {
            connection,
            first,
            last,
        } => connection == id.connection && (first..=last).contains(&id.seq),
        News::Gone { .. } => false,
    })
}

/// Reads all rows of a prefix; `take` gives `None` for one that is malformed.
fn scan(
    table: &impl SystemTable,
    prefix: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> Option<()>,
) -> Result<(), Fatal> {
    let mut bad = None;
    let scanned = table.system_scan(prefix, &mut |key, value| match take(key, value) {
        Some(()) => ControlFlow::Continue(()),
        None => {
            bad = Some(key.to_vec());
            ControlFlow::Break(())
        }
    });
    scanned.map_err(|error| Fatal::from_fs("reading cached replies", &error))?;
    match bad {
        Some(key) => Err(Fatal(format!(
            "cached reply \"{}\" is malformed, or was written by another version of Haven",
            key.escape_ascii()
        ))),
        None => Ok(()),
    }
}

fn put(table: &mut impl SystemTable, key: &[u8], value: Option<&[u8]>) -> Result<(), Fatal> {
    table
        .system_put(key, value)
        .map_err(|error| Fatal::from_fs("writing a cached reply", &error))
}

#[cfg(test)]
mod tests;
