//! How a node is operated: `[log]`, `[limits]`, the port mapper, what a node watches over itself.
//!
//! `docs/operate/config.md` lists every key with its bounds; a test compares.

use crate::{ConfigError, MOUNT_PORT_DEFAULT, NFS_PORT_DEFAULT, raw};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The port mapper's well-known port.
pub const PORTMAP_PORT: u16 = 111;
/// Least reserve, in MiB: the log takes disk space in pieces of 64 MiB, and a checkpoint needs room to write.
const RESERVE_MIB_MIN: u64 = 128;
/// Most MiB of reserve.
const RESERVE_MIB_MAX: u64 = 1 << 20;
/// Bounds of how long a flush may hang, in milliseconds.
const FLUSH_MS: (u64, u64) = (100, 600_000);
/// Bounds of how long a checkpoint may take, in milliseconds.
const CHECKPOINT_MS: (u64, u64) = (1_000, 86_400_000);

/// Least and most of each key of `[limits]`.
const CONNECTIONS: (u64, u64) = (1, 1_000_000);
const INFLIGHT_PER_CONNECTION: (u64, u64) = (1, 65_536);
/// A WRITE of 1 MiB, which clients are told they may send, must fit with its headers.
const RECORD_KIB: (u64, u64) = (1_088, 16_384);
const INFLIGHT_MIB: (u64, u64) = (16, 65_536);
/// From the largest answer on, which must fit.
const ANSWERS_MIB: (u64, u64) = (16, 65_536);
const PATIENCE_SECONDS: (u64, u64) = (1, 600);
const IDLE_SECONDS_MAX: u64 = 86_400;

/// What is written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Log {
    /// From which severity on.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
}

/// Severity, from the gravest to the most talkative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// What stops a node or loses service.
    Error,
    /// What an operator should look at.
    Warn,
    /// What happened: starts, elections, moves.
    #[default]
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl std::str::FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [
            Self::Error,
            Self::Warn,
            Self::Info,
            Self::Debug,
            Self::Trace,
        ];
        all.into_iter().find(|l| l.as_str() == text).ok_or_else(|| {
            format!("\"{text}\" is not one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"")
        })
    }
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("\"{other}\" is not one of \"text\", \"json\"")),
        }
    }
}

/// Bounds of what clients may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections from one address at a time.
    pub connections_per_address: usize,
    /// Requests of one connection handled at a time.
    pub inflight_per_connection: usize,
    /// Largest request in bytes.
    pub record_bytes: usize,
    /// Bytes of all requests handled at a time that are not small.
    pub inflight_bytes: usize,
    /// Bytes of all answers that are not small.
    pub answer_bytes: usize,
    /// How long a client may take to complete a request it began, or to take an answer.
    pub patience: Duration,
    /// How long a connection may be without a request; `None`: for ever.
    pub idle: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 1024,
            inflight_per_connection: 256,
            record_bytes: 1_088 << 10,
            inflight_bytes: 256 << 20,
            answer_bytes: 256 << 20,
            patience: Duration::from_secs(30),
            idle: Some(Duration::from_secs(600)),
        }
    }
}

/// Who is told what a node counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Where Prometheus may ask, without being known; `None`: only the control socket tells.
    pub listen: Option<SocketAddr>,
}

/// Who tells clients the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portmapper {
    /// A port mapper that runs on this machine, else the built-in one if its port is free, else nobody.
    Auto,
    /// Nobody.
    Off,
    /// The built-in one, on this port; the node does not start without.
    Builtin(u16),
    /// The one that runs on this machine; a complaint is logged as long as there is none.
    Register,
}

/// When a node that is no longer well stops taking changes, or stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Growing changes are refused when less than this is free where the data are. `None`: 5 % of the file system,
    /// but at least 256 MiB and at most 4 GiB.
    pub reserve_bytes: Option<u64>,
    /// How long a flush of the log, the saving of a vote or the applying of entries may hang before this node
    /// gives up the service.
    pub flush_max: Duration,
    /// How long a checkpoint may take before.
    pub checkpoint_max: Duration,
    /// The watchdog timer of the machine, which resets it unless it is told again and again that all is well.
    pub watchdog_device: Option<PathBuf>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            reserve_bytes: None,
            flush_max: Duration::from_secs(5),
            checkpoint_max: Duration::from_secs(300),
            watchdog_device: None,
        }
    }
}

fn bad(key: impl Into<String>, why: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        section: key.into(),
        why: why.into(),
    }
}

fn within(key: &str, value: u64, (least, most): (u64, u64)) -> Result<u64, ConfigError> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(bad(
            key,
            format!("{value} is not within {least} and {most}"),
        ))
    }
}

fn or<T>(key: &str, value: Option<u64>, bounds: (u64, u64), usual: T) -> Result<T, ConfigError>
where
    T: TryFrom<u64>,
{
    let Some(value) = value else { return Ok(usual) };
    T::try_from(within(key, value, bounds)?).map_err(|_| bad(key, "too large for this machine"))
}

