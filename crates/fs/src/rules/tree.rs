//! The one rule about the shape of the tree: no directory lies below itself.
//!
//! Whether one directory lies below another is found by going up from the lower one. That costs a step for each level,
//! so it is asked only where the answer is not plain, and no further than a level's rules say.

use crate::{Attr, FsError, FsResult, Ino, Kind, Level};

/// Links of a directory without subdirectories.
const LINKS_ALONE: u32 = 2;

/// Refuses a rename that would put directory `source`, found in `from_dir`, into itself or below. `parent_of` gives a
/// directory's parent; the root is its own.
///
/// Asks nothing within one directory, nor for a directory without subdirectories; otherwise for each level between
/// `to_dir` and the root, at most [`Level::move_depth_max`] and one.
///
/// # Errors
/// [`FsError::Invalid`] when it would; [`FsError::NameTooLong`] when `to_dir` lies too deep to find out.
pub fn check_not_into_itself(
    level: Level,
    source: &Attr,
    from_dir: Ino,
    to_dir: Ino,
    parent_of: impl FnMut(Ino) -> FsResult<Ino>,
) -> FsResult<()> {
    if source.kind != Kind::Directory || from_dir == to_dir {
        return Ok(());
    }
    match lies_within(to_dir, source, level.move_depth_max(), parent_of)? {
        false => Ok(()),
        true => Err(FsError::Invalid),
    }
}

/// Refuses a rename of something in `from_dir` onto `target`, if that is a directory with `from_dir` in or below it.
/// From [`Level::BOUNDED_MOVES`] on this refuses nothing: such a target is not empty, and is refused for that.
///
/// # Errors
/// [`FsError::NotEmpty`] when it is.
pub fn check_not_onto_ancestor(
    level: Level,
    target: &Attr,
    from_dir: Ino,
    to_dir: Ino,
    parent_of: impl FnMut(Ino) -> FsResult<Ino>,
) -> FsResult<()> {
    let plain = level >= Level::BOUNDED_MOVES || from_dir == to_dir;
    if plain || target.kind != Kind::Directory {
        return Ok(());
    }
    match lies_within(from_dir, target, None, parent_of)? {
        false => Ok(()),
        true => Err(FsError::NotEmpty),
    }
}

/// Whether directory `inner` is `outer` or lies below it.
fn lies_within(
    inner: Ino,
    outer: &Attr,
    depth_max: Option<usize>,
    mut parent_of: impl FnMut(Ino) -> FsResult<Ino>,
) -> FsResult<bool> {
    if inner == outer.ino {
        return Ok(true);
    }
    if outer.nlink <= LINKS_ALONE {
        return Ok(false);
    }
    let (mut at, mut depth) = (inner, 0);
    loop {
        let parent = parent_of(at)?;
        if parent == at {
            return Ok(false);
        }
        if parent == outer.ino {
            return Ok(true);
        }
        depth += 1;
        if depth_max.is_some_and(|max| depth > max) {
            return Err(FsError::NameTooLong);
        }
        at = parent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MOVE_DEPTH_MAX;
    use crate::rules::{ROOT_INO, root_attr};

    /// The directory `ino` with so many links.
    fn dir(ino: u64, nlink: u32) -> Attr {
        Attr {
            ino: Ino(ino),
            nlink,
            ..root_attr()
        }
    }

    /// In a chain of directories, each below the one before: who is above.
    fn above(ino: Ino) -> Ino {
        Ino(ino.0.saturating_sub(1).max(ROOT_INO.0))
    }

    /// What a move of `source` out of `from_dir` comes to, and how many levels were asked for.
    fn moving(level: Level, source: &Attr, from_dir: u64, to_dir: u64) -> (FsResult<()>, usize) {
        let mut asked = 0;
        let result = check_not_into_itself(level, source, Ino(from_dir), Ino(to_dir), |ino| {
            asked += 1;
            Ok(above(ino))
        });
        (result, asked)
    }

    /// The directory in the chain that is so many levels below the root.
    const fn deep(levels: usize) -> u64 {
        ROOT_INO.0 + levels as u64
    }

    #[test]
    fn within_one_directory_nobody_walks() {
        let deep = deep(1_000_000);
        for level in [Level::FIRST, Level::NEWEST] {
            assert_eq!(moving(level, &dir(u64::MAX, 9), deep, deep), (Ok(()), 0));
            let target = dir(u64::MAX, 9);
            let nobody = |_| panic!("it walked");
            assert_eq!(
                check_not_onto_ancestor(level, &target, Ino(deep), Ino(deep), nobody),
                Ok(())
            );
        }
    }

    #[test]
    fn a_directory_without_subdirectories_goes_anywhere_but_into_itself() {
        let alone = dir(u64::MAX, LINKS_ALONE);
        assert_eq!(
            moving(Level::NEWEST, &alone, 2, deep(1_000_000)),
            (Ok(()), 0)
        );
        assert_eq!(
            moving(Level::NEWEST, &alone, 2, u64::MAX),
            (Err(FsError::Invalid), 0)
        );
    }

    #[test]
    fn the_walk_of_a_move_has_a_bound() {
        let moved = dir(u64::MAX, 3);
        let (result, asked) = moving(Level::NEWEST, &moved, 2, deep(MOVE_DEPTH_MAX));
        assert_eq!((result, asked), (Ok(()), MOVE_DEPTH_MAX + 1));
        for levels in [MOVE_DEPTH_MAX + 1, 1_000_000] {
            let (result, asked) = moving(Level::NEWEST, &moved, 2, deep(levels));
            assert_eq!(
                (result, asked),
                (Err(FsError::NameTooLong), MOVE_DEPTH_MAX + 1)
            );
        }
        // Its own descendant, near enough to be found.
        let outer = dir(deep(500_000), 3);
        let (result, _) = moving(Level::NEWEST, &outer, deep(499_999), deep(500_007));
        assert_eq!(result, Err(FsError::Invalid));
    }

    #[test]
    fn before_the_level_there_is_no_bound() {
        let moved = dir(u64::MAX, 3);
        let (result, asked) = moving(Level::FIRST, &moved, 2, deep(100_000));
        assert_eq!((result, asked), (Ok(()), 100_001));
        let target = dir(deep(7), 3);
        let onto = |level| {
            let from_dir = Ino(deep(100_000));
            check_not_onto_ancestor(level, &target, from_dir, ROOT_INO, |ino| Ok(above(ino)))
        };
        assert_eq!(onto(Level::FIRST), Err(FsError::NotEmpty));
        assert_eq!(onto(Level::NEWEST), Ok(()), "left to who counts entries");
    }
}
