//! Attributes between the file system's form and `fattr3`, `sattr3` (RFC 1813 sections 2.5 and 2.6).

use haven_fs::{Attr, Device, Kind, SetAttr, SetTime, Time};
use haven_proto::nfs3::{self, Fattr3, Fileid3, Ftype3, Nfstime3, Sattr3, Specdata3, WccAttr};

/// Attributes as the client sees them.
pub(super) fn fattr(attr: &Attr, fsid: u64) -> Fattr3 {
    let (ftype, rdev) = match attr.kind {
        Kind::Regular => (Ftype3::Reg, Specdata3::default()),
        Kind::Directory => (Ftype3::Dir, Specdata3::default()),
        Kind::Symlink => (Ftype3::Lnk, Specdata3::default()),
        Kind::Fifo => (Ftype3::Fifo, Specdata3::default()),
        Kind::Socket => (Ftype3::Sock, Specdata3::default()),
        Kind::BlockDevice(device) => (Ftype3::Blk, specdata(device)),
        Kind::CharDevice(device) => (Ftype3::Chr, specdata(device)),
    };
    Fattr3 {
        ftype,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        size: attr.size,
        used: attr.used,
        rdev,
        fsid,
        fileid: Fileid3(attr.ino.0),
        atime: nfstime(attr.atime),
        mtime: nfstime(attr.mtime),
        ctime: nfstime(attr.ctime),
    }
}

/// What weak cache consistency needs.
pub(super) fn wcc_attr(attr: &Attr) -> WccAttr {
    WccAttr {
        size: attr.size,
        mtime: nfstime(attr.mtime),
        ctime: nfstime(attr.ctime),
    }
}

/// What a client wants to set.
pub(super) fn set_attr(sattr: &Sattr3) -> SetAttr {
    SetAttr {
        mode: sattr.mode,
        uid: sattr.uid,
        gid: sattr.gid,
        size: sattr.size,
        atime: set_time(sattr.atime),
        mtime: set_time(sattr.mtime),
    }
}

/// A time from the wire. Nanoseconds beyond a second are for the file system to refuse.
pub(super) fn time(time: Nfstime3) -> Time {
    Time {
        secs: i64::from(time.seconds),
        nanos: time.nseconds,
    }
}

/// A device from the wire.
pub(super) fn device(spec: Specdata3) -> Device {
    Device {
        major: spec.specdata1,
        minor: spec.specdata2,
    }
}

fn specdata(device: Device) -> Specdata3 {
    Specdata3 {
        specdata1: device.major,
        specdata2: device.minor,
    }
}

fn set_time(how: nfs3::SetTime) -> Option<SetTime> {
    match how {
        nfs3::SetTime::DontChange => None,
        nfs3::SetTime::ServerTime => Some(SetTime::Server),
        nfs3::SetTime::ClientTime(at) => Some(SetTime::Client(time(at))),
    }
}

/// `nfstime3` has 32 bits of seconds: times outside are shown as the nearest it has.
fn nfstime(time: Time) -> Nfstime3 {
    let seconds = time.secs.clamp(0, i64::from(u32::MAX));
    Nfstime3 {
        seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        nseconds: time.nanos,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_32_bits_are_clamped() {
        let shown = |secs| nfstime(Time { secs, nanos: 5 }).seconds;
        assert_eq!(shown(-1), 0);
        assert_eq!(shown(7), 7);
        assert_eq!(shown(1 << 40), u32::MAX);
    }
}
