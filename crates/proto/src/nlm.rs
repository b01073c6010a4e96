//! Network Lock Manager, versions 1 and 3 (X/Open XNFS, chapters 10 and 11) and 4 (RFC 1813 appendix II): locks of
//! byte ranges, and shares as DOS knows them.
//!
//! The versions differ in how wide an offset is, which is the parameter `O` of what holds one: `u32` in versions 1 and
//! 3, `u64` in version 4. Version 3 adds shares and locks without a monitor to version 1.

use bytes::Bytes;
use haven_xdr::Xdr;

/// Program number.
pub const PROGRAM: u32 = 100_021;
/// Version 1: belongs to NFSv2.
pub const VERSION1: u32 = 1;
/// Version 3: version 1 with shares.
pub const VERSION3: u32 = 3;
/// Version 4: belongs to NFSv3.
pub const VERSION4: u32 = 4;
/// Longest host name of a caller (`LM_MAXSTRLEN`).
pub const LM_MAXSTRLEN: usize = 1024;
/// Longest host name in a [`Notify`] (`LM_MAXNAMELEN`).
pub const LM_MAXNAMELEN: usize = LM_MAXSTRLEN + 1;
/// Longest [`Netobj`] (`MAXNETOBJ_SZ`).
pub const MAXNETOBJ_SZ: usize = 1024;

/// Procedures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Xdr)]
#[repr(u32)]
#[xdr(name = "NLM procedure")]
pub enum Procedure {
    /// Does nothing.
    Null = 0,
    /// [`Testargs`] -> [`Testres`].
    Test = 1,
    /// [`Lockargs`] -> [`Res`].
    Lock = 2,
    /// [`Cancargs`] -> [`Res`].
    Cancel = 3,
    /// [`Unlockargs`] -> [`Res`].
    Unlock = 4,
    /// [`Testargs`] -> [`Res`]: from a server to the client whose lock it kept waiting.
    Granted = 5,
    /// [`Testargs`]; answered by a call of TEST_RES.
    TestMsg = 6,
    /// [`Lockargs`]; answered by a call of LOCK_RES.
    LockMsg = 7,
    /// [`Cancargs`]; answered by a call of CANCEL_RES.
    CancelMsg = 8,
    /// [`Unlockargs`]; answered by a call of UNLOCK_RES.
    UnlockMsg = 9,
    /// [`Testargs`]; answered by a call of GRANTED_RES.
    GrantedMsg = 10,
    /// [`Testres`] -> void.
    TestRes = 11,
    /// [`Res`] -> void.
    LockRes = 12,
    /// [`Res`] -> void.
    CancelRes = 13,
    /// [`Res`] -> void.
    UnlockRes = 14,
    /// [`Res`] -> void.
    GrantedRes = 15,
    /// [`Shareargs`] -> [`Shareres`]. From here on versions 3 and 4 only.
    Share = 20,
    /// [`Shareargs`] -> [`Shareres`].
    Unshare = 21,
    /// [`Lockargs`] -> [`Res`]: a lock of a client that nobody monitors.
    NmLock = 22,
    /// [`Notify`] -> void: such a client has restarted.
    FreeAll = 23,
}

impl Procedure {
    /// Whether this version has the procedure.
    pub const fn is_in(self, version: u32) -> bool {
        match version {
            VERSION1 => self.to_wire() < Self::Share.to_wire(),
            VERSION3 | VERSION4 => true,
            _ => false,
        }
    }
}

/// What became of a request (`nlm_stats`; `nlm4_stats` has all of them, the earlier versions those to DEADLCK).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Xdr)]
#[repr(u32)]
#[xdr(name = "nlm_stats")]
pub enum Stats {
    /// Done.
    Granted = 0,
    /// Another one's lock is in the way.
    Denied = 1,
    /// The server has no room for locks, or none at all.
    DeniedNolocks = 2,
    /// It waits: a GRANTED will come.
    Blocked = 3,
    /// The server lets clients reclaim their locks now.
    DeniedGracePeriod = 4,
    /// It would wait for ever.
    Deadlck = 5,
    /// The file system is read-only.
    Rofs = 6,
    /// The file is gone.
    StaleFh = 7,
    /// The range is beyond what the server can lock.
    Fbig = 8,
    /// Anything else.
    Failed = 9,
}

