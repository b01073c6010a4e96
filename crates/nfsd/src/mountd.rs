//! MOUNT, versions 1 and 3 (RFC 1813 appendix I): gives out the first handle.
//!
//! Only exported directories and what is below them can be mounted. What is not exported to a client is
//! refused before it is looked for, so that nobody learns what exists. MNT, UMNT and UMNTALL that change
//! the table of mounts are log entries; those that find it as they want it are queries. So are all that come in
//! datagrams: anybody can write any address into one, to fill the table, push others' rows out or take them away.
//! They are answered as the others, and not noted.
//!
//! It must not know NFS procedures.

use crate::classify::{Prepared, Request, Service, reply};
use crate::entry::{Entry, MountEntry, MountOp};
use crate::exports::{Denied, Exports, Origin, Transport, normal_path};
use crate::handle::{ExportId, HANDLE_BYTES, Target};
use crate::identity::Identity;
use crate::mounts::Mounts;
use crate::{Fatal, export};
use bytes::Bytes;
use haven_fs::{Filesystem, FsError, Time};
use haven_proto::mount::{
    Dirpath, EXPORTS_MAX, Exportnode, Fhandle3, Fhstatus, GROUPS_MAX, MOUNTLIST_MAX, MountOk,
    Mountbody, Mountlist, Mountres3, Mountstat3, Name, Procedure, VERSION1,
};
use haven_rpc::{AcceptError, Call};
use haven_xdr::{Decode, Gather, decode_all, encode_all};
use std::net::IpAddr;

/// `AUTH_SYS`.
const AUTH_SYS: u32 = 1;

/// What came of a MNT: a handle, or why not.
pub(crate) type Mounted = Result<[u8; HANDLE_BYTES], Mountstat3>;

/// What is to be done about a MOUNT call.
pub(crate) fn prepare(
    call: &Call,
    origin: Origin<'_>,
    service: &Service,
    now: Time,
) -> Result<Prepared, AcceptError> {
    let procedure = Procedure::from_wire(call.proc).ok_or(AcceptError::ProcUnavail)?;
    let op = match procedure {
        Procedure::Null => return Ok(reply(call, Gather::new())),
        Procedure::Export => return Ok(reply(call, encode_all(&list(&service.exports)))),
        Procedure::Dump => return Ok(Prepared::Query(Request::Dump { xid: call.xid })),
        Procedure::Mnt => {
            let Dirpath(path) = args(call)?;
            let version = call.vers;
            match letting_in(&path, origin, &service.exports) {
                Ok(export) => MountOp::Mnt {
                    version,
                    export,
                    path,
                },
                Err(NotLetIn::WantsNames) => return Ok(Prepared::WantsNames),
                Err(NotLetIn::Status(status)) => {
                    return Ok(reply(call, mnt_result(version, Err(status))));
                }
            }
        }
        Procedure::Umnt => {
            let Dirpath(path) = args(call)?;
            MountOp::Umnt { path }
        }
        Procedure::Umntall => MountOp::Umntall,
    };
    let (xid, client) = (call.xid, origin.peer.ip().to_canonical());
    if origin.transport == Transport::Datagram {
        return Ok(Prepared::Query(Request::Mount { xid, client, op }));
    }
    let entry = Entry::Mount(MountEntry {
        time: now,
        client,
        xid,
        op: op.clone(),
    });
    let entry = entry.encode().map_err(|_| AcceptError::GarbageArgs)?;
    let request = Request::Mount { xid, client, op };
    Ok(Prepared::Mount { request, entry })
}

enum NotLetIn {
    Status(Mountstat3),
    WantsNames,
}

fn letting_in(path: &[u8], origin: Origin<'_>, exports: &Exports) -> Result<ExportId, NotLetIn> {
    let names = export::components(path).map_err(|error| NotLetIn::Status(status(&error)))?;
    exports.covering(&names, origin).map_err(|why| match why {
        Denied::Unasked => NotLetIn::WantsNames,
        Denied::Nobody | Denied::Port | Denied::Late => NotLetIn::Status(Mountstat3::Acces),
    })
}

/// Whether a request leaves the table of mounts as it is.
pub(crate) fn changes_nothing(
    fs: &impl Filesystem,
    mounts: &Mounts,
    client: IpAddr,
    op: &MountOp,
) -> bool {
    match op {
        MountOp::Mnt { path, .. } => {
            let known = normal_path(path).is_some_and(|path| mounts.has(client, &path));
            known || find(fs, path).is_err()
        }
        MountOp::Umnt { path } => !normal_path(path).is_some_and(|path| mounts.has(client, &path)),
        MountOp::Umntall => !mounts.has_any(client),
    }
}

/// The handle for a client that `export` lets in.
pub(crate) fn mnt(
    fs: &impl Filesystem,
    identity: &Identity,
    export: ExportId,
    path: &[u8],
) -> Result<Mounted, Fatal> {
    match find(fs, path) {
        Ok((ino, generation)) => Ok(Ok(identity.handles().encode(Target {
            export,
            ino,
            generation,
        }))),
        Err(FsError::Fatal(why)) => Err(Fatal(why)),
        Err(error) => Ok(Err(status(&error))),
    }
}

/// The result of MNT.
pub(crate) fn mnt_result(version: u32, mounted: Mounted) -> Gather {
    if version == VERSION1 {
        // The values of both versions are those of errno.
        let result = mounted.map_or_else(|status| Fhstatus::Fail(status.to_wire()), Fhstatus::Ok);
        return encode_all(&result);
    }
    let result = mounted.map_or_else(Mountres3::Fail, |handle| {
        let fhandle = Fhandle3(Bytes::copy_from_slice(&handle));
        Mountres3::Ok(MountOk {
            fhandle,
            auth_flavors: vec![AUTH_SYS],
        })
    });
    encode_all(&result)
}

/// The result of DUMP.
pub(crate) fn dump(mounts: &Mounts) -> Gather {
    let body = |(client, path): (IpAddr, &Bytes)| Mountbody {
        hostname: Name(client.to_string().into()),
        directory: Dirpath(path.clone()),
    };
    encode_all(&Mountlist(
        mounts.rows().take(MOUNTLIST_MAX).map(body).collect(),
    ))
}

/// The result of EXPORT.
fn list(exports: &Exports) -> haven_proto::mount::Exports {
    let node = |export: &crate::Export| Exportnode {
        dir: Dirpath(export.path.clone()),
        groups: (export.clients.iter().take(GROUPS_MAX))
            .map(|client| Name(client.who.to_string().into()))
            .collect(),
    };
    haven_proto::mount::Exports(exports.configured().take(EXPORTS_MAX).map(node).collect())
}

fn find(fs: &impl Filesystem, path: &[u8]) -> Result<(haven_fs::Ino, u32), FsError> {
    let dir = export::find(fs, &export::components(path)?)?;
    Ok((dir.ino, dir.generation))
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

fn args<T: Decode>(call: &Call) -> Result<T, AcceptError> {
    decode_all(call.args.clone()).map_err(|_| AcceptError::GarbageArgs)
}
