//! The table of mounts: which client said that it mounted what (RFC 1813 appendix I: a hint, since
//! clients come and go without a word). It is replicated state: kept in the system table ([`MountRow`])
//! and mirrored in memory.
//!
//! Invariants
//! - Memory and table hold the same rows: loading gives an equal table.
//! - At most [`MOUNTS_PER_CLIENT_MAX`] rows per client and [`MOUNTS_MAX`] in all; the oldest go first.
//!
//! It must not know who may mount.

use crate::Fatal;
use crate::rows::{MountRow, PREFIX_MOUNT};
use bytes::Bytes;
use haven_fs::SystemTable;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::ControlFlow;

/// Most rows kept for one client.
pub const MOUNTS_PER_CLIENT_MAX: usize = 256;
/// Most rows kept in all.
pub const MOUNTS_MAX: usize = 4_096;

/// The table in memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    by_index: BTreeMap<u64, (IpAddr, Bytes)>,
    /// The log index of every row.
    by_client: BTreeMap<IpAddr, BTreeMap<Bytes, u64>>,
}

impl Mounts {
    /// What the system table holds.
    pub(crate) fn load(table: &impl SystemTable) -> Result<Self, Fatal> {
        let mut mounts = Self::default();
        let mut bad = None;
        let scanned = table.system_scan(PREFIX_MOUNT, &mut |key, value| match MountRow::decode(
            key, value,
        ) {
            Some(row) => {
                mounts.remember(row.index, row.client, row.path);
                ControlFlow::Continue(())
            }
            None => {
                bad = Some(key.to_vec());
                ControlFlow::Break(())
            }
        });
        scanned.map_err(|error| Fatal::from_fs("reading the mounts", &error))?;
        match bad {
            Some(key) => Err(Fatal(format!("stored mount {key:?} is malformed"))),
            None => Ok(mounts),
        }
    }

    /// Whether a client has mounted a path.
    pub(crate) fn has(&self, client: IpAddr, path: &Bytes) -> bool {
        self.by_client
            .get(&client)
            .is_some_and(|own| own.contains_key(path))
    }

    /// Whether a client has mounted anything.
    pub(crate) fn has_any(&self, client: IpAddr) -> bool {
        self.by_client.contains_key(&client)
    }

    /// All rows, oldest first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (IpAddr, &Bytes)> {
        self.by_index.values().map(|(client, path)| (*client, path))
    }

    /// Adds the row of the MNT at `index`, and drops what is beyond the limits.
    pub(crate) fn insert(
        &mut self,
        table: &mut impl SystemTable,
        row: MountRow,
    ) -> Result<(), Fatal> {
        if self.has(row.client, &row.path) {
            return Ok(());
        }
        put(table, row.index, Some(&row.value()))?;
        let client = row.client;
        self.remember(row.index, client, row.path);
        while let Some(oldest) = self.surplus(client) {
            self.forget(table, oldest)?;
        }
        Ok(())
    }

    /// Removes one row of a client.
    pub(crate) fn remove(
        &mut self,
        table: &mut impl SystemTable,
        client: IpAddr,
        path: &Bytes,
    ) -> Result<(), Fatal> {
        let own = self.by_client.get(&client);
        match own.and_then(|own| own.get(path)).copied() {
            Some(index) => self.forget(table, index),
            None => Ok(()),
        }
    }

    /// Removes all rows of a client.
    pub(crate) fn remove_all(
        &mut self,
        table: &mut impl SystemTable,
        client: IpAddr,
    ) -> Result<(), Fatal> {
        let own = self.by_client.get(&client).into_iter();
        let indexes: Vec<u64> = own.flat_map(|own| own.values().copied()).collect();
        indexes
            .into_iter()
            .try_for_each(|index| self.forget(table, index))
    }

    fn remember(&mut self, index: u64, client: IpAddr, path: Bytes) {
        self.by_index.insert(index, (client, path.clone()));
        self.by_client
            .entry(client)
            .or_default()
            .insert(path, index);
    }

    fn surplus(&self, client: IpAddr) -> Option<u64> {
        match self.by_client.get(&client) {
            Some(own) if own.len() > MOUNTS_PER_CLIENT_MAX => own.values().min().copied(),
            _ if self.by_index.len() > MOUNTS_MAX => self.by_index.keys().next().copied(),
            _ => None,
        }
    }

    fn forget(&mut self, table: &mut impl SystemTable, index: u64) -> Result<(), Fatal> {
        put(table, index, None)?;
        let Some((client, path)) = self.by_index.remove(&index) else {
            return Ok(());
        };
        if let Some(own) = self.by_client.get_mut(&client) {
            own.remove(&path);
            if own.is_empty() {
                self.by_client.remove(&client);
            }
        }
        Ok(())
    }
}

fn put(table: &mut impl SystemTable, index: u64, value: Option<&[u8]>) -> Result<(), Fatal> {
    table
        .system_put(&MountRow::key(index), value)
        .map_err(|error| Fatal::from_fs("writing a mount", &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_fs::model::Model;

    fn row(index: u64, client: u32, path: u64) -> MountRow {
        MountRow {
            index,
            client: IpAddr::from(client.to_be_bytes()),
            path: format!("/d{path}").into(),
        }
    }

    fn rows(table: &Model) -> Mounts {
        Mounts::load(table).expect("well-formed")
    }

    #[test]
    fn rows_come_once_and_go() {
        let (mut table, mut mounts) = (Model::new(), Mounts::default());
        for (index, client, path) in [(1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 1, 1)] {
            mounts
                .insert(&mut table, row(index, client, path))
                .expect("written");
        }
        assert_eq!(mounts.rows().count(), 3, "the fourth is the first");
        let (a, b) = (row(0, 1, 1), row(0, 2, 1));
        mounts
            .remove(&mut table, a.client, &a.path)
            .expect("written");
        mounts
            .remove(&mut table, a.client, &a.path)
            .expect("written");
        assert!(!mounts.has(a.client, &a.path) && mounts.has(b.client, &b.path));
        assert_eq!(rows(&table), mounts);
        mounts.remove_all(&mut table, a.client).expect("written");
        assert!(!mounts.has_any(a.client) && mounts.has_any(b.client));
        assert_eq!(rows(&table), mounts);
    }

    #[test]
    fn the_oldest_go_first() {
        let (mut table, mut mounts) = (Model::new(), Mounts::default());
        let many = MOUNTS_PER_CLIENT_MAX as u64 + 2;
        for n in 0..many {
            mounts.insert(&mut table, row(n, 1, n)).expect("written");
        }
        assert_eq!(mounts.rows().count(), MOUNTS_PER_CLIENT_MAX);
        assert!(!mounts.has(row(0, 1, 0).client, &row(0, 1, 1).path));
        assert!(mounts.has(row(0, 1, 0).client, &row(0, 1, 2).path));
        for n in 0..MOUNTS_MAX as u64 {
            mounts
                .insert(&mut table, row(many + n, 2 + n as u32, 0))
                .expect("written");
        }
        assert_eq!(mounts.rows().count(), MOUNTS_MAX);
        assert!(
            !mounts.has_any(row(0, 1, 0).client),
            "others pushed them out"
        );
        assert_eq!(rows(&table), mounts);
    }

    #[test]
    fn a_malformed_row_is_fatal() {
        let mut table = Model::new();
        table
            .system_put(b"m/mount/short", Some(b"x"))
            .expect("written");
        assert!(Mounts::load(&table).is_err());
    }
}
