//! Entries for fuzzing: the machine's rows, one by one. It must not be part of what ships: it exists with the
//! feature `fuzzing` only.

use crate::identity::Identity;
use crate::level;
use crate::machine::{served_from, time_from};
use crate::rows::{
    ExportRow, KEY_IDENTITY, KEY_LEVEL, KEY_SERVED, KEY_TIME, MountRow, ReplyRow, gone_connection,
    gone_key,
};

/// A row of the system table. Panics if a decoder does, or if a row that was taken has another form: replicas
/// are compared by their bytes.
pub fn row(key: &[u8], value: &[u8]) {
    if key == KEY_IDENTITY
        && let Some(identity) = Identity::from_stored(value)
    {
        assert_eq!(identity.to_stored(), value);
    }
    if key == KEY_LEVEL
        && let Some(level) = level::from_stored(value)
    {
        assert_eq!(level.0.to_be_bytes(), value);
    }
    if key == KEY_TIME
        && let Some(time) = time_from(value)
    {
        let again = [&time.secs.to_be_bytes()[..], &time.nanos.to_be_bytes()].concat();
        assert_eq!(again, value);
    }
    if let Some(export) = ExportRow::decode(key, value) {
        let (key_again, value_again) = export.encode();
        assert_eq!((&key_again[..], &value_again[..]), (key, value));
    }
    if let Some(mount) = MountRow::decode(key, value) {
        assert_eq!(MountRow::key(mount.index), key);
        assert_eq!(mount.value(), value);
    }
    if let (Some(index), Some(reply)) = (ReplyRow::index(key), ReplyRow::decode(value)) {
        assert_eq!(ReplyRow::key(index), key);
        assert_eq!(reply.value(), value);
    }
    if key == KEY_SERVED
        && let Some(served_ns) = served_from(value)
    {
        assert_eq!(served_ns.to_be_bytes(), value);
    }
    if let Some(connection) = gone_connection(key) {
        assert_eq!(gone_key(connection), key);
    }
}
