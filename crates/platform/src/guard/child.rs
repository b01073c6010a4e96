//! The guard's own process: one thread, one loop, no runtime.
//!
//! Invariants: it acts when the pipe closes or the last beat is too old, and never while it holds nothing;
//! everything it needs to act is open before it confirms a hold, and the sockets sent before the hold are
//! taken in; what it keeps it closes only after it has acted. Once the pipe has closed it touches addresses
//! no more.
//!
//! Must not know: anything but addresses, beats and sockets.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::keep::Kept;
use super::nudge::Nudges;
use super::wire::{HoldId, LINE_BYTES_MAX, Order, Report, now_ns};
use crate::addr::{self, Placed};
use crate::error::{PlatformError, Result};
use crate::nl::Netlink;
use crate::sockets;
use crate::sys;
use crate::tickle::Sender;

/// How often addresses are taken off again after the guard has acted.
const REPEAT_MS: u64 = 100;
const NS_PER_MS: u64 = 1_000_000;
/// How much more urgent than the ordinary the guard is, in `nice` terms.
const NICENESS: i32 = -10;

/// Runs the guard over a pipe of orders and a socket for reports, over which it is sent sockets to keep,
/// until the orders end. What is held then is taken off first.
pub fn run_child(orders: impl AsFd, reports: impl AsFd) -> Result<()> {
    settle();
    let open = |socket: std::result::Result<Netlink, Errno>| {
        socket.map_err(|errno| PlatformError::kernel("opening the guard's netlink socket", errno))
    };
    let mut watch = Watch {
        state: State::Idle,
        route: open(Netlink::route())?,
        sock_diag: open(Netlink::sock_diag())?,
        reports: reports.as_fd(),
        kept: Kept::new(reports.as_fd())?,
        // Not worth failing for.
        sender: Sender::open().ok(),
        nudges: None,
    };
    let mut input = Input {
        fd: orders.as_fd(),
        bytes: Vec::new(),
    };
    loop {
        let ordered = watch.wait_for(&input)?;
        watch.kept.take_in();
        watch.kept.let_go();
        if ordered && !input.read()? {
            watch.act();
            watch.end();
            return Ok(());
        }
        while let Some(line) = input.next_line() {
            let Ok(order) = line.parse() else {
                watch.act();
                let what = "an order it does not know";
                return Err(PlatformError::Garbled {
                    doing: "guarding".to_owned(),
                    what,
                });
            };
            watch.obey(order);
        }
        watch.check();
    }
}

/// Makes the process outlive what ends its parent. Whatever fails here only makes that less likely.
fn settle() {
    sys::ignore_ending_signals();
    let _ = rustix::thread::set_name(c"haven-guard");
    let _ = rustix::process::setsid();
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    // Each client connection takes a descriptor here too.
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            ..files
        },
    );
    // The directory we were started in must stay unmountable.
    let _ = rustix::process::chdir("/");
}

enum State {
    Idle,
    Held {
        id: HoldId,
        addresses: Vec<Placed>,
        deadline_ns: u64,
        fresh_until_ns: u64,
    },
    /// Acted; the server may still put them back without being entitled to.
    Fired {
        id: HoldId,
        addresses: Vec<Placed>,
        reported: bool,
        again_at_ns: u64,
    },
}

struct Watch<'a> {
    state: State,
    route: Netlink,
    sock_diag: Netlink,
    reports: BorrowedFd<'a>,
    kept: Kept<'a>,
    sender: Option<Sender>,
    /// For the clients that fell silent when it acted last.
    nudges: Option<Nudges>,
}

