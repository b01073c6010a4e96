//! What the takeover does in each situation an operator knows.

use haven_cluster::{Action, Event, Phase, Takeover, Term, Timing};

use Action::*;

const T1: Term = Term(1);
const T2: Term = Term(2);

/// A machine whose start has been cleared away.
fn standby() -> Takeover {
    let (mut machine, actions) = Takeover::new(true, Timing::default());
    assert_eq!(actions, [RemoveAddresses, CloseClientConnections]);
    assert_eq!(machine.handle(Event::AddressesRemoved), []);
    assert_eq!(machine.handle(Event::ConnectionsClosed), []);
    assert_eq!(machine.handle(Event::Tick { now_ms: 10_000 }), []);
    assert_eq!(machine.phase(), Phase::Standby);
    machine
}

fn elect(machine: &mut Takeover, term: Term) {
    assert_eq!(
        machine.handle(Event::Elected { term }),
        [CommitBarrier { term }]
    );
    finish_barrier(machine, term);
}

fn finish_barrier(machine: &mut Takeover, term: Term) {
    let done = Event::BarrierDone { term, index: 7 };
    assert_eq!(machine.handle(done), [StartServing { term }]);
    assert_eq!(
        machine.handle(Event::ServingStarted { term }),
        [AddAddresses { term }]
    );
    assert_eq!(machine.phase(), Phase::TakingOver);
    assert_eq!(
        machine.handle(Event::AddressesAdded { term }),
        [Announce, TickleClients]
    );
    assert_eq!(machine.phase(), Phase::Serving);
}

fn serving() -> Takeover {
    let mut machine = standby();
    elect(&mut machine, T1);
    machine
}

/// A planned move up to the request for the transfer.
fn transferring() -> Takeover {
    let mut machine = serving();
    assert_eq!(machine.handle(Event::MoveRequested), [Drain]);
    assert_eq!(
        machine.handle(Event::Drained),
        [StopServing, RemoveAddresses]
    );
    let actions = machine.handle(Event::AddressesRemoved);
    assert_eq!(actions, [TransferLeadership, CloseClientConnections]);
    machine
}

fn tick(machine: &mut Takeover, now_ms: u64) -> Vec<Action> {
    machine.handle(Event::Tick { now_ms })
}

#[test]
fn takeover_serves_first_and_takes_the_address_last() {
    let machine = serving();
    assert_eq!(machine.leading(), Some(T1));
    assert_eq!(machine.barrier_index(), Some(7));
}

#[test]
fn loss_silences_first_then_drops_the_address_then_the_connections() {
    for loss in [Event::Deposed, Event::LeaseLapsed] {
        let mut machine = serving();
        let all = [StopServing, RemoveAddresses, CloseClientConnections];
        assert_eq!(machine.handle(loss), all);
        assert_eq!(machine.phase(), Phase::Releasing);
        assert_eq!(machine.handle(Event::AddressesRemoved), []);
        assert_eq!(machine.handle(Event::ConnectionsClosed), []);
        assert_eq!(machine.phase(), Phase::Standby);
    }
}

#[test]
fn loss_in_the_middle_undoes_exactly_what_was_begun() {
    let mut machine = standby();
    machine.handle(Event::Elected { term: T1 });
    assert_eq!(machine.handle(Event::Deposed), []);

    let mut machine = standby();
    machine.handle(Event::Elected { term: T1 });
    machine.handle(Event::BarrierDone { term: T1, index: 1 });
    assert_eq!(
        machine.handle(Event::Deposed),
        [StopServing, CloseClientConnections]
    );
    assert_eq!(machine.handle(Event::ServingStarted { term: T1 }), []);

    let mut machine = standby();
    machine.handle(Event::Elected { term: T1 });
    machine.handle(Event::BarrierDone { term: T1, index: 1 });
    machine.handle(Event::ServingStarted { term: T1 });
    let all = [StopServing, RemoveAddresses, CloseClientConnections];
    assert_eq!(machine.handle(Event::Deposed), all);
    assert_eq!(machine.handle(Event::AddressesAdded { term: T1 }), []);
    assert_eq!(machine.handle(Event::AddressesRemoved), []);
}

