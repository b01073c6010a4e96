//! The mixed load: clients that each work in a directory of their own (files small and large, links,
//! directories, renames, sizes, a file that is nearly all hole), know exactly what must be there, and say when it is not.
//!
//! What it can reveal:
//! - something acknowledged that is not there, or other bytes than were written: *lost*;
//! - NFS3ERR_EXIST, NFS3ERR_NOENT or NFS3ERR_NOTEMPTY where success was due: *done twice*;
//! - link counts, listings and names that contradict each other: *half done*.

mod model;
mod sparse;
mod verify;

use bytes::Bytes;
use haven::classic::{Recorder, Target};
use haven::demo::random::Random;
use haven_client::{Client, ClientError};
use haven_proto::nfs3::{Createhow3, Createverf3, Fh3, Nfsstat3, Sattr3, StableHow};
use model::{Model, Op};
use sparse::Change;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Problems described in words; more are only counted.
const PROBLEMS_MAX: usize = 10;
/// Pause between looks at the workers.
const POLL: Duration = Duration::from_millis(5);
/// How long verifying everything may take.
const VERIFY_MAX: Duration = Duration::from_secs(120);

pub(crate) fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What was found, in numbers and in words.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Acknowledged, but not there.
    pub lost: u64,
    /// Done more than once.
    pub doubled: u64,
    /// In contradiction with itself.
    pub half: u64,
    /// The first of them, and what else went wrong.
    pub problems: Vec<String>,
}

impl Tally {
    /// Whether everything is as it must be.
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.half == 0 && self.problems.is_empty()
    }

    fn lost(&mut self, what: String) {
        self.lost += 1;
        self.problem(format!("lost: {what}"));
    }

    fn half(&mut self, what: String) {
        self.half += 1;
        self.problem(format!("half done: {what}"));
    }

    fn doubled(&mut self, what: String) {
        self.doubled += 1;
        self.problem(format!("done twice: {what}"));
    }

    /// Takes note of anything else.
    pub fn problem(&mut self, what: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(what);
        }
    }
}

/// What workers and their owner share.
struct Shared {
    stop: AtomicBool,
    /// Every worker verifies its directory once for each of these.
    rounds: AtomicU64,
    verified: AtomicU64,
    tally: Mutex<Tally>,
}

