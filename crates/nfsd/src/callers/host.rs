//! The connections of one address, as far as one may be the successor of another.

use crate::over::RequestKey;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Keys remembered for one address.
pub(super) const REMEMBERED_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Host {
    open: BTreeSet<u64>,
    /// When the newest connection began.
    newest: u64,
    /// Connections whose client may have given them up for one that began later (7).
    unproven: BTreeSet<u64>,
    /// Keys of changes over connections that have an unproven older one, and when the connection began (9).
    remembered: BTreeMap<RequestKey, u64>,
    order: VecDeque<RequestKey>,
    /// When the newest of those began whose keys had to be forgotten.
    forgotten: u64,
}

impl Host {
    pub(super) fn opened(&mut self, line: u64, now: u64) {
        self.unproven.extend(&self.open);
        self.open.insert(line);
        self.newest = self.newest.max(now);
    }

    pub(super) fn ended(&mut self, line: u64) {
        self.open.remove(&line);
        self.unproven.remove(&line);
        self.forget();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The client of a connection held it at that time.
    pub(super) fn proven(&mut self, line: u64, held_at: u64) {
        if held_at > self.newest && self.unproven.remove(&line) {
            self.forget();
        }
    }

    /// A change over a connection that began at `opened` is over: an old copy of it may come over an older connection.
    pub(super) fn remember(&mut self, line: u64, opened: u64, key: RequestKey) {
        if self.unproven.range(..line).next().is_none() {
            return;
        }
        if let Some(before) = self.remembered.get_mut(&key) {
            *before = opened.max(*before);
            return;
        }
        self.remembered.insert(key, opened);
        self.order.push_back(key);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(opened) = self.remembered.remove(&oldest)
        {
            self.forgotten = self.forgotten.max(opened);
        }
    }

    /// When the client must have held a connection for a change over it to be no old copy; 0: it is none.
    pub(super) fn proof_wanted(&self, line: u64, key: &RequestKey, held_at: u64) -> u64 {
        if !self.unproven.contains(&line) {
            return 0;
        }
        let remembered = self.remembered.get(key).copied().unwrap_or(0);
        let wanted = remembered.max(self.forgotten);
        if wanted >= held_at { wanted } else { 0 }
    }

    /// Without unproven connections there are no old copies.
    fn forget(&mut self) {
        if self.unproven.is_empty() {
            self.remembered.clear();
            self.order.clear();
            self.forgotten = 0;
        }
    }
}
