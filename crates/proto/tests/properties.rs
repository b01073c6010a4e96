//! What holds for every message type: it comes back as it was sent, no part of it is taken for the
//! whole, and random bytes do not panic its decoder.

mod common;

use bytes::Bytes;
use common::{Arb, Draw};
use haven_proto::{mount, nfs3, portmap};
use haven_xdr::{Decode, Encode, decode_all, encode_all};
use proptest::prelude::*;
use std::fmt::Debug;

fn comes_back<T: Arb + Encode + Decode + PartialEq + Debug>(seed: u64) {
    let mut d = Draw(seed);
    let value = T::arb(&mut d);
    let wire = encode_all(&value).into_bytes();
    assert_eq!(wire.len() % 4, 0);
    if !wire.is_empty() {
        let end = d.upto(wire.len() - 1);
        assert!(
            decode_all::<T>(wire.slice(..end)).is_err(),
            "cut at {end}: {value:?}"
        );
    }
    let longer = [&wire[..], &[0; 4]].concat();
    assert!(
        decode_all::<T>(longer.into()).is_err(),
        "with a tail: {value:?}"
    );
    assert_eq!(decode_all::<T>(wire), Ok(value));
}

/// Whatever bytes are accepted mean a value that is itself accepted: nothing is half understood.
fn survives<T: Encode + Decode + PartialEq + Debug>(bytes: &Bytes) {
    if let Ok(value) = decode_all::<T>(bytes.clone()) {
        let again = encode_all(&value).into_bytes();
        assert_eq!(decode_all::<T>(again), Ok(value));
    }
}

/// Valid bytes with one of them changed: comes further into a decoder than random bytes do.
fn survives_damage<T: Arb + Encode + Decode + PartialEq + Debug>(seed: u64) {
    let mut d = Draw(seed);
    let mut wire = encode_all(&T::arb(&mut d)).into_bytes().to_vec();
    if !wire.is_empty() {
        let at = d.upto(wire.len() - 1);
        wire[at] ^= 1 << (d.u64() % 8);
        survives::<T>(&wire.into());
    }
}

macro_rules! every_type {
    ($($type:ty),* $(,)?) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(200))]

            #[test]
            fn every_type_comes_back(seed: u64) {
                $(comes_back::<$type>(seed);)*
            }

            #[test]
            fn damage_never_panics(seed: u64) {
                $(survives_damage::<$type>(seed);)*
            }

            #[test]
            fn random_bytes_never_panic(bytes: Vec<u8>) {
                let bytes = Bytes::from(bytes);
                $(survives::<$type>(&bytes);)*
            }

            /// Small words are valid discriminants, bools and lengths much more often than random ones.
            #[test]
            fn random_small_words_never_panic(words in proptest::collection::vec(0_u32..9, 0..80)) {
                let bytes = words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
                let bytes = Bytes::from(bytes);
                $(survives::<$type>(&bytes);)*
            }
        }
    };
}

every_type!(
    portmap::Mapping,
    portmap::Pmaplist,
    mount::Dirpath,
    mount::Mountres3,
    mount::Fhstatus,
    mount::Mountlist,
    mount::Exports,
    nfs3::Fattr3,
    nfs3::Sattr3,
    nfs3::WccData,
    nfs3::Createhow3,
    nfs3::Mknoddata3,
    nfs3::GetattrArgs,
    nfs3::SetattrArgs,
    nfs3::LookupArgs,
    nfs3::AccessArgs,
    nfs3::ReadlinkArgs,
    nfs3::ReadArgs,
    nfs3::WriteArgs,
    nfs3::CreateArgs,
    nfs3::MkdirArgs,
    nfs3::SymlinkArgs,
    nfs3::MknodArgs,
    nfs3::RemoveArgs,
    nfs3::RmdirArgs,
    nfs3::RenameArgs,
    nfs3::LinkArgs,
    nfs3::ReaddirArgs,
    nfs3::ReaddirplusArgs,
    nfs3::FsstatArgs,
    nfs3::FsinfoArgs,
    nfs3::PathconfArgs,
    nfs3::CommitArgs,
    nfs3::GetattrRes,
    nfs3::SetattrRes,
    nfs3::LookupRes,
    nfs3::AccessRes,
    nfs3::ReadlinkRes,
    nfs3::ReadRes,
    nfs3::WriteRes,
    nfs3::CreateRes,
    nfs3::RemoveRes,
    nfs3::RenameRes,
    nfs3::LinkRes,
    nfs3::ReaddirRes,
    nfs3::ReaddirplusRes,
    nfs3::FsstatRes,
    nfs3::FsinfoRes,
    nfs3::PathconfRes,
    nfs3::CommitRes,
);

proptest! {
    #[test]
    fn arguments_of_any_procedure_come_back(seed: u64) {
        let args = nfs3::Args3::arb(&mut Draw(seed));
        let wire = encode_all(&args).into_bytes();
        prop_assert_eq!(nfs3::Args3::decode(args.proc(), wire), Ok(args));
    }

    #[test]
    fn arguments_of_any_procedure_never_panic(number in 0_u32..22, bytes: Vec<u8>) {
        let proc = nfs3::Proc3::from_wire(number).unwrap();
        if let Ok(args) = nfs3::Args3::decode(proc, bytes.into()) {
            prop_assert_eq!(args.proc(), proc);
        }
    }

    #[test]
    fn entries_are_as_long_as_they_say(seed: u64) {
        let mut d = Draw(seed);
        let entry = nfs3::Entry3::arb(&mut d);
        let len = encode_all(&Some(entry.clone())).len();
        prop_assert_eq!(len, nfs3::Entry3::wire_bytes(entry.name.0.len()));

        let attr = nfs3::Fattr3::arb(&mut d);
        prop_assert_eq!(encode_all(&attr).len(), nfs3::Fattr3::WIRE_BYTES);
        let fh = nfs3::Fh3::arb(&mut d);
        let expected = nfs3::Entryplus3::wire_bytes(entry.name.0.len(), fh.0.len());
        let plus = nfs3::Entryplus3 {
            fileid: entry.fileid,
            name: entry.name,
            cookie: entry.cookie,
            name_attributes: Some(attr),
            name_handle: Some(fh),
        };
        prop_assert_eq!(encode_all(&Some(plus)).len(), expected);

        let empty = nfs3::ReaddirOk {
            dir_attributes: Some(attr),
            cookieverf: nfs3::Cookieverf3::default(),
            entries: Vec::new(),
            eof: true,
        };
        let len = encode_all(&nfs3::ReaddirRes::Ok(empty)).len();
        prop_assert_eq!(len, nfs3::ReaddirOk::OVERHEAD_BYTES);
    }
}
