//! The table of mounts: which client said that it mounted what (RFC 1813 appendix I: a hint, since
//! clients come and go without a word). It is replicated state: kept in the system table ([`MountRow`])
//! and mirrored in memory.
//!
//! Invariants
//! - Memory and table hold the same rows: loading gives an equal table.
//! - At most [`MOUNTS_PER_CLIENT_MAX`] rows per client and [`MOUNTS_MAX`] in all; the oldest go first.
//! - A path is one row, however often a client has mounted it; it goes with the last UMNT. A client that ends without a
//!   word and mounts again leaves it behind, as on Linux.
//! - A MNT or UMNT that comes again at once is counted once.
//!
//! It must not know who may mount.

use crate::Fatal;
use crate::rows::{MountRow, PREFIX_MOUNT, Told};
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
    by_index: BTreeMap<u64, MountRow>,
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
                mounts.remember(row);
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

    /// A client's row of a path.
    pub(crate) fn get(&self, client: IpAddr, path: &Bytes) -> Option<&MountRow> {
        let index = self.by_client.get(&client)?.get(path)?;
        self.by_index.get(index)
    }

    /// Whether a client has mounted anything.
    pub(crate) fn has_any(&self, client: IpAddr) -> bool {
        self.by_client.contains_key(&client)
    }

    /// All rows, oldest first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (IpAddr, &Bytes)> {
        self.by_index.values().map(|row| (row.client, &row.path))
    }

    /// Takes in a MNT. A new row is the one given, and drops what is beyond the limits; one that is there counts
    /// one more, if MNTs are counted.
    pub(crate) fn mnt(&mut self, table: &mut impl SystemTable, new: MountRow) -> Result<(), Fatal> {
        let Some(known) = self.get(new.client, &new.path) else {
            let client = new.client;
            self.write(table, new)?;
            while let Some(oldest) = self.surplus(client) {
                self.forget(table, oldest)?;
            }
            return Ok(());
        };
        let more = new.counted.and_then(|counted| known.more(counted.xid));
        more.map_or(Ok(()), |row| self.write(table, row))
    }

    /// Takes in a UMNT.
    pub(crate) fn umnt(
        &mut self,
        table: &mut impl SystemTable,
        (client, path): (IpAddr, &Bytes),
        xid: u32,
    ) -> Result<(), Fatal> {
        let Some(row) = self.get(client, path) else {
            return Ok(());
        };
        if row.was_told(Told::Umnt, xid) {
            return Ok(());
        }
        match row.less(xid) {
            Some(less) => self.write(table, less),
            None => self.forget(table, row.index),
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

    fn write(&mut self, table: &mut impl SystemTable, row: MountRow) -> Result<(), Fatal> {
        put(table, row.index, Some(&row.value()))?;
        self.remember(row);
        Ok(())
    }

    fn remember(&mut self, row: MountRow) {
        let own = self.by_client.entry(row.client).or_default();
        own.insert(row.path.clone(), row.index);
        self.by_index.insert(row.index, row);
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
        let Some(row) = self.by_index.remove(&index) else {
            return Ok(());
        };
        if let Some(own) = self.by_client.get_mut(&row.client) {
            own.remove(&row.path);
            if own.is_empty() {
                self.by_client.remove(&row.client);
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
    use crate::rows::Counted;
    use haven_fs::model::Model;

    fn row(index: u64, client: u32, path: u64) -> MountRow {
        MountRow {
            index,
            client: IpAddr::from(client.to_be_bytes()),
            path: format!("/d{path}").into(),
            counted: Some(Counted::first(index as u32)),
        }
    }

    fn rows(table: &Model) -> Mounts {
        Mounts::load(table).expect("well-formed")
    }

    fn has(mounts: &Mounts, row: &MountRow) -> bool {
        mounts.get(row.client, &row.path).is_some()
    }

    #[test]
    fn rows_come_once_and_go() {
        let (mut table, mut mounts) = (Model::new(), Mounts::default());
        for (index, client, path) in [(1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 1, 1)] {
            mounts
                .mnt(&mut table, row(index, client, path))
                .expect("written");
            assert_eq!(rows(&table), mounts);
        }
        assert_eq!(mounts.rows().count(), 3, "the fourth is the first");
        let (a, b) = (row(0, 1, 1), row(0, 2, 1));
        for (xid, left) in [(9, true), (9, true), (10, false), (11, false)] {
            mounts
                .umnt(&mut table, (a.client, &a.path), xid)
                .expect("written");
            assert_eq!((has(&mounts, &a), has(&mounts, &b)), (left, true), "{xid}");
            assert_eq!(rows(&table), mounts);
        }
        mounts.remove_all(&mut table, a.client).expect("written");
        assert!(!mounts.has_any(a.client) && mounts.has_any(b.client));
        assert_eq!(rows(&table), mounts);
    }

    #[test]
    fn a_row_that_cannot_count_further_stays_what_it_is() {
        let (mut table, mut mounts) = (Model::new(), Mounts::default());
        let full = Counted {
            times: u32::MAX,
            ..Counted::first(1)
        };
        let full = MountRow {
            counted: Some(full),
            ..row(1, 1, 1)
        };
        mounts.mnt(&mut table, full.clone()).expect("written");
        mounts.mnt(&mut table, row(2, 1, 1)).expect("nothing to do");
        assert_eq!(mounts.get(full.client, &full.path), Some(&full));
    }

    #[test]
    fn the_oldest_go_first() {
        let (mut table, mut mounts) = (Model::new(), Mounts::default());
        let many = MOUNTS_PER_CLIENT_MAX as u64 + 2;
        for n in 0..many {
            mounts.mnt(&mut table, row(n, 1, n)).expect("written");
        }
        assert_eq!(mounts.rows().count(), MOUNTS_PER_CLIENT_MAX);
        assert!(!has(&mounts, &row(0, 1, 1)) && has(&mounts, &row(0, 1, 2)));
        for n in 0..MOUNTS_MAX as u64 {
            let client = 2 + n as u32;
            mounts
                .mnt(&mut table, row(many + n, client, 0))
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
