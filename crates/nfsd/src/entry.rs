//! Log entries: how requests that change something are written into the replicated log.
//!
//! Layout: version (1 byte), kind (1 byte), leader's time (seconds i64, nanoseconds u32), then the
//! kind's fields in the order of their declaration. Integers are little-endian; lengths precede what
//! they count. The arguments of an NFS request come last and stay in their XDR form.
//!
//! The version is that of the kind's layout. Those of NFS requests have version 2 since they say over which connection
//! they came; version 1, without that, is read and has its own meaning for ever, because logs hold such entries and
//! replicas may apply what others applied long ago. News have version 2, all other kinds version 1.
//!
//! Invariants
//! - Every length is checked against a named limit and against what is really there.
//! - Decoding copies no arguments, encoding copies them once.
//! - A version that is not known is an error of its own: a newer leader must not be misunderstood.
//! - An entry has one form: what was decoded encodes to the same bytes.
//!
//! It must not know what the requests mean.

use crate::handle::ExportId;
use crate::over::{Asked, News, decode_news, encode_news};
use bytes::{BufMut, Bytes, BytesMut};
use haven_fs::{Cred, Level, Time};
use haven_proto::nfs3::{ARGS_OVERHEAD_BYTES_MAX, DATA_BYTES_MAX};
use std::net::IpAddr;

/// Without connections.
const VERSION_1: u8 = 1;
/// With connections.
const VERSION_2: u8 = 2;
/// Longest export path.
pub const PATH_BYTES_MAX: usize = 1024;
/// Most supplementary groups of a caller.
pub const GROUPS_MAX: usize = 64;
/// Longest arguments.
pub const ARGS_BYTES_MAX: usize = DATA_BYTES_MAX + ARGS_OVERHEAD_BYTES_MAX;

const NANOS_PER_SEC: u32 = 1_000_000_000;
/// More than all fixed fields together.
const FIXED_BYTES: usize = 160;
/// More than one of the news.
const NEWS_BYTES: usize = 40;

const KIND_GENESIS: u8 = 1;
const KIND_EXPORT: u8 = 2;
const KIND_NFS3: u8 = 3;
const KIND_NOOP: u8 = 4;
const KIND_MOUNT: u8 = 5;
const KIND_LEVEL: u8 = 7;
const KIND_NEWS: u8 = 6;

const OP_MNT: u8 = 1;
/// MNT by [`MntRules::Second`].
const OP_MNT_2: u8 = 2;
const OP_UMNT: u8 = 3;
const OP_UMNTALL: u8 = 4;

/// A log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Gives the volume its identity. Later ones change nothing.
    Genesis {
        /// The volume's id.
        volume_id: [u8; 16],
        /// The secret behind its file handles.
        handle_key: [u8; 16],
        /// Leader's time.
        time: Time,
    },
    /// Makes sure that an exported directory exists. An existing one is left as it is.
    Export {
        /// Its path in the volume.
        path: Bytes,
        /// Owner, if it is made.
        uid: u32,
        /// Group, if it is made.
        gid: u32,
        /// Permission bits, if it is made.
        mode: u32,
        /// Leader's time.
        time: Time,
    },
    /// An NFSv3 request.
    Nfs3(Nfs3Entry),
    /// A MOUNT request that changes the table of mounts.
    Mount(MountEntry),
    /// Nothing but the time.
    Noop {
        /// Leader's time.
        time: Time,
    },
    /// From here on changes follow the rules of a level. One that is not above the present one changes nothing.
    Level {
        /// The level.
        level: Level,
        /// Leader's time.
        time: Time,
    },
    /// Nothing but what became of connections.
    News {
        /// Leader's time.
        time: Time,
        /// What became of them.
        news: Vec<News>,
    },
}

/// A mutating NFSv3 request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nfs3Entry {
    /// Leader's time.
    pub time: Time,
    /// The client's address.
    pub client: IpAddr,
    /// The client's transaction id.
    pub xid: u32,
    /// [`request_checksum`] of the request.
    pub checksum: u64,
    /// Who asked, over which connection; `None` in version 1.
    pub asked: Option<Asked>,
    /// The caller, squashed.
    pub cred: Cred,
    /// Procedure number.
    pub proc: u32,
    /// Its arguments in XDR.
    pub args: Bytes,
}

