//! More names for an inode.

use super::New;
use crate::open::Store;
use haven_fs::{Attr, FsResult, Ino, rules};

impl Store {
    pub(super) fn do_link(&mut self, new: &New<'_>, ino: Ino) -> FsResult<Attr> {
        self.directory(new.dir)?;
        rules::check_new_name(new.name)?;
        let mut inode = self.inode(ino)?;
        rules::check_link(&inode.attr)?;
        let mut dir = self.free_place(new)?;
        rules::may_create(&dir.attr, new.cred)?;
        inode.attr.nlink = rules::links_after_link(inode.attr.nlink)?;
        rules::touch(&mut inode.attr, new.at);
        self.put_inode(&inode);
        self.insert_entry(&mut dir, new.name, ino);
        self.put_edited(new.at, dir, 0);
        Ok(inode.attr)
    }
}
