//! A check of the machine's rows in the system table: everything decodes, keeps its bounds, and refers
//! to what exists.
//!
//! It must not know how the table is stored.

use crate::Fatal;
use crate::entry::Entry;
use crate::exports::normal_path;
use crate::handle::ExportId;
use crate::identity::Identity;
use crate::level;
use crate::machine::{NANOS_PER_SEC, time_from};
use crate::mounts::{MOUNTS_MAX, MOUNTS_PER_CLIENT_MAX};
use crate::reply_cache::{self, REPLIES_MAX, REPLIES_PER_CLIENT_MAX, REPLY_BYTES_MAX, RequestKey};
use crate::rows::{
    ExportRow, KEY_IDENTITY, KEY_LEVEL, KEY_TIME, MountRow, PREFIX_EXPORT, PREFIX_MOUNT,
    PREFIX_REPLY,
};
use bytes::Bytes;
use haven_fs::{FsResult, Ino, Level, SystemTable};
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
    /// The feature level cannot be read, or is of a later version.
    LevelDamaged,
    /// Server time cannot be read, or is missing.
    TimeDamaged,
    /// An export's path, number or inode cannot be read.
    ExportDamaged,
    /// Two exports with the same number.
    ExportNumberTwice,
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
    /// A row of the table of mounts cannot be read.
    MountDamaged,
    /// A client's mount of the same path twice.
    MountTwice,
    /// A mount by an entry after the last one that was applied.
    MountAhead,
    /// More mounts than there may be.
    TooManyMounts,
    /// An export's directory does not exist.
    ExportGone,
}

