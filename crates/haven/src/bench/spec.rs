//! What to do and how much of it: `--workload getattr,read-seq:connections=1,block=1M`.
//!
//! Settings given with a workload win over those given for all.

use std::time::Duration;

/// Longest block: what NFSv3 servers commonly take.
pub(super) const BLOCK_BYTES_MAX: u64 = haven_proto::nfs3::DATA_BYTES_MAX as u64;
/// Most files a metadata workload works on.
const FILES_MAX: u64 = 1_000_000;

/// How long a run that is limited by time runs before it is measured, if nothing else is said.
const WARMUP: Duration = Duration::from_secs(1);

/// The kinds of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "`ABOUT` says what they do")]
pub enum Kind {
    Null,
    Getattr,
    Lookup,
    Access,
    Create,
    SmallFile,
    CreateRemove,
    WriteSeq,
    WriteRand,
    ReadSeq,
    ReadRand,
    Readdir,
    Mixed,
}

/// Every kind: its name, and what one operation of it is.
pub const ABOUT: [(Kind, &str, &str); 13] = [
    (Kind::Null, "null", "NULL: the cost of a call"),
    (Kind::Getattr, "getattr", "GETATTR of a random file"),
    (Kind::Lookup, "lookup", "LOOKUP of a random name"),
    (Kind::Access, "access", "ACCESS to a random file"),
    (Kind::Create, "create", "CREATE of an empty file"),
    (
        Kind::SmallFile,
        "small-file",
        "CREATE, WRITE and COMMIT of a new file",
    ),
    (
        Kind::CreateRemove,
        "create-remove",
        "CREATE and REMOVE of an empty file",
    ),
    (
        Kind::WriteSeq,
        "write-seq",
        "WRITE of the next block; COMMIT at the file's end",
    ),
    (
        Kind::WriteRand,
        "write-rand",
        "WRITE of a random block; COMMIT after as many as the file has",
    ),
    (Kind::ReadSeq, "read-seq", "READ of the next block"),
    (Kind::ReadRand, "read-rand", "READ of a random block"),
    (Kind::Readdir, "readdir", "READDIRPLUS of a whole directory"),
    (
        Kind::Mixed,
        "mixed",
        "GETATTR 40 %, LOOKUP 30 %, ACCESS 10 %, READ 15 %, WRITE 5 %",
    ),
];

impl Kind {
    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        ABOUT
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or("", |(_, name, _)| name)
    }

    /// Whether its operations move file data worth counting.
    pub fn moves_data(self) -> bool {
        matches!(
            self,
            Self::WriteSeq | Self::WriteRand | Self::ReadSeq | Self::ReadRand
        )
    }
}

/// How durable a WRITE is asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stable {
    /// UNSTABLE, with a COMMIT when the server has left it so.
    Commit,
    /// FILE_SYNC.
    FileSync,
}

/// One workload with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// What is done.
    pub kind: Kind,
    /// TCP connections.
    pub connections: usize,
    /// Calls in flight on each.
    pub depth: usize,
    /// For how long, unless `ops` is given.
    pub time: Duration,
    /// How many operations.
    pub ops: Option<u64>,
    /// For how long before it is measured; missing: a second, or not at all if `ops` is given.
    pub warmup: Option<Duration>,
    /// Bytes of a READ or WRITE; of a small file.
    pub block: Option<u64>,
    /// Bytes of the file that each connection reads or writes.
    pub file_size: u64,
    /// Files the metadata workloads work on.
    pub files: u64,
    /// Durability of WRITEs.
    pub stable: Stable,
}

impl Spec {
    /// Calls in flight in all.
    pub fn lanes(&self) -> usize {
        self.connections * self.depth
    }

    /// Bytes of a READ or WRITE.
    pub fn block_bytes(&self) -> u64 {
        self.block.unwrap_or(match self.kind {
            Kind::SmallFile | Kind::WriteRand | Kind::ReadRand | Kind::Mixed => 4 << 10,
            _ => BLOCK_BYTES_MAX,
        })
    }

    /// For how long it runs before it is measured.
    pub fn warmup(&self) -> Duration {
        self.warmup.unwrap_or(match self.ops {
            Some(_) => Duration::ZERO,
            None => WARMUP,
        })
    }

