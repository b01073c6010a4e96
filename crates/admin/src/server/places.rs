//! Who may be connected: so many at a time. When all places are taken and somebody comes, the connection whose peer has
//! been idle for longest gives way, once that is [`GRACE`]: one that says nothing, or does not take its answer, keeps
//! nobody out.
//!
//! Invariants
//! - A connection is idle while it waits for its peer; while its question is being answered it is not, and keeps its place.
//! - Who finds all others being answered, or just at it, waits for one of them.
//! - A peer that is idle for [`PEER_PATIENCE`] is hung up on, whether somebody waits or not.
//!
//! It must not know what is asked.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// So long a peer may be idle though others wait: it may have come with them, and was not heard yet.
pub(super) const GRACE: Duration = Duration::from_millis(200);
/// How long a peer may neither send nor take a byte while it is waited for.
pub(super) const PEER_PATIENCE: Duration = Duration::from_secs(30);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection is at.
pub(super) struct Activity {
    state: Mutex<State>,
    /// Told when it may have become idle.
    eased: Arc<Notify>,
}

struct State {
    /// The last byte that came or went, or the last answer.
    moved: Instant,
    answering: bool,
}

impl Activity {
    pub(super) fn new(eased: Arc<Notify>) -> Self {
        let state = State {
            moved: Instant::now(),
            answering: false,
        };
        Self {
            state: Mutex::new(state),
            eased,
        }
    }

    /// Since when it has been idle, if it is.
    fn idle_since(&self) -> Option<Instant> {
        let state = locked(&self.state);
        (!state.answering).then_some(state.moved)
    }

    fn moved(&self) {
        locked(&self.state).moved = Instant::now();
    }

    /// A question is being answered until what this gives is dropped.
    pub(super) fn answering(&self) -> Answering<'_> {
        locked(&self.state).answering = true;
        Answering(self)
    }

    /// Returns when the peer has been idle for too long.
    pub(super) async fn stalled(&self) {
        loop {
            let due = self.idle_since().unwrap_or_else(Instant::now) + PEER_PATIENCE;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// See [`Activity::answering`].
pub(super) struct Answering<'a>(&'a Activity);

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        {
            let mut state = locked(&self.0.state);
            state.answering = false;
            state.moved = Instant::now();
        }
        self.0.eased.notify_one();
    }
}

/// A connection whose bytes are noted.
pub(super) struct Watched<Io> {
    pub(super) io: Io,
    pub(super) activity: Arc<Activity>,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Watched<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.moved();
        }
        read
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Watched<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, bytes);
        if matches!(wrote, Poll::Ready(Ok(n)) if n > 0) {
            self.activity.moved();
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The places of a listener.
pub(super) struct Places {
    max: usize,
    taken: Mutex<Taken>,
    /// A place became free, or its connection may have become idle.
    eased: Arc<Notify>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    seats: BTreeMap<u64, Seat>,
}

struct Seat {
    activity: Arc<Activity>,
    give_way: Arc<Notify>,
}

/// A place that is taken until this is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    pub(super) activity: Arc<Activity>,
    give_way: Arc<Notify>,
}

impl Places {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: Mutex::default(),
            eased: Arc::default(),
        })
    }

    /// Takes a place, be it that of another. Waits while nobody is to give way. One caller at a time.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            let due = match self.try_take() {
                Ok(place) => return place,
                Err(due) => due,
            };
            // A permit is kept for who is not waiting yet.
            let eased = self.eased.notified();
            match due {
                // Whether it was told or not, it looks again.
                Some(due) => _ = timeout_at(due, eased).await,
                None => eased.await,
            }
        }
    }

    /// Takes a place, or says when one will have been idle for long enough, if one is idle.
    fn try_take(self: &Arc<Self>) -> Result<Place, Option<Instant>> {
        let mut taken = locked(&self.taken);
        if taken.seats.len() >= self.max {
            let idle = |(number, seat): (&u64, &Seat)| {
                let since = seat.activity.idle_since()?;
                Some((since, *number))
            };
            let longest = taken.seats.iter().filter_map(idle).min();
            let (since, longest) = longest.ok_or(None)?;
            if since + GRACE > Instant::now() {
                return Err(Some(since + GRACE));
            }
            if let Some(seat) = taken.seats.remove(&longest) {
                seat.give_way.notify_one();
            }
        }
        let number = taken.next;
        taken.next += 1;
        let activity = Arc::new(Activity::new(Arc::clone(&self.eased)));
        let give_way = Arc::<Notify>::default();
        let seat = Seat {
            activity: Arc::clone(&activity),
            give_way: Arc::clone(&give_way),
        };
        taken.seats.insert(number, seat);
        Ok(Place {
            places: Arc::clone(self),
            number,
            activity,
            give_way,
        })
    }
}

impl Place {
    /// Returns when this one has given way to another.
    pub(super) async fn given_way(&self) {
        self.give_way.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.places.taken).seats.remove(&self.number);
        self.places.eased.notify_one();
    }
}
