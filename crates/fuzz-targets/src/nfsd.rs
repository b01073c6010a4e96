//! Entries of the replicated log, and file handles.

use crate::Seed;
use bytes::Bytes;
use haven_fs::{Cred, Ino, Level, Time};
use haven_nfsd::{
    Asked, ChangeId, ConnectionId, Entry, ExportId, HandleCodec, HandleKey, MntRules, MountEntry,
    MountOp, News, Nfs3Entry, Target, VolumeId, request_checksum,
};
use haven_proto::nfs3::Proc3;
use std::net::Ipv6Addr;

/// An entry has one form: replicas compare entries by their bytes.
pub(crate) fn log_entry(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(entry) = Entry::decode(&bytes) {
        match entry.encode() {
            Ok(again) => assert_eq!(again, bytes),
            Err(error) => panic!("{entry:?} was decoded but cannot be encoded: {error}"),
        }
    }
}

pub(crate) fn log_entry_seeds() -> Vec<Seed> {
    let time = Time {
        secs: 1_700_000_000,
        nanos: 5,
    };
    let args = Bytes::from_static(b"\0\0\0\x04abcd");
    let proc = Proc3::Remove.to_wire();
    let connection = ConnectionId { term: 3, number: 4 };
    let news = vec![
        News::Arrived {
            connection,
            first: 5,
            last: 6,
        },
        News::Gone { connection },
    ];
    let nfs3 = |asked| {
        Entry::Nfs3(Nfs3Entry {
            time,
            client: Ipv6Addr::LOCALHOST.into(),
            xid: 9,
            checksum: request_checksum(proc, &args),
            asked,
            cred: Cred {
                uid: 1000,
                gid: 100,
                groups: vec![10, 100],
            },
            proc,
            args: args.clone(),
        })
    };
    let asked = Asked {
        caller: 7,
        id: ChangeId { connection, seq: 8 },
        port: 700,
        news: news.clone(),
    };
    let entries = [
        (
            "genesis",
            Entry::Genesis {
                volume_id: [1; 16],
                handle_key: [2; 16],
                time,
            },
        ),
        (
            "export",
            Entry::Export {
                path: Bytes::from_static(b"/export"),
                uid: 0,
                gid: 0,
                mode: 0o755,
                time,
            },
        ),
        ("nfs3", nfs3(None)),
        ("nfs3-asked", nfs3(Some(asked))),
        ("news", Entry::News { time, news }),
        (
            "mount",
            Entry::Mount(MountEntry {
                time,
                client: Ipv6Addr::LOCALHOST.into(),
                xid: 10,
                op: MountOp::Mnt {
                    rules: MntRules::Second,
                    version: 3,
                    export: ExportId(1),
                    path: Bytes::from_static(b"/export/below"),
                },
            }),
        ),
        (
            "mount-version-1",
            Entry::Mount(MountEntry {
                time,
                client: Ipv6Addr::LOCALHOST.into(),
                xid: 10,
                op: MountOp::Mnt {
                    rules: MntRules::First,
                    version: 3,
                    export: ExportId(1),
                    path: Bytes::from_static(b"/export/below"),
                },
            }),
        ),
        (
            "unmount",
            Entry::Mount(MountEntry {
                time,
                client: Ipv6Addr::LOCALHOST.into(),
                xid: 11,
                op: MountOp::Umntall,
            }),
        ),
        ("noop", Entry::Noop { time }),
        (
            "level",
            Entry::Level {
                level: Level::NEWEST,
                time,
            },
        ),
    ];
    let encoded = entries.into_iter().filter_map(|(name, entry)| {
        let bytes = entry.encode().ok()?;
        Some(Seed::new(name, bytes))
    });
    encoded.collect()
}

fn codec() -> HandleCodec {
    HandleCodec::new(VolumeId([7; 16]), HandleKey([1; 16]))
}

/// A handle that is taken is the one that was given out.
pub(crate) fn file_handle(input: &[u8]) {
    if let Ok(target) = codec().decode(input) {
        assert_eq!(codec().encode(target), input);
    }
}

pub(crate) fn file_handle_seeds() -> Vec<Seed> {
    let target = Target {
        ino: Ino(0x0102_0304_0506_0708),
        generation: 9,
        export: ExportId(3),
    };
    let other = HandleCodec::new(VolumeId([8; 16]), HandleKey([1; 16]));
    vec![
        Seed::new("own", codec().encode(target)),
        Seed::new("other-volume", other.encode(target)),
    ]
}
