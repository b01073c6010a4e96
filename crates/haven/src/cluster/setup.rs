//! `haven init`: makes a cluster of this machine, to which others can be added.
//!
//! The identity is written before the configuration, and nothing that is there is overwritten. After a crash in
//! between there is an identity without a configuration: it is of no use to anybody, and moved away by hand.

use super::{TOKEN_HOURS_MAX, host_name, now, peer_address, text};
use haven_config::Config;
use haven_pki::{Identity, Issued, Token};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

/// Most tokens printed.
pub const TOKENS_MAX: u64 = 6;

/// What `haven init` was told.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// Where the configuration goes.
    pub config: PathBuf,
    /// Where the data go.
    pub data: PathBuf,
    /// The node's name; default: the machine's.
    pub name: Option<String>,
    /// Where it listens for its peers.
    pub address: String,
    /// The cluster's name.
    pub cluster: String,
    /// Floating addresses, `address/prefix`.
    pub floating: Vec<String>,
    /// Paths to export.
    pub exports: Vec<String>,
    /// How many tokens to make.
    pub tokens: u64,
    /// How long they count.
    pub hours: u64,
}

/// Makes a cluster; gives what to tell the operator.
///
/// # Errors
/// What is wrong and what to do, in words. Nothing was overwritten.
pub fn init(wishes: &Wishes) -> Result<String, String> {
    let address = peer_address(&wishes.address)?;
    let name = wishes.name.clone().map_or_else(host_name, Ok)?;
    check_hours(wishes.hours)?;
    refuse_overwrite(&wishes.config, &wishes.data)?;
    let own = text::Own {
        id: 1,
        name: &name,
        data: &wishes.data,
        address,
        witness: false,
    };
    let config = text::first(&own, &wishes.cluster, &wishes.floating, &wishes.exports);
    // Whatever is wrong is said before anything is written.
    Config::parse(&config).map_err(|e| e.to_string())?;

    let mut tokens = Vec::new();
    let mut identities = Identity::found(1, |authority| {
        let expires = now().saturating_add(wishes.hours * 3600);
        for _ in 0..wishes.tokens.min(TOKENS_MAX) {
            tokens.push(Token::create(authority, address.to_string(), expires)?);
        }
        let issued = |token: &Token| Issued {
            hash: token.hash(),
            expires,
        };
        Ok(tokens.iter().map(issued).collect())
    })
    .map_err(|e| e.to_string())?;
    let identity = identities.pop().ok_or("no identity was made")?;
    identity.save(&wishes.data).map_err(|e| e.to_string())?;
    give_to_owner(&wishes.data)?;
    write_config(&wishes.config, &config)?;
    Ok(story(wishes, &name, address, &tokens))
}

fn story(wishes: &Wishes, name: &str, address: SocketAddr, tokens: &[Token]) -> String {
    let file = wishes.config.display();
    let mut out = format!(
        "The cluster \"{}\" is made; this machine is its node \"{name}\" at {address}.\n\
         Configuration: {file}\nCertificates and keys: {}\n\nStart it:\n\n    haven serve --config {file}\n",
        wishes.cluster,
        wishes.data.join(haven_pki::DIR).display()
    );
    if !tokens.is_empty() {
        out += &format!(
            "\nThen, on each further machine, one of these (each works once, for {} hours; more with `haven token`):\n",
            wishes.hours
        );
        for token in tokens {
            out += &format!("\n    haven join {token}\n");
        }
    }
    out
}

/// Whether a token may count so long.
pub(super) fn check_hours(hours: u64) -> Result<(), String> {
    match hours {
        1..=TOKEN_HOURS_MAX => Ok(()),
        _ => Err(format!("a token counts for 1 to {TOKEN_HOURS_MAX} hours")),
    }
}

/// Refuses when there is a configuration or an identity already.
pub(super) fn refuse_overwrite(config: &Path, data: &Path) -> Result<(), String> {
    if Identity::exists(data) {
        return Err(format!(
            "{} belongs to a node of a cluster already (see {}); nothing was changed. Start it with `haven serve`, or \
             move the directory away to begin anew",
            data.display(),
            data.join(haven_pki::DIR).display()
        ));
    }
    if config.exists() {
        return Err(format!(
            "{} exists already; nothing was changed. Move it away, or give another file with --config",
            config.display()
        ));
    }
    Ok(())
}

/// Writes the configuration, which holds no secrets.
pub(super) fn write_config(path: &Path, text: &str) -> Result<(), String> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    haven_pki::write_file(path, text.as_bytes(), 0o644).map_err(|e| e.to_string())
}

/// Gives the identity to whom the data directory belongs: the service may run as another user than the one who
/// sets it up.
pub(super) fn give_to_owner(data: &Path) -> Result<(), String> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |why: std::io::Error| format!("{path}: {why}")
    };
    let owner = fs::metadata(data).map_err(failed(data))?;
    let dir = data.join(haven_pki::DIR);
    let mut all = vec![dir.clone()];
    for entry in fs::read_dir(&dir).map_err(failed(&dir))? {
        all.push(entry.map_err(failed(&dir))?.path());
    }
    for path in all {
        let now = fs::symlink_metadata(&path).map_err(failed(&path))?;
        if (now.uid(), now.gid()) != (owner.uid(), owner.gid()) {
            chown(&path, Some(owner.uid()), Some(owner.gid())).map_err(failed(&path))?;
        }
    }
    Ok(())
}
