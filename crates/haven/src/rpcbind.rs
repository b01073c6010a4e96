//! Registers the service with the rpcbind of this machine, so that clients which know no ports find them.
//!
//! Spoken is rpcbind's version 4 over its Unix socket, or version 2 (without IPv6) if it knows no other: rpcbind takes
//! registrations only from its own machine, and over the socket it knows who asks without a privileged port. What is
//! registered is found by DUMP: GETADDR tells only of the network it is asked over, which the socket is none of.
//!
//! rpcbind belongs to the machine, not to the service: each node of a cluster registers with its own and stays
//! registered while it stands by. Clients ask at the floating address, and so the rpcbind of the leader's machine.
//!
//! Invariant: what another living server has registered is left alone; what a dead one left is replaced. NLM may be
//! another's while the rest is registered: the kernel of a machine that is an NFS client has a lock manager, too.

use bytes::{Bytes, BytesMut};
use haven_nfsd::Binding;
use haven_proto::nlm;
use haven_proto::portmap::{self, IPPROTO_TCP, IPPROTO_UDP, Mapping, Pmaplist};
use haven_proto::rpcbind::{self, Netid, Rpcb, Rpcblist, Uaddr};
use haven_rpc::record::{self, FragmentHeader};
use haven_rpc::{AcceptError, Credential, Outcome, decode_reply, encode_call};
use haven_xdr::{Decode, Gather, decode_all, encode_all};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
const REPLY_BYTES_MAX: usize = 256 << 10;

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
    Taken { prog: u32, vers: u32, port: u16 },
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

/// The version of its protocol that rpcbind speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// Knows ports only: TCP and UDP over IPv4.
    Two,
    Four,
}

impl Version {
    const fn number(self) -> u32 {
        match self {
            Self::Two => portmap::VERSION,
            Self::Four => rpcbind::VERSION4,
        }
    }

    /// What it can be told of `bindings`, as it tells it.
    fn expressible(self, bindings: &[Binding]) -> Vec<Binding> {
        match self {
            Self::Four => bindings.to_vec(),
            Self::Two => bindings
                .iter()
                .filter_map(|b| as_listed(&b.mapping()).filter(|as_v4| as_v4.netid == b.netid))
                .collect(),
        }
    }
}

/// What is to be changed at rpcbind.
#[derive(Debug, Default)]
struct Changes {
    unset: Vec<Binding>,
    set: Vec<Binding>,
    /// The port of another lock manager, which stays.
    other_nlm: Option<u16>,
}

/// What was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Registered {
    /// How many entries were not there yet.
    anew: usize,
    /// The port of another lock manager, which stays.
    other_nlm: Option<u16>,
}

impl Rpcbind {
    /// Whether it runs and answers.
    pub async fn runs(&self) -> bool {
        let null = rpcbind::Procedure::Null.to_wire();
        let answer = self.call(Version::Four, null, Gather::new());
        answer.await.is_ok()
    }

