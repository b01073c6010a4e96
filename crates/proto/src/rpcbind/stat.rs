//! Result of GETSTAT: what was asked of each version of rpcbind, and how often (RFC 1833 section 2.2.1).

use super::NetidText;
use haven_xdr::Xdr;

/// How many procedures are counted (`RPCBSTAT_HIGHPROC`).
pub const RPCBSTAT_HIGHPROC: usize = 13;
/// Most programs that GETADDR counts are accepted for.
pub const ADDR_STATS_MAX: usize = 1024;
/// Most procedures that remote call counts are accepted for.
pub const RMTCALL_STATS_MAX: usize = 1024;

/// How often an address was asked for (`rpcbs_addrlist`).
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct AddrStat {
    /// Program number.
    pub prog: u32,
    /// Version of the program.
    pub vers: u32,
    /// How often it was told.
    pub success: i32,
    /// How often there was none.
    pub failure: i32,
    /// Over which network.
    pub netid: NetidText,
}

/// How often a call was made for others (`rpcbs_rmtcalllist`).
#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
pub struct RmtcallStat {
    /// Program number.
    pub prog: u32,
    /// Version of the program.
    pub vers: u32,
    /// Procedure within the program.
    pub proc: u32,
    /// How often it was answered.
    pub success: i32,
    /// How often it failed.
    pub failure: i32,
    /// How often it came by INDIRECT.
    pub indirect: i32,
    /// Over which network.
    pub netid: NetidText,
}

/// What was asked of one version (`rpcb_stat`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Xdr)]
pub struct RpcbStat {
    /// How often each procedure was called, by its number.
    pub info: [i32; RPCBSTAT_HIGHPROC],
    /// How many SETs succeeded.
    pub setinfo: i32,
    /// How many UNSETs succeeded.
    pub unsetinfo: i32,
    /// By address.
    #[xdr(list, max = ADDR_STATS_MAX)]
    pub addrinfo: Vec<AddrStat>,
    /// By remote call.
    #[xdr(list, max = RMTCALL_STATS_MAX)]
    pub rmtinfo: Vec<RmtcallStat>,
}

/// Result of GETSTAT (`rpcb_stat_byvers`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Xdr)]
pub struct RpcbStatByvers {
    /// Version 2: portmap.
    pub version2: RpcbStat,
    /// Version 3.
    pub version3: RpcbStat,
    /// Version 4.
    pub version4: RpcbStat,
}
