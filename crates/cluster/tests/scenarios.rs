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
    let mut machine = serving();
    let all = [StopServing, RemoveAddresses, CloseClientConnections];
    assert_eq!(machine.handle(Event::Deposed), all);
    assert_eq!(machine.phase(), Phase::Releasing);
    assert_eq!(machine.handle(Event::AddressesRemoved), []);
    assert_eq!(machine.handle(Event::ConnectionsClosed), []);
    assert_eq!(machine.phase(), Phase::Standby);
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

/// Lapses `ms` after the start, and has taken the address off.
fn suspended(ms: u64) -> Takeover {
    let mut machine = serving();
    tick(&mut machine, 10_000 + ms);
    let actions = machine.handle(Event::LeaseLapsed);
    assert_eq!(actions, [SuspendServing, RemoveAddresses]);
    assert_eq!(machine.phase(), Phase::Suspended);
    assert_eq!(machine.handle(Event::AddressesRemoved), []);
    machine
}

/// From the lease on, in the same term.
fn resume(machine: &mut Takeover, resets: bool) {
    let regained = Event::LeaseRegained { term: T1 };
    assert_eq!(machine.handle(regained), [AddAddresses { term: T1 }]);
    let mut all = vec![StartServing { term: T1 }, Announce];
    all.extend(resets.then_some(ResetClientConnections));
    all.push(TickleClients);
    assert_eq!(machine.handle(Event::AddressesAdded { term: T1 }), all);
    assert_eq!(machine.phase(), Phase::TakingOver);
    assert_eq!(machine.handle(Event::ServingStarted { term: T1 }), []);
    assert_eq!(machine.phase(), Phase::Serving);
}

#[test]
fn a_lapse_keeps_connections_and_the_same_term_goes_on_with_them() {
    let mut machine = suspended(1);
    assert_eq!(machine.handle(Event::LeaseRegained { term: T2 }), []);
    resume(&mut machine, false);
    assert_eq!(machine.barrier_index(), Some(7), "no second barrier");
}

#[test]
fn after_a_long_lapse_connections_are_reset_once_the_address_is_back() {
    for (lapse_ms, resets) in [(200, false), (201, true), (600_000, true)] {
        let mut machine = suspended(1);
        tick(&mut machine, 10_001 + lapse_ms);
        resume(&mut machine, resets);
    }
}

#[test]
fn each_lapse_is_measured_by_itself() {
    let mut machine = suspended(1);
    tick(&mut machine, 15_000);
    resume(&mut machine, true);
    tick(&mut machine, 16_000);
    machine.handle(Event::LeaseLapsed);
    machine.handle(Event::AddressesRemoved);
    resume(&mut machine, false);
}

#[test]
fn a_lease_that_comes_back_before_the_address_is_off_waits_for_that() {
    let mut machine = serving();
    machine.handle(Event::LeaseLapsed);
    assert_eq!(machine.handle(Event::LeaseRegained { term: T1 }), []);
    assert_eq!(
        machine.handle(Event::AddressesRemoved),
        [AddAddresses { term: T1 }]
    );
}

#[test]
fn a_lapse_during_the_way_back_up_suspends_again() {
    let mut machine = suspended(1);
    machine.handle(Event::LeaseRegained { term: T1 });
    assert_eq!(machine.handle(Event::LeaseLapsed), [RemoveAddresses]);
    // What was added meanwhile counts for nothing.
    assert_eq!(machine.handle(Event::AddressesAdded { term: T1 }), []);
    assert_eq!(machine.handle(Event::AddressesRemoved), []);
    resume(&mut machine, false);

    let mut machine = suspended(1);
    machine.handle(Event::LeaseRegained { term: T1 });
    machine.handle(Event::AddressesAdded { term: T1 });
    let all = [SuspendServing, RemoveAddresses];
    assert_eq!(machine.handle(Event::LeaseLapsed), all);
    assert_eq!(machine.handle(Event::ServingStarted { term: T1 }), []);
    assert_eq!(machine.handle(Event::AddressesRemoved), []);
    resume(&mut machine, false);
}

#[test]
fn the_end_of_the_term_closes_what_a_lapse_had_kept() {
    for end in [Event::Deposed, Event::Elected { term: T2 }] {
        let mut machine = suspended(1);
        let actions = machine.handle(end);
        assert_eq!(actions[..2], [StopServing, CloseClientConnections]);
        assert_ne!(machine.phase(), Phase::Suspended);
    }
}

#[test]
fn a_leader_deposed_and_elected_again_in_one_term_begins_anew() {
    let mut machine = suspended(1);
    machine.handle(Event::Deposed);
    machine.handle(Event::ConnectionsClosed);
    assert_eq!(
        machine.handle(Event::Elected { term: T1 }),
        [CommitBarrier { term: T1 }]
    );
    finish_barrier(&mut machine, T1);
    assert_eq!(machine.phase(), Phase::Serving);
}

#[test]
fn a_lapse_before_the_barrier_is_done_keeps_nothing() {
    let mut machine = standby();
    machine.handle(Event::Elected { term: T1 });
    assert_eq!(machine.handle(Event::LeaseLapsed), []);
    assert_eq!(
        machine.handle(Event::BarrierDone { term: T1, index: 1 }),
        []
    );
    assert_eq!(machine.phase(), Phase::Standby);
    assert_eq!(
        machine.handle(Event::LeaseRegained { term: T1 }),
        [StartServing { term: T1 }]
    );
}

