//! Clusters are made and changed by commands: `haven init`, `haven token`, `haven join`, `haven node`.
//!
//! `setup` makes the first node. `join` is the new machine's side of joining, `office` the cluster's side and what
//! members are asked for; what the two say to each other is in `haven_pki`. `text` writes configurations.
//!
//! Who is a member is decided in `haven_consensus`, what certificates say in `haven_pki`.

pub mod join;
pub mod office;
pub mod setup;
mod text;

use crate::engine::Outcome;
use haven_config::Config;
use haven_consensus::{Consensus, Security};
use haven_pki::Identity;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Port for the other nodes, where none is given.
pub const PEER_PORT: u16 = 7400;

/// Hours that a token counts, where nothing else is said.
pub const TOKEN_HOURS: u64 = 24;

/// Most hours that a token may count.
pub const TOKEN_HOURS_MAX: u64 = 24 * 365;

/// Says in a node's identity that it was removed.
const REMOVED: &str = "removed";
/// Says in a node's identity that it has started before.
const STARTED: &str = "started";
/// Holds how many nodes vote, as this one knew last.
const VOTERS: &str = "voters";
/// More than that is no number of nodes.
const VOTERS_BYTES_MAX: u64 = 8;

/// Seconds since the epoch. A clock before it counts as at it.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// `ADDRESS:PORT`, or `ADDRESS` with the usual port.
///
/// # Errors
/// What is wrong with it, in words.
pub fn peer_address(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => address,
        Err(_) => match text.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, PEER_PORT),
            Err(_) => {
                return Err(format!(
                    "\"{text}\" is not of the form ADDRESS or ADDRESS:PORT"
                ));
            }
        },
    };
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(format!(
            "other nodes cannot connect to {address}: give a real address"
        ));
    }
    Ok(address)
}

/// How this machine is called, as far as that can be a node's name.
///
/// # Errors
/// When it cannot, in words.
fn host_name() -> Result<String, String> {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    let name: String = name.split('.').next().unwrap_or_default().into();
    match name.is_empty() || name == "localhost" {
        true => Err("this machine has no name of its own: give one with --name".into()),
        false => Ok(name),
    }
}

/// The identity of a configured node, if it needs one.
///
/// # Errors
/// When it is missing, no good, not that of the configuration, or its node was removed.
pub fn identity(config: &Config) -> Result<Option<Identity>, String> {
    if !config.cluster.shared {
        return Ok(None);
    }
    let data = &config.node.data;
    let identity = Identity::load(data).map_err(|e| e.to_string())?;
    let removed = marker(data, REMOVED);
    if removed.exists() {
        return Err(format!(
            "this node was removed from its cluster ({}). To use the machine again, move {} away and let it join with \
             a new token",
            removed.display(),
            data.display()
        ));
    }
    if identity.node() != config.node.id {
        return Err(format!(
            "the certificate in {} is that of node {}, but the configuration says node {}; use the configuration that \
             belongs to these data",
            data.join(haven_pki::DIR).display(),
            identity.node(),
            config.node.id
        ));
    }
    Ok(Some(identity))
}

fn marker(data: &Path, name: &str) -> PathBuf {
    data.join(haven_pki::DIR).join(name)
}

/// Notes that this node was removed, so that it does not start again.
pub(crate) fn note_removed(data: &Path, why: &str) {
    if let Err(why) = haven_pki::write_file(&marker(data, REMOVED), why.as_bytes(), 0o644) {
        tracing::warn!("cannot note the removal: {why}");
    }
}

/// Whether this node has started before, so that it may have promised something to others.
pub(crate) fn has_started(config: &Config) -> bool {
    config.cluster.shared && marker(&config.node.data, STARTED).exists()
}

/// Notes that this node starts: from now on it must not come back without its log. The log has been made.
///
/// The note is written at every start, and before the first one the identity, too: when they were first written the flush
/// may have failed, and then they are in memory only.
///
/// # Errors
/// What the system says.
pub(crate) fn note_started(data: &Path, identity: &Identity) -> Result<(), String> {
    let marker = marker(data, STARTED);
    if !marker.exists() {
        identity.save(data).map_err(|e| e.to_string())?;
        setup::give_to_owner(data)?;
    }
    haven_pki::write_file(&marker, b"", 0o644).map_err(|e| e.to_string())
}

