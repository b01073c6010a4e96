//! Exports from an exports(5) file, through a whole node but for its sockets: requests come from any address,
//! and the file changes while the node serves and while it is down.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use haven::clock::ServiceClock;
use haven::engine::{Engine, Outcome};
use haven::serve::Ports;
use haven::service::{Service, bindings};
use haven::space::SpaceGuard;
use haven::{exports, found, resolve};
use haven_config::Config;
use haven_consensus::{CheckpointPolicy, Consensus, ConsensusOptions, Timing};
use haven_log::{Log, LogOptions};
use haven_net::{Begun, Endpoint, Handler, Line, Verdict};
use haven_proto::mount::{self, Dirpath, Mountlist, Mountres3, Mountstat3};
use haven_proto::nfs3::{
    self, Diropargs3, Fh3, GetattrArgs, GetattrRes, MkdirArgs, MkdirRes, Nfsstat3, Proc3, Sattr3,
};
use haven_rpc::{AuthSys, Credential, decode_reply, encode_call};
use haven_xdr::{Decode, Gather, decode_all, encode_all};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(20);

/// A node without sockets and driver.
struct Node {
    dir: PathBuf,
    consensus: Consensus<Outcome>,
    service: Service,
    engine: Arc<Engine>,
    tasks: JoinSet<()>,
    xid: AtomicU32,
    /// Connections so far: one for each call, which ends without having acknowledged the reply.
    lines: AtomicU64,
}

/// Writes the exports(5) file and reads the configuration that names it.
fn configure(dir: &Path, listed: &str) -> Config {
    let text = "[node]\ndata = \"data\"\n[service]\nexports_file = \"exports\"\n";
    std::fs::write(dir.join("haven.toml"), text).unwrap();
    std::fs::write(dir.join("exports"), listed).unwrap();
    Config::load(&dir.join("haven.toml")).unwrap()
}

