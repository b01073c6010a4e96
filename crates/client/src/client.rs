//! The client: identity, time limit and the untyped call.

use crate::error::ClientError;
use crate::options::Options;
use crate::transport::{Stats, Transport};
use bytes::Bytes;
use haven_proto::mount::{self, Dirpath, MNTPATHLEN, Mountres3};
use haven_proto::nfs3::{self, Fh3, Nfsstat3, Proc3};
use haven_rpc::{AuthSys, Credential, GIDS_MAX, MACHINE_NAME_BYTES_MAX, Outcome, encode_call};
use haven_xdr::{Decode, Encode, Gather, decode_all, encode_all};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An NFSv3 client. Clones share the connection.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    cred: Arc<Credential>,
    request_timeout: Option<Duration>,
}

struct Shared {
    server: SocketAddr,
    options: Options,
    nfs: Transport,
}

impl Client {
    /// A client of the NFS server at `server`. Connecting begins in the background and is tried for as
    /// long as a clone lives. Must be called within a tokio runtime.
    pub fn new(server: SocketAddr, options: Options) -> Self {
        let first_xid = options.first_xid.unwrap_or_else(random_xid);
        let cred = credential(&options, options.uid, options.gid, &options.gids);
        let request_timeout = options.request_timeout;
        let nfs = Transport::start(server, &options, first_xid);
        let shared = Arc::new(Shared {
            server,
            options,
            nfs,
        });
        Self {
            shared,
            cred: Arc::new(cred),
            request_timeout,
        }
    }

    /// The same client as another user.
    pub fn with_identity(&self, uid: u32, gid: u32, gids: &[u32]) -> Self {
        let cred = credential(&self.shared.options, uid, gid, gids);
        Self {
            cred: Arc::new(cred),
            ..self.clone()
        }
    }

    /// The same client with another time limit for calls.
    pub fn with_request_timeout(&self, request_timeout: Option<Duration>) -> Self {
        Self {
            request_timeout,
            ..self.clone()
        }
    }

    /// What the connection has been through.
    pub fn stats(&self) -> Stats {
        self.shared.nfs.stats()
    }

    /// Calls any procedure over the NFS connection; the results are still encoded.
    pub async fn call(
        &self,
        prog: u32,
        vers: u32,
        proc: u32,
        args: Gather,
    ) -> Result<Bytes, ClientError> {
        self.call_over(&self.shared.nfs, prog, vers, proc, args)
            .await
    }

    /// Calls a procedure of NFSv3. The result is whole: what failures tell is in it.
    pub async fn nfs<A: Encode, R: Decode>(&self, proc: Proc3, args: &A) -> Result<R, ClientError> {
        let results = self
            .limited(self.until_ready(proc, encode_all(args)))
            .await?;
        Ok(decode_all(results)?)
    }

    /// Calls a procedure again as long as the server asks to come back later, each time as a new request
    /// (RFC 1813 section 2.6, NFS3ERR_JUKEBOX: a retransmission would only get the same answer). After
    /// [`Options::jukebox_retries_max`] times that answer is the result.
    async fn until_ready(&self, proc: Proc3, args: Gather) -> Result<Bytes, ClientError> {
        let Options {
            jukebox_retries_max,
            jukebox_pause_min,
            jukebox_pause_max,
            ..
        } = self.shared.options;
        let mut pause = jukebox_pause_min;
        let mut retries = 0;
        loop {
            let (prog, vers) = (nfs3::PROGRAM, nfs3::VERSION);
            let results = self
                .execute(&self.shared.nfs, prog, vers, proc.to_wire(), args.clone())
                .await?;
            if !is_jukebox(&results) || retries == jukebox_retries_max {
                return Ok(results);
            }
            retries += 1;
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(jukebox_pause_max);
        }
    }

    /// Asks the MOUNT program for the root of the export `path`, over a connection of its own.
    pub async fn mount(&self, path: &str) -> Result<Fh3, ClientError> {
        check_len("path", path.len(), MNTPATHLEN)?;
        let Shared {
            server,
            options,
            nfs,
        } = &*self.shared;
        let server = SocketAddr::new(server.ip(), options.mount_port);
        let transport = Transport::start(server, options, nfs.new_xid());
        let args = encode_all(&Dirpath(Bytes::copy_from_slice(path.as_bytes())));
        let proc = mount::Procedure::Mnt.to_wire();
        let results = self
            .call_over(&transport, mount::PROGRAM, mount::VERSION3, proc, args)
            .await?;
        match decode_all(results)? {
            Mountres3::Ok(ok) => Ok(Fh3(ok.fhandle.0)),
            Mountres3::Fail(status) => Err(status.into()),
        }
    }

    async fn call_over(
        &self,
        transport: &Transport,
        prog: u32,
        vers: u32,
        proc: u32,
        args: Gather,
    ) -> Result<Bytes, ClientError> {
        self.limited(self.execute(transport, prog, vers, proc, args))
            .await
    }

    /// Within the time limit for calls.
    async fn limited(
        &self,
        call: impl Future<Output = Result<Bytes, ClientError>>,
    ) -> Result<Bytes, ClientError> {
        match self.request_timeout {
            None => call.await,
            Some(limit) => tokio::time::timeout(limit, call)
                .await
                .unwrap_or(Err(ClientError::TimedOut(limit))),
        }
    }

    async fn execute(
        &self,
        transport: &Transport,
        prog: u32,
        vers: u32,
        proc: u32,
        args: Gather,
    ) -> Result<Bytes, ClientError> {
        let call = transport.call(|xid| encode_call(xid, prog, vers, proc, &self.cred, args));
        match call.await.ok_or(ClientError::Closed)? {
            Outcome::Success(results) => Ok(results),
            Outcome::Error(error) => Err(error.into()),
            Outcome::Denied(denial) => Err(denial.into()),
        }
    }
}

/// Whether results begin with NFS3ERR_JUKEBOX. All but those of NULL, which are empty, begin with a status.
fn is_jukebox(results: &[u8]) -> bool {
    let status = (Nfsstat3::Jukebox as u32).to_be_bytes();
    results.starts_with(&status)
}

/// Refuses what the protocol has no room for, before it is encoded.
pub(crate) fn check_len(what: &'static str, len: usize, max: usize) -> Result<(), ClientError> {
    if len > max {
        Err(ClientError::TooLong { what, len, max })
    } else {
        Ok(())
    }
}

fn credential(options: &Options, uid: u32, gid: u32, gids: &[u32]) -> Credential {
    let name = options.machine_name.as_bytes();
    Credential::Sys(AuthSys {
        stamp: 0,
        machine_name: Bytes::copy_from_slice(&name[..name.len().min(MACHINE_NAME_BYTES_MAX)]),
        uid,
        gid,
        gids: gids[..gids.len().min(GIDS_MAX)].to_vec(),
    })
}

/// Where transaction ids begin. Two clients on one machine must not begin alike: the server would take
/// one's requests for the other's. Where there is no randomness, the clock has to do.
fn random_xid() -> u32 {
    getrandom::u32().unwrap_or_else(|_| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| {
                let nanos = since.as_nanos() as u64;
                (nanos ^ (nanos >> 32)) as u32
            })
    })
}
