//! Changing a file's data and attributes.

use crate::blocks::FileChunks;
use crate::open::Store;
use crate::record::Inode;
use haven_fs::{Attr, Change, Cred, FsResult, Ino, Kind, SetAttr, Time, rules};

impl Store {
    pub(super) fn do_setattr(
        &mut self,
        at: &Change,
        cred: &Cred,
        ino: Ino,
        set: &SetAttr,
        guard: Option<Time>,
    ) -> FsResult<Attr> {
        let inode = self.inode(ino)?;
        rules::check_guard(&inode.attr, guard)?;
        self.change_attr(at, cred, inode, set)
    }

    /// Replay safety: see `contents`. Cutting the data file again cuts the same; growing changes metadata
    /// only, after what a crash may have left past the old size was cut.
    pub(super) fn change_attr(
        &mut self,
        at: &Change,
        cred: &Cred,
        mut inode: Inode,
        set: &SetAttr,
    ) -> FsResult<Attr> {
        let mut attr = rules::apply_setattr(&inode.attr, set, cred, at)?;
        if attr == inode.attr {
            return Ok(attr);
        }
        if attr.kind == Kind::Regular && attr.size != inode.attr.size {
            self.resize_contents(&mut inode, attr.size)?;
            let (layers, ino) = (&mut self.layers, attr.ino);
            let chunks = &mut FileChunks { layers, ino };
            attr.used = inode.map.resized(self.level, chunks, attr.size)?;
        }
        inode.attr = attr.clone();
        self.put_inode(&inode);
        Ok(attr)
    }

    /// Replay safety: see `contents`. The same bytes go to the same place again, and what lies between an old end and a
    /// later start is cut away before, so that it reads as zeros.
    pub(super) fn do_write(
        &mut self,
        at: &Change,
        cred: &Cred,
        ino: Ino,
        offset: u64,
        data: &[u8],
    ) -> FsResult<Attr> {
        let mut inode = self.inode(ino)?;
        rules::may_write(&inode.attr, cred)?;
        let end = rules::write_end(offset, data.len())?;
        if data.is_empty() {
            return Ok(inode.attr);
        }
        self.write_contents(&mut inode, offset, data, end)?;
        inode.attr = rules::after_write(&inode.attr, end, at);
        let (layers, size) = (&mut self.layers, inode.attr.size);
        let chunks = &mut FileChunks { layers, ino };
        let range = (offset, end);
        inode.attr.used = inode.map.wrote(self.level, chunks, range, size)?;
        self.put_inode(&inode);
        Ok(inode.attr)
    }
}
