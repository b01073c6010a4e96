//! Nodes that are told to end.

use crate::support::{Logged, command, free_port};
use crate::trio::{NAMES, Trio};
use haven_admin::Cause;
use rustix::process::Signal;

/// As `systemctl restart` on one node after the other, each time where the service is: told to end, waited for, started
/// again at once. What is counted is who followed whom and why, which load does not change.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_end_has_handed_over_before_its_process_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut trio = Trio::new(dir.path(), |_| "[[export]]\npath = \"/data\"\n".into());
    trio.start_all();
    for round in 0..6 {
        let (leader, before) = trio.caught_up().await;
        let said = tokio::task::block_in_place(|| trio.terminate(leader));
        let handed_over = said.find("TransferDone");
        let released = said.find("the service is released");
        assert!(
            handed_over.is_some() && handed_over < released,
            "round {round}: ended without its heir: {said}"
        );
        trio.start(leader);
        // Recorded a moment after clients are let in.
        let next = trio
            .wait("a failover", async |trio| {
                let (_, report) = trio.serving().await;
                let mut known = report.failovers.into_iter();
                known.rfind(|one| one.term > before.term)
            })
            .await;
        // The term is not asked for: a node that has just started has no vote yet (`lease.rs`), so the heir may need a
        // second election. It is the planned move's all the same.
        assert_eq!(
            (next.from.as_deref(), next.cause),
            (Some(NAMES[leader]), Cause::Planned),
            "round {round}: {said}"
        );
    }
}

#[test]
fn a_lone_node_that_ends_warns_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = command();
    serve.args(["serve", "--export", "/data", "--data"]);
    serve.arg(dir.path());
    for port in ["--nfs-port", "--mount-port"] {
        serve.args([port, &free_port().to_string()]);
    }
    let node = Logged::start(&mut serve);
    node.until("serving took_ms");
    node.signal(Signal::TERM);
    let said = node.rest();
    assert!(node.wait().success(), "{said}");
    assert!(said.contains("stopped"), "{said}");
    assert!(!said.contains("WARN"), "{said}");
}
