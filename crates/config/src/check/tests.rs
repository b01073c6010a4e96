//! The configuration file: what is taken, and what is said about each kind of mistake.

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
fn what_no_system_takes_is_refused_before_a_node_starts() {
    let long = format!("control = \"/{}\"\n[cluster]", "c".repeat(107));
    let why = error(&FULL.replacen("[cluster]", &long, 1));
    assert!(why.contains("node.control") && why.contains("107"), "{why}");
    for key in ["anonuid", "anongid"] {
        let text = format!(
            "[node]\ndata = \"/d\"\n[service]\n{key} = 4294967295\n[[export]]\npath = \"/a\"\n"
        );
        let why = error(&text);
        assert!(why.contains(key) && why.contains("4294967294"), "{why}");
    }
    for key in ["uid", "gid"] {
        let text =
            format!("[node]\ndata = \"/d\"\n[[export]]\npath = \"/a\"\n{key} = 4294967295\n");
        let why = error(&text);
        assert!(why.contains(key) && why.contains("4294967294"), "{why}");
    }
}

#[test]
fn a_full_file() {
    let config = Config::parse(FULL).unwrap();
    assert_eq!(config.node.id, 2);
    assert_eq!(config.own().name, "b");
    assert_eq!(config.cluster.nodes[0].name, "a", "sorted by id");
    assert_eq!(config.service.addresses.len(), 2);
    assert_eq!(config.service.nfs_port, 2049);
    assert_eq!(
        config.exports[0].clients[0].options.squash.mode,
        SquashMode::None
    );
    assert_eq!(config.exports[0].mode, 0o1777);
    assert_eq!(
        config.node.control.to_str(),
        Some("/var/lib/haven/control.sock")
    );
}

#[test]
fn a_member_knows_itself_only() {
    let text = "[node]\nid = 3\nname = \"c\"\ndata = \"/d\"\n[cluster]\nname = \"files\"\naddress = \"192.0.2.3:7400\"\n\
        [[export]]\npath = \"/data\"\n";
    let config = Config::parse(text).unwrap();
    assert!(config.cluster.shared && config.cluster.nodes.len() == 1);
    assert_eq!((config.node.id, config.own().name.as_str()), (3, "c"));
    let both =
        format!("{text}[[cluster.node]]\nid = 3\nname = \"c\"\naddress = \"192.0.2.3:7400\"\n");
    assert!(error(&both).contains("remove one of the two"));
    assert!(error(&text.replace("name = \"c\"\n", "")).contains("needs a name"));
    let other = FULL.replace(
        "name = \"b\"\n    data",
        "id = 1\n    name = \"b\"\n    data",
    );
    assert!(error(&other).contains("has the number 2"));
}

#[test]
fn a_single_node_needs_no_cluster() {
    let config = Config::parse("[node]\ndata = \"/d\"\n[[export]]\npath = \"/data\"\n").unwrap();
    assert_eq!((config.node.id, config.cluster.nodes.len()), (1, 1));
    assert!(!config.cluster.shared);
    let client = &config.exports[0].clients[0];
    assert_eq!(client.who, Who::Everybody);
    assert_eq!(client.options.squash.mode, SquashMode::Root);
    assert!(!client.options.read_only && !client.options.secure);
    assert!(config.warnings.is_empty());
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    let text = FULL.replace("squash = ", "skwash = ");
    let why = error(&text);
    assert!(why.contains("skwash") && why.contains("line 17"), "{why}");
    assert!(why.contains("did you mean `squash`?"), "{why}");
    let why = error(&FULL.replace("[cluster]", "[closter]"));
    assert!(
        why.contains("closter") && why.contains("did you mean `cluster`?"),
        "{why}"
    );
    let why = error(&FULL.replace("mode = ", "zzz = "));
    assert!(
        why.contains("zzz") && !why.contains("did you mean"),
        "{why}"
    );
}

