//! REMOVE (RFC 1813 section 3.3.12): takes a name that is no directory away.

use super::status::finish;
use super::view::Edit;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{RemoveArgs, RemoveRes};

pub(super) fn remove<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    args: &RemoveArgs,
) -> Result<RemoveRes, Fatal> {
    let dir = &args.object.dir;
    let name = args.object.name.as_ref();
    let before = edit.view().pre_op(dir)?;
    let outcome = edit.with(dir, |fs, at, cred, dir| fs.remove(at, cred, dir, name));
    let wcc = edit.view().wcc(before, dir)?;
    finish(outcome.map(|()| wcc), || Ok(wcc))
}
