//! Addresses, announcements, tickles.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use haven_platform::addr;
use haven_platform::announce::announce;
use haven_platform::sockets::{self, Connection};
use haven_platform::tickle::tickle;
use haven_platform::{PlatformError, link};

use crate::lan::{LIMIT, Lan, Node, comes, placed};

const FLOATING_V4: &str = "10.9.0.100/24";
const FLOATING_V6: &str = "fd09::100/64";

pub fn addresses_come_and_go_idempotently() {
    let lan = Lan::new(1);
    lan.nodes[0].run(|| {
        // The kernel adds link-local addresses in its own time.
        let list = || {
            let mut list = addr::list().unwrap();
            list.retain(|placed| !placed.subnet.to_string().starts_with("fe80:"));
            list
        };
        let before = list();
        for text in [FLOATING_V4, FLOATING_V6] {
            let floating = placed(text);
            addr::remove(&floating).unwrap();
            addr::add(&floating, None).unwrap();
            addr::add(&floating, None).unwrap();
            let here = addr::list().unwrap();
            assert_eq!(
                here.iter().filter(|placed| **placed == floating).count(),
                1,
                "{text}"
            );
            // Usable at once: with duplicate address detection this would fail for v6.
            UdpSocket::bind(SocketAddr::new(floating.ip(), 0)).unwrap();
            addr::remove(&floating).unwrap();
            addr::remove(&floating).unwrap();
            assert!(!addr::is_here(floating.ip()).unwrap());
        }
        assert_eq!(list(), before);
        let mut nowhere = placed(FLOATING_V4);
        nowhere.link = link::LinkIndex(4242);
        addr::remove(&nowhere).unwrap();
        addr::add(&nowhere, None).unwrap_err();
    });
}

pub fn addresses_find_their_interface() {
    let lan = Lan::new(1);
    lan.nodes[0].run(|| {
        let eth0 = link::find("eth0").unwrap().index;
        for text in [FLOATING_V4, FLOATING_V6] {
            assert_eq!(addr::place(text.parse().unwrap(), None).unwrap().link, eth0);
        }
        let foreign = addr::place("10.10.0.1/24".parse().unwrap(), None).unwrap_err();
        assert!(
            matches!(foreign, PlatformError::NoSubnet { .. }),
            "{foreign}"
        );
        let missing = addr::place(FLOATING_V4.parse().unwrap(), Some("eth9")).unwrap_err();
        assert!(missing.to_string().contains("eth9"), "{missing}");
    });
}

pub fn addresses_with_a_lifetime_vanish() {
    let lan = Lan::new(1);
    lan.nodes[0].run(|| {
        let lifetime = Duration::from_secs(1);
        let (kept, v4, v6) = (
            placed("10.9.0.99/24"),
            placed(FLOATING_V4),
            placed(FLOATING_V6),
        );
        addr::add(&kept, Some(lifetime)).unwrap();
        addr::add(&v4, Some(lifetime)).unwrap();
        addr::add(&v6, Some(lifetime)).unwrap();
        let vanished = comes(|| {
            addr::refresh(&kept, lifetime).unwrap();
            !addr::is_here(v4.ip()).unwrap() && !addr::is_here(v6.ip()).unwrap()
        });
        assert!(vanished);
        assert!(addr::is_here(kept.ip()).unwrap());
    });
}

pub fn losses_of_addresses_are_told_whoever_takes_them_off() {
    let lan = Lan::new(1);
    lan.nodes[0].run(|| {
        let mut losses = addr::Losses::watch().unwrap();
        let mut is_told =
            |lost: IpAddr| comes(|| losses.wait().unwrap().is_none_or(|all| all.contains(&lost)));
        for text in [FLOATING_V4, FLOATING_V6] {
            let floating = placed(text);
            addr::add(&floating, None).unwrap();
            addr::remove(&floating).unwrap();
            assert!(is_told(floating.ip()), "{text}");
        }
        // IPv6 addresses go with their interface.
        addr::add(&placed(FLOATING_V6), None).unwrap();
        link::set_up("eth0", false).unwrap();
        assert!(is_told(
            FLOATING_V6.split_once('/').unwrap().0.parse().unwrap()
        ));
    });
}

