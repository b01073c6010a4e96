//! [`Store`] itself: opening, making and replacing what is on disk.
//!
//! Invariants
//! - The directory holds `CURRENT` and the generation it names; whatever else is there is a leftover of
//!   an interrupted step and goes at the next open.
//! - A directory with generations but without `CURRENT` is not touched.
//!
//! It must not know what operations do.

use crate::base::{Base, View};
use crate::cache::Cache;
use crate::current::{self, Current};
use crate::data::DataFiles;
use crate::layers::Layers;
use crate::record::{Counters, Entry, Inode};
use crate::row_key::RowKey;
use crate::{fatal, keys, remains};
use bytes::Bytes;
use haven_disk::{Disk, renew};
use haven_fs::{FILE_SIZE_MAX, FsError, FsResult, Ino, Level, rules};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

const FIRST_GENERATION: u64 = 1;
/// The metadata of a generation.
pub(crate) const METADATA_FILE: &str = "meta.redb";
/// The data files of a generation.
pub(crate) const DATA_DIR: &str = "data";
/// Made and removed at every start, to try the file system and to make names durable.
pub(crate) const PROBE_FILE: &str = renew::PROBE;
/// Memory for pages of the metadata unless told otherwise. The kernel keeps pages of the file, too, as many as it has room
/// for; this is for those that nearly every row is found through.
const CACHE_BYTES_DEFAULT: usize = 64 << 20;
/// Most inodes kept decoded: about 16 MiB.
const INODES_CACHED_MAX: usize = 1 << 16;
/// Most directory entries kept decoded: about 10 MiB with names of usual length, 25 MiB at worst.
const ENTRIES_CACHED_MAX: usize = 1 << 16;

/// What can be chosen about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Memory for pages of the metadata.
    pub cache_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: CACHE_BYTES_DEFAULT,
        }
    }
}

/// The durable file system of one volume. See the crate's head comment.
pub struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: StoreOptions,
    pub(crate) generation: Arc<Generation>,
    pub(crate) layers: Layers,
    /// Inodes as the layers have them.
    pub(crate) inodes: Cache<u64, Inode>,
    /// Directory entries as the layers have them, by the keys of their rows by name.
    pub(crate) entries: Cache<RowKey, Entry>,
    pub(crate) counters: Counters,
    /// Removed inodes whose removal is durable: their data files may go.
    pub(crate) buried: Vec<Ino>,
    /// Alive as long as somebody may still finish the frozen checkpoint.
    pub(crate) in_flight: Weak<()>,
    /// Whether something was applied that the position does not cover yet.
    pub(crate) unpositioned: bool,
    /// The log index of the last applied entry; 0: not known.
    pub(crate) applied: u64,
    /// Counts changes of what the state hash covers.
    pub(crate) changes: u64,
    /// The rules that changes follow.
    pub(crate) level: Level,
    /// Set when a stream of changes did not fit: only a whole snapshot helps.
    pub(crate) base_doubted: Arc<AtomicBool>,
    /// Why nothing more may be applied.
    pub(crate) failed: Option<String>,
    pub(crate) generation_next: Arc<AtomicU64>,
}

/// One whole state on disk.
pub(crate) struct Generation {
    pub number: u64,
    pub dir: PathBuf,
    pub base: Base,
    pub data: DataFiles,
    /// Set when another generation took its place: its files may be gone.
    pub retired: AtomicBool,
}

impl Generation {
    /// Opens (or makes) generation `number` of the store in `dir`.
    pub fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        number: u64,
        options: StoreOptions,
    ) -> FsResult<Self> {
        let dir = current::generation_dir(dir, number);
        let data_dir = dir.join(DATA_DIR);
        disk.create_dir_all(&data_dir)
            .map_err(|e| fatal(format!("cannot make directory {}", data_dir.display()), e))?;
        let base = Base::open(disk.as_ref(), &dir.join(METADATA_FILE), options.cache_bytes)?;
        let data = DataFiles::new(Arc::clone(disk), data_dir);
        Ok(Self {
            number,
            dir,
            base,
            data,
            retired: AtomicBool::new(false),
        })
    }

    /// Makes the names in the generation's directory durable.
    pub fn sync_names(&self, disk: &dyn Disk) -> FsResult<()> {
        disk.sync_dir(&self.dir)
            .map_err(|e| fatal(format!("cannot flush directory {}", self.dir.display()), e))
    }

    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

