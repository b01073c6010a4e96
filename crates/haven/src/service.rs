//! The service as clients see it: a request comes in, a reply (or silence) goes out.
//!
//! Queries are answered from the state under the leader's lease, checked before and after the read;
//! changes become log entries, and their replies come from applying them. A request that cannot be answered
//! now waits; the gate drops it when this node loses leadership, and hangs up, so that the client asks the
//! next leader, where a change that was executed meanwhile answers from the reply cache.

use crate::clock;
use crate::engine::{Engine, Outcome};
use crate::exports::Exports;
use crate::resolve::Resolver;
use crate::serve::Ports;
use bytes::Bytes;
use haven_config::{Config, Export};
use haven_consensus::{Consensus, Leadership, ProposeError};
use haven_net::{Handler, Verdict};
use haven_nfsd::{ClientNames, Origin, Prepared, Request, prepare};
use haven_proto::portmap::Mapping;
use haven_proto::{mount, nfs3, portmap};
use haven_rpc::{Call, Refusal, decode_call};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, error, warn};

/// Pause before a request that could not be answered is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(2);

/// See the module's head comment.
pub struct Service {
    exports: Arc<Exports>,
    resolver: Arc<Resolver>,
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
        let ports = mappings(ports, config.service.portmap_port);
        Self {
            exports: Exports::new(&config.exports, ports),
            resolver: Resolver::new(),
            engine,
            leadership: consensus.leadership(),
            consensus,
        }
    }

    /// What is exported, for those who bind, make and resolve it.
    pub fn exports(&self) -> Arc<Exports> {
        Arc::clone(&self.exports)
    }

    /// Takes the exports of another configuration, without a restart: rules count from the next request on,
    /// new paths as soon as they are made.
    pub fn set_exports(&self, exports: &[Export]) {
        self.exports.set(exports);
    }

    /// Sorts a call; names of the client are found out if, and only if, they decide.
    async fn prepare(&self, call: &Call, peer: SocketAddr) -> Prepared {
        let settings = self.exports.current();
        let client = peer.ip().to_canonical();
        let sort = |names| prepare(call, Origin { peer, names }, &settings, clock::now());
        if !settings.exports.want_client_names() {
            return sort(ClientNames::Unasked);
        }
        if let Some(known) = self.resolver.known(client) {
            return sort(ClientNames::Known(&known));
        }
        match sort(ClientNames::Unasked) {
            Prepared::WantsNames => match self.resolver.names(client).await {
                Some(found) => sort(ClientNames::Known(&found)),
                None => sort(ClientNames::Late),
            },
            sorted => sorted,
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
        match self.prepare(&call, peer).await {
            Prepared::Reply(reply) => Verdict::Reply(reply),
            Prepared::Query(request) => self.query(&request).await,
            Prepared::Mutation(entry) => self.change(term, entry).await,
            Prepared::Mount { request, entry } => {
                match self.engine.read(|machine| machine.needs_entry(&request)) {
                    true => self.change(term, entry).await,
                    false => self.query(&request).await,
                }
            }
            Prepared::WantsNames => {
                error!(%peer, "names were looked for and are wanted still");
                Verdict::HangUp
            }
        }
    }

    fn may_answer(&self) -> bool {
        self.consensus.lease_valid()
    }
}
