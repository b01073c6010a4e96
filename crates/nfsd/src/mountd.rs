//! MOUNT, versions 1 and 3 (RFC 1813 appendix I): gives out the first handle.
//!
//! Only exported directories and what is below them can be mounted, files too. What is not exported to a client is
//! refused before it is looked for, so that nobody learns what exists. MNT, UMNT and UMNTALL that change
//! the table of mounts are log entries; those that find it as they want it are queries. So are all that come in
//! datagrams: anybody can write any address into one, to fill the table, push others' rows out or take them away.
//! They are answered as the others, and not noted.
//!
//! It must not know NFS procedures.

use crate::classify::{Prepared, Request, Service, args, reply};
use crate::entry::{Entry, MntRules, MountEntry, MountOp};
use crate::exports::{Denied, Exports, Origin, Transport, normal_path};
use crate::handle::{ExportId, HANDLE_BYTES, Target};
use crate::identity::Identity;
use crate::mounts::Mounts;
use crate::rows::Told;
use crate::v3::SEGMENT_BYTES;
use crate::{Fatal, export, mount_path};
use bytes::Bytes;
use haven_fs::{Attr, Filesystem, FsError, Ino, Time};
use haven_proto::mount::{
    Dirpath, EXPORTS_MAX, Exportnode, Fhandle3, Fhstatus, GROUPS_MAX, MOUNTLIST_MAX, MountOk,
    Mountbody, Mountres3, Mountstat3, Name, Procedure, VERSION1,
};
use haven_rpc::{AcceptError, Call};
use haven_xdr::{Encode, Gather, Writer, encode_all};
use std::collections::BTreeMap;
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
        Procedure::Export => return Ok(reply(call, service.exports.listing().into())),
        Procedure::Dump => return Ok(Prepared::Query(Request::Dump { xid: call.xid })),
        Procedure::Mnt => {
            let Dirpath(path) = args(call)?;
            let version = call.vers;
            match letting_in(&path, origin, &service.exports) {
                Ok(export) => MountOp::Mnt {
                    rules: MntRules::Second,
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

/// Whether a request changes the table of mounts, if what it names is there.
pub(crate) fn changes_table(mounts: &Mounts, client: IpAddr, xid: u32, op: &MountOp) -> bool {
    let row = |path: &Bytes| mounts.get(client, &normal_path(path)?);
    match op {
        MountOp::Mnt { rules, path, .. } => match row(path) {
            None => true,
            Some(row) => *rules == MntRules::Second && row.more(xid).is_some(),
        },
        MountOp::Umnt { path } => row(path).is_some_and(|row| !row.was_told(Told::Umnt, xid)),
        MountOp::Umntall => mounts.has_any(client),
    }
}

/// Whether what a request names is there: a MNT of what is not fails, and leaves the table as it is.
pub(crate) fn is_there(
    fs: &impl Filesystem,
    roots: &BTreeMap<ExportId, Ino>,
    op: &MountOp,
) -> bool {
    match op {
        MountOp::Mnt {
            rules,
            export,
            path,
            ..
        } => find(fs, roots, *rules, *export, path).is_ok(),
        MountOp::Umnt { .. } | MountOp::Umntall => true,
    }
}

/// What a MNT by an export names: the directory of each export is in `roots`.
fn find(
    fs: &impl Filesystem,
    roots: &BTreeMap<ExportId, Ino>,
    rules: MntRules,
    export: ExportId,
    path: &[u8],
) -> Result<Attr, FsError> {
    let names = export::components(path)?;
    match rules {
        MntRules::First => export::find(fs, &names),
        MntRules::Second => mount_path::find(fs, roots.get(&export).copied(), &names),
    }
}

/// The handle for a client that `export` lets in.
pub(crate) fn mnt(
    fs: &impl Filesystem,
    identity: &Identity,
    roots: &BTreeMap<ExportId, Ino>,
    (rules, export, path): (MntRules, ExportId, &[u8]),
) -> Result<Mounted, Fatal> {
    match find(fs, roots, rules, export, path) {
        Ok(attr) => Ok(Ok(identity.handles().encode(Target {
            export,
            ino: attr.ino,
            generation: attr.generation,
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
    // Line by line: the list is long, and a segment is enough beside it.
    let mut out = Writer::new();
    for row in mounts.rows().take(MOUNTLIST_MAX) {
        out.put_bool(true);
        body(row).encode(&mut out);
        out.cut(SEGMENT_BYTES);
    }
    out.put_bool(false);
    out.finish()
}

/// The result of EXPORT, which is the same for everybody.
pub(crate) fn listing<'e>(exports: impl Iterator<Item = &'e crate::Export>) -> Bytes {
    let node = |export: &crate::Export| Exportnode {
        dir: Dirpath(export.path.clone()),
        groups: (export.clients.iter().take(GROUPS_MAX))
            .map(|client| Name(client.who.to_string().into()))
            .collect(),
    };
    let list = haven_proto::mount::Exports(exports.take(EXPORTS_MAX).map(node).collect());
    encode_all(&list).into_bytes()
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
