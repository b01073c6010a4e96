//! Metadata queries: NULL, GETATTR, LOOKUP, ACCESS.

use crate::bench::engine::{Call, Lane, Next, Progress, Workload};
use crate::bench::pattern::Random;
use crate::bench::wire::Results;
use bytes::Bytes;
use haven_proto::nfs3::{Fattr3, Fh3, Ftype3, Proc3, access};

/// Files of one directory.
#[derive(Debug, Clone)]
pub(in crate::bench) struct Stock {
    pub(in crate::bench) dir: Fh3,
    pub(in crate::bench) files: Vec<(Bytes, Fh3)>,
}

impl Stock {
    /// No files.
    pub(in crate::bench) fn empty(dir: Fh3) -> Self {
        Self {
            dir,
            files: Vec::new(),
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Query {
    Null,
    Getattr,
    Lookup,
    Access,
}

/// The same query for random files.
pub(in crate::bench) struct Files<'a> {
    query: Query,
    stock: &'a Stock,
    random: Random,
    /// Per lane: the file asked about.
    asked: Vec<usize>,
}

impl<'a> Files<'a> {
    pub(in crate::bench) fn new(query: Query, stock: &'a Stock, lanes: usize, seed: u64) -> Self {
        Self {
            query,
            stock,
            random: Random::new(seed),
            asked: vec![0; lanes],
        }
    }
}

/// Writes a query about a file.
pub(super) fn ask(query: Query, stock: &Stock, file: usize, call: Call<'_>) {
    match query {
        Query::Null => call.write(Proc3::Null, |_| {}),
        Query::Getattr => call.write(Proc3::Getattr, |w| w.opaque(&stock.files[file].1.0)),
        Query::Lookup => call.write(Proc3::Lookup, |w| {
            w.opaque(&stock.dir.0);
            w.opaque(&stock.files[file].0);
        }),
        Query::Access => call.write(Proc3::Access, |w| {
            w.opaque(&stock.files[file].1.0);
            w.u32(access::ALL);
        }),
    }
}

/// Checks the answer to a query about a file.
pub(super) fn check(
    query: Query,
    stock: &Stock,
    file: usize,
    results: &mut Results<'_>,
) -> Result<(), String> {
    match query {
        Query::Null => {}
        Query::Getattr => {
            results.ok(Proc3::Getattr)?;
            if results.u32()? != Ftype3::Reg.to_wire() {
                return Err("GETATTR says that a regular file is none".into());
            }
            results.skip(Fattr3::WIRE_BYTES - 4);
        }
        Query::Lookup => {
            results.ok(Proc3::Lookup)?;
            if results.opaque()? != &stock.files[file].1.0[..] {
                return Err("LOOKUP gives another handle than CREATE did".into());
            }
            results.skip_attributes()?;
            results.skip_attributes()?;
        }
        Query::Access => {
            results.ok(Proc3::Access)?;
            results.skip_attributes()?;
            if results.u32()? & access::READ == 0 {
                return Err("ACCESS says that the file's owner may not read it".into());
            }
        }
    }
    results.end()
}

impl Workload for Files<'_> {
    fn next(&mut self, lane: Lane, may_begin: bool, call: Call<'_>) -> Next {
        if !may_begin {
            return Next::Idle;
        }
        let file = match self.query {
            Query::Null => 0,
            _ => self.random.below(self.stock.files.len()),
        };
        self.asked[lane.index] = file;
        ask(self.query, self.stock, file, call);
        Next::Begin
    }

    fn reply(&mut self, lane: Lane, results: &mut Results<'_>) -> Result<Progress, String> {
        check(self.query, self.stock, self.asked[lane.index], results)?;
        Ok(Progress::Done(0))
    }
}
