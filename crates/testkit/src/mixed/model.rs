//! What one client of the mixed load believes its directory to be, and what it does next.
//!
//! A client works alone in its directory and does one thing after the other, so what it was told
//! determines exactly what must be there.

use super::sparse::{Change, Sparse};
use bytes::Bytes;
use haven::demo::random::Random;
use haven_proto::nfs3::{Fh3, Nfsstat3};
use std::collections::BTreeMap;

/// Most files and directories of a client; past it, it removes more than it makes.
const NODES_MAX: usize = 40;
/// Names in a directory: few, so that they are used again and again.
const NAMES: u64 = 12;
/// Longest file.
const FILE_BYTES_MAX: u64 = 768 << 10;
/// Longest write.
const WRITE_BYTES_MAX: u64 = 256 << 10;
/// Some writes and sizes stay below this: around where files stop being small.
const SMALL_BYTES: u64 = 10_000;
/// Most writes and sizes stay below this, so that most files are small for a while.
const TINY_BYTES: u64 = 1_000;

/// A number of the client's own for a file or directory.
pub type Id = u64;

/// A file or directory.
#[derive(Debug)]
pub struct Node {
    /// Its handle.
    pub handle: Fh3,
    /// Names it has (files and links).
    pub names: u32,
    /// What it is.
    pub content: Content,
}

/// What a node is, and what is in it.
#[derive(Debug)]
pub enum Content {
    /// A regular file and its bytes.
    File(Vec<u8>),
    /// A regular file that is nearly all hole.
    Sparse(Sparse),
    /// A directory and its entries.
    Dir(BTreeMap<String, Id>),
    /// A symbolic link and its target.
    Link(String),
}

/// Something that a client does. Names are always of the client's own directories.
#[derive(Debug, Clone)]
pub enum Op {
    /// CREATE, guarded or exclusive.
    Create {
        dir: Id,
        name: String,
        exclusive: bool,
        /// What it is to be.
        sparse: bool,
    },
    /// MKDIR.
    Mkdir { dir: Id, name: String },
    /// SYMLINK.
    Symlink {
        dir: Id,
        name: String,
        target: String,
    },
    /// WRITE.
    Write {
        file: Id,
        offset: u64,
        data: Vec<u8>,
    },
    /// SETATTR of the size.
    Resize { file: Id, size: u64 },
    /// WRITE or SETATTR of a sparse file.
    Thin { file: Id, change: Change },
    /// RENAME.
    Rename {
        from: Id,
        name: String,
        to: Id,
        new: String,
    },
    /// LINK.
    Link { file: Id, dir: Id, name: String },
    /// REMOVE.
    Remove { dir: Id, name: String },
    /// RMDIR.
    Rmdir { dir: Id, name: String },
    /// READDIR of a whole directory.
    List { dir: Id },
    /// READ of a whole file.
    Read { file: Id },
}

/// See the module's head.
#[derive(Debug)]
pub struct Model {
    /// Everything, by number.
    pub nodes: BTreeMap<Id, Node>,
    next: Id,
}

/// The client's own directory.
pub const TOP: Id = 0;

impl Model {
    /// An empty directory.
    pub fn new(handle: Fh3) -> Self {
        let top = Node {
            handle,
            names: 1,
            content: Content::Dir(BTreeMap::new()),
        };
        Self {
            nodes: BTreeMap::from([(TOP, top)]),
            next: TOP + 1,
        }
    }

    /// The handle of a node.
    pub fn handle(&self, id: Id) -> Fh3 {
        self.nodes[&id].handle.clone()
    }

    /// The entries of a directory.
    pub fn entries(&self, dir: Id) -> &BTreeMap<String, Id> {
        match &self.nodes[&dir].content {
            Content::Dir(entries) => entries,
            _ => unreachable!("only directories are asked"),
        }
    }

    /// The bytes of a file.
    pub fn bytes(&self, file: Id) -> &[u8] {
        match &self.nodes[&file].content {
            Content::File(bytes) => bytes,
            _ => unreachable!("only files are asked"),
        }
    }

    fn entries_mut(&mut self, dir: Id) -> &mut BTreeMap<String, Id> {
        match self.nodes.get_mut(&dir).map(|node| &mut node.content) {
            Some(Content::Dir(entries)) => entries,
            _ => unreachable!("only directories are asked"),
        }
    }

    fn is_dir(&self, id: Id) -> bool {
        matches!(self.nodes[&id].content, Content::Dir(_))
    }

    /// Whether `id` is `other`, or a directory that has it somewhere below it.
    fn holds(&self, id: Id, other: Id) -> bool {
        match &self.nodes[&id].content {
            Content::Dir(entries) => {
                id == other || entries.values().any(|below| self.holds(*below, other))
            }
            _ => false,
        }
    }

