//! What rows mean: inodes, directory entries, counters, and their bytes.
//!
//! Invariants
//! - Decoding what was encoded gives the same; decoding anything else gives an error, never a panic.
//! - Encodings are canonical: equal records have equal bytes (the state hash relies on it).
//!
//! It must not know where rows live.

use crate::blocks;
use crate::engine::contents::INLINE_BYTES_MAX;
use crate::fatal;
use crate::keys;
use haven_fs::blocks::{BlockMap, CHUNKS_MAX, DOUBLED_MAX};
use haven_fs::{Attr, Cookie, Device, FsError, FsResult, Ino, Kind, Time, rules};

const KIND_REGULAR: u8 = 1;
const KIND_DIRECTORY: u8 = 2;
const KIND_SYMLINK: u8 = 3;
const KIND_FIFO: u8 = 4;
const KIND_SOCKET: u8 = 5;
const KIND_BLOCK: u8 = 6;
const KIND_CHAR: u8 = 7;

/// In the row; all blocks of the size are used.
const PLACE_ROW: u8 = 0;
/// In the data file; all blocks of the size are used.
const PLACE_FILE: u8 = 1;
/// In the data file; the head of the map of blocks follows.
const PLACE_FILE_MAPPED: u8 = 2;
/// In the row, which is missing: nothing was written.
const PLACE_ROW_UNUSED: u8 = 3;

/// Bytes of the head of a map.
const MAP_BYTES: usize = 11;

/// Bytes of an inode's row that all kinds have.
const COMMON_BYTES: usize = 90;

const ENTRY_BYTES: usize = 16;
const COUNTERS_BYTES: usize = 16;

/// An inode as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its attributes.
    pub attr: Attr,
    /// The verifier of the exclusive creation that made it.
    pub verifier: Option<[u8; 8]>,
    /// Where the bytes of a regular file are ([`Place::Row`] for everything else).
    pub place: Place,
    /// Which blocks of a regular file are used.
    pub map: BlockMap,
    /// What only directories have.
    pub dir: DirState,
}

/// Where the bytes of a regular file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In its contents row.
    Row,
    /// In its data file.
    File,
}

/// State of a directory (zeros for everything else).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirState {
    /// The directory above; the root's is the root.
    pub parent: u64,
    /// Stored entries.
    pub entries: u64,
    /// The cookie of the next entry.
    pub next_cookie: u64,
}

impl Inode {
    /// A new inode; `parent` matters for directories only.
    pub fn new(attr: Attr, parent: Ino) -> Self {
        let dir = match attr.kind {
            Kind::Directory => DirState {
                parent: parent.0,
                entries: 0,
                next_cookie: rules::COOKIE_FIRST,
            },
            _ => DirState::default(),
        };
        Self {
            attr,
            verifier: None,
            place: Place::Row,
            map: BlockMap::default(),
            dir,
        }
    }

    /// What says where the bytes of a regular file are. A file without holes has no map: it is what its size says.
    fn place_code(&self) -> u8 {
        match (self.place, self.map == BlockMap::dense(self.attr.size)) {
            (Place::Row, true) => PLACE_ROW,
            (Place::Row, false) => PLACE_ROW_UNUSED,
            (Place::File, true) => PLACE_FILE,
            (Place::File, false) => PLACE_FILE_MAPPED,
        }
    }

