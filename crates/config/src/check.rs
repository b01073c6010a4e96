//! From the file's values to values that make sense together. One function per section.

use crate::{
    Checkpoints, Cluster, Config, ConfigError, Export, FloatingAddress, MOUNT_PORT_DEFAULT,
    NFS_PORT_DEFAULT, Node, Peer, Service, Squash, SquashMode, operate, raw,
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
/// Most bytes in an export's path (MNTPATHLEN of RFC 1813 appendix I).
const EXPORT_PATH_BYTES_MAX: usize = 1024;
/// uid and gid of "nobody", as exports(5) has it.
const NOBODY: u32 = 65534;

fn bad(section: impl Into<String>, why: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        section: section.into(),
        why: why.into(),
    }
}

pub(crate) fn check(raw: raw::File) -> Result<Config, ConfigError> {
    let cluster = cluster(raw.cluster)?;
    let health = operate::health(&raw.node)?;
    let node = node(raw.node, &cluster)?;
    let service = service(raw.service)?;
    if !service.addresses.is_empty() && !service.listen.is_unspecified() {
        return Err(bad(
            "service.listen",
            "a service with floating addresses must listen on the wildcard address; remove the key",
        ));
    }
    Ok(Config {
        node,
        cluster,
        service,
        exports: exports(raw.export)?,
        log: operate::log(&raw.log)?,
        limits: operate::limits(&raw.limits)?,
        health,
    })
}