impl Store {
    /// Opens the store in `dir`, at its last durable checkpoint; makes an empty one when there is none.
    ///
    /// # Errors
    /// [`FsError::Fatal`] when the disk fails, the format is unknown or something is damaged.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: StoreOptions) -> FsResult<Self> {
        renew::dir(disk.as_ref(), dir)
            .map_err(|e| fatal(format!("cannot make directory {}", dir.display()), e))?;
        check_file_size(disk.as_ref(), dir)?;
        let number = match current::read(disk.as_ref(), dir)? {
            Current::Generation(number) => {
                check_present(disk.as_ref(), dir, number)?;
                // Before the one that it replaced goes, and before anything of this format gets into one of an older format.
                current::write(disk.as_ref(), dir, number)?;
                remove_leftovers(disk.as_ref(), dir, Some(number))?;
                number
            }
            Current::Absent => {
                refuse_orphans(disk.as_ref(), dir)?;
                make(&disk, dir, options)?
            }
            Current::BeingMade => make(&disk, dir, options)?,
        };
        let generation = Arc::new(Generation::open(&disk, dir, number, options)?);
        generation.data.renew_names()?;
        let loaded = Loaded::from(generation.base.view()?)?;
        load_remains(&loaded.layers, &generation.data)?;
        Ok(Self {
            disk,
            dir: dir.to_path_buf(),
            options,
            generation,
            layers: loaded.layers,
            inodes: Cache::new(INODES_CACHED_MAX),
            entries: Cache::new(ENTRIES_CACHED_MAX),
            counters: loaded.counters,
            buried: loaded.buried,
            in_flight: Weak::new(),
            unpositioned: false,
            applied: loaded.applied,
            changes: 0,
            level: Level::NEWEST,
            base_doubted: Arc::default(),
            failed: None,
            generation_next: Arc::new(AtomicU64::new(number + 1)),
        })
    }

    /// Remembers the position of the last applied entry. It becomes durable with the next checkpoint,
    /// together with what was applied.
    pub fn set_position(&mut self, position: Bytes) -> FsResult<()> {
        let changes = self.changes;
        self.mutate(|store| {
            if position.len() > keys::POSITION_BYTES_MAX {
                return Err(fatal("position blob too long", position.len()));
            }
            store.layers.put(keys::POSITION, position);
            Ok(())
        })?;
        self.unpositioned = false;
        // The position is this replica's own.
        self.changes = changes;
        Ok(())
    }

    /// Says that all entries up to log index `index` are applied, and no later one. It becomes durable with
    /// the next checkpoint. Without it, other replicas get whole snapshots only.
    pub fn set_applied(&mut self, index: u64) {
        self.applied = self.applied.max(index);
    }

    /// The log index that the last durable checkpoint belongs to, if it can be the base of a stream of
    /// changes ([`crate::SnapshotReader::since`]).
    pub fn base_index(&self) -> FsResult<Option<u64>> {
        if self.base_doubted.load(Ordering::Acquire) {
            return Ok(None);
        }
        let stored = self.layers.get_durable(keys::APPLIED)?;
        Ok(stored
            .and_then(|stored| number(&stored))
            .filter(|&index| index > 0))
    }

    /// Puts the index of what was applied among the changed rows.
    pub(crate) fn note_applied(&mut self) {
        if self.applied > 0 {
            let index = self.applied.to_be_bytes().to_vec();
            self.layers.put(keys::APPLIED, index);
        }
    }

    /// The position of the last applied entry, as far as it was set.
    pub fn position(&self) -> FsResult<Option<Bytes>> {
        self.layers.get(keys::POSITION)
    }

    /// The position of the last durable checkpoint.
    pub fn durable_position(&self) -> FsResult<Option<Bytes>> {
        self.layers.get_durable(keys::POSITION)
    }

    /// About how much memory the changes take that no checkpoint has made durable yet. Whoever drives
    /// checkpoints begins one before this is more than the machine can spare: nothing else bounds it.
    pub fn pending_bytes(&self) -> usize {
        self.layers.pending_bytes()
    }

    /// Runs a change. After a fatal error in one, half of it may be in memory: from then on nothing is
    /// changed or checkpointed any more.
    pub(crate) fn mutate<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> FsResult<T>,
    ) -> FsResult<T> {
        self.check_usable()?;
        self.changes += 1;
        let result = change(self);
        match &result {
            Ok(_) => self.unpositioned = true,
            Err(FsError::Fatal(why)) => self.failed = Some(why.clone()),
            Err(_) => {}
        }
        result
    }

    pub(crate) fn check_usable(&self) -> FsResult<()> {
        match &self.failed {
            Some(why) => Err(fatal("the store stopped after an earlier failure", why)),
            None => Ok(()),
        }
    }

    /// Puts another whole state in place of the present one, in memory.
    pub(crate) fn adopt(&mut self, generation: Arc<Generation>) -> FsResult<()> {
        let loaded = Loaded::from(generation.base.view()?)?;
        self.generation = generation;
        self.layers = loaded.layers;
        self.inodes.clear();
        self.entries.clear();
        self.counters = loaded.counters;
        self.buried = loaded.buried;
        self.in_flight = Weak::new();
        self.unpositioned = false;
        self.applied = loaded.applied;
        Ok(())
    }
}