    /// The row's value.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, device) = kind_code(self.attr.kind);
        // Exactly what is needed: more would cost the row another allocation.
        let more = match self.attr.kind {
            Kind::Regular if self.place_code() == PLACE_FILE_MAPPED => 1 + MAP_BYTES,
            Kind::Regular => 1,
            Kind::Directory => 24,
            _ => 0,
        };
        let mut out = Vec::with_capacity(COMMON_BYTES + more);
        out.push(kind);
        for number in [
            self.attr.generation,
            self.attr.mode,
            self.attr.nlink,
            self.attr.uid,
            self.attr.gid,
            device.major,
            device.minor,
        ] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.attr.size.to_be_bytes());
        out.extend_from_slice(&self.attr.change.to_be_bytes());
        for time in [self.attr.atime, self.attr.mtime, self.attr.ctime] {
            out.extend_from_slice(&time.secs.to_be_bytes());
            out.extend_from_slice(&time.nanos.to_be_bytes());
        }
        out.push(u8::from(self.verifier.is_some()));
        out.extend_from_slice(&self.verifier.unwrap_or_default());
        if self.attr.kind == Kind::Regular {
            let code = self.place_code();
            out.push(code);
            if code == PLACE_FILE_MAPPED {
                out.extend_from_slice(&self.map.leading.to_be_bytes());
                out.extend_from_slice(&self.map.scattered.to_be_bytes());
                out.extend_from_slice(&self.map.chunks.to_be_bytes());
                out.push(self.map.doubled);
            }
        }
        if self.attr.kind == Kind::Directory {
            for number in [self.dir.parent, self.dir.entries, self.dir.next_cookie] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        out
    }

    /// The inode in a row's value.
    pub fn decode(ino: Ino, value: &[u8]) -> FsResult<Self> {
        Self::parse(ino, value).ok_or_else(|| broken(&format!("inode {}", ino.0)))
    }

    fn parse(ino: Ino, value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let code = fields.u8()?;
        let [generation, mode, nlink, uid, gid, major, minor] = fields.u32s()?;
        let [size, change] = [fields.u64()?, fields.u64()?];
        let [atime, mtime, ctime] = [fields.time()?, fields.time()?, fields.time()?];
        let has_verifier = fields.u8()?;
        let verifier = fields.take::<8>()?;
        let kind = kind_of(code, Device { major, minor })?;
        let (place, map) = match kind {
            Kind::Regular => place_at(&mut fields, size)?,
            _ => (Place::Row, BlockMap::default()),
        };
        let dir = match kind {
            Kind::Directory => DirState {
                parent: fields.u64()?,
                entries: fields.u64()?,
                next_cookie: fields.u64()?,
            },
            _ => DirState::default(),
        };
        let verifier = match has_verifier {
            0 if verifier == [0; 8] => None,
            1 => Some(verifier),
            _ => return None,
        };
        let used = match kind {
            Kind::Regular => map.used(size),
            _ => rules::used(size),
        };
        let attr = Attr {
            ino,
            generation,
            kind,
            mode,
            nlink,
            uid,
            gid,
            size,
            used,
            atime,
            mtime,
            ctime,
            change,
        };
        fields.0.is_empty().then_some(Self {
            attr,
            verifier,
            place,
            map,
            dir,
        })
    }
}

/// A directory entry found by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The entry's inode.
    pub ino: Ino,
    /// Its place in the directory.
    pub cookie: Cookie,
}

impl Entry {
    /// The value of the row by name.
    pub fn encode(self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[..8].copy_from_slice(&self.ino.0.to_be_bytes());
        out[8..].copy_from_slice(&self.cookie.0.to_be_bytes());
        out
    }

    /// The entry in the value of a row by name.
    pub fn decode(value: &[u8]) -> FsResult<Self> {
        let [ino, cookie] = two_numbers(value).ok_or_else(|| broken("directory entry"))?;
        Ok(Self {
            ino: Ino(ino),
            cookie: Cookie(cookie),
        })
    }
}

/// The value of an entry's row by cookie.
pub fn encode_named(ino: Ino, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + name.len());
    out.extend_from_slice(&ino.0.to_be_bytes());
    out.extend_from_slice(name);
    out
}

/// Inode and name in the value of an entry's row by cookie.
pub fn decode_named(value: &[u8]) -> FsResult<(Ino, &[u8])> {
    let (ino, name) = value
        .split_first_chunk::<8>()
        .ok_or_else(|| broken("directory entry"))?;
    rules::check_name(name).map_err(|_| broken("name of a directory entry"))?;
    Ok((Ino(u64::from_be_bytes(*ino)), name))
}

/// Counters of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// The number of the next inode.
    pub next_ino: u64,
    /// How many inodes there are.
    pub inodes: u64,
}

impl Counters {
    /// The row's value.
    pub fn encode(self) -> [u8; COUNTERS_BYTES] {
        Entry {
            ino: Ino(self.next_ino),
            cookie: Cookie(self.inodes),
        }
        .encode()
    }

    /// The counters in a row's value.
    pub fn decode(value: &[u8]) -> FsResult<Self> {
        let [next_ino, inodes] = two_numbers(value).ok_or_else(|| broken("counters"))?;
        Ok(Self { next_ino, inodes })
    }
}

