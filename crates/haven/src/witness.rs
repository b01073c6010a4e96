//! A witness: a node that votes and keeps the log, and holds no files.
//!
//! Its machine remembers one thing, the position up to which entries are applied, which for a witness
//! means no more than that they are committed. What it does with leadership is up to
//! `haven_consensus`: it brings a node with files up to date and hands over.
//!
//! Invariants
//! - No client reaches it: it opens no port but that for its peers, and takes no address.
//! - A data directory belongs to a witness or to a node with files, for ever.
//!
//! It must not know what entries mean.

use crate::bulletin::Bulletins;
use crate::clock::{self, ServiceClock};
use crate::cluster::{self, office::Office};
use crate::control;
use crate::engine::{Outcome, STORE_DIR};
use crate::history::{History, now_unix_ms};
use crate::insight::Insight;
use crate::notify;
use crate::rebuild;
use crate::roll::Roll;
use crate::serve::{LOG_DIR, Signals, consensus_options, failed, until_removed};
use crate::settings;
use bytes::Bytes;
use desk::Desk;
use haven_config::Config;
use haven_consensus::{Consensus, MachineError, Replicated, SnapshotSink, SnapshotSource, Wanted};
use haven_disk::{Disk, renew};
use haven_log::{Log, LogOptions};
use haven_store::POSITION_BYTES_MAX;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

mod desk;

/// How long a witness that is asked to end, and leads or has just handed over, waits for its heir.
const HANDOVER: Duration = Duration::from_secs(2);
/// The witness's directory within the data directory.
const DIR: &str = "witness";
/// Its position, as of the last checkpoint.
const POSITION: &str = "witness/POSITION";
/// The next one, until it is durable.
const POSITION_NEW: &str = "witness/POSITION.new";
/// First bytes of the file; the checksum of the rest follows.
const MAGIC: &[u8; 8] = b"HAVNWIT1";
const CHECKSUM_BYTES: usize = 32;

/// Refuses a data directory that belongs to a witness.
pub(crate) fn refuse_its_place(disk: &dyn Disk) -> Result<(), String> {
    match disk.exists(Path::new(DIR)) {
        Ok(false) => Ok(()),
        Ok(true) => Err(
            "this data directory belongs to a witness, which has no files; give this node an empty \
             one, or set node.role = \"witness\""
                .into(),
        ),
        Err(why) => Err(format!("cannot look for {DIR}: {why}")),
    }
}

/// Runs a witness until a signal, ends at once at a second one, or runs until it cannot go on.
pub(crate) async fn serve(
    config: Config,
    disk: Arc<dyn Disk>,
    file: Option<PathBuf>,
    signals: &mut Signals,
) -> Result<(), String> {
    let data = config.node.data.display();
    let identity = cluster::identity(&config)?;
    let memory =
        Memory::open(Arc::clone(&disk)).map_err(|e| format!("the witness in {data}: {e}"))?;
    let used = cluster::has_started(&config) || memory.position.lock().is_some();
    rebuild::refuse_without_log(disk.as_ref(), &config, used)?;
    let log = Log::open(Arc::clone(&disk), Path::new(LOG_DIR), LogOptions::default())
        .map_err(|e| format!("the log in {data}: {e}"))?;
    if let Some(identity) = &identity {
        // Before anything is promised to anybody.
        cluster::note_started(&config.node.data, identity)?;
    }
    let socket = control::bind(&config.node.control)
        .map_err(|e| format!("control socket {}: {e}", config.node.control.display()))?;
    let metrics = control::bind_metrics(config.metrics.listen).await?;
    let options = consensus_options(&config, identity.as_ref())?;
    let consensus = Consensus::start(options, log.clone(), memory)
        .await
        .map_err(|e| e.to_string())?;
    cluster::complain_of_place(&consensus, &config);
    let office = identity.map(|own| Office::open(own, consensus.clone(), &config, file));
    tokio::spawn(cluster::note_voters(
        config.node.data.clone(),
        consensus.clone(),
    ));
    let roll = Roll::new(&config, consensus.clone());
    let names = roll.clone();
    let clock = ServiceClock::new(config.node.id);
    clock.members(&roll.voters());
    let history = Arc::new(History::new(&config.node.name, move |id| names.name_of(id)));
    let bulletins = Bulletins::new(
        &config,
        roll.clone(),
        Arc::clone(&history),
        Arc::clone(&clock),
    );
    tokio::spawn(bulletins.clone().hear(consensus.clone()));
    // What others tell of their clients is of no use here, and is not to wait.
    let told = consensus.clone();
    tokio::spawn(async move {
        loop {
            drop(told.posts().await);
        }
    });
    let insight = Insight {
        name: config.node.name.clone(),
        started_unix_ms: now_unix_ms(),
        roll,
        office,
        consensus: consensus.clone(),
        log: log.clone(),
        bulletins: bulletins.clone(),
        history,
        settings: settings::Told::new(&config, None),
        clock: Arc::clone(&clock),
        listens: config.own().address,
    };
    let desk = Arc::new(Desk { insight, disk });
    tokio::spawn(clock::keep(clock, desk.insight.roll.clone(), || None));
    let judged = Arc::clone(&desk);
    let judged = move || judged.insight.judged(judged.report());
    tokio::spawn(settings::watch(judged, Arc::clone(&desk)));
    let own = Arc::clone(&desk);
    let (_nobody, unchanged) = watch::channel(0);
    tokio::spawn(bulletins.tell(consensus.clone(), unchanged, move || own.report()));
    control::serve(socket, metrics, &desk);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        %data,
        peer_address = %config.own().address,
        "started as a witness"
    );
    notify::ready("a witness: it votes, and serves no clients");
    tokio::select! {
        signal = signals.end() => info!(signal, "stopping"),
        () = until_removed(&consensus, &config.node.data) => {}
        () = failed(consensus.clone()) => return Err(match log.failure() {
            Some(why) => format!(
                "this witness cannot go on: {why}. Look at the disk (is it full?), then start again"
            ),
            None => "this witness cannot go on; the log above says why".into(),
        }),
    }
    notify::stopping();
    let down = async {
        // It may lead just then, to bring entries in that others lack.
        if timeout(HANDOVER, consensus.relieved()).await.is_err() {
            warn!("no other node leads");
        }
        consensus.shutdown().await;
    };
    tokio::select! {
        () = down => info!("stopped"),
        signal = signals.end() => return Err(format!("stopped at once, by a second {signal}")),
    }
    Ok(())
}

