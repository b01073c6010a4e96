//! A server without a network: one machine, one client, short names for the procedures.

use bytes::Bytes;
use haven_fs::model::Model;
use haven_fs::{Filesystem, SystemTable, Time};
use haven_nfsd::{
    ChangeId, Client, ClientNames, ConnectionId, Entry, Export, Exports, Machine, Mutation, News,
    Options, Origin, Outcome, Prepared, Service, Squash, Transport, Who, answer_bytes_max, prepare,
};
use haven_proto::mount;
use haven_proto::nfs3::*;
use haven_rpc::{AuthSys, Call, Credential, decode_reply, encode_call};
use haven_xdr::{Decode, Encode, Gather, decode_all, encode_all};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub const VOLUME_ID: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
pub const HANDLE_KEY: [u8; 16] = [42; 16];
pub const DATA: &str = "/data";

pub struct Server<F = Model> {
    pub machine: Machine<F>,
    pub service: Service,
    pub client: IpAddr,
    pub port: u16,
    /// Over which the next change comes.
    pub connection: ConnectionId,
    /// What the next change tells.
    pub news: Vec<News>,
    /// Changes so far.
    pub changes: u64,
    /// Where it asks, and over what.
    pub local: IpAddr,
    pub transport: Transport,
    /// Names of the client, once somebody has looked.
    pub names: Option<Vec<String>>,
    pub cred: Credential,
    pub xid: u32,
    pub index: u64,
    /// Everything that was applied.
    pub log: Vec<Bytes>,
    pub root: Fh3,
}

pub fn auth_sys(uid: u32, gid: u32, gids: &[u32]) -> Credential {
    let machine_name = Bytes::from_static(b"client");
    Credential::Sys(AuthSys {
        stamp: 1,
        machine_name,
        uid,
        gid,
        gids: gids.to_vec(),
    })
}

/// Everybody, with these options.
pub fn everybody(options: Options) -> Vec<Client> {
    vec![Client {
        who: Who::Everybody,
        options,
    }]
}

/// Options that leave callers what they are.
pub fn plain() -> Options {
    Options {
        squash: Squash {
            root: false,
            ..Squash::default()
        },
        ..Options::default()
    }
}

/// The entry that makes an export.
pub fn export_entry(path: &str, mode: u32) -> Bytes {
    let time = Time {
        secs: 1_000,
        nanos: 0,
    };
    let path = Bytes::copy_from_slice(path.as_bytes());
    let entry = Entry::Export {
        path,
        uid: 0,
        gid: 0,
        mode,
        time,
    };
    entry.encode().unwrap()
}

/// Entries that every volume begins with.
pub fn first_entries() -> Vec<Bytes> {
    let time = Time {
        secs: 1_000,
        nanos: 0,
    };
    let genesis = Entry::Genesis {
        volume_id: VOLUME_ID,
        handle_key: HANDLE_KEY,
        time,
    };
    vec![genesis.encode().unwrap(), export_entry(DATA, 0o777)]
}

impl Server<Model> {
    pub fn new() -> Self {
        Self::on(Model::new())
    }
}

impl<F: Filesystem + SystemTable> Server<F> {
    pub fn on(fs: F) -> Self {
        let mut server = Self {
            machine: Machine::new(fs).unwrap(),
            service: Service::default(),
            client: IpAddr::from([192, 0, 2, 1]),
            port: 700,
            connection: ConnectionId { term: 1, number: 1 },
            news: Vec::new(),
            changes: 0,
            local: IpAddr::from([192, 0, 2, 100]),
            transport: Transport::Stream,
            names: None,
            cred: auth_sys(0, 0, &[]),
            xid: 0,
            index: 0,
            log: Vec::new(),
            root: Fh3(Bytes::new()),
        };
        for entry in first_entries() {
            assert_eq!(server.apply(entry), Outcome::Done);
        }
        server.offer(&[(DATA, everybody(plain()))]);
        server.root = server.mount(DATA).unwrap();
        server
    }

    /// Exports these from now on, as far as they have been made.
    pub fn offer(&mut self, exports: &[(&str, Vec<Client>)]) {
        let export = |(path, clients): &(&str, Vec<Client>)| Export {
            path: Bytes::copy_from_slice(path.as_bytes()),
            clients: clients.clone(),
        };
        let mut exports = Exports::new(exports.iter().map(export).collect());
        exports.bind(&self.machine.export_ids());
        self.service.exports = Arc::new(exports);
    }