fn cluster(raw: Option<raw::Cluster>) -> Result<Cluster, ConfigError> {
    let Some(raw) = raw else {
        let alone = Peer {
            id: 1,
            name: "single".into(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        return Ok(Cluster {
            name: "single".into(),
            nodes: vec![alone],
        });
    };
    name("cluster.name", &raw.name)?;
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
    if raw.data.as_os_str().is_empty() {
        return Err(bad(
            "node.data",
            "empty: give the directory for the node's data",
        ));
    }
    let control = raw.control.unwrap_or_else(|| raw.data.join("control.sock"));
    let checkpoints = checkpoints(raw.checkpoint_entries, raw.checkpoint_mib, raw.keep_entries)?;
    Ok(Node {
        id: own.id,
        name: own.name.clone(),
        data: raw.data,
        control,
        checkpoints,
    })
}

fn checkpoints(
    entries: Option<u64>,
    mib: Option<u64>,
    keep_entries: Option<u64>,
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
    Ok(Checkpoints {
        entries: within("checkpoint_entries", entries, 100, CHECKPOINT_ENTRIES_MAX)?,
        bytes: within("checkpoint_mib", mib, 1, CHECKPOINT_MIB_MAX)? << 20,
        keep_entries: within("keep_entries", keep, 0, CHECKPOINT_ENTRIES_MAX)?,
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
        read_only: raw.read_only,
        squash: Squash {
            mode: squash_mode(raw.squash.as_deref())?,
            anonuid: raw.anonuid.unwrap_or(NOBODY),
            anongid: raw.anongid.unwrap_or(NOBODY),
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

fn exports(raw: Vec<raw::Export>) -> Result<Vec<Export>, ConfigError> {
    if raw.is_empty() || raw.len() > EXPORTS_MAX {
        return Err(bad(
            "export",
            format!(
                "give 1 to {EXPORTS_MAX} [[export]] sections, here are {}",
                raw.len()
            ),
        ));
    }
    let exports = raw.into_iter().map(export).collect::<Result<Vec<_>, _>>()?;
    if exports
        .iter()
        .map(|e| &e.path)
        .collect::<BTreeSet<_>>()
        .len()
        != exports.len()
    {
        return Err(bad("export.path", "a path is exported twice"));
    }
    Ok(exports)
}

fn export(raw: raw::Export) -> Result<Export, ConfigError> {
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
    Ok(Export {
        path: raw.path,
        uid: raw.uid.unwrap_or(0),
        gid: raw.gid.unwrap_or(0),
        mode,
    })
}

/// Whether a path can be exported: absolute, below the root, without empty, `.` or `..` components.
///
/// # Errors
/// [`ConfigError::Value`] with what is wrong.
pub fn check_export_path(path: &str) -> Result<(), ConfigError> {
    let wrong = |why: &str| Err(bad("export.path", format!("\"{path}\" {why}")));
    let Some(rest) = path.strip_prefix('/') else {
        return wrong("is not absolute");
    };
    if rest.is_empty() {
        return wrong("is the volume's root; export a directory below it, such as \"/data\"");
    }
    if path.len() > EXPORT_PATH_BYTES_MAX {
        return wrong("is too long");
    }
    for part in rest.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return wrong("has an empty, \".\" or \"..\" component");
        }
        if part.len() > 255 || part.contains('\0') {
            return wrong("has a component that is no file name");
        }
    }
    Ok(())
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
mod tests {
    use super::*;

    const FULL: &str = r#"
        [node]
        name = "b"
        data = "/var/lib/haven"
        [cluster]
        name = "files"
        [[cluster.node]]
        id = 2
        name = "b"
        address = "192.0.2.2:7400"
        [[cluster.node]]
        id = 1
        name = "a"
        address = "192.0.2.1:7400"
        [service]
        addresses = ["192.0.2.100/24", "2001:db8::1/64"]
        squash = "none"
        [[export]]
        path = "/data"
        mode = "1777"
    "#;

    fn error(text: &str) -> String {
        Config::parse(text)
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn a_full_file() {
        let config = Config::parse(FULL).unwrap();
        assert_eq!(config.node.id, 2);
        assert_eq!(config.own().name, "b");
        assert_eq!(config.cluster.nodes[0].name, "a", "sorted by id");
        assert_eq!(config.service.addresses.len(), 2);
        assert_eq!(config.service.nfs_port, 2049);
        assert_eq!(config.service.squash.mode, SquashMode::None);
        assert_eq!(config.exports[0].mode, 0o1777);
        assert_eq!(
            config.node.control.to_str(),
            Some("/var/lib/haven/control.sock")
        );
    }

    #[test]
    fn a_single_node_needs_no_cluster() {
        let config =
            Config::parse("[node]\ndata = \"/d\"\n[[export]]\npath = \"/data\"\n").unwrap();
        assert_eq!((config.node.id, config.cluster.nodes.len()), (1, 1));
        assert_eq!(config.service.squash.mode, SquashMode::Root);
    }

    #[test]
    fn unknown_keys_are_refused_with_their_line() {
        let text = FULL.replace("squash = ", "skwash = ");
        let why = error(&text);
        assert!(why.contains("skwash") && why.contains("line 17"), "{why}");
        let why = error(&FULL.replace("[cluster]", "[closter]"));
        assert!(why.contains("closter"), "{why}");
    }

    #[test]
    fn missing_parts_are_named() {
        assert!(error("").contains("node"));
        assert!(error("[node]\ndata = \"/d\"").contains("[[export]]"));
        let why = error(&FULL.replace("name = \"b\"\n        data", "data"));
        assert!(why.contains("node.name"), "{why}");
        let why = error(&FULL.replace("name = \"b\"\n        data", "name = \"x\"\n        data"));
        assert!(why.contains("known: a, b"), "{why}");
    }

    #[test]
    fn senseless_values_are_refused() {
        for (from, to, expect) in [
            ("192.0.2.2:7400", "192.0.2.2", "ADDRESS:PORT"),
            ("192.0.2.2:7400", "0.0.0.0:7400", "real address"),
            ("192.0.2.2:7400", "192.0.2.1:7400", "same address"),
            ("id = 2", "id = 1", "same id"),
            ("id = 2", "id = 0", "start at 1"),
            ("[cluster]", "checkpoint_mib = 0\n[cluster]", "not within 1"),
            (
                "[cluster]",
                "checkpoint_entries = 7\n[cluster]",
                "not within 100",
            ),
            ("id = 2", "id = -2", "line 8"),
            ("192.0.2.100/24", "192.0.2.100", "ADDRESS/PREFIX"),
            ("192.0.2.100/24", "192.0.2.100/33", "ADDRESS/PREFIX"),
            ("192.0.2.100/24", "2001:db8::1/64", "listed twice"),
            ("squash = \"none\"", "squash = \"some\"", "\"all\""),
            ("squash = \"none\"", "listen = \"10.0.0.1\"", "wildcard"),
            ("path = \"/data\"", "path = \"data\"", "absolute"),
            ("path = \"/data\"", "path = \"/\"", "root"),
            ("path = \"/data\"", "path = \"/a/../b\"", "component"),
            ("mode = \"1777\"", "mode = \"999\"", "octal"),
            ("name = \"files\"", "name = \"a b\"", "letters"),
        ] {
            assert!(FULL.contains(from), "{from}");
            let why = error(&FULL.replacen(from, to, 1));
            assert!(why.contains(expect), "{to}: {why}");
        }
    }

    #[test]
    fn no_input_panics() {
        for end in 0..FULL.len() {
            if FULL.is_char_boundary(end) {
                let _ = Config::parse(&FULL[..end]);
            }
        }
    }
}
