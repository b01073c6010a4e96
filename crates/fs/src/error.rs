//! What can go wrong in a file system operation. Protocols map these to their status codes, one file
//! per protocol version.

/// Why an operation was refused. All but [`FsError::Fatal`] are the caller's and change nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// The operation needs ownership or the superuser (EPERM).
    #[error("operation not permitted")]
    NotPermitted,
    /// No such name (ENOENT).
    #[error("no such file or directory")]
    NotFound,
    /// The mode bits refuse (EACCES).
    #[error("permission denied")]
    AccessDenied,
    /// The name exists (EEXIST).
    #[error("file exists")]
    Exists,
    /// Not a directory (ENOTDIR).
    #[error("not a directory")]
    NotDirectory,
    /// Is a directory (EISDIR).
    #[error("is a directory")]
    IsDirectory,
    /// An argument makes no sense for this object (EINVAL).
    #[error("invalid argument")]
    Invalid,
    /// The size or offset is beyond the limit (EFBIG).
    #[error("file too large")]
    TooLarge,
    /// No space (ENOSPC).
    #[error("no space left")]
    NoSpace,
    /// Too many links (EMLINK).
    #[error("too many links")]
    TooManyLinks,
    /// The name is too long (ENAMETOOLONG).
    #[error("name too long")]
    NameTooLong,
    /// The directory has entries (ENOTEMPTY).
    #[error("directory not empty")]
    NotEmpty,
    /// No such inode (ESTALE).
    #[error("no such inode")]
    Stale,
    /// The guard did not match (NFS3ERR_NOT_SYNC).
    #[error("attributes changed meanwhile")]
    NotSync,
    /// The cookie was never given out for this directory.
    #[error("bad directory cookie")]
    BadCookie,
    /// This kind of object cannot be created this way (NFS3ERR_BADTYPE).
    #[error("object type not supported")]
    BadType,
    /// The engine itself failed (its disk, its format). The replica must stop: its state may no longer
    /// equal the others'. Never sent to a client.
    #[error("storage failure: {0}")]
    Fatal(String),
}
