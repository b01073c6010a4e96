//! Visits: connections of one member to another whose bytes are for others to read. After the hello the visited node
//! says whether it has time; from then on the connection is a plain stream in both directions.
//!
//! Invariants
//! - Only a member of whom this node's log knows visits it: more than for any other purpose is asked, because nothing
//!   that a cluster needs to get going is done by visits.
//! - At most [`VISITS_MAX`] at a time: all other connections of members find room beside them.
//! - A visit is served on the runtime of whoever serves it, encryption included: heartbeats and votes do not wait for
//!   it.
//!
//! It must not know what is said.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Host;
use crate::consensus::Consensus;
use crate::net::frame::WireError;
use crate::net::link;
use crate::net::link::Link;
use crate::net::link::Place;
use crate::net::message;
use crate::net::message::Purpose;
use crate::net::message::SMALL_BODY_MAX;

/// Visits that a node takes at a time.
pub const VISITS_MAX: usize = 16;

/// A member was not reached, or has no time: it has heard nothing of what was to be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreached(String);

/// Who is at home, and for how many.
pub(crate) struct Parlour {
    host: OnceLock<(Handle, Arc<dyn Host>)>,
    seats: Semaphore,
}

impl Default for Parlour {
    fn default() -> Self {
        Self {
            host: OnceLock::new(),
            seats: Semaphore::new(VISITS_MAX),
        }
    }
}

/// A stream between two members.
pub struct Visit {
    /// What came together with the last frame.
    early: BytesMut,
    read: Box<dyn AsyncRead + Send + Sync + Unpin>,
    write: Box<dyn AsyncWrite + Send + Sync + Unpin>,
}

impl From<Link> for Visit {
    fn from(link: Link) -> Self {
        let (early, read) = link.reader.into_stream();
        let write = link.writer.into_stream();
        Self { early, read, write }
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.read).poll_read(context, to);
        }
        let len = self.early.len().min(to.remaining());
        to.put_slice(&self.early[..len]);
        self.early.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}

/// Takes a visit of `from`, and returns when it is over. Dropping the call ends the visit.
pub(crate) async fn receive(place: &Place, from: u64, mut link: Link) -> Result<(), WireError> {
    let Some((runtime, host)) = place.parlour.host.get() else {
        let why = "this node is not ready yet; try again in a moment";
        return link.writer.send(message::refused(why)).await;
    };
    let Ok(_seat) = place.parlour.seats.try_acquire() else {
        let why = format!("it answers {VISITS_MAX} questions of other nodes already; try again");
        return link.writer.send(message::refused(&why)).await;
    };
    link.writer.send(message::taken()).await?;
    let mut serving = JoinSet::new();
    serving.spawn_on(host.receive(from, link.into()), runtime);
    // A host that panics ends this visit only.
    let _ = serving.join_next().await;
    Ok(())
}

async fn open(place: &Place, to: u64) -> Result<Visit, WireError> {
    // Without the pacer's pauses, which are for those who try again for ever: somebody waits for this.
    let mut link = link::connect_now(place, to, Purpose::Visit, SMALL_BODY_MAX).await?;
    place.pacer.welcomed(to);
    message::read_taken(&link.reader.next().await?)?;
    Ok(link.into())
}

impl<R: Send + 'static> Consensus<R> {
    /// Who receives other members from now on, on `runtime`; the first call counts.
    pub fn set_host(&self, runtime: Handle, host: Arc<dyn Host>) {
        if self.inner.place.parlour.host.set((runtime, host)).is_err() {
            tracing::debug!("there is a host already");
        }
    }

    /// Connects to another member's host. Its answers may be awaited on any runtime.
    ///
    /// # Errors
    /// [`Unreached`]; then nothing was said to it.
    pub async fn visit(&self, member: u64, patience: Duration) -> Result<Visit, Unreached> {
        let place = Arc::clone(&self.inner.place);
        let opening = async move { timeout(patience, open(&place, member)).await };
        match self.inner.handle.spawn(opening).await {
            Ok(Ok(Ok(visit))) => Ok(visit),
            Ok(Ok(Err(WireError::Refused(why)))) => Err(Unreached(why)),
            Ok(Ok(Err(why))) => Err(Unreached(why.to_string())),
            Ok(Err(_)) => Err(Unreached(format!("no answer within {patience:?}"))),
            Err(_) => Err(Unreached("consensus has stopped on this node".into())),
        }
    }
}
