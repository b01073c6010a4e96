//! MOUNT, versions 1 and 3 (RFC 1813 appendix I): gives out the first handle.
//!
//! Only exported directories and what is below them can be mounted. What is not exported is refused
//! before it is looked for, so that nobody learns what exists. DUMP tells what the leader happens to
//! know: the protocol itself says that it is a hint (clients come and go without UMNT).
//!
//! It must not know NFS procedures.

use crate::classify::{Prepared, Request, Service, reply};
use crate::handle::Target;
use crate::identity::Identity;
use crate::{Fatal, export};
use bytes::Bytes;
use haven_fs::{Filesystem, FsError};
use haven_proto::mount::{
    Dirpath, EXPORTS_MAX, Exportnode, Exports, Fhandle3, Fhstatus, MOUNTLIST_MAX, MountOk,
    Mountlist, Mountres3, Mountstat3, Procedure, VERSION1,
};
use haven_rpc::{AcceptError, Call};
use haven_xdr::{Decode, Gather, decode_all, encode_all};
use std::sync::Arc;

/// `AUTH_SYS`.
const AUTH_SYS: u32 = 1;

/// What is to be done about a MOUNT call.
pub(crate) fn prepare(call: &Call, service: &Service) -> Result<Prepared, AcceptError> {
    let procedure = Procedure::from_wire(call.proc).ok_or(AcceptError::ProcUnavail)?;
    let body = match procedure {
        Procedure::Mnt => {
            let Dirpath(path) = args(call)?;
            let (xid, version) = (call.xid, call.vers);
            let exports = Arc::clone(&service.exports);
            return Ok(Prepared::Query(Request::Mnt {
                xid,
                version,
                path,
                exports,
            }));
        }
        Procedure::Umnt => {
            args::<Dirpath>(call)?;
            Gather::new()
        }
        Procedure::Null | Procedure::Umntall => Gather::new(),
        Procedure::Dump => {
            let known = service.mounts.0.iter().take(MOUNTLIST_MAX).cloned();
            encode_all(&Mountlist(known.collect()))
        }
        Procedure::Export => encode_all(&exports(&service.exports)),
    };
    Ok(reply(call, body))
}

/// The result of MNT.
pub(crate) fn mnt(
    fs: &impl Filesystem,
    identity: &Identity,
    version: u32,
    path: &[u8],
    exports: &[Bytes],
) -> Result<Gather, Fatal> {
    let found = match resolve(fs, path, exports) {
        Ok(target) => Ok(identity.handles().encode(target)),
        Err(FsError::Fatal(why)) => return Err(Fatal(why)),
        Err(error) => Err(status(&error)),
    };
    if version == VERSION1 {
        // The values of both versions are those of errno.
        let result = found.map_or_else(|status| Fhstatus::Fail(status.to_wire()), Fhstatus::Ok);
        return Ok(encode_all(&result));
    }
    let result = found.map_or_else(Mountres3::Fail, |handle| {
        let fhandle = Fhandle3(Bytes::copy_from_slice(&handle));
        Mountres3::Ok(MountOk {
            fhandle,
            auth_flavors: vec![AUTH_SYS],
        })
    });
    Ok(encode_all(&result))
}

fn resolve(fs: &impl Filesystem, path: &[u8], exports: &[Bytes]) -> Result<Target, FsError> {
    let names = export::components(path)?;
    let exported = exports
        .iter()
        .any(|export| export::components(export).is_ok_and(|export| names.starts_with(&export)));
    if !exported {
        return Err(FsError::AccessDenied);
    }
    let dir = export::find(fs, &names)?;
    Ok(Target {
        ino: dir.ino,
        generation: dir.generation,
    })
}

fn status(error: &FsError) -> Mountstat3 {
    match error {
        FsError::NotFound | FsError::Stale => Mountstat3::NoEnt,
        FsError::NotDirectory => Mountstat3::NotDir,
        FsError::NameTooLong => Mountstat3::NameTooLong,
        // `..` in a path, say: not worth a status of its own.
        _ => Mountstat3::Acces,
    }
}

fn exports(paths: &[Bytes]) -> Exports {
    let node = |path: &Bytes| Exportnode {
        dir: Dirpath(path.clone()),
        groups: Vec::new(),
    };
    Exports(paths.iter().take(EXPORTS_MAX).map(node).collect())
}

fn args<T: Decode>(call: &Call) -> Result<T, AcceptError> {
    decode_all(call.args.clone()).map_err(|_| AcceptError::GarbageArgs)
}
