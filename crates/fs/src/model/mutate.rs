//! The model's mutations: check, then change. Nothing after the first change can fail.

use super::{Blocks, Body, Dir, Inode, Model, Pages};
use crate::blocks::BlockMap;
use crate::rules::{self, Perm};
use crate::{
    Access, Attr, Change, Cookie, Create, Cred, DirEntry, Filesystem, FsError, FsResult, Ino, Kind,
    Level, ReadData, SetAttr, StatFs, Time,
};
use bytes::Bytes;
use std::ops::ControlFlow;

/// What creating operations have in common.
struct New<'a> {
    at: &'a Change,
    cred: &'a Cred,
    dir: Ino,
    name: &'a [u8],
}

impl Model {
    /// Gives the inode in `body` a number and a name. The name is free and the caller may search `dir`.
    fn add(&mut self, new: &New<'_>, kind: Kind, body: Body, set: &SetAttr) -> FsResult<Attr> {
        let parent = &self.inode(new.dir)?.attr;
        rules::may_create(parent, new.cred)?;
        rules::may_mknod(kind, new.cred)?;
        let mut attr = rules::new_attr(parent, kind, set, new.cred, new.at, self.next_ino)?;
        if let Body::Symlink(target) = &body {
            rules::set_size(&mut attr, target.len() as u64);
        }
        let mut blocks = Blocks::default();
        if kind == Kind::Regular {
            blocks.map = BlockMap::of_new(self.level, attr.size);
            attr.used = blocks.map.used(attr.size);
        }
        let subdirs = i64::from(kind == Kind::Directory);
        self.check_subdirs(new.dir, subdirs)?;
        self.next_ino.0 += 1;
        self.inodes.insert(
            attr.ino,
            Inode {
                attr: attr.clone(),
                body,
                createverf: None,
                blocks,
            },
        );
        self.edit(new.at, new.dir, subdirs, |dir| {
            dir.insert(new.name, attr.ino)
        });
        Ok(attr)
    }

    fn check_subdirs(&self, dir: Ino, added: i64) -> FsResult<()> {
        if added > 0 {
            rules::links_after_subdir(self.inode(dir)?.attr.nlink)?;
        }
        Ok(())
    }

    /// Changes a directory's entries, its size and its link count (by `subdirs`).
    fn edit(&mut self, at: &Change, ino: Ino, subdirs: i64, change: impl FnOnce(&mut Dir)) {
        let Some(inode) = self.inodes.get_mut(&ino) else {
            return;
        };
        let Body::Dir(dir) = &mut inode.body else {
            return;
        };
        change(dir);
        rules::set_size(&mut inode.attr, rules::dir_size(dir.len()));
        inode.attr.nlink = inode.attr.nlink.wrapping_add_signed(subdirs as i32);
        rules::touch_data(&mut inode.attr, at);
    }

    /// Takes one name off an inode; it goes away with its last one.
    fn unlink(&mut self, at: &Change, ino: Ino) {
        let Some(inode) = self.inodes.get_mut(&ino) else {
            return;
        };
        if inode.attr.kind == Kind::Directory || inode.attr.nlink == 1 {
            self.inodes.remove(&ino);
            return;
        }
        inode.attr.nlink -= 1;
        rules::touch(&mut inode.attr, at);
    }

    /// A free place for a new inode, or what is there.
    fn place(&self, new: &New<'_>) -> FsResult<Option<&Inode>> {
        self.dir(new.dir)?;
        rules::check_new_name(new.name)?;
        self.search(new.cred, new.dir, new.name)
    }

    fn free_place(&self, new: &New<'_>) -> FsResult<()> {
        if self.place(new)?.is_some() {
            Err(FsError::Exists)
        } else {
            Ok(())
        }
    }