    /// Makes exports and offers them.
    pub fn export(&mut self, exports: &[(&str, Vec<Client>)]) {
        for (path, _) in exports {
            assert_eq!(self.apply(export_entry(path, 0o777)), Outcome::Done);
        }
        self.offer(exports);
    }

    pub fn apply(&mut self, entry: Bytes) -> Outcome {
        self.index += 1;
        self.log.push(entry.clone());
        self.machine.apply(self.index, &entry).unwrap()
    }

    /// A raw call with a transaction id of its own.
    pub fn call(&mut self, prog: u32, vers: u32, proc: u32, args: Gather) -> Call {
        self.xid += 1;
        let cred = self.cred.clone();
        Call {
            xid: self.xid,
            prog,
            vers,
            proc,
            cred,
            args: args.into_bytes(),
        }
    }

    /// The RPC reply.
    pub fn send(&mut self, call: &Call) -> Gather {
        let now = Time {
            secs: 2_000 + i64::from(call.xid),
            nanos: 0,
        };
        let reply = match self.prepared(call, now) {
            Prepared::Reply(reply) => reply,
            Prepared::Query(request) => self.machine.query(&request).unwrap(),
            Prepared::Mutation(change) => {
                let entry = self.entry(&change);
                self.reply_to(entry)
            }
            Prepared::Mount { request, entry } if self.machine.needs_entry(&request) => {
                self.reply_to(entry)
            }
            Prepared::Mount { request, .. } => self.machine.query(&request).unwrap(),
            Prepared::WantsNames => panic!("nobody has looked for names"),
        };
        // Whatever is asked, the reply is no longer than was foretold.
        let (args, cred) = (call.args.clone().into(), &call.cred);
        let message = encode_call(call.xid, call.prog, call.vers, call.proc, cred, args);
        let exports = &self.service.exports;
        let most = answer_bytes_max(&message.into_bytes(), || exports.listing_bytes());
        assert!(
            reply.len() <= most,
            "{} where {most}: {call:?}",
            reply.len()
        );
        reply
    }

    /// The entry of a change that comes next over the connection.
    pub fn entry(&mut self, change: &Mutation) -> Bytes {
        self.changes += 1;
        let id = ChangeId {
            connection: self.connection,
            seq: self.changes,
        };
        change.entry(id, std::mem::take(&mut self.news)).unwrap()
    }

    /// The client's connection breaks, and it makes another.
    pub fn reconnect(&mut self) {
        let connection = self.connection;
        self.news.push(News::Gone { connection });
        self.connection.number += 1;
    }

    pub fn prepared(&self, call: &Call, now: Time) -> Prepared {
        let names = match &self.names {
            None => ClientNames::Unasked,
            Some(names) => ClientNames::Known(names),
        };
        let origin = Origin {
            peer: SocketAddr::new(self.client, self.port),
            local: self.local,
            transport: self.transport,
            names,
        };
        prepare(call, origin, &self.service, now)
    }

    fn reply_to(&mut self, entry: Bytes) -> Gather {
        match self.apply(entry) {
            Outcome::Reply { message, .. } => message,
            other => panic!("a change is answered, not {other:?}"),
        }
    }

    /// The results of an NFSv3 procedure, which must have been executed.
    pub fn nfs<T: Decode>(&mut self, args: Args3) -> T {
        let proc = args.proc().to_wire();
        let call = self.call(PROGRAM, VERSION, proc, encode_all(&args));
        results(self.send(&call))
    }

    pub fn mnt<T: Decode>(&mut self, version: u32, proc: mount::Procedure, args: Gather) -> T {
        let call = self.call(mount::PROGRAM, version, proc.to_wire(), args);
        results(self.send(&call))
    }

    pub fn mount(&mut self, path: &str) -> Result<Fh3, mount::Mountstat3> {
        let path = mount::Dirpath(Bytes::copy_from_slice(path.as_bytes()));
        let args = encode_all(&path);
        match self.mnt(mount::VERSION3, mount::Procedure::Mnt, args) {
            mount::Mountres3::Ok(ok) => {
                assert_eq!(ok.auth_flavors, [1]);
                Ok(Fh3(ok.fhandle.0))
            }
            mount::Mountres3::Fail(status) => Err(status),
        }
    }