#[test]
fn a_regained_lease_needs_no_second_barrier_in_the_same_term() {
    let mut machine = serving();
    machine.handle(Event::LeaseLapsed);
    assert_eq!(machine.handle(Event::LeaseRegained { term: T2 }), []);
    assert_eq!(machine.handle(Event::LeaseRegained { term: T1 }), []);
    // The new turn waits until nothing of the old one can hit it.
    assert_eq!(machine.handle(Event::AddressesRemoved), []);
    assert_eq!(
        machine.handle(Event::ConnectionsClosed),
        [StartServing { term: T1 }]
    );
    assert_eq!(
        machine.handle(Event::ServingStarted { term: T1 }),
        [AddAddresses { term: T1 }]
    );
}

#[test]
fn an_election_during_the_clean_up_waits_only_with_the_gate() {
    let mut machine = serving();
    machine.handle(Event::Deposed);
    assert_eq!(
        machine.handle(Event::Elected { term: T2 }),
        [CommitBarrier { term: T2 }]
    );
    assert_eq!(
        machine.handle(Event::BarrierDone { term: T2, index: 9 }),
        []
    );
    assert_eq!(
        machine.handle(Event::ConnectionsClosed),
        [StartServing { term: T2 }]
    );
    assert_eq!(machine.handle(Event::ServingStarted { term: T2 }), []);
    assert_eq!(
        machine.handle(Event::AddressesRemoved),
        [AddAddresses { term: T2 }]
    );
}

#[test]
fn a_newer_term_without_notice_of_the_old_ones_end_starts_over() {
    let mut machine = serving();
    let actions = machine.handle(Event::Elected { term: T2 });
    let down = [StopServing, RemoveAddresses, CloseClientConnections];
    assert_eq!(actions[..3], down);
    assert_eq!(actions[3..], [CommitBarrier { term: T2 }]);
}

#[test]
fn a_leader_that_lost_and_regained_its_quorum_in_one_term_serves_again() {
    let mut machine = serving();
    machine.handle(Event::LeaseLapsed);
    machine.handle(Event::AddressesRemoved);
    machine.handle(Event::ConnectionsClosed);
    assert_eq!(machine.handle(Event::Deposed), []);
    assert_eq!(
        machine.handle(Event::Elected { term: T1 }),
        [CommitBarrier { term: T1 }]
    );
    finish_barrier(&mut machine, T1);
    assert_eq!(machine.phase(), Phase::Serving);
}

#[test]
fn stale_events_change_nothing() {
    let mut machine = standby();
    machine.handle(Event::Elected { term: T2 });
    let stale = [
        Event::Elected { term: T1 },
        Event::Elected { term: T2 },
        Event::BarrierDone { term: T1, index: 3 },
        Event::BarrierFailed { term: T1 },
        Event::ServingStarted { term: T1 },
        Event::AddressesAdded { term: T1 },
        Event::AddressFailed {
            term: T1,
            why: "old".to_owned(),
        },
        Event::LeaseRegained { term: T1 },
        Event::AddressLost,
        Event::Drained,
        Event::TransferDone,
        Event::TransferFailed,
    ];
    for event in stale {
        assert_eq!(machine.handle(event), []);
    }
    assert_eq!(machine.trouble(), None);
    finish_barrier(&mut machine, T2);
}

#[test]
fn a_failed_barrier_is_repeated_after_a_pause() {
    let mut machine = standby();
    machine.handle(Event::Elected { term: T1 });
    assert_eq!(machine.handle(Event::BarrierFailed { term: T1 }), []);
    assert_eq!(machine.wake_at_ms(), Some(10_100));
    assert_eq!(tick(&mut machine, 10_099), []);
    assert_eq!(tick(&mut machine, 10_100), [CommitBarrier { term: T1 }]);
    finish_barrier(&mut machine, T1);
}

