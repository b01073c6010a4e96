//! The file system's operations over the rows and data files, one file for each group.
//!
//! Every mutation checks everything first and changes rows only when nothing but the disk can fail any
//! more, so that an error leaves no trace. The rules themselves are `haven_fs::rules`.
//!
//! Replay safety: rows go back to the checkpoint as one, so operations on rows replay exactly. Those
//! on file data (`write`, sizes, `remove`) say why they do where they are.
//!
//! It must not know when or how anything becomes durable.

pub mod contents;
mod create;
mod link;
mod query;
mod remove;
mod rename;
pub mod system;
mod write;

use crate::keys;
use crate::open::Store;
use crate::record::{self, Entry, Inode};
use bytes::Bytes;
use haven_fs::rules::{self, Perm};
use haven_fs::{
    Access, Attr, Change, Cookie, Create, Cred, DirEntry, Filesystem, FsError, FsResult, Ino, Kind,
    Level, ReadData, SetAttr, StatFs, Time,
};
use std::ops::ControlFlow;

/// What operations that make a name have in common.
#[derive(Clone, Copy)]
struct New<'a> {
    at: &'a Change,
    cred: &'a Cred,
    dir: Ino,
    name: &'a [u8],
}

/// Reading and changing rows.
impl Store {
    fn inode(&self, ino: Ino) -> FsResult<Inode> {
        if let Some(inode) = self.inodes.get(&ino.0) {
            return Ok(inode);
        }
        let decode = |value: &[u8]| Inode::decode(ino, value);
        let inode = self.layers.read(&keys::inode(ino), decode)?;
        let inode = inode.ok_or(FsError::Stale)?;
        self.inodes.put(ino.0, inode.clone());
        Ok(inode)
    }

    fn directory(&self, ino: Ino) -> FsResult<Inode> {
        let inode = self.inode(ino)?;
        rules::check_directory(&inode.attr)?;
        Ok(inode)
    }

    fn entry(&self, dir: Ino, name: &[u8]) -> FsResult<Option<Entry>> {
        let key = keys::entry_by_name(dir, name);
        if let Some(entry) = self.entries.get(&key[..]) {
            return Ok(Some(entry));
        }
        let entry = self.layers.read(&key, Entry::decode)?;
        if let Some(entry) = entry {
            self.entries.put(key, entry);
        }
        Ok(entry)
    }

    /// The inode that `name` is in `dir`, if the caller may search there.
    fn search(&self, cred: &Cred, dir: &Inode, name: &[u8]) -> FsResult<Option<Inode>> {
        rules::require(&dir.attr, cred, Perm::EXEC)?;
        self.entry(dir.attr.ino, name)?
            .map(|entry| self.inode(entry.ino))
            .transpose()
    }

    fn put_inode(&mut self, inode: &Inode) {
        let ino = inode.attr.ino;
        self.layers.put(keys::inode(ino), inode.encode());
        self.inodes.put(ino.0, inode.clone());
    }

    /// Adds an entry under a fresh cookie. The name is free.
    fn insert_entry(&mut self, dir: &mut Inode, name: &[u8], ino: Ino) {
        let cookie = Cookie(dir.dir.next_cookie);
        dir.dir.next_cookie += 1;
        dir.dir.entries += 1;
        let (key, entry) = (
            keys::entry_by_name(dir.attr.ino, name),
            Entry { ino, cookie },
        );
        self.layers.put(&key, entry.encode().to_vec());
        self.entries.put(key, entry);
        let by_cookie = keys::entry_by_cookie(dir.attr.ino, cookie);
        self.layers.put(by_cookie, record::encode_named(ino, name));
    }

    /// Removes an entry, if it is there.
    fn remove_entry(&mut self, dir: &mut Inode, name: &[u8]) -> FsResult<()> {
        if let Some(entry) = self.entry(dir.attr.ino, name)? {
            dir.dir.entries -= 1;
            let key = keys::entry_by_name(dir.attr.ino, name);
            self.entries.remove(&key[..]);
            self.layers.remove(key);
            self.layers
                .remove(keys::entry_by_cookie(dir.attr.ino, entry.cookie));
        }
        Ok(())
    }

    /// Stores a directory whose entries changed, `subdirs` of them directories more or less.
    fn put_edited(&mut self, at: &Change, mut dir: Inode, subdirs: i32) {
        rules::set_size(&mut dir.attr, rules::dir_size(dir.dir.entries));
        dir.attr.nlink = dir.attr.nlink.saturating_add_signed(subdirs);
        rules::touch_data(&mut dir.attr, at);
        self.put_inode(&dir);
    }

    fn put_counters(&mut self) {
        self.layers
            .put(keys::COUNTERS, self.counters.encode().to_vec());
    }

