//! A check of the machine's rows in the system table: everything decodes, keeps its bounds, and refers
//! to what exists.
//!
//! It must not know how the table is stored.

use crate::Fatal;
use crate::entry::Entry;
use crate::export;
use crate::identity::Identity;
use crate::machine::{KEY_EXPORT, KEY_IDENTITY, KEY_TIME, time_from};
use crate::reply_cache::{self, REPLIES_MAX, REPLIES_PER_CLIENT_MAX, REPLY_BYTES_MAX, RequestKey};
use bytes::Bytes;
use haven_fs::{FsResult, Ino, SystemTable};
use haven_proto::nfs3::{Args3, Proc3};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::ControlFlow;

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SystemProblem {
    /// A row that the machine never writes.
    UnknownRow,
    /// The identity cannot be read.
    IdentityDamaged,
    /// There are exports or replies, but no identity.
    IdentityMissing,
    /// Server time cannot be read, or is missing.
    TimeDamaged,
    /// An export's path or inode cannot be read.
    ExportDamaged,
    /// An export's inode is no directory.
    ExportNoDirectory,
    /// A cached reply cannot be read, or is too long.
    ReplyDamaged,
    /// Two cached replies to the same request.
    ReplyTwice,
    /// A reply to an entry after the last one that was applied.
    ReplyAhead,
    /// More replies than there may be.
    TooManyReplies,
    /// An export's directory does not exist.
    ExportGone,
}

impl SystemProblem {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::UnknownRow,
        Self::IdentityDamaged,
        Self::IdentityMissing,
        Self::TimeDamaged,
        Self::ExportDamaged,
        Self::ExportNoDirectory,
        Self::ReplyDamaged,
        Self::ReplyTwice,
        Self::ReplyAhead,
        Self::TooManyReplies,
        Self::ExportGone,
    ];

    /// Whether it is no damage. An exported directory may be removed by a client that has the directory
    /// above; the next leader makes it again.
    pub const fn is_note(self) -> bool {
        matches!(self, Self::ExportGone)
    }

    /// Its name for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::UnknownRow => "unknown-system-row",
            Self::IdentityDamaged => "identity-damaged",
            Self::IdentityMissing => "identity-missing",
            Self::TimeDamaged => "time-damaged",
            Self::ExportDamaged => "export-damaged",
            Self::ExportNoDirectory => "export-no-directory",
            Self::ReplyDamaged => "reply-damaged",
            Self::ReplyTwice => "reply-twice",
            Self::ReplyAhead => "reply-ahead",
            Self::TooManyReplies => "too-many-replies",
            Self::ExportGone => "export-gone",
        }
    }

    /// What it means.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::UnknownRow => "no part of this version writes such a row",
            Self::IdentityDamaged | Self::IdentityMissing => {
                "the volume does not know who it is: no client's file handle is valid any more"
            }
            Self::TimeDamaged => "server time may run backwards",
            Self::ExportDamaged => "an export's root is not known",
            Self::ExportNoDirectory => "an export's root is no directory: it cannot be mounted",
            Self::ReplyDamaged => "a retried request would be executed again",
            Self::ReplyTwice => "a request was executed twice",
            Self::ReplyAhead => "a reply belongs to an entry that this state does not hold yet",
            Self::TooManyReplies => "the reply cache is beyond its bound: replicas may differ",
            Self::ExportGone => {
                "an export's directory was removed; it is made again when this node next serves"
            }
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemFinding {
    /// Which kind.
    pub problem: SystemProblem,
    /// Which row, and what stands there.
    pub place: String,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckedSystem {
    /// Whether the volume has its identity.
    pub has_identity: bool,
    /// Exports.
    pub exports: u64,
    /// Cached replies.
    pub replies: u64,
}

/// What the machine's rows are held against.
pub struct Surroundings<'a> {
    /// Whether an inode is a directory; `None` when it does not exist.
    pub is_directory: &'a dyn Fn(Ino) -> FsResult<Option<bool>>,
    /// The log index of the last applied entry.
    pub applied: Option<u64>,
}

