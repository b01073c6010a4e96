//! What the platform does to a real network: bridges, cables and nodes in network namespaces of our own.
//!
//! No test harness: namespaces must be made before there are threads, and the guard needs a program to
//! run as. Usage like any test binary: arguments are filters on the test names.

// Everything in this program is a test, also what is not marked as one.
#![allow(clippy::unwrap_used)]

mod guarding;
mod lan;
mod network;
mod strangers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use haven_platform::netns;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "addresses_come_and_go_idempotently",
        network::addresses_come_and_go_idempotently,
    ),
    (
        "addresses_find_their_interface",
        network::addresses_find_their_interface,
    ),
    (
        "addresses_with_a_lifetime_vanish",
        network::addresses_with_a_lifetime_vanish,
    ),
    (
        "losses_of_addresses_are_told_whoever_takes_them_off",
        network::losses_of_addresses_are_told_whoever_takes_them_off,
    ),
    (
        "interfaces_can_be_unplugged",
        network::interfaces_can_be_unplugged,
    ),
    (
        "announcements_turn_traffic_v4",
        network::announcements_turn_traffic_v4,
    ),
    (
        "announcements_turn_traffic_v6",
        network::announcements_turn_traffic_v6,
    ),
    (
        "tickles_reset_clients_v4",
        network::tickles_reset_clients_v4,
    ),
    (
        "tickles_reset_clients_v6",
        network::tickles_reset_clients_v6,
    ),
    (
        "connections_outlive_their_address_and_are_reset_from_it_later",
        network::connections_outlive_their_address_and_are_reset_from_it_later,
    ),
    (
        "tickles_do_a_living_connection_no_harm",
        network::tickles_do_a_living_connection_no_harm,
    ),
    (
        "dropped_connections_are_silent",
        network::dropped_connections_are_silent,
    ),
    ("strangers_are_found_v4", strangers::strangers_are_found_v4),
    ("strangers_are_found_v6", strangers::strangers_are_found_v6),
    (
        "a_takeover_finds_no_stranger",
        strangers::a_takeover_finds_no_stranger,
    ),
    (
        "without_an_address_of_ones_own_only_an_address_not_held_is_asked_for",
        strangers::without_an_address_of_ones_own,
    ),
    (
        "commands_start_in_a_namespace",
        network::commands_start_in_a_namespace,
    ),
    (
        "guard_acts_when_the_server_is_killed",
        guarding::acts_when_the_server_is_killed,
    ),
    (
        "guard_hides_the_servers_death_from_clients",
        guarding::hides_the_servers_death_from_clients,
    ),
    (
        "guard_lets_go_of_connections_that_are_over",
        guarding::lets_go_of_connections_that_are_over,
    ),
    (
        "guard_acts_when_the_server_is_stopped",
        guarding::acts_when_the_server_is_stopped,
    ),
    (
        "guard_acts_when_the_lease_lapses",
        guarding::acts_when_the_lease_lapses,
    ),
    (
        "guard_leaves_beating_servers_alone",
        guarding::leaves_beating_servers_alone,
    ),
    (
        "guard_leaves_released_addresses_alone",
        guarding::leaves_released_addresses_alone,
    ),
    ("guard_death_is_reported", guarding::death_is_reported),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(guarding::CHILD) => return guarding::child(),
        Some(guarding::SERVER) => return guarding::server(&args[1..]),
        _ => {}
    }
    match netns::isolate() {
        Ok(isolation) => println!("\nrunning {} tests ({isolation:?})", TESTS.len()),
        Err(error) => {
            println!("\nSKIPPED, ALL OF IT: no network namespaces here: {error}\n");
            return ExitCode::SUCCESS;
        }
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(test));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!(
            "test {name} ... {verdict} ({} ms)",
            start.elapsed().as_millis()
        );
        passed += u32::from(outcome.is_ok());
        failed += u32::from(outcome.is_err());
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed\n");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
