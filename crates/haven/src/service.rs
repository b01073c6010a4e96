//! The service as clients see it: a request comes in, a reply (or silence) goes out.
//!
//! Queries are answered from the state under the leader's lease, checked before and after the read;
//! changes become log entries, and their replies come from applying them. A request that cannot be answered
//! now waits, through lapses of the lease, too; the gate drops it when this node's term is over, and hangs up, so that the
//! client asks the next leader, where a change that was executed meanwhile answers from the reply cache.
//!
//! A change gets a turn before it is proposed (`callers`), which waits while it is not known whether the change is another
//! one, asked again.

use crate::callers::{Callers, Came, Turn};
use crate::clock::ServiceClock;
use crate::engine::{Engine, Outcome};
use crate::exports::Exports;
use crate::history::History;
use crate::metrics::{Meter, Ticket};
use crate::resolve::Resolver;
use crate::serve::Ports;
use crate::space::SpaceGuard;
use bytes::Bytes;
use haven_consensus::{Consensus, Leadership, ProposeError};
use haven_net::{Begun, DATAGRAM_BYTES_MAX, Endpoint, Gate, Handler, Line, Look, Verdict};
use haven_nfsd::{
    Binding, ClientNames, Decision, Fatal, Machine, Mutation, Origin, Prepared, Request, Room,
    Transport, answer_bytes_max, prepare,
};
use haven_proto::nfs3::Args3;
use haven_proto::rpcbind::{self, Netid, Uaddr};
use haven_proto::{mount, nfs3, nlm, portmap};
use haven_rpc::{AcceptError, AuthStat, Call, Denial, Refusal, accept_error, decode_call, denied};
use haven_store::Store;
use haven_xdr::Gather;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{debug, error, warn};

/// Pause before a request that could not be answered is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(2);

/// Reads of up to so many bytes are answered where they arrive.
const QUICK_READ_BYTES_MAX: u32 = 32 << 10;

/// Queries that take long are answered on so many threads at a time. Each keeps some memory for the next one, which would
/// add up, and whoever asks for something short finds a thread.
pub(crate) const SLOW_QUERIES_MAX: usize = 64;

/// LOOKUPs of `..` at a time: in a deep tree one may cost a millisecond of a processor, which others need, too.
const CLIMBS_MAX: usize = 2;

/// See the module's head comment.
pub struct Service {
    exports: Arc<Exports>,
    resolver: Arc<Resolver>,
    engine: Arc<Engine>,
    consensus: Consensus<Outcome>,
    gate: Arc<Gate>,
    /// Kept, so that a request costs no new receiver.
    leadership: watch::Receiver<Leadership>,
    space: Arc<SpaceGuard>,
    meter: Arc<Meter>,
    history: Arc<History>,
    clock: Arc<ServiceClock>,
    callers: Arc<Callers>,
    /// A permit for each query that takes long.
    slow: Arc<Semaphore>,
    /// And one for each that climbs.
    climbing: Arc<Semaphore>,
}

/// What became of a change.
enum Changed {
    /// It was applied; this is its reply.
    Applied(Gather),
    /// It was not proposed; this is what to say.
    Refused(Gather),
    /// Nobody knows.
    Unknown,
}

impl From<Changed> for Verdict {
    fn from(changed: Changed) -> Self {
        match changed {
            Changed::Applied(reply) | Changed::Refused(reply) => Self::Reply(reply),
            Changed::Unknown => Self::HangUp,
        }
    }
}

impl Service {
    /// The service of a node, which exports these.
    pub fn new(
        exports: Arc<Exports>,
        engine: Arc<Engine>,
        consensus: Consensus<Outcome>,
        gate: Arc<Gate>,
        space: Arc<SpaceGuard>,
        history: Arc<History>,
        clock: Arc<ServiceClock>,
    ) -> Self {
        Self {
            exports,
            resolver: Resolver::new(),
            engine,
            leadership: consensus.leadership(),
            consensus,
            gate,
            space,
            meter: Arc::default(),
            history,
            callers: Callers::new(),
            slow: Arc::new(Semaphore::new(SLOW_QUERIES_MAX)),
            climbing: Arc::new(Semaphore::new(CLIMBS_MAX)),
            clock,
        }
    }

    /// Who asks for what.
    pub fn callers(&self) -> Arc<Callers> {
        Arc::clone(&self.callers)
    }

    /// What counts requests.
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Counts a request that is done.
    fn done(&self, ticket: Ticket, verdict: Verdict) -> Verdict {
        if let Verdict::Reply(reply) | Verdict::Noted(reply, _) = &verdict {
            self.history.answered(ticket.began());
            self.meter.end(ticket, reply);
        }
        verdict
    }