/// Says when the others know this node elsewhere than it listens, so that the network is not blamed.
pub(crate) fn complain_of_place(consensus: &Consensus<Outcome>, config: &Config) {
    let (own, members) = (config.own(), consensus.members());
    let known = members.iter().find(|member| member.id == own.id);
    let known = known.and_then(|member| member.address);
    // A node that is the only one tells the others itself, when there are some.
    if let Some(known) = known.filter(|known| *known != own.address && members.len() > 1) {
        tracing::error!(
            "cluster.address says {}, but the cluster knows this node at {known}: the others refuse it. Set it back to \
             {known} and restart; for another address, remove this node (haven node remove {}) and let it join again. If \
             these data were copied from another machine: stop this copy",
            own.address,
            own.name
        );
    }
}

/// How many nodes voted, as this one knew last. With a damaged log nothing else knows.
pub(crate) fn noted_voters(data: &Path) -> Option<usize> {
    let bytes = haven_pki::read_bounded(&marker(data, VOTERS), VOTERS_BYTES_MAX).ok()??;
    String::from_utf8(bytes).ok()?.trim().parse().ok()
}

/// Notes how many nodes vote, once and whenever that changes.
pub(crate) async fn note_voters(data: PathBuf, consensus: Consensus<Outcome>) {
    // What is noted already need not be durable.
    let mut known = 0;
    while let Some(now) = consensus.voters_other_than(known).await {
        let path = marker(&data, VOTERS);
        let text = format!("{now}\n");
        let writing = move || haven_pki::write_file(&path, text.as_bytes(), 0o644);
        if let Ok(Err(why)) = tokio::task::spawn_blocking(writing).await {
            tracing::warn!("cannot note how many nodes vote: {why}");
        }
        known = now;
    }
}

/// What consensus needs of an identity.
///
/// # Errors
/// When certificate and key do not belong together.
pub(crate) fn security(config: &Config, identity: &Identity) -> Result<Security, String> {
    let name_of = |id| {
        let node = config.cluster.nodes.iter().find(|node| node.id == id);
        node.map_or_else(String::new, |node| node.name.clone())
    };
    let founders: BTreeMap<_, _> = identity
        .founders()
        .iter()
        .map(|founder| (founder.id, (name_of(founder.id), founder.key)))
        .collect();
    Ok(Security {
        tls: identity.tls().map_err(|e| e.to_string())?,
        name: config.node.name.clone(),
        founders,
        tokens: identity.issued().to_vec(),
        version: haven_consensus::PROTOCOL_VERSION,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files that are written anew get other inodes.
    fn inodes(dir: &Path) -> BTreeMap<std::ffi::OsString, u64> {
        use std::os::unix::fs::MetadataExt;
        let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
        let of = |entry: std::fs::DirEntry| (entry.file_name(), entry.metadata().unwrap().ino());
        entries.map(of).collect()
    }

    #[test]
    fn a_start_writes_its_mark_anew_and_the_first_one_the_identity_too() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::found(1, |_| Ok(Vec::new())).unwrap().remove(0);
        identity.save(dir.path()).unwrap();
        let files = dir.path().join(haven_pki::DIR);
        let made = inodes(&files);
        // Kept open, so that no inode is used again meanwhile.
        let _open: Vec<_> = made
            .keys()
            .map(|name| std::fs::File::open(files.join(name)).unwrap())
            .collect();
        note_started(dir.path(), &identity).unwrap();
        let first = inodes(&files);
        assert!(
            made.iter().all(|(name, ino)| first[name] != *ino),
            "{first:?}"
        );
        let _mark = std::fs::File::open(files.join(STARTED)).unwrap();
        note_started(dir.path(), &identity).unwrap();
        let second = inodes(&files);
        let changed = second.iter().filter(|(name, ino)| first[*name] != **ino);
        let changed: Vec<_> = changed.map(|(name, _)| name).collect();
        assert_eq!(changed, [STARTED]);
        assert!(Identity::load(dir.path()).is_ok());
    }

    #[test]
    fn addresses_for_peers() {
        let good = |text: &str| peer_address(text).unwrap().to_string();
        assert_eq!(good("192.0.2.1"), "192.0.2.1:7400");
        assert_eq!(good("192.0.2.1:99"), "192.0.2.1:99");
        assert_eq!(good("2001:db8::1"), "[2001:db8::1]:7400");
        for bad in ["", "host", "0.0.0.0", "[::]:7400", "192.0.2.1:0"] {
            assert!(peer_address(bad).is_err(), "{bad}");
        }
    }
}
