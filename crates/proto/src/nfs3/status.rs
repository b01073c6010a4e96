//! `nfsstat3`, and the form that all results share: a status, then one of two bodies.

use haven_xdr::Xdr;

/// Why a procedure failed (`nfsstat3` without `NFS3_OK`: success is [`Res3::Ok`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error, Xdr)]
#[repr(u32)]
#[xdr(name = "nfsstat3")]
pub enum Nfsstat3 {
    /// Not owner.
    #[error("NFS3ERR_PERM")]
    Perm = 1,
    /// No such file or directory.
    #[error("NFS3ERR_NOENT")]
    NoEnt = 2,
    /// Hard I/O error.
    #[error("NFS3ERR_IO")]
    Io = 5,
    /// No such device or address.
    #[error("NFS3ERR_NXIO")]
    NxIo = 6,
    /// Permission denied.
    #[error("NFS3ERR_ACCES")]
    Acces = 13,
    /// File exists.
    #[error("NFS3ERR_EXIST")]
    Exist = 17,
    /// Hard link across devices.
    #[error("NFS3ERR_XDEV")]
    XDev = 18,
    /// No such device.
    #[error("NFS3ERR_NODEV")]
    NoDev = 19,
    /// Not a directory.
    #[error("NFS3ERR_NOTDIR")]
    NotDir = 20,
    /// Is a directory.
    #[error("NFS3ERR_ISDIR")]
    IsDir = 21,
    /// Invalid argument.
    #[error("NFS3ERR_INVAL")]
    Inval = 22,
    /// File too large.
    #[error("NFS3ERR_FBIG")]
    FBig = 27,
    /// No space left.
    #[error("NFS3ERR_NOSPC")]
    NoSpc = 28,
    /// Read-only file system.
    #[error("NFS3ERR_ROFS")]
    RoFs = 30,
    /// Too many hard links.
    #[error("NFS3ERR_MLINK")]
    MLink = 31,
    /// Name too long.
    #[error("NFS3ERR_NAMETOOLONG")]
    NameTooLong = 63,
    /// Directory not empty.
    #[error("NFS3ERR_NOTEMPTY")]
    NotEmpty = 66,
    /// Quota exceeded.
    #[error("NFS3ERR_DQUOT")]
    DQuot = 69,
    /// The handle's object is gone.
    #[error("NFS3ERR_STALE")]
    Stale = 70,
    /// Too many levels of remote in path.
    #[error("NFS3ERR_REMOTE")]
    Remote = 71,
    /// Not a valid handle.
    #[error("NFS3ERR_BADHANDLE")]
    BadHandle = 10_001,
    /// The guard of SETATTR did not match.
    #[error("NFS3ERR_NOT_SYNC")]
    NotSync = 10_002,
    /// Cookie or its verifier not valid any more.
    #[error("NFS3ERR_BAD_COOKIE")]
    BadCookie = 10_003,
    /// Operation not supported.
    #[error("NFS3ERR_NOTSUPP")]
    NotSupp = 10_004,
    /// A count is too small.
    #[error("NFS3ERR_TOOSMALL")]
    TooSmall = 10_005,
    /// A failure on the server that has no other name.
    #[error("NFS3ERR_SERVERFAULT")]
    ServerFault = 10_006,
    /// Objects of this type cannot be created.
    #[error("NFS3ERR_BADTYPE")]
    BadType = 10_007,
    /// Begun but not done: ask again later, with a new xid.
    #[error("NFS3ERR_JUKEBOX")]
    Jukebox = 10_008,
}

/// Result of a procedure: `T` is the body of success (`resok`), `F` that of failure (`resfail`).
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub enum Res3<T, F = ()> {
    /// NFS3_OK.
    #[xdr(case = 0)]
    Ok(T),
    /// Any other status, with what the procedure tells in this case.
    #[xdr(default)]
    Fail(Nfsstat3, F),
}

impl<T, F> Res3<T, F> {
    /// The status: `None` is NFS3_OK.
    pub const fn failure(&self) -> Option<Nfsstat3> {
        match self {
            Self::Ok(_) => None,
            Self::Fail(status, _) => Some(*status),
        }
    }

    /// As a `Result`, with the failure's body.
    pub fn into_result(self) -> Result<T, (Nfsstat3, F)> {
        match self {
            Self::Ok(ok) => Ok(ok),
            Self::Fail(status, fail) => Err((status, fail)),
        }
    }

    /// As a `Result`, without the failure's body.
    pub fn ok_or_status(self) -> Result<T, Nfsstat3> {
        self.into_result().map_err(|(status, _)| status)
    }
}

impl<T, F> From<Result<T, (Nfsstat3, F)>> for Res3<T, F> {
    fn from(result: Result<T, (Nfsstat3, F)>) -> Self {
        match result {
            Ok(ok) => Self::Ok(ok),
            Err((status, fail)) => Self::Fail(status, fail),
        }
    }
}
