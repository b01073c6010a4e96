//! A mixture of what clients of a file server ask: mostly attributes and names, some data.

use super::data::{DataFile, put_read, take_read};
use super::files::{Query, Stock, ask, check};
use super::make::{put_write, take_write};
use crate::bench::engine::{Call, Lane, Next, Progress, Workload};
use crate::bench::pattern::{Pattern, Random};
use crate::bench::spec::Stable;
use crate::bench::wire::Results;
use haven_proto::nfs3::Proc3;

/// Of a hundred operations, up to which one each kind reaches.
const GETATTR: usize = 40;
const LOOKUP: usize = GETATTR + 30;
const ACCESS: usize = LOOKUP + 10;
const READ: usize = ACCESS + 15;

/// The mixture. WRITEs are FILE_SYNC, so that each is an operation of its own.
pub(in crate::bench) struct Mixed<'a> {
    pub(in crate::bench) stock: &'a Stock,
    /// Per connection.
    pub(in crate::bench) data: &'a [DataFile],
    pub(in crate::bench) block: usize,
    pub(in crate::bench) blocks: usize,
    pub(in crate::bench) random: Random,
    /// Per lane.
    pub(in crate::bench) asked: Vec<Asked>,
}

#[derive(Debug, Clone, Copy)]
pub(in crate::bench) enum Asked {
    Query(Query, usize),
    Read(u64),
    Write,
}

impl Workload for Mixed<'_> {
    fn next(&mut self, lane: Lane, may_begin: bool, call: Call<'_>) -> Next {
        if !may_begin {
            return Next::Idle;
        }
        let file = &self.data[lane.connection];
        let offset = (self.random.below(self.blocks) * self.block) as u64;
        let any = self.random.below(self.stock.files.len());
        let asked = match self.random.below(100) {
            n if n < GETATTR => Asked::Query(Query::Getattr, any),
            n if n < LOOKUP => Asked::Query(Query::Lookup, any),
            n if n < ACCESS => Asked::Query(Query::Access, any),
            n if n < READ => Asked::Read(offset),
            _ => Asked::Write,
        };
        match asked {
            Asked::Query(query, any) => ask(query, self.stock, any, call),
            Asked::Read(offset) => put_read(call, &file.handle, offset, self.block),
            Asked::Write => call.write(Proc3::Write, |w| {
                let data = Pattern::block(file.number, offset, self.block);
                put_write(w, &file.handle.0, offset, Stable::FileSync, data);
            }),
        }
        self.asked[lane.index] = asked;
        Next::Begin
    }

    fn reply(&mut self, lane: Lane, results: &mut Results<'_>) -> Result<Progress, String> {
        let bytes = match self.asked[lane.index] {
            Asked::Query(query, file) => {
                check(query, self.stock, file, results)?;
                0
            }
            Asked::Read(offset) => {
                take_read(results, offset, self.block, None)?;
                self.block as u64
            }
            Asked::Write => {
                take_write(results, self.block, Stable::FileSync)?;
                self.block as u64
            }
        };
        Ok(Progress::Done(bytes))
    }
}
