//! The state machine of one service: applies log entries, answers queries.
//!
//! Invariants
//! - All state is in the engine; what the machine keeps beside it is read from there and can be read
//!   again ([`Machine::reload`]).
//! - Server time never runs backwards: each entry's is above the last one's, by a nanosecond at least.
//! - A mutating request that is in the reply cache is answered from it and not executed.
//! - The time that was served goes on with each entry of version 2, by what passed since the entry before, but by no more
//!   than [`SERVED_STEP_NS_MAX`]: outages do not count.
//!
//! It must not know how entries come to be or where replies go.

use crate::classify::Request;
use crate::entry::{Entry, MntRules, MountEntry, MountOp, Nfs3Entry};
use crate::exports::normal_path;
use crate::handle::{ExportId, HandleKey, VolumeId};
use crate::identity::Identity;
use crate::inside::Inside;
use crate::mounts::Mounts;
use crate::over::News;
use crate::reply_cache::{self, ReplyCache};
use crate::rows::{
    Counted, ExportRow, KEY_IDENTITY, KEY_SERVED, KEY_TIME, MountRow, PREFIX_EXPORT,
};
use crate::v3::{self, Edit, Room, View};
use crate::{Fatal, export, level, mountd};
use bytes::Bytes;
use haven_fs::{Change, Filesystem, FsError, Ino, Level, SetAttr, SystemTable, Time};
use haven_proto::nfs3::{Args3, Proc3};
use haven_rpc::{AcceptError, accept_error, accepted};
use haven_xdr::Gather;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::ControlFlow;

pub(crate) const NANOS_PER_SEC: u32 = 1_000_000_000;
/// By how much the time that was served goes on at most with one entry, in nanoseconds.
const SERVED_STEP_NS_MAX: u64 = 1_000_000_000;
/// With no more bytes of arguments than this, a request that was executed before is proposed though there is no space.
const SMALL_ARGS_BYTES_MAX: usize = 4 << 10;

/// What came of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was the cluster's own business, and is done.
    Done,
    /// The cluster's own business, but impossible: the reason, for whoever proposed it.
    Refused(String),
    /// The RPC reply (without record mark) for the client.
    Reply {
        /// The whole message.
        message: Gather,
        /// Whether it was executed before, and this is the reply from then.
        replayed: bool,
    },
}

/// The state machine over an engine.
#[derive(Debug)]
pub struct Machine<F> {
    fs: F,
    identity: Option<Identity>,
    replies: ReplyCache,
    mounts: Mounts,
    exports: BTreeMap<Bytes, ExportRow>,
    /// The directory of each of `exports`.
    roots: BTreeMap<ExportId, Ino>,
    inside: Inside,
    level: Level,
    last_time: Time,
    served_ns: u64,
}

impl<F: Filesystem + SystemTable> Machine<F> {
    /// Starts on what the engine holds.
    ///
    /// # Errors
    /// [`Fatal`] when the engine fails or holds what the machine never wrote.
    pub fn new(mut fs: F) -> Result<Self, Fatal> {
        let Loaded {
            identity,
            replies,
            mounts,
            exports,
            level,
            last_time,
            served_ns,
        } = Loaded::from(&fs)?;
        fs.set_level(level);
        Ok(Self {
            fs,
            identity,
            replies,
            mounts,
            roots: exports.values().map(|row| (row.id, row.ino)).collect(),
            inside: Inside::default(),
            exports,
            level,
            last_time,
            served_ns,
        })
    }

    /// Reads everything again, after the engine's state was replaced by a snapshot.
    pub fn reload(&mut self) -> Result<(), Fatal> {
        let loaded = Loaded::from(&self.fs)?;
        Loaded {
            identity: self.identity,
            replies: self.replies,
            mounts: self.mounts,
            exports: self.exports,
            level: self.level,
            last_time: self.last_time,
            served_ns: self.served_ns,
        } = loaded;
        self.fs.set_level(self.level);
        self.roots = self.exports.values().map(|row| (row.id, row.ino)).collect();
        self.inside.forget();
        Ok(())
    }

