//! Types with an XDR form. The first byte of an input chooses the type, the rest is the message.

use crate::Seed;
use bytes::Bytes;
use haven_proto::{mount, nfs3, nlm, portmap, rpcbind};
use haven_xdr::{Decode, Encode, Reader, decode_all, encode_all};
use std::fmt::Debug;

/// How many messages are drawn for a type, to choose its seeds from.
const DRAWS: u64 = 400;
/// Words in what messages are drawn from.
const DRAW_WORDS: usize = 120;

/// A type with what is done with it.
struct Wire {
    check: fn(&Bytes),
    draw: fn(u64) -> Option<Bytes>,
}

impl Wire {
    const fn of<T: Encode + Decode + PartialEq + Debug>() -> Self {
        Self {
            check: check::<T>,
            draw: draw::<T>,
        }
    }
}

/// What is taken has one form, but for fill bytes, which are written as zeros.
pub(crate) fn check<T: Encode + Decode + PartialEq + Debug>(bytes: &Bytes) {
    let Ok(value) = decode_all::<T>(bytes.clone()) else {
        return;
    };
    let again = encode_all(&value).into_bytes();
    same_but_fill(bytes, &again);
    assert_eq!(decode_all::<T>(again), Ok(value));
}

pub(crate) fn same_but_fill(old: &[u8], new: &[u8]) {
    assert_eq!(old.len(), new.len(), "{old:?} is written as {new:?}");
    let filled = |(old, new): (&u8, &u8)| old == new || *new == 0;
    assert!(
        old.iter().zip(new).all(filled),
        "{old:?} is written as {new:?}"
    );
}

/// A message of the type, if `seed` happens to draw one: small words are mostly valid discriminants,
/// bools and lengths, so that a decoder finds something at the start of a row of them.
fn draw<T: Encode + Decode>(seed: u64) -> Option<Bytes> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = (0..DRAW_WORDS).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 33) as u32;
        match random % 8 {
            0..3 => 0,
            3..6 => 1,
            6 => random >> 3 & 7,
            _ => random,
        }
    });
    let bytes: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
    let value = T::decode(&mut Reader::new(bytes.into())).ok()?;
    Some(encode_all(&value).into_bytes())
}

/// Checks the rest of `input` as the type that its first byte chooses.
fn run(types: &[Wire], input: &[u8]) {
    if let Some((&which, message)) = input.split_first()
        && let Some(wire) = types.get(usize::from(which))
    {
        (wire.check)(&Bytes::copy_from_slice(message));
    }
}

/// For each type the shortest and the longest message drawn.
fn seeds(types: &[Wire]) -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (which, wire) in types.iter().enumerate() {
        let drawn: Vec<Bytes> = (1..=DRAWS).filter_map(wire.draw).collect();
        let shortest = drawn.iter().min_by_key(|message| message.len());
        let longest = drawn.iter().max_by_key(|message| message.len());
        for (name, message) in [("short", shortest), ("long", longest)] {
            if let Some(message) = message {
                let bytes = [&[which as u8][..], message].concat();
                seeds.push(Seed::new(format!("{which:02}-{name}"), bytes));
            }
        }
    }
    seeds
}

const PORTMAP: &[Wire] = &[
    Wire::of::<portmap::Mapping>(),
    Wire::of::<portmap::Pmaplist>(),
    Wire::of::<portmap::CallArgs>(),
    Wire::of::<portmap::CallResult>(),
    Wire::of::<rpcbind::Rpcb>(),
    Wire::of::<rpcbind::Rpcblist>(),
    Wire::of::<rpcbind::RmtcallArgs>(),
    Wire::of::<rpcbind::RmtcallRes>(),
    Wire::of::<rpcbind::Netbuf>(),
    Wire::of::<rpcbind::RpcbEntryList>(),
    Wire::of::<rpcbind::RpcbStatByvers>(),
];

/// Portmap version 2 and rpcbind versions 3 and 4, and the text of universal addresses.
pub(crate) fn portmap(input: &[u8]) {
    run(PORTMAP, input);
    if let Ok(uaddr) = rpcbind::Uaddr::parse(input) {
        assert_eq!(uaddr.to_string().parse(), Ok(uaddr));
    }
}

pub(crate) fn portmap_seeds() -> Vec<Seed> {
    let mut seeds = seeds(PORTMAP);
    seeds.push(Seed::new("uaddr4", "192.0.2.1.8.1"));
    seeds.push(Seed::new("uaddr6", "2001:db8::7.8.1"));
    seeds
}

const MOUNT: &[Wire] = &[
    Wire::of::<mount::Dirpath>(),
    Wire::of::<mount::Mountres3>(),
    Wire::of::<mount::Fhstatus>(),
    Wire::of::<mount::Mountlist>(),
    Wire::of::<mount::Exports>(),
];

/// MOUNT versions 1 and 3.
pub(crate) fn mount(input: &[u8]) {
    run(MOUNT, input);
}

