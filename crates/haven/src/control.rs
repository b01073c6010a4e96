//! Where a node is asked how it is and told what to do: the control socket, a listener for metrics, and visits of
//! other members.
//!
//! The control socket is a Unix socket in the data directory that only the owner may use; whoever can connect
//! may operate the cluster: what another node must do is carried there. What is asked and answered lies in
//! `haven-admin`.

use crate::relay::{Informed, Relay, Visitors};
use haven_admin::{Scope, server};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;

/// Longest path of a Unix socket (sun_path of unix(7), with its NUL).
const PATH_BYTES_MAX: usize = 107;
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
