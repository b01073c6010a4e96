//! Over which connection a change came, and what the leader knew of connections then
//! (docs/decisions/0009-who-asks-again.md).
//!
//! Invariants
//! - No two connections that are ever accepted have one name: numbers rise within a term, and terms with each
//!   election.
//! - What is read is bounded, and has one form.
//!
//! It must not know what becomes of cached replies.

use crate::entry::{Cursor, EntryError};
use bytes::{BufMut, BytesMut};
use haven_rpc::Credential;
use std::net::IpAddr;

/// Most news in one entry.
pub const NEWS_MAX: usize = 1_024;

const NEWS_ARRIVED: u8 = 1;
const NEWS_GONE: u8 = 2;

const FLAVOR_NONE: u8 = 0;
const FLAVOR_SYS: u8 = 1;

/// A TCP connection's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The term of the leader that accepted it.
    pub term: u64,
    /// Its number in that term: whoever is accepted later has a higher one.
    pub number: u64,
}

/// A change's name: its connection, and its number on that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId {
    /// Over which it came.
    pub connection: ConnectionId,
    /// Rises by one with each change over the connection.
    pub seq: u64,
}

/// Who asked for a change, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// [`caller_checksum`] of the caller.
    pub caller: u64,
    /// The change's name.
    pub id: ChangeId,
    /// The client's port.
    pub port: u16,
    /// What the leader knew that it had not told.
    pub news: Vec<News>,
}

/// Something that happened to a connection. Told in the term of the connection, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The replies to these changes, `first` to `last`, have arrived: nobody asks for them again.
    Arrived {
        /// Over which they came.
        connection: ConnectionId,
        /// Number of the first.
        first: u64,
        /// Number of the last, not below `first`.
        last: u64,
    },
    /// It has ended, and nothing that came over it is under way: whoever used it may ask over another.
    Gone {
        /// Which.
        connection: ConnectionId,
    },
}

/// What makes two requests of one address look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKey {
    /// The client's address.
    pub client: IpAddr,
    /// The client's transaction id.
    pub xid: u32,
    /// [`crate::request_checksum`] of the request.
    pub checksum: u64,
    /// [`caller_checksum`] of the caller.
    pub caller: u64,
}

/// What tells a caller from another: the flavour, and for AUTH_SYS ids and machine name as the client states them. Not
/// the stamp, which is arbitrary (RFC 5531, appendix A) and may differ when a client sends again.
pub fn caller_checksum(caller: &Credential) -> u64 {
    let mut bytes = Vec::new();
    match caller {
        Credential::None => bytes.push(FLAVOR_NONE),
        Credential::Sys(sys) => {
            bytes.push(FLAVOR_SYS);
            bytes.put_u32_le(sys.uid);
            bytes.put_u32_le(sys.gid);
            bytes.put_u32_le(sys.gids.len() as u32);
            sys.gids.iter().for_each(|gid| bytes.put_u32_le(*gid));
            bytes.put_slice(&sys.machine_name);
        }
    }
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

impl News {
    /// The connection.
    pub const fn connection(&self) -> ConnectionId {
        match self {
            Self::Arrived { connection, .. } | Self::Gone { connection } => *connection,
        }
    }
}

impl ConnectionId {
    pub(crate) fn encode(self, out: &mut impl BufMut) {
        out.put_u64_le(self.term);
        out.put_u64_le(self.number);
    }

    pub(crate) fn decode(r: &mut Cursor<'_>) -> Result<Self, EntryError> {
        Ok(Self {
            term: r.u64()?,
            number: r.u64()?,
        })
    }
}

impl ChangeId {
    pub(crate) fn encode(self, out: &mut impl BufMut) {
        self.connection.encode(out);
        out.put_u64_le(self.seq);
    }

    pub(crate) fn decode(r: &mut Cursor<'_>) -> Result<Self, EntryError> {
        Ok(Self {
            connection: ConnectionId::decode(r)?,
            seq: r.u64()?,
        })
    }
}

impl Asked {
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), EntryError> {
        out.put_u64_le(self.caller);
        self.id.encode(out);
        out.put_u16_le(self.port);
        encode_news(&self.news, out)
    }

    pub(crate) fn decode(r: &mut Cursor<'_>) -> Result<Self, EntryError> {
        Ok(Self {
            caller: r.u64()?,
            id: ChangeId::decode(r)?,
            port: r.u16()?,
            news: decode_news(r)?,
        })
    }
}

pub(crate) fn encode_news(news: &[News], out: &mut BytesMut) -> Result<(), EntryError> {
    if news.len() > NEWS_MAX {
        return Err(EntryError::Field("number of news"));
    }
    out.put_u32_le(news.len() as u32);
    for one in news {
        match *one {
            News::Arrived {
                connection,
                first,
                last,
            } => {
                out.put_u8(NEWS_ARRIVED);
                connection.encode(out);
                out.put_u64_le(first);
                out.put_u64_le(checked_last(first, last)?);
            }
            News::Gone { connection } => {
                out.put_u8(NEWS_GONE);
                connection.encode(out);
            }
        }
    }
    Ok(())
}

pub(crate) fn decode_news(r: &mut Cursor<'_>) -> Result<Vec<News>, EntryError> {
    let count = r.count(NEWS_MAX, "number of news")?;
    (0..count)
        .map(|_| {
            let kind = r.u8()?;
            let connection = ConnectionId::decode(r)?;
            match kind {
                NEWS_ARRIVED => {
                    let first = r.u64()?;
                    Ok(News::Arrived {
                        connection,
                        first,
                        last: checked_last(first, r.u64()?)?,
                    })
                }
                NEWS_GONE => Ok(News::Gone { connection }),
                _ => Err(EntryError::Field("kind of news")),
            }
        })
        .collect()
}

fn checked_last(first: u64, last: u64) -> Result<u64, EntryError> {
    if first <= last {
        Ok(last)
    } else {
        Err(EntryError::Field("range of news"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use haven_rpc::AuthSys;

    fn sys(change: impl FnOnce(&mut AuthSys)) -> u64 {
        let mut sys = AuthSys {
            stamp: 1,
            machine_name: Bytes::from_static(b"client"),
            uid: 2,
            gid: 3,
            gids: vec![4, 5],
        };
        change(&mut sys);
        caller_checksum(&Credential::Sys(sys))
    }

    #[test]
    fn callers_differ_in_everything_but_the_stamp() {
        let one = sys(|_| ());
        assert_eq!(one, sys(|sys| sys.stamp = 9));
        let others = [
            sys(|sys| sys.uid = 9),
            sys(|sys| sys.gid = 9),
            sys(|sys| sys.gids = vec![4]),
            sys(|sys| sys.gids = vec![5, 4]),
            sys(|sys| sys.machine_name = Bytes::from_static(b"other")),
            caller_checksum(&Credential::None),
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(*other, one, "{i}");
            assert!(!others[..i].contains(other), "{i}");
        }
    }
}
