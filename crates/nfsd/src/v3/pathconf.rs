//! PATHCONF (RFC 1813 section 3.3.20): limits of names and links, the same everywhere.

use super::status::finish;
use super::view::View;
use crate::Fatal;
use haven_fs::{Filesystem, LINKS_MAX, NAME_BYTES_MAX};
use haven_proto::nfs3::{PathconfArgs, PathconfOk, PathconfRes};

pub(super) fn pathconf<F: Filesystem>(
    view: &View<'_, F>,
    args: &PathconfArgs,
) -> Result<PathconfRes, Fatal> {
    let outcome = view.resolve(&args.object).map(|attr| PathconfOk {
        obj_attributes: Some(view.fattr(&attr)),
        linkmax: LINKS_MAX,
        name_max: NAME_BYTES_MAX as u32,
        no_trunc: true,
        chown_restricted: true,
        case_insensitive: false,
        case_preserving: true,
    });
    finish(outcome, || view.post_op(&args.object))
}
