//! Records over a TCP stream: cutting replies out of what is received, writing calls without copying.

use bytes::{Buf, Bytes, BytesMut};
use haven_proto::nfs3::DATA_BYTES_MAX;
use haven_rpc::record::{FragmentHeader, HEADER_BYTES};
use std::io::{self, IoSlice};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest reply that is accepted: a full READ and what is around it.
pub(crate) const REPLY_BYTES_MAX: usize = DATA_BYTES_MAX + 64 * 1024;

/// Room to receive into when nothing is known of what comes.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Cuts records out of a stream.
pub(crate) struct RecordReader<S> {
    stream: S,
    /// Received, not looked at.
    buf: BytesMut,
    /// Fragments of a record that has more than one.
    parts: BytesMut,
}

impl<S: AsyncRead + Unpin> RecordReader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            buf: BytesMut::new(),
            parts: BytesMut::new(),
        }
    }

    /// The next record. An error (the end of the stream included) ends the connection.
    pub(crate) async fn next(&mut self) -> io::Result<Bytes> {
        loop {
            let header = self.header().await?;
            let len = header.len as usize;
            if len > REPLY_BYTES_MAX - self.parts.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "reply too long"));
            }
            // A fragment that moves nothing on would let the server keep us here for nothing.
            if len == 0 && !header.last {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "empty fragment"));
            }
            self.fill(len).await?;
            let fragment = self.buf.split_to(len);
            if header.last && self.parts.is_empty() {
                return Ok(fragment.freeze());
            }
            self.parts.unsplit(fragment);
            if header.last {
                return Ok(std::mem::take(&mut self.parts).freeze());
            }
        }
    }

    async fn header(&mut self) -> io::Result<FragmentHeader> {
        self.fill(HEADER_BYTES).await?;
        let mut bytes = [0; HEADER_BYTES];
        self.buf.copy_to_slice(&mut bytes);
        Ok(FragmentHeader::parse(bytes))
    }

    /// Receives until at least `len` bytes are there.
    async fn fill(&mut self, len: usize) -> io::Result<()> {
        while self.buf.len() < len {
            let missing = len - self.buf.len();
            self.buf.reserve(missing.max(RECEIVE_BYTES));
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

/// Writes all segments, in order.
pub(crate) async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    segments: &[Bytes],
) -> io::Result<()> {
    let mut slices: Vec<_> = segments
        .iter()
        .map(|segment| IoSlice::new(segment))
        .collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        let written = stream.write_vectored(left).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut left, written);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads one record from `wire`, which arrives in pieces of `piece` bytes.
    async fn read_one(wire: &[u8], piece: usize) -> io::Result<Bytes> {
        let (mut far, near) = tokio::io::duplex(piece);
        let wire = wire.to_vec();
        let sender = tokio::spawn(async move { far.write_all(&wire).await });
        let record = RecordReader::new(near).next().await;
        // When the record was refused, the reader is gone and the sender may fail.
        let _ = sender.await;
        record
    }

    #[tokio::test]
    async fn fragments_are_joined_however_they_arrive() {
        let wire = b"\0\0\0\x03abc\0\0\0\x01d\x80\0\0\x02ef";
        for piece in [1, 2, 5, 64] {
            assert_eq!(read_one(wire, piece).await.unwrap(), "abcdef");
        }
    }

    #[tokio::test]
    async fn records_follow_one_another() {
        let mut records = RecordReader::new(&b"\x80\0\0\x01a\x80\0\0\0\x80\0\0\x02bc"[..]);
        for expected in ["a", "", "bc"] {
            assert_eq!(records.next().await.unwrap(), expected);
        }
        assert_eq!(
            records.next().await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[tokio::test]
    async fn what_is_too_long_is_refused_by_its_header() {
        let header = |last, len: usize| {
            FragmentHeader {
                last,
                len: len as u32,
            }
            .encode()
        };
        let long = header(true, REPLY_BYTES_MAX + 1);
        assert_eq!(
            read_one(&long, 64).await.unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        // The limit holds for the sum of the fragments.
        let sum = [&header(false, 1)[..], b"a", &header(true, REPLY_BYTES_MAX)].concat();
        assert_eq!(
            read_one(&sum, 64).await.unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[tokio::test]
    async fn an_empty_fragment_is_refused() {
        let error = read_one(b"\0\0\0\0\x80\0\0\x01a", 64).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn segments_are_written_whole_through_a_narrow_pipe() {
        let (mut near, mut far) = tokio::io::duplex(3);
        let segments = ["abcd", "e", "fghijkl"].map(|text| Bytes::from_static(text.as_bytes()));
        let sender = tokio::spawn(async move { write_all(&mut near, &segments).await });
        let mut received = String::new();
        far.read_to_string(&mut received).await.unwrap();
        sender.await.unwrap().unwrap();
        assert_eq!(received, "abcdefghijkl");
    }
}
