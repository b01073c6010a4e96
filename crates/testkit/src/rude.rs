//! Clients without manners beside honest ones: some take no answers, some announce requests and send nothing, or a part, or
//! drip, and some are strangers, to whom nothing is exported. As often as the node closes their connections they come again.
//! Others are polite, but have the same numbers.
//!
//! The honest ones know what must be there, and go on; the node's memory stays below what is stated; its status names whom
//! it suffers from. Nothing here is judged by how long it takes.

use crate::mixed::{Mixed, Tally, words};
use crate::twins;
use haven::bound;
use haven::classic::Target;
use haven::quick::free_port;
use haven_config::Config;
use haven_proto::nfs3::{
    self, Args3, Cookie3, Cookieverf3, Createhow3, Fh3, ReadArgs, ReaddirplusArgs, Sattr3,
    StableHow,
};
use haven_rpc::record::{FragmentHeader, frame};
use haven_rpc::{Credential, encode_call};
use haven_xdr::encode_all;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What is exported.
const EXPORT: &str = "/data";
/// Where those come from that are let in, and the strangers.
const RUDE: [u8; 2] = [9, 10];
const STRANGER: u8 = 11;
/// The most that READ gives, and an ordinary WRITE.
const MUCH: u32 = 1 << 20;
/// Requests that somebody sends who takes no answers.
const REQUESTS: usize = 64;
/// Pause of one who drips, and of one who was not let in.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the first race of twins may take.
const TWINS_PATIENCE: Duration = Duration::from_secs(60);
/// Pause between looks.
const POLL: Duration = Duration::from_millis(10);

/// What is asked for.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Plan {
    /// Operations that every honest client completes.
    #[arg(long, default_value_t = 2_000)]
    pub operations: u32,
    /// Honest clients.
    #[arg(long, default_value_t = 3)]
    pub clients: usize,
    /// Connections of the others.
    #[arg(long, default_value_t = 600)]
    pub connections: usize,
    /// Where the honest ones' choices come from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What one of them does with a connection.
#[derive(Clone, Copy)]
enum Manner {
    /// Asks for file data and takes none.
    Reads,
    /// Asks for listings and takes none.
    Lists,
    /// Announces a request.
    Announces,
    /// Sends a part of it, too.
    Stops,
    /// Sends it byte by byte.
    Drips,
}

const MANNERS: [Manner; 5] = [
    Manner::Reads,
    Manner::Lists,
    Manner::Announces,
    Manner::Stops,
    Manner::Drips,
];

/// What they send.
struct Requests {
    to: SocketAddr,
    reads: Vec<u8>,
    lists: Vec<u8>,
}

/// Plays the plan with `haven` in `dir`.
///
/// # Errors
/// When not everything is as it must be, in words.
pub fn run(plan: &Plan, dir: &Path, haven: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(words)?.block_on(play(plan, dir, haven))
}

async fn play(plan: &Plan, dir: &Path, haven: &Path) -> Result<(), String> {
    let mut node = Node::start(dir, haven)?;
    let target = node.target();
    let requests: &'static Requests = Box::leak(Box::new(prepare(&target).await?));
    let mixed = Mixed::start(&target, plan.clients, plan.seed).await?;
    let mut crowd = JoinSet::new();
    for n in 0..plan.connections {
        let manner = MANNERS[n % MANNERS.len()];
        let hosts = [RUDE[0], RUDE[1], STRANGER];
        let host = hosts[n / MANNERS.len() % hosts.len()];
        crowd.spawn(behave(requests, host, manner));
    }
    let races = AtomicU64::new(0);
    let enough = async {
        mixed.recorder.wait_fresh(plan.operations).await?;
        // Two equal requests under way cost one of the twins a second.
        let start = Instant::now();
        while races.load(Ordering::Relaxed) == 0 {
            if start.elapsed() > TWINS_PATIENCE {
                return Err("twins never came to a race".to_owned());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    };
    tokio::select! {
        why = mixed.failure() => return Err(format!("an honest client: {why}")),
        why = twins::race(&target, &races) => return Err(why),
        enough = enough => enough?,
    }
    mixed.verify().await?;
    let told = node.status()?;
    let acknowledged = mixed.recorder.acknowledged();
    let tally = mixed.finish().await;
    drop(crowd);
    let most = node.most_resident_bytes()?;
    let bound = bound::resident_bytes_max(&Config::load(&node.config).map_err(words)?);
    node.end()?;
    println!(
        "{acknowledged} operations acknowledged and {} locks taken beside {} connections; {} of {} MiB resident; {told}",
        races.load(Ordering::Relaxed),
        plan.connections,
        most >> 20,
        bound >> 20
    );
    judge(&tally, most, bound)
}

fn judge(tally: &Tally, most: u64, bound: u64) -> Result<(), String> {
    if !tally.is_clean() {
        return Err(format!("not everything is as it must be: {tally:?}"));
    }
    if most > bound {
        let (most, bound) = (most >> 20, bound >> 20);
        return Err(format!(
            "{most} MiB were resident; at most {bound} are stated"
        ));
    }
    Ok(())
}

/// Makes a file that is worth reading and a directory that is worth listing.
async fn prepare(target: &Target) -> Result<Requests, String> {
    let client = target.client();
    let root = client.mount(&target.export).await.map_err(words)?;
    let file = |name: String| {
        let (client, root) = (&client, &root);
        async move {
            let how = Createhow3::Guarded(Sattr3::default());
            let made = client.create(root, name.as_str(), how).await;
            made.map_err(words)?
                .obj
                .ok_or("CREATE gave no handle".to_owned())
        }
    };
    for n in 0..200 {
        file(format!("{n:0200}")).await?;
    }
    let large = file("large".into()).await?;
    let data = vec![7; MUCH as usize].into();
    let wrote = client.write(&large, 0, StableHow::FileSync, data).await;
    wrote.map_err(words)?;
    let reads = Args3::Read(ReadArgs {
        file: large,
        offset: 0,
        count: MUCH,
    });
    Ok(Requests {
        to: target.nfs,
        reads: call(&reads).repeat(REQUESTS),
        lists: call(&listing(root)).repeat(REQUESTS),
    })
}

fn listing(dir: Fh3) -> Args3 {
    Args3::Readdirplus(ReaddirplusArgs {
        dir,
        cookie: Cookie3(0),
        cookieverf: Cookieverf3::default(),
        dircount: MUCH,
        maxcount: MUCH,
    })
}

fn call(args: &Args3) -> Vec<u8> {
    let proc = args.proc().to_wire();
    let (prog, vers) = (nfs3::PROGRAM, nfs3::VERSION);
    let message = encode_call(7, prog, vers, proc, &Credential::None, encode_all(args));
    frame(message).into_bytes().to_vec()
}

/// Comes again and again.
async fn behave(requests: &'static Requests, host: u8, manner: Manner) {
    loop {
        // Whatever ends a connection, it was to be expected.
        let _ = once(requests, host, manner).await;
        sleep(PAUSE).await;
    }
}

async fn once(requests: &Requests, host: u8, manner: Manner) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    // Little room, so that answers soon stay with the server.
    socket.set_recv_buffer_size(4 << 10)?;
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0)))?;
    let mut stream = socket.connect(requests.to).await?;
    let mark = FragmentHeader {
        last: true,
        len: MUCH,
    };
    match manner {
        Manner::Reads => stream.write_all(&requests.reads).await?,
        Manner::Lists => stream.write_all(&requests.lists).await?,
        Manner::Announces => stream.write_all(&mark.encode()).await?,
        Manner::Stops => {
            stream.write_all(&mark.encode()).await?;
            stream.write_all(&vec![0; MUCH as usize / 10]).await?;
        }
        Manner::Drips => {
            stream.write_all(&mark.encode()).await?;
            loop {
                stream.write_all(b"x").await?;
                sleep(PAUSE).await;
            }
        }
    }
    until_closed(&stream).await
}

