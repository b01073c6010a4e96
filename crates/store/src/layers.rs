//! One ordered key space of three layers: what changed since the last freeze (`active`), what is being
//! checkpointed (`frozen`), and what is durable (`base`). The upper layer wins; an absent value in a
//! layer says that the row is removed.
//!
//! Changes stay in memory until their checkpoint is durable because the metadata on disk must be one
//! checkpoint exactly: were rows written through, a crash would leave a mixture of positions that
//! replaying the log cannot repair. It also makes a change cost no disk access at all.
//!
//! Invariants
//! - `frozen` never changes and goes only after `base` holds all of it.
//! - Scans visit keys in order, each once, removed ones never.
//!
//! It must not know what rows mean.

use crate::base::{self, View};
use crate::keys;
use crate::row_key::RowKey;
use bytes::Bytes;
use haven_fs::FsResult;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// Changed rows in memory; `None` removes.
pub type Rows = BTreeMap<RowKey, Option<Bytes>>;

/// Memory that a row takes besides its bytes: its place in the tree, two allocations.
const ROW_OVERHEAD_BYTES: usize = 112;

/// Told of a row's key and value; says whether to go on.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> FsResult<ControlFlow<()>> + 'a;

/// The three layers.
pub struct Layers {
    active: Rows,
    active_bytes: usize,
    frozen: Option<Arc<Rows>>,
    frozen_bytes: usize,
    base: View,
}

impl Layers {
    /// Nothing but durable rows.
    pub fn new(base: View) -> Self {
        Self {
            active: Rows::new(),
            active_bytes: 0,
            frozen: None,
            frozen_bytes: 0,
            base,
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> FsResult<Option<Bytes>> {
        if let Some(value) = self.active.get(key) {
            return Ok(value.clone());
        }
        if let Some(value) = self.frozen.as_ref().and_then(|frozen| frozen.get(key)) {
            return Ok(value.clone());
        }
        base::get(&self.base, key)
    }

    /// What `read` makes of the value of `key`, without copying it first.
    pub fn read<T>(
        &self,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> FsResult<T>,
    ) -> FsResult<Option<T>> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.get(key));
        match self.active.get(key).or_else(frozen) {
            Some(value) => value.as_deref().map(read).transpose(),
            None => base::read(&self.base, key, read),
        }
    }

    /// The durable value of `key`.
    pub fn get_durable(&self, key: &[u8]) -> FsResult<Option<Bytes>> {
        base::get(&self.base, key)
    }

    /// Sets a row.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) {
        self.change(RowKey::from(key.as_ref()), Some(value.into()));
    }

    /// Removes a row.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) {
        self.change(RowKey::from(key.as_ref()), None);
    }

    /// About how much memory the rows take that are not durable yet.
    pub fn pending_bytes(&self) -> usize {
        self.active_bytes + self.frozen_bytes
    }

    fn change(&mut self, key: RowKey, value: Option<Bytes>) {
        let value_bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let key_bytes = key.len();
        self.active_bytes += value_bytes(&value);
        match self.active.insert(key, value) {
            Some(old) => self.active_bytes -= value_bytes(&old),
            None => self.active_bytes += key_bytes + ROW_OVERHEAD_BYTES,
        }
    }

    /// Whether nothing changed since the last freeze.
    pub fn is_clean(&self) -> bool {
        self.active.is_empty()
    }

    /// Whether a frozen layer exists.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Freezes the active layer. There must be no frozen one.
    pub fn freeze(&mut self) -> Arc<Rows> {
        debug_assert!(
            self.frozen.is_none(),
            "a frozen layer must become durable before the next"
        );
        let frozen = Arc::new(std::mem::take(&mut self.active));
        self.frozen_bytes = std::mem::take(&mut self.active_bytes);
        self.frozen = Some(Arc::clone(&frozen));
        frozen
    }

    /// Drops the frozen layer: `base` is a view that holds it.
    pub fn thaw(&mut self, base: View) {
        self.base = base;
        self.frozen = None;
        self.frozen_bytes = 0;
    }

    /// Visits the rows whose keys start with `prefix`, see [`Layers::scan`].
    pub fn scan_prefix(&self, prefix: &[u8], visit: &mut Visitor<'_>) -> FsResult<bool> {
        let end = keys::after_prefix(prefix);
        self.scan(prefix, end.as_deref(), visit)
    }

    /// Visits the rows from `from` on and before `end` in key order until the visitor breaks. Returns
    /// whether it visited all of them.
    pub fn scan(&self, from: &[u8], end: Option<&[u8]>, visit: &mut Visitor<'_>) -> FsResult<bool> {
        if end.is_some_and(|end| end <= from) {
            return Ok(true);
        }
        let bounds = (
            Bound::Included(from),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let empty = Rows::new();
        let mut active = self.active.range::<[u8], _>(bounds);
        let mut frozen = self
            .frozen
            .as_deref()
            .unwrap_or(&empty)
            .range::<[u8], _>(bounds);
        let mut durable = base::range(&self.base, bounds.0, bounds.1)?;

        let mut head_active = active.next();
        let mut head_frozen = frozen.next();
        let mut head_durable = base::next(&mut durable)?;
        loop {
            let in_active = head_active.map(|(key, _)| &key[..]);
            let in_frozen = head_frozen.map(|(key, _)| &key[..]);
            let in_durable = head_durable.as_ref().map(|(key, _)| key.value());
            let Some(key) = [in_active, in_frozen, in_durable]
                .into_iter()
                .flatten()
                .min()
            else {
                return Ok(true);
            };
            let at = [in_active, in_frozen, in_durable].map(|head| head == Some(key));
            let value = match at {
                [true, ..] => head_active.and_then(|(_, value)| value.as_deref()),
                [_, true, _] => head_frozen.and_then(|(_, value)| value.as_deref()),
                _ => head_durable.as_ref().map(|(_, value)| value.value()),
            };
            if let Some(value) = value
                && visit(key, value)?.is_break()
            {
                return Ok(false);
            }
            if at[0] {
                head_active = active.next();
            }
            if at[1] {
                head_frozen = frozen.next();
            }
            if at[2] {
                head_durable = base::next(&mut durable)?;
            }
        }
    }
}
