//! The takeover machine: facts about one service on this node, and the next step towards where it should be.
//!
//! Each event changes facts; then [`Takeover::advance`] compares them with what leadership and lease
//! allow and emits the missing steps. There is no path of its own for each situation, so a loss in the
//! middle of a takeover needs no special case.
//!
//! A leader whose lease lapses need not be at its end: most lapses are short, and the same node leads on in the same
//! term. So it suspends: nothing is answered, the addresses go (another node may be elected), but clients' connections
//! and what they have asked stay. Only the end of its term closes them. Why that is right: decisions/0013.
//!
//! Invariants (asserted after every event): the gate is open only with leadership, lease and a barrier of
//! this term; it is suspended only while leading; addresses are wanted only behind a gate that is open, or suspended with
//! all that it takes to open it; nothing is up once a transfer has begun.
//!
//! Must not know: IO, clocks (time comes with [`Event::Tick`]), which addresses there are.

use crate::event::{Action, Event, Term};

/// Delays of the takeover, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How many announcements follow each other closely after the addresses were added.
    pub announce_burst: u32,
    /// The distance between these.
    pub announce_burst_ms: u64,
    /// The distance between announcements afterwards.
    pub announce_refresh_ms: u64,
    /// How long a planned move waits for running requests. What is not finished then is never answered
    /// here; the client asks the next leader again, which executes nothing twice.
    pub drain_ms_max: u64,
    /// How long a failed barrier waits for its repetition.
    pub barrier_retry_ms: u64,
    /// How long addresses that failed, or were lost right after they came up, wait for the next attempt.
    pub address_retry_ms: u64,
    /// After so many failures in a row another node is asked to lead.
    pub address_failures_max: u32,
    /// How long a shutdown may take before the process exits anyway (gate closed, guard cleaning up).
    pub shutdown_ms_max: u64,
    /// After a suspension of so long, connections are reset: a client that sent something meanwhile waits for its TCP's
    /// retransmission timer, which doubles from 200 ms (RFC 6298), so up to as long as the suspension again.
    pub reset_after_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            announce_burst: 5,
            announce_burst_ms: 200,
            announce_refresh_ms: 30_000,
            drain_ms_max: 40,
            barrier_retry_ms: 100,
            address_retry_ms: 1_000,
            address_failures_max: 3,
            shutdown_ms_max: 5_000,
            reset_after_ms: 200,
        }
    }
}