    /// The volume's identity, once its first entry is applied.
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The rules that changes follow.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// How many replies are kept for retransmissions.
    pub fn cached_replies(&self) -> usize {
        self.replies.len()
    }

    /// The number of every export that was ever made, by path (`/a/b`): for [`crate::Exports::bind`].
    pub fn export_ids(&self) -> BTreeMap<Bytes, ExportId> {
        let id = |(path, row): (&Bytes, &ExportRow)| (path.clone(), row.id);
        self.exports.iter().map(id).collect()
    }

    /// Whether an export has its number and its directory: if not, [`Entry::Export`] makes them.
    pub fn has_export(&self, path: &[u8]) -> bool {
        let row = normal_path(path).and_then(|path| self.exports.get(&path));
        let dir = export::components(path).and_then(|names| export::find(&self.fs, &names));
        matches!((row, dir), (Some(row), Ok(dir)) if row.ino == dir.ino)
    }

    /// Whether a request of [`crate::Prepared::Mount`] changes the table of mounts. If it does not,
    /// [`Machine::query`] answers it.
    pub fn needs_entry(&self, request: &Request) -> bool {
        match request {
            Request::Mount { xid, client, op } => {
                mountd::changes_table(&self.mounts, *client, *xid, op)
                    && mountd::is_there(&self.fs, &self.roots, op)
            }
            Request::Nfs3 { .. } | Request::Dump { .. } => false,
        }
    }

    /// Server time of the last entry.
    pub const fn last_time(&self) -> Time {
        self.last_time
    }

    /// The engine.
    pub const fn fs(&self) -> &F {
        &self.fs
    }

    /// The engine, for its owner (checkpoints, snapshots). Who changes its state calls
    /// [`Machine::reload`].
    pub const fn fs_mut(&mut self) -> &mut F {
        &mut self.fs
    }

    /// The engine, by value.
    pub fn into_fs(self) -> F {
        self.fs
    }

    /// Applies the entry at `index` of the log.
    ///
    /// # Errors
    /// [`Fatal`]: the replica must stop before it applies anything else.
    pub fn apply(&mut self, index: u64, entry: &Bytes) -> Result<Outcome, Fatal> {
        let entry =
            Entry::decode(entry).map_err(|error| Fatal(format!("log index {index}: {error}")))?;
        let before = self.last_time;
        let at = Change {
            index,
            time: self.advance(entry.time())?,
        };
        if let Some(news) = news(&entry) {
            self.serve(before, at.time)?;
            self.replies.hear(&mut self.fs, news)?;
        }
        match entry {
            Entry::Noop { .. } | Entry::News { .. } => Ok(Outcome::Done),
            Entry::Level { level, .. } => self.raise(level),
            Entry::Genesis {
                volume_id,
                handle_key,
                ..
            } => self.genesis(volume_id, handle_key),
            Entry::Export {
                path,
                uid,
                gid,
                mode,
                ..
            } => {
                let set = SetAttr {
                    mode: Some(mode),
                    uid: Some(uid),
                    gid: Some(gid),
                    ..SetAttr::default()
                };
                self.export(&at, &path, &set)
            }
            Entry::Nfs3(entry) => self.nfs3(&at, entry),
            Entry::Mount(entry) => self.mount(&at, entry),
        }
    }

    /// Answers what changes nothing: the RPC reply, without record mark.
    pub fn query(&self, request: &Request) -> Result<Gather, Fatal> {
        self.query_within(request, None)
    }

    /// The same, where the service has this room, whatever the engine says.
    pub fn query_within(&self, request: &Request, room: Option<Room>) -> Result<Gather, Fatal> {
        let xid = request.xid();
        let Some(identity) = &self.identity else {
            return Ok(accept_error(xid, AcceptError::SystemErr));
        };
        let body = match request {
            Request::Nfs3 {
                cred,
                args,
                read_only,
                ..
            } => {
                let view = View {
                    fs: &self.fs,
                    identity,
                    roots: &self.roots,
                    inside: &self.inside,
                    cred,
                    read_only: *read_only,
                    room,
                };
                v3::query(&view, args)?
            }
            Request::Mount { op, .. } => self.mount_result(identity, op)?.0,
            Request::Dump { .. } => mountd::dump(&self.mounts),
        };
        Ok(accepted(xid, body))
    }

