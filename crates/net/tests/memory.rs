//! Memory of requests and answers: what it is taken for, who has to wait, and who never does.

// Everything in this program is a test, also what is not marked as one.
#![allow(clippy::unwrap_used)]

mod support;

use haven_net::Limits;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{Lab, MUCH, announce, lab, receive, send};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A record that is not small.
const LARGE: usize = 100 << 10;
/// The longest record that a budget of `BUDGET` has room for twice, of one address.
const BUDGET: usize = 4 * LARGE;

fn limits() -> Limits {
    Limits {
        inflight_bytes_max: BUDGET,
        answer_bytes_max: 20 * MUCH,
        patience: Duration::from_secs(3600),
        ..Limits::default()
    }
}

fn large(word: &str) -> Vec<u8> {
    let mut record = word.as_bytes().to_vec();
    record.resize(LARGE, b'.');
    record
}

async fn is_served(stream: &mut TcpStream, record: &[u8]) {
    send(stream, record).await;
    assert!(receive(stream).await.unwrap() == record);
}

/// Many connections that have announced a large record and sent the first bytes of it.
async fn announced(lab: &Lab, count: usize, host: u8, bytes: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut stream = lab.connect_from(host).await;
        announce(&mut stream, LARGE).await;
        stream.write_all(&vec![0; bytes]).await.unwrap();
        all.push(stream);
    }
    all
}

#[tokio::test]
async fn what_is_only_announced_takes_no_memory() {
    let lab = lab(limits());
    let crowd = announced(&lab, 100, 9, 4).await;
    let mut honest = lab.connect().await;
    is_served(&mut honest, b"small").await;
    is_served(&mut honest, &large("")).await;
    let mut neighbour = lab.connect_from(9).await;
    is_served(&mut neighbour, &large("")).await;
    let pressure = lab.server.pressure();
    assert_eq!((pressure.requests.bytes, pressure.lost.total), (0, 0));
    drop(crowd);
}

#[tokio::test]
async fn a_crowd_at_one_address_leaves_others_room_and_small_requests_always_get_through() {
    let lab = lab(limits());
    // As much of each as one may send before the server must find other room for it, and more.
    let crowd = announced(&lab, 100, 9, 40 << 10).await;
    lab.until(|p| p.requests.waiting > 50).await;
    let pressure = lab.server.pressure();
    let (address, bytes) = pressure.requests.most.unwrap();
    assert_eq!(address, crowd[0].local_addr().unwrap().ip());
    assert!(bytes <= BUDGET / 2 + LARGE, "{bytes}");
    let mut honest = lab.connect().await;
    is_served(&mut honest, &large("")).await;
    let mut neighbour = lab.connect_from(9).await;
    is_served(&mut neighbour, b"small").await;
}

#[tokio::test]
async fn a_record_that_stands_still_loses_its_connection_while_others_wait() {
    let lab = lab(limits());
    let mut crowd = announced(&lab, 5, 9, 40 << 10).await;
    lab.until(|p| p.requests.waiting > 0).await;
    // Of the same address, so that it waits for them.
    let mut patient = lab.connect_from(9).await;
    is_served(&mut patient, &large("")).await;
    let lost = lab.server.pressure().lost;
    assert!(lost.total > 0);
    let (address, ..) = lost.most.unwrap();
    assert_eq!(address, crowd[0].local_addr().unwrap().ip());
    assert!(
        receive(&mut crowd[0]).await.is_err(),
        "the first one goes first"
    );
}

#[tokio::test]
async fn records_that_arrive_in_pieces_do_not_wait_for_each_other_for_ever() {
    let lab = lab(limits());
    let mut crowd = announced(&lab, 100, 9, 40 << 10).await;
    lab.until(|p| p.requests.waiting > 0).await;
    // Each of them goes on, all at the same time.
    for stream in &mut crowd {
        let mut stream = std::mem::replace(stream, lab.connect().await);
        tokio::spawn(async move {
            let rest = vec![0; LARGE - (40 << 10)];
            if stream.write_all(&rest).await.is_ok() {
                let _ = receive(&mut stream).await;
            }
        });
    }
    lab.until(|p| p.requests.bytes == 0 && p.requests.waiting == 0)
        .await;
}

#[tokio::test]
async fn a_stranger_gets_small_requests_answered_and_large_ones_refused() {
    let lab = lab(limits());
    lab.echo.strangers.store(true, Ordering::Relaxed);
    let mut stream = lab.connect().await;
    is_served(&mut stream, b"small").await;
    let mut records = Vec::new();
    for word in ["one", "two"] {
        records.extend_from_slice(&support::framed(&large(word)));
    }
    records.extend_from_slice(&support::framed(b"small"));
    stream.write_all(&records).await.unwrap();
    assert_eq!(receive(&mut stream).await.unwrap(), b"no one.");
    assert_eq!(receive(&mut stream).await.unwrap(), b"no two.");
    assert_eq!(receive(&mut stream).await.unwrap(), b"small");
    let pressure = lab.server.pressure();
    assert_eq!((pressure.requests.bytes, pressure.refused.total), (0, 2));
    let (address, ..) = pressure.refused.most.unwrap();
    assert_eq!(address, stream.local_addr().unwrap().ip());
    // Rules change while the connection lives.
    lab.echo.strangers.store(false, Ordering::Relaxed);
    is_served(&mut stream, &large("")).await;
}

#[tokio::test]
async fn requests_that_are_under_way_keep_their_memory_also_when_their_connection_has_ended() {
    let lab = lab(limits());
    let mut stream = lab.connect_from(9).await;
    send(&mut stream, &large("hold")).await;
    lab.echo.held.notified().await;
    assert!(lab.server.pressure().requests.bytes >= LARGE);
    drop(stream);
    let mut changed = lab.server.endpoints_changed();
    while !lab.server.endpoints().is_empty() {
        changed.changed().await.unwrap();
    }
    assert!(lab.server.pressure().requests.bytes >= LARGE);
    lab.echo.release.notify_one();
    lab.until(|p| p.requests.bytes == 0).await;
}