#[test]
fn announcements_come_in_a_burst_and_then_now_and_then() {
    let mut machine = serving();
    let mut times = Vec::new();
    while times.len() < 6 {
        let at = machine.wake_at_ms().unwrap();
        assert_eq!(tick(&mut machine, at - 1), []);
        assert_eq!(tick(&mut machine, at), [Announce]);
        times.push(at - 10_000);
    }
    assert_eq!(times, [200, 400, 600, 800, 30_800, 60_800]);
    machine.handle(Event::LeaseLapsed);
    assert_eq!(machine.wake_at_ms(), None);
    assert_eq!(tick(&mut machine, 900_000), []);
}

#[test]
fn a_planned_move_hands_over_once_the_address_is_off() {
    let mut machine = transferring();
    assert_eq!(machine.phase(), Phase::Moving);
    assert_eq!(machine.handle(Event::TransferDone), []);
    assert_eq!(machine.handle(Event::Deposed), []);
    assert_eq!(machine.handle(Event::ConnectionsClosed), []);
    assert_eq!(machine.phase(), Phase::Standby);
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let mut machine = serving();
    machine.handle(Event::MoveRequested);
    assert_eq!(machine.handle(Event::MoveRequested), []);
    assert_eq!(machine.wake_at_ms(), Some(10_040));
    assert_eq!(tick(&mut machine, 10_039), []);
    assert_eq!(tick(&mut machine, 10_040), [StopServing, RemoveAddresses]);
    assert_eq!(machine.handle(Event::Drained), []);
}

#[test]
fn a_failed_transfer_takes_everything_back_up_behind_a_new_barrier() {
    let mut machine = transferring();
    machine.handle(Event::ConnectionsClosed);
    assert_eq!(
        machine.handle(Event::TransferFailed),
        [CommitBarrier { term: T1 }]
    );
    finish_barrier(&mut machine, T1);
}

#[test]
fn a_failed_transfer_without_a_lease_waits_for_it() {
    let mut machine = transferring();
    machine.handle(Event::ConnectionsClosed);
    assert_eq!(machine.handle(Event::LeaseLapsed), []);
    assert_eq!(machine.handle(Event::TransferFailed), []);
    let regained = Event::LeaseRegained { term: T1 };
    assert_eq!(machine.handle(regained), [CommitBarrier { term: T1 }]);
}

#[test]
fn a_regained_lease_counts_for_nothing_during_a_transfer() {
    let mut machine = transferring();
    machine.handle(Event::ConnectionsClosed);
    machine.handle(Event::LeaseLapsed);
    assert_eq!(machine.handle(Event::LeaseRegained { term: T1 }), []);
    assert_eq!(machine.phase(), Phase::Moving);
}

#[test]
fn a_loss_ends_a_move() {
    let mut machine = serving();
    machine.handle(Event::MoveRequested);
    let all = [StopServing, RemoveAddresses, CloseClientConnections];
    assert_eq!(machine.handle(Event::LeaseLapsed), all);
    assert_eq!(machine.handle(Event::AddressesRemoved), []);

    let mut machine = serving();
    machine.handle(Event::MoveRequested);
    machine.handle(Event::Drained);
    assert_eq!(machine.handle(Event::Deposed), [CloseClientConnections]);
    assert_eq!(machine.handle(Event::AddressesRemoved), []);
}

#[test]
fn a_move_of_a_service_that_is_not_here_is_no_move() {
    let mut machine = standby();
    assert_eq!(machine.handle(Event::MoveRequested), []);
    elect(&mut machine, T1);
}

#[test]
fn a_lost_address_makes_the_node_prove_its_leadership() {
    let mut machine = serving();
    tick(&mut machine, 20_000);
    let actions = machine.handle(Event::AddressLost);
    let down = [StopServing, RemoveAddresses, CloseClientConnections];
    assert_eq!(actions[..3], down);
    assert_eq!(actions[3..], [CommitBarrier { term: T1 }]);
    machine.handle(Event::AddressesRemoved);
    machine.handle(Event::ConnectionsClosed);
    finish_barrier(&mut machine, T1);
}

