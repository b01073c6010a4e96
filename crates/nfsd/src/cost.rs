//! How much memory a call takes at most, known before it is looked at: what a transport takes of a budget.
//!
//! It reads no more than it must, since every call pays for it. What does not decode costs what an error costs.
//!
//! It must not know the state.

use crate::mounts::MOUNTS_MAX;
use crate::v3::{IO_BYTES_MAX, SEGMENT_BYTES};
use haven_proto::mount::{self, MNTPATHLEN};
use haven_proto::{nfs3, portmap};
use haven_xdr::{UNIT_BYTES, opaque_wire_bytes};

/// What the answers take that have no part of variable length, or a short one.
pub const PLAIN_ANSWER_BYTES: usize = 1 << 10;
/// Longest target of a symbolic link (fs: `LINK_TARGET_BYTES_MAX`), and what is around it.
const READLINK_ANSWER_BYTES: usize = haven_fs::LINK_TARGET_BYTES_MAX + PLAIN_ANSWER_BYTES;
/// What the port mapper's list takes: a few dozen lines.
const PORTS_ANSWER_BYTES: usize = 8 << 10;
/// Longest address in words.
const HOST_BYTES_MAX: usize = 48;
/// A line of the table of mounts.
const MOUNT_BYTES: usize =
    UNIT_BYTES + opaque_wire_bytes(HOST_BYTES_MAX) + opaque_wire_bytes(MNTPATHLEN);
/// The whole table.
const DUMP_ANSWER_BYTES: usize = MOUNTS_MAX * MOUNT_BYTES + SEGMENT_BYTES + PLAIN_ANSWER_BYTES;

/// The most that any call takes, but for EXPORT, whose answer is in memory anyway: it is part of the configuration.
pub const ANSWER_BYTES_MAX: usize = DUMP_ANSWER_BYTES;
const _: () =
    assert!(ANSWER_BYTES_MAX > IO_BYTES_MAX as usize + SEGMENT_BYTES + PLAIN_ANSWER_BYTES);

/// The most memory in bytes that it takes to answer the call in `message` (without record mark), the reply included.
/// `listing` tells the length of the list of exports: see [`crate::Exports::listing_bytes`].
pub fn answer_bytes_max(message: &[u8], listing: impl FnOnce() -> usize) -> usize {
    variable(message, listing).unwrap_or(PLAIN_ANSWER_BYTES)
}

/// If the answer has a part of variable length.
fn variable(message: &[u8], listing: impl FnOnce() -> usize) -> Option<usize> {
    // Transaction id, message type, RPC version, program, its version, procedure (RFC 5531 section 9).
    let (prog, proc) = (word(message, 12)?, word(message, 20)?);
    match prog {
        nfs3::PROGRAM => nfs3_call(proc, || arguments(message)),
        mount::PROGRAM if proc == mount::Procedure::Dump.to_wire() => Some(DUMP_ANSWER_BYTES),
        mount::PROGRAM if proc == mount::Procedure::Export.to_wire() => {
            Some(listing() + PLAIN_ANSWER_BYTES)
        }
        portmap::PROGRAM => Some(PORTS_ANSWER_BYTES),
        _ => None,
    }
}

fn nfs3_call<'m>(proc: u32, arguments: impl FnOnce() -> Option<&'m [u8]>) -> Option<usize> {
    use nfs3::Proc3;
    // Where the count is behind the handle: an offset, or cookie and verifier, and `dircount`.
    let (count_at, segment) = match Proc3::from_wire(proc)? {
        Proc3::Readlink => return Some(READLINK_ANSWER_BYTES),
        Proc3::Read => (8, 0),
        Proc3::Readdir => (16, SEGMENT_BYTES),
        Proc3::Readdirplus => (20, SEGMENT_BYTES),
        _ => return None,
    };
    let arguments = arguments()?;
    let count = word(arguments, opaque_end(arguments, 0)? + count_at)?;
    let count = count.min(IO_BYTES_MAX) as usize;
    Some(count + count.min(segment) + PLAIN_ANSWER_BYTES)
}

