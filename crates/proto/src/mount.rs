//! MOUNT, version 3 (RFC 1813 appendix I) and version 1 (RFC 1094 appendix A): gives out the file
//! handle of an export's root. The versions differ only in the result of MNT.

use bytes::Bytes;
use haven_xdr::{Decode, Encode, Reader, Writer, XdrError, xdr_enum, xdr_opaque, xdr_struct};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
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
xdr_enum!(Procedure, "MOUNT procedure" { Null, Mnt, Dump, Umnt, Umntall, Export });

/// Path of a directory on the server: arguments of MNT and UMNT.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dirpath(pub Bytes);
xdr_opaque!(Dirpath, MNTPATHLEN);

/// Name of a host or a group of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(pub Bytes);
xdr_opaque!(Name, MNTNAMLEN);

/// File handle of version 3.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fhandle3(pub Bytes);
xdr_opaque!(Fhandle3, FHSIZE3);

/// Why MNT failed (`mountstat3` without `MNT3_OK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u32)]
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
xdr_enum!(Mountstat3, "mountstat3" {
    Perm, NoEnt, Io, Acces, NotDir, Inval, NameTooLong, NotSupp, ServerFault,
});

/// Success arm of MNT in version 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOk {
    /// Handle of the export's root.
    pub fhandle: Fhandle3,
    /// Flavours the server takes for it, best first.
    pub auth_flavors: Vec<u32>,
}

impl Encode for MountOk {
    fn encode(&self, w: &mut Writer) {
        self.fhandle.encode(w);
        w.put_array(&self.auth_flavors);
    }
}

impl Decode for MountOk {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        Ok(Self {
            fhandle: Decode::decode(r)?,
            auth_flavors: r.array_of(AUTH_FLAVORS_MAX)?,
        })
    }
}

/// Result of MNT in version 3 (`mountres3`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mountres3 {
    /// MNT3_OK.
    Ok(MountOk),
    /// Anything else.
    Fail(Mountstat3),
}

impl Encode for Mountres3 {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Ok(ok) => {
                w.put_u32(0);
                ok.encode(w);
            }
            Self::Fail(status) => status.encode(w),
        }
    }
}

impl Decode for Mountres3 {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        match r.u32()? {
            0 => MountOk::decode(r).map(Self::Ok),
            other => Mountstat3::from_wire(other)
                .map(Self::Fail)
                .ok_or_else(|| r.not_in_enum("mountstat3", other)),
        }
    }
}

/// Result of MNT in version 1 (`fhstatus`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fhstatus {
    /// The handle of the export's root.
    Ok([u8; FHSIZE]),
    /// An errno, not 0.
    Fail(u32),
}

impl Encode for Fhstatus {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Ok(fhandle) => {
                w.put_u32(0);
                fhandle.encode(w);
            }
            Self::Fail(errno) => {
                debug_assert_ne!(*errno, 0, "0 is success");
                w.put_u32(*errno);
            }
        }
    }
}

impl Decode for Fhstatus {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        Ok(match r.u32()? {
            0 => Self::Ok(Decode::decode(r)?),
            errno => Self::Fail(errno),
        })
    }
}

/// Who has mounted what (`mountbody`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mountbody {
    /// The client.
    pub hostname: Name,
    /// What it mounted.
    pub directory: Dirpath,
}
xdr_struct!(Mountbody {
    hostname,
    directory
});

/// Result of DUMP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mountlist(pub Vec<Mountbody>);

impl Encode for Mountlist {
    fn encode(&self, w: &mut Writer) {
        w.put_list(&self.0);
    }
}

impl Decode for Mountlist {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        r.list_of(MOUNTLIST_MAX).map(Self)
    }
}

/// An export and who may mount it (`exportnode`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exportnode {
    /// The exported directory.
    pub dir: Dirpath,
    /// Who may mount it; empty: everybody.
    pub groups: Vec<Name>,
}

impl Encode for Exportnode {
    fn encode(&self, w: &mut Writer) {
        self.dir.encode(w);
        w.put_list(&self.groups);
    }
}

impl Decode for Exportnode {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        Ok(Self {
            dir: Decode::decode(r)?,
            groups: r.list_of(GROUPS_MAX)?,
        })
    }
}

/// Result of EXPORT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exports(pub Vec<Exportnode>);

impl Encode for Exports {
    fn encode(&self, w: &mut Writer) {
        w.put_list(&self.0);
    }
}

impl Decode for Exports {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        r.list_of(EXPORTS_MAX).map(Self)
    }
}
