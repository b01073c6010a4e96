//! The service as clients see it: a request comes in, a reply (or silence) goes out.
//!
//! Queries are answered from the state under the leader's lease, checked before and after the read;
//! changes become log entries, and their replies come from applying them. A request that cannot be answered
//! now waits; the gate drops it when this node loses leadership, and hangs up, so that the client asks the
//! next leader, where a change that was executed meanwhile answers from the reply cache.

use crate::clock;
use crate::engine::{Engine, Outcome};
use crate::serve::Ports;
use crate::space::SpaceGuard;
use bytes::Bytes;
use haven_config::{Config, SquashMode};
use haven_consensus::{Consensus, Leadership, ProposeError};
use haven_net::{DATAGRAM_BYTES_MAX, Handler, Verdict};
use haven_nfsd::{Fatal, Machine, Prepared, Request, Squash, prepare};
use haven_proto::portmap::Mapping;
use haven_proto::{mount, nfs3, portmap};
use haven_rpc::{AcceptError, Refusal, accept_error, decode_call};
use haven_store::Store;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, error, warn};

/// Pause before a request that could not be answered is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(2);

/// See the module's head comment.
pub struct Service {
    settings: haven_nfsd::Service,
    engine: Arc<Engine>,
    consensus: Consensus<Outcome>,
    /// Kept, so that a request costs no new receiver.
    leadership: watch::Receiver<Leadership>,
    space: Arc<SpaceGuard>,
}

impl Service {
    /// The service of a node.
    pub fn new(
        config: &Config,
        engine: Arc<Engine>,
        consensus: Consensus<Outcome>,
        space: Arc<SpaceGuard>,
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
            ports: mappings(ports),
            ..haven_nfsd::Service::default()
        };
        Self {
            settings,
            engine,
            leadership: consensus.leadership(),
            consensus,
            space,
        }
    }

    /// Answers from the state.
    async fn query(&self, request: &Request) -> Verdict {
        match self.look(|machine| machine.query(request)).await {
            Some(reply) => Verdict::Reply(reply),
            None => Verdict::HangUp,
        }
    }

    /// Looks at the state, as soon as the lease allows it; `None` if it cannot be read.
    async fn look<T>(
        &self,
        look: impl Fn(&Machine<Store>) -> Result<T, Fatal> + Send + Sync,
    ) -> Option<T> {
        loop {
            if self.consensus.lease_valid() {
                match self.engine.read(&look) {
                    // The lease may have ended while the state was read, if this process was held up.
                    Ok(_) if !self.consensus.lease_valid() => {}
                    Ok(found) => return Some(found),
                    Err(why) => {
                        error!(%why, "cannot read the state");
                        return None;
                    }
                }
            }
            sleep(RETRY).await;
        }
    }

    /// Proposes a change, if there is space for it.
    async fn change(&self, term: u64, entry: Bytes) -> Verdict {
        if let Some(_admitted) = self.space.admit(entry.len()).await {
            return self.propose(term, entry).await;
        }
        // A copy of this request that came when there was space may still be on its way through the log. Once it is
        // applied, its reply is in the cache.
        let upto = self.consensus.status().last_log.unwrap_or(0);
        while self.consensus.applied_index() < upto {
            sleep(RETRY).await;
        }
        match self.look(|machine| machine.refuse_growth(&entry)).await {
            Some(Some(refusal)) => Verdict::Reply(refusal),
            Some(None) => self.propose(term, entry).await,
            None => Verdict::HangUp,
        }
    }

    /// Proposes until there is an outcome, but only in the term in which the request came: by the next one
    /// the client has asked elsewhere, and may have gone on. Within the term, proposing again after an
    /// unknown outcome is safe: if the entry was executed, the reply cache answers.
    async fn propose(&self, term: u64, entry: Bytes) -> Verdict {
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

/// What a port mapper tells: NFS over TCP, the others also over UDP.
pub fn mappings(ports: Ports) -> Vec<Mapping> {
    use portmap::{IPPROTO_TCP as TCP, IPPROTO_UDP as UDP};
    let mut all = vec![(nfs3::PROGRAM, nfs3::VERSION, TCP, ports.nfs)];
    for prot in [TCP, UDP] {
        all.push((mount::PROGRAM, mount::VERSION3, prot, ports.mount));
        all.push((mount::PROGRAM, mount::VERSION1, prot, ports.mount));
        all.extend(
            ports
                .portmap
                .map(|port| (portmap::PROGRAM, portmap::VERSION, prot, port)),
        );
    }
    all.into_iter()
        .map(|(prog, vers, prot, port)| Mapping {
            prog,
            vers,
            prot,
            port: port.into(),
        })
        .collect()
}

impl Handler for Service {
    async fn handle(&self, peer: SocketAddr, record: Bytes) -> Verdict {
        let call = match decode_call(record) {
            Ok(call) => call,
            Err(Refusal::Reply { reply, .. }) => return Verdict::Reply(reply),
            Err(Refusal::Drop(why)) => {
                debug!(%peer, %why, "not a call");
                return Verdict::HangUp;
            }
        };
        // Before the clock is read: the entry belongs to this term or to none.
        let term = self.leadership.borrow().term;
        match prepare(&call, peer.ip(), &self.settings, clock::now()) {
            Prepared::Reply(reply) => Verdict::Reply(reply),
            Prepared::Query(request) => self.query(&request).await,
            Prepared::Mutation(entry) => self.change(term, entry).await,
        }
    }

    async fn handle_datagram(&self, peer: SocketAddr, datagram: Bytes) -> Verdict {
        let call = match decode_call(datagram) {
            Ok(call) => call,
            Err(Refusal::Reply { reply, .. }) => return Verdict::Reply(reply),
            // Never answered: see the trait.
            Err(Refusal::Drop(_)) => return Verdict::Silent,
        };
        // NFS itself is not served this way: a datagram holds no WRITE.
        if !matches!(call.prog, mount::PROGRAM | portmap::PROGRAM) {
            return Verdict::Reply(accept_error(call.xid, AcceptError::ProgUnavail));
        }
        let xid = call.xid;
        let reply = match prepare(&call, peer.ip(), &self.settings, clock::now()) {
            Prepared::Reply(reply) => reply,
            Prepared::Query(request) => match self.query(&request).await {
                Verdict::Reply(reply) => reply,
                other => return other,
            },
            // MOUNT and the port mapper change nothing.
            Prepared::Mutation(_) => return Verdict::Silent,
        };
        let length: usize = reply.segments().iter().map(Bytes::len).sum();
        if length > DATAGRAM_BYTES_MAX {
            // A long list of exports: an error makes the client ask over TCP.
            return Verdict::Reply(accept_error(xid, AcceptError::SystemErr));
        }
        Verdict::Reply(reply)
    }

    fn may_answer(&self) -> bool {
        self.consensus.lease_valid()
    }
}
