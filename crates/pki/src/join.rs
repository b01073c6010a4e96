//! What a machine that wants to join and a member say to each other: JSON, once each way.
//!
//! A member of another version may know more or less: unknown fields are ignored, so that the two can at least
//! tell each other what is wrong.
//!
//! It must not know how they travel, nor who is let in.

use serde::{Deserialize, Serialize};

use crate::identity::Invitation;

/// Largest request, in bytes.
pub const JOIN_REQUEST_BYTES_MAX: usize = 8 << 10;

/// A machine asks to be let in.
#[derive(Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's secret, in hexadecimal.
    pub secret: String,
    /// How it wants to be called.
    pub name: String,
    /// Where it will listen for its peers.
    pub address: String,
    /// Its public key, in hexadecimal.
    pub key: String,
}

/// It is let in.
#[derive(Serialize, Deserialize)]
pub struct JoinAnswer {
    /// Certificate and authority.
    pub invitation: Invitation,
    /// What is the same in the configuration of every node.
    pub shared: Shared,
}

/// What is the same in the configuration of every node.
#[derive(Clone, Serialize, Deserialize)]
pub struct Shared {
    /// The cluster's name.
    pub cluster: String,
    /// The shared tables, as TOML.
    pub tables: String,
    /// The exports(5) file, if there is one.
    pub exports: Option<String>,
}
