//! Random histories: one machine against nonsense, and three machines in a small world.
//!
//! The world has a consensus that elects only when no other lease can be valid, a driver per node that
//! performs actions late but in order, and an address guard. Checked after every step: invariant 3 (at most
//! one node answers) and invariant 8 (an address is on at most one node, and only on one that can serve).

use std::collections::{BTreeSet, VecDeque};

use haven_cluster::{Action, Event, Phase, Takeover, Term, Timing};
use proptest::prelude::*;

fn any_event() -> impl Strategy<Value = Event> {
    let term = (1u64..6).prop_map(Term);
    prop_oneof![
        4 => term.clone().prop_map(|term| Event::Elected { term }),
        1 => Just(Event::Deposed),
        1 => Just(Event::LeaseLapsed),
        1 => term.clone().prop_map(|term| Event::LeaseRegained { term }),
        4 => (term.clone(), 1u64..100).prop_map(|(term, index)| Event::BarrierDone { term, index }),
        1 => term.clone().prop_map(|term| Event::BarrierFailed { term }),
        4 => term.clone().prop_map(|term| Event::ServingStarted { term }),
        4 => term.clone().prop_map(|term| Event::AddressesAdded { term }),
        1 => term.prop_map(|term| Event::AddressFailed { term, why: String::new() }),
        3 => Just(Event::AddressesRemoved),
        1 => Just(Event::AddressLost),
        3 => Just(Event::ConnectionsClosed),
        1 => Just(Event::MoveRequested),
        1 => Just(Event::Drained),
        1 => Just(Event::TransferDone),
        1 => Just(Event::TransferFailed),
        1 => Just(Event::Shutdown),
        2 => (0u64..100_000).prop_map(|now_ms| Event::Tick { now_ms }),
    ]
}

/// What the actions alone tell about a node.
#[derive(Default)]
struct Seen {
    gate: bool,
    /// What came in when the gate was open may be inside: of this term.
    inside: Option<Term>,
    addresses: bool,
    barriers: BTreeSet<Term>,
    /// Connections may be left over.
    connections: bool,
    /// A transfer was asked for and has not ended.
    transferring: bool,
    /// When the process must have ended, and the time.
    end_ms: Option<u64>,
    now_ms: u64,
}

