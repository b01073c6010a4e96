//! The configuration: raw file -> checked [`Config`].
//!
//! One TOML file describes a node. Every node of a cluster carries the same `[service]`
//! and `[[export]]` parts ([`shared`]); `[node]` and the address in `[cluster]` differ. An exports(5) file may add exports ([`exports`]). Parsing and checking are separate steps: [`raw`]
//! mirrors the file (unknown keys are refused there, with their line), [`Config`] holds values that
//! make sense together, and nothing behind it needs to check again.
//!
//! It must not know what the values are used for: it opens nothing but these files, and resolves nothing.

mod check;
pub mod exports;
mod operate;
pub mod raw;
pub mod shared;
mod suggest;

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub use check::{ADDRESSES_MAX, CONTROL_PATH_BYTES_MAX, EXPORTS_MAX, NODES_MAX, check_export_path};
pub use operate::{
    Health, Limits, Log, LogFormat, LogLevel, Metrics, PORTMAP_PORT, Portmapper, usual_portmapper,
};

/// Default port of the NFS service (RFC 1813).
pub const NFS_PORT_DEFAULT: u16 = 2049;
/// Default port of the MOUNT service: the one the kernel server's documentation uses.
pub const MOUNT_PORT_DEFAULT: u16 = 20048;
/// uid and gid of "nobody", as exports(5) has it.
pub const NOBODY: u32 = 65534;
/// Largest configuration file read, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node: Node,
    /// The cluster it belongs to (a single node is a cluster of one).
    pub cluster: Cluster,
    /// The service the cluster provides.
    pub service: Service,
    /// What the service exports; at least one.
    pub exports: Vec<Export>,
    /// What is written to the log.
    pub log: Log,
    /// What clients may use.
    pub limits: Limits,
    /// What the node watches over itself.
    pub health: Health,
    /// Who is told what it counts.
    pub metrics: Metrics,
    /// What was accepted, but should be told: options without effect, lines that may not mean what they say.
    pub warnings: Vec<String>,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number in the cluster, from 1.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it keeps its log and its files.
    pub data: PathBuf,
    /// The Unix socket of its control API.
    pub control: PathBuf,
    /// What it does in its cluster.
    pub role: Role,
    /// When it makes checkpoints.
    pub checkpoints: Checkpoints,
}

/// What a node does in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It holds the files, and serves them when it leads.
    #[default]
    Data,
    /// It votes and keeps the log, and holds no files.
    Witness,
}

/// When a node makes a checkpoint, which bounds its log, its memory and its restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoints {
    /// After so many entries; at least 100.
    pub entries: u64,
    /// Or after so many bytes of entries; at least 1 MiB.
    pub bytes: u64,
    /// Entries kept behind a checkpoint for nodes that lag; a node further behind gets a snapshot.
    pub keep_entries: u64,
    /// Bytes of log kept, as far as checkpoints allow.
    pub keep_bytes: u64,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self {
            entries: 50_000,
            bytes: 128 << 20,
            keep_entries: 5_000,
            keep_bytes: 256 << 20,
        }
    }
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Whether there are to be other nodes, now or later: then this one needs a certificate.
    pub shared: bool,
    /// This node; with others, if they make a cluster together that is not made by `haven init`. By rising id.
    /// Who belongs to the cluster by now is not in the configuration.
    pub nodes: Vec<Peer>,
}

impl Cluster {
    /// How many nodes it has, if the configuration says that.
    pub(crate) fn size(&self) -> Option<usize> {
        let joined = self.shared && self.nodes.len() == 1;
        (!joined).then_some(self.nodes.len())
    }
}

/// A node as its peers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number, from 1.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it listens for its peers.
    pub address: SocketAddr,
}

