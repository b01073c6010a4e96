//! A disk whose flush hangs: the node must stop serving, and say why.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use haven::{quick, serve};
use haven_client::{Client, Options};
use haven_disk::testing::{DiskOp, FaultyDisk};
use haven_disk::{Disk, RealDisk};
use haven_proto::nfs3::{Createhow3, Sattr3, StableHow};
use parking_lot::{Condvar, Mutex};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Whether flushes hang.
#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock() = shut;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut shut = self.shut.lock();
        self.opened.wait_while(&mut shut, |shut| *shut);
    }
}

/// A real disk whose file flushes pass the gate.
fn hanging(dir: &Path, gate: &Arc<Gate>) -> Arc<dyn Disk> {
    let gate = Arc::clone(gate);
    let real = RealDisk::open(dir).unwrap();
    Arc::new(FaultyDisk::new(Arc::new(real), move |op, _| {
        if op == DiskOp::Sync {
            gate.pass();
        }
        Ok(())
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_whose_flush_hangs_stops_serving_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let wishes = quick::Wishes {
        data: dir.path(),
        export: "/data",
        nfs_port: 0,
        mount_port: 0,
        listen: Ipv4Addr::LOCALHOST.into(),
    };
    let mut config = quick::config(&wishes).unwrap();
    config.health.flush_max = Duration::from_millis(200);
    let gate = Arc::new(Gate::default());
    let disk = hanging(dir.path(), &gate);
    let (tell, told) = tokio::sync::oneshot::channel();
    let serving = move |ports| tell.send(ports).expect("somebody waits");
    let node = tokio::spawn(async move {
        serve::serve(config, disk, Path::new("/nonexistent"), None, serving).await
    });
    let ports = told.await.unwrap();
    let options = Options {
        mount_port: ports.mount,
        ..Options::default()
    };
    let client = Client::new((Ipv4Addr::LOCALHOST, ports.nfs).into(), options);
    let root = client.mount("/data").await.unwrap();
    let how = Createhow3::Guarded(Sattr3::default());
    let made = client.create(&root, "file", how).await.unwrap();
    let file = made.obj.unwrap();
    gate.set(true);
    let data = Bytes::from_static(b"never acknowledged");
    let write =
        tokio::spawn(async move { client.write(&file, 0, StableHow::FileSync, data).await });
    let why = node.await.unwrap().unwrap_err();
    assert!(
        why.contains("the disk hangs") && why.contains("flush_ms_max"),
        "{why}"
    );
    assert!(
        !write.is_finished(),
        "a change was acknowledged without being durable"
    );
    write.abort();
    // Lets the threads of this process end.
    gate.set(false);
}
