//! Port mapper, version 2 (RFC 1833 section 3): tells clients on which port a program listens. Its later
//! versions are [`rpcbind`](crate::rpcbind).

use bytes::Bytes;
use haven_xdr::Xdr;

/// Program number.
pub const PROGRAM: u32 = 100_000;
/// The version spoken here.
pub const VERSION: u32 = 2;
/// The well-known port.
pub const PORT: u16 = 111;
/// `prot` of a mapping: TCP.
pub const IPPROTO_TCP: u32 = 6;
/// `prot` of a mapping: UDP.
pub const IPPROTO_UDP: u32 = 17;
/// Most mappings accepted in a DUMP reply.
pub const MAPPINGS_MAX: usize = 1024;
/// Most bytes of arguments or results that are passed on for others.
pub const CALLIT_BYTES_MAX: usize = 8 * 1024;

/// Procedures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Xdr)]
#[repr(u32)]
#[xdr(name = "portmap procedure")]
pub enum Procedure {
    /// Does nothing.
    Null = 0,
    /// [`Mapping`] -> bool.
    Set = 1,
    /// [`Mapping`] -> bool.
    Unset = 2,
    /// [`Mapping`] (its port is ignored) -> u32, 0 if not registered.
    Getport = 3,
    /// void -> [`Pmaplist`].
    Dump = 4,
    /// [`CallArgs`] -> [`CallResult`]; no reply at all if the call fails.
    Callit = 5,
}

/// A program's transport address: arguments of SET, UNSET and GETPORT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Xdr)]
pub struct Mapping {
    /// Program number.
    pub prog: u32,
    /// Version of the program.
    pub vers: u32,
    /// [`IPPROTO_TCP`] or [`IPPROTO_UDP`].
    pub prot: u32,
    /// Port number (32 bits on the wire).
    pub port: u32,
}

/// Result of DUMP: all mappings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Xdr)]
pub struct Pmaplist(#[xdr(list, max = MAPPINGS_MAX)] pub Vec<Mapping>);

/// A call to be made for the caller (`call_args`): arguments of CALLIT.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct CallArgs {
    /// Program number.
    pub prog: u32,
    /// Version of the program.
    pub vers: u32,
    /// Procedure within the program.
    pub proc: u32,
    /// The procedure's arguments, encoded.
    #[xdr(max = CALLIT_BYTES_MAX)]
    pub args: Bytes,
}

/// What the call answered (`call_result`).
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct CallResult {
    /// The program's port.
    pub port: u32,
    /// The procedure's results, encoded.
    #[xdr(max = CALLIT_BYTES_MAX)]
    pub res: Bytes,
}
