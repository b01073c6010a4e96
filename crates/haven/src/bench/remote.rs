//! One server, for what happens once: finding the ports, mounting, making and removing directories.
//!
//! Blocking, one call at a time, with typed messages. Everything that can go wrong is said in words that tell what
//! to do about it.

use super::target::Target;
use bytes::Bytes;
use haven_proto::mount::{self, Dirpath, Mountres3, Mountstat3};
use haven_proto::nfs3::*;
use haven_proto::portmap::{self, Mapping};
use haven_rpc::record::{FragmentHeader, HEADER_BYTES};
use haven_rpc::{AuthSys, Credential, Outcome, decode_reply, encode_call};
use haven_xdr::{Decode, Encode, decode_all, encode_all};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long connecting may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Longest reply that is accepted here.
const REPLY_BYTES_MAX: usize = 2 << 20;
/// Ports that servers take for a sign of the superuser, last first (the kernel server's option `secure`).
const RESERVED_PORTS: std::ops::RangeInclusive<u16> = 600..=1023;
/// Bytes of one page of a directory listing.
const PAGE_BYTES: u32 = 64 << 10;

/// Who asks, and how.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) cred: Credential,
    /// Whether to connect from a port below 1024.
    pub(super) reserved_ports: bool,
    /// How long a reply may take.
    pub(super) patience: Duration,
}

impl Caller {
    pub(super) fn new(uid: u32, gid: u32, reserved_ports: bool, patience: Duration) -> Self {
        let cred = Credential::Sys(AuthSys {
            stamp: 0,
            machine_name: Bytes::from_static(b"haven-bench"),
            uid,
            gid,
            gids: Vec::new(),
        });
        Self {
            cred,
            reserved_ports,
            patience,
        }
    }
}

/// A mounted export.
#[derive(Debug)]
pub(super) struct Remote {
    /// Where NFS is served.
    pub(super) address: SocketAddr,
    pub(super) root: Fh3,
    caller: Caller,
    session: Session,
}

