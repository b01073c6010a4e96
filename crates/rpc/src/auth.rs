//! Authentication flavours (RFC 5531 section 8.2): AUTH_NONE and AUTH_SYS (appendix A).

use bytes::Bytes;
use haven_xdr::{Writer, Xdr};

/// Longest body of a credential or verifier (`opaque_auth`).
pub const AUTH_BODY_BYTES_MAX: usize = 400;
/// Longest machine name in AUTH_SYS.
pub const MACHINE_NAME_BYTES_MAX: usize = 255;
/// Most supplementary groups in AUTH_SYS.
pub const GIDS_MAX: usize = 16;

/// `auth_flavor`: no authentication.
pub(crate) const AUTH_NONE: u32 = 0;
/// `auth_flavor`: user and group ids as the client states them.
pub(crate) const AUTH_SYS: u32 = 1;

/// Who the caller says he is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// AUTH_NONE.
    None,
    /// AUTH_SYS.
    Sys(AuthSys),
}

/// The body of an AUTH_SYS credential.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct AuthSys {
    /// An arbitrary number of the client's.
    pub stamp: u32,
    /// The client's name for itself, at most [`MACHINE_NAME_BYTES_MAX`] bytes.
    #[xdr(max = MACHINE_NAME_BYTES_MAX)]
    pub machine_name: Bytes,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, at most [`GIDS_MAX`].
    #[xdr(max = GIDS_MAX)]
    pub gids: Vec<u32>,
}

impl Credential {
    /// Appends the credential as an `opaque_auth`.
    pub(crate) fn encode(&self, w: &mut Writer) {
        match self {
            Self::None => put_none(w),
            Self::Sys(sys) => {
                let body = haven_xdr::encode_all(sys);
                w.put_u32(AUTH_SYS);
                w.put_count(body.len());
                w.put_encoded(body);
            }
        }
    }
}

/// Appends an empty `opaque_auth`: what a verifier is in AUTH_NONE and AUTH_SYS.
pub(crate) fn put_none(w: &mut Writer) {
    w.put_u32(AUTH_NONE);
    w.put_count(0);
}

/// An `opaque_auth` that nobody has looked into.
#[derive(Xdr)]
pub(crate) struct OpaqueAuth {
    pub(crate) flavor: u32,
    #[xdr(max = AUTH_BODY_BYTES_MAX)]
    pub(crate) body: Bytes,
}
