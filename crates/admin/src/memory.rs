//! What clients have of a node's memory, and whom others have suffered from: part of a node's report.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Memory of clients on one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Of requests that are not small.
    pub requests: MemoryUse,
    /// Of answers that are not small.
    pub answers: MemoryUse,
    /// Connections that were ended because they held memory that others waited for, and neither sent nor took anything.
    pub lost: Incidents,
    /// Large requests that were refused because nothing is exported to their client.
    pub refused: Incidents,
    /// Connections that were ended because their clients misbehaved: garbage, or patience was over.
    pub misbehaved: Incidents,
}

/// How much of one kind is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// How many bytes there are.
    pub bytes_max: u64,
    /// How many are in use.
    pub bytes: u64,
    /// Connections that wait for some.
    pub waiting: u64,
    /// The address that has most.
    pub most: Option<Holding>,
}

/// What an address has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The client.
    pub address: IpAddr,
    /// How many bytes.
    pub bytes: u64,
}

/// What happened again and again since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incidents {
    /// How often.
    pub total: u64,
    /// The address that most of it was about.
    pub most: Option<Blamed>,
}

/// What an address did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blamed {
    /// The client.
    pub address: IpAddr,
    /// How often.
    pub count: u64,
    /// Milliseconds since the last time.
    pub ms_ago: u64,
}