impl Remote {
    /// Finds the server and mounts the export.
    pub(super) fn mount(target: &Target, caller: Caller) -> Result<Self, String> {
        let ports = Ports {
            target,
            caller: &caller,
        };
        let mount_at = ports.find("MOUNT", target.mount_port, mount::PROGRAM, mount::VERSION3)?;
        let root = mount_root(target, mount_at, &caller)?;
        let address = ports.find("NFS", target.nfs_port, PROGRAM, VERSION)?;
        let session = Session::connect("NFS", address, &caller)?;
        Ok(Self {
            address,
            root,
            caller,
            session,
        })
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Another connection to the NFS server.
    pub(super) fn connect(&self) -> Result<TcpStream, String> {
        connect("NFS", self.address, &self.caller)
    }

    /// Most bytes of a READ and of a WRITE.
    pub(super) fn limits(&mut self) -> Result<(u64, u64), String> {
        let args = FsinfoArgs {
            fsroot: self.root.clone(),
        };
        let ok: FsinfoOk = self.nfs::<_, _, PostOpAttr>(Proc3::Fsinfo, &args)?;
        Ok((ok.rtmax.into(), ok.wtmax.into()))
    }

    /// Makes a directory that did not exist.
    pub(super) fn mkdir(&mut self, dir: &Fh3, name: &str) -> Result<Fh3, String> {
        let args = MkdirArgs {
            place: place(dir, name),
            attributes: Sattr3 {
                mode: Some(0o755),
                ..Sattr3::default()
            },
        };
        let ok: CreateOk = self.nfs::<_, _, WccData>(Proc3::Mkdir, &args)?;
        ok.obj.map_or_else(|| self.lookup(dir, name), Ok)
    }

    pub(super) fn lookup(&mut self, dir: &Fh3, name: &str) -> Result<Fh3, String> {
        let args = LookupArgs {
            what: place(dir, name),
        };
        let ok: LookupOk = self.nfs::<_, _, PostOpAttr>(Proc3::Lookup, &args)?;
        Ok(ok.object)
    }

    pub(super) fn rmdir(&mut self, dir: &Fh3, name: &str) -> Result<(), String> {
        let args = RmdirArgs {
            object: place(dir, name),
        };
        self.nfs::<_, WccData, WccData>(Proc3::Rmdir, &args)?;
        Ok(())
    }

    /// The first names of a directory, without `.` and `..`; none: it is empty.
    pub(super) fn some_names(&mut self, dir: &Fh3) -> Result<Vec<Bytes>, String> {
        let mut args = ReaddirArgs {
            dir: dir.clone(),
            cookie: Cookie3(0),
            cookieverf: Cookieverf3::default(),
            count: PAGE_BYTES,
        };
        loop {
            let page: ReaddirOk = self.nfs::<_, _, PostOpAttr>(Proc3::Readdir, &args)?;
            let last = page.entries.last().map(|e| e.cookie);
            let names = page.entries.into_iter().map(|e| e.name.0);
            let names: Vec<_> = names.filter(|n| n != "." && n != "..").collect();
            match last {
                Some(cookie) if names.is_empty() && !page.eof => args.cookie = cookie,
                _ => return Ok(names),
            }
            args.cookieverf = page.cookieverf;
        }
    }

    fn nfs<A: Encode, T: Decode, F: Decode>(&mut self, proc: Proc3, args: &A) -> Result<T, String> {
        match self.session.call(PROGRAM, VERSION, proc.to_wire(), args)? {
            Res3::<T, F>::Ok(ok) => Ok(ok),
            Res3::Fail(status, _) => Err(failed(proc, Some(status), status.to_wire())),
        }
    }
}

fn place(dir: &Fh3, name: &str) -> Diropargs3 {
    Diropargs3 {
        dir: dir.clone(),
        name: name.into(),
    }
}

/// What to say about a procedure that failed.
pub(super) fn failed(proc: Proc3, status: Option<Nfsstat3>, number: u32) -> String {
    let name = format!("{proc:?}").to_uppercase();
    let Some(status) = status else {
        return format!("{name} failed with status {number}");
    };
    let advice = match status {
        Nfsstat3::Acces | Nfsstat3::Perm => {
            ": not enough permissions; run with --uid 0, or make the exported directory writable for this user"
        }
        Nfsstat3::NoSpc | Nfsstat3::DQuot => ": the server has no space left",
        Nfsstat3::RoFs => ": the export is read-only",
        Nfsstat3::Exist => {
            ": the name exists already; remove what an earlier run has left, or give another --seed"
        }
        Nfsstat3::Jukebox => ": the server asks to come back later; is it in its grace period?",
        _ => "",
    };
    format!("{name} failed with {status}{advice}")
}

fn mount_root(target: &Target, at: SocketAddr, caller: &Caller) -> Result<Fh3, String> {
    let mut session = Session::connect("MOUNT", at, caller)?;
    let path = Dirpath(Bytes::copy_from_slice(target.export.as_bytes()));
    let proc = mount::Procedure::Mnt.to_wire();
    match session.call(mount::PROGRAM, mount::VERSION3, proc, &path)? {
        Mountres3::Ok(ok) => Ok(Fh3(ok.fhandle.0)),
        Mountres3::Fail(status) => {
            let advice = match status {
                Mountstat3::NoEnt => ": there is no such export",
                Mountstat3::Acces | Mountstat3::Perm => {
                    ": there is no such export, or this machine may not mount it; some servers insist on --reserved-ports"
                }
                _ => "",
            };
            let (export, host) = (&target.export, &target.host);
            Err(format!(
                "{host} refuses to export {export} with {status}{advice}"
            ))
        }
    }
}

struct Ports<'a> {
    target: &'a Target,
    caller: &'a Caller,
}

impl Ports<'_> {
    /// The address of a program: as given, or as the portmapper says.
    fn find(
        &self,
        what: &str,
        port: Option<u16>,
        prog: u32,
        vers: u32,
    ) -> Result<SocketAddr, String> {
        if let Some(port) = port {
            return self.resolve(port);
        }
        let option = format!("{}port", what.to_lowercase());
        let hint = |e| format!("{e}; the port of {what} can be given with ?{option}=N");
        let address = self.resolve(portmap::PORT)?;
        let mut session = Session::connect("the portmapper", address, self.caller).map_err(hint)?;
        let wanted = Mapping {
            prog,
            vers,
            prot: portmap::IPPROTO_TCP,
            port: 0,
        };
        let proc = portmap::Procedure::Getport.to_wire();
        let port: u32 = session.call(portmap::PROGRAM, portmap::VERSION, proc, &wanted)?;
        match u16::try_from(port) {
            Ok(port) if port > 0 => self.resolve(port),
            _ => Err(hint(format!(
                "the portmapper of {} knows no {what} version {vers} over TCP",
                self.target.host
            ))),
        }
    }

    fn resolve(&self, port: u16) -> Result<SocketAddr, String> {
        let host = self.target.host.as_str();
        let mut found = (host, port)
            .to_socket_addrs()
            .map_err(|e| format!("cannot find the address of {host}: {e}"))?;
        found.next().ok_or_else(|| format!("{host} has no address"))
    }
}

