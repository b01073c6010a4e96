//! MOUNT, version 3 (RFC 1813 appendix I) and version 1 (RFC 1094 appendix A): gives out the file
//! handle of an export's root. The versions differ only in the result of MNT.

use bytes::Bytes;
use haven_xdr::Xdr;

/// Program number.
pub const PROGRAM: u32 = 100_005;
/// Version 1: what some clients send UMNT with.
pub const VERSION1: u32 = 1;
/// Version 3: belongs to NFSv3.
pub const VERSION3: u32 = 3;
/// Longest path (`MNTPATHLEN`).
pub const MNTPATHLEN: usize = 1024;
/// Longest host or group name (`MNTNAMLEN`).
pub const MNTNAMLEN: usize = 255;
/// Longest file handle of version 3 (`FHSIZE3`).
pub const FHSIZE3: usize = 64;
/// Length of a file handle of version 1 (`FHSIZE`).
pub const FHSIZE: usize = 32;
/// Most authentication flavours accepted in a MNT reply.
pub const AUTH_FLAVORS_MAX: usize = 64;
/// Most entries accepted in a DUMP reply.
pub const MOUNTLIST_MAX: usize = 16 * 1024;
/// Most entries accepted in an EXPORT reply.
pub const EXPORTS_MAX: usize = 4 * 1024;
/// Most groups accepted for one export.
pub const GROUPS_MAX: usize = 4 * 1024;

/// Procedures, the same in both versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Xdr)]
#[repr(u32)]
#[xdr(name = "MOUNT procedure")]
pub enum Procedure {
    /// Does nothing.
    Null = 0,
    /// [`Dirpath`] -> [`Mountres3`] (version 1: [`Fhstatus`]).
    Mnt = 1,
    /// void -> [`Mountlist`].
    Dump = 2,
    /// [`Dirpath`] -> void.
    Umnt = 3,
    /// void -> void.
    Umntall = 4,
    /// void -> [`Exports`].
    Export = 5,
}

/// Path of a directory on the server: arguments of MNT and UMNT.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Dirpath(#[xdr(max = MNTPATHLEN)] pub Bytes);

/// Name of a host or a group of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Name(#[xdr(max = MNTNAMLEN)] pub Bytes);

/// File handle of version 3.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Fhandle3(#[xdr(max = FHSIZE3)] pub Bytes);

/// Why MNT failed (`mountstat3` without `MNT3_OK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error, Xdr)]
#[repr(u32)]
#[xdr(name = "mountstat3")]
pub enum Mountstat3 {
    /// Not owner.
    #[error("MNT3ERR_PERM")]
    Perm = 1,
    /// No such file or directory.
    #[error("MNT3ERR_NOENT")]
    NoEnt = 2,
    /// I/O error.
    #[error("MNT3ERR_IO")]
    Io = 5,
    /// Permission denied.
    #[error("MNT3ERR_ACCES")]
    Acces = 13,
    /// Not a directory.
    #[error("MNT3ERR_NOTDIR")]
    NotDir = 20,
    /// Invalid argument.
    #[error("MNT3ERR_INVAL")]
    Inval = 22,
    /// Name too long.
    #[error("MNT3ERR_NAMETOOLONG")]
    NameTooLong = 63,
    /// Operation not supported.
    #[error("MNT3ERR_NOTSUPP")]
    NotSupp = 10_004,
    /// A failure on the server.
    #[error("MNT3ERR_SERVERFAULT")]
    ServerFault = 10_006,
}

/// Success arm of MNT in version 3.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct MountOk {
    /// Handle of the export's root.
    pub fhandle: Fhandle3,
    /// Flavours the server takes for it, best first.
    #[xdr(max = AUTH_FLAVORS_MAX)]
    pub auth_flavors: Vec<u32>,
}

/// Result of MNT in version 3 (`mountres3`).
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub enum Mountres3 {
    /// MNT3_OK.
    #[xdr(case = 0)]
    Ok(MountOk),
    /// Anything else.
    #[xdr(default)]
    Fail(Mountstat3),
}

/// Result of MNT in version 1 (`fhstatus`).
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub enum Fhstatus {
    /// The handle of the export's root.
    #[xdr(case = 0)]
    Ok([u8; FHSIZE]),
    /// An errno, not 0.
    #[xdr(default)]
    Fail(u32),
}

/// Who has mounted what (`mountbody`).
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct Mountbody {
    /// The client.
    pub hostname: Name,
    /// What it mounted.
    pub directory: Dirpath,
}

/// Result of DUMP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Xdr)]
pub struct Mountlist(#[xdr(list, max = MOUNTLIST_MAX)] pub Vec<Mountbody>);

/// An export and who may mount it (`exportnode`).
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct Exportnode {
    /// The exported directory.
    pub dir: Dirpath,
    /// Who may mount it; empty: everybody.
    #[xdr(list, max = GROUPS_MAX)]
    pub groups: Vec<Name>,
}

/// Result of EXPORT.
#[derive(Debug, Clone, PartialEq, Eq, Default, Xdr)]
pub struct Exports(#[xdr(list, max = EXPORTS_MAX)] pub Vec<Exportnode>);
