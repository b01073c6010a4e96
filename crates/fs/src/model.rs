//! The reference model: a file system in memory, as simple as the semantics allow. Durable engines are
//! compared with it, and protocol tests run on it.
//!
//! Invariants
//! - It is right first and fast never: every operation checks everything, then changes everything.
//! - The rules themselves are in [`crate::rules`]; here is only what an operation reads and writes.
//!
//! It must not know any engine, protocol or disk.

mod dir;
mod mutate;
mod pages;

use crate::blocks::{BlockMap, Chunk};
use crate::rules::{self, Perm};
use crate::{
    Access, Attr, Cookie, Cred, DirEntry, FsError, FsResult, Ino, Level, ReadData, StatFs,
    SystemTable, SystemVisit,
};
use bytes::Bytes;
use dir::Dir;
use pages::Pages;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Size of the model's imaginary disk.
const TOTAL_BYTES: u64 = 1 << 40;
/// How many inodes the model says it can hold.
const TOTAL_FILES: u64 = 1 << 32;

/// An in-memory file system and system table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    inodes: BTreeMap<Ino, Inode>,
    next_ino: Ino,
    system: BTreeMap<Vec<u8>, Bytes>,
    level: Level,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inode {
    attr: Attr,
    body: Body,
    /// What an exclusive create gave.
    createverf: Option<[u8; 8]>,
    /// Of a regular file.
    blocks: Blocks,
}

/// Which blocks of a file were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Blocks {
    map: BlockMap,
    chunks: BTreeMap<u32, Chunk>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    File(Pages),
    Dir(Dir),
    Symlink(Bytes),
    Special,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// A volume with nothing but its root directory.
    pub fn new() -> Self {
        let root = Inode {
            attr: rules::root_attr(),
            body: Body::Dir(Dir::new(rules::ROOT_INO)),
            createverf: None,
            blocks: Blocks::default(),
        };
        Self {
            inodes: BTreeMap::from([(rules::ROOT_INO, root)]),
            next_ino: rules::FIRST_INO,
            system: BTreeMap::new(),
            level: Level::NEWEST,
        }
    }

    fn inode(&self, ino: Ino) -> FsResult<&Inode> {
        self.inodes.get(&ino).ok_or(FsError::Stale)
    }

    fn dir(&self, ino: Ino) -> FsResult<(&Attr, &Dir)> {
        let inode = self.inode(ino)?;
        match &inode.body {
            Body::Dir(dir) => Ok((&inode.attr, dir)),
            _ => Err(FsError::NotDirectory),
        }
    }

    /// The inode that `name` is in `dir`, if the caller may search there.
    fn search(&self, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<Option<&Inode>> {
        let (attr, entries) = self.dir(dir)?;
        rules::require(attr, cred, Perm::EXEC)?;
        entries.get(name).map(|ino| self.inode(ino)).transpose()
    }

    fn parent(&self, dir: Ino) -> FsResult<Ino> {
        Ok(self.dir(dir)?.1.parent)
    }
}

/// The queries; [`crate::Filesystem`] itself is implemented next to the mutations.
impl Model {
    fn query_attr(&self, ino: Ino) -> FsResult<Attr> {
        Ok(self.inode(ino)?.attr.clone())
    }

    fn query_lookup(&self, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        let (attr, entries) = self.dir(dir)?;
        rules::check_name(name)?;
        rules::require(attr, cred, Perm::EXEC)?;
        let found = match name {
            b"." => dir,
            b".." => entries.parent,
            _ => entries.get(name).ok_or(FsError::NotFound)?,
        };
        self.query_attr(found)
    }

    fn query_access(&self, cred: &Cred, ino: Ino, want: Access) -> FsResult<Access> {
        Ok(rules::granted(&self.inode(ino)?.attr, cred, want))
    }

    fn query_readlink(&self, ino: Ino) -> FsResult<Bytes> {
        match &self.inode(ino)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(FsError::Invalid),
        }
    }

    fn query_read(&self, cred: &Cred, ino: Ino, offset: u64, len: u32) -> FsResult<ReadData> {
        let inode = self.inode(ino)?;
        rules::may_read(&inode.attr, cred)?;
        let Body::File(pages) = &inode.body else {
            return Err(FsError::Invalid);
        };
        let left = inode.attr.size.saturating_sub(offset);
        let len = left.min(u64::from(len));
        let data = if len == 0 {
            Vec::new()
        } else {
            pages.read(offset, len as usize)
        };
        Ok(ReadData {
            data: data.into(),
            eof: len == left,
        })
    }

    fn query_readdir(
        &self,
        cred: &Cred,
        dir: Ino,
        after: Cookie,
        attributes: bool,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> FsResult<bool> {
        let (attr, entries) = self.dir(dir)?;
        rules::require(attr, cred, Perm::READ)?;
        if after.0 >= entries.next_cookie {
            return Err(FsError::BadCookie);
        }
        let dots = [
            (Cookie(rules::COOKIE_DOT), &b"."[..], dir),
            (Cookie(rules::COOKIE_DOT_DOT), &b".."[..], entries.parent),
        ];
        let dots = dots.into_iter().filter(|&(cookie, ..)| cookie > after);
        for (cookie, name, ino) in dots.chain(entries.after(after)) {
            let attr = if attributes {
                Some(self.query_attr(ino)?)
            } else {
                None
            };
            if visit(DirEntry {
                ino,
                name,
                cookie,
                attr,
            })
            .is_break()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn query_statfs(&self) -> StatFs {
        let used = self
            .inodes
            .values()
            .fold(0u64, |sum, i| sum.saturating_add(i.attr.used));
        let free_bytes = TOTAL_BYTES.saturating_sub(used);
        StatFs {
            total_bytes: TOTAL_BYTES,
            free_bytes,
            available_bytes: free_bytes,
            total_files: TOTAL_FILES,
            free_files: TOTAL_FILES.saturating_sub(self.inodes.len() as u64),
        }
    }
}

impl SystemTable for Model {
    fn system_get(&self, key: &[u8]) -> FsResult<Option<Bytes>> {
        Ok(self.system.get(key).cloned())
    }

    fn system_put(&mut self, key: &[u8], value: Option<&[u8]>) -> FsResult<()> {
        match value {
            Some(value) => self
                .system
                .insert(key.to_vec(), Bytes::copy_from_slice(value)),
            None => self.system.remove(key),
        };
        Ok(())
    }

    fn system_scan(&self, prefix: &[u8], visit: SystemVisit<'_>) -> FsResult<()> {
        let from = self.system.range(prefix.to_vec()..);
        for (key, value) in from.take_while(|(key, _)| key.starts_with(prefix)) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    fn make() -> Box<dyn conformance::Engine> {
        Box::new(Model::new())
    }

    #[test]
    fn passes_the_suite() {
        conformance::run(&make);
    }

    #[test]
    fn equals_itself() {
        for seed in 1..=4 {
            conformance::random_ops_equal(&make, seed, 3_000);
        }
    }

    #[test]
    #[should_panic(expected = "root_attr")]
    fn the_suite_notices_a_wrong_initial_state() {
        conformance::run(&|| {
            let mut wrong = Model::new();
            wrong
                .inodes
                .values_mut()
                .for_each(|inode| inode.attr.mode = 0o777);
            Box::new(wrong)
        });
    }

    #[test]
    #[should_panic(expected = "seed 1")]
    fn random_histories_notice_a_difference() {
        conformance::random_ops_equal(
            &|| {
                Box::new(Model {
                    next_ino: Ino(3),
                    ..Model::new()
                })
            },
            1,
            100,
        );
    }
}
