//! Calls (RFC 5531 section 9): reading them as a server, writing them as a client.

use crate::auth::{self, AuthSys, Credential, OpaqueAuth};
use crate::reply::{AuthStat, Denial, denied};
use crate::{CALL, RPC_VERSION};
use bytes::Bytes;
use haven_xdr::{Decode, Gather, Reader, Writer, XdrError};

/// A call whose header was understood. Whether the program exists is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The caller's transaction id: equal in a retransmission.
    pub xid: u32,
    /// Program number.
    pub prog: u32,
    /// Version of the program.
    pub vers: u32,
    /// Procedure within the program.
    pub proc: u32,
    /// Who asks.
    pub cred: Credential,
    /// The procedure's arguments, still encoded.
    pub args: Bytes,
}

/// Why a message was not taken as a call, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No reply is possible. A stream that carried this is out of step: close it.
    Drop(NoReply),
    /// Send `reply`; the stream is fine.
    Reply {
        /// The call's transaction id.
        xid: u32,
        /// Why it was refused.
        denial: Denial,
        /// The reply, without record mark.
        reply: Gather,
    },
}

/// Why no reply is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// The call's header is cut short or malformed.
    #[error("RPC call header: {0}")]
    Malformed(#[from] XdrError),
    /// The message is not a call.
    #[error("message type {0} is not a call")]
    NotACall(u32),
}

/// Reads a call's header. The arguments stay a slice of `message`.
pub fn decode_call(message: Bytes) -> Result<Call, Refusal> {
    let mut r = Reader::new(message);
    let (xid, rpcvers) = decode_start(&mut r).map_err(Refusal::Drop)?;
    // Another version may have another header: nothing behind the version number can be trusted.
    if rpcvers != RPC_VERSION {
        return Err(refuse(
            xid,
            Denial::RpcMismatch {
                low: RPC_VERSION,
                high: RPC_VERSION,
            },
        ));
    }
    let malformed = |error| Refusal::Drop(NoReply::Malformed(error));
    let prog = r.u32().map_err(malformed)?;
    let vers = r.u32().map_err(malformed)?;
    let proc = r.u32().map_err(malformed)?;
    let auth_error = |stat| refuse(xid, Denial::AuthError(stat));
    let cred = OpaqueAuth::decode(&mut r).map_err(|_| auth_error(AuthStat::BadCred))?;
    let verf = OpaqueAuth::decode(&mut r).map_err(|_| auth_error(AuthStat::BadVerf))?;
    let cred = understand(cred, &verf).map_err(auth_error)?;
    Ok(Call {
        xid,
        prog,
        vers,
        proc,
        cred,
        args: r.rest(),
    })
}

/// Transaction id and RPC version.
fn decode_start(r: &mut Reader) -> Result<(u32, u32), NoReply> {
    let xid = r.u32()?;
    match r.u32()? {
        CALL => Ok((xid, r.u32()?)),
        other => Err(NoReply::NotACall(other)),
    }
}

/// Looks into the credential. Bytes behind an AUTH_SYS body are ignored, as other servers do.
fn understand(cred: OpaqueAuth, verf: &OpaqueAuth) -> Result<Credential, AuthStat> {
    let cred = match cred.flavor {
        auth::AUTH_NONE => Credential::None,
        auth::AUTH_SYS => AuthSys::decode(&mut Reader::new(cred.body))
            .map(Credential::Sys)
            .map_err(|_| AuthStat::BadCred)?,
        // As Linux nfsd answers a flavour it does not know.
        _ => return Err(AuthStat::BadCred),
    };
    // Both flavours come with an AUTH_NONE verifier.
    if verf.flavor != auth::AUTH_NONE {
        return Err(AuthStat::BadVerf);
    }
    Ok(cred)
}

fn refuse(xid: u32, denial: Denial) -> Refusal {
    Refusal::Reply {
        xid,
        denial,
        reply: denied(xid, denial),
    }
}

/// Writes a call, without record mark. A large part of `args` is not copied.
pub fn encode_call(
    xid: u32,
    prog: u32,
    vers: u32,
    proc: u32,
    cred: &Credential,
    args: Gather,
) -> Gather {
    let mut w = Writer::new();
    for field in [xid, CALL, RPC_VERSION, prog, vers, proc] {
        w.put_u32(field);
    }
    cred.encode(&mut w);
    auth::put_none(&mut w);
    let mut message = args;
    message.prefix(&w.finish().into_bytes());
    message
}
