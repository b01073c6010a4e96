//! ONC RPC version 2 (RFC 5531): record marking, call and reply headers, authentication flavours.
//!
//! Invariants
//! - Nothing a peer sends can panic: a call that cannot be understood becomes a [`Refusal`], which
//!   carries the reply that the RFC asks for, or says that there is none.
//! - Arguments and results stay slices of the received record; a reply's body is not copied.
//!
//! It must not know sockets, the clock, or what the programs mean. How long a record may get is the
//! transport's decision.

mod auth;
mod call;
pub mod record;
mod reply;

pub use auth::{AUTH_BODY_BYTES_MAX, AuthSys, Credential, GIDS_MAX, MACHINE_NAME_BYTES_MAX};
pub use call::{Call, NoReply, Refusal, decode_call, encode_call};
pub use reply::{
    AcceptError, AuthStat, Denial, Outcome, Reply, ReplyError, accept_error, accepted,
    decode_reply, denied,
};

/// The version of the RPC protocol.
pub const RPC_VERSION: u32 = 2;

/// `msg_type`: a call.
const CALL: u32 = 0;
/// `msg_type`: a reply.
const REPLY: u32 = 1;
