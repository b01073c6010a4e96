//! The service as clients see it: a request comes in, a reply (or silence) goes out.
//!
//! Queries are answered from the state under the leader's lease, checked before and after the read;
//! changes become log entries, and their replies come from applying them. A request that cannot be answered
//! now waits; the gate drops it when this node loses leadership, and hangs up, so that the client asks the
//! next leader, where a change that was executed meanwhile answers from the reply cache.

use crate::clock;
use crate::engine::{Engine, Outcome};
use crate::serve::Ports;
use bytes::Bytes;
use haven_config::{Config, SquashMode};
use haven_consensus::{Consensus, Leadership, ProposeError};
use haven_net::{Begun, Handler, Verdict};
use haven_nfsd::{Fatal, Prepared, Request, Squash, prepare};
use haven_proto::nfs3::Args3;
use haven_proto::portmap::Mapping;
use haven_proto::{mount, nfs3, portmap};
use haven_rpc::{Refusal, decode_call};
use haven_xdr::Gather;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{debug, error, warn};

/// Pause before a request that could not be answered is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(2);

/// Reads of up to so many bytes are answered where they arrive.
const QUICK_READ_BYTES_MAX: u32 = 32 << 10;

/// See the module's head comment.
pub struct Service {
    settings: haven_nfsd::Service,
    engine: Arc<Engine>,
    consensus: Consensus<Outcome>,
    /// Kept, so that a request costs no new receiver.
    leadership: watch::Receiver<Leadership>,
}

impl Service {
    /// The service of a node.
    pub fn new(
        config: &Config,
        engine: Arc<Engine>,
        consensus: Consensus<Outcome>,
        ports: Ports,
    ) -> Self {
        let squash = config.service.squash;
        let settings = haven_nfsd::Service {
            squash: Squash {
                root: squash.mode != SquashMode::None,
                all: squash.mode == SquashMode::All,
                anonuid: squash.anonuid,
                anongid: squash.anongid,
            },
            read_only: config.service.read_only,
            exports: config
                .exports
                .iter()
                .map(|e| Bytes::from(e.path.clone()))
                .collect(),
            ports: mappings(ports, config.service.portmap_port),
            ..haven_nfsd::Service::default()
        };
        Self {
            settings,
            engine,
            leadership: consensus.leadership(),
            consensus,
        }
    }

    /// Answers from the state, if that can be done here and now.
    fn query_now(&self, request: &Request) -> Option<Verdict> {
        if !is_quick(request) || !self.consensus.lease_valid() {
            return None;
        }
        let result = self.engine.try_read(|machine| machine.query(request))?;
        self.answer(result)
    }

    /// Answers from the state, as soon as the lease allows it.
    async fn query(&self, request: Request) -> Verdict {
        let request = Arc::new(request);
        loop {
            if self.consensus.lease_valid() {
                let (engine, request) = (Arc::clone(&self.engine), Arc::clone(&request));
                // It may wait for the disk or for a batch of changes, which this thread must not.
                let read =
                    spawn_blocking(move || engine.read(|machine| machine.query(&request))).await;
                let read = read.unwrap_or_else(|why| Err(Fatal(why.to_string())));
                if let Some(verdict) = self.answer(read) {
                    return verdict;
                }
            }
            sleep(RETRY).await;
        }
    }

    /// What to do with what the state said; `None` if it came too late.
    fn answer(&self, read: Result<Gather, Fatal>) -> Option<Verdict> {
        match read {
            // The lease may have ended while the state was read, if this process was held up.
            Ok(_) if !self.consensus.lease_valid() => None,
            Ok(reply) => Some(Verdict::Reply(reply)),
            Err(why) => {
                error!(%why, "cannot read the state");
                Some(Verdict::HangUp)
            }
        }
    }

    /// Proposes until there is an outcome, but only in the term in which the request came: by the next one
    /// the client has asked elsewhere, and may have gone on. Within the term, proposing again after an
    /// unknown outcome is safe: if the entry was executed, the reply cache answers.
    async fn change(&self, term: u64, entry: Bytes) -> Verdict {
        loop {
            match self.consensus.propose_in(term, entry.clone()).await {
                Ok(Outcome::Reply { message, .. }) => return Verdict::Reply(message),
                Ok(outcome) => {
                    error!(?outcome, "a client's change had no reply");
                    return Verdict::HangUp;
                }
                Err(why @ ProposeError::TooLarge(_)) => {
                    warn!(%why, "cannot take a change");
                    return Verdict::HangUp;
                }
                Err(why) if self.leadership.borrow().term != term => {
                    debug!(%why, "a change is left to the next leader");
                    return Verdict::HangUp;
                }
                Err(why) => {
                    debug!(%why, "a change waits");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// Whether a query takes microseconds, so that a change of threads would cost more than it.
fn is_quick(request: &Request) -> bool {
    match request {
        Request::Mnt { .. } => false,
        Request::Nfs3 { args, .. } => match args {
            Args3::Read(read) => read.count <= QUICK_READ_BYTES_MAX,
            Args3::Readdir(_) | Args3::Readdirplus(_) => false,
            _ => true,
        },
    }
}

/// What the portmapper tells: TCP only.
fn mappings(ports: Ports, portmap_port: Option<u16>) -> Vec<Mapping> {
    let mut all = vec![
        (nfs3::PROGRAM, nfs3::VERSION, ports.nfs),
        (mount::PROGRAM, mount::VERSION3, ports.mount),
        (mount::PROGRAM, mount::VERSION1, ports.mount),
    ];
    all.extend(portmap_port.map(|port| (portmap::PROGRAM, portmap::VERSION, port)));
    all.into_iter()
        .map(|(prog, vers, port)| Mapping {
            prog,
            vers,
            prot: portmap::IPPROTO_TCP,
            port: port.into(),
        })
        .collect()
}

/// A request that was understood and takes longer.
pub enum Work {
    /// Asks the state.
    Query(Request),
    /// Changes it.
    Change {
        /// The term in which it came.
        term: u64,
        /// The log entry that it is.
        entry: Bytes,
    },
}

impl Handler for Service {
    type Work = Work;

    fn begin(&self, peer: SocketAddr, record: Bytes) -> Begun<Work> {
        let call = match decode_call(record) {
            Ok(call) => call,
            Err(Refusal::Reply { reply, .. }) => return Begun::Done(Verdict::Reply(reply)),
            Err(Refusal::Drop(why)) => {
                debug!(%peer, %why, "not a call");
                return Begun::Done(Verdict::HangUp);
            }
        };
        // Before the clock is read: the entry belongs to this term or to none.
        let term = self.leadership.borrow().term;
        match prepare(&call, peer.ip(), &self.settings, clock::now()) {
            Prepared::Reply(reply) => Begun::Done(Verdict::Reply(reply)),
            Prepared::Query(request) => match self.query_now(&request) {
                Some(verdict) => Begun::Done(verdict),
                None => Begun::Work(Work::Query(request)),
            },
            Prepared::Mutation(entry) => Begun::Work(Work::Change { term, entry }),
        }
    }

    async fn finish(&self, work: Work) -> Verdict {
        match work {
            Work::Query(request) => self.query(request).await,
            Work::Change { term, entry } => self.change(term, entry).await,
        }
    }

    async fn handle_datagram(&self, peer: SocketAddr, datagram: Bytes) -> Verdict {
        match self.begin(peer, datagram) {
            Begun::Done(verdict) => verdict,
            Begun::Work(work) => self.finish(work).await,
        }
    }

    fn may_answer(&self) -> bool {
        self.consensus.lease_valid()
    }
}
