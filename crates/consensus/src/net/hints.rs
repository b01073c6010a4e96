//! Hints: soft state that nodes tell each other. Best effort, the newest wins, nothing is kept on disk.
//! Beside hints, nodes tell what they keep for good, so that a witness knows what nobody needs from it.
//!
//! Each peer has a connection of its own. A peer that was away gets the newest hint when it is back.
//!
//! It must not know what hints say.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::net::frame::WireError;
use crate::net::link;
use crate::net::link::Link;
use crate::net::link::Place;
use crate::net::message;
use crate::net::message::Kept;
use crate::net::message::Purpose;
use crate::net::message::SMALL_BODY_MAX;
use crate::net::posts::Posts;

/// So many posts go at a time: then hints may pass.
const POSTS_AT_ONCE: usize = 16;

/// The newest hint to peers and the newest from each of them (the members bound their number).
pub(crate) struct Board {
    ours: watch::Sender<Option<Bytes>>,
    theirs: watch::Sender<BTreeMap<u64, Bytes>>,
    our_kept: watch::Sender<Option<Kept>>,
    their_kept: watch::Sender<BTreeMap<u64, Kept>>,
    pub(crate) posts: Posts,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            ours: watch::Sender::new(None),
            theirs: watch::Sender::new(BTreeMap::new()),
            our_kept: watch::Sender::new(None),
            their_kept: watch::Sender::new(BTreeMap::new()),
            posts: Posts::default(),
        }
    }

    /// A hint came from a peer.
    pub(crate) fn put(&self, from: u64, hint: Bytes) {
        self.theirs.send_modify(|all| drop(all.insert(from, hint)));
    }

    /// Tells all peers.
    pub(crate) fn broadcast(&self, hint: Bytes) {
        self.ours.send_replace(Some(hint));
    }

    /// A peer said what it keeps for good.
    pub(crate) fn put_kept(&self, from: u64, kept: Kept) {
        self.their_kept
            .send_modify(|all| _ = all.insert(from, kept));
    }

    /// Tells all peers what this node keeps for good, if that is news.
    pub(crate) fn tell_kept(&self, kept: Kept) {
        self.our_kept.send_if_modified(|told| {
            let news = *told != Some(kept);
            *told = Some(kept);
            news
        });
    }

    /// What each peer that was heard said last.
    pub(crate) fn kept(&self) -> BTreeMap<u64, Kept> {
        self.their_kept.borrow().clone()
    }

    /// Whether a peer has said that it is a witness.
    pub(crate) fn is_witness(&self, peer: u64) -> bool {
        self.their_kept
            .borrow()
            .get(&peer)
            .is_some_and(|kept| kept.witness)
    }

    pub(crate) fn received(&self) -> watch::Receiver<BTreeMap<u64, Bytes>> {
        self.theirs.subscribe()
    }
}

/// Keeps `peer` told until aborted.
pub(crate) async fn tell(place: Arc<Place>, board: Arc<Board>, peer: u64) {
    let mut ours = board.ours.subscribe();
    let mut kept = board.our_kept.subscribe();
    let mut posted = board.posts.posted();
    // Nothing to tell yet: no connection either.
    let something = tokio::select! {
        hint = ours.wait_for(Option::is_some) => hint.is_ok(),
        kept = kept.wait_for(Option::is_some) => kept.is_ok(),
        posted = posted.wait_for(|number| *number > 0) => posted.is_ok(),
    };
    if !something {
        return;
    }
    loop {
        let sources = (&mut ours, &mut kept, &mut posted);
        if let Err(error) = tell_on_one_link(&place, &board, sources, peer).await {
            tracing::debug!(peer, "hints to node {peer}: {error}");
        }
    }
}

/// What this node has to tell: hints, what it keeps, that there are posts.
type Sources<'a> = (
    &'a mut watch::Receiver<Option<Bytes>>,
    &'a mut watch::Receiver<Option<Kept>>,
    &'a mut watch::Receiver<u64>,
);

async fn tell_on_one_link(
    place: &Place,
    board: &Board,
    (ours, kept, posted): Sources<'_>,
    peer: u64,
) -> Result<(), WireError> {
    let Link {
        mut reader,
        mut writer,
    } = link::connect(place, peer, Purpose::Hints, SMALL_BODY_MAX).await?;
    ours.mark_changed();
    kept.mark_changed();
    posted.mark_changed();
    let mut last_post = 0;
    loop {
        tokio::select! {
            biased;
            () = place.until_cut(peer) => return Err(WireError::Closed),
            // What was sent on this link meanwhile may be long in coming.
            () = place.pacer.until_back(peer) => return Ok(()),
            changed = ours.changed() => {
                changed.map_err(|_| WireError::Closed)?;
                let hint = ours.borrow_and_update().clone();
                if let Some(hint) = hint {
                    writer.send(message::hint(hint)).await?;
                }
            }
            changed = kept.changed() => {
                changed.map_err(|_| WireError::Closed)?;
                let kept = *kept.borrow_and_update();
                if let Some(kept) = kept {
                    writer.send(message::kept(kept)).await?;
                }
            }
            changed = posted.changed() => {
                changed.map_err(|_| WireError::Closed)?;
                posted.mark_unchanged();
                let some = board.posts.after(last_post, POSTS_AT_ONCE);
                if some.len() == POSTS_AT_ONCE {
                    posted.mark_changed();
                }
                for (number, topic, bytes) in some {
                    writer.send(message::post(topic, bytes)).await?;
                    last_post = number;
                }
            }
            // The peer never answers: this returns when the connection ends.
            ended = reader.next() => return ended.map(drop),
        }
    }
}
