//! What the path of a MNT leads to: a directory or a regular file of the export that lets the client in, through symbolic
//! links as Linux's mountd follows them.
//!
//! Invariants
//! - A link leads nowhere but within the export, not even on its way: what lies outside it is not looked at, so that who
//!   may make links learns nothing of it.
//! - Links and names on the way are bounded: this is done where entries are applied.
//!
//! It must not know who may mount what.

use haven_fs::{Attr, Cred, Filesystem, FsError, FsResult, Ino, Kind, rules};
use std::collections::VecDeque;

/// Most links followed, as on Linux.
const LINKS_MAX: usize = 40;
/// Most names looked at: twice as many as fit into a path.
const NAMES_MAX: usize = 1024;

/// What is at `names`, which are those of an absolute path without `.` and `..`, in the export whose directory is `root`.
///
/// # Errors
/// [`FsError::NotDirectory`] also for what is neither directory nor file; [`FsError::AccessDenied`] where a link leads
/// out of the export, or there are too many.
pub(crate) fn find(fs: &impl Filesystem, root: Option<Ino>, names: &[&[u8]]) -> FsResult<Attr> {
    let mut at = fs.attr(fs.root())?;
    for (depth, name) in names.iter().enumerate() {
        if Some(at.ino) == root {
            let (export, below) = names.split_at(depth);
            let walk = Walk {
                fs,
                export,
                way: vec![at],
                links: 0,
                names: 0,
            };
            at = walk.go(below)?;
            break;
        }
        rules::check_directory(&at)?;
        at = fs.lookup(&Cred::root(), at.ino, name)?;
    }
    match at.kind {
        Kind::Directory | Kind::Regular => Ok(at),
        _ => Err(FsError::NotDirectory),
    }
}

/// A walk within an export.
struct Walk<'a, F> {
    fs: &'a F,
    /// The names of the export's directory.
    export: &'a [&'a [u8]],
    /// From the export's directory to where it is; never empty.
    way: Vec<Attr>,
    links: usize,
    names: usize,
}

impl<F: Filesystem> Walk<'_, F> {
    fn go(mut self, names: &[&[u8]]) -> FsResult<Attr> {
        let mut left: VecDeque<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
        while let Some(name) = left.pop_front() {
            self.names += 1;
            if self.names > NAMES_MAX {
                return Err(FsError::AccessDenied);
            }
            if let Some(target) = self.step(&name)? {
                let rest = self.restart(&target)?;
                for name in rest.into_iter().rev() {
                    left.push_front(name.to_vec());
                }
            }
        }
        self.here()
    }

    fn here(&self) -> FsResult<Attr> {
        self.way.last().cloned().ok_or(FsError::AccessDenied)
    }

    /// Goes to one name; what it says if it is a link.
    fn step(&mut self, name: &[u8]) -> FsResult<Option<bytes::Bytes>> {
        let here = self.here()?;
        rules::check_directory(&here)?;
        if name == b".." {
            self.way.pop();
            return self.here().map(|_| None);
        }
        let found = self.fs.lookup(&Cred::root(), here.ino, name)?;
        if found.kind != Kind::Symlink {
            self.way.push(found);
            return Ok(None);
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(FsError::AccessDenied);
        }
        self.fs.readlink(&Cred::root(), found.ino).map(Some)
    }

    /// The names to go on with from a link's target: an absolute one begins with those of the export.
    fn restart<'t>(&mut self, target: &'t [u8]) -> FsResult<Vec<&'t [u8]>> {
        let is_name = |name: &&[u8]| !name.is_empty() && *name != b".";
        let names: Vec<_> = target.split(|&b| b == b'/').filter(is_name).collect();
        if target.first() != Some(&b'/') {
            return Ok(names);
        }
        if !names.starts_with(self.export) {
            return Err(FsError::AccessDenied);
        }
        self.way.truncate(1);
        Ok(names.into_iter().skip(self.export.len()).collect())
    }
}
