//! Who a client is: an address, a network, a host name, a wildcard, or everybody.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Longest host name (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 255;

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// One address.
    Address(IpAddr),
    /// A network.
    Network {
        /// Its first address.
        address: IpAddr,
        /// Bits of the prefix.
        prefix: u8,
    },
    /// The addresses of a host name, in small letters.
    Host(String),
    /// Host names of this form, in small letters: `*` is any text, `?` any character, dots included.
    Wildcard(String),
    /// Everybody.
    Everybody,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Network { address, prefix } => write!(f, "{address}/{prefix}"),
            Self::Host(name) | Self::Wildcard(name) => f.write_str(name),
            Self::Everybody => f.write_str("*"),
        }
    }
}

impl Who {
    /// Reads a client without its options.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if matches!(text, "" | "*") {
            return Ok(Self::Everybody);
        }
        if let Some(group) = text.strip_prefix('@') {
            return Err(format!(
                "netgroups (\"@{group}\") are not supported: list networks, such as 10.0.0.0/24, or host names"
            ));
        }
        if text.starts_with("gss/") {
            return Err(format!(
                "\"{text}\": Kerberos is not supported yet: name clients by address, network or host name"
            ));
        }
        if let Some((address, mask)) = text.split_once('/') {
            return network(address, mask).ok_or_else(|| {
                format!(
                    "\"{text}\" is no network: give ADDRESS/BITS or ADDRESS/NETMASK, such as 10.0.0.0/24"
                )
            });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        name(text)
    }
}

fn network(address: &str, mask: &str) -> Option<Who> {
    let address: IpAddr = address.parse().ok()?;
    let bits_max: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match mask.parse::<Ipv4Addr>() {
        Ok(mask) if address.is_ipv4() => {
            let ones = mask.to_bits().leading_ones();
            if ones + mask.to_bits().trailing_zeros() < 32 {
                return None;
            }
            u8::try_from(ones).ok()?
        }
        _ => digits(mask)?,
    };
    if prefix > bits_max {
        return None;
    }
    let address = match address {
        IpAddr::V4(v4) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & keep))
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & keep).into())
        }
    };
    Some(Who::Network { address, prefix })
}

/// A number without a sign.
fn digits(text: &str) -> Option<u8> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn name(text: &str) -> Result<Who, String> {
    if text.contains(['[', ']']) {
        return Err(format!(
            "\"{text}\": sets of characters in brackets are not supported: use \"*\" or \"?\", or list the hosts"
        ));
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.*?".contains(&b);
    let whole = text.split('.').all(|label| !label.is_empty());
    if !whole || text.len() > NAME_BYTES_MAX || !text.bytes().all(legal) {
        return Err(format!("\"{text}\" is no address, network or host name"));
    }
    let wild = text.contains(['*', '?']);
    if text
        .bytes()
        .all(|b| b.is_ascii_digit() || b".*?".contains(&b))
    {
        return Err(match wild {
            true => format!(
                "\"{text}\": wildcards are for names, not for addresses: give a network, such as 10.0.0.0/24"
            ),
            false => format!("\"{text}\" is no address"),
        });
    }
    let lower = text.to_ascii_lowercase();
    Ok(match wild {
        true => Who::Wildcard(lower),
        false => Who::Host(lower),
    })
}