    /// What is exported, for those who bind, make and resolve it.
    pub fn exports(&self) -> Arc<Exports> {
        Arc::clone(&self.exports)
    }

    /// Sorts a call, with what is known of its client's names.
    fn sort(&self, call: &Call, ends: Endpoint, over: Transport) -> Prepared {
        let settings = self.exports.current();
        let sort = |names| prepare(call, origin(ends, over, names), &settings, self.clock.now());
        if !settings.exports.want_client_names() {
            return sort(ClientNames::Unasked);
        }
        match self.resolver.known(ends.remote.ip().to_canonical()) {
            Some(known) => sort(ClientNames::Known(&known)),
            None => sort(ClientNames::Unasked),
        }
    }

    /// Sorts a call for which its client's names decide: finds them out first.
    async fn sort_with_names(&self, call: &Call, ends: Endpoint, over: Transport) -> Prepared {
        let client = ends.remote.ip().to_canonical();
        let found = self.resolver.names(client).await;
        let names = found
            .as_deref()
            .map_or(ClientNames::Late, ClientNames::Known);
        let settings = self.exports.current();
        prepare(call, origin(ends, over, names), &settings, self.clock.now())
    }

    /// Answers from the state, if that can be done here and now.
    fn query_now(&self, request: &Request) -> Option<Verdict> {
        if !is_quick(request) || !self.consensus.lease_valid() {
            return None;
        }
        let room = self.room_for(request);
        let reply = self
            .engine
            .try_read(|machine| machine.query_within(request, room))?;
        self.in_time(reply).map(verdict)
    }

    /// Answers from the state.
    async fn query(&self, request: Request) -> Verdict {
        let room = self.room_for(&request);
        let turns = match is_quick(&request) {
            true => None,
            false if climbs(&request) => Some(&self.climbing),
            false => Some(&self.slow),
        };
        let turn = match turns {
            Some(turns) => Arc::clone(turns).acquire_owned().await.ok(),
            None => None,
        };
        let look = move |machine: &Machine<Store>| {
            // As long as a thread works on it, also when nobody waits for it any more.
            let _held = &turn;
            machine.query_within(&request, room)
        };
        verdict(self.look(look).await)
    }

    /// What the answer is to say of the service's space, if it is about that.
    fn room_for(&self, request: &Request) -> Option<Room> {
        match request {
            Request::Nfs3 {
                args: Args3::Fsstat(_),
                ..
            } => Some(self.space.room()),
            _ => None,
        }
    }

