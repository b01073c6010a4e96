//! Who belongs to a cluster: its authority, its nodes' certificates, and the tokens that let a machine in.
//!
//! A cluster has an [`Authority`], made once. It certifies keys: the certificate of a node says "this key is node
//! 3 of cluster X". Nothing here decides who *is* a member; that is the membership the nodes agree on, which
//! names the key of every member ([`KeyId`]). A certificate alone proves only where a key came from.
//!
//! Invariants
//! - Certificates never expire, and none is younger than the epoch: a clock that is wrong locks nobody out. Who
//!   may no longer take part is said by the membership, not by a date.
//! - TLS 1.3 only, without compression, resumption or early data: each connection proves both keys anew.
//! - Whatever is secret lies in files that only the owner reads, and is never shown by `Debug`.
//!
//! It must not know sockets, runtimes, or how membership changes.

mod authority;
mod error;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod identity;
mod join;
mod text;
mod tls;
mod token;

pub use authority::{Authority, Fingerprint, KeyId, NodeKey, PublicKey};
pub use error::PkiError;
pub use files::{read_bounded, write_file};
pub use identity::{Founder, Identity, Invitation, Issued};
pub use join::{JOIN_REQUEST_BYTES_MAX, JoinAnswer, JoinRequest, Shared};
pub use tls::{Tls, explain, join_config, member_name};
pub use token::{SECRET_LEN, SecretHash, Token};

/// Re-exported, so that others need not name its version.
pub use rustls;

/// Directory of a node's identity within its data directory.
pub const DIR: &str = "cluster";