    /// What to answer instead of proposing `entry` when there is no space left: the reply from when it was
    /// executed, or NFS3ERR_NOSPC. `None`: it takes no space and may be proposed.
    ///
    /// # Errors
    /// [`Fatal`] when the engine fails.
    pub fn refuse_growth(&self, entry: &Bytes) -> Result<Option<Gather>, Fatal> {
        let own = |why: String| Fatal(format!("an entry that was not proposed yet: {why}"));
        let Entry::Nfs3(entry) = Entry::decode(entry).map_err(|e| own(e.to_string()))? else {
            return Ok(None);
        };
        let (Some(identity), Some(proc)) = (&self.identity, Proc3::from_wire(entry.proc)) else {
            return Ok(None);
        };
        let known = self.replies.find(&request(&entry));
        if known.is_some() && entry.args.len() <= SMALL_ARGS_BYTES_MAX {
            // It finds its reply, and executes nothing.
            return Ok(None);
        }
        let args = Args3::decode(proc, entry.args).map_err(|e| own(e.to_string()))?;
        let view = View {
            fs: &self.fs,
            identity,
            roots: &self.roots,
            inside: &self.inside,
            cred: &entry.cred,
            read_only: false,
            room: None,
        };
        let body = match (v3::refuse_growth(&view, &args)?, known) {
            (None, _) => return Ok(None),
            (Some(_), Some(reply)) => Bytes::copy_from_slice(reply).into(),
            (Some(refusal), None) => refusal,
        };
        Ok(Some(accepted(entry.xid, body)))
    }

    /// Server time for an entry with this time of its leader.
    fn advance(&mut self, proposed: Time) -> Result<Time, Fatal> {
        let time = proposed.max(successor(self.last_time));
        let mut stored = [0; 12];
        stored[..8].copy_from_slice(&time.secs.to_be_bytes());
        stored[8..].copy_from_slice(&time.nanos.to_be_bytes());
        self.put(KEY_TIME, &stored)?;
        self.last_time = time;
        Ok(time)
    }

    fn raise(&mut self, level: Level) -> Result<Outcome, Fatal> {
        if level > self.level {
            level::store(&mut self.fs, level)?;
            self.fs.set_level(level);
            self.level = level;
        }
        Ok(Outcome::Done)
    }

    /// Counts the time between two entries as served.
    fn serve(&mut self, before: Time, now: Time) -> Result<(), Fatal> {
        let nanos =
            |time: Time| i128::from(time.secs) * i128::from(NANOS_PER_SEC) + i128::from(time.nanos);
        let step = u64::try_from(nanos(now) - nanos(before)).unwrap_or(0);
        self.served_ns = self.served_ns.saturating_add(step.min(SERVED_STEP_NS_MAX));
        self.put(KEY_SERVED, &self.served_ns.to_be_bytes())
    }

    fn genesis(&mut self, volume_id: [u8; 16], handle_key: [u8; 16]) -> Result<Outcome, Fatal> {
        // Two nodes may both have proposed one: the first counts.
        if self.identity.is_none() {
            let identity = Identity::new(VolumeId(volume_id), HandleKey(handle_key));
            self.put(KEY_IDENTITY, &identity.to_stored())?;
            self.identity = Some(identity);
        }
        Ok(Outcome::Done)
    }

    fn export(&mut self, at: &Change, path: &[u8], set: &SetAttr) -> Result<Outcome, Fatal> {
        let refused = |why: &dyn std::fmt::Display| {
            let path = String::from_utf8_lossy(path);
            Ok(Outcome::Refused(format!(
                "cannot make the export {path}: {why}"
            )))
        };
        let Some(normal) = normal_path(path) else {
            return refused(&FsError::Invalid);
        };
        let known = self.exports.get(&normal).map(|row| row.id);
        let Some(id) = known.or_else(|| self.next_export_id()) else {
            return refused(&"all numbers of exports are used up");
        };
        let made = export::components(path)
            .and_then(|names| export::ensure(&mut self.fs, at, &names, set));
        let dir = match made {
            Ok(dir) => dir,
            Err(FsError::Fatal(why)) => return Err(Fatal(why)),
            Err(error) => return refused(&error),
        };
        let row = ExportRow {
            path: normal,
            id,
            ino: dir.ino,
        };
        let (key, value) = row.encode();
        self.put(&key, &value)?;
        self.roots.insert(id, dir.ino);
        self.exports.insert(row.path.clone(), row);
        Ok(Outcome::Done)
    }

