//! Clients with like numbers behind one address, connections that break, copies that come late, leaders that die: no
//! reply answers two requests, and no request is executed twice.
//!
//! Chance decides what happens next, within what docs/decisions/0009-who-asks-again.md takes for granted. A run is made by
//! its seed.

use crate::server::{Server, mode};
use haven_fs::Time;
use haven_nfsd::{Callers, ChangeId, Decision, Look, Mutation, News, Outcome, Prepared, Seen};
use haven_proto::nfs3::*;
use haven_rpc::Call;
use haven_xdr::{Gather, encode_all};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const MS: u64 = 1_000_000;
const CLIENTS: usize = 4;
const STEPS: usize = 600;
/// Steps until everything that was asked must be answered.
const STEPS_TO_END: usize = 20_000;
/// A program reads what its TCP acknowledged within this.
const READ_WITHIN: u64 = 80 * MS;
/// What was found acknowledged within this before a reset may have been read or not.
const UNCERTAIN: u64 = 100 * MS;
/// The end of a connection comes so long after the last bytes, at most.
const END_WITHIN: u64 = 250 * MS;

/// A request of a program, whatever happens to its copies.
type RequestNo = usize;

#[derive(Clone)]
struct Asked {
    request: RequestNo,
    xid: u32,
}

/// What is on its way to the server.
enum Item {
    Call(Asked),
    Fin,
}

/// A reply, from when it is written.
struct Sent {
    seq: u64,
    xid: u32,
    execution: usize,
    written_at: u64,
    /// When the client's TCP took it.
    acked_at: Option<u64>,
    was_read: bool,
}

/// A TCP connection: both ends and what is between.
struct Wire {
    client: usize,
    to_server: VecDeque<(u64, Item)>,
    /// Its number at the server, once it was accepted.
    line: Option<u64>,
    client_open: bool,
    server_open: bool,
    replies: Vec<Sent>,
    /// What the last look found: how many replies were acknowledged, and when it was.
    looked: (usize, u64),
    /// Changes whose replies were found to have arrived, and when.
    arrived: BTreeMap<u64, u64>,
    fin_seen: bool,
    heard_at: u64,
}

#[derive(Default)]
struct Client {
    next_xid: u32,
    pending: Vec<Asked>,
    wire: Option<usize>,
}

/// A change that the server has taken and that is not over.
struct Taken {
    line: u64,
    seq: u64,
    wire: usize,
    asked: Asked,
    change: Mutation,
    /// Once it is decided.
    entry: Option<(bytes::Bytes, Vec<News>)>,
}

struct Execution {
    xid: u32,
    reply: Gather,
    accepted: Vec<RequestNo>,
    /// It has arrived, and the next leader may not know, or a reset followed closely.
    ambiguous: bool,
    told: bool,
}

