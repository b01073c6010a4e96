//! COMMIT (RFC 1813 section 3.3.21): makes unstable writes durable. There are none, so it only answers;
//! a query, which needs no entry in the log.

use super::status::{Failure, finish};
use super::view::View;
use crate::Fatal;
use haven_fs::{Filesystem, OFFSET_MAX, rules};
use haven_proto::nfs3::{CommitArgs, CommitOk, CommitRes, Nfsstat3, WccData};

pub(super) fn commit<F: Filesystem>(
    view: &View<'_, F>,
    args: &CommitArgs,
) -> Result<CommitRes, Fatal> {
    finish(run(view, args), || view.wcc(None, &args.file))
}

fn run<F: Filesystem>(view: &View<'_, F>, args: &CommitArgs) -> Result<CommitOk, Failure> {
    let attr = view.resolve(&args.file)?;
    rules::may_write(&attr, view.cred)?;
    if args.offset > OFFSET_MAX {
        return Err(Nfsstat3::Inval.into());
    }
    let file_wcc = WccData {
        before: None,
        after: Some(view.fattr(&attr)),
    };
    Ok(CommitOk {
        file_wcc,
        verf: view.identity.writeverf(),
    })
}
