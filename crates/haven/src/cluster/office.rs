//! What a member does about the cluster: gives out tokens, lets machines in, lists and removes nodes.
//!
//! These are the functions behind `haven token` and `haven node`, whatever asks for them. Everything works on
//! every member.

use super::setup::check_hours;
use super::{now, text};
use crate::engine::Outcome;
use bytes::Bytes;
use haven_admin::{NodeRow, Refusal};
use haven_config::Config;
use haven_consensus::{Applicant, Consensus, Gatekeeper};
use haven_pki::{
    Identity, JOIN_REQUEST_BYTES_MAX, JoinAnswer, JoinRequest, PublicKey, Shared, Token,
    read_bounded,
};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tracing::{info, warn};

/// See the module's head.
pub struct Office {
    identity: Identity,
    consensus: Consensus<Outcome>,
    address: SocketAddr,
    cluster: String,
    file: Option<PathBuf>,
}

impl Office {
    /// The office of a member; `file` is its configuration, of which others get what is shared.
    pub fn open(
        identity: Identity,
        consensus: Consensus<Outcome>,
        config: &Config,
        file: Option<PathBuf>,
    ) -> Arc<Self> {
        let office = Arc::new(Self {
            identity,
            consensus: consensus.clone(),
            address: config.own().address,
            cluster: config.cluster.name.clone(),
            file,
        });
        consensus.set_gatekeeper(Arc::new(Gate(Arc::clone(&office))));
        office
    }

    /// A token for one machine, for some hours.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub async fn new_token(&self, hours: u64) -> Result<String, Refusal> {
        check_hours(hours).map_err(Refusal::failed)?;
        let now = now();
        let expires = now.saturating_add(hours * 3600);
        let authority = self.identity.authority().fingerprint();
        let token = Token::create(authority, self.address.to_string(), expires)
            .map_err(|e| Refusal::failed(e.to_string()))?;
        let counted = self.consensus.add_token(token.hash(), expires, now).await;
        counted.map_err(|e| Refusal::failed(e.to_string()))?;
        info!(hours, "a token to join was made");
        Ok(token.to_string())
    }

    /// The cluster's nodes.
    pub fn nodes(&self) -> Vec<NodeRow> {
        let leader = self.consensus.leadership().borrow().leader;
        let row = |member: haven_consensus::Member| {
            let state = match () {
                () if member.leaving => "leaving",
                () if leader == Some(member.id) => "leader",
                () if member.voter => "voter",
                () => "catching up",
            };
            let key = member.key.map_or_else(String::new, |key| key.to_string());
            NodeRow {
                id: member.id,
                name: member.name,
                address: member.address.map_or_else(String::new, |a| a.to_string()),
                state: state.to_owned(),
                key: key.chars().take(16).collect(),
            }
        };
        self.consensus.members().into_iter().map(row).collect()
    }

    /// Removes a node, by its name or number. Returns when it is no member any more.
    ///
    /// # Errors
    /// Why it is still one, in words.
    pub async fn remove_node(&self, node: &str) -> Result<(), Refusal> {
        let members = self.consensus.members();
        let by_name = members.iter().find(|member| member.name == node);
        let found = by_name.or_else(|| {
            let id: u64 = node.parse().ok()?;
            members.iter().find(|member| member.id == id)
        });
        let found = found.ok_or_else(|| {
            let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
            Refusal::failed(format!(
                "the cluster has no node {node}; it has {}",
                names.join(", ")
            ))
        })?;
        info!(node = found.name, "this node is asked to remove another");
        let removed = self.consensus.remove_node(found.id).await;
        removed.map_err(|e| Refusal::failed(e.to_string()))
    }

    async fn admit(&self, request: &[u8]) -> Result<Vec<u8>, String> {
        if request.len() > JOIN_REQUEST_BYTES_MAX {
            return Err("the request is too long".into());
        }
        let request: JoinRequest =
            serde_json::from_slice(request).map_err(|e| format!("no request: {e}"))?;
        let secret = Token::hash_of_hex(&request.secret).ok_or("the token's secret is none")?;
        let key = PublicKey::from_hex(&request.key).map_err(|e| e.to_string())?;
        let applicant = Applicant {
            name: check_name(&request.name)?.to_owned(),
            address: super::peer_address(&request.address)?,
            key: key.id(),
        };
        // Before the token is used up: without it the answer would be of no use.
        let shared = self.shared()?;
        let admitted = self.consensus.admit(secret, applicant.clone(), now()).await;
        let id = admitted.map_err(|e| {
            warn!(name = applicant.name, address = %applicant.address, "a machine is not let in: {e}");
            e.to_string()
        })?;
        info!(id, name = applicant.name, address = %applicant.address, "a machine is let in");
        let invitation = self.identity.invite(id, &key).map_err(|e| e.to_string())?;
        let answer = JoinAnswer { invitation, shared };
        serde_json::to_vec(&answer).map_err(|e| e.to_string())
    }

    fn shared(&self) -> Result<Shared, String> {
        let file = self
            .file
            .as_deref()
            .ok_or("this node has no configuration file")?;
        let read = |path: &std::path::Path| {
            let bytes =
                read_bounded(path, haven_config::FILE_BYTES_MAX).map_err(|e| e.to_string())?;
            let bytes = bytes.ok_or_else(|| format!("{} is gone", path.display()))?;
            String::from_utf8(bytes).map_err(|_| format!("{} is no text", path.display()))
        };
        let config = read(file).map_err(|why| format!("the member's configuration: {why}"))?;
        let table: toml::Table = config
            .parse()
            .map_err(|e| format!("{}: {e}", file.display()))?;
        let exports = table
            .get("service")
            .and_then(|service| service.get("exports_file"))
            .and_then(toml::Value::as_str)
            .map(|name| read(&file.with_file_name("").join(name)))
            .transpose()?;
        text::shared(&config, &self.cluster, exports)
    }
}

/// A name that may stand in configurations, logs and commands.
fn check_name(name: &str) -> Result<&str, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    let long = name.len() > haven_consensus::NAME_MAX;
    if name.is_empty() || long || !name.chars().all(plain) || name.parse::<u64>().is_ok() {
        return Err(format!(
            "\"{}\" cannot be a node's name: letters, digits, -, _ and . make one, at most {} of them, not only digits",
            name.escape_default().take(80).collect::<String>(),
            haven_consensus::NAME_MAX
        ));
    }
    Ok(name)
}

/// [`Gatekeeper`] for consensus.
struct Gate(Arc<Office>);

impl Gatekeeper for Gate {
    fn admit(
        &self,
        request: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send + '_>> {
        Box::pin(async move { self.0.admit(&request).await.map(Bytes::from) })
    }
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_are_plain() {
        for good in ["a", "node-1", "files.example.com", "x_9"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", "7", "a b", "a\n", "ä", "a/b", "\"", &long] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
