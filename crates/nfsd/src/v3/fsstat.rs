//! FSSTAT (RFC 1813 section 3.3.18): space and inodes.

use super::status::{Failure, finish};
use super::view::View;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{FsstatArgs, FsstatOk, FsstatRes};

pub(super) fn fsstat<F: Filesystem>(
    view: &View<'_, F>,
    args: &FsstatArgs,
) -> Result<FsstatRes, Fatal> {
    finish(run(view, args), || view.post_op(&args.fsroot))
}

fn run<F: Filesystem>(view: &View<'_, F>, args: &FsstatArgs) -> Result<FsstatOk, Failure> {
    let attr = view.resolve(&args.fsroot)?;
    let stat = view.fs.statfs()?;
    Ok(FsstatOk {
        obj_attributes: Some(view.fattr(&attr)),
        tbytes: stat.total_bytes,
        fbytes: stat.free_bytes,
        abytes: stat.free_bytes,
        tfiles: stat.total_files,
        ffiles: stat.free_files,
        afiles: stat.free_files,
        invarsec: 0,
    })
}
