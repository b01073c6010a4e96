//! The load: what clients do while things break.

use super::{LINE_BYTES, Recorder, log_name, names_dir};
use bytes::Bytes;
use haven_client::{Client, ClientError, Options};
use haven_proto::nfs3::{Createhow3, Createverf3, Fh3, Nfsstat3, Sattr3, StableHow};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

/// Workers of one client.
const WORKERS: usize = 3;
/// Names that stay; every further one is removed again.
const KEEP_EVERY: u64 = 4;

/// The server under test.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where NFS is served.
    pub nfs: SocketAddr,
    /// The export's path.
    pub export: String,
    /// How its clients ask and wait.
    pub options: Options,
}

impl Target {
    /// A server of this machine, whose clients need not wait long where they are refused.
    pub fn on_loopback(nfs_port: u16, mount_port: u16, export: &str) -> Self {
        Self {
            nfs: SocketAddr::from((Ipv4Addr::LOCALHOST, nfs_port)),
            export: export.into(),
            options: Options {
                mount_port,
                ..Options::default()
            },
        }
    }

    /// A client that never gives up, as a hard mount.
    pub fn client(&self) -> Client {
        Client::new(self.nfs, self.options.clone())
    }
}

/// What the clients were told, one entry for each client.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    /// Lines appended: numbers 0 to this, exclusive.
    pub lines: Vec<u64>,
    /// Names made: numbers 0 to this, exclusive; every fourth one stays.
    pub names: Vec<u64>,
    /// Operations that failed because they had been done before.
    pub doubled: u64,
    /// Anything else that must not happen, in words.
    pub problems: Vec<String>,
}

impl Acknowledged {
    /// Whether the name of this number stays.
    pub fn stays(number: u64) -> bool {
        number.is_multiple_of(KEEP_EVERY)
    }
}

/// A running load.
pub struct Load {
    /// What the clients feel.
    pub recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    clients: Vec<ClientTasks>,
}

struct ClientTasks {
    lines: JoinHandle<Outcome>,
    names: JoinHandle<Outcome>,
    reads: JoinHandle<Outcome>,
}

/// What one worker brings home.
#[derive(Debug, Default)]
struct Outcome {
    count: u64,
    doubled: u64,
    problem: Option<String>,
}

impl Load {
    /// Mounts and starts `clients` clients on the current runtime, each with a connection of its own.
    ///
    /// # Errors
    /// When a client cannot prepare its files, in words.
    pub async fn start(target: &Target, clients: usize) -> Result<Self, String> {
        let recorder = Arc::new(Recorder::new(clients * WORKERS));
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::with_capacity(clients);
        for index in 0..clients {
            let client = target.client();
            let root = client
                .mount(&target.export)
                .await
                .map_err(|e| format!("mount: {e}"))?;
            let worker = |number: usize| Worker {
                client: client.clone(),
                recorder: Arc::clone(&recorder),
                stop: Arc::clone(&stop),
                id: index * WORKERS + number,
            };
            let log = make_log(&client, &root, &log_name(index)).await?;
            let dir = make_dir(&client, &root, &names_dir(index)).await?;
            tasks.push(ClientTasks {
                lines: tokio::spawn(worker(0).append_lines(log.clone())),
                names: tokio::spawn(worker(1).make_names(dir)),
                reads: tokio::spawn(worker(2).read(log)),
            });
        }
        Ok(Self {
            recorder,
            stop,
            clients: tasks,
        })
    }

    /// Lets every client finish its operation and says what they were told.
    pub async fn finish(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Acknowledged::default();
        for (index, tasks) in self.clients.into_iter().enumerate() {
            let mut take = |what: &str, outcome: Result<Outcome, tokio::task::JoinError>| {
                let outcome = outcome.unwrap_or_else(|e| Outcome {
                    problem: Some(format!("the worker ended: {e}")),
                    ..Outcome::default()
                });
                all.doubled += outcome.doubled;
                if let Some(problem) = outcome.problem {
                    all.problems
                        .push(format!("client {index}, {what}: {problem}"));
                }
                outcome.count
            };
            let lines = take("appending", tasks.lines.await);
            let names = take("naming", tasks.names.await);
            take("reading", tasks.reads.await);
            all.lines.push(lines);
            all.names.push(names);
        }
        all
    }
}

async fn make_log(client: &Client, root: &Fh3, name: &str) -> Result<Fh3, String> {
    let how = Createhow3::Unchecked(Sattr3 {
        mode: Some(0o644),
        ..Sattr3::default()
    });
    let made = client
        .create(root, name, how)
        .await
        .map_err(|e| format!("create {name}: {e}"))?;
    made.obj
        .ok_or_else(|| format!("create {name}: no handle in the answer"))
}

async fn make_dir(client: &Client, root: &Fh3, name: &str) -> Result<Fh3, String> {
    let attr = Sattr3 {
        mode: Some(0o755),
        ..Sattr3::default()
    };
    let made = client
        .mkdir(root, name, attr)
        .await
        .map_err(|e| format!("mkdir {name}: {e}"))?;
    made.obj
        .ok_or_else(|| format!("mkdir {name}: no handle in the answer"))
}

