//! The address guard against servers that are killed, stopped, or without a lease.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use haven_platform::addr;
use haven_platform::announce::announce;
use haven_platform::guard::{Guard, GuardEvent, GuardTiming, run_child};
use rustix::process::{Pid, Signal, kill_process};

use crate::lan::{LIMIT, Lan, Node, comes, placed};

/// First argument: be the guard.
pub const CHILD: &str = "be-guard";
/// First argument: be a server that holds an address; the second says how it behaves.
pub const SERVER: &str = "be-server";

const FLOATING: &str = "10.9.0.100/24";
const TIMING: GuardTiming = GuardTiming {
    beat_ms: 20,
    deadline_ms: 200,
};
const PORT: u16 = 2049;
/// So many beats take twice the deadline.
const BEATS: u32 = 20;

/// The guard's process.
pub fn child() -> ExitCode {
    match run_child(std::io::stdin(), std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The server's process: holds the address, says so, tells what it hears.
pub fn server(args: &[String]) -> ExitCode {
    let behaviour = args.first().map_or("", String::as_str);
    let lapsed = behaviour == "lapsed";
    let beats = Arc::new(AtomicU32::new(0));
    let lease_valid = move || {
        if beats.fetch_add(1, Ordering::Relaxed) == BEATS {
            println!("beaten");
        }
        !lapsed
    };
    let on_event = |event| match event {
        GuardEvent::AddressLost => println!("lost"),
        GuardEvent::Died => println!("died"),
    };
    let exe = std::env::current_exe().unwrap();
    let guard = Guard::spawn(&exe, &[CHILD], TIMING, lease_valid, on_event).unwrap();
    let floating = placed(FLOATING);
    guard.hold(&[floating]).unwrap();
    addr::add(&floating, None).unwrap();
    if behaviour == "released" {
        guard.release().unwrap();
    }
    if behaviour.starts_with("connected") {
        serve_echo(&guard, floating.ip());
    }
    println!("guard {}", guard.child_pid());
    loop {
        std::thread::park();
    }
}

/// Echoes bytes, each connection on a thread; disconnects at "q". All its sockets are kept.
fn serve_echo(guard: &Guard, ip: std::net::IpAddr) {
    let listener = TcpListener::bind(SocketAddr::new(ip, PORT)).unwrap();
    let keeper = guard.keeper();
    keeper.keep(&listener).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            keeper.keep(&stream).unwrap();
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && byte != *b"q" {
                    stream.write_all(&byte).unwrap();
                }
                let _ = rustix::net::connect_unspec(&stream);
            });
        }
    });
}

/// A running server; killed at the end of the test.
struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    guard: Pid,
}

