//! A server that echoes, and what it takes to talk to it.

// Every program of tests uses a part of it.
#![allow(dead_code)]
// Everything here is a test, also what is not marked as one.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use haven_net::{
    Begun, DATAGRAM_BYTES_MAX, Endpoint, Gate, Handler, Limits, Line, Pressure, Server, Verdict,
    bind,
};
use haven_rpc::record::{FragmentHeader, frame};
use haven_xdr::Gather;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Echoes; a record of "bad" is no RPC, one that begins with "hold" waits for `release`.
#[derive(Default)]
pub struct Echo {
    pub release: tokio::sync::Notify,
    pub held: tokio::sync::Notify,
    pub given_up: tokio::sync::Notify,
    pub mute: AtomicBool,
    /// Nobody is let in.
    pub strangers: AtomicBool,
    /// Bytes of large answers that exist, and the most there were.
    pub answers: Arc<Counted>,
}

/// Length of what "much" is answered with.
pub const MUCH: usize = 1 << 20;
/// What fixed answers need at most.
const LITTLE: usize = 64;

/// Counts bytes that exist.
#[derive(Default)]
pub struct Counted {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Counted {
    /// The most bytes that existed at a time.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn make(self: &Arc<Self>, bytes: usize) -> Bytes {
        let now = self.now.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.most.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(Answer(vec![5; bytes], Arc::clone(self)))
    }
}

struct Answer(Vec<u8>, Arc<Counted>);

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.1.now.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

/// A reply that does not keep the record.
fn echo(record: &[u8]) -> Verdict {
    Verdict::Reply(Gather::from(Bytes::copy_from_slice(record)))
}

struct OnDrop<'a>(&'a tokio::sync::Notify);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Where the client asked.
fn local(ends: Endpoint) -> Gather {
    Gather::from(Bytes::from(ends.local.to_string()))
}

impl Handler for Echo {
    type Work = Bytes;

    fn begin(&self, connection: &Arc<Line>, record: Bytes) -> Begun<Bytes> {
        match &record[..] {
            b"where" => Begun::Done(Verdict::Reply(local(connection.ends))),
            b"bad" => Begun::Done(Verdict::Garbage),
            b"dying" => Begun::Done(Verdict::HangUp),
            b"late" | b"late much" => Begun::Work(record),
            held if held.starts_with(b"hold") => Begun::Work(record),
            b"much" => Begun::Done(Verdict::Reply(self.answers.make(MUCH).into())),
            _ => Begun::Done(echo(&record)),
        }
    }

    async fn finish(&self, record: Bytes) -> Verdict {
        if record.starts_with(b"hold") {
            let _given_up = OnDrop(&self.given_up);
            self.held.notify_one();
            self.release.notified().await;
        }
        match &record[..] {
            b"late much" => Verdict::Reply(self.answers.make(MUCH).into()),
            _ => echo(&record),
        }
    }

    fn answer_bytes(&self, record: &[u8]) -> usize {
        match record.ends_with(b"much") {
            true => MUCH,
            false => record.len().max(LITTLE),
        }
    }

    async fn lets_in(&self, _ends: Endpoint) -> bool {
        !self.strangers.load(Ordering::Relaxed)
    }

    fn rules_version(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed).into()
    }

    fn refuse(&self, _connection: Endpoint, head: Bytes) -> Verdict {
        let refusal = [b"no ", &head[..4]].concat();
        Verdict::Reply(Gather::from(Bytes::from(refusal)))
    }

    async fn handle_datagram(&self, ends: Endpoint, datagram: Bytes) -> Verdict {
        match &datagram[..] {
            b"where" => Verdict::Reply(local(ends)),
            b"bad" => Verdict::Garbage,
            b"huge" => Verdict::Reply(Gather::from(Bytes::from(vec![0; DATAGRAM_BYTES_MAX + 1]))),
            _ => Verdict::Reply(Gather::from(datagram)),
        }
    }

    fn may_answer(&self) -> bool {
        !self.mute.load(Ordering::Relaxed)
    }
}

pub struct Lab {
    pub address: SocketAddr,
    pub echo: Arc<Echo>,
    pub gate: Arc<Gate>,
    pub server: Arc<Server<Echo>>,
}

pub fn lab(limits: Limits) -> Lab {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (echo, gate) = (Arc::new(Echo::default()), Arc::new(Gate::default()));
    gate.open();
    let server = Server::new(Arc::clone(&echo), Arc::clone(&gate), limits);
    tokio::spawn(Arc::clone(&server).listen(listener));
    Lab {
        address,
        echo,
        gate,
        server,
    }
}

impl Lab {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connects from an address of one's own, `127.0.0.HOST`.
    pub async fn connect_from(&self, host: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::from(([127, 0, 0, host], 0)))
            .unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Waits until what the server tells of its memory is as it should be.
    pub async fn until(&self, is: impl Fn(&Pressure) -> bool) {
        while !is(&self.server.pressure()) {
            tokio::task::yield_now().await;
        }
    }
}

/// A record with its mark.
pub fn framed(record: &[u8]) -> Bytes {
    frame(Gather::from(Bytes::copy_from_slice(record))).into_bytes()
}

pub async fn send(stream: &mut TcpStream, record: &[u8]) {
    stream.write_all(&framed(record)).await.unwrap();
}

/// Announces a record of `bytes`.
pub async fn announce(stream: &mut TcpStream, bytes: usize) {
    let header = FragmentHeader {
        last: true,
        len: bytes as u32,
    };
    stream.write_all(&header.encode()).await.unwrap();
}

pub async fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut mark = [0; 4];
    stream.read_exact(&mut mark).await?;
    let mut record = vec![0; FragmentHeader::parse(mark).len as usize];
    stream.read_exact(&mut record).await?;
    Ok(record)
}
