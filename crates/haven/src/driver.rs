//! The driver: performs what `haven_cluster::Takeover` decides, and tells it what happened.
//!
//! One task owns the takeover machine. Facts come in as events, from the consensus layer (who leads),
//! from the lease watch, from the address guard and from the actions themselves. Closing the gate is
//! done on the spot; address work is done in order by one task of its own, so that a slow kernel never
//! delays a closing.
//!
//! It must not decide anything: no order, no retry, no condition that the machine could have known.

use crate::addresses::Addresses;
use crate::clients::Clients;
use crate::clock::ServiceClock;
use crate::engine::{Engine, Outcome};
use crate::exports::Exports;
use crate::found;
use crate::history::History;
use haven_cluster::{Action, Event, Phase, Takeover, Term, Timing};
use haven_consensus::{Consensus, TransferError};
use haven_net::Gate;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// Events that wait for the machine; each source has at most a few outstanding.
const EVENTS_MAX: usize = 256;
/// How often the lease is looked at while leading: its lapse must be noticed well within an election.
const LEASE_POLL: Duration = Duration::from_millis(10);
/// How long a new leader may take to get its first quorum of answers before its lease counts as lapsed.
const LEASE_FIRST: Duration = Duration::from_millis(1_000);
/// A suspension of so long is told like a failover: an election would have ended it, had others had a majority.
const SUSPENSION_TOLD: Duration = Duration::from_millis(600);
/// How long closed client connections may take to be gone.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// A failed barrier means that the election is not yet settled everywhere in this process, or that it is
/// over: the first takes a moment only, and clients wait meanwhile.
fn timing() -> Timing {
    Timing {
        barrier_retry_ms: 5,
        ..Timing::default()
    }
}

/// What the driver works with.
pub struct Parts {
    /// Who leads, and the log.
    pub consensus: Consensus<Outcome>,
    /// The state.
    pub engine: Arc<Engine>,
    /// Between clients and service.
    pub gate: Arc<Gate>,
    /// Who is connected, here and at the former leader.
    pub clients: Clients,
    /// The floating addresses; `None`: the service has none.
    pub addresses: Option<Addresses>,
    /// What must exist in the volume before anybody is served.
    pub exports: Arc<Exports>,
    /// Remembers failovers.
    pub history: Arc<History>,
    /// What time the service has.
    pub clock: Arc<ServiceClock>,
}

/// A view of the driver for others: status, and where to send wishes.
#[derive(Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Said>,
    view: Arc<watch::Sender<View>>,
}

/// Where the takeover stands.
#[derive(Debug, Clone)]
pub struct View {
    /// The machine's phase.
    pub phase: Phase,
    /// Why addresses are not up.
    pub trouble: Option<String>,
}

/// How a planned move ended: who leads now, or why it came to nothing.
type Moved = Result<u64, String>;

/// What the driver is told.
enum Said {
    Event(Event),
    Move {
        to: Option<u64>,
        /// Who wants to know how it ends.
        tell: Option<oneshot::Sender<Moved>>,
    },
    Transferred(Result<u64, TransferError>),
}

impl Handle {
    /// Where the takeover stands.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Waits until clients are answered here.
    pub async fn serves(&self) {
        let mut view = self.view.subscribe();
        // This handle keeps the sender.
        let _ = view.wait_for(|view| view.phase == Phase::Serving).await;
    }

    /// Asks for a planned move.
    pub async fn request_move(&self, to: Option<u64>) {
        self.say(Said::Move { to, tell: None }).await;
    }

    /// Moves the service and waits for the end of that: who leads now. That need not be `to`: the cluster elects.
    ///
    /// # Errors
    /// Why the move came to nothing, in words for the operator.
    pub async fn move_service(&self, to: Option<u64>) -> Result<u64, String> {
        let (tell, told) = oneshot::channel();
        let tell = Some(tell);
        self.say(Said::Move { to, tell }).await;
        // The driver ends only with the process.
        told.await
            .unwrap_or_else(|_| Err("this node is stopping".to_owned()))
    }

    /// Asks for an orderly end.
    pub async fn shut_down(&self) {
        self.send(Event::Shutdown).await;
    }

