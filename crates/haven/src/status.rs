//! `haven status`: how the cluster is, on one screen; once, or again and again.
//!
//! Asks the node of this machine, or another one through it. If that does not run, says what can be seen from outside: whether the service
//! answers, and whether the other nodes' processes do.

use crate::term::{Screen, is_terminal};
use haven_admin::screen::{COLUMNS, Dress, draw};
use haven_admin::{Client, ClientError, ClusterStatus, Problem, Verdict};
use haven_config::Config;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// How long the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to ask another node through it.
const CARRIED_PATIENCE: Duration = Duration::from_secs(10);
/// How long a look from outside may take.
const LOOK: Duration = Duration::from_secs(2);
/// Pause between two pictures.
const PAUSE: Duration = Duration::from_secs(1);

/// Whom to ask, and how to tell.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's control socket.
    pub socket: PathBuf,
    /// Its configuration, if known: names the other nodes.
    pub config: Option<Config>,
    /// One JSON object instead of a picture.
    pub json: bool,
    /// Again and again, until interrupted.
    pub watch: bool,
    /// The node whose view is wanted, if not that of this machine.
    pub of: Option<String>,
}

/// What can be seen without the node of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Outside {
    verdict: Verdict,
    /// The node of this machine.
    node: Option<String>,
    /// Why it was not asked.
    why: String,
    /// Where the service answers, if anywhere.
    service_at: Option<SocketAddr>,
    /// Where it was looked for.
    looked_at: Vec<SocketAddr>,
    /// The other nodes.
    others: Vec<Other>,
}

/// Another node, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Other {
    name: String,
    address: SocketAddr,
    /// Its process takes connections.
    runs: bool,
    /// What was seen, in words.
    seen: String,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Told {
    Inside(Box<ClusterStatus>),
    Outside(Outside),
}

impl Told {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Inside(status) => status.verdict,
            Self::Outside(outside) => outside.verdict,
        }
    }

    fn text(&self, json: bool, dress: Dress) -> Result<String, String> {
        if json {
            let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
            return Ok(text + "\n");
        }
        Ok(match self {
            Self::Inside(status) => draw(status, dress),
            Self::Outside(outside) => outside.draw(),
        })
    }
}

/// Tells how the cluster is; gives the exit status: 0 healthy, 1 degraded, 2 down.
///
/// # Errors
/// When it cannot be found out or told, in words.
pub async fn run(options: &Options) -> Result<u8, String> {
    if options.watch && !options.json && is_terminal() {
        return watch(options).await;
    }
    loop {
        let told = find_out(options).await?;
        let text = told.text(options.json, Dress::Plain)?;
        let said = std::io::stdout().write_all(text.as_bytes());
        if !options.watch {
            return Ok(told.verdict().exit_code());
        }
        // Whoever read it has gone.
        if said.is_err() || println_blank().is_err() {
            return Ok(told.verdict().exit_code());
        }
        sleep(PAUSE).await;
    }
}

fn println_blank() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(b"\n")?;
    out.flush()
}

async fn watch(options: &Options) -> Result<u8, String> {
    let words = |e: std::io::Error| e.to_string();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(words)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(words)?;
    let mut screen = Screen::enter().map_err(words)?;
    let mut last = Verdict::Down;
    loop {
        let round = async {
            let told = find_out(options).await?;
            Ok::<_, String>((told.verdict(), told.text(false, Dress::Colours)?))
        };
        let (verdict, picture) = tokio::select! {
            round = round => round?,
            _ = interrupt.recv() => return Ok(last.exit_code()),
            _ = terminate.recv() => return Ok(last.exit_code()),
        };
        last = verdict;
        screen.draw(&picture).map_err(words)?;
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = interrupt.recv() => return Ok(last.exit_code()),
            _ = terminate.recv() => return Ok(last.exit_code()),
        }
    }
}

async fn find_out(options: &Options) -> Result<Told, String> {
    let asked = match &options.of {
        None => Client::unix(&options.socket, PATIENCE).status().await,
        Some(node) => {
            let client = Client::unix(&options.socket, CARRIED_PATIENCE);
            client.status_of(node).await
        }
    };
    match asked {
        Ok(status) if options.of.is_some() => Ok(Told::Inside(Box::new(status))),
        Ok(status) => Ok(Told::Inside(Box::new(
            seen_from_both_sides(status, options).await,
        ))),
        Err(ClientError::Refused(why)) => Err(why.to_string()),
        Err(why) => Ok(Told::Outside(
            look(options.config.as_ref(), &why.to_string()).await,
        )),
    }
}

