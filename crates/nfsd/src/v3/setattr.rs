//! SETATTR (RFC 1813 section 3.3.2): changes attributes, if asked only when the ctime is a given one.

use super::attr::{set_attr, time};
use super::status::finish;
use super::view::Edit;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{SetattrArgs, SetattrRes};

pub(super) fn setattr<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    args: &SetattrArgs,
) -> Result<SetattrRes, Fatal> {
    let before = edit.view().pre_op(&args.object)?;
    let set = set_attr(&args.new_attributes);
    let guard = args.guard.map(time);
    let outcome = edit.with(&args.object, |fs, at, cred, ino| {
        fs.setattr(at, cred, ino, &set, guard)
    });
    let wcc = edit.view().wcc(before, &args.object)?;
    finish(outcome.map(|_| wcc), || Ok(wcc))
}