pub fn interfaces_can_be_unplugged() {
    let lan = Lan::new(2);
    let socket = lan.nodes[1].run(|| UdpSocket::bind("10.9.0.2:5000").unwrap());
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let sender = lan.nodes[0].run(|| UdpSocket::bind("10.9.0.1:5000").unwrap());
    let mut byte = [0];
    sender.send_to(b"1", "10.9.0.2:5000").unwrap();
    socket.recv(&mut byte).unwrap();
    assert_eq!(&byte, b"1");
    lan.unplug(0);
    assert!(lan.nodes[0].run(|| link::find("eth0").unwrap().up));
    sender.send_to(b"2", "10.9.0.2:5000").unwrap();
    lan.replug(0);
    sender.send_to(b"3", "10.9.0.2:5000").unwrap();
    socket.recv(&mut byte).unwrap();
    assert_eq!(&byte, b"3", "the second datagram must have been lost");
}

pub fn announcements_turn_traffic_v4() {
    let lan = Lan::new(3);
    let macs = turn_traffic(&lan, FLOATING_V4);
    let table = lan.nodes[2].run(|| std::fs::read_to_string("/proc/thread-self/net/arp").unwrap());
    let line = table
        .lines()
        .find(|line| line.starts_with("10.9.0.100 "))
        .unwrap();
    assert!(line.contains(&macs.1) && !line.contains(&macs.0), "{line}");
}

pub fn announcements_turn_traffic_v6() {
    turn_traffic(&Lan::new(3), FLOATING_V6);
}

/// The client's datagrams go to the first node, and to the second one after its announcement: although
/// the first still has the address, so nothing but the announcement can have turned them.
fn turn_traffic(lan: &Lan, floating: &str) -> (String, String) {
    let take = |node: &Node| {
        node.run(|| {
            let floating = placed(floating);
            addr::add(&floating, None).unwrap();
            let socket = UdpSocket::bind(SocketAddr::new(floating.ip(), 7000)).unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            let mac = link::find("eth0").unwrap().mac.unwrap();
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            (socket, mac, floating)
        })
    };
    let (first, first_mac, placed) = take(&lan.nodes[0]);
    let to = SocketAddr::new(placed.ip(), 7000);
    let any: IpAddr = if to.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    let client = lan.nodes[2].run(|| UdpSocket::bind(SocketAddr::new(any, 0)).unwrap());
    let mut byte = [0];

    client.send_to(b"1", to).unwrap();
    first.recv(&mut byte).unwrap();
    let (second, second_mac, placed) = take(&lan.nodes[1]);
    client.send_to(b"2", to).unwrap();
    first.recv(&mut byte).unwrap();
    assert_eq!(&byte, b"2");

    lan.nodes[1].run(|| announce(&[placed]).unwrap());
    client.send_to(b"3", to).unwrap();
    second.recv(&mut byte).unwrap();
    assert_eq!(&byte, b"3");
    (first_mac, second_mac)
}

pub fn tickles_reset_clients_v4() {
    tickle_resets(FLOATING_V4);
}

pub fn tickles_reset_clients_v6() {
    tickle_resets(FLOATING_V6);
}

fn tickle_resets(floating: &str) {
    let lan = Lan::new(3);
    let (mut client, _server, connection) = connect(&lan, floating);
    lan.unplug(0);
    lan.nodes[1].run(|| {
        let floating = placed(floating);
        addr::add(&floating, None).unwrap();
        announce(&[floating]).unwrap();
        // As on a real new leader: somebody listens there already.
        let _listener = TcpListener::bind(connection.local).unwrap();
        let start = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        assert_eq!(runtime.block_on(tickle(&[connection])).unwrap(), 1);
        // An idle client would wait here for ever.
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let took = start.elapsed();
        println!("  reset after {} us", took.as_micros());
        assert!(took < Duration::from_millis(500), "{took:?}");
    });
}

