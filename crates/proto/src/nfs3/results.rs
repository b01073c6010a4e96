//! Results of the procedures (RFC 1813 section 3.3), in the order of their numbers. `…Res` is what goes
//! over the wire: a [`Res3`] of the body for success and the body for failure.

use super::{
    Cookie3, Cookieverf3, DATA_BYTES_MAX, DIRLIST_ENTRIES_MAX, Fattr3, Fh3, Fileid3, Filename3,
    Nfspath3, Nfstime3, PostOpAttr, PostOpFh3, Res3, StableHow, WccData, Writeverf3,
};
use bytes::Bytes;
use haven_xdr::{UNIT_BYTES, Xdr, opaque_wire_bytes};

/// GETATTR.
pub type GetattrRes = Res3<GetattrOk>;
/// SETATTR: `obj_wcc` either way.
pub type SetattrRes = Res3<WccData, WccData>;
/// LOOKUP: a failure tells the directory's attributes.
pub type LookupRes = Res3<LookupOk, PostOpAttr>;
/// ACCESS: a failure tells the object's attributes.
pub type AccessRes = Res3<AccessOk, PostOpAttr>;
/// READLINK: a failure tells the link's attributes.
pub type ReadlinkRes = Res3<ReadlinkOk, PostOpAttr>;
/// READ: a failure tells the file's attributes.
pub type ReadRes = Res3<ReadOk, PostOpAttr>;
/// WRITE: a failure tells `file_wcc`.
pub type WriteRes = Res3<WriteOk, WccData>;
/// CREATE, MKDIR, SYMLINK and MKNOD: a failure tells `dir_wcc`.
pub type CreateRes = Res3<CreateOk, WccData>;
/// MKDIR.
pub type MkdirRes = CreateRes;
/// SYMLINK.
pub type SymlinkRes = CreateRes;
/// MKNOD.
pub type MknodRes = CreateRes;
/// REMOVE: `dir_wcc` either way.
pub type RemoveRes = Res3<WccData, WccData>;
/// RMDIR: `dir_wcc` either way.
pub type RmdirRes = Res3<WccData, WccData>;
/// RENAME: the same body either way.
pub type RenameRes = Res3<RenameWcc, RenameWcc>;
/// LINK: the same body either way.
pub type LinkRes = Res3<LinkWcc, LinkWcc>;
/// READDIR: a failure tells the directory's attributes.
pub type ReaddirRes = Res3<ReaddirOk, PostOpAttr>;
/// READDIRPLUS: a failure tells the directory's attributes.
pub type ReaddirplusRes = Res3<ReaddirplusOk, PostOpAttr>;
/// FSSTAT: a failure tells the object's attributes.
pub type FsstatRes = Res3<FsstatOk, PostOpAttr>;
/// FSINFO: a failure tells the object's attributes.
pub type FsinfoRes = Res3<FsinfoOk, PostOpAttr>;
/// PATHCONF: a failure tells the object's attributes.
pub type PathconfRes = Res3<PathconfOk, PostOpAttr>;
/// COMMIT: a failure tells `file_wcc`.
pub type CommitRes = Res3<CommitOk, WccData>;

/// GETATTR succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
pub struct GetattrOk {
    /// The attributes.
    pub obj_attributes: Fattr3,
}

/// LOOKUP succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct LookupOk {
    /// Handle of what was found.
    pub object: Fh3,
    /// Its attributes.
    pub obj_attributes: PostOpAttr,
    /// The directory's attributes.
    pub dir_attributes: PostOpAttr,
}

/// ACCESS succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
pub struct AccessOk {
    /// The object's attributes.
    pub obj_attributes: PostOpAttr,
    /// Granted bits of [`access`](super::access).
    pub access: u32,
}

/// READLINK succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct ReadlinkOk {
    /// The link's attributes.
    pub symlink_attributes: PostOpAttr,
    /// Its target.
    pub data: Nfspath3,
}

/// READ succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct ReadOk {
    /// The file's attributes.
    pub file_attributes: PostOpAttr,
    /// How many bytes were read.
    pub count: u32,
    /// Whether the read reached the end of the file.
    pub eof: bool,
    /// The data, at most [`DATA_BYTES_MAX`].
    #[xdr(max = DATA_BYTES_MAX)]
    pub data: Bytes,
}

/// WRITE succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
pub struct WriteOk {
    /// The file's attributes around it.
    pub file_wcc: WccData,
    /// How many bytes were written.
    pub count: u32,
    /// How durable they are.
    pub committed: StableHow,
    /// Changes when unstable data may have been lost.
    pub verf: Writeverf3,
}

/// CREATE, MKDIR, SYMLINK or MKNOD succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct CreateOk {
    /// The new object's handle.
    pub obj: PostOpFh3,
    /// Its attributes.
    pub obj_attributes: PostOpAttr,
    /// The directory's attributes around it.
    pub dir_wcc: WccData,
}

/// Attributes of both directories around a RENAME.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Xdr)]
pub struct RenameWcc {
    /// The directory of the old name.
    pub fromdir_wcc: WccData,
    /// The directory of the new name.
    pub todir_wcc: WccData,
}

/// Attributes after and around a LINK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Xdr)]
pub struct LinkWcc {
    /// The object's attributes after it.
    pub file_attributes: PostOpAttr,
    /// The directory's around it.
    pub linkdir_wcc: WccData,
}

