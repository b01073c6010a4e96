//! Replies (RFC 5531 section 9): writing them as a server, reading them as a client.

use crate::REPLY;
use crate::auth::{self, OpaqueAuth};
use bytes::Bytes;
use haven_xdr::{Decode, Gather, Reader, Writer, XdrError};

/// `reply_stat`.
const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;

/// `accept_stat`.
const SUCCESS: u32 = 0;
const PROG_UNAVAIL: u32 = 1;
const PROG_MISMATCH: u32 = 2;
const PROC_UNAVAIL: u32 = 3;
const GARBAGE_ARGS: u32 = 4;
const SYSTEM_ERR: u32 = 5;

/// `reject_stat`.
const RPC_MISMATCH: u32 = 0;
const AUTH_ERROR: u32 = 1;

/// Why an accepted call was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The program is not served here.
    #[error("program unavailable")]
    ProgUnavail,
    /// The program is served in other versions.
    #[error("program version not supported, only {low} to {high}")]
    ProgMismatch {
        /// Lowest version served.
        low: u32,
        /// Highest version served.
        high: u32,
    },
    /// The program has no such procedure.
    #[error("procedure unavailable")]
    ProcUnavail,
    /// The arguments could not be decoded.
    #[error("garbage arguments")]
    GarbageArgs,
    /// The server failed.
    #[error("system error at the server")]
    SystemErr,
}

/// Why a call was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The RPC version is not spoken.
    #[error("RPC version not supported, only {low} to {high}")]
    RpcMismatch {
        /// Lowest version spoken.
        low: u32,
        /// Highest version spoken.
        high: u32,
    },
    /// The caller was not authenticated.
    #[error("authentication failed: {0}")]
    AuthError(AuthStat),
}

/// `auth_stat`: why authentication failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u32)]
pub enum AuthStat {
    /// AUTH_BADCRED: the credential is malformed.
    #[error("bad credential")]
    BadCred = 1,
    /// AUTH_REJECTEDCRED: the credential is not accepted, such as one of a flavour not known here.
    #[error("credential rejected")]
    RejectedCred = 2,
    /// AUTH_BADVERF: the verifier is malformed.
    #[error("bad verifier")]
    BadVerf = 3,
    /// AUTH_REJECTEDVERF: the verifier expired or was replayed.
    #[error("verifier rejected")]
    RejectedVerf = 4,
    /// AUTH_TOOWEAK: a stronger flavour is required.
    #[error("flavour too weak")]
    TooWeak = 5,
    /// AUTH_INVALIDRESP: the server's verifier is bogus (a client's finding).
    #[error("invalid response verifier")]
    InvalidResp = 6,
    /// AUTH_FAILED, and everything without a name here.
    #[error("unknown reason")]
    Failed = 7,
}

impl AuthStat {
    fn from_wire(value: u32) -> Self {
        match value {
            1 => Self::BadCred,
            2 => Self::RejectedCred,
            3 => Self::BadVerf,
            4 => Self::RejectedVerf,
            5 => Self::TooWeak,
            6 => Self::InvalidResp,
            _ => Self::Failed,
        }
    }
}

/// A reply as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The call it answers.
    pub xid: u32,
    /// What became of the call.
    pub outcome: Outcome,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Executed: the procedure's results, still encoded.
    Success(Bytes),
    /// Accepted but not executed.
    Error(AcceptError),
    /// Denied.
    Denied(Denial),
}

/// A message that is not a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Cut short or malformed.
    #[error("RPC reply header: {0}")]
    Malformed(#[from] XdrError),
    /// The message is of another type.
    #[error("message type {0} is not a reply")]
    NotAReply(u32),
}

/// The reply to an executed call: `body` is the procedure's results. Large segments are not copied.
pub fn accepted(xid: u32, body: Gather) -> Gather {
    let mut reply = body;
    reply.prefix(&accepted_header(xid, SUCCESS).finish().into_bytes());
    reply
}

/// The reply to a call that was accepted but not executed.
pub fn accept_error(xid: u32, error: AcceptError) -> Gather {
    let stat = match error {
        AcceptError::ProgUnavail => PROG_UNAVAIL,
        AcceptError::ProgMismatch { .. } => PROG_MISMATCH,
        AcceptError::ProcUnavail => PROC_UNAVAIL,
        AcceptError::GarbageArgs => GARBAGE_ARGS,
        AcceptError::SystemErr => SYSTEM_ERR,
    };
    let mut w = accepted_header(xid, stat);
    if let AcceptError::ProgMismatch { low, high } = error {
        w.put_u32(low);
        w.put_u32(high);
    }
    w.finish()
}

/// The reply to a denied call.
pub fn denied(xid: u32, denial: Denial) -> Gather {
    let mut w = Writer::with_capacity(24);
    for field in [xid, REPLY, MSG_DENIED] {
        w.put_u32(field);
    }
    match denial {
        Denial::RpcMismatch { low, high } => {
            w.put_u32(RPC_MISMATCH);
            w.put_u32(low);
            w.put_u32(high);
        }
        Denial::AuthError(stat) => {
            w.put_u32(AUTH_ERROR);
            w.put_u32(stat as u32);
        }
    }
    w.finish()
}

fn accepted_header(xid: u32, stat: u32) -> Writer {
    let mut w = Writer::with_capacity(32);
    for field in [xid, REPLY, MSG_ACCEPTED] {
        w.put_u32(field);
    }
    auth::put_none(&mut w);
    w.put_u32(stat);
    w
}

/// Reads a reply's header. The results stay a slice of `message`.
pub fn decode_reply(message: Bytes) -> Result<Reply, ReplyError> {
    let mut r = Reader::new(message);
    let xid = r.u32()?;
    match r.u32()? {
        REPLY => {}
        other => return Err(ReplyError::NotAReply(other)),
    }
    let outcome = match r.u32()? {
        MSG_ACCEPTED => decode_accepted(&mut r)?,
        MSG_DENIED => decode_denied(&mut r)?,
        other => return Err(r.not_in_enum("reply_stat", other).into()),
    };
    Ok(Reply { xid, outcome })
}

fn decode_accepted(r: &mut Reader) -> Result<Outcome, XdrError> {
    // The verifier says nothing in the flavours that are spoken here.
    OpaqueAuth::decode(r)?;
    let error = match r.u32()? {
        SUCCESS => return Ok(Outcome::Success(r.rest())),
        PROG_UNAVAIL => AcceptError::ProgUnavail,
        PROG_MISMATCH => AcceptError::ProgMismatch {
            low: r.u32()?,
            high: r.u32()?,
        },
        PROC_UNAVAIL => AcceptError::ProcUnavail,
        GARBAGE_ARGS => AcceptError::GarbageArgs,
        SYSTEM_ERR => AcceptError::SystemErr,
        other => return Err(r.not_in_enum("accept_stat", other)),
    };
    Ok(Outcome::Error(error))
}

fn decode_denied(r: &mut Reader) -> Result<Outcome, XdrError> {
    let denial = match r.u32()? {
        RPC_MISMATCH => Denial::RpcMismatch {
            low: r.u32()?,
            high: r.u32()?,
        },
        AUTH_ERROR => Denial::AuthError(AuthStat::from_wire(r.u32()?)),
        other => return Err(r.not_in_enum("reject_stat", other)),
    };
    Ok(Outcome::Denied(denial))
}
