//! Whose rights a caller gets: AUTH_SYS ids as they came, or the anonymous ones (exports(5)).

use haven_fs::Cred;
use haven_rpc::Credential;

/// How callers' ids are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Squash {
    /// Uid and gid 0 become the anonymous ones.
    pub root: bool,
    /// Everybody becomes anonymous.
    pub all: bool,
    /// The anonymous user id.
    pub anonuid: u32,
    /// The anonymous group id.
    pub anongid: u32,
}

impl Squash {
    /// The customary anonymous id.
    pub const NOBODY: u32 = 65_534;

    /// The ids that permissions are checked with.
    pub fn apply(&self, credential: &Credential) -> Cred {
        let sys = match credential {
            Credential::Sys(sys) if !self.all => sys,
            _ => {
                return Cred {
                    uid: self.anonuid,
                    gid: self.anongid,
                    groups: Vec::new(),
                };
            }
        };
        let group = |gid: u32| {
            if self.root && gid == 0 {
                self.anongid
            } else {
                gid
            }
        };
        Cred {
            uid: if self.root && sys.uid == 0 {
                self.anonuid
            } else {
                sys.uid
            },
            gid: group(sys.gid),
            groups: sys.gids.iter().map(|&gid| group(gid)).collect(),
        }
    }
}

impl Default for Squash {
    /// As exports(5) does by default: root is squashed.
    fn default() -> Self {
        Self {
            root: true,
            all: false,
            anonuid: Self::NOBODY,
            anongid: Self::NOBODY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_rpc::AuthSys;

    fn sys(uid: u32, gid: u32, gids: &[u32]) -> Credential {
        let machine_name = bytes::Bytes::new();
        Credential::Sys(AuthSys {
            stamp: 0,
            machine_name,
            uid,
            gid,
            gids: gids.to_vec(),
        })
    }

    fn cred(uid: u32, gid: u32, groups: &[u32]) -> Cred {
        Cred {
            uid,
            gid,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn root_squash_takes_every_zero() {
        let squash = Squash::default();
        let nobody = Squash::NOBODY;
        assert_eq!(
            squash.apply(&sys(0, 0, &[0, 5])),
            cred(nobody, nobody, &[nobody, 5])
        );
        assert_eq!(squash.apply(&sys(7, 0, &[1])), cred(7, nobody, &[1]));
        assert_eq!(squash.apply(&sys(7, 8, &[9])), cred(7, 8, &[9]));
    }

    #[test]
    fn no_root_squash_lets_all_pass() {
        let squash = Squash {
            root: false,
            ..Squash::default()
        };
        assert_eq!(squash.apply(&sys(0, 0, &[0])), cred(0, 0, &[0]));
        assert_eq!(squash.apply(&Credential::None), cred(65_534, 65_534, &[]));
    }

    #[test]
    fn all_squash_drops_groups() {
        let squash = Squash {
            all: true,
            anonuid: 3,
            anongid: 4,
            ..Squash::default()
        };
        assert_eq!(squash.apply(&sys(7, 8, &[9])), cred(3, 4, &[]));
    }
}
