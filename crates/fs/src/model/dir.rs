//! A directory of the model: entries by name and by cookie.
//!
//! Invariants: both maps hold the same entries; a cookie is given out once and never again.

use crate::rules::COOKIE_FIRST;
use crate::{Cookie, Ino};
use std::collections::BTreeMap;

/// A directory's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dir {
    /// What `..` is.
    pub parent: Ino,
    /// The next cookie to give out.
    pub next_cookie: u64,
    by_name: BTreeMap<Vec<u8>, (Cookie, Ino)>,
    by_cookie: BTreeMap<Cookie, (Vec<u8>, Ino)>,
}

impl Dir {
    /// An empty directory.
    pub fn new(parent: Ino) -> Self {
        Self {
            parent,
            next_cookie: COOKIE_FIRST,
            by_name: BTreeMap::new(),
            by_cookie: BTreeMap::new(),
        }
    }

    /// The inode that `name` is.
    pub fn get(&self, name: &[u8]) -> Option<Ino> {
        self.by_name.get(name).map(|&(_, ino)| ino)
    }

    /// Adds an entry under a fresh cookie, in place of one of the same name.
    pub fn insert(&mut self, name: &[u8], ino: Ino) {
        self.remove(name);
        let cookie = Cookie(self.next_cookie);
        self.next_cookie += 1;
        self.by_name.insert(name.to_vec(), (cookie, ino));
        self.by_cookie.insert(cookie, (name.to_vec(), ino));
    }

    /// Removes an entry, if it is there.
    pub fn remove(&mut self, name: &[u8]) {
        if let Some((cookie, _)) = self.by_name.remove(name) {
            self.by_cookie.remove(&cookie);
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.by_name.len() as u64
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The entries after `cookie`, in cookie order.
    pub fn after(&self, cookie: Cookie) -> impl Iterator<Item = (Cookie, &[u8], Ino)> {
        let from = Cookie(cookie.0.saturating_add(1));
        self.by_cookie
            .range(from..)
            .map(|(&cookie, (name, ino))| (cookie, name.as_slice(), *ino))
    }
}
