//! The suite that every engine passes: [`run`] checks one property after the other, [`random_ops_equal`]
//! compares long random histories with the [`crate::model::Model`].
//!
//! Engines call both from their own tests. A failure panics and names the property, or the seed.
//!
//! It must not know any engine.

mod properties;
mod random;
mod subject;

pub use properties::PROPERTIES;
pub use random::random_ops_equal;
pub use subject::Subject;

use crate::{Filesystem, SystemTable};

/// What the suite tests: a file system with its system table.
pub trait Engine: Filesystem + SystemTable {}

impl<T: Filesystem + SystemTable> Engine for T {}

/// A property of every engine: its name, and a function that panics where it does not hold.
pub type Property = (&'static str, fn(&mut Subject<'_>));

/// Checks every property, each on a new engine from `make`.
///
/// # Panics
/// When a property does not hold.
pub fn run(make: &dyn Fn() -> Box<dyn Engine>) {
    for (name, property) in PROPERTIES {
        // Shown by the test harness when the property panics.
        println!("property: {name}");
        let mut engine = make();
        property(&mut Subject::new(engine.as_mut()));
    }
}
