//! Replies that wait to be written, as the bytes they are on the wire.
//!
//! Small replies are joined, so that many of them leave with one system call; large payloads stay
//! segments of their own and are not copied.
//!
//! It must not know sockets.

use bytes::{Buf, Bytes, BytesMut};
use haven_rpc::record;
use haven_xdr::Gather;
use std::collections::VecDeque;
use std::io::IoSlice;

/// Segments shorter than this are joined with their neighbours.
const JOIN_BYTES_MAX: usize = 4 << 10;
/// Room made for joined replies at a time.
const JOINED_BYTES: usize = 8 << 10;
/// Most slices in one vectored write (the kernel takes 1,024; a batch of replies has few).
pub(crate) const SLICES_MAX: usize = 64;

/// See the module's head comment.
#[derive(Default)]
pub(crate) struct Output {
    /// None is empty.
    segments: VecDeque<Bytes>,
    /// What follows the segments.
    open: BytesMut,
    bytes: usize,
    /// Bytes of the first segment (or of `open`, if there is none) that are written, but still in memory with the rest.
    front_written: usize,
}

impl Output {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a reply, with its record mark.
    pub fn push(&mut self, reply: Gather) {
        let framed = record::frame(reply);
        self.bytes += framed.len();
        for segment in framed.into_segments() {
            if segment.len() < JOIN_BYTES_MAX {
                if self.open.capacity() - self.open.len() < segment.len() {
                    self.close();
                    self.open.reserve(JOINED_BYTES);
                }
                self.open.extend_from_slice(&segment);
            } else {
                self.close();
                self.segments.push_back(segment);
            }
        }
    }

    /// What to write next; only if something waits.
    pub fn slices(&self) -> ([IoSlice<'_>; SLICES_MAX], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let tail = (!self.open.is_empty()).then_some(&self.open[..]);
        let all = self.segments.iter().map(|s| &s[..]).chain(tail);
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        (slices, count)
    }

    /// Forgets the first `bytes`, which are written; says how many bytes of memory that frees: a segment goes as a whole.
    pub fn advance(&mut self, mut bytes: usize) -> usize {
        let mut freed = 0;
        self.bytes = self.bytes.saturating_sub(bytes);
        while let Some(first) = self.segments.front_mut() {
            if bytes < first.len() {
                first.advance(bytes);
                self.front_written += bytes;
                return freed;
            }
            bytes -= first.len();
            freed += first.len() + std::mem::take(&mut self.front_written);
            self.segments.pop_front();
        }
        if bytes >= self.open.len() {
            freed += self.open.len() + std::mem::take(&mut self.front_written);
            self.open.clear();
        } else {
            self.open.advance(bytes);
            self.front_written += bytes;
        }
        freed
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.segments.push_back(self.open.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(output: &mut Output, step: usize) -> Vec<u8> {
        let (mut all, mut freed, total) = (Vec::new(), 0, output.bytes());
        while !output.is_empty() {
            let (slices, count) = output.slices();
            let flat: Vec<u8> = slices[..count]
                .iter()
                .flat_map(|s| s.iter().copied())
                .take(step)
                .collect();
            freed += output.advance(flat.len());
            all.extend(flat);
            let kept: usize = output.segments.iter().map(Bytes::len).sum();
            assert_eq!(
                freed + kept + output.open.len() + output.front_written,
                total
            );
        }
        all
    }

    /// Whatever the sizes and however little the socket takes, the bytes are those of the replies in order.
    #[test]
    fn bytes_come_out_as_they_went_in() {
        let sizes = [
            4, 600, 4096, 12, 70_000, 8, 8, 9_000, 4_092, 4_000, 4_000, 16,
        ];
        for step in [1, 7, 4096, 100_000] {
            let (mut output, mut expected) = (Output::default(), Vec::new());
            for (i, size) in sizes.into_iter().enumerate() {
                let reply = Gather::from(Bytes::from(vec![i as u8 + 1; size]));
                expected.extend(record::frame(reply.clone()).into_bytes());
                output.push(reply);
            }
            assert_eq!(output.bytes(), expected.len());
            assert_eq!(drained(&mut output, step), expected);
        }
    }

    #[test]
    fn a_large_reply_is_in_memory_until_its_last_byte_is_written() {
        let mut output = Output::default();
        output.push(Gather::from(Bytes::from(vec![1; 1 << 20])));
        assert_eq!(output.advance(1 << 20), record::HEADER_BYTES);
        assert_eq!(output.bytes(), 4);
        assert_eq!(output.advance(4), 1 << 20);
    }

    #[test]
    fn small_replies_leave_as_one_slice_and_large_ones_are_not_copied() {
        let mut output = Output::default();
        for _ in 0..10 {
            output.push(Gather::from(Bytes::from_static(b"abcd")));
        }
        let large = Bytes::from(vec![1; 1 << 20]);
        output.push(Gather::from(large.clone()));
        let (slices, count) = output.slices();
        assert_eq!(count, 2);
        assert_eq!(slices[1].as_ptr(), large.as_ptr());
    }
}
