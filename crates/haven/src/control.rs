//! The control socket: how a running node is asked what it does, and told to move the service.
//!
//! One request and one answer per line, as JSON, over a Unix socket in the data directory that only the
//! owner may use. Answers say what is, never what is hoped.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Longest request or answer, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Longest path of a Unix socket (sun_path of unix(7), with its NUL).
const PATH_BYTES_MAX: usize = 107;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may stay without a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the node sees itself and its peers.
    Status,
    /// A hash of the whole replicated state (reads all of it: slow on large volumes).
    StateHash,
    /// A token that lets one machine into the cluster.
    Token {
        /// How long it counts.
        hours: u64,
    },
    /// The cluster's nodes.
    Nodes,
    /// Remove a node from the cluster.
    RemoveNode {
        /// Its name or number.
        node: String,
    },
    /// Move the service to another node by plan.
    Move {
        /// Name of the node that shall lead; missing: the most up-to-date one.
        to: Option<String>,
    },
}

/// A node's view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This node's name.
    pub node: String,
    /// `leader`, `follower`, `candidate` or `learner`.
    pub role: String,
    /// Name of the leader, if one is known.
    pub leader: Option<String>,
    /// The term.
    pub term: u64,
    /// What the takeover is doing: `Standby`, `TakingOver`, `Serving`, `Releasing`, `Moving`.
    pub phase: String,
    /// Whether clients are answered.
    pub serving: bool,
    /// What keeps the service from coming up here or from taking all changes, if anything.
    pub trouble: Option<String>,
    /// MiB free where the data are.
    pub free_mib: u64,
    /// MiB that are kept free: below, what needs space is refused.
    pub reserve_mib: u64,
    /// Last log index present, committed, applied.
    pub last_log: u64,
    /// See `last_log`.
    pub committed: u64,
    /// See `last_log`.
    pub applied: u64,
    /// Records and flushes of the log since the start, and entries proposed by clients.
    pub log_records: u64,
    /// See `log_records`.
    pub log_flushes: u64,
    /// Client connections now.
    pub connections: u64,
    /// The port NFS is served on (of interest when the system chose it).
    pub nfs_port: u16,
    /// The port MOUNT is served on.
    pub mount_port: u16,
}

/// A state hash and the log index it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHash {
    /// Everything up to this index is applied.
    pub applied: u64,
    /// BLAKE3 of the state, in hexadecimal.
    pub hash: String,
}

/// An answer, or why there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// It was done.
    Ok(T),
    /// It was not.
    Error(String),
}

/// Answers requests with a JSON value.
pub trait Control: Send + Sync + 'static {
    /// Handles one request.
    fn handle(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<serde_json::Value, String>> + Send;
}

/// Opens the socket. A leftover of a dead process is replaced (the data directory's lock has shown that
/// no other process uses it).
///
/// # Errors
/// When the path is too long for a Unix socket or cannot be made.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the control socket's path {} has more than {PATH_BYTES_MAX} bytes; set node.control to a shorter one",
                path.display()
            ),
        ));
    }
    match std::fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the socket for ever.
pub async fn serve<C: Control>(listener: UnixListener, control: Arc<C>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            // The other end going away in the middle is its own business.
            let _ = converse(stream, &*control).await;
            drop(place);
        });
    }
}

async fn converse<C: Control>(stream: UnixStream, control: &C) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let Some(line) = timeout(PATIENCE, read_line(&mut read)).await?? else {
            return Ok(());
        };
        let answer = match serde_json::from_str(&line) {
            Ok(request) => match control.handle(request).await {
                Ok(value) => Answer::Ok(value),
                Err(why) => Answer::Error(why),
            },
            Err(why) => Answer::Error(format!("not a request: {why}")),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        write.write_all(&text).await?;
    }
}

async fn read_line(read: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<String>> {
    let mut line = String::new();
    let n = read.take(LINE_BYTES_MAX).read_line(&mut line).await?;
    match n {
        0 => Ok(None),
        _ if line.ends_with('\n') => Ok(Some(line)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a line that does not end",
        )),
    }
}

/// Asks a running node.
///
/// # Errors
/// What to tell the user: nobody listens there, no answer in time, or the node's own refusal.
pub async fn ask<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
    patience: Duration,
) -> Result<T, String> {
    let socket: PathBuf = socket.to_owned();
    let exchange = async {
        let stream = UnixStream::connect(&socket).await.map_err(|why| {
            format!(
                "cannot reach a node at {} ({why}); is `haven serve` running there?",
                socket.display()
            )
        })?;
        let (read, mut write) = stream.into_split();
        let mut text = serde_json::to_vec(request).map_err(|e| e.to_string())?;
        text.push(b'\n');
        write.write_all(&text).await.map_err(|e| e.to_string())?;
        let line = read_line(&mut BufReader::new(read))
            .await
            .map_err(|e| e.to_string())?;
        let line = line.ok_or("the node ended the conversation")?;
        match serde_json::from_str::<Answer<T>>(&line).map_err(|e| e.to_string())? {
            Answer::Ok(value) => Ok(value),
            Answer::Error(why) => Err(why),
        }
    };
    timeout(patience, exchange)
        .await
        .map_err(|_| format!("the node at {} does not answer", socket.display()))?
}
