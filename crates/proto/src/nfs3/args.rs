//! Arguments of the procedures (RFC 1813 section 3.3), in the order of their numbers.

use super::{
    Cookie3, Cookieverf3, Createhow3, DATA_BYTES_MAX, Diropargs3, Fh3, Mknoddata3, Nfspath3,
    Nfstime3, Sattr3, StableHow,
};
use bytes::Bytes;
use haven_xdr::Xdr;

/// Bits of [`AccessArgs::access`] (section 3.3.4).
pub mod access {
    /// Read data or list a directory.
    pub const READ: u32 = 0x0001;
    /// Look up a name in a directory.
    pub const LOOKUP: u32 = 0x0002;
    /// Rewrite existing data or change existing directory entries.
    pub const MODIFY: u32 = 0x0004;
    /// Append data or add directory entries.
    pub const EXTEND: u32 = 0x0008;
    /// Remove a directory entry.
    pub const DELETE: u32 = 0x0010;
    /// Execute a file.
    pub const EXECUTE: u32 = 0x0020;
    /// All of them.
    pub const ALL: u32 = 0x003f;
}

/// GETATTR.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct GetattrArgs {
    /// Whose attributes.
    pub object: Fh3,
}

/// SETATTR.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct SetattrArgs {
    /// Whose attributes.
    pub object: Fh3,
    /// What to set.
    pub new_attributes: Sattr3,
    /// Only if the object's ctime equals this (`sattrguard3`).
    pub guard: Option<Nfstime3>,
}

/// LOOKUP.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct LookupArgs {
    /// Where and what.
    pub what: Diropargs3,
}

/// ACCESS.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct AccessArgs {
    /// Access to what.
    pub object: Fh3,
    /// Bits of [`access`].
    pub access: u32,
}

/// READLINK.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct ReadlinkArgs {
    /// The link.
    pub symlink: Fh3,
}

/// READ.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct ReadArgs {
    /// The file.
    pub file: Fh3,
    /// First byte.
    pub offset: u64,
    /// How many bytes at most.
    pub count: u32,
}

/// WRITE.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct WriteArgs {
    /// The file.
    pub file: Fh3,
    /// First byte.
    pub offset: u64,
    /// How many bytes; the receiver must compare it with the length of `data`.
    pub count: u32,
    /// How durable.
    pub stable: StableHow,
    /// The data, at most [`DATA_BYTES_MAX`].
    #[xdr(max = DATA_BYTES_MAX)]
    pub data: Bytes,
}

/// CREATE.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct CreateArgs {
    /// Where and what name (`where`).
    pub place: Diropargs3,
    /// What if it exists, and which attributes.
    pub how: Createhow3,
}

/// MKDIR.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct MkdirArgs {
    /// Where and what name (`where`).
    pub place: Diropargs3,
    /// Attributes to set.
    pub attributes: Sattr3,
}

/// SYMLINK, with `symlinkdata3` laid out flat.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct SymlinkArgs {
    /// Where and what name (`where`).
    pub place: Diropargs3,
    /// Attributes to set.
    pub symlink_attributes: Sattr3,
    /// The target.
    pub symlink_data: Nfspath3,
}

/// MKNOD.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct MknodArgs {
    /// Where and what name (`where`).
    pub place: Diropargs3,
    /// What to make.
    pub what: Mknoddata3,
}

/// REMOVE.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct RemoveArgs {
    /// Where and what.
    pub object: Diropargs3,
}

/// RMDIR.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct RmdirArgs {
    /// Where and what.
    pub object: Diropargs3,
}

/// RENAME.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct RenameArgs {
    /// The old name.
    pub from: Diropargs3,
    /// The new name.
    pub to: Diropargs3,
}

/// LINK.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct LinkArgs {
    /// The object that gets another name.
    pub file: Fh3,
    /// The name.
    pub link: Diropargs3,
}

/// READDIR.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct ReaddirArgs {
    /// The directory.
    pub dir: Fh3,
    /// Where to go on.
    pub cookie: Cookie3,
    /// The verifier that came with the cookie.
    pub cookieverf: Cookieverf3,
    /// Most bytes of the whole result.
    pub count: u32,
}

/// READDIRPLUS.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct ReaddirplusArgs {
    /// The directory.
    pub dir: Fh3,
    /// Where to go on.
    pub cookie: Cookie3,
    /// The verifier that came with the cookie.
    pub cookieverf: Cookieverf3,
    /// Bytes of names, cookies and file ids that the client would like.
    pub dircount: u32,
    /// Most bytes of the whole result.
    pub maxcount: u32,
}

/// FSSTAT.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct FsstatArgs {
    /// Root of the file system.
    pub fsroot: Fh3,
}

/// FSINFO.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct FsinfoArgs {
    /// Root of the file system.
    pub fsroot: Fh3,
}

/// PATHCONF.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct PathconfArgs {
    /// Any object of the file system.
    pub object: Fh3,
}

/// COMMIT.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct CommitArgs {
    /// The file.
    pub file: Fh3,
    /// First byte.
    pub offset: u64,
    /// How many bytes; 0: all from `offset` on.
    pub count: u32,
}
