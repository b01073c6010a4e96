//! Export paths: taking them apart, making their directories, finding them.
//!
//! Invariants: a path never leaves the volume: `..` is refused, and symbolic links are not followed.
//! Everything here happens with the superuser's rights, on behalf of the server itself.

use crate::entry::PATH_BYTES_MAX;
use haven_fs::{Attr, Change, Cred, Filesystem, FsError, FsResult, Kind, SetAttr, rules};

/// Mode of directories on the way to an export.
const PARENT_MODE: u32 = 0o755;

/// The names along an absolute path; empty ones and `.` are left out.
///
/// # Errors
/// [`FsError::Invalid`] for a relative path, one with NUL or `..`; [`FsError::NameTooLong`].
pub(crate) fn components(path: &[u8]) -> FsResult<Vec<&[u8]>> {
    if path.len() > PATH_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    if path.first() != Some(&b'/') {
        return Err(FsError::Invalid);
    }
    let names: Vec<_> = path
        .split(|&b| b == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .collect();
    for name in &names {
        rules::check_name(name)?;
        if *name == b".." {
            return Err(FsError::Invalid);
        }
    }
    Ok(names)
}

/// The directory at `names`.
///
/// # Errors
/// [`FsError::NotDirectory`] when anything on the way is none, a symbolic link included.
pub(crate) fn find(fs: &impl Filesystem, names: &[&[u8]]) -> FsResult<Attr> {
    let mut at = fs.attr(fs.root())?;
    for name in names {
        at = fs.lookup(&Cred::root(), at.ino, name)?;
        rules::check_directory(&at)?;
    }
    Ok(at)
}

/// Makes sure that there is a directory at `names`. Only what is missing is made, the last of it with
/// the attributes of `set`.
pub(crate) fn ensure(
    fs: &mut impl Filesystem,
    at: &Change,
    names: &[&[u8]],
    set: &SetAttr,
) -> FsResult<Attr> {
    let cred = Cred::root();
    let mut dir = fs.attr(fs.root())?;
    for (i, name) in names.iter().enumerate() {
        dir = match fs.lookup(&cred, dir.ino, name) {
            Err(FsError::NotFound) if i + 1 == names.len() => {
                let made = fs.mkdir(at, &cred, dir.ino, name, set)?;
                // MKDIR takes no setuid or setgid bit: the administrator may want one.
                let mode = SetAttr {
                    mode: set.mode,
                    ..SetAttr::default()
                };
                fs.setattr(at, &cred, made.ino, &mode, None)?
            }
            Err(FsError::NotFound) => {
                let parent = SetAttr {
                    mode: Some(PARENT_MODE),
                    ..SetAttr::default()
                };
                fs.mkdir(at, &cred, dir.ino, name, &parent)?
            }
            found => found?,
        };
        if dir.kind != Kind::Directory {
            return Err(FsError::NotDirectory);
        }
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(components(b"/"), Ok(vec![]));
        assert_eq!(components(b"//a/./b/"), Ok(vec![&b"a"[..], &b"b"[..]]));
        assert_eq!(components(b"a"), Err(FsError::Invalid));
        assert_eq!(components(b""), Err(FsError::Invalid));
        assert_eq!(components(b"/a/../b"), Err(FsError::Invalid));
        assert_eq!(components(b"/a\0"), Err(FsError::Invalid));
        assert_eq!(components(&[b'/'; 1025]), Err(FsError::NameTooLong));
    }
}
