//! Disks that fail: the log ends, once and for all, and says why.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use haven_disk::{Disk, RealDisk};
use haven_log::{Log, LogError, Slot};

use crate::common::{Control, TestDisk, append, open, read_all, record, scratch, send, small};

fn failing(dir: &tempfile::TempDir) -> (Arc<Control>, Arc<dyn Disk>, Log) {
    let inner = RealDisk::open(dir.path()).expect("open the disk");
    let test = TestDisk::new(Arc::new(inner));
    let control = Arc::clone(&test.control);
    let disk: Arc<dyn Disk> = test.disk;
    let log = open(&disk, small()).expect("open");
    append(&log, vec![record(1, 10, 0)]).expect("append");
    (control, disk, log)
}

fn assert_ended(log: &Log, why: &str) {
    let same = |error: LogError| assert!(error.to_string().contains(why), "{error}");
    same(append(log, vec![record(2, 1, 0)]).expect_err("append"));
    same(append(log, vec![]).expect_err("append nothing"));
    same(log.truncate_after(0).expect_err("truncate"));
    same(log.purge_to(1).expect_err("purge"));
    same(log.reset_to(9).expect_err("reset"));
    same(log.save_slot(Slot::Vote, b"x", true).expect_err("slot"));
}

#[test]
fn after_a_failed_flush_nothing_is_tried_again() {
    let dir = scratch();
    let (control, disk, log) = failing(&dir);
    control.close_gate();
    let first = send(&log, vec![record(2, 10, 0)]);
    control.wait_for_arrival();
    let queued = send(&log, vec![record(3, 10, 0)]);
    control.fail_sync.store(true, Ordering::SeqCst);
    control.open_gate();
    for answer in [first, queued] {
        let error = answer.recv().expect("an answer").expect_err("not durable");
        assert!(
            error.to_string().contains("injected flush failure"),
            "{error}"
        );
    }
    let syncs = control.syncs.load(Ordering::SeqCst);
    control.fail_sync.store(false, Ordering::SeqCst);
    assert_ended(&log, "injected flush failure");
    drop(log);
    assert_eq!(
        control.syncs.load(Ordering::SeqCst),
        syncs,
        "nothing was flushed"
    );
    let log = open(&disk, small()).expect("opened anew it reads what is there");
    assert_eq!(read_all(&log)[0], record(1, 10, 0));
}

#[test]
fn a_failed_write_ends_the_log() {
    let dir = scratch();
    let (control, _disk, log) = failing(&dir);
    control.fail_write.store(true, Ordering::SeqCst);
    append(&log, vec![record(2, 10, 0)]).expect_err("not durable");
    control.fail_write.store(false, Ordering::SeqCst);
    assert_ended(&log, "injected write failure");
}

#[test]
fn a_failed_truncation_and_a_failed_slot_end_the_log() {
    let dir = scratch();
    let (control, _disk, log) = failing(&dir);
    control.fail_sync.store(true, Ordering::SeqCst);
    log.truncate_after(0).expect_err("not durable");
    control.fail_sync.store(false, Ordering::SeqCst);
    assert_ended(&log, "injected flush failure");

    let dir = scratch();
    let (control, _disk, log) = failing(&dir);
    control.fail_sync.store(true, Ordering::SeqCst);
    log.save_slot(Slot::Vote, b"x", true)
        .expect_err("not durable");
    control.fail_sync.store(false, Ordering::SeqCst);
    assert_ended(&log, "injected flush failure");
}

#[test]
fn a_panicking_callback_ends_the_log_but_leaves_nobody_waiting() {
    let dir = scratch();
    let (_control, disk, log) = failing(&dir);
    log.append(
        vec![record(2, 1, 0)],
        Box::new(|_| panic!("a test's panic")),
    );
    // Whether it is queued before or after the panic: an error or no answer at all, but no waiting.
    while log.truncate_after(1).is_ok() {
        log.append(vec![record(2, 1, 0)], Box::new(|_| {}));
    }
    let error = append(&log, vec![record(2, 1, 0)]).expect_err("ended");
    assert!(matches!(error, LogError::FlusherDied), "{error}");
    drop(log);
    assert_eq!(
        read_all(&open(&disk, small()).expect("reopen"))[0],
        record(1, 10, 0)
    );
}

#[test]
fn the_last_clone_may_be_dropped_by_a_callback() {
    let dir = scratch();
    let (control, _disk, log) = failing(&dir);
    control.close_gate();
    let (tell, hear) = std::sync::mpsc::channel();
    let last = log.clone();
    let done = move |result| {
        drop(last);
        tell.send(result).expect("the test listens");
    };
    log.append(vec![record(2, 1, 0)], Box::new(done));
    drop(log);
    control.open_gate();
    hear.recv().expect("answered").expect("durable");
}