    /// Above all that were ever given: rows of exports are never removed.
    fn next_export_id(&self) -> Option<ExportId> {
        let last = self.roots.keys().next_back().map_or(0, |id| id.0);
        last.checked_add(1).map(ExportId)
    }

    fn mount(&mut self, at: &Change, entry: MountEntry) -> Result<Outcome, Fatal> {
        let MountEntry {
            client, xid, op, ..
        } = entry;
        let message = match &self.identity {
            None => accept_error(xid, AcceptError::SystemErr),
            Some(identity) => {
                let (body, done) = self.mount_result(identity, &op)?;
                if done && mountd::changes_table(&self.mounts, client, xid, &op) {
                    self.record_mount(at.index, client, xid, &op)?;
                }
                accepted(xid, body)
            }
        };
        Ok(Outcome::Reply {
            message,
            replayed: false,
        })
    }

    /// And whether it belongs into the table of mounts: a MNT that fails does not.
    fn mount_result(&self, identity: &Identity, op: &MountOp) -> Result<(Gather, bool), Fatal> {
        match op {
            MountOp::Mnt {
                rules,
                version,
                export,
                path,
            } => {
                let what = (*rules, *export, &path[..]);
                let mounted = mountd::mnt(&self.fs, identity, &self.roots, what)?;
                let done = mounted.is_ok();
                Ok((mountd::mnt_result(*version, mounted), done))
            }
            MountOp::Umnt { .. } | MountOp::Umntall => Ok((Gather::new(), true)),
        }
    }

    fn record_mount(
        &mut self,
        index: u64,
        client: IpAddr,
        xid: u32,
        op: &MountOp,
    ) -> Result<(), Fatal> {
        let (fs, mounts) = (&mut self.fs, &mut self.mounts);
        let normal = |path: &Bytes| normal_path(path).unwrap_or_default();
        match op {
            MountOp::Mnt { rules, path, .. } => {
                let row = MountRow {
                    index,
                    client,
                    path: normal(path),
                    counted: (*rules == MntRules::Second).then(|| Counted::first(xid)),
                };
                mounts.mnt(fs, row)
            }
            MountOp::Umnt { path } => mounts.umnt(fs, (client, &normal(path)), xid),
            MountOp::Umntall => mounts.remove_all(fs, client),
        }
    }

    fn nfs3(&mut self, at: &Change, entry: Nfs3Entry) -> Result<Outcome, Fatal> {
        let (index, served_ns) = (at.index, self.served_ns);
        let same = request(&entry);
        let xid = entry.xid;
        if let Some(reply) = self.replies.take(&mut self.fs, index, &same, served_ns)? {
            return Ok(Outcome::Reply {
                message: accepted(xid, reply.into()),
                replayed: true,
            });
        }
        let undecodable = |why: String| Fatal(format!("log index {index}: {why}"));
        let proc = Proc3::from_wire(entry.proc)
            .ok_or_else(|| undecodable(format!("NFSv3 has no procedure {}", entry.proc)))?;
        let args = Args3::decode(proc, entry.args.clone())
            .map_err(|error| undecodable(format!("arguments of {proc:?}: {error}")))?;
        // No handle was ever given out: nobody can have meant anything.
        let Some(identity) = &self.identity else {
            let message = accept_error(xid, AcceptError::SystemErr);
            return Ok(Outcome::Reply {
                message,
                replayed: false,
            });
        };
        if matches!(args, Args3::Rename(_)) {
            self.inside.forget();
        }
        let fs = &mut self.fs;
        let mut edit = Edit {
            fs,
            identity,
            roots: &self.roots,
            inside: &self.inside,
            cred: &entry.cred,
            at: *at,
        };
        let body = v3::execute(&mut edit, &args)?.into_bytes();
        self.replies
            .keep(&mut self.fs, index, &same, &body, served_ns)?;
        Ok(Outcome::Reply {
            message: accepted(xid, body.into()),
            replayed: false,
        })
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fatal> {
        self.fs
            .system_put(key, Some(value))
            .map_err(|error| Fatal::from_fs("writing the machine's state", &error))
    }
}

/// What an entry of version 2 tells of connections.
fn news(entry: &Entry) -> Option<&[News]> {
    match entry {
        Entry::Nfs3(entry) => entry.asked.as_ref().map(|asked| &asked.news[..]),
        Entry::News { news, .. } => Some(news),
        _ => None,
    }
}

fn request(entry: &Nfs3Entry) -> reply_cache::Request<'_> {
    reply_cache::Request {
        client: entry.client,
        xid: entry.xid,
        checksum: entry.checksum,
        asked: entry.asked.as_ref(),
    }
}

