//! What an operator relies on: flags, signals, notification, log lines, datagrams, the manual's promises.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use rustix::process::Signal;
use std::io::BufRead;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Logged, Node, command, free_port, refusal, refused_by};

/// How long something may take that must happen.
const SOON: Duration = Duration::from_secs(30);

fn config(dir: &Path, more: &str) -> PathBuf {
    let file = dir.join("haven.toml");
    let data = dir.join("data");
    let text = format!("[node]\ndata = {data:?}\n{more}\n[[export]]\npath = \"/data\"\n");
    std::fs::write(&file, text).unwrap();
    file
}

fn output(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text)
}

#[test]
fn a_configuration_can_be_checked_without_starting() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(
        dir.path(),
        "[service]\nnfs_port = 3049\n[limits]\nconnections = 7",
    );
    let path = file.to_str().unwrap();
    let told = output(command().args(["config", "check", path]));
    assert!(told.0, "{}", told.1);
    for expect in [
        "port 3049",
        "/data",
        "7 connections",
        "serves alone",
        "port mapper: none",
    ] {
        assert!(told.1.contains(expect), "{expect}: {}", told.1);
    }
    assert_eq!(
        output(command().args(["serve", "--check-config", "--config", path])),
        told
    );
    assert!(!dir.path().join("data").exists(), "nothing is opened");
    config(dir.path(), "[limits]\nconnections = 0");
    let why = refusal(&["config", "check", path]);
    assert!(why.contains("limits.connections"), "{why}");
}

#[test]
fn contradicting_and_unknown_flags_are_refused_in_words() {
    for (arguments, expect) in [
        (
            &["serve", "--config", "x", "--data", "y"][..],
            "cannot be used with",
        ),
        (&["serve", "--check-config"], "--config"),
        (&["serve", "--log-level", "loud"], "\"debug\""),
        (&["serve", "--prot", "1"], "unexpected argument"),
        (&["serve", "--nfs-port", "70000"], "65535"),
    ] {
        let output = command().args(arguments).output().unwrap();
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{why}");
        assert!(why.contains(expect), "{arguments:?}: {why}");
    }
}

/// Starts a node from a configuration file and waits until it serves.
fn start(file: &Path, prepare: impl FnOnce(&mut Command)) -> Logged {
    let mut command = command();
    command.args(["serve", "--config"]).arg(file);
    prepare(&mut command);
    let node = Logged::start(&mut command);
    node.until("serving");
    node
}

fn ports(nfs: u16, mount: u16) -> String {
    format!("[service]\nlisten = \"127.0.0.1\"\nnfs_port = {nfs}\nmount_port = {mount}\n")
}

#[test]
fn the_service_manager_hears_and_log_lines_are_json_with_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let (nfs, mount) = (free_port(), free_port());
    let file = config(
        dir.path(),
        &format!("{}[log]\nformat = \"json\"", ports(nfs, mount)),
    );
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let mut heard = [0; 256];
    let mut hear = || {
        let length = manager.recv(&mut heard).unwrap();
        String::from_utf8_lossy(&heard[..length]).into_owned()
    };
    let node = start(&file, |command| {
        command.env("NOTIFY_SOCKET", dir.path().join("notify"));
    });
    assert!(hear().starts_with("READY=1\n"));
    node.signal(Signal::TERM);
    assert!(hear().starts_with("STOPPING=1\n"));
    for line in node.until("stopped") {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["node"], "single", "{line}");
        for field in ["time", "level", "target", "message"] {
            assert!(line[field].is_string(), "{field}: {line}");
        }
    }
    assert!(node.wait().success());
}

#[test]
fn a_watchdog_timer_is_fed_and_only_a_clean_end_switches_it_off() {
    let dir = tempfile::tempdir().unwrap();
    let timer = dir.path().join("watchdog");
    let (nfs, mount) = (free_port(), free_port());
    let more = format!("watchdog_device = {timer:?}\n{}", ports(nfs, mount));
    let file = config(dir.path(), &more);
    for (signal, last) in [(Signal::KILL, b'\0'), (Signal::TERM, b'V')] {
        std::fs::write(&timer, "").unwrap();
        let node = start(&file, |_| {});
        node.signal(signal);
        assert_eq!(node.wait().success(), last == b'V');
        let told = std::fs::read(&timer).unwrap();
        assert_eq!((told.first(), told.last()), (Some(&0), Some(&last)));
    }
}

#[test]
fn the_first_line_says_what_was_started_and_hangup_reads_the_configuration_again() {
    let dir = tempfile::tempdir().unwrap();
    let (nfs, mount) = (free_port(), free_port());
    let file = config(dir.path(), &ports(nfs, mount));
    let node = start(&file, |_| {});
    let again = |more: &str| {
        config(dir.path(), &format!("{}{more}", ports(nfs, mount)));
        node.signal(Signal::HUP);
    };
    again("name = \"other\"\n");
    let line = node.until("needs a restart").pop().unwrap();
    assert!(
        line.contains("what=\"service\"") && line.contains("WARN single"),
        "{line}"
    );
    again("squash = \"all\"\n");
    let line = node.until("what=\"export\"").pop().unwrap();
    assert!(
        line.contains("/data") && line.contains("everybody becomes 65534:65534"),
        "{line}"
    );
    again("squash = \"some\"\n");
    let line = node.until("everything stays as it is").pop().unwrap();
    assert!(line.contains("service.squash"), "{line}");
    again("[log]\nlevel = \"error\"\n");
    node.until("log.level");
    drop(node);
    // The level that was asked for on the command line holds from the start.
    config(dir.path(), &ports(nfs, mount));
    let node = start(&file, |command| {
        command.args(["--log-level", "debug"]);
    });
    node.signal(Signal::INT);
    node.until("stopped");
}

