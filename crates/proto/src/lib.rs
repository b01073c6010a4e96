//! Message types of the protocols Haven speaks: one module each, named after the protocol.
//!
//! Every type has an XDR form in both directions, so that server and client share them. Names follow
//! the RFCs; what a message *means* is not decided here.
//!
//! Invariants
//! - Every decoded length has a named limit. Names and paths are accepted somewhat beyond what file
//!   systems allow, so that the server can answer "name too long" rather than "garbage arguments".
//! - File data is a slice of the received record, and is sent without being copied.
//!
//! It must not know sockets, files, or anything of the server's state.

pub mod mount;
pub mod nfs3;
pub mod nlm;
pub mod portmap;
pub mod rpcbind;
