//! What the machine keeps beside files: its identity, server time, exports, mounts and cached replies, as rows
//! of the system table.
//!
//! An input: rows, each the key's length, the value's (`u16`), key and value.

use crate::Seed;
use bytes::Bytes;
use haven_fs::model::Model;
use haven_fs::{Cred, Filesystem, FsError, FsResult, Ino, Kind, Level, SystemTable, Time};
use haven_nfsd::{
    Asked, ChangeId, ConnectionId, Entry, Machine, MntRules, MountEntry, MountOp, News, Nfs3Entry,
    Surroundings, check_system, fuzzing, request_checksum,
};
use haven_proto::nfs3::{Diropargs3, Fh3, Filename3, Proc3, RemoveArgs};
use haven_xdr::encode_all;
use std::net::Ipv6Addr;
use std::ops::ControlFlow;

/// The entry after all that rows can come from.
const NEXT: u64 = u64::MAX;
/// Who asks.
const CLIENT: Ipv6Addr = Ipv6Addr::LOCALHOST;

/// Rows as one by one, and as a table that a node starts on: if nothing is wrong with it, the node starts, takes
/// an entry, and what it keeps in memory is what it would read from the table.
pub(crate) fn machine_rows(input: &[u8]) {
    let mut table = Model::new();
    for (key, value) in rows(input) {
        fuzzing::row(key, value);
        put(&mut table, key, value);
    }
    let clean = is_clean(&table, NEXT - 1);
    let machine = Machine::new(table);
    let Ok(mut machine) = machine else {
        assert!(!clean, "a table without findings is refused: {machine:?}");
        return;
    };
    for entry in entries() {
        let applied = machine.apply(NEXT, &entry);
        if clean {
            assert!(applied.is_ok(), "{applied:?}");
        }
    }
    if clean {
        assert!(is_clean(machine.fs(), NEXT), "{machine:?}");
        let kept = format!("{machine:?}");
        assert_eq!(machine.reload(), Ok(()));
        assert_eq!(format!("{machine:?}"), kept);
    }
}

fn rows(mut input: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut rows = Vec::new();
    while let Some((&[key, low, high], rest)) = input.split_first_chunk::<3>() {
        let (key, rest) = rest.split_at(rest.len().min(key.into()));
        let value = usize::from(u16::from_le_bytes([low, high]));
        let (value, rest) = rest.split_at(rest.len().min(value));
        rows.push((key, value));
        input = rest;
    }
    rows
}

fn put(table: &mut Model, key: &[u8], value: &[u8]) {
    let put = table.system_put(key, Some(value));
    assert_eq!(put, Ok(()), "the model never fails");
}

