//! Data types (RFC 1813 sections 2.5 and 2.6).

use super::{
    COOKIEVERFSIZE, CREATEVERFSIZE, FHSIZE, FILENAME_BYTES_MAX, NFSPATH_BYTES_MAX, WRITEVERFSIZE,
};
use bytes::Bytes;
use haven_xdr::Xdr;

/// `fileid3`: a file's number within its file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Xdr)]
pub struct Fileid3(pub u64);

/// `cookie3`: a position in a directory; 0 is the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Xdr)]
pub struct Cookie3(pub u64);

/// `cookieverf3`: tells whether cookies are still valid; all zero at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Xdr)]
pub struct Cookieverf3(pub [u8; COOKIEVERFSIZE]);

/// `createverf3`: marks one exclusive CREATE, so that its retransmission is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Xdr)]
pub struct Createverf3(pub [u8; CREATEVERFSIZE]);

/// `writeverf3`: changes when unstable data may have been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Xdr)]
pub struct Writeverf3(pub [u8; WRITEVERFSIZE]);

/// `nfs_fh3`: a file handle, opaque to the client, at most [`FHSIZE`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Xdr)]
pub struct Fh3(#[xdr(max = FHSIZE)] pub Bytes);

/// `filename3`: one path component. Any bytes may come: the receiver must check them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Xdr)]
pub struct Filename3(#[xdr(max = FILENAME_BYTES_MAX)] pub Bytes);

/// `nfspath3`: the target of a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Xdr)]
pub struct Nfspath3(#[xdr(max = NFSPATH_BYTES_MAX)] pub Bytes);

macro_rules! text {
    ($($name:ident)*) => {$(
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Bytes::copy_from_slice(text.as_bytes()))
            }
        }

        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                Self(Bytes::copy_from_slice(bytes))
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
    )*};
}
text!(Fh3 Filename3 Nfspath3);

/// `ftype3`: what an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Xdr)]
#[repr(u32)]
#[xdr(name = "ftype3")]
pub enum Ftype3 {
    /// Regular file.
    Reg = 1,
    /// Directory.
    Dir = 2,
    /// Block device.
    Blk = 3,
    /// Character device.
    Chr = 4,
    /// Symbolic link.
    Lnk = 5,
    /// Socket.
    Sock = 6,
    /// Named pipe.
    Fifo = 7,
}

/// `specdata3`: a device's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Xdr)]
pub struct Specdata3 {
    /// Major number.
    pub specdata1: u32,
    /// Minor number.
    pub specdata2: u32,
}

/// `nfstime3`: time since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Xdr)]
pub struct Nfstime3 {
    /// Seconds.
    pub seconds: u32,
    /// Nanoseconds within the second.
    pub nseconds: u32,
}

/// `fattr3`: attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
pub struct Fattr3 {
    /// What the object is (`type`).
    pub ftype: Ftype3,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Disk space used in bytes.
    pub used: u64,
    /// Device numbers, if it is a device.
    pub rdev: Specdata3,
    /// The file system.
    pub fsid: u64,
    /// The file's number within it.
    pub fileid: Fileid3,
    /// Last access.
    pub atime: Nfstime3,
    /// Last change of the data.
    pub mtime: Nfstime3,
    /// Last change of anything.
    pub ctime: Nfstime3,
}

impl Fattr3 {
    /// Length on the wire.
    pub const WIRE_BYTES: usize = 84;
}

/// `post_op_attr`: attributes after an operation, if the server tells them.
pub type PostOpAttr = Option<Fattr3>;

/// `post_op_fh3`: a new object's handle, if the server tells it.
pub type PostOpFh3 = Option<Fh3>;

/// `wcc_attr`: what weak cache consistency needs of the attributes before an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
pub struct WccAttr {
    /// Size in bytes.
    pub size: u64,
    /// Last change of the data.
    pub mtime: Nfstime3,
    /// Last change of anything.
    pub ctime: Nfstime3,
}

impl From<&Fattr3> for WccAttr {
    fn from(attr: &Fattr3) -> Self {
        Self {
            size: attr.size,
            mtime: attr.mtime,
            ctime: attr.ctime,
        }
    }
}

/// `pre_op_attr`: attributes before an operation. Only told if nothing can have come between.
pub type PreOpAttr = Option<WccAttr>;

/// `wcc_data`: attributes around an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Xdr)]
pub struct WccData {
    /// Before it.
    pub before: PreOpAttr,
    /// After it.
    pub after: PostOpAttr,
}

/// `set_atime`, `set_mtime`: how a time is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Xdr)]
#[xdr(name = "time_how")]
pub enum SetTime {
    /// It is left as it is.
    #[default]
    #[xdr(case = 0)]
    DontChange,
    /// To the server's time.
    #[xdr(case = 1)]
    ServerTime,
    /// To a given time.
    #[xdr(case = 2)]
    ClientTime(Nfstime3),
}

/// `sattr3`: attributes to set; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Xdr)]
pub struct Sattr3 {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: SetTime,
    /// Modification time.
    pub mtime: SetTime,
}

/// `diropargs3`: a name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct Diropargs3 {
    /// The directory.
    pub dir: Fh3,
    /// The name.
    pub name: Filename3,
}

/// `stable_how`: how durable a WRITE must be, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Xdr)]
#[repr(u32)]
#[xdr(name = "stable_how")]
pub enum StableHow {
    /// May be lost until a COMMIT.
    Unstable = 0,
    /// The data are durable, and what is needed to get at them.
    DataSync = 1,
    /// All is durable.
    FileSync = 2,
}

/// `createhow3`: how CREATE treats an existing name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
#[xdr(name = "createmode3")]
pub enum Createhow3 {
    /// Use it.
    #[xdr(case = 0)]
    Unchecked(Sattr3),
    /// Fail.
    #[xdr(case = 1)]
    Guarded(Sattr3),
    /// Fail, unless it was made with the same verifier.
    #[xdr(case = 2)]
    Exclusive(Createverf3),
}

/// `mknoddata3`: what MKNOD makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
pub enum Mknoddata3 {
    /// A character device.
    #[xdr(case = Ftype3::Chr)]
    Chr(Devicedata3),
    /// A block device.
    #[xdr(case = Ftype3::Blk)]
    Blk(Devicedata3),
    /// A socket.
    #[xdr(case = Ftype3::Sock)]
    Sock(Sattr3),
    /// A named pipe.
    #[xdr(case = Ftype3::Fifo)]
    Fifo(Sattr3),
    /// A type that MKNOD does not make (REG, DIR, LNK): the answer is NFS3ERR_BADTYPE.
    #[xdr(default)]
    Other(Ftype3),
}

/// `devicedata3`: a device to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
pub struct Devicedata3 {
    /// Attributes to set.
    pub dev_attributes: Sattr3,
    /// The device's numbers.
    pub spec: Specdata3,
}

impl Mknoddata3 {
    /// The type asked for.
    pub const fn ftype(&self) -> Ftype3 {
        match self {
            Self::Chr(_) => Ftype3::Chr,
            Self::Blk(_) => Ftype3::Blk,
            Self::Sock(_) => Ftype3::Sock,
            Self::Fifo(_) => Ftype3::Fifo,
            Self::Other(ftype) => *ftype,
        }
    }
}
