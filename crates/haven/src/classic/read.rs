//! Whole files and directories, read piece by piece.
//!
//! It must not know what should be in them.

use haven_client::Client;
use haven_proto::nfs3::{Cookie3, Cookieverf3, Fh3};

/// The bytes of a file, so many at a time.
///
/// # Errors
/// What the server answered, or failed to, in words.
pub async fn read_all(client: &Client, file: &Fh3, piece_bytes: u32) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    loop {
        let read = client
            .read(file, all.len() as u64, piece_bytes)
            .await
            .map_err(|e| e.to_string())?;
        all.extend_from_slice(&read.data);
        if read.eof {
            return Ok(all);
        }
        if read.data.is_empty() {
            return Err("READ answered nothing before the end of the file".into());
        }
    }
}

/// The names in a directory but `.` and `..`, as READDIR shows them in answers of so many bytes.
///
/// # Errors
/// What the server answered, or failed to, in words.
pub async fn list(client: &Client, dir: &Fh3, answer_bytes: u32) -> Result<Vec<String>, String> {
    let (mut names, mut cookie) = (Vec::new(), Cookie3(0));
    loop {
        let page = client
            .readdir(dir, cookie, Cookieverf3::default(), answer_bytes)
            .await
            .map_err(|e| e.to_string())?;
        for entry in &page.entries {
            cookie = entry.cookie;
            names.push(String::from_utf8_lossy(entry.name.as_ref()).into_owned());
        }
        if page.eof {
            names.retain(|name| name != "." && name != "..");
            return Ok(names);
        }
        if page.entries.is_empty() {
            return Err("READDIR answered nothing before the end".into());
        }
    }
}