impl SystemProblem {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::UnknownRow,
        Self::IdentityDamaged,
        Self::IdentityMissing,
        Self::LevelDamaged,
        Self::TimeDamaged,
        Self::ExportDamaged,
        Self::ExportNumberTwice,
        Self::ExportNoDirectory,
        Self::ReplyDamaged,
        Self::ReplyTwice,
        Self::ReplyAhead,
        Self::TooManyReplies,
        Self::MountDamaged,
        Self::MountTwice,
        Self::MountAhead,
        Self::TooManyMounts,
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
            Self::LevelDamaged => "level-damaged",
            Self::TimeDamaged => "time-damaged",
            Self::ExportDamaged => "export-damaged",
            Self::ExportNumberTwice => "export-number-twice",
            Self::ExportNoDirectory => "export-no-directory",
            Self::ReplyDamaged => "reply-damaged",
            Self::ReplyTwice => "reply-twice",
            Self::ReplyAhead => "reply-ahead",
            Self::TooManyReplies => "too-many-replies",
            Self::MountDamaged => "mount-damaged",
            Self::MountTwice => "mount-twice",
            Self::MountAhead => "mount-ahead",
            Self::TooManyMounts => "too-many-mounts",
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
            Self::LevelDamaged => "the node does not start: it does not know which rules hold",
            Self::TimeDamaged => "server time may run backwards",
            Self::ExportDamaged => {
                "an export's number or root is not known: the node does not start"
            }
            Self::ExportNumberTwice => {
                "a client's handle of one export would be judged by the rules of another"
            }
            Self::ExportNoDirectory => "an export's root is no directory: it cannot be mounted",
            Self::ReplyDamaged => "a retried request would be executed again",
            Self::ReplyTwice => "a request was executed twice",
            Self::ReplyAhead | Self::MountAhead => {
                "a row belongs to an entry that this state does not hold yet"
            }
            Self::MountDamaged => "the table of mounts cannot be read: the node does not start",
            Self::MountTwice => "a client's mount of a path would stay when it unmounts",
            Self::TooManyMounts => "the table of mounts is beyond its bound: replicas may differ",
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
    /// Exports that were ever made.
    pub exports: u64,
    /// Rows of the table of mounts.
    pub mounts: u64,
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
        export_ids: BTreeSet::new(),
        mounts: BTreeSet::new(),
        mounts_by_client: BTreeMap::new(),
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
    export_ids: BTreeSet<ExportId>,
    mounts: BTreeSet<(IpAddr, Bytes)>,
    mounts_by_client: BTreeMap<IpAddr, usize>,
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
            if time_from(value).is_none_or(|time| time.nanos >= NANOS_PER_SEC) {
                self.say(SystemProblem::TimeDamaged, name);
            }
        } else if key == KEY_LEVEL {
            if level::from_stored(value).is_none_or(|level| level > Level::NEWEST) {
                self.say(SystemProblem::LevelDamaged, name);
            }
        } else if key.starts_with(PREFIX_EXPORT) {
            self.export(name, key, value);
        } else if key.starts_with(PREFIX_MOUNT) {
            self.mount(name, key, value);
        } else if key.starts_with(PREFIX_REPLY) {
            self.reply(name, key, value);
        } else {
            self.say(SystemProblem::UnknownRow, name);
        }
    }

    fn export(&mut self, name: String, key: &[u8], value: &[u8]) {
        self.sums.exports += 1;
        let row = ExportRow::decode(key, value).filter(|row| is_normal(&row.path));
        // Numbers are given from 1 on.
        let Some(ExportRow { id, ino, .. }) = row.filter(|row| row.id.0 > 0) else {
            self.say(SystemProblem::ExportDamaged, name);
            return;
        };
        if !self.export_ids.insert(id) {
            let place = format!("{name}: number {}", id.0);
            self.say(SystemProblem::ExportNumberTwice, place);
        }
        match (self.around.is_directory)(ino) {
            Ok(Some(true)) => {}
            Ok(Some(false)) => {
                let place = format!("{name}: inode {}", ino.0);
                self.say(SystemProblem::ExportNoDirectory, place);
            }
            Ok(None) => {
                let place = format!("{name}: inode {}", ino.0);
                self.say(SystemProblem::ExportGone, place);
            }
            Err(error) => self.failed = Some(Fatal::from_fs("reading an export", &error)),
        }
    }

    fn mount(&mut self, name: String, key: &[u8], value: &[u8]) {
        self.sums.mounts += 1;
        let row = MountRow::decode(key, value).filter(|row| is_normal(&row.path));
        let Some(row) = row else {
            self.say(SystemProblem::MountDamaged, name);
            return;
        };
        if self.is_ahead(row.index) {
            let place = format!("{name}: index {}", row.index);
            self.say(SystemProblem::MountAhead, place);
        }
        *self.mounts_by_client.entry(row.client).or_default() += 1;
        let place = format!("{name}: client {}", row.client);
        if !self.mounts.insert((row.client, row.path)) {
            self.say(SystemProblem::MountTwice, place);
        }
    }

    /// Whether the state does not hold the entry at a log index.
    fn is_ahead(&self, index: u64) -> bool {
        self.around.applied.is_none_or(|applied| index > applied)
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
        if self.is_ahead(index) {
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
        let in_use = self.sums.exports + self.sums.mounts + self.sums.replies > 0;
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
        let replies = Table {
            problem: SystemProblem::TooManyReplies,
            rows: "rows s \"r/\"",
            by_client: std::mem::take(&mut self.by_client),
            max: REPLIES_MAX,
            per_client_max: REPLIES_PER_CLIENT_MAX,
        };
        let mounts = Table {
            problem: SystemProblem::TooManyMounts,
            rows: "rows s \"m/mount/\"",
            by_client: std::mem::take(&mut self.mounts_by_client),
            max: MOUNTS_MAX,
            per_client_max: MOUNTS_PER_CLIENT_MAX,
        };
        self.bounds(&replies);
        self.bounds(&mounts);
        self.sums
    }

    fn bounds(&mut self, table: &Table) {
        let Table { problem, rows, .. } = table;
        let count: usize = table.by_client.values().sum();
        if count > table.max {
            self.say(*problem, format!("{rows}: {count}"));
        }
        for (client, count) in &table.by_client {
            if *count > table.per_client_max {
                self.say(*problem, format!("{rows}: {count} of {client}"));
            }
        }
    }
}

/// A table that is bounded in all and per client, and how many rows it has.
struct Table {
    problem: SystemProblem,
    rows: &'static str,
    by_client: BTreeMap<IpAddr, usize>,
    max: usize,
    per_client_max: usize,
}

