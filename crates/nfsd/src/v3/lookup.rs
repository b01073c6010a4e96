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
    let dir = view.resolve(&args.what.dir)?;
    let name = args.what.name.as_ref();
    let found = view.fs.lookup(view.cred, dir.ino, name)?;
    let shown = view.shown_ino(dir.ino, name, found.ino);
    let found = if shown == dir.ino { dir.clone() } else { found };
    Ok(LookupOk {
        object: view.fh(&found),
        obj_attributes: Some(view.fattr(&found)),
        dir_attributes: Some(view.fattr(&dir)),
    })
}
