//! Who may use which export, and how: the rules of exports(5), ready to be asked for every request.
//!
//! Rules come from the configuration and are named by path; handles name an export by its number, which
//! is part of the replicated state. [`Exports::bind`] brings the two together. An export whose number is
//! not known yet is not offered.
//!
//! A client is matched by kind before place in the list: addresses and host names, then networks, then
//! wildcards, then everybody; within a kind, by the order of the list. A path is governed by the deepest
//! export that lets the client in; handles stay with the export through which they were reached, so what
//! is looked up from above a nested export follows the outer rules.
//!
//! Invariant: what depends on names is decided by resolved facts only. It must not know how they are
//! found out, nor the state.

use crate::export::components;
use crate::handle::ExportId;
use crate::mountd;
use crate::squash::Squash;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Highest port that only a privileged process of the client can have, and one more.
const PRIVILEGED_PORTS_END: u16 = 1_024;

/// What clients that match a rule may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Nothing may be changed (NFS3ERR_ROFS).
    pub read_only: bool,
    /// Requests must come from a privileged port.
    pub secure: bool,
    /// Whose rights callers get.
    pub squash: Squash,
}

/// Which clients a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// One address.
    Address(IpAddr),
    /// The addresses of a host name.
    Host(String),
    /// A network: its first bits, and how many.
    Network(IpAddr, u8),
    /// Verified names of this form: `*` is any text, `?` any character, dots included.
    Wildcard(String),
    /// Everybody.
    Everybody,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Network(address, bits) => write!(f, "{address}/{bits}"),
            Self::Host(name) | Self::Wildcard(name) => f.write_str(name),
            Self::Everybody => f.write_str("*"),
        }
    }
}

/// A rule of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// For whom.
    pub who: Who,
    /// What they may do.
    pub options: Options,
}

/// An export as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Path in the volume.
    pub path: Bytes,
    /// Its rules, in the order of the configuration.
    pub clients: Vec<Client>,
}

/// Addresses of host names, as resolved: those that have none were looked up in vain, those that are
/// missing have not been looked up yet.
pub type Hosts = BTreeMap<String, Vec<IpAddr>>;

/// What is known about the names of a client: those that its address has and that have its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientNames<'a> {
    /// Nobody has looked yet: a request that depends on them is [`crate::Prepared::WantsNames`].
    Unasked,
    /// The answer takes too long: NFS clients are told to try again.
    Late,
    /// These (none is an answer, too).
    Known(&'a [String]),
}

/// What a request came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The client's address and port.
    pub peer: SocketAddr,
    /// Where the client asked; unspecified if nobody knows.
    pub local: IpAddr,
    /// What it asked over.
    pub transport: Transport,
    /// Its names.
    pub names: ClientNames<'a>,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No rule is for this client.
    Nobody,
    /// The client's port is not privileged.
    Port,
    /// It depends on the client's names, which nobody has looked up yet.
    Unasked,
    /// It depends on names that are being looked up.
    Late,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    client: Client,
    /// Addresses of a host name; `None`: not looked up yet.
    resolved: Option<Vec<IpAddr>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    export: Export,
    /// The path in its one form: `/a/b`.
    path: Bytes,
    /// By kind, then in the order of the configuration.
    rules: Vec<Rule>,
    id: Option<ExportId>,
}

/// The rules of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exports {
    offers: Vec<Offer>,
    by_id: BTreeMap<ExportId, usize>,
    /// What EXPORT tells: made once, and shared by all answers.
    listing: Bytes,
}

impl Default for Exports {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Exports {
    /// From the configuration, not yet bound. A path that cannot be one is never offered.
    pub fn new(exports: Vec<Export>) -> Self {
        let listing = mountd::listing(exports.iter());
        let offers = exports.into_iter().map(|export| Offer {
            path: normal_path(&export.path).unwrap_or_default(),
            rules: ordered(&export.clients),
            id: None,
            export,
        });
        Self {
            offers: offers.collect(),
            by_id: BTreeMap::new(),
            listing,
        }
    }

    /// Takes the exports' numbers from [`crate::Machine::export_ids`].
    pub fn bind(&mut self, ids: &BTreeMap<Bytes, ExportId>) {
        self.by_id.clear();
        for (place, offer) in self.offers.iter_mut().enumerate() {
            offer.id = ids.get(&offer.path).copied();
            if let Some(id) = offer.id {
                self.by_id.insert(id, place);
            }
        }
    }