/// The machine of a witness.
struct Memory {
    disk: Arc<dyn Disk>,
    position: Arc<Mutex<Option<Bytes>>>,
    /// What is on the disk.
    durable: Arc<Mutex<Option<Bytes>>>,
}

fn stop(what: &str) -> impl Fn(io::Error) -> MachineError + '_ {
    move |why| MachineError(format!("{what} {POSITION}: {why}"))
}

impl Memory {
    fn open(disk: Arc<dyn Disk>) -> Result<Arc<Self>, String> {
        match disk.exists(Path::new(STORE_DIR)) {
            Ok(false) => {}
            Ok(true) => {
                return Err(
                    "this data directory belongs to a node with files, which a witness \
                            would let go stale; give the witness an empty one"
                        .into(),
                );
            }
            Err(why) => return Err(format!("cannot look for {STORE_DIR}: {why}")),
        }
        let failed = |why| format!("cannot read {POSITION}: {why}");
        renew::dir(disk.as_ref(), Path::new(DIR)).map_err(failed)?;
        let position = read(disk.as_ref())?;
        if let Some(position) = &position {
            // The log up to there may go because of it, so it must be durable: a flush may have failed.
            write(disk.as_ref(), position)
                .map_err(|why| format!("cannot write {POSITION}: {why}"))?;
        }
        Ok(Arc::new(Self {
            disk,
            position: Arc::new(Mutex::new(position.clone())),
            durable: Arc::new(Mutex::new(position)),
        }))
    }
}

fn read(disk: &dyn Disk) -> Result<Option<Bytes>, String> {
    let failed = |why: io::Error| format!("cannot read {POSITION}: {why}");
    let file = match disk.open(Path::new(POSITION), false) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut bytes = vec![0; MAGIC.len() + CHECKSUM_BYTES + POSITION_BYTES_MAX];
    let len = file.read_at(0, &mut bytes).map_err(failed)?;
    let parsed = bytes[..len]
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.split_at_checked(CHECKSUM_BYTES))
        .filter(|(checksum, position)| blake3::hash(position).as_bytes() == checksum);
    match parsed {
        Some((_, position)) => Ok(Some(Bytes::copy_from_slice(position))),
        None => Err(format!(
            "{POSITION} is damaged; remove this node from the cluster and add it anew"
        )),
    }
}

fn write(disk: &dyn Disk, position: &Bytes) -> io::Result<()> {
    let checksum = blake3::hash(position);
    let parts: [&[u8]; 3] = [MAGIC, checksum.as_bytes(), position];
    renew::replace(disk, Path::new(POSITION), Path::new(POSITION_NEW), &parts)
}

impl Replicated for Memory {
    type Reply = Outcome;

    fn position(&self) -> Result<Option<Bytes>, MachineError> {
        Ok(self.position.lock().clone())
    }

    fn apply(
        &self,
        entries: &[(u64, Bytes)],
        position: Bytes,
    ) -> Result<Vec<Outcome>, MachineError> {
        *self.position.lock() = Some(position);
        Ok(vec![Outcome::Done; entries.len()])
    }

