//! Refusals that need no state: a status, and no attributes (whoever is not let in learns nothing).

use haven_proto::nfs3::{Args3, Fh3, LinkWcc, Nfsstat3, PostOpAttr, RenameWcc, Res3, WccData};
use haven_xdr::{Encode, Gather, encode_all};

/// The failed result of a procedure.
pub(crate) fn refusal(args: &Args3, status: Nfsstat3) -> Gather {
    match args {
        Args3::Null => Gather::new(),
        Args3::Getattr(_) => failed(status, ()),
        Args3::Lookup(_)
        | Args3::Access(_)
        | Args3::Readlink(_)
        | Args3::Read(_)
        | Args3::Readdir(_)
        | Args3::Readdirplus(_)
        | Args3::Fsstat(_)
        | Args3::Fsinfo(_)
        | Args3::Pathconf(_) => failed(status, PostOpAttr::default()),
        Args3::Setattr(_)
        | Args3::Write(_)
        | Args3::Create(_)
        | Args3::Mkdir(_)
        | Args3::Symlink(_)
        | Args3::Mknod(_)
        | Args3::Remove(_)
        | Args3::Rmdir(_)
        | Args3::Commit(_) => failed(status, WccData::default()),
        Args3::Rename(_) => failed(
            status,
            RenameWcc {
                fromdir_wcc: WccData::default(),
                todir_wcc: WccData::default(),
            },
        ),
        Args3::Link(_) => failed(
            status,
            LinkWcc {
                file_attributes: None,
                linkdir_wcc: WccData::default(),
            },
        ),
    }
}

/// The handles in the arguments: one, two for RENAME and LINK, none for NULL.
pub(crate) fn handles(args: &Args3) -> [Option<&Fh3>; 2] {
    let one = match args {
        Args3::Null => return [None, None],
        Args3::Rename(args) => return [Some(&args.from.dir), Some(&args.to.dir)],
        Args3::Link(args) => return [Some(&args.file), Some(&args.link.dir)],
        Args3::Getattr(args) => &args.object,
        Args3::Setattr(args) => &args.object,
        Args3::Lookup(args) => &args.what.dir,
        Args3::Access(args) => &args.object,
        Args3::Readlink(args) => &args.symlink,
        Args3::Read(args) => &args.file,
        Args3::Write(args) => &args.file,
        Args3::Create(args) => &args.place.dir,
        Args3::Mkdir(args) => &args.place.dir,
        Args3::Symlink(args) => &args.place.dir,
        Args3::Mknod(args) => &args.place.dir,
        Args3::Remove(args) => &args.object.dir,
        Args3::Rmdir(args) => &args.object.dir,
        Args3::Readdir(args) => &args.dir,
        Args3::Readdirplus(args) => &args.dir,
        Args3::Fsstat(args) => &args.fsroot,
        Args3::Fsinfo(args) => &args.fsroot,
        Args3::Pathconf(args) => &args.object,
        Args3::Commit(args) => &args.file,
    };
    [Some(one), None]
}

/// A failure with `body`.
pub(super) fn failed<F: Encode>(status: Nfsstat3, body: F) -> Gather {
    encode_all(&Res3::<(), F>::Fail(status, body))
}
