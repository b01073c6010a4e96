//! Configurations as text: the one that `haven init` writes, and what of it the other nodes get.
//!
//! It must not know files.

use haven_pki::Shared;
use std::net::SocketAddr;
use std::path::Path;
use toml::{Table, Value};

/// Tables that every node has alike.
const SHARED: [&str; 4] = ["service", "export", "log", "limits"];

/// How the exports(5) file is called beside the configuration of a node that joined.
pub const EXPORTS_FILE: &str = "haven.exports";

/// A node's own part of its configuration.
pub struct Own<'a> {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: &'a str,
    /// Its data directory.
    pub data: &'a Path,
    /// Where it listens for its peers.
    pub address: SocketAddr,
    /// Whether it is a witness.
    pub witness: bool,
}

fn string(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn head(own: &Own<'_>, cluster: &str) -> String {
    let role = match own.witness {
        true => "role = \"witness\"\n",
        false => "",
    };
    format!(
        "# Haven. What each key means: docs/operate/config.md; who belongs to the cluster: `haven node list`.\n\
         [node]\nid = {}\nname = {}\ndata = {}\n{role}\n\
         [cluster]\nname = {}\n# Where this node listens for the others.\naddress = {}\n",
        own.id,
        string(own.name),
        string(&own.data.to_string_lossy()),
        string(cluster),
        string(&own.address.to_string())
    )
}

/// The configuration of a cluster's first node.
pub fn first(own: &Own<'_>, cluster: &str, floating: &[String], exports: &[String]) -> String {
    let mut text = head(own, cluster);
    text += "\n# From here on every node has the same.\n[service]\n";
    match floating {
        [] => {
            text += "# The address that clients mount, which follows the service from node to node.\n\
                     # addresses = [\"192.0.2.100/24\"]\n";
        }
        some => {
            let all: Vec<String> = some.iter().map(|address| string(address)).collect();
            text += &format!("addresses = [{}]\n", all.join(", "));
        }
    }
    for path in exports {
        text += &format!("\n[[export]]\npath = {}\n", string(path));
    }
    text
}

/// The configuration of a node that joined.
///
/// # Errors
/// When what came is no TOML, in words.
pub fn joined(own: &Own<'_>, shared: &Shared) -> Result<String, String> {
    let mut tables: Table = shared
        .tables
        .parse()
        .map_err(|e| format!("the cluster's configuration is none: {e}"))?;
    tables.retain(|name, _| SHARED.contains(&name));
    if let (Some(_), Some(Value::Table(service))) = (&shared.exports, tables.get_mut("service")) {
        service.insert("exports_file".into(), Value::String(EXPORTS_FILE.into()));
    }
    let text = toml::to_string_pretty(&tables).map_err(|e| e.to_string())?;
    Ok(format!(
        "{}\n# From here on every node has the same. As it was on the member that let this node in.\n{text}",
        head(own, &shared.cluster)
    ))
}

/// What others get of a node's configuration.
///
/// # Errors
/// When it is no TOML, in words.
pub fn shared(config: &str, cluster: &str, exports: Option<String>) -> Result<Shared, String> {
    let mut tables: Table = config.parse().map_err(|e| format!("{e}"))?;
    tables.retain(|name, _| SHARED.contains(&name));
    Ok(Shared {
        cluster: cluster.to_owned(),
        tables: toml::to_string_pretty(&tables).map_err(|e| e.to_string())?,
        exports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_config::Config;

    fn own(id: u64, name: &str) -> Own<'_> {
        Own {
            id,
            name,
            data: Path::new("/var/lib/ha \"ven"),
            address: "[2001:db8::7]:7400".parse().unwrap(),
            witness: false,
        }
    }

    #[test]
    fn the_second_node_serves_what_the_first_does() {
        let floating = ["192.0.2.100/24".to_owned()];
        let text = first(&own(1, "a"), "files", &floating, &["/data".into()]);
        let one = Config::parse(&text).unwrap();
        assert_eq!((one.node.id, one.node.name.as_str()), (1, "a"));
        let text = text + "clients = [\"10.0.0.0/8(rw)\"]\n[limits]\nconnections = 77\n";
        let one = Config::parse(&text).unwrap();
        let told = shared(&text, "files", None).unwrap();
        assert!(!told.tables.contains("data = "), "{}", told.tables);
        let two = Config::parse(&joined(&own(2, "b"), &told).unwrap()).unwrap();
        assert_eq!((two.node.id, two.node.name.as_str()), (2, "b"));
        assert_eq!((one.service, one.exports), (two.service, two.exports));
        assert_eq!(two.limits.connections, 77);
        assert!(two.cluster.shared && two.cluster.name == "files");
        // Without a floating address there is a hint how to get one.
        assert!(first(&own(1, "a"), "files", &[], &["/x".into()]).contains("# addresses ="));
    }

    #[test]
    fn an_exports_file_goes_along_under_a_name_of_its_own() {
        let text = "[node]\ndata = \"/d\"\n[service]\nexports_file = \"/etc/exports\"\n";
        let told = shared(text, "files", Some("/data *(rw)\n".into())).unwrap();
        let text = joined(&own(2, "b"), &told).unwrap();
        assert!(text.contains("exports_file = \"haven.exports\""), "{text}");
    }
}
