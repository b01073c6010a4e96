//! Arbitrary values of every message type, drawn from a seed.

use bytes::Bytes;
use haven_proto::{mount, nfs3, nlm, portmap, rpcbind};

/// A stream of numbers that only depends on its seed (splitmix64).
pub struct Draw(pub u64);

impl Draw {
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..=max`, the ends more often than their share.
    pub fn upto(&mut self, max: usize) -> usize {
        match self.u64() % 8 {
            0 => 0,
            1 => max,
            _ => (self.u64() % (max as u64 + 1)) as usize,
        }
    }

    pub fn bytes(&mut self, max: usize) -> Bytes {
        let len = self.upto(max);
        (0..len)
            .map(|_| self.u64() as u8)
            .collect::<Vec<_>>()
            .into()
    }

    pub fn list<T: Arb>(&mut self, max: usize) -> Vec<T> {
        (0..self.upto(max)).map(|_| T::arb(self)).collect()
    }

    pub fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.u64() as usize % values.len()]
    }
}

pub trait Arb {
    fn arb(d: &mut Draw) -> Self;
}

macro_rules! arb_number {
    ($($type:ty)*) => {$(
        impl Arb for $type {
            fn arb(d: &mut Draw) -> Self {
                d.u64() as $type
            }
        }
    )*};
}
arb_number!(u8 u32 i32 u64);

impl Arb for () {
    fn arb(_: &mut Draw) {}
}

impl Arb for bool {
    fn arb(d: &mut Draw) -> Self {
        d.u64() & 1 == 0
    }
}

impl<const N: usize> Arb for [u8; N] {
    fn arb(d: &mut Draw) -> Self {
        std::array::from_fn(|_| u8::arb(d))
    }
}

impl<const N: usize> Arb for [i32; N] {
    fn arb(d: &mut Draw) -> Self {
        std::array::from_fn(|_| i32::arb(d))
    }
}

impl<T: Arb> Arb for Option<T> {
    fn arb(d: &mut Draw) -> Self {
        bool::arb(d).then(|| T::arb(d))
    }
}

macro_rules! arb_struct {
    ($($type:path { $($field:ident),* })*) => {$(
        impl Arb for $type {
            fn arb(d: &mut Draw) -> Self {
                Self { $($field: Arb::arb(d)),* }
            }
        }
    )*};
}

macro_rules! arb_newtype {
    ($($type:ident)*) => {$(
        impl Arb for nfs3::$type {
            fn arb(d: &mut Draw) -> Self {
                Self(Arb::arb(d))
            }
        }
    )*};
}

macro_rules! arb_opaque {
    ($($type:path, $max:expr;)*) => {$(
        impl Arb for $type {
            fn arb(d: &mut Draw) -> Self {
                $type(d.bytes($max))
            }
        }
    )*};
}

arb_newtype!(Fileid3 Cookie3 Cookieverf3 Createverf3 Writeverf3);

arb_opaque! {
    nfs3::Fh3, nfs3::FHSIZE;
    nfs3::Filename3, 300;
    nfs3::Nfspath3, 1024;
    mount::Dirpath, mount::MNTPATHLEN;
    mount::Name, mount::MNTNAMLEN;
    mount::Fhandle3, mount::FHSIZE3;
    nlm::Netobj, nlm::MAXNETOBJ_SZ;
    nlm::CallerName, nlm::LM_MAXSTRLEN;
    rpcbind::NetidText, rpcbind::NETID_BYTES_MAX;
    rpcbind::UaddrText, rpcbind::UADDR_BYTES_MAX;
    rpcbind::Owner, rpcbind::OWNER_BYTES_MAX;
    rpcbind::ProtoName, rpcbind::PROTO_NAME_BYTES_MAX;
}

arb_struct! {
    portmap::Mapping { prog, vers, prot, port }
    rpcbind::Rpcb { prog, vers, netid, addr, owner }
    rpcbind::RpcbEntry { maddr, nc_netid, nc_semantics, nc_protofmly, nc_proto }
    rpcbind::AddrStat { prog, vers, success, failure, netid }
    rpcbind::RmtcallStat { prog, vers, proc, success, failure, indirect, netid }
    rpcbind::RpcbStatByvers { version2, version3, version4 }
    nlm::Res { cookie, stat }
    nlm::Share { caller_name, fh, oh, mode, access }
    nlm::Shareargs { cookie, share, reclaim }
    nlm::Shareres { cookie, stat, sequence }
    mount::Mountbody { hostname, directory }
    nfs3::Specdata3 { specdata1, specdata2 }
    nfs3::Nfstime3 { seconds, nseconds }
    nfs3::Fattr3 {
        ftype, mode, nlink, uid, gid, size, used, rdev, fsid, fileid, atime, mtime, ctime
    }
    nfs3::WccAttr { size, mtime, ctime }
    nfs3::WccData { before, after }
    nfs3::Sattr3 { mode, uid, gid, size, atime, mtime }
    nfs3::Diropargs3 { dir, name }
    nfs3::Devicedata3 { dev_attributes, spec }
    nfs3::GetattrArgs { object }
    nfs3::SetattrArgs { object, new_attributes, guard }
    nfs3::LookupArgs { what }
    nfs3::AccessArgs { object, access }
    nfs3::ReadlinkArgs { symlink }
    nfs3::ReadArgs { file, offset, count }
    nfs3::CreateArgs { place, how }
    nfs3::MkdirArgs { place, attributes }
    nfs3::SymlinkArgs { place, symlink_attributes, symlink_data }
    nfs3::MknodArgs { place, what }
    nfs3::RemoveArgs { object }
    nfs3::RmdirArgs { object }
    nfs3::RenameArgs { from, to }
    nfs3::LinkArgs { file, link }
    nfs3::ReaddirArgs { dir, cookie, cookieverf, count }
    nfs3::ReaddirplusArgs { dir, cookie, cookieverf, dircount, maxcount }
    nfs3::FsstatArgs { fsroot }
    nfs3::FsinfoArgs { fsroot }
    nfs3::PathconfArgs { object }
    nfs3::CommitArgs { file, offset, count }
    nfs3::GetattrOk { obj_attributes }
    nfs3::LookupOk { object, obj_attributes, dir_attributes }
    nfs3::AccessOk { obj_attributes, access }
    nfs3::ReadlinkOk { symlink_attributes, data }
    nfs3::WriteOk { file_wcc, count, committed, verf }
    nfs3::CreateOk { obj, obj_attributes, dir_wcc }
    nfs3::RenameWcc { fromdir_wcc, todir_wcc }
    nfs3::LinkWcc { file_attributes, linkdir_wcc }
    nfs3::Entry3 { fileid, name, cookie }
    nfs3::Entryplus3 { fileid, name, cookie, name_attributes, name_handle }
    nfs3::FsstatOk { obj_attributes, tbytes, fbytes, abytes, tfiles, ffiles, afiles, invarsec }
    nfs3::FsinfoOk {
        obj_attributes, rtmax, rtpref, rtmult, wtmax, wtpref, wtmult, dtpref, maxfilesize,
        time_delta, properties
    }
    nfs3::PathconfOk {
        obj_attributes, linkmax, name_max, no_trunc, chown_restricted, case_insensitive,
        case_preserving
    }
    nfs3::CommitOk { file_wcc, verf }
}

/// Structs whose offsets are as wide as the version has them.
macro_rules! arb_ranged {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl<O: Arb> Arb for nlm::$type<O> {
            fn arb(d: &mut Draw) -> Self {
                Self { $($field: Arb::arb(d)),* }
            }
        }
    )*};
}

arb_ranged! {
    Lock { caller_name, fh, oh, svid, l_offset, l_len }
    Testargs { cookie, exclusive, alock }
    Lockargs { cookie, block, exclusive, alock, reclaim, state }
    Cancargs { cookie, block, exclusive, alock }
    Unlockargs { cookie, alock }
    Holder { exclusive, svid, oh, l_offset, l_len }
    Testres { cookie, stat }
}

/// Newtypes over lists.
macro_rules! arb_list {
    ($($type:path)*) => {$(
        impl Arb for $type {
            fn arb(d: &mut Draw) -> Self {
                $type(d.list(5))
            }
        }
    )*};
}

arb_list! {
    portmap::Pmaplist
    rpcbind::Rpcblist
    rpcbind::RpcbEntryList
    mount::Mountlist
    mount::Exports
}

/// Enums without fields: any of their values.
macro_rules! arb_enum {
    ($($type:path)*) => {$(
        impl Arb for $type {
            fn arb(d: &mut Draw) -> Self {
                let numbers = (0..100).chain(10_001..10_020);
                d.one_of(&numbers.filter_map(<$type>::from_wire).collect::<Vec<_>>())
            }
        }
    )*};
}

arb_enum! {
    portmap::Procedure
    rpcbind::Procedure
    rpcbind::Semantics
    nlm::Procedure
    nlm::Stats
    nlm::FshMode
    nlm::FshAccess
    mount::Procedure
    mount::Mountstat3
    nfs3::Proc3
    nfs3::Nfsstat3
    nfs3::Ftype3
    nfs3::StableHow
    haven_rpc::AuthStat
}

impl Arb for rpcbind::RpcbStat {
    fn arb(d: &mut Draw) -> Self {
        Self {
            info: Arb::arb(d),
            setinfo: Arb::arb(d),
            unsetinfo: Arb::arb(d),
            addrinfo: d.list(5),
            rmtinfo: d.list(5),
        }
    }
}

impl Arb for rpcbind::RmtcallArgs {
    fn arb(d: &mut Draw) -> Self {
        let (prog, vers, proc) = (Arb::arb(d), Arb::arb(d), Arb::arb(d));
        let args = d.bytes(2000);
        Self {
            prog,
            vers,
            proc,
            args,
        }
    }
}

impl Arb for rpcbind::RmtcallRes {
    fn arb(d: &mut Draw) -> Self {
        let addr = Arb::arb(d);
        let results = d.bytes(2000);
        Self { addr, results }
    }
}

impl Arb for rpcbind::Netbuf {
    fn arb(d: &mut Draw) -> Self {
        let maxlen = Arb::arb(d);
        let buf = d.bytes(rpcbind::NETBUF_BYTES_MAX);
        Self { maxlen, buf }
    }
}

impl Arb for portmap::CallArgs {
    fn arb(d: &mut Draw) -> Self {
        let (prog, vers, proc) = (Arb::arb(d), Arb::arb(d), Arb::arb(d));
        let args = d.bytes(2000);
        Self {
            prog,
            vers,
            proc,
            args,
        }
    }
}

impl Arb for portmap::CallResult {
    fn arb(d: &mut Draw) -> Self {
        let port = Arb::arb(d);
        let res = d.bytes(2000);
        Self { port, res }
    }
}

impl Arb for haven_rpc::AuthSys {
    fn arb(d: &mut Draw) -> Self {
        let (stamp, uid, gid) = (Arb::arb(d), Arb::arb(d), Arb::arb(d));
        Self {
            stamp,
            machine_name: d.bytes(haven_rpc::MACHINE_NAME_BYTES_MAX),
            uid,
            gid,
            gids: d.list(haven_rpc::GIDS_MAX),
        }
    }
}

impl Arb for haven_rpc::AcceptError {
    fn arb(d: &mut Draw) -> Self {
        match d.u64() % 5 {
            0 => Self::ProgUnavail,
            1 => Self::ProgMismatch {
                low: Arb::arb(d),
                high: Arb::arb(d),
            },
            2 => Self::ProcUnavail,
            3 => Self::GarbageArgs,
            _ => Self::SystemErr,
        }
    }
}

impl Arb for haven_rpc::Denial {
    fn arb(d: &mut Draw) -> Self {
        if bool::arb(d) {
            Self::AuthError(Arb::arb(d))
        } else {
            Self::RpcMismatch {
                low: Arb::arb(d),
                high: Arb::arb(d),
            }
        }
    }
}

impl<O: Arb> Arb for nlm::Testrply<O> {
    fn arb(d: &mut Draw) -> Self {
        match Arb::arb(d) {
            nlm::Stats::Denied => Self::Denied(Arb::arb(d)),
            other => Self::Other(other),
        }
    }
}

impl Arb for nlm::Notify {
    fn arb(d: &mut Draw) -> Self {
        Self {
            name: d.bytes(nlm::LM_MAXNAMELEN),
            state: Arb::arb(d),
        }
    }
}

impl Arb for mount::Exportnode {
    fn arb(d: &mut Draw) -> Self {
        Self {
            dir: Arb::arb(d),
            groups: d.list(4),
        }
    }
}

impl Arb for mount::MountOk {
    fn arb(d: &mut Draw) -> Self {
        Self {
            fhandle: Arb::arb(d),
            auth_flavors: d.list(mount::AUTH_FLAVORS_MAX),
        }
    }
}

impl Arb for mount::Mountres3 {
    fn arb(d: &mut Draw) -> Self {
        if bool::arb(d) {
            Self::Ok(Arb::arb(d))
        } else {
            Self::Fail(Arb::arb(d))
        }
    }
}

impl Arb for mount::Fhstatus {
    fn arb(d: &mut Draw) -> Self {
        if bool::arb(d) {
            Self::Ok(Arb::arb(d))
        } else {
            Self::Fail(u32::arb(d).max(1))
        }
    }
}

impl Arb for nfs3::SetTime {
    fn arb(d: &mut Draw) -> Self {
        match d.u64() % 3 {
            0 => Self::DontChange,
            1 => Self::ServerTime,
            _ => Self::ClientTime(Arb::arb(d)),
        }
    }
}

impl Arb for nfs3::Createhow3 {
    fn arb(d: &mut Draw) -> Self {
        match d.u64() % 3 {
            0 => Self::Unchecked(Arb::arb(d)),
            1 => Self::Guarded(Arb::arb(d)),
            _ => Self::Exclusive(Arb::arb(d)),
        }
    }
}

impl Arb for nfs3::Mknoddata3 {
    fn arb(d: &mut Draw) -> Self {
        use nfs3::Ftype3;
        match Ftype3::arb(d) {
            Ftype3::Chr => Self::Chr(Arb::arb(d)),
            Ftype3::Blk => Self::Blk(Arb::arb(d)),
            Ftype3::Sock => Self::Sock(Arb::arb(d)),
            Ftype3::Fifo => Self::Fifo(Arb::arb(d)),
            other => Self::Other(other),
        }
    }
}

impl Arb for nfs3::WriteArgs {
    fn arb(d: &mut Draw) -> Self {
        let (file, offset, count, stable) = (Arb::arb(d), Arb::arb(d), Arb::arb(d), Arb::arb(d));
        Self {
            file,
            offset,
            count,
            stable,
            data: d.bytes(2000),
        }
    }
}

impl Arb for nfs3::ReadOk {
    fn arb(d: &mut Draw) -> Self {
        let (file_attributes, count, eof) = (Arb::arb(d), Arb::arb(d), Arb::arb(d));
        Self {
            file_attributes,
            count,
            eof,
            data: d.bytes(2000),
        }
    }
}

impl Arb for nfs3::ReaddirOk {
    fn arb(d: &mut Draw) -> Self {
        let (dir_attributes, cookieverf, eof) = (Arb::arb(d), Arb::arb(d), Arb::arb(d));
        Self {
            dir_attributes,
            cookieverf,
            entries: d.list(6),
            eof,
        }
    }
}

impl Arb for nfs3::ReaddirplusOk {
    fn arb(d: &mut Draw) -> Self {
        let (dir_attributes, cookieverf, eof) = (Arb::arb(d), Arb::arb(d), Arb::arb(d));
        Self {
            dir_attributes,
            cookieverf,
            entries: d.list(6),
            eof,
        }
    }
}

impl<T: Arb, F: Arb> Arb for nfs3::Res3<T, F> {
    fn arb(d: &mut Draw) -> Self {
        if bool::arb(d) {
            Self::Ok(Arb::arb(d))
        } else {
            Self::Fail(Arb::arb(d), Arb::arb(d))
        }
    }
}

macro_rules! arb_args3 {
    ($($proc:ident)*) => {
        impl Arb for nfs3::Args3 {
            fn arb(d: &mut Draw) -> Self {
                match d.one_of(&[nfs3::Proc3::Null, $(nfs3::Proc3::$proc),*]) {
                    nfs3::Proc3::Null => Self::Null,
                    $(nfs3::Proc3::$proc => Self::$proc(Arb::arb(d)),)*
                }
            }
        }
    };
}
arb_args3!(
    Getattr Setattr Lookup Access Readlink Read Write Create Mkdir Symlink Mknod Remove Rmdir Rename
    Link Readdir Readdirplus Fsstat Fsinfo Pathconf Commit
);