/// A node that sees no leader may be the one that is cut off.
async fn seen_from_both_sides(mut status: ClusterStatus, options: &Options) -> ClusterStatus {
    if status.verdict != Verdict::Down || status.nodes.len() == 1 {
        return status;
    }
    let Some(config) = &options.config else {
        return status;
    };
    if let (Some(at), _) = look_for_service(config).await {
        status.verdict = Verdict::Degraded;
        status.problems.insert(
            0,
            Problem {
                what: format!(
                    "{at} answers all the same: nodes that this one does not hear serve there"
                ),
                advice: "repair the network between this node and the others; ask one of them"
                    .into(),
            },
        );
    }
    status
}

async fn look(config: Option<&Config>, why: &str) -> Outside {
    let Some(config) = config else {
        return Outside {
            verdict: Verdict::Down,
            node: None,
            why: why.to_owned(),
            service_at: None,
            looked_at: Vec::new(),
            others: Vec::new(),
        };
    };
    let (service_at, looked_at) = look_for_service(config).await;
    let mut others = Vec::new();
    for peer in config
        .cluster
        .nodes
        .iter()
        .filter(|n| n.id != config.node.id)
    {
        let connected = timeout(LOOK, TcpStream::connect(peer.address)).await;
        let seen = match &connected {
            Ok(Ok(_)) => "its process runs".to_owned(),
            Ok(Err(why)) => format!("no connection: {why}"),
            Err(_) => "no answer".to_owned(),
        };
        others.push(Other {
            name: peer.name.clone(),
            address: peer.address,
            runs: matches!(connected, Ok(Ok(_))),
            seen,
        });
    }
    Outside {
        verdict: match service_at {
            Some(_) => Verdict::Degraded,
            None => Verdict::Down,
        },
        node: Some(config.node.name.clone()),
        why: why.to_owned(),
        service_at,
        looked_at,
        others,
    }
}

/// Where clients would ask, and whether they would be answered there.
async fn look_for_service(config: &Config) -> (Option<SocketAddr>, Vec<SocketAddr>) {
    let floating = config.service.addresses.iter().map(|a| a.address);
    let mut addresses: Vec<IpAddr> = floating.collect();
    if addresses.is_empty() {
        let nodes = config.cluster.nodes.iter();
        addresses = nodes.map(|node| node.address.ip()).collect();
    }
    let port = config.service.nfs_port;
    let looked: Vec<SocketAddr> = addresses
        .into_iter()
        .filter(|_| port != 0)
        .map(|ip| SocketAddr::new(ip, port))
        .collect();
    for at in &looked {
        let options = haven_client::Options {
            request_timeout: Some(LOOK),
            connect_timeout: LOOK,
            ..haven_client::Options::default()
        };
        let client = haven_client::Client::new(*at, options);
        if matches!(timeout(LOOK, client.null()).await, Ok(Ok(()))) {
            return (Some(*at), looked);
        }
    }
    (None, looked)
}

impl Outside {
    fn draw(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let word = match self.verdict {
            Verdict::Healthy => "HEALTHY",
            Verdict::Degraded => "DEGRADED",
            Verdict::Down => "DOWN",
        };
        match &self.node {
            Some(node) => writeln!(out, "node {node} of this machine does not answer: {word}\n")?,
            None => writeln!(out, "the node does not answer: {word}\n")?,
        }
        lines(out, "  why       ", &self.why)?;
        if let Some(at) = self.service_at {
            lines(
                out,
                "  service   ",
                &format!("answers at {at}: another node serves"),
            )?;
        } else if !self.looked_at.is_empty() {
            let at: Vec<String> = self.looked_at.iter().map(ToString::to_string).collect();
            lines(
                out,
                "  service   ",
                &format!("does not answer at {}", at.join(", ")),
            )?;
        }
        for other in &self.others {
            let text = format!("{} at {}: {}", other.name, other.address, other.seen);
            lines(out, "  node      ", &text)?;
        }
        writeln!(out)?;
        let advice = match self.others.iter().find(|other| other.runs) {
            Some(other) => format!(
                "start this node (systemctl start haven; journalctl -u haven says why it ended); haven status on node {} \
                 tells more",
                other.name
            ),
            None => {
                "start this node (systemctl start haven; journalctl -u haven says why it ended)"
                    .into()
            }
        };
        lines(out, "  to do     ", &advice)
    }
}

/// Text in lines of a screen's width, the first of which begins with `head`.
fn lines(out: &mut String, head: &str, text: &str) -> std::fmt::Result {
    let mut line = head.to_owned();
    let indent = " ".repeat(head.len());
    for word in text.split_whitespace() {
        let room = line.trim_end().chars().count() + 1 + word.chars().count() <= COLUMNS;
        if !room && line.len() > head.len() {
            writeln!(out, "{}", line.trim_end())?;
            line.clone_from(&indent);
        }
        line += word;
        line.push(' ');
    }
    writeln!(out, "{}", line.trim_end())
}

#[cfg(test)]
mod tests;
