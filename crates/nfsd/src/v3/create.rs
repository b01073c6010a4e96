//! CREATE (RFC 1813 section 3.3.8): a regular file, and what all creating procedures answer.

use super::attr::set_attr;
use super::status::{Failure, finish};
use super::view::Edit;
use crate::Fatal;
use crate::handle::ExportId;
use haven_fs::{Attr, Change, Create, Cred, Filesystem, FsResult, Ino};
use haven_proto::nfs3::{CreateArgs, CreateOk, CreateRes, Createhow3, Diropargs3};

pub(super) fn create<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    args: &CreateArgs,
) -> Result<CreateRes, Fatal> {
    let how = match &args.how {
        Createhow3::Unchecked(sattr) => Create::Unchecked(set_attr(sattr)),
        Createhow3::Guarded(sattr) => Create::Guarded(set_attr(sattr)),
        Createhow3::Exclusive(verf) => Create::Exclusive(verf.0),
    };
    let name = args.place.name.as_ref();
    make(edit, &args.place, |fs, at, cred, dir| {
        fs.create(at, cred, dir, name, &how)
    })
}

/// Runs `operation` in the directory of `place` and answers for what it made.
pub(super) fn make<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    place: &Diropargs3,
    operation: impl FnOnce(&mut F, &Change, &Cred, Ino) -> FsResult<Attr>,
) -> Result<CreateRes, Fatal> {
    let before = edit.view().pre_op(&place.dir)?;
    let outcome: Result<(ExportId, Attr), Failure> = edit.with_export(&place.dir, operation);
    let view = edit.view();
    let dir_wcc = view.wcc(before, &place.dir)?;
    let ok = |(export, attr): (ExportId, Attr)| CreateOk {
        obj: Some(view.fh(export, &attr)),
        obj_attributes: Some(view.fattr(&attr)),
        dir_wcc,
    };
    finish(outcome.map(ok), || Ok(dir_wcc))
}