fn number(stored: &[u8]) -> Option<u64> {
    stored.try_into().ok().map(u64::from_be_bytes)
}

/// What is kept in memory of a generation.
struct Loaded {
    layers: Layers,
    counters: Counters,
    buried: Vec<Ino>,
    applied: u64,
}

impl Loaded {
    fn from(view: View) -> FsResult<Self> {
        let layers = Layers::new(view);
        let counters = layers
            .get(keys::COUNTERS)?
            .ok_or_else(|| fatal("the metadata is damaged", "its counters are missing"))?;
        let counters = Counters::decode(&counters)?;
        let mut buried = Vec::new();
        layers.scan_prefix(keys::GRAVEYARD, &mut |key, _| {
            buried.extend(keys::ino_of_grave(key));
            Ok(ControlFlow::Continue(()))
        })?;
        let applied = layers.get(keys::APPLIED)?;
        Ok(Self {
            applied: applied.and_then(|stored| number(&stored)).unwrap_or(0),
            layers,
            counters,
            buried,
        })
    }
}

/// Tells `data` what remains in data files of what was cut off.
fn load_remains(layers: &Layers, data: &DataFiles) -> FsResult<()> {
    let damaged = || fatal("the metadata is damaged", "what was cut off a data file");
    layers
        .scan_prefix(keys::REMAINS, &mut |key, value| {
            let ino = keys::ino_of_remains(key).ok_or_else(damaged)?;
            data.load_remains(ino, &remains::decode(value).ok_or_else(damaged)?);
            Ok(ControlFlow::Continue(()))
        })
        .map(drop)
}

/// Makes the first generation and names it in `CURRENT`.
fn make(disk: &Arc<dyn Disk>, dir: &Path, options: StoreOptions) -> FsResult<u64> {
    current::write(disk.as_ref(), dir, 0)?;
    remove_leftovers(disk.as_ref(), dir, None)?;
    let generation = Generation::open(disk, dir, FIRST_GENERATION, options)?;
    let root = Inode::new(rules::root_attr(), rules::ROOT_INO).encode();
    let counters = Counters {
        next_ino: rules::FIRST_INO.0,
        inodes: 1,
    }
    .encode();
    let rows: [(&[u8], Option<&[u8]>); 2] = [
        (&keys::inode(rules::ROOT_INO), Some(&root)),
        (keys::COUNTERS, Some(&counters)),
    ];
    generation.base.commit(rows.into_iter())?;
    generation.sync_names(disk.as_ref())?;
    current::write(disk.as_ref(), dir, FIRST_GENERATION)?;
    Ok(FIRST_GENERATION)
}

/// Removes all generations but `keep`, and half-written files.
pub(crate) fn remove_leftovers(disk: &dyn Disk, dir: &Path, keep: Option<u64>) -> FsResult<()> {
    let failed = |e| fatal(format!("cannot clean up {}", dir.display()), e);
    let mut removed = false;
    for name in disk.list(dir).map_err(failed)? {
        match current::generation_of(&name) {
            Some(number) if Some(number) != keep => {
                disk.remove_dir_all(&dir.join(&name)).map_err(failed)?;
                removed = true;
            }
            None if current::is_leftover(&name) || name == PROBE_FILE => {
                disk.remove_file(&dir.join(&name)).map_err(failed)?;
                removed = true;
            }
            _ => {}
        }
    }
    if removed {
        disk.sync_dir(dir).map_err(failed)
    } else {
        Ok(())
    }
}

