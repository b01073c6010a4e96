//! `haven check`: what it says of a node's directory, of strange ones, and of every disagreement between
//! the parts of a node. Damage within one part is provoked in that part's own tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use bytes::Bytes;
use haven::check::{self, Report};
use haven_disk::{Disk, RealDisk};
use haven_fs::{Change, Create, Cred, Filesystem, SetAttr, SystemTable, Time};
use haven_log::{Log, LogOptions, Record, Slot};
use haven_nfsd::{Entry, ExportId, Machine, MountEntry, MountOp};
use haven_proto::nfs3::{Createhow3, Sattr3, StableHow};
use haven_store::{Store, StoreOptions};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Node, command, free_port};

/// A data directory made by hand: five records of one term, a checkpoint at the third.
struct Parts {
    terms: Vec<u64>,
    bodies: Vec<Option<&'static [u8]>>,
    vote: Option<Vec<u8>>,
    committed: u64,
    purge: u64,
    purged_slot: Option<u64>,
    /// How many nodes vote, if that was noted.
    voters: Option<&'static str>,
    position: Vec<u8>,
    system: Option<&'static [u8]>,
    store: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            terms: vec![1; 5],
            bodies: vec![None; 5],
            vote: Some(vote(1)),
            committed: 5,
            purge: 0,
            purged_slot: None,
            voters: None,
            position: position(1, 3),
            system: None,
            store: true,
        }
    }
}

fn place(term: u64, record: u64) -> Vec<u8> {
    [term.to_le_bytes(), (record - 1).to_le_bytes()].concat()
}

fn place_slot(term: u64, record: u64) -> Vec<u8> {
    [&[1][..], &place(term, record)].concat()
}

fn vote(term: u64) -> Vec<u8> {
    [&[1][..], &term.to_le_bytes(), &1u64.to_le_bytes(), &[1]].concat()
}

/// A position without members.
fn position(term: u64, record: u64) -> Vec<u8> {
    [&[1, 1][..], &place(term, record), &[0; 9]].concat()
}

impl Parts {
    fn make(&self, root: &Path) {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(root).unwrap());
        let options = LogOptions {
            segment_bytes: 1 << 20,
            ..LogOptions::default()
        };
        let log = Log::open(disk.clone(), Path::new("log"), options).unwrap();
        let time = Time::default();
        let noop = Entry::Noop { time }.encode().unwrap();
        let records = (1..).zip(self.terms.iter().zip(&self.bodies));
        let records = records.map(|(index, (term, body))| Record {
            index,
            head: [&[1, 1][..], &term.to_le_bytes()].concat().into(),
            body: body.map_or(noop.clone(), Bytes::from_static),
        });
        let (done, is_done) = std::sync::mpsc::channel();
        log.append(records.collect(), Box::new(move |r| done.send(r).unwrap()));
        is_done.recv().unwrap().unwrap();
        if let Some(vote) = &self.vote {
            log.save_slot(Slot::Vote, vote, true).unwrap();
        }
        let committed = place_slot(1, self.committed);
        log.save_slot(Slot::Committed, &committed, true).unwrap();
        if let Some(record) = self.purged_slot {
            log.save_slot(Slot::Purged, &place_slot(1, record), true)
                .unwrap();
        }
        log.purge_to(self.purge).unwrap();
        drop(log);
        if let Some(voters) = self.voters {
            std::fs::create_dir(root.join("cluster")).unwrap();
            std::fs::write(root.join("cluster/voters"), voters).unwrap();
        }
        if self.store {
            let options = StoreOptions::default();
            let mut store = Store::open(disk, Path::new("store"), options).unwrap();
            if let Some(key) = self.system {
                store.system_put(key, Some(b"value")).unwrap();
            }
            store.set_position(self.position.clone().into()).unwrap();
            store.checkpoint().unwrap();
        }
    }

    fn check(&self) -> Report {
        let root = tempfile::tempdir().unwrap();
        self.make(root.path());
        // A process that another test is just starting has inherited what is open here, the directory's lock included,
        // until it runs its own program.
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match check::run(root.path()) {
                Ok(report) => return report,
                Err(why) if why.contains("already in use") && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(why) => panic!("{why}"),
            }
        }
    }
}

fn codes(lines: &check::Lines) -> BTreeSet<&'static str> {
    lines.lines.iter().map(|line| line.code).collect()
}

