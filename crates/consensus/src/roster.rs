//! Who belongs to the cluster: names, addresses, keys, who is to leave, which tokens count.
//!
//! All of it lies in openraft's membership, in the records of its nodes, so it is one document: in the log, in
//! snapshots and in positions, the same on every node, and changed as a whole by comparing and setting. That a
//! token lets in one machine only follows from that: using it up, giving out the number and adding the node are
//! one entry. What concerns the cluster as a whole ([`Book`]) is in the record of the member with the lowest id.
//!
//! Invariants
//! - Ids are never given out twice: a node whose id is below the next one and that is no member was removed.
//! - Members and tokens are bounded.
//!
//! It must not know how changes are committed.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use haven_pki::KeyId;
use haven_pki::SecretHash;

use crate::types::Membership;

/// Most members, learners included.
pub const MEMBERS_MAX: usize = 7;

/// Most tokens that count at a time, used ones included until they end.
pub const TOKENS_MAX: usize = 64;

/// Longest name of a node, in bytes.
pub const NAME_MAX: usize = 64;

/// What openraft's membership says of a node. All of it is unknown of a node that was never part of more than
/// itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) key: Option<KeyId>,
    /// To be removed as soon as that is possible.
    pub(crate) leaving: bool,
    pub(crate) book: Option<Book>,
}

/// What concerns the cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Book {
    /// The number that the next node gets.
    pub(crate) next_id: u64,
    pub(crate) tokens: BTreeMap<SecretHash, Entitlement>,
}

/// A token, as the cluster knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entitlement {
    /// Seconds since the epoch.
    pub(crate) expires: u64,
    /// The node it let in, and that node's key.
    pub(crate) used: Option<(u64, KeyId)>,
}

/// A machine that wants to become a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applicant {
    /// How it wants to be called.
    pub name: String,
    /// Where it will listen for its peers.
    pub address: SocketAddr,
    /// Its key.
    pub key: KeyId,
}

/// What the roster says of somebody who shows a certificate of this cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Member,
    /// Newer than what this node knows: the authority's word has to do until the log has come.
    Newer,
    Removed,
    WrongKey,
}

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roster {
    pub(crate) nodes: BTreeMap<u64, Record>,
    pub(crate) voters: BTreeSet<u64>,
    pub(crate) book: Book,
}

impl Roster {
    pub(crate) fn of(membership: &Membership) -> Self {
        let mut nodes: BTreeMap<u64, Record> = membership
            .nodes()
            .map(|(id, record)| (*id, record.clone()))
            .collect();
        let book = nodes.values_mut().find_map(|record| record.book.take());
        let after_last = nodes.keys().last().map_or(1, |last| last.saturating_add(1));
        let book = book.unwrap_or_else(|| Book {
            next_id: after_last,
            tokens: BTreeMap::new(),
        });
        Self {
            nodes,
            voters: membership.voter_ids().collect(),
            book,
        }
    }

    /// As openraft keeps it.
    pub(crate) fn into_nodes(mut self) -> BTreeMap<u64, Record> {
        if let Some(first) = self.nodes.values_mut().next() {
            first.book = Some(self.book);
        }
        self.nodes
    }

    pub(crate) fn standing(&self, id: u64, key: KeyId) -> Standing {
        match self.nodes.get(&id) {
            Some(record) if record.key.is_none_or(|known| known == key) => Standing::Member,
            Some(_) => Standing::WrongKey,
            None if self.nodes.is_empty() || id >= self.book.next_id => Standing::Newer,
            None => Standing::Removed,
        }
    }

    /// Lets a token count.
    pub(crate) fn add_token(
        &mut self,
        hash: SecretHash,
        expires: u64,
        now: u64,
    ) -> Result<(), String> {
        self.book.tokens.retain(|_, token| token.expires > now);
        if self.book.tokens.len() >= TOKENS_MAX {
            return Err(format!(
                "{TOKENS_MAX} tokens count already; wait until some of them end"
            ));
        }
        let used = None;
        self.book
            .tokens
            .entry(hash)
            .or_insert(Entitlement { expires, used });
        Ok(())
    }