/// Opens the disk as soon as a node that was stopped has let go of it.
async fn open_disk(data: &Path) -> Arc<dyn haven_disk::Disk> {
    let until = Instant::now() + PATIENCE;
    loop {
        match haven::serve::open_disk(data) {
            Ok(disk) => return disk,
            Err(why) => assert!(Instant::now() < until, "{why}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Node {
    async fn start(dir: &Path, listed: &str) -> Self {
        let config = configure(dir, listed);
        let disk = open_disk(&dir.join("data")).await;
        let log = Log::open(Arc::clone(&disk), Path::new("log"), LogOptions::default()).unwrap();
        let space = SpaceGuard::new(Arc::clone(&disk), Some(0), log.clone()).unwrap();
        let engine = Engine::open(disk).unwrap();
        let options = ConsensusOptions {
            node_id: 1,
            cluster: "test".into(),
            peers: [(1, config.own().address)].into(),
            listen: config.own().address,
            security: None,
            timing: Timing::default(),
            checkpoints: CheckpointPolicy {
                entries: 100,
                bytes: 1 << 20,
                keep_entries: 0,
                ..CheckpointPolicy::default()
            },
            witness: false,
        };
        let machine = Arc::clone(&engine);
        let consensus = Consensus::start(options, log, machine).await.unwrap();
        let ports = Ports {
            nfs: 2049,
            mount: 20048,
            portmap: None,
        };
        let clock = ServiceClock::new(1);
        let bindings = bindings(config.service.listen, ports);
        let service = Service::new(
            exports::Exports::new(&config.exports, bindings),
            Arc::clone(&engine),
            consensus.clone(),
            Arc::new(haven_net::Gate::default()),
            space,
            Arc::new(haven::history::History::new("a", |_| None)),
            Arc::clone(&clock),
        );
        let mut leadership = consensus.leadership();
        leadership.wait_for(|now| now.is_leader).await.unwrap();
        consensus.barrier().await.unwrap();
        let table = service.exports();
        found::foundations(&consensus, &engine, &table, &clock)
            .await
            .unwrap();
        let (own, state) = (Arc::clone(&table), Arc::clone(&engine));
        let mut tasks = JoinSet::new();
        tasks.spawn(exports::follow(own, consensus.clone(), state, clock));
        tasks.spawn(resolve::keep_hosts(table));
        Self {
            dir: dir.to_owned(),
            consensus,
            service,
            engine,
            tasks,
            xid: AtomicU32::new(1),
            lines: AtomicU64::new(1),
        }
    }

    async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.consensus.shutdown().await;
    }

    /// What a reload does.
    fn reload(&self, listed: &str) {
        let config = configure(&self.dir, listed);
        self.service.exports().set(&config.exports);
    }

    async fn call<T: Decode>(&self, from: &str, prog: u32, proc: u32, args: Gather) -> T {
        let cred = Credential::Sys(AuthSys {
            stamp: 0,
            machine_name: Bytes::from_static(b"test"),
            uid: 0,
            gid: 0,
            gids: Vec::new(),
        });
        let xid = self.xid.fetch_add(1, Ordering::Relaxed);
        let call = encode_call(xid, prog, 3, proc, &cred, args).into_bytes();
        let connection = Endpoint {
            local: SocketAddr::from(([192, 0, 2, 100], 2049)),
            remote: from.parse().unwrap(),
        };
        let handled = async {
            let number = self.lines.fetch_add(1, Ordering::Relaxed);
            let line = Arc::new(Line::new(number, connection));
            self.service.opened(&line);
            let verdict = match self.service.begin(&line, call) {
                Begun::Done(verdict) => verdict,
                Begun::Work(work) => self.service.finish(work).await,
            };
            self.service.ended(&line, true);
            verdict
        };
        let handled = tokio::time::timeout(PATIENCE, handled).await;
        let (Verdict::Reply(reply) | Verdict::Noted(reply, _)) = handled.expect("answered in time")
        else {
            panic!("hung up")
        };
        match decode_reply(reply.into_bytes()).unwrap().outcome {
            haven_rpc::Outcome::Success(body) => decode_all(body).unwrap(),
            other => panic!("not executed: {other:?}"),
        }
    }

    async fn mount(&self, from: &str, path: &str) -> Result<Fh3, Mountstat3> {
        let args = encode_all(&Dirpath(Bytes::copy_from_slice(path.as_bytes())));
        match self.call(from, mount::PROGRAM, 1, args).await {
            Mountres3::Ok(ok) => Ok(Fh3(ok.fhandle.0)),
            Mountres3::Fail(status) => Err(status),
        }
    }

    /// Tries until a path can be mounted.
    async fn mount_soon(&self, from: &str, path: &str) -> Fh3 {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.mount(from, path).await {
                Ok(fh) => return fh,
                Err(why) => assert!(Instant::now() < until, "{path}: {why}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn getattr(&self, from: &str, object: &Fh3) -> Option<Nfsstat3> {
        let object = object.clone();
        let args = encode_all(&GetattrArgs { object });
        let proc = Proc3::Getattr.to_wire();
        let res: GetattrRes = self.call(from, nfs3::PROGRAM, proc, args).await;
        res.failure()
    }

    async fn mkdir(&self, from: &str, dir: &Fh3, name: &str) -> Option<Nfsstat3> {
        let place = Diropargs3 {
            dir: dir.clone(),
            name: name.into(),
        };
        let args = encode_all(&MkdirArgs {
            place,
            attributes: Sattr3::default(),
        });
        let proc = Proc3::Mkdir.to_wire();
        let res: MkdirRes = self.call(from, nfs3::PROGRAM, proc, args).await;
        res.failure()
    }

    async fn dump(&self) -> Vec<String> {
        let list: Mountlist = self
            .call("192.0.2.99:700", mount::PROGRAM, 2, Gather::new())
            .await;
        let text = |b: &Bytes| String::from_utf8(b.to_vec()).unwrap();
        let rows = list.0.iter();
        rows.map(|row| format!("{}:{}", text(&row.hostname.0), text(&row.directory.0)))
            .collect()
    }
}

const LISTED: &str = "\
/srv/a   10.0.0.0/24(rw,no_root_squash,sync)  *(ro)
/srv/b   10.0.0.7(rw,no_root_squash,insecure)
/named   localhost(rw,no_root_squash)
";
const INSIDE: &str = "10.0.0.5:700";
const OUTSIDE: &str = "10.0.1.5:700";

#[tokio::test]
async fn an_exports_file_says_who_may_what() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), LISTED).await;
    let a = node.mount(INSIDE, "/srv/a").await.unwrap();
    assert_eq!(node.mkdir(INSIDE, &a, "d").await, None);
    assert_eq!(node.mount(OUTSIDE, "/srv/a").await, Ok(a.clone()));
    assert_eq!(node.mkdir(OUTSIDE, &a, "e").await, Some(Nfsstat3::RoFs));
    let unprivileged = "10.0.0.5:1024";
    assert_eq!(
        node.mount(unprivileged, "/srv/a").await,
        Err(Mountstat3::Acces)
    );
    assert_eq!(node.getattr(unprivileged, &a).await, Some(Nfsstat3::Perm));

    let b = node.mount("10.0.0.7:5000", "/srv/b").await.unwrap();
    assert_eq!(node.mkdir("10.0.0.7:5000", &b, "d").await, None);
    assert_eq!(node.mount(INSIDE, "/srv/b").await, Err(Mountstat3::Acces));
    assert_eq!(node.getattr(INSIDE, &b).await, Some(Nfsstat3::Stale));
    for path in ["/srv", "/", "/named/../srv/b"] {
        assert_eq!(
            node.mount(INSIDE, path).await,
            Err(Mountstat3::Acces),
            "{path}"
        );
    }
    node.mount_soon("127.0.0.1:700", "/named").await;
    assert_eq!(node.mount(INSIDE, "/named").await, Err(Mountstat3::Acces));
    node.stop().await;
}

#[tokio::test]
async fn rules_change_while_the_node_serves() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), LISTED).await;
    let a = node.mount(INSIDE, "/srv/a").await.unwrap();
    node.reload("/srv/a *(ro)\n/new *(rw,no_root_squash)\n");
    assert_eq!(node.mkdir(INSIDE, &a, "d").await, Some(Nfsstat3::RoFs));
    let new = node.mount_soon(INSIDE, "/new").await;
    assert_eq!(node.mkdir(INSIDE, &new, "d").await, None);
    node.reload("/new *(rw)\n");
    assert_eq!(node.getattr(INSIDE, &a).await, Some(Nfsstat3::Stale));
    assert_eq!(node.getattr(INSIDE, &new).await, None);
    node.reload(LISTED);
    assert_eq!(node.getattr(INSIDE, &a).await, None, "as it was before");
    assert_eq!(node.getattr(INSIDE, &new).await, Some(Nfsstat3::Stale));
    assert_eq!(node.mkdir(INSIDE, &a, "d").await, None);
    node.stop().await;
}

