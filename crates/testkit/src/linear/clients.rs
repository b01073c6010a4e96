//! The clients: what they do is up to chance, what they notice is noted.
//!
//! Invariants
//! - A client has one operation under way at a time.
//! - Whatever a server answers that is neither a result nor a refusal which the specification knows is a
//!   problem by itself.

use super::dir::{DirOp, DirSpec, Mark, NAMES};
use super::file::{CELL_BYTES, CELLS, FileOp, FileSpec};
use super::history::{Count, Track};
use bytes::Bytes;
use haven::demo::lab::{EXPORT, FLOATING, Lab, NODES};
use haven::demo::random::Random;
use haven_client::{Client, ClientError, Options};
use haven_config::{MOUNT_PORT_DEFAULT, NFS_PORT_DEFAULT};
use haven_platform::netns::Netns;
use haven_proto::nfs3::{
    Cookie3, Cookieverf3, Createhow3, Fh3, Nfsstat3, PostOpAttr, Sattr3, StableHow,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Clients at the floating address that wait for ever.
const PATIENT: u64 = 3;
/// Clients at the floating address that give up.
const IMPATIENT: u64 = 1;
/// When those give up.
const IMPATIENCE: Duration = Duration::from_millis(600);
/// When a client of a node's own address gives up: longer than most faults last, so that it hears what a
/// node says when it wakes up.
const OWN_PATIENCE: Duration = Duration::from_millis(2_500);
/// Such a client changes something only if the node answered within this time.
const LIVELY: Duration = Duration::from_millis(100);
/// Files and directories at a time.
const PLACES: usize = 5;
/// How many of them are directories.
const DIRS: usize = 2;
/// A client's pause between two operations, at most.
const PAUSE_MS_MAX: u64 = 6;
/// Bytes of a listing: all of it.
const LISTING_BYTES: u32 = 8 << 10;

type Answer<T> = Result<T, ClientError>;

fn words(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// What the clients work on.
enum Object {
    File(Fh3, Track<FileOp>),
    Dir(Fh3, Track<DirOp>),
}

/// What all clients share.
struct World {
    root: Fh3,
    places: Vec<Mutex<Arc<Object>>>,
    /// Everything there was.
    objects: Mutex<Vec<Arc<Object>>>,
    numbers: AtomicU32,
    stop: AtomicBool,
    by_own_address: AtomicU64,
    problems: Mutex<Vec<String>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A number that nobody else has.
    fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn problem(&self, what: String) {
        held(&self.problems).push(what);
    }
}

/// All clients of a run.
pub struct Crowd {
    world: Arc<World>,
    ends: Vec<oneshot::Receiver<()>>,
}

/// What they did.
pub struct Found {
    objects: Vec<Arc<Object>>,
    problems: Vec<String>,
    /// Operations that a node's own address answered.
    pub by_own_address: u64,
}

/// The sum of all verdicts.
#[derive(Debug, Default)]
pub struct Judged {
    pub objects: usize,
    pub operations: usize,
    pub unanswered: usize,
}

impl Crowd {
    /// Starts them, in the client's network and in each node's.
    ///
    /// # Errors
    /// What kept the first one from mounting, in words.
    pub async fn start(lab: &Lab, seed: u64) -> Result<Self, String> {
        let (tell, told) = oneshot::channel();
        let first = in_network(&lab.client, move || async move {
            // Whoever asked waits.
            let _ = tell.send(found_world().await);
        })?;
        let world = Arc::new(told.await.map_err(words)??);
        // The founder is gone.
        let _ = first.await;
        let mut random = Random::new(seed);
        let mut ends = Vec::new();
        for number in 0..PATIENT + IMPATIENT {
            let patience = (number >= PATIENT).then_some(IMPATIENCE);
            let worker = Worker::new(&world, None, patience, random.next());
            ends.push(in_network(&lab.client, move || worker.run())?);
        }
        for node in 0..NODES {
            let own = IpAddr::from(Lab::own_address(node));
            let worker = Worker::new(&world, Some(own), Some(OWN_PATIENCE), random.next());
            ends.push(in_network(&lab.nodes[node].netns(), move || worker.run())?);
        }
        Ok(Self { world, ends })
    }

    /// Ends them; to be called when the cluster is well.
    ///
    /// # Errors
    /// When a client's thread has ended early.
    pub async fn finish(self) -> Result<Found, String> {
        self.world.stop.store(true, Ordering::Relaxed);
        for end in self.ends {
            end.await.map_err(|_| "a client ended early")?;
        }
        let found = Found {
            objects: std::mem::take(&mut held(&self.world.objects)),
            problems: std::mem::take(&mut held(&self.world.problems)),
            by_own_address: self.world.by_own_address.load(Ordering::Relaxed),
        };
        Ok(found)
    }
}

impl Found {
    /// Looks for an order of every file's and every directory's operations.
    ///
    /// # Errors
    /// Problems the clients had, and histories that nothing explains.
    pub fn judge(&self) -> Result<Judged, String> {
        let mut wrong = self.problems.clone();
        let mut judged = Judged::default();
        for object in &self.objects {
            let verdict: Result<Count, String> = match &**object {
                Object::File(_, track) => track.judge::<FileSpec>(),
                Object::Dir(_, track) => track.judge::<DirSpec>(),
            };
            match verdict {
                Ok(count) => {
                    judged.objects += 1;
                    judged.operations += count.operations;
                    judged.unanswered += count.unanswered;
                }
                Err(why) => wrong.push(why),
            }
        }
        match wrong.is_empty() {
            true => Ok(judged),
            false => Err(wrong.join("\n")),
        }
    }
}

/// Runs a client on a thread in `netns`; the receiver hears when it ends.
fn in_network<F>(
    netns: &Arc<Netns>,
    client: impl FnOnce() -> F + Send + 'static,
) -> Result<oneshot::Receiver<()>, String>
where
    F: Future<Output = ()>,
{
    let (ended, end) = oneshot::channel();
    let netns = Arc::clone(netns);
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        // Otherwise the end is never told, which is an error there.
        if let (Ok(()), Ok(runtime)) = (netns.enter_thread(), runtime) {
            runtime.block_on(client());
            let _ = ended.send(());
        }
    };
    let thread = std::thread::Builder::new().name("client".into());
    thread.spawn(body).map_err(words)?;
    Ok(end)
}

fn floating() -> Client {
    at(IpAddr::from(FLOATING), None)
}

fn at(address: IpAddr, patience: Option<Duration>) -> Client {
    let options = Options {
        mount_port: MOUNT_PORT_DEFAULT,
        request_timeout: patience,
        ..Options::hard_mount()
    };
    Client::new(SocketAddr::from((address, NFS_PORT_DEFAULT)), options)
}

async fn found_world() -> Result<World, String> {
    let client = floating();
    let root = client.mount(EXPORT).await.map_err(words)?;
    let world = World {
        root,
        places: Vec::new(),
        objects: Mutex::default(),
        numbers: AtomicU32::new(1),
        stop: AtomicBool::new(false),
        by_own_address: AtomicU64::new(0),
        problems: Mutex::default(),
    };
    let mut places = Vec::new();
    for place in 0..PLACES {
        places.push(Mutex::new(new_object(&world, &client, place).await?));
    }
    Ok(World { places, ..world })
}

/// Makes an empty file or directory.
async fn new_object(world: &World, client: &Client, place: usize) -> Result<Arc<Object>, String> {
    let name = format!("object-{}", world.number());
    let object = if place < DIRS {
        let made = client.mkdir(&world.root, name.as_str(), Sattr3::default());
        let made = made.await.map_err(words)?;
        Object::Dir(made.obj.ok_or("MKDIR gave no handle")?, Track::new())
    } else {
        let how = Createhow3::Guarded(Sattr3::default());
        let made = client.create(&world.root, name.as_str(), how);
        let made = made.await.map_err(words)?;
        Object::File(made.obj.ok_or("CREATE gave no handle")?, Track::new())
    };
    let object = Arc::new(object);
    held(&world.objects).push(Arc::clone(&object));
    Ok(object)
}

/// What became of one operation.
enum Outcome {
    Answered,
    Unanswered,
    /// The object's history is long enough.
    Closed,
}

struct Worker {
    world: Arc<World>,
    own_address: Option<IpAddr>,
    patience: Option<Duration>,
    random: Random,
    /// When the server answered last.
    answered: Option<Instant>,
}

impl Worker {
    fn new(
        world: &Arc<World>,
        own_address: Option<IpAddr>,
        patience: Option<Duration>,
        seed: u64,
    ) -> Self {
        Self {
            world: Arc::clone(world),
            own_address,
            patience,
            random: Random::new(seed),
            answered: None,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next() % bound
    }

    fn small(&mut self, bound: u8) -> u8 {
        (self.random.next() % u64::from(bound)) as u8
    }

    async fn run(mut self) {
        let client = at(
            self.own_address.unwrap_or(IpAddr::from(FLOATING)),
            self.patience,
        );
        // Makes new objects: must not give up.
        let maker = client.with_request_timeout(None);
        while !self.world.stop.load(Ordering::Relaxed) {
            let place = self.below(PLACES as u64) as usize;
            let object = Arc::clone(&held(&self.world.places[place]));
            let outcome = match &*object {
                Object::File(handle, track) => self.on_file(&client, handle, track).await,
                Object::Dir(handle, track) => self.on_dir(&client, handle, track).await,
            };
            match outcome {
                Ok(Outcome::Answered) => {
                    self.answered = Some(Instant::now());
                    if self.own_address.is_some() {
                        self.world.by_own_address.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Outcome::Unanswered) => {}
                Ok(Outcome::Closed) if self.own_address.is_none() => {
                    self.renew(&maker, place, &object).await;
                }
                Ok(Outcome::Closed) => {}
                Err(why) => self.world.problem(why),
            }
            let pause = self.below(PAUSE_MS_MAX);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Puts a new object in the place of one whose history is long enough, unless somebody else did.
    async fn renew(&self, maker: &Client, place: usize, old: &Arc<Object>) {
        match new_object(&self.world, maker, place).await {
            Err(why) => self.world.problem(format!("a new object: {why}")),
            Ok(new) => {
                let mut now = held(&self.world.places[place]);
                if Arc::ptr_eq(&now, old) {
                    *now = new;
                }
            }
        }
    }

    /// Whether this operation shall change something.
    fn changes(&mut self) -> bool {
        let lively = self.answered.is_some_and(|at| at.elapsed() < LIVELY);
        match self.own_address {
            None => self.below(5) < 3,
            Some(_) => lively && self.below(4) == 0,
        }
    }

    fn choose_file(&mut self) -> FileOp {
        match (self.changes(), self.below(4)) {
            (true, 0) => FileOp::Truncate {
                cells: self.small(CELLS + 1),
            },
            (true, _) => FileOp::Write {
                cell: self.small(CELLS),
                number: self.world.number(),
            },
            (false, 0) => FileOp::Size(0),
            (false, _) => FileOp::Read(Vec::new()),
        }
    }

    async fn on_file(
        &mut self,
        client: &Client,
        file: &Fh3,
        track: &Track<FileOp>,
    ) -> Result<Outcome, String> {
        let wish = self.choose_file();
        let Some(call) = track.call(wish.clone()) else {
            return Ok(Outcome::Closed);
        };
        match do_to_file(client, file, &wish).await {
            Ok(told) => {
                track.answered(call, told);
                Ok(Outcome::Answered)
            }
            Err(ClientError::TimedOut(_)) => {
                track.lost(&wish);
                Ok(Outcome::Unanswered)
            }
            Err(why) => Err(format!("{wish:?}: {why}")),
        }
    }

    fn choose_dir(&mut self) -> DirOp {
        let name = self.small(NAMES);
        let done = None;
        match (self.changes(), self.below(5)) {
            (true, 0) => DirOp::Remove { name, done },
            (true, 1) => DirOp::Rename {
                from: name,
                to: (name + 1 + self.small(NAMES - 1)) % NAMES,
                done,
            },
            (true, _) => DirOp::Create {
                name,
                mark: self.world.number(),
                done,
            },
            (false, 0 | 1) => DirOp::List(BTreeMap::new()),
            (false, _) => DirOp::Lookup { name, found: None },
        }
    }

    async fn on_dir(
        &mut self,
        client: &Client,
        dir: &Fh3,
        track: &Track<DirOp>,
    ) -> Result<Outcome, String> {
        let wish = self.choose_dir();
        let Some(call) = track.call(wish.clone()) else {
            return Ok(Outcome::Closed);
        };
        match do_to_dir(client, dir, &wish).await {
            Ok(told) => {
                track.answered(call, told);
                Ok(Outcome::Answered)
            }
            Err(Failed::Client(ClientError::TimedOut(_))) => {
                track.lost(&wish);
                Ok(Outcome::Unanswered)
            }
            Err(Failed::Client(why)) => Err(format!("{wish:?}: {why}")),
            Err(Failed::Words(why)) => Err(format!("{wish:?}: {why}")),
        }
    }
}

async fn do_to_file(client: &Client, file: &Fh3, wish: &FileOp) -> Answer<FileOp> {
    Ok(match wish {
        FileOp::Write { cell, number } => {
            let offset = u64::from(*cell) * CELL_BYTES as u64;
            let data = Bytes::copy_from_slice(&number.to_be_bytes());
            client
                .write(file, offset, StableHow::FileSync, data)
                .await?;
            wish.clone()
        }
        FileOp::Truncate { cells } => {
            let size = Sattr3 {
                size: Some(u64::from(*cells) * CELL_BYTES as u64),
                ..Sattr3::default()
            };
            client.setattr(file, size, None).await?;
            wish.clone()
        }
        FileOp::Read(_) => {
            let read = client.read(file, 0, 1024).await?;
            FileOp::Read(read.data.to_vec())
        }
        FileOp::Size(_) => FileOp::Size(client.getattr(file).await?.size),
    })
}

/// Why there is no result.
enum Failed {
    Client(ClientError),
    Words(String),
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Failed::Client(error)
    }
}

/// Whether a change was done, if `refusal` is how the server says that it was not.
fn done<T>(answer: Answer<T>, refusal: Nfsstat3) -> Answer<Option<bool>> {
    match answer {
        Ok(_) => Ok(Some(true)),
        Err(ClientError::Nfs(status)) if status == refusal => Ok(Some(false)),
        Err(why) => Err(why),
    }
}

fn mark_of(attributes: PostOpAttr) -> Result<Mark, Failed> {
    let found = attributes.map(|attributes| attributes.uid);
    found.ok_or_else(|| Failed::Words("no attributes".into()))
}

async fn do_to_dir(client: &Client, dir: &Fh3, wish: &DirOp) -> Result<DirOp, Failed> {
    let spell = |name: u8| format!("n{name}");
    Ok(match wish.clone() {
        DirOp::Create { name, mark, .. } => {
            let attributes = Sattr3 {
                uid: Some(mark),
                ..Sattr3::default()
            };
            let how = Createhow3::Guarded(attributes);
            let answer = client.create(dir, spell(name).as_str(), how).await;
            let done = done(answer, Nfsstat3::Exist)?;
            DirOp::Create { name, mark, done }
        }
        DirOp::Remove { name, .. } => {
            let answer = client.remove(dir, spell(name).as_str()).await;
            let done = done(answer, Nfsstat3::NoEnt)?;
            DirOp::Remove { name, done }
        }
        DirOp::Rename { from, to, .. } => {
            let (old, new) = (spell(from), spell(to));
            let answer = client.rename(dir, old.as_str(), dir, new.as_str()).await;
            let done = done(answer, Nfsstat3::NoEnt)?;
            DirOp::Rename { from, to, done }
        }
        DirOp::Lookup { name, .. } => {
            let found = match client.lookup(dir, spell(name).as_str()).await {
                Ok(found) => Some(mark_of(found.obj_attributes)?),
                Err(ClientError::Nfs(Nfsstat3::NoEnt)) => None,
                Err(why) => return Err(why.into()),
            };
            DirOp::Lookup { name, found }
        }
        DirOp::List(_) => DirOp::List(list(client, dir).await?),
    })
}

async fn list(client: &Client, dir: &Fh3) -> Result<BTreeMap<u8, Mark>, Failed> {
    let verifier = Cookieverf3::default();
    let all = client.readdirplus(dir, Cookie3(0), verifier, LISTING_BYTES, LISTING_BYTES);
    let all = all.await?;
    if !all.eof {
        return Err(Failed::Words("a short listing does not end".into()));
    }
    let mut found = BTreeMap::new();
    for entry in &all.entries {
        let name = String::from_utf8_lossy(entry.name.as_ref());
        let Some(number) = name.strip_prefix('n').and_then(|n| n.parse().ok()) else {
            continue;
        };
        if found
            .insert(number, mark_of(entry.name_attributes)?)
            .is_some()
        {
            return Err(Failed::Words(format!("{name} is listed twice")));
        }
    }
    Ok(found)
}
