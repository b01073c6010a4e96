//! The names of a [`super::VolatileDisk`]: for every directory the names as this process sees them
//! (`current`) and as they are on the real directory (`durable`).
//!
//! Invariants
//! - A node (file or directory) has at most one current and at most one durable name.
//! - `durable` equals the real directory. A node without a durable name has its real file, if any, in
//!   the staging directory under its id.
//! - A directory is read from the disk when first looked into.
//! - Changes of names that a failed flush of their directory did not bring to the disk are brought by a flush
//!   after another name in that directory has changed: a directory is to be seen as one page.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FileNode;
use crate::RealDisk;
use crate::path::{STAGING, joined, reserved};
use crate::real::check_rename;

type NodeId = u64;
const ROOT: NodeId = 0;

/// A name in a directory.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    dir: NodeId,
    name: String,
}

struct Node {
    current: Option<Place>,
    durable: Option<Place>,
    kind: Kind,
}

enum Kind {
    File(Arc<FileNode>),
    Dir(Dir),
}

#[derive(Default)]
struct Dir {
    loaded: bool,
    /// A flush could not write the changed names and took them for clean.
    lost: bool,
    current: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

/// All nodes known so far.
pub(super) struct Tree {
    disk: Arc<RealDisk>,
    nodes: HashMap<NodeId, Node>,
    next: NodeId,
}

impl Tree {
    pub(super) fn new(disk: Arc<RealDisk>) -> Tree {
        let root = Node {
            current: None,
            durable: None,
            kind: Kind::Dir(Dir::default()),
        };
        Tree {
            disk,
            nodes: HashMap::from([(ROOT, root)]),
            next: ROOT + 1,
        }
    }

    pub(super) fn open(&mut self, names: &[&str], create: bool) -> io::Result<Arc<FileNode>> {
        let (dir, name) = self.parent(names)?;
        let id = match self.child(dir, name)? {
            Some(id) => id,
            None if create => self.add_file(dir, name)?,
            None => {
                return Err(fault(
                    io::ErrorKind::NotFound,
                    names,
                    "there is no such file",
                ));
            }
        };
        let Kind::File(node) = &self.node(id)?.kind else {
            return Err(fault(io::ErrorKind::IsADirectory, names, "is a directory"));
        };
        let node = Arc::clone(node);
        node.opened(&self.real_path(id)?)?;
        Ok(node)
    }

    /// The names are durable afterwards, unless the device `fails`: then those of new ones are not.
    pub(super) fn create_dir_all(&mut self, names: &[&str], fails: bool) -> io::Result<()> {
        let mut dir = ROOT;
        for (depth, name) in names.iter().enumerate() {
            dir = match self.child(dir, name)? {
                Some(id) if matches!(self.node(id)?.kind, Kind::Dir(_)) => {
                    if !fails && !self.dir(dir)?.lost {
                        self.commit_new(dir, name)?;
                    }
                    id
                }
                Some(_) => {
                    let names = &names[..=depth];
                    return Err(fault(io::ErrorKind::AlreadyExists, names, "is a file"));
                }
                None if fails => self.add_dir_in_vain(dir, name)?,
                None => self.add_dir(dir, name)?,
            };
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &[&str], to: &[&str]) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let id = self.child(from_dir, from_name)?;
        let (to_dir, to_name) = self.parent(to)?;
        let old = self.child(to_dir, to_name)?;
        let is_dir = |tree: &Tree, id: Option<NodeId>| -> io::Result<Option<bool>> {
            id.map(|id| Ok(matches!(tree.node(id)?.kind, Kind::Dir(_))))
                .transpose()
        };
        check_rename(
            &joined(from),
            is_dir(self, id)?,
            &joined(to),
            is_dir(self, old)?,
        )?;
        let Some(id) = id else {
            return Err(fault(
                io::ErrorKind::NotFound,
                from,
                "there is no such file",
            ));
        };
        if old == Some(id) {
            return Ok(());
        }
        if let Some(old) = old {
            self.unname(old)?;
        }
        self.changed(from_dir)?.remove(from_name);
        self.changed(to_dir)?.insert(to_name.to_owned(), id);
        self.node_mut(id)?.current = Some(Place {
            dir: to_dir,
            name: to_name.to_owned(),
        });
        Ok(())
    }