impl Seen {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::BarrierDone { term, .. } => {
                self.barriers.insert(*term);
            }
            Event::TransferDone | Event::TransferFailed => self.transferring = false,
            Event::Tick { now_ms } => self.now_ms = self.now_ms.max(*now_ms),
            Event::Shutdown => {
                let end_ms = self.now_ms + Timing::default().shutdown_ms_max;
                self.end_ms.get_or_insert(end_ms);
            }
            _ => {}
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::CommitBarrier { .. } => assert!(!self.gate),
            Action::StartServing { term } => {
                assert!(!self.gate);
                match self.inside {
                    Some(inside) => assert_eq!(inside, term, "a request of another term"),
                    None => assert!(!self.connections),
                }
                assert!(
                    self.barriers.contains(&term),
                    "served without a barrier of this term"
                );
                self.gate = true;
                self.inside = Some(term);
                self.connections = true;
            }
            Action::SuspendServing => {
                assert!(self.gate, "suspended twice");
                self.gate = false;
            }
            Action::StopServing => {
                assert!(self.inside.is_some(), "stopped twice");
                self.gate = false;
                self.inside = None;
            }
            Action::AddAddresses { term } => {
                assert!(self.inside == Some(term) && !self.addresses);
                self.addresses = true;
            }
            Action::Announce | Action::ResetClientConnections | Action::TickleClients => {
                assert!(self.addresses && self.gate);
            }
            Action::RemoveAddresses => self.addresses = false,
            Action::CloseClientConnections => {
                assert!(self.inside.is_none(), "clients of a term that goes on");
                assert!(!self.addresses, "clients told too early");
                self.connections = false;
            }
            Action::Drain => assert!(self.gate),
            Action::TransferLeadership => {
                assert!(!self.gate && !self.addresses);
                let other = std::mem::replace(&mut self.transferring, true);
                assert!(!other, "two transfers at a time");
            }
            Action::Exit => {
                assert!(!self.gate && !self.addresses);
                let late = self.end_ms.is_some_and(|end| self.now_ms >= end);
                assert!(
                    late || !self.transferring,
                    "ended before its heir had the leadership"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the events say, in whatever order: the machine's own assertions hold, and the order of
    /// its actions is right.
    #[test]
    fn nonsense_never_leads_to_a_wrong_order(
        events in prop::collection::vec(any_event(), 0..120),
        has_addresses: bool,
    ) {
        let (mut machine, first) = Takeover::new(has_addresses, Timing::default());
        let mut seen = Seen::default();
        first.into_iter().for_each(|action| seen.perform(action));
        for event in events {
            seen.hear(&event);
            let lost = match event {
                Event::Deposed => Some(Action::StopServing),
                Event::LeaseLapsed if machine.phase() != Phase::Moving => Some(Action::SuspendServing),
                _ => None,
            };
            let deposed = matches!(event, Event::Deposed | Event::LeaseLapsed);
            let actions = machine.handle(event);
            if let Some(lost) = lost && seen.gate {
                prop_assert_eq!(actions[0], lost);
            }
            for action in actions {
                let on_addresses = matches!(
                    action,
                    Action::AddAddresses { .. }
                        | Action::RemoveAddresses
                        | Action::Announce
                        | Action::ResetClientConnections
                        | Action::TickleClients
                );
                prop_assert!(has_addresses || !on_addresses);
                seen.perform(action);
            }
            prop_assert!(!deposed || machine.phase() != Phase::Serving);
        }
    }
}

const NODES: usize = 3;

/// A node in the world: the machine, what is on its way to it and from it, and the real state of things.
struct Node {
    machine: Takeover,
    events: VecDeque<Event>,
    actions: VecDeque<Action>,
    /// What consensus really granted, as the gate and the driver check it.
    lease: Option<Term>,
    gate: bool,
    /// A request that came in this term is inside.
    inside: Option<Term>,
    address: bool,
    /// The gate was opened for another term than that of requests that were still inside.
    mixed: bool,
    /// Clients of this node may have heard neither an answer nor a reset since it fell silent.
    unheard: bool,
    transferring: Option<Term>,
}

struct World {
    nodes: Vec<Node>,
    term: u64,
    now_ms: u64,
}

/// What may happen next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The node handles the next event in its queue.
    Deliver(usize),
    /// The node's driver performs the next action in its queue.
    Perform(usize),
    Elect(usize),
    LapseLease(usize),
    RegainLease(usize),
    FinishTransfer(usize, bool),
    Move(usize),
    LoseAddress(usize),
    /// The process dies and starts again; the kernel keeps the address until the guard acts.
    Crash(usize),
    PassTime(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        20 => node.clone().prop_map(Step::Deliver),
        20 => node.clone().prop_map(Step::Perform),
        3 => node.clone().prop_map(Step::Elect),
        1 => node.clone().prop_map(Step::LapseLease),
        1 => node.clone().prop_map(Step::RegainLease),
        3 => (node.clone(), any::<bool>()).prop_map(|(node, ok)| Step::FinishTransfer(node, ok)),
        2 => node.clone().prop_map(Step::Move),
        1 => node.clone().prop_map(Step::LoseAddress),
        1 => node.prop_map(Step::Crash),
        2 => (1u64..2_000).prop_map(Step::PassTime),
    ]
}

impl World {
    fn new() -> Self {
        let nodes = (0..NODES).map(|_| Node::new()).collect();
        Self {
            nodes,
            term: 0,
            now_ms: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Deliver(node) => self.nodes[node].deliver(),
            Step::Perform(node) => self.perform(node),
            Step::Elect(node) => self.elect(node),
            Step::LapseLease(node) => self.nodes[node].lapse(),
            Step::RegainLease(node) => self.regain(node),
            Step::FinishTransfer(node, ok) => self.finish_transfer(node, ok),
            Step::Move(node) => self.nodes[node].events.push_back(Event::MoveRequested),
            Step::LoseAddress(node) => self.nodes[node].lose_address(),
            Step::Crash(node) => self.nodes[node].crash(),
            Step::PassTime(ms) => {
                self.now_ms += ms;
                for node in &mut self.nodes {
                    node.events.push_back(Event::Tick {
                        now_ms: self.now_ms,
                    });
                }
            }
        }
    }

