//! What must be the same on all nodes of a cluster, as text that is equal if and only if it means the same.
//!
//! Invariants
//! - Every field of [`Config`] is named here, with why it counts or not: a new one does not compile before somebody has
//!   decided.
//! - Order, spelling and the place where something is said make no difference where they mean none.
//!
//! It must not know who compares, or how.

use crate::exports::{Client, ClientOptions, Who};
use crate::{Cluster, Config, Export, Limits, MOUNT_PORT_DEFAULT, NFS_PORT_DEFAULT};
use crate::{Node, PORTMAP_PORT, Portmapper, Role, Service, SquashMode};
use std::fmt::Write as _;

/// A key of the configuration and its value in canonical form.
pub type Text = (&'static str, String);

/// What a node must have as all others, but for its exports. Keys that do not concern it are missing.
pub fn texts(config: &Config) -> Vec<Text> {
    let Config {
        node,
        cluster,
        service,
        // Compared by `export`: they change while a process runs.
        exports: _,
        // What is written down, for whom, and what a node watches over itself is its own business.
        log: _,
        limits,
        health: _,
        metrics: _,
        warnings: _,
    } = config;
    // Who a node is, where its data are, and how it keeps them.
    let Node {
        id: _,
        name: _,
        data: _,
        control: _,
        role,
        checkpoints: _,
    } = node;
    let Cluster {
        name,
        shared,
        // Who belongs to the cluster is replicated.
        nodes: _,
    } = cluster;
    if !shared {
        return Vec::new();
    }
    let mut texts = vec![("cluster.name", name.clone())];
    if *role == Role::Data {
        texts.extend(of_service(service));
        texts.push(("limits", of_limits(limits)));
    }
    texts
}

fn of_service(service: &Service) -> Vec<Text> {
    let Service {
        name,
        addresses,
        // What a network card is called differs from machine to machine.
        interface: _,
        listen,
        nfs_port,
        mount_port,
        portmapper,
    } = service;
    let mut floating: Vec<String> = addresses
        .iter()
        .map(|one| format!("{}/{}", one.address, one.prefix))
        .collect();
    floating.sort();
    let mut texts = vec![
        ("service.name", name.clone()),
        ("service.addresses", floating.join(" ")),
    ];
    // Without a floating address clients use the nodes' own, and no two nodes need look alike.
    if !floating.is_empty() {
        let usual = (*nfs_port, *mount_port) == (NFS_PORT_DEFAULT, MOUNT_PORT_DEFAULT);
        texts.extend([
            ("service.listen", listen.to_string()),
            ("service.nfs_port", nfs_port.to_string()),
            ("service.mount_port", mount_port.to_string()),
            ("service.portmapper", mapper(*portmapper, usual)),
        ]);
    }
    texts
}

/// Where clients find the ports: whether rpcbind or this server answers there may differ.
fn mapper(portmapper: Portmapper, usual: bool) -> String {
    match portmapper {
        Portmapper::Off => "nowhere".into(),
        Portmapper::Auto if !usual => "nowhere".into(),
        Portmapper::Auto | Portmapper::Register => PORTMAP_PORT.to_string(),
        Portmapper::Builtin(port) => port.to_string(),
    }
}

fn of_limits(limits: &Limits) -> String {
    format!("{limits:?}")
}

/// An export in canonical form: its path is not part of it.
pub fn export(export: &Export) -> String {
    let Export {
        path: _,
        uid,
        gid,
        mode,
        clients,
    } = export;
    let mut text = format!("{uid} {gid} {mode:o}");
    for client in in_order(clients) {
        let ClientOptions {
            read_only,
            secure,
            squash,
        } = client.options;
        let mode = match squash.mode {
            SquashMode::None => "none",
            SquashMode::Root => "root",
            SquashMode::All => "all",
        };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{} {read_only} {secure} {mode} {} {}",
            client.who, squash.anonuid, squash.anongid
        );
    }
    text
}

/// Clients in an order that does not depend on that of the file where that means nothing. Of hosts and addresses the first
/// that fits counts, and a host may have any of the addresses; then come networks, the smallest first; then wildcards, the
/// first that fits; then everybody.
fn in_order(clients: &[Client]) -> Vec<&Client> {
    let hosts = clients.iter().any(|c| matches!(c.who, Who::Host(_)));
    let mut all: Vec<&Client> = clients.iter().collect();
    all.sort_by(|a, b| match (&a.who, &b.who) {
        (Who::Address(a), Who::Address(b)) if !hosts => a.cmp(b),
        (a @ Who::Network { .. }, b @ Who::Network { .. }) => a.cmp(b),
        (a, b) => kind(a).cmp(&kind(b)),
    });
    all
}

