//! READDIRPLUS (RFC 1813 section 3.3.17): names in a directory with handles and attributes.
//!
//! `maxcount` bounds the whole result. `dircount`, how many bytes of names the client would like, is a hint: to obey it
//! would only cost it more calls, and some clients say 1 or nothing sensible. Linux's server takes it so, too.

use super::readdir::{Budget, check_cookieverf, scan};
use super::status::{Failure, finish};
use super::view::View;
use crate::Fatal;
use crate::handle::{ExportId, HANDLE_BYTES};
use haven_fs::{Attr, DirEntry, Filesystem};
use haven_proto::nfs3::{
    Cookie3, Entryplus3, Fileid3, Nfsstat3, ReaddirplusArgs, ReaddirplusOk, ReaddirplusRes,
};

pub(super) fn readdirplus<F: Filesystem>(
    view: &View<'_, F>,
    args: &ReaddirplusArgs,
) -> Result<ReaddirplusRes, Fatal> {
    finish(run(view, args), || view.post_op(&args.dir))
}

fn run<F: Filesystem>(
    view: &View<'_, F>,
    args: &ReaddirplusArgs,
) -> Result<ReaddirplusOk, Failure> {
    let (dir, export) = view.resolve_in(&args.dir)?;
    let cookieverf = check_cookieverf(args.cookie, args.cookieverf)?;
    let mut total = Budget::new(args.maxcount, ReaddirplusOk::OVERHEAD_BYTES)?;
    let mut entries = Vec::new();
    let eof = scan(view, (export, &dir), args.cookie, true, &mut |up, entry| {
        let fits = total.take(Entryplus3::wire_bytes(entry.name.len(), HANDLE_BYTES));
        if fits {
            entries.push(entryplus(view, export, up, entry));
        }
        fits
    })?;
    if entries.is_empty() && !eof {
        return Err(Nfsstat3::TooSmall.into());
    }
    let dir_attributes = Some(view.fattr(&dir));
    Ok(ReaddirplusOk {
        dir_attributes,
        cookieverf,
        entries,
        eof,
    })
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
