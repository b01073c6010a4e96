//! What a client is told of space (df) and what a write gets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use haven_client::{Client, ClientError};
use haven_proto::nfs3::{Createhow3, Nfsstat3, Sattr3};
use std::process::Command;
use support::{Logged, free_port};

/// A node with this reserve, and a client of it.
async fn serve(dir: &std::path::Path, reserve: &str) -> (Logged, Client) {
    let (nfs, mount) = (free_port(), free_port());
    let config = dir.join("haven.toml");
    let data = dir.join("data");
    let text = format!(
        "[node]\ndata = {data:?}\n{reserve}[service]\nlisten = \"127.0.0.1\"\nnfs_port = {nfs}\n\
         mount_port = {mount}\nsquash = \"none\"\n[[export]]\npath = \"/data\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_haven"));
    command
        .env_remove("RUST_LOG")
        .args(["serve", "--config"])
        .arg(&config);
    let node = Logged::start(&mut command);
    let options = haven_client::Options {
        mount_port: mount,
        ..haven_client::Options::default()
    };
    (node, Client::new(([127, 0, 0, 1], nfs).into(), options))
}

#[tokio::test]
async fn what_is_kept_in_reserve_is_free_but_not_available() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, client) = serve(dir.path(), "reserve_mib = 128\n").await;
    let root = client.mount("/data").await.unwrap();
    let before = client.fsstat(&root).await.unwrap();
    assert!(before.abytes > 0 && before.abytes + (128 << 20) <= before.fbytes);
    assert!(before.fbytes < before.tbytes);
    // The root, and the export's directory.
    assert_eq!(before.tfiles - before.ffiles, 2);
    assert!(before.afiles > 0 && before.afiles == before.ffiles);
    assert!(
        before.afiles <= before.abytes / 4096,
        "there is space for them"
    );
    let how = Createhow3::Guarded(Sattr3::default());
    client.create(&root, "file", how).await.unwrap();
    let after = client.fsstat(&root).await.unwrap();
    assert_eq!(after.tfiles - after.ffiles, 3);
}

#[tokio::test]
async fn with_less_free_than_is_kept_nothing_is_available_and_nothing_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, client) = serve(dir.path(), "reserve_mib = 1048576\n").await;
    let root = client.mount("/data").await.unwrap();
    let told = client.fsstat(&root).await.unwrap();
    assert_eq!((told.abytes, told.afiles, told.ffiles), (0, 0, 0));
    assert!(told.fbytes > 0, "it is free");
    let how = Createhow3::Guarded(Sattr3::default());
    let refused = client.create(&root, "file", how).await;
    assert!(matches!(refused, Err(ClientError::Nfs(Nfsstat3::NoSpc))));
}
