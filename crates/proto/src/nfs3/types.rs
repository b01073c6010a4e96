//! Data types (RFC 1813 sections 2.5 and 2.6).

use super::{
    COOKIEVERFSIZE, CREATEVERFSIZE, FHSIZE, FILENAME_BYTES_MAX, NFSPATH_BYTES_MAX, WRITEVERFSIZE,
};
use bytes::Bytes;
use haven_xdr::{Decode, Encode, Reader, Writer, XdrError, xdr_enum, xdr_opaque, xdr_struct};

/// A newtype over something that has an XDR form already.
macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl Encode for $name {
            fn encode(&self, w: &mut Writer) {
                self.0.encode(w);
            }
        }

        impl Decode for $name {
            fn decode(r: &mut Reader) -> Result<Self, XdrError> {
                Decode::decode(r).map(Self)
            }
        }
    };
}

newtype! {
    /// `fileid3`: a file's number within its file system.
    Fileid3(u64)
}
newtype! {
    /// `cookie3`: a position in a directory; 0 is the start.
    Cookie3(u64)
}
newtype! {
    /// `cookieverf3`: tells whether cookies are still valid; all zero at the start.
    Cookieverf3([u8; COOKIEVERFSIZE])
}
newtype! {
    /// `createverf3`: marks one exclusive CREATE, so that its retransmission is recognised.
    Createverf3([u8; CREATEVERFSIZE])
}
newtype! {
    /// `writeverf3`: changes when unstable data may have been lost.
    Writeverf3([u8; WRITEVERFSIZE])
}

/// `nfs_fh3`: a file handle, opaque to the client, at most [`FHSIZE`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fh3(pub Bytes);
xdr_opaque!(Fh3, FHSIZE);

/// `filename3`: one path component. Any bytes may come: the receiver must check them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filename3(pub Bytes);
xdr_opaque!(Filename3, FILENAME_BYTES_MAX);

/// `nfspath3`: the target of a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nfspath3(pub Bytes);
xdr_opaque!(Nfspath3, NFSPATH_BYTES_MAX);

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
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
xdr_enum!(Ftype3, "ftype3" { Reg, Dir, Blk, Chr, Lnk, Sock, Fifo });

/// `specdata3`: a device's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Specdata3 {
    /// Major number.
    pub specdata1: u32,
    /// Minor number.
    pub specdata2: u32,
}
xdr_struct!(Specdata3 {
    specdata1,
    specdata2
});

/// `nfstime3`: time since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Nfstime3 {
    /// Seconds.
    pub seconds: u32,
    /// Nanoseconds within the second.
    pub nseconds: u32,
}
xdr_struct!(Nfstime3 { seconds, nseconds });

/// `fattr3`: attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
xdr_struct!(Fattr3 {
    ftype,
    mode,
    nlink,
    uid,
    gid,
    size,
    used,
    rdev,
    fsid,
    fileid,
    atime,
    mtime,
    ctime,
});

impl Fattr3 {
    /// Length on the wire.
    pub const WIRE_BYTES: usize = 84;
}

/// `post_op_attr`: attributes after an operation, if the server tells them.
pub type PostOpAttr = Option<Fattr3>;

/// `post_op_fh3`: a new object's handle, if the server tells it.
pub type PostOpFh3 = Option<Fh3>;

/// `wcc_attr`: what weak cache consistency needs of the attributes before an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WccAttr {
    /// Size in bytes.
    pub size: u64,
    /// Last change of the data.
    pub mtime: Nfstime3,
    /// Last change of anything.
    pub ctime: Nfstime3,
}
xdr_struct!(WccAttr { size, mtime, ctime });

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WccData {
    /// Before it.
    pub before: PreOpAttr,
    /// After it.
    pub after: PostOpAttr,
}
xdr_struct!(WccData { before, after });

/// `set_atime`, `set_mtime`: how a time is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetTime {
    /// It is left as it is.
    #[default]
    DontChange,
    /// To the server's time.
    ServerTime,
    /// To a given time.
    ClientTime(Nfstime3),
}

