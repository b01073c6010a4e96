//! A disk whose flush hangs: the node must stop serving, and say why.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use haven::{quick, serve};
use haven_client::{Client, Options};
use haven_disk::{Disk, DiskFile, RealDisk, Space};
use haven_proto::nfs3::{Createhow3, Sattr3, StableHow};
use parking_lot::{Condvar, Mutex};
use std::io;
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

/// A real disk that hangs when told.
struct Hanging(RealDisk, Arc<Gate>);

struct HangingFile(Arc<dyn DiskFile>, Arc<Gate>);

impl Disk for Hanging {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.open(path, create)?;
        Ok(Arc::new(HangingFile(file, Arc::clone(&self.1))))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }
    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }
}

impl DiskFile for HangingFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
    fn write_vectored_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.0.write_vectored_at(offset, parts)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.allocate(offset, len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn sync(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync()
    }
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
    let disk = Arc::new(Hanging(
        RealDisk::open(dir.path()).unwrap(),
        Arc::clone(&gate),
    ));
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
