//! Clients that behave badly beside one that does not, and one port for everything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use bytes::Bytes;
use haven_config::Config;
use haven_proto::nfs3::{
    self, Args3, Createhow3, Fh3, ReadArgs, ReaddirplusArgs, Sattr3, StableHow,
};
use haven_proto::{mount, portmap};
use haven_rpc::record::{FragmentHeader, frame};
use haven_rpc::{Credential, Outcome, decode_reply, encode_call};
use haven_xdr::{Gather, encode_all};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use support::{Node, command, free_port};
use tokio::net::{TcpSocket, TcpStream};

/// As many as one address may have.
const CROWD: usize = 1_000;
/// Requests of each that takes no answers.
const REQUESTS: usize = 64;
/// A megabyte, the most that READ gives.
const MUCH: u32 = 1 << 20;

/// A node that gives clients little.
fn configured(dir: &Path, nfs_port: u16, mount_port: u16, more: &str) -> (Config, Node) {
    let file = dir.join("haven.toml");
    let text = format!(
        "[node]\ndata = {:?}\nreserve_mib = 128\n[service]\nlisten = \"127.0.0.1\"\nnfs_port = {nfs_port}\nmount_port = \
         {mount_port}\n{more}[limits]\nconnections = 1024\ninflight_mib = 16\nanswers_mib = 16\n[[export]]\npath = \"/data\"\nmode = \"0777\"\n",
        dir.join("data"),
    );
    fs::write(&file, text).unwrap();
    let mut serve = command();
    serve
        .args(["serve", "--config"])
        .arg(&file)
        .stderr(Stdio::null());
    let node = Node::configured(serve, nfs_port, mount_port);
    (Config::load(&file).unwrap(), node)
}

fn call(args: &Args3) -> Vec<u8> {
    let message = encode_call(
        7,
        nfs3::PROGRAM,
        nfs3::VERSION,
        args.proc().to_wire(),
        &Credential::None,
        encode_all(args),
    );
    frame(message).into_bytes().to_vec()
}

fn read_all(file: &Fh3) -> Vec<u8> {
    call(&Args3::Read(ReadArgs {
        file: file.clone(),
        offset: 0,
        count: MUCH,
    }))
}

fn list_all(dir: &Fh3) -> Vec<u8> {
    call(&Args3::Readdirplus(ReaddirplusArgs {
        dir: dir.clone(),
        cookie: nfs3::Cookie3(0),
        cookieverf: nfs3::Cookieverf3::default(),
        dircount: MUCH,
        maxcount: MUCH,
    }))
}

/// Connects from an address of its own.
async fn stranger(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 9], 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// The most memory that a process has had.
fn most_resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

/// One that sends what there is room for and takes nothing.
async fn send_what_fits(stream: &TcpStream, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        match stream.try_write(rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(_) => return,
        }
    }
}

#[tokio::test]
async fn clients_that_take_nothing_or_only_announce_hold_up_nobody_and_memory_stays_bounded() {
    let files = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: files.maximum,
        ..files
    };
    setrlimit(Resource::Nofile, wanted).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (config, node) = configured(dir.path(), free_port(), free_port(), "");
    let client = node.client();
    let root = client.mount("/data").await.unwrap();
    let how = Createhow3::Guarded(Sattr3::default());
    let made = client.create(&root, "file", how).await.unwrap();
    let file = made.obj.unwrap();
    let content: Bytes = (0..MUCH).map(|n| (n % 251) as u8).collect();
    let stable = StableHow::FileSync;
    client
        .write(&file, 0, stable, content.clone())
        .await
        .unwrap();
    let announced = FragmentHeader {
        last: true,
        len: MUCH,
    };
    let sends = [
        read_all(&file).repeat(REQUESTS),
        list_all(&root).repeat(REQUESTS),
        announced.encode().to_vec(),
        [&announced.encode()[..], &[0; 100_000]].concat(),
    ];
    let mut crowd = Vec::new();
    for n in 0..CROWD {
        let stream = stranger(node.nfs).await;
        send_what_fits(&stream, &sends[n % sends.len()]).await;
        crowd.push(stream);
        if n % 50 == 0 {
            // The honest one gets what it asks for, and it is right.
            client.getattr(&file).await.unwrap();
            let read = client.read(&file, 0, MUCH).await.unwrap();
            assert!(read.data == content);
            let written = client.write(&file, 0, stable, content.clone()).await;
            assert_eq!(written.unwrap().count, MUCH);
        }
    }
    let bound = haven::bound::resident_bytes_max(&config);
    let most = most_resident_bytes(node.pid());
    assert!(most < bound, "{} of {} MiB", most >> 20, bound >> 20);
    drop(crowd);
}

/// The results of a call over UDP.
fn ask_datagram(to: SocketAddr, prog: u32, vers: u32) -> Outcome {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let null = encode_call(5, prog, vers, 0, &Credential::None, Gather::new());
    socket.send_to(&null.into_bytes(), to).unwrap();
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).unwrap();
    let reply = Bytes::copy_from_slice(&buffer[..length]);
    decode_reply(reply).unwrap().outcome
}

#[tokio::test]
async fn nfs_mount_and_the_port_mapper_may_have_one_port() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let more = format!("portmap_port = {port}\n");
    let (_, node) = configured(dir.path(), port, port, &more);
    let client = node.client();
    let root = client.mount("/data").await.unwrap();
    client.getattr(&root).await.unwrap();
    for (prog, vers) in [
        (mount::PROGRAM, mount::VERSION3),
        (portmap::PROGRAM, portmap::VERSION),
    ] {
        let answer = ask_datagram(node.nfs, prog, vers);
        assert_eq!(answer, Outcome::Success(Bytes::new()));
    }
    let nfs = ask_datagram(node.nfs, nfs3::PROGRAM, nfs3::VERSION);
    assert!(matches!(nfs, Outcome::Error(_)), "not over UDP");
}
