//! Tells the service manager how far this process is (sd_notify(3)): one datagram to the socket that it named.
//!
//! Without one, nothing happens; a manager that does not listen is no reason to stop.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use tracing::debug;

/// The environment variable that names the socket.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Clients can be served here, or will be as soon as this node leads.
pub fn ready(status: &str) {
    notify(&format!("READY=1\nSTATUS={status}"));
}

/// The end has begun.
pub fn stopping() {
    notify("STOPPING=1\nSTATUS=stopping");
}

fn notify(state: &str) {
    let Some(name) = std::env::var_os(SOCKET).filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(why) = send(&name, state) {
        debug!(%why, ?name, "the service manager does not listen");
    }
}

fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_and_abstract_sockets_hear() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let named = UnixDatagram::bind(&path).unwrap();
        let name = format!("haven-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstract_ = UnixDatagram::bind_addr(&address).unwrap();
        for (to, socket) in [
            (path.into_os_string(), named),
            (format!("@{name}").into(), abstract_),
        ] {
            send(&to, "READY=1").unwrap();
            let mut text = [0; 64];
            let length = socket.recv(&mut text).unwrap();
            assert_eq!(&text[..length], b"READY=1");
        }
        assert!(send(OsStr::new("/does/not/exist"), "READY=1").is_err());
    }
}