pub(crate) fn log(raw: &raw::Log) -> Result<Log, ConfigError> {
    let level = raw
        .level
        .as_deref()
        .map_or(Ok(LogLevel::default()), str::parse);
    let format = raw
        .format
        .as_deref()
        .map_or(Ok(LogFormat::default()), str::parse);
    Ok(Log {
        level: level.map_err(|why| bad("log.level", why))?,
        format: format.map_err(|why| bad("log.format", why))?,
    })
}

pub(crate) fn metrics(raw: &raw::Metrics) -> Result<Metrics, ConfigError> {
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            let why = format!("\"{text}\" is not ADDRESS:PORT, such as \"127.0.0.1:9490\"");
            bad("metrics.listen", why)
        })
    };
    let listen = raw.listen.as_ref().map(parse).transpose()?;
    Ok(Metrics { listen })
}

pub(crate) fn limits(raw: &raw::Limits) -> Result<Limits, ConfigError> {
    let usual = Limits::default();
    let connections = or(
        "limits.connections",
        raw.connections,
        CONNECTIONS,
        usual.connections,
    )?;
    let per_address = or(
        "limits.connections_per_address",
        raw.connections_per_address,
        (1, connections as u64),
        usual.connections_per_address.min(connections),
    )?;
    let patience = within(
        "limits.patience_seconds",
        raw.patience_seconds.unwrap_or(usual.patience.as_secs()),
        PATIENCE_SECONDS,
    )?;
    let idle = raw.idle_seconds.unwrap_or(600.max(patience));
    if idle != 0 {
        within("limits.idle_seconds", idle, (patience, IDLE_SECONDS_MAX))?;
    }
    let record = or(
        "limits.record_kib",
        raw.record_kib,
        RECORD_KIB,
        usual.record_bytes >> 10,
    )?;
    let inflight = or(
        "limits.inflight_mib",
        raw.inflight_mib,
        INFLIGHT_MIB,
        usual.inflight_bytes >> 20,
    )?;
    if inflight << 20 < record << 10 {
        return Err(bad(
            "limits.inflight_mib",
            "less than one record (limits.record_kib)",
        ));
    }
    let answers = or(
        "limits.answers_mib",
        raw.answers_mib,
        ANSWERS_MIB,
        usual.answer_bytes >> 20,
    )?;
    Ok(Limits {
        connections,
        connections_per_address: per_address,
        inflight_per_connection: or(
            "limits.inflight_per_connection",
            raw.inflight_per_connection,
            INFLIGHT_PER_CONNECTION,
            usual.inflight_per_connection,
        )?,
        record_bytes: record << 10,
        inflight_bytes: inflight << 20,
        answer_bytes: answers << 20,
        patience: Duration::from_secs(patience),
        idle: (idle != 0).then_some(Duration::from_secs(idle)),
    })
}

pub(crate) fn health(raw: &raw::Node) -> Result<Health, ConfigError> {
    let usual = Health::default();
    let reserve = raw.reserve_mib.map(|mib| {
        within("node.reserve_mib", mib, (RESERVE_MIB_MIN, RESERVE_MIB_MAX)).map(|mib| mib << 20)
    });
    let flush_max = match raw.flush_ms_max {
        None => usual.flush_max,
        Some(ms) => Duration::from_millis(within("node.flush_ms_max", ms, FLUSH_MS)?),
    };
    let checkpoint_max = match raw.checkpoint_ms_max {
        None => usual.checkpoint_max,
        Some(ms) => Duration::from_millis(within("node.checkpoint_ms_max", ms, CHECKPOINT_MS)?),
    };
    Ok(Health {
        reserve_bytes: reserve.transpose()?,
        flush_max,
        checkpoint_max,
        watchdog_device: raw.watchdog_device.clone(),
    })
}

pub(crate) fn portmapper(raw: &raw::Service) -> Result<Portmapper, ConfigError> {
    let (key, port) = ("service.portmapper", raw.portmap_port);
    match (raw.portmapper.as_deref(), port) {
        (Some("auto"), None) => Ok(Portmapper::Auto),
        (Some("register"), None) => Ok(Portmapper::Register),
        (Some("off"), None) => Ok(Portmapper::Off),
        (Some("builtin") | None, Some(port)) => Ok(Portmapper::Builtin(port)),
        (Some("builtin"), None) => Ok(Portmapper::Builtin(PORTMAP_PORT)),
        (Some("auto" | "register" | "off"), Some(_)) => Err(bad(
            key,
            "service.portmap_port is for the built-in port mapper: remove it, or say \"builtin\"",
        )),
        (Some(other), _) => Err(bad(
            key,
            format!("\"{other}\" is not one of \"auto\", \"register\", \"builtin\", \"off\""),
        )),
        (None, None) => Ok(usual_portmapper(
            raw.nfs_port.unwrap_or(NFS_PORT_DEFAULT),
            raw.mount_port.unwrap_or(MOUNT_PORT_DEFAULT),
        )),
    }
}

