//! READDIR (RFC 1813 section 3.3.16): names in a directory.
//!
//! Cookies are stored with the entries and never change their meaning, so the cookie verifier is
//! always zero, and with a cookie nothing else is accepted.

use super::listing::{Listing, body};
use super::status::Failure;
use super::view::View;
use crate::Fatal;
use crate::handle::ExportId;
use haven_fs::{Attr, Cookie, DirEntry, Filesystem, rules};
use haven_proto::nfs3::{Cookie3, Cookieverf3, Entry3, Fileid3, Nfsstat3, ReaddirArgs, ReaddirOk};
use haven_xdr::Gather;
use std::ops::ControlFlow;

/// The one cookie verifier.
pub(super) const COOKIEVERF: Cookieverf3 = Cookieverf3([0; 8]);

pub(super) fn readdir<F: Filesystem>(
    view: &View<'_, F>,
    args: &ReaddirArgs,
) -> Result<Gather, Fatal> {
    body(run(view, args), || view.post_op(&args.dir))
}

fn run<F: Filesystem>(view: &View<'_, F>, args: &ReaddirArgs) -> Result<Gather, Failure> {
    let (dir, export) = view.resolve_in(&args.dir)?;
    check_cookieverf(args.cookie, args.cookieverf)?;
    let attributes = Some(view.fattr(&dir));
    let mut listing = Listing::new(args.count, ReaddirOk::OVERHEAD_BYTES, attributes)?;
    let eof = scan(
        view,
        (export, &dir),
        args.cookie,
        false,
        &mut |up, entry| {
            let ino = up.map_or(entry.ino, |up| up.ino);
            listing.push(Entry3::wire_bytes(entry.name.len()), || Entry3 {
                fileid: Fileid3(ino.0),
                name: entry.name.into(),
                cookie: Cookie3(entry.cookie.0),
            })
        },
    )?;
    listing.finish(eof)
}

/// Refuses a verifier that does not fit the cookie. At the start it means nothing.
pub(super) fn check_cookieverf(cookie: Cookie3, given: Cookieverf3) -> Result<(), Failure> {
    if cookie == Cookie3(0) || given == COOKIEVERF {
        return Ok(());
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
