//! rpcbind and portmap messages laid out by hand after RFC 1833, universal addresses after RFC 5665.

#[path = "common/pieces.rs"]
mod pieces;

use bytes::Bytes;
use haven_proto::rpcbind::*;
use haven_proto::{portmap, rpcbind};
use haven_xdr::{XdrErrorKind, decode_all};
use pieces::Piece::{self, Text, Word};
use pieces::{is, wire};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn rpcb() -> Rpcb {
    Rpcb {
        prog: 100_003,
        vers: 3,
        netid: Netid::Tcp.into(),
        addr: UaddrText(text("192.0.2.1.8.1")),
        owner: Owner(text("superuser")),
    }
}

const RPCB: [Piece; 5] = [
    Word(100_003),
    Word(3),
    Text("tcp"),
    Text("192.0.2.1.8.1"),
    Text("superuser"),
];

fn listed(pieces: impl IntoIterator<Item = Piece>) -> Vec<Piece> {
    let mut list = vec![Word(1)];
    list.extend(pieces);
    list
}

#[test]
fn addresses_of_programs() {
    is(rpcb(), &RPCB);
    let mut list = listed(RPCB);
    list.extend(listed(RPCB));
    list.push(Word(0));
    is(Rpcblist(vec![rpcb(), rpcb()]), &list);
    is(Rpcblist::default(), &[Word(0)]);
    is(UaddrText::default(), &[Word(0)]);
}

#[test]
fn address_lists() {
    let entry = RpcbEntry {
        maddr: UaddrText(text("::1.8.1")),
        nc_netid: Netid::Tcp6.into(),
        nc_semantics: Semantics::CotsOrd,
        nc_protofmly: ProtoName(text("inet6")),
        nc_proto: ProtoName(text("tcp")),
    };
    let pieces = [
        Text("::1.8.1"),
        Text("tcp6"),
        Word(3),
        Text("inet6"),
        Text("tcp"),
    ];
    let mut list = listed(pieces);
    list.push(Word(0));
    is(RpcbEntryList(vec![entry]), &list);
}

#[test]
fn calls_for_others() {
    let pieces = [Word(100_005), Word(3), Word(0), Text("args")];
    let args = RmtcallArgs {
        prog: 100_005,
        vers: 3,
        proc: 0,
        args: text("args"),
    };
    is(args, &pieces);
    let args = portmap::CallArgs {
        prog: 100_005,
        vers: 3,
        proc: 0,
        args: text("args"),
    };
    is(args, &pieces);
    let results = RmtcallRes {
        addr: UaddrText(text("192.0.2.1.8.1")),
        results: text("abc"),
    };
    is(results, &[Text("192.0.2.1.8.1"), Text("abc")]);
    let result = portmap::CallResult {
        port: 2049,
        res: text("abc"),
    };
    is(result, &[Word(2049), Text("abc")]);
    let netbuf = Netbuf {
        maxlen: 16,
        buf: text("abc"),
    };
    is(netbuf, &[Word(16), Text("abc")]);
}

#[test]
fn statistics() {
    let mut info = [0; RPCBSTAT_HIGHPROC];
    info[3] = 7;
    let version4 = RpcbStat {
        info,
        setinfo: 1,
        unsetinfo: 2,
        addrinfo: vec![AddrStat {
            prog: 100_003,
            vers: 3,
            success: 5,
            failure: -1,
            netid: Netid::Udp.into(),
        }],
        rmtinfo: vec![RmtcallStat {
            prog: 100_005,
            vers: 1,
            proc: 5,
            success: 6,
            failure: 7,
            indirect: 8,
            netid: Netid::Udp6.into(),
        }],
    };
    let stat = RpcbStatByvers {
        version4,
        ..RpcbStatByvers::default()
    };
    let mut pieces: Vec<_> = (0..2 * (RPCBSTAT_HIGHPROC + 4)).map(|_| Word(0)).collect();
    pieces.extend((0..RPCBSTAT_HIGHPROC).map(|proc| Word(if proc == 3 { 7 } else { 0 })));
    pieces.extend([Word(1), Word(2)]);
    pieces.extend([Word(1), Word(100_003), Word(3), Word(5), Word(u32::MAX)]);
    pieces.extend([Text("udp"), Word(0)]);
    pieces.extend([1, 100_005, 1, 5, 6, 7, 8].map(Word));
    pieces.extend([Text("udp6"), Word(0)]);
    is(stat, &pieces);
}