    fn victim(&self, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<&Inode> {
        let (dir_attr, _) = self.dir(dir)?;
        rules::check_old_name(name)?;
        let victim = self.search(cred, dir, name)?.ok_or(FsError::NotFound)?;
        rules::may_delete(dir_attr, &victim.attr, cred)?;
        Ok(victim)
    }

    fn change_attr(&mut self, at: &Change, cred: &Cred, ino: Ino, set: &SetAttr) -> FsResult<Attr> {
        let inode = self.inodes.get_mut(&ino).ok_or(FsError::Stale)?;
        let mut attr = rules::apply_setattr(&inode.attr, set, cred, at)?;
        if let Body::File(pages) = &mut inode.body {
            pages.truncate(attr.size);
            let Blocks { map, chunks } = &mut inode.blocks;
            attr.used = map.resized(self.level, chunks, attr.size)?;
        }
        inode.attr = attr.clone();
        Ok(attr)
    }

    /// An unchecked create of a name that exists.
    fn open_existing(&mut self, new: &New<'_>, existing: &Attr, set: &SetAttr) -> FsResult<Attr> {
        match existing.kind {
            Kind::Directory => Err(FsError::IsDirectory),
            Kind::Regular => {
                let only_size = SetAttr {
                    size: set.size,
                    ..SetAttr::default()
                };
                self.change_attr(new.at, new.cred, existing.ino, &only_size)
            }
            _ => Ok(existing.clone()),
        }
    }
}

impl Filesystem for Model {
    fn root(&self) -> Ino {
        rules::ROOT_INO
    }

    fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    fn attr(&self, ino: Ino) -> FsResult<Attr> {
        self.query_attr(ino)
    }

    fn lookup(&self, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        self.query_lookup(cred, dir, name)
    }

    fn access(&self, cred: &Cred, ino: Ino, want: Access) -> FsResult<Access> {
        self.query_access(cred, ino, want)
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
        Ok(self.query_statfs())
    }

    fn create(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
        how: &Create,
    ) -> FsResult<Attr> {
        let new = New {
            at,
            cred,
            dir,
            name,
        };
        let existing = self
            .place(&new)?
            .map(|inode| (inode.attr.clone(), inode.createverf));
        match (existing, how) {
            (Some((attr, _)), Create::Unchecked(set)) => self.open_existing(&new, &attr, set),
            (Some((attr, Some(old))), Create::Exclusive(verf)) if old == *verf => Ok(attr),
            (Some(_), _) => Err(FsError::Exists),
            (None, Create::Unchecked(set) | Create::Guarded(set)) => {
                self.add(&new, Kind::Regular, Body::File(Pages::default()), set)
            }
            (None, Create::Exclusive(verf)) => {
                let body = Body::File(Pages::default());
                let attr = self.add(&new, Kind::Regular, body, &SetAttr::default())?;
                if let Some(inode) = self.inodes.get_mut(&attr.ino) {
                    inode.createverf = Some(*verf);
                }
                Ok(attr)
            }
        }
    }

    fn mkdir(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
        attr: &SetAttr,
    ) -> FsResult<Attr> {
        let new = New {
            at,
            cred,
            dir,
            name,
        };
        self.free_place(&new)?;
        self.add(&new, Kind::Directory, Body::Dir(Dir::new(dir)), attr)
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
        let new = New {
            at,
            cred,
            dir,
            name,
        };
        self.dir(dir)?;
        rules::check_new_name(name)?;
        rules::check_link_target(target)?;
        self.free_place(&new)?;
        let body = Body::Symlink(Bytes::copy_from_slice(target));
        self.add(&new, Kind::Symlink, body, attr)
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
        let new = New {
            at,
            cred,
            dir,
            name,
        };
        self.dir(dir)?;
        rules::check_new_name(name)?;
        rules::check_mknod_kind(kind)?;
        self.free_place(&new)?;
        self.add(&new, kind, Body::Special, attr)
    }

    fn setattr(
        &mut self,
        at: &Change,
        cred: &Cred,
        ino: Ino,
        attr: &SetAttr,
        guard: Option<Time>,
    ) -> FsResult<Attr> {
        rules::check_guard(&self.inode(ino)?.attr, guard)?;
        self.change_attr(at, cred, ino, attr)
    }

