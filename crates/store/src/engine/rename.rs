//! Renaming.

use super::New;
use crate::open::Store;
use crate::record::Inode;
use haven_fs::rules::{self, Perm};
use haven_fs::{FsError, FsResult, Ino, Kind};

/// What a rename moves, and what it replaces.
struct Move {
    source: Inode,
    target: Option<Inode>,
}

impl Store {
    pub(super) fn do_rename(&mut self, from: &New<'_>, to: &New<'_>) -> FsResult<()> {
        let Some(found) = self.check_move(from, to)? else {
            return Ok(());
        };
        let Move { mut source, target } = found;
        let moved = source.attr.ino;
        let subdirs = i32::from(source.attr.kind == Kind::Directory);
        let to_subdirs = if target.is_some() { 0 } else { subdirs };

        // Both may be the same directory: each is read again after the other was stored.
        if let Some(target) = target {
            self.drop_name(from.at, target)?;
        }
        let mut dir = self.directory(from.dir)?;
        self.remove_entry(&mut dir, from.name)?;
        self.put_edited(from.at, dir, -subdirs);
        let mut dir = self.directory(to.dir)?;
        self.remove_entry(&mut dir, to.name)?;
        self.insert_entry(&mut dir, to.name, moved);
        self.put_edited(from.at, dir, to_subdirs);
        rules::touch(&mut source.attr, from.at);
        if source.attr.kind == Kind::Directory {
            source.dir.parent = to.dir.0;
        }
        self.put_inode(&source);
        Ok(())
    }

    /// All checks. `None`: both names are the same inode, so there is nothing to do.
    fn check_move(&self, from: &New<'_>, to: &New<'_>) -> FsResult<Option<Move>> {
        let cred = from.cred;
        let from_dir = self.directory(from.dir)?;
        let to_dir = self.directory(to.dir)?;
        rules::check_rename_name(from.name)?;
        rules::check_rename_name(to.name)?;
        rules::require(&from_dir.attr, cred, Perm::EXEC)?;
        rules::require(&to_dir.attr, cred, Perm::EXEC)?;
        let source = self
            .search(cred, &from_dir, from.name)?
            .ok_or(FsError::NotFound)?;
        let (level, parent_of) = (self.level, |dir| self.parent(dir));
        rules::check_not_into_itself(level, &source.attr, from.dir, to.dir, parent_of)?;
        let target = self.search(cred, &to_dir, to.name)?;
        if let Some(target) = &target {
            if target.attr.ino == source.attr.ino {
                return Ok(None);
            }
            rules::check_not_onto_ancestor(level, &target.attr, from.dir, to.dir, parent_of)?;
        }
        let target_attr = target.as_ref().map(|inode| &inode.attr);
        rules::check_rename(
            &from_dir.attr,
            &source.attr,
            &to_dir.attr,
            target_attr,
            cred,
        )?;
        if target.as_ref().is_some_and(|inode| inode.dir.entries > 0) {
            return Err(FsError::NotEmpty);
        }
        let adds_subdir = source.attr.kind == Kind::Directory && target.is_none();
        if adds_subdir && from.dir != to.dir {
            rules::links_after_subdir(to_dir.attr.nlink)?;
        }
        Ok(Some(Move { source, target }))
    }

    fn parent(&self, dir: Ino) -> FsResult<Ino> {
        Ok(Ino(self.directory(dir)?.dir.parent))
    }
}
