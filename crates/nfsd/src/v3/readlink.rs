//! READLINK (RFC 1813 section 3.3.5): a symbolic link's target.

use super::status::{Failure, finish};
use super::view::View;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{Nfspath3, ReadlinkArgs, ReadlinkOk, ReadlinkRes};

pub(super) fn readlink<F: Filesystem>(
    view: &View<'_, F>,
    args: &ReadlinkArgs,
) -> Result<ReadlinkRes, Fatal> {
    finish(run(view, args), || view.post_op(&args.symlink))
}

fn run<F: Filesystem>(view: &View<'_, F>, args: &ReadlinkArgs) -> Result<ReadlinkOk, Failure> {
    let attr = view.resolve(&args.symlink)?;
    let data = Nfspath3(view.fs.readlink(view.cred, attr.ino)?);
    Ok(ReadlinkOk {
        symlink_attributes: Some(view.fattr(&attr)),
        data,
    })
}
