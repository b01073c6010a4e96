//! A directory of our own on the export, and the files prepared in it.
//!
//! Nothing outside of it is ever touched. What is prepared once is used by every run that asks for the same.

use super::engine::{Connections, Limit, Tally, Workload};
use super::pattern::Pattern;
use super::remote::{Caller, Remote, random_xid};
use super::spec::{BLOCK_BYTES_MAX, Spec, Stable};
use super::target::Target;
use super::wire::Template;
use super::work::{Access, Data, DataFile, Fill, Order, Remove, Stock};
use haven_proto::nfs3::Fh3;
use std::collections::BTreeMap;

/// Calls in flight while files are prepared or removed.
const DEPTH: usize = 32;
/// Calls in flight while data are prepared.
const WRITE_DEPTH: usize = 4;
/// Smaller blocks are not worth a call.
const BLOCK_BYTES_MIN: u64 = 4 << 10;

/// A directory of our own on a server.
pub(super) struct Place {
    pub(super) remote: Remote,
    name: String,
    dir: Fh3,
    template: Template,
    /// Directories made so far, innermost last: what is to be removed.
    dirs: Vec<(String, Fh3)>,
    stocks: BTreeMap<u64, Stock>,
    data: BTreeMap<(usize, u64), Vec<DataFile>>,
}

impl Place {
    /// Mounts the export and makes the directory.
    pub(super) fn make(target: &Target, caller: Caller, name: &str) -> Result<Self, String> {
        let template = Template::new(&caller.cred);
        let mut remote = Remote::mount(target, caller)?;
        let root = remote.root.clone();
        let dir = remote.mkdir(&root, name)?;
        Ok(Self {
            remote,
            name: name.to_owned(),
            dir,
            template,
            dirs: Vec::new(),
            stocks: BTreeMap::new(),
            data: BTreeMap::new(),
        })
    }

    /// New connections for a load.
    pub(super) fn connect(&self, count: usize, depth: usize) -> Result<Connections, String> {
        let sockets = (0..count).map(|_| self.remote.connect());
        let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
        let patience = self.remote.caller().patience;
        Connections::new(
            sockets,
            depth,
            self.template.clone(),
            random_xid()?,
            patience,
        )
    }

    /// A new directory.
    pub(super) fn dir(&mut self, name: &str) -> Result<Fh3, String> {
        let handle = self.remote.mkdir(&self.dir, name)?;
        self.dirs.push((name.to_owned(), handle.clone()));
        Ok(handle)
    }

    /// `count` files, made when they are first asked for.
    pub(super) fn stock(&mut self, count: u64, pattern: &Pattern) -> Result<Stock, String> {
        if !self.stocks.contains_key(&count) {
            let dir = self.dir(&format!("stock-{count}"))?;
            let mut fill = Fill::new(&dir, count, DEPTH);
            self.once(&mut fill, 1, pattern)?;
            self.stocks.insert(count, fill.into_stock());
        }
        let stock = self.stocks.get(&count).cloned();
        stock.ok_or_else(|| "the files are gone".into())
    }

    /// A file of `spec`'s size for each connection, written when first asked for.
    pub(super) fn data(&mut self, spec: &Spec, pattern: &Pattern) -> Result<Vec<DataFile>, String> {
        let key = (spec.connections, spec.file_size);
        if !self.data.contains_key(&key) {
            let dir = self.dir(&format!("data-{}-{}", key.0, key.1))?;
            let mut fill = Fill::new(&dir, key.0 as u64, DEPTH);
            self.once(&mut fill, 1, pattern)?;
            let files = fill.into_stock().files.into_iter().enumerate();
            let files: Vec<_> = files
                .map(|(number, (_, handle))| DataFile { handle, number })
                .collect();
            for file in &files {
                self.write_once(file, spec.file_size, pattern)?;
            }
            self.data.insert(key, files);
        }
        let files = self.data.get(&key).cloned();
        files.ok_or_else(|| "the files are gone".into())
    }

    /// Removes everything in the directories made since there were `since` of them, and these.
    pub(super) fn clear(&mut self, since: usize, pattern: &Pattern) -> Result<(), String> {
        while self.dirs.len() > since
            && let Some((name, handle)) = self.dirs.last().cloned()
        {
            loop {
                let names = self.remote.some_names(&handle)?;
                if names.is_empty() {
                    break;
                }
                let mut remove = Remove {
                    dir: &handle,
                    names,
                };
                self.once(&mut remove, 1, pattern)?;
            }
            self.remote.rmdir(&self.dir, &name)?;
            self.dirs.pop();
        }
        Ok(())
    }

    /// How many directories there are: for [`Place::clear`].
    pub(super) fn mark(&self) -> usize {
        self.dirs.len()
    }

    /// Removes everything, and the directory itself.
    pub(super) fn remove(mut self, pattern: &Pattern) -> Result<(), String> {
        self.clear(0, pattern)?;
        let root = self.remote.root.clone();
        self.remote.rmdir(&root, &self.name)
    }

    /// Writes a whole file, durably.
    fn write_once(&mut self, file: &DataFile, bytes: u64, pattern: &Pattern) -> Result<(), String> {
        let (_, wtmax) = self.remote.limits()?;
        let most = wtmax.clamp(1, BLOCK_BYTES_MAX);
        // The largest power of two that the file is a multiple of, if the server takes as much.
        let mut block = 1 << bytes.trailing_zeros().min(most.ilog2());
        // A file of odd size would be written in tiny blocks; the largest divisor is found by trying.
        if block < BLOCK_BYTES_MIN {
            let divisor = (1..=most).rev().find(|n| bytes.is_multiple_of(*n));
            block = divisor.unwrap_or(block);
        }
        let file = std::slice::from_ref(file);
        let access = Access::Write(Stable::Commit);
        let size = (block as usize, bytes);
        let mut write = Data::new(
            access,
            Order::Sequential,
            size,
            file,
            WRITE_DEPTH,
            (pattern, 0),
        );
        let limit = Limit {
            ops: Some(bytes / block),
            time: None,
        };
        self.connect(1, WRITE_DEPTH)?
            .run(&mut write, pattern, limit)?;
        Ok(())
    }

    /// Runs a workload that ends by itself.
    fn once(
        &self,
        work: &mut impl Workload,
        connections: usize,
        pattern: &Pattern,
    ) -> Result<Tally, String> {
        self.connect(connections, DEPTH)?
            .run(work, pattern, Limit::default())
    }
}