/// Waits for the end without taking anything.
async fn until_closed(stream: &TcpStream) -> std::io::Result<()> {
    loop {
        let ready = stream.ready(tokio::io::Interest::ERROR).await?;
        if ready.is_error() || ready.is_read_closed() {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}

/// The node's process.
struct Node {
    haven: PathBuf,
    config: PathBuf,
    ports: [u16; 2],
    process: Child,
}

impl Node {
    fn start(dir: &Path, haven: &Path) -> Result<Self, String> {
        let ports = [free_port()?, free_port()?];
        let config = dir.join("haven.toml");
        let text = format!(
            "[node]\ndata = {:?}\nreserve_mib = 128\n\n[service]\nlisten = \"127.0.0.1\"\nnfs_port = {}\nmount_port = {}\n\n\
             [limits]\nconnections = 1000\ninflight_mib = 16\nanswers_mib = 32\npatience_seconds = 5\n\n\
             [[export]]\npath = \"{EXPORT}\"\nmode = \"0777\"\nclients = [\"127.0.0.1(rw,insecure,no_root_squash)\", \
             \"127.0.0.{}(rw,insecure)\", \"127.0.0.{}(rw,insecure)\"]\n",
            dir.join("data"),
            ports[0],
            ports[1],
            RUDE[0],
            RUDE[1],
        );
        fs::write(&config, text).map_err(words)?;
        let log = File::create(dir.join("node.log")).map_err(words)?;
        let mut command = Command::new(haven);
        command.arg("serve").arg("--config").arg(&config);
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(words)?).stderr(log);
        Ok(Self {
            haven: haven.to_owned(),
            process: command.spawn().map_err(words)?,
            config,
            ports,
        })
    }

    fn target(&self) -> Target {
        Target::on_loopback(self.ports[0], self.ports[1], EXPORT)
    }

    fn most_resident_bytes(&self) -> Result<u64, String> {
        let status = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(status).map_err(words)?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.ok_or("no VmHWM")?.trim().trim_end_matches(" kB");
        kib.parse::<u64>().map(|kib| kib << 10).map_err(words)
    }

    /// What its status says of them, which must name them.
    fn status(&self) -> Result<String, String> {
        let mut command = Command::new(&self.haven);
        command
            .args(["status", "--json", "--config"])
            .arg(&self.config);
        let output = command.output().map_err(words)?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(words)?;
        let memory = &status["nodes"][0]["report"]["memory"];
        let blamed = |what: &str| memory[what]["most"]["address"].as_str().unwrap_or("nobody");
        let stranger = format!("127.0.0.{STRANGER}");
        let (lost, refused) = (blamed("lost"), blamed("refused"));
        if !RUDE.iter().any(|host| lost == format!("127.0.0.{host}")) || refused != stranger {
            return Err(format!("status blames {lost} and {refused}: {memory}"));
        }
        let total = |what: &str| memory[what]["total"].as_u64().unwrap_or_default();
        Ok(format!(
            "{} connections lost, most of {lost}; {} requests refused, most of {refused}",
            total("lost"),
            total("refused")
        ))
    }

    /// Ends the process, which must still run.
    fn end(&mut self) -> Result<(), String> {
        if let Some(status) = self.process.try_wait().map_err(words)? {
            return Err(format!("the node ended by itself: {status}; see its log"));
        }
        self.process.kill().map_err(words)?;
        self.process.wait().map(drop).map_err(words)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
