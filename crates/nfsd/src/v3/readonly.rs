//! NFS3ERR_ROFS for every mutating procedure, with the attributes that its failure tells.

use super::view::View;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{Args3, Fh3, LinkWcc, Nfsstat3, RenameWcc, Res3, WccData};
use haven_xdr::{Encode, Gather, encode_all};

/// The refusal of a mutation.
pub(super) fn refuse<F: Filesystem>(view: &View<'_, F>, args: &Args3) -> Result<Gather, Fatal> {
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
            return Ok(rofs(RenameWcc {
                fromdir_wcc,
                todir_wcc,
            }));
        }
        Args3::Link(args) => {
            let file_attributes = view.post_op(&args.file)?;
            let linkdir_wcc = after(view, &args.link.dir)?;
            return Ok(rofs(LinkWcc {
                file_attributes,
                linkdir_wcc,
            }));
        }
        query => return Err(Fatal(format!("{:?} is no mutation", query.proc()))),
    };
    Ok(rofs(after(view, fh)?))
}

fn after<F: Filesystem>(view: &View<'_, F>, fh: &Fh3) -> Result<WccData, Fatal> {
    view.wcc(None, fh)
}

fn rofs<F: Encode>(fail: F) -> Gather {
    encode_all(&Res3::<(), F>::Fail(Nfsstat3::RoFs, fail))
}
