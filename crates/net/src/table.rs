//! The table of client connections as bytes: what a leader tells the other nodes, so that the next one can reach
//! every client.
//!
//! Invariants
//! - What a peer sends is bounded by the caller and may be garbage; it is taken as a whole or not at all.
//! - A table has one form.
//!
//! It must not know how tables travel, nor what is done with them.

use crate::Endpoint;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First byte of a table.
const FORMAT: u8 = 1;
/// Before an IPv4 address.
const IPV4: u8 = 4;
/// Before an IPv6 address.
const IPV6: u8 = 6;

/// Who is connected to the leader of a term.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTable {
    /// The term: of two tables, that of the newer one counts.
    pub term: u64,
    /// The connections.
    pub endpoints: Vec<Endpoint>,
}

impl ClientTable {
    /// As many connections as fit in so many bytes.
    pub fn encode(term: u64, endpoints: impl Iterator<Item = Endpoint>, bytes_max: usize) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(FORMAT);
        out.put_u64(term);
        for endpoint in endpoints {
            let before = out.len();
            put(&mut out, endpoint.local);
            put(&mut out, endpoint.remote);
            if out.len() > bytes_max {
                out.truncate(before);
                break;
            }
        }
        out.freeze()
    }

    /// `None` if it is no table.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.try_get_u8().ok()? != FORMAT {
            return None;
        }
        let term = bytes.try_get_u64().ok()?;
        let mut endpoints = Vec::new();
        while bytes.has_remaining() {
            endpoints.push(Endpoint {
                local: get(&mut bytes)?,
                remote: get(&mut bytes)?,
            });
        }
        Some(Self { term, endpoints })
    }
}

fn put(out: &mut BytesMut, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(IPV4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(IPV6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16(address.port());
}

fn get(bytes: &mut Bytes) -> Option<SocketAddr> {
    let ip: IpAddr = match bytes.try_get_u8().ok()? {
        IPV4 => Ipv4Addr::from_bits(bytes.try_get_u32().ok()?).into(),
        IPV6 => Ipv6Addr::from_bits(bytes.try_get_u128().ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, bytes.try_get_u16().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(local: &str, remote: &str) -> Endpoint {
        Endpoint {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    #[test]
    fn tables_survive_the_way() {
        let endpoints = vec![
            endpoint("192.0.2.100:2049", "192.0.2.7:812"),
            endpoint("[2001:db8::1]:2049", "[2001:db8::2]:900"),
        ];
        let bytes = ClientTable::encode(7, endpoints.iter().copied(), 1 << 10);
        assert_eq!(
            ClientTable::decode(bytes),
            Some(ClientTable { term: 7, endpoints })
        );
    }

    #[test]
    fn large_tables_are_cut_and_garbage_is_refused() {
        let bytes_max = 60_000;
        let many = (0..20_000u32).map(|n| {
            let remote = format!("10.0.{}.{}:7", n >> 8 & 255, n & 255);
            endpoint("192.0.2.100:2049", &remote)
        });
        let bytes = ClientTable::encode(1, many, bytes_max);
        assert!(bytes.len() <= bytes_max);
        let told = ClientTable::decode(bytes.clone()).unwrap();
        assert!(told.endpoints.len() > 4_000);
        for cut in 0..60 {
            let whole = cut >= 9 && (cut - 9) % 14 == 0;
            let taken = ClientTable::decode(bytes.slice(..cut)).is_some();
            assert_eq!(taken, whole, "{cut} bytes");
        }
        assert!(ClientTable::decode(Bytes::from_static(b"\x02")).is_none());
    }
}
