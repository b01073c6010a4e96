//! A node's identity: what lies in the directory [`crate::DIR`] of its data.
//!
//! | file | what |
//! |---|---|
//! | `ca.crt`, `ca.key` | the cluster's authority; every member has it, so that every member can let others in |
//! | `node.crt`, `node.key` | this node's certificate and key |
//! | `member.json` | which cluster and node this is; written last: without it there is no identity |
//!
//! It must not know connections.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, Fingerprint, KeyId, NodeKey, PublicKey};
use crate::error::PkiError;
use crate::files::{OPEN, SECRET, make_dir, read_bounded, write_file};
use crate::text;
use crate::tls::Tls;
use crate::token::SecretHash;

/// Largest file of an identity, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

const MEMBER: &str = "member.json";
const NODE_KEY: &str = "node.key";
const NODE_CERTIFICATE: &str = "node.crt";
const CA_KEY: &str = "ca.key";
const CA_CERTIFICATE: &str = "ca.crt";

/// A node of a cluster that is being made, with the key it will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    /// Its number.
    pub id: u64,
    /// Its key.
    pub key: KeyId,
}

/// A token that was given out when the cluster was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued {
    /// What is kept of its secret.
    pub hash: SecretHash,
    /// When it ends, in seconds since the epoch.
    pub expires: u64,
}

/// What a machine gets that is let in. Holds the authority's key: secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    pub(crate) cluster: String,
    pub(crate) node: u64,
    pub(crate) certificate: String,
    pub(crate) authority: String,
    pub(crate) authority_key: String,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation of node {} to {}", self.node, self.cluster)
    }
}

/// See the module's head.
pub struct Identity {
    authority: Authority,
    node: u64,
    key: NodeKey,
    certificate: CertificateDer<'static>,
    founders: Vec<Founder>,
    issued: Vec<Issued>,
}

/// `member.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    cluster: String,
    node: u64,
    /// Keys of the nodes that make the cluster together; empty for one that joined.
    founders: Vec<(u64, String)>,
    /// Tokens that count from the beginning.
    tokens: Vec<(String, u64)>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of {}", self.node, self.authority.cluster())
    }
}

