//! What holds for every type of `rpc` and `proto` that goes over the wire: it comes back as it was sent, no
//! part of it is taken for the whole, random bytes do not panic its decoder, and what is taken has one form
//! only. That no type is forgotten is checked against the sources.

mod common;

use bytes::Bytes;
use common::{Arb, Draw};
use haven_proto::{mount, nfs3, nlm, portmap, rpcbind};
use haven_rpc as rpc;
use haven_xdr::{Decode, Encode, decode_all, encode_all};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::Path;

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

/// Whatever bytes are accepted are the form of what they mean, but for fill bytes, which are written as zeros.
fn survives<T: Encode + Decode + PartialEq + Debug>(bytes: &Bytes) {
    if let Ok(value) = decode_all::<T>(bytes.clone()) {
        let again = encode_all(&value).into_bytes();
        assert_eq!(again.len(), bytes.len(), "{value:?}");
        let filled = |(new, old): (&u8, &u8)| new == old || *new == 0;
        assert!(again.iter().zip(bytes).all(filled), "{value:?}");
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
        /// What is tested here.
        const TESTED: &[&str] = &[$(stringify!($type)),*];

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
    rpc::AuthSys,
    rpc::AuthStat,
    rpc::AcceptError,
    rpc::Denial,
    portmap::Procedure,
    portmap::Mapping,
    portmap::Pmaplist,
    portmap::CallArgs,
    portmap::CallResult,
    rpcbind::Procedure,
    rpcbind::NetidText,
    rpcbind::UaddrText,
    rpcbind::Owner,
    rpcbind::ProtoName,
    rpcbind::Rpcb,
    rpcbind::Rpcblist,
    rpcbind::RmtcallArgs,
    rpcbind::RmtcallRes,
    rpcbind::Netbuf,
    rpcbind::Semantics,
    rpcbind::RpcbEntry,
    rpcbind::RpcbEntryList,
    rpcbind::AddrStat,
    rpcbind::RmtcallStat,
    rpcbind::RpcbStat,
    rpcbind::RpcbStatByvers,
    nlm::Procedure,
    nlm::Stats,
    nlm::Netobj,
    nlm::CallerName,
    nlm::Lock<u32>,
    nlm::Lock<u64>,
    nlm::Testargs<u32>,
    nlm::Testargs<u64>,
    nlm::Lockargs<u32>,
    nlm::Lockargs<u64>,
    nlm::Cancargs<u32>,
    nlm::Cancargs<u64>,
    nlm::Unlockargs<u32>,
    nlm::Unlockargs<u64>,
    nlm::Holder<u32>,
    nlm::Holder<u64>,
    nlm::Testrply<u32>,
    nlm::Testrply<u64>,
    nlm::Testres<u32>,
    nlm::Testres<u64>,
    nlm::Res,
    nlm::FshMode,
    nlm::FshAccess,
    nlm::Share,
    nlm::Shareargs,
    nlm::Shareres,
    nlm::Notify,
    mount::Procedure,
    mount::Dirpath,
    mount::Name,
    mount::Fhandle3,
    mount::Mountstat3,
    mount::MountOk,
    mount::Mountres3,
    mount::Fhstatus,
    mount::Mountbody,
    mount::Mountlist,
    mount::Exportnode,
    mount::Exports,
    nfs3::Proc3,
    nfs3::Nfsstat3,
    nfs3::Fileid3,
    nfs3::Cookie3,
    nfs3::Cookieverf3,
    nfs3::Createverf3,
    nfs3::Writeverf3,
    nfs3::Fh3,
    nfs3::Filename3,
    nfs3::Nfspath3,
    nfs3::Ftype3,
    nfs3::Specdata3,
    nfs3::Nfstime3,
    nfs3::Fattr3,
    nfs3::WccAttr,
    nfs3::WccData,
    nfs3::SetTime,
    nfs3::Sattr3,
    nfs3::Diropargs3,
    nfs3::StableHow,
    nfs3::Createhow3,
    nfs3::Mknoddata3,
    nfs3::Devicedata3,
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
    nfs3::GetattrOk,
    nfs3::LookupOk,
    nfs3::AccessOk,
    nfs3::ReadlinkOk,
    nfs3::ReadOk,
    nfs3::WriteOk,
    nfs3::CreateOk,
    nfs3::RenameWcc,
    nfs3::LinkWcc,
    nfs3::ReaddirOk,
    nfs3::Entry3,
    nfs3::ReaddirplusOk,
    nfs3::Entryplus3,
    nfs3::FsstatOk,
    nfs3::FsinfoOk,
    nfs3::PathconfOk,
    nfs3::CommitOk,
    nfs3::GetattrRes,
    nfs3::SetattrRes,
    nfs3::LookupRes,
    nfs3::AccessRes,
    nfs3::ReadlinkRes,
    nfs3::ReadRes,
    nfs3::WriteRes,
    nfs3::CreateRes,
    nfs3::MkdirRes,
    nfs3::SymlinkRes,
    nfs3::MknodRes,
    nfs3::RemoveRes,
    nfs3::RmdirRes,
    nfs3::RenameRes,
    nfs3::LinkRes,
    nfs3::ReaddirRes,
    nfs3::ReaddirplusRes,
    nfs3::FsstatRes,
    nfs3::FsinfoRes,
    nfs3::PathconfRes,
    nfs3::CommitRes,
    nfs3::Res3<u32, bool>,
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

/// The public types in `text` that have an XDR form: derived, written by hand, or a name for a result.
fn wire_types(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut derived = false;
    for line in text.lines() {
        if line.starts_with("#[derive(") {
            derived = line.contains("Xdr");
        }
        let declared = ["pub struct ", "pub enum "].map(|start| line.strip_prefix(start));
        let by_hand = line.strip_prefix("impl Decode for ");
        let alias = line.strip_prefix("pub type ");
        let alias = alias.filter(|alias| alias.contains("Res =") || alias.contains("Res3 ="));
        let named = declared.into_iter().flatten().filter(|_| derived);
        for rest in named.chain(by_hand).chain(alias) {
            let end = rest
                .find(|c: char| !c.is_alphanumeric())
                .unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
        }
        if line.starts_with("pub ") {
            derived = false;
        }
    }
    found
}

/// Collects the types below `dir`, under the module that their file belongs to.
fn collect(dir: &Path, module: Option<&str>, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let module = module.unwrap_or(&stem);
        if path.is_dir() {
            collect(&path, Some(module), found)?;
        } else {
            let types = wire_types(&fs::read_to_string(&path)?);
            found.extend(types.iter().map(|name| format!("{module}::{name}")));
        }
    }
    Ok(())
}

#[test]
fn no_type_is_forgotten() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    collect(&own.join("src"), None, &mut found).unwrap();
    collect(&own.join("../rpc/src"), Some("rpc"), &mut found).unwrap();
    let bare = |name: &&str| name.replace(' ', "").split('<').next().map(str::to_owned);
    let tested: BTreeSet<String> = TESTED.iter().filter_map(bare).collect();
    assert!(found.len() > 100, "the sources are read: {found:?}");
    let forgotten: Vec<_> = found.difference(&tested).collect();
    assert_eq!(
        forgotten,
        Vec::<&String>::new(),
        "add them to the list above"
    );
}
