//! The client against a server that plays a script: it drops, stalls, reorders and errs as told.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use bytes::Bytes;
use haven_client::{Client, ClientError, Options};
use haven_proto::{mount, nfs3::*};
use haven_rpc::record::{FragmentHeader, HEADER_BYTES, frame};
use haven_rpc::{
    AcceptError, AuthStat, Call, Credential, Denial, accept_error, accepted, decode_call, denied,
};
use haven_xdr::{Encode, Gather, decode_all, encode_all};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Long enough never to pass in a test that works.
const NEVER: Duration = Duration::from_secs(60);
/// Short, for what is meant to pass.
const SOON: Duration = Duration::from_millis(30);
/// A program that nobody knows.
const PROG: u32 = 0x2000_0000;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn options() -> Options {
    Options {
        uid: 1000,
        gid: 100,
        gids: vec![5],
        retransmit_timeout: NEVER,
        connect_timeout: NEVER,
        reconnect_pause_min: Duration::from_millis(1),
        reconnect_pause_max: Duration::from_millis(2),
        first_xid: Some(u32::MAX - 1),
        ..Options::default()
    }
}

/// The server's end of a connection.
struct Peer(TcpStream);

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        Self(listener.accept().await.unwrap().0)
    }

    /// The next record's bytes. Takes nothing beyond them out of the socket.
    async fn record(&mut self) -> Bytes {
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact(&mut header).await.unwrap();
        let header = FragmentHeader::parse(header);
        assert!(header.last, "the client sends single fragments");
        let mut record = vec![0; header.len as usize];
        self.0.read_exact(&mut record).await.unwrap();
        record.into()
    }

    async fn call(&mut self) -> Call {
        decode_call(self.record().await).unwrap()
    }

    async fn send(&mut self, message: Gather) {
        self.0
            .write_all(&frame(message).into_bytes())
            .await
            .unwrap();
    }

    async fn answer(&mut self, call: &Call, body: &impl Encode) {
        self.send(accepted(call.xid, encode_all(body))).await;
    }

    /// Waits until the client has closed the connection.
    async fn closed(&mut self) {
        let mut byte = [0];
        // A reset is as good an end as any.
        assert_eq!(
            self.0.read(&mut byte).await.unwrap_or(0),
            0,
            "the client sent more"
        );
    }
}

/// Starts a call whose arguments are `number`; it returns the number it gets as result.
fn start(client: &Client, number: u32) -> tokio::task::JoinHandle<Result<u32, ClientError>> {
    let client = client.clone();
    tokio::spawn(async move {
        let results = client.call(PROG, 1, 1, encode_all(&number)).await?;
        Ok(decode_all(results)?)
    })
}

fn number_of(call: &Call) -> u32 {
    decode_all(call.args.clone()).unwrap()
}

#[tokio::test]
async fn a_call_carries_identity_and_arguments() {
    let (listener, address) = listen().await;
    let client = Client::new(address, options());
    let caller = start(&client, 42);
    let mut peer = Peer::accept(&listener).await;
    let call = peer.call().await;
    assert_eq!(
        (call.prog, call.vers, call.proc, number_of(&call)),
        (PROG, 1, 1, 42)
    );
    assert_eq!(call.xid, u32::MAX - 1);
    let Credential::Sys(sys) = &call.cred else {
        panic!("{:?}", call.cred)
    };
    assert_eq!((sys.uid, sys.gid, &sys.gids[..]), (1000, 100, &[5][..]));
    peer.answer(&call, &43_u32).await;
    assert_eq!(caller.await.unwrap(), Ok(43));

    let caller = start(&client.with_identity(7, 8, &[]), 1);
    let call = peer.call().await;
    let Credential::Sys(sys) = &call.cred else {
        panic!("{:?}", call.cred)
    };
    assert_eq!((sys.uid, sys.gid, sys.gids.len()), (7, 8, 0));
    peer.answer(&call, &2_u32).await;
    assert_eq!(caller.await.unwrap(), Ok(2));
}

