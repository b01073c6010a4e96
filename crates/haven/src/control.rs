//! Where a node is asked how it is and told what to do: the control socket, a listener for metrics, and visits of
//! other members.
//!
//! The control socket is a Unix socket in the data directory that only the owner may use; whoever can connect
//! may operate the cluster: what another node must do is carried there. What is asked and answered lies in
//! `haven-admin`.

use crate::relay::{Informed, Relay, Visitors};
use haven_admin::{Scope, server};
use haven_config::CONTROL_PATH_BYTES_MAX;
use rustix::net;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;

/// Connections to the control socket that have come and were not taken yet.
const BACKLOG: i32 = 128;
/// Connections to the control socket at a time; more wait.
const CONNECTIONS_MAX: usize = 16;
/// Connections to the listener for metrics at a time; more wait.
const METRICS_CONNECTIONS_MAX: usize = 8;

/// Opens the control socket. A leftover of a dead process is replaced (the data directory's lock has shown that
/// no other process uses it).
///
/// # Errors
/// When the path is too long for a Unix socket or cannot be made.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if path.as_os_str().len() > CONTROL_PATH_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the control socket's path {} has more than {CONTROL_PATH_BYTES_MAX} bytes; set node.control to a shorter one",
                path.display()
            ),
        ));
    }
    match std::fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    bind_watched(path, || {})
}

/// As [`bind`] of a path that is free; `named` is called when the name has just come to be.
fn bind_watched(path: &Path, named: impl FnOnce()) -> io::Result<UnixListener> {
    let (family, kind) = (net::AddressFamily::UNIX, net::SocketType::STREAM);
    let flags = net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, kind, flags, None)?;
    // The name gets the mode that the socket has when it is bound (less the process's mask): nobody else can connect
    // in between, as he could if the name had to be changed.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    net::bind(&socket, &net::SocketAddrUnix::new(path)?)?;
    named();
    net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// Opens the listener for metrics, if there shall be one.
///
/// # Errors
/// Why not, and what to do, in words.
pub async fn bind_metrics(address: Option<SocketAddr>) -> Result<Option<TcpListener>, String> {
    let Some(address) = address else {
        return Ok(None);
    };
    TcpListener::bind(address).await.map(Some).map_err(|why| {
        format!("cannot listen for metrics on {address} ({why}); change metrics.listen")
    })
}

/// Serves all of them for ever.
pub(crate) fn serve<A: Informed>(socket: UnixListener, metrics: Option<TcpListener>, api: &Arc<A>) {
    let relay = Arc::new(Relay(Arc::clone(api)));
    tokio::spawn(server::serve(socket, relay, Scope::All, CONNECTIONS_MAX));
    let visitors = Arc::new(Visitors(Arc::clone(api)));
    let consensus = &api.insight().consensus;
    consensus.set_host(Handle::current(), visitors);
    if let Some(metrics) = metrics {
        tokio::spawn(server::serve(
            metrics,
            Arc::clone(api),
            Scope::Metrics,
            METRICS_CONNECTIONS_MAX,
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;

    fn mode(path: &Path) -> u32 {
        let meta = std::fs::symlink_metadata(path).unwrap();
        meta.permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_its_owners_from_its_first_moment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        for _ in 0..2 {
            let (tell, told) = mpsc::channel();
            // Between the making of the name and listening: nothing is left to be done about the mode.
            let seen = path.clone();
            let _ = std::fs::remove_file(&path);
            let socket = bind_watched(&path, move || tell.send(mode(&seen)).unwrap()).unwrap();
            assert_eq!(told.recv(), Ok(0o600));
            assert_eq!(mode(&path), 0o600);
            let connecting = tokio::net::UnixStream::connect(&path);
            let (came, went) = tokio::join!(socket.accept(), connecting);
            assert!(came.is_ok() && went.is_ok());
        }
    }

    #[test]
    fn a_path_that_is_too_long_is_refused_with_words() {
        let path = Path::new("/tmp").join("x".repeat(CONTROL_PATH_BYTES_MAX));
        let why = bind(&path).map(drop).unwrap_err().to_string();
        assert!(why.contains("node.control"), "{why}");
    }
}
