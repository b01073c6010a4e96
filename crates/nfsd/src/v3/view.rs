//! What a procedure works on: the file system through the eyes of one caller, and the handles and
//! attributes that it is told about.

use super::attr::{fattr, wcc_attr};
use super::status::Failure;
use crate::Fatal;
use crate::handle::Target;
use crate::identity::Identity;
use bytes::Bytes;
use haven_fs::{Attr, Change, Cred, Filesystem, FsResult, Ino};
use haven_proto::nfs3::{Fattr3, Fh3, PostOpAttr, PreOpAttr, WccAttr, WccData};
use std::collections::BTreeSet;

/// A caller's view.
pub(crate) struct View<'a, F> {
    pub(crate) fs: &'a F,
    pub(crate) identity: &'a Identity,
    /// Directories that clients mount: their parent is not shown.
    pub(crate) roots: &'a BTreeSet<Ino>,
    pub(crate) cred: &'a Cred,
    /// Nothing may be changed through this view.
    pub(crate) read_only: bool,
}

/// A caller's chance to change something.
pub(crate) struct Edit<'a, F> {
    pub(crate) fs: &'a mut F,
    pub(crate) identity: &'a Identity,
    pub(crate) roots: &'a BTreeSet<Ino>,
    pub(crate) cred: &'a Cred,
    pub(crate) at: Change,
}

impl<F: Filesystem> View<'_, F> {
    /// The attributes of the inode that a handle names.
    pub(super) fn resolve(&self, fh: &Fh3) -> Result<Attr, Failure> {
        let target = self.identity.handles().decode(&fh.0)?;
        let attr = self.fs.attr(target.ino)?;
        if attr.generation != target.generation {
            return Err(haven_fs::FsError::Stale.into());
        }
        Ok(attr)
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

    pub(super) fn fh(&self, attr: &Attr) -> Fh3 {
        let target = Target {
            ino: attr.ino,
            generation: attr.generation,
        };
        Fh3(Bytes::copy_from_slice(
            &self.identity.handles().encode(target),
        ))
    }

    /// The inode that an entry of a directory is shown to be: `..` of what clients mount is itself.
    pub(super) fn shown_ino(&self, dir: Ino, name: &[u8], ino: Ino) -> Ino {
        if name == b".." && self.roots.contains(&dir) {
            dir
        } else {
            ino
        }
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
            cred: self.cred,
            read_only: false,
        }
    }

    /// Runs `change` on the inode that `fh` names.
    pub(super) fn with<T>(
        &mut self,
        fh: &Fh3,
        change: impl FnOnce(&mut F, &Change, &Cred, Ino) -> FsResult<T>,
    ) -> Result<T, Failure> {
        let ino = self.view().resolve(fh)?.ino;
        Ok(change(self.fs, &self.at, self.cred, ino)?)
    }
}
