//! Refusals of mutating procedures before they run: a read-only service, no space left. With the attributes that
//! a failure tells.

use super::view::View;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{Args3, Fh3, LinkWcc, Nfsstat3, RenameWcc, Res3, WccData};
use haven_xdr::{Encode, Gather, encode_all};

/// Refuses a mutation with `status`.
pub(super) fn refuse<F: Filesystem>(
    view: &View<'_, F>,
    args: &Args3,
    status: Nfsstat3,
) -> Result<Gather, Fatal> {
    let fh = match args {
        Args3::Setattr(args) => &args.object,
        Args3::Write(args) => &args.file,
        Args3::Create(args) => &args.place.dir,
        Args3::Mkdir(args) => &args.place.dir,
        Args3::Symlink(args) => &args.place.dir,
        Args3::Mknod(args) => &args.place.dir,
        Args3::Remove(args) => &args.object.dir,
        Args3::Rmdir(args) => &args.object.dir,
        Args3::Rename(args) => {
            let fromdir_wcc = after(view, &args.from.dir)?;
            let todir_wcc = after(view, &args.to.dir)?;
            let wcc = RenameWcc {
                fromdir_wcc,
                todir_wcc,
            };
            return Ok(failure(status, wcc));
        }
        Args3::Link(args) => {
            let file_attributes = view.post_op(&args.file)?;
            let linkdir_wcc = after(view, &args.link.dir)?;
            let wcc = LinkWcc {
                file_attributes,
                linkdir_wcc,
            };
            return Ok(failure(status, wcc));
        }
        query => return Err(Fatal(format!("{:?} is no mutation", query.proc()))),
    };
    Ok(failure(status, after(view, fh)?))
}

fn after<F: Filesystem>(view: &View<'_, F>, fh: &Fh3) -> Result<WccData, Fatal> {
    view.wcc(None, fh)
}

fn failure<F: Encode>(status: Nfsstat3, fail: F) -> Gather {
    encode_all(&Res3::<(), F>::Fail(status, fail))
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