pub(crate) fn mount_seeds() -> Vec<Seed> {
    seeds(MOUNT)
}

const NLM: &[Wire] = &[
    Wire::of::<nlm::Testargs<u32>>(),
    Wire::of::<nlm::Testargs<u64>>(),
    Wire::of::<nlm::Lockargs<u32>>(),
    Wire::of::<nlm::Lockargs<u64>>(),
    Wire::of::<nlm::Cancargs<u32>>(),
    Wire::of::<nlm::Cancargs<u64>>(),
    Wire::of::<nlm::Unlockargs<u32>>(),
    Wire::of::<nlm::Unlockargs<u64>>(),
    Wire::of::<nlm::Testres<u32>>(),
    Wire::of::<nlm::Testres<u64>>(),
    Wire::of::<nlm::Res>(),
    Wire::of::<nlm::Shareargs>(),
    Wire::of::<nlm::Shareres>(),
    Wire::of::<nlm::Notify>(),
];

/// NLM versions 1, 3 and 4.
pub(crate) fn nlm(input: &[u8]) {
    run(NLM, input);
}

pub(crate) fn nlm_seeds() -> Vec<Seed> {
    seeds(NLM)
}

/// Arguments of NFSv3: the first byte is the procedure.
pub(crate) fn nfs3_args(input: &[u8]) {
    let Some((&number, args)) = input.split_first() else {
        return;
    };
    let Some(proc) = nfs3::Proc3::from_wire(u32::from(number)) else {
        return;
    };
    let bytes = Bytes::copy_from_slice(args);
    if let Ok(args) = nfs3::Args3::decode(proc, bytes.clone()) {
        assert_eq!(args.proc(), proc);
        let again = encode_all(&args).into_bytes();
        same_but_fill(&bytes, &again);
        assert_eq!(nfs3::Args3::decode(proc, again), Ok(args));
    }
}

/// The arguments, by procedure number.
const NFS3_ARGS: &[Wire] = &[
    Wire::of::<()>(),
    Wire::of::<nfs3::GetattrArgs>(),
    Wire::of::<nfs3::SetattrArgs>(),
    Wire::of::<nfs3::LookupArgs>(),
    Wire::of::<nfs3::AccessArgs>(),
    Wire::of::<nfs3::ReadlinkArgs>(),
    Wire::of::<nfs3::ReadArgs>(),
    Wire::of::<nfs3::WriteArgs>(),
    Wire::of::<nfs3::CreateArgs>(),
    Wire::of::<nfs3::MkdirArgs>(),
    Wire::of::<nfs3::SymlinkArgs>(),
    Wire::of::<nfs3::MknodArgs>(),
    Wire::of::<nfs3::RemoveArgs>(),
    Wire::of::<nfs3::RmdirArgs>(),
    Wire::of::<nfs3::RenameArgs>(),
    Wire::of::<nfs3::LinkArgs>(),
    Wire::of::<nfs3::ReaddirArgs>(),
    Wire::of::<nfs3::ReaddirplusArgs>(),
    Wire::of::<nfs3::FsstatArgs>(),
    Wire::of::<nfs3::FsinfoArgs>(),
    Wire::of::<nfs3::PathconfArgs>(),
    Wire::of::<nfs3::CommitArgs>(),
];

pub(crate) fn nfs3_args_seeds() -> Vec<Seed> {
    seeds(NFS3_ARGS)
}

/// The results, by procedure number.
const NFS3_RESULTS: &[Wire] = &[
    Wire::of::<()>(),
    Wire::of::<nfs3::GetattrRes>(),
    Wire::of::<nfs3::SetattrRes>(),
    Wire::of::<nfs3::LookupRes>(),
    Wire::of::<nfs3::AccessRes>(),
    Wire::of::<nfs3::ReadlinkRes>(),
    Wire::of::<nfs3::ReadRes>(),
    Wire::of::<nfs3::WriteRes>(),
    Wire::of::<nfs3::CreateRes>(),
    Wire::of::<nfs3::MkdirRes>(),
    Wire::of::<nfs3::SymlinkRes>(),
    Wire::of::<nfs3::MknodRes>(),
    Wire::of::<nfs3::RemoveRes>(),
    Wire::of::<nfs3::RmdirRes>(),
    Wire::of::<nfs3::RenameRes>(),
    Wire::of::<nfs3::LinkRes>(),
    Wire::of::<nfs3::ReaddirRes>(),
    Wire::of::<nfs3::ReaddirplusRes>(),
    Wire::of::<nfs3::FsstatRes>(),
    Wire::of::<nfs3::FsinfoRes>(),
    Wire::of::<nfs3::PathconfRes>(),
    Wire::of::<nfs3::CommitRes>(),
];

/// Results of NFSv3: the first byte is the procedure.
pub(crate) fn nfs3_results(input: &[u8]) {
    run(NFS3_RESULTS, input);
}

pub(crate) fn nfs3_results_seeds() -> Vec<Seed> {
    seeds(NFS3_RESULTS)
}
