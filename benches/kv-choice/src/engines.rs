//! The engines behind one small trait, each with the settings the store would use: one table, one
//! durable commit per checkpoint, 256 MiB of cache.

use crate::{Outcome, Row};
use redb::ReadableDatabase;
use std::path::Path;

const CACHE_BYTES: usize = 256 << 20;
const MAP_BYTES: usize = 4 << 30;

/// What the store needs of an engine.
pub trait Engine {
    /// Sets all rows in one durable, atomic step.
    fn commit(&mut self, rows: &[Row]) -> Outcome<()>;
    /// Waits for (or does) what the engine put off.
    fn settle(&mut self) -> Outcome<()>;
    /// The length of a value.
    fn get(&self, key: &[u8]) -> Outcome<Option<usize>>;
    /// Visits `count` rows in order from `key` on; returns how many there were.
    fn scan(&self, key: &[u8], count: usize) -> Outcome<usize>;
}

const TABLE: redb::TableDefinition<'static, &[u8], &[u8]> = redb::TableDefinition::new("rows");

/// redb, with the read table kept open between commits as the store does.
pub struct RedbEngine {
    db: redb::Database,
    read: Option<redb::ReadOnlyTable<&'static [u8], &'static [u8]>>,
    quick_repair: bool,
}

impl RedbEngine {
    /// Makes an empty database.
    pub fn open(dir: &Path, quick_repair: bool) -> Outcome<Self> {
        let db = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(dir.join("db"))?;
        Ok(Self {
            db,
            read: None,
            quick_repair,
        })
    }

    fn table(&self) -> Outcome<&redb::ReadOnlyTable<&'static [u8], &'static [u8]>> {
        Ok(self.read.as_ref().ok_or("nothing was committed")?)
    }
}

impl Engine for RedbEngine {
    fn commit(&mut self, rows: &[Row]) -> Outcome<()> {
        let mut txn = self.db.begin_write()?;
        txn.set_quick_repair(self.quick_repair);
        {
            let mut table = txn.open_table(TABLE)?;
            for (key, value) in rows {
                table.insert(key.as_slice(), value.as_slice())?;
            }
        }
        txn.commit()?;
        self.read = Some(self.db.begin_read()?.open_table(TABLE)?);
        Ok(())
    }

    fn settle(&mut self) -> Outcome<()> {
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        Ok(self.table()?.get(key)?.map(|value| value.value().len()))
    }

    fn scan(&self, key: &[u8], count: usize) -> Outcome<usize> {
        let mut seen = 0;
        for row in self.table()?.range(key..)?.take(count) {
            let (key, value) = row?;
            seen += usize::from(!key.value().is_empty() && !value.value().is_empty());
        }
        Ok(seen)
    }
}

/// fjall: an atomic batch, then its journal flushed.
pub struct FjallEngine {
    db: fjall::Database,
    rows: fjall::Keyspace,
}

impl FjallEngine {
    /// Makes an empty database.
    pub fn open(dir: &Path) -> Outcome<Self> {
        let db = fjall::Database::builder(dir)
            .cache_size(CACHE_BYTES as u64)
            .open()?;
        let rows = db.keyspace("rows", fjall::KeyspaceCreateOptions::default)?;
        Ok(Self { db, rows })
    }
}

impl Engine for FjallEngine {
    fn commit(&mut self, rows: &[Row]) -> Outcome<()> {
        let mut batch = self
            .db
            .batch()
            .durability(Some(fjall::PersistMode::SyncData));
        for (key, value) in rows {
            batch.insert(&self.rows, key.as_slice(), value.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn settle(&mut self) -> Outcome<()> {
        self.rows.rotate_memtable_and_wait()?;
        while self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        Ok(self.rows.get(key)?.map(|value| value.len()))
    }

    fn scan(&self, key: &[u8], count: usize) -> Outcome<usize> {
        let mut seen = 0;
        for row in self.rows.range(key..).take(count) {
            let (key, value) = row.into_inner()?;
            seen += usize::from(!key.is_empty() && !value.is_empty());
        }
        Ok(seen)
    }
}

type HeedRows<'e> = heed::Database<'e, heed::types::Bytes, heed::types::Bytes>;

/// LMDB through heed: a memory map, one flushed transaction per commit.
pub struct HeedEngine {
    env: &'static heed::Env,
    rows: HeedRows<'static>,
    read: Option<heed::RoTxn<'static, heed::WithTls>>,
}

impl HeedEngine {
    /// Makes an empty database. The environment is leaked: the process ends soon after.
    pub fn open(dir: &Path) -> Outcome<Self> {
        // SAFETY: the directory is fresh and private to this process, so nobody changes the mapped
        // file behind the environment's back.
        let env = unsafe { heed::EnvOpenOptions::new().map_size(MAP_BYTES).open(dir)? };
        let env: &'static heed::Env = Box::leak(Box::new(env));
        let txn = env.write_txn()?;
        let rows = env
            .create_databases_and_commit(txn, |options, txn| {
                options
                    .create_database(txn, None)
                    .map(heed::CommitOrAbort::<_, ()>::Commit)
            })?
            .unwrap_commit();
        Ok(Self {
            env,
            rows,
            read: None,
        })
    }

    fn txn(&self) -> Outcome<&heed::RoTxn<'static, heed::WithTls>> {
        Ok(self.read.as_ref().ok_or("nothing was committed")?)
    }
}

impl Engine for HeedEngine {
    fn commit(&mut self, rows: &[Row]) -> Outcome<()> {
        self.read = None;
        let mut txn = self.env.write_txn()?;
        for (key, value) in rows {
            self.rows.put(&mut txn, key, value)?;
        }
        txn.commit()?;
        self.read = Some(self.env.read_txn()?);
        Ok(())
    }

    fn settle(&mut self) -> Outcome<()> {
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        Ok(self.rows.get(self.txn()?, key)?.map(<[u8]>::len))
    }

    fn scan(&self, key: &[u8], count: usize) -> Outcome<usize> {
        let mut seen = 0;
        let from = (std::ops::Bound::Included(key), std::ops::Bound::Unbounded);
        for row in self.rows.range(self.txn()?, &from)?.take(count) {
            let (key, value) = row?;
            seen += usize::from(!key.is_empty() && !value.is_empty());
        }
        Ok(seen)
    }
}
