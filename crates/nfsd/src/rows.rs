//! The rows of the system table: everything the machine keeps beside files.
//!
//! | key | value |
//! |---|---|
//! | `m/identity` | volume id (16 bytes), handle key (16 bytes) |
//! | `m/level` | feature level (u32); absent: none was ever set |
//! | `m/time` | server time of the last entry: seconds (i64), nanoseconds (u32) |
//! | `m/export/` path | [`ExportRow`]: number (u16), inode number (u64) |
//! | `m/mount/` log index (u64) | [`MountRow`]: client's address, path |
//! | `r/` log index (u64) | a cached reply: client's address, transaction id (u32 LE), checksum (u64 LE), reply |
//!
//! Integers are big-endian where nothing else is said, so that the table's order is theirs. A path has
//! its one form without the first slash (`a/b`). An address is a byte 4 or 6 and then 4 or 16 bytes.
//!
//! Invariant: what is not written here is not in the table. It must not know what rows are for.

use crate::entry::{Cursor, PATH_BYTES_MAX, put_ip};
use crate::handle::ExportId;
use bytes::{Bytes, BytesMut};
use haven_fs::Ino;
use std::net::IpAddr;

/// Key of the volume's identity.
pub const KEY_IDENTITY: &[u8] = b"m/identity";
/// Key of the feature level.
pub const KEY_LEVEL: &[u8] = b"m/level";
/// Key of server time.
pub const KEY_TIME: &[u8] = b"m/time";
/// What keys of exports begin with.
pub const PREFIX_EXPORT: &[u8] = b"m/export/";
/// What keys of the table of mounts begin with.
pub const PREFIX_MOUNT: &[u8] = b"m/mount/";
/// What keys of cached replies begin with.
pub const PREFIX_REPLY: &[u8] = b"r/";

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

/// That a client has mounted a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRow {
    /// Log index of the MNT.
    pub index: u64,
    /// The client.
    pub client: IpAddr,
    /// The path, as `/a/b`.
    pub path: Bytes,
}

impl MountRow {
    /// The key of the row of the MNT at a log index.
    pub fn key(index: u64) -> Vec<u8> {
        [PREFIX_MOUNT, &index.to_be_bytes()].concat()
    }

    /// The value.
    pub fn value(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(17 + self.path.len());
        put_ip(&mut value, self.client);
        value.extend_from_slice(self.path.strip_prefix(b"/").unwrap_or_default());
        value.freeze()
    }

    /// From key and value; `None` if they are not of a mount.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let index = key.strip_prefix(PREFIX_MOUNT)?.try_into().ok()?;
        let value = Bytes::copy_from_slice(value);
        let mut r = Cursor::new(&value);
        let (client, path) = (r.ip().ok()?, r.rest());
        if path.len() > PATH_BYTES_MAX {
            return None;
        }
        Some(Self {
            index: u64::from_be_bytes(index),
            client,
            path: [b"/", &path[..]].concat().into(),
        })
    }
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

    #[test]
    fn mounts() {
        for client in ["10.0.0.1", "2001:db8::1"] {
            let row = MountRow {
                index: 300,
                client: client.parse().expect("an address"),
                path: Bytes::from_static(b"/a/b"),
            };
            let (key, value) = (MountRow::key(row.index), row.value());
            assert_eq!(key, b"m/mount/\0\0\0\0\0\0\x01\x2c");
            assert_eq!(MountRow::decode(&key, &value), Some(row));
            assert_eq!(MountRow::decode(&key, &value[..3]), None);
            assert_eq!(MountRow::decode(&key[..9], &value), None);
        }
    }
}
