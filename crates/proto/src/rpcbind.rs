//! rpcbind, versions 3 and 4 (RFC 1833 section 2): tells clients at which address a program listens, for
//! any transport. Version 2, which knows ports only, is [`portmap`](crate::portmap).
//!
//! Universal addresses and network ids (RFC 5665) have their own types: on the wire any short string may
//! come, and what it says is a second question.

mod stat;
mod uaddr;

pub use stat::*;
pub use uaddr::{Netid, Uaddr, UaddrError};

use bytes::Bytes;
use haven_xdr::Xdr;

/// Program number, the same as portmap's.
pub const PROGRAM: u32 = 100_000;
/// Version 3.
pub const VERSION3: u32 = 3;
/// Version 4: version 3 and five procedures more.
pub const VERSION4: u32 = 4;
/// The well-known port.
pub const PORT: u16 = 111;
/// Longest network id that is decoded.
pub const NETID_BYTES_MAX: usize = 64;
/// Longest universal address that is decoded: those of local sockets are paths of up to 108 bytes.
pub const UADDR_BYTES_MAX: usize = 256;
/// Longest owner name that is decoded.
pub const OWNER_BYTES_MAX: usize = 256;
/// Longest name of a protocol or protocol family that is decoded.
pub const PROTO_NAME_BYTES_MAX: usize = 64;
/// Most entries accepted in a DUMP reply.
pub const RPCB_LIST_MAX: usize = 1024;
/// Most entries accepted in a GETADDRLIST reply.
pub const ENTRY_LIST_MAX: usize = 64;
/// Most bytes of arguments or results that are passed on for others.
pub const RMTCALL_BYTES_MAX: usize = 8 * 1024;
/// Longest transport address in a [`Netbuf`].
pub const NETBUF_BYTES_MAX: usize = 256;

/// Procedures. The numbers to 8 are those of version 3, where BCAST is called CALLIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Xdr)]
#[repr(u32)]
#[xdr(name = "rpcbind procedure")]
pub enum Procedure {
    /// Does nothing.
    Null = 0,
    /// [`Rpcb`] -> bool.
    Set = 1,
    /// [`Rpcb`] -> bool.
    Unset = 2,
    /// [`Rpcb`] (its address tells through which network the caller comes) -> [`UaddrText`], empty if not
    /// registered.
    Getaddr = 3,
    /// void -> [`Rpcblist`].
    Dump = 4,
    /// [`RmtcallArgs`] -> [`RmtcallRes`]; no reply at all if the call fails.
    Bcast = 5,
    /// void -> u32, seconds since the Unix epoch.
    Gettime = 6,
    /// [`UaddrText`] -> [`Netbuf`].
    Uaddr2taddr = 7,
    /// [`Netbuf`] -> [`UaddrText`].
    Taddr2uaddr = 8,
    /// As GETADDR, for the very version asked for. From here on version 4 only.
    Getversaddr = 9,
    /// As BCAST, but a call that fails is answered with an error.
    Indirect = 10,
    /// [`Rpcb`] -> [`RpcbEntryList`].
    Getaddrlist = 11,
    /// void -> [`RpcbStatByvers`].
    Getstat = 12,
}

impl Procedure {
    /// Whether this version of rpcbind has the procedure.
    pub const fn is_in(self, version: u32) -> bool {
        match version {
            VERSION3 => self.to_wire() <= Self::Taddr2uaddr.to_wire(),
            VERSION4 => true,
            _ => false,
        }
    }
}

/// A network id as it is on the wire: see [`Netid`] for those with a meaning here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Xdr)]
pub struct NetidText(#[xdr(max = NETID_BYTES_MAX)] pub Bytes);

/// A universal address as it is on the wire: see [`Uaddr`]. Empty: none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Xdr)]
pub struct UaddrText(#[xdr(max = UADDR_BYTES_MAX)] pub Bytes);

/// Who registered a program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Xdr)]
pub struct Owner(#[xdr(max = OWNER_BYTES_MAX)] pub Bytes);

/// Name of a protocol ("tcp") or a protocol family ("inet").
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Xdr)]
pub struct ProtoName(#[xdr(max = PROTO_NAME_BYTES_MAX)] pub Bytes);

/// A program's address (`rpcb`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Rpcb {
    /// Program number.
    pub prog: u32,
    /// Version of the program.
    pub vers: u32,
    /// Over which network.
    pub netid: NetidText,
    /// Where.
    pub addr: UaddrText,
    /// Who registered it.
    pub owner: Owner,
}

/// Result of DUMP (`rpcblist_ptr`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Xdr)]
pub struct Rpcblist(#[xdr(list, max = RPCB_LIST_MAX)] pub Vec<Rpcb>);

/// A call to be made for the caller (`rpcb_rmtcallargs`): arguments of BCAST and INDIRECT.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct RmtcallArgs {
    /// Program number.
    pub prog: u32,
    /// Version of the program.
    pub vers: u32,
    /// Procedure within the program.
    pub proc: u32,
    /// The procedure's arguments, encoded.
    #[xdr(max = RMTCALL_BYTES_MAX)]
    pub args: Bytes,
}

/// What the call answered (`rpcb_rmtcallres`).
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct RmtcallRes {
    /// The program's address.
    pub addr: UaddrText,
    /// The procedure's results, encoded.
    #[xdr(max = RMTCALL_BYTES_MAX)]
    pub results: Bytes,
}

/// An address as the server's transport has it (`netbuf`).
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct Netbuf {
    /// Room for the address, in bytes.
    pub maxlen: u32,
    /// The address.
    #[xdr(max = NETBUF_BYTES_MAX)]
    pub buf: Bytes,
}

/// `r_nc_semantics`: what kind of transport it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Xdr)]
#[repr(u32)]
#[xdr(name = "r_nc_semantics")]
pub enum Semantics {
    /// NC_TPI_CLTS: without connections.
    Clts = 1,
    /// NC_TPI_COTS: with connections.
    Cots = 2,
    /// NC_TPI_COTS_ORD: with connections that are closed in order.
    CotsOrd = 3,
    /// NC_TPI_RAW: raw.
    Raw = 4,
}

/// One of a program's addresses (`rpcb_entry`).
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct RpcbEntry {
    /// Where (`r_maddr`).
    pub maddr: UaddrText,
    /// Over which network.
    pub nc_netid: NetidText,
    /// What kind of transport that is.
    pub nc_semantics: Semantics,
    /// Its protocol family.
    pub nc_protofmly: ProtoName,
    /// Its protocol.
    pub nc_proto: ProtoName,
}

/// Result of GETADDRLIST (`rpcb_entry_list_ptr`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Xdr)]
pub struct RpcbEntryList(#[xdr(list, max = ENTRY_LIST_MAX)] pub Vec<RpcbEntry>);
