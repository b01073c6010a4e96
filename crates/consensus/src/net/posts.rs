//! Posts: soft state in many parts, told like hints. Each part has a topic of its own; of each topic the newest post wins.
//!
//! A peer gets the newest post of each topic, those of before its time included, and then what changes: one small part
//! for a small change, however much there is in all.
//!
//! Invariants
//! - Topics and the bytes of a post are bounded, so what waits for a peer, or from it to be taken, is bounded, too.
//! - A post that nobody has taken yet is replaced by a newer one of its topic.
//!
//! It must not know what posts say.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::options::BadPost;
use crate::options::POST_BYTES_MAX;
use crate::options::TOPICS_MAX;

/// Posts of this node, and those of others that were not taken yet.
#[derive(Default)]
pub(crate) struct Posts {
    ours: Mutex<Ours>,
    /// Rises with each post of this node.
    posted: watch::Sender<u64>,
    theirs: Mutex<BTreeMap<(u64, u16), Bytes>>,
    arrived: Notify,
}

#[derive(Default)]
struct Ours {
    newest: u64,
    /// With the number of the post.
    topics: BTreeMap<u16, (u64, Bytes)>,
    /// The same by that number.
    order: BTreeMap<u64, u16>,
}

/// A post from a peer: who, which topic, what it says.
pub type Post = (u64, u16, Bytes);

impl Posts {
    /// Tells all peers, if it is news.
    pub(crate) fn post(&self, topic: u16, bytes: Bytes) -> Result<(), BadPost> {
        if bytes.len() > POST_BYTES_MAX || topic >= TOPICS_MAX {
            let bytes = bytes.len();
            return Err(BadPost { topic, bytes });
        }
        let mut ours = self.ours.lock();
        if ours
            .topics
            .get(&topic)
            .is_some_and(|(_, known)| *known == bytes)
        {
            return Ok(());
        }
        ours.newest += 1;
        let number = ours.newest;
        if let Some((before, _)) = ours.topics.insert(topic, (number, bytes)) {
            ours.order.remove(&before);
        }
        ours.order.insert(number, topic);
        drop(ours);
        self.posted.send_replace(number);
        Ok(())
    }

    /// Changes with each post of this node.
    pub(crate) fn posted(&self) -> watch::Receiver<u64> {
        self.posted.subscribe()
    }

    /// The oldest posts after the one with this number, at most so many, with their numbers.
    pub(crate) fn after(&self, number: u64, max: usize) -> Vec<(u64, u16, Bytes)> {
        let ours = self.ours.lock();
        let news = ours.order.range(number + 1..).take(max);
        let post = |(number, topic): (&u64, &u16)| {
            let (_, bytes) = ours.topics.get(topic)?;
            Some((*number, *topic, bytes.clone()))
        };
        news.filter_map(post).collect()
    }

    /// A post came from a peer.
    pub(crate) fn put(&self, from: u64, topic: u16, bytes: Bytes) {
        self.theirs.lock().insert((from, topic), bytes);
        self.arrived.notify_one();
    }

    /// Waits for posts from peers, and takes them. One at a time may wait.
    pub(crate) async fn take(&self) -> Vec<Post> {
        loop {
            let all = std::mem::take(&mut *self.theirs.lock());
            if !all.is_empty() {
                let posts = all.into_iter();
                return posts.map(|((from, topic), b)| (from, topic, b)).collect();
            }
            self.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[tokio::test]
    async fn a_newcomer_gets_the_newest_of_each_topic_and_others_what_is_new() {
        let posts = Posts::default();
        for (topic, says) in [(3, "a"), (1, "b"), (3, "c"), (2, "d")] {
            posts.post(topic, text(says)).unwrap();
        }
        let all = posts.after(0, 9);
        let topics: Vec<_> = all
            .iter()
            .map(|(_, topic, says)| (*topic, says.clone()))
            .collect();
        assert_eq!(topics, [(1, text("b")), (3, text("c")), (2, text("d"))]);
        let two = posts.after(0, 2);
        assert_eq!(two, all[..2]);
        assert_eq!(posts.after(two[1].0, 9), all[2..]);
        let newest = all[2].0;
        posts.post(2, text("d")).unwrap();
        assert!(posts.after(newest, 9).is_empty(), "no news");
        posts.post(1, Bytes::new()).unwrap();
        assert_eq!(posts.after(newest, 9).len(), 1);
    }

    #[test]
    fn what_waits_is_bounded() {
        let posts = Posts::default();
        let long = Bytes::from(vec![1; POST_BYTES_MAX + 1]);
        assert!(posts.post(0, long).is_err());
        assert!(posts.post(TOPICS_MAX, Bytes::new()).is_err());
        for n in 0..10 {
            posts.post(7, Bytes::from(vec![n; POST_BYTES_MAX])).unwrap();
            posts.put(2, 7, Bytes::from(vec![n]));
        }
        assert_eq!(posts.after(0, 99).len(), 1);
        assert_eq!(posts.theirs.lock().len(), 1);
    }

    #[tokio::test]
    async fn posts_from_peers_are_taken_once() {
        let posts = Posts::default();
        posts.put(2, 7, text("old"));
        posts.put(2, 7, text("new"));
        posts.put(3, 7, text("other"));
        assert_eq!(
            posts.take().await,
            [(2, 7, text("new")), (3, 7, text("other"))]
        );
        let waiting = posts.take();
        tokio::pin!(waiting);
        let early = tokio::select! {
            biased;
            _ = &mut waiting => true,
            () = std::future::ready(()) => false,
        };
        assert!(!early);
        posts.put(2, 8, text("x"));
        assert_eq!(waiting.await.len(), 1);
    }
}
