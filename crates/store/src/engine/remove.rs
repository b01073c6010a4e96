//! Removing names.

use crate::open::Store;
use crate::record::Inode;
use haven_fs::{Change, Cred, FsError, FsResult, Ino, Kind, rules};

impl Store {
    pub(super) fn do_remove(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
    ) -> FsResult<()> {
        let (mut dir, victim) = self.victim(cred, dir, name)?;
        if victim.attr.kind == Kind::Directory {
            return Err(FsError::IsDirectory);
        }
        self.drop_name(at, victim)?;
        self.remove_entry(&mut dir, name)?;
        self.put_edited(at, dir, 0);
        Ok(())
    }

    pub(super) fn do_rmdir(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
    ) -> FsResult<()> {
        let (mut dir, victim) = self.victim(cred, dir, name)?;
        rules::check_directory(&victim.attr)?;
        if victim.dir.entries > 0 {
            return Err(FsError::NotEmpty);
        }
        self.drop_name(at, victim)?;
        self.remove_entry(&mut dir, name)?;
        self.put_edited(at, dir, -1);
        Ok(())
    }

    /// The directory and the inode to remove from it, if the caller may.
    fn victim(&self, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<(Inode, Inode)> {
        let dir = self.directory(dir)?;
        rules::check_old_name(name)?;
        let victim = self.search(cred, &dir, name)?.ok_or(FsError::NotFound)?;
        rules::may_delete(&dir.attr, &victim.attr, cred)?;
        Ok((dir, victim))
    }
}
