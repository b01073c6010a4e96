//! TLS between nodes: which certificates are taken, and what a refusal means in words.
//!
//! The standard verification of chain, names and key usage, with the cluster's authority as the only root. A node's
//! certificate carries a name that says cluster and node, so that connecting to node 3 proves that node 3 answers.
//! Whoever has no certificate may connect too: it wants one, and is heard for nothing else.
//!
//! It must not know connections, nor who is a member.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage,
    RootCertStore, ServerConfig, SignatureScheme,
};

use crate::authority::{Fingerprint, KeyId, NodeKey, sha256};
use crate::error::PkiError;

/// The name in the certificate of every node of every cluster.
pub(crate) const MEMBER: &str = "member.haven";

/// What the certificate of a node says.
pub(crate) fn name_text(cluster: &str, node: u64) -> String {
    format!("node-{node}.{cluster}.haven")
}

/// Whom a machine connects to that knows no node yet.
///
/// # Errors
/// Never.
pub fn member_name() -> Result<ServerName<'static>, PkiError> {
    server_name(MEMBER.to_owned())
}

fn server_name(name: String) -> Result<ServerName<'static>, PkiError> {
    ServerName::try_from(name).map_err(|why| PkiError::Crypto {
        what: "naming a node",
        why: why.to_string(),
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// This node's ends of connections with other members.
#[derive(Clone)]
pub struct Tls {
    cluster: String,
    key: KeyId,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls in {}", self.cluster)
    }
}

impl Tls {
    pub(crate) fn new(
        cluster: &str,
        key: &NodeKey,
        certificate: &CertificateDer<'static>,
        authority: &CertificateDer<'static>,
    ) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        roots
            .add(authority.clone())
            .map_err(PkiError::tls("reading the authority's certificate"))?;
        let roots = Arc::new(roots);
        // With the authority, so that a machine that knows its fingerprint can check.
        let chain = vec![certificate.clone(), authority.clone()];
        let secret = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_der()));
        let versions = &[&rustls::version::TLS13];
        let what = "setting up TLS";

        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(PkiError::tls(what))?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), secret())
            .map_err(PkiError::tls("using this node's certificate"))?;
        client.resumption = Resumption::disabled();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|why| PkiError::Crypto {
                what,
                why: why.to_string(),
            })?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(PkiError::tls(what))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, secret())
            .map_err(PkiError::tls("using this node's certificate"))?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            cluster: cluster.to_owned(),
            key: key.public()?.id(),
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The name of this node's own key.
    #[must_use]
    pub const fn key(&self) -> KeyId {
        self.key
    }

    /// For connections that this node begins.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// For connections that come in.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// How to call a node of this cluster when connecting to it.
    ///
    /// # Errors
    /// Never for an id of a cluster made here.
    pub fn name_of(&self, node: u64) -> Result<ServerName<'static>, PkiError> {
        server_name(name_text(&self.cluster, node))
    }

    /// The key in a certificate that was verified, if it is that of node `node`.
    #[must_use]
    pub fn key_of(&self, chain: &[CertificateDer<'_>], node: u64) -> Option<KeyId> {
        let certificate = ParsedCertificate::try_from(chain.first()?).ok()?;
        let name = self.name_of(node).ok()?;
        verify_server_name(&certificate, &name).ok()?;
        let key = certificate.subject_public_key_info();
        Some(KeyId(sha256(&key)))
    }
}

/// For a machine without a certificate that knows an authority by its fingerprint only.
///
/// # Errors
/// Never.
pub fn join_config(authority: Fingerprint) -> Result<Arc<ClientConfig>, PkiError> {
    let verifier = Arc::new(ByFingerprint(authority));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(PkiError::tls("setting up TLS"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Takes members of the cluster whose authority has this fingerprint, and no others.
#[derive(Debug)]
struct ByFingerprint(Fingerprint);

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let named = intermediates
            .iter()
            .find(|shown| Fingerprint::of(shown) == self.0);
        let authority = named.ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|why| Error::General(why.to_string()))?;
        usual.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What an error of TLS means for an operator.
#[must_use]
pub fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "it shows a certificate of another cluster; a machine changes clusters with `haven join` and an empty \
                 data directory"
                    .into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "it is another node of this cluster than the one that should have this address".into()
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                "its certificate does not count at the time that this machine's clock shows: look at the clock \
                 (Haven's own certificates never expire)"
                    .into()
            }
            why => format!("its certificate is no good: {why:?}"),
        },
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::DecryptError
            | AlertDescription::CertificateUnknown,
        ) => "it refuses our certificate: it belongs to another cluster".into(),
        Error::AlertReceived(alert) => format!("it ended the TLS handshake ({alert:?})"),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnexpectedMessage(_))
        | Error::InappropriateMessage { .. } => "it does not speak TLS: no Haven node, or one of a version without TLS".into(),
        Error::PeerIncompatible(why) => format!("it speaks no TLS that we speak ({why:?}): no Haven node?"),
        why => format!("TLS failed: {why}"),
    }
}