#[test]
fn an_address_that_does_not_stay_is_not_fought_for_without_pause() {
    let mut machine = serving();
    tick(&mut machine, 10_500);
    machine.handle(Event::AddressLost);
    machine.handle(Event::AddressesRemoved);
    machine.handle(Event::ConnectionsClosed);
    machine.handle(Event::BarrierDone { term: T1, index: 8 });
    assert_eq!(machine.handle(Event::ServingStarted { term: T1 }), []);
    assert_eq!(machine.wake_at_ms(), Some(11_500));
    assert_eq!(tick(&mut machine, 11_500), [AddAddresses { term: T1 }]);
}

#[test]
fn a_node_that_cannot_hold_the_address_asks_another_one_to_lead() {
    let mut machine = standby();
    machine.handle(Event::Elected { term: T1 });
    machine.handle(Event::BarrierDone { term: T1, index: 1 });
    let mut next = machine.handle(Event::ServingStarted { term: T1 });
    for failure in 1..=3 {
        assert_eq!(next, [AddAddresses { term: T1 }]);
        let failed = Event::AddressFailed {
            term: T1,
            why: "no such device".to_owned(),
        };
        let mut expected = vec![RemoveAddresses];
        expected.extend((failure == 3).then_some(StopServing));
        assert_eq!(machine.handle(failed), expected);
        assert_eq!(machine.trouble(), Some("no such device"));
        let off = machine.handle(Event::AddressesRemoved);
        if failure == 3 {
            assert_eq!(off, [TransferLeadership, CloseClientConnections]);
        } else {
            assert_eq!(off, []);
            let at = machine.wake_at_ms().unwrap();
            next = tick(&mut machine, at);
        }
    }
    // Nobody else can, either.
    machine.handle(Event::ConnectionsClosed);
    assert_eq!(
        machine.handle(Event::TransferFailed),
        [CommitBarrier { term: T1 }]
    );
}

#[test]
fn a_service_without_addresses_skips_them() {
    let (mut machine, actions) = Takeover::new(false, Timing::default());
    assert_eq!(actions, []);
    assert_eq!(
        machine.handle(Event::Elected { term: T1 }),
        [CommitBarrier { term: T1 }]
    );
    let done = Event::BarrierDone { term: T1, index: 1 };
    assert_eq!(machine.handle(done), [StartServing { term: T1 }]);
    assert_eq!(machine.handle(Event::ServingStarted { term: T1 }), []);
    assert_eq!(machine.phase(), Phase::Serving);
    assert_eq!(machine.wake_at_ms(), None);
    assert_eq!(machine.handle(Event::MoveRequested), [Drain]);
    let all = [StopServing, TransferLeadership, CloseClientConnections];
    assert_eq!(machine.handle(Event::Drained), all);
    machine.handle(Event::ConnectionsClosed);
    assert_eq!(
        machine.handle(Event::TransferFailed),
        [CommitBarrier { term: T1 }]
    );
    machine.handle(Event::BarrierDone { term: T1, index: 2 });
    machine.handle(Event::ServingStarted { term: T1 });
    assert_eq!(
        machine.handle(Event::LeaseLapsed),
        [StopServing, CloseClientConnections]
    );
}

#[test]
fn a_shutdown_moves_the_service_first_and_exits_when_all_is_clean() {
    let mut machine = serving();
    assert_eq!(machine.handle(Event::Shutdown), [Drain]);
    assert_eq!(
        machine.handle(Event::Drained),
        [StopServing, RemoveAddresses]
    );
    let actions = machine.handle(Event::AddressesRemoved);
    assert_eq!(actions, [TransferLeadership, CloseClientConnections]);
    assert_eq!(machine.handle(Event::ConnectionsClosed), []);
    assert_eq!(machine.handle(Event::TransferDone), [Exit]);
    assert_eq!(machine.phase(), Phase::Exited);
    assert_eq!(machine.handle(Event::Elected { term: T2 }), []);
}