    fn checkpoint(&self) -> Result<Option<Bytes>, MachineError> {
        let position = self.position.lock().clone();
        let mut durable = self.durable.lock();
        if let Some(position) = position.as_ref().filter(|_| *durable != position) {
            write(self.disk.as_ref(), position).map_err(stop("cannot write"))?;
        }
        durable.clone_from(&position);
        Ok(position)
    }

    fn snapshot(&self) -> Result<Option<Box<dyn SnapshotSource>>, MachineError> {
        let position = self.durable.lock().clone();
        Ok(position.map(|position| Box::new(Nothing(position)) as Box<dyn SnapshotSource>))
    }

    fn wanted(&self) -> Result<Wanted, MachineError> {
        Ok(Wanted::Position)
    }

    fn receive(&self, position: Bytes) -> Result<Box<dyn SnapshotSink>, MachineError> {
        Ok(Box::new(Leap {
            disk: Arc::clone(&self.disk),
            to: position,
            position: Arc::clone(&self.position),
            durable: Arc::clone(&self.durable),
        }))
    }
}

/// A checkpoint without a state: it has a position, and can be sent to nobody.
struct Nothing(Bytes);

impl SnapshotSource for Nothing {
    fn position(&self) -> Bytes {
        self.0.clone()
    }

    fn next_chunk(&mut self) -> Result<Option<Bytes>, MachineError> {
        Err(MachineError("a witness has no files to send".into()))
    }
}

/// Another node's position, to be taken over.
struct Leap {
    disk: Arc<dyn Disk>,
    to: Bytes,
    position: Arc<Mutex<Option<Bytes>>>,
    durable: Arc<Mutex<Option<Bytes>>>,
}

impl SnapshotSink for Leap {
    fn push(&mut self, _chunk: Bytes) -> Result<(), MachineError> {
        Err(MachineError("files sent to a witness".into()))
    }

    fn install(self: Box<Self>) -> Result<(), MachineError> {
        let mut durable = self.durable.lock();
        write(self.disk.as_ref(), &self.to).map_err(stop("cannot write"))?;
        *self.position.lock() = Some(self.to.clone());
        *durable = Some(self.to);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_disk::{RealDisk, VolatileDisk};

    #[test]
    fn positions_survive_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(VolatileDisk::open(dir.path()).unwrap());
        let memory = Memory::open(disk.clone()).unwrap();
        assert_eq!(memory.position().unwrap(), None);
        for position in [&b"first"[..], b"the second"] {
            memory.apply(&[], Bytes::from_static(position)).unwrap();
            assert_eq!(memory.checkpoint().unwrap().unwrap(), position);
        }
        memory
            .apply(&[], Bytes::from_static(b"not durable"))
            .unwrap();
        drop(memory);
        disk.forget();
        drop(disk);
        let disk = Arc::new(RealDisk::open(dir.path()).unwrap());
        let memory = Memory::open(disk.clone()).unwrap();
        assert_eq!(memory.position().unwrap().unwrap(), &b"the second"[..]);
        let sink = memory.receive(Bytes::from_static(b"third")).unwrap();
        sink.install().unwrap();
        assert_eq!(read(disk.as_ref()).unwrap().unwrap(), &b"third"[..]);
        let file = disk.open(Path::new(POSITION), false).unwrap();
        file.write_at(41, b"x").unwrap();
        assert!(read(disk.as_ref()).unwrap_err().contains("damaged"));
    }

    #[test]
    fn a_position_whose_flush_failed_is_durable_once_a_start_has_found_it() {
        for (flush, seed) in (0..2).flat_map(|flush| (0..20).map(move |seed| (flush, seed))) {
            let dir = tempfile::tempdir().unwrap();
            let disk = Arc::new(VolatileDisk::open(dir.path()).unwrap());
            let memory = Memory::open(disk.clone()).unwrap();
            for position in [&b"first"[..], b"second"] {
                if position == b"second" {
                    disk.fail_flush(flush, seed);
                }
                memory.apply(&[], Bytes::from_static(position)).unwrap();
                let _ = memory.checkpoint();
            }
            assert!(!disk.flush_will_fail());
            drop(memory);
            let found = Memory::open(disk.clone()).unwrap().position().unwrap();
            disk.forget();
            let disk = Arc::new(VolatileDisk::open(dir.path()).unwrap());
            let left = Memory::open(disk).unwrap().position().unwrap();
            assert_eq!(left, found, "flush {flush}, seed {seed}");
        }
    }

    #[test]
    fn a_data_directory_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
        drop(Memory::open(Arc::clone(&disk)).unwrap());
        let why = crate::engine::Engine::open(Arc::clone(&disk)).unwrap_err();
        assert!(why.contains("belongs to a witness"), "{why}");
        disk.remove_dir_all(Path::new(DIR)).unwrap();
        drop(crate::engine::Engine::open(Arc::clone(&disk)).unwrap());
        let why = Memory::open(disk).err().unwrap();
        assert!(why.contains("a node with files"), "{why}");
    }
}
