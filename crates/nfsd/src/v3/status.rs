//! The one place where errors become `nfsstat3` (RFC 1813 section 2.6).

use crate::Fatal;
use crate::handle::HandleError;
use haven_fs::FsError;
use haven_proto::nfs3::{Nfsstat3, Res3};

/// Why a procedure did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client is told.
    Status(Nfsstat3),
    /// The replica stops.
    Fatal(Fatal),
}

impl From<Nfsstat3> for Failure {
    fn from(status: Nfsstat3) -> Self {
        Self::Status(status)
    }
}

impl From<Fatal> for Failure {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

impl From<HandleError> for Failure {
    fn from(error: HandleError) -> Self {
        Self::Status(match error {
            HandleError::Bad => Nfsstat3::BadHandle,
            HandleError::Stale => Nfsstat3::Stale,
        })
    }
}

impl From<FsError> for Failure {
    fn from(error: FsError) -> Self {
        Self::Status(match error {
            FsError::NotPermitted => Nfsstat3::Perm,
            FsError::NotFound => Nfsstat3::NoEnt,
            FsError::AccessDenied => Nfsstat3::Acces,
            FsError::Exists => Nfsstat3::Exist,
            FsError::NotDirectory => Nfsstat3::NotDir,
            FsError::IsDirectory => Nfsstat3::IsDir,
            FsError::Invalid => Nfsstat3::Inval,
            FsError::TooLarge => Nfsstat3::FBig,
            FsError::NoSpace => Nfsstat3::NoSpc,
            FsError::TooManyLinks => Nfsstat3::MLink,
            FsError::NameTooLong => Nfsstat3::NameTooLong,
            FsError::NotEmpty => Nfsstat3::NotEmpty,
            FsError::Stale => Nfsstat3::Stale,
            FsError::NotSync => Nfsstat3::NotSync,
            FsError::BadCookie => Nfsstat3::BadCookie,
            FsError::BadType => Nfsstat3::BadType,
            FsError::Fatal(why) => return Self::Fatal(Fatal(why)),
        })
    }
}

/// Makes a result of an outcome, with the body of failure from `fail`.
pub(super) fn finish<T, F>(
    outcome: Result<T, Failure>,
    fail: impl FnOnce() -> Result<F, Fatal>,
) -> Result<Res3<T, F>, Fatal> {
    match outcome {
        Ok(ok) => Ok(Res3::Ok(ok)),
        Err(Failure::Status(status)) => Ok(Res3::Fail(status, fail()?)),
        Err(Failure::Fatal(fatal)) => Err(fatal),
    }
}
