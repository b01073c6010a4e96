//! Data directories that were copied, and addresses that were changed by hand.

use crate::nodes::Cluster;
use crate::nodes::fresh_address;
use crate::nodes::names;
use crate::nodes::until;

#[tokio::test]
async fn a_copy_at_another_address_has_no_say_and_all_are_told() {
    let mut cluster = Cluster::running(3).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.propose(leader, "entry 0").await.unwrap();
    cluster.all_hold(&names(0..1)).await;
    let id = *cluster.all().iter().find(|id| **id != leader).unwrap();
    cluster.stop(id).await;
    let (home, elsewhere) = (cluster.peers[&id], fresh_address());
    let dir = tempfile::tempdir().unwrap();
    let copy = cluster.copy(id, elsewhere, dir.path()).await;
    // The original does not run, but whoever listens elsewhere is refused all the same.
    until("the copy is told", || copy.consensus.stray().is_some()).await;
    let why = copy.consensus.stray().unwrap();
    for place in [home, elsewhere] {
        assert!(why.contains(&place.to_string()), "{why}");
    }
    for other in cluster.all() {
        let consensus = &cluster.node(other).consensus;
        until("the others tell", || {
            let strays = consensus.strays();
            let mut of = strays.iter().filter(|stray| stray.node == id);
            of.any(|stray| stray.listens == Some(elsewhere) && stray.from.is_loopback())
        })
        .await;
    }
    let term = cluster.node(leader).consensus.status().term;
    cluster.start(id).await;
    cluster.propose(leader, "entry 1").await.unwrap();
    cluster.all_hold(&names(0..2)).await;
    assert_eq!(cluster.node(id).consensus.stray(), None);
    assert_eq!(cluster.node(leader).consensus.status().term, term);
    // Nobody brings it anything, and nobody elects it.
    assert!(!copy.consensus.leadership().borrow().is_leader);
    assert!(names(0..1).starts_with(&copy.machine.texts()));
    copy.consensus.shutdown().await;
}
