//! FSINFO (RFC 1813 section 3.3.19): limits and preferences.

use super::IO_BYTES_MAX;
use super::status::finish;
use super::view::View;
use crate::Fatal;
use haven_fs::{FILE_SIZE_MAX, Filesystem};
use haven_proto::nfs3::{FsinfoArgs, FsinfoOk, FsinfoRes, Nfstime3, fsf};

/// Preferred size of a READDIR.
const DTPREF_BYTES: u32 = 64 * 1024;
/// Sizes that suit reads and writes are multiples of this.
const MULTIPLE_BYTES: u32 = 4096;

pub(super) fn fsinfo<F: Filesystem>(
    view: &View<'_, F>,
    args: &FsinfoArgs,
) -> Result<FsinfoRes, Fatal> {
    let outcome = view.resolve(&args.fsroot).map(|attr| FsinfoOk {
        obj_attributes: Some(view.fattr(&attr)),
        rtmax: IO_BYTES_MAX,
        rtpref: IO_BYTES_MAX,
        rtmult: MULTIPLE_BYTES,
        wtmax: IO_BYTES_MAX,
        wtpref: IO_BYTES_MAX,
        wtmult: MULTIPLE_BYTES,
        dtpref: DTPREF_BYTES,
        maxfilesize: FILE_SIZE_MAX,
        time_delta: Nfstime3 {
            seconds: 0,
            nseconds: 1,
        },
        properties: fsf::LINK | fsf::SYMLINK | fsf::HOMOGENEOUS | fsf::CANSETTIME,
    });
    finish(outcome, || view.post_op(&args.fsroot))
}