    fn write(
        &mut self,
        at: &Change,
        cred: &Cred,
        ino: Ino,
        offset: u64,
        data: &[u8],
    ) -> FsResult<Attr> {
        let inode = self.inodes.get_mut(&ino).ok_or(FsError::Stale)?;
        rules::may_write(&inode.attr, cred)?;
        let end = rules::write_end(offset, data.len())?;
        let Body::File(pages) = &mut inode.body else {
            return Err(FsError::Invalid);
        };
        if !data.is_empty() {
            pages.write(offset, data);
            inode.attr = rules::after_write(&inode.attr, end, at);
            let Blocks { map, chunks } = &mut inode.blocks;
            let size = inode.attr.size;
            inode.attr.used = map.wrote(self.level, chunks, (offset, end), size)?;
        }
        Ok(inode.attr.clone())
    }

    fn remove(&mut self, at: &Change, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<()> {
        let victim = &self.victim(cred, dir, name)?.attr;
        if victim.kind == Kind::Directory {
            return Err(FsError::IsDirectory);
        }
        let ino = victim.ino;
        self.unlink(at, ino);
        self.edit(at, dir, 0, |entries| entries.remove(name));
        Ok(())
    }

    fn rmdir(&mut self, at: &Change, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<()> {
        let victim = self.victim(cred, dir, name)?;
        let Body::Dir(entries) = &victim.body else {
            return Err(FsError::NotDirectory);
        };
        if !entries.is_empty() {
            return Err(FsError::NotEmpty);
        }
        let ino = victim.attr.ino;
        self.unlink(at, ino);
        self.edit(at, dir, -1, |entries| entries.remove(name));
        Ok(())
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
        let (from_attr, _) = self.dir(from_dir)?;
        let (to_attr, _) = self.dir(to_dir)?;
        rules::check_rename_name(from_name)?;
        rules::check_rename_name(to_name)?;
        rules::require(from_attr, cred, Perm::EXEC)?;
        rules::require(to_attr, cred, Perm::EXEC)?;
        let source = &self
            .search(cred, from_dir, from_name)?
            .ok_or(FsError::NotFound)?
            .attr;
        let (level, parent_of) = (self.level, |dir| self.parent(dir));
        rules::check_not_into_itself(level, source, from_dir, to_dir, parent_of)?;
        let target = self.search(cred, to_dir, to_name)?;
        if let Some(target) = target {
            if target.attr.ino == source.ino {
                return Ok(());
            }
            rules::check_not_onto_ancestor(level, &target.attr, from_dir, to_dir, parent_of)?;
        }
        rules::check_rename(from_attr, source, to_attr, target.map(|t| &t.attr), cred)?;
        if target.is_some_and(|t| matches!(&t.body, Body::Dir(entries) if !entries.is_empty())) {
            return Err(FsError::NotEmpty);
        }
        let moved = source.ino;
        let subdirs = i64::from(source.kind == Kind::Directory);
        let replaced = target.map(|t| t.attr.ino);
        let to_subdirs = if replaced.is_some() { 0 } else { subdirs };
        if from_dir != to_dir {
            self.check_subdirs(to_dir, to_subdirs)?;
        }

        if let Some(replaced) = replaced {
            self.unlink(at, replaced);
        }
        self.edit(at, from_dir, -subdirs, |entries| entries.remove(from_name));
        self.edit(at, to_dir, to_subdirs, |entries| {
            entries.insert(to_name, moved)
        });
        if let Some(inode) = self.inodes.get_mut(&moved) {
            rules::touch(&mut inode.attr, at);
            if let Body::Dir(entries) = &mut inode.body {
                entries.parent = to_dir;
            }
        }
        Ok(())
    }

    fn link(
        &mut self,
        at: &Change,
        cred: &Cred,
        ino: Ino,
        dir: Ino,
        name: &[u8],
    ) -> FsResult<Attr> {
        let new = New {
            at,
            cred,
            dir,
            name,
        };
        self.dir(dir)?;
        rules::check_new_name(name)?;
        rules::check_link(&self.inode(ino)?.attr)?;
        self.free_place(&new)?;
        rules::may_create(&self.inode(dir)?.attr, cred)?;
        let inode = self.inodes.get_mut(&ino).ok_or(FsError::Stale)?;
        inode.attr.nlink = rules::links_after_link(inode.attr.nlink)?;
        rules::touch(&mut inode.attr, at);
        let attr = inode.attr.clone();
        self.edit(at, dir, 0, |entries| entries.insert(name, ino));
        Ok(attr)
    }
}