/// What follows credential and verifier.
fn arguments(message: &[u8]) -> Option<&[u8]> {
    let verf = opaque_end(message, 28)?;
    message.get(opaque_end(message, verf + 4)?..)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*word))
}

/// Where a variable opaque ends whose length stands at `at`, if it is there.
fn opaque_end(bytes: &[u8], at: usize) -> Option<usize> {
    let length = usize::try_from(word(bytes, at)?).ok()?;
    let end = at + opaque_wire_bytes(length.min(bytes.len()));
    (length <= bytes.len() && end <= bytes.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use haven_proto::nfs3::{
        Args3, Cookie3, Cookieverf3, Fh3, ReadArgs, ReaddirArgs, ReaddirplusArgs,
    };
    use haven_rpc::{AuthSys, Credential, encode_call};
    use haven_xdr::{Gather, encode_all};

    fn sys() -> Credential {
        Credential::Sys(AuthSys {
            stamp: 7,
            machine_name: Bytes::from_static(b"odd"),
            uid: 1,
            gid: 1,
            gids: vec![1, 2, 3],
        })
    }

    fn call(prog: u32, proc: u32, args: Gather) -> Bytes {
        encode_call(5, prog, 3, proc, &sys(), args).into_bytes()
    }

    fn cost(message: &[u8]) -> usize {
        answer_bytes_max(message, || 77)
    }

    fn nfs(args: &Args3) -> Bytes {
        call(nfs3::PROGRAM, args.proc().to_wire(), encode_all(args))
    }

    #[test]
    fn the_count_in_the_arguments_decides_up_to_what_is_ever_answered() {
        let fh = Fh3(Bytes::from_static(b"a handle of odd length"));
        for count in [0, 1, 4096, IO_BYTES_MAX, u32::MAX] {
            let most = count.min(IO_BYTES_MAX) as usize;
            let read = nfs(&Args3::Read(ReadArgs {
                file: fh.clone(),
                offset: u64::MAX,
                count,
            }));
            assert_eq!(cost(&read), most + PLAIN_ANSWER_BYTES);
            let (cookie, cookieverf) = (Cookie3(u64::MAX), Cookieverf3([255; 8]));
            let listing = most + most.min(SEGMENT_BYTES) + PLAIN_ANSWER_BYTES;
            let readdir = nfs(&Args3::Readdir(ReaddirArgs {
                dir: fh.clone(),
                cookie,
                cookieverf,
                count,
            }));
            assert_eq!(cost(&readdir), listing);
            let readdirplus = nfs(&Args3::Readdirplus(ReaddirplusArgs {
                dir: fh.clone(),
                cookie,
                cookieverf,
                dircount: 9,
                maxcount: count,
            }));
            assert_eq!(cost(&readdirplus), listing);
            assert!(cost(&readdir) <= ANSWER_BYTES_MAX);
            // Cut anywhere, it is an error's cost or the same.
            for cut in 0..readdirplus.len() {
                let cost = cost(&readdirplus[..cut]);
                assert!(cost == PLAIN_ANSWER_BYTES || cost == listing, "{cut}");
            }
        }
    }

    #[test]
    fn lists_of_the_other_programs_count_and_lengths_that_lie_do_not() {
        assert_eq!(cost(&call(mount::PROGRAM, 5, Gather::new())), 77 + 1024);
        let dump = cost(&call(mount::PROGRAM, 2, Gather::new()));
        assert!(dump > 4 << 20 && dump <= ANSWER_BYTES_MAX);
        assert_eq!(cost(&call(99, 2, Gather::new())), PLAIN_ANSWER_BYTES);
        let lie = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let read = call(nfs3::PROGRAM, 6, lie.into());
        assert_eq!(cost(&read), PLAIN_ANSWER_BYTES);
    }
}
