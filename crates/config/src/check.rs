//! From the file's values to values that make sense together. One function per section.

use crate::exports::{self, Client, ClientOptions, Exports, Who};
use crate::{
    Checkpoints, Cluster, Config, ConfigError, Export, FloatingAddress, MOUNT_PORT_DEFAULT,
    NFS_PORT_DEFAULT, NOBODY, Node, Peer, Role, Service, Squash, SquashMode, operate, raw,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Most nodes in a cluster.
pub const NODES_MAX: usize = 7;
/// Most floating addresses of a service.
pub const ADDRESSES_MAX: usize = 64;
/// Most exports of a service.
pub const EXPORTS_MAX: usize = 1024;
/// Most entries between checkpoints: they are held in memory until then.
const CHECKPOINT_ENTRIES_MAX: u64 = 1_000_000;
/// Most MiB of entries between checkpoints.
const CHECKPOINT_MIB_MAX: u64 = 4096;
/// Least MiB of log kept: less than a file of the log is not possible.
const KEEP_MIB_MIN: u64 = 64;
/// Most MiB of log kept.
const KEEP_MIB_MAX: u64 = 1 << 20;
/// MiB of log that a witness keeps unless told otherwise.
const KEEP_MIB_OF_WITNESS: u64 = 8192;
/// With fewer nodes a witness is no gain: the loss of either node ends the service.
const NODES_WITH_WITNESS_MIN: usize = 3;
/// Most bytes in the path of the control socket (sun_path of unix(7), with its NUL).
pub const CONTROL_PATH_BYTES_MAX: usize = 107;
/// Most bytes in an export's path (MNTPATHLEN of RFC 1813 appendix I).
const EXPORT_PATH_BYTES_MAX: usize = 1024;

fn bad(section: impl Into<String>, why: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        section: section.into(),
        why: why.into(),
    }
}

/// Checks a file; `listed` is what the exports(5) file says, if the file names one.
pub(crate) fn check(raw: raw::File, listed: Option<Exports>) -> Result<Config, ConfigError> {
    let cluster = cluster(raw.cluster, &raw.node)?;
    let health = operate::health(&raw.node)?;
    let node = node(raw.node, &cluster)?;
    let mut warnings = Vec::new();
    let everybody = everybody(&raw.service)?;
    let keys = &raw.service;
    let mapped = keys.squash.is_some() || keys.anonuid.is_some() || keys.anongid.is_some();
    let read_only = raw.service.read_only;
    if raw.service.exports_file.is_some() && listed.is_none() {
        return Err(bad("service.exports_file", "the file was not read"));
    }
    let service = service(raw.service)?;
    if !service.addresses.is_empty() && !service.listen.is_unspecified() {
        return Err(bad(
            "service.listen",
            "a service with floating addresses must listen on the wildcard address; remove the key",
        ));
    }
    let mut exports = exports(raw.export, listed, &mut warnings)?;
    let silent = exports.iter_mut().filter(|e| e.clients.is_empty());
    let given = silent.map(|export| export.clients.push(everybody.clone()));
    if given.count() == 0 && mapped {
        warnings.push(
            "service.squash, anonuid and anongid have no effect: every export names its clients, with their options"
                .into(),
        );
    }
    if read_only {
        let all = exports.iter_mut().flat_map(|export| &mut export.clients);
        all.for_each(|client| client.options.read_only = true);
    }
    Ok(Config {
        node,
        cluster,
        service,
        exports,
        warnings,
        log: operate::log(&raw.log)?,
        limits: operate::limits(&raw.limits)?,
        health,
        metrics: operate::metrics(&raw.metrics)?,
    })
}

