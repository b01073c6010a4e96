//! Reading XDR from a received buffer.
//!
//! Invariants: `pos <= buf.len()`; a failed read leaves the position where it was; nothing is
//! allocated before the bytes it would hold are known to be there.

use crate::{Decode, XdrError, XdrErrorKind, padding};
use bytes::Bytes;

/// A cursor over received bytes. Opaque data comes out as slices that share the buffer.
#[derive(Debug, Clone)]
pub struct Reader {
    buf: Bytes,
    pos: usize,
}

impl Reader {
    /// Reads `buf` from its start.
    pub const fn new(buf: Bytes) -> Self {
        Self { buf, pos: 0 }
    }

    /// How many bytes have been read.
    pub const fn offset(&self) -> usize {
        self.pos
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.buf.len() - self.pos
    }

    /// Takes everything that is left, unread.
    pub fn rest(&mut self) -> Bytes {
        let rest = self.buf.slice(self.pos..);
        self.pos = self.buf.len();
        rest
    }

    /// Checks that nothing is left.
    pub const fn finish(&self) -> Result<(), XdrError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.error(XdrErrorKind::Trailing(left))),
        }
    }

    /// An unsigned integer.
    pub fn u32(&mut self) -> Result<u32, XdrError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A signed integer.
    pub fn i32(&mut self) -> Result<i32, XdrError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// An unsigned hyper integer.
    pub fn u64(&mut self) -> Result<u64, XdrError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A signed hyper integer.
    pub fn i64(&mut self) -> Result<i64, XdrError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A bool: 0 or 1, nothing else.
    pub fn bool(&mut self) -> Result<bool, XdrError> {
        let at = self.pos;
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(XdrError {
                offset: at,
                kind: XdrErrorKind::NotBool(other),
            }),
        }
    }

    /// A fixed-length opaque with its padding, copied out.
    pub fn opaque_fixed<const N: usize>(&mut self) -> Result<[u8; N], XdrError> {
        let need = N + padding(N);
        let have = self.remaining();
        if have < need {
            return Err(self.error(XdrErrorKind::Truncated { need, have }));
        }
        let bytes = self.array()?;
        self.pos += padding(N);
        Ok(bytes)
    }

    /// A variable-length opaque of at most `max` bytes: a slice of the buffer, not a copy.
    ///
    /// The fill bytes may have any value: some clients do not zero them, and common servers do not look.
    pub fn opaque(&mut self, max: usize) -> Result<Bytes, XdrError> {
        let at = self.pos;
        let len = self.count(max)?;
        let need = len.saturating_add(padding(len));
        let have = self.remaining();
        if have < need {
            self.pos = at;
            return Err(self.error(XdrErrorKind::Truncated { need, have }));
        }
        let bytes = self.buf.slice(self.pos..self.pos + len);
        self.pos += need;
        Ok(bytes)
    }

    /// A length or element count of at most `max`. It says nothing yet about what really follows.
    pub fn count(&mut self, max: usize) -> Result<usize, XdrError> {
        let at = self.pos;
        let len = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if len > max {
            self.pos = at;
            return Err(self.error(XdrErrorKind::TooLong { len, max }));
        }
        Ok(len)
    }

    /// A variable-length array of at most `max` elements. It grows with the elements that are found,
    /// not with the count that was announced.
    pub fn array_of<T: Decode>(&mut self, max: usize) -> Result<Vec<T>, XdrError> {
        let count = self.count(max)?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(T::decode(self)?);
        }
        Ok(items)
    }

    /// A linked list (each element announced by a `true`, the end by a `false`) of at most `max` elements.
    pub fn list_of<T: Decode>(&mut self, max: usize) -> Result<Vec<T>, XdrError> {
        let mut items = Vec::new();
        loop {
            let at = self.pos;
            if !self.bool()? {
                return Ok(items);
            }
            if items.len() == max {
                let kind = XdrErrorKind::TooLong {
                    len: max.saturating_add(1),
                    max,
                };
                return Err(XdrError { offset: at, kind });
            }
            items.push(T::decode(self)?);
        }
    }

    /// The error that the item just read (a `u32` discriminant) is no value of `what`.
    pub const fn not_in_enum(&self, what: &'static str, value: u32) -> XdrError {
        let offset = self.pos.saturating_sub(crate::UNIT_BYTES);
        XdrError {
            offset,
            kind: XdrErrorKind::NotInEnum { what, value },
        }
    }

    const fn error(&self, kind: XdrErrorKind) -> XdrError {
        XdrError {
            offset: self.pos,
            kind,
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], XdrError> {
        match self.buf[self.pos..].first_chunk::<N>() {
            Some(bytes) => {
                self.pos += N;
                Ok(*bytes)
            }
            None => {
                let have = self.remaining();
                Err(self.error(XdrErrorKind::Truncated { need: N, have }))
            }
        }
    }
}