/// A MOUNT request that changes the table of mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Leader's time.
    pub time: Time,
    /// The client's address.
    pub client: IpAddr,
    /// The client's transaction id.
    pub xid: u32,
    /// What is asked.
    pub op: MountOp,
}

/// By which rules an entry of MNT is executed. Logs hold entries of earlier versions of Haven, and replicas may apply
/// what others applied long ago: an entry means the same for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MntRules {
    /// Only directories are mounted, and no symbolic link is followed. A path that is mounted again is mounted once.
    First,
    /// Regular files, too, and through symbolic links within the export. A path is mounted as often as it was asked for.
    Second,
}

/// What a MOUNT request wants of the table of mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountOp {
    /// MNT.
    Mnt {
        /// What it may mount, and what that does to the table.
        rules: MntRules,
        /// Version of the protocol: 1 or 3.
        version: u32,
        /// The export that lets the client in.
        export: ExportId,
        /// What to mount.
        path: Bytes,
    },
    /// UMNT.
    Umnt {
        /// What was mounted.
        path: Bytes,
    },
    /// UMNTALL.
    Umntall,
}

/// Bytes that are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Written by another version of Haven.
    #[error(
        "log entry has format version {0}, only {VERSION_1} and {VERSION_2} are known, each for its kinds of entries: \
         upgrade this node"
    )]
    Version(u8),
    /// Not a kind of entry.
    #[error("log entry of unknown kind {0}: upgrade this node")]
    Kind(u8),
    /// It ends inside a field.
    #[error("log entry is cut short")]
    Truncated,
    /// Something follows the last field.
    #[error("log entry is followed by {0} bytes")]
    Trailing(usize),
    /// A field has a value that it cannot have.
    #[error("log entry has a bad {0}")]
    Field(&'static str),
}

/// What tells a request from another with the same transaction id.
pub fn request_checksum(proc: u32, args: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(args, u64::from(proc))
}

impl Entry {
    /// Leader's time.
    pub fn time(&self) -> Time {
        match self {
            Self::Genesis { time, .. }
            | Self::Export { time, .. }
            | Self::Noop { time }
            | Self::Level { time, .. }
            | Self::News { time, .. } => *time,
            Self::Nfs3(entry) => entry.time,
            Self::Mount(entry) => entry.time,
        }
    }

    /// The entry's bytes.
    ///
    /// # Errors
    /// [`EntryError::Field`] if a field is beyond its limit: such an entry could not be read back.
    pub fn encode(&self) -> Result<Bytes, EntryError> {
        let payload = match self {
            Self::Nfs3(entry) => {
                let news = entry.asked.as_ref().map_or(0, |asked| asked.news.len());
                entry.args.len() + news * NEWS_BYTES
            }
            Self::News { news, .. } => news.len() * NEWS_BYTES,
            // Paths are short, and fit.
            _ => PATH_BYTES_MAX,
        };
        let mut out = BytesMut::with_capacity(FIXED_BYTES + 4 * GROUPS_MAX + payload);
        out.put_u8(self.version());
        out.put_u8(match self {
            Self::Genesis { .. } => KIND_GENESIS,
            Self::Export { .. } => KIND_EXPORT,
            Self::Nfs3(_) => KIND_NFS3,
            Self::Mount(_) => KIND_MOUNT,
            Self::Noop { .. } => KIND_NOOP,
            Self::Level { .. } => KIND_LEVEL,
            Self::News { .. } => KIND_NEWS,
        });
        out.put_i64_le(self.time().secs);
        out.put_u32_le(checked_nanos(self.time().nanos)?);
        match self {
            Self::Genesis {
                volume_id,
                handle_key,
                ..
            } => {
                out.put_slice(volume_id);
                out.put_slice(handle_key);
            }
            Self::Export {
                path,
                uid,
                gid,
                mode,
                ..
            } => {
                put_bytes(&mut out, path, PATH_BYTES_MAX, "path")?;
                out.put_u32_le(*uid);
                out.put_u32_le(*gid);
                out.put_u32_le(*mode);
            }
            Self::Nfs3(entry) => entry.encode(&mut out)?,
            Self::Mount(entry) => entry.encode(&mut out)?,
            Self::Noop { .. } => {}
            Self::Level { level, .. } => out.put_u32_le(level.0),
            Self::News { news, .. } => encode_news(news, &mut out)?,
        }
        Ok(out.freeze())
    }