    /// A floating address is gone from this node. For threads outside the runtime: does not wait.
    pub fn address_lost(&self) {
        let lost = Said::Event(Event::AddressLost);
        if self.inbox.try_send(lost).is_err() {
            warn!("the takeover is too busy to hear of a lost address; the lease watch will act");
        }
    }

    async fn send(&self, event: Event) {
        self.say(Said::Event(event)).await;
    }

    async fn say(&self, said: Said) {
        // The driver ends only with the process.
        let _ = self.inbox.send(said).await;
    }
}

/// See the module's head comment.
pub struct Driver {
    parts: Arc<Parts>,
    takeover: Takeover,
    handle: Handle,
    inbox: mpsc::Receiver<Said>,
    hands: mpsc::Sender<Action>,
    voice: mpsc::Sender<Action>,
    started: Instant,
    elected: Option<Instant>,
    /// Since when nothing is answered, though the term goes on.
    suspended: Option<Instant>,
    planned: Planned,
}

/// The planned move, if there is one.
#[derive(Default)]
struct Planned {
    /// Where it shall go.
    to: Option<u64>,
    /// Consensus was asked for a transfer and has not answered.
    transferring: bool,
    /// Who wants to know how it ends.
    tell: Vec<oneshot::Sender<Moved>>,
}

impl Planned {
    fn end(&mut self, moved: &Moved) {
        for tell in self.tell.drain(..) {
            // Whoever asked may have given up.
            let _ = tell.send(moved.clone());
        }
    }
}

impl Driver {
    /// Prepares the driver; [`Driver::run`] does the work.
    pub fn new(parts: Parts) -> (Self, Handle) {
        let (said, inbox) = mpsc::channel(EVENTS_MAX);
        let (takeover, first) = Takeover::new(parts.addresses.is_some(), timing());
        let view = View {
            phase: takeover.phase(),
            trouble: None,
        };
        let handle = Handle {
            inbox: said,
            view: Arc::new(watch::Sender::new(view)),
        };
        let parts = Arc::new(parts);
        let (hands, queue) = mpsc::channel(EVENTS_MAX);
        tokio::spawn(work(Arc::clone(&parts), queue, handle.clone()));
        let (voice, said) = mpsc::channel(EVENTS_MAX);
        tokio::spawn(speak(Arc::clone(&parts), said));
        tokio::spawn(watch_leadership(parts.consensus.clone(), handle.clone()));
        let mut driver = Self {
            parts,
            takeover,
            handle: handle.clone(),
            inbox,
            hands,
            voice,
            started: Instant::now(),
            elected: None,
            suspended: None,
            planned: Planned::default(),
        };
        for action in first {
            driver.perform(action);
        }
        (driver, handle)
    }

    /// Runs until the machine says that the process shall end.
    pub async fn run(mut self) {
        loop {
            let said = match self.takeover.wake_at_ms() {
                None => self.inbox.recv().await,
                Some(at) => {
                    let wait = Duration::from_millis(at.saturating_sub(self.now_ms()));
                    tokio::select! {
                        said = self.inbox.recv() => said,
                        () = sleep(wait) => Some(Said::Event(self.tick())),
                    }
                }
            };
            let Some(said) = said else { return };
            if self.take(self.tick()) {
                return;
            }
            let event = self.note(said);
            if self.take(event) {
                return;
            }
            if self.takeover.phase() != Phase::Moving && !self.planned.transferring {
                let why = "it was given up: this node lost the lead, its lease or an address meanwhile, or did not lead";
                self.planned.end(&Err(why.to_owned()));
            }
        }
    }

    fn tick(&self) -> Event {
        Event::Tick {
            now_ms: self.now_ms(),
        }
    }

    /// Keeps what the machine need not know; gives the event for it.
    fn note(&mut self, said: Said) -> Event {
        match said {
            Said::Event(event) => event,
            Said::Move { to, tell } => {
                self.planned.to = to;
                self.planned.tell.extend(tell);
                Event::MoveRequested
            }
            Said::Transferred(result) => {
                self.planned.transferring = false;
                match &result {
                    Ok(_) => {}
                    // Nothing that anybody planned.
                    Err(why @ TransferError::Alone) => debug!("{why}"),
                    Err(why) => warn!(%why, "the planned move failed"),
                }
                let moved = result.map_err(|why| why.to_string());
                self.planned.end(&moved);
                match moved {
                    Ok(_) => Event::TransferDone,
                    Err(_) => Event::TransferFailed,
                }
            }
        }
    }

