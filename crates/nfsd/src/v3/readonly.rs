//! Refusals of mutating procedures before they run: a read-only service, no space left. With the attributes that
//! a failure tells.

use super::is_mutation;
use super::refuse::{failed, handles};
use super::view::View;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{Args3, Fh3, LinkWcc, Nfsstat3, RenameWcc, WccData};
use haven_xdr::Gather;

/// Refuses a mutation with `status`.
pub(super) fn refuse<F: Filesystem>(
    view: &View<'_, F>,
    args: &Args3,
    status: Nfsstat3,
) -> Result<Gather, Fatal> {
    if !is_mutation(args) {
        return Err(Fatal(format!("{:?} is no mutation", args.proc())));
    }
    match (args, handles(args)) {
        (Args3::Link(_), [Some(file), Some(dir)]) => {
            let file_attributes = view.post_op(file)?;
            let linkdir_wcc = after(view, dir)?;
            let wcc = LinkWcc {
                file_attributes,
                linkdir_wcc,
            };
            Ok(failed(status, wcc))
        }
        (_, [Some(from), Some(to)]) => {
            let fromdir_wcc = after(view, from)?;
            let todir_wcc = after(view, to)?;
            let wcc = RenameWcc {
                fromdir_wcc,
                todir_wcc,
            };
            Ok(failed(status, wcc))
        }
        (_, [Some(fh), _]) => Ok(failed(status, after(view, fh)?)),
        (_, [None, _]) => Err(Fatal(format!("{:?} names no file", args.proc()))),
    }
}

fn after<F: Filesystem>(view: &View<'_, F>, fh: &Fh3) -> Result<WccData, Fatal> {
    view.wcc(None, fh)
}

/// Refuses with NFS3ERR_NOSPC what would take space; `None`: it may run. Overwriting counts as growing: its log
/// entry takes the space even if the file does not. Renaming is let through, because editors that replace a
/// file must be able to finish.
pub(crate) fn refuse_growth<F: Filesystem>(
    view: &View<'_, F>,
    args: &Args3,
) -> Result<Option<Gather>, Fatal> {
    let grows = match args {
        Args3::Write(_)
        | Args3::Create(_)
        | Args3::Mkdir(_)
        | Args3::Symlink(_)
        | Args3::Mknod(_)
        | Args3::Link(_) => true,
        Args3::Setattr(args) => match (args.new_attributes.size, view.resolve(&args.object)) {
            (Some(size), Ok(attr)) => size > attr.size,
            // It fails by itself, with the right status.
            _ => false,
        },
        _ => false,
    };
    grows
        .then(|| refuse(view, args, Nfsstat3::NoSpc))
        .transpose()
}
