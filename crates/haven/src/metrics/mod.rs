//! What a node counts, and how it is told to Prometheus.
//!
//! | module | does |
//! |---|---|
//! | [`meter`] | counts requests: the only part that a request pays for, with a few relaxed additions |
//! | [`histogram`] | durations in buckets of powers of two |
//! | [`exposition`] | the names, their meaning, the text |
//!
//! Everything else is read from its owner when somebody asks. `docs/operate/metrics.md` lists every metric; a test
//! compares.

pub mod exposition;
pub mod histogram;
pub mod meter;

pub use exposition::{PeerReading, Reading, expose};
pub use histogram::{Buckets, Histogram};
pub use meter::{Meter, Ticket};