    const fn version(&self) -> u8 {
        match self {
            Self::Nfs3(Nfs3Entry { asked: Some(_), .. }) | Self::News { .. } => VERSION_2,
            _ => VERSION_1,
        }
    }

    /// Reads an entry that must fill `bytes` exactly. Arguments and path are slices of it.
    pub fn decode(bytes: &Bytes) -> Result<Self, EntryError> {
        let mut r = Cursor { bytes, pos: 0 };
        let (version, kind) = (r.u8()?, r.u8()?);
        let known: &[u8] = match kind {
            KIND_GENESIS | KIND_EXPORT | KIND_NOOP | KIND_MOUNT | KIND_LEVEL => &[VERSION_1],
            KIND_NEWS => &[VERSION_2],
            // Of NFS requests, and of what is no kind.
            _ => &[VERSION_1, VERSION_2],
        };
        if !known.contains(&version) {
            return Err(EntryError::Version(version));
        }
        let time = Time {
            secs: r.i64()?,
            nanos: checked_nanos(r.u32()?)?,
        };
        let entry = match kind {
            KIND_GENESIS => Self::Genesis {
                volume_id: r.array()?,
                handle_key: r.array()?,
                time,
            },
            KIND_EXPORT => Self::Export {
                path: r.bytes(PATH_BYTES_MAX, "path")?,
                uid: r.u32()?,
                gid: r.u32()?,
                mode: r.u32()?,
                time,
            },
            KIND_NFS3 => Self::Nfs3(Nfs3Entry::decode(&mut r, time, version)?),
            KIND_MOUNT => Self::Mount(MountEntry::decode(&mut r, time)?),
            KIND_NOOP => Self::Noop { time },
            KIND_LEVEL => Self::Level {
                level: Level(r.u32()?),
                time,
            },
            KIND_NEWS => Self::News {
                time,
                news: decode_news(&mut r)?,
            },
            other => return Err(EntryError::Kind(other)),
        };
        match bytes.len() - r.pos {
            0 => Ok(entry),
            left => Err(EntryError::Trailing(left)),
        }
    }
}

impl Nfs3Entry {
    fn encode(&self, out: &mut BytesMut) -> Result<(), EntryError> {
        put_ip(out, self.client);
        out.put_u32_le(self.xid);
        out.put_u64_le(self.checksum);
        if let Some(asked) = &self.asked {
            asked.encode(out)?;
        }
        out.put_u32_le(self.cred.uid);
        out.put_u32_le(self.cred.gid);
        let groups = u32::try_from(self.cred.groups.len()).unwrap_or(u32::MAX);
        if self.cred.groups.len() > GROUPS_MAX {
            return Err(EntryError::Field("group count"));
        }
        out.put_u32_le(groups);
        for &gid in &self.cred.groups {
            out.put_u32_le(gid);
        }
        out.put_u32_le(self.proc);
        put_bytes(out, &self.args, ARGS_BYTES_MAX, "argument length")
    }

    fn decode(r: &mut Cursor<'_>, time: Time, version: u8) -> Result<Self, EntryError> {
        let client = r.ip()?;
        let (xid, checksum) = (r.u32()?, r.u64()?);
        let asked = (version == VERSION_2).then(|| Asked::decode(r));
        let asked = asked.transpose()?;
        let (uid, gid) = (r.u32()?, r.u32()?);
        let count = r.count(GROUPS_MAX, "group count")?;
        let groups = (0..count).map(|_| r.u32()).collect::<Result<_, _>>()?;
        Ok(Self {
            time,
            client,
            xid,
            checksum,
            asked,
            cred: Cred { uid, gid, groups },
            proc: r.u32()?,
            args: r.bytes(ARGS_BYTES_MAX, "argument length")?,
        })
    }
}

