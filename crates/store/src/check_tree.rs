//! The inodes as a check sees them: a compact table, what the names say about each, and the judgement
//! once all names are counted.
//!
//! Memory: one [`Node`] for each inode, nothing for each name.
//!
//! It must not know how rows are read.

use crate::check_finding::{Finding, Problem};
use crate::record::{Inode, Place};
use haven_fs::blocks::{BlockMap, CHUNK_UNITS, Chunk};
use haven_fs::{FILE_SIZE_MAX, Ino, Kind, rules};
use std::collections::BTreeMap;

/// What is remembered of an inode.
#[derive(Debug, Clone)]
pub struct Node {
    ino: u64,
    pub size: u64,
    parent: u64,
    entries: u64,
    pub next_cookie: u64,
    /// The directory that holds its (first) name.
    found_in: u64,
    nlink: u32,
    names: u32,
    subdirs: u32,
    counted: u64,
    pub kind: NodeKind,
    pub has_target: bool,
    pub place: Place,
    /// What the inode says of its blocks, and what its chunks say.
    pub map: BlockMap,
    chunks: u32,
    scattered: u64,
    /// A chunk has units that are the head's, or past the file's end.
    misplaced: bool,
}

impl Node {
    /// Whether the inode says that nothing was written of its bytes.
    pub fn is_a_hole(&self) -> bool {
        self.size > 0 && self.map == BlockMap::default()
    }

    /// Whether all of its blocks count as used.
    pub fn is_dense(&self) -> bool {
        self.map == BlockMap::dense(self.size)
    }

    /// A chunk of its blocks was found.
    pub fn count_blocks(&mut self, number: u32, chunk: &Chunk) {
        self.chunks = self.chunks.saturating_add(1);
        self.scattered += u64::from(chunk.count());
        let first = u64::from(number) * u64::from(CHUNK_UNITS);
        let end = self.size.div_ceil(self.map.unit_bytes());
        self.misplaced |= chunk.runs().any(|(from, to)| {
            first + u64::from(from) < self.map.leading.into() || first + u64::from(to) > end
        });
    }

    fn blocks_are_right(&self) -> bool {
        let counted = (u64::from(self.chunks), self.scattered);
        !self.misplaced && counted == (self.map.chunks.into(), self.map.scattered.into())
    }
}

/// What matters of an inode's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeKind {
    Regular,
    Directory,
    Symlink,
    Special,
}

impl NodeKind {
    /// In words, plural.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Regular => "regular files",
            Self::Directory => "directories",
            Self::Symlink => "symbolic links",
            Self::Special => "special files",
        }
    }
}

/// All inodes, by rising number.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: Vec<Node>,
}

type Found<'a> = &'a mut dyn FnMut(Finding);

impl Tree {
    /// Adds an inode; numbers must rise.
    pub fn add(&mut self, inode: &Inode) {
        let attr = &inode.attr;
        self.nodes.push(Node {
            ino: attr.ino.0,
            size: attr.size,
            parent: inode.dir.parent,
            entries: inode.dir.entries,
            next_cookie: inode.dir.next_cookie,
            found_in: 0,
            nlink: attr.nlink,
            names: 0,
            subdirs: 0,
            counted: 0,
            kind: match attr.kind {
                Kind::Regular => NodeKind::Regular,
                Kind::Directory => NodeKind::Directory,
                Kind::Symlink => NodeKind::Symlink,
                _ => NodeKind::Special,
            },
            has_target: false,
            place: inode.place,
            map: inode.map,
            chunks: 0,
            scattered: 0,
            misplaced: false,
        });
    }

    /// The inode of this number.
    pub fn get(&self, ino: Ino) -> Option<&Node> {
        self.position(ino.0).and_then(|at| self.nodes.get(at))
    }

