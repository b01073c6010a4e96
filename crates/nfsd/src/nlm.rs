//! NLM, versions 1, 3 and 4 (XNFS chapters 10 and 11, RFC 1813 appendix II), as long as there are no locks: who asks for
//! one is told so at once, because a client whom nobody answers asks for ever, and the program that locks hangs.
//!
//! Nothing is locked, so TEST, LOCK and SHARE get LCK_DENIED_NOLOCKS (programs see ENOLCK), and what gives a lock back
//! is granted. The calls that are answered by another call to the client (`_MSG`) are refused: that call is not made,
//! so an RPC reply would promise what does not come.
//!
//! It must not know the state: real locks will, and come in the place of [`test`], [`lock`] and their neighbours.

use crate::classify::args;
use haven_proto::nlm::{
    Cancargs, Lockargs, Notify, Procedure, Res, Shareargs, Shareres, Stats, Testargs, Testres,
    Testrply, Unlockargs, VERSION1, VERSION3, VERSION4,
};
use haven_rpc::{AcceptError, Call};
use haven_xdr::{Decode, Encode, Gather, encode_all};

/// Versions spoken: the lowest and the highest, for those who speak another.
pub(crate) const VERSIONS: (u32, u32) = (VERSION1, VERSION4);

/// Whether a version is spoken.
pub(crate) const fn is_spoken(version: u32) -> bool {
    matches!(version, VERSION1 | VERSION3 | VERSION4)
}

/// The result of a call of a version that is spoken.
pub(crate) fn answer(call: &Call) -> Result<Gather, AcceptError> {
    if call.vers == VERSION4 {
        answer_in::<u64>(call)
    } else {
        answer_in::<u32>(call)
    }
}

/// In a version whose offsets are `O`.
fn answer_in<O: Encode + Decode>(call: &Call) -> Result<Gather, AcceptError> {
    let procedure = Procedure::from_wire(call.proc)
        .filter(|procedure| procedure.is_in(call.vers))
        .ok_or(AcceptError::ProcUnavail)?;
    Ok(match procedure {
        Procedure::Null => Gather::new(),
        Procedure::Test => encode_all(&test::<O>(args(call)?)),
        Procedure::Lock | Procedure::NmLock => encode_all(&lock::<O>(args(call)?)),
        Procedure::Cancel => encode_all(&cancel::<O>(args(call)?)),
        Procedure::Unlock => encode_all(&unlock::<O>(args(call)?)),
        Procedure::Granted => encode_all(&granted::<O>(args(call)?)),
        Procedure::Share => encode_all(&share(args(call)?, Stats::DeniedNolocks)),
        Procedure::Unshare => encode_all(&share(args(call)?, Stats::Granted)),
        Procedure::FreeAll => args::<Notify>(call).map(|_| Gather::new())?,
        // Answers to calls that this server does not make.
        Procedure::TestRes => args::<Testres<O>>(call).map(|_| Gather::new())?,
        Procedure::LockRes
        | Procedure::CancelRes
        | Procedure::UnlockRes
        | Procedure::GrantedRes => args::<Res>(call).map(|_| Gather::new())?,
        Procedure::TestMsg
        | Procedure::LockMsg
        | Procedure::CancelMsg
        | Procedure::UnlockMsg
        | Procedure::GrantedMsg => return Err(AcceptError::ProcUnavail),
    })
}

fn test<O>(Testargs { cookie, .. }: Testargs<O>) -> Testres<O> {
    Testres {
        cookie,
        stat: Testrply::Other(Stats::DeniedNolocks),
    }
}

fn lock<O>(Lockargs { cookie, .. }: Lockargs<O>) -> Res {
    let stat = Stats::DeniedNolocks;
    Res { cookie, stat }
}

fn cancel<O>(Cancargs { cookie, .. }: Cancargs<O>) -> Res {
    let stat = Stats::Granted;
    Res { cookie, stat }
}

fn unlock<O>(Unlockargs { cookie, .. }: Unlockargs<O>) -> Res {
    let stat = Stats::Granted;
    Res { cookie, stat }
}

/// Some server says that a lock is free which this one is said to have waited for: it has not.
fn granted<O>(Testargs { cookie, .. }: Testargs<O>) -> Res {
    let stat = Stats::Denied;
    Res { cookie, stat }
}

fn share(Shareargs { cookie, .. }: Shareargs, stat: Stats) -> Shareres {
    Shareres {
        cookie,
        stat,
        sequence: 0,
    }
}