#[test]
fn a_shutdown_waits_for_the_transfers_end_although_the_lease_is_over_at_once() {
    for end in [Event::TransferDone, Event::TransferFailed] {
        let mut machine = serving();
        machine.handle(Event::Shutdown);
        machine.handle(Event::Drained);
        machine.handle(Event::AddressesRemoved);
        // The lease of this term is revoked with the first step of the transfer, so this node leads no more long
        // before its heir has even heard of it.
        assert_eq!(machine.handle(Event::Deposed), []);
        assert_eq!(machine.handle(Event::ConnectionsClosed), []);
        assert_eq!(machine.phase(), Phase::Moving);
        assert_eq!(machine.handle(end), [Exit]);
    }
}

#[test]
fn a_transfer_that_has_not_ended_is_waited_for_by_the_next_move() {
    let mut machine = transferring();
    machine.handle(Event::ConnectionsClosed);
    machine.handle(Event::Deposed);
    assert_eq!(machine.phase(), Phase::Moving);
    // Nobody took it in time, and this node is elected once more.
    elect(&mut machine, T2);
    machine.handle(Event::MoveRequested);
    machine.handle(Event::Drained);
    assert_eq!(
        machine.handle(Event::AddressesRemoved),
        [],
        "of two transfers at a time nobody could tell which one ended"
    );
    let next = [TransferLeadership, CloseClientConnections];
    assert_eq!(machine.handle(Event::TransferFailed), next);
    machine.handle(Event::ConnectionsClosed);
    assert_eq!(machine.handle(Event::TransferDone), []);
    assert_eq!(machine.phase(), Phase::Standby);
}

#[test]
fn the_term_that_is_being_handed_over_is_not_served_in() {
    let mut machine = transferring();
    machine.handle(Event::ConnectionsClosed);
    machine.handle(Event::Deposed);
    assert_eq!(machine.handle(Event::Elected { term: T1 }), []);
    assert_eq!(
        machine.handle(Event::TransferFailed),
        [CommitBarrier { term: T1 }]
    );
}

#[test]
fn a_shutdown_of_a_single_node_exits_without_a_successor() {
    let mut machine = serving();
    machine.handle(Event::Shutdown);
    machine.handle(Event::Drained);
    machine.handle(Event::AddressesRemoved);
    assert_eq!(machine.handle(Event::TransferFailed), []);
    assert_eq!(machine.handle(Event::ConnectionsClosed), [Exit]);
}

#[test]
fn a_shutdown_of_a_follower_exits_at_once() {
    assert_eq!(standby().handle(Event::Shutdown), [Exit]);
}

#[test]
fn a_shutdown_does_not_wait_for_ever() {
    let mut machine = serving();
    machine.handle(Event::Shutdown);
    machine.handle(Event::Drained);
    assert_eq!(tick(&mut machine, 14_999), []);
    assert_eq!(machine.wake_at_ms(), Some(15_000));
    assert_eq!(tick(&mut machine, 15_000), [CloseClientConnections, Exit]);
}

#[test]
fn an_election_during_shutdown_is_handed_on() {
    let mut machine = serving();
    machine.handle(Event::Deposed);
    assert_eq!(machine.handle(Event::Shutdown), []);
    machine.handle(Event::AddressesRemoved);
    assert_eq!(
        machine.handle(Event::Elected { term: T2 }),
        [TransferLeadership]
    );
    machine.handle(Event::ConnectionsClosed);
    assert_eq!(machine.handle(Event::TransferDone), [Exit]);
}

#[test]
fn time_that_goes_backwards_is_ignored() {
    let mut machine = serving();
    assert_eq!(tick(&mut machine, 5), []);
    machine.handle(Event::MoveRequested);
    assert_eq!(machine.wake_at_ms(), Some(10_040));
}