impl Server {
    fn start(node: &Node, behaviour: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([SERVER, behaviour]).stdout(Stdio::piped());
        node.netns.set_for(&mut command).unwrap();
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some(pid) = line.strip_prefix("guard ") {
                break pid.parse().unwrap();
            }
            assert_eq!(behaviour, "lapsed", "{line}");
        };
        Self {
            child,
            lines,
            guard: Pid::from_raw(first).unwrap(),
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Reads up to this line.
    fn says(&mut self, wanted: &str) {
        let found = self.lines.any(|line| line.unwrap() == wanted);
        assert!(found, "the server never said {wanted:?}");
    }

    /// Whether the guard's process has ended (it may wait for whoever inherited it).
    fn guard_ended(&self) -> bool {
        let path = format!("/proc/{}/stat", self.guard.as_raw_nonzero());
        std::fs::read_to_string(path).map_or(true, |stat| stat.contains(") Z "))
    }
}

impl Server {
    /// How many sockets both this process and its guard hold.
    fn kept(&self) -> usize {
        let own = sockets_of(Pid::from_child(&self.child));
        own.intersection(&sockets_of(self.guard)).count()
    }
}

/// The sockets that a process has open, by their names in /proc.
fn sockets_of(pid: Pid) -> BTreeSet<PathBuf> {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap();
    fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .collect()
}

/// A client on another node that has been answered once.
fn connected(lan: &Lan) -> TcpStream {
    let to = SocketAddr::new(lan.nodes[0].run(|| placed(FLOATING)).ip(), PORT);
    let mut client = lan.nodes[1].run(|| TcpStream::connect(to).unwrap());
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.write_all(b"?").unwrap();
    client.read_exact(&mut [0]).unwrap();
    client
}

/// Neither data nor an end has come.
fn hears_nothing(client: &mut TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let heard = client.read(&mut [0]);
    heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn acts_when_the_server_is_killed() {
    let lan = Lan::new(1);
    let (node, floating) = (&lan.nodes[0], lan.nodes[0].run(|| placed(FLOATING)));
    let mut server = Server::start(node, "steady");
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", server.guard.as_raw_nonzero()));
    assert_eq!(comm.unwrap(), "haven-guard\n");
    assert!(node.has(&floating));
    // What ends the server's whole group must not end the guard.
    kill_process(server.guard, Signal::TERM).unwrap();
    kill_process(server.guard, Signal::INT).unwrap();
    // A session of its own. (This process's may be out of sight, in an outer process namespace.)
    let session = rustix::process::getsid(Some(server.guard)).unwrap();
    assert_eq!(session, server.guard);
    server.kill();
    assert!(comes(|| !node.has(&floating)));
    assert!(comes(|| server.guard_ended()));
}

pub fn hides_the_servers_death_from_clients() {
    let lan = Lan::new(3);
    let (node, floating) = (&lan.nodes[0], lan.nodes[0].run(|| placed(FLOATING)));
    let mut server = Server::start(node, "connected");
    let mut client = connected(&lan);
    // As slow a guard as can be: what it has not taken in yet is not closed either.
    kill_process(server.guard, Signal::STOP).unwrap();
    server.kill();
    assert!(node.has(&floating));
    assert!(hears_nothing(&mut client));
    let to = SocketAddr::new(floating.ip(), PORT);
    let mut late = lan.nodes[1].run(|| TcpStream::connect_timeout(&to, LIMIT).unwrap());
    late.set_read_timeout(Some(LIMIT)).unwrap();
    late.write_all(b"?").unwrap();
    assert!(hears_nothing(&mut late));
    kill_process(server.guard, Signal::CONT).unwrap();
    assert!(comes(|| !node.has(&floating)));
    // Nor when the guard let go.
    assert!(hears_nothing(&mut client));
    assert!(hears_nothing(&mut late));
    // A restarted server gets its port.
    let wildcard = SocketAddr::new([0, 0, 0, 0].into(), PORT);
    let again = || node.run(|| TcpListener::bind(wildcard));
    assert!(comes(|| again().is_ok()));
    // Another node takes the address, without knowing who was connected.
    lan.nodes[2].run(|| {
        addr::add(&floating, None).unwrap();
        announce(&[placed(FLOATING)]).unwrap();
    });
    for mut client in [client, late] {
        client.set_nonblocking(false).unwrap();
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

pub fn lets_go_of_connections_that_are_over() {
    let lan = Lan::new(2);
    let server = Server::start(&lan.nodes[0], "connected");
    let (mut first, second) = (connected(&lan), connected(&lan));
    assert!(comes(|| server.kept() == 3), "two and the listener");
    let held = || sockets_of(server.guard).len();
    let all = held();
    // The server ends one, the client the other.
    first.write_all(b"q").unwrap();
    let error = first.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(comes(|| held() == all - 1));
    drop(second);
    assert!(comes(|| held() == all - 2));
    assert_eq!(server.kept(), 1);
}

pub fn acts_when_the_server_is_stopped() {
    let lan = Lan::new(1);
    let (node, floating) = (&lan.nodes[0], lan.nodes[0].run(|| placed(FLOATING)));
    let mut server = Server::start(node, "steady");
    server.signal(Signal::STOP);
    assert!(comes(|| !node.has(&floating)));
    // As if the server had been stopped just before adding the address.
    node.run(|| addr::add(&floating, None).unwrap());
    assert!(comes(|| !node.has(&floating)));
    server.signal(Signal::CONT);
    server.says("lost");
}

pub fn acts_when_the_lease_lapses() {
    let lan = Lan::new(1);
    let (node, floating) = (&lan.nodes[0], lan.nodes[0].run(|| placed(FLOATING)));
    let mut server = Server::start(node, "lapsed");
    assert!(comes(|| !node.has(&floating)));
    server.says("lost");
}

pub fn leaves_beating_servers_alone() {
    let lan = Lan::new(1);
    let (node, floating) = (&lan.nodes[0], lan.nodes[0].run(|| placed(FLOATING)));
    let mut server = Server::start(node, "steady");
    server.says("beaten");
    assert!(node.has(&floating));
}

pub fn leaves_released_addresses_alone() {
    let lan = Lan::new(1);
    let (node, floating) = (&lan.nodes[0], lan.nodes[0].run(|| placed(FLOATING)));
    let mut server = Server::start(node, "released");
    server.kill();
    assert!(comes(|| server.guard_ended()));
    assert!(node.has(&floating));
}

pub fn death_is_reported() {
    let lan = Lan::new(1);
    let mut server = Server::start(&lan.nodes[0], "steady");
    kill_process(server.guard, Signal::KILL).unwrap();
    server.says("died");
}
