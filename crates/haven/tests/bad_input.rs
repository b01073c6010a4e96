//! Bad input from the wire, the command line and the disk: a defined answer each, and service goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use bytes::Bytes;
use haven_client::ClientError;
use haven_proto::nfs3::{Createhow3, Fh3, Nfsstat3, Sattr3};
use haven_rpc::record::FragmentHeader;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use support::{Node, free_port, refusal};

const NFS: u32 = 100_003;
const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_be_bytes()).collect()
}

/// A call with AUTH_NONE.
fn call(rpc_version: u32, prog: u32, vers: u32, proc: u32) -> Vec<u8> {
    words(&[1, 0, rpc_version, prog, vers, proc, 0, 0, 0, 0])
}

/// The reply's words after xid and message type; `None` if the connection is ended instead.
fn answer(server: SocketAddr, record: &[u8]) -> Option<Vec<u32>> {
    let mut stream = TcpStream::connect(server).unwrap();
    let header = FragmentHeader {
        last: true,
        len: record.len() as u32,
    };
    stream.write_all(&header.encode()).unwrap();
    stream.write_all(record).unwrap();
    let mut mark = [0; 4];
    stream.read_exact(&mut mark).ok()?;
    let mut reply = vec![0; FragmentHeader::parse(mark).len as usize];
    stream.read_exact(&mut reply).unwrap();
    let all: Vec<u32> = reply
        .chunks_exact(4)
        .map(|w| u32::from_be_bytes(w.try_into().unwrap()))
        .collect();
    assert_eq!(all[..2], [1, 1], "xid, REPLY");
    Some(all[2..].to_vec())
}

#[tokio::test]
async fn malformed_rpc_gets_a_defined_answer_and_service_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), free_port(), free_port());
    // Wait until it serves.
    let root = node.client().mount("/data").await.unwrap();
    let accepted = |stat: &[u32]| Some([&[MSG_ACCEPTED, 0, 0], stat].concat());
    assert_eq!(
        answer(node.nfs, &call(2, NFS, 3, 0)),
        accepted(&[0]),
        "NULL"
    );
    assert_eq!(
        answer(node.nfs, &call(2, 99, 3, 0)),
        accepted(&[1]),
        "PROG_UNAVAIL"
    );
    assert_eq!(
        answer(node.nfs, &call(2, NFS, 2, 0)),
        accepted(&[2, 3, 3]),
        "PROG_MISMATCH"
    );
    assert_eq!(
        answer(node.nfs, &call(2, NFS, 3, 99)),
        accepted(&[3]),
        "PROC_UNAVAIL"
    );
    assert_eq!(
        answer(node.nfs, &call(2, NFS, 3, 1)),
        accepted(&[4]),
        "GARBAGE_ARGS"
    );
    let mismatch = Some(vec![MSG_DENIED, 0, 2, 2]);
    assert_eq!(
        answer(node.nfs, &call(3, NFS, 3, 0)),
        mismatch,
        "RPC_MISMATCH"
    );
    let mut long_handle = call(2, NFS, 3, 1);
    long_handle.extend(words(&[65]));
    long_handle.extend([7; 68]);
    assert_eq!(
        answer(node.nfs, &long_handle),
        accepted(&[4]),
        "a handle of 65 bytes"
    );
    let mut huge_length = call(2, NFS, 3, 1);
    huge_length.extend(words(&[u32::MAX]));
    assert_eq!(
        answer(node.nfs, &huge_length),
        accepted(&[4]),
        "a length beyond the record"
    );
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 40],
        &[],
        &words(&[1, 1, 0, 0]),
    ] {
        assert_eq!(
            answer(node.nfs, garbage),
            None,
            "no call: the connection ends"
        );
    }
    node.client().getattr(&root).await.unwrap();
}

#[tokio::test]
async fn forged_and_stale_handles_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), free_port(), free_port());
    let client = node.client();
    let root = client.mount("/data").await.unwrap();
    let how = Createhow3::Guarded(Sattr3::default());
    let file = client
        .create(&root, "gone", how)
        .await
        .unwrap()
        .obj
        .unwrap();
    client.remove(&root, "gone").await.unwrap();
    assert_eq!(
        client.getattr(&file).await,
        Err(ClientError::Nfs(Nfsstat3::Stale))
    );
    for byte in 0..file.0.len() {
        let mut forged = file.0.to_vec();
        forged[byte] ^= 1;
        // A handle of another volume is not a forgery, only useless here; nor is one of an export that is not there.
        let status = match byte {
            2..4 | 16..24 => Nfsstat3::Stale,
            _ => Nfsstat3::BadHandle,
        };
        let result = client.getattr(&Fh3(Bytes::from(forged))).await;
        assert_eq!(result, Err(ClientError::Nfs(status)), "byte {byte}");
    }
    for length in [0, 1, 31, 33, 64] {
        let result = client.getattr(&Fh3(Bytes::from(vec![1; length]))).await;
        assert_eq!(
            result,
            Err(ClientError::Nfs(Nfsstat3::BadHandle)),
            "{length} bytes"
        );
    }
    let refused = client.mount("/elsewhere").await;
    assert!(matches!(refused, Err(ClientError::Mount(_))), "{refused:?}");
}

#[test]
fn a_configuration_with_a_mistake_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("haven.toml");
    let path = file.to_str().unwrap();
    let refuse = |text: &str| {
        fs::write(&file, text).unwrap();
        refusal(&["serve", "--config", path])
    };
    let data = dir.path().join("data");
    let good = format!("[node]\ndata = {data:?}\n[[export]]\npath = \"/data\"\n");
    let why = refuse(&good.replace("data =", "dta ="));
    assert!(
        why.contains("unknown field `dta`") && why.contains("line 2"),
        "{why}"
    );
    let why = refuse("[node]\ndata = \"/nowhere\"\n");
    assert!(why.contains("[[export]]"), "{why}");
    let why = refuse(&good.replace("/data\"\n", "data\"\n"));
    assert!(why.contains("absolute"), "{why}");
    let why = refusal(&["serve", "--config", "/does/not/exist.toml"]);
    assert!(why.contains("/does/not/exist.toml"), "{why}");
}

#[tokio::test]
async fn a_data_directory_in_use_or_of_another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let (nfs, mount) = (free_port(), free_port());
    let serve = |nfs: u16| {
        let (nfs, mount) = (nfs.to_string(), free_port().to_string());
        refusal(&[
            "serve",
            "--data",
            data,
            "--nfs-port",
            &nfs,
            "--mount-port",
            &mount,
        ])
    };
    let node = Node::start(dir.path(), nfs, mount);
    node.client().mount("/data").await.unwrap();
    let why = serve(free_port());
    assert!(why.contains("in use") && why.contains(data), "{why}");
    let other = tempfile::tempdir().unwrap();
    let (taken, free) = (nfs.to_string(), free_port().to_string());
    let other = other.path().to_str().unwrap();
    let arguments = [
        "serve",
        "--data",
        other,
        "--nfs-port",
        &taken,
        "--mount-port",
        &free,
    ];
    let why = refusal(&arguments);
    assert!(
        why.contains("cannot listen") && why.contains(&taken),
        "{why}"
    );
    node.kill();
    let current = dir.path().join("store/CURRENT");
    let known = fs::read_to_string(&current).unwrap();
    let (first, rest) = known.split_once('\n').unwrap();
    let newer: String = first
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    assert_ne!(first, newer, "the format version is in the first line");
    fs::write(&current, format!("{newer}\n{rest}")).unwrap();
    let why = serve(free_port());
    assert!(why.contains("format"), "{why}");
}
