//! What can go wrong between us and the kernel, and what to do about it.
//!
//! Must not know: who asked.

use std::net::IpAddr;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, PlatformError>;

/// The kernel, or a helper process, did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The process lacks a capability.
    #[error(
        "{doing}: not permitted. Run as root, or give the service CAP_NET_ADMIN and CAP_NET_RAW \
         (systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW)"
    )]
    NotPermitted {
        /// What was tried.
        doing: String,
    },
    /// There is no such interface.
    #[error("no network interface named {name:?}; `ip link` lists those there are")]
    NoInterface {
        /// The name asked for.
        name: String,
    },
    /// No interface is in the address's subnet.
    #[error(
        "no network interface has an address in the subnet of {ip}; name the interface in the \
         configuration, or give this machine an address in that subnet"
    )]
    NoSubnet {
        /// The floating address.
        ip: IpAddr,
    },
    /// The kernel refused.
    #[error("{doing}: {errno}")]
    Kernel {
        /// What was tried.
        doing: String,
        /// The kernel's answer.
        errno: rustix::io::Errno,
    },
    /// The kernel or the guard answered something that makes no sense.
    #[error("{doing}: unexpected answer ({what})")]
    Garbled {
        /// What was tried.
        doing: String,
        /// What was wrong with the answer.
        what: &'static str,
    },
    /// A value cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// The address guard is not there any more, or does not answer.
    #[error("the address guard {0}; addresses must not be held without it: start it again first")]
    Guard(&'static str),
    /// Any other failed system call.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// The failure.
        source: std::io::Error,
    },
}

impl PlatformError {
    /// Wraps the kernel's answer to `doing`.
    pub(crate) fn kernel(doing: impl Into<String>, errno: rustix::io::Errno) -> Self {
        let doing = doing.into();
        if matches!(errno, rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) {
            return Self::NotPermitted { doing };
        }
        Self::Kernel { doing, errno }
    }

    /// Wraps a failed call of the standard library.
    pub(crate) fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        match rustix::io::Errno::from_io_error(&source) {
            Some(errno) => Self::kernel(doing, errno),
            None => Self::Io {
                doing: doing.into(),
                source,
            },
        }
    }
}
