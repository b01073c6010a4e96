//! Procedure numbers, and the arguments of any procedure as one type.

use super::args::*;
use bytes::Bytes;
use haven_xdr::{Encode, Writer, Xdr, XdrError, decode_all};

/// The procedures of NFSv3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Xdr)]
#[repr(u32)]
#[xdr(name = "NFSv3 procedure")]
#[allow(missing_docs, reason = "the names are RFC 1813's")]
pub enum Proc3 {
    Null = 0,
    Getattr = 1,
    Setattr = 2,
    Lookup = 3,
    Access = 4,
    Readlink = 5,
    Read = 6,
    Write = 7,
    Create = 8,
    Mkdir = 9,
    Symlink = 10,
    Mknod = 11,
    Remove = 12,
    Rmdir = 13,
    Rename = 14,
    Link = 15,
    Readdir = 16,
    Readdirplus = 17,
    Fsstat = 18,
    Fsinfo = 19,
    Pathconf = 20,
    Commit = 21,
}

/// The arguments of a procedure, and with them the procedure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the procedure of that name")]
pub enum Args3 {
    Null,
    Getattr(GetattrArgs),
    Setattr(SetattrArgs),
    Lookup(LookupArgs),
    Access(AccessArgs),
    Readlink(ReadlinkArgs),
    Read(ReadArgs),
    Write(WriteArgs),
    Create(CreateArgs),
    Mkdir(MkdirArgs),
    Symlink(SymlinkArgs),
    Mknod(MknodArgs),
    Remove(RemoveArgs),
    Rmdir(RmdirArgs),
    Rename(RenameArgs),
    Link(LinkArgs),
    Readdir(ReaddirArgs),
    Readdirplus(ReaddirplusArgs),
    Fsstat(FsstatArgs),
    Fsinfo(FsinfoArgs),
    Pathconf(PathconfArgs),
    Commit(CommitArgs),
}

/// One arm for each procedure that has arguments.
macro_rules! each {
    ($($proc:ident),*) => {
        impl Args3 {
            /// Reads the arguments of `proc`, which must fill `args` exactly.
            pub fn decode(proc: Proc3, args: Bytes) -> Result<Self, XdrError> {
                match proc {
                    Proc3::Null => decode_all::<()>(args).map(|()| Self::Null),
                    $(Proc3::$proc => decode_all(args).map(Self::$proc),)*
                }
            }

            /// The procedure.
            pub const fn proc(&self) -> Proc3 {
                match self {
                    Self::Null => Proc3::Null,
                    $(Self::$proc(_) => Proc3::$proc,)*
                }
            }
        }

        impl Encode for Args3 {
            fn encode(&self, w: &mut Writer) {
                match self {
                    Self::Null => {}
                    $(Self::$proc(args) => args.encode(w),)*
                }
            }
        }
    };
}

each!(
    Getattr,
    Setattr,
    Lookup,
    Access,
    Readlink,
    Read,
    Write,
    Create,
    Mkdir,
    Symlink,
    Mknod,
    Remove,
    Rmdir,
    Rename,
    Link,
    Readdir,
    Readdirplus,
    Fsstat,
    Fsinfo,
    Pathconf,
    Commit
);
