//! A list of byte segments that together are one message: what a vectored write takes.
//!
//! Invariants: no segment is empty; `len` is the sum of the segments' lengths.

use crate::SHARE_BYTES_MIN;
use bytes::{Bytes, BytesMut};

/// A message in segments. Appending and prefixing never copy a large segment.
#[derive(Debug, Clone, Default)]
pub struct Gather {
    segments: Vec<Bytes>,
    len: usize,
}

impl Gather {
    /// An empty message.
    pub const fn new() -> Self {
        Self {
            segments: Vec::new(),
            len: 0,
        }
    }

    /// The segments, in order; none is empty.
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// The segments, in order, by value.
    pub fn into_segments(self) -> Vec<Bytes> {
        self.segments
    }

    /// Length of the whole message in bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the message has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a segment (an empty one is dropped).
    pub fn push(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.len += segment.len();
            self.segments.push(segment);
        }
    }

    /// Appends all segments of `other`.
    pub fn append(&mut self, other: Gather) {
        self.len += other.len;
        self.segments.extend(other.segments);
    }

    /// Puts `head` before the message. A short first segment is joined with it, so that a header in
    /// front of a small body does not cost a segment of its own.
    pub fn prefix(&mut self, head: &[u8]) {
        if head.is_empty() {
            return;
        }
        self.len += head.len();
        match self.segments.first_mut() {
            Some(first) if first.len() < SHARE_BYTES_MIN => {
                let mut joined = BytesMut::with_capacity(head.len() + first.len());
                joined.extend_from_slice(head);
                joined.extend_from_slice(first);
                *first = joined.freeze();
            }
            _ => self.segments.insert(0, Bytes::copy_from_slice(head)),
        }
    }

    /// The message as one buffer; copies only if there is more than one segment.
    pub fn into_bytes(mut self) -> Bytes {
        if self.segments.len() <= 1 {
            return self.segments.pop().unwrap_or_default();
        }
        let mut flat = BytesMut::with_capacity(self.len);
        for segment in &self.segments {
            flat.extend_from_slice(segment);
        }
        flat.freeze()
    }
}

impl From<Bytes> for Gather {
    fn from(segment: Bytes) -> Self {
        let mut gather = Self::new();
        gather.push(segment);
        gather
    }
}

/// Two messages are equal if their bytes are, however they are cut into segments.
impl PartialEq for Gather {
    fn eq(&self, other: &Self) -> bool {
        fn bytes(gather: &Gather) -> impl Iterator<Item = &u8> {
            gather.segments.iter().flat_map(|segment| segment.iter())
        }
        self.len == other.len && bytes(self).eq(bytes(other))
    }
}

impl Eq for Gather {}
