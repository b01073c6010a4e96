//! READDIR (RFC 1813 section 3.3.16): names in a directory.
//!
//! Cookies are stored with the entries and never change their meaning, so the cookie verifier is
//! always zero, and with a cookie nothing else is accepted.

use super::IO_BYTES_MAX;
use super::status::{Failure, finish};
use super::view::View;
use crate::Fatal;
use crate::handle::ExportId;
use haven_fs::{Attr, Cookie, DirEntry, Filesystem, rules};
use haven_proto::nfs3::{
    Cookie3, Cookieverf3, Entry3, Fileid3, Nfsstat3, ReaddirArgs, ReaddirOk, ReaddirRes,
};
use std::ops::ControlFlow;

/// The one cookie verifier.
const COOKIEVERF: Cookieverf3 = Cookieverf3([0; 8]);

pub(super) fn readdir<F: Filesystem>(
    view: &View<'_, F>,
    args: &ReaddirArgs,
) -> Result<ReaddirRes, Fatal> {
    finish(run(view, args), || view.post_op(&args.dir))
}

fn run<F: Filesystem>(view: &View<'_, F>, args: &ReaddirArgs) -> Result<ReaddirOk, Failure> {
    let (dir, export) = view.resolve_in(&args.dir)?;
    check_cookieverf(args.cookie, args.cookieverf)?;
    let mut budget = Budget::new(args.count, ReaddirOk::OVERHEAD_BYTES)?;
    let mut entries = Vec::new();
    let eof = scan(
        view,
        (export, &dir),
        args.cookie,
        false,
        &mut |up, entry| {
            let ino = up.map_or(entry.ino, |up| up.ino);
            if !budget.take(Entry3::wire_bytes(entry.name.len())) {
                return false;
            }
            let cookie = Cookie3(entry.cookie.0);
            entries.push(Entry3 {
                fileid: Fileid3(ino.0),
                name: entry.name.into(),
                cookie,
            });
            true
        },
    )?;
    if entries.is_empty() && !eof {
        return Err(Nfsstat3::TooSmall.into());
    }
    let dir_attributes = Some(view.fattr(&dir));
    Ok(ReaddirOk {
        dir_attributes,
        cookieverf: COOKIEVERF,
        entries,
        eof,
    })
}

/// The verifier to answer with, if the given one fits the cookie. At the start it means nothing.
pub(super) fn check_cookieverf(
    cookie: Cookie3,
    given: Cookieverf3,
) -> Result<Cookieverf3, Failure> {
    if cookie == Cookie3(0) || given == COOKIEVERF {
        return Ok(COOKIEVERF);
    }
    Err(Nfsstat3::BadCookie.into())
}

/// Visits entries until `fits` says no; true at the end. With `..` comes what it is shown to be.
pub(super) fn scan<F: Filesystem>(
    view: &View<'_, F>,
    (export, dir): (ExportId, &Attr),
    after: Cookie3,
    attributes: bool,
    fits: &mut dyn FnMut(Option<&Attr>, DirEntry<'_>) -> bool,
) -> Result<bool, Failure> {
    // Looked for beforehand: the engine is not asked again while it goes through a directory.
    let parent = if after.0 < rules::COOKIE_DOT_DOT {
        match view.parent(export, dir) {
            // No reason not to list a directory.
            Err(Failure::Status(Nfsstat3::NameTooLong)) => Some(dir.clone()),
            parent => Some(parent?),
        }
    } else {
        None
    };
    let after = Cookie(after.0);
    Ok(view
        .fs
        .readdir(view.cred, dir.ino, after, attributes, &mut |entry| {
            let up = parent.as_ref().filter(|_| entry.name == b"..");
            if fits(up, entry) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?)
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
