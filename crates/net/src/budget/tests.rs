//! The rules, one by one; no time passes but what is said.

use super::*;
use std::net::Ipv4Addr;
use tokio::sync::oneshot::Receiver;

const ALL: usize = 1_000;

struct World {
    budget: Arc<Budget>,
    start: Instant,
    next: u64,
}

/// A connection, and what it is told.
struct Peer {
    party: Arc<Party>,
    told: Receiver<Farewell>,
}

impl World {
    fn new() -> Self {
        Self {
            budget: Budget::new(ALL),
            start: Instant::now(),
            next: 0,
        }
    }

    fn peer(&mut self, host: u8) -> Peer {
        self.next += 1;
        let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, host));
        let (party, told) = Party::new(self.next, address, self.start);
        Peer {
            party: Arc::new(party),
            told,
        }
    }

    fn take(&self, peer: &Peer, bytes: usize) -> Option<Permit> {
        self.budget.try_take(&peer.party, bytes, bytes)
    }

    fn wait(&self, peer: &Peer, bytes: usize, grows: Option<&Permit>) -> Waiting {
        self.budget.wait(&peer.party, bytes, grows)
    }
}

fn served(waiting: &mut Waiting) -> Option<Permit> {
    waiting.try_granted()
}

#[test]
fn an_address_gets_no_more_than_it_leaves_and_the_next_one_finds_room() {
    let mut world = World::new();
    let peers: Vec<Peer> = (1..=4).map(|host| world.peer(host)).collect();
    let second = world.peer(1);
    let mut held = Vec::new();
    // What one takes in pieces of ten: half, a third of what two leave, and so on.
    for (peer, share) in peers.iter().zip([500, 250, 120, 60]) {
        let pieces: Vec<_> = std::iter::from_fn(|| world.take(peer, 10)).collect();
        assert_eq!(pieces.len() * 10, share);
        held.push(pieces);
    }
    assert!(world.take(&second, 10).is_none(), "the address counts");
    let most = world.budget.look().most.unwrap();
    assert_eq!(most, (peers[0].party.address, 500));
    held.clear();
    assert_eq!(world.budget.look().bytes, 0);
    assert!(world.take(&second, ALL).is_some(), "all, if nobody has any");
}

#[test]
fn plenty_is_given_out_in_whole_and_little_as_needed() {
    let mut world = World::new();
    let (one, two) = (world.peer(1), world.peer(2));
    let budget = Arc::clone(&world.budget);
    let first = budget.try_take(&one.party, 10, ALL / ROOMY).unwrap();
    assert_eq!(first.bytes(), ALL / ROOMY);
    let second = budget.try_take(&one.party, 10, ALL / ROOMY).unwrap();
    assert_eq!(second.bytes(), 10);
    let _most = world.take(&two, ALL / 2).unwrap();
    let three = world.peer(3);
    assert_eq!(budget.try_take(&three.party, 10, 20).unwrap().bytes(), 10);
}

#[test]
fn who_waits_is_served_in_order_and_an_address_with_its_share_holds_up_nobody_else() {
    let mut world = World::new();
    let (one, two, three) = (world.peer(1), world.peer(2), world.peer(3));
    let big = world.take(&one, 450).unwrap();
    let mut first = world.wait(&one, 100, None);
    let mut second = world.wait(&one, 10, None);
    assert!(served(&mut first).is_none());
    assert!(served(&mut second).is_none(), "not before the first one");
    assert!(world.take(&one, 10).is_none(), "nor does anybody overtake");
    let other = world.take(&two, 200).unwrap();
    // Now the memory itself is short: whoever comes after somebody that waits for it waits, too.
    let mut third = world.wait(&three, 400, None);
    assert!(world.take(&two, 10).is_none());
    drop(other);
    assert_eq!(served(&mut third).map(|p| p.bytes()), Some(400));
    drop(big);
    assert_eq!(served(&mut first).map(|p| p.bytes()), Some(100));
    assert_eq!(served(&mut second).map(|p| p.bytes()), Some(10));
    assert_eq!(world.budget.look().bytes, 0);
}

