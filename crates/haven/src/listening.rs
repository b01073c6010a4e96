//! The sockets that clients reach: NFS, MOUNT, and the port mapper, if this node is one.
//!
//! Every TCP port answers all programs, so two of them may be the same number: then there is one listener. MOUNT, NLM and
//! the port mapper are also there over UDP, on any UDP port.

use crate::rpcbind::Rpcbind;
use crate::serve::Ports;
use haven_config::{Config, PORTMAP_PORT, Portmapper};
use std::io::{self, ErrorKind::AddrInUse};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};
use tracing::info;

/// How long a port may be taken: the guard of a server that has just died holds it until the floating
/// addresses are off.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// How often a taken port is tried.
const PORT_POLL: Duration = Duration::from_millis(10);

/// All sockets, bound.
pub(crate) struct Listening {
    /// TCP.
    pub(crate) streams: Vec<TcpListener>,
    /// UDP.
    pub(crate) datagrams: Vec<UdpSocket>,
    /// Where they are.
    pub(crate) ports: Ports,
    /// Whom to register with.
    pub(crate) rpcbind: Option<Rpcbind>,
}

impl Listening {
    /// Opens what the configuration asks for.
    pub(crate) async fn open(config: &Config) -> Result<Self, String> {
        let rpcbind = Rpcbind::default();
        let register = match config.service.portmapper {
            Portmapper::Register => true,
            Portmapper::Auto => rpcbind.runs().await,
            Portmapper::Off | Portmapper::Builtin(_) => false,
        };
        let patience = Instant::now() + PORT_PATIENCE;
        let mut open = loop {
            match Self::bind(config) {
                Err((why, _)) if why.kind() == AddrInUse && Instant::now() < patience => {
                    tokio::time::sleep(PORT_POLL).await;
                }
                end => break end.map_err(|(_, words)| words)?,
            }
        };
        if register {
            open.rpcbind = Some(rpcbind);
        } else if config.service.portmapper == Portmapper::Auto {
            match open.add_both(config, "the port mapper", PORTMAP_PORT) {
                Ok(port) => open.ports.portmap = Some(port),
                Err((why, _)) => info!(
                    %why,
                    "no rpcbind runs here, and port {PORTMAP_PORT} cannot be used: clients must be told the ports, and mount with nolock"
                ),
            }
        }
        Ok(open)
    }

    /// Or why not: also in words.
    fn bind(config: &Config) -> Result<Self, (io::Error, String)> {
        let service = &config.service;
        let mut open = Self {
            streams: Vec::new(),
            datagrams: Vec::new(),
            ports: Ports {
                nfs: 0,
                mount: 0,
                portmap: None,
            },
            rpcbind: None,
        };
        let nfs = stream(config, "NFS", service.nfs_port)?;
        open.ports.nfs = port(&nfs);
        open.streams.push(nfs);
        open.ports.mount = open.add_both(config, "MOUNT", service.mount_port)?;
        if let Portmapper::Builtin(port) = service.portmapper {
            open.ports.portmap = Some(open.add_both(config, "the port mapper", port)?);
        }
        Ok(open)
    }

    /// Opens a port over TCP and UDP.
    fn add_both(
        &mut self,
        config: &Config,
        what: &str,
        wanted: u16,
    ) -> Result<u16, (io::Error, String)> {
        let is = |at: io::Result<SocketAddr>| wanted != 0 && at.is_ok_and(|at| at.port() == wanted);
        let new = match self.streams.iter().any(|s| is(s.local_addr())) {
            true => None,
            false => Some(stream(config, what, wanted)?),
        };
        let port = new.as_ref().map_or(wanted, port);
        if !self.datagrams.iter().any(|s| is(s.local_addr())) {
            let address = SocketAddr::new(config.service.listen, port);
            let datagrams =
                haven_net::bind_datagram(address).map_err(|why| said(why, address, what))?;
            self.datagrams.push(datagrams);
        }
        // Only when all is there: whoever tries again begins anew.
        self.streams.extend(new);
        Ok(port)
    }
}

fn stream(config: &Config, what: &str, port: u16) -> Result<TcpListener, (io::Error, String)> {
    let address = SocketAddr::new(config.service.listen, port);
    haven_net::bind(address).map_err(|why| said(why, address, what))
}

fn said(why: io::Error, address: SocketAddr, what: &str) -> (io::Error, String) {
    let advice = match why.kind() {
        AddrInUse => "; is another NFS server running? (see `ss -tulpn`)",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE: give it, or choose a higher port"
        }
        io::ErrorKind::AddrNotAvailable => "; service.listen must be an address of this machine",
        _ => "",
    };
    let words = format!("cannot listen on {address} for {what}: {why}{advice}");
    (why, words)
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().map_or(0, |a| a.port())
}
