//! All rows of a checkpoint, table by table: everything decodes, and the tables agree.
//!
//! Each table has one pass in key order. Inodes come first, since all others refer to them; names and
//! cookies are held against each other by looking up the other row, so no name is kept in memory.
//! A further table gets a pass of its own in [`TABLES`].
//!
//! It must not know data files.

use crate::blocks;
use crate::changes::{self, History};
use crate::check_finding::{Finding, Problem};
use crate::check_metadata::CheckedRows;
use crate::check_tree::{NodeKind, Tree};
use crate::record::{self, Counters, Entry, Inode, Place, decode_named};
use crate::{keys, remains};
use bytes::Bytes;
use haven_fs::{Cookie, FsResult, Ino, rules};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// What the rows told.
#[derive(Default)]
pub struct Rows {
    pub tree: Tree,
    pub entries: u64,
    /// Files with contents in a row.
    pub inline: u64,
    pub system_rows: u64,
    pub next_ino: Option<u64>,
    pub position: Option<Bytes>,
    /// Inodes whose data files are to be removed.
    pub graves: BTreeSet<u64>,
}

/// Every table, in the order in which they are read.
const TABLES: &[u8] = &[
    keys::INODE,
    keys::CONTENTS,
    keys::ENTRY_BY_COOKIE,
    keys::ENTRY_BY_NAME,
    keys::TARGET,
    keys::META,
    keys::SYSTEM,
    keys::BLOCKS,
    keys::LOCAL,
];

/// Whether a row about what was applied and changed is good; `None`: it is another row.
fn bookkeeping(key: &[u8], value: &[u8]) -> Option<bool> {
    match key {
        keys::APPLIED => Some(value.len() == size_of::<u64>()),
        keys::HISTORY => Some(History::decode(value).is_some()),
        _ if keys::ino_of_remains(key).is_some() => Some(remains::decode(value).is_some()),
        _ => keys::index_of_changes(key).map(|_| changes::is_readable(value)),
    }
}

struct Pass<'a> {
    view: &'a CheckedRows,
    rows: Rows,
    found: &'a mut dyn FnMut(Finding),
}

/// Reads every row and reports what does not fit.
pub fn check(view: &CheckedRows, found: &mut dyn FnMut(Finding)) -> FsResult<Rows> {
    let mut pass = Pass {
        view,
        rows: Rows::default(),
        found,
    };
    for &table in TABLES {
        view.each(&[table], &mut |key, value| {
            pass.row(table, key, value)?;
            Ok(ControlFlow::Continue(()))
        })?;
    }
    pass.unknown_tables()?;
    view.stray_tails(&mut |key| pass.damaged(key))?;
    pass.rows.tree.judge(pass.found);
    pass.counters();
    Ok(pass.rows)
}

