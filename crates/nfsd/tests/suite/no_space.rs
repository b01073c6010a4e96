//! No space left: what would take some is refused before it gets into the log, the rest goes on.

use crate::server::{Server, results};
use bytes::Bytes;
use haven_fs::Time;
use haven_nfsd::Prepared;
use haven_proto::nfs3::*;
use haven_rpc::Call;
use haven_xdr::{Decode, Gather, encode_all};

fn call(s: &mut Server, args: &Args3) -> Call {
    s.call(PROGRAM, VERSION, args.proc().to_wire(), encode_all(args))
}

/// What is said instead of proposing a change.
fn refusal(s: &mut Server, call: &Call) -> Option<Gather> {
    let time = Time {
        secs: 9_000,
        nanos: 0,
    };
    match s.prepared(call, time) {
        Prepared::Mutation(change) => {
            let entry = s.entry(&change);
            s.machine.refuse_growth(&entry).unwrap()
        }
        other => panic!("no mutation: {other:?}"),
    }
}

/// The status; `None` is success.
fn status<T: Decode, F: Decode>(reply: Gather) -> Option<Nfsstat3> {
    results::<Res3<T, F>>(reply).ok_or_status().err()
}

#[test]
fn what_takes_space_gets_nospc_and_what_does_not_may_run() {
    let mut s = Server::new();
    let root = s.root.clone();
    let file = s.file(&root, "f");
    s.write(&file, 0, b"0123456789").ok_or_status().unwrap();
    let (place, sattr) = (s.at(&root, "x"), Sattr3::default());
    let size = |size| {
        Args3::Setattr(SetattrArgs {
            object: file.clone(),
            new_attributes: Sattr3 {
                size: Some(size),
                ..sattr
            },
            guard: None,
        })
    };
    let refused = [
        Args3::Write(WriteArgs {
            file: file.clone(),
            offset: 0,
            count: 1,
            stable: StableHow::Unstable,
            data: Bytes::from_static(b"x"),
        }),
        Args3::Create(CreateArgs {
            place: place.clone(),
            how: Createhow3::Unchecked(sattr),
        }),
        Args3::Mkdir(MkdirArgs {
            place: place.clone(),
            attributes: sattr,
        }),
        Args3::Symlink(SymlinkArgs {
            place: place.clone(),
            symlink_attributes: sattr,
            symlink_data: "t".into(),
        }),
        Args3::Mknod(MknodArgs {
            place: place.clone(),
            what: Mknoddata3::Fifo(sattr),
        }),
        Args3::Link(LinkArgs {
            file: file.clone(),
            link: place.clone(),
        }),
        size(11),
    ];
    for args in refused {
        let call = call(&mut s, &args);
        let reply = refusal(&mut s, &call).unwrap_or_else(|| panic!("{:?} may run", args.proc()));
        // The failure's body differs; the status comes first in all.
        let told = match &args {
            Args3::Link(_) => status::<LinkWcc, LinkWcc>(reply),
            Args3::Write(_) => status::<WriteOk, WccData>(reply),
            Args3::Setattr(_) => status::<WccData, WccData>(reply),
            _ => status::<CreateOk, WccData>(reply),
        };
        assert_eq!(told, Some(Nfsstat3::NoSpc), "{:?}", args.proc());
    }
    let free = [
        Args3::Remove(RemoveArgs {
            object: s.at(&root, "f"),
        }),
        Args3::Rmdir(RmdirArgs {
            object: s.at(&root, "f"),
        }),
        Args3::Rename(RenameArgs {
            from: s.at(&root, "f"),
            to: place,
        }),
        size(10),
        size(3),
    ];
    for args in free {
        let call = call(&mut s, &args);
        assert_eq!(refusal(&mut s, &call), None, "{:?}", args.proc());
    }
}

#[test]
fn a_change_that_was_executed_before_is_answered_as_then() {
    let mut s = Server::new();
    let root = s.root.clone();
    let create = Args3::Create(CreateArgs {
        place: s.at(&root, "once"),
        how: Createhow3::Guarded(Sattr3::default()),
    });
    let file = s.file(&root, "f");
    let data = Bytes::from(vec![1; 8 << 10]);
    let write = Args3::Write(WriteArgs {
        file,
        offset: 0,
        count: data.len() as u32,
        stable: StableHow::Unstable,
        data,
    });
    let [small, large] = [create, write].map(|args| call(&mut s, &args));
    let replies = [&small, &large].map(|call| s.send(call));
    s.reconnect();
    assert_eq!(refusal(&mut s, &small), None, "its entry finds the reply");
    s.connection.number = 1;
    s.reconnect();
    let told = refusal(&mut s, &large);
    assert_eq!(told.as_ref(), Some(&replies[1]), "not through the log");
    // While nobody says that the first connection is gone, these are other requests.
    let told = refusal(&mut s, &small).and_then(status::<CreateOk, WccData>);
    assert_eq!(told, Some(Nfsstat3::NoSpc));
}
