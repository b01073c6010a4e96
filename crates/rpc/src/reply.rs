//! Replies (RFC 5531 section 9): writing them as a server, reading them as a client.

use crate::REPLY;
use crate::auth::{self, OpaqueAuth};
use bytes::Bytes;
use haven_xdr::{Decode, Encode, Gather, Reader, Writer, Xdr, XdrError};

/// `reply_stat`.
const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;

/// `accept_stat`: the results follow.
const SUCCESS: u32 = 0;

/// Why an accepted call was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Xdr)]
#[xdr(name = "accept_stat")]
pub enum AcceptError {
    /// The program is not served here.
    #[error("program unavailable")]
    #[xdr(case = 1)]
    ProgUnavail,
    /// The program is served in other versions.
    #[error("program version not supported, only {low} to {high}")]
    #[xdr(case = 2)]
    ProgMismatch {
        /// Lowest version served.
        low: u32,
        /// Highest version served.
        high: u32,
    },
    /// The program has no such procedure.
    #[error("procedure unavailable")]
    #[xdr(case = 3)]
    ProcUnavail,
    /// The arguments could not be decoded.
    #[error("garbage arguments")]
    #[xdr(case = 4)]
    GarbageArgs,
    /// The server failed.
    #[error("system error at the server")]
    #[xdr(case = 5)]
    SystemErr,
}

/// Why a call was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Xdr)]
#[xdr(name = "reject_stat")]
pub enum Denial {
    /// The RPC version is not spoken.
    #[error("RPC version not supported, only {low} to {high}")]
    #[xdr(case = 0)]
    RpcMismatch {
        /// Lowest version spoken.
        low: u32,
        /// Highest version spoken.
        high: u32,
    },
    /// The caller was not authenticated.
    #[error("authentication failed: {0}")]
    #[xdr(case = 1)]
    AuthError(AuthStat),
}

/// `auth_stat`: why authentication failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Xdr)]
#[repr(u32)]
#[xdr(name = "auth_stat")]
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
    /// AUTH_FAILED: the reason is not known.
    #[error("unknown reason")]
    Failed = 7,
    /// AUTH_KERB_GENERIC: AUTH_KERB failed.
    #[error("Kerberos error")]
    KerbGeneric = 8,
    /// AUTH_TIMEEXPIRE: the credential's time is over.
    #[error("credential expired")]
    TimeExpire = 9,
    /// AUTH_TKT_FILE: the ticket file is of no use.
    #[error("problem with the ticket file")]
    TktFile = 10,
    /// AUTH_DECODE: the authenticator cannot be decoded.
    #[error("authenticator cannot be decoded")]
    Decode = 11,
    /// AUTH_NET_ADDR: the ticket is for another network address.
    #[error("wrong network address in the ticket")]
    NetAddr = 12,
    /// RPCSEC_GSS_CREDPROBLEM: the server has no credentials for the caller.
    #[error("no credentials for the user")]
    GssCredProblem = 13,
    /// RPCSEC_GSS_CTXPROBLEM: the security context is not known.
    #[error("problem with the security context")]
    GssCtxProblem = 14,
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
    let mut w = accepted_header(xid);
    w.put_u32(SUCCESS);
    reply.prefix(&w.finish().into_bytes());
    reply
}

/// The reply to a call that was accepted but not executed.
pub fn accept_error(xid: u32, error: AcceptError) -> Gather {
    let mut w = accepted_header(xid);
    error.encode(&mut w);
    w.finish()
}

/// The reply to a denied call.
pub fn denied(xid: u32, denial: Denial) -> Gather {
    let mut w = Writer::with_capacity(24);
    for field in [xid, REPLY, MSG_DENIED] {
        w.put_u32(field);
    }
    denial.encode(&mut w);
    w.finish()
}

/// What precedes `accept_stat`.
fn accepted_header(xid: u32) -> Writer {
    let mut w = Writer::with_capacity(32);
    for field in [xid, REPLY, MSG_ACCEPTED] {
        w.put_u32(field);
    }
    auth::put_none(&mut w);
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
        MSG_DENIED => Outcome::Denied(Denial::decode(&mut r)?),
        other => return Err(r.not_in_enum("reply_stat", other).into()),
    };
    Ok(Reply { xid, outcome })
}

fn decode_accepted(r: &mut Reader) -> Result<Outcome, XdrError> {
    // The verifier says nothing in the flavours that are spoken here.
    OpaqueAuth::decode(r)?;
    let mut ahead = r.clone();
    match ahead.u32()? {
        SUCCESS => Ok(Outcome::Success(ahead.rest())),
        _ => AcceptError::decode(r).map(Outcome::Error),
    }
}
