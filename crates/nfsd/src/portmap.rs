//! The port mapper, version 2 (RFC 1833 section 3), from a fixed table: for clients that ask before
//! they mount. Nobody registers anything here.

use haven_proto::portmap::{MAPPINGS_MAX, Mapping, Pmaplist, Procedure};
use haven_rpc::{AcceptError, Call};
use haven_xdr::{Gather, decode_all, encode_all};

/// GETPORT's answer for a program that is not there.
const NO_PORT: u32 = 0;

/// The result of a call.
pub(crate) fn answer(call: &Call, table: &[Mapping]) -> Result<Gather, AcceptError> {
    let procedure = Procedure::from_wire(call.proc).ok_or(AcceptError::ProcUnavail)?;
    let mapping = || decode_all::<Mapping>(call.args.clone()).map_err(|_| AcceptError::GarbageArgs);
    Ok(match procedure {
        Procedure::Null => Gather::new(),
        Procedure::Set | Procedure::Unset => {
            mapping()?;
            encode_all(&false)
        }
        Procedure::Getport => {
            let wanted = mapping()?;
            let same =
                |m: &&Mapping| (m.prog, m.vers, m.prot) == (wanted.prog, wanted.vers, wanted.prot);
            encode_all(&table.iter().find(same).map_or(NO_PORT, |found| found.port))
        }
        Procedure::Dump => encode_all(&Pmaplist(
            table.iter().take(MAPPINGS_MAX).copied().collect(),
        )),
        // Calls made for others hide who asks and multiply traffic.
        Procedure::Callit => return Err(AcceptError::ProcUnavail),
    })
}
