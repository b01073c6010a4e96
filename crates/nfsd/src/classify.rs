//! Sorts calls: what can be answered at once, what asks the state, what changes it.
//!
//! Invariants
//! - Arguments are decoded here in full: what does not decode is answered with GARBAGE_ARGS and never
//!   gets into the log.
//! - Entries carry the caller's ids after squashing: replicas need no export options to apply them.
//!
//! It must not know the state.

use crate::entry::{ARGS_BYTES_MAX, Entry, EntryError, MountOp, Nfs3Entry, request_checksum};
use crate::exports::{Denied, Exports, Options, Origin};
use crate::handle::claimed_export;
use crate::over::{Asked, ChangeId, News, RequestKey, caller_checksum};
use crate::portmap::Binding;
use crate::{mountd, nlm, portmap, v3};
use bytes::Bytes;
use haven_fs::{Cred, Time};
use haven_proto::mount;
use haven_proto::nfs3::{self, Args3, Nfsstat3, Proc3};
use haven_proto::{nlm as lock_manager, portmap as pmap, rpcbind};
use haven_rpc::{AcceptError, Call, accept_error, accepted};
use haven_xdr::{Decode, Gather, decode_all};
use std::net::IpAddr;
use std::sync::Arc;

/// How a service is offered.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// What is exported to whom.
    pub exports: Arc<Exports>,
    /// What the port mapper tells.
    pub ports: Vec<Binding>,
}

/// What is to be done about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// Send this RPC reply (without record mark).
    Reply(Gather),
    /// Ask [`crate::Machine::query`].
    Query(Request),
    /// Put its entry into the log; [`crate::Machine::apply`] gives the reply.
    Mutation(Mutation),
    /// Whether it changes the table of mounts is for [`crate::Machine::needs_entry`] to say: if so, put the
    /// entry into the log, otherwise ask [`crate::Machine::query`].
    Mount {
        /// To ask with.
        request: Request,
        /// For the log.
        entry: Bytes,
    },
    /// It depends on the names of the client's address: find them out and prepare again.
    WantsNames,
}

/// A call that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    entry: Nfs3Entry,
    caller: u64,
    port: u16,
}

impl Mutation {
    /// What it has in common with a copy of it.
    pub fn key(&self) -> RequestKey {
        RequestKey {
            client: self.entry.client,
            xid: self.entry.xid,
            checksum: self.entry.checksum,
            caller: self.caller,
        }
    }

    /// Its entry, as the change `id`, with news.
    ///
    /// # Errors
    /// Too many news.
    pub fn entry(&self, id: ChangeId, news: Vec<News>) -> Result<Bytes, EntryError> {
        let asked = Asked {
            caller: self.caller,
            id,
            port: self.port,
            news,
        };
        let entry = Nfs3Entry {
            asked: Some(asked),
            ..self.entry.clone()
        };
        Entry::Nfs3(entry).encode()
    }
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
    /// MNT, UMNT or UMNTALL of the MOUNT protocol.
    Mount {
        /// Transaction id.
        xid: u32,
        /// The client's address.
        client: IpAddr,
        /// What is asked.
        op: MountOp,
    },
    /// DUMP of the MOUNT protocol.
    Dump {
        /// Transaction id.
        xid: u32,
    },
}

impl Request {
    /// Transaction id.
    pub const fn xid(&self) -> u32 {
        match self {
            Self::Nfs3 { xid, .. } | Self::Mount { xid, .. } | Self::Dump { xid } => *xid,
        }
    }
}

