//! GETATTR (RFC 1813 section 3.3.1): attributes of an object. No permission is needed.

use super::status::finish;
use super::view::View;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{GetattrArgs, GetattrOk, GetattrRes};

pub(super) fn getattr<F: Filesystem>(
    view: &View<'_, F>,
    args: &GetattrArgs,
) -> Result<GetattrRes, Fatal> {
    let outcome = view.resolve(&args.object).map(|attr| GetattrOk {
        obj_attributes: view.fattr(&attr),
    });
    finish(outcome, || Ok(()))
}
