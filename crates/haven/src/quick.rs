//! A single node without a configuration file: `haven serve --data DIR --export /data`.
//!
//! It listens on loopback unless told otherwise, and the export belongs to whoever runs it: the quick way
//! is for trying and for tests, and must not open a machine's files to a network by accident.

use crate::serve::Ports;
use haven_config::exports::{Client, ClientOptions, Who};
use haven_config::{
    Checkpoints, Cluster, Config, Export, Health, Limits, Log, NOBODY, Node, Peer, Portmapper,
    Role, Service, Squash, SquashMode, usual_portmapper,
};
use std::io::ErrorKind::AlreadyExists;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Names tried for a temporary directory.
const ATTEMPTS: u32 = 16;

/// What was given on the command line.
#[derive(Debug, Clone, Copy)]
pub struct Wishes<'a> {
    /// Data directory.
    pub data: &'a Path,
    /// Path to export.
    pub export: &'a str,
    /// Port of NFS.
    pub nfs_port: u16,
    /// Port of MOUNT.
    pub mount_port: u16,
    /// Address to listen on.
    pub listen: IpAddr,
}

/// The configuration of a node of its own.
///
/// # Errors
/// What is wrong with the wishes, in words.
pub fn config(wishes: &Wishes<'_>) -> Result<Config, String> {
    haven_config::check_export_path(wishes.export).map_err(|e| e.to_string())?;
    let name = "single".to_owned();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Ok(Config {
        node: Node {
            role: Role::Data,
            id: 1,
            name: name.clone(),
            data: wishes.data.to_owned(),
            control: wishes.data.join("control.sock"),
            checkpoints: Checkpoints::default(),
        },
        cluster: Cluster {
            name: name.clone(),
            shared: false,
            nodes: vec![Peer {
                id: 1,
                name,
                address,
            }],
        },
        service: Service {
            name: "nfs".into(),
            addresses: Vec::new(),
            interface: None,
            listen: wishes.listen,
            nfs_port: wishes.nfs_port,
            mount_port: wishes.mount_port,
            // Whom nobody can reach from elsewhere does not take the machine's entry at rpcbind.
            portmapper: match wishes.listen.is_loopback() {
                true => Portmapper::Off,
                false => usual_portmapper(wishes.nfs_port, wishes.mount_port),
            },
        },
        exports: vec![Export {
            path: wishes.export.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mode: 0o755,
            clients: vec![everybody()],
        }],
        log: Log::default(),
        limits: Limits::default(),
        health: Health::default(),
        metrics: haven_config::Metrics::default(),
        warnings: Vec::new(),
    })
}

/// Whoever reaches the address, as who they say they are.
fn everybody() -> Client {
    Client {
        who: Who::Everybody,
        options: ClientOptions {
            read_only: false,
            secure: false,
            squash: Squash {
                mode: SquashMode::None,
                anonuid: NOBODY,
                anongid: NOBODY,
            },
        },
    }
}

/// Says how to use the server. Nobody listening is no reason to stop.
pub fn announce(listen: IpAddr, export: &str, ports: Ports) {
    let Ports { nfs, mount, .. } = ports;
    let text = format!(
        "serving {export} at {listen}, NFS port {nfs}, MOUNT port {mount}\n  \
         mount -t nfs -o vers=3,nolock,tcp,port={nfs},mountport={mount},mountproto=tcp {listen}:{export} /mnt\n  \
         (nolock: programs lock among themselves on that client; Haven has no locks of its own yet)\n  \
         nfs-ls 'nfs://{listen}{export}?version=3&nfsport={nfs}&mountport={mount}'\n"
    );
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// A free port for a node of a test, another one with each call; the node gets it back after a restart. It is none of
/// those that the kernel gives to connections and to whoever asks for any port (from 32768 on): those may be gone when
/// a node wants them.
///
/// # Errors
/// None is free.
pub fn free_port() -> Result<u16, String> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Processes that run side by side begin in different places.
    let start = std::process::id().wrapping_mul(97);
    let ports = std::iter::repeat_with(|| {
        let number = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        (FIRST + number % COUNT) as u16
    });
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    let mut tried = ports.take(COUNT as usize);
    tried
        .find(is_free)
        .ok_or_else(|| format!("no port from {FIRST} to {} is free", FIRST + COUNT - 1))
}

/// A directory that is removed at the end.
#[derive(Debug)]
pub struct TemporaryDir(PathBuf);

impl TemporaryDir {
    /// Makes one.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn new() -> Result<Self, String> {
        let make = |n: u32| {
            let name = format!("haven-{}-{n}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
            (path, made)
        };
        // One of the name may be left from a process that was killed.
        let mut attempts = (0..ATTEMPTS).map(make);
        let (path, made) = attempts
            .find(|(_, made)| !made.as_ref().is_err_and(|e| e.kind() == AlreadyExists))
            .unwrap_or_else(|| make(ATTEMPTS));
        made.map_err(|e| {
            format!(
                "cannot make the temporary directory {}: {e}; give a directory with --data",
                path.display()
            )
        })?;
        eprintln!(
            "no --data given: files are kept in {} until the server ends",
            path.display()
        );
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // Nothing depends on it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