fn is_clean(table: &Model, applied: u64) -> bool {
    let is_directory = |ino: Ino| -> FsResult<Option<bool>> {
        match table.attr(ino) {
            Ok(attr) => Ok(Some(attr.kind == Kind::Directory)),
            Err(FsError::Stale) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let around = Surroundings {
        is_directory: &is_directory,
        applied: Some(applied),
    };
    let mut findings = 0;
    let checked = check_system(table, &around, &mut |_| findings += 1);
    checked.is_ok() && findings == 0
}

/// Entries that change each of the machine's tables, in whatever state it is.
fn entries() -> Vec<Bytes> {
    let time = Time { secs: 1, nanos: 5 };
    let args = encode_all(&RemoveArgs {
        object: Diropargs3 {
            dir: Fh3(Bytes::from_static(b"no handle")),
            name: Filename3(Bytes::from_static(b"name")),
        },
    });
    let (proc, args) = (Proc3::Remove.to_wire(), args.into_bytes());
    let nfs3 = |xid, asked| {
        Entry::Nfs3(Nfs3Entry {
            time,
            client: CLIENT.into(),
            xid,
            checksum: request_checksum(proc, &args),
            asked,
            cred: Cred {
                uid: 1000,
                gid: 100,
                groups: vec![10],
            },
            proc,
            args: args.clone(),
        })
    };
    let connection = ConnectionId { term: 3, number: 1 };
    let asked = |number, news| Asked {
        caller: 7,
        id: ChangeId {
            connection: ConnectionId {
                number,
                ..connection
            },
            seq: 1,
        },
        port: 700,
        news,
    };
    let entries = [
        Entry::Genesis {
            volume_id: [1; 16],
            handle_key: [2; 16],
            time,
        },
        Entry::Level {
            level: Level::NEWEST,
            time,
        },
        Entry::Export {
            path: Bytes::from_static(b"/export"),
            uid: 0,
            gid: 0,
            mode: 0o755,
            time,
        },
        Entry::Mount(MountEntry {
            time,
            client: CLIENT.into(),
            xid: 10,
            op: MountOp::Umntall,
        }),
        nfs3(8, None),
        nfs3(9, Some(asked(1, Vec::new()))),
        // What came over the first connection may be asked for again; this is not that.
        nfs3(10, Some(asked(2, vec![News::Gone { connection }]))),
    ];
    let encoded = entries.iter().filter_map(|entry| entry.encode().ok());
    encoded.collect()
}

/// What a machine writes that executes every kind of entry.
fn written() -> Vec<(Vec<u8>, Vec<u8>)> {
    let Ok(mut machine) = Machine::new(Model::new()) else {
        return Vec::new();
    };
    let mount = |rules, path| {
        let mount = MountEntry {
            time: Time::default(),
            client: CLIENT.into(),
            xid: 8,
            op: MountOp::Mnt {
                rules,
                version: 3,
                export: haven_nfsd::ExportId(1),
                path: Bytes::from_static(path),
            },
        };
        Entry::Mount(mount).encode()
    };
    let all = entries()
        .into_iter()
        .chain(mount(MntRules::First, b"/export"))
        .chain(mount(MntRules::Second, b"/"));
    for (index, entry) in (1..).zip(all) {
        let applied = machine.apply(index, &entry);
        assert!(applied.is_ok(), "{applied:?}");
    }
    let mut rows = Vec::new();
    let scanned = machine.fs().system_scan(b"", &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    });
    assert_eq!(scanned, Ok(()), "the model never fails");
    rows
}

pub(crate) fn machine_rows_seeds() -> Vec<Seed> {
    let row = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let [low, high] = (value.len() as u16).to_le_bytes();
        [&[key.len() as u8, low, high][..], key, value].concat()
    };
    // An export's directory is not in a table.
    let rows = written();
    let all: Vec<u8> = rows.iter().flat_map(row).collect();
    let without_exports = rows.iter().filter(|(key, _)| !key.starts_with(b"m/export"));
    let without_exports: Vec<u8> = without_exports.flat_map(row).collect();
    let mut seeds = vec![
        Seed::new("all", all),
        Seed::new("without-exports", without_exports),
    ];
    for (i, one) in rows.iter().enumerate() {
        let name: String = (one.0.iter().map(|&byte| char::from(byte)))
            .take_while(|c| c.is_ascii_graphic())
            .map(|c| if c == '/' { '-' } else { c })
            .collect();
        seeds.push(Seed::new(format!("{i}-{name}"), row(one)));
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_reach_a_machine_that_goes_on() {
        let seeds = machine_rows_seeds();
        let whole = seeds.iter().find(|seed| seed.name == "without-exports");
        let rows = rows(&whole.unwrap().bytes);
        for prefix in [
            "m/identity",
            "m/level",
            "m/time",
            "m/served",
            "m/mount/",
            "r/",
            "g/",
        ] {
            assert!(
                rows.iter()
                    .any(|(key, _)| key.starts_with(prefix.as_bytes()))
            );
        }
        let mut table = Model::new();
        rows.iter()
            .for_each(|(key, value)| put(&mut table, key, value));
        assert!(is_clean(&table, NEXT - 1));
    }
}
