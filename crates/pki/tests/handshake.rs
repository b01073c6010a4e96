//! Certificates and TLS, end to end in memory.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use haven_pki::rustls::pki_types::pem::PemObject;
use haven_pki::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use haven_pki::rustls::{self, ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use haven_pki::{Authority, Identity, NodeKey, PkiError, explain, join_config, member_name};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

fn two() -> Vec<Identity> {
    Identity::found(2, |_| Ok(Vec::new())).unwrap()
}

/// Both ends after a handshake in memory, or why one of them refused.
fn shake(
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
    server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets()?;
    }
    Ok((client, server))
}

#[test]
fn members_know_each_other_by_node_and_key() {
    let both = two();
    let (one, two) = (both[0].tls().unwrap(), both[1].tls().unwrap());
    let (client, server) = shake(one.client(), one.name_of(2).unwrap(), two.server()).unwrap();
    let shown = client.peer_certificates().unwrap();
    assert_eq!(one.key_of(shown, 2), Some(two.key()));
    assert_eq!(one.key_of(shown, 1), None);
    let shown = server.peer_certificates().unwrap();
    assert_eq!(two.key_of(shown, 1), Some(one.key()));
    assert_eq!(two.key_of(shown, 2), None);
    let founders: Vec<_> = both[0].founders().iter().map(|f| (f.id, f.key)).collect();
    assert_eq!(founders, [(1, one.key()), (2, two.key())]);
}

#[test]
fn another_node_than_the_wanted_one_and_another_cluster_are_refused() {
    let (ours, theirs) = (two(), two());
    let (one, two) = (ours[0].tls().unwrap(), ours[1].tls().unwrap());
    let wrong = shake(one.client(), one.name_of(7).unwrap(), two.server());
    let why = explain(&wrong.map(drop).unwrap_err());
    assert!(why.contains("another node of this cluster"), "{why}");
    let other = theirs[1].tls().unwrap();
    for server in [other.server(), two.server()] {
        // First ours meets their node, then theirs meets our node, under a name that fits.
        let (client, name) = match Arc::ptr_eq(&server, &two.server()) {
            false => (one.client(), other.name_of(2).unwrap()),
            true => (other.client(), two.name_of(2).unwrap()),
        };
        let why = explain(&shake(client, name, server).map(drop).unwrap_err());
        assert!(why.contains("another cluster"), "{why}");
    }
}

#[test]
fn a_member_refuses_a_certificate_of_another_cluster() {
    let (ours, theirs) = (two(), two());
    let dir = tempfile::tempdir().unwrap();
    theirs[0].save(dir.path()).unwrap();
    let own = dir.path().join(haven_pki::DIR);
    // It trusts our node, but shows what its own authority certified.
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(ours[0].authority().certificate().clone())
        .unwrap();
    let foreign = CertificateDer::from_pem_file(own.join("node.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(own.join("node.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![foreign], key)
        .unwrap();
    let member = ours[1].tls().unwrap();
    let shaken = shake(
        Arc::new(client),
        member.name_of(2).unwrap(),
        member.server(),
    );
    let why = explain(&shaken.map(drop).unwrap_err());
    assert!(why.contains("another cluster"), "{why}");
}

#[test]
fn a_machine_that_joins_trusts_the_fingerprint_and_shows_nothing() {
    let both = two();
    let server = both[1].tls().unwrap();
    let print = both[0].authority().fingerprint();
    let (_, seen) = shake(
        join_config(print).unwrap(),
        member_name().unwrap(),
        server.server(),
    )
    .unwrap();
    assert!(seen.peer_certificates().is_none());
    let other = Authority::create().unwrap().fingerprint();
    let refused = shake(
        join_config(other).unwrap(),
        member_name().unwrap(),
        server.server(),
    );
    let why = explain(&refused.map(drop).unwrap_err());
    assert!(why.contains("another cluster"), "{why}");
}

#[test]
fn an_identity_comes_back_from_its_files_and_keys_are_the_owners() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Identity::load(dir.path()),
        Err(PkiError::NoIdentity { .. })
    ));
    let both = two();
    both[1].save(dir.path()).unwrap();
    let back = Identity::load(dir.path()).unwrap();
    assert_eq!(back.node(), 2);
    assert_eq!(back.founders(), both[1].founders());
    assert_eq!(back.tls().unwrap().key(), both[1].tls().unwrap().key());
    let own = dir.path().join(haven_pki::DIR);
    for secret in ["ca.key", "node.key", "member.json"] {
        let mode = own.join(secret).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    // The authority still certifies, and what it certifies counts.
    let key = NodeKey::create().unwrap();
    let certificate = back.authority().issue(3, &key.public().unwrap()).unwrap();
    let authority = Authority::of(
        back.authority().cluster().to_owned(),
        NodeKey::from_pem(&back.authority().key().to_pem()).unwrap(),
        back.authority().certificate().clone(),
    );
    let third = Identity::joined(authority, 3, key, certificate).unwrap();
    let (tls, one) = (third.tls().unwrap(), both[0].tls().unwrap());
    shake(tls.client(), tls.name_of(1).unwrap(), one.server()).unwrap();

    std::fs::remove_file(own.join("node.key")).unwrap();
    let why = Identity::load(dir.path()).unwrap_err().to_string();
    assert!(why.contains("node.key") && why.contains("missing"), "{why}");
}

#[test]
fn a_key_prepared_before_a_crash_is_the_key_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let first = Identity::prepare(dir.path()).unwrap().public().unwrap();
    let again = Identity::prepare(dir.path()).unwrap().public().unwrap();
    assert_eq!(first.id(), again.id());
}
