//! Protocol tests: calls go in as a client sends them, replies come out as it receives them, and the
//! machine runs on the reference model.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod asking;
mod exports;
mod failing;
mod level;
mod machine;
mod mount;
mod mounts;
mod nlm;
mod no_space;
mod portmap;
mod read_only;
mod retries;
mod robust;
mod server;
mod v3_dirs;
mod v3_files;
mod v3_handles;
mod v3_readdir;
