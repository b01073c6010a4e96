//! MKDIR (RFC 1813 section 3.3.9): a directory.

use super::attr::set_attr;
use super::create::make;
use super::view::Edit;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{MkdirArgs, MkdirRes};

pub(super) fn mkdir<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    args: &MkdirArgs,
) -> Result<MkdirRes, Fatal> {
    let set = set_attr(&args.attributes);
    let name = args.place.name.as_ref();
    make(edit, &args.place, |fs, at, cred, dir| {
        fs.mkdir(at, cred, dir, name, &set)
    })
}
