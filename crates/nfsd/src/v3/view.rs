//! What a procedure works on: the file system through the eyes of one caller, and the handles and
//! attributes that it is told about.

use super::attr::{fattr, wcc_attr};
use super::fsstat::Room;
use super::status::Failure;
use crate::Fatal;
use crate::handle::{ExportId, Target};
use crate::identity::Identity;
use crate::inside::{Inside, Whereabouts};
use bytes::Bytes;
use haven_fs::{Attr, Change, Cred, Filesystem, FsResult, Ino, MOVE_DEPTH_MAX};
use haven_proto::nfs3::{Fattr3, Fh3, Nfsstat3, PostOpAttr, PreOpAttr, WccAttr, WccData};
use std::collections::BTreeMap;

/// A caller's view.
pub(crate) struct View<'a, F> {
    pub(crate) fs: &'a F,
    pub(crate) identity: &'a Identity,
    /// The exports' directories: what is above one is not shown through it.
    pub(crate) roots: &'a BTreeMap<ExportId, Ino>,
    pub(crate) inside: &'a Inside,
    pub(crate) cred: &'a Cred,
    /// Nothing may be changed through this view.
    pub(crate) read_only: bool,
    /// What FSSTAT tells; `None`: what the engine says.
    pub(crate) room: Option<Room>,
}

/// A caller's chance to change something.
pub(crate) struct Edit<'a, F> {
    pub(crate) fs: &'a mut F,
    pub(crate) identity: &'a Identity,
    pub(crate) roots: &'a BTreeMap<ExportId, Ino>,
    pub(crate) inside: &'a Inside,
    pub(crate) cred: &'a Cred,
    pub(crate) at: Change,
}

impl<F: Filesystem> View<'_, F> {
    /// The attributes of the inode that a handle names.
    pub(super) fn resolve(&self, fh: &Fh3) -> Result<Attr, Failure> {
        Ok(self.resolve_in(fh)?.0)
    }

    /// The same, with the export that the client came through.
    pub(super) fn resolve_in(&self, fh: &Fh3) -> Result<(Attr, ExportId), Failure> {
        let target = self.identity.handles().decode(&fh.0)?;
        let attr = self.fs.attr(target.ino)?;
        if attr.generation != target.generation {
            return Err(haven_fs::FsError::Stale.into());
        }
        Ok((attr, target.export))
    }

    /// `post_op_attr` of a handle: none if it means nothing (any more).
    pub(super) fn post_op(&self, fh: &Fh3) -> Result<PostOpAttr, Fatal> {
        Ok(self.known(fh)?.map(|attr| self.fattr(&attr)))
    }

    /// `pre_op_attr` of a handle.
    pub(super) fn pre_op(&self, fh: &Fh3) -> Result<PreOpAttr, Fatal> {
        Ok(self.known(fh)?.map(|attr| wcc_attr(&attr)))
    }

    /// `wcc_data` after an operation.
    pub(super) fn wcc(&self, before: Option<WccAttr>, fh: &Fh3) -> Result<WccData, Fatal> {
        Ok(WccData {
            before,
            after: self.post_op(fh)?,
        })
    }

    pub(super) fn fattr(&self, attr: &Attr) -> Fattr3 {
        fattr(attr, self.identity.fsid())
    }

    /// The handle of what was found through `export`.
    pub(super) fn fh(&self, export: ExportId, attr: &Attr) -> Fh3 {
        let target = Target {
            export,
            ino: attr.ino,
            generation: attr.generation,
        };
        Fh3(Bytes::copy_from_slice(
            &self.identity.handles().encode(target),
        ))
    }

    /// The directory that `..` of `dir` is shown to be: its parent, or itself where the parent is outside
    /// the export (its own root; or a directory that was moved out through a surrounding export).
    ///
    /// [`Nfsstat3::NameTooLong`] where `dir` lies more than [`MOVE_DEPTH_MAX`] levels below an export that is not the
    /// whole volume: whether it is inside is not looked for any further,
    /// unless it is known of a directory on the way.
    pub(super) fn parent(&self, export: ExportId, dir: &Attr) -> Result<Attr, Failure> {
        let Some(&root) = self.roots.get(&export) else {
            return Ok(dir.clone());
        };
        if dir.ino == root {
            return Ok(dir.clone());
        }
        let parent = self.up(dir.ino)?;
        if root == self.fs.root() {
            return Ok(parent);
        }
        match self.whereabouts(export, root, dir.ino)? {
            Whereabouts::Inside => Ok(parent),
            Whereabouts::Outside => Ok(dir.clone()),
            Whereabouts::TooDeep => Err(Nfsstat3::NameTooLong.into()),
        }
    }

    /// Where a directory lies, seen from the export whose own one is `root`: climbs until it is known.
    fn whereabouts(&self, export: ExportId, root: Ino, dir: Ino) -> Result<Whereabouts, Failure> {
        let (mut at, mut passed) = (dir, Vec::new());
        let found = loop {
            if at == root {
                break Whereabouts::Inside;
            }
            if at == self.fs.root() {
                break Whereabouts::Outside;
            }
            if let Some(known) = self.inside.of(export, at) {
                break known;
            }
            passed.push(at);
            if passed.len() > MOVE_DEPTH_MAX {
                // Those on the way are less deep.
                passed.truncate(1);
                break Whereabouts::TooDeep;
            }
            at = self.up(at)?.ino;
        };
        self.inside.note(export, &passed, found);
        Ok(found)
    }

    /// The parent, wherever it is.
    fn up(&self, dir: Ino) -> FsResult<Attr> {
        self.fs.lookup(&Cred::root(), dir, b"..")
    }

    fn known(&self, fh: &Fh3) -> Result<Option<Attr>, Fatal> {
        match self.resolve(fh) {
            Ok(attr) => Ok(Some(attr)),
            Err(Failure::Status(_)) => Ok(None),
            Err(Failure::Fatal(fatal)) => Err(fatal),
        }
    }
}

impl<F: Filesystem> Edit<'_, F> {
    pub(super) fn view(&self) -> View<'_, F> {
        View {
            fs: self.fs,
            identity: self.identity,
            roots: self.roots,
            inside: self.inside,
            cred: self.cred,
            read_only: false,
            room: None,
        }
    }

    /// Runs `change` on the inode that `fh` names.
    pub(super) fn with<T>(
        &mut self,
        fh: &Fh3,
        change: impl FnOnce(&mut F, &Change, &Cred, Ino) -> FsResult<T>,
    ) -> Result<T, Failure> {
        Ok(self.with_export(fh, change)?.1)
    }

    /// The same, and tells the export that the client came through.
    pub(super) fn with_export<T>(
        &mut self,
        fh: &Fh3,
        change: impl FnOnce(&mut F, &Change, &Cred, Ino) -> FsResult<T>,
    ) -> Result<(ExportId, T), Failure> {
        let (attr, export) = self.view().resolve_in(fh)?;
        Ok((export, change(self.fs, &self.at, self.cred, attr.ino)?))
    }
}
