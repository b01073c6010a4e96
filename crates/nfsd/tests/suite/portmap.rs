//! The port mapper: portmap version 2, rpcbind versions 3 and 4.

use crate::server::{Server, encoded, results};
use bytes::Bytes;
use haven_nfsd::{Binding, Transport};
use haven_proto::portmap::{IPPROTO_TCP, IPPROTO_UDP, Mapping, PROGRAM, Pmaplist};
use haven_proto::rpcbind::{
    Netid, NetidText, Owner, Procedure, RmtcallArgs, Rpcb, RpcbEntryList, Rpcblist, Semantics,
    Uaddr, UaddrText,
};
use haven_proto::{mount, nfs3, portmap};
use haven_rpc::{AcceptError, Outcome, decode_reply};
use haven_xdr::{Decode, Gather};
use std::net::IpAddr;

fn binding(prog: u32, vers: u32, netid: Netid, addr: &str) -> Binding {
    let addr = addr.parse().unwrap();
    Binding {
        prog,
        vers,
        netid,
        addr,
    }
}

/// NFS over TCP, MOUNT 1 and 3 over both, on every address of both families.
fn table() -> Vec<Binding> {
    let mut all = Vec::new();
    for (netid, any) in Netid::ALL
        .into_iter()
        .zip(["0.0.0.0", "0.0.0.0", "::", "::"])
    {
        if matches!(netid, Netid::Tcp | Netid::Tcp6) {
            all.push(binding(nfs3::PROGRAM, 3, netid, &format!("{any}.8.1")));
        }
        for vers in [3, 1] {
            all.push(binding(
                mount::PROGRAM,
                vers,
                netid,
                &format!("{any}.78.80"),
            ));
        }
    }
    all
}

fn server() -> Server {
    let mut server = Server::new();
    server.service.ports = table();
    server
}

fn from(s: &mut Server, client: &str, local: &str, transport: Transport) {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    (s.client, s.local, s.transport) = (address(client), address(local), transport);
}

fn ask<T: Decode>(s: &mut Server, vers: u32, proc: Procedure, args: Gather) -> T {
    let call = s.call(PROGRAM, vers, proc.to_wire(), args);
    results(s.send(&call))
}

fn wanted(prog: u32, vers: u32, netid: &'static str, addr: &'static str) -> Rpcb {
    Rpcb {
        prog,
        vers,
        netid: NetidText(Bytes::from_static(netid.as_bytes())),
        addr: UaddrText(Bytes::from_static(addr.as_bytes())),
        owner: Owner::default(),
    }
}

/// The address told, by the same answer from versions 3 and 4.
fn getaddr(s: &mut Server, wanted: &Rpcb) -> String {
    let told: UaddrText = ask(s, 4, Procedure::Getaddr, encoded(wanted));
    assert_eq!(
        told,
        ask::<UaddrText>(s, 3, Procedure::Getaddr, encoded(wanted))
    );
    String::from_utf8(told.0.to_vec()).unwrap()
}

fn refused(s: &mut Server, vers: u32, proc: Procedure, args: Gather) -> AcceptError {
    let call = s.call(PROGRAM, vers, proc.to_wire(), args);
    match decode_reply(s.send(&call).into_bytes()).unwrap().outcome {
        Outcome::Error(error) => error,
        other => panic!("answered: {other:?}"),
    }
}

#[test]
fn version_2() {
    let mut s = server();
    let mapping = |prot, port| Mapping {
        prog: nfs3::PROGRAM,
        vers: 3,
        prot,
        port,
    };
    let mut ask = |procedure: portmap::Procedure, args| {
        let call = s.call(PROGRAM, 2, procedure.to_wire(), args);
        s.send(&call)
    };
    let getport = portmap::Procedure::Getport;
    let (tcp, udp) = (mapping(IPPROTO_TCP, 0), mapping(IPPROTO_UDP, 0));
    assert_eq!(results::<u32>(ask(getport, encoded(&tcp))), 2049);
    assert_eq!(results::<u32>(ask(getport, encoded(&udp))), 0);
    let all = results::<Pmaplist>(ask(portmap::Procedure::Dump, Gather::new()));
    assert_eq!(all.0.len(), 5, "once for both families: {all:?}");
    assert_eq!(all.0[0], mapping(IPPROTO_TCP, 2049));
    assert!(!results::<bool>(ask(
        portmap::Procedure::Set,
        encoded(&udp)
    )));
    let () = results(ask(portmap::Procedure::Null, Gather::new()));
}

#[test]
fn an_address_is_the_one_asked_at() {
    let mut s = server();
    let nfs = wanted(nfs3::PROGRAM, 3, "tcp", "203.0.113.9.0.111");
    let mountd = wanted(mount::PROGRAM, 3, "", "");
    use Transport::{Datagram, Stream};
    from(&mut s, "192.0.2.7", "192.0.2.100", Stream);
    assert_eq!(getaddr(&mut s, &nfs), "192.0.2.100.8.1");
    // By a socket for both families.
    from(&mut s, "::ffff:192.0.2.7", "::ffff:192.0.2.100", Stream);
    assert_eq!(getaddr(&mut s, &nfs), "192.0.2.100.8.1");
    from(&mut s, "2001:db8::7", "2001:db8::100", Stream);
    assert_eq!(getaddr(&mut s, &nfs), "2001:db8::100.8.1");
    // The network is the one the call came over, whatever the client says.
    from(&mut s, "192.0.2.7", "192.0.2.100", Datagram);
    assert_eq!(getaddr(&mut s, &nfs), "", "NFS is not there over UDP");
    assert_eq!(getaddr(&mut s, &mountd), "192.0.2.100.78.80");
    from(&mut s, "2001:db8::7", "2001:db8::100", Datagram);
    assert_eq!(getaddr(&mut s, &mountd), "2001:db8::100.78.80");
}