    fn some(&self, random: &mut Random, fits: impl Fn(&Content) -> bool) -> Option<Id> {
        let all: Vec<Id> = self
            .nodes
            .iter()
            .filter(|(_, node)| fits(&node.content))
            .map(|(id, _)| *id)
            .collect();
        let at = random.next() as usize % all.len().max(1);
        all.get(at).copied()
    }

    /// What to do next.
    pub fn choose(&self, random: &mut Random) -> Op {
        loop {
            if let Some(op) = self.propose(random) {
                return op;
            }
        }
    }

    fn propose(&self, random: &mut Random) -> Option<Op> {
        let dir = self.some(random, |c| matches!(c, Content::Dir(_)))?;
        let file = self.some(random, |c| matches!(c, Content::File(_)));
        let name = format!("name {}", random.next() % NAMES);
        let thin = self.some(random, |c| matches!(c, Content::Sparse(_)));
        let is_full = self.nodes.len() >= NODES_MAX;
        let found = self.entries(dir).get(&name).copied();
        Some(match random.next() % 32 {
            0..=4 if !is_full => {
                let exclusive = random.next().is_multiple_of(2);
                Op::Create {
                    dir,
                    name,
                    exclusive,
                    sparse: thin.is_none(),
                }
            }
            5 if !is_full => Op::Mkdir { dir, name },
            6 if !is_full => {
                let target = format!("to {}", random.next());
                Op::Symlink { dir, name, target }
            }
            7..=17 => write(file?, random),
            18 | 19 => Op::Resize {
                file: file?,
                size: size(random),
            },
            20..=22 => self.rename(dir, name, random)?,
            23 => Op::Link {
                file: file?,
                dir,
                name,
            },
            24 | 25 if found.is_none_or(|id| !self.is_dir(id)) => Op::Remove { dir, name },
            26 if found.is_none_or(|id| self.is_dir(id)) => Op::Rmdir { dir, name },
            27 => Op::List { dir },
            28 => Op::Read { file: file? },
            29 | 30 if thin.is_some() => {
                let file = thin?;
                let Content::Sparse(sparse) = &self.nodes[&file].content else {
                    return None;
                };
                let change = sparse.choose(random);
                Op::Thin { file, change }
            }
            _ if is_full => match found? {
                id if self.is_dir(id) => Op::Rmdir { dir, name },
                _ => Op::Remove { dir, name },
            },
            _ => return None,
        })
    }

    /// Files go anywhere, also in place of others; directories go where a name is free, and are kept out of themselves by the
    /// server.
    fn rename(&self, from: Id, name: String, random: &mut Random) -> Option<Op> {
        let new = format!("name {}", random.next() % NAMES);
        let to = self.some(random, |c| matches!(c, Content::Dir(_)))?;
        if self
            .entries(from)
            .get(&name)
            .is_some_and(|id| self.is_dir(*id))
            && self.entries(to).contains_key(&new)
        {
            return None;
        }
        if self
            .entries(to)
            .get(&new)
            .is_some_and(|id| self.is_dir(*id))
        {
            return None;
        }
        Some(Op::Rename {
            from,
            name,
            to,
            new,
        })
    }

    /// What the server must answer.
    pub fn expected(&self, op: &Op) -> Result<(), Nfsstat3> {
        let free = |dir: &Id, name: &String| match self.entries(*dir).contains_key(name) {
            true => Err(Nfsstat3::Exist),
            false => Ok(()),
        };
        match op {
            Op::Create { dir, name, .. }
            | Op::Mkdir { dir, name }
            | Op::Symlink { dir, name, .. }
            | Op::Link { dir, name, .. } => free(dir, name),
            Op::Rename { from, name, to, .. } => match self.entries(*from).get(name) {
                None => Err(Nfsstat3::NoEnt),
                Some(id) if self.holds(*id, *to) => Err(Nfsstat3::Inval),
                Some(_) => Ok(()),
            },
            Op::Remove { dir, name } => self
                .entries(*dir)
                .get(name)
                .map(drop)
                .ok_or(Nfsstat3::NoEnt),
            Op::Rmdir { dir, name } => match self.entries(*dir).get(name) {
                None => Err(Nfsstat3::NoEnt),
                Some(id) if !self.entries(*id).is_empty() => Err(Nfsstat3::NotEmpty),
                Some(_) => Ok(()),
            },
            Op::Write { .. }
            | Op::Resize { .. }
            | Op::Thin { .. }
            | Op::List { .. }
            | Op::Read { .. } => Ok(()),
        }
    }

