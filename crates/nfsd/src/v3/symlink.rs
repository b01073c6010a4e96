//! SYMLINK (RFC 1813 section 3.3.10): a symbolic link. Its target is the client's to interpret.

use super::attr::set_attr;
use super::create::make;
use super::view::Edit;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{SymlinkArgs, SymlinkRes};

pub(super) fn symlink<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    args: &SymlinkArgs,
) -> Result<SymlinkRes, Fatal> {
    let set = set_attr(&args.symlink_attributes);
    let (name, target) = (args.place.name.as_ref(), args.symlink_data.as_ref());
    make(edit, &args.place, |fs, at, cred, dir| {
        fs.symlink(at, cred, dir, name, target, &set)
    })
}
