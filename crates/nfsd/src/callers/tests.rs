use super::host::REMEMBERED_MAX;
use super::*;

const TERM: u64 = 4;
const S: u64 = 1_000 * MS;

/// A leader that has been there for a while.
struct Lab {
    callers: Callers,
    now: u64,
}

fn key(xid: u32) -> RequestKey {
    RequestKey {
        client: IpAddr::from([10, 0, 0, 1]),
        xid,
        checksum: 1,
        caller: 1,
    }
}

fn connection(number: u64) -> ConnectionId {
    ConnectionId { term: TERM, number }
}

fn gone(number: u64) -> News {
    News::Gone {
        connection: connection(number),
    }
}

fn arrived(number: u64, first: u64, last: u64) -> News {
    News::Arrived {
        connection: connection(number),
        first,
        last,
    }
}

fn waits(look: &[u64]) -> Decision {
    Decision::Wait {
        look: look.to_vec(),
        hang_up: None,
    }
}

impl Lab {
    /// With connections 1 to `lines`, opened one after the other.
    fn new(lines: u64) -> Self {
        let mut lab = Self {
            callers: Callers::new(TERM),
            now: 100 * S,
        };
        (1..=lines).for_each(|line| lab.open(line));
        lab
    }

    fn open(&mut self, line: u64) {
        self.now += MS;
        self.callers.opened(line, key(1).client, self.now);
        self.now += MS;
    }

    fn ask(&mut self, line: u64, xid: u32) -> Option<(u64, Decision)> {
        self.callers.ask(line, key(xid), self.now)
    }

    /// A change that goes at once, with these news.
    fn go_with(&mut self, line: u64, xid: u32, news: &[News]) -> u64 {
        let (seq, decision) = self.ask(line, xid).expect("it is not dropped");
        assert_eq!(decision, Decision::Go(news.to_vec()));
        seq
    }

    fn go(&mut self, line: u64, xid: u32) -> u64 {
        self.go_with(line, xid, &[])
    }

    fn answer(&mut self, line: u64, seq: u64) {
        self.now += MS;
        self.callers.done(line, seq, self.now);
    }

    /// Replies arrive; the look that finds it is also what proves the connection.
    fn arrive(&mut self, line: u64, seqs: &[u64]) {
        let held_at = self.now;
        self.now += MS;
        let look = Look {
            arrived: seqs.to_vec(),
            held_at,
            seen: None,
        };
        self.callers.looked(line, &look, self.now);
    }

    /// Somebody looks; bytes came last at `heard_at`.
    fn see(&mut self, line: u64, heard_at: u64, is_over: bool) {
        let look = Look {
            seen: Some(Seen { heard_at, is_over }),
            ..Look::default()
        };
        self.callers.looked(line, &look, self.now);
    }

    fn end(&mut self, line: u64, by_client: bool) {
        self.now += MS;
        self.callers.ended(line, by_client, self.now);
    }

    fn decide(&mut self, line: u64, seq: u64) -> Decision {
        self.callers.decide(line, seq, self.now)
    }

    fn news(&mut self) -> Vec<News> {
        self.callers.news(self.now)
    }

    /// All that there is to tell, told.
    fn tell(&mut self) -> Vec<News> {
        self.now += ARRIVED_AFTER_NS + ALONE_AFTER_NS;
        let news = self.news();
        self.callers.told(&news);
        news
    }

    /// Nothing is remembered of anybody.
    fn is_empty(&self) -> bool {
        let Callers {
            lines,
            by_key,
            hosts,
            untold,
            ..
        } = &self.callers;
        lines.is_empty() && by_key.is_empty() && hosts.is_empty() && untold.is_empty()
    }
}

#[test]
fn equal_requests_of_two_connections_run_one_after_the_other() {
    let mut lab = Lab::new(2);
    let first = lab.go(1, 7);
    let (second, decision) = lab.ask(2, 7).unwrap();
    assert_eq!(decision, waits(&[]), "it is being executed");
    lab.answer(1, first);
    assert_eq!(lab.decide(2, second), waits(&[1]), "whose is the reply?");
    lab.arrive(1, &[first]);
    assert_eq!(lab.decide(2, second), Decision::Go(vec![]), "two requests");
}

#[test]
fn a_client_that_takes_other_answers_has_not_given_its_connection_up() {
    let mut lab = Lab::new(2);
    let first = lab.go(1, 7);
    lab.answer(1, first);
    let (second, decision) = lab.ask(2, 7).unwrap();
    assert_eq!(decision, waits(&[1]));
    lab.arrive(1, &[]);
    assert_eq!(lab.decide(2, second), Decision::Go(vec![]));
}

