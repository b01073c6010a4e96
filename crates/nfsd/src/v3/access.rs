//! ACCESS (RFC 1813 section 3.3.4): which of the asked permissions the caller has.

use super::status::{Failure, finish};
use super::view::View;
use crate::Fatal;
use haven_fs::{Access, Filesystem};
use haven_proto::nfs3::{AccessArgs, AccessOk, AccessRes, access as bits};

pub(super) fn access<F: Filesystem>(
    view: &View<'_, F>,
    args: &AccessArgs,
) -> Result<AccessRes, Fatal> {
    finish(run(view, args), || view.post_op(&args.object))
}

fn run<F: Filesystem>(view: &View<'_, F>, args: &AccessArgs) -> Result<AccessOk, Failure> {
    let attr = view.resolve(&args.object)?;
    let changes = bits::MODIFY | bits::EXTEND | bits::DELETE;
    let asked = if view.read_only {
        args.access & !changes
    } else {
        args.access
    };
    let granted = view.fs.access(view.cred, attr.ino, from_bits(asked))?;
    Ok(AccessOk {
        obj_attributes: Some(view.fattr(&attr)),
        access: to_bits(granted),
    })
}

fn from_bits(asked: u32) -> Access {
    let has = |bit| asked & bit != 0;
    Access {
        read: has(bits::READ),
        lookup: has(bits::LOOKUP),
        modify: has(bits::MODIFY),
        extend: has(bits::EXTEND),
        delete: has(bits::DELETE),
        execute: has(bits::EXECUTE),
    }
}

fn to_bits(granted: Access) -> u32 {
    let bit = |has, bit| if has { bit } else { 0 };
    bit(granted.read, bits::READ)
        | bit(granted.lookup, bits::LOOKUP)
        | bit(granted.modify, bits::MODIFY)
        | bit(granted.extend, bits::EXTEND)
        | bit(granted.delete, bits::DELETE)
        | bit(granted.execute, bits::EXECUTE)
}
