//! Counts requests by procedure.
//!
//! Invariants: a request pays two looks at the clock and four relaxed additions; errors pay one more. Every
//! program, procedure and status has a slot, unknown ones share one: no peer can make this grow.

use super::histogram::{Buckets, Histogram};
use haven_proto::{mount, nfs3, nlm, portmap};
use haven_rpc::Call;
use haven_xdr::Gather;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Labels of the slots: program and procedure.
pub const SLOTS: [(&str, &str); 31] = [
    ("nfs3", "null"),
    ("nfs3", "getattr"),
    ("nfs3", "setattr"),
    ("nfs3", "lookup"),
    ("nfs3", "access"),
    ("nfs3", "readlink"),
    ("nfs3", "read"),
    ("nfs3", "write"),
    ("nfs3", "create"),
    ("nfs3", "mkdir"),
    ("nfs3", "symlink"),
    ("nfs3", "mknod"),
    ("nfs3", "remove"),
    ("nfs3", "rmdir"),
    ("nfs3", "rename"),
    ("nfs3", "link"),
    ("nfs3", "readdir"),
    ("nfs3", "readdirplus"),
    ("nfs3", "fsstat"),
    ("nfs3", "fsinfo"),
    ("nfs3", "pathconf"),
    ("nfs3", "commit"),
    ("mount", "null"),
    ("mount", "mnt"),
    ("mount", "dump"),
    ("mount", "umnt"),
    ("mount", "umntall"),
    ("mount", "export"),
    ("portmap", "any"),
    ("nlm", "any"),
    ("other", "any"),
];
const MOUNT_AT: usize = 22;
const MNT: usize = 23;
const PORTMAP: usize = 28;
const NLM: usize = 29;
const OTHER: usize = 30;

/// nfsstat3 (RFC 1813 section 2.6) and mountstat3 (section 5.1.5): numbers and labels. 0 is a call that RPC itself refused.
pub const STATUSES: [(u32, &str); 32] = [
    (0, "rpc"),
    (1, "perm"),
    (2, "noent"),
    (5, "io"),
    (6, "nxio"),
    (13, "acces"),
    (17, "exist"),
    (18, "xdev"),
    (19, "nodev"),
    (20, "notdir"),
    (21, "isdir"),
    (22, "inval"),
    (27, "fbig"),
    (28, "nospc"),
    (30, "rofs"),
    (31, "mlink"),
    (63, "nametoolong"),
    (66, "notempty"),
    (69, "dquot"),
    (70, "stale"),
    (71, "remote"),
    (10001, "badhandle"),
    (10002, "not_sync"),
    (10003, "bad_cookie"),
    (10004, "notsupp"),
    (10005, "toosmall"),
    (10006, "serverfault"),
    (10007, "badtype"),
    (10008, "jukebox"),
    (10009, "same"),
    (10010, "resource"),
    (u32::MAX, "other"),
];

/// Offsets in a reply whose verifier is empty (RFC 5531 section 9), as all of ours are.
const ACCEPT_STAT_AT: usize = 20;
const STATUS_AT: usize = 24;

/// See the module's head comment.
#[derive(Debug)]
pub struct Meter {
    durations: [Histogram; SLOTS.len()],
    errors: [[AtomicU64; STATUSES.len()]; SLOTS.len()],
    received: AtomicU64,
    sent: AtomicU64,
    replayed: AtomicU64,
}

/// A request that is being counted.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    slot: usize,
    began: Instant,
}

impl Ticket {
    /// When the call came.
    pub const fn began(&self) -> Instant {
        self.began
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            durations: std::array::from_fn(|_| Histogram::default()),
            errors: std::array::from_fn(|_| Default::default()),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
        }
    }
}

impl Meter {
    /// A call of so many bytes, which came at `began`.
    pub fn begin(&self, call: &Call, began: Instant, bytes: usize) -> Ticket {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        Ticket {
            slot: slot(call),
            began,
        }
    }

    /// Its reply.
    pub fn end(&self, ticket: Ticket, reply: &Gather) {
        self.durations[ticket.slot].add(ticket.began.elapsed());
        self.sent.fetch_add(reply.len() as u64, Ordering::Relaxed);
        if let Some(status) = error(ticket.slot, reply) {
            self.errors[ticket.slot][status].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request was answered with what was said to it before (RFC 1813, section 4.8).
    pub fn replayed(&self) {
        self.replayed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests were.
    pub fn replays(&self) -> u64 {
        self.replayed.load(Ordering::Relaxed)
    }

    /// Durations by slot.
    pub fn durations(&self) -> Vec<Buckets> {
        self.durations.iter().map(Histogram::read).collect()
    }

    /// Errors that occurred: slot, status, how often.
    pub fn errors(&self) -> Vec<(usize, usize, u64)> {
        let mut found = Vec::new();
        for (slot, statuses) in self.errors.iter().enumerate() {
            for (status, count) in statuses.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    found.push((slot, status, count));
                }
            }
        }
        found
    }

    /// Bytes of calls and of replies.
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.received.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        )
    }
}