impl MountEntry {
    fn encode(&self, out: &mut BytesMut) -> Result<(), EntryError> {
        put_ip(out, self.client);
        out.put_u32_le(self.xid);
        match &self.op {
            MountOp::Mnt {
                rules,
                version,
                export,
                path,
            } => {
                out.put_u8(match rules {
                    MntRules::First => OP_MNT,
                    MntRules::Second => OP_MNT_2,
                });
                out.put_u32_le(*version);
                out.put_u16_le(export.0);
                put_bytes(out, path, PATH_BYTES_MAX, "path")
            }
            MountOp::Umnt { path } => {
                out.put_u8(OP_UMNT);
                put_bytes(out, path, PATH_BYTES_MAX, "path")
            }
            MountOp::Umntall => {
                out.put_u8(OP_UMNTALL);
                Ok(())
            }
        }
    }

    fn decode(r: &mut Cursor<'_>, time: Time) -> Result<Self, EntryError> {
        let (client, xid) = (r.ip()?, r.u32()?);
        let op = match r.u8()? {
            op @ (OP_MNT | OP_MNT_2) => MountOp::Mnt {
                rules: if op == OP_MNT {
                    MntRules::First
                } else {
                    MntRules::Second
                },
                version: r.u32()?,
                export: ExportId(r.u16()?),
                path: r.bytes(PATH_BYTES_MAX, "path")?,
            },
            OP_UMNT => MountOp::Umnt {
                path: r.bytes(PATH_BYTES_MAX, "path")?,
            },
            OP_UMNTALL => MountOp::Umntall,
            _ => return Err(EntryError::Field("MOUNT operation")),
        };
        Ok(Self {
            time,
            client,
            xid,
            op,
        })
    }
}

fn checked_nanos(nanos: u32) -> Result<u32, EntryError> {
    if nanos < NANOS_PER_SEC {
        Ok(nanos)
    } else {
        Err(EntryError::Field("time"))
    }
}

fn put_bytes(
    out: &mut BytesMut,
    bytes: &[u8],
    max: usize,
    what: &'static str,
) -> Result<(), EntryError> {
    let len = u32::try_from(bytes.len()).map_err(|_| EntryError::Field(what))?;
    if bytes.len() > max {
        return Err(EntryError::Field(what));
    }
    out.put_u32_le(len);
    out.put_slice(bytes);
    Ok(())
}

/// Appends an address: 4 or 6, then its bytes.
pub(crate) fn put_ip(out: &mut impl BufMut, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
}