/// Checks every row of the system table.
///
/// # Errors
/// [`Fatal`] when the table cannot be read.
pub fn check_system(
    table: &impl SystemTable,
    around: &Surroundings<'_>,
    found: &mut dyn FnMut(SystemFinding),
) -> Result<CheckedSystem, Fatal> {
    let mut check = Check {
        around,
        found,
        sums: CheckedSystem::default(),
        has_time: false,
        requests: BTreeSet::new(),
        by_client: BTreeMap::new(),
        failed: None,
    };
    table
        .system_scan(b"", &mut |key, value| {
            check.row(key, value);
            match check.failed {
                None => ControlFlow::Continue(()),
                Some(_) => ControlFlow::Break(()),
            }
        })
        .map_err(|error| Fatal::from_fs("reading the system table", &error))?;
    match check.failed.take() {
        Some(fatal) => Err(fatal),
        None => Ok(check.conclude()),
    }
}

/// Whether an entry of the log is one that [`crate::Machine::apply`] can read.
///
/// # Errors
/// Why not, in words.
pub fn check_entry(entry: &Bytes) -> Result<(), String> {
    let Entry::Nfs3(entry) = Entry::decode(entry).map_err(|e| e.to_string())? else {
        return Ok(());
    };
    let proc = Proc3::from_wire(entry.proc)
        .ok_or_else(|| format!("NFSv3 has no procedure {}", entry.proc))?;
    Args3::decode(proc, entry.args)
        .map(drop)
        .map_err(|error| format!("arguments of {proc:?}: {error}"))
}

struct Check<'a> {
    around: &'a Surroundings<'a>,
    found: &'a mut dyn FnMut(SystemFinding),
    sums: CheckedSystem,
    has_time: bool,
    requests: BTreeSet<RequestKey>,
    by_client: BTreeMap<IpAddr, usize>,
    failed: Option<Fatal>,
}

