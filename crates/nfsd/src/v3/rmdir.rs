//! RMDIR (RFC 1813 section 3.3.13): removes an empty directory.

use super::status::finish;
use super::view::Edit;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{RmdirArgs, RmdirRes};

pub(super) fn rmdir<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    args: &RmdirArgs,
) -> Result<RmdirRes, Fatal> {
    let dir = &args.object.dir;
    let name = args.object.name.as_ref();
    let before = edit.view().pre_op(dir)?;
    let outcome = edit.with(dir, |fs, at, cred, dir| fs.rmdir(at, cred, dir, name));
    let wcc = edit.view().wcc(before, dir)?;
    finish(outcome.map(|()| wcc), || Ok(wcc))
}