/// What is wrong, and the findings (those that begin with `note:` are notes).
#[test]
fn what_does_not_hold_between_the_parts_is_found() {
    let usual = Parts::default;
    let junk: Vec<u8> = b"junk".to_vec();
    let cases: Vec<(Parts, &[&str])> = vec![
        (usual(), &[]),
        (
            Parts {
                position: junk.clone(),
                ..usual()
            },
            &["position-damaged"],
        ),
        (
            Parts {
                vote: Some(junk),
                ..usual()
            },
            &["slot-damaged"],
        ),
        (
            Parts {
                vote: None,
                ..usual()
            },
            &["vote-missing"],
        ),
        (
            Parts {
                vote: Some(vote(0)),
                ..usual()
            },
            &["vote-behind"],
        ),
        (
            Parts {
                committed: 6,
                ..usual()
            },
            &["committed-beyond-end"],
        ),
        (
            Parts {
                committed: 6,
                voters: Some("1\n"),
                ..usual()
            },
            &["committed-beyond-end"],
        ),
        (
            Parts {
                committed: 6,
                voters: Some("3\n"),
                ..usual()
            },
            &["note:committed-ahead"],
        ),
        (
            Parts {
                purge: 2,
                ..usual()
            },
            &["purge-point-behind"],
        ),
        (
            Parts {
                purge: 2,
                purged_slot: Some(2),
                ..usual()
            },
            &[],
        ),
        (
            Parts {
                purge: 3,
                purged_slot: Some(3),
                ..usual()
            },
            &[],
        ),
        (
            Parts {
                purge: 4,
                purged_slot: Some(4),
                ..usual()
            },
            &["entries-missing"],
        ),
        (
            Parts {
                purged_slot: Some(4),
                ..usual()
            },
            &["entries-missing"],
        ),
        (
            Parts {
                store: false,
                ..usual()
            },
            &["note:not-made"],
        ),
        (
            Parts {
                store: false,
                purge: 2,
                purged_slot: Some(2),
                ..usual()
            },
            &["note:not-made", "entries-missing"],
        ),
        (
            Parts {
                bodies: vec![None, None, None, Some(b"junk"), None],
                ..usual()
            },
            &["entry-damaged"],
        ),
        (
            Parts {
                terms: vec![1, 1, 2, 1, 1],
                vote: Some(vote(2)),
                position: position(2, 3),
                ..usual()
            },
            &["term-falls"],
        ),
        (
            Parts {
                position: position(2, 3),
                ..usual()
            },
            &["other-history"],
        ),
        (
            Parts {
                position: position(1, 9),
                ..usual()
            },
            &["note:log-behind"],
        ),
        (
            Parts {
                system: Some(b"strange"),
                ..usual()
            },
            &["unknown-system-row"],
        ),
    ];
    for (number, (parts, expected)) in cases.iter().enumerate() {
        let report = parts.check();
        let mut found: BTreeSet<String> = codes(&report.notes)
            .iter()
            .map(|c| format!("note:{c}"))
            .collect();
        found.extend(codes(&report.findings).iter().map(|c| (*c).to_owned()));
        let expected: BTreeSet<String> = expected.iter().map(|c| (*c).to_owned()).collect();
        assert_eq!(found, expected, "case {number}: {report}");
        assert_eq!(report.clean, report.findings.count() == 0);
    }
}

/// What the machine itself writes, in a checkpoint at the third record (log index 2).
#[test]
fn a_machine_with_files_in_rows_and_in_data_files_is_summed_up() {
    let root = tempfile::tempdir().unwrap();
    let parts = Parts::default();
    parts.make(root.path());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(root.path()).unwrap());
    let store = Store::open(disk, Path::new("store"), StoreOptions::default()).unwrap();
    let mut machine = Machine::new(store).unwrap();
    let time = Time::default();
    let entries = [
        Entry::Genesis {
            time,
            volume_id: [1; 16],
            handle_key: [2; 16],
        },
        Entry::Export {
            time,
            path: Bytes::from_static(b"/data"),
            uid: 0,
            gid: 0,
            mode: 0o755,
        },
        Entry::Mount(MountEntry {
            time,
            client: [10, 0, 0, 1].into(),
            xid: 1,
            op: MountOp::Mnt {
                rules: haven_nfsd::MntRules::Second,
                version: 3,
                export: ExportId(1),
                path: Bytes::from_static(b"/data"),
            },
        }),
    ];
    for (index, entry) in (0..).zip(entries) {
        machine.apply(index, &entry.encode().unwrap()).unwrap();
    }
    let mut store = machine.into_fs();
    let (at, cred) = (Change { index: 2, time }, Cred::root());
    for (name, len) in [("small", 4_096), ("large", 4_097)] {
        let how = Create::Guarded(SetAttr::default());
        let dir = store.root();
        let file = store.create(&at, &cred, dir, name.as_bytes(), &how);
        let bytes = vec![7; len];
        store
            .write(&at, &cred, file.unwrap().ino, 0, &bytes)
            .unwrap();
    }
    store.set_position(parts.position.into()).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    let report = check::run(root.path()).unwrap();
    assert_eq!((report.findings.count(), report.notes.count()), (0, 0));
    let sums = &report.summary;
    assert_eq!((sums.exports, sums.mounts), (1, 1));
    let files = (sums.inline_files, sums.data_files, sums.data_bytes);
    assert_eq!(files, (1, 1, 4_097), "{report}");
}