#[tokio::test]
async fn a_dropped_connection_makes_the_same_bytes_come_again() {
    let (listener, address) = listen().await;
    let client = Client::new(address, options());
    let caller = start(&client, 42);
    let first = Peer::accept(&listener).await.record().await;
    let mut peer = Peer::accept(&listener).await;
    let second = peer.record().await;
    assert_eq!(first, second);
    let call = decode_call(second).unwrap();
    peer.answer(&call, &43_u32).await;
    assert_eq!(caller.await.unwrap(), Ok(43));
    let stats = client.stats();
    assert_eq!((stats.connections, stats.retransmissions), (2, 1));
}

#[tokio::test]
async fn a_reset_makes_the_same_bytes_come_again() {
    let (listener, address) = listen().await;
    let client = Client::new(address, options());
    let caller = start(&client, 42);
    let mut peer = Peer::accept(&listener).await;
    let first = peer.record().await;
    peer.0.set_zero_linger().unwrap();
    drop(peer);
    let mut peer = Peer::accept(&listener).await;
    let second = peer.record().await;
    assert_eq!(first, second);
    peer.answer(&decode_call(second).unwrap(), &1_u32).await;
    assert_eq!(caller.await.unwrap(), Ok(1));
}

#[tokio::test]
async fn a_connection_that_breaks_after_an_answer_is_made_anew_without_a_pause() {
    let (listener, address) = listen().await;
    let options = Options {
        reconnect_pause_min: NEVER,
        reconnect_pause_max: NEVER,
        ..options()
    };
    let client = Client::new(address, options);
    let mut peer = Peer::accept(&listener).await;
    for number in 0..2 {
        let caller = start(&client, number);
        let call = peer.call().await;
        peer.answer(&call, &1_u32).await;
        assert_eq!(caller.await.unwrap(), Ok(1));
        peer.0.set_zero_linger().unwrap();
        drop(peer);
        peer = Peer::accept(&listener).await;
    }
}

#[tokio::test]
async fn only_what_is_unanswered_comes_again_and_in_order() {
    let (listener, address) = listen().await;
    let client = Client::new(address, options());
    let mut peer = Peer::accept(&listener).await;
    let mut callers = Vec::new();
    let mut records = Vec::new();
    for number in 0..5 {
        callers.push(start(&client, number));
        records.push(peer.record().await);
    }
    let third = decode_call(records.remove(2)).unwrap();
    peer.answer(&third, &number_of(&third)).await;
    assert_eq!(callers.remove(2).await.unwrap(), Ok(2));
    drop(peer);

    let mut peer = Peer::accept(&listener).await;
    for record in records {
        assert_eq!(peer.record().await, record);
        let call = decode_call(record).unwrap();
        peer.answer(&call, &number_of(&call)).await;
        assert_eq!(callers.remove(0).await.unwrap(), Ok(number_of(&call)));
    }
}

#[tokio::test]
async fn answers_find_their_callers_in_any_order() {
    let (listener, address) = listen().await;
    let client = Client::new(address, options());
    let callers: Vec<_> = (0..8).map(|number| start(&client, number)).collect();
    let mut peer = Peer::accept(&listener).await;
    let mut calls = Vec::new();
    for _ in 0..8 {
        calls.push(peer.call().await);
    }
    for call in calls.iter().rev() {
        peer.answer(call, &(number_of(call) + 100)).await;
        // A second answer is nobody's and does no harm.
        peer.answer(call, &0_u32).await;
    }
    for (number, caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.await.unwrap(), Ok(number as u32 + 100));
    }
    assert_eq!(client.stats().connections, 1);
}

#[tokio::test]
async fn a_stalled_connection_is_replaced() {
    let (listener, address) = listen().await;
    let client = Client::new(
        address,
        Options {
            retransmit_timeout: SOON,
            ..options()
        },
    );
    let caller = start(&client, 42);
    let mut stalled = Peer::accept(&listener).await;
    let first = stalled.record().await;
    stalled.closed().await;
    // On a slow machine the next connection may be found to stall as well: answer on any.
    let server = async {
        loop {
            let mut peer = Peer::accept(&listener).await;
            let again = peer.record().await;
            assert_eq!(first, again);
            let answer = accepted(decode_call(again).unwrap().xid, encode_all(&43_u32));
            let _ = peer.0.write_all(&frame(answer).into_bytes()).await;
            peer.closed().await;
        }
    };
    tokio::select! {
        () = server => {}
        result = caller => assert_eq!(result.unwrap(), Ok(43)),
    }
    assert!(client.stats().retransmissions >= 1);
}