    /// Takes one name off an inode; it goes away with its last one.
    fn drop_name(&mut self, at: &Change, mut inode: Inode) -> FsResult<()> {
        let ino = inode.attr.ino;
        if inode.attr.kind != Kind::Directory && inode.attr.nlink > 1 {
            inode.attr.nlink -= 1;
            rules::touch(&mut inode.attr, at);
            self.put_inode(&inode);
            return Ok(());
        }
        self.layers.remove(keys::inode(ino));
        self.inodes.remove(&ino.0);
        match inode.attr.kind {
            Kind::Regular => self.drop_contents(&inode)?,
            Kind::Symlink => self.layers.remove(keys::target(ino)),
            _ => {}
        }
        self.counters.inodes = self.counters.inodes.saturating_sub(1);
        self.put_counters();
        Ok(())
    }

    /// The directory and what is at the new name, if the caller may search there.
    fn place(&self, new: &New<'_>) -> FsResult<(Inode, Option<Inode>)> {
        let dir = self.directory(new.dir)?;
        rules::check_new_name(new.name)?;
        let existing = self.search(new.cred, &dir, new.name)?;
        Ok((dir, existing))
    }

    /// The directory of a new name that must be free.
    fn free_place(&self, new: &New<'_>) -> FsResult<Inode> {
        match self.place(new)? {
            (dir, None) => Ok(dir),
            (_, Some(_)) => Err(FsError::Exists),
        }
    }
}

impl Filesystem for Store {
    fn root(&self) -> Ino {
        rules::ROOT_INO
    }

    fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    fn attr(&self, ino: Ino) -> FsResult<Attr> {
        Ok(self.inode(ino)?.attr)
    }

    fn lookup(&self, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        self.query_lookup(cred, dir, name)
    }

    fn access(&self, cred: &Cred, ino: Ino, want: Access) -> FsResult<Access> {
        Ok(rules::granted(&self.inode(ino)?.attr, cred, want))
    }

    fn readlink(&self, _cred: &Cred, ino: Ino) -> FsResult<Bytes> {
        self.query_readlink(ino)
    }

    fn read(&self, cred: &Cred, ino: Ino, offset: u64, len: u32) -> FsResult<ReadData> {
        self.query_read(cred, ino, offset, len)
    }

    fn readdir(
        &self,
        cred: &Cred,
        dir: Ino,
        after: Cookie,
        attributes: bool,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> FsResult<bool> {
        self.query_readdir(cred, dir, after, attributes, visit)
    }

    fn statfs(&self) -> FsResult<StatFs> {
        self.query_statfs()
    }

    fn create(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
        how: &Create,
    ) -> FsResult<Attr> {
        self.mutate(|store| {
            store.do_create(
                &New {
                    at,
                    cred,
                    dir,
                    name,
                },
                how,
            )
        })
    }

    fn mkdir(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
        attr: &SetAttr,
    ) -> FsResult<Attr> {
        self.mutate(|store| {
            store.do_mkdir(
                &New {
                    at,
                    cred,
                    dir,
                    name,
                },
                attr,
            )
        })
    }

    fn symlink(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
        target: &[u8],
        attr: &SetAttr,
    ) -> FsResult<Attr> {
        self.mutate(|store| {
            store.do_symlink(
                &New {
                    at,
                    cred,
                    dir,
                    name,
                },
                target,
                attr,
            )
        })
    }

    fn mknod(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
        kind: Kind,
        attr: &SetAttr,
    ) -> FsResult<Attr> {
        self.mutate(|store| {
            store.do_mknod(
                &New {
                    at,
                    cred,
                    dir,
                    name,
                },
                kind,
                attr,
            )
        })
    }

    fn setattr(
        &mut self,
        at: &Change,
        cred: &Cred,
        ino: Ino,
        attr: &SetAttr,
        guard: Option<Time>,
    ) -> FsResult<Attr> {
        self.mutate(|store| store.do_setattr(at, cred, ino, attr, guard))
    }

    fn write(
        &mut self,
        at: &Change,
        cred: &Cred,
        ino: Ino,
        offset: u64,
        data: &[u8],
    ) -> FsResult<Attr> {
        self.mutate(|store| store.do_write(at, cred, ino, offset, data))
    }

    fn remove(&mut self, at: &Change, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<()> {
        self.mutate(|store| store.do_remove(at, cred, dir, name))
    }

    fn rmdir(&mut self, at: &Change, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<()> {
        self.mutate(|store| store.do_rmdir(at, cred, dir, name))
    }

    fn rename(
        &mut self,
        at: &Change,
        cred: &Cred,
        from_dir: Ino,
        from_name: &[u8],
        to_dir: Ino,
        to_name: &[u8],
    ) -> FsResult<()> {
        let from = New {
            at,
            cred,
            dir: from_dir,
            name: from_name,
        };
        let to = New {
            at,
            cred,
            dir: to_dir,
            name: to_name,
        };
        self.mutate(|store| store.do_rename(&from, &to))
    }

    fn link(
        &mut self,
        at: &Change,
        cred: &Cred,
        ino: Ino,
        dir: Ino,
        name: &[u8],
    ) -> FsResult<Attr> {
        self.mutate(|store| {
            store.do_link(
                &New {
                    at,
                    cred,
                    dir,
                    name,
                },
                ino,
            )
        })
    }
}