#[test]
fn findings_are_bounded_and_counted() {
    let count = 150;
    let parts = Parts {
        terms: vec![1; count],
        bodies: vec![Some(b"junk"); count],
        ..Parts::default()
    };
    let report = parts.check();
    assert_eq!(report.findings.lines.len(), check::LINES_MAX);
    assert_eq!(report.findings.count(), count as u64);
    assert!(report.to_string().contains("and 50 more"));
}

/// Runs `haven check`: its status, and what it says on both streams.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command().arg("check").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let words = text(output.stderr);
    assert!(!words.contains("panicked"), "{words}");
    (output.status.code(), text(output.stdout), words)
}

/// The same check of a node that runs, was killed, and was damaged.
#[tokio::test]
async fn a_node_is_checked_once_it_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let shown = data.to_str().unwrap();
    let node = Node::start(&data, free_port(), free_port());
    let client = node.client();
    let root = client.mount("/data").await.unwrap();
    for (name, len) in [("file", 9_000), ("small", 300)] {
        let how = Createhow3::Guarded(Sattr3::default());
        let made = client.create(&root, name, how).await.unwrap();
        let (file, text) = (made.obj.unwrap(), Bytes::from(vec![7; len]));
        client
            .write(&file, 0, StableHow::FileSync, text)
            .await
            .unwrap();
    }

    let (status, said, words) = run(&["--data", shown]);
    assert_eq!((status, said.as_str()), (Some(2), ""));
    assert!(
        words.contains("already in use by another process (pid"),
        "{words}"
    );

    node.kill();
    let (status, said, words) = run(&["--data", shown]);
    assert_eq!((status, words.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("0 findings"), "{said}");
    let node = Node::start(&data, free_port(), free_port());
    assert!(node.terminate().success());

    let (status, said, _) = run(&["--json", "--data", shown]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(status, Some(0), "{report:#}");
    assert_eq!(report["clean"], true);
    assert_eq!(report["findings"]["lines"], Value::Array(vec![]));
    assert_eq!(report["findings"]["more"], 0);
    let sums = &report["summary"];
    assert!(sums["log_records"].as_u64().unwrap() > 0 && sums["vote_term"].as_u64().unwrap() > 0);

    fs::remove_file(data.join("log/SLOTS")).unwrap();
    let (status, said, _) = run(&["--data", shown]);
    assert_eq!(status, Some(1));
    assert!(
        said.contains("finding: log: slots-missing: log/SLOTS: missing"),
        "{said}"
    );
    let (status, said, _) = run(&["--json", "--data", shown]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status, &report["clean"]), (Some(1), &Value::Bool(false)));
    let line = &report["findings"]["lines"][0];
    for key in ["part", "code", "place", "meaning", "advice"] {
        assert!(line[key].is_string(), "{line:#}");
    }
}

#[test]
fn what_cannot_be_checked_is_said_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let refused = |path: &str, why: &str| {
        let (status, said, words) = run(&["--data", path]);
        assert_eq!((status, said.as_str()), (Some(2), ""), "{words}");
        assert!(words.contains(why), "{words}");
    };
    refused(&path("nothing"), "No such file");
    fs::create_dir(path("strange")).unwrap();
    refused(&path("strange"), "is not a data directory of Haven");
    assert_eq!(fs::read_dir(path("strange")).unwrap().count(), 0);
    fs::write(path("strange/LOCK"), "").unwrap();
    refused(&path("strange"), "holds neither store nor log");
    Parts::default().make(&dir.path().join("newer"));
    fs::write(path("newer/store/CURRENT"), "haven-store format 99\n").unwrap();
    refused(&path("newer"), "format 99");
    let (status, _, words) = run(&["--config", &path("none.toml")]);
    assert_eq!(status, Some(2), "{words}");
}