/// Checks that a row from another machine is one that this engine could have written. Rows that
/// refer to each other are not checked against each other.
pub fn validate(key: &[u8], value: &[u8]) -> FsResult<()> {
    let wrong = || broken("row in the snapshot");
    if !keys::is_well_formed(key) {
        return Err(wrong());
    }
    match key.first() {
        Some(&keys::INODE) => {
            let ino = keys::ino_of(key).ok_or_else(wrong)?;
            Inode::decode(ino, value).map(drop)
        }
        Some(&keys::ENTRY_BY_NAME) => Entry::decode(value).map(drop),
        Some(&keys::ENTRY_BY_COOKIE) => decode_named(value).map(drop),
        Some(&keys::TARGET) => rules::check_link_target(value).map_err(|_| wrong()),
        Some(&keys::CONTENTS) if (1..=INLINE_BYTES_MAX).contains(&value.len()) => Ok(()),
        Some(&keys::BLOCKS) => blocks::decode(value).map(drop),
        Some(&keys::META) => Counters::decode(value).map(drop),
        Some(&keys::SYSTEM) if value.len() <= crate::SYSTEM_VALUE_BYTES_MAX => Ok(()),
        _ => Err(wrong()),
    }
}

fn broken(what: &str) -> FsError {
    fatal("the metadata is damaged", format!("{what} cannot be read"))
}

fn two_numbers(value: &[u8]) -> Option<[u64; 2]> {
    let mut fields = Fields(value);
    let numbers = [fields.u64()?, fields.u64()?];
    fields.0.is_empty().then_some(numbers)
}

fn kind_code(kind: Kind) -> (u8, Device) {
    let none = Device { major: 0, minor: 0 };
    match kind {
        Kind::Regular => (KIND_REGULAR, none),
        Kind::Directory => (KIND_DIRECTORY, none),
        Kind::Symlink => (KIND_SYMLINK, none),
        Kind::Fifo => (KIND_FIFO, none),
        Kind::Socket => (KIND_SOCKET, none),
        Kind::BlockDevice(device) => (KIND_BLOCK, device),
        Kind::CharDevice(device) => (KIND_CHAR, device),
    }
}

fn kind_of(code: u8, device: Device) -> Option<Kind> {
    let plain = match code {
        KIND_BLOCK => return Some(Kind::BlockDevice(device)),
        KIND_CHAR => return Some(Kind::CharDevice(device)),
        KIND_REGULAR => Kind::Regular,
        KIND_DIRECTORY => Kind::Directory,
        KIND_SYMLINK => Kind::Symlink,
        KIND_FIFO => Kind::Fifo,
        KIND_SOCKET => Kind::Socket,
        _ => return None,
    };
    (device == Device { major: 0, minor: 0 }).then_some(plain)
}

/// The place of a file of `size` bytes, and its map: no row holds more than rows hold.
fn place_at(fields: &mut Fields<'_>, size: u64) -> Option<(Place, BlockMap)> {
    let dense = BlockMap::dense(size);
    let small = size <= INLINE_BYTES_MAX as u64;
    match fields.u8()? {
        PLACE_ROW if small => Some((Place::Row, dense)),
        PLACE_ROW_UNUSED if small && size > 0 => Some((Place::Row, BlockMap::default())),
        PLACE_FILE => Some((Place::File, dense)),
        PLACE_FILE_MAPPED => {
            let map = BlockMap {
                leading: fields.u32()?,
                scattered: fields.u32()?,
                chunks: fields.take().map(u16::from_be_bytes)?,
                doubled: fields.u8()?,
            };
            (map != dense && is_possible(&map, size)).then_some((Place::File, map))
        }
        _ => None,
    }
}

/// Whether a file of `size` bytes can have this map.
fn is_possible(map: &BlockMap, size: u64) -> bool {
    let bounded = map.chunks <= CHUNKS_MAX && map.doubled <= DOUBLED_MAX;
    let chunked = (map.scattered > 0) == (map.chunks > 0) && (map.doubled == 0 || map.chunks > 0);
    let units = u64::from(map.leading) + u64::from(map.scattered);
    bounded && chunked && units <= size.div_ceil(map.unit_bytes())
}

