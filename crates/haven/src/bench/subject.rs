//! A server under test: prepares, measures and clears up one workload at a time.

use super::args::Args;
use super::engine::{Limit, Workload};
use super::meter::{LogCounts, Process};
use super::pattern::{Pattern, Random};
use super::place::Place;
use super::result::Run;
use super::spec::{Kind, Spec};
use super::target::Target;
use super::work::{Access, Asked, Data, Files, Listing, Make, Mixed, Order, Query, Stock, Then};
use std::path::PathBuf;

/// A server under test and what is known about it.
pub(super) struct Subject {
    pub(super) target: Target,
    /// Its process on this machine.
    pub(super) pid: Option<u32>,
    /// Its control socket, if it is a Haven node.
    pub(super) status: Option<PathBuf>,
    pub(super) place: Place,
}

impl Subject {
    /// Prepares, runs and clears up one workload.
    pub(super) fn run(
        &mut self,
        spec: &Spec,
        args: &Args,
        pattern: &Pattern,
    ) -> Result<Run, String> {
        self.check_block(spec)?;
        match spec.kind {
            Kind::Null => {
                let none = Stock::empty(self.place.remote.root.clone());
                self.query(Query::Null, &none, spec, args, pattern)
            }
            Kind::Getattr | Kind::Lookup | Kind::Access => {
                let query = match spec.kind {
                    Kind::Getattr => Query::Getattr,
                    Kind::Lookup => Query::Lookup,
                    _ => Query::Access,
                };
                let stock = self.place.stock(spec.files, pattern)?;
                self.query(query, &stock, spec, args, pattern)
            }
            Kind::Create | Kind::SmallFile | Kind::CreateRemove => self.make(spec, args, pattern),
            Kind::WriteSeq | Kind::WriteRand | Kind::ReadSeq | Kind::ReadRand => {
                self.data(spec, args, pattern)
            }
            Kind::Readdir => {
                let stock = self.place.stock(spec.files, pattern)?;
                let mut work = Listing::new(&stock.dir, spec.files, spec.lanes());
                self.measured(spec, &mut work, pattern)
            }
            Kind::Mixed => {
                let stock = self.place.stock(spec.files, pattern)?;
                let data = self.place.data(spec, pattern)?;
                let block = spec.block_bytes() as usize;
                let mut work = Mixed {
                    stock: &stock,
                    data: &data,
                    block,
                    blocks: (spec.file_size / block as u64) as usize,
                    random: Random::new(args.seed),
                    asked: vec![Asked::Write; spec.lanes()],
                };
                self.measured(spec, &mut work, pattern)
            }
        }
    }

    fn query(
        &self,
        query: Query,
        stock: &Stock,
        spec: &Spec,
        args: &Args,
        pattern: &Pattern,
    ) -> Result<Run, String> {
        let mut work = Files::new(query, stock, spec.lanes(), args.seed);
        self.measured(spec, &mut work, pattern)
    }

    /// New files, in directories that go again afterwards: so that every run meets the same volume.
    fn make(&mut self, spec: &Spec, args: &Args, pattern: &Pattern) -> Result<Run, String> {
        let then = match spec.kind {
            Kind::Create => Then::Nothing,
            Kind::CreateRemove => Then::Remove,
            _ => Then::Write {
                bytes: spec.block_bytes() as usize,
                stable: spec.stable,
            },
        };
        let mark = self.place.mark();
        let dirs = (0..spec.connections)
            .map(|i| self.place.dir(&format!("new-{mark}-{i}")))
            .collect::<Result<Vec<_>, _>>()?;
        let mut work = Make::new(&dirs, spec.lanes(), then);
        let run = self.measured(spec, &mut work, pattern)?;
        if !args.keep {
            self.place.clear(mark, pattern)?;
        }
        Ok(run)
    }

    fn data(&mut self, spec: &Spec, args: &Args, pattern: &Pattern) -> Result<Run, String> {
        let access = match spec.kind {
            Kind::WriteSeq | Kind::WriteRand => Access::Write(spec.stable),
            _ => Access::Read {
                verify: args.verify,
            },
        };
        let order = match spec.kind {
            Kind::WriteSeq | Kind::ReadSeq => Order::Sequential,
            _ => Order::Random,
        };
        let files = self.place.data(spec, pattern)?;
        let size = (spec.block_bytes() as usize, spec.file_size);
        let with = (pattern, args.seed);
        let mut work = Data::new(access, order, size, &files, spec.lanes(), with);
        self.measured(spec, &mut work, pattern)
    }

    /// Whether the server takes blocks of this size.
    fn check_block(&mut self, spec: &Spec) -> Result<(), String> {
        let (rtmax, wtmax) = self.place.remote.limits()?;
        let (what, max) = match spec.kind {
            Kind::ReadSeq | Kind::ReadRand => ("READ", rtmax),
            Kind::WriteSeq | Kind::WriteRand | Kind::SmallFile => ("WRITE", wtmax),
            Kind::Mixed => ("READ or WRITE", rtmax.min(wtmax)),
            _ => return Ok(()),
        };
        if spec.block_bytes() > max {
            return Err(format!(
                "the server takes at most {max} bytes in one {what}: give a smaller --block"
            ));
        }
        Ok(())
    }

    /// Warms up, then runs a workload between two readings of all meters.
    fn measured(
        &self,
        spec: &Spec,
        work: &mut impl Workload,
        pattern: &Pattern,
    ) -> Result<Run, String> {
        let mut connections = self.place.connect(spec.connections, spec.depth)?;
        if !spec.warmup().is_zero() {
            let limit = Limit {
                ops: None,
                time: Some(spec.warmup()),
            };
            connections.run(work, pattern, limit)?;
        }
        let limit = Limit {
            ops: spec.ops,
            time: spec.ops.is_none().then_some(spec.time),
        };
        let before = self.meters()?;
        let tally = connections.run(work, pattern, limit)?;
        let after = self.meters()?;
        Ok(Run::new(
            &tally,
            after.0.since(before.0),
            after.1.zip(before.1).map(|(a, b)| a.since(b)),
            after.2.zip(before.2).map(|(a, b)| a.since(b)),
        ))
    }

    fn meters(&self) -> Result<(Process, Option<Process>, Option<LogCounts>), String> {
        let pid = self.pid.map(|pid| pid.to_string());
        Ok((
            Process::read("self")?,
            pid.map(|pid| Process::read(&pid)).transpose()?,
            self.status.as_deref().map(LogCounts::read).transpose()?,
        ))
    }
}
