//! The feature level: which rules hold, from which entry on.

use crate::server::Server;
use bytes::Bytes;
use haven_fs::model::Model;
use haven_fs::{Filesystem, Level, MOVE_DEPTH_MAX, SystemTable, Time};
use haven_nfsd::{Entry, Machine, Outcome};
use haven_proto::nfs3::{Nfsstat3, Res3};

fn level(level: Level) -> Bytes {
    let time = Time::default();
    Entry::Level { level, time }.encode().unwrap()
}

/// Moves a directory with another in it, once down a long chain and once into the root of the export; what the client
/// was told of each.
fn moves(s: &mut Server, name: &str) -> (Option<Nfsstat3>, Option<Nfsstat3>) {
    let root = s.root.clone();
    let mut deep = root.clone();
    // The export is one level below the volume's root.
    for _ in 0..MOVE_DEPTH_MAX {
        deep = match s.lookup(&deep, "deep") {
            Res3::Ok(found) => found.object,
            Res3::Fail(..) => s.dir(&deep, "deep"),
        };
    }
    let (down, back) = (format!("{name}-down"), format!("{name}-back"));
    let tree = s.dir(&root, &down);
    s.dir(&tree, "below");
    let tree = s.dir(&deep, &back);
    s.dir(&tree, "below");
    let moved_down = s.rename((&root, &down), (&deep, &down));
    let moved_back = s.rename((&deep, &back), (&root, &back));
    (moved_down.failure(), moved_back.failure())
}

#[test]
fn a_level_holds_from_its_entry_on_and_the_same_on_every_replica() {
    let mut s = Server::new();
    assert_eq!(s.machine.level(), Level::FIRST);
    assert_eq!(moves(&mut s, "before"), (None, None));
    assert_eq!(s.apply(level(Level::BOUNDED_MOVES)), Outcome::Done);
    let bounded = (Some(Nfsstat3::NameTooLong), None);
    assert_eq!(moves(&mut s, "after"), bounded);
    assert_eq!(
        s.apply(level(Level::FIRST)),
        Outcome::Done,
        "it never falls"
    );
    s.machine.reload().unwrap();
    assert_eq!(moves(&mut s, "reloaded"), bounded);
    s.machine = Machine::new(s.machine.into_fs()).unwrap();
    assert_eq!(moves(&mut s, "restarted"), bounded);

    // Another replica, which begins when everything has long happened, and restarts all the time.
    let mut fs = Model::new();
    let middle = s.log.len() / 2;
    for (i, entry) in (1..).zip(&s.log) {
        let mut other = Machine::new(fs).unwrap();
        other.apply(i, entry).unwrap();
        fs = other.into_fs();
        if i as usize == middle {
            fs.set_level(Level::NEWEST);
        }
    }
    let other = Machine::new(fs).unwrap();
    assert_eq!(other.level(), Level::BOUNDED_MOVES);
    assert!(other.into_fs() == s.machine.into_fs());
}

#[test]
fn a_level_of_a_later_version_stops_the_replica() {
    let later = Level(Level::NEWEST.0 + 1);
    let mut s = Server::new();
    let error = s.machine.apply(9, &level(later)).unwrap_err().to_string();
    assert!(error.contains("upgrade this node"), "{error}");
    let mut fs = Model::new();
    fs.system_put(b"m/level", Some(&later.0.to_be_bytes()))
        .unwrap();
    let error = Machine::new(fs).unwrap_err().to_string();
    assert!(error.contains("upgrade this node"), "{error}");
}