impl Pass<'_> {
    fn say(&mut self, problem: Problem, place: String) {
        (self.found)(Finding::new(problem, place));
    }

    fn damaged(&mut self, key: &[u8]) {
        self.say(Problem::RowDamaged, row_name(key));
    }

    fn row(&mut self, table: u8, key: &[u8], value: &[u8]) -> FsResult<()> {
        match table {
            keys::LOCAL => self.local(key, value),
            _ if !keys::is_well_formed(key) => self.damaged(key),
            keys::INODE => self.inode(key, value),
            keys::CONTENTS => self.contents(key, value),
            keys::ENTRY_BY_COOKIE => self.by_cookie(key, value)?,
            keys::ENTRY_BY_NAME => self.by_name(key, value)?,
            keys::TARGET => self.target(key, value),
            keys::META => self.meta(key, value),
            keys::SYSTEM => self.system(key, value),
            keys::BLOCKS => self.blocks(key, value),
            _ => self.say(Problem::RowUnknown, row_name(key)),
        }
        Ok(())
    }

    fn inode(&mut self, key: &[u8], value: &[u8]) {
        let ino = keys::ino_of(key).unwrap_or(Ino(0));
        match Inode::decode(ino, value) {
            Ok(inode) => self.rows.tree.add(&inode),
            Err(_) => self.damaged(key),
        }
    }

    fn contents(&mut self, key: &[u8], value: &[u8]) {
        if record::validate(key, value).is_err() {
            self.damaged(key);
        }
        let ino = keys::ino_of(key).unwrap_or(Ino(0));
        let (size, is_a_hole) = match self.rows.tree.get(ino) {
            Some(node) if node.kind == NodeKind::Regular && node.place == Place::Row => {
                (node.size, node.is_a_hole())
            }
            _ => {
                self.say(Problem::ContentsStray, row_name(key));
                return;
            }
        };
        self.rows.inline += 1;
        if is_a_hole {
            let place = format!("{}: its inode counts none", row_name(key));
            self.say(Problem::BlocksWrong, place);
        }
        if value.len() as u64 > size {
            let place = format!("{}: {} bytes of {size}", row_name(key), value.len());
            self.say(Problem::ContentsLonger, place);
        }
    }

    fn by_cookie(&mut self, key: &[u8], value: &[u8]) -> FsResult<()> {
        let (Some(dir), Some(cookie), Ok((ino, name))) =
            (keys::ino_of(key), keys::cookie_of(key), decode_named(value))
        else {
            self.damaged(key);
            return Ok(());
        };
        self.rows.entries += 1;
        let place = format!("row c {} {}: {name:?}", dir.0, cookie.0, name = Shown(name));
        let next_cookie = match self.rows.tree.get(dir) {
            Some(node) if node.kind == NodeKind::Directory => node.next_cookie,
            _ => {
                self.say(Problem::EntryOutside, place);
                return Ok(());
            }
        };
        if cookie.0 < rules::COOKIE_FIRST || cookie.0 >= next_cookie {
            let place = format!("{place}, next cookie {next_cookie}");
            self.say(Problem::CookieBeyondNext, place);
        }
        let twin = self.view.get(&keys::entry_by_name(dir, name))?;
        if twin.as_deref() != Some(&Entry { ino, cookie }.encode()[..]) {
            let place = format!("{place} has no equal row by name");
            self.say(Problem::EntryUnmatched, place);
        }
        if self.rows.tree.get(ino).is_none() {
            self.say(
                Problem::EntryDangling,
                format!("{place} is inode {}", ino.0),
            );
        }
        self.rows.tree.named(dir, ino);
        Ok(())
    }

    /// Only what the pass by cookie cannot have seen: rows without an equal one by cookie.
    fn by_name(&mut self, key: &[u8], value: &[u8]) -> FsResult<()> {
        let name = key.get(keys::INO_KEY_BYTES..).unwrap_or_default();
        let (Some(dir), Ok(Entry { ino, cookie }), Ok(())) = (
            keys::ino_of(key),
            Entry::decode(value),
            rules::check_name(name),
        ) else {
            self.damaged(key);
            return Ok(());
        };
        let twin = self.twin_by_cookie(dir, cookie)?;
        if twin.as_deref().map(decode_named) != Some(Ok((ino, name))) {
            let place = format!(
                "row n {} {:?} has no equal row by cookie",
                dir.0,
                Shown(name)
            );
            self.say(Problem::EntryUnmatched, place);
        }
        Ok(())
    }

    fn twin_by_cookie(&self, dir: Ino, cookie: Cookie) -> FsResult<Option<Bytes>> {
        self.view.get(&keys::entry_by_cookie(dir, cookie))
    }

    fn target(&mut self, key: &[u8], value: &[u8]) {
        if rules::check_link_target(value).is_err() {
            self.damaged(key);
        }
        let ino = keys::ino_of(key).unwrap_or(Ino(0));
        let size = match self.rows.tree.get_mut(ino) {
            Some(node) if node.kind == NodeKind::Symlink => {
                node.has_target = true;
                node.size
            }
            _ => {
                self.say(Problem::TargetStray, row_name(key));
                return;
            }
        };
        if size != value.len() as u64 {
            let place = format!("row i {}: {size} bytes, target {}", ino.0, value.len());
            self.say(Problem::TargetSize, place);
        }
    }

    fn meta(&mut self, key: &[u8], value: &[u8]) {
        let Ok(counters) = Counters::decode(value) else {
            self.damaged(key);
            return;
        };
        self.rows.next_ino = Some(counters.next_ino);
        let inodes = self.rows.tree.len();
        if counters.inodes != inodes {
            let place = format!(
                "row mcounters: {} inodes, there are {inodes}",
                counters.inodes
            );
            self.say(Problem::InodeCount, place);
        }
    }

    /// What remains to be said of the counters.
    fn counters(&mut self) {
        let place = "row mcounters".to_owned();
        match (self.rows.next_ino, self.rows.tree.last()) {
            (None, _) => self.say(Problem::CountersMissing, place),
            (Some(next), Some(last)) if next <= last.0 => {
                let place = format!("{place}: next inode {next}, inode {} exists", last.0);
                self.say(Problem::NextInode, place);
            }
            _ => {}
        }
    }

    /// What the values mean is for those who wrote them to check.
    fn system(&mut self, key: &[u8], value: &[u8]) {
        self.rows.system_rows += 1;
        if value.len() > crate::SYSTEM_VALUE_BYTES_MAX {
            let place = format!("{}: {} bytes", row_name(key), value.len());
            self.say(Problem::SystemRow, place);
        }
    }

    fn blocks(&mut self, key: &[u8], value: &[u8]) {
        let (Some(ino), Some(number), Ok(chunk)) = (
            keys::ino_of(key),
            keys::chunk_of(key),
            blocks::decode(value),
        ) else {
            self.damaged(key);
            return;
        };
        match self.rows.tree.get_mut(ino) {
            Some(node) if node.place == Place::File => node.count_blocks(number, &chunk),
            _ => self.say(Problem::BlocksStray, row_name(key)),
        }
    }

    fn local(&mut self, key: &[u8], value: &[u8]) {
        if key == keys::POSITION {
            if value.len() > keys::POSITION_BYTES_MAX {
                let place = format!("row zposition: {} bytes", value.len());
                self.say(Problem::PositionTooLong, place);
            }
            self.rows.position = Some(Bytes::copy_from_slice(value));
            return;
        }
        if let Some(good) = bookkeeping(key, value) {
            if !good {
                self.damaged(key);
            }
            return;
        }
        let Some(ino) = keys::ino_of_grave(key).filter(|ino| keys::grave(*ino) == key) else {
            self.say(Problem::RowUnknown, row_name(key));
            return;
        };
        if !value.is_empty() {
            self.damaged(key);
        }
        if self.rows.tree.get(ino).is_some() {
            self.say(Problem::GraveOfLiving, row_name(key));
        }
        self.rows.graves.insert(ino.0);
    }

    /// Reports the first row of every table that is none.
    fn unknown_tables(&mut self) -> FsResult<()> {
        let mut from = Some(Vec::new());
        while let Some(start) = from {
            let Some(key) = self.view.first_key(&start)? else {
                break;
            };
            let table = key.first().copied();
            if !table.is_some_and(|table| TABLES.contains(&table)) {
                self.say(Problem::RowUnknown, row_name(&key));
            }
            from = match table {
                Some(table) => keys::after_prefix(&[table]),
                None => Some(vec![0]),
            };
        }
        Ok(())
    }
}

/// A key for people: its table, then numbers or text as the table has them.
fn row_name(key: &[u8]) -> String {
    let Some((table, rest)) = key.split_first() else {
        return "row with an empty key".into();
    };
    let table = char::from(*table).escape_default();
    match (keys::ino_of(key), rest.len()) {
        (Some(ino), 8) => format!("row {table} {}", ino.0),
        _ => format!("row {table} {:?}", Shown(rest)),
    }
}

/// Bytes for people, bounded.
struct Shown<'a>(&'a [u8]);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "\"{}\"",
            self.0.get(..64).unwrap_or(self.0).escape_ascii()
        )
    }
}
