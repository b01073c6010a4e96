//! Nodes whose configurations are not alike.

use crate::support::refused_by;
use crate::trio::{NAMES, Trio};
use haven_admin::{ClusterStatus, Verdict};
use rustix::process::Signal;

const EXPORTS: &str = "[[export]]\npath = \"/data\"\n[[export]]\npath = \"/more\"\n";

fn exports_differ(status: &ClusterStatus, nodes: usize) -> bool {
    let found = status
        .differences
        .iter()
        .find(|found| found.key == "export");
    found.is_some_and(|found| found.groups.iter().map(Vec::len).sum::<usize>() == nodes)
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_that_differ_are_named_before_a_move_does_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut trio = Trio::new(dir.path(), |_| EXPORTS.into());
    trio.start_all();
    let (leader, _) = trio.caught_up().await;
    let odd = (leader + 1) % 3;
    trio.edit(odd, "[[export]]\npath = \"/more\"\n", "");
    trio.node(odd).signal(Signal::HUP);
    for index in 0..3 {
        let what = "all nodes tell that exports differ";
        let status = trio.wait(what, async |trio| {
            let status = trio.status(index).await?;
            exports_differ(&status, 3).then_some(status)
        });
        let status = status.await;
        assert_eq!(status.verdict, Verdict::Degraded);
        let told = &status.problems[0].what;
        let name = NAMES[odd];
        assert!(
            told.starts_with(&format!("node {name} exports something else")),
            "{told}"
        );
        assert!(told.ends_with("/more"), "{told}");
        let said = tokio::task::block_in_place(|| trio.node(index).until("settings differ"));
        assert!(said.last().unwrap().contains("/more"), "{said:#?}");
    }
    let why = refused_by(&mut trio.ask(leader, &["migrate", NAMES[odd]]));
    assert!(
        why.contains("export differs") && why.contains("--force"),
        "{why}"
    );
    assert_eq!(trio.serving().await.0, leader);
    // Without a name the service goes where it does no harm, also when its node ends.
    let other = 3 - leader - odd;
    let moved = trio.ask(leader, &["migrate"]).output().unwrap();
    assert!(moved.status.success(), "{moved:?}");
    assert_eq!(trio.serving().await.0, other);
    trio.edit(
        odd,
        "path = \"/data\"\n",
        "path = \"/data\"\n[[export]]\npath = \"/more\"\n",
    );
    trio.node(odd).signal(Signal::HUP);
    trio.wait("all is alike", async |trio| {
        let status = trio.status(other).await?;
        status.differences.is_empty().then_some(())
    })
    .await;
    let moved = trio.ask(other, &["migrate", NAMES[odd]]).output().unwrap();
    assert!(moved.status.success(), "{moved:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_address_is_named_by_the_node_and_by_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut trio = Trio::new(dir.path(), |_| EXPORTS.into());
    trio.start_all();
    let (leader, _) = trio.caught_up().await;
    let moved = (leader + 1) % 3;
    tokio::task::block_in_place(|| trio.terminate(moved));
    let (home, elsewhere) = trio.move_peer(moved);
    trio.start(moved);
    let said = tokio::task::block_in_place(|| trio.node(moved).until("cluster.address says"));
    assert!(
        said.last().unwrap().contains(&home.to_string()),
        "{said:#?}"
    );
    for index in [moved, leader] {
        let told = format!("the cluster knows node {} at {home}", NAMES[moved]);
        trio.wait(&told, async |trio| {
            let status = trio.status(index).await?;
            let mut of = status.problems.iter();
            let found = of.find(|problem| problem.what.contains(&told))?;
            let listens = found.what.contains(&elsewhere.to_string());
            (listens
                && !status
                    .problems
                    .iter()
                    .any(|p| p.advice.contains("repair the network")))
            .then_some(())
        })
        .await;
    }
}
