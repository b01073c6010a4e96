//! Memory that a connection's requests take while they are under way, and their answers until the socket has them.
//!
//! A little is the connection's own; what it does not hold comes from the server's budget, in pieces. So small requests
//! that are answered where they arrive cost an addition, and are answered whatever others have.
//!
//! It must not know what is answered.

use crate::budget::{Budget, Permit, Waiting};
use crate::party::Party;
use std::sync::Arc;

/// What a connection has without asking.
pub(crate) const OWN_BYTES: usize = 32 << 10;
/// What it takes of the budget at a time.
const PIECE_BYTES: usize = 16 << 10;
/// What it keeps of the budget though it does not need it at the moment.
const SPARE_BYTES: usize = 4 * PIECE_BYTES;
/// Most that a connection has, if it is more than one request's.
pub(crate) const CONNECTION_BYTES_MAX: usize = 16 << 20;

/// See the module's head comment.
pub(crate) struct Purse {
    party: Arc<Party>,
    budget: Arc<Budget>,
    shared: Option<Permit>,
    taken: usize,
}

/// Why there is no room for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// The connection has what it may have: its own answers have to go first.
    Own,
    /// So many bytes of the budget are needed first: see [`Purse::wait`].
    Shared(usize),
}

impl Purse {
    /// Nothing is taken.
    pub const fn new(party: Arc<Party>, budget: Arc<Budget>) -> Self {
        Self {
            party,
            budget,
            shared: None,
            taken: 0,
        }
    }

    fn has(&self) -> usize {
        OWN_BYTES + self.shared.as_ref().map_or(0, Permit::bytes)
    }

    /// Takes `bytes`, if there is room now.
    pub fn take(&mut self, bytes: usize) -> Result<(), Short> {
        let taken = self.taken + bytes;
        if self.taken > 0 && taken > CONNECTION_BYTES_MAX {
            return Err(Short::Own);
        }
        let least = taken.saturating_sub(self.has());
        if least > 0 {
            let whole = least.next_multiple_of(PIECE_BYTES);
            let permit = self.budget.try_take(&self.party, least, whole);
            self.grant(permit.ok_or(Short::Shared(least))?);
        }
        self.taken = taken;
        Ok(())
    }

    /// Waits for what was short.
    pub fn wait(&self, bytes: usize) -> Waiting {
        self.budget.wait(&self.party, bytes, None)
    }

    /// Puts in what was waited for.
    pub fn grant(&mut self, permit: Permit) {
        match &mut self.shared {
            None => self.shared = Some(permit),
            Some(shared) => shared.merge(permit),
        }
    }

    /// Of what was taken, `before` bytes turn out to be `after`.
    pub fn settle(&mut self, before: usize, after: usize) {
        debug_assert!(
            after <= before,
            "{after} bytes where {before} were expected"
        );
        self.taken = (self.taken + after).saturating_sub(before);
        let needed = self.taken.saturating_sub(OWN_BYTES);
        match &mut self.shared {
            Some(_) if needed == 0 => self.shared = None,
            Some(shared) if shared.bytes() - needed.min(shared.bytes()) > SPARE_BYTES => {
                shared.shrink(shared.bytes() - needed - PIECE_BYTES);
            }
            _ => {}
        }
    }
}
