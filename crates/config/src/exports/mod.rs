//! exports(5): which directories are for which clients, in the notation that everybody knows.
//!
//! A line is a path and its clients; `client(options)` without blanks between them, `-options` for the
//! clients that follow on the line, `#` for comments, a backslash at the end to go on in the next line,
//! quotes or `\040` for blanks in paths. Lines for the same path add up.
//!
//! Invariants
//! - What is not understood is refused with its line, never guessed: an export must not be wider than
//!   its author thinks.
//! - What Linux knows and Haven has no use for is accepted, and said.
//! - No text panics; lines, exports, clients and notes are bounded.
//!
//! It must not know the rest of the configuration, and resolves no names.

mod client;
mod lines;
mod options;

pub use client::Who;

use crate::check::path_problem;
use crate::{EXPORTS_MAX, Export, Squash, SquashMode};
use lines::Line;
use options::Draft;
use std::collections::BTreeMap;

/// Most clients of one export.
pub const CLIENTS_PER_EXPORT_MAX: usize = 1_024;
/// Most clients of all exports.
pub const CLIENTS_MAX: usize = 16_384;
/// Most notes about a file.
pub const NOTES_MAX: usize = 64;
/// Owner of a directory that is made because an exports(5) file names it.
const ROOT: u32 = 0;
/// Its mode.
const DIRECTORY_MODE: u32 = 0o755;

/// What clients may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOptions {
    /// `ro`: nothing may be changed.
    pub read_only: bool,
    /// `secure`: requests must come from a port below 1024.
    pub secure: bool,
    /// How callers' ids are mapped.
    pub squash: Squash,
}

impl Default for ClientOptions {
    /// As exports(5) says: `ro,secure,root_squash`.
    fn default() -> Self {
        Self {
            read_only: true,
            secure: true,
            squash: Squash {
                mode: SquashMode::Root,
                anonuid: crate::NOBODY,
                anongid: crate::NOBODY,
            },
        }
    }
}

/// A client, or many, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Who.
    pub who: Who,
    /// What.
    pub options: ClientOptions,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exports {
    /// The exports, in the order of their first lines.
    pub exports: Vec<Export>,
    /// What was accepted without effect, or is likely not what was meant.
    pub notes: Vec<String>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ExportsError {
    /// Where, from 1.
    pub line: usize,
    /// What, and what to do.
    pub why: String,
}

/// Reads a file's text.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(text: &str) -> Result<Exports, ExportsError> {
    let mut reader = Reader::default();
    for line in lines::Lines::new(text) {
        let line = line?;
        let number = line.number;
        reader
            .line(line)
            .map_err(|why| ExportsError { line: number, why })?;
    }
    let mut notes = reader.notes.into_texts();
    notes.truncate(NOTES_MAX);
    Ok(Exports {
        exports: reader.exports,
        notes,
    })
}

/// Reads one `client(options)`, and what is to be noted about it.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_client(text: &str) -> Result<(Client, Vec<String>), String> {
    let mut notes = Notes::default();
    let client = client(text, Draft::default(), 0, &mut notes)?;
    Ok((client, notes.into_texts()))
}

/// Refuses a client that is listed twice.
pub(crate) fn check_clients(clients: &[Client]) -> Result<(), String> {
    if clients.len() > CLIENTS_PER_EXPORT_MAX {
        return Err(format!("has more than {CLIENTS_PER_EXPORT_MAX} clients"));
    }
    let mut seen = std::collections::BTreeSet::new();
    match clients.iter().find(|client| !seen.insert(&client.who)) {
        Some(client) => Err(format!("has the client {} twice", client.who)),
        None => Ok(()),
    }
}

/// Options that were noted, with their first line and how often they came.
#[derive(Debug, Default)]
struct Notes {
    options: BTreeMap<String, (usize, usize, &'static str)>,
    others: Vec<String>,
}

impl Notes {
    fn option(&mut self, line: usize, option: &str, why: &'static str) {
        if self.options.len() < NOTES_MAX || self.options.contains_key(option) {
            let entry = self
                .options
                .entry(option.to_owned())
                .or_insert((line, 0, why));
            entry.1 += 1;
        }
    }