#[tokio::test]
async fn handles_and_mounts_outlive_restarts_and_absence() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), LISTED).await;
    let a = node.mount(INSIDE, "/srv/a").await.unwrap();
    let b = node.mount("10.0.0.7:700", "/srv/b").await.unwrap();
    let mounts = ["10.0.0.5:/srv/a", "10.0.0.7:/srv/b"];
    assert_eq!(node.dump().await, mounts);
    let applied = node.consensus.applied_index();
    let unmount = || encode_all(&Dirpath(Bytes::from_static(b"/srv/c")));
    let () = node.call(INSIDE, mount::PROGRAM, 3, unmount()).await;
    assert_eq!(
        node.consensus.applied_index(),
        applied,
        "nothing new to log"
    );
    node.stop().await;

    let node = Node::start(dir.path(), "/srv/c *(rw)\n/srv/b *(rw)\n").await;
    assert_eq!(node.getattr(INSIDE, &a).await, Some(Nfsstat3::Stale));
    assert_eq!(node.mount("10.0.0.7:700", "/srv/b").await, Ok(b));
    assert_eq!(node.dump().await, mounts);
    node.stop().await;

    let node = Node::start(dir.path(), LISTED).await;
    // None of the numbers that were used before.
    node.xid.store(1_000, Ordering::Relaxed);
    assert_eq!(node.mount(INSIDE, "/srv/a").await, Ok(a));
    let unmount = || encode_all(&Dirpath(Bytes::from_static(b"/srv/a")));
    let () = node.call(INSIDE, mount::PROGRAM, 3, unmount()).await;
    assert_eq!(node.dump().await, mounts, "it was mounted twice");
    let () = node.call(INSIDE, mount::PROGRAM, 3, unmount()).await;
    assert_eq!(node.dump().await, mounts[1..]);
    node.stop().await;
}

#[tokio::test]
async fn an_export_that_cannot_be_made_keeps_nobody_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), "/a *(rw,no_root_squash)\n").await;
    let a = node.mount(INSIDE, "/a").await.unwrap();
    let args = nfs3::CreateArgs {
        place: Diropargs3 {
            dir: a.clone(),
            name: "file".into(),
        },
        how: nfs3::Createhow3::Guarded(Sattr3::default()),
    };
    let create = Proc3::Create.to_wire();
    let made: nfs3::CreateRes = node
        .call(INSIDE, nfs3::PROGRAM, create, encode_all(&args))
        .await;
    assert_eq!(made.failure(), None);
    node.stop().await;
    let node = Node::start(dir.path(), "/a *(rw)\n/a/file *(rw)\n/b *(rw)\n").await;
    assert_eq!(node.getattr(INSIDE, &a).await, None);
    assert!(node.mount(INSIDE, "/b").await.is_ok());
    let file = node.mount(INSIDE, "/a/file").await;
    assert!(file.is_ok(), "it is one below /a: {file:?}");
    let ids = node.engine.read(|machine| machine.export_ids().len());
    assert_eq!(ids, 2, "what cannot be made has no number");
    node.stop().await;
}

#[tokio::test]
async fn a_retransmission_gets_the_first_reply_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), LISTED).await;
    let a = node.mount(INSIDE, "/srv/a").await.unwrap();
    assert_eq!(node.mkdir(INSIDE, &a, "d").await, None);
    assert_eq!(node.service.meter().replays(), 0);
    node.xid.fetch_sub(1, Ordering::Relaxed);
    assert_eq!(node.mkdir(INSIDE, &a, "d").await, None, "sent again");
    assert_eq!(node.service.meter().replays(), 1);
    assert_eq!(
        node.mkdir(INSIDE, &a, "d").await,
        Some(Nfsstat3::Exist),
        "a new call"
    );
    assert_eq!(node.service.meter().replays(), 1);
    node.stop().await;
}