/// Where the service stands on this node, for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Another node leads, or nobody; nothing is up here.
    Standby,
    /// Leading, but not everything is up yet.
    TakingOver,
    /// Leading, serving, addresses (if there are any) up.
    Serving,
    /// Leading without a lease: nothing is answered, but clients' connections are kept.
    Suspended,
    /// On the way down: addresses or connections are still being removed.
    Releasing,
    /// A planned move is under way.
    Moving,
    /// [`Action::Exit`] was given.
    Exited,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Barrier {
    Missing,
    InFlight,
    Done { index: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Closed,
    Opening,
    Open,
    Suspended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addresses {
    Down,
    Adding,
    Up,
    Removing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// Still serving what runs; ends at the deadline at the latest.
    Draining { until_ms: u64 },
    /// Gate closed; waits for the addresses to be off.
    Releasing,
    /// Asked the next leader to take over.
    Transferring,
}

/// The takeover of one service on one node.
#[derive(Debug)]
pub struct Takeover {
    timing: Timing,
    has_addresses: bool,
    now_ms: u64,
    term_max: Option<Term>,
    leading: Option<Term>,
    lease: bool,
    barrier: Barrier,
    barrier_retry_at_ms: u64,
    gate: Gate,
    suspended_at_ms: u64,
    addresses: Addresses,
    addresses_up_since_ms: u64,
    address_retry_at_ms: u64,
    address_failures: u32,
    trouble: Option<String>,
    /// Connections may exist that were not asked closed yet.
    close_due: bool,
    closing: bool,
    moving: Option<Move>,
    /// The term whose transfer was asked for and has not ended. That outlives leadership: the lease of the term is
    /// over with the transfer's first step, long before the heir leads.
    handing_over: Option<Term>,
    shutdown_until_ms: Option<u64>,
    announced: u32,
    announce_at_ms: u64,
    exited: bool,
}

impl Takeover {
    /// A node that has just started. The actions clear away what an earlier life of this process may have
    /// left behind. `has_addresses`: whether the service has floating addresses at all.
    pub fn new(has_addresses: bool, timing: Timing) -> (Self, Vec<Action>) {
        let mut machine = Self {
            timing,
            has_addresses,
            now_ms: 0,
            term_max: None,
            leading: None,
            lease: false,
            barrier: Barrier::Missing,
            barrier_retry_at_ms: 0,
            gate: Gate::Closed,
            suspended_at_ms: 0,
            addresses: Addresses::Down,
            addresses_up_since_ms: 0,
            address_retry_at_ms: 0,
            address_failures: 0,
            trouble: None,
            close_due: false,
            closing: false,
            moving: None,
            handing_over: None,
            shutdown_until_ms: None,
            announced: 0,
            announce_at_ms: 0,
            exited: false,
        };
        if !has_addresses {
            return (machine, Vec::new());
        }
        machine.addresses = Addresses::Removing;
        machine.closing = true;
        (
            machine,
            vec![Action::RemoveAddresses, Action::CloseClientConnections],
        )
    }

    /// Takes one event and says what to do, in this order.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if self.exited {
            return out;
        }
        self.note(event, &mut out);
        self.advance(&mut out);
        self.assert_invariants();
        out
    }

    /// Where things stand.
    pub fn phase(&self) -> Phase {
        if self.exited {
            Phase::Exited
        } else if self.moving.is_some() || (self.handing_over.is_some() && self.leading.is_none()) {
            Phase::Moving
        } else if self.leading.is_some() && self.lease {
            let up = !self.has_addresses || self.addresses == Addresses::Up;
            if up && self.gate == Gate::Open {
                Phase::Serving
            } else {
                Phase::TakingOver
            }
        } else if self.gate == Gate::Suspended {
            Phase::Suspended
        } else if self.addresses != Addresses::Down || self.closing {
            Phase::Releasing
        } else {
            Phase::Standby
        }
    }

    /// The term this node leads in.
    pub fn leading(&self) -> Option<Term> {
        self.leading
    }

    /// The log index of the barrier behind which this node serves.
    pub fn barrier_index(&self) -> Option<u64> {
        match self.barrier {
            Barrier::Done { index } if self.leading.is_some() => Some(index),
            _ => None,
        }
    }

    /// Why the addresses could not be added last time; empty once they are up.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// When the next [`Event::Tick`] is needed, on the clock of the ticks. `None`: not before another event.
    pub fn wake_at_ms(&self) -> Option<u64> {
        if self.exited {
            return None;
        }
        let drain = match self.moving {
            Some(Move::Draining { until_ms }) => Some(until_ms),
            _ => None,
        };
        let up = self.may_serve();
        let barrier = (up && self.barrier == Barrier::Missing).then_some(self.barrier_retry_at_ms);
        let wants_addresses = up
            && self.has_addresses
            && matches!(self.barrier, Barrier::Done { .. })
            && matches!(self.gate, Gate::Open | Gate::Suspended)
            && self.addresses == Addresses::Down
            && !self.draining();
        let address = wants_addresses.then_some(self.address_retry_at_ms);
        let announce = (self.addresses == Addresses::Up).then_some(self.announce_at_ms);
        [drain, barrier, address, announce, self.shutdown_until_ms]
            .into_iter()
            .flatten()
            .min()
    }

    /// Changes the facts.
    fn note(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Elected { term } => self.note_elected(term, out),
            Event::Deposed => self.lose_leadership(),
            Event::LeaseLapsed => self.lose_lease(),
            Event::LeaseRegained { term } => self.lease |= self.leading == Some(term),
            Event::BarrierDone { term, index } => {
                if self.leading == Some(term) && self.barrier == Barrier::InFlight {
                    self.barrier = Barrier::Done { index };
                }
            }
            Event::BarrierFailed { term } => {
                if self.leading == Some(term) && self.barrier == Barrier::InFlight {
                    self.barrier = Barrier::Missing;
                    self.barrier_retry_at_ms = self.now_ms + self.timing.barrier_retry_ms;
                }
            }
            Event::ServingStarted { term } => {
                if self.leading == Some(term) && self.gate == Gate::Opening {
                    self.gate = Gate::Open;
                }
            }
            Event::AddressesAdded { term } => self.note_added(term, out),
            Event::AddressFailed { term, why } => self.note_add_failed(term, why, out),
            Event::AddressesRemoved => {
                if self.addresses == Addresses::Removing {
                    self.addresses = Addresses::Down;
                }
            }
            Event::AddressLost => self.note_lost(out),
            Event::ConnectionsClosed => self.closing = false,
            Event::MoveRequested => self.begin_move(out),
            Event::Drained => {
                if self.draining() {
                    self.moving = Some(Move::Releasing);
                }
            }
            Event::TransferDone => {
                self.handing_over = None;
                if self.moving == Some(Move::Transferring) {
                    self.lose_leadership();
                }
            }
            Event::TransferFailed => {
                self.handing_over = None;
                if self.moving == Some(Move::Transferring) {
                    self.moving = None;
                }
            }
            Event::Shutdown => {
                if self.shutdown_until_ms.is_none() {
                    self.begin_move(out);
                    self.shutdown_until_ms = Some(self.now_ms + self.timing.shutdown_ms_max);
                }
            }
            Event::Tick { now_ms } => self.note_time(now_ms, out),
        }
    }

    fn note_elected(&mut self, term: Term, out: &mut Vec<Action>) {
        if self.term_max.is_some_and(|newest| term < newest) || self.leading == Some(term) {
            return;
        }
        // Elected anew without having heard of the end of the last term: somebody else may have led in
        // between, so everything goes down first. The same term again, after its end, begins anew, too.
        self.lose_leadership();
        self.go_down(out);
        self.term_max = Some(term);
        self.leading = Some(term);
        self.lease = true;
        self.barrier_retry_at_ms = self.now_ms;
        self.address_retry_at_ms = self.now_ms;
        self.address_failures = 0;
        if self.shutdown_until_ms.is_some() {
            self.moving = Some(Move::Releasing);
        }
    }

    fn lose_leadership(&mut self) {
        self.leading = None;
        self.lease = false;
        self.barrier = Barrier::Missing;
        self.moving = None;
    }

    fn lose_lease(&mut self) {
        self.lease = false;
        // A transfer that was asked for cannot be taken back; one that was not makes no sense any more.
        if self.moving != Some(Move::Transferring) {
            self.moving = None;
        }
    }

    fn note_added(&mut self, term: Term, out: &mut Vec<Action>) {
        if self.leading != Some(term) || self.addresses != Addresses::Adding {
            return;
        }
        self.addresses = Addresses::Up;
        self.addresses_up_since_ms = self.now_ms;
        self.address_failures = 0;
        self.trouble = None;
        let resumes = self.gate == Gate::Suspended;
        if resumes {
            self.start_serving(term, out);
        }
        self.announced = 0;
        self.announce(out);
        let suspended_ms = self.now_ms.saturating_sub(self.suspended_at_ms);
        if resumes && suspended_ms > self.timing.reset_after_ms {
            out.push(Action::ResetClientConnections);
        }
        out.push(Action::TickleClients);
    }

    fn note_add_failed(&mut self, term: Term, why: String, out: &mut Vec<Action>) {
        if self.leading != Some(term) || self.addresses != Addresses::Adding {
            return;
        }
        self.trouble = Some(why);
        self.addresses = Addresses::Removing;
        out.push(Action::RemoveAddresses);
        self.address_retry_at_ms = self.now_ms + self.timing.address_retry_ms;
        self.address_failures += 1;
        if self.address_failures >= self.timing.address_failures_max {
            // Nobody can reach the service here: another node may do better.
            self.address_failures = 0;
            self.moving = Some(Move::Releasing);
        }
    }

    /// An address that vanished is evidence that this process was frozen long enough for the guard to act,
    /// and its idea of leadership may be as old. So leadership is proved again, by a new barrier, before
    /// anything goes back up.
    fn note_lost(&mut self, out: &mut Vec<Action>) {
        if !matches!(self.addresses, Addresses::Adding | Addresses::Up) {
            return;
        }
        let was_up_ms = self.now_ms.saturating_sub(self.addresses_up_since_ms);
        let stable = self.addresses == Addresses::Up && was_up_ms >= self.timing.address_retry_ms;
        let pause_ms = if stable {
            0
        } else {
            self.timing.address_retry_ms
        };
        self.address_retry_at_ms = self.now_ms + pause_ms;
        self.barrier = Barrier::Missing;
        self.barrier_retry_at_ms = self.now_ms;
        self.moving = None;
        if self.shutdown_until_ms.is_none() {
            self.suspend(out);
        }
    }

    fn begin_move(&mut self, out: &mut Vec<Action>) {
        if self.leading.is_none() || self.moving.is_some() {
            return;
        }
        if self.gate == Gate::Open {
            let until_ms = self.now_ms + self.timing.drain_ms_max;
            self.moving = Some(Move::Draining { until_ms });
            out.push(Action::Drain);
        } else {
            self.moving = Some(Move::Releasing);
        }
    }

    fn note_time(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        self.now_ms = self.now_ms.max(now_ms);
        if let Some(Move::Draining { until_ms }) = self.moving
            && self.now_ms >= until_ms
        {
            self.moving = Some(Move::Releasing);
        }
        if self.addresses == Addresses::Up && self.may_serve() && self.now_ms >= self.announce_at_ms
        {
            self.announce(out);
        }
    }

    fn announce(&mut self, out: &mut Vec<Action>) {
        out.push(Action::Announce);
        self.announced = self.announced.saturating_add(1);
        let wait_ms = if self.announced < self.timing.announce_burst {
            self.timing.announce_burst_ms
        } else {
            self.timing.announce_refresh_ms
        };
        self.announce_at_ms = self.now_ms + wait_ms;
    }

    fn draining(&self) -> bool {
        matches!(self.moving, Some(Move::Draining { .. }))
    }

    /// Whether anything may be up here.
    fn may_serve(&self) -> bool {
        let staying = self.moving.is_none() && self.shutdown_until_ms.is_none();
        // What is being handed over is no longer this node's, whatever anybody says of its term.
        let own = self.leading.is_some() && self.leading != self.handing_over;
        own && self.lease && (staying || self.draining())
    }

    /// Whether this node may go on in its term, and means to.
    fn leads_on(&self) -> bool {
        self.leading.is_some() && self.moving.is_none() && self.shutdown_until_ms.is_none()
    }

    /// Takes the steps that the facts allow.
    fn advance(&mut self, out: &mut Vec<Action>) {
        if self.may_serve() {
            self.go_up(out);
        } else if self.leads_on() {
            self.suspend(out);
        } else {
            self.go_down(out);
            self.hand_over(out);
        }
        self.try_exit(out);
    }

    /// Serve first, then take the address.
    fn go_up(&mut self, out: &mut Vec<Action>) {
        let Some(term) = self.leading else { return };
        if self.draining() {
            return;
        }
        match (self.barrier, self.gate) {
            (Barrier::Missing, _) => {
                if self.now_ms >= self.barrier_retry_at_ms {
                    self.barrier = Barrier::InFlight;
                    out.push(Action::CommitBarrier { term });
                }
            }
            (Barrier::InFlight, _) | (_, Gate::Opening) => {}
            // A closing that is still under way must not hit the connections of the new turn.
            (Barrier::Done { .. }, Gate::Closed) => {
                // A lapse may have ended a move between the closing of the gate and that of the connections: what they
                // had asked is given up, and nobody would ever answer it.
                self.close_connections(out);
                if !self.closing {
                    self.start_serving(term, out);
                }
            }
            // The other way round: an answer that had no address to leave from would wait for a timer of our TCP.
            (Barrier::Done { .. }, Gate::Suspended) if !self.has_addresses => {
                self.start_serving(term, out);
            }
            (Barrier::Done { .. }, Gate::Open | Gate::Suspended) => {
                let due = self.now_ms >= self.address_retry_at_ms;
                if self.has_addresses && self.addresses == Addresses::Down && due {
                    self.addresses = Addresses::Adding;
                    out.push(Action::AddAddresses { term });
                }
            }
        }
    }

    fn start_serving(&mut self, term: Term, out: &mut Vec<Action>) {
        self.gate = Gate::Opening;
        out.push(Action::StartServing { term });
    }

    /// Silence first, then the address. What clients have asked waits.
    fn suspend(&mut self, out: &mut Vec<Action>) {
        if matches!(self.gate, Gate::Opening | Gate::Open) {
            self.gate = Gate::Suspended;
            self.suspended_at_ms = self.now_ms;
            out.push(Action::SuspendServing);
        }
        self.take_addresses_off(out);
    }

    fn take_addresses_off(&mut self, out: &mut Vec<Action>) {
        if matches!(self.addresses, Addresses::Adding | Addresses::Up) {
            self.addresses = Addresses::Removing;
            self.close_due = true;
            out.push(Action::RemoveAddresses);
        }
    }

    /// Silence first, then the address, then the connections. In a planned move the connections wait for
    /// the transfer, which the client feels; they do not.
    fn go_down(&mut self, out: &mut Vec<Action>) {
        if self.gate != Gate::Closed {
            self.gate = Gate::Closed;
            self.close_due = true;
            out.push(Action::StopServing);
        }
        self.take_addresses_off(out);
        if self.moving != Some(Move::Releasing) {
            self.close_connections(out);
        }
    }

    /// The addresses are off: the next leader may come. One transfer at a time: which of two had ended, no report
    /// would tell.
    fn hand_over(&mut self, out: &mut Vec<Action>) {
        let released = self.moving == Some(Move::Releasing) && self.addresses == Addresses::Down;
        if !released || self.handing_over.is_some() {
            return;
        }
        self.moving = Some(Move::Transferring);
        self.handing_over = self.leading;
        // The lease is void from here on; if the transfer fails, a new barrier proves leadership.
        self.barrier = Barrier::Missing;
        self.barrier_retry_at_ms = self.now_ms;
        out.push(Action::TransferLeadership);
        self.close_connections(out);
    }

    fn close_connections(&mut self, out: &mut Vec<Action>) {
        if self.close_due {
            self.close_due = false;
            self.closing = true;
            out.push(Action::CloseClientConnections);
        }
    }

    fn try_exit(&mut self, out: &mut Vec<Action>) {
        let Some(until_ms) = self.shutdown_until_ms else {
            return;
        };
        let down = self.gate == Gate::Closed && self.addresses == Addresses::Down;
        // A process that ends before its heir leads takes its vote, and perhaps the order to lead, along.
        let handed_over = self.moving.is_none() && self.handing_over.is_none();
        let clean = down && handed_over && !self.closing;
        let late = self.now_ms >= until_ms;
        if !clean && !late {
            return;
        }
        if late {
            self.moving = None;
            self.handing_over = None;
            self.go_down(out);
        }
        self.exited = true;
        out.push(Action::Exit);
    }

    fn assert_invariants(&self) {
        if self.gate == Gate::Suspended {
            assert!(self.leads_on(), "suspended without a term to go on in");
        } else if self.gate != Gate::Closed {
            assert!(
                self.leading.is_some() && self.lease,
                "serving without leadership and lease"
            );
            assert!(
                matches!(self.barrier, Barrier::Done { .. }),
                "serving without a barrier"
            );
            assert!(
                self.moving.is_none() || self.draining(),
                "serving while handing over"
            );
        }
        if matches!(self.addresses, Addresses::Adding | Addresses::Up) {
            assert!(
                self.gate != Gate::Closed && self.may_serve(),
                "addresses wanted behind a closed gate"
            );
            assert!(
                matches!(self.barrier, Barrier::Done { .. }),
                "addresses wanted without a barrier"
            );
        }
        if self.moving == Some(Move::Transferring) {
            assert!(
                self.addresses == Addresses::Down,
                "leadership given away before the address"
            );
        }
        assert!(
            self.has_addresses || self.addresses == Addresses::Down,
            "addresses from nowhere"
        );
    }
}
