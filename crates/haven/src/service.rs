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
use haven_net::{Handler, Verdict};
use haven_nfsd::{Prepared, Request, Squash, prepare};
use haven_proto::portmap::Mapping;
use haven_proto::{mount, nfs3, portmap};
use haven_rpc::{Refusal, decode_call};
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

    /// Answers from the state, as soon as the lease allows it.
    async fn query(&self, request: &Request) -> Verdict {
        loop {
            if self.consensus.lease_valid() {
                match self.engine.read(|machine| machine.query(request)) {
                    // The lease may have ended while the state was read, if this process was held up.
                    Ok(_) if !self.consensus.lease_valid() => {}
                    Ok(reply) => return Verdict::Reply(reply),
                    Err(why) => {
                        error!(%why, "cannot read the state");
                        return Verdict::HangUp;
                    }
                }
            }
            sleep(RETRY).await;
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

    fn may_answer(&self) -> bool {
        self.consensus.lease_valid()
    }
}