/// Whether a path is in its one form.
fn is_normal(path: &Bytes) -> bool {
    normal_path(path).as_ref() == Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{MountEntry, MountOp};
    use crate::handle::{HandleKey, VolumeId};
    use crate::rows::Counted;
    use haven_fs::model::Model;

    fn reply_row(index: u64, client: u8, xid: u32, len: usize) -> (Vec<u8>, Bytes) {
        let request = RequestKey {
            client: IpAddr::from([10, 0, 0, client]),
            xid,
            checksum: 7,
        };
        let key = [PREFIX_REPLY, &index.to_be_bytes()].concat();
        (key, reply_cache::encode(&request, &vec![0; len]))
    }

    fn mount_row(index: u64, client: u8, path: &str) -> (Vec<u8>, Bytes) {
        let row = MountRow {
            index,
            client: IpAddr::from([10, 0, 0, client]),
            path: Bytes::copy_from_slice(path.as_bytes()),
            counted: (index & 1 == 0).then(|| Counted::first(7)),
        };
        (MountRow::key(index), row.value())
    }

    fn export_row(path: &str, id: u16, ino: u64) -> (Vec<u8>, Bytes) {
        let row = ExportRow {
            path: Bytes::copy_from_slice(path.as_bytes()),
            id: ExportId(id),
            ino: Ino(ino),
        };
        let (key, value) = row.encode();
        (key, value.into())
    }

    /// A table as the machine writes it: identity, time, the exports `/data` at inode 2 and `/` at 1, two
    /// mounts, two replies.
    fn sample() -> Model {
        let mut table = Model::new();
        let identity = Identity::new(VolumeId([1; 16]), HandleKey([2; 16]));
        put(&mut table, KEY_IDENTITY, Some(&identity.to_stored()));
        put(&mut table, KEY_TIME, Some(&[0; 12]));
        put(&mut table, KEY_LEVEL, Some(&Level::NEWEST.0.to_be_bytes()));
        for row in [
            export_row("/data", 1, 2),
            export_row("/", 2, 1),
            mount_row(3, 1, "/data"),
            mount_row(4, 2, "/data"),
            reply_row(5, 1, 1, 90),
            reply_row(6, 1, 2, 90),
        ] {
            add(&mut table, row);
        }
        table
    }

    fn put(table: &mut Model, key: &[u8], value: Option<&[u8]>) {
        table.system_put(key, value).expect("the model never fails");
    }

    /// Inodes 1 and 2 are directories, 3 is a file, all others do not exist.
    fn check(table: &Model) -> (CheckedSystem, BTreeSet<SystemProblem>) {
        let around = Surroundings {
            is_directory: &|ino| Ok((ino.0 < 4).then_some(ino.0 < 3)),
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
            exports: 2,
            mounts: 2,
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
            (|t| put(t, KEY_LEVEL, Some(b"x")), &[P::LevelDamaged]),
            (|t| put(t, KEY_LEVEL, Some(&[0; 4])), &[P::LevelDamaged]),
            (|t| put(t, KEY_LEVEL, Some(&[9; 4])), &[P::LevelDamaged]),
            (|t| put(t, KEY_TIME, Some(b"x")), &[P::TimeDamaged]),
            (|t| put(t, KEY_TIME, Some(&[0xff; 12])), &[P::TimeDamaged]),
            (|t| put(t, KEY_TIME, None), &[P::TimeDamaged]),
            (|t| put(t, b"m/export/b", Some(b"x")), &[P::ExportDamaged]),
            (|t| add(t, export_row("/../b", 3, 2)), &[P::ExportDamaged]),
            (|t| add(t, export_row("/b//c", 3, 2)), &[P::ExportDamaged]),
            (|t| add(t, export_row("/b", 0, 2)), &[P::ExportDamaged]),
            (|t| add(t, export_row("/b", 2, 2)), &[P::ExportNumberTwice]),
            (|t| add(t, export_row("/b", 3, 3)), &[P::ExportNoDirectory]),
            (|t| add(t, export_row("/b", 3, 9)), &[P::ExportGone]),
            (|t| put(t, b"m/mount/short", Some(b"x")), &[P::MountDamaged]),
            (
                |t| put(t, b"m/mount/12345678", Some(b"x")),
                &[P::MountDamaged],
            ),
            (|t| add(t, mount_row(7, 1, "/a/")), &[P::MountDamaged]),
            (|t| add(t, mount_row(7, 1, "/data")), &[P::MountTwice]),
            (|t| add(t, mount_row(10, 1, "/data/a")), &[P::MountAhead]),
            (|t| put(t, b"r/12345678", Some(b"x")), &[P::ReplyDamaged]),
            (|t| add(t, reply_row(7, 1, 3, 1025)), &[P::ReplyDamaged]),
            (|t| add(t, reply_row(7, 1, 2, 90)), &[P::ReplyTwice]),
            (|t| add(t, reply_row(10, 1, 3, 90)), &[P::ReplyAhead]),
        ];
        let mut provoked = BTreeSet::from([P::TooManyReplies, P::TooManyMounts]);
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
    fn more_mounts_than_there_may_be_are_recognised() {
        let fill = |count: usize, client: fn(usize) -> u8| {
            let mut table = sample();
            for n in 0..count {
                let row = mount_row(100 + n as u64, client(n), &format!("/d{n}"));
                add(&mut table, row);
            }
            check(&table).1.contains(&SystemProblem::TooManyMounts)
        };
        assert!(!fill(MOUNTS_PER_CLIENT_MAX, |_| 9));
        assert!(fill(MOUNTS_PER_CLIENT_MAX + 1, |_| 9));
        assert!(!fill(MOUNTS_MAX - 2, |n| (n % 250) as u8 + 3));
        assert!(fill(MOUNTS_MAX - 1, |n| (n % 250) as u8 + 3));
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
        let mount = Entry::Mount(MountEntry {
            time,
            client: IpAddr::from([10, 0, 0, 1]),
            xid: 1,
            op: MountOp::Umntall,
        });
        assert_eq!(check_entry(&mount.encode().expect("within limits")), Ok(()));
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
