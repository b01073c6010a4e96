//! Small files that are there as a whole or not at all, readable by the owner only where they hold secrets.
//!
//! It must not know what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::PkiError;

/// Mode of files that hold secrets.
pub(crate) const SECRET: u32 = 0o600;
/// Mode of all others.
pub(crate) const OPEN: u32 = 0o644;

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PkiError + '_ {
    move |why| PkiError::File {
        path: path.to_owned(),
        why,
    }
}

/// Makes a directory that only the owner uses, if it is missing.
pub(crate) fn make_dir(path: &Path) -> Result<(), PkiError> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.map_err(failed(path))
}

/// Writes a file so that after a crash it holds the old bytes or the new ones, with this mode.
///
/// # Errors
/// What the system says.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = dir.join(name);
    let write = || {
        // One that was left behind may have another mode.
        match fs::remove_file(&fresh) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(failed(path))
}

/// Reads a file of at most `bytes_max` bytes; `None` if there is none.
///
/// # Errors
/// What the system says, or that the file is too large.
pub fn read_bounded(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, PkiError> {
    let file = match File::open(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed(path))?,
    };
    let mut bytes = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(failed(path))?;
    if bytes.len() as u64 > bytes_max {
        let why = io::Error::other(format!("more than {bytes_max} bytes"));
        return Err(failed(path)(why));
    }
    Ok(Some(bytes))
}
