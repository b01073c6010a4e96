//! One client connection: record marking (RFC 5531 section 11) in, replies out.

use crate::{Handler, Server, Verdict};
use bytes::{Bytes, BytesMut};
use haven_rpc::record::{self, FragmentHeader};
use haven_xdr::Gather;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

/// Bytes asked from the socket at a time while nothing larger is known to come.
const READ_BYTES: usize = 16 << 10;
/// Most fragments in a record: clients send one; a peer that sends many is stalling.
const FRAGMENTS_MAX: usize = 64;
/// How often a reply that may not leave is looked at again.
const ANSWER_POLL: std::time::Duration = std::time::Duration::from_millis(2);
/// Most slices in one vectored write (the kernel takes 1,024; few replies have more than three).
const SLICES_MAX: usize = 64;

/// Serves the connection until either side ends it or the gate hangs up.
pub(crate) async fn serve<H: Handler>(
    server: &Arc<Server<H>>,
    stream: TcpStream,
    peer: SocketAddr,
    mut hang_ups: watch::Receiver<u64>,
) {
    let mut stream = Disconnecting(stream);
    let (read, write) = stream.0.split();
    // As many places as requests in flight: a finished request never waits for the writer.
    let (replies, queue) = mpsc::channel(server.limits.inflight_per_connection_max);
    tokio::select! {
        _ = hang_ups.changed() => debug!(%peer, "hung up"),
        end = read_requests(server, read, peer, replies) => tell_end(server, peer, &end),
        end = write_replies(server, write, queue) => {
            if let Err(end) = end {
                tell_end(server, peer, &end);
            }
        }
    }
}

/// Says why a connection ended: aloud, but rarely, if its peer misbehaved.
fn tell_end<H>(server: &Server<H>, peer: SocketAddr, why: &io::Error) {
    use io::ErrorKind::{InvalidData, TimedOut};
    if !matches!(why.kind(), InvalidData | TimedOut) {
        debug!(%peer, %why, "connection ended");
    } else if let Some(left_out) = server.complaints.misbehaved.speak() {
        warn!(%peer, %why, left_out, "closed a connection whose client misbehaves");
    }
}

/// Disconnects when dropped. Closing would not do: another process may hold the socket too, so that a
/// connection outlives ours.
struct Disconnecting(TcpStream);

impl Drop for Disconnecting {
    fn drop(&mut self) {
        // One that is over already needs nothing.
        let _ = rustix::net::connect_unspec(&self.0);
    }
}

async fn read_requests<H: Handler>(
    server: &Arc<Server<H>>,
    socket: ReadHalf<'_>,
    peer: SocketAddr,
    replies: mpsc::Sender<Gather>,
) -> io::Error {
    let mut reader = Reader {
        socket,
        buffer: BytesMut::new(),
    };
    let places = Arc::new(Semaphore::new(server.limits.inflight_per_connection_max));
    let (quit, mut quitting) = mpsc::channel::<()>(1);
    loop {
        let record = tokio::select! {
            record = reader.record(server) => record,
            () = idle(server, &places) => {
                debug!(%peer, "closed a connection that was not used");
                return io::ErrorKind::ConnectionAborted.into();
            }
            _ = quitting.recv() => {
                return io::Error::new(io::ErrorKind::InvalidData, "the peer does not speak ONC RPC");
            }
        };
        let (record, memory) = match record {
            Ok(whole) => whole,
            Err(why) => return why,
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            continue;
        };
        let (server, replies, quit) = (Arc::clone(server), replies.clone(), quit.clone());
        tokio::spawn(async move {
            match answer(&server, peer, record).await {
                Verdict::Reply(reply) => drop(replies.send(reply).await),
                Verdict::Silent => {}
                Verdict::HangUp => drop(quit.try_send(())),
            }
            drop((place, memory));
        });
    }
}

/// Returns when the connection was without a request for as long as allowed.
async fn idle<H>(server: &Server<H>, places: &Semaphore) {
    let Some(limit) = server.limits.idle else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(limit).await;
        if places.available_permits() == server.limits.inflight_per_connection_max {
            return;
        }
    }
}

async fn answer<H: Handler>(server: &Server<H>, peer: SocketAddr, record: Bytes) -> Verdict {
    let Some(pass) = server.gate.enter().await else {
        return Verdict::Silent;
    };
    // When the gate closes, the answer is no longer ours to give, and the request must not live on here: the
    // hang-up that follows every closing makes the client ask elsewhere.
    tokio::select! {
        biased;
        () = pass.spoiled() => Verdict::Silent,
        verdict = server.handler.handle(peer, record) => verdict,
    }
}