/// What the system table holds for the machine.
struct Loaded {
    identity: Option<Identity>,
    replies: ReplyCache,
    mounts: Mounts,
    exports: BTreeMap<Bytes, ExportRow>,
    level: Level,
    last_time: Time,
    served_ns: u64,
}

impl Loaded {
    fn from(fs: &impl SystemTable) -> Result<Self, Fatal> {
        let get = |key: &[u8]| {
            fs.system_get(key)
                .map_err(|error| Fatal::from_fs("reading the machine's state", &error))
        };
        let malformed = |what: &str| Fatal(format!("stored {what} is malformed"));
        let identity = match get(KEY_IDENTITY)? {
            Some(stored) => {
                Some(Identity::from_stored(&stored).ok_or_else(|| malformed("identity"))?)
            }
            None => None,
        };
        let last_time = match get(KEY_TIME)? {
            Some(stored) => time_from(&stored).ok_or_else(|| malformed("server time"))?,
            None => Time::default(),
        };
        let served_ns = match get(KEY_SERVED)? {
            Some(stored) => {
                served_from(&stored).ok_or_else(|| malformed("time that was served"))?
            }
            None => 0,
        };
        Ok(Self {
            identity,
            replies: ReplyCache::load(fs)?,
            mounts: Mounts::load(fs)?,
            exports: load_exports(fs)?,
            level: level::load(fs)?,
            last_time,
            served_ns,
        })
    }
}

fn load_exports(fs: &impl SystemTable) -> Result<BTreeMap<Bytes, ExportRow>, Fatal> {
    let mut exports = BTreeMap::new();
    let mut malformed = None;
    let scanned = fs.system_scan(PREFIX_EXPORT, &mut |key, value| match ExportRow::decode(
        key, value,
    ) {
        Some(row) => {
            exports.insert(row.path.clone(), row);
            ControlFlow::Continue(())
        }
        None => {
            malformed = Some(String::from_utf8_lossy(key).into_owned());
            ControlFlow::Break(())
        }
    });
    scanned.map_err(|error| Fatal::from_fs("reading the exports", &error))?;
    match malformed {
        Some(key) => Err(Fatal(format!(
            "the stored export {key} is malformed, or was written by another version of Haven"
        ))),
        None => Ok(exports),
    }
}

pub(crate) fn time_from(stored: &[u8]) -> Option<Time> {
    let (secs, nanos) = stored.split_first_chunk::<8>()?;
    Some(Time {
        secs: i64::from_be_bytes(*secs),
        nanos: u32::from_be_bytes(nanos.try_into().ok()?),
    })
}

pub(crate) fn served_from(stored: &[u8]) -> Option<u64> {
    stored.try_into().ok().map(u64::from_be_bytes)
}

/// A nanosecond later.
fn successor(time: Time) -> Time {
    match time.nanos.checked_add(1) {
        Some(nanos) if nanos < NANOS_PER_SEC => Time { nanos, ..time },
        _ => Time {
            secs: time.secs.saturating_add(1),
            nanos: 0,
        },
    }
}
