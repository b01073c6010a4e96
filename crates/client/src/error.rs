//! Why a call has no result.

use haven_proto::mount::Mountstat3;
use haven_proto::nfs3::Nfsstat3;
use haven_rpc::{AcceptError, Denial};
use haven_xdr::XdrError;
use std::time::Duration;

/// Why a call has no result. A broken connection is not among the reasons: the client goes on trying.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server executed the procedure and it failed.
    #[error("{0}")]
    Nfs(#[from] Nfsstat3),
    /// The server refuses the mount.
    #[error("mount refused: {0}")]
    Mount(#[from] Mountstat3),
    /// No answer within the call's time limit. Whether the procedure was executed is not known.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The server did not execute the call.
    #[error("call not executed: {0}")]
    NotExecuted(#[from] AcceptError),
    /// The server denied the call.
    #[error("call denied: {0}")]
    Denied(#[from] Denial),
    /// The results are not what the procedure returns: a fault of the server.
    #[error("results of the call: {0}")]
    Malformed(#[from] XdrError),
    /// An argument is beyond the protocol's limit.
    #[error("{what} of {len} bytes is above the limit of {max}")]
    TooLong {
        /// Which argument.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The runtime that drives the connection is shutting down.
    #[error("client closed")]
    Closed,
}
