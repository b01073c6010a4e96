//! The classic test of a highly available NFS server, as a load and a verdict.
//!
//! Clients append numbered, time-stamped lines to a file, each flushed before the next; they create
//! files exclusively, rename them and remove some; and they read. All the while somebody breaks things.
//! Afterwards everything is read back and held against what the clients were told.
//!
//! What each operation can reveal:
//! - a line that was acknowledged and is not there, or a name in the wrong place: *lost*;
//! - a line twice; or a create, rename or remove that fails because it was already done: *done twice*.
//!   Every name is used once, so NFS3ERR_EXIST and NFS3ERR_NOENT have no other cause;
//! - numbers or times that do not rise: *out of order*.

mod load;
mod read;
mod record;
mod verify;

pub use load::{Acknowledged, Load, Target};
pub use read::{list, read_all};
pub use record::Recorder;
pub use verify::{Verdict, verify};

/// Bytes of one line of the log: number, milliseconds since the epoch, padding, newline.
const LINE_BYTES: usize = 64;

/// Name of a client's log.
fn log_name(client: usize) -> String {
    if client == 0 {
        "nfstest.log".into()
    } else {
        format!("nfstest-{client}.log")
    }
}

/// Name of a client's directory of names.
fn names_dir(client: usize) -> String {
    format!("names-{client}")
}
