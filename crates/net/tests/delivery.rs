//! Which replies have arrived, over loopback: the handler is told what the peer's TCP has acknowledged, and how
//! connections end.

// Everything in this program is a test, also what is not marked as one.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use haven_net::{Begun, Endpoint, Gate, Handler, Limits, Line, Look, Server, Verdict, bind};
use haven_rpc::record::{FragmentHeader, frame};
use haven_xdr::Gather;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What the handler was told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Opened(u64),
    Begun(u64, Bytes),
    Arrived(u64, Vec<u64>),
    Seen(u64, bool),
    Ended(u64, bool),
}

/// Echoes records; those that begin with a digit are noted by it, one of "hold" waits for `release`.
#[derive(Default)]
struct Noting {
    told: Mutex<Vec<Told>>,
    news: Notify,
    lines: Mutex<Vec<Arc<Line>>>,
    release: Notify,
    mute: AtomicBool,
}

impl Noting {
    fn tell(&self, what: Told) {
        self.told.lock().unwrap().push(what);
        self.news.notify_one();
    }

    /// All that was told so far, once this is among it.
    async fn heard(&self, what: &Told) -> Vec<Told> {
        loop {
            let told = self.told.lock().unwrap().clone();
            if told.contains(what) {
                return told;
            }
            self.news.notified().await;
        }
    }

    fn line(&self, number: u64) -> Arc<Line> {
        let lines = self.lines.lock().unwrap();
        Arc::clone(lines.iter().find(|line| line.number == number).unwrap())
    }

    /// Looks until this is found.
    async fn look_until(&self, number: u64, what: &Told) {
        let line = self.line(number);
        while !self.told.lock().unwrap().contains(what) {
            line.look();
            self.news.notified().await;
        }
    }
}

fn verdict(record: &Bytes) -> Verdict {
    let reply = Gather::from(record.clone());
    match record.first() {
        Some(digit @ b'0'..=b'9') => Verdict::Noted(reply, u64::from(digit - b'0')),
        _ => Verdict::Reply(reply),
    }
}

impl Handler for Noting {
    type Work = Bytes;

    fn begin(&self, connection: &Arc<Line>, record: Bytes) -> Begun<Bytes> {
        self.tell(Told::Begun(connection.number, record.clone()));
        match &record[..] {
            b"hold" => Begun::Work(record),
            _ => Begun::Done(verdict(&record)),
        }
    }

    fn opened(&self, connection: &Arc<Line>) {
        self.lines.lock().unwrap().push(Arc::clone(connection));
        self.tell(Told::Opened(connection.number));
    }

    fn looked(&self, connection: &Line, found: Look) {
        let number = connection.number;
        if !found.arrived.is_empty() {
            self.tell(Told::Arrived(number, found.arrived));
        }
        if let Some(seen) = found.seen {
            self.tell(Told::Seen(number, seen.is_over));
        }
    }

    fn ended(&self, connection: &Line, by_peer: bool) {
        self.tell(Told::Ended(connection.number, by_peer));
    }

    async fn finish(&self, record: Bytes) -> Verdict {
        self.release.notified().await;
        Verdict::Reply(Gather::from(record))
    }

    async fn handle_datagram(&self, _ends: Endpoint, _datagram: Bytes) -> Verdict {
        Verdict::Silent
    }

    fn answer_bytes(&self, record: &[u8]) -> usize {
        record.len()
    }

    async fn lets_in(&self, _: Endpoint) -> bool {
        true
    }

    fn rules_version(&self) -> u64 {
        0
    }

    fn refuse(&self, _: Endpoint, _: Bytes) -> Verdict {
        Verdict::Silent
    }

    fn may_answer(&self) -> bool {
        !self.mute.load(Ordering::Relaxed)
    }
}

struct Lab {
    address: SocketAddr,
    noting: Arc<Noting>,
    gate: Arc<Gate>,
}

fn lab(limits: Limits) -> Lab {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (noting, gate) = (Arc::new(Noting::default()), Arc::new(Gate::default()));
    gate.open();
    let server = Server::new(Arc::clone(&noting), Arc::clone(&gate), limits);
    tokio::spawn(server.listen(listener));
    Lab {
        address,
        noting,
        gate,
    }
}

