//! Making inodes: regular files, directories, symbolic links, special files.

use super::New;
use super::contents::place_of;
use crate::keys;
use crate::open::Store;
use crate::record::Inode;
use bytes::Bytes;
use haven_fs::blocks::BlockMap;
use haven_fs::{Attr, Create, FsError, FsResult, Ino, Kind, SetAttr, rules};

impl Store {
    pub(super) fn do_create(&mut self, new: &New<'_>, how: &Create) -> FsResult<Attr> {
        let (dir, existing) = self.place(new)?;
        match (existing, how) {
            (Some(inode), Create::Unchecked(set)) => self.open_existing(new, inode, set),
            (Some(inode), Create::Exclusive(verifier)) if inode.verifier == Some(*verifier) => {
                Ok(inode.attr)
            }
            (Some(_), _) => Err(FsError::Exists),
            (None, Create::Unchecked(set) | Create::Guarded(set)) => {
                let inode = self.new_inode(new, &dir, Kind::Regular, set)?;
                Ok(self.add(new, dir, inode))
            }
            (None, Create::Exclusive(verifier)) => {
                let mut inode = self.new_inode(new, &dir, Kind::Regular, &SetAttr::default())?;
                inode.verifier = Some(*verifier);
                Ok(self.add(new, dir, inode))
            }
        }
    }

    pub(super) fn do_mkdir(&mut self, new: &New<'_>, set: &SetAttr) -> FsResult<Attr> {
        let dir = self.free_place(new)?;
        let inode = self.new_inode(new, &dir, Kind::Directory, set)?;
        rules::links_after_subdir(dir.attr.nlink)?;
        Ok(self.add(new, dir, inode))
    }

    pub(super) fn do_symlink(
        &mut self,
        new: &New<'_>,
        target: &[u8],
        set: &SetAttr,
    ) -> FsResult<Attr> {
        self.directory(new.dir)?;
        rules::check_new_name(new.name)?;
        rules::check_link_target(target)?;
        let dir = self.free_place(new)?;
        let mut inode = self.new_inode(new, &dir, Kind::Symlink, set)?;
        rules::set_size(&mut inode.attr, target.len() as u64);
        self.layers
            .put(keys::target(inode.attr.ino), Bytes::copy_from_slice(target));
        Ok(self.add(new, dir, inode))
    }

    pub(super) fn do_mknod(&mut self, new: &New<'_>, kind: Kind, set: &SetAttr) -> FsResult<Attr> {
        self.directory(new.dir)?;
        rules::check_new_name(new.name)?;
        rules::check_mknod_kind(kind)?;
        let dir = self.free_place(new)?;
        let inode = self.new_inode(new, &dir, kind, set)?;
        Ok(self.add(new, dir, inode))
    }

    /// An unchecked create of a name that exists.
    fn open_existing(&mut self, new: &New<'_>, inode: Inode, set: &SetAttr) -> FsResult<Attr> {
        match inode.attr.kind {
            Kind::Directory => Err(FsError::IsDirectory),
            Kind::Regular => {
                let only_size = SetAttr {
                    size: set.size,
                    ..SetAttr::default()
                };
                self.change_attr(new.at, new.cred, inode, &only_size)
            }
            _ => Ok(inode.attr),
        }
    }

    /// Checks and makes the inode, in memory only.
    fn new_inode(&self, new: &New<'_>, dir: &Inode, kind: Kind, set: &SetAttr) -> FsResult<Inode> {
        rules::may_create(&dir.attr, new.cred)?;
        rules::may_mknod(kind, new.cred)?;
        let ino = Ino(self.counters.next_ino);
        let attr = rules::new_attr(&dir.attr, kind, set, new.cred, new.at, ino)?;
        let mut inode = Inode::new(attr, dir.attr.ino);
        if kind == Kind::Regular {
            let size = inode.attr.size;
            inode.place = place_of(size);
            inode.map = BlockMap::of_new(self.level, size);
            inode.attr.used = inode.map.used(size);
        }
        Ok(inode)
    }

    /// Stores a new inode and its name.
    ///
    /// Replay safety: after a crash the number is given again, to the same file, whose data file may be
    /// there already. It is cut before it is used, see `contents` and `data`.
    fn add(&mut self, new: &New<'_>, mut dir: Inode, inode: Inode) -> Attr {
        let subdirs = i32::from(inode.attr.kind == Kind::Directory);
        self.counters.next_ino += 1;
        self.counters.inodes += 1;
        self.put_counters();
        self.put_inode(&inode);
        self.insert_entry(&mut dir, new.name, inode.attr.ino);
        self.put_edited(new.at, dir, subdirs);
        inode.attr
    }
}
