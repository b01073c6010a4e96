//! RENAME (RFC 1813 section 3.3.14): moves a name within one export,
//! replacing what is in its place.

use super::status::{Failure, finish};
use super::view::Edit;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{Nfsstat3, RenameArgs, RenameRes, RenameWcc};

pub(super) fn rename<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    args: &RenameArgs,
) -> Result<RenameRes, Fatal> {
    let (from, to) = (&args.from.dir, &args.to.dir);
    let (from_before, to_before) = (edit.view().pre_op(from)?, edit.view().pre_op(to)?);
    let outcome = run(edit, args);
    let wcc = RenameWcc {
        fromdir_wcc: edit.view().wcc(from_before, from)?,
        todir_wcc: edit.view().wcc(to_before, to)?,
    };
    finish(outcome.map(|()| wcc), || Ok(wcc))
}

fn run<F: Filesystem>(edit: &mut Edit<'_, F>, args: &RenameArgs) -> Result<(), Failure> {
    let (old, new) = (args.from.name.as_ref(), args.to.name.as_ref());
    let (from_dir, from) = edit.view().resolve_in(&args.from.dir)?;
    let (_, to) = edit.view().resolve_in(&args.to.dir)?;
    if from != to {
        return Err(Nfsstat3::XDev.into());
    }
    edit.with(&args.to.dir, |fs, at, cred, to_dir| {
        fs.rename(at, cred, from_dir.ino, old, to_dir, new)
    })
}
