//! Listing a directory with READDIRPLUS, page by page; one operation is the whole directory.

use crate::bench::engine::{Call, Lane, Next, Progress, Workload};
use crate::bench::wire::Results;
use haven_proto::nfs3::{Fh3, Proc3};

/// Bytes of names, and bytes of a whole page, that are asked for: what Linux asks for at most.
const DIRCOUNT: u32 = 32 << 10;
const MAXCOUNT: u32 = 128 << 10;

/// Lists a directory over and over.
pub(in crate::bench) struct Listing<'a> {
    dir: &'a Fh3,
    /// Names the directory has, without `.` and `..`.
    names: u64,
    lanes: Vec<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    within: bool,
    cookie: u64,
    verf: [u8; 8],
    seen: u64,
}

impl<'a> Listing<'a> {
    pub(in crate::bench) fn new(dir: &'a Fh3, names: u64, lanes: usize) -> Self {
        Self {
            dir,
            names,
            lanes: vec![State::default(); lanes],
        }
    }
}

impl Workload for Listing<'_> {
    fn next(&mut self, lane: Lane, may_begin: bool, call: Call<'_>) -> Next {
        let state = self.lanes[lane.index];
        if !state.within && !may_begin {
            return Next::Idle;
        }
        call.write(Proc3::Readdirplus, |w| {
            w.opaque(&self.dir.0);
            w.u64(state.cookie);
            w.u64(u64::from_be_bytes(state.verf));
            w.u32(DIRCOUNT);
            w.u32(MAXCOUNT);
        });
        self.lanes[lane.index].within = true;
        if state.within {
            Next::Continue
        } else {
            Next::Begin
        }
    }

    fn reply(&mut self, lane: Lane, results: &mut Results<'_>) -> Result<Progress, String> {
        let state = &mut self.lanes[lane.index];
        results.ok(Proc3::Readdirplus)?;
        results.skip_attributes()?;
        state.verf = results.take()?;
        let before = state.cookie;
        while results.u32()? != 0 {
            results.u64()?; // The file's number.
            let name = results.opaque()?;
            state.seen += u64::from(name != b"." && name != b"..");
            state.cookie = results.u64()?;
            results.skip_attributes()?;
            if results.u32()? != 0 {
                results.opaque()?;
            }
        }
        let eof = results.u32()? != 0;
        results.end()?;
        if !eof {
            return if state.cookie == before {
                Err("READDIRPLUS gives an empty page before the end".into())
            } else {
                Ok(Progress::More)
            };
        }
        if state.seen != self.names {
            return Err(format!(
                "READDIRPLUS lists {} of {} names",
                state.seen, self.names
            ));
        }
        *state = State::default();
        Ok(Progress::Done(0))
    }
}
