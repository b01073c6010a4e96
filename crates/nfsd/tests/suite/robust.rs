//! Nothing that a client sends panics, stops the replica, or leaves it in an unequal state.

use crate::server::{Server, encoded};
use bytes::Bytes;
use haven_proto::nfs3::*;
use haven_rpc::{Call, decode_reply};
use proptest::prelude::*;

/// Well-formed arguments of every procedure, on objects that exist.
fn samples(s: &mut Server) -> Vec<Args3> {
    let root = s.root.clone();
    let file = s.file(&root, "f");
    let (here, there) = (s.at(&root, "f"), s.at(&root, "g"));
    let sattr = Sattr3 {
        mode: Some(0o644),
        size: Some(9),
        ..Sattr3::default()
    };
    let (cookie, cookieverf) = (Cookie3(0), Cookieverf3::default());
    let dir = root.clone();
    vec![
        Args3::Getattr(GetattrArgs {
            object: root.clone(),
        }),
        Args3::Setattr(SetattrArgs {
            object: file.clone(),
            new_attributes: sattr,
            guard: None,
        }),
        Args3::Lookup(LookupArgs { what: here.clone() }),
        Args3::Access(AccessArgs {
            object: root.clone(),
            access: 63,
        }),
        Args3::Readlink(ReadlinkArgs {
            symlink: file.clone(),
        }),
        Args3::Read(ReadArgs {
            file: file.clone(),
            offset: 1,
            count: 100,
        }),
        Args3::Write(WriteArgs {
            file: file.clone(),
            offset: 5,
            count: 3,
            stable: StableHow::Unstable,
            data: Bytes::from_static(b"abc"),
        }),
        Args3::Create(CreateArgs {
            place: there.clone(),
            how: Createhow3::Unchecked(sattr),
        }),
        Args3::Mkdir(MkdirArgs {
            place: there.clone(),
            attributes: sattr,
        }),
        Args3::Symlink(SymlinkArgs {
            place: there.clone(),
            symlink_attributes: sattr,
            symlink_data: "target".into(),
        }),
        Args3::Mknod(MknodArgs {
            place: there.clone(),
            what: Mknoddata3::Fifo(sattr),
        }),
        Args3::Remove(RemoveArgs {
            object: here.clone(),
        }),
        Args3::Rmdir(RmdirArgs {
            object: here.clone(),
        }),
        Args3::Rename(RenameArgs {
            from: here.clone(),
            to: there.clone(),
        }),
        Args3::Link(LinkArgs {
            file: file.clone(),
            link: there,
        }),
        Args3::Readdir(ReaddirArgs {
            dir: dir.clone(),
            cookie,
            cookieverf,
            count: 999,
        }),
        Args3::Readdirplus(ReaddirplusArgs {
            dir,
            cookie,
            cookieverf,
            dircount: 999,
            maxcount: 999,
        }),
        Args3::Fsstat(FsstatArgs {
            fsroot: root.clone(),
        }),
        Args3::Fsinfo(FsinfoArgs {
            fsroot: root.clone(),
        }),
        Args3::Pathconf(PathconfArgs { object: root }),
        Args3::Commit(CommitArgs {
            file,
            offset: 0,
            count: 0,
        }),
    ]
}

fn sent(s: &mut Server, proc: u32, args: Vec<u8>) {
    let call = s.call(PROGRAM, VERSION, proc, Bytes::from(args).into());
    let reply = decode_reply(s.send(&call).into_bytes()).unwrap();
    assert_eq!(reply.xid, call.xid);
}

#[test]
fn every_cut_of_every_call() {
    let mut s = Server::new();
    for args in samples(&mut s) {
        let bytes = encoded(&args).into_bytes();
        for len in 0..bytes.len() {
            sent(&mut s, args.proc().to_wire(), bytes[..len].to_vec());
        }
    }
}

/// Extreme values in every word, one after the other: offsets near 2^64, counts, lengths, enums.
#[test]
fn every_word_of_every_call_at_its_limits() {
    let mut s = Server::new();
    for args in samples(&mut s) {
        let bytes = encoded(&args).into_bytes();
        for word in 0..bytes.len() / 4 {
            for value in [0, 1, 2, 255, 4_096, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
                let mut changed = bytes.to_vec();
                changed[word * 4..word * 4 + 4].copy_from_slice(&u32::to_be_bytes(value));
                sent(&mut s, args.proc().to_wire(), changed);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_arguments(
        calls in proptest::collection::vec(
            (0u32..24, proptest::collection::vec(any::<u8>(), 0..160)),
            1..20,
        ),
    ) {
        let mut s = Server::new();
        for (proc, args) in calls {
            sent(&mut s, proc, args);
        }
    }

    #[test]
    fn random_changes_to_good_arguments(
        changes in proptest::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 1..60),
    ) {
        let mut s = Server::new();
        let samples = samples(&mut s);
        for (which, at, value) in changes {
            let args = &samples[usize::from(which) % samples.len()];
            let mut bytes = encoded(args).into_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = value;
            sent(&mut s, args.proc().to_wire(), bytes);
        }
    }

    #[test]
    fn random_programs(
        prog in prop_oneof![Just(100_000u32), Just(100_003), Just(100_005), any::<u32>()],
        vers in 0u32..5,
        proc in 0u32..24,
        args in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut s = Server::new();
        let cred = haven_rpc::Credential::None;
        let call = Call { xid: 77, prog, vers, proc, cred, args: args.into() };
        let reply = decode_reply(s.send(&call).into_bytes()).unwrap();
        prop_assert_eq!(reply.xid, 77);
    }
}