    pub(super) fn remove_file(&mut self, names: &[&str]) -> io::Result<()> {
        let id = self.find(names)?;
        if matches!(self.node(id)?.kind, Kind::Dir(_)) {
            return Err(fault(io::ErrorKind::IsADirectory, names, "is a directory"));
        }
        self.unname(id)
    }

    pub(super) fn remove_dir_all(&mut self, names: &[&str]) -> io::Result<()> {
        let id = self.find(names)?;
        if matches!(self.node(id)?.kind, Kind::File(_)) {
            return Err(fault(io::ErrorKind::NotADirectory, names, "is a file"));
        }
        self.unname(id)
    }

    pub(super) fn list(&mut self, names: &[&str]) -> io::Result<Vec<String>> {
        let id = self.find(names)?;
        if matches!(self.node(id)?.kind, Kind::File(_)) {
            return Err(fault(io::ErrorKind::NotADirectory, names, "is a file"));
        }
        self.load(id)?;
        Ok(self.dir(id)?.current.keys().cloned().collect())
    }

    pub(super) fn exists(&mut self, names: &[&str]) -> io::Result<bool> {
        match self.find(names) {
            Ok(_) => Ok(true),
            Err(e) => match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(false),
                _ => Err(e),
            },
        }
    }

    /// Brings the directory's names to the real directory and tells where that is, for the flush.
    ///
    /// New names come first, so that a process killed half-way through a replacement leaves the old
    /// file or the new one, never none.
    pub(super) fn sync_dir(&mut self, names: &[&str]) -> io::Result<PathBuf> {
        let id = self.find(names)?;
        if matches!(self.node(id)?.kind, Kind::File(_)) {
            return Err(fault(io::ErrorKind::NotADirectory, names, "is a file"));
        }
        self.load(id)?;
        self.commit_names(id)?;
        self.real_path(id)
    }

    /// As [`Tree::sync_dir`], but the device fails. What was to be made durable is so if `reaches` says so;
    /// otherwise it counts as clean.
    pub(super) fn sync_dir_failing(
        &mut self,
        names: &[&str],
        reaches: &mut impl FnMut() -> bool,
    ) -> io::Result<()> {
        let id = self.find(names)?;
        self.load(id)?;
        self.fail_dir(id, reaches)
    }

    fn fail_dir(&mut self, id: NodeId, reaches: &mut impl FnMut() -> bool) -> io::Result<()> {
        if self.changed_names(id)?.is_empty() {
            return Ok(());
        }
        match reaches() {
            true => self.commit_names(id).map(drop),
            false => {
                self.dir(id)?.lost = true;
                Ok(())
            }
        }
    }

    /// As [`Tree::sync_dir`] of every directory whose names changed; tells where these are.
    pub(super) fn sync_all_dirs(&mut self) -> io::Result<Vec<PathBuf>> {
        let mut flush = Vec::new();
        for id in self.ids() {
            if self.is_living_dir(id) && self.commit_names(id)? {
                flush.push(id);
            }
        }
        flush.into_iter().map(|id| self.real_path(id)).collect()
    }

    /// As [`Tree::sync_all_dirs`], but the device fails: see [`Tree::sync_dir_failing`].
    pub(super) fn sync_all_dirs_failing(
        &mut self,
        reaches: &mut impl FnMut() -> bool,
    ) -> io::Result<()> {
        for id in self.ids() {
            if self.is_living_dir(id) {
                self.fail_dir(id, reaches)?;
            }
        }
        Ok(())
    }

