//! An engine that fails stops the replica, and no client is told anything.

use crate::server::{Server, encoded};
use bytes::Bytes;
use haven_fs::model::Model;
use haven_fs::*;
use haven_nfsd::Prepared;
use haven_proto::nfs3::{Args3, GetattrArgs, MkdirArgs, PROGRAM, RemoveArgs, Sattr3, VERSION};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

/// The model, until its switch is thrown.
struct Failing {
    model: Model,
    broken: AtomicBool,
}

impl Failing {
    fn check(&self) -> FsResult<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(FsError::Fatal("disk on fire".to_owned()));
        }
        Ok(())
    }
}

type Visit<'a> = &'a mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>;

#[rustfmt::skip]
impl Filesystem for Failing {
    fn root(&self) -> Ino { self.model.root() }
    fn set_level(&mut self, level: Level) { self.model.set_level(level); }
    fn attr(&self, ino: Ino) -> FsResult<Attr> { self.check()?; self.model.attr(ino) }
    fn lookup(&self, c: &Cred, d: Ino, n: &[u8]) -> FsResult<Attr> { self.model.lookup(c, d, n) }
    fn access(&self, c: &Cred, i: Ino, w: Access) -> FsResult<Access> { self.model.access(c, i, w) }
    fn readlink(&self, c: &Cred, i: Ino) -> FsResult<Bytes> { self.model.readlink(c, i) }
    fn read(&self, c: &Cred, i: Ino, o: u64, l: u32) -> FsResult<ReadData> { self.model.read(c, i, o, l) }
    fn readdir(&self, c: &Cred, d: Ino, a: Cookie, b: bool, v: Visit<'_>) -> FsResult<bool> { self.model.readdir(c, d, a, b, v) }
    fn statfs(&self) -> FsResult<StatFs> { self.model.statfs() }
    fn create(&mut self, at: &Change, c: &Cred, d: Ino, n: &[u8], h: &Create) -> FsResult<Attr> { self.model.create(at, c, d, n, h) }
    fn mkdir(&mut self, at: &Change, c: &Cred, d: Ino, n: &[u8], a: &SetAttr) -> FsResult<Attr> { self.model.mkdir(at, c, d, n, a) }
    fn symlink(&mut self, at: &Change, c: &Cred, d: Ino, n: &[u8], t: &[u8], a: &SetAttr) -> FsResult<Attr> { self.model.symlink(at, c, d, n, t, a) }
    fn mknod(&mut self, at: &Change, c: &Cred, d: Ino, n: &[u8], k: Kind, a: &SetAttr) -> FsResult<Attr> { self.model.mknod(at, c, d, n, k, a) }
    fn setattr(&mut self, at: &Change, c: &Cred, i: Ino, a: &SetAttr, g: Option<Time>) -> FsResult<Attr> { self.model.setattr(at, c, i, a, g) }
    fn write(&mut self, at: &Change, c: &Cred, i: Ino, o: u64, data: &[u8]) -> FsResult<Attr> { self.model.write(at, c, i, o, data) }
    fn remove(&mut self, at: &Change, c: &Cred, d: Ino, n: &[u8]) -> FsResult<()> { self.model.remove(at, c, d, n) }
    fn rmdir(&mut self, at: &Change, c: &Cred, d: Ino, n: &[u8]) -> FsResult<()> { self.model.rmdir(at, c, d, n) }
    fn rename(&mut self, at: &Change, c: &Cred, d: Ino, n: &[u8], e: Ino, m: &[u8]) -> FsResult<()> { self.model.rename(at, c, d, n, e, m) }
    fn link(&mut self, at: &Change, c: &Cred, i: Ino, d: Ino, n: &[u8]) -> FsResult<Attr> { self.model.link(at, c, i, d, n) }
}

#[rustfmt::skip]
impl SystemTable for Failing {
    fn system_get(&self, key: &[u8]) -> FsResult<Option<Bytes>> { self.model.system_get(key) }
    fn system_put(&mut self, key: &[u8], value: Option<&[u8]>) -> FsResult<()> { self.model.system_put(key, value) }
    fn system_scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> FsResult<()> { self.model.system_scan(prefix, visit) }
}

#[test]
fn engine_failures_are_fatal_for_queries_and_mutations() {
    let mut s = Server::on(Failing {
        model: Model::new(),
        broken: AtomicBool::new(false),
    });
    let root = s.root.clone();
    let place = s.at(&root, "d");
    s.machine.fs().broken.store(true, Ordering::Relaxed);
    let calls = [
        Args3::Getattr(GetattrArgs { object: root }),
        Args3::Mkdir(MkdirArgs {
            place: place.clone(),
            attributes: Sattr3::default(),
        }),
        Args3::Remove(RemoveArgs { object: place }),
    ];
    for args in calls {
        let call = s.call(PROGRAM, VERSION, args.proc().to_wire(), encoded(&args));
        let failed = match s.prepared(&call, Time::default()) {
            Prepared::Query(request) => s.machine.query(&request).err(),
            Prepared::Mutation(change) => {
                let entry = s.entry(&change);
                s.machine.apply(9, &entry).err()
            }
            other => panic!("not sorted: {other:?}"),
        };
        let failed = failed.expect("the replica stops");
        assert!(
            failed.to_string().contains("disk on fire"),
            "{:?}: {failed}",
            args.proc()
        );
    }
}