/// What a leader does whose lease lapses for a moment: connections are kept without their address.
pub fn connections_outlive_their_address_and_are_reset_from_it_later() {
    for floating in [FLOATING_V4, FLOATING_V6] {
        let lan = Lan::new(3);
        let (mut client, mut server, connection) = connect(&lan, floating);
        lan.nodes[0].run(|| {
            addr::remove(&placed(floating)).unwrap();
            assert_eq!(
                sockets::list(&[connection.local.ip()]).unwrap(),
                [connection]
            );
            addr::add(&placed(floating), None).unwrap();
            announce(&[placed(floating)]).unwrap();
        });
        // What was asked before is answered, on the connection that there is.
        server.write_all(b"!").unwrap();
        client.read_exact(&mut [0]).unwrap();
        client.write_all(b"?").unwrap();
        server.read_exact(&mut [0]).unwrap();
        lan.nodes[0].run(|| {
            addr::remove(&placed(floating)).unwrap();
            addr::add(&placed(floating), None).unwrap();
        });
        rustix::net::connect_unspec(&server).unwrap();
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{floating}");
    }
}

pub fn tickles_do_a_living_connection_no_harm() {
    for floating in [FLOATING_V4, FLOATING_V6] {
        let lan = Lan::new(3);
        let (mut client, mut server, connection) = connect(&lan, floating);
        let all = vec![connection; 50];
        lan.nodes[0].run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            // Between, before and behind data in both directions.
            for n in 0..20u8 {
                runtime.block_on(tickle(&all)).unwrap();
                let sent = vec![n; 100_000];
                let (mut there, mut back) = (vec![0; sent.len()], vec![0; sent.len()]);
                std::thread::scope(|scope| {
                    scope.spawn(|| client.write_all(&sent).unwrap());
                    server.read_exact(&mut there).unwrap();
                });
                runtime.block_on(tickle(&all)).unwrap();
                std::thread::scope(|scope| {
                    scope.spawn(|| server.write_all(&there).unwrap());
                    client.read_exact(&mut back).unwrap();
                });
                assert_eq!(back, sent, "{floating}");
            }
            assert_eq!(
                sockets::list(&[connection.local.ip()]).unwrap(),
                [connection]
            );
        });
    }
}

/// A connection from the third node to the floating address on the first one.
fn connect(lan: &Lan, floating: &str) -> (TcpStream, TcpStream, Connection) {
    let listener = lan.nodes[0].run(|| {
        let floating = placed(floating);
        addr::add(&floating, None).unwrap();
        TcpListener::bind(SocketAddr::new(floating.ip(), 2049)).unwrap()
    });
    let local = listener.local_addr().unwrap();
    let mut client = lan.nodes[2].run(|| TcpStream::connect(local).unwrap());
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut server, remote) = listener.accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    // Both directions are in use, so both sides are established.
    client.write_all(b"?").unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let connection = Connection { local, remote };
    let listed = lan.nodes[0].run(|| sockets::list(&[local.ip()]).unwrap());
    assert_eq!(listed, [connection]);
    (client, server, connection)
}

pub fn dropped_connections_are_silent() {
    for floating in [FLOATING_V4, FLOATING_V6] {
        let lan = Lan::new(3);
        let (mut client, mut server, connection) = connect(&lan, floating);
        let left = lan.nodes[0].run(|| {
            assert_eq!(
                sockets::drop_connections(&[[10, 9, 0, 1].into()]).unwrap(),
                0
            );
            addr::remove(&placed(floating)).unwrap();
            assert_eq!(
                sockets::drop_connections(&[connection.local.ip()]).unwrap(),
                1
            );
            sockets::list(&[connection.local.ip()]).unwrap()
        });
        assert_eq!(left, []);
        let error = server.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        client.set_nonblocking(true).unwrap();
        assert_eq!(
            client.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "{floating}"
        );
        // Nothing that kept the reset back is left.
        drop(server);
        connect(&lan, floating);
    }
}

pub fn commands_start_in_a_namespace() {
    let lan = Lan::new(1);
    let mut command = Command::new("/bin/cat");
    command.arg("/proc/self/net/dev");
    lan.nodes[0].netns.set_for(&mut command).unwrap();
    let inside = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(inside.contains("eth0:"), "{inside}");
    let outside = Command::new("/bin/cat")
        .arg("/proc/self/net/dev")
        .output()
        .unwrap();
    assert!(!String::from_utf8(outside.stdout).unwrap().contains("eth0:"));
}
