//! LOOKUP (RFC 1813 section 3.3.3): finds a name in a directory.

use super::status::{Failure, finish};
use super::view::View;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{LookupArgs, LookupOk, LookupRes};

pub(super) fn lookup<F: Filesystem>(
    view: &View<'_, F>,
    args: &LookupArgs,
) -> Result<LookupRes, Fatal> {
    finish(run(view, args), || view.post_op(&args.what.dir))
}

fn run<F: Filesystem>(view: &View<'_, F>, args: &LookupArgs) -> Result<LookupOk, Failure> {
    let (dir, export) = view.resolve_in(&args.what.dir)?;
    let name = args.what.name.as_ref();
    let mut found = view.fs.lookup(view.cred, dir.ino, name)?;
    if name == b".." {
        found = view.parent(export, &dir)?;
    }
    Ok(LookupOk {
        object: view.fh(export, &found),
        obj_attributes: Some(view.fattr(&found)),
        dir_attributes: Some(view.fattr(&dir)),
    })
}
