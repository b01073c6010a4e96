//! Writing XDR into segments.
//!
//! Invariants: `open` holds what follows the last segment of `done`; the length is a multiple of four
//! after every call. Writing cannot fail: a length beyond 32 bits is our own mistake and asserted.

use crate::{Encode, Gather, SHARE_BYTES_MIN, padding};
use bytes::{BufMut, Bytes, BytesMut};

/// First allocation of a writer: holds most replies without growing.
const START_BYTES: usize = 256;
/// A message keeps no more room than this that it does not need.
const TIGHT_BYTES: usize = 4 << 10;

/// Collects small fields in one buffer and keeps large payloads as segments of their own.
#[derive(Debug)]
pub struct Writer {
    done: Gather,
    open: BytesMut,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::with_capacity(START_BYTES)
    }

    /// An empty writer with room for `bytes` of small fields.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            done: Gather::new(),
            open: BytesMut::with_capacity(bytes),
        }
    }

    /// Ends the present segment once it has `bytes`, so that a long message is made of segments of about that size: it
    /// never moves in memory, and takes no more than its length.
    pub fn cut(&mut self, bytes: usize) {
        if self.open.len() >= bytes {
            let next = BytesMut::with_capacity(self.open.capacity());
            let full = std::mem::replace(&mut self.open, next);
            self.done.push(full.freeze());
        }
    }

    /// How many bytes have been written.
    pub fn len(&self) -> usize {
        self.done.len() + self.open.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message.
    pub fn finish(mut self) -> Gather {
        let spare = self.open.capacity() - self.open.len();
        let last = if spare > TIGHT_BYTES {
            // It may have to wait for a peer that takes it slowly.
            Bytes::copy_from_slice(&self.open)
        } else {
            self.open.freeze()
        };
        self.done.push(last);
        self.done
    }

    /// An unsigned integer.
    pub fn put_u32(&mut self, value: u32) {
        self.open.put_u32(value);
    }

    /// A signed integer.
    pub fn put_i32(&mut self, value: i32) {
        self.open.put_i32(value);
    }

    /// An unsigned hyper integer.
    pub fn put_u64(&mut self, value: u64) {
        self.open.put_u64(value);
    }

    /// A signed hyper integer.
    pub fn put_i64(&mut self, value: i64) {
        self.open.put_i64(value);
    }

    /// A bool.
    pub fn put_bool(&mut self, value: bool) {
        self.put_u32(u32::from(value));
    }

    /// A length or element count.
    ///
    /// # Panics
    /// If it does not fit 32 bits, which no bounded message comes near.
    pub fn put_count(&mut self, count: usize) {
        match u32::try_from(count) {
            Ok(count) => self.put_u32(count),
            Err(_) => panic!("XDR counts have 32 bits, this is {count}: the caller must bound it"),
        }
    }

    /// A fixed-length opaque with its padding.
    pub fn put_opaque_fixed(&mut self, bytes: &[u8]) {
        self.open.put_slice(bytes);
        self.open.put_bytes(0, padding(bytes.len()));
    }

    /// A variable-length opaque, copied: for small ones.
    pub fn put_opaque(&mut self, bytes: &[u8]) {
        self.put_count(bytes.len());
        self.put_opaque_fixed(bytes);
    }

    /// A variable-length opaque, shared: from [`SHARE_BYTES_MIN`] bytes on it is not copied.
    pub fn put_opaque_shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARE_BYTES_MIN {
            return self.put_opaque(&bytes);
        }
        let fill = padding(bytes.len());
        self.put_count(bytes.len());
        self.done.push(self.open.split().freeze());
        self.done.push(bytes);
        self.open.put_bytes(0, fill);
    }

    /// A variable-length array.
    pub fn put_array<T: Encode>(&mut self, items: &[T]) {
        self.put_count(items.len());
        for item in items {
            item.encode(self);
        }
    }

    /// A linked list: each element announced by a `true`, the end by a `false`.
    pub fn put_list<T: Encode>(&mut self, items: &[T]) {
        for item in items {
            self.put_bool(true);
            item.encode(self);
        }
        self.put_bool(false);
    }

    /// Bytes that are XDR already (a multiple of four bytes).
    pub fn put_encoded(&mut self, encoded: Gather) {
        debug_assert_eq!(
            padding(encoded.len()),
            0,
            "encoded data is a multiple of four bytes"
        );
        self.done.push(self.open.split().freeze());
        self.done.append(encoded);
    }
}