    /// Takes one setting.
    ///
    /// # Errors
    /// When it is not known or not possible, in words.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let bad = |e: String| format!("{key}: {e}");
        match key {
            "connections" => self.connections = count(value, 1024).map_err(bad)?,
            "depth" => self.depth = count(value, 1024).map_err(bad)?,
            "seconds" => {
                self.time = seconds(value).map_err(bad)?;
                self.ops = None;
            }
            "ops" => self.ops = Some(size(value).map_err(bad)?),
            "warmup" => self.warmup = Some(seconds(value).map_err(bad)?),
            "block" => self.block = Some(size(value).map_err(bad)?),
            "file-size" => self.file_size = size(value).map_err(bad)?,
            "files" => self.files = size(value).map_err(bad)?,
            "stable" => self.stable = stable(value).map_err(bad)?,
            _ => {
                return Err(format!(
                    "there is no setting `{key}`; known are connections, depth, seconds, ops, warmup, block, \
                     file-size, files, stable"
                ));
            }
        }
        Ok(())
    }

    /// Checks what belongs together.
    ///
    /// # Errors
    /// What does not, in words.
    pub fn check(&self) -> Result<(), String> {
        let name = self.kind.name();
        let block = self.block_bytes();
        if block == 0 || block > BLOCK_BYTES_MAX {
            return Err(format!(
                "{name}: a block has 1 to {BLOCK_BYTES_MAX} bytes, this is {block}"
            ));
        }
        let blocks = self.kind.moves_data() || self.kind == Kind::Mixed;
        if blocks && (self.file_size < block || !self.file_size.is_multiple_of(block)) {
            return Err(format!(
                "{name}: the file size {} is not a multiple of the block size {block}",
                self.file_size
            ));
        }
        if self.files == 0 || self.files > FILES_MAX {
            return Err(format!("{name}: give 1 to {FILES_MAX} files"));
        }
        if self.lanes() > super::engine::LANES_MAX {
            return Err(format!(
                "{name}: connections times depth is at most {}",
                super::engine::LANES_MAX
            ));
        }
        if self.ops == Some(0) || (self.ops.is_none() && self.time.is_zero()) {
            return Err(format!("{name}: there is nothing to do"));
        }
        Ok(())
    }
}

/// Reads a list of workloads, `NAME[:KEY=VALUE,...],NAME...`, on the ground of `default`.
///
/// # Errors
/// What is not understood, in words.
pub fn parse(list: &str, default: &Spec) -> Result<Vec<Spec>, String> {
    let mut specs: Vec<Spec> = Vec::new();
    for item in list.split(',').filter(|i| !i.is_empty()) {
        let (name, setting) = match item.split_once(':') {
            Some((name, setting)) => (Some(name), Some(setting)),
            None if item.contains('=') => (None, Some(item)),
            None => (Some(item), None),
        };
        if let Some(name) = name {
            specs.push(Spec {
                kind: kind(name)?,
                ..default.clone()
            });
        }
        if let Some(setting) = setting {
            let spec = specs
                .last_mut()
                .ok_or("name a workload before its settings")?;
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| format!("`{setting}` is not KEY=VALUE"))?;
            spec.set(key, value)?;
        }
    }
    specs.iter().try_for_each(Spec::check)?;
    Ok(specs)
}

fn kind(name: &str) -> Result<Kind, String> {
    ABOUT
        .iter()
        .find(|(_, known, _)| *known == name)
        .map(|(kind, ..)| *kind)
        .ok_or_else(|| {
            let known: Vec<_> = ABOUT.iter().map(|(_, name, _)| *name).collect();
            format!(
                "there is no workload `{name}`; known are {}",
                known.join(", ")
            )
        })
}

fn count(text: &str, max: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=max).contains(&n) => Ok(n),
        _ => Err(format!("`{text}` is not a number from 1 to {max}")),
    }
}

/// Seconds, with a fraction if need be.
///
/// # Errors
/// When it is not a time, in words.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let time = text
        .parse()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok());
    match time {
        Some(time) if time <= Duration::from_secs(86_400) => Ok(time),
        _ => Err(format!("`{text}` is not a number of seconds up to a day")),
    }
}

/// A number, with K, M or G for powers of 1024.
///
/// # Errors
/// When it is not a number, in words.
pub fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| format!("`{text}` is not a number such as 4096, 4K, 1M or 1G"))
}

/// How durable: `commit` or `file-sync`.
///
/// # Errors
/// When it is neither, in words.
pub fn stable(text: &str) -> Result<Stable, String> {
    match text {
        "commit" => Ok(Stable::Commit),
        "file-sync" => Ok(Stable::FileSync),
        _ => Err(format!("`{text}` is neither `commit` nor `file-sync`")),
    }
}
