//! What must hold for every decoder in the tree, whatever bytes it is given: one [`Target`] for each.
//!
//! `fuzz/` runs the targets under libFuzzer, `tests/corpus.rs` runs them over the committed seeds. A target
//! panics when something does not hold: no decoder panics, what is taken comes back when it is written
//! again, and where there is one form only, it comes back as the same bytes.
//!
//! Invariants
//! - A target is a function of its bytes, so that a finding can be run again.
//! - Seeds are made by the project's own encoders.
//!
//! It ships nowhere; nothing that ships may depend on it.

mod config;
mod disk;
mod files;
mod join;
mod log;
mod nfsd;
mod peers;
mod rows;
mod rpc;
mod wire;

/// A decoder, or a family of them, with what must hold for it.
pub struct Target {
    /// Its name: of the function, of its folder in `fuzz/corpus`, of its file in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Panics when something does not hold for these bytes.
    pub run: fn(&[u8]),
    /// Inputs that reach deep, to begin with.
    pub seeds: fn() -> Vec<Seed>,
}

/// An input by name.
pub struct Seed {
    /// Name of its file.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

impl Seed {
    fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
        }
    }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "record_stream",
        run: rpc::record_stream,
        seeds: rpc::record_stream_seeds,
    },
    Target {
        name: "rpc_call",
        run: rpc::call,
        seeds: rpc::call_seeds,
    },
    Target {
        name: "rpc_reply",
        run: rpc::reply,
        seeds: rpc::reply_seeds,
    },
    Target {
        name: "portmap",
        run: wire::portmap,
        seeds: wire::portmap_seeds,
    },
    Target {
        name: "mount",
        run: wire::mount,
        seeds: wire::mount_seeds,
    },
    Target {
        name: "nlm",
        run: wire::nlm,
        seeds: wire::nlm_seeds,
    },
    Target {
        name: "nfs3_args",
        run: wire::nfs3_args,
        seeds: wire::nfs3_args_seeds,
    },
    Target {
        name: "nfs3_results",
        run: wire::nfs3_results,
        seeds: wire::nfs3_results_seeds,
    },
    Target {
        name: "log_entry",
        run: nfsd::log_entry,
        seeds: nfsd::log_entry_seeds,
    },
    Target {
        name: "file_handle",
        run: nfsd::file_handle,
        seeds: nfsd::file_handle_seeds,
    },
    Target {
        name: "machine_rows",
        run: rows::machine_rows,
        seeds: rows::machine_rows_seeds,
    },
    Target {
        name: "log_files",
        run: log::log_files,
        seeds: log::log_files_seeds,
    },
    Target {
        name: "peer_messages",
        run: peers::peer_messages,
        seeds: peers::peer_messages_seeds,
    },
    Target {
        name: "bulletin",
        run: peers::bulletin,
        seeds: peers::bulletin_seeds,
    },
    Target {
        name: "client_table",
        run: peers::client_table,
        seeds: peers::client_table_seeds,
    },
    Target {
        name: "client_list",
        run: peers::client_list,
        seeds: peers::client_list_seeds,
    },
    Target {
        name: "join",
        run: join::join,
        seeds: join::join_seeds,
    },
    Target {
        name: "snapshot",
        run: files::snapshot,
        seeds: files::snapshot_seeds,
    },
    Target {
        name: "store_rows",
        run: files::store_rows,
        seeds: files::store_rows_seeds,
    },
    Target {
        name: "store_current",
        run: files::store_current,
        seeds: files::store_current_seeds,
    },
    Target {
        name: "config",
        run: config::config,
        seeds: config::config_seeds,
    },
    Target {
        name: "exports",
        run: config::exports,
        seeds: config::exports_seeds,
    },
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none, or if something does not hold for `bytes`.
pub fn run(name: &str, bytes: &[u8]) {
    match TARGETS.iter().find(|target| target.name == name) {
        Some(target) => (target.run)(bytes),
        None => panic!("no target is called {name}"),
    }
}