#[tokio::test]
async fn a_reply_that_makes_no_sense_ends_the_connection() {
    let nonsense = [
        &b"\xff\xff\xff\xff"[..],
        b"\x80\0\0\x04abcd",
        b"\0\0\0\0",
        b"\x80\0\0\0",
    ];
    for bytes in nonsense {
        let (listener, address) = listen().await;
        let client = Client::new(address, options());
        let caller = start(&client, 42);
        let mut peer = Peer::accept(&listener).await;
        let first = peer.record().await;
        peer.0.write_all(bytes).await.unwrap();
        peer.closed().await;
        let mut peer = Peer::accept(&listener).await;
        let second = peer.record().await;
        assert_eq!(first, second);
        peer.answer(&decode_call(second).unwrap(), &43_u32).await;
        assert_eq!(caller.await.unwrap(), Ok(43));
    }
}

#[tokio::test]
async fn connecting_is_tried_until_somebody_listens() {
    // Bound, but not listening: connections are refused.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = Client::new(socket.local_addr().unwrap(), options());
    let hurried = client.with_request_timeout(Some(SOON));
    assert_eq!(
        start(&hurried, 1).await.unwrap(),
        Err(ClientError::TimedOut(SOON))
    );
    assert_eq!(client.stats().connections, 0);

    let caller = start(&client, 2);
    let listener = socket.listen(1).unwrap();
    let mut peer = Peer::accept(&listener).await;
    // The call that was given up is not sent.
    let call = peer.call().await;
    assert_eq!(number_of(&call), 2);
    peer.answer(&call, &3_u32).await;
    assert_eq!(caller.await.unwrap(), Ok(3));
}

#[tokio::test]
async fn a_call_given_up_is_not_sent_again() {
    let (listener, address) = listen().await;
    let client = Client::new(address, options());
    let mut peer = Peer::accept(&listener).await;
    let given_up = start(&client, 1);
    let call = peer.call().await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    // Its answer comes too late and is nobody's.
    peer.answer(&call, &1_u32).await;
    drop(peer);

    let mut peer = Peer::accept(&listener).await;
    let caller = start(&client, 2);
    let call = peer.call().await;
    assert_eq!(number_of(&call), 2);
    peer.answer(&call, &3_u32).await;
    assert_eq!(caller.await.unwrap(), Ok(3));
    assert_eq!(client.stats().retransmissions, 0);
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let (listener, address) = listen().await;
    let client = Client::new(
        address,
        Options {
            requests_max: 2,
            ..options()
        },
    );
    let callers: Vec<_> = (0..3).map(|number| start(&client, number)).collect();
    let mut peer = Peer::accept(&listener).await;
    let first = peer.call().await;
    let second = peer.call().await;
    let nothing = peer.0.try_read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    peer.answer(&first, &number_of(&first)).await;
    let third = peer.call().await;
    for call in [second, third] {
        peer.answer(&call, &number_of(&call)).await;
    }
    for (number, caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.await.unwrap(), Ok(number as u32));
    }
}

#[tokio::test]
async fn transaction_ids_go_round() {
    let (listener, address) = listen().await;
    let client = Client::new(address, options());
    let mut peer = Peer::accept(&listener).await;
    for expected in [u32::MAX - 1, u32::MAX, 0, 1] {
        let caller = start(&client, 0);
        let call = peer.call().await;
        assert_eq!(call.xid, expected);
        peer.answer(&call, &0_u32).await;
        assert_eq!(caller.await.unwrap(), Ok(0));
    }
}

