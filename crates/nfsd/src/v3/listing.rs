//! Results that are lists of directory entries, READDIR's and READDIRPLUS' (RFC 1813 sections 3.3.16 and 3.3.17):
//! written while the directory is gone through, so that a listing takes little more memory than its length.
//!
//! It must not know what an entry tells.

use super::IO_BYTES_MAX;
use super::readdir::COOKIEVERF;
use super::status::Failure;
use crate::Fatal;
use haven_proto::nfs3::{Nfsstat3, PostOpAttr, Res3};
use haven_xdr::{Encode, Gather, Writer, encode_all};

/// `nfsstat3` of success.
const OK: u32 = 0;
/// A listing is made of segments of this size: more than its length it takes one of them at most.
pub(crate) const SEGMENT_BYTES: usize = 32 << 10;
/// More than an entry takes.
const ENTRY_BYTES_MAX: usize = 1 << 10;
/// Room for the first entries: many listings are short.
const START_BYTES: usize = 4 << 10;

/// A result that is being written.
pub(super) struct Listing {
    out: Writer,
    room: Budget,
    is_empty: bool,
}

impl Listing {
    /// Begins a result of at most `count` bytes, of which `overhead` are around the entries.
    pub(super) fn new(
        count: u32,
        overhead: usize,
        dir_attributes: PostOpAttr,
    ) -> Result<Self, Failure> {
        let room = Budget::new(count, overhead)?;
        let mut out = Writer::with_capacity(START_BYTES);
        out.put_u32(OK);
        dir_attributes.encode(&mut out);
        COOKIEVERF.encode(&mut out);
        Ok(Self {
            out,
            room,
            is_empty: true,
        })
    }

    /// Appends an entry that takes `bytes` with its list mark; says whether there was room.
    pub(super) fn push<T: Encode>(&mut self, bytes: usize, entry: impl FnOnce() -> T) -> bool {
        let fits = self.room.take(bytes);
        if fits {
            self.is_empty = false;
            self.out.put_bool(true);
            entry().encode(&mut self.out);
            self.out.cut(SEGMENT_BYTES - ENTRY_BYTES_MAX);
        }
        fits
    }

    /// The result; `eof`: nothing follows.
    pub(super) fn finish(mut self, eof: bool) -> Result<Gather, Failure> {
        if self.is_empty && !eof {
            return Err(Nfsstat3::TooSmall.into());
        }
        self.out.put_bool(false);
        self.out.put_bool(eof);
        Ok(self.out.finish())
    }
}

/// The body of the result: what was listed, or a failure, with the directory's attributes.
pub(super) fn body(
    listed: Result<Gather, Failure>,
    dir_attributes: impl FnOnce() -> Result<PostOpAttr, Fatal>,
) -> Result<Gather, Fatal> {
    match listed {
        Ok(listing) => Ok(listing),
        Err(Failure::Status(status)) => {
            let failure = Res3::<(), _>::Fail(status, dir_attributes()?);
            Ok(encode_all(&failure))
        }
        Err(Failure::Fatal(fatal)) => Err(fatal),
    }
}

/// Bytes that a result may still take.
pub(super) struct Budget(usize);

impl Budget {
    /// What the client allows (but never more than [`IO_BYTES_MAX`]) without `overhead`.
    pub(super) fn new(count: u32, overhead: usize) -> Result<Self, Failure> {
        let count = usize::try_from(count.min(IO_BYTES_MAX)).unwrap_or(usize::MAX);
        match count.checked_sub(overhead) {
            Some(left) => Ok(Self(left)),
            None => Err(Nfsstat3::TooSmall.into()),
        }
    }

    /// Takes `bytes`, if they are there.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        match self.0.checked_sub(bytes) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}
