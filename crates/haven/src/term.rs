//! A terminal that shows one picture again and again, without flicker and without traces.
//!
//! Invariants: a picture never scrolls: what does not fit is cut. Dropping the screen gives the terminal back.

use rustix::termios::tcgetwinsize;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// Rows and columns of a terminal that does not say.
const USUAL: (usize, usize) = (24, 80);

/// Whether pictures can be shown on standard output.
pub fn is_terminal() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !dumb
}

/// The terminal, while it shows pictures.
pub struct Screen(());

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn enter() -> io::Result<Self> {
        // The alternate screen, without a cursor.
        put("\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(Self(()))
    }

    /// Shows a picture instead of the last one.
    ///
    /// # Errors
    /// When the terminal cannot be written to.
    pub fn draw(&mut self, picture: &str) -> io::Result<()> {
        let (rows, columns) = size();
        put(&frame(picture, rows, columns))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = put("\x1b[?25h\x1b[?1049l");
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Rows and columns.
pub fn size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => USUAL,
    }
}

/// Everything that turns one picture into the next, to be written at once: each line over its predecessor, whose
/// rest is cleared, and nothing before it is overwritten. The last row stays free of a line feed.
fn frame(picture: &str, rows: usize, columns: usize) -> String {
    let lines: Vec<&str> = picture.lines().collect();
    let mut out = String::from("\x1b[H");
    let fits = lines.len() <= rows;
    let shown = if fits { lines.len() } else { rows - 1 };
    for (row, line) in lines.iter().take(shown).enumerate() {
        if row > 0 {
            out += "\r\n";
        }
        out += &clip(line, columns);
        out += "\x1b[K";
    }
    if !fits {
        let more = format!("({} more lines)", lines.len() - shown);
        // Writing to a string cannot fail.
        let _ = write!(out, "\r\n{}\x1b[K", clip(&more, columns));
    }
    out + "\x1b[J"
}

/// The beginning of a line that fits into so many columns. Colours take none.
fn clip(line: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            out.push(c);
            for c in chars.by_ref() {
                out.push(c);
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
            continue;
        }
        if used < columns {
            out.push(c);
            used += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_its_terminal() {
        let picture = "one\ntwo\nthree\nfour\n";
        assert_eq!(
            frame(picture, 4, 4),
            "\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\nthre\x1b[K\r\nfour\x1b[K\x1b[J"
        );
        assert_eq!(
            frame(picture, 3, 80),
            "\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\n(2 more lines)\x1b[K\x1b[J"
        );
    }

    #[test]
    fn colours_take_no_room_and_are_always_ended() {
        assert_eq!(clip("\x1b[31mred\x1b[0m and", 2), "\x1b[31mre\x1b[0m");
        assert_eq!(clip("äöü", 2), "äö");
    }
}