impl Check<'_> {
    fn say(&mut self, problem: SystemProblem, place: String) {
        (self.found)(SystemFinding { problem, place });
    }

    fn row(&mut self, key: &[u8], value: &[u8]) {
        let name = format!("row s \"{}\"", key.escape_ascii());
        if key == KEY_IDENTITY {
            self.sums.has_identity = true;
            if Identity::from_stored(value).is_none() {
                self.say(SystemProblem::IdentityDamaged, name);
            }
        } else if key == KEY_TIME {
            self.has_time = true;
            if time_from(value).is_none_or(|time| time.nanos >= crate::machine::NANOS_PER_SEC) {
                self.say(SystemProblem::TimeDamaged, name);
            }
        } else if let Some(path) = key.strip_prefix(KEY_EXPORT) {
            self.export(name, path, value);
        } else if key.starts_with(reply_cache::TABLE_PREFIX) {
            self.reply(name, key, value);
        } else {
            self.say(SystemProblem::UnknownRow, name);
        }
    }

    fn export(&mut self, name: String, path: &[u8], value: &[u8]) {
        self.sums.exports += 1;
        let path = [b"/", path].concat();
        let ino = value.try_into().map(u64::from_be_bytes);
        let (Ok(ino), Ok(_)) = (ino, export::components(&path)) else {
            self.say(SystemProblem::ExportDamaged, name);
            return;
        };
        match (self.around.is_directory)(Ino(ino)) {
            Ok(Some(true)) => {}
            Ok(Some(false)) => {
                let place = format!("{name}: inode {ino}");
                self.say(SystemProblem::ExportNoDirectory, place);
            }
            Ok(None) => self.say(SystemProblem::ExportGone, format!("{name}: inode {ino}")),
            Err(error) => self.failed = Some(Fatal::from_fs("reading an export", &error)),
        }
    }

    fn reply(&mut self, name: String, key: &[u8], value: &[u8]) {
        self.sums.replies += 1;
        let value = Bytes::copy_from_slice(value);
        let (Some(index), Ok((request, reply))) =
            (reply_cache::index_of(key), reply_cache::decode(&value))
        else {
            self.say(SystemProblem::ReplyDamaged, name);
            return;
        };
        if reply.len() > REPLY_BYTES_MAX {
            let place = format!("{name}: {} bytes", reply.len());
            self.say(SystemProblem::ReplyDamaged, place);
        }
        if self.around.applied.is_none_or(|applied| index > applied) {
            let place = format!("{name}: index {index}");
            self.say(SystemProblem::ReplyAhead, place);
        }
        *self.by_client.entry(request.client).or_default() += 1;
        if !self.requests.insert(request) {
            let (client, xid) = (request.client, request.xid);
            let place = format!("{name}: index {index}, client {client}, xid {xid}");
            self.say(SystemProblem::ReplyTwice, place);
        }
    }

    /// What can be said once all rows were seen.
    fn conclude(mut self) -> CheckedSystem {
        let in_use = self.sums.exports > 0 || self.sums.replies > 0;
        if in_use && !self.sums.has_identity {
            self.say(
                SystemProblem::IdentityMissing,
                "row s \"m/identity\"".into(),
            );
        }
        if (in_use || self.sums.has_identity) && !self.has_time {
            self.say(
                SystemProblem::TimeDamaged,
                "row s \"m/time\": missing".into(),
            );
        }
        if self.sums.replies > REPLIES_MAX as u64 {
            let place = format!("rows s \"r/\": {} replies", self.sums.replies);
            self.say(SystemProblem::TooManyReplies, place);
        }
        for (client, count) in std::mem::take(&mut self.by_client) {
            if count > REPLIES_PER_CLIENT_MAX {
                let place = format!("rows s \"r/\": {count} replies to {client}");
                self.say(SystemProblem::TooManyReplies, place);
            }
        }
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::{HandleKey, VolumeId};
    use haven_fs::model::Model;

    fn reply_row(index: u64, client: u8, xid: u32, len: usize) -> (Vec<u8>, Bytes) {
        let request = RequestKey {
            client: IpAddr::from([10, 0, 0, client]),
            xid,
            checksum: 7,
        };
        let key = [reply_cache::TABLE_PREFIX, &index.to_be_bytes()].concat();
        (key, reply_cache::encode(&request, &vec![0; len]))
    }

    /// A table as the machine writes it: identity, time, the export `/data` at inode 2, two replies.
    fn sample() -> Model {
        let mut table = Model::new();
        let identity = Identity::new(VolumeId([1; 16]), HandleKey([2; 16]));
        put(&mut table, KEY_IDENTITY, Some(&identity.to_stored()));
        put(&mut table, KEY_TIME, Some(&[0; 12]));
        put(&mut table, b"m/export/data", Some(&2u64.to_be_bytes()));
        for (key, value) in [reply_row(5, 1, 1, 90), reply_row(6, 1, 2, 90)] {
            put(&mut table, &key, Some(&value));
        }
        table
    }

    fn put(table: &mut Model, key: &[u8], value: Option<&[u8]>) {
        table.system_put(key, value).expect("the model never fails");
    }

    /// Inode 2 is a directory, 3 a file, all others do not exist.
    fn check(table: &Model) -> (CheckedSystem, BTreeSet<SystemProblem>) {
        let around = Surroundings {
            is_directory: &|ino| Ok((ino.0 < 4).then_some(ino.0 == 2)),
            applied: Some(9),
        };
        let mut found = BTreeSet::new();
        let mut tell = |finding: SystemFinding| {
            assert!(finding.place.starts_with("row"), "{finding:?}");
            found.insert(finding.problem);
        };
        let sums = check_system(table, &around, &mut tell).expect("the model never fails");
        (sums, found)
    }

    #[test]
    fn what_the_machine_writes_is_clean() {
        let sums = CheckedSystem {
            has_identity: true,
            exports: 1,
            replies: 2,
        };
        assert_eq!(check(&sample()), (sums, BTreeSet::new()));
        assert_eq!(check(&Model::new()).1, BTreeSet::new(), "a new volume");
    }

    #[test]
    fn every_damage_is_recognised() {
        use SystemProblem as P;
        type Damage = fn(&mut Model);
        let cases: &[(Damage, &[SystemProblem])] = &[
            (|t| put(t, b"other", Some(b"")), &[P::UnknownRow]),
            (|t| put(t, KEY_IDENTITY, Some(b"x")), &[P::IdentityDamaged]),
            (|t| put(t, KEY_IDENTITY, None), &[P::IdentityMissing]),
            (|t| put(t, KEY_TIME, Some(b"x")), &[P::TimeDamaged]),
            (|t| put(t, KEY_TIME, Some(&[0xff; 12])), &[P::TimeDamaged]),
            (|t| put(t, KEY_TIME, None), &[P::TimeDamaged]),
            (|t| put(t, b"m/export/b", Some(b"x")), &[P::ExportDamaged]),
            (
                |t| put(t, b"m/export/../b", Some(&2u64.to_be_bytes())),
                &[P::ExportDamaged],
            ),
            (
                |t| put(t, b"m/export/b", Some(&3u64.to_be_bytes())),
                &[P::ExportNoDirectory],
            ),
            (
                |t| put(t, b"m/export/b", Some(&9u64.to_be_bytes())),
                &[P::ExportGone],
            ),
            (|t| put(t, b"r/12345678", Some(b"x")), &[P::ReplyDamaged]),
            (|t| add(t, reply_row(7, 1, 3, 1025)), &[P::ReplyDamaged]),
            (|t| add(t, reply_row(7, 1, 2, 90)), &[P::ReplyTwice]),
            (|t| add(t, reply_row(10, 1, 3, 90)), &[P::ReplyAhead]),
        ];
        let mut provoked = BTreeSet::from([P::TooManyReplies]);
        for (case, (damage, expected)) in cases.iter().enumerate() {
            let mut table = sample();
            damage(&mut table);
            let expected: BTreeSet<_> = expected.iter().copied().collect();
            assert_eq!(check(&table).1, expected, "case {case}");
            provoked.extend(expected);
        }
        let all: BTreeSet<_> = P::ALL.iter().copied().collect();
        assert_eq!(provoked, all, "kinds that no case provokes");
    }

    fn add(table: &mut Model, (key, value): (Vec<u8>, Bytes)) {
        put(table, &key, Some(&value));
    }

    #[test]
    fn more_replies_than_there_may_be_are_recognised() {
        let mut table = sample();
        for n in 0..=REPLIES_PER_CLIENT_MAX as u32 {
            let (key, value) = reply_row(u64::from(n), 9, n, 8);
            put(&mut table, &key, Some(&value));
        }
        let found = check(&table).1;
        assert!(found.contains(&SystemProblem::TooManyReplies), "{found:?}");
    }

    #[test]
    fn entries_that_cannot_be_applied_are_recognised() {
        let entry = |proc, args: &'static [u8]| {
            let entry = crate::Nfs3Entry {
                time: haven_fs::Time::default(),
                client: IpAddr::from([10, 0, 0, 1]),
                xid: 1,
                checksum: 2,
                cred: haven_fs::Cred::root(),
                proc,
                args: Bytes::from_static(args),
            };
            Entry::Nfs3(entry).encode().expect("within limits")
        };
        let time = haven_fs::Time::default();
        let noop = Entry::Noop { time }.encode().expect("within limits");
        assert_eq!(check_entry(&noop), Ok(()));
        let handle = [0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 1, b'a', 0, 0, 0];
        let remove = Proc3::Remove.to_wire();
        assert_eq!(
            check_entry(&entry(remove, Box::leak(Box::new(handle)))),
            Ok(())
        );
        assert!(check_entry(&entry(remove, b"short")).is_err());
        assert!(check_entry(&entry(99, b"")).is_err());
        assert!(check_entry(&Bytes::from_static(b"none")).is_err());
    }

    #[test]
    fn codes_tell_kinds_apart() {
        let codes: BTreeSet<_> = SystemProblem::ALL.iter().map(|p| p.code()).collect();
        assert_eq!(codes.len(), SystemProblem::ALL.len());
        assert!(SystemProblem::ALL.iter().all(|p| !p.meaning().is_empty()));
    }
}