    /// Uses up a token: gives the applicant's number. The same applicant gets the same answer again.
    pub(crate) fn admit(
        &mut self,
        secret: SecretHash,
        applicant: &Applicant,
        now: u64,
    ) -> Result<u64, String> {
        let Some(token) = self.book.tokens.get_mut(&secret) else {
            return Err(
                "this cluster knows no such token: it has ended, or was never given out here; make a new one with \
                 `haven token` on a member"
                    .into(),
            );
        };
        match token.used {
            Some((id, key)) if key == applicant.key && self.nodes.contains_key(&id) => {
                return Ok(id);
            }
            Some((id, _)) => {
                return Err(format!(
                    "this token was used already (by node {id}), and a token lets in one machine only; make a new one \
                     with `haven token` on a member"
                ));
            }
            None => {}
        }
        if token.expires <= now {
            return Err(format!(
                "this token ended {} ago by the cluster's clock; make a new one with `haven token` on a member (and \
                 look at the clocks if it is new)",
                span(now - token.expires)
            ));
        }
        self.nodes_differ(applicant, None)?;
        if self.nodes.len() >= MEMBERS_MAX {
            return Err(format!("a cluster has at most {MEMBERS_MAX} nodes"));
        }
        let id = self.book.next_id;
        self.book.next_id += 1;
        if let Some(token) = self.book.tokens.get_mut(&secret) {
            token.used = Some((id, applicant.key));
        }
        let record = Record {
            name: applicant.name.clone(),
            address: Some(applicant.address),
            key: Some(applicant.key),
            leaving: false,
            book: None,
        };
        self.nodes.insert(id, record);
        Ok(id)
    }

    /// Names, addresses and keys are nobody else's.
    fn nodes_differ(&self, applicant: &Applicant, own: Option<u64>) -> Result<(), String> {
        if applicant.name.is_empty() || applicant.name.len() > NAME_MAX {
            return Err(format!("the name of a node has 1 to {NAME_MAX} bytes"));
        }
        for (id, record) in self.nodes.iter().filter(|(id, _)| Some(**id) != own) {
            if record.name == applicant.name {
                return Err(format!(
                    "the cluster has a node {} already (number {id}); choose another name with --name, or remove that \
                     one first with `haven node remove {}`",
                    record.name, record.name
                ));
            }
            if record.address == Some(applicant.address) {
                return Err(format!(
                    "node {} of the cluster has the address {} already",
                    record.name, applicant.address
                ));
            }
            if record.key == Some(applicant.key) {
                return Err(format!("node {} of the cluster has this key", record.name));
            }
        }
        Ok(())
    }

    /// What node `id` says of itself: needed for nodes that were alone before, and after a change of address.
    pub(crate) fn update(&mut self, id: u64, own: &Applicant) -> Result<(), String> {
        self.nodes_differ(own, Some(id))?;
        if let Some(record) = self.nodes.get_mut(&id) {
            record.name.clone_from(&own.name);
            record.address = Some(own.address);
            record.key = Some(own.key);
        }
        Ok(())
    }

    /// Decides that a node leaves. It goes when it is no voter any more.
    pub(crate) fn leave(&mut self, id: u64) -> Result<(), String> {
        let Some(record) = self.nodes.get_mut(&id) else {
            return Err(format!("the cluster has no node {id}"));
        };
        record.leaving = true;
        Ok(())
    }

    /// Strikes out those that were to leave and are no voters.
    pub(crate) fn strike(&mut self) {
        let voters = &self.voters;
        self.nodes
            .retain(|id, record| !record.leaving || voters.contains(id));
    }
}

