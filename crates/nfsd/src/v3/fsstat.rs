//! FSSTAT (RFC 1813 section 3.3.18): space and inodes.

use super::status::{Failure, finish};
use super::view::View;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{FsstatArgs, FsstatOk, FsstatRes};

/// What the service has, where that is not what its engine sees of the machine it runs on: something is kept in reserve,
/// and other machines must have the space, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes in total.
    pub total_bytes: u64,
    /// Bytes free, what is kept in reserve included.
    pub free_bytes: u64,
    /// Bytes that clients may still take.
    pub available_bytes: u64,
    /// Inodes that clients may still make.
    pub free_files: u64,
}

pub(super) fn fsstat<F: Filesystem>(
    view: &View<'_, F>,
    args: &FsstatArgs,
) -> Result<FsstatRes, Fatal> {
    finish(run(view, args), || view.post_op(&args.fsroot))
}

fn run<F: Filesystem>(view: &View<'_, F>, args: &FsstatArgs) -> Result<FsstatOk, Failure> {
    let attr = view.resolve(&args.fsroot)?;
    let stat = view.fs.statfs()?;
    let room = view.room.unwrap_or(Room {
        total_bytes: stat.total_bytes,
        free_bytes: stat.free_bytes,
        available_bytes: stat.available_bytes,
        free_files: stat.free_files,
    });
    let inodes = stat.total_files.saturating_sub(stat.free_files);
    Ok(FsstatOk {
        obj_attributes: Some(view.fattr(&attr)),
        tbytes: room.total_bytes,
        fbytes: room.free_bytes,
        abytes: room.available_bytes,
        tfiles: inodes.saturating_add(room.free_files),
        ffiles: room.free_files,
        afiles: room.free_files,
        invarsec: 0,
    })
}
