//! The control API of a running node: who may ask, what is told, what a single node refuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::{Logged, command, free_port, refusal};

/// A node on loopback with a listener for metrics.
struct Case {
    dir: tempfile::TempDir,
    file: PathBuf,
    nfs: SocketAddr,
    mount: u16,
    metrics: SocketAddr,
    _node: Logged,
}

fn start() -> Case {
    let dir = tempfile::tempdir().unwrap();
    let (nfs, mount, metrics) = (free_port(), free_port(), free_port());
    let file = dir.path().join("haven.toml");
    let data = dir.path().join("data");
    let text = format!(
        "[node]\ndata = {data:?}\n[service]\nlisten = \"127.0.0.1\"\nnfs_port = {nfs}\nmount_port = {mount}\n\
         [metrics]\nlisten = \"127.0.0.1:{metrics}\"\n[[export]]\npath = \"/data\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut command = command();
    let node = Logged::start(command.args(["serve", "--config"]).arg(&file));
    node.until("serving");
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    Case {
        dir,
        file,
        nfs: at(nfs),
        mount,
        metrics: at(metrics),
        _node: node,
    }
}

/// Exit status and standard output.
fn told(file: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command: Command = command();
    let output = command.args(arguments).arg("--config").arg(file).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text)
}

fn exchange(mut io: impl Read + Write, request: &str) -> String {
    io.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).unwrap();
    answer
}

fn ask(to: SocketAddr, line: &str) -> String {
    let io = TcpStream::connect(to).unwrap();
    io.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = format!("{line} HTTP/1.1\r\nHost: haven\r\nConnection: close\r\n\r\n");
    exchange(io, &request)
}

#[tokio::test]
async fn requests_are_counted_and_prometheus_is_told() {
    let case = start();
    let client = haven_client::Client::new(
        case.nfs,
        haven_client::Options {
            mount_port: case.mount,
            request_timeout: Some(Duration::from_secs(30)),
            ..haven_client::Options::default()
        },
    );
    let root = client.mount("/data").await.unwrap();
    for _ in 0..3 {
        client.lookup(&root, "nothing").await.unwrap_err();
    }
    let metrics = tokio::task::spawn_blocking(move || ask(case.metrics, "GET /metrics"));
    let metrics = metrics.await.unwrap();
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    for expect in [
        "content-type: application/openmetrics-text",
        "haven_requests_total{program=\"nfs3\",procedure=\"lookup\"} 3",
        "haven_request_errors_total{program=\"nfs3\",procedure=\"lookup\",status=\"noent\"} 3",
        "haven_requests_total{program=\"mount\",procedure=\"mnt\"} 1",
        "haven_serving 1",
        "haven_role{role=\"leader\"} 1",
        "# EOF",
    ] {
        assert!(metrics.contains(expect), "{expect}\n{metrics}");
    }
    // Nobody is told more there, and nobody can do anything.
    for line in ["GET /v1/status", "POST /v1/move", "GET /"] {
        let answer = ask(case.metrics, line);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{line}: {answer}");
    }
}

#[test]
fn the_control_socket_is_its_owners_and_speaks_http() {
    let case = start();
    let socket = case.dir.path().join("data/control.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let connect = || {
        let io = UnixStream::connect(&socket).unwrap();
        io.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        io
    };
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        exchange(connect(), &request)
    };
    assert!(get("/metrics").contains("# TYPE haven_requests counter"));
    assert!(get("/v1/node").contains("\"serving\":true"));
    assert!(get("/v1/nothing").starts_with("HTTP/1.1 404 "));
    // Many that say nothing take no place for ever, and the node lives on.
    let silent: Vec<UnixStream> = (0..8).map(|_| connect()).collect();
    assert!(get("/v1/status").contains("\"verdict\":\"healthy\""));
    silent[0].shutdown(Shutdown::Both).unwrap();
}

#[test]
fn a_single_node_tells_how_it_is_and_refuses_what_makes_no_sense() {
    let case = start();
    let (code, text) = told(&case.file, &["status"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("service nfs: HEALTHY") && text.contains("serving"),
        "{text}"
    );
    let (code, text) = told(&case.file, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["verdict"]), (Some(0), &"healthy".into()));
    assert_eq!(json["nodes"][0]["report"]["node"], "single");
    let file = case.file.to_str().unwrap();
    for (arguments, expect) in [
        (&["migrate"][..], "nowhere to move to"),
        (&["migrate", "other"], "there is no node other"),
        (&["migrate", "smb", "single"], "there is no service smb"),
        (&["standby"], "this node is alone"),
        (&["standby", "other"], "there is no node other"),
    ] {
        let why = refusal(&[arguments, &["--config", file]].concat());
        assert!(why.contains(expect), "{arguments:?}: {why}");
    }
}

#[test]
fn a_node_that_does_not_run_is_told_from_outside() {
    let case = start();
    let file = case.file.clone();
    let Case { dir, _node, .. } = case;
    _node.kill();
    let (code, text) = told(&file, &["status"]);
    assert_eq!(code, Some(2), "{text}");
    for expect in [
        "does not answer: DOWN",
        "does not answer at 127.0.0.1:",
        "systemctl start",
    ] {
        assert!(text.contains(expect), "{expect}: {text}");
    }
    let (code, text) = told(&file, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["verdict"]), (Some(2), &"down".into()));
    drop(dir);
}