/// A time span in words.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn hash(n: u8) -> SecretHash {
        SecretHash([n; 32])
    }

    fn applicant(n: u8) -> Applicant {
        Applicant {
            name: format!("node-{n}"),
            address: SocketAddr::from(([192, 0, 2, n], 7400)),
            key: KeyId([n; 32]),
        }
    }

    /// A cluster of node 1.
    fn one() -> Roster {
        let membership = Membership::new(
            vec![BTreeSet::from([1])],
            BTreeMap::from([(1, Record::default())]),
        );
        let mut roster = Roster::of(&membership.unwrap());
        roster.update(1, &applicant(1)).unwrap();
        roster
    }

    #[test]
    fn a_token_lets_in_one_machine_and_that_one_may_ask_again() {
        let mut roster = one();
        roster.add_token(hash(9), NOW + 10, NOW).unwrap();
        assert_eq!(roster.admit(hash(9), &applicant(2), NOW), Ok(2));
        assert_eq!(roster.admit(hash(9), &applicant(2), NOW + 99), Ok(2));
        let why = roster.admit(hash(9), &applicant(3), NOW).unwrap_err();
        assert!(why.contains("used already (by node 2)"), "{why}");
        let why = roster.admit(hash(8), &applicant(3), NOW).unwrap_err();
        assert!(why.contains("no such token"), "{why}");
        // Not even the first again, once it was removed.
        roster.leave(2).unwrap();
        roster.strike();
        let why = roster.admit(hash(9), &applicant(2), NOW).unwrap_err();
        assert!(why.contains("used already"), "{why}");
    }

    #[test]
    fn a_token_ends_and_ended_ones_make_room() {
        let mut roster = one();
        roster.add_token(hash(9), NOW + 10, NOW).unwrap();
        let why = roster.admit(hash(9), &applicant(2), NOW + 310).unwrap_err();
        assert!(why.contains("ended 5 minutes ago"), "{why}");
        for n in 0..TOKENS_MAX as u8 {
            roster.add_token(hash(n), NOW + 100, NOW + 10).unwrap();
        }
        assert!(roster.add_token(hash(200), NOW + 100, NOW + 10).is_err());
        assert!(roster.add_token(hash(200), NOW + 300, NOW + 200).is_ok());
        assert_eq!(roster.book.tokens.len(), 1);
    }

    #[test]
    fn names_addresses_and_keys_are_unique() {
        let mut roster = one();
        for n in 1..4 {
            roster.add_token(hash(n), NOW + 10, NOW).unwrap();
        }
        let twin = |change: fn(&mut Applicant)| {
            let mut twin = applicant(7);
            change(&mut twin);
            twin
        };
        for (bad, said) in [
            (
                twin(|a| a.name = "node-1".into()),
                "haven node remove node-1",
            ),
            (twin(|a| a.address = applicant(1).address), "192.0.2.1:7400"),
            (twin(|a| a.key = applicant(1).key), "this key"),
            (twin(|a| a.name = String::new()), "1 to 64 bytes"),
        ] {
            let why = roster.admit(hash(1), &bad, NOW).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
        // None of them used the token up.
        assert_eq!(roster.admit(hash(1), &applicant(2), NOW), Ok(2));
    }

    #[test]
    fn removed_nodes_are_known_as_such_for_ever() {
        let mut roster = one();
        roster.add_token(hash(1), NOW + 10, NOW).unwrap();
        roster.admit(hash(1), &applicant(2), NOW).unwrap();
        let key = |n| applicant(n).key;
        assert_eq!(roster.standing(2, key(2)), Standing::Member);
        assert_eq!(roster.standing(2, key(3)), Standing::WrongKey);
        assert_eq!(roster.standing(3, key(3)), Standing::Newer);
        roster.leave(2).unwrap();
        assert_eq!(roster.standing(2, key(2)), Standing::Member);
        roster.strike();
        assert_eq!(roster.standing(2, key(2)), Standing::Removed);
        // A voter that is to leave stays until it votes no more.
        roster.leave(1).unwrap();
        roster.strike();
        assert_eq!(roster.standing(1, key(1)), Standing::Member);
        assert!(roster.leave(2).is_err());
    }

    #[test]
    fn the_book_stays_when_its_bearer_goes() {
        let mut roster = one();
        roster.add_token(hash(1), NOW + 10, NOW).unwrap();
        roster.admit(hash(1), &applicant(2), NOW).unwrap();
        let book = roster.book.clone();
        let nodes = roster.into_nodes();
        assert_eq!(nodes[&1].book.as_ref(), Some(&book));
        let mut roster = Roster::of(&Membership::new(vec![BTreeSet::from([2])], nodes).unwrap());
        roster.leave(1).unwrap();
        roster.strike();
        let nodes = roster.into_nodes();
        assert_eq!(nodes.keys().collect::<Vec<_>>(), [&2]);
        assert_eq!(nodes[&2].book.as_ref(), Some(&book));
    }
}