struct World {
    dice: u64,
    now: u64,
    s: Server,
    root: Fh3,
    term: u64,
    callers: Callers,
    lines: u64,
    by_line: BTreeMap<u64, usize>,
    wires: Vec<Wire>,
    clients: Vec<Client>,
    taken: Vec<Taken>,
    executions: Vec<Execution>,
    /// The execution whose reply a change has.
    by_change: BTreeMap<ChangeId, usize>,
    /// By transaction id: how many requests there were.
    issued: BTreeMap<u32, usize>,
    requests: usize,
    replayed: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut s = Server::new();
        let root = s.root.clone();
        let root = s.file(&root, "f");
        let mut world = Self {
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now: 1_000_000 * MS,
            s,
            root,
            term: 5,
            callers: Callers::new(5),
            lines: 0,
            by_line: BTreeMap::new(),
            wires: Vec::new(),
            clients: Vec::new(),
            taken: Vec::new(),
            executions: Vec::new(),
            by_change: BTreeMap::new(),
            issued: BTreeMap::new(),
            requests: 0,
            replayed: 0,
        };
        for client in 0..CLIENTS {
            world.clients.push(Client::default());
            world.connect(client);
        }
        world
    }

    /// One of `n`.
    fn roll(&mut self, n: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % n
    }

    fn pick(&mut self, n: usize) -> usize {
        self.roll(n.max(1) as u64) as usize
    }

    /// Mostly short, sometimes long.
    fn delay(&mut self) -> u64 {
        let ms = match self.roll(12) {
            0 => self.roll(4_000),
            1 | 2 => self.roll(300),
            _ => self.roll(4),
        };
        ms * MS
    }

    fn send(&mut self, wire: usize, item: Item) {
        let mut at = self.now + self.delay();
        let before = self.wires[wire].to_server.back().map_or(0, |(at, _)| *at);
        if matches!(item, Item::Fin) {
            at = self.now.max(before) + self.roll(END_WITHIN);
        }
        let queue = &mut self.wires[wire].to_server;
        queue.push_back((at.max(before), item));
    }

    /// A new connection, over which everything unanswered is asked.
    fn connect(&mut self, client: usize) {
        let wire = self.wires.len();
        self.wires.push(Wire {
            client,
            to_server: VecDeque::new(),
            line: None,
            client_open: true,
            server_open: true,
            replies: Vec::new(),
            looked: (0, 0),
            arrived: BTreeMap::new(),
            fin_seen: false,
            heard_at: 0,
        });
        self.clients[client].wire = Some(wire);
        self.lines += 1;
        self.wires[wire].line = Some(self.lines);
        self.by_line.insert(self.lines, wire);
        self.callers.opened(self.lines, self.s.client, self.now);
        for asked in self.clients[client].pending.clone() {
            self.send(wire, Item::Call(asked));
        }
    }

    fn ask(&mut self, client: usize) {
        let own = &mut self.clients[client];
        if own.pending.len() > 2 {
            return;
        }
        own.next_xid += 1;
        let asked = Asked {
            request: self.requests,
            xid: own.next_xid,
        };
        own.pending.push(asked.clone());
        self.requests += 1;
        *self.issued.entry(asked.xid).or_default() += 1;
        if let Some(wire) = self.clients[client].wire {
            self.send(wire, Item::Call(asked));
        }
    }

    /// The program reads all that has come.
    fn read(&mut self, wire: usize) {
        let client = self.wires[wire].client;
        if !self.wires[wire].client_open {
            return;
        }
        for sent in &mut self.wires[wire].replies {
            if sent.acked_at.is_none() || std::mem::replace(&mut sent.was_read, true) {
                continue;
            }
            let pending = &mut self.clients[client].pending;
            if let Some(at) = pending.iter().position(|asked| asked.xid == sent.xid) {
                let request = pending.remove(at).request;
                self.executions[sent.execution].accepted.push(request);
            }
        }
    }

    /// Replies reach the client's TCP, in order; one whose client is gone is answered with a reset.
    fn carry(&mut self, wire: usize) {
        let now = self.now;
        let Wire {
            client_open,
            server_open,
            replies,
            ..
        } = &mut self.wires[wire];
        let Some(next) = replies.iter_mut().find(|sent| sent.acked_at.is_none()) else {
            return;
        };
        if *client_open && *server_open {
            next.acked_at = Some(now);
        } else if !*client_open {
            self.reset(wire);
        }
    }

    /// The connection breaks at the server.
    fn reset(&mut self, wire: usize) {
        self.end(wire, false);
        let client = self.wires[wire].client;
        if std::mem::take(&mut self.wires[wire].client_open) {
            assert_eq!(self.clients[client].wire, Some(wire));
            self.connect(client);
        }
    }

    fn end(&mut self, wire: usize, by_client: bool) {
        if !std::mem::take(&mut self.wires[wire].server_open) {
            return;
        }
        self.wires[wire].to_server.clear();
        if let Some(line) = self.wires[wire].line {
            self.look_at(wire, false);
            self.callers.ended(line, by_client, self.now);
            let Wire {
                replies, arrived, ..
            } = &self.wires[wire];
            let recent = |sent: &&Sent| {
                let at = arrived.get(&sent.seq);
                !by_client && at.is_some_and(|at| at + UNCERTAIN > self.now)
            };
            for sent in replies.iter().filter(recent) {
                self.executions[sent.execution].ambiguous |= sent.was_read;
            }
        }
    }

    /// The program closes its connection, and makes another.
    fn give_up(&mut self, client: usize) {
        let Some(wire) = self.clients[client].wire else {
            return;
        };
        self.read(wire);
        self.wires[wire].client_open = false;
        // What is left of it arrives together.
        let queue = self.wires[wire].to_server.iter_mut();
        let mut late = queue.filter(|(at, _)| *at > self.now);
        if let Some((first, _)) = late.next() {
            let first = *first;
            late.for_each(|(at, _)| *at = first);
        }
        self.send(wire, Item::Fin);
        self.connect(client);
    }

    /// The program dies; another begins with the same numbers.
    fn begin_anew(&mut self, client: usize) {
        self.clients[client].pending.clear();
        self.clients[client].next_xid = 0;
        self.give_up(client);
    }

    /// What comes next over a connection.
    fn receive(&mut self, wire: usize) {
        let due = self.wires[wire]
            .to_server
            .front()
            .is_some_and(|(at, _)| *at <= self.now);
        if !due || !self.wires[wire].server_open {
            return;
        }
        let Some((at, item)) = self.wires[wire].to_server.pop_front() else {
            return;
        };
        self.wires[wire].heard_at = at;
        match item {
            Item::Call(asked) => {
                self.look_at(wire, false);
                self.take(wire, asked);
            }
            Item::Fin => self.end(wire, true),
        }
    }

    fn take(&mut self, wire: usize, asked: Asked) {
        let Some(line) = self.wires[wire].line else {
            return;
        };
        let change = self.change(&asked);
        let Some((seq, decision)) = self.callers.ask(line, change.key(), self.now) else {
            return;
        };
        self.taken.push(Taken {
            line,
            seq,
            wire,
            asked,
            change,
            entry: None,
        });
        let last = self.taken.len() - 1;
        self.follow(last, decision);
    }

    fn change(&self, asked: &Asked) -> Mutation {
        let args = Args3::Setattr(SetattrArgs {
            object: self.root.clone(),
            new_attributes: mode(0o600),
            guard: None,
        });
        let call = Call {
            xid: asked.xid,
            prog: PROGRAM,
            vers: VERSION,
            proc: args.proc().to_wire(),
            cred: self.s.cred.clone(),
            args: encode_all(&args).into_bytes(),
        };
        let ms = self.now / MS;
        let time = Time {
            secs: (ms / 1_000) as i64,
            nanos: (ms % 1_000) as u32 * 1_000_000,
        };
        match self.s.prepared(&call, time) {
            Prepared::Mutation(change) => change,
            other => panic!("not a change: {other:?}"),
        }
    }

    fn follow(&mut self, taken: usize, decision: Decision) {
        match decision {
            Decision::Go(news) => {
                let Taken { line, seq, .. } = self.taken[taken];
                let id = self.callers.id(line, seq);
                let entry = self.taken[taken].change.entry(id, news.clone()).unwrap();
                self.taken[taken].entry = Some((entry, news));
            }
            Decision::Wait { look, hang_up } => {
                for line in look {
                    self.look_at(self.by_line[&line], true);
                }
                if let Some(line) = hang_up {
                    self.reset(self.by_line[&line]);
                }
            }
            Decision::Drop => drop(self.taken.remove(taken)),
        }
    }

    /// As the server asks its kernel.
    fn look_at(&mut self, wire: usize, closely: bool) {
        let now = self.now;
        let own = &mut self.wires[wire];
        let Some(line) = own.line else {
            return;
        };
        let acked = own.replies.iter().filter(|sent| sent.acked_at.is_some());
        let acked_count = acked.clone().count();
        let seqs = acked.map(|sent| sent.seq);
        let arrived: Vec<u64> = seqs.filter(|seq| !own.arrived.contains_key(seq)).collect();
        own.arrived.extend(arrived.iter().map(|seq| (*seq, now)));
        let held_at = match own.replies.last() {
            Some(last) if acked_count == own.replies.len() => last.written_at,
            _ if acked_count > own.looked.0 => own.looked.1,
            _ => 0,
        };
        own.looked = (acked_count, now);
        // It is seen before all is read that came before it.
        let came = own.to_server.iter().take_while(|(at, _)| *at <= now);
        for (at, item) in came {
            own.heard_at = *at;
            own.fin_seen |= matches!(item, Item::Fin);
        }
        let look = Look {
            arrived,
            held_at,
            seen: closely.then_some(Seen {
                heard_at: own.heard_at,
                is_over: own.fin_seen,
            }),
        };
        self.callers.looked(line, &look, now);
    }

    /// A proposal gets into the log.
    fn commit(&mut self, taken: usize) {
        if self.taken[taken].entry.is_none() {
            return;
        }
        let times = if self.roll(10) == 0 { 2 } else { 1 };
        let Taken {
            line,
            seq,
            wire,
            asked,
            entry,
            ..
        } = self.taken.remove(taken);
        let (entry, news) = entry.expect("said above");
        let id = self.callers.id(line, seq);
        let mut execution = 0;
        for _ in 0..times {
            execution = self.apply(entry.clone(), id, &asked);
        }
        self.told(&news);
        self.callers.done(line, seq, self.now);
        if self.wires[wire].server_open {
            self.wires[wire].replies.push(Sent {
                seq,
                xid: asked.xid,
                execution,
                written_at: self.now,
                acked_at: None,
                was_read: false,
            });
        }
    }

    /// Gives the execution whose reply it is.
    fn apply(&mut self, entry: bytes::Bytes, id: ChangeId, asked: &Asked) -> usize {
        let Outcome::Reply { message, replayed } = self.s.apply(entry) else {
            panic!("a change has a reply")
        };
        let execution = match replayed {
            false => {
                self.executions.push(Execution {
                    xid: asked.xid,
                    reply: message,
                    accepted: Vec::new(),
                    ambiguous: false,
                    told: false,
                });
                self.executions.len() - 1
            }
            true => {
                self.replayed += 1;
                let same = |one: &Execution| one.reply == message;
                self.executions
                    .iter()
                    .position(same)
                    .expect("a reply that was given before")
            }
        };
        self.by_change.insert(id, execution);
        execution
    }

    fn told(&mut self, news: &[News]) {
        self.callers.told(news);
        for one in news {
            if let News::Arrived {
                connection,
                first,
                last,
            } = *one
            {
                for seq in first..=last {
                    if let Some(execution) = self.by_change.get(&ChangeId { connection, seq }) {
                        self.executions[*execution].told = true;
                    }
                }
            }
        }
    }

    fn tell(&mut self) {
        let news = self.callers.news(self.now);
        if news.is_empty() {
            return;
        }
        if self.roll(5) == 0 {
            self.callers.not_told(&news);
            return;
        }
        let time = Time::default();
        let entry = haven_nfsd::Entry::News {
            time,
            news: news.clone(),
        };
        self.s.apply(entry.encode().unwrap());
        self.told(&news);
    }

    /// The leader dies. What it proposed is in the log or is not.
    fn elect(&mut self) {
        for taken in (0..self.taken.len()).rev() {
            if self.roll(2) == 0 {
                self.commit(taken);
            }
        }
        self.taken.clear();
        for execution in &mut self.executions {
            execution.ambiguous |= !execution.told && !execution.accepted.is_empty();
        }
        // What has come is read before the next leader's reset.
        (0..self.wires.len()).for_each(|wire| self.read(wire));
        for execution in &mut self.executions {
            execution.ambiguous |= !execution.told && !execution.accepted.is_empty();
        }
        self.term += 1;
        self.callers = Callers::new(self.term);
        self.lines = 0;
        self.by_line.clear();
        for wire in 0..self.wires.len() {
            self.wires[wire].line = None;
            if self.wires[wire].server_open {
                self.reset(wire);
            }
        }
    }

    fn step(&mut self, calm: bool) {
        self.now += self.roll(8) * MS;
        for wire in 0..self.wires.len() {
            let late = |sent: &Sent| {
                !sent.was_read && sent.acked_at.is_some_and(|at| at + READ_WITHIN <= self.now)
            };
            if self.wires[wire].replies.iter().any(late) {
                self.read(wire);
            }
        }
        let client = self.pick(CLIENTS);
        let own = self.clients[client].wire;
        let wire = match own.filter(|_| self.roll(2) == 0) {
            Some(own) => own,
            None => self.pick(self.wires.len()),
        };
        // The newest are the ones that matter.
        let recent = self.wires.len() - 1 - self.pick(self.wires.len().min(8));
        let taken = self.pick(self.taken.len());
        match self.roll(if calm { 24 } else { 34 }) {
            0..=5 => self.receive(recent),
            6 | 7 => self.receive(wire),
            8..=10 if !self.taken.is_empty() => self.commit(taken),
            11..=13 if !self.taken.is_empty() && self.taken[taken].entry.is_none() => {
                let Taken { line, seq, .. } = self.taken[taken];
                let decision = self.callers.decide(line, seq, self.now);
                self.follow(taken, decision);
            }
            14..=16 => self.carry(recent),
            17 => self.carry(wire),
            18..=20 => self.read(recent),
            21 => {
                for line in self.callers.watched() {
                    self.look_at(self.by_line[&line], false);
                }
            }
            22 => self.tell(),
            24..=29 => self.ask(client),
            30 | 31 => self.give_up(client),
            32 if self.roll(4) == 0 => self.elect(),
            32 => {
                if let Some(wire) = self.clients[client].wire {
                    self.reset(wire);
                }
            }
            33 if self.roll(3) == 0 => self.begin_anew(client),
            _ => {}
        }
    }

    fn check(&self, seed: u64) {
        let mut executed: BTreeMap<u32, usize> = BTreeMap::new();
        for execution in &self.executions {
            *executed.entry(execution.xid).or_default() += 1;
            let accepted: BTreeSet<_> = execution.accepted.iter().collect();
            assert!(
                accepted.len() <= 1 || execution.ambiguous,
                "seed {seed}: one reply answered requests {accepted:?}"
            );
        }
        for (xid, count) in executed {
            let issued = self.issued[&xid];
            assert!(
                count <= issued,
                "seed {seed}: {issued} requests with number {xid} were executed {count} times"
            );
        }
    }
}

fn run(seed: u64) -> (usize, usize) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step(false);
        world.check(seed);
    }
    let unanswered = |world: &World| {
        world
            .clients
            .iter()
            .map(|own| own.pending.len())
            .sum::<usize>()
    };
    let mut steps = 0;
    while unanswered(&world) > 0 {
        world.step(true);
        steps += 1;
        assert!(
            steps < STEPS_TO_END,
            "seed {seed}: {} requests are never answered",
            unanswered(&world)
        );
    }
    world.check(seed);
    (world.requests, world.replayed)
}

#[test]
fn whatever_happens_no_reply_answers_two_requests_and_none_is_executed_twice() {
    let (mut requests, mut replayed) = (0, 0);
    for seed in 1..=300 {
        let (asked, again) = run(seed);
        requests += asked;
        replayed += again;
    }
    // Otherwise nothing was tried.
    assert!(
        requests > 5_000 && replayed > 2_000,
        "{requests} requests, {replayed} retries"
    );
}
