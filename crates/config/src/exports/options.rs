//! The words in parentheses: what each does here, and what is said about those that do nothing.

use super::{ClientOptions, Notes};
use crate::suggest::nearest;
use crate::{NOBODY, Squash, SquashMode};

/// Options that are obeyed.
const OBEYED: &[&str] = &[
    "rw",
    "ro",
    "root_squash",
    "no_root_squash",
    "all_squash",
    "no_all_squash",
    "anonuid=",
    "anongid=",
    "secure",
    "insecure",
];

const ALWAYS_SYNC: &str = "without effect: Haven answers when data are durable on a majority";
const NO_SUBTREES: &str = "without effect: handles are checked by their keyed checksum";
const NO_DELAY: &str = "without effect: Haven gathers writes by itself";
const NO_MOUNTPOINTS: &str = "without effect: a service is one volume, with nothing mounted inside; nested exports have rules of their own";
const NO_ACLS: &str = "without effect: there are no ACLs";
const NO_LOCKS: &str = "without effect: the lock protocol has no rules of its own here";
const NO_PNFS: &str = "without effect: there is no pNFS";
const OWN_FSID: &str =
    "without effect: file system ids are Haven's own, equal on all nodes and for ever";
const NO_LABELS: &str = "without effect: there are no security labels";
const IS_SYS: &str = "nothing else is supported";

/// Options without effect, and why. A `=` at the end takes a value.
const NOTED: &[(&str, &str)] = &[
    ("sync", ALWAYS_SYNC),
    (
        "async",
        "not obeyed: Haven always answers after data are durable on a majority",
    ),
    ("subtree_check", "not obeyed: as if no_subtree_check"),
    ("no_subtree_check", NO_SUBTREES),
    ("wdelay", NO_DELAY),
    ("no_wdelay", NO_DELAY),
    ("hide", NO_MOUNTPOINTS),
    ("nohide", NO_MOUNTPOINTS),
    ("crossmnt", NO_MOUNTPOINTS),
    ("mp", NO_MOUNTPOINTS),
    ("mp=", NO_MOUNTPOINTS),
    ("mountpoint", NO_MOUNTPOINTS),
    ("mountpoint=", NO_MOUNTPOINTS),
    ("acl", NO_ACLS),
    ("no_acl", NO_ACLS),
    ("auth_nlm", NO_LOCKS),
    ("no_auth_nlm", NO_LOCKS),
    ("secure_locks", NO_LOCKS),
    ("insecure_locks", NO_LOCKS),
    ("pnfs", NO_PNFS),
    ("no_pnfs", NO_PNFS),
    ("fsid=", OWN_FSID),
    ("security_label", NO_LABELS),
    ("sec=sys", IS_SYS),
];

const NO_REFERRALS: &str = "referrals are not supported: remove the option";

/// Options that would promise what is not kept. A `=` at the end takes a value.
const REFUSED: &[(&str, &str)] = &[
    ("refer=", NO_REFERRALS),
    ("replicas=", NO_REFERRALS),
    (
        "sec=",
        "only \"sec=sys\" is supported yet: Kerberos would be promised, and not kept",
    ),
    ("xprtsec=", "TLS is not supported yet"),
];

/// Options as they are being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft {
    read_only: bool,
    secure: bool,
    root_squash: bool,
    all_squash: bool,
    anonuid: u32,
    anongid: u32,
}

impl Default for Draft {
    fn default() -> Self {
        let usual = ClientOptions::default();
        Self {
            read_only: usual.read_only,
            secure: usual.secure,
            root_squash: true,
            all_squash: false,
            anonuid: NOBODY,
            anongid: NOBODY,
        }
    }
}

impl Draft {
    /// Reads options with commas between them; of those that contradict each other the last one counts.
    pub(super) fn apply_all(
        &mut self,
        options: &str,
        line: usize,
        notes: &mut Notes,
    ) -> Result<(), String> {
        options
            .split(',')
            .filter(|option| !option.is_empty())
            .try_for_each(|option| self.apply(option, line, notes))
    }

    fn apply(&mut self, option: &str, line: usize, notes: &mut Notes) -> Result<(), String> {
        match option {
            "rw" => self.read_only = false,
            "ro" => self.read_only = true,
            "root_squash" => self.root_squash = true,
            "no_root_squash" => self.root_squash = false,
            "all_squash" => self.all_squash = true,
            "no_all_squash" => self.all_squash = false,
            "secure" => self.secure = true,
            "insecure" => self.secure = false,
            _ => match option.split_once('=') {
                Some(("anonuid", value)) => self.anonuid = id(option, value)?,
                Some(("anongid", value)) => self.anongid = id(option, value)?,
                _ => return without_effect(option, line, notes),
            },
        }
        Ok(())
    }

    pub(super) fn finish(self) -> ClientOptions {
        let mode = match (self.all_squash, self.root_squash) {
            (true, _) => SquashMode::All,
            (false, true) => SquashMode::Root,
            (false, false) => SquashMode::None,
        };
        ClientOptions {
            read_only: self.read_only,
            secure: self.secure,
            squash: Squash {
                mode,
                anonuid: self.anonuid,
                anongid: self.anongid,
            },
        }
    }
}

/// A user or group id. The highest number means "no change" to the system.
fn id(option: &str, value: &str) -> Result<u32, String> {
    let plain = value.bytes().all(|b| b.is_ascii_digit());
    let id = value.parse().ok().filter(|id| plain && *id != u32::MAX);
    id.ok_or_else(|| format!("\"{option}\": an id is a number from 0 to 4294967294"))
}

fn without_effect(option: &str, line: usize, notes: &mut Notes) -> Result<(), String> {
    let same = |known: &str| match known.strip_suffix('=') {
        Some(key) => option.split_once('=').is_some_and(|(k, _)| k == key),
        None => option == known,
    };
    if let Some((known, why)) = NOTED.iter().find(|(known, _)| same(known)) {
        notes.option(line, known.trim_end_matches('='), why);
        return Ok(());
    }
    if let Some((_, why)) = REFUSED.iter().find(|(known, _)| same(known)) {
        return Err(format!("\"{option}\": {why}"));
    }
    let key = option.split_once('=').map_or(option, |(key, _)| key);
    let others = NOTED.iter().chain(REFUSED).map(|(known, _)| *known);
    let known = OBEYED.iter().copied().chain(others);
    Err(match nearest(key, known.map(|k| k.trim_end_matches('='))) {
        Some(near) if near == key => {
            format!("\"{option}\": the option \"{key}\" is not written so")
        }
        Some(near) => format!("there is no option \"{option}\": did you mean \"{near}\"?"),
        None => format!("there is no option \"{option}\""),
    })
}
