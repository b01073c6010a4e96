//! The connection loop over loopback: framing, bounds, the gate.

// Everything in this program is a test, also what is not marked as one.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use haven_net::{DATAGRAM_BYTES_MAX, Limits, bind_datagram};
use haven_rpc::record::{FragmentHeader, frame};
use haven_xdr::Gather;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{Lab, MUCH, lab, receive, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

#[tokio::test]
async fn whole_split_and_fragmented_records_are_answered() {
    let lab = lab(Limits::default());
    let mut stream = lab.connect().await;
    send(&mut stream, b"one").await;
    assert_eq!(receive(&mut stream).await.unwrap(), b"one");
    send(&mut stream, b"where").await;
    let to = lab.address.to_string();
    assert_eq!(receive(&mut stream).await.unwrap(), to.as_bytes());
    for byte in frame(Gather::from(Bytes::from_static(b"drip"))).into_bytes() {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert_eq!(receive(&mut stream).await.unwrap(), b"drip");
    for (part, last) in [(&b"frag"[..], false), (b"", false), (b"ments", true)] {
        let header = FragmentHeader {
            last,
            len: part.len() as u32,
        };
        stream.write_all(&header.encode()).await.unwrap();
        stream.write_all(part).await.unwrap();
    }
    assert_eq!(receive(&mut stream).await.unwrap(), b"fragments");
}

/// A record in fragments of `size` bytes.
fn in_fragments(record: &[u8], size: usize) -> Vec<u8> {
    let count = record.len().div_ceil(size);
    let mut stream = Vec::new();
    for (n, part) in record.chunks(size).enumerate() {
        let header = FragmentHeader {
            last: n + 1 == count,
            len: part.len() as u32,
        };
        stream.extend_from_slice(&header.encode());
        stream.extend_from_slice(part);
    }
    stream
}

#[tokio::test]
async fn a_record_may_come_in_as_many_fragments_as_carry_something() {
    let lab = lab(Limits::default());
    let mut stream = lab.connect().await;
    let record: Vec<u8> = (0..1 << 20).map(|n| (n % 251) as u8).collect();
    // In 524, as a client with a small send buffer; in 65,536; and one byte each.
    for (bytes, size) in [(1 << 20, 2000), (1 << 20, 16), (1 << 10, 1)] {
        let fragments = in_fragments(&record[..bytes], size);
        stream.write_all(&fragments).await.unwrap();
        assert!(receive(&mut stream).await.unwrap() == record[..bytes]);
    }
    let most = Limits::default().record_bytes_max;
    let mut other = lab.connect().await;
    let _ = other
        .write_all(&in_fragments(&vec![1; most + 1], 4000))
        .await;
    assert!(receive(&mut other).await.is_err(), "bounded all the same");
}

#[tokio::test]
async fn a_record_beyond_the_limit_ends_the_connection_without_reading_it() {
    let lab = lab(Limits {
        record_bytes_max: 100,
        ..Limits::default()
    });
    let mut stream = lab.connect().await;
    stream
        .write_all(
            &FragmentHeader {
                last: true,
                len: 101,
            }
            .encode(),
        )
        .await
        .unwrap();
    assert!(receive(&mut stream).await.is_err());
    let mut stream = lab.connect().await;
    for _ in 0..=64 {
        let _ = stream
            .write_all(
                &FragmentHeader {
                    last: false,
                    len: 0,
                }
                .encode(),
            )
            .await;
    }
    assert!(
        receive(&mut stream).await.is_err(),
        "endless empty fragments"
    );
    let mut stream = lab.connect().await;
    send(&mut stream, b"fine").await;
    assert_eq!(
        receive(&mut stream).await.unwrap(),
        b"fine",
        "others are served"
    );
}

#[tokio::test]
async fn garbage_ends_one_connection_only() {
    let lab = lab(Limits::default());
    let (mut bad, mut good) = (lab.connect().await, lab.connect().await);
    send(&mut bad, b"bad").await;
    assert!(receive(&mut bad).await.is_err());
    send(&mut good, b"good").await;
    assert_eq!(receive(&mut good).await.unwrap(), b"good");
}

#[tokio::test]
async fn a_node_that_cannot_answer_hangs_up_and_blames_nobody() {
    let lab = lab(Limits::default());
    let mut stream = lab.connect().await;
    send(&mut stream, b"dying").await;
    assert!(receive(&mut stream).await.is_err());
    assert_eq!(lab.server.pressure().misbehaved.total, 0);
    let mut stream = lab.connect().await;
    send(&mut stream, b"bad").await;
    assert!(receive(&mut stream).await.is_err());
    let misbehaved = lab.server.pressure().misbehaved;
    let peer = stream.local_addr().unwrap().ip();
    assert_eq!(misbehaved.total, 1);
    assert!(misbehaved.most.is_some_and(|(address, ..)| address == peer));
}

#[tokio::test]
async fn a_peer_that_drips_forever_is_dropped() {
    let lab = lab(Limits {
        patience: Duration::from_millis(20),
        ..Limits::default()
    });
    let mut stream = lab.connect().await;
    stream
        .write_all(
            &FragmentHeader {
                last: true,
                len: 50,
            }
            .encode(),
        )
        .await
        .unwrap();
    assert!(receive(&mut stream).await.is_err());
}

#[tokio::test]
async fn too_many_connections_are_refused() {
    let lab = lab(Limits {
        connections_max: 1,
        ..Limits::default()
    });
    let mut first = lab.connect().await;
    send(&mut first, b"hello").await;
    receive(&mut first).await.unwrap();
    let mut second = lab.connect().await;
    assert!(receive(&mut second).await.is_err());
    assert_eq!(lab.server.endpoints().len(), 1);
    assert_eq!(
        lab.server.endpoints()[0].remote,
        first.local_addr().unwrap()
    );
    let mut changed = lab.server.endpoints_changed();
    changed.mark_unchanged();
    drop(first);
    changed.changed().await.unwrap();
    let mut third = lab.connect().await;
    send(&mut third, b"again").await;
    assert_eq!(receive(&mut third).await.unwrap(), b"again");
}

#[tokio::test]
async fn a_connection_that_somebody_else_holds_too_ends_all_the_same() {
    let lab = lab(Limits::default());
    let (kept, mut held) = tokio::sync::mpsc::unbounded_channel();
    lab.server.on_connection(move |socket, ends| {
        kept.send((socket.try_clone_to_owned().unwrap(), ends))
            .unwrap();
    });
    let mut stream = lab.connect().await;
    send(&mut stream, b"hello").await;
    receive(&mut stream).await.unwrap();
    let (_also, ends) = held.recv().await.unwrap();
    assert_eq!(ends.remote, stream.local_addr().unwrap());
    assert_eq!(ends.local, lab.address);
    lab.gate.hang_up();
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_was_inside_when_the_gate_closes_is_given_up_at_once() {
    let lab = lab(Limits::default());
    let mut stream = lab.connect().await;
    send(&mut stream, b"hold").await;
    lab.echo.held.notified().await;
    lab.gate.close();
    lab.echo.given_up.notified().await;
}

#[tokio::test]
async fn what_was_inside_when_the_gate_closed_is_never_answered() {
    let lab = lab(Limits::default());
    let mut stream = lab.connect().await;
    send(&mut stream, b"hold").await;
    lab.echo.held.notified().await;
    lab.gate.close();
    lab.gate.open();
    lab.echo.release.notify_one();
    send(&mut stream, b"next").await;
    assert_eq!(
        receive(&mut stream).await.unwrap(),
        b"next",
        "the held one stays silent"
    );
}

#[tokio::test]
async fn a_node_without_a_lease_is_mute_and_a_closed_gate_refuses() {
    let lab = lab(Limits::default());
    let mut stream = lab.connect().await;
    lab.echo.mute.store(true, Ordering::Relaxed);
    send(&mut stream, b"hold").await;
    lab.echo.release.notify_one();
    lab.echo.held.notified().await;
    lab.gate.close();
    lab.gate.hang_up();
    assert!(
        receive(&mut stream).await.is_err(),
        "reset without an answer"
    );
    let mut late = lab.connect().await;
    assert!(receive(&mut late).await.is_err(), "refused while closed");
}

#[tokio::test]
async fn many_requests_at_once_are_all_answered() {
    let lab = lab(Limits {
        inflight_per_connection_max: 4,
        ..Limits::default()
    });
    let mut stream = lab.connect().await;
    let mut batch = Vec::new();
    for i in 0..1000 {
        let record: &[u8] = if i % 3 == 0 { b"late" } else { b"echo" };
        batch.extend_from_slice(&frame(Gather::from(Bytes::from_static(record))).into_bytes());
    }
    stream.write_all(&batch).await.unwrap();
    let mut late = 0;
    for _ in 0..1000 {
        late += usize::from(receive(&mut stream).await.unwrap() == b"late");
    }
    assert_eq!(late, 334);
}

#[tokio::test]
async fn answers_beyond_what_may_wait_are_given_once_there_is_room() {
    let lab = lab(Limits::default());
    let mut stream = lab.connect().await;
    let record = frame(Gather::from(Bytes::from_static(b"much"))).into_bytes();
    stream.write_all(&record.repeat(40)).await.unwrap();
    for _ in 0..40 {
        assert_eq!(receive(&mut stream).await.unwrap().len(), MUCH);
    }
}

#[tokio::test]
async fn a_request_that_comes_while_the_gate_drains_is_answered_after_it() {
    let lab = lab(Limits::default());
    let mut stream = lab.connect().await;
    send(&mut stream, b"hold").await;
    lab.echo.held.notified().await;
    lab.gate.drain();
    send(&mut stream, b"next").await;
    lab.echo.release.notify_one();
    assert_eq!(receive(&mut stream).await.unwrap(), b"hold");
    lab.gate.drained().await;
    lab.gate.open();
    assert_eq!(receive(&mut stream).await.unwrap(), b"next");
}

#[tokio::test]
async fn a_connection_that_is_not_used_ends_and_one_that_waits_for_an_answer_does_not() {
    let lab = lab(Limits {
        idle: Some(Duration::from_millis(20)),
        ..Limits::default()
    });
    let mut waiting = lab.connect().await;
    send(&mut waiting, b"hold").await;
    lab.echo.held.notified().await;
    let mut unused = lab.connect().await;
    assert!(receive(&mut unused).await.is_err());
    lab.echo.release.notify_one();
    assert_eq!(receive(&mut waiting).await.unwrap(), b"hold");
}

#[tokio::test]
async fn a_peer_that_drips_byte_by_byte_has_so_long_for_the_record_and_no_longer() {
    let lab = lab(Limits {
        patience: Duration::from_millis(50),
        ..Limits::default()
    });
    let mut stream = lab.connect().await;
    let header = FragmentHeader {
        last: true,
        len: 1 << 20,
    };
    stream.write_all(&header.encode()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let dripping = async {
        while write.write_all(b"x").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let mut byte = [0];
    tokio::select! {
        end = read.read(&mut byte) => assert!(matches!(end, Ok(0) | Err(_))),
        () = dripping => {}
    }
    let mut other = lab.connect().await;
    send(&mut other, b"fine").await;
    assert_eq!(receive(&mut other).await.unwrap(), b"fine");
}

#[tokio::test]
async fn a_peer_that_never_reads_is_dropped_and_gives_back_what_it_held() {
    let record_bytes = 60 << 10;
    let lab = lab(Limits {
        patience: Duration::from_millis(50),
        inflight_per_connection_max: 4,
        // Room for what one connection may hold, and no more.
        inflight_bytes_max: 4 * record_bytes,
        ..Limits::default()
    });
    let mut deaf = lab.connect().await;
    let record = frame(Gather::from(Bytes::from(vec![7; record_bytes]))).into_bytes();
    // Until the answers fill all buffers and the server has enough of it.
    while deaf.write_all(&record).await.is_ok() {}
    let mut other = lab.connect().await;
    send(&mut other, b"fine").await;
    assert_eq!(receive(&mut other).await.unwrap(), b"fine");
}

struct Datagrams {
    lab: Lab,
    port: u16,
}

fn datagrams(listen: &str) -> Datagrams {
    let lab = lab(Limits::default());
    let socket = bind_datagram(listen.parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(Arc::clone(&lab.server).listen_datagrams(socket));
    Datagrams { lab, port }
}

async fn ask(from: &str, to: SocketAddr, requests: &[&[u8]]) -> (Vec<u8>, SocketAddr) {
    let socket = UdpSocket::bind(from).await.unwrap();
    for request in requests {
        socket.send_to(request, to).await.unwrap();
    }
    let mut buffer = vec![0; 65536];
    let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
    buffer.truncate(length);
    (buffer, from)
}

#[tokio::test]
async fn a_datagram_is_answered_from_the_address_it_was_sent_to() {
    let server = datagrams("0.0.0.0:0");
    for address in ["127.0.0.1", "127.0.0.77"] {
        let to = SocketAddr::new(address.parse().unwrap(), server.port);
        assert_eq!(
            ask("127.0.0.1:0", to, &[b"hello"]).await,
            (b"hello".to_vec(), to)
        );
        let told = ask("127.0.0.1:0", to, &[b"where"]).await.0;
        assert_eq!(told, to.to_string().as_bytes(), "the handler knows it");
    }
    let server = datagrams("[::]:0");
    let to = SocketAddr::new("::1".parse().unwrap(), server.port);
    assert_eq!(ask("[::1]:0", to, &[b"six"]).await, (b"six".to_vec(), to));
    let to = SocketAddr::new("127.0.0.1".parse().unwrap(), server.port);
    assert_eq!(
        ask("127.0.0.1:0", to, &[b"four"]).await,
        (b"four".to_vec(), to),
        "mapped"
    );
}

#[tokio::test]
async fn datagrams_that_cannot_be_answered_are_dropped_and_the_next_is_answered() {
    let server = datagrams("127.0.0.1:0");
    let to = SocketAddr::new("127.0.0.1".parse().unwrap(), server.port);
    let too_long = vec![1; DATAGRAM_BYTES_MAX + 1];
    let longest = vec![2; DATAGRAM_BYTES_MAX];
    let requests: [&[u8]; 4] = [b"bad", b"huge", &too_long, &longest];
    assert_eq!(ask("127.0.0.1:0", to, &requests).await.0, longest);
    // Empty datagrams are datagrams too.
    assert_eq!(ask("127.0.0.1:0", to, &[b""]).await.0, b"");
}

#[tokio::test]
async fn a_closed_gate_answers_no_datagrams() {
    let server = datagrams("127.0.0.1:0");
    let to = SocketAddr::new("127.0.0.1".parse().unwrap(), server.port);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    server.lab.gate.close();
    socket.send_to(b"while closed", to).await.unwrap();
    let mut buffer = [0; 64];
    let answer = tokio::time::timeout(Duration::from_millis(50), socket.recv(&mut buffer));
    assert!(answer.await.is_err());
    server.lab.gate.open();
    assert_eq!(ask("127.0.0.1:0", to, &[b"open"]).await.0, b"open");
}
