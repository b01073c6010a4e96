//! Other machines that have a floating address.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use haven_platform::announce::announce;
use haven_platform::{addr, link, probe};

use crate::lan::{LIMIT, Lan, Node, comes, placed};

const FLOATING: [&str; 2] = ["10.9.0.100/24", "fd09::100/64"];
/// As long as the server waits for answers.
const PATIENCE: Duration = Duration::from_millis(200);

/// Who else has the address, as far as this node finds.
fn other(node: &Node, floating: &str) -> Option<[u8; 6]> {
    node.run(|| probe::other_holder(&placed(floating), PATIENCE).unwrap())
}

fn take(node: &Node, floating: &str) {
    node.run(|| addr::add(&placed(floating), None).unwrap());
}

fn leave(node: &Node, floating: &str) {
    node.run(|| addr::remove(&placed(floating)).unwrap());
}

fn mac(node: &Node) -> [u8; 6] {
    node.run(|| link::find("eth0").unwrap().mac.unwrap())
}

pub fn strangers_are_found_v4() {
    strangers_are_found(FLOATING[0]);
}

pub fn strangers_are_found_v6() {
    strangers_are_found(FLOATING[1]);
}

/// Found by the holder, by a node that does not hold it, and by both without turning a client away from the holder.
fn strangers_are_found(floating: &str) {
    let lan = Lan::new(4);
    let [holder, follower, stranger, client] = &lan.nodes[..] else {
        panic!("four nodes");
    };
    take(holder, floating);
    assert_eq!(other(holder, floating), None);
    let (service, to) = holder.run(|| {
        let socket = UdpSocket::bind(SocketAddr::new(placed(floating).ip(), 7000)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let to = socket.local_addr().unwrap();
        (socket, to)
    });
    let any: IpAddr = match to {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0; 16].into(),
    };
    let client = client.run(|| UdpSocket::bind(SocketAddr::new(any, 0)).unwrap());
    let mut byte = [0];
    let mut arrives = |said: u8| {
        client.send_to(&[said], to).unwrap();
        service.recv(&mut byte).unwrap();
        byte == [said]
    };
    assert!(arrives(1));

    take(stranger, floating);
    assert!(comes(|| other(holder, floating) == Some(mac(stranger))));
    assert!(arrives(2), "asking turned the client to the stranger");

    leave(holder, floating);
    assert_eq!(other(follower, floating), Some(mac(stranger)));
    leave(stranger, floating);
    assert_eq!(other(follower, floating), None);
    take(holder, floating);
    assert!(comes(|| other(follower, floating) == Some(mac(holder))));
    assert_eq!(other(holder, floating), None);
}

pub fn a_takeover_finds_no_stranger() {
    for floating in FLOATING {
        let lan = Lan::new(2);
        for (old, new) in [(0, 1), (1, 0), (0, 1)] {
            leave(&lan.nodes[old], floating);
            take(&lan.nodes[new], floating);
            lan.nodes[new].run(|| announce(&[placed(floating)]).unwrap());
            assert_eq!(other(&lan.nodes[new], floating), None, "{floating}");
        }
    }
}

/// The answer would go to everybody: nothing is asked while that could turn clients.
pub fn without_an_address_of_ones_own() {
    let floating = FLOATING[1];
    let lan = Lan::new(2);
    let [asker, stranger] = &lan.nodes[..] else {
        panic!("two nodes");
    };
    take(stranger, floating);
    asker.run(|| {
        let local = |placed: &addr::Placed| matches!(placed.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        assert!(comes(|| addr::list().unwrap().iter().any(local)), "the kernel adds it");
        let eth0 = link::find("eth0").unwrap().index;
        for placed in addr::list().unwrap() {
            if placed.link == eth0 && placed.ip().is_ipv6() {
                addr::remove(&placed).unwrap();
            }
        }
    });
    assert!(comes(|| other(asker, floating) == Some(mac(stranger))));
    take(asker, floating);
    assert_eq!(other(asker, floating), None);
}