async fn write_replies<H: Handler>(
    server: &Server<H>,
    mut socket: WriteHalf<'_>,
    mut queue: mpsc::Receiver<Gather>,
) -> io::Result<()> {
    while let Some(reply) = queue.recv().await {
        // An answer is never dropped on a living connection: the client would wait for it. Either this
        // node may answer again soon, or it loses leadership and hangs up.
        while !server.handler.may_answer() {
            tokio::time::sleep(ANSWER_POLL).await;
        }
        timeout(
            server.limits.patience,
            write_all(&mut socket, &record::frame(reply)),
        )
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the peer does not read"))??;
    }
    Ok(())
}

/// Writes every segment, without joining them.
async fn write_all(socket: &mut WriteHalf<'_>, reply: &Gather) -> io::Result<()> {
    let segments = reply.segments();
    let (mut index, mut offset) = (0, 0);
    while index < segments.len() {
        let slices: Vec<IoSlice<'_>> = segments[index..]
            .iter()
            .take(SLICES_MAX)
            .enumerate()
            .map(|(i, s)| IoSlice::new(if i == 0 { &s[offset..] } else { s }))
            .collect();
        let mut written = socket.write_vectored(&slices).await?;
        if written == 0 && slices.iter().any(|s| !s.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while index < segments.len() && written >= segments[index].len() - offset {
            written -= segments[index].len() - offset;
            (index, offset) = (index + 1, 0);
        }
        offset += written;
    }
    Ok(())
}

/// Reassembles records from the byte stream.
struct Reader<'a> {
    socket: ReadHalf<'a>,
    buffer: BytesMut,
}

impl Reader<'_> {
    /// The next whole record with the memory it is accounted for. Cancel-safe: what was read stays in
    /// the buffer.
    async fn record<H>(&mut self, server: &Server<H>) -> io::Result<(Bytes, OwnedSemaphorePermit)> {
        self.fill(record::HEADER_BYTES).await?;
        timeout(server.limits.patience, self.rest(server))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "a record took too long"))?
    }

    async fn rest<H>(&mut self, server: &Server<H>) -> io::Result<(Bytes, OwnedSemaphorePermit)> {
        let bytes_max = server.limits.record_bytes_max;
        let mut memory: Option<OwnedSemaphorePermit> = None;
        // Look at the marks without consuming: only a whole record leaves the buffer.
        let (mut at, mut total) = (0, 0);
        let mut parts: Vec<(usize, usize)> = Vec::new();
        loop {
            self.fill(at + record::HEADER_BYTES).await?;
            let mark = [
                self.buffer[at],
                self.buffer[at + 1],
                self.buffer[at + 2],
                self.buffer[at + 3],
            ];
            let header = FragmentHeader::parse(mark);
            let length = header.len as usize;
            total += length;
            if total > bytes_max || parts.len() == FRAGMENTS_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a record of more than {bytes_max} bytes or {FRAGMENTS_MAX} fragments"),
                ));
            }
            // Before the bytes are read: what is not accounted for is not taken in.
            let bytes = u32::try_from(length.max(1)).unwrap_or(u32::MAX);
            let permit = Arc::clone(&server.memory).acquire_many_owned(bytes).await;
            let permit = permit.map_err(|_| io::Error::other("the server is going away"))?;
            match &mut memory {
                None => memory = Some(permit),
                Some(all) => all.merge(permit),
            }
            at += record::HEADER_BYTES;
            self.fill(at + length).await?;
            parts.push((at, length));
            at += length;
            if header.last {
                break;
            }
        }
        let Some(memory) = memory else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let whole = self.buffer.split_to(at).freeze();
        let record = match parts.as_slice() {
            [(start, length)] => whole.slice(*start..start + length),
            many => {
                let mut joined = BytesMut::with_capacity(total);
                for (start, length) in many {
                    joined.extend_from_slice(&whole[*start..start + length]);
                }
                joined.freeze()
            }
        };
        Ok((record, memory))
    }

    /// Reads until the buffer holds `want` bytes.
    async fn fill(&mut self, want: usize) -> io::Result<()> {
        while self.buffer.len() < want {
            let missing = want - self.buffer.len();
            self.buffer.reserve(missing.max(READ_BYTES));
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}