    /// Takes the addresses of host names. A name without addresses matches nobody.
    pub fn set_hosts(&mut self, hosts: &Hosts) {
        for rule in self.offers.iter_mut().flat_map(|offer| &mut offer.rules) {
            if let Who::Host(name) = &rule.client.who {
                rule.resolved = hosts.get(name).cloned();
            }
        }
    }

    /// Host names that must be resolved.
    pub fn host_names(&self) -> impl Iterator<Item = &str> {
        self.rules().filter_map(|rule| match &rule.client.who {
            Who::Host(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether anything depends on the names of clients.
    pub fn want_client_names(&self) -> bool {
        self.rules()
            .any(|rule| matches!(rule.client.who, Who::Wildcard(_)))
    }

    /// Everything that is configured.
    pub fn configured(&self) -> impl Iterator<Item = &Export> {
        self.offers.iter().map(|offer| &offer.export)
    }

    /// The list of exports, as EXPORT tells it (RFC 1813 section 5.2.5).
    pub(crate) fn listing(&self) -> Bytes {
        self.listing.clone()
    }

    /// How long that is, in bytes.
    pub fn listing_bytes(&self) -> usize {
        self.listing.len()
    }

    /// Whether any rule is for a client, whatever its port and whether its export has been made; `None`: that depends
    /// on its names. What is not known in time counts as if it were.
    pub fn let_in(&self, client: IpAddr, names: ClientNames<'_>) -> Option<bool> {
        let client = client.to_canonical();
        let mut unknown = Some(false);
        for rule in self.rules() {
            match rule.is_for(client, names) {
                Match::Yes | Match::Late => return Some(true),
                Match::Unasked => unknown = None,
                Match::No => {}
            }
        }
        unknown
    }

    /// What the export of a handle allows; `None`: there is no such export (any more).
    pub(crate) fn rights(
        &self,
        id: ExportId,
        origin: Origin<'_>,
    ) -> Option<Result<Options, Denied>> {
        let offer = self.offers.get(*self.by_id.get(&id)?)?;
        Some(offer.rights(origin))
    }

    /// The deepest export at or above a path that lets the client in.
    pub(crate) fn covering(&self, path: &[&[u8]], origin: Origin<'_>) -> Result<ExportId, Denied> {
        let covers = |offer: &&Offer| {
            components(&offer.export.path).is_ok_and(|export| path.starts_with(&export))
        };
        let mut offers: Vec<_> = self.offers.iter().filter(covers).collect();
        offers.sort_by_key(|offer| std::cmp::Reverse(offer.path.len()));
        let mut denied = Denied::Nobody;
        for offer in offers {
            let Some(id) = offer.id else { continue };
            match offer.rights(origin) {
                Ok(_) => return Ok(id),
                Err(why @ (Denied::Unasked | Denied::Late)) => return Err(why),
                Err(why) => denied = why,
            }
        }
        Err(denied)
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.offers.iter().flat_map(|offer| &offer.rules)
    }
}

impl Offer {
    fn rights(&self, origin: Origin<'_>) -> Result<Options, Denied> {
        let client = origin.peer.ip().to_canonical();
        let mut nobody = Denied::Nobody;
        for rule in &self.rules {
            let by_name = matches!(rule.client.who, Who::Wildcard(_));
            match rule.is_for(client, origin.names) {
                Match::No => {}
                Match::Unasked => return Err(Denied::Unasked),
                Match::Late if by_name => return Err(Denied::Late),
                // The host may be another one: rules that follow may let the client in.
                Match::Late => nobody = Denied::Late,
                Match::Yes => {
                    let options = rule.client.options;
                    return match options.secure && origin.peer.port() >= PRIVILEGED_PORTS_END {
                        true => Err(Denied::Port),
                        false => Ok(options),
                    };
                }
            }
        }
        Err(nobody)
    }
}

/// Whether a rule is for a client.
enum Match {
    Yes,
    No,
    /// That depends on names that nobody has looked up yet.
    Unasked,
    /// Or on names that are being looked up.
    Late,
}

impl Rule {
    fn is_for(&self, client: IpAddr, names: ClientNames<'_>) -> Match {
        let is = match (&self.client.who, names) {
            (Who::Address(address), _) => *address == client,
            (Who::Host(_), _) => match &self.resolved {
                Some(addresses) => addresses.contains(&client),
                None => return Match::Late,
            },
            (Who::Network(network, bits), _) => in_network(client, *network, *bits),
            (Who::Wildcard(_), ClientNames::Unasked) => return Match::Unasked,
            (Who::Wildcard(_), ClientNames::Late) => return Match::Late,
            (Who::Wildcard(pattern), ClientNames::Known(names)) => {
                names.iter().any(|name| is_like(name, pattern))
            }
            (Who::Everybody, _) => true,
        };
        if is { Match::Yes } else { Match::No }
    }
}

/// A path in its one form, by which exports are known: `/a/b`.
pub(crate) fn normal_path(path: &[u8]) -> Option<Bytes> {
    let names = components(path).ok()?;
    if names.is_empty() {
        return Some(Bytes::from_static(b"/"));
    }
    let mut normal = Vec::with_capacity(path.len());
    for name in names {
        normal.push(b'/');
        normal.extend_from_slice(name);
    }
    Some(normal.into())
}

fn ordered(clients: &[Client]) -> Vec<Rule> {
    let kind = |rule: &Rule| match rule.client.who {
        Who::Address(_) | Who::Host(_) => 0,
        Who::Network(..) => 1,
        Who::Wildcard(_) => 2,
        Who::Everybody => 3,
    };
    let mut rules: Vec<_> = clients
        .iter()
        .map(|client| Rule {
            client: client.clone(),
            resolved: None,
        })
        .collect();
    rules.sort_by_key(kind);
    rules
}

fn in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |a: u128, b: u128, width: u8| {
        let rest = u32::from(width.saturating_sub(bits));
        a.checked_shr(rest) == b.checked_shr(rest)
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

/// Whether a name has the form of a pattern; letters count without their case.
fn is_like(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.as_bytes(), pattern.as_bytes());
    let (mut n, mut p) = (0, 0);
    // Where to go on when what was tried last does not fit: after the last `*`, one character later.
    let mut again: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                again = Some((p + 1, n + 1));
                p += 1;
            }
            Some(c) if *c == b'?' || c.eq_ignore_ascii_case(&name[n]) => {
                n += 1;
                p += 1;
            }
            _ => match again {
                Some((after, from)) => {
                    (p, n) = (after, from);
                    again = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn patterns() {
        for (name, pattern, like) in [
            ("a.example.org", "*.example.org", true),
            ("a.b.example.org", "*.example.org", true),
            ("example.org", "*.example.org", false),
            ("node7", "node?", true),
            ("node77", "node?", false),
            ("NODE7", "node?", true),
            ("abcabd", "*abd", true),
            ("abc", "*", true),
            ("", "*", true),
            ("", "?", false),
            ("aXbXc", "a*b*c", true),
            ("aXbXcd", "a*b*c", false),
        ] {
            assert_eq!(is_like(name, pattern), like, "{name} {pattern}");
        }
    }

    #[test]
    fn networks() {
        for (address, network, bits, inside) in [
            ("10.0.0.7", "10.0.0.0", 24, true),
            ("10.0.1.7", "10.0.0.0", 24, false),
            ("10.0.1.7", "0.0.0.0", 0, true),
            ("10.0.0.7", "10.0.0.7", 32, true),
            ("10.0.0.6", "10.0.0.7", 32, false),
            ("2001:db8::5", "2001:db8::", 32, true),
            ("2001:db9::5", "2001:db8::", 32, false),
            ("::1", "::", 0, true),
            ("10.0.0.7", "::", 0, false),
            ("::1", "0.0.0.0", 0, false),
        ] {
            assert_eq!(
                in_network(ip(address), ip(network), bits),
                inside,
                "{address}"
            );
        }
    }

    #[test]
    fn one_form_of_paths() {
        assert_eq!(normal_path(b"//a/./b/").as_deref(), Some(&b"/a/b"[..]));
        assert_eq!(normal_path(b"/").as_deref(), Some(&b"/"[..]));
        assert_eq!(normal_path(b"a"), None);
    }
}
