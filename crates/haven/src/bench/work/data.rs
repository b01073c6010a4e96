//! Reading and writing large files: one file per connection, blocks in order or at random places.
//!
//! Written data are made durable with a COMMIT when as many blocks were written as the file has, and at the end, so
//! that a run's time always includes it.

use super::make::{put_commit, put_write, take_commit, take_write};
use crate::bench::engine::{Call, Lane, Next, Progress, Workload};
use crate::bench::pattern::{Pattern, Random};
use crate::bench::spec::Stable;
use crate::bench::wire::Results;
use haven_proto::nfs3::{Fh3, Proc3, StableHow};

/// How much of a READ's reply is looked at when its data are not.
const HEAD_BYTES: usize = 256;

/// A file of a connection.
#[derive(Debug, Clone)]
pub(in crate::bench) struct DataFile {
    pub(in crate::bench) handle: Fh3,
    /// Says what its data are: see [`Pattern::block`].
    pub(in crate::bench) number: usize,
}

/// What is done with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Access {
    /// Read; and compared, if `verify`.
    Read {
        verify: bool,
    },
    Write(Stable),
}

/// Which block comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Order {
    Sequential,
    Random,
}

/// Reads or writes blocks.
pub(in crate::bench) struct Data<'a> {
    access: Access,
    order: Order,
    block: usize,
    blocks: u64,
    /// Per connection.
    files: Vec<State<'a>>,
    /// Per lane: the offset under way; none in a COMMIT.
    offsets: Vec<Option<u64>>,
    random: Random,
    pattern: &'a Pattern,
}

#[derive(Debug)]
struct State<'a> {
    file: &'a DataFile,
    /// Blocks begun in this pass over the file.
    begun: u64,
    in_flight: usize,
    committing: bool,
    /// The verifier of what was written and is not durable yet.
    unstable: Option<[u8; 8]>,
}

impl<'a> Data<'a> {
    pub(in crate::bench) fn new(
        access: Access,
        order: Order,
        (block, file_size): (usize, u64),
        files: &'a [DataFile],
        lanes: usize,
        (pattern, seed): (&'a Pattern, u64),
    ) -> Self {
        let state = |file| State {
            file,
            begun: 0,
            in_flight: 0,
            committing: false,
            unstable: None,
        };
        Self {
            access,
            order,
            block,
            blocks: file_size / block as u64,
            files: files.iter().map(state).collect(),
            offsets: vec![None; lanes],
            random: Random::new(seed),
            pattern,
        }
    }
}

impl Workload for Data<'_> {
    fn keep(&self) -> usize {
        match self.access {
            Access::Read { verify: false } => HEAD_BYTES,
            _ => usize::MAX,
        }
    }

    fn next(&mut self, lane: Lane, may_begin: bool, call: Call<'_>) -> Next {
        let state = &mut self.files[lane.connection];
        let pass_done = state.begun == self.blocks;
        if state.committing || (pass_done || !may_begin) && state.in_flight > 0 {
            return Next::Idle;
        }
        if (pass_done || !may_begin) && state.unstable.is_some() {
            state.committing = true;
            self.offsets[lane.index] = None;
            call.write(Proc3::Commit, |w| put_commit(w, &state.file.handle.0));
            return Next::Continue;
        }
        if !may_begin {
            return Next::Idle;
        }
        if pass_done {
            state.begun = 0;
        }
        let number = match self.order {
            Order::Sequential => state.begun,
            Order::Random => self.random.below(self.blocks as usize) as u64,
        };
        let offset = number * self.block as u64;
        state.begun += 1;
        state.in_flight += 1;
        self.offsets[lane.index] = Some(offset);
        let file = state.file;
        match self.access {
            Access::Read { .. } => put_read(call, &file.handle, offset, self.block),
            Access::Write(stable) => call.write(Proc3::Write, |w| {
                let data = Pattern::block(file.number, offset, self.block);
                put_write(w, &file.handle.0, offset, stable, data);
            }),
        }
        Next::Begin
    }

    fn reply(&mut self, lane: Lane, results: &mut Results<'_>) -> Result<Progress, String> {
        let state = &mut self.files[lane.connection];
        let Some(offset) = self.offsets[lane.index] else {
            take_commit(results, state.unstable.take().unwrap_or_default())?;
            state.committing = false;
            return Ok(Progress::More);
        };
        state.in_flight -= 1;
        match self.access {
            Access::Read { verify } => {
                let expected = verify.then(|| {
                    let range = Pattern::block(state.file.number, offset, self.block);
                    self.pattern.slice(range)
                });
                take_read(results, offset, self.block, expected)?;
            }
            Access::Write(stable) => {
                let (committed, verf) = take_write(results, self.block, stable)?;
                if committed != StableHow::FileSync && state.unstable.is_some_and(|v| v != verf) {
                    return Err("the write verifier changed: the server has restarted".into());
                }
                if committed != StableHow::FileSync {
                    state.unstable = Some(verf);
                }
            }
        }
        Ok(Progress::Done(self.block as u64))
    }
}

pub(super) fn put_read(call: Call<'_>, file: &Fh3, offset: u64, bytes: usize) {
    call.write(Proc3::Read, |w| {
        w.opaque(&file.0);
        w.u64(offset);
        w.u32(u32::try_from(bytes).unwrap_or(u32::MAX));
    });
}

/// Checks the length of what was read, and the data if they are known.
pub(super) fn take_read(
    results: &mut Results<'_>,
    offset: u64,
    bytes: usize,
    expected: Option<&[u8]>,
) -> Result<(), String> {
    results.ok(Proc3::Read)?;
    results.skip_attributes()?;
    let count = results.u32()? as usize;
    results.u32()?; // Whether this is the end of the file.
    let len = results.u32()? as usize;
    if count != bytes || len != bytes || results.remaining() != bytes.next_multiple_of(4) {
        return Err(format!("READ of {bytes} bytes at {offset} gave {count}"));
    }
    match expected {
        Some(expected) if results.rest().get(..bytes) != Some(expected) => Err(format!(
            "READ of {bytes} bytes at {offset} gave other data than were written"
        )),
        _ => Ok(()),
    }
}
