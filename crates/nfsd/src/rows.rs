//! The rows of the system table: everything the machine keeps beside files.
//!
//! | key | value |
//! |---|---|
//! | `m/identity` | volume id (16 bytes), handle key (16 bytes) |
//! | `m/level` | feature level (u32); absent: none was ever set |
//! | `m/time` | server time of the last entry: seconds (i64), nanoseconds (u32) |
//! | `m/served` | for how long changes were served, in nanoseconds (u64); missing before the first entry of version 2 |
//! | `m/export/` path | [`ExportRow`]: number (u16), inode number (u64) |
//! | `m/mount/` log index (u64) | [`MountRow`]: if it was counted, a byte 2 and [`Counted`]: how often (u32 LE), last procedure (u8), its transaction id (u32 LE); client's address, path |
//! | `r/` log index (u64) | [`ReplyRow`]: a cached reply; the index is of the entry that it answered last |
//! | `g/` term (u64), number (u64) | empty: of a connection that is gone, and over which cached replies came |
//!
//! Integers are big-endian where nothing else is said, so that the table's order is theirs. A path has
//! its one form without the first slash (`a/b`). An address is a byte 4 or 6 and then 4 or 16 bytes.
//!
//! Invariant: what is not written here is not in the table. It must not know what rows are for.

use crate::entry::{Cursor, EntryError, PATH_BYTES_MAX, put_ip};
use crate::handle::ExportId;
use crate::over::{ChangeId, ConnectionId};
use bytes::{BufMut, Bytes, BytesMut};
use haven_fs::Ino;
use std::net::IpAddr;

/// Key of the volume's identity.
pub const KEY_IDENTITY: &[u8] = b"m/identity";
/// Key of the feature level.
pub const KEY_LEVEL: &[u8] = b"m/level";
/// Key of server time.
pub const KEY_TIME: &[u8] = b"m/time";
/// Key of the time that was served.
pub const KEY_SERVED: &[u8] = b"m/served";
/// What keys of exports begin with.
pub const PREFIX_EXPORT: &[u8] = b"m/export/";
/// What keys of the table of mounts begin with.
pub const PREFIX_MOUNT: &[u8] = b"m/mount/";
/// What keys of cached replies begin with.
pub const PREFIX_REPLY: &[u8] = b"r/";
/// What keys of connections that are gone begin with.
pub const PREFIX_GONE: &[u8] = b"g/";

/// First byte of a reply to a change of which the connection is known. Without that, the value begins with the address,
/// whose first byte is another.
const REPLY_VERSION_2: u8 = 2;

/// An export that was ever made. Such rows stay for ever, and with them the export's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRow {
    /// Its path, as `/a/b`.
    pub path: Bytes,
    /// Its number.
    pub id: ExportId,
    /// Its directory when it was made (again) last.
    pub ino: Ino,
}

impl ExportRow {
    /// Key and value.
    pub fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let path = self.path.strip_prefix(b"/").unwrap_or_default();
        let value = [&self.id.0.to_be_bytes()[..], &self.ino.0.to_be_bytes()].concat();
        ([PREFIX_EXPORT, path].concat(), value)
    }

    /// From key and value; `None` if they are not of an export.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let path = key.strip_prefix(PREFIX_EXPORT)?;
        let (id, ino) = value.split_first_chunk()?;
        Some(Self {
            path: [b"/", path].concat().into(),
            id: ExportId(u16::from_be_bytes(*id)),
            ino: Ino(u64::from_be_bytes(ino.try_into().ok()?)),
        })
    }
}

/// First byte of a mount that was counted. Without that, the value begins with the address, whose first byte is another.
const MOUNT_COUNTED: u8 = 2;
/// More than all but the path.
const MOUNT_BYTES: usize = 32;

/// That a client has mounted a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRow {
    /// Log index of the first MNT.
    pub index: u64,
    /// The client.
    pub client: IpAddr,
    /// The path, as `/a/b`.
    pub path: Bytes,
    /// How often; `None`: by an entry that did not count.
    pub counted: Option<Counted>,
}

impl MountRow {
    /// As it is after one MNT more; `None`: that is known, or cannot be counted.
    pub fn more(&self, xid: u32) -> Option<Self> {
        let times = self.counted.map_or(1, |counted| counted.times);
        let counted = Counted {
            times: times.checked_add(1)?,
            ..Counted::first(xid)
        };
        let known = self.was_told(Told::Mnt, xid);
        (!known).then(|| Self {
            counted: Some(counted),
            ..self.clone()
        })
    }

    /// As it is after a UMNT: `None` if nothing is left of it.
    pub fn less(&self, xid: u32) -> Option<Self> {
        let counted = self.counted?;
        let times = counted.times.checked_sub(1).filter(|times| *times > 0)?;
        let last = Told::Umnt;
        Some(Self {
            counted: Some(Counted { times, last, xid }),
            ..self.clone()
        })
    }