    fn perform(&mut self, node: usize) {
        let tickles = self.nodes[node].actions.front() == Some(&Action::TickleClients);
        self.nodes[node].perform();
        // Whom a node knew of, all know of.
        if tickles && self.nodes[node].address {
            self.nodes.iter_mut().for_each(|node| node.unheard = false);
        }
    }

    /// An ordinary election: only when no lease is valid or under transfer, so long after the last one
    /// ended that the guards have acted.
    fn elect(&mut self, winner: usize) {
        if self.nodes.iter().any(|node| node.lease.is_some()) {
            return;
        }
        self.nodes.iter_mut().for_each(Node::guard_acts);
        self.win(winner);
    }

    fn win(&mut self, winner: usize) {
        self.term += 1;
        let term = Term(self.term);
        for (number, node) in self.nodes.iter_mut().enumerate() {
            node.transferring = None;
            if number == winner {
                node.lease = Some(term);
                node.events.push_back(Event::Elected { term });
            } else {
                node.lease = None;
                node.events.push_back(Event::Deposed);
            }
        }
    }

    /// Heartbeats come through again, in the newest term, at the node that has it.
    fn regain(&mut self, node: usize) {
        let newest = Term(self.term);
        let none = self.nodes.iter().all(|node| node.lease.is_none());
        let node = &mut self.nodes[node];
        if none && node.machine.leading() == Some(newest) && node.transferring.is_none() {
            node.lease = Some(newest);
            node.events.push_back(Event::LeaseRegained { term: newest });
        }
    }

    /// A transferred leadership is taken up at once: nobody waits for a lease or for the guard.
    fn finish_transfer(&mut self, from: usize, ok: bool) {
        let Some(term) = self.nodes[from].transferring.take() else {
            return;
        };
        let newest = term == Term(self.term) && self.nodes.iter().all(|node| node.lease.is_none());
        if ok && newest {
            self.win((from + 1) % NODES);
            self.nodes[from].events.push_back(Event::TransferDone);
        } else {
            self.nodes[from].lease = newest.then_some(term);
            self.nodes[from].events.push_back(Event::TransferFailed);
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        // The gate checks the lease before each reply.
        let answering = |node: &&Node| node.gate && node.lease.is_some();
        prop_assert!(
            self.nodes.iter().filter(answering).count() <= 1,
            "two nodes answer"
        );
        let holders: Vec<&Node> = self.nodes.iter().filter(|node| node.address).collect();
        prop_assert!(holders.len() <= 1, "the address is on two nodes");
        for node in &self.nodes {
            // Where nothing is served, the address is on its way off, by the driver or by the guard, or the gate is
            // about to open, with all that it takes.
            let leaving = node.actions.contains(&Action::RemoveAddresses) || node.lease.is_none();
            let opening = node.inside.is_some() && node.inside == node.lease;
            prop_assert!(
                !node.address || node.gate || leaving || opening,
                "an address nobody serves"
            );
            prop_assert!(!node.mixed, "requests of two terms are let out");
            let answers = node.gate && node.lease.is_some() && node.is_quiet();
            prop_assert!(
                !answers || node.inside == node.lease,
                "a request of another term is answered"
            );
        }
        Ok(())
    }

    /// Lets everything happen that is on its way, and elects one node: it must end up serving.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for node in &mut self.nodes {
            node.lapse();
            node.transferring = None;
        }
        self.elect(0);
        for round in 0..200 {
            for number in 0..NODES {
                while !self.nodes[number].is_quiet() {
                    self.nodes[number].deliver();
                    self.perform(number);
                    // A move asked for earlier may still begin; no other node takes the leadership now.
                    self.finish_transfer(number, false);
                    self.check()?;
                }
            }
            if self.nodes[0].machine.phase() == Phase::Serving && self.nodes[0].address {
                let unheard = self.nodes.iter().any(|node| node.unheard);
                prop_assert!(!unheard, "a connection ended in silence");
                return Ok(());
            }
            self.step(Step::PassTime(100 + round));
        }
        Err(TestCaseError::fail(format!(
            "never served: {:?}",
            self.nodes[0].machine
        )))
    }
}

