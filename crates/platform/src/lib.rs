//! Performs on Linux what the takeover decides: addresses, announcements, tickles, the address guard.
//!
//! | module | does |
//! |---|---|
//! | [`addr`] | puts floating addresses on an interface and takes them off |
//! | [`announce`] | gratuitous ARP, unsolicited neighbour advertisements |
//! | [`probe`] | asks whether another machine has a floating address: ARP, neighbour solicitation |
//! | [`tickle`] | makes clients of the previous leader reconnect at once |
//! | [`sockets`] | lists and drops the kernel's connections to a floating address |
//! | [`guard`] | a helper process that takes the addresses off when the server is killed or frozen |
//! | [`link`] | interfaces: list, make, connect |
//! | [`neigh`] | makes a cable carry one way only, for trying clusters out |
//! | [`netns`] | network namespaces for trying a cluster out on one machine |
//!
//! Rtnetlink is spoken blocking, over one small codec: the kernel answers within the call, the guard has
//! no runtime, and a network namespace belongs to a thread, not to a task.
//!
//! Invariants: adding and removing are idempotent; nothing here decides when something is done.
//!
//! Must not know: leadership, terms, NFS, configuration files.

pub mod addr;
pub mod announce;
mod checksum;
mod error;
pub mod guard;
pub mod link;
pub mod neigh;
pub mod netns;
mod nl;
pub mod probe;
pub mod sockets;
mod solicit;
mod sys;
pub mod tickle;

pub use error::{PlatformError, Result};
