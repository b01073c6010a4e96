//! The state machine of one service: applies log entries, answers queries.
//!
//! Invariants
//! - All state is in the engine; what the machine keeps beside it is read from there and can be read
//!   again ([`Machine::reload`]).
//! - Server time never runs backwards: each entry's is above the last one's, by a nanosecond at least.
//! - A mutating request that is in the reply cache is answered from it and not executed.
//!
//! It must not know how entries come to be or where replies go.

use crate::classify::Request;
use crate::entry::{Entry, Nfs3Entry};
use crate::export;
use crate::handle::{HandleKey, VolumeId};
use crate::identity::Identity;
use crate::reply_cache::{ReplyCache, RequestKey};
use crate::v3::{self, Edit, View};
use crate::{Fatal, mountd};
use bytes::Bytes;
use haven_fs::{Change, Filesystem, FsError, Ino, SetAttr, SystemTable, Time};
use haven_proto::nfs3::{Args3, Proc3};
use haven_rpc::{AcceptError, accept_error, accepted};
use haven_xdr::Gather;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

pub(crate) const KEY_IDENTITY: &[u8] = b"m/identity";
pub(crate) const KEY_TIME: &[u8] = b"m/time";
/// Followed by an export's path; the value is its inode number.
pub(crate) const KEY_EXPORT: &[u8] = b"m/export/";

pub(crate) const NANOS_PER_SEC: u32 = 1_000_000_000;

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
    roots: BTreeSet<Ino>,
    last_time: Time,
}

impl<F: Filesystem + SystemTable> Machine<F> {
    /// Starts on what the engine holds.
    ///
    /// # Errors
    /// [`Fatal`] when the engine fails or holds what the machine never wrote.
    pub fn new(fs: F) -> Result<Self, Fatal> {
        let loaded = Loaded::from(&fs)?;
        let Loaded {
            identity,
            replies,
            roots,
            last_time,
        } = loaded;
        Ok(Self {
            fs,
            identity,
            replies,
            roots,
            last_time,
        })
    }

    /// Reads everything again, after the engine's state was replaced by a snapshot.
    pub fn reload(&mut self) -> Result<(), Fatal> {
        let loaded = Loaded::from(&self.fs)?;
        Loaded {
            identity: self.identity,
            replies: self.replies,
            roots: self.roots,
            last_time: self.last_time,
        } = loaded;
        Ok(())
    }

    /// The volume's identity, once its first entry is applied.
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
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
        let at = Change {
            index,
            time: self.advance(entry.time())?,
        };
        match entry {
            Entry::Noop { .. } => Ok(Outcome::Done),
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
        }
    }

    /// Answers what changes nothing: the RPC reply, without record mark.
    pub fn query(&self, request: &Request) -> Result<Gather, Fatal> {
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
                    cred,
                    read_only: *read_only,
                };
                v3::query(&view, args)?
            }
            Request::Mnt {
                version,
                path,
                exports,
                ..
            } => mountd::mnt(&self.fs, identity, *version, path, exports)?,
        };
        Ok(accepted(xid, body))
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
        let made = export::components(path).and_then(|names| {
            let dir = export::ensure(&mut self.fs, at, &names, set)?;
            let joined = names.join(&b'/');
            Ok((dir, joined))
        });
        match made {
            Ok((dir, path)) => {
                self.put(&[KEY_EXPORT, &path].concat(), &dir.ino.0.to_be_bytes())?;
                self.roots.insert(dir.ino);
                Ok(Outcome::Done)
            }
            Err(FsError::Fatal(why)) => Err(Fatal(why)),
            Err(error) => {
                let path = String::from_utf8_lossy(path);
                Ok(Outcome::Refused(format!(
                    "cannot make the export {path}: {error}"
                )))
            }
        }
    }

    fn nfs3(&mut self, at: &Change, entry: Nfs3Entry) -> Result<Outcome, Fatal> {
        let Nfs3Entry {
            client,
            xid,
            checksum,
            cred,
            proc,
            args,
            ..
        } = entry;
        let key = RequestKey {
            client,
            xid,
            checksum,
        };
        if let Some(reply) = self.replies.get(&key) {
            let message = accepted(xid, reply.clone().into());
            return Ok(Outcome::Reply {
                message,
                replayed: true,
            });
        }
        let index = at.index;
        let undecodable = |why: String| Fatal(format!("log index {index}: {why}"));
        let proc = Proc3::from_wire(proc)
            .ok_or_else(|| undecodable(format!("NFSv3 has no procedure {proc}")))?;
        let args = Args3::decode(proc, args)
            .map_err(|error| undecodable(format!("arguments of {proc:?}: {error}")))?;
        // No handle was ever given out: nobody can have meant anything.
        let Some(identity) = &self.identity else {
            let message = accept_error(xid, AcceptError::SystemErr);
            return Ok(Outcome::Reply {
                message,
                replayed: false,
            });
        };
        let fs = &mut self.fs;
        let mut edit = Edit {
            fs,
            identity,
            roots: &self.roots,
            cred: &cred,
            at: *at,
        };
        let body = v3::execute(&mut edit, &args)?.into_bytes();
        self.replies
            .insert(&mut self.fs, index, key, body.clone())?;
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

/// What the system table holds for the machine.
struct Loaded {
    identity: Option<Identity>,
    replies: ReplyCache,
    roots: BTreeSet<Ino>,
    last_time: Time,
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
        Ok(Self {
            identity,
            replies: ReplyCache::load(fs)?,
            roots: load_roots(fs)?,
            last_time,
        })
    }
}

fn load_roots(fs: &impl SystemTable) -> Result<BTreeSet<Ino>, Fatal> {
    let mut roots = BTreeSet::new();
    let mut malformed = false;
    let scanned = fs.system_scan(KEY_EXPORT, &mut |_, value| match value.try_into() {
        Ok(ino) => {
            roots.insert(Ino(u64::from_be_bytes(ino)));
            ControlFlow::Continue(())
        }
        Err(_) => {
            malformed = true;
            ControlFlow::Break(())
        }
    });
    scanned.map_err(|error| Fatal::from_fs("reading the exports", &error))?;
    if malformed {
        Err(Fatal("a stored export is malformed".to_owned()))
    } else {
        Ok(roots)
    }
}

pub(crate) fn time_from(stored: &[u8]) -> Option<Time> {
    let (secs, nanos) = stored.split_first_chunk::<8>()?;
    Some(Time {
        secs: i64::from_be_bytes(*secs),
        nanos: u32::from_be_bytes(nanos.try_into().ok()?),
    })
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