/// A running load.
pub struct Mixed {
    /// What the clients feel.
    pub recorder: Arc<Recorder>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Mixed {
    /// Mounts and starts so many clients, each with a connection of its own.
    ///
    /// # Errors
    /// When a client cannot make its directory, in words.
    pub async fn start(target: &Target, clients: usize, seed: u64) -> Result<Self, String> {
        let recorder = Arc::new(Recorder::new(clients));
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            tally: Mutex::default(),
        });
        let mut random = Random::new(seed);
        let mut workers = Vec::with_capacity(clients);
        for id in 0..clients {
            let client = target.client();
            let root = client.mount(&target.export).await.map_err(words)?;
            let name = format!("mixed-{id}");
            let made = client.mkdir(&root, name.as_str(), mode(0o755)).await;
            let dir = made.map_err(words)?.obj.ok_or("MKDIR gave no handle")?;
            let worker = Worker {
                client,
                id,
                recorder: Arc::clone(&recorder),
                shared: Arc::clone(&shared),
                model: Model::new(dir),
                random: Random::new(random.next()),
                verified: 0,
            };
            workers.push(tokio::spawn(worker.run()));
        }
        Ok(Self {
            recorder,
            shared,
            workers,
        })
    }

    /// Returns when something was found to be wrong.
    pub async fn failure(&self) -> String {
        loop {
            if let Some(first) = self.tally().problems.first() {
                return first.clone();
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What was found so far.
    pub fn tally(&self) -> Tally {
        self.shared
            .tally
            .lock()
            .map(|tally| tally.clone())
            .unwrap_or_default()
    }

    /// Lets every worker hold its directory against what it was told.
    ///
    /// # Errors
    /// When that takes too long, in words.
    pub async fn verify(&self) -> Result<(), String> {
        self.shared.verified.store(0, Ordering::SeqCst);
        self.shared.rounds.fetch_add(1, Ordering::SeqCst);
        let start = Instant::now();
        while self.shared.verified.load(Ordering::SeqCst) < self.workers.len() as u64 {
            if start.elapsed() > VERIFY_MAX {
                return Err(format!("verifying takes longer than {VERIFY_MAX:?}"));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Ends the load; every worker finishes what it does and verifies its directory once more.
    pub async fn finish(self) -> Tally {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut broken = Vec::new();
        for worker in self.workers {
            broken.extend(worker.await.err());
        }
        let mut tally = self
            .shared
            .tally
            .lock()
            .map(|tally| tally.clone())
            .unwrap_or_default();
        for why in broken {
            tally.problem(format!("a worker ended: {why}"));
        }
        tally
    }
}

struct Worker {
    client: Client,
    id: usize,
    recorder: Arc<Recorder>,
    shared: Arc<Shared>,
    model: Model,
    random: Random,
    verified: u64,
}

impl Worker {
    async fn run(mut self) {
        let mut tally = Tally::default();
        if let Err(why) = self.work(&mut tally).await {
            tally.problem(why);
        }
        self.tell(tally);
    }

    fn tell(&self, mut found: Tally) {
        if let Ok(mut all) = self.shared.tally.lock() {
            all.lost += found.lost;
            all.doubled += found.doubled;
            all.half += found.half;
            for what in found.problems.drain(..) {
                all.problem(format!("client {}: {what}", self.id));
            }
        }
    }

    async fn work(&mut self, tally: &mut Tally) -> Result<(), String> {
        while tally.is_clean() {
            let stopped = self.shared.stop.load(Ordering::SeqCst);
            let round = self.shared.rounds.load(Ordering::SeqCst);
            if stopped || round > self.verified {
                verify::all(&self.client, &self.model, tally).await?;
                self.verified = round;
                self.shared.verified.fetch_add(1, Ordering::SeqCst);
            }
            if stopped {
                return Ok(());
            }
            let op = self.model.choose(&mut self.random);
            let start = Instant::now();
            self.act(op, tally).await?;
            self.recorder.done(self.id, start);
        }
        Ok(())
    }

    /// Does one thing and holds the answer against what it must be.
    async fn act(&mut self, op: Op, tally: &mut Tally) -> Result<(), String> {
        let (client, model) = (&self.client, &self.model);
        match &op {
            Op::List { dir } => return verify::listing(client, model, *dir, tally).await,
            Op::Read { file } => {
                return verify::content(client, model, *file, "a file read", tally).await;
            }
            _ => {}
        }
        let answer = match self.change(&op).await {
            Ok(made) => Ok(made),
            Err(ClientError::Nfs(status)) => Err(status),
            Err(why) => return Err(format!("{}: {why}", short(&op))),
        };
        let expected = self.model.expected(&op);
        match (answer, expected) {
            (Ok(made), Ok(())) => self.model.done(op, made),
            (Err(is), Err(due)) if is == due => {}
            (Err(Nfsstat3::Exist | Nfsstat3::NoEnt | Nfsstat3::NotEmpty), Ok(())) => {
                tally.doubled(format!(
                    "{} failed although nothing was in its way",
                    short(&op)
                ));
            }
            (Ok(_), Err(due)) => tally.lost(format!("{} succeeded instead of {due}", short(&op))),
            (Err(Nfsstat3::Stale), _) => {
                tally.lost(format!("{}: the file or directory is gone", short(&op)));
            }
            (Err(is), due) => return Err(format!("{}: {is}, expected {due:?}", short(&op))),
        }
        Ok(())
    }

    async fn change(&mut self, op: &Op) -> Result<Option<Fh3>, ClientError> {
        let (client, model) = (&self.client, &self.model);
        let handle = |id: &u64| model.handle(*id);
        Ok(match op {
            Op::Create {
                dir,
                name,
                exclusive,
                ..
            } => {
                let how = if *exclusive {
                    Createhow3::Exclusive(Createverf3(self.random.next().to_be_bytes()))
                } else {
                    Createhow3::Guarded(mode(0o640))
                };
                client.create(&handle(dir), name.as_str(), how).await?.obj
            }
            Op::Mkdir { dir, name } => {
                client
                    .mkdir(&handle(dir), name.as_str(), mode(0o750))
                    .await?
                    .obj
            }
            Op::Symlink { dir, name, target } => {
                let (dir, attr) = (handle(dir), Sattr3::default());
                client
                    .symlink(&dir, name.as_str(), target.as_str(), attr)
                    .await?
                    .obj
            }
            Op::Write { file, offset, data } => {
                let (file, data) = (handle(file), Bytes::from(data.clone()));
                self.write(&file, *offset, data).await?
            }
            Op::Resize { file, size } => self.resize(&handle(file), *size).await?,
            Op::Thin { file, change } => match change {
                Change::Put { place, seed } => {
                    let (at, block) = Change::block(*place, *seed);
                    self.write(&handle(file), at, block).await?
                }
                Change::Cut { place } => self.resize(&handle(file), Change::size(*place)).await?,
            },
            Op::Rename {
                from,
                name,
                to,
                new,
            } => {
                let (from, to) = (handle(from), handle(to));
                client
                    .rename(&from, name.as_str(), &to, new.as_str())
                    .await?;
                None
            }
            Op::Link { file, dir, name } => {
                client
                    .link(&handle(file), &handle(dir), name.as_str())
                    .await?;
                None
            }
            Op::Remove { dir, name } => {
                client.remove(&handle(dir), name.as_str()).await?;
                None
            }
            Op::Rmdir { dir, name } => {
                client.rmdir(&handle(dir), name.as_str()).await?;
                None
            }
            Op::List { .. } | Op::Read { .. } => None,
        })
    }
}

impl Worker {
    /// Writes all of it.
    async fn write(
        &self,
        file: &Fh3,
        offset: u64,
        data: Bytes,
    ) -> Result<Option<Fh3>, ClientError> {
        let mut done = 0;
        while done < data.len() {
            let (at, rest) = (offset + done as u64, data.slice(done..));
            let wrote = self.client.write(file, at, StableHow::FileSync, rest);
            done += wrote.await?.count as usize;
        }
        Ok(None)
    }

    async fn resize(&self, file: &Fh3, size: u64) -> Result<Option<Fh3>, ClientError> {
        let attr = Sattr3 {
            size: Some(size),
            ..Sattr3::default()
        };
        self.client.setattr(file, attr, None).await?;
        Ok(None)
    }
}

fn mode(bits: u32) -> Sattr3 {
    Sattr3 {
        mode: Some(bits),
        ..Sattr3::default()
    }
}

/// An operation for people: without the bytes it writes.
fn short(op: &Op) -> String {
    match op {
        Op::Write { file, offset, data } => {
            format!("WRITE of {} bytes at {offset} to file {file}", data.len())
        }
        other => format!("{other:?}"),
    }
}
