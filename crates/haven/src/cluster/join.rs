//! `haven join`: this machine becomes a node of a cluster.
//!
//! The order makes it repeatable: the key is on disk before anything is said, and the token is used up for that
//! key, so whoever asks again with it gets the same answer. The configuration is written last: with it, the
//! machine has joined.

use super::{host_name, now, peer_address, setup, text};
use bytes::Bytes;
use haven_config::Config;
use haven_consensus::ask_to_join;
use haven_pki::{Identity, JoinAnswer, JoinRequest, Token, join_config};
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a member may take to answer: it may have to find a leader first.
const PATIENCE: Duration = Duration::from_secs(25);

/// What `haven join` was told.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// The token.
    pub token: String,
    /// Where the configuration goes.
    pub config: PathBuf,
    /// Where the data go.
    pub data: PathBuf,
    /// The node's name; default: the machine's.
    pub name: Option<String>,
    /// Where it listens for its peers; default: the address it reaches the member from.
    pub address: Option<String>,
    /// Another member to ask than the one that the token names.
    pub at: Option<String>,
    /// It votes and keeps the log, but holds no files.
    pub witness: bool,
}

/// Joins; gives what to tell the operator.
///
/// # Errors
/// What is wrong and what to do, in words. The command may be repeated.
pub async fn join(wishes: &Wishes) -> Result<String, String> {
    let token: Token = wishes.token.parse().map_err(|e| format!("{e}"))?;
    refuse_overwrite(wishes)?;
    let member = resolve(wishes.at.as_ref().unwrap_or(&token.address))?;
    let address = match &wishes.address {
        Some(text) => peer_address(text)?,
        None => SocketAddr::new(own_ip(member)?, super::PEER_PORT),
    };
    let name = wishes.name.clone().map_or_else(host_name, Ok)?;
    // On disk before the cluster hears of it.
    let key = Identity::prepare(&wishes.data).map_err(|e| e.to_string())?;
    let public = key.public().map_err(|e| e.to_string())?;
    let request = JoinRequest {
        secret: token.secret_hex(),
        name: name.clone(),
        address: address.to_string(),
        key: public.to_hex(),
    };
    let request = serde_json::to_vec(&request).map_err(|e| e.to_string())?;
    let tls = join_config(token.authority).map_err(|e| e.to_string())?;
    let answer = ask_to_join(member, tls, Bytes::from(request), PATIENCE)
        .await
        .map_err(|why| with_clock(&token, why))?;
    let answer: JoinAnswer = serde_json::from_slice(&answer)
        .map_err(|e| format!("the member's answer makes no sense: {e}"))?;
    let identity = Identity::accept(&answer.invitation, key, token.authority);
    let identity = identity.map_err(|e| e.to_string())?;

    let own = text::Own {
        id: identity.node(),
        name: &name,
        data: &wishes.data,
        address,
        witness: wishes.witness,
    };
    let config = text::joined(&own, &answer.shared)?;
    identity.save(&wishes.data).map_err(|e| e.to_string())?;
    setup::give_to_owner(&wishes.data)?;
    let note = write_exports(&wishes.config, answer.shared.exports.as_deref())?;
    setup::write_config(&wishes.config, &config)?;
    Config::load(&wishes.config)
        .map_err(|e| format!("this machine has joined, but the configuration needs a look: {e}"))?;
    let file = wishes.config.display();
    let what = match wishes.witness {
        true => "it gets the log, and votes as a witness when it has it",
        false => "it copies the data, and votes when it has caught up",
    };
    Ok(format!(
        "This machine is node \"{name}\" (number {}) of the cluster \"{}\", at {address}.\nConfiguration: {file}\n\
         Certificates and keys: {}\n{note}\nStart it; {what}:\n\n    \
         haven serve --config {file}\n",
        identity.node(),
        answer.shared.cluster,
        wishes.data.join(haven_pki::DIR).display()
    ))
}

/// As for `haven init`; but an identity without a configuration is from an attempt that was cut short.
fn refuse_overwrite(wishes: &Wishes) -> Result<(), String> {
    match wishes.config.exists() {
        true => setup::refuse_overwrite(&wishes.config, &wishes.data),
        // Identity and log: that is no attempt.
        false if wishes.data.join(crate::serve::LOG_DIR).exists() => Err(format!(
            "{} holds a node's data already; nothing was changed. A machine joins with an empty data directory: move \
             this one away, or give another with --data",
            wishes.data.display()
        )),
        false => Ok(()),
    }
}

/// An ended token is often a wrong clock.
fn with_clock(token: &Token, why: String) -> String {
    let now = now();
    match token.expires <= now {
        true => format!(
            "{why}\nBy this machine's clock the token ended {} minutes ago",
            (now - token.expires) / 60
        ),
        false => why,
    }
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = peer_address(text) {
        return Ok(address);
    }
    let mut found = text
        .to_socket_addrs()
        .map_err(|e| format!("cannot tell where {text} is: {e}"))?;
    found.next().ok_or(format!("{text} has no address"))
}

/// The address of this machine that the member sees.
fn own_ip(member: SocketAddr) -> Result<std::net::IpAddr, String> {
    let any = match member {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    // Nothing is sent: connecting only chooses the way.
    let way = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(member)?;
        socket.local_addr()
    });
    way.map(|address| address.ip()).map_err(|e| {
        format!("cannot tell by which address this machine reaches {member} ({e}): give it with --address")
    })
}

fn write_exports(config: &Path, exports: Option<&str>) -> Result<String, String> {
    let Some(exports) = exports else {
        return Ok(String::new());
    };
    let path = config.with_file_name(text::EXPORTS_FILE);
    match fs::read_to_string(&path) {
        Ok(there) if there == exports => Ok(String::new()),
        Ok(_) => Ok(format!(
            "{} was there and is left as it is; the other nodes' has other lines\n",
            path.display()
        )),
        Err(_) => {
            haven_pki::write_file(&path, exports.as_bytes(), 0o644).map_err(|e| e.to_string())?;
            Ok(format!("Exports: {}\n", path.display()))
        }
    }
}
