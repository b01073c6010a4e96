//! One node as a process: what clients have must be there after a crash, once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use bytes::Bytes;
use haven_proto::nfs3;
use haven_proto::nfs3::{CreateArgs, Createhow3, Diropargs3, Proc3, Sattr3, StableHow};
use haven_rpc::{AuthSys, Credential, encode_call, record};
use haven_xdr::encode_all;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use support::{Node, free_port};

/// Runs one of libnfs's tools.
fn libnfs(tool: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(tool)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{tool}: {e}; ./setup installs libnfs-utils"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {words}");
    output.stdout
}

#[test]
fn files_copied_by_libnfs_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (nfs, mount) = (free_port(), free_port());
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 + n / 251) as u8).collect();
    let source = dir.path().join("source");
    std::fs::write(&source, &content).unwrap();
    let data = dir.path().join("data");
    let node = Node::start(&data, nfs, mount);
    for name in ["/one", "/two"] {
        libnfs("nfs-cp", &[source.to_str().unwrap(), &node.url(name)]);
    }
    node.kill();
    let node = Node::start(&data, nfs, mount);
    let listing = String::from_utf8(libnfs("nfs-ls", &[&node.url("")])).unwrap();
    assert!(
        listing.contains("3000000 one") && listing.contains("3000000 two"),
        "{listing}"
    );
    for name in ["/one", "/two"] {
        assert!(
            libnfs("nfs-cat", &[&node.url(name)]) == content,
            "{name} differs"
        );
    }
}

#[tokio::test]
async fn handles_verifiers_and_data_are_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (nfs, mount) = (free_port(), free_port());
    let node = Node::start(dir.path(), nfs, mount);
    let client = node.client();
    let root = client.mount("/data").await.unwrap();
    let how = Createhow3::Guarded(Sattr3::default());
    let file = client
        .create(&root, "file", how)
        .await
        .unwrap()
        .obj
        .unwrap();
    let text = Bytes::from_static(b"written before");
    let wrote = client
        .write(&file, 0, StableHow::Unstable, text.clone())
        .await
        .unwrap();
    let before = client.getattr(&file).await.unwrap();
    assert!(node.terminate().success(), "SIGTERM is an orderly end");
    let node = Node::start(dir.path(), nfs, mount);
    assert_eq!(client.mount("/data").await.unwrap(), root);
    assert_eq!(client.getattr(&file).await.unwrap(), before);
    assert_eq!(client.read(&file, 0, 100).await.unwrap().data, text);
    assert_eq!(client.commit(&file, 0, 0).await.unwrap().verf, wrote.verf);
    drop(node);
}

/// Sends a ready-made call on a connection of its own and gives the reply's bytes.
fn exchange(node: &Node, call: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(node.nfs).unwrap();
    stream.write_all(call).unwrap();
    let mut mark = [0; 4];
    stream.read_exact(&mut mark).unwrap();
    let mut reply = vec![0; record::FragmentHeader::parse(mark).len as usize];
    stream.read_exact(&mut reply).unwrap();
    reply
}

#[tokio::test]
async fn a_create_sent_again_after_a_kill_is_answered_not_executed() {
    let dir = tempfile::tempdir().unwrap();
    let (nfs, mount) = (free_port(), free_port());
    let node = Node::start(dir.path(), nfs, mount);
    let root = node.client().mount("/data").await.unwrap();
    let call = |xid| {
        let args = CreateArgs {
            place: Diropargs3 {
                dir: root.clone(),
                name: "once".into(),
            },
            how: Createhow3::Guarded(Sattr3::default()),
        };
        let cred = Credential::Sys(AuthSys {
            stamp: 0,
            machine_name: Bytes::from_static(b"test"),
            uid: 0,
            gid: 0,
            gids: Vec::new(),
        });
        let proc = Proc3::Create.to_wire();
        let call = encode_call(
            xid,
            nfs3::PROGRAM,
            nfs3::VERSION,
            proc,
            &cred,
            encode_all(&args),
        );
        record::frame(call).into_bytes()
    };
    let first = exchange(&node, &call(7));
    node.kill();
    let node = Node::start(dir.path(), nfs, mount);
    assert_eq!(
        exchange(&node, &call(7)),
        first,
        "the reply from before the kill"
    );
    let other = exchange(&node, &call(8));
    assert_eq!(
        other[24..28],
        17u32.to_be_bytes(),
        "another request finds the name taken"
    );
}
