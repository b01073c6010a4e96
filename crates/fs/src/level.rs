//! Feature levels: which rules a volume's changes follow.
//!
//! Replicas apply entries again after a restart, perhaps with a newer binary than the one that applied them first,
//! and must come to the same state. So a rule that gives another result than before belongs to a level, and holds
//! from the entry on that raises the volume's level to it; what lies before that entry follows the old rule for ever.
//!
//! It must not know who raises a level, or where it is kept.

/// A level. Higher ones include all that lower ones brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u32);

impl Level {
    /// Of a volume whose level was never raised.
    pub const FIRST: Self = Self(0);
    /// From here on a directory with subdirectories moves at most [`MOVE_DEPTH_MAX`] levels down.
    pub const BOUNDED_MOVES: Self = Self(1);
    /// From here on a file uses the blocks that were written ([`crate::blocks`]); before, all up to its size, holes included.
    pub const COUNTED_BLOCKS: Self = Self(2);
    /// The highest that this binary knows.
    pub const NEWEST: Self = Self::COUNTED_BLOCKS;

    /// Whether a file's holes are not among what it uses.
    pub fn counts_blocks(self) -> bool {
        self >= Self::COUNTED_BLOCKS
    }

    /// How far below the root a directory may lie that takes another one with all that is below it; `None`: however
    /// far.
    pub fn move_depth_max(self) -> Option<usize> {
        (self >= Self::BOUNDED_MOVES).then_some(MOVE_DEPTH_MAX)
    }
}

/// How many levels below the root a directory may lie that takes a directory with subdirectories from elsewhere: as
/// deep as one path can name (Linux: 4,096 bytes, of which each name takes two at least). It bounds the walk to the root
/// that keeps a directory from becoming its own descendant, and nothing else: directories can be made deeper, and
/// everything that is there can be used, moved out and removed.
pub const MOVE_DEPTH_MAX: usize = 2_048;