#[test]
fn an_address_that_does_not_come_back_leaves_the_service_suspended_and_is_tried_again() {
    let mut machine = suspended(1);
    machine.handle(Event::LeaseRegained { term: T1 });
    let why = "no such device".to_owned();
    let failed = Event::AddressFailed { term: T1, why };
    assert_eq!(machine.handle(failed), [RemoveAddresses]);
    assert_eq!(machine.handle(Event::AddressesRemoved), []);
    assert_eq!(machine.wake_at_ms(), Some(11_001));
    assert_eq!(tick(&mut machine, 11_001), [AddAddresses { term: T1 }]);
    let actions = machine.handle(Event::AddressesAdded { term: T1 });
    assert_eq!(actions[0], StartServing { term: T1 });
    assert!(actions.contains(&ResetClientConnections));
}

#[test]
fn a_move_asked_for_during_a_lapse_closes_first() {
    let mut machine = suspended(1);
    let actions = machine.handle(Event::MoveRequested);
    assert_eq!(
        actions,
        [StopServing, TransferLeadership, CloseClientConnections]
    );
}

/// What was inside when the gate closed for the move is given up: whoever asked must hear of that.
#[test]
fn a_move_that_a_lapse_ends_closes_before_anybody_is_let_in_again() {
    let mut machine = serving();
    assert_eq!(machine.handle(Event::MoveRequested), [Drain]);
    let actions = machine.handle(Event::Drained);
    assert_eq!(actions, [StopServing, RemoveAddresses]);
    assert_eq!(machine.handle(Event::LeaseLapsed), []);
    let regained = Event::LeaseRegained { term: T1 };
    assert_eq!(machine.handle(regained), [CloseClientConnections]);
    assert_eq!(machine.handle(Event::AddressesRemoved), []);
    let actions = machine.handle(Event::ConnectionsClosed);
    assert_eq!(actions, [StartServing { term: T1 }]);
}

#[test]
fn a_shutdown_during_a_lapse_closes_and_hands_over() {
    let mut machine = suspended(1);
    assert_eq!(
        machine.handle(Event::Shutdown),
        [StopServing, TransferLeadership, CloseClientConnections]
    );
    machine.handle(Event::ConnectionsClosed);
    assert_eq!(machine.handle(Event::TransferFailed), [Exit]);
}

/// Whoever has the address after anything that took it off makes clients reconnect.
#[test]
fn no_address_comes_up_without_tickles() {
    let losses: [&[Event]; 5] = [
        &[Event::LeaseLapsed, Event::AddressesRemoved],
        &[Event::AddressLost, Event::AddressesRemoved],
        &[
            Event::Deposed,
            Event::AddressesRemoved,
            Event::ConnectionsClosed,
            Event::Elected { term: T1 },
        ],
        &[
            Event::Elected { term: T2 },
            Event::AddressesRemoved,
            Event::ConnectionsClosed,
        ],
        &[
            Event::MoveRequested,
            Event::Drained,
            Event::AddressesRemoved,
            Event::ConnectionsClosed,
            Event::TransferFailed,
        ],
    ];
    for loss in losses {
        let mut machine = serving();
        tick(&mut machine, 20_000);
        for event in loss {
            machine.handle(event.clone());
        }
        let mut actions = Vec::new();
        for _ in 0..9 {
            let term = machine.leading().unwrap();
            for event in [
                Event::LeaseRegained { term },
                Event::BarrierDone { term, index: 9 },
                Event::ServingStarted { term },
                Event::AddressesAdded { term },
            ] {
                actions.extend(machine.handle(event));
            }
        }
        assert_eq!(machine.phase(), Phase::Serving, "{loss:?}");
        let announced = actions.iter().position(|a| *a == Announce).unwrap();
        let tickled = actions.iter().position(|a| *a == TickleClients).unwrap();
        assert!(announced < tickled, "{loss:?}");
    }
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
    let all = [SuspendServing, RemoveAddresses];
    assert_eq!(machine.handle(Event::LeaseLapsed), all);
    assert_eq!(machine.handle(Event::AddressesRemoved), []);
    assert_eq!(machine.handle(Event::Drained), []);
    resume(&mut machine, false);

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
fn a_lost_address_makes_the_node_prove_its_leadership_and_keeps_its_connections() {
    let mut machine = serving();
    tick(&mut machine, 20_000);
    assert_eq!(
        machine.handle(Event::AddressLost),
        [SuspendServing, RemoveAddresses, CommitBarrier { term: T1 }]
    );
    machine.handle(Event::AddressesRemoved);
    assert_eq!(
        machine.handle(Event::BarrierDone { term: T1, index: 8 }),
        [AddAddresses { term: T1 }]
    );
    assert_eq!(
        machine.handle(Event::AddressesAdded { term: T1 }),
        [StartServing { term: T1 }, Announce, TickleClients]
    );
}

#[test]
fn an_address_that_does_not_stay_is_not_fought_for_without_pause() {
    let mut machine = serving();
    tick(&mut machine, 10_500);
    machine.handle(Event::AddressLost);
    machine.handle(Event::AddressesRemoved);
    assert_eq!(
        machine.handle(Event::BarrierDone { term: T1, index: 8 }),
        []
    );
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
    assert_eq!(machine.handle(Event::LeaseLapsed), [SuspendServing]);
    assert_eq!(
        machine.handle(Event::LeaseRegained { term: T1 }),
        [StartServing { term: T1 }]
    );
    machine.handle(Event::ServingStarted { term: T1 });
    assert_eq!(machine.phase(), Phase::Serving);
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