#[test]
fn missing_parts_are_named() {
    assert!(error("").contains("node"));
    assert!(error("[node]\ndata = \"/d\"").contains("[[export]]"));
    let why = error(&FULL.replace("name = \"b\"\n    data", "data"));
    assert!(why.contains("node.name"), "{why}");
    let why = error(&FULL.replace("name = \"b\"\n    data", "name = \"x\"\n    data"));
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

/// A configuration with these exports, in `[[export]]` sections.
fn exporting(sections: &str) -> String {
    format!("[node]\ndata = \"/d\"\n{sections}")
}

#[test]
fn clients_of_an_export() {
    let text = exporting(
        r#"
        [[export]]
        path = "/a"
        clients = ["10.0.0.0/24(rw,no_root_squash)", "*(ro,sync)"]
        [[export]]
        path = "/b"
    "#,
    );
    let config = Config::parse(&text).unwrap();
    let [a, b] = &config.exports[..] else {
        panic!("two exports")
    };
    assert_eq!(a.clients[0].who.to_string(), "10.0.0.0/24");
    assert!(!a.clients[0].options.read_only && a.clients[0].options.secure);
    assert_eq!(a.clients[0].options.squash.mode, SquashMode::None);
    assert_eq!(a.clients[1].who, Who::Everybody);
    assert!(a.clients[1].options.read_only);
    assert_eq!(b.clients.len(), 1);
    assert_eq!(config.warnings.len(), 1);
    assert!(
        config.warnings[0].contains("/a: \"sync\""),
        "{:?}",
        config.warnings
    );
}

#[test]
fn a_read_only_service_has_no_writers() {
    let text = exporting(
        "[service]\nread_only = true\n[[export]]\npath = \"/a\"\nclients = [\"*(rw)\"]\n[[export]]\npath = \"/b\"",
    );
    let config = Config::parse(&text).unwrap();
    let mut all = config.exports.iter().flat_map(|e| &e.clients);
    assert!(all.all(|client| client.options.read_only));
}

#[test]
fn mistakes_in_clients_are_named() {
    for (clients, expect) in [
        ("[]", "/a names no client"),
        ("[\"*(rw)\", \"*(ro)\"]", "the client * twice"),
        ("[\"*(rwx)\"]", "did you mean \"rw\"?"),
        ("[\"@group(rw)\"]", "netgroups"),
        ("[\"10.0.0.0/40\"]", "is no network"),
        ("\"*\"", "line 5"),
        ("[1]", "line 5"),
    ] {
        let section = format!("[[export]]\npath = \"/a\"\nclients = {clients}");
        let why = error(&exporting(&section));
        assert!(why.contains(expect), "{clients}: {why}");
    }
    let path = "[[export]]\npath = \"/a\"\n";
    assert!(error(&exporting(&path.repeat(2))).contains("exported twice"));
}

/// Loads a configuration beside an exports(5) file.
fn loaded(sections: &str, listed: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let text = exporting(&format!(
        "[service]\nexports_file = \"exports\"\n{sections}"
    ));
    let file = dir.path().join("haven.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::write(dir.path().join("exports"), listed).unwrap();
    Config::load(&file).map_err(|e| e.to_string())
}

#[test]
fn an_exports_file_adds_exports_and_clients() {
    let sections = "[[export]]\npath = \"/a\"\nmode = \"1777\"\n[[export]]\npath = \"/c\"";
    let config = loaded(sections, "/a 10.0.0.0/8(rw)\n/b *(ro,sync)\n").unwrap();
    let told = |e: &Export| format!("{} {:o} {}", e.path, e.mode, e.clients[0].who);
    let told: Vec<_> = config.exports.iter().map(told).collect();
    assert_eq!(told, ["/a 1777 10.0.0.0/8", "/c 755 *", "/b 755 *"]);
    assert!(!config.exports[1].clients[0].options.secure);
    assert!(config.exports[2].clients[0].options.secure);
    let [warning] = &config.warnings[..] else {
        panic!("one warning: {:?}", config.warnings)
    };
    assert!(warning.contains("exports: line 2: \"sync\""), "{warning}");
    assert_eq!(loaded("", "/b *").unwrap().exports.len(), 1);
}

#[test]
fn mistakes_with_an_exports_file_are_named() {
    let both = "[[export]]\npath = \"/a\"\nclients = [\"*\"]";
    for (sections, listed, expect) in [
        ("", "# nothing\n", "give 1 to"),
        ("", "\n/a *(rw\n", "exports: line 2: "),
        (both, "/a *(ro)", "in one of both"),
    ] {
        let why = loaded(sections, listed).unwrap_err();
        assert!(why.contains(expect), "{listed}: {why}");
    }
    let file = "[service]\nexports_file = \"x\"";
    assert!(error(&exporting(file)).contains("was not read"));
    let why = Config::load(std::path::Path::new("/nonexistent/haven.toml")).unwrap_err();
    assert!(why.to_string().contains("/nonexistent/haven.toml"));
}

#[test]
fn files_without_end_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("haven.toml");
    let text = exporting("[service]\nexports_file = \"/dev/zero\"");
    std::fs::write(&file, text).unwrap();
    let why = Config::load(&file).unwrap_err().to_string();
    assert!(why.contains("/dev/zero has more than"), "{why}");
}

#[test]
fn defaults_that_nobody_uses_are_noted() {
    let with = |clients: &str| {
        let text = format!("[service]\nsquash = \"none\"\n[[export]]\npath = \"/a\"\n{clients}");
        Config::parse(&exporting(&text)).unwrap().warnings
    };
    assert!(with("").is_empty());
    let [warning] = &with("clients = [\"*\"]")[..] else {
        panic!("one warning")
    };
    assert!(warning.contains("service.squash"), "{warning}");
}

#[test]
fn a_witness_belongs_to_at_least_two_other_nodes() {
    let witness = FULL.replace("[cluster]", "role = \"witness\"\n[cluster]");
    let why = error(&witness);
    assert!(why.contains("at least two other nodes"), "{why}");
    let three = witness.replacen(
        "[[cluster.node]]",
        "[[cluster.node]]\nid = 3\nname = \"c\"\naddress = \"192.0.2.3:7400\"\n[[cluster.node]]",
        1,
    );
    let config = Config::parse(&three).unwrap();
    assert_eq!(config.node.role, Role::Witness);
    assert_eq!(config.node.checkpoints.keep_bytes, 8 << 30);
    // How many nodes there are is not in the configuration of one that joined.
    let joined = "[node]\nid = 3\nname = \"c\"\ndata = \"/c\"\nrole = \"witness\"\n\
                  [cluster]\nname = \"k\"\naddress = \"192.0.2.3:7400\"\n[[export]]\npath = \"/data\"\n";
    assert_eq!(Config::parse(joined).unwrap().node.role, Role::Witness);
    let alone = error("[node]\ndata = \"/c\"\nrole = \"witness\"\n[[export]]\npath = \"/data\"\n");
    assert!(alone.contains("at least two other nodes"), "{alone}");
    let data = three.replace("\"witness\"", "\"data\"\nkeep_mib = 100");
    let config = Config::parse(&data).unwrap();
    assert_eq!(config.node.role, Role::Data);
    assert_eq!(config.node.checkpoints.keep_bytes, 100 << 20);
    let why = error(&three.replace("\"witness\"", "\"judge\""));
    assert!(why.contains("\"data\", \"witness\""), "{why}");
    let why = error(&data.replace("keep_mib = 100", "keep_mib = 1"));
    assert!(
        why.contains("node.keep_mib") && why.contains("not within 64"),
        "{why}"
    );
}
