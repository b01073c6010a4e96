//! Messages between the nodes of a cluster.
//!
//! - `frame`: length, checksum and body on a connection
//! - `message`: what the bodies say; `affair`: those about the members
//! - `link`: setting up a connection, from either side: TLS, versions, who is a member
//! - `doubles`: processes that are not the one that a member is
//! - `client`: openraft's network, one connection per peer and purpose; `pipe`: appends that are under way
//! - `giving_way`: how a snapshot leaves the network to clients
//! - `turns`: which follower gets new entries at once
//! - `server`: what comes in from peers; `beats`: how heartbeats are answered; `commits`: how soon a follower learns what
//!   is committed
//! - `pace`: how often a peer that does not answer is tried again
//! - `hints`: soft state, newest wins; `posts`: the same in many parts
//! - `urgency`: who goes first where the network is full
//! - `visit`: streams whose bytes are for others to read
//!
//! Invariants
//! - Nothing a peer sends can make this node panic or take memory beyond a named limit: a bad message
//!   closes its connection with a logged reason.
//! - Heartbeats, votes, entries, snapshots, hints and visits never wait for one another's connections.

pub(crate) mod affair;
pub(crate) mod beats;
pub(crate) mod client;
pub(crate) mod commits;
pub(crate) mod doubles;
pub(crate) mod frame;
pub(crate) mod giving_way;
pub(crate) mod hints;
pub(crate) mod link;
pub(crate) mod message;
pub(crate) mod pace;
pub(crate) mod pipe;
pub(crate) mod posts;
pub(crate) mod server;
pub(crate) mod turns;
pub(crate) mod urgency;
pub(crate) mod visit;
