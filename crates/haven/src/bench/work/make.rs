//! Making files and removing them.

use super::Stock;
use crate::bench::engine::{Call, Lane, Next, Progress, Workload};
use crate::bench::pattern::Pattern;
use crate::bench::spec::Stable;
use crate::bench::wire::{Fields, Results};
use bytes::Bytes;
use haven_proto::nfs3::{Fh3, Proc3, StableHow};

/// `createmode3` GUARDED: an existing name is an error.
const GUARDED: u32 = 1;

/// What is done with a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Then {
    Nothing,
    /// It is filled, durably.
    Write {
        bytes: usize,
        stable: Stable,
    },
    Remove,
}

/// Makes files, each connection in a directory of its own.
pub(in crate::bench) struct Make<'a> {
    /// Per connection.
    dirs: &'a [Fh3],
    then: Then,
    made: u64,
    lanes: Vec<State>,
}

#[derive(Debug, Clone, Default)]
struct State {
    step: Step,
    number: u64,
    file: Vec<u8>,
    verf: [u8; 8],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Create,
    Write,
    Commit,
    Remove,
}

impl<'a> Make<'a> {
    pub(in crate::bench) fn new(dirs: &'a [Fh3], lanes: usize, then: Then) -> Self {
        Self {
            dirs,
            then,
            made: 0,
            lanes: vec![State::default(); lanes],
        }
    }
}

/// A file's name.
pub(super) fn name(number: u64) -> Bytes {
    format!("f{number:08}").into()
}

fn put_create(w: &mut Fields<'_>, dir: &Fh3, name: &[u8]) {
    w.opaque(&dir.0);
    w.opaque(name);
    w.u32(GUARDED);
    w.u32(1); // A mode is set ...
    w.u32(0o644);
    for _ in 0..5 {
        w.u32(0); // ... and no uid, gid, size, atime, mtime.
    }
}

/// The new file's handle.
fn take_create<'r>(results: &mut Results<'r>) -> Result<&'r [u8], String> {
    results.ok(Proc3::Create)?;
    if results.u32()? == 0 {
        return Err("CREATE gives no handle: this server cannot be measured".into());
    }
    let handle = results.opaque()?;
    results.skip_attributes()?;
    results.skip_wcc()?;
    results.end()?;
    Ok(handle)
}

/// How durable what was written is, and the verifier.
pub(super) fn take_write(
    results: &mut Results<'_>,
    bytes: usize,
    stable: Stable,
) -> Result<(StableHow, [u8; 8]), String> {
    results.ok(Proc3::Write)?;
    results.skip_wcc()?;
    let count = results.u32()? as usize;
    if count != bytes {
        return Err(format!("WRITE took {count} of {bytes} bytes"));
    }
    let committed = StableHow::from_wire(results.u32()?)
        .ok_or("WRITE answers with a durability that does not exist")?;
    if stable == Stable::FileSync && committed != StableHow::FileSync {
        return Err("WRITE was to be FILE_SYNC, but the server answers that it was not".into());
    }
    let verf = results.take()?;
    results.end()?;
    Ok((committed, verf))
}

/// Checks the result of a COMMIT against the verifier of the WRITEs before it.
pub(super) fn take_commit(results: &mut Results<'_>, verf: [u8; 8]) -> Result<(), String> {
    results.ok(Proc3::Commit)?;
    results.skip_wcc()?;
    if results.take()? != verf {
        return Err(
            "the write verifier changed between WRITE and COMMIT: the server has restarted".into(),
        );
    }
    results.end()
}

pub(super) fn put_write(
    w: &mut Fields<'_>,
    file: &[u8],
    offset: u64,
    stable: Stable,
    data: std::ops::Range<usize>,
) {
    let how = match stable {
        Stable::Commit => StableHow::Unstable,
        Stable::FileSync => StableHow::FileSync,
    };
    w.opaque(file);
    w.u64(offset);
    w.u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
    w.u32(how.to_wire());
    w.data(data);
}

/// COMMIT of a whole file.
pub(super) fn put_commit(w: &mut Fields<'_>, file: &[u8]) {
    w.opaque(file);
    w.u64(0);
    w.u32(0);
}

fn put_remove(w: &mut Fields<'_>, dir: &Fh3, name: &[u8]) {
    w.opaque(&dir.0);
    w.opaque(name);
}

/// Checks the result of a REMOVE.
fn take_remove(results: &mut Results<'_>) -> Result<(), String> {
    results.ok(Proc3::Remove)?;
    results.skip_wcc()?;
    results.end()
}