    /// Whether this was the last that was told.
    pub fn was_told(&self, what: Told, xid: u32) -> bool {
        let same = |counted: Counted| (counted.last, counted.xid) == (what, xid);
        self.counted.is_some_and(same)
    }
}

/// How often a client has mounted a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// MNT less UMNT, at least 1.
    pub times: u32,
    /// What came last.
    pub last: Told,
    /// The transaction id of that: if both come again, it is the same call.
    pub xid: u32,
}

/// What a client has told of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// MNT.
    Mnt,
    /// UMNT.
    Umnt,
}

const TOLD_MNT: u8 = 1;
const TOLD_UMNT: u8 = 3;

impl Counted {
    /// One MNT.
    pub const fn first(xid: u32) -> Self {
        Self {
            times: 1,
            last: Told::Mnt,
            xid,
        }
    }

    fn encode(self, out: &mut BytesMut) {
        let Self { times, last, xid } = self;
        out.put_u8(MOUNT_COUNTED);
        out.put_u32_le(times);
        out.put_u8(match last {
            Told::Mnt => TOLD_MNT,
            Told::Umnt => TOLD_UMNT,
        });
        out.put_u32_le(xid);
    }

    /// What follows the first byte.
    fn decode(r: &mut Cursor<'_>) -> Option<Self> {
        let times = r.u32().ok().filter(|times| *times > 0)?;
        let last = match r.u8().ok()? {
            TOLD_MNT => Told::Mnt,
            TOLD_UMNT => Told::Umnt,
            _ => return None,
        };
        let xid = r.u32().ok()?;
        Some(Self { times, last, xid })
    }
}

impl MountRow {
    /// The key of the row of the MNT at a log index.
    pub fn key(index: u64) -> Vec<u8> {
        [PREFIX_MOUNT, &index.to_be_bytes()].concat()
    }

    /// The value.
    pub fn value(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(MOUNT_BYTES + self.path.len());
        if let Some(counted) = self.counted {
            counted.encode(&mut value);
        }
        put_ip(&mut value, self.client);
        value.extend_from_slice(self.path.strip_prefix(b"/").unwrap_or_default());
        value.freeze()
    }

    /// From key and value; `None` if they are not of a mount.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let index = key.strip_prefix(PREFIX_MOUNT)?.try_into().ok()?;
        let is_counted = value.first() == Some(&MOUNT_COUNTED);
        let value = Bytes::copy_from_slice(value.get(usize::from(is_counted)..)?);
        let mut r = Cursor::new(&value);
        let mut counted = None;
        if is_counted {
            counted = Some(Counted::decode(&mut r)?);
        }
        let (client, path) = (r.ip().ok()?, r.rest());
        if path.len() > PATH_BYTES_MAX {
            return None;
        }
        Some(Self {
            index: u64::from_be_bytes(index),
            client,
            path: [b"/", &path[..]].concat().into(),
            counted,
        })
    }
}

/// A cached reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyRow {
    /// The client's address.
    pub client: IpAddr,
    /// The client's transaction id.
    pub xid: u32,
    /// Checksum of the request.
    pub checksum: u64,
    /// Over what it came; `None`: an entry of version 1 did not say.
    pub over: Option<ReplyOver>,
    /// The reply, without header.
    pub reply: Box<[u8]>,
}

/// Over what a request came to which a reply is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyOver {
    /// Checksum of the caller.
    pub caller: u64,
    /// The change's name.
    pub id: ChangeId,
    /// The client's port.
    pub port: u16,
    /// For how long changes had been served when it was answered last, in nanoseconds.
    pub served_ns: u64,
}

impl ReplyRow {
    /// The key of the row of the entry at a log index. Big-endian, so that the table's order is the log's.
    pub fn key(index: u64) -> Vec<u8> {
        [PREFIX_REPLY, &index.to_be_bytes()].concat()
    }

    /// The log index in a key.
    pub fn index(key: &[u8]) -> Option<u64> {
        let index = key.strip_prefix(PREFIX_REPLY)?;
        Some(u64::from_be_bytes(index.try_into().ok()?))
    }

    /// The value. Little-endian.
    pub fn value(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(80 + self.reply.len());
        if self.over.is_some() {
            value.put_u8(REPLY_VERSION_2);
        }
        put_ip(&mut value, self.client);
        value.put_u32_le(self.xid);
        value.put_u64_le(self.checksum);
        if let Some(over) = self.over {
            value.put_u64_le(over.caller);
            over.id.encode(&mut value);
            value.put_u16_le(over.port);
            value.put_u64_le(over.served_ns);
        }
        value.put_slice(&self.reply);
        value.freeze()
    }

    /// From the value; `None` if it is not of a reply.
    pub fn decode(value: &[u8]) -> Option<Self> {
        Self::read(value).ok()
    }