/// The service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Floating addresses: held by the leader only. Empty: clients use the nodes' own addresses.
    pub addresses: Vec<FloatingAddress>,
    /// The interface that carries them; `None`: the one whose network contains the address.
    pub interface: Option<String>,
    /// The address the listeners bind to.
    pub listen: IpAddr,
    /// Port of NFS; 0 lets the system choose.
    pub nfs_port: u16,
    /// Port of MOUNT; 0 lets the system choose.
    pub mount_port: u16,
    /// Who tells clients the ports.
    pub portmapper: Portmapper,
}

/// A floating address with its prefix length in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatingAddress {
    /// The address.
    pub address: IpAddr,
    /// Prefix length of its network: 1 to 32 (IPv4) or 1 to 128 (IPv6).
    pub prefix: u8,
}

/// How callers' ids are mapped, with the meaning of exports(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SquashMode {
    /// Nobody is mapped (`no_root_squash`).
    None,
    /// uid 0 and gid 0 are mapped (`root_squash`).
    Root,
    /// Everybody is mapped (`all_squash`).
    All,
}

/// The mapping and its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Squash {
    /// Who is mapped.
    pub mode: SquashMode,
    /// To which user.
    pub anonuid: u32,
    /// To which group.
    pub anongid: u32,
}

/// An exported directory of the service's volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Absolute path in the volume; created when missing.
    pub path: String,
    /// Owner the directory gets when it is created.
    pub uid: u32,
    /// Group the directory gets when it is created.
    pub gid: u32,
    /// Mode the directory gets when it is created.
    pub mode: u32,
    /// Who may use it, and how; at least one.
    pub clients: Vec<exports::Client>,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("the configuration {path} has more than {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not TOML, has unknown or missing keys, or values of the wrong type.
    #[error("{path}: {why}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what, with the line.
        why: String,
    },
    /// The exports(5) file is wrong.
    #[error("{path}: {why}")]
    Exports {
        /// The file.
        path: PathBuf,
        /// Where and what.
        why: exports::ExportsError,
    },
    /// A value makes no sense.
    #[error("{section}: {why}")]
    Value {
        /// The key, as `section.key`.
        section: String,
        /// What is wrong and what to do.
        why: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let raw = raw_file(&read(path)?, path)?;
        let Some(file) = &raw.service.exports_file else {
            return check::check(raw, None);
        };
        // A relative path is relative to the file that says it.
        let file = path.parent().unwrap_or(Path::new("")).join(file);
        let listed = exports::parse(&read(&file)?).map_err(|why| ConfigError::Exports {
            path: file.clone(),
            why,
        })?;
        let notes = listed.notes.clone();
        let mut config = check::check(raw, Some(listed))?;
        let notes = notes
            .iter()
            .map(|note| format!("{}: {note}", file.display()));
        config.warnings.extend(notes);
        Ok(config)
    }

    /// Checks a configuration given as text, which must not name an exports(5) file.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] or [`ConfigError::Value`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        check::check(raw_file(text, Path::new("configuration"))?, None)
    }

    /// The peer entry of this node.
    pub fn own(&self) -> &Peer {
        self.cluster
            .nodes
            .iter()
            .find(|p| p.id == self.node.id)
            .expect("checked: this node is one of the cluster's")
    }
}

/// Reads a file that may be anything, a device without end included.
fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |why| ConfigError::Read {
        path: path.to_owned(),
        why,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

fn raw_file(text: &str, path: &Path) -> Result<raw::File, ConfigError> {
    toml::from_str(text).map_err(|e| {
        let mut why = e.to_string();
        if let Some(near) = meant(e.message()) {
            why = format!("{}; did you mean `{near}`?", why.trim_end());
        }
        ConfigError::Syntax {
            path: path.to_owned(),
            why,
        }
    })
}

/// The known key nearest to an unknown one. The parser's message has the unknown key first, then all known ones,
/// each in backticks.
fn meant(message: &str) -> Option<String> {
    let mut words = message
        .strip_prefix("unknown field ")?
        .split('`')
        .skip(1)
        .step_by(2);
    let unknown = words.next()?;
    suggest::nearest(unknown, words).map(str::to_owned)
}