/// READDIR succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct ReaddirOk {
    /// The directory's attributes.
    pub dir_attributes: PostOpAttr,
    /// To be sent with the next cookie.
    pub cookieverf: Cookieverf3,
    /// The entries (of `dirlist3`).
    #[xdr(list, max = DIRLIST_ENTRIES_MAX)]
    pub entries: Vec<Entry3>,
    /// Whether the last entry of the directory is among them.
    pub eof: bool,
}

impl ReaddirOk {
    /// Most bytes that the whole result takes beside its entries, status and attributes included.
    pub const OVERHEAD_BYTES: usize =
        UNIT_BYTES + UNIT_BYTES + Fattr3::WIRE_BYTES + super::COOKIEVERFSIZE + 2 * UNIT_BYTES;
}

/// `entry3`: a directory entry.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct Entry3 {
    /// The object's number.
    pub fileid: Fileid3,
    /// Its name.
    pub name: Filename3,
    /// Where to go on after it.
    pub cookie: Cookie3,
}

impl Entry3 {
    /// Bytes an entry with a name of `name_len` bytes takes in a READDIR result.
    pub const fn wire_bytes(name_len: usize) -> usize {
        // List mark, fileid, name, cookie.
        UNIT_BYTES + 8 + opaque_wire_bytes(name_len) + 8
    }
}

/// READDIRPLUS succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct ReaddirplusOk {
    /// The directory's attributes.
    pub dir_attributes: PostOpAttr,
    /// To be sent with the next cookie.
    pub cookieverf: Cookieverf3,
    /// The entries (of `dirlistplus3`).
    #[xdr(list, max = DIRLIST_ENTRIES_MAX)]
    pub entries: Vec<Entryplus3>,
    /// Whether the last entry of the directory is among them.
    pub eof: bool,
}

impl ReaddirplusOk {
    /// Most bytes that the whole result takes beside its entries, status and attributes included.
    pub const OVERHEAD_BYTES: usize = ReaddirOk::OVERHEAD_BYTES;
}

/// `entryplus3`: a directory entry with handle and attributes.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct Entryplus3 {
    /// The object's number.
    pub fileid: Fileid3,
    /// Its name.
    pub name: Filename3,
    /// Where to go on after it.
    pub cookie: Cookie3,
    /// Its attributes.
    pub name_attributes: PostOpAttr,
    /// Its handle.
    pub name_handle: PostOpFh3,
}

impl Entryplus3 {
    /// Bytes that an entry takes in a READDIRPLUS result, if it comes with attributes and with a
    /// handle of `handle_len` bytes.
    pub const fn wire_bytes(name_len: usize, handle_len: usize) -> usize {
        let attributes = UNIT_BYTES + Fattr3::WIRE_BYTES;
        let handle = UNIT_BYTES + opaque_wire_bytes(handle_len);
        Entry3::wire_bytes(name_len) + attributes + handle
    }
}

/// FSSTAT succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
pub struct FsstatOk {
    /// The object's attributes.
    pub obj_attributes: PostOpAttr,
    /// Bytes in total.
    pub tbytes: u64,
    /// Bytes free.
    pub fbytes: u64,
    /// Bytes free for the caller.
    pub abytes: u64,
    /// Files in total.
    pub tfiles: u64,
    /// Files free.
    pub ffiles: u64,
    /// Files free for the caller.
    pub afiles: u64,
    /// Seconds for which this probably holds.
    pub invarsec: u32,
}

/// Bits of [`FsinfoOk::properties`] (section 3.3.19).
pub mod fsf {
    /// Hard links.
    pub const LINK: u32 = 0x0001;
    /// Symbolic links.
    pub const SYMLINK: u32 = 0x0002;
    /// PATHCONF is the same for all objects.
    pub const HOMOGENEOUS: u32 = 0x0008;
    /// Times can be set.
    pub const CANSETTIME: u32 = 0x0010;
}

/// FSINFO succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
pub struct FsinfoOk {
    /// The object's attributes.
    pub obj_attributes: PostOpAttr,
    /// Most bytes in a READ.
    pub rtmax: u32,
    /// Preferred bytes in a READ.
    pub rtpref: u32,
    /// Suggested multiple for a READ.
    pub rtmult: u32,
    /// Most bytes in a WRITE.
    pub wtmax: u32,
    /// Preferred bytes in a WRITE.
    pub wtpref: u32,
    /// Suggested multiple for a WRITE.
    pub wtmult: u32,
    /// Preferred bytes in a READDIR.
    pub dtpref: u32,
    /// Largest size of a file.
    pub maxfilesize: u64,
    /// Granularity of times.
    pub time_delta: Nfstime3,
    /// Bits of [`fsf`].
    pub properties: u32,
}

/// PATHCONF succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
pub struct PathconfOk {
    /// The object's attributes.
    pub obj_attributes: PostOpAttr,
    /// Most hard links.
    pub linkmax: u32,
    /// Longest name.
    pub name_max: u32,
    /// Whether a longer name is an error (rather than cut).
    pub no_trunc: bool,
    /// Whether only the superuser may change owners.
    pub chown_restricted: bool,
    /// Whether names differ by case only at will.
    pub case_insensitive: bool,
    /// Whether names keep their case.
    pub case_preserving: bool,
}

/// COMMIT succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
pub struct CommitOk {
    /// The file's attributes around it.
    pub file_wcc: WccData,
    /// As in [`WriteOk`].
    pub verf: Writeverf3,
}
