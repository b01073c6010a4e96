//! What can go wrong, in words for operators.

use std::path::PathBuf;

/// Why an identity, a certificate or a token is no good.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error(
        "{path}: {what}; restore the file from a backup, or remove this node from the cluster and let it join again"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// There is no identity.
    #[error(
        "there is no {path}: this machine belongs to no cluster yet. Make a cluster with `haven init`, or join one \
         with `haven join TOKEN` (the token comes from `haven token` on a member)"
    )]
    NoIdentity {
        /// The file that is missing.
        path: PathBuf,
    },
    /// The library for certificates or TLS refused something.
    #[error("{what}: {why}")]
    Crypto {
        /// What was tried.
        what: &'static str,
        /// What the library says.
        why: String,
    },
    /// The system has no random numbers to give.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// A token is no token.
    #[error(
        "the token is no good: {0}; copy it again as a whole, or make a new one with `haven token` on a member"
    )]
    Token(&'static str),
}

impl PkiError {
    pub(crate) fn crypto(what: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |why| Self::Crypto {
            what,
            why: why.to_string(),
        }
    }

    pub(crate) fn tls(what: &'static str) -> impl FnOnce(rustls::Error) -> Self {
        move |why| Self::Crypto {
            what,
            why: why.to_string(),
        }
    }
}
