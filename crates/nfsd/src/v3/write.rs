//! WRITE (RFC 1813 section 3.3.7): file data. Whatever the client asks for, the data are durable when
//! the reply leaves, because the entry that carries them is; so the answer is always FILE_SYNC.

use super::status::{Failure, finish};
use super::view::Edit;
use crate::Fatal;
use haven_fs::Filesystem;
use haven_proto::nfs3::{Nfsstat3, StableHow, WriteArgs, WriteOk, WriteRes};

pub(super) fn write<F: Filesystem>(
    edit: &mut Edit<'_, F>,
    args: &WriteArgs,
) -> Result<WriteRes, Fatal> {
    let before = edit.view().pre_op(&args.file)?;
    let outcome = run(edit, args);
    let file_wcc = edit.view().wcc(before, &args.file)?;
    let verf = edit.identity.writeverf();
    let ok = |count| WriteOk {
        file_wcc,
        count,
        committed: StableHow::FileSync,
        verf,
    };
    finish(outcome.map(ok), || Ok(file_wcc))
}

fn run<F: Filesystem>(edit: &mut Edit<'_, F>, args: &WriteArgs) -> Result<u32, Failure> {
    if usize::try_from(args.count).ok() != Some(args.data.len()) {
        return Err(Nfsstat3::Inval.into());
    }
    edit.with(&args.file, |fs, at, cred, ino| {
        fs.write(at, cred, ino, args.offset, &args.data)
    })?;
    Ok(args.count)
}