fn connect(what: &str, address: SocketAddr, caller: &Caller) -> Result<TcpStream, String> {
    let words = |e: std::io::Error| format!("cannot reach {what} at {address}: {e}");
    let socket = || {
        Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )
    };
    if !caller.reserved_ports {
        let socket = socket().map_err(words)?;
        socket
            .connect_timeout(&address.into(), CONNECT_PATIENCE)
            .map_err(words)?;
        return Ok(socket.into());
    }
    let any: SocketAddr = if address.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    for port in RESERVED_PORTS.rev() {
        let socket = socket().map_err(words)?;
        match socket
            .bind(&SocketAddr::new(any.ip(), port).into())
            .and_then(|()| socket.connect_timeout(&address.into(), CONNECT_PATIENCE))
        {
            Ok(()) => return Ok(socket.into()),
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::AddrInUse | std::io::ErrorKind::AddrNotAvailable
                ) => {}
            Err(e) => return Err(format!("{} (from the reserved port {port})", words(e))),
        }
    }
    Err("no port below 1024 is free".into())
}

/// A connection on which one call is made at a time.
#[derive(Debug)]
struct Session {
    what: String,
    stream: TcpStream,
    cred: Credential,
    xid: u32,
}

impl Session {
    fn connect(what: &str, address: SocketAddr, caller: &Caller) -> Result<Self, String> {
        let stream = connect(what, address, caller)?;
        let set = |s: &TcpStream| {
            s.set_nodelay(true)?;
            s.set_read_timeout(Some(caller.patience))?;
            s.set_write_timeout(Some(caller.patience))
        };
        set(&stream).map_err(|e| format!("{what} at {address}: {e}"))?;
        Ok(Self {
            what: format!("{what} at {address}"),
            stream,
            cred: caller.cred.clone(),
            xid: random_xid()?,
        })
    }

    fn call<A: Encode, R: Decode>(
        &mut self,
        prog: u32,
        vers: u32,
        proc: u32,
        args: &A,
    ) -> Result<R, String> {
        self.xid = self.xid.wrapping_add(1);
        let call = encode_call(self.xid, prog, vers, proc, &self.cred, encode_all(args));
        let call = haven_rpc::record::frame(call).into_bytes();
        let record = self
            .stream
            .write_all(&call)
            .and_then(|()| self.record())
            .map_err(|e| format!("no answer from {}: {e}", self.what))?;
        let reply = decode_reply(record).map_err(|e| format!("{}: {e}", self.what))?;
        if reply.xid != self.xid {
            return Err(format!("{} answers another call", self.what));
        }
        match reply.outcome {
            Outcome::Success(results) => {
                decode_all(results).map_err(|e| format!("{}: {e}", self.what))
            }
            Outcome::Error(e) => Err(format!("{}: {e}", self.what)),
            Outcome::Denied(e) => Err(format!("{}: {e}", self.what)),
        }
    }

    fn record(&mut self) -> std::io::Result<Bytes> {
        let mut record = Vec::new();
        loop {
            let mut mark = [0; HEADER_BYTES];
            self.stream.read_exact(&mut mark)?;
            let header = FragmentHeader::parse(mark);
            let (from, len) = (record.len(), header.len as usize);
            if from.saturating_add(len) > REPLY_BYTES_MAX {
                return Err(std::io::Error::other("the reply is too long"));
            }
            record.resize(from + len, 0);
            self.stream.read_exact(&mut record[from..])?;
            if header.last {
                return Ok(record.into());
            }
        }
    }
}

/// Where transaction ids begin: two runs must not begin alike, or a server takes one's calls for the other's.
pub(super) fn random_xid() -> Result<u32, String> {
    getrandom::u32().map_err(|e| format!("no randomness: {e}"))
}