async fn connect(lab: &Lab) -> TcpStream {
    let stream = TcpStream::connect(lab.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn send(stream: &mut TcpStream, record: &'static [u8]) {
    let framed = frame(Gather::from(Bytes::from_static(record))).into_bytes();
    stream.write_all(&framed).await.unwrap();
}

async fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut mark = [0; 4];
    stream.read_exact(&mut mark).await.unwrap();
    let mut record = vec![0; FragmentHeader::parse(mark).len as usize];
    stream.read_exact(&mut record).await.unwrap();
    record
}

#[tokio::test]
async fn a_client_that_goes_on_has_its_reply_before_the_next_request_begins() {
    let lab = lab(Limits::default());
    let mut stream = connect(&lab).await;
    for record in [&b"1"[..], b"other", b"2", b"3"] {
        send(&mut stream, record).await;
        receive(&mut stream).await;
    }
    let last = Told::Begun(1, Bytes::from_static(b"3"));
    let told = lab.noting.heard(&last).await;
    let begun = |record: &'static [u8]| Told::Begun(1, Bytes::from_static(record));
    let expected = [
        Told::Opened(1),
        begun(b"1"),
        Told::Arrived(1, vec![1]),
        begun(b"other"),
        begun(b"2"),
        Told::Arrived(1, vec![2]),
        begun(b"3"),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_connection_looks_when_it_is_asked_to() {
    let lab = lab(Limits::default());
    let mut stream = connect(&lab).await;
    send(&mut stream, b"7").await;
    receive(&mut stream).await;
    lab.noting.look_until(1, &Told::Arrived(1, vec![7])).await;
    let told = lab.noting.heard(&Told::Seen(1, false)).await;
    assert!(!told.contains(&Told::Seen(1, true)));
}

#[tokio::test]
async fn what_arrived_is_told_before_the_end_and_the_end_says_whose_it_was() {
    let lab = lab(Limits::default());
    let mut stream = connect(&lab).await;
    send(&mut stream, b"1").await;
    receive(&mut stream).await;
    drop(stream);
    let told = lab.noting.heard(&Told::Ended(1, true)).await;
    assert_eq!(told[2..], [Told::Arrived(1, vec![1]), Told::Ended(1, true)]);

    // A reset, by the client.
    let stream = connect(&lab).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    lab.noting.heard(&Told::Ended(2, true)).await;

    // A reset, by us.
    let mut stream = connect(&lab).await;
    lab.noting.heard(&Told::Opened(3)).await;
    lab.noting.line(3).hang_up();
    lab.noting.heard(&Told::Ended(3, false)).await;
    assert!(stream.read_u8().await.is_err());

    let _stream = connect(&lab).await;
    lab.noting.heard(&Told::Opened(4)).await;
    lab.gate.close();
    lab.gate.hang_up();
    lab.noting.heard(&Told::Ended(4, false)).await;
}

#[tokio::test]
async fn a_reply_that_was_never_written_has_not_arrived() {
    let lab = lab(Limits::default());
    let mut stream = connect(&lab).await;
    lab.noting.mute.store(true, Ordering::Relaxed);
    send(&mut stream, b"1").await;
    lab.noting
        .heard(&Told::Begun(1, Bytes::from_static(b"1")))
        .await;
    drop(stream);
    let told = lab.noting.heard(&Told::Ended(1, true)).await;
    assert!(!told.iter().any(|told| matches!(told, Told::Arrived(..))));
}

#[tokio::test]
async fn that_a_client_has_closed_is_seen_before_everything_is_read() {
    let limits = Limits {
        inflight_per_connection_max: 1,
        ..Limits::default()
    };
    let lab = lab(limits);
    let mut stream = connect(&lab).await;
    send(&mut stream, b"hold").await;
    send(&mut stream, b"1").await;
    lab.noting
        .heard(&Told::Begun(1, Bytes::from_static(b"hold")))
        .await;
    stream.shutdown().await.unwrap();
    lab.noting.look_until(1, &Told::Seen(1, true)).await;
    let told = lab.noting.told.lock().unwrap().clone();
    assert!(!told.contains(&Told::Ended(1, true)), "it does not read");
    lab.noting.release.notify_one();
    lab.noting.heard(&Told::Ended(1, true)).await;
}

#[tokio::test]
async fn a_client_that_takes_no_replies_is_not_served_for_ever() {
    let lab = lab(Limits::default());
    let mut stream = connect(&lab).await;
    lab.noting.mute.store(true, Ordering::Relaxed);
    let framed = frame(Gather::from(Bytes::from_static(b"5"))).into_bytes();
    stream.write_all(&framed.repeat(2_000)).await.unwrap();
    let begun = Told::Begun(1, Bytes::from_static(b"5"));
    let count = || {
        let told = lab.noting.told.lock().unwrap();
        told.iter().filter(|told| **told == begun).count()
    };
    while count() < 1_024 {
        lab.noting.news.notified().await;
    }
    // It answers to being looked at, so it has stopped beginning.
    lab.noting.look_until(1, &Told::Seen(1, false)).await;
    assert_eq!(count(), 1_024);
    lab.noting.mute.store(false, Ordering::Relaxed);
    for _ in 0..2_000 {
        assert_eq!(receive(&mut stream).await, b"5");
        lab.noting.line(1).look();
    }
}

/// Acknowledgements come late when a client has nothing to send: it must not have to.
#[tokio::test]
async fn a_client_that_asks_much_at_once_and_then_nothing_is_answered() {
    const REQUESTS: usize = 3_000;
    let lab = lab(Limits::default());
    let mut stream = connect(&lab).await;
    let all = frame(Gather::from(Bytes::from_static(b"1"))).into_bytes();
    let all = all.repeat(REQUESTS);
    for round in 0..20 {
        let (mut read, mut write) = stream.split();
        let mut replies = vec![0; all.len()];
        let both = async { tokio::join!(write.write_all(&all), read.read_exact(&mut replies)) };
        let (sent, received) = tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .unwrap_or_else(|_| panic!("round {round}: no answer"));
        sent.unwrap();
        received.unwrap();
        assert!(replies == all);
    }
}
