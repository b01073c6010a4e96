//! Registers the service with the rpcbind of this machine, so that clients which know no ports find them.
//!
//! Spoken is the port mapper protocol, version 2, over rpcbind's Unix socket: rpcbind takes registrations only from
//! its own machine, and over the socket it knows who asks without a privileged port.
//!
//! rpcbind belongs to the machine, not to the service: each node of a cluster registers with its own and stays
//! registered while it stands by. Clients ask at the floating address, and so the rpcbind of the leader's machine.
//!
//! Invariant: what another living server has registered is left alone; what a dead one left is replaced.

use bytes::Bytes;
use haven_proto::portmap::{self, Mapping, Procedure};
use haven_rpc::record::{self, FragmentHeader};
use haven_rpc::{Credential, Outcome, decode_reply, encode_call};
use haven_xdr::{Gather, decode_all, encode_all};
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tracing::{info, warn};

/// Where rpcbind listens on its own machine.
const SOCKET: &str = "/run/rpcbind.sock";
/// How long rpcbind, or a server that is registered with it, may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the registration is looked at: an rpcbind that was restarted has forgotten it.
const REFRESH: Duration = Duration::from_secs(30);
/// Largest reply taken, in bytes.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// The rpcbind of this machine.
#[derive(Debug, Clone)]
pub struct Rpcbind {
    socket: PathBuf,
}

impl Default for Rpcbind {
    fn default() -> Self {
        Self {
            socket: SOCKET.into(),
        }
    }
}

/// Why a registration failed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refused {
    /// rpcbind does not run, or says no.
    Rpcbind(String),
    /// Another server has the program.
    Taken { prog: u32, vers: u32, port: u32 },
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rpcbind(why) => f.write_str(why),
            Self::Taken { prog, vers, port } => write!(
                f,
                "another server on this machine offers program {prog} version {vers} on port {port}; stop it, or \
                 set service.portmapper = \"off\" and tell clients the ports"
            ),
        }
    }
}

impl Rpcbind {
    /// Whether it runs and answers.
    pub async fn runs(&self) -> bool {
        self.call(Procedure::Null, Gather::new()).await.is_ok()
    }

    /// Keeps `mappings` registered, for ever.
    pub async fn keep(self, mappings: Vec<Mapping>) {
        let mut complained = None;
        let mut registered = false;
        loop {
            match self.register(&mappings).await {
                Ok(0) => {}
                Ok(_) if registered => info!("registered with rpcbind again"),
                Ok(_) => info!("registered with rpcbind"),
                Err(why) if complained.as_ref() != Some(&why) => {
                    warn!(%why, "not registered with rpcbind: clients must be told the ports");
                    complained = Some(why);
                    registered = false;
                    tokio::time::sleep(REFRESH).await;
                    continue;
                }
                Err(_) => {
                    tokio::time::sleep(REFRESH).await;
                    continue;
                }
            }
            registered = true;
            complained = None;
            tokio::time::sleep(REFRESH).await;
        }
    }

    /// Registers what is not registered yet; says how many that were.
    async fn register(&self, mappings: &[Mapping]) -> Result<usize, Refused> {
        let mut missing = BTreeSet::new();
        for mapping in mappings {
            let port = self.port(mapping).await?;
            if port == mapping.port {
                continue;
            }
            if port != 0 && alive(port).await {
                let Mapping { prog, vers, .. } = *mapping;
                return Err(Refused::Taken { prog, vers, port });
            }
            missing.insert((mapping.prog, mapping.vers));
        }
        for (prog, vers) in &missing {
            // For all transports at once, so all are registered anew.
            self.unset(*prog, *vers).await?;
            for mapping in mappings
                .iter()
                .filter(|m| (m.prog, m.vers) == (*prog, *vers))
            {
                if !self.ask::<bool>(Procedure::Set, *mapping).await? {
                    return Err(Refused::Rpcbind(format!(
                        "rpcbind refuses program {prog} version {vers}: somebody else's registration is in the way \
                         (see `rpcinfo -p`, remove it with `rpcinfo -d {prog} {vers}`)"
                    )));
                }
            }
        }
        Ok(missing.len())
    }

    /// Withdraws what is ours.
    pub async fn withdraw(&self, mappings: &[Mapping]) {
        let mut ours = BTreeSet::new();
        for mapping in mappings {
            if self.port(mapping).await == Ok(mapping.port) {
                ours.insert((mapping.prog, mapping.vers));
            }
        }
        for (prog, vers) in ours {
            if let Err(why) = self.unset(prog, vers).await {
                warn!(%why, "cannot withdraw a registration from rpcbind");
            }
        }
    }

    async fn port(&self, mapping: &Mapping) -> Result<u32, Refused> {
        self.ask(Procedure::Getport, *mapping).await
    }

    async fn unset(&self, prog: u32, vers: u32) -> Result<(), Refused> {
        let all = Mapping {
            prog,
            vers,
            prot: 0,
            port: 0,
        };
        // False: there was nothing, or somebody else's, which SET will say.
        self.ask::<bool>(Procedure::Unset, all).await.map(|_| ())
    }

    async fn ask<T: haven_xdr::Decode>(
        &self,
        procedure: Procedure,
        mapping: Mapping,
    ) -> Result<T, Refused> {
        let body = self.call(procedure, encode_all(&mapping)).await?;
        decode_all(body).map_err(|e| Refused::Rpcbind(format!("rpcbind answers strangely: {e}")))
    }

    async fn call(&self, procedure: Procedure, args: Gather) -> Result<Bytes, Refused> {
        let path = self.socket.display();
        match timeout(PATIENCE, exchange(&self.socket, procedure, args)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(why)) => Err(Refused::Rpcbind(format!("rpcbind at {path}: {why}"))),
            Err(_) => Err(Refused::Rpcbind(format!(
                "rpcbind at {path} does not answer"
            ))),
        }
    }
}

async fn exchange(socket: &Path, procedure: Procedure, args: Gather) -> io::Result<Bytes> {
    let garbage = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut stream = UnixStream::connect(socket).await?;
    let (xid, proc) = (1, procedure.to_wire());
    let call = encode_call(
        xid,
        portmap::PROGRAM,
        portmap::VERSION,
        proc,
        &Credential::None,
        args,
    );
    stream.write_all(&record::frame(call).into_bytes()).await?;
    let mut mark = [0; record::HEADER_BYTES];
    stream.read_exact(&mut mark).await?;
    let header = FragmentHeader::parse(mark);
    let length = header.len as usize;
    if length > REPLY_BYTES_MAX || !header.last {
        return Err(garbage(format!("a reply of {length} bytes or more")));
    }
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply).await?;
    let reply = decode_reply(reply.into()).map_err(|e| garbage(e.to_string()))?;
    match reply.outcome {
        Outcome::Success(body) if reply.xid == xid => Ok(body),
        other => Err(garbage(format!("refused: {other:?}"))),
    }
}

/// Whether somebody listens on this TCP port. (One that listens on UDP only is not noticed; no NFS server does.)
async fn alive(port: u32) -> bool {
    let Ok(port) = u16::try_from(port) else {
        return false;
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    matches!(
        timeout(PATIENCE, TcpStream::connect(address)).await,
        Ok(Ok(_))
    )
}