    /// Looks at the state, as soon as the lease allows it; `None` if it cannot be read.
    async fn look<T: Send + 'static>(
        &self,
        look: impl Fn(&Machine<Store>) -> Result<T, Fatal> + Send + Sync + 'static,
    ) -> Option<T> {
        let look = Arc::new(look);
        loop {
            if self.consensus.lease_valid() {
                let (engine, look) = (Arc::clone(&self.engine), Arc::clone(&look));
                // It may wait for the disk or for a batch of changes, which this thread must not.
                let found = spawn_blocking(move || engine.read(|machine| look(machine))).await;
                let found = found.unwrap_or_else(|why| Err(Fatal(why.to_string())));
                if let Some(found) = self.in_time(found) {
                    return found;
                }
            }
            self.pause().await;
        }
    }

    /// Before another attempt: a moment, and no attempts while there is no lease.
    async fn pause(&self) {
        sleep(RETRY).await;
        self.gate.resumed().await;
    }

    /// What was found, if it was found in time: the lease may have ended meanwhile, if this process was held up.
    fn in_time<T>(&self, found: Result<T, Fatal>) -> Option<Option<T>> {
        match found {
            Ok(_) if !self.consensus.lease_valid() => None,
            Ok(found) => Some(Some(found)),
            Err(why) => {
                error!(%why, "cannot read the state");
                Some(None)
            }
        }
    }

    /// Proposes a change when it is decided that it is one.
    async fn take_turn(
        &self,
        term: u64,
        mut turn: Turn,
        decision: Decision,
        change: Mutation,
    ) -> Verdict {
        let Some((id, news)) = turn.decided(decision).await else {
            return Verdict::Silent;
        };
        let entry = match change.entry(id, news) {
            Ok(entry) => entry,
            Err(why) => {
                error!(%why, "cannot write down a change");
                return Verdict::HangUp;
            }
        };
        match self.change(term, entry).await {
            Changed::Applied(reply) => {
                turn.applied();
                Verdict::Noted(reply, turn.seq())
            }
            Changed::Refused(reply) => Verdict::Noted(reply, turn.seq()),
            Changed::Unknown => Verdict::HangUp,
        }
    }

    /// Proposes a change, if there is space for it.
    async fn change(&self, term: u64, entry: Bytes) -> Changed {
        if let Some(_admitted) = self.space.admit(entry.len()).await {
            return self.propose(term, entry).await;
        }
        // A copy of this request that came when there was space may still be on its way through the log. Once it is
        // applied, its reply is in the cache.
        let upto = self.consensus.status().last_log.unwrap_or(0);
        while self.consensus.applied_index() < upto {
            self.pause().await;
        }
        let asked = entry.clone();
        let refusal = self.look(move |machine| machine.refuse_growth(&asked));
        match refusal.await {
            Some(Some(refusal)) => Changed::Refused(refusal),
            Some(None) => self.propose(term, entry).await,
            None => Changed::Unknown,
        }
    }

    /// Proposes until there is an outcome, but only in the term in which the request came: by the next one
    /// the client has asked elsewhere, and may have gone on. Within the term, proposing again after an
    /// unknown outcome is safe: if the entry was executed, the reply cache answers.
    async fn propose(&self, term: u64, entry: Bytes) -> Changed {
        loop {
            match self.consensus.propose_in(term, entry.clone()).await {
                Ok(Outcome::Reply { message, replayed }) => {
                    if replayed {
                        self.meter.replayed();
                    }
                    return Changed::Applied(message);
                }
                Ok(outcome) => {
                    error!(?outcome, "a client's change had no reply");
                    return Changed::Unknown;
                }
                Err(why @ ProposeError::TooLarge(_)) => {
                    warn!(%why, "cannot take a change");
                    return Changed::Unknown;
                }
                Err(why) if self.leadership.borrow().term != term => {
                    debug!(%why, "a change is left to the next leader");
                    return Changed::Unknown;
                }
                Err(why) => {
                    debug!(%why, "a change waits");
                    self.pause().await;
                }
            }
        }
    }
}

