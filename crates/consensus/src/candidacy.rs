//! Who shall not lead, and whether this node may stand for election.
//!
//! A node that shall not lead (it is in standby, or hands leadership over just then) votes and follows as any other, and
//! does not stand by itself when its leader falls silent. It still stands when another node asks for its pre-vote with a
//! shorter log: then nobody but it may have the newest entries, and service counts more than the wish.
//!
//! Invariants: openraft's own election timer runs only after the quarantine, and only on a node that may lead.

use std::collections::BTreeSet;

use openraft::Raft;
use parking_lot::Mutex;

use crate::machine::Machine;
use crate::types::Types;

/// See the module's head.
pub(crate) struct Candidacy {
    this: u64,
    state: Mutex<State>,
}

struct State {
    quarantined: bool,
    /// It is handing leadership over: its heir shall win, not itself once more.
    resigned: bool,
    unwilling: BTreeSet<u64>,
    /// Others are better heirs, if there are any.
    avoided: BTreeSet<u64>,
}

impl Candidacy {
    pub(crate) fn new(this: u64, quarantined: bool) -> Self {
        let state = State {
            quarantined,
            resigned: false,
            unwilling: BTreeSet::new(),
            avoided: BTreeSet::new(),
        };
        Self {
            this,
            state: Mutex::new(state),
        }
    }

    /// Whether this node may stand when its leader is silent.
    pub(crate) fn may_stand(&self) -> bool {
        self.state.lock().may_stand(self.this)
    }

    /// Those that shall not lead.
    pub(crate) fn unwilling(&self) -> BTreeSet<u64> {
        self.state.lock().unwilling.clone()
    }

    /// Those that should lead only if nobody else can.
    pub(crate) fn avoided(&self) -> BTreeSet<u64> {
        self.state.lock().avoided.clone()
    }

    pub(crate) fn set_avoided(&self, avoided: BTreeSet<u64>) {
        self.state.lock().avoided = avoided;
    }

    pub(crate) fn set_unwilling<R: Send + 'static>(
        &self,
        raft: &Raft<Types, Machine<R>>,
        unwilling: BTreeSet<u64>,
    ) {
        self.change(raft, |state| state.unwilling = unwilling);
    }

    pub(crate) fn end_quarantine<R: Send + 'static>(&self, raft: &Raft<Types, Machine<R>>) {
        self.change(raft, |state| state.quarantined = false);
    }

    /// This node gives leadership away, or that has ended.
    pub(crate) fn set_resigned<R: Send + 'static>(
        &self,
        raft: &Raft<Types, Machine<R>>,
        resigned: bool,
    ) {
        self.change(raft, |state| state.resigned = resigned);
    }

    /// Under the lock, so that openraft is told in the order of the changes.
    fn change<R: Send + 'static>(
        &self,
        raft: &Raft<Types, Machine<R>>,
        change: impl FnOnce(&mut State),
    ) {
        let mut state = self.state.lock();
        change(&mut state);
        raft.runtime_config().elect(state.may_stand(self.this));
    }
}

impl State {
    fn may_stand(&self, this: u64) -> bool {
        !self.quarantined && !self.resigned && !self.unwilling.contains(&this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_not_to_stand_counts_by_itself() {
        let state = |quarantined, resigned, unwilling: &[u64]| State {
            quarantined,
            resigned,
            unwilling: unwilling.iter().copied().collect(),
            avoided: BTreeSet::from([1]),
        };
        assert!(state(false, false, &[2]).may_stand(1));
        assert!(!state(true, false, &[]).may_stand(1));
        assert!(!state(false, true, &[]).may_stand(1));
        assert!(!state(false, false, &[1]).may_stand(1));
    }
}
