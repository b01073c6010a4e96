//! The configuration file.

use crate::Seed;
use haven_config::Config;

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
