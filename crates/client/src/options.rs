//! What a client can be told.

use haven_proto::nfs3;
use std::time::Duration;

/// Settings of a [`Client`](crate::Client). The default waits for answers as a Linux kernel's hard mount does, but tries a
/// server that refuses it again at once; [`Options::hard_mount`] is as slow as the kernel at that, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// User id sent with every call.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids; AUTH_SYS has room for 16, more are not sent.
    pub gids: Vec<u32>,
    /// The client's name for itself; AUTH_SYS has room for 255 bytes, more are not sent.
    pub machine_name: String,
    /// How long a call may take in all; `None`: for ever.
    pub request_timeout: Option<Duration>,
    /// How long an answer may be outstanding before the connection is given up and everything
    /// unanswered is sent again over a new one.
    pub retransmit_timeout: Duration,
    /// How long one connection attempt may take. TCP asks again meanwhile.
    pub connect_timeout: Duration,
    /// From the beginning of one attempt to that of the next, after one that was in vain, or a connection that brought no
    /// answer or that the server ended; doubles up to `reconnect_pause_max`. A connection that broke after an answer is made anew at once.
    pub reconnect_pause_min: Duration,
    /// Longest pause between connection attempts.
    pub reconnect_pause_max: Duration,
    /// How often a call of NFSv3 is made anew when the server asks to come back later (NFS3ERR_JUKEBOX);
    /// then that is its result.
    pub jukebox_retries_max: u32,
    /// Pause before the first time; doubles up to `jukebox_pause_max`.
    pub jukebox_pause_min: Duration,
    /// Longest pause before a call is made anew.
    pub jukebox_pause_max: Duration,
    /// Most requests in flight.
    pub requests_max: usize,
    /// Port of the MOUNT program, at the same address.
    pub mount_port: u16,
    /// First transaction id; `None`: a random one.
    pub first_xid: Option<u32>,
}

/// For so long a Linux kernel's client hears nothing over a connection before it doubts it (`timeo=600`).
const KEEPALIVE: Duration = Duration::from_secs(60);

impl Options {
    /// As Linux's kernel client waits with `hard,tcp,timeo=600` (net/sunrpc/xprtsock.c): for answers 60 s, and 3 s before it
    /// tries again where it was refused. What this client feels, a mount feels.
    pub fn hard_mount() -> Self {
        Self {
            reconnect_pause_min: Duration::from_secs(3),
            reconnect_pause_max: Duration::from_secs(300),
            ..Self::default()
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            gids: Vec::new(),
            machine_name: "haven-client".to_owned(),
            request_timeout: None,
            retransmit_timeout: KEEPALIVE,
            connect_timeout: KEEPALIVE,
            reconnect_pause_min: Duration::from_millis(50),
            reconnect_pause_max: Duration::from_millis(250),
            // 16 seconds in all.
            jukebox_retries_max: 8,
            jukebox_pause_min: Duration::from_millis(100),
            jukebox_pause_max: Duration::from_secs(5),
            requests_max: 256,
            mount_port: nfs3::PORT,
            first_xid: None,
        }
    }
}
