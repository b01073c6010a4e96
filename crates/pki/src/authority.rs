//! The cluster's authority and what it certifies.
//!
//! It must not know files or connections.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use crate::error::PkiError;
use crate::{text, tls};

/// Length of a P-256 point as it is written in certificates (SEC 1 section 2.3.3, uncompressed).
const POINT_LEN: usize = 65;

/// Bytes of a cluster's id.
const CLUSTER_LEN: usize = 16;

/// SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256 of a public key (its SubjectPublicKeyInfo, RFC 5280 section 4.1): names the key of a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 32]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for KeyId {
    type Err = PkiError;

    fn from_str(digits: &str) -> Result<Self, PkiError> {
        text::from_hex(digits)
            .map(Self)
            .ok_or_else(|| crypto("reading the name of a key", "not 64 hexadecimal digits"))
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut out = [0; N];
    getrandom::fill(&mut out).map_err(|why| PkiError::Random(why.to_string()))?;
    Ok(out)
}

/// A node's key that is to be certified.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey([u8; POINT_LEN]);

impl PublicKey {
    /// Takes what came from elsewhere: an uncompressed point of P-256.
    ///
    /// # Errors
    /// When it is none by its form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PkiError> {
        match <[u8; POINT_LEN]>::try_from(bytes) {
            Ok(point) if point[0] == 4 => Ok(Self(point)),
            _ => Err(crypto("reading a public key", "not a point of P-256")),
        }
    }

    /// Takes what [`PublicKey::to_hex`] gave.
    ///
    /// # Errors
    /// When it is no key by its form.
    pub fn from_hex(digits: &str) -> Result<Self, PkiError> {
        let bytes = text::from_hex::<POINT_LEN>(digits);
        Self::from_bytes(&bytes.ok_or_else(|| crypto("reading a public key", "not hexadecimal"))?)
    }

    /// Hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        text::hex(&self.0)
    }

    /// What [`PublicKey::from_bytes`] takes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its name in the membership.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(sha256(&self.subject_public_key_info()))
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn crypto(what: &'static str, why: &str) -> PkiError {
    PkiError::Crypto {
        what,
        why: why.into(),
    }
}

/// A node's key pair.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// Makes one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn create() -> Result<Self, PkiError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        pair.map(Self).map_err(PkiError::crypto("making a key"))
    }

    /// Reads one that [`NodeKey::to_pem`] wrote.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        let pair = KeyPair::from_pem(pem).map_err(PkiError::crypto("reading a key"))?;
        // Of another kind it would be refused by its peers only.
        PublicKey::from_bytes(pair.der_bytes())?;
        Ok(Self(pair))
    }

    /// PKCS #8 in PEM. Secret.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    pub(crate) fn to_der(&self) -> Vec<u8> {
        self.0.serialize_der()
    }

    /// What is to be certified.
    ///
    /// # Errors
    /// Never for a key made here.
    pub fn public(&self) -> Result<PublicKey, PkiError> {
        PublicKey::from_bytes(self.0.der_bytes())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}

/// The cluster's authority: certifies the keys of its nodes.
pub struct Authority {
    cluster: String,
    key: NodeKey,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// Makes the authority of a new cluster, with a random id.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn create() -> Result<Self, PkiError> {
        let cluster = text::hex(&random::<CLUSTER_LEN>()?);
        let key = NodeKey::create()?;
        let made = params(&cluster)?.self_signed(&key.0);
        let made = made.map_err(PkiError::crypto("making the authority"))?;
        Ok(Self {
            certificate: made.der().clone(),
            cluster,
            key,
        })
    }

    /// Puts it together from what was kept.
    #[must_use]
    pub const fn of(cluster: String, key: NodeKey, certificate: CertificateDer<'static>) -> Self {
        Self {
            cluster,
            key,
            certificate,
        }
    }

    /// The cluster's id: 32 hexadecimal digits.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The certificate that nodes trust.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What a token names it by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The authority's own key. Secret.
    #[must_use]
    pub const fn key(&self) -> &NodeKey {
        &self.key
    }

    /// Certifies that `key` is node `node` of this cluster.
    ///
    /// # Errors
    /// When the key is no key.
    pub fn issue(&self, node: u64, key: &PublicKey) -> Result<CertificateDer<'static>, PkiError> {
        let what = "making a certificate";
        let names = [tls::name_text(&self.cluster, node), tls::MEMBER.to_owned()];
        let mut own = CertificateParams::new(names).map_err(PkiError::crypto(what))?;
        own.distinguished_name = name(&format!("Haven node {node} of {}", self.cluster));
        own.not_before = date_time_ymd(1970, 1, 1);
        own.not_after = date_time_ymd(9999, 12, 31);
        own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        own.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        own.use_authority_key_identifier_extension = true;
        let issuer = Issuer::new(params(&self.cluster)?, &self.key.0);
        let made = own.signed_by(key, &issuer);
        Ok(made.map_err(PkiError::crypto(what))?.der().clone())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority of {}", self.cluster)
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// What the authority's certificate says: the same whenever it is asked for, because certificates name it by this.
fn params(cluster: &str) -> Result<CertificateParams, PkiError> {
    let mut own =
        CertificateParams::new(Vec::new()).map_err(PkiError::crypto("describing the authority"))?;
    own.distinguished_name = name(&format!("Haven cluster {cluster}"));
    own.not_before = date_time_ymd(1970, 1, 1);
    own.not_after = date_time_ymd(9999, 12, 31);
    own.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    own.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(own)
}