/// One line of the log.
fn line(number: u64) -> Bytes {
    let ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis());
    let mut text = format!("{number:010} {ms:013} ");
    while text.len() < LINE_BYTES - 1 {
        text.push('.');
    }
    text.push('\n');
    Bytes::from(text)
}

struct Worker {
    client: Client,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    id: usize,
}

impl Worker {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Appends lines the way a client with `fsync` does: an unstable WRITE at the end of the file as the
    /// last answer gave it, then COMMIT; the same line again if the verifiers differ.
    async fn append_lines(self, file: Fh3) -> Outcome {
        let mut outcome = Outcome::default();
        let mut end = 0;
        while !self.stopped() {
            let start = Instant::now();
            match self.append(&file, end, outcome.count).await {
                Ok(Some(new_end)) => {
                    end = new_end;
                    outcome.count += 1;
                    self.recorder.done(self.id, start);
                }
                Ok(None) => {}
                Err(why) => {
                    outcome.problem = Some(why);
                    break;
                }
            }
        }
        outcome
    }

    async fn append(&self, file: &Fh3, end: u64, number: u64) -> Result<Option<u64>, String> {
        let data = line(number);
        let wrote = self
            .client
            .write(file, end, StableHow::Unstable, data)
            .await
            .map_err(|e| format!("WRITE of line {number}: {e}"))?;
        if wrote.count as usize != LINE_BYTES {
            return Err(format!(
                "WRITE of line {number}: {} bytes written",
                wrote.count
            ));
        }
        let size = wrote.file_wcc.after.map(|attr| attr.size);
        let commit = self
            .client
            .commit(file, 0, 0)
            .await
            .map_err(|e| format!("COMMIT of line {number}: {e}"))?;
        if commit.verf != wrote.verf {
            return Ok(None);
        }
        size.map(Some)
            .ok_or_else(|| "WRITE answered no attributes".to_owned())
    }

    async fn make_names(self, dir: Fh3) -> Outcome {
        let mut outcome = Outcome::default();
        while !self.stopped() {
            let number = outcome.count;
            if let Err(why) = self.name(&dir, number, &mut outcome.doubled).await {
                outcome.problem = Some(format!("name {number}: {why}"));
                break;
            }
            outcome.count += 1;
        }
        outcome
    }

    /// Makes, renames and (mostly) removes one name.
    async fn name(&self, dir: &Fh3, number: u64, doubled: &mut u64) -> Result<(), String> {
        let (made, moved) = (format!("new-{number}"), format!("kept-{number}"));
        let how = if number.is_multiple_of(2) {
            Createhow3::Exclusive(Createverf3(number.to_be_bytes()))
        } else {
            Createhow3::Guarded(Sattr3 {
                mode: Some(0o600),
                ..Sattr3::default()
            })
        };
        let start = Instant::now();
        let created = self.client.create(dir, made.as_str(), how).await.map(drop);
        self.judge(start, "CREATE", Nfsstat3::Exist, created, doubled)?;
        let start = Instant::now();
        let renamed = self
            .client
            .rename(dir, made.as_str(), dir, moved.as_str())
            .await
            .map(drop);
        self.judge(start, "RENAME", Nfsstat3::NoEnt, renamed, doubled)?;
        if Acknowledged::stays(number) {
            return Ok(());
        }
        let start = Instant::now();
        let removed = self.client.remove(dir, moved.as_str()).await.map(drop);
        self.judge(start, "REMOVE", Nfsstat3::NoEnt, removed, doubled)
    }

    fn judge(
        &self,
        start: Instant,
        what: &str,
        again: Nfsstat3,
        result: Result<(), ClientError>,
        doubled: &mut u64,
    ) -> Result<(), String> {
        match result {
            Ok(()) => {}
            Err(ClientError::Nfs(status)) if status == again => *doubled += 1,
            Err(why) => return Err(format!("{what}: {why}")),
        }
        self.recorder.done(self.id, start);
        Ok(())
    }

    /// Reads the attributes and the last line: the size must never go back.
    async fn read(self, file: Fh3) -> Outcome {
        let mut outcome = Outcome::default();
        let mut size = 0;
        while !self.stopped() {
            let start = Instant::now();
            match self.look(&file, size).await {
                Ok(new_size) => size = new_size,
                Err(why) => {
                    outcome.problem = Some(why);
                    break;
                }
            }
            outcome.count += 1;
            self.recorder.done(self.id, start);
        }
        outcome
    }

    async fn look(&self, file: &Fh3, seen: u64) -> Result<u64, String> {
        let attr = self
            .client
            .getattr(file)
            .await
            .map_err(|e| format!("GETATTR: {e}"))?;
        if attr.size < seen {
            return Err(format!(
                "an old state was shown: size {} after {seen}",
                attr.size
            ));
        }
        let Some(last) = attr.size.checked_sub(LINE_BYTES as u64) else {
            return Ok(attr.size);
        };
        let read = self
            .client
            .read(file, last, LINE_BYTES as u32)
            .await
            .map_err(|e| format!("READ: {e}"))?;
        let number = std::str::from_utf8(&read.data)
            .ok()
            .and_then(|t| t.get(..10)?.parse().ok());
        if number != Some(last / LINE_BYTES as u64) {
            return Err(format!("the line at {last} is not what was written there"));
        }
        Ok(attr.size)
    }
}