/// Decides what is to be done about `call`, which was received at `now`.
pub fn prepare(call: &Call, origin: Origin<'_>, service: &Service, now: Time) -> Prepared {
    let prepared = match call.prog {
        nfs3::PROGRAM if call.vers == nfs3::VERSION => nfs3_call(call, origin, service, now),
        nfs3::PROGRAM => Err(AcceptError::ProgMismatch {
            low: nfs3::VERSION,
            high: nfs3::VERSION,
        }),
        mount::PROGRAM if matches!(call.vers, mount::VERSION1 | mount::VERSION3) => {
            mountd::prepare(call, origin, service, now)
        }
        mount::PROGRAM => Err(AcceptError::ProgMismatch {
            low: mount::VERSION1,
            high: mount::VERSION3,
        }),
        pmap::PROGRAM if (pmap::VERSION..=rpcbind::VERSION4).contains(&call.vers) => {
            portmap::answer(call, origin, &service.ports, now).map(|body| reply(call, body))
        }
        pmap::PROGRAM => Err(AcceptError::ProgMismatch {
            low: pmap::VERSION,
            high: rpcbind::VERSION4,
        }),
        lock_manager::PROGRAM if nlm::is_spoken(call.vers) => {
            nlm::answer(call).map(|body| reply(call, body))
        }
        lock_manager::PROGRAM => {
            let (low, high) = nlm::VERSIONS;
            Err(AcceptError::ProgMismatch { low, high })
        }
        _ => Err(AcceptError::ProgUnavail),
    };
    prepared.unwrap_or_else(|error| Prepared::Reply(accept_error(call.xid, error)))
}

/// A call answered with `body`.
pub(crate) fn reply(call: &Call, body: Gather) -> Prepared {
    Prepared::Reply(accepted(call.xid, body))
}

/// The arguments of a call.
pub(crate) fn args<T: Decode>(call: &Call) -> Result<T, AcceptError> {
    decode_all(call.args.clone()).map_err(|_| AcceptError::GarbageArgs)
}

fn nfs3_call(
    call: &Call,
    origin: Origin<'_>,
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
    let Options {
        squash, read_only, ..
    } = match rights(&args, origin, &service.exports) {
        Ok(options) => options,
        Err(NotLetIn::Status(status)) => return Ok(reply(call, v3::refusal(&args, status))),
        Err(NotLetIn::WantsNames) => return Ok(Prepared::WantsNames),
    };
    let cred = squash.apply(&call.cred);
    if read_only || !v3::is_mutation(&args) {
        return Ok(Prepared::Query(Request::Nfs3 {
            xid: call.xid,
            cred,
            args,
            read_only,
        }));
    }
    // Too much for an entry is more than any procedure takes.
    if call.args.len() > ARGS_BYTES_MAX {
        return Err(AcceptError::GarbageArgs);
    }
    let entry = Nfs3Entry {
        time: now,
        // The same client, whether it comes over an IPv4 socket or a dual one.
        client: origin.peer.ip().to_canonical(),
        xid: call.xid,
        checksum: request_checksum(call.proc, &call.args),
        asked: None,
        cred,
        proc: call.proc,
        args: call.args.clone(),
    };
    Ok(Prepared::Mutation(Mutation {
        entry,
        caller: caller_checksum(&call.cred),
        port: origin.peer.port(),
    }))
}

enum NotLetIn {
    Status(Nfsstat3),
    WantsNames,
}

/// What the client may do with the handles of a request, by the exports they claim to come from: the
/// machine takes no handle whose claim is forged. With two, what both exports allow.
fn rights(args: &Args3, origin: Origin<'_>, exports: &Exports) -> Result<Options, NotLetIn> {
    let mut all: Option<Options> = None;
    for fh in v3::handles(args).into_iter().flatten() {
        let export = claimed_export(&fh.0).map_err(|_| NotLetIn::Status(Nfsstat3::BadHandle))?;
        // To a client that is not let in, an export is as if it were not there.
        let options = match exports.rights(export, origin) {
            None | Some(Err(Denied::Nobody)) => return Err(NotLetIn::Status(Nfsstat3::Stale)),
            Some(Err(Denied::Port)) => return Err(NotLetIn::Status(Nfsstat3::Perm)),
            Some(Err(Denied::Late)) => return Err(NotLetIn::Status(Nfsstat3::Jukebox)),
            Some(Err(Denied::Unasked)) => return Err(NotLetIn::WantsNames),
            Some(Ok(options)) => options,
        };
        all = Some(match all {
            None => options,
            Some(first) => Options {
                read_only: first.read_only || options.read_only,
                ..first
            },
        });
    }
    Ok(all.unwrap_or_default())
}