fn kind(who: &Who) -> u8 {
    match who {
        Who::Address(_) | Who::Host(_) => 0,
        Who::Network { .. } => 1,
        Who::Wildcard(_) => 2,
        Who::Everybody => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[node]\nid = 1\nname = \"a\"\ndata = \"/d\"\n[cluster]\nname = \"c\"\naddress = \"192.0.2.1:7400\"\n\
                        [service]\naddresses = [\"192.0.2.9/24\", \"192.0.2.8/24\"]\n[[export]]\npath = \"/x\"\n";

    fn parse(changes: &[(&str, &str)]) -> Config {
        let mut text = FILE.to_owned();
        for (old, new) in changes {
            assert!(text.contains(old), "{old}");
            text = text.replace(old, new);
        }
        Config::parse(&text).unwrap()
    }

    fn differing(changes: &[(&str, &str)]) -> Vec<&'static str> {
        let (one, other) = (texts(&parse(&[])), texts(&parse(changes)));
        let keys = one.iter().zip(&other);
        keys.filter(|(a, b)| a != b).map(|(a, _)| a.0).collect()
    }

    #[test]
    fn what_may_differ_does_and_what_must_not_is_named() {
        let other = (
            "id = 1\nname = \"a\"\ndata = \"/d\"",
            "id = 2\nname = \"b\"\ndata = \"/e\"",
        );
        let own = [other, ("192.0.2.1:7400", "192.0.2.2:7400")];
        assert_eq!(differing(&own), [""; 0]);
        let swapped = [(
            "\"192.0.2.9/24\", \"192.0.2.8/24\"",
            "\"192.0.2.8/24\", \"192.0.2.9/24\"",
        )];
        assert_eq!(differing(&swapped), [""; 0]);
        let service = "[service]\n";
        for (line, key) in [
            ("name = \"other\"\n", "service.name"),
            (
                "nfs_port = 2050\nportmapper = \"register\"\n",
                "service.nfs_port",
            ),
            (
                "mount_port = 5000\nportmapper = \"register\"\n",
                "service.mount_port",
            ),
            ("portmapper = \"off\"\n", "service.portmapper"),
            ("listen = \"::\"\n", "service.listen"),
        ] {
            assert_eq!(differing(&[(service, &format!("{service}{line}"))]), [key]);
        }
        for line in [
            "portmapper = \"register\"\n",
            "portmapper = \"builtin\"\n",
            "interface = \"eth7\"\n",
        ] {
            let alike = differing(&[(service, &format!("{service}{line}"))]);
            assert_eq!(alike, [""; 0], "{line}");
        }
        assert_eq!(
            differing(&[("192.0.2.9/24", "192.0.2.7/24")]),
            ["service.addresses"]
        );
        assert_eq!(
            differing(&[("name = \"c\"", "name = \"d\"")]),
            ["cluster.name"]
        );
        let limits = (
            "[[export]]",
            "[limits]\nconnections = 9\nconnections_per_address = 9\n[[export]]",
        );
        assert_eq!(differing(&[limits]), ["limits"]);
    }

    #[test]
    fn without_a_floating_address_ports_may_differ() {
        let none = ("addresses = [\"192.0.2.9/24\", \"192.0.2.8/24\"]\n", "");
        let keys: Vec<_> = texts(&parse(&[none]))
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        let want = [
            "cluster.name",
            "service.name",
            "service.addresses",
            "limits",
        ];
        assert_eq!(keys, want);
    }

    #[test]
    fn a_witness_and_a_node_alone_have_next_to_nothing_in_common_with_others() {
        let witness = parse(&[("data = \"/d\"", "data = \"/d\"\nrole = \"witness\"")]);
        assert_eq!(texts(&witness), [("cluster.name", "c".to_owned())]);
        let alone = "[node]\ndata = \"/d\"\n[[export]]\npath = \"/x\"\n";
        assert_eq!(texts(&Config::parse(alone).unwrap()), []);
    }

    fn exported(clients: &str) -> String {
        let line = format!("path = \"/x\"\nclients = [{clients}]\n");
        export(&parse(&[("path = \"/x\"\n", &line)]).exports[0])
    }

    #[test]
    fn exports_are_equal_when_they_mean_the_same() {
        let one = exported("\"10.0.0.0/8(rw)\", \"h.example(ro)\"");
        assert_eq!(
            one,
            exported("\"H.example.(ro)\", \"10.0.0.0/255.0.0.0(rw)\"")
        );
        assert_eq!(
            exported("\"10.0.0.1(rw)\", \"*\", \"10.0.0.2(rw)\""),
            exported("\"10.0.0.2(rw)\", \"10.0.0.1(rw)\", \"*\"")
        );
        // A host may have one of the addresses, then the first counts.
        assert_ne!(
            exported("\"10.0.0.1(rw)\", \"h.example\""),
            exported("\"h.example\", \"10.0.0.1(rw)\"")
        );
        // Whoever calls without ids is anonymous in any case.
        let mapped = exported("\"*(rw,no_root_squash,anonuid=7)\"");
        assert_ne!(mapped, exported("\"*(rw,no_root_squash)\""));
        for other in [
            "\"10.0.0.0/8(rw)\"",
            "\"10.0.0.0/8(ro)\", \"h.example(ro)\"",
            "\"10.0.0.0/8(rw,insecure)\", \"h.example(ro)\"",
            "\"10.0.0.0/8(rw,no_root_squash)\", \"h.example(ro)\"",
            "\"10.0.0.0/8(rw,anonuid=9)\", \"h.example(ro)\"",
        ] {
            assert_ne!(one, exported(other), "{other}");
        }
        // Of wildcards that fit the first counts.
        let wild = exported("\"*.a(ro)\", \"b.*(rw)\"");
        assert_ne!(wild, exported("\"b.*(rw)\", \"*.a(ro)\""));
        let made = |with| export(&parse(&[("path = \"/x\"\n", with)]).exports[0]);
        assert_ne!(
            made("path = \"/x\"\n"),
            made("path = \"/x\"\nmode = \"1777\"\n")
        );
        assert_eq!(
            made("path = \"/x\"\n"),
            made("path = \"/x\"\nmode = \"0755\"\n")
        );
    }
}
