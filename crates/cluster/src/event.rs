//! The vocabulary between the takeover machine and its driver.
//!
//! The driver's side of the contract:
//! - Events are delivered one at a time, in the order in which they happened.
//! - `StartServing`, `SuspendServing`, `StopServing`, `AddAddresses`, `RemoveAddresses` and `CloseClientConnections`
//!   are performed strictly in the order in which they were given; so are `Announce`, `ResetClientConnections` and
//!   `TickleClients`, which may run beside those. The others may run beside all.
//! - Every action whose documentation names a report gets exactly that report, sooner or later.
//!
//! Must not know: how anything is performed.

use std::fmt;

/// A leader's term of office; grows with every election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {}", self.0)
    }
}

/// Something that happened to the service on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This node was elected, or leads again in the same term after [`Event::Deposed`]. A quorum has just answered,
    /// so the lease counts as valid until [`Event::LeaseLapsed`] says otherwise.
    Elected {
        /// The new term.
        term: Term,
    },
    /// This node leads no more: another leader or a higher term is known, or its term has no lease any more. A leader
    /// that only lost touch with its quorum is not deposed, however long that lasts: its term goes on.
    Deposed,
    /// The leader's lease ran out (no quorum of heartbeats), or may have.
    LeaseLapsed,
    /// A quorum answers again in this term. So nobody else was elected meanwhile: whoever answers a term has voted in
    /// no later one (decisions/0013).
    LeaseRegained {
        /// The term it answers in.
        term: Term,
    },
    /// The barrier entry is committed and everything up to it is applied.
    BarrierDone {
        /// The term it was proposed in.
        term: Term,
        /// Its log index.
        index: u64,
    },
    /// The barrier entry was not committed.
    BarrierFailed {
        /// The term it was proposed in.
        term: Term,
    },
    /// The gate is open: requests are executed and answered.
    ServingStarted {
        /// The term given with [`Action::StartServing`].
        term: Term,
    },
    /// All floating addresses are on this node.
    AddressesAdded {
        /// The term in which they were asked for.
        term: Term,
    },
    /// At least one floating address could not be added (others may be on this node).
    AddressFailed {
        /// The term in which they were asked for.
        term: Term,
        /// What went wrong, for the operator.
        why: String,
    },
    /// No floating address is on this node any more.
    AddressesRemoved,
    /// A floating address that should be here is gone: the guard or somebody else took it off.
    AddressLost,
    /// No connection to a floating address is left here, in this process or in the kernel.
    ConnectionsClosed,
    /// An operator or the balancer wants another node to lead.
    MoveRequested,
    /// No request is being executed any more; new ones wait.
    Drained,
    /// Another node leads.
    TransferDone,
    /// This node still leads, *and no other node can be elected through the attempted transfer any more*:
    /// leases given from now on can be trusted.
    TransferFailed,
    /// The process has been asked to end.
    Shutdown,
    /// Time passes. Deliver it whenever [`crate::Takeover::wake_at_ms`] says so, and before other events
    /// if the clock moved, so that delays count from now.
    Tick {
        /// A clock that never jumps, in milliseconds from any origin.
        now_ms: u64,
    },
}

/// Something the driver has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Propose a barrier entry, wait until it is committed and applied. Report: [`Event::BarrierDone`] or
    /// [`Event::BarrierFailed`].
    CommitBarrier {
        /// Propose only while leading in this very term.
        term: Term,
    },
    /// Open the gate for requests (this also ends a [`Action::Drain`] and a [`Action::SuspendServing`]). Report:
    /// [`Event::ServingStarted`]. The gate still checks the lease before each single reply.
    StartServing {
        /// The term to serve in.
        term: Term,
    },
    /// Hold everything at the gate: once performed, no reply leaves and nothing new is begun, but what is inside stays
    /// inside, and connections stay, because this node may go on in the same term. Performed immediately; no report.
    SuspendServing,
    /// Close the gate: once performed, no reply leaves, and what is still being executed is given up. Performed
    /// immediately; no report.
    StopServing,
    /// Put the floating addresses on this node. Only if the lease is valid at that very moment (otherwise
    /// report a failure). Report: [`Event::AddressesAdded`] or [`Event::AddressFailed`].
    AddAddresses {
        /// The term to report with.
        term: Term,
    },
    /// Tell the neighbours where the addresses are now: gratuitous ARP, unsolicited neighbour
    /// advertisement. Once per action; repetition is decided here. No report.
    Announce,
    /// End the client connections of before a suspension with a reset, which leaves from here, because the addresses are
    /// up: it lasted so long that clients would wait for timers of their TCP. No report.
    ResetClientConnections,
    /// Make all known clients reconnect that have no connection here now: those of a previous leader and those that this
    /// node had before. After [`Action::Announce`], so that their answers come here. Again and again, until each has
    /// been seen or would have looked for itself; not beyond [`Action::SuspendServing`] or [`Action::StopServing`]. No
    /// report.
    TickleClients,
    /// Take the floating addresses off this node; also those that are only half added. Retry until it is
    /// done. Report: [`Event::AddressesRemoved`].
    RemoveAddresses,
    /// Drop all client connections without a farewell on the wire. Given after the addresses are asked
    /// off: a client told too early would come back to this node. Report: [`Event::ConnectionsClosed`].
    CloseClientConnections,
    /// Let running requests finish, hold back new ones. Report: [`Event::Drained`].
    Drain,
    /// Hand leadership to the best other node. From here on this node's lease is void, whatever the
    /// consensus layer says, because the next leader is elected without waiting for it. Report:
    /// [`Event::TransferDone`] or [`Event::TransferFailed`].
    TransferLeadership,
    /// End the process. The last action ever.
    Exit,
}