/// What only its owner understands: a cookie, the owner of a lock; and a file handle.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Xdr)]
pub struct Netobj(#[xdr(max = MAXNETOBJ_SZ)] pub Bytes);

/// The host name of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Xdr)]
pub struct CallerName(#[xdr(max = LM_MAXSTRLEN)] pub Bytes);

/// A range of a file and who wants it (`nlm_lock`, `nlm4_lock`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Lock<O> {
    /// The client.
    pub caller_name: CallerName,
    /// The file.
    pub fh: Netobj,
    /// The owner at the client (`oh`).
    pub oh: Netobj,
    /// The owner's process (`uppid`, `svid`).
    pub svid: i32,
    /// Where the range begins, in bytes.
    pub l_offset: O,
    /// Its length in bytes; 0: to the end of the file.
    pub l_len: O,
}

/// Arguments of TEST and GRANTED (`nlm_testargs`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Testargs<O> {
    /// Comes back with the answer.
    pub cookie: Netobj,
    /// For writing.
    pub exclusive: bool,
    /// The range.
    pub alock: Lock<O>,
}

/// Arguments of LOCK and NM_LOCK (`nlm_lockargs`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Lockargs<O> {
    /// Comes back with the answer.
    pub cookie: Netobj,
    /// The caller waits for it.
    pub block: bool,
    /// For writing.
    pub exclusive: bool,
    /// The range.
    pub alock: Lock<O>,
    /// The caller had it before the server restarted.
    pub reclaim: bool,
    /// The number of the client's state, which changes when it restarts.
    pub state: i32,
}

/// Arguments of CANCEL (`nlm_cancargs`): those of the LOCK that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Cancargs<O> {
    /// Comes back with the answer.
    pub cookie: Netobj,
    /// The caller waited for it.
    pub block: bool,
    /// For writing.
    pub exclusive: bool,
    /// The range.
    pub alock: Lock<O>,
}

/// Arguments of UNLOCK (`nlm_unlockargs`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Unlockargs<O> {
    /// Comes back with the answer.
    pub cookie: Netobj,
    /// The range.
    pub alock: Lock<O>,
}

/// Who has a range (`nlm_holder`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Holder<O> {
    /// For writing.
    pub exclusive: bool,
    /// The owner's process.
    pub svid: i32,
    /// The owner at its client.
    pub oh: Netobj,
    /// Where the range begins, in bytes.
    pub l_offset: O,
    /// Its length in bytes; 0: to the end of the file.
    pub l_len: O,
}

/// What TEST found (`nlm_testrply`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub enum Testrply<O> {
    /// LCK_DENIED: this lock is in the way.
    #[xdr(case = Stats::Denied)]
    Denied(Holder<O>),
    /// Anything else.
    #[xdr(default)]
    Other(Stats),
}

/// Result of TEST (`nlm_testres`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Testres<O> {
    /// That of the call.
    pub cookie: Netobj,
    /// What was found.
    pub stat: Testrply<O>,
}

/// Result of LOCK, CANCEL, UNLOCK, GRANTED and NM_LOCK (`nlm_res`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Res {
    /// That of the call.
    pub cookie: Netobj,
    /// What became of it.
    pub stat: Stats,
}

/// What others may not do (`fsh_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Xdr)]
#[repr(u32)]
#[xdr(name = "fsh_mode")]
pub enum FshMode {
    /// They may do all.
    DenyNone = 0,
    /// Read.
    DenyRead = 1,
    /// Write.
    DenyWrite = 2,
    /// Both.
    DenyBoth = 3,
}

/// What the owner of a share does (`fsh_access`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Xdr)]
#[repr(u32)]
#[xdr(name = "fsh_access")]
pub enum FshAccess {
    /// Nothing.
    None = 0,
    /// Reads.
    Read = 1,
    /// Writes.
    Write = 2,
    /// Both.
    Both = 3,
}

/// A share of a file (`nlm_share`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Share {
    /// The client.
    pub caller_name: CallerName,
    /// The file.
    pub fh: Netobj,
    /// The owner at the client.
    pub oh: Netobj,
    /// What others may not do.
    pub mode: FshMode,
    /// What the owner does.
    pub access: FshAccess,
}

/// Arguments of SHARE and UNSHARE (`nlm_shareargs`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Shareargs {
    /// Comes back with the answer.
    pub cookie: Netobj,
    /// The share.
    pub share: Share,
    /// The caller had it before the server restarted.
    pub reclaim: bool,
}

/// Result of SHARE and UNSHARE (`nlm_shareres`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Shareres {
    /// That of the call.
    pub cookie: Netobj,
    /// What became of it.
    pub stat: Stats,
    /// Means nothing.
    pub sequence: i32,
}

/// A client that has restarted (`nlm_notify`): arguments of FREE_ALL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Xdr)]
pub struct Notify {
    /// The client.
    #[xdr(max = LM_MAXNAMELEN)]
    pub name: Bytes,
    /// The number of its state.
    pub state: i32,
}