impl Workload for Make<'_> {
    fn next(&mut self, lane: Lane, may_begin: bool, call: Call<'_>) -> Next {
        let dir = &self.dirs[lane.connection];
        let state = &mut self.lanes[lane.index];
        match (state.step, self.then) {
            (Step::Create, _) => {
                if !may_begin {
                    return Next::Idle;
                }
                state.number = self.made;
                self.made += 1;
                let name = name(state.number);
                call.write(Proc3::Create, |w| put_create(w, dir, &name));
                return Next::Begin;
            }
            (Step::Write, Then::Write { bytes, stable }) => call.write(Proc3::Write, |w| {
                let data = Pattern::block(state.number as usize, 0, bytes);
                put_write(w, &state.file, 0, stable, data);
            }),
            (Step::Write | Step::Commit, _) => {
                call.write(Proc3::Commit, |w| put_commit(w, &state.file));
            }
            (Step::Remove, _) => {
                let name = name(state.number);
                call.write(Proc3::Remove, |w| put_remove(w, dir, &name));
            }
        }
        Next::Continue
    }

    fn reply(&mut self, lane: Lane, results: &mut Results<'_>) -> Result<Progress, String> {
        let state = &mut self.lanes[lane.index];
        let mut bytes_done = 0;
        state.step = match (state.step, self.then) {
            (Step::Create, then) => {
                let handle = take_create(results)?;
                state.file.clear();
                state.file.extend_from_slice(handle);
                match then {
                    Then::Nothing => Step::Create,
                    Then::Write { .. } => Step::Write,
                    Then::Remove => Step::Remove,
                }
            }
            (Step::Write, Then::Write { bytes, stable }) => {
                let (committed, verf) = take_write(results, bytes, stable)?;
                state.verf = verf;
                bytes_done = bytes as u64;
                // As clients do: what is durable already needs no COMMIT.
                match committed {
                    StableHow::FileSync => Step::Create,
                    _ => Step::Commit,
                }
            }
            (Step::Write | Step::Commit, then) => {
                take_commit(results, state.verf)?;
                if let Then::Write { bytes, .. } = then {
                    bytes_done = bytes as u64;
                }
                Step::Create
            }
            (Step::Remove, _) => {
                take_remove(results)?;
                Step::Create
            }
        };
        Ok(match state.step {
            Step::Create => Progress::Done(bytes_done),
            _ => Progress::More,
        })
    }
}

/// Makes files and remembers their handles.
pub(in crate::bench) struct Fill<'a> {
    dir: &'a Fh3,
    files: u64,
    /// Per lane: the number of the file under way.
    numbers: Vec<u64>,
    begun: u64,
    made: Vec<(Bytes, Fh3)>,
}

impl<'a> Fill<'a> {
    pub(in crate::bench) fn new(dir: &'a Fh3, files: u64, lanes: usize) -> Self {
        Self {
            dir,
            files,
            numbers: vec![0; lanes],
            begun: 0,
            made: Vec::new(),
        }
    }

    pub(in crate::bench) fn into_stock(self) -> Stock {
        Stock {
            dir: self.dir.clone(),
            files: self.made,
        }
    }
}

impl Workload for Fill<'_> {
    fn next(&mut self, lane: Lane, _: bool, call: Call<'_>) -> Next {
        if self.begun == self.files {
            return Next::Idle;
        }
        let number = self.begun;
        self.begun += 1;
        self.numbers[lane.index] = number;
        call.write(Proc3::Create, |w| put_create(w, self.dir, &name(number)));
        Next::Begin
    }

    fn reply(&mut self, lane: Lane, results: &mut Results<'_>) -> Result<Progress, String> {
        let handle = take_create(results)?;
        self.made.push((
            name(self.numbers[lane.index]),
            Fh3(Bytes::copy_from_slice(handle)),
        ));
        Ok(Progress::Done(0))
    }
}

/// Removes names from a directory.
pub(in crate::bench) struct Remove<'a> {
    pub(in crate::bench) dir: &'a Fh3,
    pub(in crate::bench) names: Vec<Bytes>,
}

impl Workload for Remove<'_> {
    fn next(&mut self, _: Lane, _: bool, call: Call<'_>) -> Next {
        let Some(name) = self.names.pop() else {
            return Next::Idle;
        };
        call.write(Proc3::Remove, |w| put_remove(w, self.dir, &name));
        Next::Begin
    }

    fn reply(&mut self, _: Lane, results: &mut Results<'_>) -> Result<Progress, String> {
        take_remove(results)?;
        Ok(Progress::Done(0))
    }
}
