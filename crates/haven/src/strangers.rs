//! Looks for machines that have a floating address although they must not.
//!
//! Safety does not depend on it (a stranger cannot answer for the service), but some clients may talk to it. So it
//! is looked for now and then, and told to people; nothing else is done.
//!
//! The node that holds the addresses tells whoever else answers. A node that does not hold them looks only while it
//! knows of nobody who does: whoever answers then keeps clients from seeing that the service is down, or is a node
//! of ours that is not heard. Which of the two it is cannot be told from here; it is left to people. It tells only
//! what two looks in a row found: a new leader may have the address before it is heard of.
//!
//! Invariant: what changed hands while it was looked for is not told.

use crate::addresses::Addresses;
use haven_admin::Conflict;
use haven_platform::addr::Placed;
use haven_platform::probe;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tracing::{debug, error, info, warn};

/// How often is looked.
const PAUSE: Duration = Duration::from_secs(5);
/// How long an answer may take: neighbours on one network need less than a millisecond.
const PATIENCE: Duration = Duration::from_millis(200);

/// Who holds the addresses, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// This node.
    Own,
    /// Another one of ours.
    Member,
    /// None of ours.
    Nobody,
}

/// Those found by the last look.
#[derive(Debug, Default)]
pub struct Strangers {
    found: Mutex<Vec<Conflict>>,
}

impl Strangers {
    /// Those found by the last look.
    pub fn found(&self) -> Vec<Conflict> {
        self.found.lock().clone()
    }

    /// Looks for ever. `member_holds` says whether another node of ours has the addresses or is about to.
    pub async fn watch(
        self: Arc<Self>,
        addresses: Addresses,
        member_holds: impl Fn() -> bool + Send + 'static,
    ) {
        let holder = || match (addresses.held().is_empty(), member_holds()) {
            (false, _) => Holder::Own,
            (true, true) => Holder::Member,
            (true, false) => Holder::Nobody,
        };
        let mut suspects = Suspects::default();
        loop {
            tokio::time::sleep(PAUSE).await;
            let before = holder();
            let of = addresses.clone();
            let looked = match before {
                Holder::Own => spawn_blocking(move || look(&of.placed())).await,
                Holder::Nobody => spawn_blocking(move || look(&of.places()?)).await,
                Holder::Member => Ok(Ok(Vec::new())),
            };
            let after = holder();
            match looked {
                Ok(Ok(found)) => self.tell(suspects.weigh(before, after, found), after),
                // Needs a privilege that a node with floating addresses has.
                Ok(Err(why)) => debug!(%why, "cannot look for other holders of the addresses"),
                // The process ends.
                Err(_) => return,
            }
        }
    }

    fn tell(&self, found: Vec<Conflict>, holder: Holder) {
        let mut known = self.found.lock();
        if *known == found {
            return;
        }
        for Conflict { address, mac } in found.iter().filter(|new| !known.contains(new)) {
            match holder {
                Holder::Own => error!(
                    %address,
                    mac,
                    "another machine answers for a floating address: find it (ip neigh) and take the address off it"
                ),
                _ => warn!(
                    %address,
                    mac,
                    "a machine answers for a floating address although no node is known to lead: if it is none of the \
                     nodes, find it (ip neigh) and take the address off it"
                ),
            }
        }
        if found.is_empty() {
            info!("no other machine answers for a floating address any more");
        }
        *known = found;
    }
}

/// What the last look found while nobody held the addresses.
#[derive(Debug, Default)]
struct Suspects(Vec<Conflict>);

impl Suspects {
    /// What is to be told of a look, before and after which the addresses were held so.
    fn weigh(&mut self, before: Holder, after: Holder, found: Vec<Conflict>) -> Vec<Conflict> {
        let last = std::mem::take(&mut self.0);
        match (before, after) {
            (Holder::Own, Holder::Own) => found,
            (Holder::Nobody, Holder::Nobody) => {
                self.0.clone_from(&found);
                let mut twice = found;
                twice.retain(|conflict| last.contains(conflict));
                twice
            }
            _ => Vec::new(),
        }
    }
}

fn look(asked: &[Placed]) -> Result<Vec<Conflict>, String> {
    let mut found = Vec::new();
    for placed in asked {
        let other = probe::other_holder(placed, PATIENCE).map_err(|e| e.to_string())?;
        if let Some(mac) = other {
            let hex = mac.map(|byte| format!("{byte:02x}"));
            found.push(Conflict {
                address: placed.ip(),
                mac: hex.join(":"),
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(last: u8) -> Conflict {
        Conflict {
            address: "192.0.2.1".parse().unwrap(),
            mac: format!("02:00:00:00:00:{last:02x}"),
        }
    }

    #[test]
    fn what_was_found_is_what_the_last_look_found() {
        let strangers = Strangers::default();
        strangers.tell(vec![conflict(1)], Holder::Own);
        assert_eq!(strangers.found(), [conflict(1)]);
        strangers.tell(Vec::new(), Holder::Own);
        assert_eq!(strangers.found(), []);
    }

    #[test]
    fn the_holder_tells_at_once_and_nothing_when_the_addresses_change_hands() {
        let mut suspects = Suspects::default();
        let mut weigh = |before, after| suspects.weigh(before, after, vec![conflict(1)]);
        assert_eq!(weigh(Holder::Own, Holder::Own), [conflict(1)]);
        for other in [Holder::Member, Holder::Nobody] {
            assert_eq!(weigh(Holder::Own, other), []);
            assert_eq!(weigh(other, Holder::Own), []);
        }
    }

    #[test]
    fn while_nobody_holds_them_two_looks_in_a_row_must_find_the_same() {
        use Holder::{Member, Nobody};
        let mut suspects = Suspects::default();
        let mut alone = |found: &[u8]| {
            let found = found.iter().copied().map(conflict).collect();
            suspects.weigh(Nobody, Nobody, found)
        };
        assert_eq!(alone(&[1]), []);
        assert_eq!(alone(&[1, 2]), [conflict(1)]);
        assert_eq!(alone(&[2]), [conflict(2)]);
        assert_eq!(alone(&[]), []);
        assert_eq!(alone(&[2]), []);
        // A leader was elected meanwhile: its own answer may be what was found.
        assert_eq!(suspects.weigh(Nobody, Member, vec![conflict(2)]), []);
        assert_eq!(suspects.weigh(Nobody, Nobody, vec![conflict(2)]), []);
        assert_eq!(suspects.weigh(Member, Member, Vec::new()), []);
        assert_eq!(suspects.weigh(Nobody, Nobody, vec![conflict(2)]), []);
    }
}