#[test]
fn strings_have_limits() {
    let long = wire(&[Word(1), Word(1), Word(NETID_BYTES_MAX as u32 + 1)]);
    let kind = decode_all::<Rpcb>(long).unwrap_err().kind;
    let expected = XdrErrorKind::TooLong { len: 65, max: 64 };
    assert_eq!(kind, expected);
}

#[test]
fn procedures_belong_to_versions() {
    let in_version = |version| {
        (0..20)
            .filter_map(Procedure::from_wire)
            .filter(move |p| p.is_in(version))
    };
    assert_eq!(in_version(rpcbind::VERSION3).count(), 9);
    assert_eq!(in_version(rpcbind::VERSION4).count(), 13);
    assert_eq!(in_version(portmap::VERSION).count(), 0);
    assert_eq!(Procedure::Getstat.to_wire(), 12);
    assert_eq!(portmap::Procedure::Callit.to_wire(), 5);
}

#[test]
fn universal_addresses_of_rfc_5665() {
    let known = [
        ("10.1.3.7.2.15", "10.1.3.7:527"),
        ("0.0.0.0.0.111", "0.0.0.0:111"),
        ("::1.8.1", "[::1]:2049"),
        ("2001:db8::7.255.255", "[2001:db8::7]:65535"),
        ("::ffff:192.0.2.1.8.1", "[::ffff:192.0.2.1]:2049"),
    ];
    for (uaddr, address) in known {
        let parsed: Uaddr = uaddr.parse().unwrap();
        assert_eq!(
            SocketAddr::from(parsed),
            address.parse().unwrap(),
            "{uaddr}"
        );
        assert_eq!(parsed.to_string(), uaddr);
        assert_eq!(UaddrText::from(parsed).0, uaddr);
    }
    let other_form: Uaddr = "2001:DB8:0:0::7.8.1".parse().unwrap();
    assert_eq!(other_form.to_string(), "2001:db8::7.8.1");
}

#[test]
fn what_is_no_universal_address_is_refused() {
    let faults = [
        ("", UaddrError::NoPort),
        ("localhost", UaddrError::NoPort),
        ("::1", UaddrError::NoPort),
        (".1", UaddrError::NoPort),
        ("1.2.3.4", UaddrError::Host),
        ("1.2.3.4.5", UaddrError::Host),
        ("1.2.3.4.5.256", UaddrError::Port),
        ("1.2.3.4.+5.6", UaddrError::Port),
        ("1.2.3.4.5.", UaddrError::Port),
        ("1.2.3.4..5", UaddrError::Port),
        ("1.2.3.4.5.6.7", UaddrError::Host),
        ("host.8.1", UaddrError::Host),
        ("fe80::1%eth0.8.1", UaddrError::Host),
        ("/var/run/rpcbind.sock", UaddrError::NoPort),
    ];
    for (text, error) in faults {
        assert_eq!(text.parse::<Uaddr>(), Err(error), "{text}");
    }
    assert_eq!(Uaddr::parse(b"\xff.1.2"), Err(UaddrError::Host));
}

#[test]
fn network_ids_go_with_their_family() {
    let (four, six) = ("192.0.2.1".parse().unwrap(), "::1".parse().unwrap());
    for (id, name, ip, other) in [
        (Netid::Tcp, "tcp", four, six),
        (Netid::Udp, "udp", four, six),
        (Netid::Tcp6, "tcp6", six, four),
        (Netid::Udp6, "udp6", six, four),
    ] {
        assert_eq!(id.to_string(), name);
        assert_eq!(Netid::from_name(name.as_bytes()), Some(id));
        assert!(id.carries(ip) && !id.carries(other));
        assert!([Netid::tcp_of(ip), Netid::udp_of(ip)].contains(&id));
        assert_eq!(NetidText::from(id).0, name);
    }
    for name in ["", "TCP", "tcp4", "tcp6 ", "local"] {
        assert_eq!(Netid::from_name(name.as_bytes()), None);
    }
}

proptest! {
    #[test]
    fn universal_addresses_come_back(ip: IpAddr, port: u16) {
        let uaddr = Uaddr { ip, port };
        prop_assert_eq!(uaddr.to_string().parse(), Ok(uaddr));
    }

    #[test]
    fn arbitrary_text_never_panics(bytes: Vec<u8>, likely in "[0-9a-f:.+]{0,30}") {
        let _ = Uaddr::parse(&bytes);
        if let Ok(uaddr) = Uaddr::parse(likely.as_bytes()) {
            prop_assert_eq!(uaddr.to_string().parse(), Ok(uaddr));
        }
    }
}