impl Encode for SetTime {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::DontChange => w.put_u32(0),
            Self::ServerTime => w.put_u32(1),
            Self::ClientTime(time) => {
                w.put_u32(2);
                time.encode(w);
            }
        }
    }
}

impl Decode for SetTime {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        match r.u32()? {
            0 => Ok(Self::DontChange),
            1 => Ok(Self::ServerTime),
            2 => Ok(Self::ClientTime(Decode::decode(r)?)),
            other => Err(r.not_in_enum("time_how", other)),
        }
    }
}

/// `sattr3`: attributes to set; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
xdr_struct!(Sattr3 {
    mode,
    uid,
    gid,
    size,
    atime,
    mtime
});

/// `diropargs3`: a name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diropargs3 {
    /// The directory.
    pub dir: Fh3,
    /// The name.
    pub name: Filename3,
}
xdr_struct!(Diropargs3 { dir, name });

/// `stable_how`: how durable a WRITE must be, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum StableHow {
    /// May be lost until a COMMIT.
    Unstable = 0,
    /// The data are durable, and what is needed to get at them.
    DataSync = 1,
    /// All is durable.
    FileSync = 2,
}
xdr_enum!(StableHow, "stable_how" { Unstable, DataSync, FileSync });

/// `createhow3`: how CREATE treats an existing name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Createhow3 {
    /// Use it.
    Unchecked(Sattr3),
    /// Fail.
    Guarded(Sattr3),
    /// Fail, unless it was made with the same verifier.
    Exclusive(Createverf3),
}

impl Encode for Createhow3 {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Unchecked(attr) => {
                w.put_u32(0);
                attr.encode(w);
            }
            Self::Guarded(attr) => {
                w.put_u32(1);
                attr.encode(w);
            }
            Self::Exclusive(verf) => {
                w.put_u32(2);
                verf.encode(w);
            }
        }
    }
}

impl Decode for Createhow3 {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        match r.u32()? {
            0 => Ok(Self::Unchecked(Decode::decode(r)?)),
            1 => Ok(Self::Guarded(Decode::decode(r)?)),
            2 => Ok(Self::Exclusive(Decode::decode(r)?)),
            other => Err(r.not_in_enum("createmode3", other)),
        }
    }
}

/// `mknoddata3`: what MKNOD makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mknoddata3 {
    /// A character device.
    Chr(Devicedata3),
    /// A block device.
    Blk(Devicedata3),
    /// A socket.
    Sock(Sattr3),
    /// A named pipe.
    Fifo(Sattr3),
    /// A type that MKNOD does not make (REG, DIR, LNK): the answer is NFS3ERR_BADTYPE.
    Other(Ftype3),
}

/// `devicedata3`: a device to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devicedata3 {
    /// Attributes to set.
    pub dev_attributes: Sattr3,
    /// The device's numbers.
    pub spec: Specdata3,
}
xdr_struct!(Devicedata3 {
    dev_attributes,
    spec
});

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

impl Encode for Mknoddata3 {
    fn encode(&self, w: &mut Writer) {
        self.ftype().encode(w);
        match self {
            Self::Chr(device) | Self::Blk(device) => device.encode(w),
            Self::Sock(attr) | Self::Fifo(attr) => attr.encode(w),
            Self::Other(_) => {}
        }
    }
}

impl Decode for Mknoddata3 {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        Ok(match Ftype3::decode(r)? {
            Ftype3::Chr => Self::Chr(Decode::decode(r)?),
            Ftype3::Blk => Self::Blk(Decode::decode(r)?),
            Ftype3::Sock => Self::Sock(Decode::decode(r)?),
            Ftype3::Fifo => Self::Fifo(Decode::decode(r)?),
            other @ (Ftype3::Reg | Ftype3::Dir | Ftype3::Lnk) => Self::Other(other),
        })
    }
}
