//! Lines and words of an exports(5) file: comments, continued lines, quotes, octal escapes.
//!
//! As in nfs-utils, a comment goes on where its line is continued: commenting out the first line of an
//! entry takes all of it away.

use super::ExportsError;

/// Longest line, continued ones together, in bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// A line in words; those of blank lines and comments are none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The number of its first line, from 1.
    pub(super) number: usize,
    pub(super) words: Vec<String>,
}

/// The lines of a text.
pub(super) struct Lines<'a> {
    rest: std::iter::Enumerate<std::str::Lines<'a>>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            rest: text.lines().enumerate(),
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<Line, ExportsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (first, mut part) = self.rest.next()?;
        let number = first + 1;
        let mut whole = String::new();
        loop {
            if whole.len() + part.len() > LINE_BYTES_MAX {
                let why = format!("longer than {LINE_BYTES_MAX} bytes: use several lines");
                return Some(Err(ExportsError { line: number, why }));
            }
            let Some(continued) = part.strip_suffix('\\') else {
                whole.push_str(part);
                break;
            };
            whole.push_str(continued);
            whole.push(' ');
            match self.rest.next() {
                Some((_, next)) => part = next,
                None => break,
            }
        }
        let words = words(&whole).map_err(|why| ExportsError { line: number, why });
        Some(words.map(|words| Line { number, words }))
    }
}

fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let bytes = line.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b'#' if !quoted => break,
            b' ' | b'\t' | b'\r' if !quoted => words.extend(word.take()),
            b'\\' => match octal(bytes.get(at..at + 3)) {
                Some(escaped) => {
                    word.get_or_insert_default().push(escaped);
                    at += 3;
                }
                None => word.get_or_insert_default().push(byte),
            },
            _ => word.get_or_insert_default().push(byte),
        }
    }
    if quoted {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    words
        .into_iter()
        .map(|word| String::from_utf8(word).map_err(|_| "a word is not UTF-8".to_owned()))
        .collect()
}

/// Three octal digits that are a byte, but not NUL.
fn octal(digits: Option<&[u8]>) -> Option<u8> {
    let text = std::str::from_utf8(digits?).ok()?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    u8::from_str_radix(text, 8).ok().filter(|byte| *byte != 0)
}
