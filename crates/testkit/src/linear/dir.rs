//! A small directory as a client sees it: a few names, and which file each of them is.
//!
//! Whoever makes a file gives it an owner that nobody else gives, so that a file is known by what its maker
//! knew before the answer came.

use super::history::Operation;
use std::collections::BTreeMap;
use todc_utils::Specification;

/// Names that are used.
pub const NAMES: u8 = 4;

/// The mark of a file: its owner.
pub type Mark = u32;

/// Whether a change was made; `None`: nobody knows.
pub type Done = Option<bool>;

/// An operation on the directory, with its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirOp {
    /// CREATE (guarded); not done if the name is there.
    Create { name: u8, mark: Mark, done: Done },
    /// REMOVE; not done if the name is not there.
    Remove { name: u8, done: Done },
    /// RENAME, also over another file; not done if the name is not there.
    Rename { from: u8, to: u8, done: Done },
    /// LOOKUP.
    Lookup { name: u8, found: Option<Mark> },
    /// READDIRPLUS of everything.
    List(BTreeMap<u8, Mark>),
}

impl Operation for DirOp {
    fn only_reads(&self) -> bool {
        matches!(self, DirOp::Lookup { .. } | DirOp::List(_))
    }
}

/// What a directory is. It begins empty.
#[derive(Debug)]
pub struct DirSpec;

impl Specification for DirSpec {
    type State = BTreeMap<u8, Mark>;
    type Operation = DirOp;

    fn init() -> Self::State {
        BTreeMap::new()
    }

    fn apply(operation: &DirOp, state: &Self::State) -> (bool, Self::State) {
        let mut next = state.clone();
        let (can, told) = match operation {
            DirOp::Create { name, mark, done } => {
                let can = !state.contains_key(name);
                if can {
                    next.insert(*name, *mark);
                }
                (can, *done)
            }
            DirOp::Remove { name, done } => (next.remove(name).is_some(), *done),
            DirOp::Rename { from, to, done } => {
                let moved = next.remove(from);
                if let Some(mark) = moved {
                    next.insert(*to, mark);
                }
                (moved.is_some(), *done)
            }
            DirOp::Lookup { name, found } => return (state.get(name) == found.as_ref(), next),
            DirOp::List(found) => return (state == found, next),
        };
        match told.is_none_or(|told| told == can) {
            true => (true, next),
            false => (false, state.clone()),
        }
    }
}