#[tokio::test]
async fn refusals_and_bad_results_reach_the_caller() {
    let (listener, address) = listen().await;
    let client = Client::new(address, options());
    let mut peer = Peer::accept(&listener).await;
    let denial = Denial::AuthError(AuthStat::TooWeak);
    let error = AcceptError::ProgMismatch { low: 4, high: 4 };

    let caller = start(&client, 0);
    let xid = peer.call().await.xid;
    peer.send(denied(xid, denial)).await;
    assert_eq!(caller.await.unwrap(), Err(ClientError::Denied(denial)));

    let caller = start(&client, 0);
    let xid = peer.call().await.xid;
    peer.send(accept_error(xid, error)).await;
    assert_eq!(caller.await.unwrap(), Err(ClientError::NotExecuted(error)));

    let caller = start(&client, 0);
    let call = peer.call().await;
    peer.answer(&call, &0_u64).await;
    assert!(matches!(
        caller.await.unwrap(),
        Err(ClientError::Malformed(_))
    ));
}

#[tokio::test]
async fn mount_asks_the_mount_port() {
    let (_nfs, nfs_address) = listen().await;
    let (listener, mount_address) = listen().await;
    let options = Options {
        mount_port: mount_address.port(),
        ..options()
    };
    let client = Client::new(nfs_address, options);
    let server = async {
        let results = [
            mount::Mountres3::Ok(mount::MountOk {
                fhandle: mount::Fhandle3(Bytes::from_static(b"root")),
                auth_flavors: vec![1],
            }),
            mount::Mountres3::Fail(mount::Mountstat3::Acces),
        ];
        for result in results {
            let mut peer = Peer::accept(&listener).await;
            let call = peer.call().await;
            assert_eq!((call.prog, call.vers, call.proc), (mount::PROGRAM, 3, 1));
            assert_eq!(
                decode_all(call.args.clone()),
                Ok(mount::Dirpath("/export".into()))
            );
            peer.answer(&call, &result).await;
            peer.closed().await;
        }
    };
    let calls = async {
        assert_eq!(client.mount("/export").await, Ok(Fh3::from("root")));
        let refused = client.mount("/export").await;
        assert_eq!(refused, Err(ClientError::Mount(mount::Mountstat3::Acces)));
    };
    tokio::join!(server, calls);
    let too_long = client.mount(&"x".repeat(mount::MNTPATHLEN + 1)).await;
    assert!(matches!(
        too_long,
        Err(ClientError::TooLong { what: "path", .. })
    ));
}

/// Answers every procedure with NFS3ERR_NOTSUPP and the body that its failure has, until the client
/// is gone. Returns the procedures asked for.
async fn not_supported(listener: TcpListener) -> Vec<Proc3> {
    let mut peer = Peer::accept(&listener).await;
    let mut procs = Vec::new();
    while peer.0.peek(&mut [0]).await.unwrap_or(0) > 0 {
        let call = peer.call().await;
        assert_eq!((call.prog, call.vers), (PROGRAM, VERSION));
        let proc = Proc3::from_wire(call.proc).unwrap();
        assert_eq!(Args3::decode(proc, call.args.clone()).unwrap().proc(), proc);
        procs.push(proc);
        let wcc = WccData::default();
        let rename = RenameWcc::default();
        let status = Nfsstat3::NotSupp;
        match proc {
            Proc3::Null => peer.answer(&call, &()).await,
            Proc3::Getattr => peer.answer(&call, &GetattrRes::Fail(status, ())).await,
            Proc3::Rename => peer.answer(&call, &RenameRes::Fail(status, rename)).await,
            Proc3::Link => {
                peer.answer(&call, &LinkRes::Fail(status, LinkWcc::default()))
                    .await
            }
            Proc3::Setattr | Proc3::Write | Proc3::Create | Proc3::Mkdir | Proc3::Symlink => {
                peer.answer(&call, &SetattrRes::Fail(status, wcc)).await;
            }
            Proc3::Mknod | Proc3::Remove | Proc3::Rmdir | Proc3::Commit => {
                peer.answer(&call, &SetattrRes::Fail(status, wcc)).await;
            }
            _ => peer.answer(&call, &LookupRes::Fail(status, None)).await,
        }
    }
    procs
}

