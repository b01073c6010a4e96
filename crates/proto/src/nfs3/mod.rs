//! NFS version 3 (RFC 1813): all 22 procedures.
//!
//! `procedures` numbers them, `types` holds the data types of section 2.5 and 2.6, `args` the
//! arguments and `results` the results. Size, count, offset, mode, uid and gid are bare integers under
//! their RFC names; what must not be mixed up (file ids, cookies, verifiers, handles) has its own type.

mod args;
mod procedures;
mod results;
mod status;
mod types;

pub use args::*;
pub use procedures::{Args3, Proc3};
pub use results::*;
pub use status::{Nfsstat3, Res3};
pub use types::*;

/// Program number.
pub const PROGRAM: u32 = 100_003;
/// The version spoken here.
pub const VERSION: u32 = 3;
/// The well-known port.
pub const PORT: u16 = 2049;

/// Longest file handle (`NFS3_FHSIZE`).
pub const FHSIZE: usize = 64;
/// Length of a cookie verifier (`NFS3_COOKIEVERFSIZE`).
pub const COOKIEVERFSIZE: usize = 8;
/// Length of a create verifier (`NFS3_CREATEVERFSIZE`).
pub const CREATEVERFSIZE: usize = 8;
/// Length of a write verifier (`NFS3_WRITEVERFSIZE`).
pub const WRITEVERFSIZE: usize = 8;

/// Longest name that is decoded. File systems allow 255 bytes; up to here the server can say so.
pub const FILENAME_BYTES_MAX: usize = 4096;
/// Longest symbolic link target that is decoded. File systems allow 4096 bytes or fewer.
pub const NFSPATH_BYTES_MAX: usize = 8192;
/// Most file data in one READ or WRITE.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;
/// Most entries accepted in one READDIR or READDIRPLUS reply.
pub const DIRLIST_ENTRIES_MAX: usize = 64 * 1024;

/// Most bytes that a call's arguments take beside the data of a WRITE: two handles, two names or a
/// name and a path, attributes.
pub const ARGS_OVERHEAD_BYTES_MAX: usize = 16 * 1024;
