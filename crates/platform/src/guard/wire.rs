//! What server and guard say to each other: short lines of text over pipes.
//!
//! Invariants: an order fits `PIPE_BUF` (4096 bytes), so that it is written whole or not at all.
//!
//! Must not know: when anything is said.

use std::fmt;
use std::str::FromStr;

use rustix::time::{ClockId, clock_gettime};

use crate::addr::{Placed, Subnet};
use crate::link::LinkIndex;

/// The longest order.
pub(super) const LINE_BYTES_MAX: usize = 4096;

/// Tells one `hold` from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HoldId(pub(super) u64);

/// From the server to the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Watch over these addresses.
    Hold {
        id: HoldId,
        deadline_ms: u64,
        checked_ns: u64,
        addresses: Vec<Placed>,
    },
    /// The lease was valid at that time or later.
    Beat { checked_ns: u64 },
    /// Watch over nothing.
    Release,
}

/// From the guard to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// Watching.
    Holding(HoldId),
    /// The addresses were taken off.
    Lost(HoldId),
}

/// The clock both sides share; it goes on while the machine is suspended.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    (now.tv_sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec as u64)
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold {
                id,
                deadline_ms,
                checked_ns,
                addresses,
            } => {
                write!(f, "hold {} {deadline_ms} {checked_ns}", id.0)?;
                for placed in addresses {
                    write!(f, " {placed}")?;
                }
                writeln!(f)
            }
            Self::Beat { checked_ns } => writeln!(f, "beat {checked_ns}"),
            Self::Release => writeln!(f, "release"),
        }
    }
}

impl FromStr for Order {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("hold") => Ok(Self::Hold {
                id: HoldId(number(words.next())?),
                deadline_ms: number(words.next())?,
                checked_ns: number(words.next())?,
                addresses: words.map(placed).collect::<Result<_, ()>>()?,
            }),
            Some("beat") => Ok(Self::Beat {
                checked_ns: number(words.next())?,
            }),
            Some("release") => Ok(Self::Release),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holding(id) => writeln!(f, "holding {}", id.0),
            Self::Lost(id) => writeln!(f, "lost {}", id.0),
        }
    }
}

impl FromStr for Report {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("holding") => Ok(Self::Holding(HoldId(number(words.next())?))),
            Some("lost") => Ok(Self::Lost(HoldId(number(words.next())?))),
            _ => Err(()),
        }
    }
}

fn number(word: Option<&str>) -> Result<u64, ()> {
    word.and_then(|word| word.parse().ok()).ok_or(())
}

/// `192.0.2.1/24@3`
fn placed(word: &str) -> Result<Placed, ()> {
    let (subnet, link) = word.split_once('@').ok_or(())?;
    let subnet: Subnet = subnet.parse().map_err(|_| ())?;
    Ok(Placed {
        subnet,
        link: LinkIndex(link.parse().map_err(|_| ())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::ADDRESSES_MAX;

    #[test]
    fn orders_and_reports_read_back() {
        let addresses = ["192.0.2.1/24@3", "2001:db8::7/64@12"];
        let orders = [
            Order::Hold {
                id: HoldId(7),
                deadline_ms: 400,
                checked_ns: 12345,
                addresses: addresses.map(|word| placed(word).unwrap()).to_vec(),
            },
            Order::Beat {
                checked_ns: u64::MAX,
            },
            Order::Release,
        ];
        for order in orders {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        for report in [Report::Holding(HoldId(1)), Report::Lost(HoldId(2))] {
            assert_eq!(report.to_string().parse(), Ok(report));
        }
        assert_eq!("beat soon".parse::<Order>(), Err(()));
        assert_eq!("hold 1 400 5 192.0.2.1@3".parse::<Order>(), Err(()));
    }

    #[test]
    fn the_longest_order_is_written_atomically() {
        let longest = "abcd:abcd:abcd:abcd:abcd:abcd:abcd:abcd/128@4294967295";
        let order = Order::Hold {
            id: HoldId(u64::MAX),
            deadline_ms: u64::MAX,
            checked_ns: u64::MAX,
            addresses: vec![placed(longest).unwrap(); ADDRESSES_MAX],
        };
        assert!(order.to_string().len() <= LINE_BYTES_MAX);
    }
}