#[test]
fn who_gives_up_waiting_holds_up_nobody_and_loses_nothing() {
    let mut world = World::new();
    let (one, two) = (world.peer(1), world.peer(2));
    let held = world.take(&one, ALL).unwrap();
    let first = world.wait(&one, 900, None);
    let mut second = world.wait(&two, 100, None);
    let third = world.wait(&two, 100, None);
    drop(first);
    drop(held);
    assert_eq!(served(&mut second).map(|p| p.bytes()), Some(100));
    // Granted, and not taken.
    drop(third);
    let look = world.budget.look();
    assert_eq!((look.bytes, look.waiting, look.most), (0, 0, None));
    assert!(world.budget.state.lock().accounts.is_empty());
}

#[test]
fn what_grows_goes_before_what_begins_and_one_at_a_time_beyond_the_budget() {
    let mut world = World::new();
    let peers: Vec<Peer> = (0..5).map(|_| world.peer(1)).collect();
    let mut permits: Vec<_> = peers.iter().filter_map(|p| world.take(p, 100)).collect();
    assert_eq!(permits.len(), 5);
    let mut begins = world.wait(&peers[0], 10, None);
    let mut grow: Vec<_> = permits
        .iter()
        .zip(&peers)
        .map(|(permit, peer)| world.wait(peer, 200, Some(permit)))
        .collect();
    let more = served(&mut grow[0]).expect("one goes beyond its address's share");
    assert!(grow[1..].iter_mut().all(|w| served(w).is_none()));
    permits[0].merge(more);
    // The one that is beyond may go on; no other one.
    let mut again = world.wait(&peers[0], 300, Some(&permits[0]));
    permits[0].merge(served(&mut again).unwrap());
    assert_eq!(permits[0].bytes(), 600);
    assert!(served(&mut grow[1]).is_none());
    // When it is done, the next one may.
    drop(permits.remove(0));
    for waiting in &mut grow[1..] {
        let more = served(waiting).expect("the next one");
        drop((more, permits.remove(0)));
    }
    assert!(served(&mut begins).is_some());
    assert_eq!(world.budget.look().bytes, 0);
    assert_eq!(world.budget.state.lock().beyond, None);
}

#[test]
fn who_stands_still_for_longest_gives_way_when_others_have_waited() {
    let mut world = World::new();
    let mut peers: Vec<Peer> = (0..4).map(|_| world.peer(1)).collect();
    let mut stranger = world.peer(2);
    let _held: Vec<_> = peers.iter().filter_map(|p| world.take(p, 125)).collect();
    let _other = world.take(&stranger, 100).unwrap();
    let start = world.start;
    let at = |ms| start + Duration::from_millis(ms);
    peers[0].party.stands_still(at(30));
    peers[1].party.stands_still(at(10));
    peers[2].party.stands_still(at(1_500));
    stranger.party.stands_still(at(0));
    let newcomer = world.peer(1);
    let mut waiting = world.wait(&newcomer, 100, None);
    let told = |peer: &mut Peer| peer.told.try_recv().ok();
    waiting.insist(at(500));
    assert!(peers.iter_mut().all(|p| told(p).is_none()), "too early");
    waiting.insist(at(1_100));
    assert_eq!(told(&mut peers[1]), Some(Farewell::StoodStill));
    assert_eq!(told(&mut peers[0]), None, "that is enough");
    // It has not gone yet; somebody else waits, too.
    let another = world.wait(&newcomer, 100, None);
    waiting.insist(at(1_150));
    assert_eq!(told(&mut peers[0]), None, "it is not looked that often");
    waiting.insist(at(1_300));
    assert_eq!(told(&mut peers[0]), Some(Farewell::StoodStill));
    assert_eq!(told(&mut peers[2]), None, "not for long enough");
    assert_eq!(told(&mut peers[3]), None, "it moves");
    assert_eq!(
        told(&mut stranger),
        None,
        "not of the address that has its share"
    );
    drop(another);
}

#[test]
fn all_give_way_for_all_when_memory_itself_is_short() {
    let mut world = World::new();
    let mut first = world.peer(1);
    let _held = world.take(&first, ALL).unwrap();
    first.party.stands_still(world.start);
    let newcomer = world.peer(2);
    let mut waiting = world.wait(&newcomer, 100, None);
    waiting.insist(world.start + SHORT);
    assert_eq!(first.told.try_recv(), Ok(Farewell::StoodStill));
}