    /// Hands one event to the machine; true when it is over.
    fn take(&mut self, event: Event) -> bool {
        match &event {
            Event::Tick { .. } => {}
            Event::Elected { term } => {
                self.elected = Some(Instant::now());
                let sign = self.parts.consensus.server_sign();
                self.parts.history.elected(term.0, sign);
                info!(term = term.0, "elected");
            }
            other => info!(event = ?other, "takeover"),
        }
        let before = self.takeover.phase();
        let mut over = false;
        for action in self.takeover.handle(event) {
            over |= action == Action::Exit;
            self.perform(action);
        }
        let phase = self.takeover.phase();
        if phase == Phase::Serving && before != Phase::Serving {
            self.note_serving();
        } else if before == Phase::Serving && phase != Phase::Serving {
            self.parts.history.stopped();
        }
        let trouble = self.takeover.trouble();
        self.handle.view.send_if_modified(|view| {
            if view.phase == phase && view.trouble.as_deref() == trouble {
                return false;
            }
            view.phase = phase;
            view.trouble = trouble.map(str::to_owned);
            true
        });
        over
    }

    fn note_serving(&mut self) {
        let since = self.suspended.take();
        let took_ms = since.or(self.elected).map(|at| at.elapsed().as_millis());
        info!(took_ms, resumed = since.is_some(), "serving");
        if let (Some(since), Some(term)) = (since, self.takeover.leading())
            && since.elapsed() >= SUSPENSION_TOLD
        {
            self.parts.history.resumes(term.0);
        }
        self.parts.history.serving();
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Starts an action; its report comes as an event.
    fn perform(&mut self, action: Action) {
        let (parts, handle) = (Arc::clone(&self.parts), self.handle.clone());
        match action {
            Action::SuspendServing => {
                self.suspended.get_or_insert_with(Instant::now);
                self.parts.gate.suspend();
                self.parts.clients.rest();
            }
            Action::StopServing => {
                self.suspended = None;
                self.parts.gate.close();
                self.parts.clients.rest();
            }
            Action::StartServing { term } => {
                self.parts.gate.open();
                tokio::spawn(async move { handle.send(Event::ServingStarted { term }).await });
            }
            Action::AddAddresses { .. }
            | Action::RemoveAddresses
            | Action::CloseClientConnections => {
                if self.hands.try_send(action).is_err() {
                    // The machine never has more than a few outstanding: this is our own mistake.
                    unreachable!("more address actions outstanding than ever given");
                }
            }
            Action::CommitBarrier { term } => {
                tokio::spawn(async move { handle.send(commit_barrier(&parts, term).await).await });
            }
            Action::Announce | Action::ResetClientConnections | Action::TickleClients => {
                // Unlike address work these may be left out: they are repeated, and clients have timers.
                if self.voice.try_send(action).is_err() {
                    warn!(?action, "announcing takes long; left out");
                }
            }
            Action::Drain => {
                self.parts.gate.drain();
                tokio::spawn(async move {
                    parts.gate.drained().await;
                    handle.send(Event::Drained).await;
                });
            }
            Action::TransferLeadership => {
                let to = self.planned.to.take();
                self.planned.transferring = true;
                tokio::spawn(async move {
                    let result = parts.consensus.transfer(to).await;
                    handle.say(Said::Transferred(result)).await;
                });
            }
            Action::Exit => info!("the service is released"),
        }
    }
}

/// Proves leadership and lays the foundations that clients rely on.
async fn commit_barrier(parts: &Parts, term: Term) -> Event {
    let done = async {
        let index = parts.consensus.barrier().await.map_err(|e| e.to_string())?;
        // Everything up to the barrier is applied, so this is the time that the service had got to.
        parts
            .clock
            .begin(parts.engine.read(|machine| machine.last_time()));
        found::foundations(
            &parts.consensus,
            &parts.engine,
            &parts.exports,
            &parts.clock,
        )
        .await?;
        Ok::<u64, String>(index)
    };
    match done.await {
        Ok(index) => Event::BarrierDone { term, index },
        Err(why) => {
            warn!(term = term.0, %why, "cannot take over yet");
            Event::BarrierFailed { term }
        }
    }
}

/// Address and connection work, strictly in order.
async fn work(parts: Arc<Parts>, mut queue: mpsc::Receiver<Action>, handle: Handle) {
    while let Some(action) = queue.recv().await {
        let report = match (action, &parts.addresses) {
            (Action::AddAddresses { term }, Some(addresses)) => {
                let consensus = parts.consensus.clone();
                match addresses.add(move || consensus.lease_valid()).await {
                    Ok(()) => Event::AddressesAdded { term },
                    Err(why) => {
                        warn!(%why, "cannot take the floating addresses");
                        Event::AddressFailed { term, why }
                    }
                }
            }
            (Action::RemoveAddresses, Some(addresses)) => {
                addresses.remove().await;
                Event::AddressesRemoved
            }
            (Action::CloseClientConnections, addresses) => {
                // First in silence, as far as the kernel can; what is left, with a reset.
                if let Some(addresses) = addresses {
                    addresses.destroy_connections().await;
                }
                parts.gate.hang_up();
                let gone = parts.clients.wait_none();
                if tokio::time::timeout(CLOSE_PATIENCE, gone).await.is_err() {
                    warn!("client connections are slow to end");
                }
                if let Some(addresses) = addresses {
                    addresses.destroy_connections().await;
                }
                Event::ConnectionsClosed
            }
            _ => continue,
        };
        handle.send(report).await;
    }
}

/// What is said to neighbours and clients, strictly in order: a client tickled before it has learned
/// where the address is now would answer the old node.
async fn speak(parts: Arc<Parts>, mut said: mpsc::Receiver<Action>) {
    while let Some(action) = said.recv().await {
        match (action, &parts.addresses) {
            (Action::Announce, Some(addresses)) => addresses.announce().await,
            (Action::ResetClientConnections, _) => {
                info!("client connections are reset: they were without the address for long");
                parts.gate.hang_up();
            }
            (Action::TickleClients, _) => {
                let now = *parts.consensus.leadership().borrow();
                // Else it is over already.
                if now.holds_term {
                    parts.clients.serve(now.term);
                }
            }
            _ => {}
        }
    }
}

/// Turns leadership and lease into events.
async fn watch_leadership(consensus: haven_consensus::Consensus<Outcome>, handle: Handle) {
    let mut leadership = consensus.leadership();
    let mut leading: Option<Leading> = None;
    loop {
        let now = *leadership.borrow_and_update();
        // A leader that lost touch with its quorum has no lease, which says it all. Its term goes on.
        let goes_on = leading
            .as_ref()
            .is_some_and(|lead| now.holds_term && lead.term == Term(now.term));
        if !goes_on {
            let term = now.is_leader.then_some(Term(now.term));
            if leading.is_some() && term.is_none() {
                handle.send(Event::Deposed).await;
            }
            leading = term.map(|term| Leading {
                term,
                since: Instant::now(),
                lease: None,
            });
            if let Some(term) = term {
                handle.send(Event::Elected { term }).await;
            }
        }
        let Some(lead) = &mut leading else {
            if leadership.changed().await.is_err() {
                return;
            }
            continue;
        };
        if let Some(event) = lead.look(consensus.lease_valid()) {
            handle.send(event).await;
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = sleep(LEASE_POLL) => {}
        }
    }
}

/// A term of office, as the lease watch sees it.
struct Leading {
    term: Term,
    since: Instant,
    /// The last thing reported; `None`: nothing yet (the machine takes a new lease for valid).
    lease: Option<bool>,
}

impl Leading {
    fn look(&mut self, valid: bool) -> Option<Event> {
        match (self.lease, valid) {
            (None, false) if self.since.elapsed() < LEASE_FIRST => None,
            (None | Some(true), false) => {
                self.lease = Some(false);
                Some(Event::LeaseLapsed)
            }
            (Some(false), true) => {
                self.lease = Some(true);
                Some(Event::LeaseRegained { term: self.term })
            }
            (None, true) => {
                self.lease = Some(true);
                None
            }
            (Some(true), true) | (Some(false), false) => None,
        }
    }
}