    fn other(&mut self, line: usize, what: String) {
        if self.others.len() < NOTES_MAX {
            self.others.push(format!("{}{what}", place(line)));
        }
    }

    fn into_texts(self) -> Vec<String> {
        let mut texts = self.others;
        for (option, (line, times, why)) in self.options {
            let more = match times {
                0 | 1 => String::new(),
                _ => format!(" (and {} more)", times - 1),
            };
            texts.push(format!("{}\"{option}\"{more}: {why}", place(line)));
        }
        texts
    }
}

/// A note's beginning; 0 is no line.
fn place(line: usize) -> String {
    match line {
        0 => String::new(),
        line => format!("line {line}: "),
    }
}

#[derive(Debug, Default)]
struct Reader {
    exports: Vec<Export>,
    by_path: BTreeMap<String, usize>,
    clients: usize,
    notes: Notes,
}

impl Reader {
    fn line(&mut self, line: Line) -> Result<(), String> {
        let mut words = line.words.into_iter();
        let Some(path) = words.next() else {
            return Ok(());
        };
        let place = self.export(&path)?;
        let mut defaults = Draft::default();
        let mut named = 0;
        for word in words {
            if let Some(options) = word.strip_prefix('-') {
                defaults.apply_all(options, line.number, &mut self.notes)?;
            } else {
                let client = client(&word, defaults, line.number, &mut self.notes)?;
                self.add(place, client)?;
                named += 1;
            }
        }
        if named == 0 {
            self.notes.other(
                line.number,
                format!(
                    "{path} names no client, so it is for everybody: write \"*\" if that is meant"
                ),
            );
            let options = defaults.finish();
            let who = Who::Everybody;
            self.add(place, Client { who, options })?;
        }
        Ok(())
    }

    /// The place of the export of a path.
    fn export(&mut self, path: &str) -> Result<usize, String> {
        let path = match path.trim_end_matches('/') {
            "" => path,
            trimmed => trimmed,
        };
        if let Some(why) = path_problem(path) {
            return Err(format!("\"{path}\" {why}"));
        }
        if let Some(place) = self.by_path.get(path) {
            return Ok(*place);
        }
        if self.exports.len() == EXPORTS_MAX {
            return Err(format!("more than {EXPORTS_MAX} exports"));
        }
        let place = self.exports.len();
        self.by_path.insert(path.to_owned(), place);
        self.exports.push(Export {
            path: path.to_owned(),
            uid: ROOT,
            gid: ROOT,
            mode: DIRECTORY_MODE,
            clients: Vec::new(),
        });
        Ok(place)
    }

    fn add(&mut self, place: usize, client: Client) -> Result<(), String> {
        let Some(export) = self.exports.get_mut(place) else {
            return Ok(());
        };
        if export.clients.iter().any(|other| other.who == client.who) {
            let (path, who) = (&export.path, &client.who);
            return Err(format!(
                "{path} has the client {who} twice: keep one of them"
            ));
        }
        if export.clients.len() == CLIENTS_PER_EXPORT_MAX || self.clients == CLIENTS_MAX {
            return Err(format!(
                "more than {CLIENTS_PER_EXPORT_MAX} clients of {}, or {CLIENTS_MAX} in all: use networks",
                export.path
            ));
        }
        self.clients += 1;
        export.clients.push(client);
        Ok(())
    }
}

/// `client(options)`, `client` or `(options)`.
fn client(word: &str, mut draft: Draft, line: usize, notes: &mut Notes) -> Result<Client, String> {
    let name = match word.split_once('(') {
        None if word.contains(')') => {
            return Err(format!("\"{word}\": a \")\" without its \"(\""));
        }
        None => word,
        Some((name, rest)) => {
            let options = rest.strip_suffix(')').ok_or_else(|| {
                format!("\"{word}\": options end with \")\" and have no blanks among them")
            })?;
            draft.apply_all(options, line, notes)?;
            name
        }
    };
    if name.is_empty() {
        notes.other(
            line,
            format!(
                "\"{word}\" stands alone, so it is for everybody: write \"*{word}\" if that is meant; a \
                 client's options follow it without a blank"
            ),
        );
    }
    Ok(Client {
        who: Who::parse(name)?,
        options: draft.finish(),
    })
}

#[cfg(test)]
mod tests;
