//! A `haven serve` process for tests: started on loopback, killed when dropped.

#![allow(dead_code, reason = "each test binary uses its part")]

use haven_client::{Client, Options};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A running node.
pub struct Node {
    child: Child,
    pub nfs: SocketAddr,
    pub mount_port: u16,
}

/// See [`haven::quick::free_port`].
pub fn free_port() -> u16 {
    haven::quick::free_port().expect("a free port")
}

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haven"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

impl Node {
    /// Starts a single node and waits until it listens.
    pub fn start(data: &Path, nfs_port: u16, mount_port: u16) -> Self {
        let mut command = command();
        command
            .args(["serve", "--export", "/data", "--data"])
            .arg(data)
            .args(["--nfs-port", &nfs_port.to_string()])
            .args(["--mount-port", &mount_port.to_string()])
            .stderr(Stdio::null());
        Self::spawn(command, nfs_port, mount_port)
    }

    /// Starts a single node with a command of its own and waits until it serves `/data`.
    pub fn spawn(mut command: Command, nfs_port: u16, mount_port: u16) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
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

    /// Starts a node with a configuration file, which says nothing on standard output, and waits until it answers.
    pub fn configured(mut command: Command, nfs_port: u16, mount_port: u16) -> Self {
        let child = command
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut node = Self {
            child,
            nfs: SocketAddr::from((Ipv4Addr::LOCALHOST, nfs_port)),
            mount_port,
        };
        while std::net::TcpStream::connect(node.nfs).is_err() {
            let end = node.child.try_wait().expect("wait");
            assert!(end.is_none(), "it ended: {end:?}");
            std::thread::yield_now();
        }
        node
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
        kill(&self.child, Signal::TERM);
        self.child.wait().expect("wait")
    }

    /// Standard error, if it is a pipe.
    pub fn stderr(&mut self) -> BufReader<std::process::ChildStderr> {
        BufReader::new(self.child.stderr.take().expect("piped"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process with its log.
pub struct Logged {
    child: Child,
    lines: Receiver<String>,
}

impl Logged {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Whoever does not listen any more has ended.
                let _ = send.send(line);
            }
        });
        Self { child, lines }
    }

    /// Reads the log up to a line with `text`; gives all of it.
    pub fn until(&self, text: &str) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        while seen.last().is_none_or(|line| !line.contains(text)) {
            let line = self.lines.recv_timeout(Duration::from_secs(30));
            seen.push(line.unwrap_or_else(|e| panic!("no {text:?}: {e}; {seen:#?}")));
        }
        seen
    }

    /// What it said since.
    pub fn said(&self) -> String {
        self.lines.try_iter().collect::<Vec<_>>().join("\n")
    }

    /// What it said since, and says until it ends.
    pub fn rest(&self) -> String {
        self.lines.iter().collect::<Vec<_>>().join("\n")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(&self.child, signal);
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("wait")
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- a process of the failed test said:\n{}", self.said());
        }
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("pid")).expect("pid");
    kill_process(pid, signal).expect("kill");
}

/// Runs `haven` with arguments that must fail; gives what it says.
pub fn refusal(arguments: &[&str]) -> String {
    refused_by(command().args(arguments))
}

/// Runs a command that must fail; gives what it says.
pub fn refused_by(command: &mut Command) -> String {
    let mut child = command
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
