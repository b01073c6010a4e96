//! LINK (RFC 1813 section 3.3.15): another name for an object, within one export.

use super::status::{Failure, finish};
use super::view::Edit;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{LinkArgs, LinkRes, LinkWcc, Nfsstat3};

pub(super) fn link<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    args: &LinkArgs,
) -> Result<LinkRes, Fatal> {
    let before = edit.view().pre_op(&args.link.dir)?;
    let outcome = run(edit, args);
    let view = edit.view();
    let wcc = LinkWcc {
        file_attributes: view.post_op(&args.file)?,
        linkdir_wcc: view.wcc(before, &args.link.dir)?,
    };
    finish(outcome.map(|()| wcc), || Ok(wcc))
}

fn run<F: Filesystem>(edit: &mut Edit<'_, F>, args: &LinkArgs) -> Result<(), Failure> {
    let (file, from) = edit.view().resolve_in(&args.file)?;
    let (_, to) = edit.view().resolve_in(&args.link.dir)?;
    if from != to {
        return Err(Nfsstat3::XDev.into());
    }
    let name = args.link.name.as_ref();
    edit.with(&args.link.dir, |fs, at, cred, dir| {
        fs.link(at, cred, file.ino, dir, name)
    })?;
    Ok(())
}