#[tokio::test]
async fn an_idle_connection_has_nothing_of_the_budgets() {
    let lab = lab(limits());
    let mut stream = lab.connect().await;
    for _ in 0..3 {
        is_served(&mut stream, &large("")).await;
        send(&mut stream, b"much").await;
        receive(&mut stream).await.unwrap();
    }
    // Many small ones under way at a time, more than lie in what is the connection's own.
    let record = vec![b'.'; 3 << 10];
    let held = [b"hold", &record[..]].concat();
    for _ in 0..40 {
        stream.write_all(&support::framed(&held)).await.unwrap();
    }
    lab.until(|p| p.requests.bytes > 0 && p.answers.bytes > 0)
        .await;
    for _ in 0..40 {
        lab.echo.release.notify_one();
        assert!(receive(&mut stream).await.unwrap() == held);
    }
    lab.until(|p| p.requests.bytes == 0 && p.answers.bytes == 0)
        .await;
}

/// Asks for as many large answers as fit into a request, and takes none.
async fn deaf(lab: &Lab, host: u8, word: &[u8], count: usize) -> TcpStream {
    let mut stream = lab.connect_from(host).await;
    let requests = support::framed(word).repeat(count);
    stream.write_all(&requests).await.unwrap();
    stream
}

#[tokio::test]
async fn a_thousand_connections_that_take_no_answers_get_no_more_than_the_budget() {
    let lab = lab(limits());
    let mut crowd = Vec::new();
    for n in 0..1_000 {
        let word: &[u8] = if n % 2 == 0 { b"much" } else { b"late much" };
        crowd.push(deaf(&lab, 2 + (n % 10) as u8, word, 20).await);
    }
    lab.until(|p| p.answers.waiting > 900).await;
    let most = lab.echo.answers.most();
    assert!(most <= limits().answer_bytes_max, "{most}");
    // Others are answered all the same, and get their share.
    let mut honest = lab.connect().await;
    is_served(&mut honest, b"small").await;
    let mut neighbour = lab.connect_from(2).await;
    is_served(&mut neighbour, b"small").await;
    for _ in 0..20 {
        send(&mut honest, b"much").await;
        assert_eq!(receive(&mut honest).await.unwrap().len(), MUCH);
    }
    assert!(lab.echo.answers.most() <= limits().answer_bytes_max);
}

#[tokio::test]
async fn small_answers_that_nobody_takes_are_bounded_too() {
    let lab = lab(Limits {
        answer_bytes_max: 1 << 20,
        ..limits()
    });
    let mut crowd = Vec::new();
    for host in 2..12 {
        let mut stream = lab.connect_from(host).await;
        crowd.push(tokio::spawn(async move {
            let record = support::framed(&[b'.'; 1000]);
            while stream.write_all(&record).await.is_ok() {}
        }));
    }
    lab.until(|p| p.answers.waiting > 0).await;
    let pressure = lab.server.pressure();
    assert!(pressure.answers.bytes <= 1 << 20);
    let mut honest = lab.connect().await;
    is_served(&mut honest, b"small").await;
}

#[tokio::test]
async fn a_request_that_waits_for_room_holds_up_no_other_connection_and_is_answered_in_the_end() {
    let lab = lab(Limits {
        answer_bytes_max: 3 * MUCH,
        ..limits()
    });
    let mut slow = lab.connect_from(9).await;
    let asked = support::framed(b"late much").repeat(10);
    slow.write_all(&asked).await.unwrap();
    slow.write_all(&support::framed(b"last")).await.unwrap();
    let mut other = lab.connect_from(9).await;
    for _ in 0..10 {
        is_served(&mut other, b"small").await;
    }
    // In whichever order: some are tasks.
    let mut lengths = Vec::new();
    for _ in 0..11 {
        lengths.push(receive(&mut slow).await.unwrap().len());
    }
    lengths.sort_unstable();
    assert_eq!(lengths, [&[4][..], &[MUCH; 10]].concat());
}

#[tokio::test]
async fn a_peer_that_takes_nothing_loses_its_connection_while_others_wait() {
    let lab = lab(Limits {
        answer_bytes_max: 3 * MUCH,
        ..limits()
    });
    let _deaf = deaf(&lab, 9, b"much", 100).await;
    lab.until(|p| p.answers.waiting > 0).await;
    let mut neighbour = lab.connect_from(9).await;
    for _ in 0..3 {
        send(&mut neighbour, b"much").await;
        assert_eq!(receive(&mut neighbour).await.unwrap().len(), MUCH);
    }
    assert_eq!(lab.server.pressure().lost.total, 1);
}

#[tokio::test]
async fn connections_that_vanished_make_room_for_their_address() {
    let lab = lab(Limits {
        connections_per_address_max: 3,
        ..limits()
    });
    // As if their machine had lost its power: they say nothing any more, not even that they end.
    let mut vanished = Vec::new();
    for _ in 0..3 {
        let mut stream = lab.connect_from(9).await;
        is_served(&mut stream, b"small").await;
        vanished.push(stream);
    }
    send(&mut vanished[0], b"hold").await;
    lab.echo.held.notified().await;
    let mut again = lab.connect_from(9).await;
    is_served(&mut again, b"small").await;
    assert!(receive(&mut vanished[1]).await.is_err(), "idle for longest");
    lab.echo.release.notify_one();
    assert_eq!(receive(&mut vanished[0]).await.unwrap(), b"hold");
    is_served(&mut vanished[2], b"small").await;
}