    /// All nodes, in a fixed order.
    fn ids(&self) -> Vec<NodeId> {
        let mut dirs: Vec<NodeId> = self.nodes.keys().copied().collect();
        dirs.sort_unstable();
        dirs
    }

    /// Whether it is a directory that is still there: taking away a removed one takes away what was in it.
    fn is_living_dir(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| {
            let lives = id == ROOT || node.current.is_some();
            lives && matches!(node.kind, Kind::Dir(_))
        })
    }

    fn changed_names(&mut self, id: NodeId) -> io::Result<BTreeSet<String>> {
        let dir = self.dir(id)?;
        let names = dir.current.keys().chain(dir.durable.keys());
        let changed = names.filter(|name| dir.current.get(*name) != dir.durable.get(*name));
        Ok(changed.cloned().collect())
    }

    /// Brings changed names to the real directory, unless they count as clean. Whether there were any.
    fn commit_names(&mut self, id: NodeId) -> io::Result<bool> {
        if self.dir(id)?.lost {
            return Ok(false);
        }
        let changed = self.changed_names(id)?;
        for name in &changed {
            self.commit_new(id, name)?;
        }
        for name in &changed {
            self.commit_gone(id, name)?;
        }
        Ok(!changed.is_empty())
    }

    /// All files known.
    pub(super) fn files(&self) -> Vec<Arc<FileNode>> {
        let file = |node: &Node| match &node.kind {
            Kind::File(file) => Some(Arc::clone(file)),
            Kind::Dir(_) => None,
        };
        self.nodes.values().filter_map(file).collect()
    }

    /// Puts the node of a current name under that name in the real directory.
    fn commit_new(&mut self, dir: NodeId, name: &str) -> io::Result<()> {
        let Some(&id) = self.dir(dir)?.current.get(name) else {
            return Ok(());
        };
        let target = self.real_path(dir)?.join(name);
        if let Some(&old) = self.dir(dir)?.durable.get(name) {
            if old == id {
                return Ok(());
            }
            self.clear_target(dir, name, old, &target)?;
        }
        if let Kind::File(file) = &self.node(id)?.kind {
            file.materialize()?;
        }
        self.disk.rename_raw(&self.real_path(id)?, &target)?;
        if let Some(was) = self.node(id)?.durable.clone() {
            self.dir(was.dir)?.durable.remove(&was.name);
        }
        let dir_node = self.dir(dir)?;
        let replaced = dir_node.durable.insert(name.to_owned(), id);
        self.node_mut(id)?.durable = Some(Place {
            dir,
            name: name.to_owned(),
        });
        if let Some(old) = replaced {
            self.node_mut(old)?.durable = None;
            self.drop_if_nameless(old)?;
        }
        Ok(())
    }

    /// Makes way for a rename onto `target`, which replaces a dead file atomically by itself.
    fn clear_target(
        &mut self,
        dir: NodeId,
        name: &str,
        old: NodeId,
        target: &Path,
    ) -> io::Result<()> {
        let lives = self.node(old)?.current.is_some();
        match (&self.node(old)?.kind, lives) {
            (Kind::File(_), false) => Ok(()),
            (Kind::File(_), true) => self.disk.link_raw(target, &staged(old)),
            (Kind::Dir(_), _) => self.commit_gone(dir, name),
        }
    }

    /// Takes a name whose node is no longer there out of the real directory.
    fn commit_gone(&mut self, dir: NodeId, name: &str) -> io::Result<()> {
        let dir_node = self.dir(dir)?;
        let Some(&id) = dir_node.durable.get(name) else {
            return Ok(());
        };
        if dir_node.current.get(name) == Some(&id) {
            return Ok(());
        }
        self.take_away(id)?;
        self.dir(dir)?.durable.remove(name);
        self.node_mut(id)?.durable = None;
        self.drop_if_nameless(id)
    }

    /// Removes the real file or directory of a dead node; that of a living one goes to staging.
    fn take_away(&mut self, id: NodeId) -> io::Result<()> {
        let path = self.real_path(id)?;
        let node = self.node(id)?;
        if node.current.is_some() {
            return self.disk.rename_raw(&path, &staged(id));
        }
        let Kind::Dir(dir) = &node.kind else {
            return self.disk.unlink(&path);
        };
        // What was never looked into holds nothing that lives elsewhere.
        if dir.loaded {
            self.clear_durable(id)?;
        }
        self.disk.remove_tree(&path)
    }

    /// Takes away all that a dead directory durably holds.
    fn clear_durable(&mut self, id: NodeId) -> io::Result<()> {
        while let Some((name, &child)) = self.dir(id)?.durable.first_key_value() {
            let name = name.clone();
            self.take_away(child)?;
            self.dir(id)?.durable.remove(&name);
            self.node_mut(child)?.durable = None;
            self.drop_if_nameless(child)?;
        }
        Ok(())
    }

    /// Takes the current name away, and those of everything below.
    fn unname(&mut self, id: NodeId) -> io::Result<()> {
        if let Some(place) = self.node_mut(id)?.current.take() {
            self.changed(place.dir)?.remove(&place.name);
        }
        if let Kind::Dir(dir) = &self.node(id)?.kind {
            let below: Vec<NodeId> = dir.current.values().copied().collect();
            for child in below {
                self.unname(child)?;
            }
        }
        self.drop_if_nameless(id)
    }

    fn drop_if_nameless(&mut self, id: NodeId) -> io::Result<()> {
        let node = self.node(id)?;
        if node.current.is_some() || node.durable.is_some() {
            return Ok(());
        }
        match &node.kind {
            Kind::File(file) => file.set_nameless(),
            Kind::Dir(_) => self.clear_durable(id)?,
        }
        // A staged real file, if there is one, is cleared with the staging directory; removing it
        // now keeps space bounded.
        let path = staged(id);
        match self.disk.is_dir(&path)? {
            Some(true) => self.disk.remove_tree(&path)?,
            Some(false) => self.disk.unlink(&path)?,
            None => {}
        }
        self.nodes.remove(&id);
        Ok(())
    }

    fn add_file(&mut self, dir: NodeId, name: &str) -> io::Result<NodeId> {
        let id = self.next;
        let file = FileNode::new(Arc::clone(&self.disk), staged(id), false);
        self.add(dir, name, Kind::File(Arc::new(file)))
    }

    fn add_dir(&mut self, dir: NodeId, name: &str) -> io::Result<NodeId> {
        // A removed name of before may still be durable: it goes first, as this is durable at once.
        self.commit_gone(dir, name)?;
        let parent = self.real_path(dir)?;
        self.disk.make_dir(&parent.join(name))?;
        self.disk.flush_dir(&parent)?;
        let made = Dir {
            loaded: true,
            ..Dir::default()
        };
        let id = self.add(dir, name, Kind::Dir(made))?;
        self.dir(dir)?.durable.insert(name.to_owned(), id);
        let node = self.node_mut(id)?;
        node.durable = node.current.clone();
        Ok(id)
    }

    /// As [`Tree::add_dir`], but its name is not durable and counts as clean.
    fn add_dir_in_vain(&mut self, dir: NodeId, name: &str) -> io::Result<NodeId> {
        self.disk.make_dir(&staged(self.next))?;
        let made = Dir {
            loaded: true,
            ..Dir::default()
        };
        let id = self.add(dir, name, Kind::Dir(made))?;
        self.dir(dir)?.lost = true;
        Ok(id)
    }

    /// The names of a directory, of which one is about to change.
    fn changed(&mut self, id: NodeId) -> io::Result<&mut BTreeMap<String, NodeId>> {
        let dir = self.dir(id)?;
        dir.lost = false;
        Ok(&mut dir.current)
    }

    fn add(&mut self, dir: NodeId, name: &str, kind: Kind) -> io::Result<NodeId> {
        let id = self.next;
        self.next += 1;
        let place = Place {
            dir,
            name: name.to_owned(),
        };
        self.changed(dir)?.insert(name.to_owned(), id);
        let node = Node {
            current: Some(place),
            durable: None,
            kind,
        };
        self.nodes.insert(id, node);
        Ok(id)
    }

    /// The node of a path as this process sees it.
    fn find(&mut self, names: &[&str]) -> io::Result<NodeId> {
        let mut id = ROOT;
        for (depth, name) in names.iter().enumerate() {
            if matches!(self.node(id)?.kind, Kind::File(_)) {
                let names = &names[..depth];
                return Err(fault(io::ErrorKind::NotADirectory, names, "is a file"));
            }
            let missing = || fault(io::ErrorKind::NotFound, &names[..=depth], "does not exist");
            id = self.child(id, name)?.ok_or_else(missing)?;
        }
        Ok(id)
    }

    /// The directory a path's last name is in (which must be there), and that name.
    fn parent<'a>(&mut self, names: &[&'a str]) -> io::Result<(NodeId, &'a str)> {
        let Some((name, above)) = names.split_last() else {
            return Err(fault(io::ErrorKind::InvalidInput, names, "is the root"));
        };
        let dir = self.find(above)?;
        if matches!(self.node(dir)?.kind, Kind::File(_)) {
            return Err(fault(io::ErrorKind::NotADirectory, above, "is a file"));
        }
        Ok((dir, name))
    }

    fn child(&mut self, dir: NodeId, name: &str) -> io::Result<Option<NodeId>> {
        self.load(dir)?;
        Ok(self.dir(dir)?.current.get(name).copied())
    }

    fn load(&mut self, id: NodeId) -> io::Result<()> {
        if self.dir(id)?.loaded {
            return Ok(());
        }
        for (name, is_dir) in self.disk.entries(&self.real_path(id)?)? {
            if id == ROOT && reserved(&name) {
                continue;
            }
            let kind = if is_dir {
                Kind::Dir(Dir::default())
            } else {
                let disk = Arc::clone(&self.disk);
                Kind::File(Arc::new(FileNode::new(disk, staged(self.next), true)))
            };
            let child = self.add(id, &name, kind)?;
            self.dir(id)?.durable.insert(name, child);
            let node = self.node_mut(child)?;
            node.durable = node.current.clone();
        }
        self.dir(id)?.loaded = true;
        Ok(())
    }

    /// Where the node's file or directory really is.
    fn real_path(&self, id: NodeId) -> io::Result<PathBuf> {
        if id == ROOT {
            return Ok(PathBuf::new());
        }
        match &self.node(id)?.durable {
            Some(place) => Ok(self.real_path(place.dir)?.join(&place.name)),
            None => Ok(staged(id)),
        }
    }

    fn node(&self, id: NodeId) -> io::Result<&Node> {
        self.nodes.get(&id).ok_or_else(broken)
    }

    fn node_mut(&mut self, id: NodeId) -> io::Result<&mut Node> {
        self.nodes.get_mut(&id).ok_or_else(broken)
    }

    fn dir(&mut self, id: NodeId) -> io::Result<&mut Dir> {
        match &mut self.node_mut(id)?.kind {
            Kind::Dir(dir) => Ok(dir),
            Kind::File(_) => Err(broken()),
        }
    }
}

fn staged(id: NodeId) -> PathBuf {
    Path::new(STAGING).join(id.to_string())
}

fn fault(kind: io::ErrorKind, names: &[&str], why: &str) -> io::Error {
    io::Error::new(kind, format!("{}: {why}", joined(names).display()))
}

fn broken() -> io::Error {
    io::Error::other("the volatile disk's table of names is inconsistent (a defect)")
}
