//! A `haven serve` process for tests: started on loopback, killed when dropped.

#![allow(dead_code, reason = "each test binary uses its part")]

use haven_client::{Client, Options};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A running node.
pub struct Node {
    child: Child,
    pub nfs: SocketAddr,
    pub mount_port: u16,
}

/// A port that was free a moment ago; a node gets it back after a restart.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    listener.local_addr().expect("bound").port()
}

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haven"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

impl Node {
    /// Starts a single node and waits until it listens.
    pub fn start(data: &Path, nfs_port: u16, mount_port: u16) -> Self {
        let mut child = command()
            .args(["serve", "--export", "/data", "--data"])
            .arg(data)
            .args(["--nfs-port", &nfs_port.to_string()])
            .args(["--mount-port", &mount_port.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("stdout");
        assert!(line.starts_with("serving /data at 127.0.0.1"), "{line:?}");
        let nfs = SocketAddr::from((Ipv4Addr::LOCALHOST, nfs_port));
        Self {
            child,
            nfs,
            mount_port,
        }
    }

    /// A client that goes on over restarts, but not for ever.
    pub fn client(&self) -> Client {
        Client::new(
            self.nfs,
            Options {
                mount_port: self.mount_port,
                request_timeout: Some(Duration::from_secs(30)),
                ..Options::default()
            },
        )
    }

    /// libnfs's URL of a path below the export.
    pub fn url(&self, path: &str) -> String {
        let (nfs, mount) = (self.nfs.port(), self.mount_port);
        format!("nfs://127.0.0.1/data{path}?version=3&nfsport={nfs}&mountport={mount}")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("pid")).expect("pid");
        kill_process(pid, Signal::TERM).expect("kill");
        self.child.wait().expect("wait")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `haven` with arguments that must fail; gives what it says.
pub fn refusal(arguments: &[&str]) -> String {
    let mut child = command()
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut words = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut words)
        .expect("stderr");
    let status = child.wait().expect("wait");
    assert_eq!(status.code(), Some(1), "{words}");
    assert!(!words.contains("panicked"), "{words}");
    words
}
