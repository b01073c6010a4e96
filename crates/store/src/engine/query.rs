//! Queries: lookup, reading links, files and directories, space.

use crate::open::Store;
use crate::{fatal, keys, record};
use bytes::Bytes;
use haven_fs::rules::{self, Perm};
use haven_fs::{Attr, Cookie, Cred, DirEntry, FsError, FsResult, Ino, Kind, ReadData, StatFs};
use std::ops::ControlFlow;

impl Store {
    pub(super) fn query_lookup(&self, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        let dir = self.directory(dir)?;
        rules::check_name(name)?;
        rules::require(&dir.attr, cred, Perm::EXEC)?;
        let found = match name {
            b"." => return Ok(dir.attr),
            b".." => Ino(dir.dir.parent),
            _ => {
                self.entry(dir.attr.ino, name)?
                    .ok_or(FsError::NotFound)?
                    .ino
            }
        };
        Ok(self.inode(found)?.attr)
    }

    pub(super) fn query_readlink(&self, ino: Ino) -> FsResult<Bytes> {
        if self.inode(ino)?.attr.kind != Kind::Symlink {
            return Err(FsError::Invalid);
        }
        let target = self.layers.get(&keys::target(ino))?;
        target.ok_or_else(|| fatal("the metadata is damaged", "a symbolic link has no target"))
    }

    pub(super) fn query_read(
        &self,
        cred: &Cred,
        ino: Ino,
        offset: u64,
        len: u32,
    ) -> FsResult<ReadData> {
        let inode = self.inode(ino)?;
        rules::may_read(&inode.attr, cred)?;
        let left = inode.attr.size.saturating_sub(offset);
        let len = left.min(u64::from(len));
        let bytes = usize::try_from(len).map_err(|_| FsError::Invalid)?;
        Ok(ReadData {
            data: self.read_contents(&inode, offset, bytes)?,
            eof: len == left,
        })
    }

    pub(super) fn query_readdir(
        &self,
        cred: &Cred,
        dir: Ino,
        after: Cookie,
        attributes: bool,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> FsResult<bool> {
        let inode = self.directory(dir)?;
        rules::require(&inode.attr, cred, Perm::READ)?;
        if after.0 >= inode.dir.next_cookie {
            return Err(FsError::BadCookie);
        }
        let mut show = |cookie: Cookie, name: &[u8], ino: Ino| {
            let attr = if attributes {
                Some(self.inode(ino)?.attr)
            } else {
                None
            };
            Ok(visit(DirEntry {
                ino,
                name,
                cookie,
                attr,
            }))
        };
        let dots = [
            (Cookie(rules::COOKIE_DOT), &b"."[..], dir),
            (
                Cookie(rules::COOKIE_DOT_DOT),
                &b".."[..],
                Ino(inode.dir.parent),
            ),
        ];
        for (cookie, name, ino) in dots {
            if cookie > after && show(cookie, name, ino)?.is_break() {
                return Ok(false);
            }
        }
        let from = Cookie(after.0.saturating_add(1));
        let end = keys::after_prefix(&keys::by_ino(keys::ENTRY_BY_COOKIE, dir));
        let from = keys::entry_by_cookie(dir, from);
        self.layers.scan(&from, end.as_deref(), &mut |key, value| {
            let cookie = keys::cookie_of(key)
                .ok_or_else(|| fatal("the metadata is damaged", "an entry has no cookie"))?;
            let (ino, name) = record::decode_named(value)?;
            show(cookie, name, ino)
        })
    }

    pub(super) fn query_statfs(&self) -> FsResult<StatFs> {
        let space = self
            .disk
            .space()
            .map_err(|e| fatal("cannot ask the disk for its free space", e))?;
        let fit = rules::files_within(space.free_bytes);
        let free_files = space.free_files.map_or(fit, |files| files.min(fit));
        Ok(StatFs {
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes,
            available_bytes: space.free_bytes,
            total_files: self.counters.inodes.saturating_add(free_files),
            free_files,
        })
    }
}
