//! A table of client connections as bytes: what a leader tells the other nodes, so that the next one can reach
//! every client, and what each keeps for its next start. Many connections are several tables.
//!
//! Format: a byte that names it, the term (64 bits), the number of own ends and each of them, then for each connection
//! which of those it is, and the client's end. An end is a byte (4 or 6), an address and a port.
//!
//! Invariants
//! - What a peer sends is bounded, and may be garbage; it is taken as a whole or not at all.
//! - A table has one form.
//!
//! It must not know how tables travel, nor what is done with them.

use crate::Endpoint;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First byte of a table.
const FORMAT: u8 = 2;
/// Before an IPv4 address.
const IPV4: u8 = 4;
/// Before an IPv6 address.
const IPV6: u8 = 6;
/// Bytes of an IPv6 end, the longest.
const END_BYTES_MAX: usize = 1 + 16 + 2;

/// So many connections fit one table.
pub const CONNECTIONS_PER_TABLE_MAX: usize = 128;
/// Longest table, in bytes.
pub const TABLE_BYTES_MAX: usize =
    1 + 8 + 1 + CONNECTIONS_PER_TABLE_MAX * (END_BYTES_MAX + 1 + END_BYTES_MAX);

/// Connections to a node in a term.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTable {
    /// The term: of two tables, that of the newer one counts.
    pub term: u64,
    /// The connections.
    pub endpoints: Vec<Endpoint>,
}

impl ClientTable {
    /// The table of the first [`CONNECTIONS_PER_TABLE_MAX`] of these.
    pub fn encode(term: u64, endpoints: &[Endpoint]) -> Bytes {
        let endpoints = &endpoints[..endpoints.len().min(CONNECTIONS_PER_TABLE_MAX)];
        let mut locals: Vec<SocketAddr> = Vec::new();
        let mut out = BytesMut::new();
        let mut rows = BytesMut::new();
        for endpoint in endpoints {
            let known = locals.iter().position(|local| *local == endpoint.local);
            let index = known.unwrap_or_else(|| {
                locals.push(endpoint.local);
                locals.len() - 1
            });
            // No more of them than connections.
            rows.put_u8(u8::try_from(index).unwrap_or(u8::MAX));
            put(&mut rows, endpoint.remote);
        }
        out.put_u8(FORMAT);
        out.put_u64(term);
        out.put_u8(u8::try_from(locals.len()).unwrap_or(u8::MAX));
        for local in locals {
            put(&mut out, local);
        }
        out.put_slice(&rows);
        out.freeze()
    }

    /// `None` if it is no table.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        let whole = bytes.clone();
        if bytes.len() > TABLE_BYTES_MAX || bytes.try_get_u8().ok()? != FORMAT {
            return None;
        }
        let term = bytes.try_get_u64().ok()?;
        let mut locals = Vec::new();
        for _ in 0..bytes.try_get_u8().ok()? {
            locals.push(get(&mut bytes)?);
        }
        let mut endpoints = Vec::new();
        while bytes.has_remaining() {
            if endpoints.len() == CONNECTIONS_PER_TABLE_MAX {
                return None;
            }
            let index = usize::from(bytes.try_get_u8().ok()?);
            endpoints.push(Endpoint {
                local: *locals.get(index)?,
                remote: get(&mut bytes)?,
            });
        }
        (Self::encode(term, &endpoints) == whole).then_some(Self { term, endpoints })
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
        let mut endpoints = vec![
            endpoint("192.0.2.100:2049", "192.0.2.7:812"),
            endpoint("[2001:db8::1]:2049", "[2001:db8::2]:900"),
            endpoint("192.0.2.100:2049", "192.0.2.8:812"),
        ];
        let bytes = ClientTable::encode(7, &endpoints);
        let table = ClientTable {
            term: 7,
            endpoints: endpoints.clone(),
        };
        assert_eq!(ClientTable::decode(bytes), Some(table));
        endpoints.clear();
        let bytes = ClientTable::encode(8, &endpoints);
        let table = ClientTable { term: 8, endpoints };
        assert_eq!(ClientTable::decode(bytes), Some(table));
    }

    /// As large as tables get: each connection of IPv6, to an address of its own.
    #[test]
    fn large_tables_fit_and_garbage_is_refused() {
        let many: Vec<Endpoint> = (0..CONNECTIONS_PER_TABLE_MAX + 1)
            .map(|n| {
                endpoint(
                    &format!("[2001:db8::1:{n:x}]:2049"),
                    &format!("[2001:db8::{n:x}]:7"),
                )
            })
            .collect();
        let bytes = ClientTable::encode(1, &many);
        assert_eq!(bytes.len(), TABLE_BYTES_MAX);
        let told = ClientTable::decode(bytes.clone()).unwrap();
        assert_eq!(told.endpoints, many[..CONNECTIONS_PER_TABLE_MAX]);
        let rows_at = 10 + CONNECTIONS_PER_TABLE_MAX * END_BYTES_MAX;
        for cut in 0..bytes.len() {
            // Ends that no connection has, or half a connection.
            assert!(
                ClientTable::decode(bytes.slice(..cut)).is_none(),
                "{cut} bytes"
            );
        }
        let more = [&bytes[..], &bytes[rows_at..rows_at + 20]].concat();
        assert!(ClientTable::decode(more.into()).is_none());
        let mut wild = bytes.to_vec();
        wild[rows_at] = u8::MAX;
        assert!(ClientTable::decode(wild.into()).is_none());
        assert!(ClientTable::decode(Bytes::from_static(b"\x01")).is_none());
    }
}
