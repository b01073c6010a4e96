//! The properties, one function each, by what they are about.

mod creation;
mod data;
mod names;
mod permissions;
mod removal;

use super::{Property, Subject};
use crate::{Cookie, Cred, FsResult, Ino};

macro_rules! properties {
    ($($module:ident: $($name:ident),* ;)*) => {
        /// All properties, in the order in which [`super::run`] checks them.
        pub const PROPERTIES: &[Property] = &[$($((stringify!($name), $module::$name)),*),*];
    };
}

properties! {
    creation: initial_state, inodes_are_numbered_in_order, times_and_change_of_create,
        guarded_create, unchecked_create, exclusive_create, creation_attributes,
        setgid_directory_inherits, symlinks, special_files, hard_links, inodes_never_reused;
    names: lookup_dots, bad_names_are_refused, not_a_directory_and_stale, cookies_are_stable,
        directory_size, directory_links;
    data: read_and_write, sparse_file, used_counts_what_was_written, used_is_the_size_at_first,
        size_limits, write_of_nothing, truncate_and_grow, write_clears_privileges, statfs_is_sane,
        system_table;
    permissions: permission_bits, supplementary_groups, owner_reads_and_writes, access_bits,
        chmod_rules, chown_rules, utimes_rules, guard, empty_setattr,
        failed_mutations_change_nothing;
    removal: remove_rules, sticky_directory, rmdir_rules, rename_file, rename_same_inode,
        rename_replaces, rename_directories, rename_loops, rename_dot_dot, rename_sticky,
        rename_deep_down, rename_deep_down_at_first;
}

/// Unwraps what must succeed.
fn ok<T>(result: FsResult<T>) -> T {
    result.unwrap_or_else(|e| panic!("must succeed, not fail with: {e}"))
}

fn user(uid: u32, gid: u32) -> Cred {
    Cred {
        uid,
        gid,
        groups: vec![],
    }
}

/// A directory that everybody may change.
fn open_dir(s: &mut Subject<'_>, name: &str) -> Ino {
    ok(s.mkdir(&Cred::root(), s.root(), name, 0o777)).ino
}

fn names(s: &Subject<'_>, dir: Ino) -> Vec<String> {
    let (entries, end) = ok(s.list(&Cred::root(), dir, Cookie(0), 10_000));
    assert!(end);
    let mut names: Vec<_> = entries
        .into_iter()
        .map(|(name, ..)| String::from_utf8_lossy(&name).into_owned())
        .filter(|name| name != "." && name != "..")
        .collect();
    names.sort();
    names
}