#[tokio::test]
async fn every_method_calls_its_procedure_and_tells_the_status() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(not_supported(listener));
    let client = Client::new(address, options());
    let c = &client;
    let (d, v, sattr) = (&Fh3::from("dir"), Cookieverf3::default(), Sattr3::default());
    let how = Createhow3::Guarded(sattr);
    let not_supported = ClientError::Nfs(Nfsstat3::NotSupp);
    macro_rules! fails {
        ($($call:expr),* $(,)?) => { $(assert_eq!($call.await.unwrap_err(), not_supported);)* };
    }
    c.null().await.unwrap();
    fails!(
        c.getattr(d),
        c.setattr(d, sattr, None),
        c.lookup(d, "n"),
        c.access(d, access::ALL),
        c.readlink(d),
        c.read(d, 0, 1),
        c.write(d, 0, StableHow::FileSync, Bytes::from_static(b"data")),
        c.create(d, "n", how),
        c.mkdir(d, "n", sattr),
        c.symlink(d, "n", "target", sattr),
        c.mknod(d, "n", Mknoddata3::Fifo(sattr)),
        c.remove(d, "n"),
        c.rmdir(d, "n"),
        c.rename(d, "n", d, "m"),
        c.link(d, d, "n"),
        c.readdir(d, Cookie3(0), v, 512),
        c.readdirplus(d, Cookie3(0), v, 512, 4096),
        c.fsstat(d),
        c.fsinfo(d),
        c.pathconf(d),
        c.commit(d, 0, 0),
    );
    drop(client);
    let asked = server.await.unwrap();
    let all: Vec<_> = (0..22)
        .map(|number| Proc3::from_wire(number).unwrap())
        .collect();
    assert_eq!(asked, all);
}

#[tokio::test]
async fn data_goes_and_comes_whole() {
    let (listener, address) = listen().await;
    let client = Client::new(address, options());
    let data = Bytes::from(
        (0..DATA_BYTES_MAX)
            .map(|at| (at % 251) as u8)
            .collect::<Vec<_>>(),
    );
    let file = Fh3::from("file");
    let server = async {
        let mut peer = Peer::accept(&listener).await;
        let call = peer.call().await;
        let args: WriteArgs = decode_all(call.args.clone()).unwrap();
        assert!(args.data == data && args.count as usize == data.len() && args.offset == 1 << 40);
        let (count, committed) = (args.count, args.stable);
        let file_wcc = WccData::default();
        let verf = Writeverf3(*b"verifier");
        peer.answer(
            &call,
            &WriteRes::Ok(WriteOk {
                file_wcc,
                count,
                committed,
                verf,
            }),
        )
        .await;

        let call = peer.call().await;
        let ok = ReadOk {
            file_attributes: None,
            count,
            eof: true,
            data: args.data,
        };
        peer.answer(&call, &ReadRes::Ok(ok)).await;
    };
    let calls = async {
        let written = client
            .write(&file, 1 << 40, StableHow::Unstable, data.clone())
            .await;
        assert_eq!(written.unwrap().verf, Writeverf3(*b"verifier"));
        let read = client.read(&file, 0, DATA_BYTES_MAX as u32).await.unwrap();
        assert!(read.data == data && read.eof);
    };
    tokio::join!(server, calls);
}

#[tokio::test]
async fn what_the_protocol_has_no_room_for_is_not_sent() {
    let (_listener, address) = listen().await;
    let client = Client::new(address, options());
    let too_long = |result: Result<(), ClientError>| match result.unwrap_err() {
        ClientError::TooLong { what, .. } => what,
        other => panic!("{other:?}"),
    };
    let dir = Fh3::from("dir");
    let long_fh = Fh3(vec![0; FHSIZE + 1].into());
    let long_name = Filename3(vec![0; FILENAME_BYTES_MAX + 1].into());
    let long_data = Bytes::from(vec![0; DATA_BYTES_MAX + 1]);
    assert_eq!(
        too_long(client.getattr(&long_fh).await.map(drop)),
        "file handle"
    );
    assert_eq!(
        too_long(client.remove(&dir, long_name).await.map(drop)),
        "name"
    );
    let write = client.write(&dir, 0, StableHow::FileSync, long_data).await;
    assert_eq!(too_long(write.map(drop)), "data");
    assert_eq!(
        too_long(client.read(&dir, 0, u32::MAX).await.map(drop)),
        "count"
    );
}

