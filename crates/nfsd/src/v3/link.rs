//! LINK (RFC 1813 section 3.3.15): another name for an object.

use super::status::{Failure, finish};
use super::view::Edit;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{LinkArgs, LinkRes, LinkWcc};

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
    let ino = edit.view().resolve(&args.file)?.ino;
    let name = args.link.name.as_ref();
    edit.with(&args.link.dir, |fs, at, cred, dir| {
        fs.link(at, cred, ino, dir, name)
    })?;
    Ok(())
}