impl Node {
    fn new() -> Self {
        let (machine, actions) = Takeover::new(true, Timing::default());
        Self {
            machine,
            events: VecDeque::new(),
            actions: actions.into(),
            lease: None,
            gate: false,
            inside: None,
            mixed: false,
            address: false,
            unheard: false,
            transferring: None,
        }
    }

    fn is_quiet(&self) -> bool {
        self.events.is_empty() && self.actions.is_empty()
    }

    fn deliver(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.actions.extend(self.machine.handle(event));
        }
    }

    fn perform(&mut self) {
        let Some(action) = self.actions.pop_front() else {
            return;
        };
        match action {
            Action::CommitBarrier { term } => self.events.push_back(match self.lease {
                Some(own) if own == term => Event::BarrierDone {
                    term,
                    index: term.0,
                },
                _ => Event::BarrierFailed { term },
            }),
            Action::StartServing { term } => {
                self.gate = true;
                self.mixed |= self.inside.is_some_and(|inside| inside != term);
                self.inside = Some(term);
                self.events.push_back(Event::ServingStarted { term });
            }
            Action::SuspendServing => self.gate = false,
            Action::StopServing => {
                self.gate = false;
                self.inside = None;
            }
            Action::AddAddresses { term } if self.lease == Some(term) => {
                self.address = true;
                self.events.push_back(Event::AddressesAdded { term });
            }
            Action::AddAddresses { term } => {
                self.events.push_back(Event::AddressFailed {
                    term,
                    why: String::new(),
                });
            }
            Action::RemoveAddresses => {
                self.unheard |= std::mem::take(&mut self.address);
                self.events.push_back(Event::AddressesRemoved);
            }
            Action::CloseClientConnections => self.events.push_back(Event::ConnectionsClosed),
            Action::Drain => self.events.push_back(Event::Drained),
            Action::TransferLeadership => {
                self.transferring = self.lease.take();
                if self.transferring.is_none() {
                    self.events.push_back(Event::TransferFailed);
                }
            }
            Action::Announce
            | Action::ResetClientConnections
            | Action::TickleClients
            | Action::Exit => {}
        }
    }

    fn lapse(&mut self) {
        if self.lease.take().is_some() {
            self.events.push_back(Event::LeaseLapsed);
        }
    }

    fn guard_acts(&mut self) {
        if self.address && self.lease.is_none() {
            self.lose_address();
        }
    }

    fn lose_address(&mut self) {
        if std::mem::take(&mut self.address) {
            self.unheard = true;
            self.events.push_back(Event::AddressLost);
        }
    }

    fn crash(&mut self) {
        let (address, unheard) = (self.address, self.unheard);
        *self = Self::new();
        self.address = address;
        self.unheard = unheard || address;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariants 3 and 8, a change belongs to its term, no connection ends in silence, and the service always comes
    /// back.
    #[test]
    fn at_most_one_node_answers_and_holds_the_address(
        steps in prop::collection::vec(any_step(), 0..250),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check()?;
        }
        world.settle()?;
    }
}