/// The port mapper of a service whose operator did not say: who chose other ports tells clients himself, and may
/// have another server on this machine that the port mapper belongs to.
pub fn usual_portmapper(nfs_port: u16, mount_port: u16) -> Portmapper {
    if (nfs_port, mount_port) == (NFS_PORT_DEFAULT, MOUNT_PORT_DEFAULT) {
        Portmapper::Auto
    } else {
        Portmapper::Off
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const REST: &str = "[node]\ndata = \"/d\"\n[[export]]\npath = \"/data\"\n";
    const MANUAL: &str = include_str!("../../../docs/operate/config.md");

    fn with(more: &str) -> Result<Config, String> {
        Config::parse(&format!("{REST}{more}")).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_not_said_is_as_documented() {
        let config = with("").unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.log, Log::default());
        assert_eq!(config.health, Health::default());
        assert_eq!(config.service.portmapper, Portmapper::Auto);
        let config = with("[limits]\nconnections = 10\nidle_seconds = 0\n").unwrap();
        assert_eq!(config.limits.connections_per_address, 10);
        assert_eq!(config.limits.idle, None);
    }

    #[test]
    fn the_portmapper_follows_the_ports_unless_told() {
        let service =
            |more: &str| with(&format!("[service]\n{more}")).map(|c| c.service.portmapper);
        assert_eq!(service("nfs_port = 2049"), Ok(Portmapper::Auto));
        assert_eq!(service("nfs_port = 3049"), Ok(Portmapper::Off));
        assert_eq!(
            service("nfs_port = 3049\nportmapper = \"auto\""),
            Ok(Portmapper::Auto)
        );
        assert_eq!(
            service("portmap_port = 1111"),
            Ok(Portmapper::Builtin(1111))
        );
        assert_eq!(
            service("portmapper = \"builtin\""),
            Ok(Portmapper::Builtin(PORTMAP_PORT))
        );
        let why = service("portmapper = \"off\"\nportmap_port = 111").unwrap_err();
        assert!(why.contains("remove it"), "{why}");
        let why = service("portmapper = \"on\"").unwrap_err();
        assert!(why.contains("\"builtin\""), "{why}");
    }

    #[test]
    fn senseless_values_are_refused() {
        for (more, expect) in [
            ("[metrics]\nlisten = \"9100\"", "ADDRESS:PORT"),
            ("[log]\nlevel = \"loud\"", "\"debug\""),
            ("[log]\nformat = \"xml\"", "\"json\""),
            ("[limits]\nconnections = 0", "not within 1"),
            (
                "[limits]\nconnections = 5\nconnections_per_address = 6",
                "not within 1 and 5",
            ),
            ("[limits]\nrecord_kib = 64", "not within 1088"),
            ("[limits]\ninflight_mib = 1", "not within 16"),
            ("[limits]\nanswers_mib = 15", "not within 16"),
            (
                "[limits]\nrecord_kib = 16384\ninflight_mib = 15",
                "not within 16",
            ),
            ("[limits]\nidle_seconds = 7", "not within 30"),
            ("[limits]\npatience_seconds = 0", "not within 1"),
        ] {
            let why = with(more).unwrap_err();
            assert!(why.contains(expect), "{more}: {why}");
        }
        for (key, expect) in [
            ("reserve_mib = 1", "not within 128"),
            ("flush_ms_max = 1", "not within 100"),
            ("checkpoint_ms_max = 1", "not within 1000"),
        ] {
            let why = Config::parse(&REST.replace("[[export]]", &format!("{key}\n[[export]]")));
            let why = why.unwrap_err().to_string();
            assert!(why.contains(expect), "{key}: {why}");
        }
    }

    /// A wrong key makes the parser list the right ones.
    fn keys(section: &str) -> Vec<String> {
        let text = match section {
            "[node]" => REST.replace("data =", "wrong = 1\ndata ="),
            "[[export]]" => REST.replace("path =", "wrong = 1\npath ="),
            _ => format!("{REST}{section}\nwrong = 1\n"),
        };
        let why = Config::parse(&text).unwrap_err().to_string();
        let list = why
            .rsplit_once("expected one of ")
            .or_else(|| why.rsplit_once("expected "));
        let list = list.unwrap_or_else(|| panic!("{section}: {why}")).1;
        list.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_manual_names_every_key_and_no_other() {
        let mut documented = 0;
        for section in [
            "[node]",
            "[service]",
            "[log]",
            "[limits]",
            "[metrics]",
            "[[export]]",
        ] {
            let body = MANUAL.split_once(&format!("## `{section}`"));
            let body = body.unwrap_or_else(|| panic!("no chapter {section}")).1;
            let body = body.split_once("\n## ").map_or(body, |(own, _)| own);
            let rows = body.lines().filter_map(|l| l.strip_prefix("| `"));
            let told: Vec<&str> = rows.filter_map(|l| l.split('`').next()).collect();
            let known = keys(section);
            assert!(!known.is_empty());
            for key in &known {
                assert!(
                    told.contains(&key.as_str()),
                    "{section} {key} is not in the manual"
                );
            }
            for key in &told {
                assert!(known.iter().any(|k| k == key), "{section} {key} is no key");
            }
            documented += told.len();
        }
        assert!(documented > 30);
    }
}