    /// The inode of this number.
    pub fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.position(ino.0).and_then(|at| self.nodes.get_mut(at))
    }

    fn position(&self, ino: u64) -> Option<usize> {
        self.nodes.binary_search_by_key(&ino, |node| node.ino).ok()
    }

    /// How many inodes there are of each kind.
    pub fn by_kind(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for node in &self.nodes {
            *counts.entry(node.kind.words()).or_insert(0) += 1;
        }
        counts
    }

    /// How many inodes there are.
    pub fn len(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// The largest number in use.
    pub fn last(&self) -> Option<Ino> {
        self.nodes.last().map(|node| Ino(node.ino))
    }

    /// A name of `child` in `dir` was found.
    pub fn named(&mut self, dir: Ino, child: Ino) {
        let mut is_dir = false;
        if let Some(node) = self.get_mut(child) {
            is_dir = node.kind == NodeKind::Directory;
            if node.names == 0 {
                node.found_in = dir.0;
            }
            node.names = node.names.saturating_add(1);
        }
        if let Some(dir) = self.get_mut(dir) {
            dir.counted += 1;
            dir.subdirs = dir.subdirs.saturating_add(u32::from(is_dir));
        }
    }

    /// Holds what inodes say against what was counted.
    pub fn judge(&self, found: Found<'_>) {
        match self.get(rules::ROOT_INO) {
            Some(root) if root.kind == NodeKind::Directory => {}
            _ => found(Finding::new(Problem::RootMissing, "row i 1")),
        }
        for node in &self.nodes {
            match node.kind {
                NodeKind::Directory => judge_directory(node, found),
                _ => judge_other(node, found),
            }
        }
        self.judge_reach(found);
    }

    /// Finds directories that lie in each other. What has no name at all was found already.
    fn judge_reach(&self, found: Found<'_>) {
        #[derive(Clone, Copy, PartialEq)]
        enum Seen {
            No,
            Now,
            Done,
        }
        let mut seen = vec![Seen::No; self.nodes.len()];
        let mut path = Vec::new();
        for start in 0..self.nodes.len() {
            let mut at = start;
            while self.nodes[at].kind == NodeKind::Directory && seen[at] == Seen::No {
                seen[at] = Seen::Now;
                path.push(at);
                if self.nodes[at].ino == rules::ROOT_INO.0 {
                    break;
                }
                match self.position(self.nodes[at].found_in) {
                    Some(above) if seen[above] == Seen::Now => {
                        let (inner, outer) = (self.nodes[at].ino, self.nodes[above].ino);
                        let place =
                            format!("directory {inner} is named in {outer}, which lies below it");
                        found(Finding::new(Problem::Unreachable, place));
                        break;
                    }
                    Some(above) => at = above,
                    None => break,
                }
            }
            for done in path.drain(..) {
                seen[done] = Seen::Done;
            }
        }
    }
}

fn judge_directory(node: &Node, found: Found<'_>) {
    let ino = node.ino;
    let mut say = |problem, place| found(Finding::new(problem, place));
    if ino == rules::ROOT_INO.0 {
        if node.names > 0 {
            let place = format!("the root has a name in directory {}", node.found_in);
            say(Problem::DirectoryTwice, place);
        }
        if node.parent != ino {
            let place = format!("row i 1: the root's parent is {}", node.parent);
            say(Problem::ParentWrong, place);
        }
    } else {
        match node.names {
            0 => say(Problem::Orphan, format!("row i {ino}: a directory")),
            1 => {}
            names => say(
                Problem::DirectoryTwice,
                format!("directory {ino} has {names} names"),
            ),
        }
        if node.names > 0 && node.parent != node.found_in {
            let (parent, holder) = (node.parent, node.found_in);
            let place = format!("row i {ino}: parent {parent}, but its name is in {holder}");
            say(Problem::ParentWrong, place);
        }
    }
    if u64::from(node.nlink) != 2 + u64::from(node.subdirs) {
        let (nlink, subdirs) = (node.nlink, node.subdirs);
        let place = format!("row i {ino}: {nlink} links, {subdirs} subdirectories");
        say(Problem::DirectoryLinks, place);
    }
    if node.entries != node.counted {
        let (entries, counted) = (node.entries, node.counted);
        let place = format!("row i {ino}: says {entries} entries, has {counted}");
        say(Problem::EntryCount, place);
    }
    if node.size != rules::dir_size(node.entries) {
        let place = format!(
            "row i {ino}: {} bytes for {} entries",
            node.size, node.entries
        );
        say(Problem::DirectorySize, place);
    }
}

fn judge_other(node: &Node, found: Found<'_>) {
    let (ino, nlink, names) = (node.ino, node.nlink, node.names);
    if names == 0 {
        found(Finding::new(Problem::Orphan, format!("row i {ino}")));
    } else if nlink != names {
        let place = format!("row i {ino}: {nlink} links, {names} names");
        found(Finding::new(Problem::LinkCount, place));
    }
    if !node.blocks_are_right() {
        let (map, chunks, scattered) = (&node.map, node.chunks, node.scattered);
        let place = format!("row i {ino}: {map:?}, found {scattered} in {chunks} chunks");
        found(Finding::new(Problem::BlocksWrong, place));
    }
    if node.kind == NodeKind::Regular && node.size > FILE_SIZE_MAX {
        let place = format!("row i {ino}: {} bytes", node.size);
        found(Finding::new(Problem::FileTooLong, place));
    }
    if node.kind == NodeKind::Symlink && !node.has_target {
        found(Finding::new(Problem::TargetMissing, format!("row l {ino}")));
    }
}