fn origin(ends: Endpoint, transport: Transport, names: ClientNames<'_>) -> Origin<'_> {
    Origin {
        peer: ends.remote,
        local: ends.local.ip(),
        transport,
        names,
    }
}

/// The reply, or the end of the connection if the state cannot be read.
fn verdict(reply: Option<Gather>) -> Verdict {
    reply.map_or(Verdict::HangUp, Verdict::Reply)
}

/// Whether a query takes microseconds, so that a change of threads would cost more than it.
fn is_quick(request: &Request) -> bool {
    match request {
        Request::Mount { .. } | Request::Dump { .. } => false,
        Request::Nfs3 { args, .. } => match args {
            Args3::Read(read) => read.count <= QUICK_READ_BYTES_MAX,
            Args3::Readdir(_) | Args3::Readdirplus(_) => false,
            _ => !climbs(request),
        },
    }
}

/// Whether it may climb from a directory to its export's own one.
fn climbs(request: &Request) -> bool {
    matches!(request, Request::Nfs3 { args: Args3::Lookup(lookup), .. } if lookup.what.name.as_ref() == b"..")
}

/// What a port mapper tells of a service that listens at `listen`: NFS over TCP, the others also over UDP. NLM is where
/// NFS is, because firewalls let that through; over UDP, where MOUNT is.
pub fn bindings(listen: IpAddr, ports: Ports) -> Vec<Binding> {
    let listen = listen.to_canonical();
    let mut all = bindings_at(listen, ports);
    if listen.is_ipv6() && listen.is_unspecified() {
        all.extend(bindings_at(Ipv4Addr::UNSPECIFIED.into(), ports));
    }
    all
}

/// Those of one family.
fn bindings_at(ip: IpAddr, ports: Ports) -> Vec<Binding> {
    let (tcp, udp) = (Netid::tcp_of(ip), Netid::udp_of(ip));
    let mut all = vec![(nfs3::PROGRAM, nfs3::VERSION, tcp, ports.nfs)];
    for netid in [tcp, udp] {
        for vers in [mount::VERSION3, mount::VERSION1] {
            all.push((mount::PROGRAM, vers, netid, ports.mount));
        }
        let port = if netid == tcp { ports.nfs } else { ports.mount };
        for vers in [nlm::VERSION4, nlm::VERSION3, nlm::VERSION1] {
            all.push((nlm::PROGRAM, vers, netid, port));
        }
        let own = portmap::VERSION..=rpcbind::VERSION4;
        all.extend(
            ports
                .portmap
                .into_iter()
                .flat_map(|port| own.clone().map(move |vers| (port, vers)))
                .map(|(port, vers)| (portmap::PROGRAM, vers, netid, port)),
        );
    }
    all.into_iter()
        .map(|(prog, vers, netid, port)| Binding {
            prog,
            vers,
            netid,
            addr: Uaddr { ip, port },
        })
        .collect()
}

/// A request that takes longer.
pub struct Work {
    ticket: Ticket,
    rest: Rest,
}

/// What is left to do for it.
enum Rest {
    Sorted(Box<Todo>),
    /// It is not even sorted: waits for the names of its client.
    Unsorted(u64, Call, Arc<Line>),
}

/// What a sorted request that came in this term waits for.
enum Todo {
    /// The disk, the lease or the log.
    Call(u64, Prepared),
    /// A change: its turn, then the log.
    Change(u64, Turn, Decision, Mutation),
}

impl Service {
    /// The reply, if there is one here and now.
    fn now(&self, sorted: &Prepared) -> Option<Verdict> {
        match sorted {
            Prepared::Reply(reply) => Some(Verdict::Reply(reply.clone())),
            Prepared::Query(request) => self.query_now(request),
            Prepared::Mutation(_) | Prepared::Mount { .. } | Prepared::WantsNames => None,
        }
    }

    /// Does what a call asks for; it came in `term`.
    async fn execute(&self, term: u64, sorted: Prepared) -> Verdict {
        match sorted {
            Prepared::Reply(reply) => Verdict::Reply(reply),
            Prepared::Query(request) => self.query(request).await,
            Prepared::Mutation(_) => {
                error!("a change was not given a turn");
                Verdict::HangUp
            }
            Prepared::Mount { request, entry } => {
                let asked = request.clone();
                match self
                    .look(move |machine| Ok(machine.needs_entry(&asked)))
                    .await
                {
                    Some(true) => self.change(term, entry).await.into(),
                    Some(false) => self.query(request).await,
                    None => Verdict::HangUp,
                }
            }
            Prepared::WantsNames => {
                error!("a client's names were looked for and are wanted still");
                Verdict::HangUp
            }
        }
    }
}

impl Service {
    /// What to do about a sorted call: its verdict, or what is left to do.
    fn begin_sorted(&self, term: u64, line: &Line, sorted: Prepared) -> Result<Verdict, Box<Todo>> {
        if let Some(verdict) = self.now(&sorted) {
            return Ok(verdict);
        }
        let Prepared::Mutation(change) = sorted else {
            return Err(Box::new(Todo::Call(term, sorted)));
        };
        match self.callers.ask(term, line, change.key()) {
            Came::Turn(turn, decision) => Err(Box::new(Todo::Change(term, turn, decision, change))),
            Came::Dropped => Ok(Verdict::Silent),
            Came::Stale => Ok(Verdict::HangUp),
        }
    }

    async fn go_on(&self, todo: Todo) -> Verdict {
        match todo {
            Todo::Call(term, sorted) => self.execute(term, sorted).await,
            Todo::Change(term, turn, decision, change) => {
                self.take_turn(term, turn, decision, change).await
            }
        }
    }
}

impl Handler for Service {
    type Work = Work;

    fn begin(&self, connection: &Arc<Line>, record: Bytes) -> Begun<Work> {
        let (began, bytes) = (Instant::now(), record.len());
        let call = match decode_call(record) {
            Ok(call) => call,
            Err(Refusal::Reply { reply, .. }) => return Begun::Done(Verdict::Reply(reply)),
            Err(Refusal::Drop(why)) => {
                debug!(peer = %connection.ends.remote, %why, "not a call");
                return Begun::Done(Verdict::Garbage);
            }
        };
        // Before the clock is read: the entry belongs to this term or to none.
        let term = self.leadership.borrow().term;
        let ticket = self.meter.begin(&call, began, bytes);
        let rest = match self.sort(&call, connection.ends, Transport::Stream) {
            Prepared::WantsNames => Rest::Unsorted(term, call, Arc::clone(connection)),
            sorted => match self.begin_sorted(term, connection, sorted) {
                Ok(verdict) => return Begun::Done(self.done(ticket, verdict)),
                Err(todo) => Rest::Sorted(todo),
            },
        };
        Begun::Work(Work { ticket, rest })
    }

    fn opened(&self, connection: &Arc<Line>) {
        let term = self.leadership.borrow().term;
        self.callers.opened(term, connection);
    }

    fn looked(&self, connection: &Line, found: Look) {
        self.callers.looked(connection, found);
    }

    fn ended(&self, connection: &Line, by_peer: bool) {
        self.callers.ended(connection, by_peer);
    }

    async fn finish(&self, work: Work) -> Verdict {
        let begun = match work.rest {
            Rest::Sorted(todo) => Err(todo),
            Rest::Unsorted(term, call, line) => {
                let over = Transport::Stream;
                let sorted = self.sort_with_names(&call, line.ends, over).await;
                self.begin_sorted(term, &line, sorted)
            }
        };
        let verdict = match begun {
            Ok(verdict) => verdict,
            Err(todo) => self.go_on(*todo).await,
        };
        self.done(work.ticket, verdict)
    }

    async fn handle_datagram(&self, ends: Endpoint, datagram: Bytes) -> Verdict {
        let (began, bytes) = (Instant::now(), datagram.len());
        let call = match decode_call(datagram) {
            Ok(call) => call,
            Err(Refusal::Reply { reply, .. }) => return Verdict::Reply(reply),
            // Never answered: see the trait.
            Err(Refusal::Drop(_)) => return Verdict::Silent,
        };
        // NFS itself is not served this way: a datagram holds no WRITE.
        if !matches!(call.prog, mount::PROGRAM | portmap::PROGRAM | nlm::PROGRAM) {
            return Verdict::Reply(accept_error(call.xid, AcceptError::ProgUnavail));
        }
        let ticket = self.meter.begin(&call, began, bytes);
        let (xid, term) = (call.xid, self.leadership.borrow().term);
        let over = Transport::Datagram;
        let sorted = match self.sort(&call, ends, over) {
            Prepared::WantsNames => self.sort_with_names(&call, ends, over).await,
            sorted => sorted,
        };
        let verdict = match self.execute(term, sorted).await {
            // A long list of exports: an error makes the client ask over TCP.
            Verdict::Reply(reply) if reply.len() > DATAGRAM_BYTES_MAX => {
                Verdict::Reply(accept_error(xid, AcceptError::SystemErr))
            }
            verdict => verdict,
        };
        self.done(ticket, verdict)
    }

    fn answer_bytes(&self, record: &[u8]) -> usize {
        answer_bytes_max(record, || self.exports.current().exports.listing_bytes())
    }

    async fn lets_in(&self, ends: Endpoint) -> bool {
        let settings = self.exports.current();
        let client = ends.remote.ip().to_canonical();
        if let Some(known) = settings.exports.let_in(client, ClientNames::Unasked) {
            return known;
        }
        let found = self.resolver.names(client).await;
        let names = found
            .as_deref()
            .map_or(ClientNames::Late, ClientNames::Known);
        // With names it is known.
        settings.exports.let_in(client, names).unwrap_or(true)
    }

    fn rules_version(&self) -> u64 {
        self.exports.version()
    }

    /// As RFC 5531 section 9.2 has it for a caller that is not trusted: an error that ends what the client wanted, rather
    /// than a closed connection, over which it would send the same again.
    fn refuse(&self, connection: Endpoint, head: Bytes) -> Verdict {
        let (began, bytes) = (Instant::now(), head.len());
        match decode_call(head) {
            Ok(call) => {
                let ticket = self.meter.begin(&call, began, bytes);
                let denial = Denial::AuthError(AuthStat::TooWeak);
                self.done(ticket, Verdict::Reply(denied(call.xid, denial)))
            }
            Err(Refusal::Reply { reply, .. }) => Verdict::Reply(reply),
            Err(Refusal::Drop(why)) => {
                debug!(peer = %connection.remote, %why, "not a call");
                Verdict::Garbage
            }
        }
    }

    fn may_answer(&self) -> bool {
        self.consensus.lease_valid()
    }
}

#[cfg(test)]
mod tests {
    use haven_config::{Config, Limits};

    #[test]
    fn every_answer_fits_into_the_least_that_may_be_configured() {
        let file = |mib| {
            let text = format!(
                "[node]\ndata = \"/d\"\n[limits]\nanswers_mib = {mib}\n[[export]]\npath = \"/data\"\n"
            );
            Config::parse(&text).map(|config| config.limits.answer_bytes)
        };
        assert!(file(15).is_err());
        let least = file(16).unwrap();
        assert!(
            haven_nfsd::ANSWER_BYTES_MAX < least / 2,
            "with what a request takes"
        );
        assert!(Limits::default().answer_bytes >= least);
    }
}
