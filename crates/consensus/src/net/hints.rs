//! Hints: soft state that nodes tell each other. Best effort, the newest wins, nothing is kept on disk.
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
use crate::net::message::Purpose;
use crate::net::message::SMALL_BODY_MAX;

/// The newest hint to peers and the newest from each of them (the voters bound their number).
pub(crate) struct Board {
    ours: watch::Sender<Option<Bytes>>,
    theirs: watch::Sender<BTreeMap<u64, Bytes>>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            ours: watch::Sender::new(None),
            theirs: watch::Sender::new(BTreeMap::new()),
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

    pub(crate) fn received(&self) -> watch::Receiver<BTreeMap<u64, Bytes>> {
        self.theirs.subscribe()
    }
}

/// Keeps `peer` told until aborted.
pub(crate) async fn tell(place: Arc<Place>, board: Arc<Board>, peer: u64) {
    let mut ours = board.ours.subscribe();
    // Nothing to tell yet: no connection either.
    if ours.wait_for(Option::is_some).await.is_err() {
        return;
    }
    loop {
        if let Err(error) = tell_on_one_link(&place, &mut ours, peer).await {
            tracing::debug!(peer, "hints to node {peer}: {error}");
        }
    }
}

async fn tell_on_one_link(
    place: &Place,
    ours: &mut watch::Receiver<Option<Bytes>>,
    peer: u64,
) -> Result<(), WireError> {
    let Link {
        mut reader,
        mut writer,
    } = link::connect(place, peer, Purpose::Hints, SMALL_BODY_MAX).await?;
    ours.mark_changed();
    loop {
        tokio::select! {
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
            // The peer never answers: this returns when the connection ends.
            ended = reader.next() => return ended.map(drop),
        }
    }
}