    fn read(value: &[u8]) -> Result<Self, EntryError> {
        let told = value.first() == Some(&REPLY_VERSION_2);
        let value = Bytes::copy_from_slice(&value[usize::from(told)..]);
        let mut r = Cursor::new(&value);
        let (client, xid, checksum) = (r.ip()?, r.u32()?, r.u64()?);
        let mut over = None;
        if told {
            over = Some(ReplyOver {
                caller: r.u64()?,
                id: ChangeId::decode(&mut r)?,
                port: r.u16()?,
                served_ns: r.u64()?,
            });
        }
        Ok(Self {
            client,
            xid,
            checksum,
            over,
            reply: r.rest()[..].into(),
        })
    }
}

/// The key of a connection that is gone.
pub fn gone_key(connection: ConnectionId) -> Vec<u8> {
    let (term, number) = (connection.term, connection.number);
    [PREFIX_GONE, &term.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// The connection in such a key.
pub fn gone_connection(key: &[u8]) -> Option<ConnectionId> {
    let (term, number) = key.strip_prefix(PREFIX_GONE)?.split_first_chunk()?;
    Some(ConnectionId {
        term: u64::from_be_bytes(*term),
        number: u64::from_be_bytes(number.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports() {
        let row = ExportRow {
            path: Bytes::from_static(b"/a/b"),
            id: ExportId(258),
            ino: Ino(3),
        };
        let (key, value) = row.encode();
        assert_eq!(
            (&key[..], &value[..]),
            (&b"m/export/a/b"[..], &[1, 2, 0, 0, 0, 0, 0, 0, 0, 3][..])
        );
        assert_eq!(ExportRow::decode(&key, &value), Some(row));
        for cut in 0..value.len() {
            assert_eq!(ExportRow::decode(&key, &value[..cut]), None);
        }
        assert_eq!(ExportRow::decode(b"m/exp", &value), None);
    }

    fn counted(times: u32, last: Told) -> Counted {
        let xid = 7;
        Counted { times, last, xid }
    }

    #[test]
    fn mounts() {
        for (client, counted) in [
            ("10.0.0.1", None),
            ("2001:db8::1", None),
            ("10.0.0.1", Some(counted(3, Told::Umnt))),
            ("2001:db8::1", Some(counted(1, Told::Mnt))),
        ] {
            let row = MountRow {
                index: 300,
                client: client.parse().expect("an address"),
                path: Bytes::from_static(b"/a/b"),
                counted,
            };
            let (key, value) = (MountRow::key(row.index), row.value());
            assert_eq!(key, b"m/mount/\0\0\0\0\0\0\x01\x2c");
            assert_eq!(MountRow::decode(&key, &value), Some(row));
            for cut in 0..value.len() - "a/b".len() {
                assert_eq!(MountRow::decode(&key, &value[..cut]), None, "{cut}");
            }
            assert_eq!(MountRow::decode(&key[..9], &value), None);
        }
        let key = MountRow::key(300);
        assert!(MountRow::decode(&key, b"\x04\x0a\0\0\x01a").is_some());
        let row = |times: u8, last: u8| {
            let counted = [2, times, 0, 0, 0, last, 7, 0, 0, 0];
            [&counted[..], b"\x04\x0a\0\0\x01a"].concat()
        };
        assert!(MountRow::decode(&key, &row(1, 3)).is_some());
        assert_eq!(MountRow::decode(&key, &row(0, 3)), None, "no mount at all");
        assert_eq!(MountRow::decode(&key, &row(1, 2)), None);
    }

    #[test]
    fn replies_and_connections_that_are_gone() {
        let row = ReplyRow {
            client: "10.0.0.1".parse().expect("an address"),
            xid: 5,
            checksum: 6,
            over: None,
            reply: b"reply"[..].into(),
        };
        let before = b"\x04\x0a\0\0\x01\x05\0\0\0\x06\0\0\0\0\0\0\0reply";
        assert_eq!(&row.value()[..], before, "as it was before version 2");
        assert_eq!(ReplyRow::decode(before), Some(row.clone()));
        let connection = ConnectionId { term: 7, number: 8 };
        let over = ReplyOver {
            caller: 9,
            id: ChangeId {
                connection,
                seq: 10,
            },
            port: 700,
            served_ns: 11,
        };
        for client in ["10.0.0.1", "2001:db8::1"] {
            let row = ReplyRow {
                client: client.parse().expect("an address"),
                over: Some(over),
                ..row.clone()
            };
            let value = row.value();
            for cut in 0..value.len() - row.reply.len() {
                assert_eq!(ReplyRow::decode(&value[..cut]), None, "{cut}");
            }
            assert_eq!(ReplyRow::decode(&value), Some(row));
        }
        assert_eq!(ReplyRow::index(&ReplyRow::key(300)), Some(300));
        let key = gone_key(connection);
        assert_eq!(gone_connection(&key), Some(connection));
        assert_eq!(gone_connection(&key[..key.len() - 1]), None);
    }
}