fn cluster(raw: Option<raw::Cluster>, own: &raw::Node) -> Result<Cluster, ConfigError> {
    let Some(mut raw) = raw else {
        let alone = Peer {
            id: 1,
            name: "single".into(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        return Ok(Cluster {
            name: "single".into(),
            shared: false,
            nodes: vec![alone],
        });
    };
    name("cluster.name", &raw.name)?;
    if let Some(address) = raw.address.take() {
        if !raw.node.is_empty() {
            return Err(bad(
                "cluster.address",
                "the nodes are listed in [[cluster.node]]: remove one of the two",
            ));
        }
        raw.node.push(raw::Peer {
            id: own.id.unwrap_or(1),
            name: own
                .name
                .clone()
                .ok_or_else(|| bad("node.name", "missing: a node of a cluster needs a name"))?,
            address,
        });
    }
    if raw.node.is_empty() || raw.node.len() > NODES_MAX {
        return Err(bad(
            "cluster.node",
            format!(
                "a cluster has 1 to {NODES_MAX} nodes, here are {}",
                raw.node.len()
            ),
        ));
    }
    let mut nodes = raw
        .node
        .into_iter()
        .map(peer)
        .collect::<Result<Vec<_>, _>>()?;
    nodes.sort_by_key(|n| n.id);
    let distinct = |what: &str, count: usize| match count == nodes.len() {
        true => Ok(()),
        false => Err(bad(
            "cluster.node",
            format!("two nodes have the same {what}"),
        )),
    };
    distinct(
        "id",
        nodes.iter().map(|n| n.id).collect::<BTreeSet<_>>().len(),
    )?;
    distinct(
        "name",
        nodes.iter().map(|n| &n.name).collect::<BTreeSet<_>>().len(),
    )?;
    distinct(
        "address",
        nodes
            .iter()
            .map(|n| n.address)
            .collect::<BTreeSet<_>>()
            .len(),
    )?;
    Ok(Cluster {
        name: raw.name,
        shared: true,
        nodes,
    })
}

fn peer(raw: raw::Peer) -> Result<Peer, ConfigError> {
    name("cluster.node.name", &raw.name)?;
    if raw.id == 0 {
        return Err(bad("cluster.node.id", "node ids start at 1"));
    }
    let address: SocketAddr = raw.address.parse().map_err(|_| {
        bad(
            "cluster.node.address",
            format!("\"{}\" is not of the form ADDRESS:PORT", raw.address),
        )
    })?;
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(bad(
            "cluster.node.address",
            format!("peers cannot connect to {address}: give a real address and port"),
        ));
    }
    Ok(Peer {
        id: raw.id,
        name: raw.name,
        address,
    })
}

fn node(raw: raw::Node, cluster: &Cluster) -> Result<Node, ConfigError> {
    let own = match (&raw.name, cluster.nodes.as_slice()) {
        (None, [only]) => only,
        (None, _) => {
            return Err(bad(
                "node.name",
                "missing: say which of [[cluster.node]] this node is",
            ));
        }
        (Some(name), nodes) => nodes.iter().find(|n| n.name == *name).ok_or_else(|| {
            let names: Vec<_> = nodes.iter().map(|n| n.name.as_str()).collect();
            bad(
                "node.name",
                format!(
                    "\"{name}\" is not in [[cluster.node]]; known: {}",
                    names.join(", ")
                ),
            )
        })?,
    };
    if raw.id.is_some_and(|id| id != own.id) {
        return Err(bad(
            "node.id",
            format!("node \"{}\" has the number {}", own.name, own.id),
        ));
    }
    if raw.data.as_os_str().is_empty() {
        return Err(bad(
            "node.data",
            "empty: give the directory for the node's data",
        ));
    }
    let control = raw.control.unwrap_or_else(|| raw.data.join("control.sock"));
    if control.as_os_str().len() > CONTROL_PATH_BYTES_MAX {
        return Err(bad(
            "node.control",
            format!(
                "{} has more than {CONTROL_PATH_BYTES_MAX} bytes, which no socket's path may have: set a shorter one",
                control.display()
            ),
        ));
    }
    let role = role(raw.role.as_deref(), cluster)?;
    let checkpoints = checkpoints(
        (raw.checkpoint_entries, raw.checkpoint_mib),
        (raw.keep_entries, raw.keep_mib),
        role,
    )?;
    Ok(Node {
        role,
        id: own.id,
        name: own.name.clone(),
        data: raw.data,
        control,
        checkpoints,
    })
}

fn role(raw: Option<&str>, cluster: &Cluster) -> Result<Role, ConfigError> {
    match raw {
        None | Some("data") => Ok(Role::Data),
        Some("witness") if cluster.size().is_some_and(|n| n < NODES_WITH_WITNESS_MIN) => Err(bad(
            "node.role",
            "a witness helps a cluster of at least two other nodes",
        )),
        Some("witness") => Ok(Role::Witness),
        Some(other) => Err(bad(
            "node.role",
            format!("\"{other}\" is not one of \"data\", \"witness\""),
        )),
    }
}

fn checkpoints(
    (entries, mib): (Option<u64>, Option<u64>),
    (keep_entries, keep_mib): (Option<u64>, Option<u64>),
    role: Role,
) -> Result<Checkpoints, ConfigError> {
    let usual = Checkpoints::default();
    let within = |key: &str, value: u64, least: u64, most: u64| match value {
        v if v < least || v > most => Err(bad(
            format!("node.{key}"),
            format!("{v} is not within {least} and {most}"),
        )),
        v => Ok(v),
    };
    let entries = entries.unwrap_or(usual.entries);
    let mib = mib.unwrap_or(usual.bytes >> 20);
    let keep = keep_entries.unwrap_or(usual.keep_entries);
    let keep_mib = keep_mib.unwrap_or(match role {
        Role::Data => usual.keep_bytes >> 20,
        Role::Witness => KEEP_MIB_OF_WITNESS,
    });
    Ok(Checkpoints {
        entries: within("checkpoint_entries", entries, 100, CHECKPOINT_ENTRIES_MAX)?,
        bytes: within("checkpoint_mib", mib, 1, CHECKPOINT_MIB_MAX)? << 20,
        keep_entries: within("keep_entries", keep, 0, CHECKPOINT_ENTRIES_MAX)?,
        keep_bytes: within("keep_mib", keep_mib, KEEP_MIB_MIN, KEEP_MIB_MAX)? << 20,
    })
}

fn service(raw: raw::Service) -> Result<Service, ConfigError> {
    let portmapper = operate::portmapper(&raw)?;
    let service_name = raw.name.unwrap_or_else(|| "nfs".into());
    name("service.name", &service_name)?;
    if raw.addresses.len() > ADDRESSES_MAX {
        return Err(bad(
            "service.addresses",
            format!("at most {ADDRESSES_MAX} addresses"),
        ));
    }
    let addresses = raw
        .addresses
        .iter()
        .map(|a| floating(a))
        .collect::<Result<Vec<_>, _>>()?;
    if addresses
        .iter()
        .map(|a| a.address)
        .collect::<BTreeSet<_>>()
        .len()
        != addresses.len()
    {
        return Err(bad("service.addresses", "an address is listed twice"));
    }
    let listen = match &raw.listen {
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(text) => text
            .parse()
            .map_err(|_| bad("service.listen", format!("\"{text}\" is not an IP address")))?,
    };
    Ok(Service {
        name: service_name,
        addresses,
        interface: raw.interface,
        listen,
        nfs_port: raw.nfs_port.unwrap_or(NFS_PORT_DEFAULT),
        mount_port: raw.mount_port.unwrap_or(MOUNT_PORT_DEFAULT),
        portmapper,
    })
}

/// What everybody may do with exports that name no clients: unlike in exports(5) that is to change
/// things, and from any port, so that a first test needs neither options nor privileges.
fn everybody(raw: &raw::Service) -> Result<Client, ConfigError> {
    let squash = Squash {
        mode: squash_mode(raw.squash.as_deref())?,
        anonuid: id("service.anonuid", raw.anonuid, NOBODY)?,
        anongid: id("service.anongid", raw.anongid, NOBODY)?,
    };
    Ok(Client {
        who: Who::Everybody,
        options: ClientOptions {
            read_only: false,
            secure: false,
            squash,
        },
    })
}

fn squash_mode(raw: Option<&str>) -> Result<SquashMode, ConfigError> {
    match raw {
        None | Some("root") => Ok(SquashMode::Root),
        Some("none") => Ok(SquashMode::None),
        Some("all") => Ok(SquashMode::All),
        Some(other) => Err(bad(
            "service.squash",
            format!("\"{other}\" is not one of \"none\", \"root\", \"all\""),
        )),
    }
}

/// `ADDRESS/PREFIX`.
pub(crate) fn floating(text: &str) -> Result<FloatingAddress, ConfigError> {
    let wrong = || {
        bad(
            "service.addresses",
            format!("\"{text}\" is not of the form ADDRESS/PREFIX, such as 192.0.2.10/24"),
        )
    };
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    if prefix == 0 || prefix > bits_max || address.is_unspecified() || address.is_multicast() {
        return Err(wrong());
    }
    Ok(FloatingAddress { address, prefix })
}

/// All exports, as far as they name clients.
fn exports(
    raw: Vec<raw::Export>,
    listed: Option<Exports>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Export>, ConfigError> {
    let mut exports = raw
        .into_iter()
        .map(|raw| export(raw, warnings))
        .collect::<Result<Vec<_>, _>>()?;
    let paths: BTreeSet<_> = exports.iter().map(|e| &e.path).collect();
    if paths.len() != exports.len() {
        return Err(bad("export.path", "a path is exported twice"));
    }
    for listed in listed.into_iter().flat_map(|listed| listed.exports) {
        match exports.iter_mut().find(|e| e.path == listed.path) {
            None => exports.push(listed),
            // One place says how the directory is made, the other who may use it.
            Some(own) if own.clients.is_empty() => own.clients = listed.clients,
            Some(own) => {
                let why = format!(
                    "{} has clients here and in service.exports_file: name them in one of both",
                    own.path
                );
                return Err(bad("export.clients", why));
            }
        }
    }
    if exports.is_empty() || exports.len() > EXPORTS_MAX {
        return Err(bad(
            "export",
            format!(
                "give 1 to {EXPORTS_MAX} [[export]] sections or lines of an exports_file, here are {}",
                exports.len()
            ),
        ));
    }
    Ok(exports)
}

fn export(raw: raw::Export, warnings: &mut Vec<String>) -> Result<Export, ConfigError> {
    check_export_path(&raw.path)?;
    let mode = match &raw.mode {
        None => 0o755,
        Some(text) => u32::from_str_radix(text, 8)
            .ok()
            .filter(|m| *m <= 0o7777)
            .ok_or_else(|| {
                bad(
                    "export.mode",
                    format!("\"{text}\" is not an octal mode such as \"0755\""),
                )
            })?,
    };
    let clients = match &raw.clients {
        None => Vec::new(),
        Some(list) => clients(&raw.path, list, warnings)?,
    };
    Ok(Export {
        path: raw.path,
        uid: id("export.uid", raw.uid, 0)?,
        gid: id("export.gid", raw.gid, 0)?,
        mode,
        clients,
    })
}

/// A user's or group's number. The highest one means "none" to chown(2).
fn id(key: &str, raw: Option<u32>, default: u32) -> Result<u32, ConfigError> {
    match raw {
        Some(u32::MAX) => {
            let why = format!("{} is nobody's number: 0 to {}", u32::MAX, u32::MAX - 1);
            Err(bad(key, why))
        }
        given => Ok(given.unwrap_or(default)),
    }
}

fn clients(
    path: &str,
    list: &[String],
    warnings: &mut Vec<String>,
) -> Result<Vec<Client>, ConfigError> {
    let wrong = |why: String| bad("export.clients", format!("{path} {why}"));
    if list.is_empty() {
        return Err(wrong(
            "names no client: leave the key out to let everybody in, or remove the export".into(),
        ));
    }
    let mut clients = Vec::with_capacity(list.len().min(exports::CLIENTS_PER_EXPORT_MAX));
    for text in list.iter().take(exports::CLIENTS_PER_EXPORT_MAX + 1) {
        let (client, notes) = exports::parse_client(text)
            .map_err(|why| bad("export.clients", format!("{path}: {why}")))?;
        clients.push(client);
        let room = exports::NOTES_MAX.saturating_sub(warnings.len());
        let notes = notes.into_iter().map(|note| format!("{path}: {note}"));
        warnings.extend(notes.take(room));
    }
    exports::check_clients(&clients).map_err(wrong)?;
    Ok(clients)
}

/// Whether a path can be exported: absolute, below the root, without empty, `.` or `..` components.
///
/// # Errors
/// [`ConfigError::Value`] with what is wrong.
pub fn check_export_path(path: &str) -> Result<(), ConfigError> {
    match path_problem(path) {
        None => Ok(()),
        Some(why) => Err(bad("export.path", format!("\"{path}\" {why}"))),
    }
}

/// Why a path cannot be exported.
pub(crate) fn path_problem(path: &str) -> Option<&'static str> {
    let Some(rest) = path.strip_prefix('/') else {
        return Some("is not absolute");
    };
    if rest.is_empty() {
        return Some("is the volume's root; export a directory below it, such as \"/data\"");
    }
    if path.len() > EXPORT_PATH_BYTES_MAX {
        return Some("is too long");
    }
    for part in rest.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return Some("has an empty, \".\" or \"..\" component");
        }
        if part.len() > 255 || part.contains('\0') {
            return Some("has a component that is no file name");
        }
    }
    None
}

fn name(section: &str, text: &str) -> Result<(), ConfigError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > 63 || !text.chars().all(legal) {
        return Err(bad(
            section,
            format!("\"{text}\" is not a name: 1 to 63 letters, digits, '-', '_' or '.'"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
