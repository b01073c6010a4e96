//! A short torture in every test run: the long ones are `cargo run --release -p haven-testkit -- kills`,
//! `… power-losses` and `… one-node`. Needs network namespaces: as root, or where user namespaces are allowed.

use std::process::{Command, ExitCode};

/// (name, arguments of `torture`)
const CASES: &[(&str, &[&str])] = &[
    (
        "random nodes killed under load",
        &["kills", "--rounds", "6", "--seed", "11"],
    ),
    (
        "all nodes lose power under load",
        &["power-losses", "--rounds", "3", "--seed", "12"],
    ),
    (
        "one node killed and without power under load, checked each time",
        &[
            "one-node",
            "--rounds",
            "5",
            "--power-losses",
            "2",
            "--seed",
            "13",
        ],
    ),
    (
        "clients without manners hold up nobody",
        &["rude", "--operations", "300", "--seed", "15"],
    ),
    ("a cluster is operated as people do", &["operate"]),
    (
        "a leader that is frozen or cut off says nothing",
        &["silence"],
    ),
    (
        "what clients see under random faults is explained by one order",
        &[
            "linearizable",
            "--seeds",
            "5",
            "--seed",
            "14",
            "--faults",
            "4",
        ],
    ),
    (
        "cables are cut, or carry one way only",
        &["faults", "partitions"],
    ),
    (
        "no short fault makes a client wait for its keepalive",
        &[
            "blips",
            "--random",
            "8",
            "--longest-ms",
            "500",
            "--bound-ms",
            "20000",
            "--seed",
            "16",
        ],
    ),
    ("disks are slow", &["faults", "slow-disks"]),
    ("disks are full", &["faults", "full-disks"]),
    (
        "logs are damaged, a store is emptied",
        &["faults", "damage"],
    ),
    ("disks and machines hang", &["faults", "hangs"]),
    ("clocks jump", &["faults", "clocks", "--clock-seconds", "3"]),
];

fn main() -> ExitCode {
    // `cargo test -- --list` and filters are answered as the usual harness would, as far as tools need it.
    if std::env::args().any(|a| a == "--list") {
        for (name, _) in CASES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", CASES.len());
    let mut failed = 0;
    for (name, arguments) in CASES {
        let output = Command::new(env!("CARGO_BIN_EXE_torture"))
            .args(*arguments)
            .output();
        match output {
            Ok(output) if output.status.success() => println!("test {name} ... ok"),
            Ok(output) => {
                failed += 1;
                println!("test {name} ... FAILED");
                println!("{}", String::from_utf8_lossy(&output.stdout));
                println!("{}", String::from_utf8_lossy(&output.stderr));
            }
            Err(why) => {
                failed += 1;
                println!("test {name} ... FAILED: {why}");
            }
        }
    }
    let passed = CASES.len() - failed;
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n"
    );
    ExitCode::from(u8::from(failed > 0))
}