#[test]
fn without_a_directory_files_are_kept_in_one_that_goes_with_the_server() {
    let mut command = command();
    let (nfs, mount) = (free_port(), free_port());
    command
        .args([
            "serve",
            "--nfs-port",
            &nfs.to_string(),
            "--mount-port",
            &mount.to_string(),
        ])
        .stderr(Stdio::piped());
    let mut node = Node::spawn(command, nfs, mount);
    let mut said = String::new();
    let mut stderr = node.stderr();
    stderr.read_line(&mut said).unwrap();
    let path = said
        .split("kept in ")
        .nth(1)
        .and_then(|rest| rest.split(" until").next());
    let path = PathBuf::from(path.unwrap_or_else(|| panic!("{said}")));
    assert!(path.join("log").is_dir());
    assert!(node.terminate().success());
    assert!(!path.exists());
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_be_bytes()).collect()
}

/// The words of the answer to a datagram.
fn ask(socket: &UdpSocket, to: SocketAddr, request: &[u8]) -> Vec<u32> {
    socket.send_to(request, to).unwrap();
    let mut buffer = [0; 65536];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from, to);
    let words = buffer[..length].chunks_exact(4);
    words
        .map(|w| u32::from_be_bytes(w.try_into().unwrap()))
        .collect()
}

#[test]
fn mount_and_portmapper_answer_datagrams_nfs_does_not_and_garbage_is_dropped() {
    const MOUNT: u32 = 100_005;
    const PORTMAP: u32 = 100_000;
    const NFS: u32 = 100_003;
    let dir = tempfile::tempdir().unwrap();
    let (nfs, mount, mapper) = (free_port(), free_port(), free_port());
    let file = config(
        dir.path(),
        &format!("{}portmap_port = {mapper}\n", ports(nfs, mount)),
    );
    let _node = start(&file, |_| {});
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let to = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let call = |xid, prog, vers, proc, args: &[u32]| {
        let head = [xid, 0, 2, prog, vers, proc, 0, 0, 0, 0];
        words(&[&head, args].concat())
    };
    let accepted = |xid, rest: &[u32]| [&[xid, 1, 0, 0, 0], rest].concat();
    // Nothing of this is answered; the first answer is that of the call after it.
    for garbage in [
        &b"GET / HTTP/1.1\r\n"[..],
        &[],
        &[0xff; 40],
        &words(&[9, 1, 0, 0, 0, 0]),
    ] {
        socket.send_to(garbage, to(mount)).unwrap();
    }
    socket.send_to(&[0; 20_000], to(mount)).unwrap();
    assert_eq!(
        ask(&socket, to(mount), &call(1, MOUNT, 3, 0, &[])),
        accepted(1, &[0])
    );
    let root = ask(
        &socket,
        to(mount),
        &call(2, MOUNT, 3, 1, &[5, 0x2f646174, 0x61000000]),
    );
    assert_eq!(root[..6], accepted(2, &[0])[..], "MNT /data: {root:?}");
    assert_eq!(root[6], 0, "MNT3_OK");
    for (request, answer) in [
        (call(3, NFS, 3, 0, &[]), accepted(3, &[1])),
        (call(4, 99, 3, 0, &[]), accepted(4, &[1])),
        (call(5, MOUNT, 2, 0, &[]), accepted(5, &[2, 1, 3])),
        (call(6, MOUNT, 3, 77, &[]), accepted(6, &[3])),
        (call(7, MOUNT, 3, 1, &[u32::MAX]), accepted(7, &[4])),
        (
            call(8, PORTMAP, 2, 3, &[MOUNT, 3, 17, 0]),
            accepted(8, &[0, mount.into()]),
        ),
        (
            call(9, PORTMAP, 2, 3, &[NFS, 3, 6, 0]),
            accepted(9, &[0, nfs.into()]),
        ),
        (
            call(10, PORTMAP, 2, 3, &[NFS, 3, 17, 0]),
            accepted(10, &[0, 0]),
        ),
    ] {
        for port in [mount, mapper] {
            assert_eq!(ask(&socket, to(port), &request), answer, "{request:?}");
        }
    }
    assert_eq!(
        ask(
            &socket,
            to(mount),
            &words(&[11, 0, 3, MOUNT, 3, 0, 0, 0, 0, 0])
        ),
        [11, 1, 1, 0, 2, 2],
        "RPC_MISMATCH"
    );
}

#[test]
fn data_directories_that_cannot_be_used_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let serve = |data: &Path| {
        let data = data.to_str().unwrap();
        let ports = [free_port().to_string(), free_port().to_string()];
        refusal(&[
            "serve",
            "--data",
            data,
            "--nfs-port",
            &ports[0],
            "--mount-port",
            &ports[1],
        ])
    };
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let why = serve(&file);
    assert!(why.contains("not a directory"), "{why}");
    let why = serve(Path::new("/proc/nothing/here"));
    assert!(why.contains("/proc/nothing"), "{why}");
    // A file system that is mounted read-only, in a mount namespace of its own.
    let script = "mount -t tmpfs -o ro tmpfs \"$1\" && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(env!("CARGO_BIN_EXE_haven"))
        .args(["serve", "--nfs-port", "0", "--mount-port", "0", "--data"])
        .arg(dir.path());
    if !Command::new("unshare")
        .args(["-m", "true"])
        .status()
        .is_ok_and(|s| s.success())
    {
        eprintln!("SKIPPED: a read-only file system: no mount namespaces here");
        return;
    }
    let why = refused_by(&mut command);
    assert!(
        why.contains("Read-only") && why.contains("must be writable"),
        "{why}"
    );
}
