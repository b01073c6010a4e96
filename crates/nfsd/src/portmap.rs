//! The port mapper, for clients that ask before they mount: portmap version 2 (RFC 1833 section 3) and rpcbind
//! versions 3 and 4 (section 2), from a fixed table. Nobody registers anything here, no call is passed on for others
//! (that hides who asks, and multiplies traffic), and nothing is counted.
//!
//! Whoever asks by rpcbind gets an address: the one asked at, so that a client of a floating address stays with it.
//!
//! It must not know which sockets there are: what is in the table is what is told.

use crate::classify::args;
use crate::exports::{Origin, Transport};
use bytes::Bytes;
use haven_fs::Time;
use haven_proto::portmap::{
    self, IPPROTO_TCP, IPPROTO_UDP, MAPPINGS_MAX, Mapping, Pmaplist, Procedure,
};
use haven_proto::rpcbind::{
    self, ENTRY_LIST_MAX, Netid, Owner, ProtoName, RPCB_LIST_MAX, Rpcb, RpcbEntry, RpcbEntryList,
    Rpcblist, Semantics, Uaddr, UaddrText,
};
use haven_rpc::{AcceptError, Call};
use haven_xdr::{Gather, encode_all};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// GETPORT's answer for a program that is not there.
const NO_PORT: u32 = 0;
/// Who registered all programs.
const OWNER: &[u8] = b"haven";

/// Where a version of a program listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binding {
    /// Program number.
    pub prog: u32,
    /// Version of the program.
    pub vers: u32,
    /// Over which network.
    pub netid: Netid,
    /// Where: an unspecified host is every address of this machine.
    pub addr: Uaddr,
}

impl Binding {
    /// For version 2, which does not tell families apart.
    pub fn mapping(&self) -> Mapping {
        Mapping {
            prog: self.prog,
            vers: self.vers,
            prot: match self.netid {
                Netid::Tcp | Netid::Tcp6 => IPPROTO_TCP,
                Netid::Udp | Netid::Udp6 => IPPROTO_UDP,
            },
            port: self.addr.port.into(),
        }
    }

    /// For versions 3 and 4.
    pub fn rpcb(&self) -> Rpcb {
        Rpcb {
            prog: self.prog,
            vers: self.vers,
            netid: self.netid.into(),
            addr: self.addr.into(),
            owner: Owner(Bytes::from_static(OWNER)),
        }
    }

    /// As GETADDRLIST tells it, with the address to be used.
    fn entry(&self, addr: Uaddr) -> RpcbEntry {
        let name = |text: &'static str| ProtoName(Bytes::from_static(text.as_bytes()));
        let (semantics, family, proto) = match self.netid {
            Netid::Tcp => (Semantics::CotsOrd, "inet", "tcp"),
            Netid::Udp => (Semantics::Clts, "inet", "udp"),
            Netid::Tcp6 => (Semantics::CotsOrd, "inet6", "tcp"),
            Netid::Udp6 => (Semantics::Clts, "inet6", "udp"),
        };
        RpcbEntry {
            maddr: addr.into(),
            nc_netid: self.netid.into(),
            nc_semantics: semantics,
            nc_protofmly: name(family),
            nc_proto: name(proto),
        }
    }
}

/// The result of a call of version 2, 3 or 4, which was received at `now`.
pub(crate) fn answer(
    call: &Call,
    origin: Origin<'_>,
    table: &[Binding],
    now: Time,
) -> Result<Gather, AcceptError> {
    if call.vers == portmap::VERSION {
        return answer2(call, table);
    }
    let procedure = rpcbind::Procedure::from_wire(call.proc)
        .filter(|procedure| procedure.is_in(call.vers))
        .ok_or(AcceptError::ProcUnavail)?;
    let asker = Asker::new(origin);
    Ok(match procedure {
        rpcbind::Procedure::Null => Gather::new(),
        rpcbind::Procedure::Set | rpcbind::Procedure::Unset => {
            args::<Rpcb>(call)?;
            encode_all(&false)
        }
        rpcbind::Procedure::Getaddr => {
            let wanted = args::<Rpcb>(call)?;
            encode_all(&asker.address(&wanted, asker.any_version(&wanted, table)))
        }
        rpcbind::Procedure::Getversaddr => {
            let wanted = args::<Rpcb>(call)?;
            encode_all(&asker.address(&wanted, asker.version(&wanted, table)))
        }
        rpcbind::Procedure::Dump => {
            let all = table.iter().take(RPCB_LIST_MAX);
            encode_all(&Rpcblist(all.map(Binding::rpcb).collect()))
        }
        rpcbind::Procedure::Gettime => {
            encode_all(&u32::try_from(now.secs.max(0)).unwrap_or(u32::MAX))
        }
        rpcbind::Procedure::Getaddrlist => encode_all(&asker.list(&args::<Rpcb>(call)?, table)),
        // A transport address is a structure of one system's kernel, which says nothing to another.
        rpcbind::Procedure::Uaddr2taddr | rpcbind::Procedure::Taddr2uaddr => {
            return Err(AcceptError::ProcUnavail);
        }
        rpcbind::Procedure::Bcast | rpcbind::Procedure::Indirect | rpcbind::Procedure::Getstat => {
            return Err(AcceptError::ProcUnavail);
        }
    })
}