/// Reads fixed fields off the front of a value.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u32s<const N: usize>(&mut self) -> Option<[u32; N]> {
        let mut out = [0; N];
        for slot in &mut out {
            *slot = self.u32()?;
        }
        Some(out)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn time(&mut self) -> Option<Time> {
        let secs = self.take().map(i64::from_be_bytes)?;
        let nanos = self.u32().filter(|&nanos| nanos < 1_000_000_000)?;
        Some(Time { secs, nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: Kind) -> Inode {
        let attr = Attr {
            kind,
            size: 4096,
            used: 4096,
            uid: 7,
            change: 99,
            ..rules::root_attr()
        };
        Inode {
            map: match kind {
                Kind::Regular => BlockMap::dense(4096),
                _ => BlockMap::default(),
            },
            ..Inode::new(attr, Ino(3))
        }
    }

    #[test]
    fn a_file_without_holes_has_no_map_and_any_other_one_that_can_be() {
        let mut inode = sample(Kind::Regular);
        inode.place = Place::File;
        inode.attr.size = 1 << 30;
        let dense = Inode {
            map: BlockMap::dense(1 << 30),
            ..inode.clone()
        };
        let map = |leading, scattered, chunks, doubled| BlockMap {
            leading,
            scattered,
            chunks,
            doubled,
        };
        for (map, good) in [
            (map(0, 0, 0, 0), true),
            (map(3, 0, 0, 0), true),
            (map(3, 7, 2, 0), true),
            (map(3, 7, 2, 12), true),
            (map(3, 7, 2, 13), false),
            (map(3, 7, 0, 0), false),
            (map(3, 0, 1, 0), false),
            (map(3, 0, 0, 1), false),
            (map(3, 7, 1025, 0), false),
            (map(1 << 18, 1, 1, 0), false),
        ] {
            inode.map = map;
            inode.attr.used = map.used(1 << 30);
            let encoded = inode.encode();
            assert_eq!(encoded.len(), encoded.capacity());
            assert_eq!(encoded.len(), dense.encode().len() + MAP_BYTES);
            match good {
                true => assert_eq!(Inode::decode(Ino(1), &encoded).unwrap(), inode),
                false => assert!(Inode::decode(Ino(1), &encoded).is_err(), "{map:?}"),
            }
        }
        let mut row = sample(Kind::Regular);
        (row.map, row.attr.used) = (BlockMap::default(), 0);
        assert_eq!(Inode::decode(Ino(1), &row.encode()).unwrap(), row);
    }

    #[test]
    fn inodes_survive_their_encoding() {
        let device = Device {
            major: 8,
            minor: 17,
        };
        for kind in [
            Kind::Regular,
            Kind::Directory,
            Kind::Symlink,
            Kind::Fifo,
            Kind::Socket,
            Kind::BlockDevice(device),
            Kind::CharDevice(device),
        ] {
            let mut inode = sample(kind);
            inode.verifier = (kind == Kind::Regular).then_some([0; 8]);
            let encoded = inode.encode();
            assert_eq!(encoded.len(), encoded.capacity());
            assert_eq!(Inode::decode(Ino(1), &encoded).unwrap(), inode);
        }
    }

    #[test]
    fn a_row_holds_no_more_than_rows_hold() {
        let mut inode = sample(Kind::Regular);
        (inode.attr.size, inode.attr.used) = (4097, 8192);
        inode.map = BlockMap::dense(4097);
        assert!(Inode::decode(Ino(1), &inode.encode()).is_err());
        inode.place = Place::File;
        assert_eq!(Inode::decode(Ino(1), &inode.encode()).unwrap(), inode);
        let key = keys::contents(Ino(7));
        for (len, good) in [(0, false), (1, true), (4096, true), (4097, false)] {
            assert_eq!(validate(&key, &vec![1; len]).is_ok(), good, "{len} bytes");
        }
    }

    #[test]
    fn every_cut_or_padded_value_is_refused() {
        let whole = sample(Kind::Directory).encode();
        for len in 0..whole.len() {
            assert!(
                Inode::decode(Ino(1), &whole[..len]).is_err(),
                "cut to {len}"
            );
        }
        let mut long = whole;
        long.push(0);
        assert!(Inode::decode(Ino(1), &long).is_err());
        assert!(Entry::decode(&[0; 15]).is_err());
        assert!(Counters::decode(&[0; 17]).is_err());
        assert!(decode_named(&[0; 8]).is_err(), "an entry without a name");
    }
}
