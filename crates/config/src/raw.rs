//! The file as it is written: field names are the keys. Unknown keys are refused by serde, so that a
//! misspelt option is never silently ignored.

use serde::Deserialize;
use std::path::PathBuf;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// `[node]`
    pub node: Node,
    /// `[cluster]`; missing: a single node.
    pub cluster: Option<Cluster>,
    /// `[service]`
    #[serde(default)]
    pub service: Service,
    /// `[[export]]`
    #[serde(default)]
    pub export: Vec<Export>,
    /// `[log]`
    #[serde(default)]
    pub log: Log,
    /// `[limits]`
    #[serde(default)]
    pub limits: Limits,
    /// `[metrics]`
    #[serde(default)]
    pub metrics: Metrics,
}

/// `[node]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its number in the cluster, as `haven init` or `haven join` wrote it.
    pub id: Option<u64>,
    /// Which of `[[cluster.node]]` this is.
    pub name: Option<String>,
    /// Data directory.
    pub data: PathBuf,
    /// Control socket; default `control.sock` in the data directory.
    pub control: Option<PathBuf>,
    /// Entries applied between two checkpoints.
    pub checkpoint_entries: Option<u64>,
    /// MiB of entries applied between two checkpoints.
    pub checkpoint_mib: Option<u64>,
    /// Entries kept behind a checkpoint for nodes that lag.
    pub keep_entries: Option<u64>,
    /// MiB of log kept for nodes that lag.
    pub keep_mib: Option<u64>,
    /// `"data"` (default) or `"witness"`.
    pub role: Option<String>,
    /// MiB that must stay free where the data are.
    pub reserve_mib: Option<u64>,
    /// Milliseconds that a flush of the log may take.
    pub flush_ms_max: Option<u64>,
    /// Milliseconds that a checkpoint may take.
    pub checkpoint_ms_max: Option<u64>,
    /// A watchdog timer of the machine.
    pub watchdog_device: Option<PathBuf>,
}

/// `[cluster]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Name of the cluster.
    pub name: String,
    /// Where this node listens for its peers, as `address:port`.
    pub address: Option<String>,
    /// `[[cluster.node]]`
    #[serde(default)]
    pub node: Vec<Peer>,
}

/// `[[cluster.node]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Number, from 1, never given to another machine.
    pub id: u64,
    /// Name.
    pub name: String,
    /// `address:port` for the peers.
    pub address: String,
}

/// `[service]`
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Name; default `nfs`.
    pub name: Option<String>,
    /// Floating addresses, as `address/prefix`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Interface of the floating addresses.
    pub interface: Option<String>,
    /// Address to listen on; default `0.0.0.0`.
    pub listen: Option<String>,
    /// NFS port.
    pub nfs_port: Option<u16>,
    /// MOUNT port.
    pub mount_port: Option<u16>,
    /// Portmapper port.
    pub portmap_port: Option<u16>,
    /// `"auto"`, `"register"`, `"builtin"` or `"off"`.
    pub portmapper: Option<String>,
    /// An exports(5) file with more exports.
    pub exports_file: Option<PathBuf>,
    /// Refuse all changes, whatever the exports allow.
    #[serde(default)]
    pub read_only: bool,
    /// For exports without `clients`: `"none"`, `"root"` (default) or `"all"`.
    pub squash: Option<String>,
    /// Target user of the mapping; default 65534.
    pub anonuid: Option<u32>,
    /// Target group of the mapping; default 65534.
    pub anongid: Option<u32>,
}

/// `[[export]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Path in the volume.
    pub path: String,
    /// Owner at creation; default 0.
    pub uid: Option<u32>,
    /// Group at creation; default 0.
    pub gid: Option<u32>,
    /// Mode at creation, octal text such as `"0755"` (the default).
    pub mode: Option<String>,
    /// Who may use it, as `client(options)` of exports(5); missing: everybody.
    pub clients: Option<Vec<String>>,
}

/// `[log]`
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `"error"`, `"warn"`, `"info"` (default), `"debug"` or `"trace"`.
    pub level: Option<String>,
    /// `"text"` (default) or `"json"`.
    pub format: Option<String>,
}

/// `[limits]`
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Client connections.
    pub connections: Option<u64>,
    /// Client connections from one address.
    pub connections_per_address: Option<u64>,
    /// Requests of one connection handled at a time.
    pub inflight_per_connection: Option<u64>,
    /// KiB of the largest request.
    pub record_kib: Option<u64>,
    /// MiB of all requests handled at a time that are not small.
    pub inflight_mib: Option<u64>,
    /// MiB of all answers.
    pub answers_mib: Option<u64>,
    /// Seconds that a client may take to send a request or to take an answer.
    pub patience_seconds: Option<u64>,
    /// Seconds that a connection may be without a request; 0: for ever.
    pub idle_seconds: Option<u64>,
}

/// `[metrics]`
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// `address:port` of the listener.
    pub listen: Option<String>,
}