    pub fn as_user(&mut self, uid: u32, gid: u32) {
        self.cred = auth_sys(uid, gid, &[]);
    }

    pub fn at(&self, dir: &Fh3, name: &str) -> Diropargs3 {
        Diropargs3 {
            dir: dir.clone(),
            name: name.into(),
        }
    }

    pub fn getattr(&mut self, object: &Fh3) -> Result<Fattr3, Nfsstat3> {
        let args = Args3::Getattr(GetattrArgs {
            object: object.clone(),
        });
        self.nfs::<GetattrRes>(args)
            .ok_or_status()
            .map(|ok| ok.obj_attributes)
    }

    pub fn lookup(&mut self, dir: &Fh3, name: &str) -> LookupRes {
        let what = self.at(dir, name);
        self.nfs(Args3::Lookup(LookupArgs { what }))
    }

    pub fn create(&mut self, dir: &Fh3, name: &str, how: Createhow3) -> CreateRes {
        let place = self.at(dir, name);
        self.nfs(Args3::Create(CreateArgs { place, how }))
    }

    /// A new file with mode 0644.
    pub fn file(&mut self, dir: &Fh3, name: &str) -> Fh3 {
        let how = Createhow3::Guarded(mode(0o644));
        self.create(dir, name, how)
            .ok_or_status()
            .unwrap()
            .obj
            .unwrap()
    }

    pub fn mkdir(&mut self, dir: &Fh3, name: &str) -> MkdirRes {
        let place = self.at(dir, name);
        self.nfs(Args3::Mkdir(MkdirArgs {
            place,
            attributes: mode(0o755),
        }))
    }

    /// A new directory with mode 0755.
    pub fn dir(&mut self, dir: &Fh3, name: &str) -> Fh3 {
        self.mkdir(dir, name).ok_or_status().unwrap().obj.unwrap()
    }

    pub fn write(&mut self, file: &Fh3, offset: u64, data: &[u8]) -> WriteRes {
        let (count, data) = (data.len() as u32, Bytes::copy_from_slice(data));
        let (file, stable) = (file.clone(), StableHow::Unstable);
        self.nfs(Args3::Write(WriteArgs {
            file,
            offset,
            count,
            stable,
            data,
        }))
    }

    pub fn read(&mut self, file: &Fh3, offset: u64, count: u32) -> ReadRes {
        self.nfs(Args3::Read(ReadArgs {
            file: file.clone(),
            offset,
            count,
        }))
    }

    pub fn setattr(
        &mut self,
        object: &Fh3,
        new_attributes: Sattr3,
        guard: Option<Nfstime3>,
    ) -> SetattrRes {
        let object = object.clone();
        self.nfs(Args3::Setattr(SetattrArgs {
            object,
            new_attributes,
            guard,
        }))
    }

    pub fn remove(&mut self, dir: &Fh3, name: &str) -> RemoveRes {
        let object = self.at(dir, name);
        self.nfs(Args3::Remove(RemoveArgs { object }))
    }

    pub fn rename(&mut self, from: (&Fh3, &str), to: (&Fh3, &str)) -> RenameRes {
        let (from, to) = (self.at(from.0, from.1), self.at(to.0, to.1));
        self.nfs(Args3::Rename(RenameArgs { from, to }))
    }

    pub fn rmdir(&mut self, dir: &Fh3, name: &str) -> RmdirRes {
        let object = self.at(dir, name);
        self.nfs(Args3::Rmdir(RmdirArgs { object }))
    }
}

/// The results in an RPC reply, which must be a success.
pub fn results<T: Decode>(reply: Gather) -> T {
    match decode_reply(reply.into_bytes()).unwrap().outcome {
        haven_rpc::Outcome::Success(body) => decode_all(body).unwrap(),
        other => panic!("not executed: {other:?}"),
    }
}

pub fn mode(mode: u32) -> Sattr3 {
    Sattr3 {
        mode: Some(mode),
        ..Sattr3::default()
    }
}

/// What wcc data say before a change.
pub fn wcc_of(attr: &Fattr3) -> Option<WccAttr> {
    Some(WccAttr::from(attr))
}

pub fn encoded(value: &impl Encode) -> Gather {
    encode_all(value)
}
