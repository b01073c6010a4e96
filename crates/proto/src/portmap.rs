//! Port mapper, version 2 (RFC 1833 section 3): tells clients on which port a program listens.

use haven_xdr::{Decode, Encode, Reader, Writer, XdrError, xdr_enum, xdr_struct};

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

/// Procedures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
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
}
xdr_enum!(Procedure, "portmap procedure" { Null, Set, Unset, Getport, Dump });

/// A program's transport address: arguments of SET, UNSET and GETPORT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
xdr_struct!(Mapping {
    prog,
    vers,
    prot,
    port
});

/// Result of DUMP: all mappings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pmaplist(pub Vec<Mapping>);

impl Encode for Pmaplist {
    fn encode(&self, w: &mut Writer) {
        w.put_list(&self.0);
    }
}

impl Decode for Pmaplist {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        r.list_of(MAPPINGS_MAX).map(Self)
    }
}
