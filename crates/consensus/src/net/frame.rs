//! Frames on a connection: `length u32 | crc32c u32 | body`, little endian.
//!
//! Invariants
//! - A length above the reader's limit is refused before memory is taken for it.
//! - Bodies are sent from where they lie (gathered writes; TLS encrypts from there) and received into one
//!   buffer that callers slice.
//! - `next` may be dropped at any point and called again: nothing received is lost.
//!
//! It must not know what bodies mean.

use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::time::Duration;

use bytes::Buf;
use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::codec::DecodeError;
use crate::net::link;

/// Length and checksum.
const HEADER_LEN: usize = 8;

/// Bytes asked of the socket at once when no long frame is under way.
const READ_STEP: usize = 64 << 10;

/// A peer that takes no bytes for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the peer closed the connection")]
    Closed,
    #[error("a frame of {len} bytes, where at most {max} are allowed")]
    TooLong { len: usize, max: usize },
    #[error("a frame with a wrong checksum")]
    Checksum,
    #[error("a message that does not decode: {0}")]
    Decode(#[from] DecodeError),
    #[error("an unexpected message of kind {0}")]
    Unexpected(u8),
    #[error("{0} took too long")]
    Timeout(&'static str),
    #[error("refused by the peer: {0}")]
    Refused(String),
    /// One of the two refuses the other, and trying again does not help.
    #[error("{0}")]
    Unfit(String),
    #[error("{0}")]
    Peer(&'static str),
}

impl WireError {
    /// Whether the peer's machine said that nobody listens there.
    pub(crate) fn is_refused_connection(&self) -> bool {
        matches!(self, Self::Io(why) if why.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// A body to be sent: a head of its own, then shared parts.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) head: BytesMut,
    pub(crate) parts: Vec<Bytes>,
}

impl Frame {
    pub(crate) fn of_kind(kind: u8) -> Self {
        let mut head = BytesMut::with_capacity(64);
        head.put_u8(kind);
        Self {
            head,
            parts: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum::<usize>() + self.head.len()
    }

    /// The frame as a gather list, header first.
    fn gather(self) -> Result<Gather, WireError> {
        let len = self.len();
        let mut sum = crc32c::crc32c(&self.head);
        for part in &self.parts {
            sum = crc32c::crc32c_append(sum, part);
        }
        let short = u32::try_from(len).map_err(|_| WireError::TooLong {
            len,
            max: u32::MAX as usize,
        })?;
        let mut header = BytesMut::with_capacity(HEADER_LEN);
        header.put_u32_le(short);
        header.put_u32_le(sum);
        let mut list = VecDeque::with_capacity(self.parts.len() + 2);
        list.push_back(header.freeze());
        list.push_back(self.head.freeze());
        list.extend(self.parts.into_iter().filter(|part| !part.is_empty()));
        Ok(Gather {
            list,
            left: len + HEADER_LEN,
        })
    }
}

/// A list of byte strings that empties from the front.
struct Gather {
    list: VecDeque<Bytes>,
    left: usize,
}

impl Buf for Gather {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.list.front().map_or(&[], |first| first)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for (slice, part) in slices.iter_mut().zip(&self.list) {
            *slice = IoSlice::new(part);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut count: usize) {
        self.left -= count;
        while let Some(first) = self.list.front_mut() {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.list.pop_front();
        }
    }
}

/// The sending side of a connection.
pub(crate) struct FrameWriter {
    stream: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    /// A frame was begun and not finished: nothing sensible can follow.
    torn: bool,
}

impl FrameWriter {
    pub(crate) fn new(stream: impl AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            torn: false,
        }
    }

    /// The stream, for something else than frames.
    pub(crate) fn into_stream(self) -> Box<dyn AsyncWrite + Send + Sync + Unpin> {
        self.stream
    }

    pub(crate) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Sends one frame. If the call fails or is dropped, the connection is torn.
    pub(crate) async fn send(&mut self, frame: Frame) -> Result<(), WireError> {
        let mut bytes = frame.gather()?;
        self.torn = true;
        let sending = async {
            self.stream.write_all_buf(&mut bytes).await?;
            // TLS may hold back the last record.
            self.stream.flush().await
        };
        timeout(WRITE_TIMEOUT, sending)
            .await
            .map_err(|_| WireError::Timeout("sending"))??;
        self.torn = false;
        Ok(())
    }
}

/// The receiving side of a connection.
pub(crate) struct FrameReader {
    stream: Box<dyn AsyncRead + Send + Sync + Unpin>,
    inbox: Inbox,
}

impl FrameReader {
    pub(crate) fn new(
        stream: impl AsyncRead + Send + Sync + Unpin + 'static,
        body_max: usize,
    ) -> Self {
        Self {
            stream: Box::new(stream),
            inbox: Inbox::new(body_max),
        }
    }

    /// Changes the limit, once it is known who is at the other end.
    pub(crate) fn set_body_max(&mut self, body_max: usize) {
        self.inbox.body_max = body_max;
    }

    /// What was received and not taken, and the stream, for something else than frames.
    pub(crate) fn into_stream(self) -> (BytesMut, Box<dyn AsyncRead + Send + Sync + Unpin>) {
        (self.inbox.buffer, self.stream)
    }

    /// The next body, never empty. `Closed` if the peer ended the connection between two frames.
    pub(crate) async fn next(&mut self) -> Result<Bytes, WireError> {
        loop {
            if let Some(body) = self.inbox.whole_frame()? {
                return Ok(body);
            }
            let buffer = self.inbox.room();
            match self.stream.read_buf(buffer).await {
                Ok(0) => {}
                Ok(_) => continue,
                // A process that dies says no farewell in TLS. Frames have lengths, so none is needed.
                Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(why) => return Err(link::io_error(why)),
            }
            return Err(match buffer.is_empty() {
                true => WireError::Closed,
                false => WireError::Io(io::ErrorKind::UnexpectedEof.into()),
            });
        }
    }
}

/// Received bytes that are not yet taken as frames.
///
/// What is received may be kept for long, entries in the log's memory above all, and is accounted for by its length.
/// So no body holds on to much more memory than its length: a small one is copied, and leaves the room to the next.
pub(crate) struct Inbox {
    buffer: BytesMut,
    body_max: usize,
}

impl Inbox {
    pub(crate) fn new(body_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            body_max,
        }
    }

    /// Where to put what comes next, with room for the rest of the frame under way.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        self.buffer.reserve(self.missing().max(READ_STEP));
        &mut self.buffer
    }

    fn body_len(&self) -> Option<usize> {
        self.buffer
            .first_chunk::<4>()
            .map(|len| u32::from_le_bytes(*len) as usize)
    }

    fn missing(&self) -> usize {
        let whole = HEADER_LEN + self.body_len().unwrap_or(0);
        whole.saturating_sub(self.buffer.len())
    }

    /// The next body, if all of it is there.
    pub(crate) fn whole_frame(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(len) = self.body_len() else {
            return Ok(None);
        };
        if len > self.body_max {
            return Err(WireError::TooLong {
                len,
                max: self.body_max,
            });
        }
        if len == 0 {
            return Err(WireError::Decode(DecodeError::Short));
        }
        if self.missing() > 0 {
            return Ok(None);
        }
        let mut header = self.buffer.split_to(HEADER_LEN);
        header.advance(4);
        let sum = header.get_u32_le();
        let body = self.take(len);
        if crc32c::crc32c(&body) != sum {
            return Err(WireError::Checksum);
        }
        Ok(Some(body))
    }

    fn take(&mut self, len: usize) -> Bytes {
        if len > READ_STEP {
            return self.buffer.split_to(len).freeze();
        }
        let body = Bytes::copy_from_slice(&self.buffer[..len]);
        self.buffer.advance(len);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::net::TcpStream;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(client, listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    #[test]
    fn a_small_body_keeps_no_more_memory_than_it_has_bytes() {
        let mut inbox = Inbox::new(8 << 20);
        let mut kept = Vec::new();
        for n in 0..100u8 {
            let body = [n; 100];
            let room = inbox.room();
            room.put_u32_le(100);
            room.put_u32_le(crc32c::crc32c(&body));
            room.put_slice(&body);
            kept.push(inbox.whole_frame().unwrap().unwrap());
        }
        let memory = kept.into_iter().map(|body| match body.try_into_mut() {
            Ok(alone) => alone.capacity(),
            Err(_) => READ_STEP,
        });
        assert_eq!(memory.sum::<usize>(), 100 * 100);
    }

    #[tokio::test]
    async fn frames_come_back_whole_and_in_order() {
        let (a, b) = pair().await;
        let mut writer = FrameWriter::new(a.into_split().1);
        let mut reader = FrameReader::new(b.into_split().0, 8 << 20);
        let big = Bytes::from(vec![5u8; 3 << 20]);
        let sending = async {
            for kind in [1u8, 2, 3] {
                let mut frame = Frame::of_kind(kind);
                frame.parts = vec![Bytes::from_static(b"abc"), Bytes::new(), big.clone()];
                writer.send(frame).await.unwrap();
            }
        };
        let receiving = async {
            for kind in [1u8, 2, 3] {
                let body = reader.next().await.unwrap();
                assert_eq!(body[0], kind);
                assert_eq!(&body[1..4], b"abc");
                assert_eq!(&body[4..], &big[..]);
            }
        };
        tokio::join!(sending, receiving);
        drop(writer);
        assert!(matches!(reader.next().await, Err(WireError::Closed)));
    }

    async fn raw(bytes: &[u8]) -> Result<Bytes, WireError> {
        let (mut a, b) = pair().await;
        a.write_all(bytes).await.unwrap();
        drop(a);
        FrameReader::new(b.into_split().0, 1000).next().await
    }

    #[tokio::test]
    async fn bad_frames_are_refused() {
        assert!(matches!(
            raw(&[0xff; 8]).await,
            Err(WireError::TooLong { .. })
        ));
        assert!(matches!(raw(&[0; 8]).await, Err(WireError::Decode(_))));
        assert!(matches!(
            raw(&[2, 0, 0, 0, 9, 9, 9, 9, 1, 1]).await,
            Err(WireError::Checksum)
        ));
        assert!(matches!(
            raw(&[2, 0, 0, 0, 9, 9]).await,
            Err(WireError::Io(_))
        ));
    }
}