/// Refuses a file system that takes no files of [`FILE_SIZE_MAX`]: a write that one replica cannot do
/// would stop it, long after it was set up.
fn check_file_size(disk: &dyn Disk, dir: &Path) -> FsResult<()> {
    let path = dir.join(PROBE_FILE);
    let shown = dir.display();
    let file = disk
        .open(&path, true)
        .map_err(|e| fatal(format!("cannot make a file in {shown}"), e))?;
    let takes = file.set_len(FILE_SIZE_MAX);
    drop(file);
    disk.remove_file(&path)
        .map_err(|e| fatal(format!("cannot remove {}", path.display()), e))?;
    takes.map_err(|error| {
        let why = format!(
            "the file system of {shown} takes no files of {FILE_SIZE_MAX} bytes; \
             use ext4 with blocks of 4 KiB, XFS, or another with that limit"
        );
        fatal(why, error)
    })
}

fn check_present(disk: &dyn Disk, dir: &Path, number: u64) -> FsResult<()> {
    let path = current::generation_dir(dir, number).join(METADATA_FILE);
    let shown = path.display();
    match disk.exists(&path) {
        Ok(true) => Ok(()),
        Ok(false) => Err(fatal(
            format!("{shown} is missing"),
            "restore it, or empty the store's directory to fetch everything from the other nodes",
        )),
        Err(error) => Err(fatal(format!("cannot look for {shown}"), error)),
    }
}

fn refuse_orphans(disk: &dyn Disk, dir: &Path) -> FsResult<()> {
    let shown = dir.display();
    let names = disk
        .list(dir)
        .map_err(|e| fatal(format!("cannot list {shown}"), e))?;
    match names
        .iter()
        .find(|name| current::generation_of(name).is_some())
    {
        None => Ok(()),
        Some(name) => Err(fatal(
            format!("{shown} holds {name} but no CURRENT file"),
            "restore CURRENT, or empty the directory to fetch everything from the other nodes",
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use haven_disk::testing::{DiskOp, FaultyDisk};
    use haven_disk::{RealDisk, VolatileDisk};
    use haven_fs::{Change, Cred, Filesystem, SetAttr, Time};
    use std::sync::atomic::AtomicI64;

    const DIR: &str = "store";

    fn open(disk: Arc<dyn Disk>) -> FsResult<Store> {
        Store::open(disk, Path::new(DIR), StoreOptions::default())
    }

    /// A store of the format before, with a directory in it.
    fn older(root: &Path) {
        let disk = Arc::new(RealDisk::open(root).unwrap());
        let mut store = open(disk.clone()).unwrap();
        let at = Change {
            index: 1,
            time: Time::default(),
        };
        let made = store.mkdir(&at, &Cred::root(), Ino(1), b"d", &SetAttr::default());
        made.unwrap();
        store.set_position(Bytes::from_static(b"here")).unwrap();
        store.checkpoint().unwrap();
        drop(store);
        let text = current::contents_in(current::FORMAT_OLDEST, FIRST_GENERATION);
        let file = disk.open(&Path::new(DIR).join("CURRENT"), false).unwrap();
        file.write_at(0, text.as_bytes()).unwrap();
        file.sync().unwrap();
    }

    #[test]
    fn a_store_of_the_format_before_is_opened_and_says_the_new_one_before_anything_else() {
        let mut failed = 0;
        let early = Arc::new(AtomicBool::new(false));
        for fails_at in 0.. {
            let root = tempfile::tempdir().unwrap();
            older(root.path());
            let disk = Arc::new(VolatileDisk::open(root.path()).unwrap());
            // The power goes at any step of the opening.
            let left = AtomicI64::new(fails_at);
            let (power, said, early) = (disk.clone(), AtomicBool::new(false), Arc::clone(&early));
            let watched = FaultyDisk::new(disk.clone(), move |op, path| {
                match op {
                    DiskOp::Rename => said.store(true, Ordering::Relaxed),
                    DiskOp::Write if path.ends_with(METADATA_FILE) => {
                        early.fetch_or(!said.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                    _ => {}
                }
                if left.fetch_sub(1, Ordering::Relaxed) == 0 {
                    power.forget();
                }
                Ok(())
            });
            let opened = open(Arc::new(watched)).is_ok();
            disk.forget();
            drop(disk);
            let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(root.path()).unwrap());
            let store = open(disk.clone()).unwrap();
            assert!(store.lookup(&Cred::root(), Ino(1), b"d").is_ok());
            assert_eq!(current::other_format(disk.as_ref(), Path::new(DIR)), None);
            let text = std::fs::read_to_string(root.path().join(DIR).join("CURRENT"));
            assert_eq!(text.unwrap(), current::contents(FIRST_GENERATION));
            failed += i32::from(!opened);
            if opened {
                break;
            }
        }
        assert!(failed > 5, "{failed}");
        assert!(!early.load(Ordering::Relaxed));
    }
}
