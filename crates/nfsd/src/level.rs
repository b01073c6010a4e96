//! The service's feature level: one row, raised by entries only, so that all replicas follow the same rules from the same
//! entry on, also when they apply it again ([`haven_fs::Level`]).
//!
//! Invariants
//! - A level never falls.
//! - A level that this binary does not know stops the replica before it changes anything by rules it does not know.
//!
//! It must not know what a level brings.

use crate::Fatal;
use crate::rows::KEY_LEVEL;
use haven_fs::{Level, SystemTable};

/// The stored level.
pub(crate) fn load(table: &impl SystemTable) -> Result<Level, Fatal> {
    let stored = table
        .system_get(KEY_LEVEL)
        .map_err(|error| Fatal::from_fs("reading the feature level", &error))?;
    let Some(stored) = stored else {
        return Ok(Level::FIRST);
    };
    let level = from_stored(&stored);
    known(level.ok_or_else(|| Fatal("the stored feature level is malformed".into()))?)
}

/// Stores a level above the present one.
pub(crate) fn store(table: &mut impl SystemTable, level: Level) -> Result<(), Fatal> {
    table
        .system_put(KEY_LEVEL, Some(&known(level)?.0.to_be_bytes()))
        .map_err(|error| Fatal::from_fs("writing the feature level", &error))
}

/// A level in its row; none is stored before it is raised for the first time.
pub(crate) fn from_stored(stored: &[u8]) -> Option<Level> {
    let level = stored.try_into().ok().map(u32::from_be_bytes)?;
    Some(Level(level)).filter(|&level| level > Level::FIRST)
}

fn known(level: Level) -> Result<Level, Fatal> {
    if level <= Level::NEWEST {
        return Ok(level);
    }
    let (level, newest) = (level.0, Level::NEWEST.0);
    Err(Fatal(format!(
        "the service has feature level {level}, this program knows levels up to {newest}: upgrade this node"
    )))
}