impl Watch<'_> {
    /// Sleeps until there is an order (true) or something else to do.
    fn wait_for(&self, input: &Input<'_>) -> Result<bool> {
        let until_ns = [self.due_ns(), self.nudges.as_ref().and_then(Nudges::due_ns)];
        let until_ns = until_ns.into_iter().flatten().min();
        let timeout = until_ns.map(|until_ns| {
            let wait_ns = until_ns.saturating_sub(now_ns());
            Timespec {
                tv_sec: (wait_ns / 1_000_000_000) as i64,
                tv_nsec: (wait_ns % 1_000_000_000) as _,
            }
        });
        let (channel, ends) = (self.kept.channel(), self.kept.ends());
        let mut fds = vec![
            PollFd::new(&input.fd, PollFlags::IN),
            PollFd::new(&ends, PollFlags::IN),
        ];
        fds.extend(channel.iter().map(|c| PollFd::new(c, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => Ok(!fds[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(PlatformError::kernel(
                "waiting for the server's beat",
                errno,
            )),
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Hold {
                id,
                deadline_ms,
                checked_ns,
                addresses,
            } => {
                let deadline_ns = deadline_ms.saturating_mul(NS_PER_MS);
                let fresh_until_ns = checked_ns.saturating_add(deadline_ns);
                self.state = State::Held {
                    id,
                    addresses,
                    deadline_ns,
                    fresh_until_ns,
                };
                self.nudges = None;
                self.report(Report::Holding(id));
            }
            Order::Beat { checked_ns } => {
                if let State::Held {
                    deadline_ns,
                    fresh_until_ns,
                    ..
                } = &mut self.state
                {
                    let fresh_ns = checked_ns.saturating_add(*deadline_ns);
                    *fresh_until_ns = fresh_ns.max(*fresh_until_ns);
                }
            }
            Order::Release => self.state = State::Idle,
        }
    }

    /// Acts if it is time to.
    fn check(&mut self) {
        if self.due_ns().is_some_and(|due_ns| now_ns() >= due_ns) {
            self.act();
        }
        if let (Some(nudges), Some(sender)) = (&mut self.nudges, &self.sender) {
            nudges.step(sender);
        }
    }

    /// When it will be time to act.
    fn due_ns(&self) -> Option<u64> {
        match &self.state {
            State::Idle => None,
            State::Held { fresh_until_ns, .. } => Some(*fresh_until_ns),
            State::Fired { again_at_ns, .. } => Some(*again_at_ns),
        }
    }

    /// The server is gone and the addresses are off: what is left is to tickle its clients.
    fn end(self) {
        let Self {
            kept,
            nudges,
            sender,
            ..
        } = self;
        // A server started anew wants its ports.
        drop(kept);
        let (Some(mut nudges), Some(sender)) = (nudges, sender) else {
            return;
        };
        while let Some(due_ns) = nudges.due_ns() {
            let wait = Duration::from_nanos(due_ns.saturating_sub(now_ns()));
            std::thread::sleep(wait);
            nudges.step(&sender);
        }
    }

    /// Takes off what is held, and reports it the first time that this has worked.
    fn act(&mut self) {
        let (id, addresses, reported) = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => return,
            State::Held { id, addresses, .. } => (id, addresses, false),
            State::Fired {
                id,
                addresses,
                reported,
                ..
            } => (id, addresses, reported),
        };
        let mut off = true;
        for placed in &addresses {
            off &= addr::remove_with(&mut self.route, placed).is_ok();
        }
        let ips = super::ips(&addresses);
        if !reported && self.sender.is_some() {
            let silenced = sockets::list_with(&mut self.sock_diag, &ips).unwrap_or_default();
            if !silenced.is_empty() {
                self.nudges = Some(Nudges::new(silenced));
            }
        }
        // Only a courtesy: without its address no connection can say anything.
        let _ = sockets::drop_with(&mut self.sock_diag, &mut self.route, &ips);
        if off && !reported {
            self.report(Report::Lost(id));
        }
        let again_at_ns = now_ns().saturating_add(REPEAT_MS * NS_PER_MS);
        self.state = State::Fired {
            id,
            addresses,
            reported: reported || off,
            again_at_ns,
        };
    }

    /// A server that does not listen any more is no reason not to act.
    fn report(&self, report: Report) {
        let _ = rustix::io::write(self.reports, report.to_string().as_bytes());
    }
}

/// The orders as they come in.
struct Input<'a> {
    fd: BorrowedFd<'a>,
    bytes: Vec<u8>,
}

impl Input<'_> {
    /// Reads what there is; false at the end.
    fn read(&mut self) -> Result<bool> {
        let mut chunk = [0; LINE_BYTES_MAX];
        let len = match rustix::io::read(self.fd, &mut chunk) {
            Ok(len) => len,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
            Err(_) => 0,
        };
        self.bytes.extend_from_slice(&chunk[..len]);
        Ok(len > 0 && self.bytes.len() <= 2 * LINE_BYTES_MAX)
    }

    fn next_line(&mut self) -> Option<String> {
        let end = self.bytes.iter().position(|&byte| byte == b'\n')?;
        let line = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
        self.bytes.drain(..=end);
        Some(line)
    }
}
