//! READ (RFC 1813 section 3.3.6): file data, at most [`IO_BYTES_MAX`] at once. The access time stays:
//! reads are not logged.

use super::IO_BYTES_MAX;
use super::status::{Failure, finish};
use super::view::View;
use crate::Fatal;
use haven_fs::{Filesystem, OFFSET_MAX, rules};
use haven_proto::nfs3::{Nfsstat3, ReadArgs, ReadOk, ReadRes};

pub(super) fn read<F: Filesystem>(view: &View<'_, F>, args: &ReadArgs) -> Result<ReadRes, Fatal> {
    finish(run(view, args), || view.post_op(&args.file))
}

fn run<F: Filesystem>(view: &View<'_, F>, args: &ReadArgs) -> Result<ReadOk, Failure> {
    let attr = view.resolve(&args.file)?;
    // What is no file is refused as such, wherever it is read.
    rules::check_regular(&attr)?;
    if args.offset > OFFSET_MAX {
        return Err(Nfsstat3::Inval.into());
    }
    let count = args.count.min(IO_BYTES_MAX);
    let read = view.fs.read(view.cred, attr.ino, args.offset, count)?;
    let count = u32::try_from(read.data.len())
        .map_err(|_| Fatal("the engine returned more than was read".to_owned()))?;
    Ok(ReadOk {
        file_attributes: Some(view.fattr(&attr)),
        count,
        eof: read.eof,
        data: read.data,
    })
}