#[test]
fn a_retry_waits_for_the_execution_and_tells_that_the_connection_is_gone() {
    let mut lab = Lab::new(1);
    let first = lab.go(1, 7);
    lab.end(1, true);
    assert_eq!(lab.news(), [], "what came over it is under way");
    lab.open(2);
    let (second, decision) = lab.ask(2, 7).unwrap();
    assert_eq!(decision, waits(&[]));
    lab.callers.done(1, first, lab.now);
    let news = vec![gone(1)];
    assert_eq!(lab.decide(2, second), Decision::Go(news.clone()));
    lab.callers.told(&news);
    lab.answer(2, second);
    lab.arrive(2, &[second]);
    assert_eq!(lab.tell(), [arrived(2, 1, 1)], "told once");
    lab.end(2, true);
    assert!(lab.is_empty());
}

#[test]
fn a_connection_that_is_quiet_is_hung_up_when_somebody_waits_for_it() {
    let mut lab = Lab::new(2);
    let first = lab.go(1, 7);
    lab.answer(1, first);
    let (second, _) = lab.ask(2, 7).unwrap();
    lab.now += QUIET_NS - 1;
    assert_eq!(lab.decide(2, second), waits(&[1]));
    lab.now += 1;
    let hang_up = Decision::Wait {
        look: vec![1],
        hang_up: Some(1),
    };
    assert_eq!(lab.decide(2, second), hang_up);
    lab.end(1, false);
    assert_eq!(lab.decide(2, second), Decision::Go(vec![gone(1)]));
}

#[test]
fn a_copy_on_the_same_connection_is_dropped_until_the_reply_has_arrived() {
    let mut lab = Lab::new(1);
    let first = lab.go(1, 7);
    assert_eq!(lab.ask(1, 7), None, "executing");
    lab.answer(1, first);
    assert_eq!(lab.ask(1, 7), None, "answered");
    lab.arrive(1, &[first]);
    lab.go(1, 7);
}

#[test]
fn a_copy_that_crossed_a_late_reply_is_dropped() {
    let mut lab = Lab::new(1);
    let first = lab.go(1, 7);
    lab.now += SLOW_NS;
    lab.answer(1, first);
    lab.arrive(1, &[first]);
    assert_eq!(lab.ask(1, 7), None, "with the acknowledgement");
    lab.now += CROSSED_NS + 1;
    lab.go(1, 7);
}

#[test]
fn what_has_arrived_is_told_late_in_ranges_and_until_it_is_applied() {
    let mut lab = Lab::new(1);
    let seqs: Vec<u64> = (1..=5).map(|xid| lab.go(1, xid)).collect();
    for seq in [1, 2, 3, 5] {
        lab.answer(1, seq);
    }
    lab.arrive(1, &[1, 2, 3, 5]);
    lab.now += ARRIVED_AFTER_NS + ALONE_AFTER_NS - 1;
    assert_eq!(lab.news(), [], "a change may come that tells them");
    lab.now += 1;
    let news = [arrived(1, 1, 3), arrived(1, 5, 5)];
    assert_eq!(lab.news(), news);
    assert_eq!(lab.news(), [], "it is on its way");
    lab.callers.not_told(&news);
    assert_eq!(lab.news(), news, "in the same order");
    lab.callers.told(&news);
    assert_eq!(lab.news(), []);
    lab.answer(1, seqs[3]);
    lab.arrive(1, &[4]);
    lab.now += ARRIVED_AFTER_NS;
    lab.go_with(1, 9, &[arrived(1, 4, 4)]);
}

#[test]
fn a_reset_may_have_overtaken_what_was_not_read() {
    let mut lab = Lab::new(1);
    let seqs: Vec<u64> = (1..=3).map(|xid| lab.go(1, xid)).collect();
    seqs.iter().for_each(|seq| lab.answer(1, *seq));
    lab.arrive(1, &[1]);
    lab.now += ARRIVED_AFTER_NS;
    lab.arrive(1, &[2]);
    lab.end(1, false);
    lab.open(2);
    let both = [arrived(1, 1, 1), gone(1)];
    lab.go_with(2, 2, &both);
    lab.go_with(2, 3, &both);
    lab.callers.told(&both);
    lab.go(2, 1);
}

#[test]
fn who_ends_its_connection_has_read_what_arrived() {
    let mut lab = Lab::new(1);
    let seq = lab.go(1, 7);
    lab.answer(1, seq);
    lab.arrive(1, &[seq]);
    lab.end(1, true);
    lab.open(2);
    lab.go(2, 7);
    assert_eq!(lab.tell(), [arrived(1, 1, 1)]);
}

/// A client closes a connection with bytes on their way, and asks again over another; the bytes come later.
fn old_copy(lab: &mut Lab, xid: u32) {
    let seq = lab.go(2, xid);
    lab.answer(2, seq);
    lab.arrive(2, &[seq]);
}