#[test]
fn where_the_address_asked_at_is_not_known_the_client_s_word_counts() {
    let mut s = server();
    let nfs = |named| wanted(nfs3::PROGRAM, 3, "tcp", named);
    from(&mut s, "192.0.2.7", "0.0.0.0", Transport::Stream);
    for (named, told) in [
        ("203.0.113.9.0.111", "203.0.113.9.8.1"),
        ("", "0.0.0.0.8.1"),
        ("nonsense", "0.0.0.0.8.1"),
        ("2001:db8::1.0.111", "0.0.0.0.8.1"),
    ] {
        assert_eq!(getaddr(&mut s, &nfs(named)), told, "{named:?}");
    }
    // One that listens at one address is nowhere else.
    s.service.ports = vec![binding(nfs3::PROGRAM, 3, Netid::Tcp, "192.0.2.55.8.1")];
    from(&mut s, "192.0.2.7", "192.0.2.100", Transport::Stream);
    assert_eq!(getaddr(&mut s, &nfs("203.0.113.9.0.111")), "192.0.2.55.8.1");
}

#[test]
fn another_version_is_told_to_those_who_ask_for_any() {
    let mut s = server();
    let any = wanted(nfs3::PROGRAM, 0, "tcp", "");
    assert_eq!(getaddr(&mut s, &any), "192.0.2.100.8.1");
    let very = |s: &mut Server, wanted: &Rpcb| -> UaddrText {
        ask(s, 4, Procedure::Getversaddr, encoded(wanted))
    };
    assert_eq!(very(&mut s, &any), UaddrText::default());
    let nfs = wanted(nfs3::PROGRAM, 3, "tcp", "");
    assert_eq!(
        very(&mut s, &nfs),
        "192.0.2.100.8.1".parse::<Uaddr>().unwrap().into()
    );
    assert_eq!(getaddr(&mut s, &wanted(99, 1, "tcp", "")), "");
    assert_eq!(
        refused(&mut s, 3, Procedure::Getversaddr, encoded(&nfs)),
        AcceptError::ProcUnavail
    );
}

#[test]
fn lists() {
    let mut s = server();
    let all: Rpcblist = ask(&mut s, 4, Procedure::Dump, Gather::new());
    assert_eq!(all, ask(&mut s, 3, Procedure::Dump, Gather::new()));
    assert_eq!(all.0.len(), table().len());
    assert_eq!(all.0[0].addr.0, "0.0.0.0.8.1");
    assert!(
        all.0
            .iter()
            .any(|r| r.netid.0 == "udp6" && r.addr.0 == "::.78.80")
    );
    let mountd = encoded(&wanted(mount::PROGRAM, 3, "", ""));
    from(&mut s, "2001:db8::7", "2001:db8::100", Transport::Datagram);
    let RpcbEntryList(entries) = ask(&mut s, 4, Procedure::Getaddrlist, mountd);
    let told: Vec<_> = entries
        .iter()
        .map(|e| (&e.nc_netid.0[..], e.nc_semantics, &e.nc_proto.0[..]))
        .collect();
    assert_eq!(
        told,
        [
            (&b"tcp6"[..], Semantics::CotsOrd, &b"tcp"[..]),
            (b"udp6", Semantics::Clts, b"udp")
        ]
    );
    for entry in &entries {
        assert_eq!(entry.maddr.0, "2001:db8::100.78.80");
        assert_eq!(entry.nc_protofmly.0, "inet6");
    }
}

#[test]
fn nobody_registers_and_nothing_is_passed_on() {
    let mut s = server();
    for vers in [3, 4] {
        let () = ask(&mut s, vers, Procedure::Null, Gather::new());
        for procedure in [Procedure::Set, Procedure::Unset] {
            let args = encoded(&wanted(nfs3::PROGRAM, 3, "tcp", "192.0.2.7.8.1"));
            assert!(!ask::<bool>(&mut s, vers, procedure, args));
            assert_eq!(
                refused(&mut s, vers, procedure, Gather::new()),
                AcceptError::GarbageArgs
            );
        }
        // 2,000 seconds and the call's number, by the clock of these tests.
        let time: u32 = ask(&mut s, vers, Procedure::Gettime, Gather::new());
        assert_eq!(time, 2_000 + s.xid);
    }
    assert_eq!(
        ask::<Rpcblist>(&mut s, 4, Procedure::Dump, Gather::new())
            .0
            .len(),
        table().len()
    );
    let remote = RmtcallArgs {
        prog: mount::PROGRAM,
        vers: 3,
        proc: 5,
        args: Bytes::new(),
    };
    for procedure in [
        Procedure::Bcast,
        Procedure::Indirect,
        Procedure::Uaddr2taddr,
        Procedure::Taddr2uaddr,
        Procedure::Getstat,
    ] {
        let error = refused(&mut s, 4, procedure, encoded(&remote));
        assert_eq!(error, AcceptError::ProcUnavail, "{procedure:?}");
    }
}
