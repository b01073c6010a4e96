//! A gate that is suspended: nothing is answered, nothing is lost.

// Everything in this program is a test, also what is not marked as one.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use haven_net::{Begun, Endpoint, Gate, Handler, Limits, Line, Server, Verdict, bind};
use haven_rpc::record::{FragmentHeader, frame};
use haven_xdr::Gather;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Echoes at once, but a record of "hold" after it was released.
struct Echo {
    begun: mpsc::UnboundedSender<Bytes>,
    release: tokio::sync::Notify,
}

impl Handler for Echo {
    type Work = Bytes;

    fn begin(&self, _: &Arc<Line>, record: Bytes) -> Begun<Bytes> {
        self.begun.send(record.clone()).unwrap();
        match &record[..] {
            b"hold" => Begun::Work(record),
            _ => Begun::Done(Verdict::Reply(Gather::from(record))),
        }
    }

    async fn finish(&self, record: Bytes) -> Verdict {
        self.release.notified().await;
        Verdict::Reply(Gather::from(record))
    }

    async fn handle_datagram(&self, _: Endpoint, _: Bytes) -> Verdict {
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
        true
    }
}

struct Lab {
    address: SocketAddr,
    echo: Arc<Echo>,
    gate: Arc<Gate>,
    server: Arc<Server<Echo>>,
    begun: mpsc::UnboundedReceiver<Bytes>,
}

fn lab(limits: Limits) -> Lab {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (begin, begun) = mpsc::unbounded_channel();
    let echo = Arc::new(Echo {
        begun: begin,
        release: tokio::sync::Notify::new(),
    });
    let gate = Arc::new(Gate::default());
    gate.open();
    let server = Server::new(Arc::clone(&echo), Arc::clone(&gate), limits);
    tokio::spawn(Arc::clone(&server).listen(listener));
    Lab {
        address,
        echo,
        gate,
        server,
        begun,
    }
}

impl Lab {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn send(stream: &mut TcpStream, record: &'static [u8]) {
    let framed = frame(Gather::from(Bytes::from_static(record))).into_bytes();
    stream.write_all(&framed).await.unwrap();
}

async fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut mark = [0; 4];
    stream.read_exact(&mut mark).await?;
    let mut record = vec![0; FragmentHeader::parse(mark).len as usize];
    stream.read_exact(&mut record).await?;
    Ok(record)
}

/// Neither data nor an end has come.
fn hears_nothing(stream: &TcpStream) -> bool {
    let heard = stream.try_read(&mut [0]);
    heard.is_err_and(|why| why.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn what_is_inside_is_answered_on_its_connection_afterwards() {
    let mut lab = lab(Limits::default());
    let mut stream = lab.connect().await;
    send(&mut stream, b"hold").await;
    lab.begun.recv().await.unwrap();
    lab.gate.suspend();
    lab.echo.release.notify_one();
    // Another connection does the same, so that there was time for an answer.
    let mut other = lab.connect().await;
    let mut changed = lab.server.endpoints_changed();
    while lab.server.endpoints().len() < 2 {
        changed.changed().await.unwrap();
    }
    assert!(hears_nothing(&stream) && hears_nothing(&other));
    lab.gate.open();
    assert_eq!(receive(&mut stream).await.unwrap(), b"hold");
    send(&mut other, b"new").await;
    assert_eq!(receive(&mut other).await.unwrap(), b"new");
}

#[tokio::test]
async fn what_comes_meanwhile_begins_afterwards() {
    let mut lab = lab(Limits::default());
    let mut stream = lab.connect().await;
    send(&mut stream, b"first").await;
    assert_eq!(receive(&mut stream).await.unwrap(), b"first");
    lab.begun.recv().await.unwrap();
    lab.gate.suspend();
    send(&mut stream, b"second").await;
    // One that connects meanwhile is known, and waits as well.
    let mut late = lab.connect().await;
    send(&mut late, b"third").await;
    let mut changed = lab.server.endpoints_changed();
    while lab.server.endpoints().len() < 2 {
        changed.changed().await.unwrap();
    }
    assert!(lab.begun.try_recv().is_err(), "begun while suspended");
    lab.gate.open();
    assert_eq!(receive(&mut stream).await.unwrap(), b"second");
    assert_eq!(receive(&mut late).await.unwrap(), b"third");
}

#[tokio::test]
async fn a_closing_gives_up_what_a_suspension_had_kept() {
    let mut lab = lab(Limits::default());
    let mut stream = lab.connect().await;
    send(&mut stream, b"hold").await;
    lab.begun.recv().await.unwrap();
    lab.gate.suspend();
    lab.gate.close();
    lab.echo.release.notify_one();
    lab.gate.open();
    send(&mut stream, b"next").await;
    assert_eq!(receive(&mut stream).await.unwrap(), b"next");
}

#[tokio::test]
async fn a_peer_that_cannot_reach_this_node_has_its_patience_back_afterwards() {
    let patience = Duration::from_millis(50);
    let lab = lab(Limits {
        patience,
        ..Limits::default()
    });
    let mut stream = lab.connect().await;
    let half = FragmentHeader { last: true, len: 4 };
    lab.gate.suspend();
    stream.write_all(&half.encode()).await.unwrap();
    stream.write_all(b"ha").await.unwrap();
    // The time that is not counted: no less than it.
    tokio::time::sleep(patience * 3).await;
    assert!(hears_nothing(&stream));
    lab.gate.open();
    stream.write_all(b"lf").await.unwrap();
    assert_eq!(receive(&mut stream).await.unwrap(), b"half");
}
