//! MKNOD (RFC 1813 section 3.3.11): a special file. Devices mean something on clients only.

use super::attr::{device, set_attr};
use super::create::make;
use super::view::Edit;
use crate::Fatal;
use haven_fs::{Filesystem, Kind, SetAttr};
use haven_proto::nfs3::{Ftype3, MknodArgs, MknodRes, Mknoddata3};

pub(super) fn mknod<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    args: &MknodArgs,
) -> Result<MknodRes, Fatal> {
    let (kind, set) = match &args.what {
        Mknoddata3::Chr(data) => (
            Kind::CharDevice(device(data.spec)),
            set_attr(&data.dev_attributes),
        ),
        Mknoddata3::Blk(data) => (
            Kind::BlockDevice(device(data.spec)),
            set_attr(&data.dev_attributes),
        ),
        Mknoddata3::Sock(sattr) => (Kind::Socket, set_attr(sattr)),
        Mknoddata3::Fifo(sattr) => (Kind::Fifo, set_attr(sattr)),
        // The file system refuses these, after what else may be wrong with the request.
        Mknoddata3::Other(Ftype3::Dir) => (Kind::Directory, SetAttr::default()),
        Mknoddata3::Other(_) => (Kind::Regular, SetAttr::default()),
    };
    let name = args.place.name.as_ref();
    make(edit, &args.place, |fs, at, cred, dir| {
        fs.mknod(at, cred, dir, name, kind, &set)
    })
}