impl Identity {
    /// Identities for a new cluster of the nodes 1 to `count`, which know one another. `issued` are tokens.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn found(
        count: u64,
        tokens: impl FnOnce(Fingerprint) -> Result<Vec<Issued>, PkiError>,
    ) -> Result<Vec<Self>, PkiError> {
        let first = Authority::create()?;
        let issued = tokens(first.fingerprint())?;
        let keys = (1..=count)
            .map(|_| NodeKey::create())
            .collect::<Result<Vec<_>, _>>()?;
        let mut founders = Vec::new();
        for (id, key) in (1..).zip(&keys) {
            let key = key.public()?.id();
            founders.push(Founder { id, key });
        }
        let certify = |(node, key): (u64, NodeKey)| {
            let certificate = first.issue(node, &key.public()?)?;
            let authority = Authority::of(
                first.cluster().to_owned(),
                NodeKey::from_pem(&first.key().to_pem())?,
                first.certificate().clone(),
            );
            let (founders, issued) = (founders.clone(), issued.clone());
            Ok(Self {
                authority,
                node,
                key,
                certificate,
                founders,
                issued,
            })
        };
        (1..).zip(keys).map(certify).collect()
    }

    /// The identity of a node that was let in.
    ///
    /// # Errors
    /// When certificate, authority and key do not belong together.
    pub fn joined(
        authority: Authority,
        node: u64,
        key: NodeKey,
        certificate: CertificateDer<'static>,
    ) -> Result<Self, PkiError> {
        let identity = Self {
            authority,
            node,
            key,
            certificate,
            founders: Vec::new(),
            issued: Vec::new(),
        };
        let tls = identity.tls()?;
        let own = identity.key.public()?.id();
        if tls.key_of(std::slice::from_ref(&identity.certificate), node) != Some(own) {
            return Err(PkiError::Crypto {
                what: "taking the certificate",
                why: "it is not for this node".into(),
            });
        }
        Ok(identity)
    }

    /// Certifies that `key` is node `node`, with all that it needs to be one.
    ///
    /// # Errors
    /// When the key is no key.
    pub fn invite(&self, node: u64, key: &PublicKey) -> Result<Invitation, PkiError> {
        Ok(Invitation {
            cluster: self.authority.cluster().to_owned(),
            node,
            certificate: pem(&self.authority.issue(node, key)?),
            authority: pem(self.authority.certificate()),
            authority_key: self.authority.key().to_pem(),
        })
    }

    /// Takes up an invitation that came from the cluster whose authority has this fingerprint.
    ///
    /// # Errors
    /// When its parts do not belong together or to `key`.
    pub fn accept(
        invitation: &Invitation,
        key: NodeKey,
        authority: Fingerprint,
    ) -> Result<Self, PkiError> {
        let what = "taking up the invitation";
        let bad = |why: &str| PkiError::Crypto {
            what,
            why: why.into(),
        };
        let der = |text: &str| {
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| bad("no certificate"))
        };
        let own = Authority::of(
            invitation.cluster.clone(),
            NodeKey::from_pem(&invitation.authority_key)?,
            der(&invitation.authority)?,
        );
        if own.fingerprint() != authority {
            return Err(bad("it is from another cluster"));
        }
        Self::joined(own, invitation.node, key, der(&invitation.certificate)?)
    }

    /// The node's number.
    #[must_use]
    pub const fn node(&self) -> u64 {
        self.node
    }

    /// The cluster's authority.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The nodes that make the cluster together; empty if this node joined one.
    #[must_use]
    pub fn founders(&self) -> &[Founder] {
        &self.founders
    }

    /// Tokens that count from the cluster's beginning.
    #[must_use]
    pub fn issued(&self) -> &[Issued] {
        &self.issued
    }

    /// What connections need.
    ///
    /// # Errors
    /// When certificate and key do not belong together.
    pub fn tls(&self) -> Result<Tls, PkiError> {
        Tls::new(
            self.authority.cluster(),
            &self.key,
            &self.certificate,
            self.authority.certificate(),
        )
    }

    /// Whether there is an identity in the data directory `data`.
    #[must_use]
    pub fn exists(data: &Path) -> bool {
        data.join(crate::DIR).join(MEMBER).exists()
    }

    /// The key of the node to be in `data`: the one from an earlier attempt, or a new one, on disk.
    ///
    /// # Errors
    /// When it cannot be read or kept.
    pub fn prepare(data: &Path) -> Result<NodeKey, PkiError> {
        let dir = data.join(crate::DIR);
        make_dir(&dir)?;
        let path = dir.join(NODE_KEY);
        let key = match read_text(&path)? {
            Some(text) => NodeKey::from_pem(&text).map_err(content(&path))?,
            None => NodeKey::create()?,
        };
        // Also the one that is there: the flush of the earlier attempt may have failed.
        write_file(&path, key.to_pem().as_bytes(), SECRET)?;
        Ok(key)
    }

    /// Writes the identity into the data directory `data`, durably.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self, data: &Path) -> Result<(), PkiError> {
        let dir = data.join(crate::DIR);
        make_dir(&dir)?;
        let put = |name: &str, text: &str, mode| write_file(&dir.join(name), text.as_bytes(), mode);
        put(NODE_KEY, &self.key.to_pem(), SECRET)?;
        put(CA_KEY, &self.authority.key().to_pem(), SECRET)?;
        put(CA_CERTIFICATE, &pem(self.authority.certificate()), OPEN)?;
        put(NODE_CERTIFICATE, &pem(&self.certificate), OPEN)?;
        let member = Member {
            cluster: self.authority.cluster().to_owned(),
            node: self.node,
            founders: self
                .founders
                .iter()
                .map(|founder| (founder.id, founder.key.to_string()))
                .collect(),
            tokens: self
                .issued
                .iter()
                .map(|issued| (text::hex(&issued.hash.0), issued.expires))
                .collect(),
        };
        let text = serde_json::to_string_pretty(&member).map_err(|why| PkiError::Content {
            path: dir.join(MEMBER),
            what: why.to_string(),
        })?;
        put(MEMBER, &(text + "\n"), SECRET)
    }

    /// Reads the identity in the data directory `data`.
    ///
    /// # Errors
    /// [`PkiError::NoIdentity`] when there is none; otherwise what is wrong with it.
    pub fn load(data: &Path) -> Result<Self, PkiError> {
        let dir = data.join(crate::DIR);
        let path = dir.join(MEMBER);
        let text = read_text(&path)?.ok_or_else(|| PkiError::NoIdentity { path: path.clone() })?;
        let member: Member = serde_json::from_str(&text).map_err(content(&path))?;
        let founders = member.founders.iter().map(|(id, key)| {
            let (id, key) = (*id, key.parse()?);
            Ok::<_, PkiError>(Founder { id, key })
        });
        let founders = founders.collect::<Result<_, _>>().map_err(content(&path))?;
        let issued = member.tokens.iter().map(|(hash, expires)| {
            let hash = text::from_hex(hash).map(SecretHash)?;
            let expires = *expires;
            Some(Issued { hash, expires })
        });
        let issued = issued.collect::<Option<_>>();
        let issued = issued.ok_or("a token's hash that is none");
        let issued = issued.map_err(content(&path))?;
        let authority = Authority::of(
            member.cluster,
            key(&dir.join(CA_KEY))?,
            certificate(&dir.join(CA_CERTIFICATE))?,
        );
        let identity = Self {
            authority,
            node: member.node,
            key: key(&dir.join(NODE_KEY))?,
            certificate: certificate(&dir.join(NODE_CERTIFICATE))?,
            founders,
            issued,
        };
        identity.tls().map_err(content(&dir))?;
        Ok(identity)
    }
}

fn content<E: fmt::Display>(path: &Path) -> impl FnOnce(E) -> PkiError {
    let path: PathBuf = path.to_owned();
    move |why| PkiError::Content {
        path,
        what: why.to_string(),
    }
}

fn read_text(path: &Path) -> Result<Option<String>, PkiError> {
    let bytes = read_bounded(path, FILE_BYTES_MAX)?;
    let text = bytes.map(String::from_utf8).transpose();
    text.map_err(content(path))
}

fn needed(path: &Path) -> Result<String, PkiError> {
    read_text(path)?.ok_or_else(|| content(path)("the file is missing"))
}

fn key(path: &Path) -> Result<NodeKey, PkiError> {
    NodeKey::from_pem(&needed(path)?).map_err(content(path))
}

fn certificate(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(needed(path)?.as_bytes())
        .map_err(|why| content(path)(format!("no certificate: {why:?}")))
}

/// RFC 7468 section 5.
fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut out = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let digits = text::base64_standard(certificate);
    for line in digits.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + "-----END CERTIFICATE-----\n"
}
