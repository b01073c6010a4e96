//! The configuration file, and that of exports.

use crate::Seed;
use haven_config::{Config, exports as table};

/// What is taken is whole: the own node is among the nodes.
pub(crate) fn config(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(config) = Config::parse(text)
    {
        assert_eq!(config.own().id, config.node.id);
    }
}

const SINGLE: &str = r#"[node]
data = "/var/lib/haven"
"#;

const CLUSTER: &str = r#"[node]
name = "a"
data = "/var/lib/haven"
control = "/run/haven.sock"
checkpoint_entries = 1000
checkpoint_mib = 8
keep_entries = 100

[cluster]
name = "store-a"

[[cluster.node]]
id = 1
name = "a"
address = "192.0.2.1:7000"

[[cluster.node]]
id = 2
name = "b"
address = "[2001:db8::2]:7000"

[service]
name = "files"

[[export]]
path = "/export"
"#;

pub(crate) fn config_seeds() -> Vec<Seed> {
    vec![Seed::new("single", SINGLE), Seed::new("cluster", CLUSTER)]
}

/// What is taken names each client in words that mean the same, and keeps its bounds.
pub(crate) fn exports(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let _ = table::parse_client(text);
    let Ok(exports) = table::parse(text) else {
        return;
    };
    assert!(exports.notes.len() <= table::NOTES_MAX);
    assert!(exports.exports.len() <= haven_config::EXPORTS_MAX);
    for export in exports.exports {
        assert!(export.path.starts_with('/') && !export.clients.is_empty());
        assert!(export.clients.len() <= table::CLIENTS_PER_EXPORT_MAX);
        for client in export.clients {
            let words = client.who.to_string();
            let again = table::parse_client(&words).map(|(client, _)| client.who);
            assert_eq!(again, Ok(client.who));
        }
    }
}

const EXPORTS: &str = r#"# what we share
/data 10.0.0.0/8(rw,no_root_squash) 192.0.2.7(ro) 2001:db8::/32
/data *.example.com(rw,sync,no_subtree_check) host?.example.com
"/with blanks" -rw,all_squash,anonuid=65,anongid=66 a.example.com \
  10.1.0.0/255.255.0.0(insecure)
/old\040style *(ro,fsid=0)
/everybody
"#;

pub(crate) fn exports_seeds() -> Vec<Seed> {
    vec![
        Seed::new("table", EXPORTS),
        Seed::new("client", "10.0.0.0/8(rw,anonuid=7)"),
    ]
}
