//! A handle on the engine under test that gives each mutation its own [`Change`] and shortens the calls.

use super::Engine;
use crate::{
    Attr, Change, Cookie, Create, Cred, DirEntry, FsResult, Ino, Kind, ReadData, SetAttr, Time,
};
use std::ops::ControlFlow;

/// The engine under test with a log position.
pub struct Subject<'a> {
    /// The engine.
    pub fs: &'a mut dyn Engine,
    index: u64,
}

/// An owned directory entry: name, inode, cookie.
pub type Listed = (Vec<u8>, Ino, Cookie);

impl<'a> Subject<'a> {
    /// Starts at log index 1.
    pub fn new(fs: &'a mut dyn Engine) -> Self {
        Self { fs, index: 0 }
    }

    /// The change of the next mutation, which thereby has its own.
    pub fn advance(&mut self) -> Change {
        self.index += 1;
        self.now()
    }

    /// The change of the last mutation.
    pub fn now(&self) -> Change {
        let secs = 1_000 + i64::try_from(self.index).unwrap_or(i64::MAX / 2);
        Change {
            index: self.index,
            time: Time { secs, nanos: 7 },
        }
    }

    /// The root directory.
    pub fn root(&self) -> Ino {
        self.fs.root()
    }

    /// Attributes that must be there.
    ///
    /// # Panics
    /// When they are not.
    pub fn attr(&self, ino: Ino) -> Attr {
        self.fs
            .attr(ino)
            .unwrap_or_else(|e| panic!("attributes of {ino:?}: {e}"))
    }

    /// Creates a file (guarded).
    pub fn file(&mut self, cred: &Cred, dir: Ino, name: &str, mode: u32) -> FsResult<Attr> {
        self.create(cred, dir, name, &Create::Guarded(mode_of(mode)))
    }

    /// Creates a file.
    pub fn create(&mut self, cred: &Cred, dir: Ino, name: &str, how: &Create) -> FsResult<Attr> {
        let at = self.advance();
        self.fs.create(&at, cred, dir, name.as_bytes(), how)
    }

    /// Creates a directory.
    pub fn mkdir(&mut self, cred: &Cred, dir: Ino, name: &str, mode: u32) -> FsResult<Attr> {
        let at = self.advance();
        self.fs
            .mkdir(&at, cred, dir, name.as_bytes(), &mode_of(mode))
    }

    /// Creates a symbolic link.
    pub fn symlink(&mut self, cred: &Cred, dir: Ino, name: &str, to: &[u8]) -> FsResult<Attr> {
        let at = self.advance();
        self.fs
            .symlink(&at, cred, dir, name.as_bytes(), to, &SetAttr::default())
    }

    /// Creates a special file with mode 0600.
    pub fn mknod(&mut self, cred: &Cred, dir: Ino, name: &str, kind: Kind) -> FsResult<Attr> {
        let at = self.advance();
        self.fs
            .mknod(&at, cred, dir, name.as_bytes(), kind, &mode_of(0o600))
    }

    /// Sets attributes.
    pub fn setattr(&mut self, cred: &Cred, ino: Ino, set: &SetAttr) -> FsResult<Attr> {
        let at = self.advance();
        self.fs.setattr(&at, cred, ino, set, None)
    }

    /// Sets the mode.
    pub fn chmod(&mut self, cred: &Cred, ino: Ino, mode: u32) -> FsResult<Attr> {
        self.setattr(cred, ino, &mode_of(mode))
    }

    /// Sets the size.
    pub fn truncate(&mut self, cred: &Cred, ino: Ino, size: u64) -> FsResult<Attr> {
        self.setattr(
            cred,
            ino,
            &SetAttr {
                size: Some(size),
                ..SetAttr::default()
            },
        )
    }

    /// Writes.
    pub fn write(&mut self, cred: &Cred, ino: Ino, offset: u64, data: &[u8]) -> FsResult<Attr> {
        let at = self.advance();
        self.fs.write(&at, cred, ino, offset, data)
    }

    /// Reads.
    pub fn read(&self, cred: &Cred, ino: Ino, offset: u64, len: u32) -> FsResult<ReadData> {
        self.fs.read(cred, ino, offset, len)
    }

    /// Removes a file.
    pub fn remove(&mut self, cred: &Cred, dir: Ino, name: &str) -> FsResult<()> {
        let at = self.advance();
        self.fs.remove(&at, cred, dir, name.as_bytes())
    }

    /// Removes a directory.
    pub fn rmdir(&mut self, cred: &Cred, dir: Ino, name: &str) -> FsResult<()> {
        let at = self.advance();
        self.fs.rmdir(&at, cred, dir, name.as_bytes())
    }

    /// Renames.
    pub fn rename(&mut self, cred: &Cred, from: (Ino, &str), to: (Ino, &str)) -> FsResult<()> {
        let at = self.advance();
        self.fs
            .rename(&at, cred, from.0, from.1.as_bytes(), to.0, to.1.as_bytes())
    }

    /// Links.
    pub fn link(&mut self, cred: &Cred, ino: Ino, dir: Ino, name: &str) -> FsResult<Attr> {
        let at = self.advance();
        self.fs.link(&at, cred, ino, dir, name.as_bytes())
    }

    /// Looks up.
    pub fn lookup(&self, cred: &Cred, dir: Ino, name: &str) -> FsResult<Attr> {
        self.fs.lookup(cred, dir, name.as_bytes())
    }

    /// The entries after `cookie`, at most `max`, and whether the end was reached.
    pub fn list(
        &self,
        cred: &Cred,
        dir: Ino,
        cookie: Cookie,
        max: usize,
    ) -> FsResult<(Vec<Listed>, bool)> {
        list(&*self.fs, cred, dir, cookie, max)
    }
}

/// The entries after `cookie`, at most `max`, and whether the end was reached.
pub fn list(
    fs: &dyn Engine,
    cred: &Cred,
    dir: Ino,
    cookie: Cookie,
    max: usize,
) -> FsResult<(Vec<Listed>, bool)> {
    let mut entries = Vec::new();
    let end = fs.readdir(cred, dir, cookie, true, &mut |entry: DirEntry<'_>| {
        if entries.len() == max {
            return ControlFlow::Break(());
        }
        let attr = entry.attr.as_ref().map(|attr| attr.ino);
        assert_eq!(
            attr,
            Some(entry.ino),
            "an entry's attributes are its inode's"
        );
        entries.push((entry.name.to_vec(), entry.ino, entry.cookie));
        ControlFlow::Continue(())
    })?;
    Ok((entries, end))
}

/// A mode and nothing else.
pub fn mode_of(mode: u32) -> SetAttr {
    SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    }
}