fn answer2(call: &Call, table: &[Binding]) -> Result<Gather, AcceptError> {
    let procedure = Procedure::from_wire(call.proc).ok_or(AcceptError::ProcUnavail)?;
    let mapping = || args::<Mapping>(call);
    Ok(match procedure {
        Procedure::Null => Gather::new(),
        Procedure::Set | Procedure::Unset => {
            mapping()?;
            encode_all(&false)
        }
        Procedure::Getport => {
            let wanted = mapping()?;
            let same =
                |m: &Mapping| (m.prog, m.vers, m.prot) == (wanted.prog, wanted.vers, wanted.prot);
            let found = table.iter().map(Binding::mapping).find(same);
            encode_all(&found.map_or(NO_PORT, |found| found.port))
        }
        Procedure::Dump => encode_all(&dump2(table)),
        Procedure::Callit => return Err(AcceptError::ProcUnavail),
    })
}

/// The mappings, once each: with both families on one port there are two bindings for one.
fn dump2(table: &[Binding]) -> Pmaplist {
    let mut all: Vec<Mapping> = Vec::new();
    for mapping in table.iter().take(MAPPINGS_MAX).map(Binding::mapping) {
        if !all.contains(&mapping) {
            all.push(mapping);
        }
    }
    Pmaplist(all)
}

/// Who asks by rpcbind: over which network, and at which address.
struct Asker {
    netid: Netid,
    /// `None`: not known.
    host: Option<IpAddr>,
}

impl Asker {
    /// A client of a socket for both families counts as what it is.
    fn new(origin: Origin<'_>) -> Self {
        let peer = origin.peer.ip().to_canonical();
        let netid = match origin.transport {
            Transport::Stream => Netid::tcp_of(peer),
            Transport::Datagram => Netid::udp_of(peer),
        };
        let host = origin.local.to_canonical();
        let known = !host.is_unspecified() && netid.carries(host);
        Self {
            netid,
            host: known.then_some(host),
        }
    }

    /// GETADDR. The network is the one the call came over, whatever its argument says (RFC 1833 section 2.2.1). A
    /// client that does not know the versions asks for any: where another is found, the program itself says which.
    fn any_version<'t>(&self, wanted: &Rpcb, table: &'t [Binding]) -> Option<&'t Binding> {
        let same = |b: &&Binding| (b.prog, b.netid) == (wanted.prog, self.netid);
        self.version(wanted, table)
            .or_else(|| table.iter().find(same))
    }

    /// GETVERSADDR.
    fn version<'t>(&self, wanted: &Rpcb, table: &'t [Binding]) -> Option<&'t Binding> {
        let same =
            |b: &&Binding| (b.prog, b.vers, b.netid) == (wanted.prog, wanted.vers, self.netid);
        table.iter().find(same)
    }

    /// Empty if there is none.
    fn address(&self, wanted: &Rpcb, found: Option<&Binding>) -> UaddrText {
        found.map_or_else(UaddrText::default, |b| self.merged(wanted, b).into())
    }

    /// GETADDRLIST: all networks of the family asked over. Of the other, the client has shown no address.
    fn list(&self, wanted: &Rpcb, table: &[Binding]) -> RpcbEntryList {
        let family = unspecified(self.netid);
        let fits = |b: &&Binding| {
            (b.prog, b.vers) == (wanted.prog, wanted.vers) && b.netid.carries(family)
        };
        let found = table.iter().filter(fits).take(ENTRY_LIST_MAX);
        RpcbEntryList(found.map(|b| b.entry(self.merged(wanted, b))).collect())
    }

    /// Where to go: an unspecified host becomes the address asked at, else the one the client names as such.
    fn merged(&self, wanted: &Rpcb, binding: &Binding) -> Uaddr {
        let named = || {
            let named = Uaddr::parse(&wanted.addr.0).ok()?.ip;
            self.netid.carries(named).then_some(named)
        };
        let Uaddr { ip, port } = binding.addr;
        if !ip.is_unspecified() {
            return binding.addr;
        }
        let ip = self.host.or_else(named).unwrap_or(ip);
        Uaddr { ip, port }
    }
}

/// Every address of the network's family.
const fn unspecified(netid: Netid) -> IpAddr {
    match netid {
        Netid::Tcp | Netid::Udp => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Netid::Tcp6 | Netid::Udp6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
