//! A node that no longer leads must not answer, not even on its own address and on an old connection.
//!
//! A client inside the leader's own network namespace stays connected to it while it is frozen or cut off.
//! Meanwhile another node takes over and the file it asks about grows. Whatever the old leader then says
//! would be an old state; it must say nothing.

use crate::{Torture, in_own_network, start_cluster};
use bytes::Bytes;
use haven::demo::client::ClientThread;
use haven::demo::lab::{EXPORT, FLOATING, Lab};
use haven_client::{Client, Options};
use haven_config::{MOUNT_PORT_DEFAULT, NFS_PORT_DEFAULT};
use haven_proto::nfs3::{self, Fh3, GetattrArgs, Proc3};
use haven_rpc::{Credential, encode_call, record};
use haven_xdr::encode_all;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// How long the old leader is listened to.
const LISTEN: Duration = Duration::from_secs(2);
/// Operations that the other clients complete at the new leader before the old one may speak again.
const NEWS_OPERATIONS: u32 = 20;

pub fn run(exe: &Path, dir: &Path) -> Result<(), String> {
    in_own_network(async {
        let lab = start_cluster(dir, exe, "").await?;
        let clients = ClientThread::start(&lab.client, 1).await?;
        let torture = Torture::new(lab, 1);
        clients.recorder.wait_fresh(NEWS_OPERATIONS).await?;
        let file = log_handle(&torture.lab)?;

        let leader = torture.lab.wait_serving(None).await?;
        let mut old = Spy::connect(&torture.lab, leader)?;
        old.expect_answer(&file)?;
        torture.lab.freeze(leader, true)?;
        old.ask(&file)?;
        torture.lab.wait_serving(Some(leader)).await?;
        clients.recorder.wait_fresh(NEWS_OPERATIONS).await?;
        torture.lab.freeze(leader, false)?;
        old.expect_silence("a thawed leader")?;
        println!("a thawed leader says nothing to a request it had received");

        let leader = torture.lab.wait_serving(None).await?;
        let mut old = Spy::connect(&torture.lab, leader)?;
        old.expect_answer(&file)?;
        torture.lab.cut(leader, true)?;
        let next = torture.lab.wait_serving(Some(leader)).await?;
        clients.recorder.wait_fresh(NEWS_OPERATIONS).await?;
        // The connection may be gone already: that is silence too.
        let _ = old.ask(&file);
        old.expect_silence("a leader that is cut off")?;
        if let Ok(mut late) = Spy::connect(&torture.lab, leader) {
            let _ = late.ask(&file);
            late.expect_silence("a leader that is cut off, on a new connection")?;
        }
        println!("a leader that is cut off says nothing on its own address");
        torture.lab.cut(leader, false)?;
        torture.lab.wait_caught_up(leader, next).await?;
        torture.conclude(clients).await
    })
}

/// The handle of the first client's log.
pub fn log_handle(lab: &Lab) -> Result<Fh3, String> {
    let look = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.map_err(|e| e.to_string())?.block_on(async {
            let server = SocketAddr::from((FLOATING, NFS_PORT_DEFAULT));
            let options = Options {
                mount_port: MOUNT_PORT_DEFAULT,
                ..Options::default()
            };
            let client = Client::new(server, options);
            let root = client.mount(EXPORT).await.map_err(|e| e.to_string())?;
            let found = client
                .lookup(&root, "nfstest.log")
                .await
                .map_err(|e| e.to_string())?;
            Ok(found.object)
        })
    };
    lab.client.run(look).map_err(|e| e.to_string())?
}

/// A connection to a node's own address, from within that node.
pub struct Spy(TcpStream);

impl Spy {
    pub fn connect(lab: &Lab, node: usize) -> Result<Self, String> {
        let address = SocketAddr::from((Lab::own_address(node), NFS_PORT_DEFAULT));
        let connect = || TcpStream::connect_timeout(&address, LISTEN);
        let stream = lab.nodes[node].run(connect)?.map_err(|e| e.to_string())?;
        stream
            .set_read_timeout(Some(LISTEN))
            .map_err(|e| e.to_string())?;
        Ok(Self(stream))
    }

    pub fn ask(&mut self, file: &Fh3) -> Result<(), String> {
        let args = encode_all(&GetattrArgs {
            object: file.clone(),
        });
        let proc = Proc3::Getattr.to_wire();
        let call = encode_call(
            1,
            nfs3::PROGRAM,
            nfs3::VERSION,
            proc,
            &Credential::None,
            args,
        );
        let bytes: Bytes = record::frame(call).into_bytes();
        self.0.write_all(&bytes).map_err(|e| e.to_string())
    }

    pub fn expect_answer(&mut self, file: &Fh3) -> Result<(), String> {
        self.ask(file)?;
        let mut reply = [0; 4];
        self.0
            .read_exact(&mut reply)
            .map_err(|e| format!("the leader itself is silent: {e}"))?;
        let mut rest = vec![0; record::FragmentHeader::parse(reply).len as usize];
        self.0.read_exact(&mut rest).map_err(|e| e.to_string())
    }

    pub fn expect_silence(&mut self, who: &str) -> Result<(), String> {
        let mut byte = [0; 1];
        match self.0.read(&mut byte) {
            Ok(0) | Err(_) => Ok(()),
            Ok(_) => Err(format!("{who} answered")),
        }
    }
}