/// A client that comes back soon, as often as `retries_max`, with one request in flight at a time.
fn patient(address: SocketAddr, retries_max: u32) -> Client {
    let options = Options {
        jukebox_retries_max: retries_max,
        jukebox_pause_min: Duration::from_millis(1),
        jukebox_pause_max: Duration::from_millis(2),
        requests_max: 1,
        ..options()
    };
    Client::new(address, options)
}

fn later() -> Res3<CommitOk, WccData> {
    Res3::Fail(Nfsstat3::Jukebox, WccData::default())
}

fn commit(client: &Client) -> tokio::task::JoinHandle<Result<CommitOk, ClientError>> {
    let client = client.clone();
    tokio::spawn(async move { client.commit(&Fh3(Bytes::from_static(b"file")), 0, 0).await })
}

#[tokio::test]
async fn who_is_asked_to_come_back_later_does_with_a_new_request() {
    let (listener, address) = listen().await;
    let client = patient(address, 2);
    let caller = commit(&client);
    let mut peer = Peer::accept(&listener).await;
    let mut calls = Vec::new();
    for _ in 0..2 {
        let call = peer.call().await;
        peer.answer(&call, &later()).await;
        calls.push(call);
    }
    let last = peer.call().await;
    let ok = CommitOk {
        file_wcc: WccData::default(),
        verf: Writeverf3([7; 8]),
    };
    peer.answer(&last, &Res3::<_, WccData>::Ok(ok)).await;
    assert_eq!(caller.await.unwrap(), Ok(ok));
    calls.push(last);
    let mut xids: Vec<u32> = calls.iter().map(|call| call.xid).collect();
    xids.dedup();
    assert_eq!(xids.len(), 3);
    assert!(
        calls
            .iter()
            .all(|c| (c.proc, &c.args) == (21, &calls[0].args))
    );
    assert_eq!(client.stats().retransmissions, 0);
}

#[tokio::test]
async fn a_server_that_is_never_ready_is_asked_so_often_only() {
    let (listener, address) = listen().await;
    let client = patient(address, 2);
    let caller = commit(&client);
    let mut peer = Peer::accept(&listener).await;
    for _ in 0..3 {
        let call = peer.call().await;
        peer.answer(&call, &later()).await;
    }
    assert_eq!(caller.await.unwrap(), Err(Nfsstat3::Jukebox.into()));
    drop(client);
    peer.closed().await;
}

/// Waits longer than any test before it asks again.
fn very_patient(address: SocketAddr) -> Client {
    let options = Options {
        jukebox_pause_min: NEVER,
        requests_max: 1,
        ..options()
    };
    Client::new(address, options)
}

#[tokio::test]
async fn waiting_for_a_server_keeps_nobody_else_from_asking() {
    let (listener, address) = listen().await;
    let client = very_patient(address);
    let waiting = commit(&client);
    let mut peer = Peer::accept(&listener).await;
    let call = peer.call().await;
    peer.answer(&call, &later()).await;
    let other = start(&client, 42);
    let call = peer.call().await;
    assert_eq!((call.prog, number_of(&call)), (PROG, 42));
    peer.answer(&call, &43_u32).await;
    assert_eq!(other.await.unwrap(), Ok(43));
    waiting.abort();
}

#[tokio::test]
async fn waiting_for_a_server_counts_for_the_time_limit() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        loop {
            let call = peer.call().await;
            peer.answer(&call, &later()).await;
        }
    });
    let client = very_patient(address).with_request_timeout(Some(SOON));
    let waiting = commit(&client).await.unwrap();
    assert_eq!(waiting, Err(ClientError::TimedOut(SOON)));
    server.abort();
}
