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
use crate::machine::{NANOS_PER_SEC, served_from, time_from};
use crate::mounts::{MOUNTS_MAX, MOUNTS_PER_CLIENT_MAX};
use crate::over::{ChangeId, ConnectionId};
use crate::reply_cache::{REPLIES_MAX, REPLY_BYTES_MAX};
use crate::rows::{
    ExportRow, KEY_IDENTITY, KEY_LEVEL, KEY_SERVED, KEY_TIME, MountRow, PREFIX_EXPORT, PREFIX_GONE,
    PREFIX_MOUNT, PREFIX_REPLY, ReplyRow, gone_connection,
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
    /// Server time, or the time that was served, cannot be read or is missing.
    TimeDamaged,
    /// An export's path, number or inode cannot be read.
    ExportDamaged,
    /// Two exports with the same number.
    ExportNumberTwice,
    /// An export's inode is no directory.
    ExportNoDirectory,
    /// A cached reply cannot be read, or is too long.
    ReplyDamaged,
    /// Two cached replies to the same request, which came over one connection once.
    ReplyTwice,
    /// A reply to an entry after the last one that was applied.
    ReplyAhead,
    /// More replies than there may be.
    TooManyReplies,
    /// A note that a connection is gone cannot be read, or no reply came over it.
    ConnectionDamaged,
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
        Self::ConnectionDamaged,
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
            Self::ConnectionDamaged => "connection-damaged",
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
            Self::TimeDamaged => {
                "server time may run backwards, or cached replies be kept too long"
            }
            Self::ExportDamaged => {
                "an export's number or root is not known: the node does not start"
            }
            Self::ExportNumberTwice => {
                "a client's handle of one export would be judged by the rules of another"
            }
            Self::ExportNoDirectory => "an export's root is no directory: it cannot be mounted",
            Self::ReplyDamaged | Self::ConnectionDamaged => {
                "a retried request would be executed again"
            }
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
        changes: BTreeSet::new(),
        gone: BTreeSet::new(),
        served_ns: None,
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
    /// Of replies to entries of version 1: address, transaction id, checksum.
    requests: BTreeSet<(IpAddr, u32, u64)>,
    /// Of all other replies.
    changes: BTreeSet<ChangeId>,
    gone: BTreeSet<ConnectionId>,
    served_ns: Option<u64>,
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
        } else if key == KEY_SERVED {
            self.served_ns = served_from(value);
            if self.served_ns.is_none() {
                self.say(SystemProblem::TimeDamaged, name);
            }
        } else if key.starts_with(PREFIX_GONE) {
            match gone_connection(key).filter(|_| value.is_empty()) {
                Some(connection) => drop(self.gone.insert(connection)),
                None => self.say(SystemProblem::ConnectionDamaged, name),
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
        let (Some(index), Some(row)) = (ReplyRow::index(key), ReplyRow::decode(value)) else {
            self.say(SystemProblem::ReplyDamaged, name);
            return;
        };
        if row.reply.len() > REPLY_BYTES_MAX {
            let place = format!("{name}: {} bytes", row.reply.len());
            self.say(SystemProblem::ReplyDamaged, place);
        }
        // In the table's order, the time that was served comes before all replies.
        let served_ns = row.over.map_or(0, |over| over.served_ns);
        if self.is_ahead(index) || served_ns > self.served_ns.unwrap_or(0) {
            let place = format!("{name}: index {index}, served {served_ns} ns");
            self.say(SystemProblem::ReplyAhead, place);
        }
        let ReplyRow {
            client,
            xid,
            checksum,
            ..
        } = row;
        let is_new = match row.over {
            None => self.requests.insert((client, xid, checksum)),
            Some(over) => self.changes.insert(over.id),
        };
        if !is_new {
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
        if self.sums.replies > REPLIES_MAX as u64 {
            let place = format!("rows s \"r/\": {}", self.sums.replies);
            self.say(SystemProblem::TooManyReplies, place);
        }
        let used: BTreeSet<_> = self.changes.iter().map(|id| id.connection).collect();
        for connection in std::mem::take(&mut self.gone).difference(&used) {
            let ConnectionId { term, number } = connection;
            let place = format!("row s \"g/\" of connection {number} in term {term}: no reply");
            self.say(SystemProblem::ConnectionDamaged, place);
        }
        self.bound_mounts();
        self.sums
    }

    fn bound_mounts(&mut self) {
        let (problem, rows) = (SystemProblem::TooManyMounts, "rows s \"m/mount/\"");
        if self.sums.mounts > MOUNTS_MAX as u64 {
            self.say(problem, format!("{rows}: {}", self.sums.mounts));
        }
        for (client, count) in std::mem::take(&mut self.mounts_by_client) {
            if count > MOUNTS_PER_CLIENT_MAX {
                self.say(problem, format!("{rows}: {count} of {client}"));
            }
        }
    }
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
    use crate::rows::{Counted, ReplyOver, gone_key};
    use haven_fs::model::Model;

    /// Of an entry of version 1.
    fn old_reply_row(index: u64, client: u8, xid: u32, len: usize) -> (Vec<u8>, Bytes) {
        let row = ReplyRow {
            client: IpAddr::from([10, 0, 0, client]),
            xid,
            checksum: 7,
            over: None,
            reply: vec![0; len].into(),
        };
        (ReplyRow::key(index), row.value())
    }

    /// Of the connection with that number.
    fn reply_row(index: u64, number: u64, seq: u64, served_ns: u64) -> (Vec<u8>, Bytes) {
        let connection = ConnectionId { term: 2, number };
        let over = ReplyOver {
            caller: 1,
            id: ChangeId { connection, seq },
            port: 700,
            served_ns,
        };
        let row = ReplyRow {
            client: IpAddr::from([10, 0, 0, 1]),
            xid: 1,
            checksum: 7,
            over: Some(over),
            reply: vec![0; 90].into(),
        };
        (ReplyRow::key(index), row.value())
    }

    fn gone_row(number: u64) -> (Vec<u8>, Bytes) {
        let connection = ConnectionId { term: 2, number };
        (gone_key(connection), Bytes::new())
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

    /// A table as the machine writes it: identity, times, the exports `/data` at inode 2 and `/` at 1, two
    /// mounts, four replies, of which two came over connections, and one of those is gone.
    fn sample() -> Model {
        let mut table = Model::new();
        let identity = Identity::new(VolumeId([1; 16]), HandleKey([2; 16]));
        put(&mut table, KEY_IDENTITY, Some(&identity.to_stored()));
        put(&mut table, KEY_TIME, Some(&[0; 12]));
        put(&mut table, KEY_LEVEL, Some(&Level::NEWEST.0.to_be_bytes()));
        put(&mut table, KEY_SERVED, Some(&20_u64.to_be_bytes()));
        for row in [
            export_row("/data", 1, 2),
            export_row("/", 2, 1),
            mount_row(3, 1, "/data"),
            mount_row(4, 2, "/data"),
            old_reply_row(5, 1, 1, 90),
            old_reply_row(6, 1, 2, 90),
            reply_row(7, 1, 1, 15),
            reply_row(8, 2, 1, 20),
            gone_row(2),
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
            replies: 4,
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
            (
                |t| put(t, KEY_SERVED, Some(&[0xff; 9])),
                &[P::TimeDamaged, P::ReplyAhead],
            ),
            (|t| put(t, KEY_SERVED, None), &[P::ReplyAhead]),
            (|t| put(t, b"r/12345678", Some(b"x")), &[P::ReplyDamaged]),
            (|t| add(t, old_reply_row(9, 1, 3, 1025)), &[P::ReplyDamaged]),
            (|t| add(t, old_reply_row(9, 1, 2, 90)), &[P::ReplyTwice]),
            (|t| add(t, reply_row(9, 1, 1, 20)), &[P::ReplyTwice]),
            (|t| add(t, old_reply_row(10, 1, 3, 90)), &[P::ReplyAhead]),
            (|t| add(t, reply_row(9, 1, 2, 21)), &[P::ReplyAhead]),
            (|t| add(t, gone_row(3)), &[P::ConnectionDamaged]),
            (|t| put(t, b"g/x", Some(b"")), &[P::ConnectionDamaged]),
            (
                |t| put(t, &gone_row(1).0, Some(b"x")),
                &[P::ConnectionDamaged],
            ),
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
        for n in 0..=REPLIES_MAX as u32 {
            add(
                &mut table,
                old_reply_row(u64::from(n), (n % 250) as u8, n, 8),
            );
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
                asked: None,
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
