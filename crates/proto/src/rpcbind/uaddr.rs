//! Universal addresses and network ids of IP transports (RFC 5665 section 5.2.3 and section 4).
//!
//! An IPv4 address is `h1.h2.h3.h4.p1.p2`, an IPv6 address `x1:x2:…:x8.p1.p2`, in any form of RFC 4291;
//! `p1` and `p2` are the port's high and low byte. Everything is decimal or hexadecimal ASCII.

use super::{NetidText, UaddrText};
use bytes::Bytes;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A network id that stands for an IP transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Netid {
    /// TCP over IPv4.
    Tcp,
    /// UDP over IPv4.
    Udp,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
}

impl Netid {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Tcp6, Self::Udp6];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Tcp6 => "tcp6",
            Self::Udp6 => "udp6",
        }
    }

    /// The network id with this name (small letters, as RFC 5665 registers them).
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|id| id.name().as_bytes() == name)
    }

    /// TCP over the family of `ip`.
    pub const fn tcp_of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::Tcp } else { Self::Tcp6 }
    }

    /// UDP over the family of `ip`.
    pub const fn udp_of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::Udp } else { Self::Udp6 }
    }

    /// Whether addresses of this network are of the family of `ip`.
    pub const fn carries(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == matches!(self, Self::Tcp | Self::Udp)
    }
}

impl fmt::Display for Netid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Netid> for NetidText {
    fn from(id: Netid) -> Self {
        Self(Bytes::from_static(id.name().as_bytes()))
    }
}

/// The universal address of an IP transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uaddr {
    /// The host.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
}

/// A string that is no universal address of an IP transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UaddrError {
    /// It has not two dots and more.
    #[error("a universal address ends in two dots with the port's bytes, as in 192.0.2.1.8.1")]
    NoPort,
    /// The port's bytes are not two numbers up to 255.
    #[error("the port's bytes in a universal address are two decimal numbers up to 255")]
    Port,
    /// What precedes the port is no IP address.
    #[error("a universal address begins with an IPv4 or IPv6 address")]
    Host,
}

impl Uaddr {
    /// The address in what came over the wire.
    ///
    /// # Errors
    /// [`UaddrError`] for everything else, also for the empty string, which means "not registered".
    pub fn parse(text: &[u8]) -> Result<Self, UaddrError> {
        let text = std::str::from_utf8(text).map_err(|_| UaddrError::Host)?;
        let (rest, low) = text.rsplit_once('.').ok_or(UaddrError::NoPort)?;
        let (host, high) = rest.rsplit_once('.').ok_or(UaddrError::NoPort)?;
        let port = u16::from_be_bytes([port_byte(high)?, port_byte(low)?]);
        let ip = host.parse().map_err(|_| UaddrError::Host)?;
        Ok(Self { ip, port })
    }
}

/// One byte of a port: digits only, where `u8::from_str` would also take a sign.
fn port_byte(text: &str) -> Result<u8, UaddrError> {
    if !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(UaddrError::Port);
    }
    text.parse().map_err(|_| UaddrError::Port)
}

impl FromStr for Uaddr {
    type Err = UaddrError;

    fn from_str(text: &str) -> Result<Self, UaddrError> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for Uaddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [high, low] = self.port.to_be_bytes();
        write!(f, "{}.{high}.{low}", self.ip)
    }
}

/// A scope and a flow label have no place in a universal address.
impl From<SocketAddr> for Uaddr {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: address.ip(),
            port: address.port(),
        }
    }
}

impl From<Uaddr> for SocketAddr {
    fn from(uaddr: Uaddr) -> Self {
        Self::new(uaddr.ip, uaddr.port)
    }
}

impl From<Uaddr> for UaddrText {
    fn from(uaddr: Uaddr) -> Self {
        Self(uaddr.to_string().into())
    }
}
