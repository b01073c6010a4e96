//! What a check can find: each kind of problem with its name, its meaning and what to do about it.
//!
//! It must not know how problems are found.

use std::fmt;

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which kind of problem.
    pub problem: Problem,
    /// Where: the file or row, and what stands there.
    pub place: String,
}

impl Finding {
    pub(crate) fn new(problem: Problem, place: impl fmt::Display) -> Self {
        Self {
            problem,
            place: place.to_string(),
        }
    }
}

/// What to do about damage of this replica's state.
const ADVICE_DAMAGE: &str = "keep a copy of the data directory; in a cluster of three or more empty its store directory, and only \
     that, and let the node fetch everything from the others; else restore a backup";
/// What to do about what a crash may leave.
const ADVICE_NONE: &str = "nothing to do";

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident, $code:literal, $note:literal, $meaning:literal;)*) => {
        /// Kinds of problems.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Problem {
            $($(#[$doc])* #[doc = $meaning] $name,)*
        }

        impl Problem {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name for programs.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Whether the format allows it: a crash or an interrupted step may leave it, and opening
            /// the store or replaying the log settles it.
            pub const fn is_note(self) -> bool {
                match self { $(Self::$name => $note,)* }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

problems! {
    CurrentMissing, "current-missing", false, "there are generations, but nothing says which of them counts";
    CurrentDamaged, "current-damaged", false, "the file that names the valid generation is not what was written";
    MetadataMissing, "metadata-missing", false, "the metadata of the valid generation is gone: no file has a name any more";
    MetadataDamaged, "metadata-damaged", false, "the metadata database is not what was written: names or attributes are lost";
    RowUnknown, "row-unknown", false, "no version of this format writes such a row";
    RowDamaged, "row-damaged", false, "a row's key or value cannot be read";
    RootMissing, "root-missing", false, "the root directory is gone or is none: nothing can be reached";
    EntryUnmatched, "entry-unmatched", false, "the tables by name and by cookie disagree: LOOKUP and READDIR show different directories";
    EntryDangling, "entry-dangling", false, "a name stands for an inode that does not exist";
    EntryOutside, "entry-outside-directory", false, "a name is in something that is no directory";
    CookieBeyondNext, "cookie-beyond-next", false, "the directory will give this cookie again: READDIR will skip or repeat names";
    LinkCount, "link-count", false, "the link count is not the number of names: the file would vanish too early, or never";
    DirectoryTwice, "directory-linked-twice", false, "a directory has more than one name";
    ParentWrong, "parent-wrong", false, "a directory's parent is not the directory that holds its name";
    Orphan, "inode-without-name", false, "an inode cannot be reached: its space is lost";
    Unreachable, "directory-cycle", false, "directories lie in each other: they and all below cannot be reached from the root";
    EntryCount, "entry-count", false, "a directory's number of entries is wrong: RMDIR would refuse, or lose entries";
    DirectorySize, "directory-size", false, "a directory's size does not follow from its number of entries: replicas differ";
    DirectoryLinks, "directory-links", false, "a directory's link count is not 2 and one for each subdirectory";
    TargetMissing, "target-missing", false, "a symbolic link has no target";
    TargetStray, "target-stray", false, "a target belongs to no symbolic link";
    TargetSize, "target-size", false, "a symbolic link's size is not its target's length";
    ContentsStray, "contents-stray", false, "contents in a row belong to no regular file that keeps them there";
    ContentsLonger, "contents-longer", false, "contents in a row go past their file's size: they would come back when it grows";
    BlocksStray, "blocks-stray", false, "blocks are counted of something that has none";
    BlocksWrong, "blocks-wrong", false, "the blocks of a file are not those that its inode counts: du shows another number, replicas differ";
    FileTooLong, "file-too-long", false, "a file is longer than files may be: nobody can have written it";
    CountersMissing, "counters-missing", false, "the counters are gone: no file can be made";
    InodeCount, "inode-count", false, "the number of inodes is wrong: FSSTAT shows it";
    NextInode, "next-inode", false, "a number in use will be given again to a new file, which would replace the old one";
    SystemRow, "system-row-too-long", false, "a row of the system table is beyond its limit: no snapshot can carry it";
    PositionMissing, "position-missing", false, "there is a checkpoint, but not the log position it belongs to: replaying would apply entries twice";
    PositionTooLong, "position-too-long", false, "the log position is beyond its limit";
    GraveOfLiving, "grave-of-living", false, "an inode that exists is marked for removal: its data would be deleted";
    DataStray, "data-stray", false, "a data file's inode does not exist, and nothing says that it is to be removed: its space is lost";
    DataOfOther, "data-of-other-kind", false, "a data file belongs to an inode that is no regular file";
    DataName, "data-name", false, "what lies among the data files is none, or lies in the wrong directory";

    NotMade, "not-made", true, "the store was never used, or was being made when the node stopped; it will be made";
    NoCheckpoint, "no-checkpoint", true, "no checkpoint was made yet: everything is still in the log";
    LeftoverGeneration, "leftover-generation", true, "an interrupted step left another generation; it is removed at the next start";
    LeftoverFile, "leftover-file", true, "an interrupted step left a half-made file; it is removed or replaced at the next start";
    StrangeFile, "strange-file", true, "the store does not know this file and leaves it alone";
    DataBuried, "data-buried", true, "the data file of a removed inode, marked for removal: it goes with one of the next checkpoints";
    DataYounger, "data-younger", true, "a data file made after the last checkpoint: replaying the log makes its inode";
    DataUnneeded, "data-unneeded", true, "a data file of a file whose contents are in a row: it outgrew the row after the last checkpoint, replaying the log does it again";
    DataUncounted, "data-uncounted", true, "a data file has data where its inode counts no blocks: they were written after the last checkpoint, and replaying the log counts them";
    DataLonger, "data-longer", true, "a data file longer than its inode says: it was written after the last checkpoint, and replaying the log does it again, or what was cut off is not given back yet";
}

impl Problem {
    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        if self.is_note() {
            ADVICE_NONE
        } else {
            ADVICE_DAMAGE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_tell_kinds_apart() {
        let codes: BTreeSet<_> = Problem::ALL.iter().map(|p| p.code()).collect();
        assert_eq!(codes.len(), Problem::ALL.len());
    }
}
