//! Who belongs to the cluster, by name: what the cluster itself knows, and what the configuration names where the
//! cluster does not know it (a node that was founded alone has no name in it).
//!
//! Must not know: how anybody is.

use crate::engine::Outcome;
use haven_config::Config;
use haven_consensus::Consensus;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it listens for the others.
    pub address: SocketAddr,
}

/// See the module's head comment. Clones share it.
#[derive(Clone)]
pub struct Roll {
    consensus: Consensus<Outcome>,
    configured: Arc<Vec<Entry>>,
}

impl Roll {
    /// Of the cluster of `consensus`, whose node has this configuration.
    pub fn new(config: &Config, consensus: Consensus<Outcome>) -> Self {
        let configured = config.cluster.nodes.iter().map(|node| Entry {
            id: node.id,
            name: node.name.clone(),
            address: node.address,
        });
        Self {
            consensus,
            configured: Arc::new(configured.collect()),
        }
    }

    /// The members, by rising id.
    pub fn entries(&self) -> Vec<Entry> {
        let members = self.consensus.members();
        let mut found: BTreeMap<u64, Entry> = BTreeMap::new();
        for member in &members {
            let configured = self.configured.iter().find(|entry| entry.id == member.id);
            let entry = match (member.name.is_empty(), member.address) {
                (false, Some(address)) => Some(Entry {
                    id: member.id,
                    name: member.name.clone(),
                    address,
                }),
                _ => configured.cloned(),
            };
            found.extend(entry.map(|entry| (entry.id, entry)));
        }
        // Before it has heard from the cluster, a node knows no more than its configuration.
        if found.is_empty() {
            found.extend(
                self.configured
                    .iter()
                    .map(|entry| (entry.id, entry.clone())),
            );
        }
        found.into_values().collect()
    }

    /// The members' numbers, and whether they vote.
    pub fn voters(&self) -> Vec<(u64, bool)> {
        let members = self.consensus.members();
        match members.is_empty() {
            false => members.iter().map(|one| (one.id, one.voter)).collect(),
            // As above.
            true => self.configured.iter().map(|one| (one.id, true)).collect(),
        }
    }

    /// The name of a member.
    pub fn name_of(&self, id: u64) -> Option<String> {
        let found = self.entries().into_iter().find(|entry| entry.id == id);
        found.map(|entry| entry.name)
    }
}