/// Reads what was put. `pos` never exceeds the length.
pub(crate) struct Cursor<'a> {
    bytes: &'a Bytes,
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, pos: 0 }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let rest = self.bytes.get(self.pos..).unwrap_or_default();
        let array = rest.first_chunk().ok_or(EntryError::Truncated)?;
        self.pos += N;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, EntryError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, EntryError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, EntryError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, EntryError> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, EntryError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn count(&mut self, max: usize, what: &'static str) -> Result<usize, EntryError> {
        let count = usize::try_from(self.u32()?).map_err(|_| EntryError::Field(what))?;
        if count > max {
            Err(EntryError::Field(what))
        } else {
            Ok(count)
        }
    }

    fn bytes(&mut self, max: usize, what: &'static str) -> Result<Bytes, EntryError> {
        let len = self.count(max, what)?;
        let end = self.pos.saturating_add(len);
        if end > self.bytes.len() {
            return Err(EntryError::Truncated);
        }
        let slice = self.bytes.slice(self.pos..end);
        self.pos = end;
        Ok(slice)
    }

    pub(crate) fn ip(&mut self) -> Result<IpAddr, EntryError> {
        match self.u8()? {
            4 => self.array::<4>().map(IpAddr::from),
            6 => self.array::<16>().map(IpAddr::from),
            _ => Err(EntryError::Field("address family")),
        }
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.pos..);
        self.pos = self.bytes.len();
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::over::{ChangeId, ConnectionId, NEWS_MAX};
    use proptest::prelude::*;

    const TIME: Time = Time {
        secs: -3,
        nanos: 999_999_999,
    };

    fn nfs3(args: Bytes) -> Entry {
        Entry::Nfs3(Nfs3Entry {
            time: TIME,
            client: IpAddr::from([10, 0, 0, 1]),
            xid: 0xdead_beef,
            checksum: 77,
            asked: Some(asked()),
            cred: Cred {
                uid: 1,
                gid: 2,
                groups: vec![3, 4],
            },
            proc: 7,
            args,
        })
    }

    fn asked() -> Asked {
        let connection = |number| ConnectionId { term: 3, number };
        Asked {
            caller: 78,
            id: ChangeId {
                connection: connection(9),
                seq: 11,
            },
            port: 700,
            news: vec![
                News::Arrived {
                    connection: connection(8),
                    first: 5,
                    last: 6,
                },
                News::Gone {
                    connection: connection(7),
                },
            ],
        }
    }

    /// As nodes wrote it before connections were told.
    fn version_1(args: Bytes) -> Entry {
        match nfs3(args) {
            Entry::Nfs3(entry) => Entry::Nfs3(Nfs3Entry {
                asked: None,
                ..entry
            }),
            other => other,
        }
    }

    fn samples() -> Vec<Entry> {
        let mut v6 = nfs3(Bytes::new());
        if let Entry::Nfs3(entry) = &mut v6 {
            entry.client = IpAddr::from([1u16, 2, 3, 4, 5, 6, 7, 8]);
            entry.cred.groups = (0..64).collect();
        }
        vec![
            Entry::Genesis {
                volume_id: [1; 16],
                handle_key: [2; 16],
                time: TIME,
            },
            Entry::Export {
                path: Bytes::from_static(b"/data"),
                uid: 5,
                gid: 6,
                mode: 0o755,
                time: TIME,
            },
            nfs3(Bytes::from_static(b"arguments")),
            v6,
            Entry::Noop { time: TIME },
            Entry::Level {
                level: Level(9),
                time: TIME,
            },
            version_1(Bytes::from_static(b"arguments")),
            Entry::News {
                time: TIME,
                news: asked().news,
            },
            Entry::News {
                time: TIME,
                news: Vec::new(),
            },
            mount(MountOp::Mnt {
                rules: MntRules::First,
                version: 3,
                export: ExportId(700),
                path: Bytes::from_static(b"/data"),
            }),
            mount(MountOp::Mnt {
                rules: MntRules::Second,
                version: 1,
                export: ExportId(700),
                path: Bytes::from_static(b"/data/file"),
            }),
            mount(MountOp::Umnt {
                path: Bytes::from_static(b"/data"),
            }),
            mount(MountOp::Umntall),
        ]
    }

    fn mount(op: MountOp) -> Entry {
        Entry::Mount(MountEntry {
            time: TIME,
            client: IpAddr::from([10, 0, 0, 1]),
            xid: 7,
            op,
        })
    }

    #[test]
    fn round_trip_and_every_cut() {
        for entry in samples() {
            let bytes = entry.encode().expect("within limits");
            assert_eq!(Entry::decode(&bytes), Ok(entry));
            for len in 0..bytes.len() {
                assert_eq!(
                    Entry::decode(&bytes.slice(..len)),
                    Err(EntryError::Truncated)
                );
            }
            let mut longer = BytesMut::from(&bytes[..]);
            longer.put_u8(0);
            assert_eq!(
                Entry::decode(&longer.freeze()),
                Err(EntryError::Trailing(1))
            );
        }
    }

    #[test]
    fn arguments_are_slices_of_the_entry() {
        let bytes = nfs3(Bytes::from(vec![9; 1 << 20]))
            .encode()
            .expect("within limits");
        let Ok(Entry::Nfs3(entry)) = Entry::decode(&bytes) else {
            panic!("an NFS entry")
        };
        assert!(bytes.as_ptr_range().contains(&entry.args.as_ptr()));
    }

    #[test]
    fn limits_hold_in_both_directions() {
        let long = nfs3(Bytes::from(vec![0; ARGS_BYTES_MAX + 1]));
        assert_eq!(long.encode(), Err(EntryError::Field("argument length")));
        let bad_time = Entry::Noop {
            time: Time {
                secs: 0,
                nanos: 1_000_000_000,
            },
        };
        assert_eq!(bad_time.encode(), Err(EntryError::Field("time")));
        let mut bytes = BytesMut::from(&samples()[1].encode().expect("within limits")[..]);
        bytes[14..18].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(
            Entry::decode(&bytes.freeze()),
            Err(EntryError::Field("path"))
        );
    }

    #[test]
    fn other_versions_and_kinds_are_named() {
        let patched = |entry: &Entry, at: usize, value: u8| {
            let mut bytes = BytesMut::from(&entry.encode().expect("within limits")[..]);
            bytes[at] = value;
            Entry::decode(&bytes.freeze())
        };
        let noop = Entry::Noop { time: TIME };
        assert_eq!(patched(&noop, 0, 2), Err(EntryError::Version(2)));
        let (level, time) = (Level(9), TIME);
        let level = Entry::Level { level, time };
        assert_eq!(patched(&level, 0, 2), Err(EntryError::Version(2)));
        assert_eq!(patched(&noop, 1, 99), Err(EntryError::Kind(99)));
        for entry in samples() {
            assert_eq!(patched(&entry, 0, 3), Err(EntryError::Version(3)));
        }
        let news = Entry::News {
            time: TIME,
            news: Vec::new(),
        };
        assert_eq!(patched(&news, 0, 1), Err(EntryError::Version(1)));
    }

    /// Bytes that a node of before wrote: logs are full of them.
    #[test]
    fn version_1_is_read_and_written_as_it_was() {
        let bytes = b"\x01\x03\xfd\xff\xff\xff\xff\xff\xff\xff\xff\xc9\x9a\x3b\x04\x0a\0\0\x01\xef\xbe\xad\xde\
            \x4d\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x07\0\0\0\
            \x04\0\0\0args";
        let entry = version_1(Bytes::from_static(b"args"));
        assert_eq!(entry.encode().as_deref(), Ok(&bytes[..]));
        assert_eq!(Entry::decode(&Bytes::from_static(bytes)), Ok(entry));
    }

    #[test]
    fn news_are_bounded_and_ranges_not_backwards() {
        let gone = News::Gone {
            connection: ConnectionId::default(),
        };
        let of = |news| Entry::News { time: TIME, news };
        assert!(of(vec![gone; NEWS_MAX]).encode().is_ok());
        let many = of(vec![gone; NEWS_MAX + 1]).encode();
        assert_eq!(many, Err(EntryError::Field("number of news")));
        let backwards = of(vec![News::Arrived {
            connection: ConnectionId::default(),
            first: 2,
            last: 1,
        }]);
        let error = Err(EntryError::Field("range of news"));
        assert_eq!(backwards.encode(), error);
    }

    #[test]
    fn checksum_depends_on_procedure_and_arguments() {
        let sum = request_checksum(7, b"args");
        assert_ne!(sum, request_checksum(8, b"args"));
        assert_ne!(sum, request_checksum(7, b"argt"));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            version in 1u8..3,
            kind in 0u8..8,
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = vec![version, kind];
            bytes.extend_from_slice(&[0; 12]);
            bytes.extend_from_slice(&rest);
            if let Ok(entry) = Entry::decode(&Bytes::from(bytes.clone())) {
                // One form only: replicas compare entries by their bytes.
                prop_assert_eq!(&entry.encode().expect("was decoded")[..], &bytes[..]);
            }
            let _ = Entry::decode(&Bytes::from(rest));
        }
    }
}
