//! Sorts calls: what can be answered at once, what asks the state, what changes it.
//!
//! Invariants
//! - Arguments are decoded here in full: what does not decode is answered with GARBAGE_ARGS and never
//!   gets into the log.
//! - Entries carry the caller's ids after squashing: replicas need no export options to apply them.
//!
//! It must not know the state.

use crate::entry::{Entry, Nfs3Entry, request_checksum};
use crate::squash::Squash;
use crate::{mountd, portmap, v3};
use bytes::Bytes;
use haven_fs::{Cred, Time};
use haven_proto::mount::{self, Mountlist};
use haven_proto::nfs3::{self, Args3, Proc3};
use haven_proto::portmap as pmap;
use haven_rpc::{AcceptError, Call, accept_error, accepted};
use haven_xdr::Gather;
use std::net::IpAddr;
use std::sync::Arc;

/// How a service is offered: what is configured, and soft state of the leader.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// Whose rights callers get.
    pub squash: Squash,
    /// Whether everything that would change something is refused (NFS3ERR_ROFS).
    pub read_only: bool,
    /// Exported paths.
    pub exports: Arc<[Bytes]>,
    /// Who mounted what, as far as the leader knows.
    pub mounts: Mountlist,
    /// What the port mapper tells.
    pub ports: Vec<pmap::Mapping>,
}

/// What is to be done about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// Send this RPC reply (without record mark).
    Reply(Gather),
    /// Ask [`crate::Machine::query`].
    Query(Request),
    /// Put this entry into the log; [`crate::Machine::apply`] gives the reply.
    Mutation(Bytes),
}

/// A call that asks the state and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An NFSv3 procedure.
    Nfs3 {
        /// Transaction id.
        xid: u32,
        /// The caller, squashed.
        cred: Cred,
        /// Procedure and arguments.
        args: Args3,
        /// Answer as a read-only service.
        read_only: bool,
    },
    /// MNT of the MOUNT protocol.
    Mnt {
        /// Transaction id.
        xid: u32,
        /// 1 or 3.
        version: u32,
        /// What to mount.
        path: Bytes,
        /// Exported paths.
        exports: Arc<[Bytes]>,
    },
}

impl Request {
    /// Transaction id.
    pub const fn xid(&self) -> u32 {
        match self {
            Self::Nfs3 { xid, .. } | Self::Mnt { xid, .. } => *xid,
        }
    }
}

/// Decides what is to be done about `call`, which came from `client` and was received at `now`.
pub fn prepare(call: &Call, client: IpAddr, service: &Service, now: Time) -> Prepared {
    let prepared = match call.prog {
        nfs3::PROGRAM if call.vers == nfs3::VERSION => nfs3_call(call, client, service, now),
        nfs3::PROGRAM => Err(AcceptError::ProgMismatch {
            low: nfs3::VERSION,
            high: nfs3::VERSION,
        }),
        mount::PROGRAM if matches!(call.vers, mount::VERSION1 | mount::VERSION3) => {
            mountd::prepare(call, service)
        }
        mount::PROGRAM => Err(AcceptError::ProgMismatch {
            low: mount::VERSION1,
            high: mount::VERSION3,
        }),
        pmap::PROGRAM if call.vers == pmap::VERSION => {
            portmap::answer(call, &service.ports).map(|body| reply(call, body))
        }
        pmap::PROGRAM => Err(AcceptError::ProgMismatch {
            low: pmap::VERSION,
            high: pmap::VERSION,
        }),
        _ => Err(AcceptError::ProgUnavail),
    };
    prepared.unwrap_or_else(|error| Prepared::Reply(accept_error(call.xid, error)))
}

/// A call answered with `body`.
pub(crate) fn reply(call: &Call, body: Gather) -> Prepared {
    Prepared::Reply(accepted(call.xid, body))
}

fn nfs3_call(
    call: &Call,
    client: IpAddr,
    service: &Service,
    now: Time,
) -> Result<Prepared, AcceptError> {
    let proc = Proc3::from_wire(call.proc).ok_or(AcceptError::ProcUnavail)?;
    if proc == Proc3::Null {
        return Ok(reply(call, Gather::new()));
    }
    let args = Args3::decode(proc, call.args.clone()).map_err(|_| AcceptError::GarbageArgs)?;
    if let Args3::Write(write) = &args
        && usize::try_from(write.count).ok() != Some(write.data.len())
    {
        return Err(AcceptError::GarbageArgs);
    }
    let cred = service.squash.apply(&call.cred);
    let read_only = service.read_only;
    if read_only || !v3::is_mutation(&args) {
        return Ok(Prepared::Query(Request::Nfs3 {
            xid: call.xid,
            cred,
            args,
            read_only,
        }));
    }
    let entry = Entry::Nfs3(Nfs3Entry {
        time: now,
        // The same client, whether it comes over an IPv4 socket or a dual one.
        client: client.to_canonical(),
        xid: call.xid,
        checksum: request_checksum(call.proc, &call.args),
        cred,
        proc: call.proc,
        args: call.args.clone(),
    });
    // Too much for an entry is more than any procedure takes.
    entry
        .encode()
        .map(Prepared::Mutation)
        .map_err(|_| AcceptError::GarbageArgs)
}
