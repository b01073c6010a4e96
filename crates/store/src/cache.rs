//! A bounded table of what was decoded lately, for reading again without looking into the rows.
//!
//! Entries are in two halves: what is used goes to the young one; when that is full, the old one is
//! forgotten and the young one becomes old. So at most the given number stays, and what is used often
//! stays, without a list to keep in order.
//!
//! Invariants
//! - At most as many entries as [`Cache::new`] was told (rounded up to full shards).
//! - A hit is what was put last under its key; keeping that equal to the rows is the owner's: every change
//!   of a row passes through [`Cache::put`] or [`Cache::remove`], and a replaced state through
//!   [`Cache::clear`].
//!
//! It must not know what it holds.

use parking_lot::{Mutex, MutexGuard};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

/// Parts with a lock of their own, so that concurrent queries rarely meet.
const SHARDS: usize = 16;

/// Fixed keys: which entries collide says nothing that matters.
type Hasher = BuildHasherDefault<DefaultHasher>;

/// See the module's head comment.
pub struct Cache<K, V> {
    shards: [Mutex<Shard<K, V>>; SHARDS],
    hasher: Hasher,
    half_max: usize,
}

struct Shard<K, V> {
    young: HashMap<K, V, Hasher>,
    old: HashMap<K, V, Hasher>,
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
        }
    }
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    /// An empty cache for at most about `entries_max` entries.
    pub fn new(entries_max: usize) -> Self {
        Self {
            shards: Default::default(),
            hasher: Hasher::default(),
            half_max: entries_max.div_ceil(2 * SHARDS).max(1),
        }
    }

    /// What is kept under `key`.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let mut shard = self.shard(key);
        if let Some(value) = shard.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = shard.old.remove_entry(key)?;
        let found = value.clone();
        self.keep(&mut shard, key, value);
        Some(found)
    }

    /// Keeps `value` under `key`, in place of what was there.
    pub fn put(&self, key: K, value: V) {
        let mut shard = self.shard(&key);
        shard.old.remove(&key);
        self.keep(&mut shard, key, value);
    }

    /// Forgets what is under `key`.
    pub fn remove<Q: Hash + Eq + ?Sized>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let mut shard = self.shard(key);
        shard.young.remove(key);
        shard.old.remove(key);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for shard in &self.shards {
            *shard.lock() = Shard::default();
        }
    }

    fn keep(&self, shard: &mut Shard<K, V>, key: K, value: V) {
        if shard.young.len() >= self.half_max && !shard.young.contains_key(&key) {
            // The old half's memory is used again.
            std::mem::swap(&mut shard.young, &mut shard.old);
            shard.young.clear();
        }
        shard.young.insert(key, value);
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, Shard<K, V>> {
        // The high bits: a shard's own table goes by the low ones.
        let hash = self.hasher.hash_one(key);
        self.shards[(hash >> 60) as usize % SHARDS].lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_is_used_and_no_more_than_its_bound() {
        let cache = Cache::new(64 * SHARDS);
        for number in 0..10_000_u64 {
            cache.put(number, number + 1);
            assert_eq!(cache.get(&0), Some(1), "used all the time");
            assert_eq!(cache.get(&number), Some(number + 1));
        }
        let kept = (0..10_000).filter(|key| cache.get(key).is_some()).count();
        assert!((100..=64 * SHARDS).contains(&kept), "{kept}");
    }

    #[test]
    fn the_last_value_counts_and_what_was_removed_is_gone() {
        let cache: Cache<Vec<u8>, u32> = Cache::new(2 * SHARDS);
        for round in 0..50 {
            for name in [&b"a"[..], b"b", b"c", b"d"] {
                cache.put(name.to_vec(), round);
                assert_eq!(cache.get(name), Some(round));
            }
            cache.remove(&b"b"[..]);
            assert_eq!(cache.get(&b"b"[..]), None);
        }
        cache.put(b"a".to_vec(), 7);
        cache.clear();
        assert_eq!(cache.get(&b"a"[..]), None);
    }
}