    /// Takes note of what was done, with the handle of what was made.
    pub fn done(&mut self, op: Op, made: Option<Fh3>) {
        match op {
            Op::Create {
                dir, name, sparse, ..
            } => {
                let content = match sparse {
                    true => Content::Sparse(Sparse::default()),
                    false => Content::File(Vec::new()),
                };
                self.add(dir, name, made, content);
            }
            Op::Mkdir { dir, name } => self.add(dir, name, made, Content::Dir(BTreeMap::new())),
            Op::Symlink { dir, name, target } => self.add(dir, name, made, Content::Link(target)),
            Op::Write { file, offset, data } => self.edit(file, |bytes| {
                let end = offset as usize + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[offset as usize..end].copy_from_slice(&data);
            }),
            Op::Resize { file, size } => self.edit(file, |bytes| bytes.resize(size as usize, 0)),
            Op::Thin { file, change } => {
                if let Some(Content::Sparse(sparse)) =
                    self.nodes.get_mut(&file).map(|n| &mut n.content)
                {
                    sparse.done(&change);
                }
            }
            Op::Link { file, dir, name } => {
                self.entries_mut(dir).insert(name, file);
                self.count(file, 1);
            }
            Op::Remove { dir, name } | Op::Rmdir { dir, name } => self.take(dir, &name),
            Op::Rename {
                from,
                name,
                to,
                new,
            } => {
                let source = self.entries(from).get(&name).copied();
                if source.is_some() && source == self.entries(to).get(&new).copied() {
                    return; // both names are the same file: nothing happens (RFC 1813 section 3.3.14)
                }
                self.take(to, &new);
                if let Some(id) = self.entries_mut(from).remove(&name) {
                    self.entries_mut(to).insert(new, id);
                }
            }
            Op::List { .. } | Op::Read { .. } => {}
        }
    }

    fn add(&mut self, dir: Id, name: String, made: Option<Fh3>, content: Content) {
        let node = Node {
            handle: made.unwrap_or(Fh3(Bytes::new())),
            names: 1,
            content,
        };
        self.nodes.insert(self.next, node);
        let id = self.next;
        self.entries_mut(dir).insert(name, id);
        self.next += 1;
    }

    fn edit(&mut self, file: Id, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(Content::File(bytes)) = self.nodes.get_mut(&file).map(|n| &mut n.content) {
            change(bytes);
        }
    }

    /// Removes a name, and the node with its last one.
    fn take(&mut self, dir: Id, name: &str) {
        if let Some(id) = self.entries_mut(dir).remove(name) {
            self.count(id, -1);
        }
    }

    fn count(&mut self, id: Id, more: i32) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.names = node.names.saturating_add_signed(more);
            if node.names == 0 {
                self.nodes.remove(&id);
            }
        }
    }
}

fn write(file: Id, random: &mut Random) -> Op {
    // Mostly little: a file that was once not small is never again.
    let (offset, most) = match random.next() % 16 {
        0 => (
            random.next() % (FILE_BYTES_MAX - WRITE_BYTES_MAX),
            WRITE_BYTES_MAX,
        ),
        1..=3 => (random.next() % SMALL_BYTES, SMALL_BYTES),
        _ => (random.next() % TINY_BYTES, TINY_BYTES / 2),
    };
    let seed = random.next();
    let len = 1 + random.next() % most;
    let data = (0..len)
        .map(|n| (seed.rotate_left(n as u32 % 61) ^ n) as u8)
        .collect();
    Op::Write { file, offset, data }
}

fn size(random: &mut Random) -> u64 {
    match random.next() % 8 {
        0 | 1 => 0,
        2 => random.next() % FILE_BYTES_MAX,
        3 => random.next() % SMALL_BYTES,
        _ => random.next() % TINY_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long history keeps its bounds, and names and counts agree throughout.
    #[test]
    fn the_model_stays_within_its_bounds() {
        let mut model = Model::new(Fh3(Bytes::new()));
        let mut random = Random::new(1);
        let (mut refused, mut links, mut thin, mut loops) = (0, 0, 0, 0);
        for _ in 0..5_000 {
            let op = model.choose(&mut random);
            links += u32::from(matches!(op, Op::Link { .. }));
            thin += u32::from(matches!(op, Op::Thin { .. }));
            loops += u32::from(model.expected(&op) == Err(Nfsstat3::Inval));
            match model.expected(&op) {
                Ok(()) => model.done(op, Some(Fh3(Bytes::new()))),
                Err(_) => refused += 1,
            }
            let mut names: BTreeMap<Id, u32> = BTreeMap::from([(TOP, 1)]);
            for node in model.nodes.values() {
                match &node.content {
                    Content::Dir(entries) => {
                        for id in entries.values() {
                            *names.entry(*id).or_default() += 1;
                        }
                    }
                    Content::File(bytes) => assert!(bytes.len() as u64 <= FILE_BYTES_MAX),
                    Content::Sparse(_) | Content::Link(_) => {}
                }
            }
            let counted = model
                .nodes
                .iter()
                .map(|(id, node)| (*id, node.names))
                .collect();
            assert_eq!(names, counted);
        }
        assert!(refused > 100 && links > 50 && thin > 100 && loops > 0);
        assert!(model.nodes.len() <= NODES_MAX + 1);
    }
}