    /// Keeps `bindings` registered, for ever.
    pub async fn keep(self, bindings: Vec<Binding>) {
        let mut complained = None;
        let mut registered = false;
        let mut known_nlm = None;
        loop {
            match self.register(&bindings).await {
                Ok(Registered { anew, other_nlm }) => {
                    match anew {
                        0 => {}
                        _ if registered => info!("registered with rpcbind again"),
                        _ => info!("registered with rpcbind"),
                    }
                    if let Some(port) = other_nlm.filter(|_| other_nlm != known_nlm) {
                        warn!(
                            port,
                            "another lock manager is registered on this machine, as where something is mounted by NFS: \
                             clients that lock without `nolock` ask it, not Haven"
                        );
                    }
                    known_nlm = other_nlm;
                }
                Err(why) if complained.as_ref() != Some(&why) => {
                    warn!(%why, "not registered with rpcbind: clients must be told the ports, and mount with nolock");
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

    /// Registers what is not registered yet.
    async fn register(&self, bindings: &[Binding]) -> Result<Registered, Refused> {
        let (version, listed) = self.listed().await?;
        let ours = version.expressible(bindings);
        if ours.is_empty() {
            return Err(Refused::Rpcbind(
                "rpcbind speaks version 2 only, which has no IPv6: listen on 0.0.0.0 or :: (service.listen), or tell \
                 clients the ports"
                    .into(),
            ));
        }
        let mut changes = changes(&ours, &listed).await?;
        if version == Version::Two {
            // It forgets a program's version for all transports at once: all are registered anew.
            let unset = std::mem::take(&mut changes.unset);
            let again = |b: &&Binding| {
                !changes.set.contains(b)
                    && unset.iter().any(|u| (u.prog, u.vers) == (b.prog, b.vers))
            };
            let again: Vec<_> = ours.iter().filter(again).copied().collect();
            changes.set.extend(again);
            changes.unset = unset;
        }
        for binding in &changes.unset {
            self.unset(version, binding).await?;
        }
        for binding in &changes.set {
            self.set(version, binding).await?;
        }
        Ok(Registered {
            anew: changes.set.len(),
            other_nlm: changes.other_nlm,
        })
    }

    /// Withdraws what is ours.
    pub async fn withdraw(&self, bindings: &[Binding]) {
        let (version, listed) = match self.listed().await {
            Ok(found) => found,
            Err(why) => {
                warn!(%why, "cannot withdraw the registrations from rpcbind");
                return;
            }
        };
        let mut ours = version.expressible(bindings);
        ours.retain(|binding| listed.contains(binding));
        for binding in ours {
            if let Err(why) = self.unset(version, &binding).await {
                warn!(%why, "cannot withdraw a registration from rpcbind");
            }
        }
    }

    /// What is registered, and by which version that was said.
    async fn listed(&self) -> Result<(Version, Vec<Binding>), Refused> {
        let dump = rpcbind::Procedure::Dump.to_wire();
        if let Some(body) = self.call(Version::Four, dump, Gather::new()).await? {
            let Rpcblist(all) = understood(body)?;
            let found = all.iter().filter_map(ip_binding).collect();
            return Ok((Version::Four, found));
        }
        let dump = portmap::Procedure::Dump.to_wire();
        let Pmaplist(all) = self.ask(Version::Two, dump, Gather::new()).await?;
        Ok((Version::Two, all.iter().filter_map(as_listed).collect()))
    }

    async fn set(&self, version: Version, binding: &Binding) -> Result<(), Refused> {
        let (proc, args) = match version {
            Version::Two => (
                portmap::Procedure::Set.to_wire(),
                encode_all(&binding.mapping()),
            ),
            Version::Four => (
                rpcbind::Procedure::Set.to_wire(),
                encode_all(&binding.rpcb()),
            ),
        };
        if self.ask::<bool>(version, proc, args).await? {
            return Ok(());
        }
        let Binding { prog, vers, .. } = binding;
        Err(Refused::Rpcbind(format!(
            "rpcbind refuses program {prog} version {vers}: somebody else's registration is in the way (see \
             `rpcinfo`, remove it with `rpcinfo -d {prog} {vers}`)"
        )))
    }

    /// Version 4 forgets one network's entry, version 2 those of all.
    async fn unset(&self, version: Version, binding: &Binding) -> Result<(), Refused> {
        let (proc, args) = match version {
            Version::Two => (
                portmap::Procedure::Unset.to_wire(),
                encode_all(&binding.mapping()),
            ),
            Version::Four => (
                rpcbind::Procedure::Unset.to_wire(),
                encode_all(&binding.rpcb()),
            ),
        };
        // False: there was nothing, or somebody else's, which SET will say.
        self.ask::<bool>(version, proc, args).await.map(|_| ())
    }

    async fn ask<T: Decode>(
        &self,
        version: Version,
        proc: u32,
        args: Gather,
    ) -> Result<T, Refused> {
        match self.call(version, proc, args).await? {
            Some(body) => understood(body),
            None => Err(Refused::Rpcbind(format!(
                "rpcbind does not speak version {}",
                version.number()
            ))),
        }
    }

    /// The results; `None` if rpcbind does not speak this version.
    async fn call(
        &self,
        version: Version,
        proc: u32,
        args: Gather,
    ) -> Result<Option<Bytes>, Refused> {
        let path = self.socket.display();
        match timeout(PATIENCE, exchange(&self.socket, version, proc, args)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(why)) => Err(Refused::Rpcbind(format!("rpcbind at {path}: {why}"))),
            Err(_) => Err(Refused::Rpcbind(format!(
                "rpcbind at {path} does not answer"
            ))),
        }
    }
}

/// What makes the registrations `listed` ours: nothing that is right already, and nothing of a living server.
async fn changes(ours: &[Binding], listed: &[Binding]) -> Result<Changes, Refused> {
    let mut unset = Vec::new();
    let mut other_nlm = None;
    let program = |b: &Binding| (b.prog, b.vers);
    let of_ours = |l: &&Binding| ours.iter().any(|b| program(b) == program(l));
    for found in listed.iter().filter(of_ours).filter(|l| !ours.contains(l)) {
        let same = |b: &&Binding| b.netid == found.netid && program(b) == program(found);
        let own = ours.iter().find(same);
        // Who listens on a port at every address is who is found there.
        let self_found =
            own.is_some_and(|b| b.addr.ip.is_unspecified() && b.addr.port == found.addr.port);
        if self_found || !alive(found.addr).await {
            unset.push(*found);
        } else if found.prog == nlm::PROGRAM {
            other_nlm = Some(found.addr.port);
        } else if own.is_some() {
            let Binding {
                prog, vers, addr, ..
            } = *found;
            return Err(Refused::Taken {
                prog,
                vers,
                port: addr.port,
            });
        }
    }
    if other_nlm.is_some() {
        // Also what it has on ports that were not found alive: UDP is not looked at.
        unset.retain(|b: &Binding| b.prog != nlm::PROGRAM);
    }
    let is_left = |b: &&Binding| b.prog == nlm::PROGRAM && other_nlm.is_some();
    let set = ours
        .iter()
        .filter(|b| !listed.contains(b) && !is_left(b))
        .copied()
        .collect();
    Ok(Changes {
        unset,
        set,
        other_nlm,
    })
}

/// What is registered for an IP network; of others nothing is ours.
fn ip_binding(rpcb: &Rpcb) -> Option<Binding> {
    Some(Binding {
        prog: rpcb.prog,
        vers: rpcb.vers,
        netid: Netid::from_name(&rpcb.netid.0)?,
        addr: Uaddr::parse(&rpcb.addr.0).ok()?,
    })
}

/// What version 2 says: every address of the machine.
fn as_listed(mapping: &Mapping) -> Option<Binding> {
    let netid = match mapping.prot {
        IPPROTO_TCP => Netid::Tcp,
        IPPROTO_UDP => Netid::Udp,
        _ => return None,
    };
    let (ip, port) = (
        Ipv4Addr::UNSPECIFIED.into(),
        u16::try_from(mapping.port).ok()?,
    );
    Some(Binding {
        prog: mapping.prog,
        vers: mapping.vers,
        netid,
        addr: Uaddr { ip, port },
    })
}

fn understood<T: Decode>(body: Bytes) -> Result<T, Refused> {
    decode_all(body).map_err(|e| Refused::Rpcbind(format!("rpcbind answers strangely: {e}")))
}

async fn exchange(
    socket: &Path,
    version: Version,
    proc: u32,
    args: Gather,
) -> io::Result<Option<Bytes>> {
    let mut stream = UnixStream::connect(socket).await?;
    let (xid, vers) = (1, version.number());
    let call = encode_call(xid, portmap::PROGRAM, vers, proc, &Credential::None, args);
    stream.write_all(&record::frame(call).into_bytes()).await?;
    let reply = decode_reply(receive(&mut stream).await?).map_err(|e| garbage(e.to_string()))?;
    match reply.outcome {
        _ if reply.xid != xid => Err(garbage("the answer to another call".into())),
        Outcome::Success(body) => Ok(Some(body)),
        Outcome::Error(AcceptError::ProgMismatch { .. }) => Ok(None),
        other => Err(garbage(format!("refused: {other:?}"))),
    }
}

/// A whole record: a long list comes in several fragments.
async fn receive(stream: &mut UnixStream) -> io::Result<Bytes> {
    let mut reply = BytesMut::new();
    loop {
        let mut mark = [0; record::HEADER_BYTES];
        stream.read_exact(&mut mark).await?;
        let header = FragmentHeader::parse(mark);
        let (start, end) = (reply.len(), reply.len().saturating_add(header.len as usize));
        if end > REPLY_BYTES_MAX {
            return Err(garbage(format!("a reply of {end} bytes or more")));
        }
        reply.resize(end, 0);
        if let Some(fragment) = reply.get_mut(start..) {
            stream.read_exact(fragment).await?;
        }
        if header.last {
            return Ok(reply.freeze());
        }
    }
}

fn garbage(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Whether somebody listens there, over TCP. (One that listens on UDP only is not noticed; no NFS server does.)
async fn alive(addr: Uaddr) -> bool {
    let ip = match addr.ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let connected = TcpStream::connect(SocketAddr::new(ip, addr.port));
    matches!(timeout(PATIENCE, connected).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use haven_rpc::{accept_error, accepted, decode_call};
    use parking_lot::Mutex;
    use std::sync::Arc;
    use tokio::net::UnixListener;

    type Table = Arc<Mutex<Vec<Mapping>>>;

    /// Answers as an rpcbind of version 2 does that knows no other, in fragments of a few bytes.
    async fn serve(listener: UnixListener, table: Table) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let call = decode_call(receive(&mut stream).await.unwrap()).unwrap();
            let reply = if call.vers == portmap::VERSION {
                accepted(call.xid, answer(&call, &mut table.lock()))
            } else {
                let (low, high) = (portmap::VERSION, portmap::VERSION);
                accept_error(call.xid, AcceptError::ProgMismatch { low, high })
            };
            let reply = reply.into_bytes();
            let mut parts = reply.chunks(7).peekable();
            while let Some(part) = parts.next() {
                let (len, last) = (part.len() as u32, parts.peek().is_none());
                let mark = FragmentHeader { last, len }.encode();
                stream.write_all(&[&mark[..], part].concat()).await.unwrap();
            }
        }
    }

    fn answer(call: &haven_rpc::Call, table: &mut Vec<Mapping>) -> Gather {
        let procedure = portmap::Procedure::from_wire(call.proc).unwrap();
        if procedure == portmap::Procedure::Dump {
            return encode_all(&Pmaplist(table.clone()));
        }
        let asked: Mapping = decode_all(call.args.clone()).unwrap();
        let before = table.len();
        match procedure {
            portmap::Procedure::Unset => {
                table.retain(|m| (m.prog, m.vers) != (asked.prog, asked.vers));
            }
            portmap::Procedure::Set => {
                let key = |m: &Mapping| (m.prog, m.vers, m.prot);
                if !table.iter().any(|m| key(m) == key(&asked)) {
                    table.push(asked);
                }
            }
            other => panic!("not asked by us: {other:?}"),
        }
        encode_all(&(table.len() != before))
    }

    fn binding(prog: u32, netid: Netid, addr: &str) -> Binding {
        let addr = addr.parse().unwrap();
        Binding {
            prog,
            vers: 3,
            netid,
            addr,
        }
    }

    #[tokio::test]
    async fn an_rpcbind_of_version_2_is_told_what_it_understands() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("rpcbind.sock");
        let table = Table::default();
        let serving = serve(UnixListener::bind(&socket).unwrap(), Arc::clone(&table));
        let serving = tokio::spawn(serving);
        let rpcbind = Rpcbind { socket };
        assert!(rpcbind.runs().await);
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let mapping = |prog, prot, port| Mapping {
            prog,
            vers: 3,
            prot,
            port,
        };
        let foreign = mapping(7, IPPROTO_UDP, 9);
        let ours = [
            binding(5, Netid::Tcp, "0.0.0.0.1.0"),
            binding(5, Netid::Udp, "0.0.0.0.1.0"),
            binding(6, Netid::Tcp, "0.0.0.0.1.0"),
            binding(5, Netid::Tcp6, "::.1.0"),
        ];
        let told = [
            mapping(5, IPPROTO_TCP, 256),
            mapping(5, IPPROTO_UDP, 256),
            mapping(6, IPPROTO_TCP, 256),
        ];
        let sorted = |table: &Table| {
            let mut all = table.lock().clone();
            all.sort_by_key(|m| (m.prog, m.prot));
            all
        };
        // The entry for UDP is right; it goes with that for TCP, and must come back.
        *table.lock() = vec![mapping(5, IPPROTO_TCP, port.into()), told[1], foreign];
        let (prog, vers) = (5, 3);
        let taken = Err(Refused::Taken { prog, vers, port });
        assert_eq!(rpcbind.register(&ours).await, taken);
        assert_eq!(table.lock().len(), 3, "left alone");
        drop(other);
        let registered = |anew| {
            let other_nlm = None;
            Ok(Registered { anew, other_nlm })
        };
        assert_eq!(rpcbind.register(&ours).await, registered(3));
        assert_eq!(sorted(&table), [&told[..], &[foreign]].concat());
        assert_eq!(rpcbind.register(&ours).await, registered(0));
        rpcbind.withdraw(&ours).await;
        assert_eq!(sorted(&table), [foreign]);
        let why = rpcbind.register(&ours[3..]).await.unwrap_err().to_string();
        assert!(why.contains("no IPv6"), "{why}");
        serving.abort();
    }

    /// The kernel's lock manager has one port for TCP and another for UDP.
    #[tokio::test]
    async fn all_that_a_lock_manager_has_registered_stays() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("rpcbind.sock");
        let table = Table::default();
        let serving = serve(UnixListener::bind(&socket).unwrap(), Arc::clone(&table));
        let serving = tokio::spawn(serving);
        let rpcbind = Rpcbind { socket };
        let lockd = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = lockd.local_addr().unwrap().port();
        let mapping = |prog, prot, port| Mapping {
            prog,
            vers: 3,
            prot,
            port,
        };
        let theirs = [
            mapping(nlm::PROGRAM, IPPROTO_UDP, 9),
            mapping(nlm::PROGRAM, IPPROTO_TCP, port.into()),
        ];
        *table.lock() = theirs.to_vec();
        let ours = [
            binding(5, Netid::Tcp, "0.0.0.0.1.0"),
            binding(nlm::PROGRAM, Netid::Tcp, "0.0.0.0.1.0"),
            binding(nlm::PROGRAM, Netid::Udp, "0.0.0.0.1.1"),
        ];
        for anew in [1, 0] {
            let other_nlm = Some(port);
            let registered = Ok(Registered { anew, other_nlm });
            assert_eq!(rpcbind.register(&ours).await, registered);
        }
        let all = [&theirs[..], &[mapping(5, IPPROTO_TCP, 256)]].concat();
        assert_eq!(*table.lock(), all);
        drop(lockd);
        let other_nlm = None;
        let registered = Ok(Registered { anew: 2, other_nlm });
        assert_eq!(rpcbind.register(&ours).await, registered);
        assert!(!table.lock().contains(&theirs[0]));
        serving.abort();
    }
}
