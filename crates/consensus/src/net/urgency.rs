//! Who goes first where a network is full: heartbeats and votes, then what clients wait for, then what a node that catches
//! up gets.
//!
//! Each end of a connection says it in three ways. To the queues of its own machine by the socket's priority (the bands of
//! `pfifo_fast` and `prio`, tc-prio(8)). To the network by the DSCP (RFC 2474), for those who configure their switches. And to
//! itself by how much may lie in the socket that has not left yet: little, so that what is sent and answered is
//! young, and what matters more need not queue behind it. A queue that is first in, first out in the network itself
//! cannot be jumped. There it only helps that answers count that come late ([`crate::answers`]).
//!
//! It must not know what connections carry.

use std::io;

use socket2::SockRef;

use crate::net::message::Purpose;

/// How urgent what a connection carries is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Small and rare, and others take over if it is late. Every connection is so until it is known what it is for.
    First,
    /// Clients wait for it.
    Usual,
    /// Nobody waits for it.
    Last,
}

impl Urgency {
    pub(crate) fn of(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Heartbeats | Purpose::Votes => Self::First,
            Purpose::Entries | Purpose::Hints | Purpose::Affairs => Self::Usual,
            Purpose::Join | Purpose::Visit => Self::Usual,
            Purpose::Snapshot => Self::Last,
        }
    }

    /// Interactive, best effort and bulk of socket(7); more than 6 only privileged processes may ask for.
    fn priority(self) -> u32 {
        match self {
            Self::First => 6,
            Self::Usual => 0,
            Self::Last => 2,
        }
    }

    /// CS6 (network control), the default, and CS1 (lower effort as it is widely configured): RFC 4594, shifted to
    /// where the type of service has it.
    fn type_of_service(self) -> u32 {
        match self {
            Self::First => 48 << 2,
            Self::Usual => 0,
            Self::Last => 8 << 2,
        }
    }

    /// Bytes that may wait in a socket until they are sent for the first time. A network of 10 Gbit/s needs 0.4 ms for
    /// the larger one, one of 50 Mbit/s 80 ms; the sender is woken when half is left.
    fn unsent_bytes_max(self) -> u32 {
        match self {
            Self::First | Self::Usual => 512 << 10,
            Self::Last => 128 << 10,
        }
    }

    /// Says it.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn apply(self, socket: SockRef<'_>) -> io::Result<()> {
        // Before the priority: a type of service brings one along.
        match socket.local_addr()?.is_ipv6() {
            true => socket.set_tclass_v6(self.type_of_service())?,
            false => socket.set_tos_v4(self.type_of_service())?,
        }
        socket.set_priority(self.priority())?;
        socket.set_tcp_notsent_lowat(self.unsent_bytes_max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::net::TcpStream;

    #[test]
    fn each_connection_says_how_urgent_it_is_over_ipv4_and_ipv6() {
        for home in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(home).unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = SockRef::from(&stream);
            // From any to any: connections begin as urgent ones.
            for (urgency, want) in [
                (Urgency::First, (6, 0xC0)),
                (Urgency::Last, (2, 0x20)),
                (Urgency::Usual, (0, 0)),
            ] {
                urgency.apply(SockRef::from(&stream)).unwrap();
                let class = match home.starts_with('[') {
                    true => socket.tclass_v6().unwrap(),
                    false => socket.tos_v4().unwrap(),
                };
                assert_eq!((socket.priority().unwrap(), class), want, "{urgency:?}");
                let unsent = socket.tcp_notsent_lowat().unwrap();
                assert_eq!(unsent, urgency.unsent_bytes_max());
            }
        }
    }

    #[test]
    fn what_keeps_a_leader_goes_before_what_clients_wait_for_and_that_before_catching_up() {
        let of = |purpose| Urgency::of(purpose);
        assert_eq!(of(Purpose::Heartbeats), Urgency::First);
        assert_eq!(of(Purpose::Votes), Urgency::First);
        assert_eq!(of(Purpose::Entries), Urgency::Usual);
        assert_eq!(of(Purpose::Snapshot), Urgency::Last);
    }
}
