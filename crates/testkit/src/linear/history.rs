//! What clients did to one object, and whether some order explains it.
//!
//! A call is noted before it is sent and its answer after it has come, by one clock for all clients: the
//! order of the notes. An order explains the history if every operation can be placed at one moment between
//! its call and its answer so that each answer follows from the operations before it. An operation that was
//! never answered may have happened at any moment after its call, or never.
//!
//! The search is todc-utils' (Wing and Gong's with Lowe's memory of what was tried): it ends, because a
//! history takes few operations and few without an answer.
//!
//! Invariant: each operation is a process of its own, so none waits for another.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;
use todc_utils::{Action, History, Specification, WGLChecker};

/// Operations on one object.
const OPERATIONS_MAX: usize = 80;
/// Changes to one object that may stay without an answer.
const LOST_MAX: usize = 5;
/// How long the search may take; far beyond what it takes.
const SEARCH_MAX: Duration = Duration::from_secs(60);

/// An operation with its result.
pub trait Operation: Clone + std::fmt::Debug + Send + 'static {
    /// Whether it changes nothing: without an answer it says nothing, either.
    fn only_reads(&self) -> bool;
}

/// The history of one object.
pub struct Track<O> {
    notes: Mutex<Notes<O>>,
}

struct Notes<O> {
    actions: Vec<(usize, Action<O>)>,
    calls: usize,
    open: BTreeSet<usize>,
    lost: usize,
}

/// How many operations a history has, and how many of them were never answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub operations: usize,
    pub unanswered: usize,
}

impl<O: Operation> Track<O> {
    pub fn new() -> Self {
        let notes = Notes {
            actions: Vec::new(),
            calls: 0,
            open: BTreeSet::new(),
            lost: 0,
        };
        Self {
            notes: Mutex::new(notes),
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes<O>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `operation` is about to be sent (its result does not matter yet). `None`: the history is
    /// long enough, take another object.
    pub fn call(&self, operation: O) -> Option<usize> {
        let mut notes = self.notes();
        if notes.calls >= OPERATIONS_MAX || notes.lost >= LOST_MAX {
            return None;
        }
        let call = notes.calls;
        notes.calls += 1;
        notes.open.insert(call);
        notes.actions.push((call, Action::Call(operation)));
        Some(call)
    }

    /// Notes the answer: the operation with its result.
    pub fn answered(&self, call: usize, operation: O) {
        let mut notes = self.notes();
        notes.open.remove(&call);
        notes.actions.push((call, Action::Response(operation)));
    }

    /// Notes that nobody waits for the answer any more.
    pub fn lost(&self, operation: &O) {
        if !operation.only_reads() {
            self.notes().lost += 1;
        }
    }

    /// The history as far as it says anything, those never answered ending after everything else.
    fn finished(&self) -> (Vec<(usize, Action<O>)>, Count) {
        let notes = self.notes();
        let mut actions = Vec::with_capacity(notes.actions.len());
        let mut ends = Vec::new();
        for (call, action) in &notes.actions {
            let open = notes.open.contains(call);
            match action {
                Action::Call(operation) if open && operation.only_reads() => continue,
                Action::Call(operation) if open => {
                    ends.push((*call, Action::Response(operation.clone())));
                }
                _ => {}
            }
            actions.push((*call, action.clone()));
        }
        let count = Count {
            operations: notes.calls,
            unanswered: notes.open.len(),
        };
        actions.extend(ends);
        (actions, count)
    }

    /// Looks for an order that explains everything.
    ///
    /// # Errors
    /// The history, if there is none; or that the search took too long.
    pub fn judge<S: Specification<Operation = O>>(&self) -> Result<Count, String> {
        let (actions, count) = self.finished();
        if actions.is_empty() {
            return Ok(count);
        }
        let told = tell(&actions);
        let (tell, told_back) = mpsc::channel();
        std::thread::spawn(move || {
            // Whoever waited may have gone.
            let _ = tell.send(WGLChecker::<S>::is_linearizable(History::from_actions(
                actions,
            )));
        });
        match told_back.recv_timeout(SEARCH_MAX) {
            Ok(true) => Ok(count),
            Ok(false) => Err(format!("no order explains this history:\n{told}")),
            Err(why) => Err(format!("no verdict on this history ({why}):\n{told}")),
        }
    }
}

fn tell<O: std::fmt::Debug>(actions: &[(usize, Action<O>)]) -> String {
    use std::fmt::Write;
    actions
        .iter()
        .fold(String::new(), |mut text, (call, action)| {
            let _ = match action {
                Action::Call(operation) => writeln!(text, "  {call:3} asks     {operation:?}"),
                Action::Response(operation) => writeln!(text, "  {call:3} is told  {operation:?}"),
            };
            text
        })
}
