//! READDIRPLUS (RFC 1813 section 3.3.17): names in a directory with handles and attributes.
//!
//! `maxcount` bounds the whole result. `dircount`, how many bytes of names the client would like, is a hint: to obey it
//! would only cost it more calls, and some clients say 1 or nothing sensible. Linux's server takes it so, too.

use super::listing::{Listing, body};
use super::readdir::{check_cookieverf, scan};
use super::status::Failure;
use super::view::View;
use crate::Fatal;
use crate::handle::{ExportId, HANDLE_BYTES};
use haven_fs::{Attr, DirEntry, Filesystem};
use haven_proto::nfs3::{Cookie3, Entryplus3, Fileid3, ReaddirplusArgs, ReaddirplusOk};
use haven_xdr::Gather;

pub(super) fn readdirplus<F: Filesystem>(
    view: &View<'_, F>,
    args: &ReaddirplusArgs,
) -> Result<Gather, Fatal> {
    body(run(view, args), || view.post_op(&args.dir))
}

fn run<F: Filesystem>(view: &View<'_, F>, args: &ReaddirplusArgs) -> Result<Gather, Failure> {
    let (dir, export) = view.resolve_in(&args.dir)?;
    check_cookieverf(args.cookie, args.cookieverf)?;
    let attributes = Some(view.fattr(&dir));
    let mut listing = Listing::new(args.maxcount, ReaddirplusOk::OVERHEAD_BYTES, attributes)?;
    let eof = scan(view, (export, &dir), args.cookie, true, &mut |up, entry| {
        let len = entry.name.len();
        listing.push(Entryplus3::wire_bytes(len, HANDLE_BYTES), || {
            entryplus(view, export, up, entry)
        })
    })?;
    listing.finish(eof)
}

fn entryplus<F: Filesystem>(
    view: &View<'_, F>,
    export: ExportId,
    up: Option<&Attr>,
    entry: DirEntry<'_>,
) -> Entryplus3 {
    let attr = up.or(entry.attr.as_ref());
    let ino = up.map_or(entry.ino, |up| up.ino);
    Entryplus3 {
        fileid: Fileid3(ino.0),
        name: entry.name.into(),
        cookie: Cookie3(entry.cookie.0),
        name_attributes: attr.map(|attr| view.fattr(attr)),
        name_handle: attr.map(|attr| view.fh(export, attr)),
    }
}