#[test]
fn an_old_copy_over_an_older_connection_is_dropped_when_its_end_follows() {
    let mut lab = Lab::new(2);
    old_copy(&mut lab, 7);
    let (seq, decision) = lab.ask(1, 7).unwrap();
    assert_eq!(decision, waits(&[1]), "it may be one");
    lab.see(1, lab.now, true);
    assert_eq!(lab.decide(1, seq), Decision::Drop);
    lab.end(1, true);
    assert_eq!(lab.tell(), [arrived(2, 1, 1)]);
    lab.end(2, true);
    assert!(lab.is_empty());
}

#[test]
fn an_old_copy_is_dropped_with_its_connection() {
    let mut lab = Lab::new(2);
    old_copy(&mut lab, 7);
    let (seq, _) = lab.ask(1, 7).unwrap();
    lab.end(1, false);
    assert_eq!(lab.decide(1, seq), Decision::Drop);
    assert_eq!(lab.ask(1, 8), None, "nor is anything taken after its end");
}

#[test]
fn what_is_no_old_copy_goes_after_a_moment_or_with_proof() {
    let mut lab = Lab::new(2);
    old_copy(&mut lab, 7);
    let heard_at = lab.now;
    let (seq, _) = lab.ask(1, 7).unwrap();
    lab.now += END_AFTER_NS - 1;
    lab.see(1, heard_at, false);
    assert_eq!(lab.decide(1, seq), waits(&[1]));
    lab.now += 1;
    assert_eq!(lab.decide(1, seq), waits(&[1]), "nobody has looked");
    // More has come meanwhile.
    lab.see(1, lab.now, false);
    let news = vec![arrived(2, 1, 1)];
    assert_eq!(lab.decide(1, seq), Decision::Go(news));

    let mut lab = Lab::new(2);
    old_copy(&mut lab, 7);
    // Something was written after the younger began, and was taken.
    lab.arrive(1, &[]);
    lab.go(1, 7);
}

#[test]
fn a_connection_over_which_nothing_comes_proves_nothing() {
    let mut lab = Lab::new(1);
    let heard_at = lab.now;
    lab.open(2);
    old_copy(&mut lab, 7);
    // It lay in the kernel for long.
    let (seq, _) = lab.ask(1, 7).unwrap();
    lab.now += QUIET_NS - 1;
    lab.see(1, heard_at, false);
    assert_eq!(lab.decide(1, seq), waits(&[1]));
    lab.now += 1;
    let hang_up = Decision::Wait {
        look: vec![1],
        hang_up: Some(1),
    };
    assert_eq!(lab.decide(1, seq), hang_up);
    lab.end(1, false);
    assert_eq!(lab.decide(1, seq), Decision::Drop);
}

#[test]
fn an_old_copy_does_not_take_what_the_younger_connection_is_to_ask_for_again() {
    let mut lab = Lab::new(2);
    let seq = lab.go(2, 7);
    lab.answer(2, seq);
    lab.end(2, false);
    let (old, decision) = lab.ask(1, 7).unwrap();
    assert_eq!(decision, waits(&[1]), "before it was told");
    assert_eq!(lab.tell(), [gone(2)]);
    assert_eq!(lab.decide(1, old), waits(&[1]), "after that");
    lab.see(1, lab.now, true);
    assert_eq!(lab.decide(1, old), Decision::Drop);
}

#[test]
fn when_too_much_would_have_to_be_remembered_everything_waits_that_may_be_old() {
    let mut lab = Lab::new(2);
    for xid in 0..=REMEMBERED_MAX as u32 {
        old_copy(&mut lab, xid);
        lab.tell();
    }
    let forgotten = lab.ask(1, 0).unwrap();
    assert_eq!(forgotten.1, waits(&[1]));
    let never_seen = lab.ask(1, u32::MAX).unwrap();
    assert_eq!(never_seen.1, waits(&[1]));
    lab.arrive(1, &[]);
    assert!(matches!(lab.decide(1, forgotten.0), Decision::Go(_)));
    assert!(matches!(lab.decide(1, never_seen.0), Decision::Go(_)));
}

#[test]
fn of_a_host_whose_connections_are_proven_nothing_is_remembered() {
    let mut lab = Lab::new(3);
    for line in 1..=3 {
        lab.arrive(line, &[]);
    }
    old_copy(&mut lab, 7);
    lab.go(1, 7);
    lab.go(3, 8);
}

#[test]
fn what_comes_over_unknown_connections_is_dropped() {
    let mut lab = Lab::new(1);
    assert_eq!(lab.ask(9, 7), None);
    assert_eq!(lab.decide(9, 1), Decision::Drop);
    lab.see(9, lab.now, true);
    lab.end(9, true);
    lab.callers.done(9, 1, lab.now);
    assert_eq!(lab.callers.watched(), []);
    lab.go(1, 7);
    assert_eq!(lab.callers.watched(), [1]);
}
