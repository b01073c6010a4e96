//! What a run costs the server and the generator: /proc, and a node's control socket.

use haven_admin::Client;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Unit of the times in /proc/PID/stat, in microseconds: USER_HZ is 100 on all common architectures (proc(5)).
const TICK_US: u64 = 10_000;
/// How long a node may take to answer.
const CONTROL_PATIENCE: Duration = Duration::from_secs(5);

/// Readings of a process. Differences of two are of interest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Process {
    /// Time on a processor, user and system, all threads.
    pub cpu_us: u64,
    /// Of it, in the kernel.
    pub system_us: u64,
    /// Bytes sent to disks.
    pub write_bytes: u64,
    /// read(2) and the like; sockets' recv is not among them.
    pub read_calls: u64,
    /// write(2) and the like; sockets' send is not among them.
    pub write_calls: u64,
    /// Resident memory: a reading of the moment.
    pub rss_bytes: u64,
    /// Most resident memory so far: a reading of the moment.
    pub rss_max_bytes: u64,
}

impl Process {
    /// Reads a process, `self` or a number.
    ///
    /// # Errors
    /// When there is none, in words.
    pub fn read(pid: &str) -> Result<Self, String> {
        let file = |name: &str| {
            fs::read_to_string(format!("/proc/{pid}/{name}"))
                .map_err(|e| format!("cannot read /proc/{pid}/{name}: {e}"))
        };
        let stat = file("stat")?;
        // The name in brackets may contain anything: what follows its end is counted (utime is the 14th field).
        let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks = |index| {
            after
                .split(' ')
                .nth(index)
                .and_then(|f| f.parse::<u64>().ok())
        };
        let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
            return Err(format!("/proc/{pid}/stat is not understood"));
        };
        let status = file("status")?;
        // Not for other users' processes: then it is unknown, and shown as nothing.
        let io = file("io").unwrap_or_default();
        Ok(Self {
            cpu_us: (user + system) * TICK_US,
            system_us: system * TICK_US,
            write_bytes: field(&io, "write_bytes"),
            read_calls: field(&io, "syscr"),
            write_calls: field(&io, "syscw"),
            rss_bytes: field(&status, "VmRSS") << 10,
            rss_max_bytes: field(&status, "VmHWM") << 10,
        })
    }

    /// What was used since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.saturating_sub(before.cpu_us),
            system_us: self.system_us.saturating_sub(before.system_us),
            write_bytes: self.write_bytes.saturating_sub(before.write_bytes),
            read_calls: self.read_calls.saturating_sub(before.read_calls),
            write_calls: self.write_calls.saturating_sub(before.write_calls),
            ..self
        }
    }
}

/// The number behind `name:`; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .find_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Counters of a Haven node's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LogCounts {
    /// Records appended.
    pub records: u64,
    /// Flushes.
    pub flushes: u64,
}

impl LogCounts {
    /// Asks a node.
    ///
    /// # Errors
    /// When it does not answer, in words.
    pub fn read(socket: &Path) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        let client = Client::unix(socket, CONTROL_PATIENCE);
        let status = runtime.block_on(client.node()).map_err(|e| e.to_string())?;
        Ok(Self {
            records: status.log_records,
            flushes: status.log_flushes,
        })
    }

    /// What came since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            records: self.records.saturating_sub(before.records),
            flushes: self.flushes.saturating_sub(before.flushes),
        }
    }
}
