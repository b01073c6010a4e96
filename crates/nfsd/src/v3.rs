//! NFS version 3 (RFC 1813): one file per procedure.
//!
//! A procedure is a function of a [`View`] (queries) or an [`Edit`] (mutations) and its decoded
//! arguments. What fails for the client is a status in the result; [`Fatal`] is for the replica alone.
//!
//! It must not know RPC headers, the log, or the reply cache.

mod access;
mod attr;
mod commit;
mod create;
mod fsinfo;
mod fsstat;
mod getattr;
mod link;
mod listing;
mod lookup;
mod mkdir;
mod mknod;
mod pathconf;
mod read;
mod readdir;
mod readdirplus;
mod readlink;
mod readonly;
mod refuse;
mod remove;
mod rename;
mod rmdir;
mod setattr;
mod status;
mod symlink;
mod view;
mod write;

pub use fsstat::Room;
pub(crate) use listing::SEGMENT_BYTES;
pub(crate) use readonly::refuse_growth;
pub(crate) use refuse::{handles, refusal};
pub(crate) use view::{Edit, View};

use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{Args3, Nfsstat3};
use haven_xdr::{Encode, Gather, encode_all};

/// Most bytes that one READ returns or one WRITE takes, and that a listing has.
pub const IO_BYTES_MAX: u32 = 1024 * 1024;

fn body<T: Encode>(result: Result<T, Fatal>) -> Result<Gather, Fatal> {
    result.map(|value| encode_all(&value))
}

/// Whether a procedure may change something.
pub(crate) const fn is_mutation(args: &Args3) -> bool {
    match args {
        Args3::Setattr(_)
        | Args3::Write(_)
        | Args3::Create(_)
        | Args3::Mkdir(_)
        | Args3::Symlink(_)
        | Args3::Mknod(_)
        | Args3::Remove(_)
        | Args3::Rmdir(_)
        | Args3::Rename(_)
        | Args3::Link(_) => true,
        Args3::Null
        | Args3::Getattr(_)
        | Args3::Lookup(_)
        | Args3::Access(_)
        | Args3::Readlink(_)
        | Args3::Read(_)
        | Args3::Readdir(_)
        | Args3::Readdirplus(_)
        | Args3::Fsstat(_)
        | Args3::Fsinfo(_)
        | Args3::Pathconf(_)
        | Args3::Commit(_) => false,
    }
}

/// Answers a query. A mutation gets NFS3ERR_ROFS: it only comes here when the service is read-only.
pub(crate) fn query<F: Filesystem>(view: &View<'_, F>, args: &Args3) -> Result<Gather, Fatal> {
    match args {
        Args3::Null => Ok(Gather::new()),
        Args3::Getattr(args) => body(getattr::getattr(view, args)),
        Args3::Lookup(args) => body(lookup::lookup(view, args)),
        Args3::Access(args) => body(access::access(view, args)),
        Args3::Readlink(args) => body(readlink::readlink(view, args)),
        Args3::Read(args) => body(read::read(view, args)),
        Args3::Readdir(args) => readdir::readdir(view, args),
        Args3::Readdirplus(args) => readdirplus::readdirplus(view, args),
        Args3::Fsstat(args) => body(fsstat::fsstat(view, args)),
        Args3::Fsinfo(args) => body(fsinfo::fsinfo(view, args)),
        Args3::Pathconf(args) => body(pathconf::pathconf(view, args)),
        Args3::Commit(args) => body(commit::commit(view, args)),
        mutation => readonly::refuse(view, mutation, Nfsstat3::RoFs),
    }
}

/// Executes a mutation.
pub(crate) fn execute<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    args: &Args3,
) -> Result<Gather, Fatal> {
    match args {
        Args3::Setattr(args) => body(setattr::setattr(edit, args)),
        Args3::Write(args) => body(write::write(edit, args)),
        Args3::Create(args) => body(create::create(edit, args)),
        Args3::Mkdir(args) => body(mkdir::mkdir(edit, args)),
        Args3::Symlink(args) => body(symlink::symlink(edit, args)),
        Args3::Mknod(args) => body(mknod::mknod(edit, args)),
        Args3::Remove(args) => body(remove::remove(edit, args)),
        Args3::Rmdir(args) => body(rmdir::rmdir(edit, args)),
        Args3::Rename(args) => body(rename::rename(edit, args)),
        Args3::Link(args) => body(link::link(edit, args)),
        query => Err(Fatal(format!(
            "{:?} is no mutation but is in the log",
            query.proc()
        ))),
    }
}