fn slot(call: &Call) -> usize {
    let (first, procedures) = match call.prog {
        nfs3::PROGRAM => (0, MOUNT_AT),
        mount::PROGRAM => (MOUNT_AT, PORTMAP - MOUNT_AT),
        portmap::PROGRAM => return PORTMAP,
        nlm::PROGRAM => return NLM,
        _ => return OTHER,
    };
    match usize::try_from(call.proc) {
        Ok(proc) if proc < procedures => first + proc,
        _ => OTHER,
    }
}

/// Which status other than "ok" a reply has.
fn error(slot: usize, reply: &Gather) -> Option<usize> {
    let head = reply.segments().first()?;
    let word = |at: usize| {
        let bytes = head.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    };
    if word(8)? != 0 || word(ACCEPT_STAT_AT)? != 0 {
        return Some(0);
    }
    let has_status = (1..MOUNT_AT).contains(&slot) || slot == MNT;
    let status = word(STATUS_AT).filter(|status| has_status && *status != 0)?;
    let known = STATUSES.iter().position(|(number, _)| *number == status);
    Some(known.unwrap_or(STATUSES.len() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use haven_rpc::{AcceptError, Credential, accept_error};

    fn call(prog: u32, proc: u32) -> Call {
        Call {
            xid: 1,
            prog,
            vers: 3,
            proc,
            cred: Credential::None,
            args: Bytes::new(),
        }
    }

    fn accepted(words: &[u32]) -> Gather {
        let all = [&[1, 1, 0, 0, 0, 0], words].concat();
        let bytes: Vec<u8> = all.iter().flat_map(|w| w.to_be_bytes()).collect();
        let mut reply = Gather::new();
        reply.push(Bytes::from(bytes));
        reply
    }

    #[test]
    fn every_call_has_the_slot_of_its_name_and_strange_ones_share_one() {
        for (prog, proc, expect) in [
            (nfs3::PROGRAM, 0, ("nfs3", "null")),
            (nfs3::PROGRAM, 7, ("nfs3", "write")),
            (nfs3::PROGRAM, 21, ("nfs3", "commit")),
            (nfs3::PROGRAM, 22, ("other", "any")),
            (mount::PROGRAM, 1, ("mount", "mnt")),
            (mount::PROGRAM, 6, ("other", "any")),
            (portmap::PROGRAM, 4, ("portmap", "any")),
            (nlm::PROGRAM, 2, ("nlm", "any")),
            (nlm::PROGRAM, 22, ("nlm", "any")),
            (77, u32::MAX, ("other", "any")),
        ] {
            assert_eq!(SLOTS[slot(&call(prog, proc))], expect);
        }
        assert_eq!(SLOTS[MNT], ("mount", "mnt"));
    }

    #[test]
    fn errors_are_counted_by_their_status() {
        let meter = Meter::default();
        let one = |prog, proc, reply: &Gather| {
            let ticket = meter.begin(&call(prog, proc), Instant::now(), 100);
            meter.end(ticket, reply);
        };
        one(nfs3::PROGRAM, 3, &accepted(&[0, 5, 5]));
        one(nfs3::PROGRAM, 3, &accepted(&[2, 5, 5]));
        one(nfs3::PROGRAM, 3, &accepted(&[2]));
        one(nfs3::PROGRAM, 1, &accepted(&[123_456]));
        // No status: the first word of what DUMP lists.
        one(mount::PROGRAM, 2, &accepted(&[1, 5, 5]));
        one(nfs3::PROGRAM, 0, &accepted(&[]));
        one(9, 9, &accept_error(1, AcceptError::ProgUnavail));
        let names =
            |(slot, status, count): (usize, usize, u64)| (SLOTS[slot].1, STATUSES[status].1, count);
        let found: Vec<_> = meter.errors().into_iter().map(names).collect();
        assert_eq!(
            found,
            [
                ("getattr", "other", 1),
                ("lookup", "noent", 2),
                ("any", "rpc", 1)
            ]
        );
        assert_eq!(meter.durations()[3].count(), 3);
        assert_eq!(meter.bytes().0, 700);
    }
}
