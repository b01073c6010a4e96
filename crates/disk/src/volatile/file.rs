//! One file of a [`super::VolatileDisk`]: the durable bytes in a real file (its backing), and over
//! them the unflushed state: whole pages, the length, and how much of the backing still shows.
//!
//! Invariants
//! - A byte comes from its page if there is one, else is zero in a page of `punched`, else comes from the backing below
//!   `base_len`, else is zero.
//! - Bytes of a page beyond `len` are zero.
//! - The backing changes in `sync` only, be it one that fails.
//! - What a failed flush did not bring to the backing (a page, the length) no later flush brings, unless it was
//!   written again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::spans::Spans;
use crate::real::RealFile;
use crate::{DiskFile, RealDisk};

const PAGE: usize = 4096;
const PAGE_BYTES: u64 = PAGE as u64;
/// The unit in which a power loss keeps or loses bytes.
const SECTOR: usize = 512;
/// Pages written by one call.
const RUN_PAGES_MAX: usize = 1024;

/// Bytes over the backing.
struct Page {
    bytes: Box<[u8; PAGE]>,
    state: PageState,
    /// The backing holds a version of it that does not show there because the file was cut or punched.
    hidden: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PageState {
    /// Written since the last flush.
    Dirty,
    /// A flush could not write it and took it for clean.
    Lost,
    /// In the backing, too.
    Flushed,
}

/// A file, shared by all its handles and by the name tree.
pub(super) struct FileNode {
    disk: Arc<RealDisk>,
    /// Where the backing is as long as the file has no durable name.
    staged: PathBuf,
    /// No name leads here any more, durable or not.
    nameless: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// Whether there is a real file at all.
    exists: bool,
    /// The real file, while there are handles or unflushed bytes.
    backing: Option<Arc<RealFile>>,
    handles: usize,
    real_len: u64,
    /// Bytes of the backing that still show; the rest was cut off since the last flush.
    base_len: u64,
    len: u64,
    pages: BTreeMap<u64, Page>,
    /// Pages of the backing that do not show any more.
    punched: Spans,
    reserve: Option<(u64, u64)>,
    /// A flush could not write the length, and what was cut off, punched or reserved, and took them for clean.
    length_lost: bool,
}

impl State {
    fn clean(&self) -> bool {
        self.pages.is_empty()
            && self.punched.is_empty()
            && self.reserve.is_none()
            && self.base_len == self.real_len
            && self.len == self.real_len
    }

    /// The bytes under the pages.
    fn read_base(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let visible = self.base_len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (shown, hidden) = buf.split_at_mut(visible);
        hidden.fill(0);
        if let (Some(backing), false) = (&self.backing, shown.is_empty()) {
            let n = backing.read_at(offset, shown)?;
            shown[n..].fill(0);
            self.hide(offset, shown);
        }
        Ok(())
    }

    /// Zeros what is punched of the bytes at `offset`.
    fn hide(&self, offset: u64, shown: &mut [u8]) {
        let end = offset + shown.len() as u64;
        let mut at = offset;
        while at < end {
            let page = at / PAGE_BYTES;
            at = match self.punched.end_of(page) {
                Some(stop) => {
                    let stop = end.min(stop * PAGE_BYTES);
                    shown[(at - offset) as usize..(stop - offset) as usize].fill(0);
                    stop
                }
                None => self
                    .punched
                    .next_start(page)
                    .map_or(end, |s| s * PAGE_BYTES),
            };
        }
    }

    /// Zeros bytes within one page, unless there is nothing but a hole.
    fn clear(&mut self, start: u64, end: u64) -> io::Result<()> {
        let number = start / PAGE_BYTES;
        let page_end = (number + 1) * PAGE_BYTES;
        if start >= end
            || self
                .next_data(number * PAGE_BYTES)?
                .is_none_or(|at| at >= page_end)
        {
            return Ok(());
        }
        let from = (start % PAGE_BYTES) as usize;
        let len = (end - start) as usize;
        let page = self.page(number, false)?;
        page.bytes[from..from + len].fill(0);
        page.state = PageState::Dirty;
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let mut pages = self.pages.range(offset / PAGE_BYTES..);
        let in_pages = pages
            .next()
            .map(|(&number, _)| offset.max(number * PAGE_BYTES));
        let mut in_base = None;
        let mut at = offset;
        while let (Some(backing), true) = (&self.backing, at < self.base_len) {
            let Some(found) = backing.next_data(at)? else {
                break;
            };
            match self.punched.end_of(found / PAGE_BYTES) {
                Some(stop) => at = stop * PAGE_BYTES,
                None => {
                    in_base = Some(found);
                    break;
                }
            }
        }
        let in_base = in_base.filter(|&at| at < self.base_len);
        let next = in_pages.into_iter().chain(in_base).min();
        Ok(next.filter(|&at| at < self.len))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let mut at = offset;
        // Up to here the backing has no hole: asked once, since that may take long.
        let mut whole_to = offset;
        while at < self.len {
            let number = at / PAGE_BYTES;
            if self.pages.contains_key(&number) {
                at = (number + 1) * PAGE_BYTES;
                continue;
            }
            let backing = match &self.backing {
                Some(backing) if at < self.base_len && self.punched.end_of(number).is_none() => {
                    backing
                }
                _ => return Ok(at),
            };
            if at >= whole_to {
                whole_to = backing.next_hole(at)?.min(self.base_len);
            }
            if whole_to <= at {
                return Ok(at);
            }
            let punched = self.punched.next_start(number).map(|s| s * PAGE_BYTES);
            at = punched.map_or(whole_to, |punched| whole_to.min(punched));
        }
        Ok(self.len.max(offset))
    }

    /// The page, filled from below when it is new and will not be overwritten as a whole.
    fn page(&mut self, number: u64, whole: bool) -> io::Result<&mut Page> {
        if !self.pages.contains_key(&number) {
            let mut bytes = Box::new([0; PAGE]);
            if !whole {
                self.read_base(number * PAGE_BYTES, &mut bytes[..])?;
            }
            let page = Page {
                bytes,
                state: PageState::Dirty,
                hidden: false,
            };
            self.pages.insert(number, page);
        }
        self.pages
            .get_mut(&number)
            .ok_or_else(|| io::Error::other("a page vanished"))
    }

    /// The length is another one now, so the next flush writes it.
    fn resized(&mut self, len: u64) {
        if len != self.len {
            self.length_lost = false;
            self.len = len;
        }
    }

    fn write(&mut self, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let start = (offset % PAGE_BYTES) as usize;
            let n = data.len().min(PAGE - start);
            let page = self.page(offset / PAGE_BYTES, n == PAGE)?;
            page.bytes[start..start + n].copy_from_slice(&data[..n]);
            page.state = PageState::Dirty;
            data = &data[n..];
            offset += n as u64;
            self.resized(self.len.max(offset));
        }
        Ok(())
    }

    /// The bytes of a page that belong to the file.
    fn shown<'a>(&self, number: u64, page: &'a Page) -> &'a [u8] {
        let shown = self.len.saturating_sub(number * PAGE_BYTES);
        &page.bytes[..shown.min(PAGE_BYTES) as usize]
    }

    /// Brings the unflushed state to the backing, which is durable in this model once written.
    fn write_back(&mut self, backing: &RealFile) -> io::Result<()> {
        if !self.length_lost {
            self.cut_backing(backing)?;
        }
        self.write_pages(backing)?;
        match self.length_lost {
            true => self.wrote(backing),
            false => self.grow_backing(backing),
        }
    }

    /// Takes from the backing what was cut off and punched, and reserves.
    fn cut_backing(&mut self, backing: &RealFile) -> io::Result<()> {
        // What was written since stays.
        let mut kept = Vec::new();
        for (&number, _) in self.pages.iter().filter(|(_, page)| page.hidden) {
            let mut bytes = vec![0; PAGE];
            let read = backing.read_at(number * PAGE_BYTES, &mut bytes)?;
            bytes.truncate(read);
            kept.push((number, bytes));
        }
        if self.base_len < self.real_len {
            backing.set_len(self.base_len)?;
        }
        for pages in self.punched.iter() {
            backing.punch(
                pages.start * PAGE_BYTES,
                (pages.end - pages.start) * PAGE_BYTES,
            )?;
        }
        for (number, bytes) in kept {
            backing.write_at(number * PAGE_BYTES, &bytes)?;
        }
        if let Some((start, end)) = self.reserve.take() {
            backing.allocate(start, end - start)?;
        }
        Ok(())
    }

    /// Gives the backing, whose pages are written, its length; then all of it shows.
    fn grow_backing(&mut self, backing: &RealFile) -> io::Result<()> {
        if backing.len()? != self.len {
            backing.set_len(self.len)?;
        }
        self.real_len = self.len;
        self.show_all();
        Ok(())
    }

    /// Pages were written to the backing, but not the length.
    fn wrote(&mut self, backing: &RealFile) -> io::Result<()> {
        let hides = self.base_len < self.real_len || !self.punched.is_empty();
        self.real_len = backing.len()?;
        if !hides {
            self.show_all();
            return Ok(());
        }
        let flushed = |page: &&mut Page| page.state == PageState::Flushed;
        for page in self.pages.values_mut().filter(flushed) {
            page.hidden = true;
        }
        Ok(())
    }

    /// From now on all of the backing shows.
    fn show_all(&mut self) {
        self.base_len = self.real_len;
        self.punched = Spans::default();
        self.pages
            .retain(|_, page| page.state != PageState::Flushed);
        for page in self.pages.values_mut() {
            page.hidden = false;
        }
    }

    /// Writes the pages that are dirty, neighbours together.
    fn write_pages(&mut self, backing: &RealFile) -> io::Result<()> {
        let mut run: Vec<&[u8]> = Vec::new();
        let mut run_start = 0;
        let is_dirty = |page: &Page| page.state == PageState::Dirty;
        for (&number, page) in self.pages.iter().filter(|(_, page)| is_dirty(page)) {
            if run.len() == RUN_PAGES_MAX || number != run_start + run.len() as u64 {
                backing.write_vectored_at(run_start * PAGE_BYTES, &run)?;
                run.clear();
            }
            if run.is_empty() {
                run_start = number;
            }
            run.push(self.shown(number, page));
        }
        backing.write_vectored_at(run_start * PAGE_BYTES, &run)?;
        for page in self.pages.values_mut().filter(|page| is_dirty(page)) {
            page.state = PageState::Flushed;
        }
        Ok(())
    }

    /// The device fails while the unflushed state is brought to it: what `reaches` answers true for has reached
    /// it, page by page or at least sector by sector; all of it counts as clean from now on.
    fn write_back_failing(
        &mut self,
        backing: &RealFile,
        reaches: &mut impl FnMut() -> bool,
    ) -> io::Result<()> {
        let changed = self.base_len < self.real_len
            || !self.punched.is_empty()
            || self.reserve.is_some()
            || self.len != self.real_len;
        let brought = changed && !self.length_lost && reaches();
        if brought {
            self.cut_backing(backing)?;
        }
        self.length_lost |= changed && !brought;
        let mut pages = std::mem::take(&mut self.pages);
        for (&number, page) in &mut pages {
            if page.state != PageState::Dirty {
                continue;
            }
            let whole = reaches();
            for (i, sector) in self.shown(number, page).chunks(SECTOR).enumerate() {
                if whole || reaches() {
                    backing.write_at(number * PAGE_BYTES + (i * SECTOR) as u64, sector)?;
                }
            }
            page.state = match whole {
                true => PageState::Flushed,
                false => PageState::Lost,
            };
        }
        self.pages = pages;
        match brought {
            true => self.grow_backing(backing),
            false => self.wrote(backing),
        }
    }
}

impl FileNode {
    /// A file made just now (`exists` false) or found on the disk (true).
    pub(super) fn new(disk: Arc<RealDisk>, staged: PathBuf, exists: bool) -> FileNode {
        FileNode {
            disk,
            staged,
            nameless: AtomicBool::new(false),
            state: Mutex::new(State {
                exists,
                backing: None,
                handles: 0,
                real_len: 0,
                base_len: 0,
                len: 0,
                pages: BTreeMap::new(),
                punched: Spans::default(),
                reserve: None,
                length_lost: false,
            }),
        }
    }

    /// Takes a handle; `real_path` is where the backing is, if there is one.
    pub(super) fn opened(&self, real_path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.exists && state.backing.is_none() {
            let backing = self.disk.open_file(real_path, false)?;
            let len = backing.len()?;
            state.backing = Some(Arc::new(backing));
            (state.real_len, state.base_len, state.len) = (len, len, len);
        }
        state.handles += 1;
        Ok(())
    }

    pub(super) fn closed(&self) {
        let mut state = self.state.lock();
        state.handles -= 1;
        // Not one open descriptor for every file ever touched.
        if state.handles == 0 && state.clean() {
            state.backing = None;
        }
    }

    pub(super) fn set_nameless(&self) {
        self.nameless.store(true, Ordering::Relaxed);
    }

    /// Sees to it that there is a real file, empty when nothing was flushed yet.
    pub(super) fn materialize(&self) -> io::Result<()> {
        self.backing(&mut self.state.lock()).map(|_| ())
    }

    fn backing(&self, state: &mut State) -> io::Result<Option<Arc<RealFile>>> {
        if !state.exists {
            state.backing = Some(Arc::new(self.disk.open_file(&self.staged, true)?));
            state.exists = true;
        }
        Ok(state.backing.clone())
    }

    /// A name for messages.
    pub(super) fn staged(&self) -> &Path {
        &self.staged
    }

    pub(super) fn len(&self) -> u64 {
        self.state.lock().len
    }

    pub(super) fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let state = self.state.lock();
        let n = state.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        if n == 0 {
            return Ok(0);
        }
        let buf = &mut buf[..n];
        state.read_base(offset, buf)?;
        let end = offset + n as u64;
        for (&number, page) in state
            .pages
            .range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES))
        {
            let page_start = number * PAGE_BYTES;
            let from = offset.max(page_start);
            let to = end.min(page_start + PAGE_BYTES);
            buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(
                &page.bytes[(from - page_start) as usize..(to - page_start) as usize],
            );
        }
        Ok(n)
    }

    pub(super) fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut at = offset;
        for part in parts {
            state.write(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if len < state.len {
            state.pages.split_off(&len.div_ceil(PAGE_BYTES));
            let kept = (len % PAGE_BYTES) as usize;
            if let Some(page) = state.pages.get_mut(&(len / PAGE_BYTES)) {
                page.bytes[kept..].fill(0);
                page.state = PageState::Dirty;
                page.hidden = false;
            }
            state.base_len = state.base_len.min(len);
            state.reserve = match state.reserve {
                Some((start, end)) if start < len => Some((start, end.min(len))),
                _ => None,
            };
        }
        state.resized(len);
        Ok(())
    }

    pub(super) fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let mut state = self.state.lock();
        let end = offset + len;
        let (low, high) = state.reserve.unwrap_or((offset, end));
        state.reserve = Some((low.min(offset), high.max(end)));
        let len = state.len.max(end);
        state.resized(len);
        Ok(())
    }

    pub(super) fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.state.lock().next_data(offset)
    }

    pub(super) fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.state.lock().next_hole(offset)
    }

    pub(super) fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let end = offset.saturating_add(len).min(state.len);
        if offset >= end {
            return Ok(());
        }
        // Whole pages do not show any more; the last one has nothing past the file's end.
        let first = offset.div_ceil(PAGE_BYTES);
        let last = match end == state.len {
            true => end.div_ceil(PAGE_BYTES),
            false => end / PAGE_BYTES,
        };
        if first > last {
            return state.clear(offset, end);
        }
        state.clear(offset, first * PAGE_BYTES)?;
        state.clear(last * PAGE_BYTES, end)?;
        let mut above = state.pages.split_off(&first);
        state.pages.append(&mut above.split_off(&last));
        state.punched.add(first..last);
        // As a new length: the next flush writes what the file is made of.
        state.length_lost = false;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let backing = {
            let mut state = self.state.lock();
            let Some(backing) = self.to_write_back(&mut state)? else {
                return Ok(());
            };
            if !state.clean() {
                state.write_back(&backing)?;
            }
            backing
        };
        backing.sync()
    }

    /// A flush that fails: see [`State::write_back_failing`].
    pub(super) fn sync_failing(&self, reaches: &mut impl FnMut() -> bool) -> io::Result<()> {
        let mut state = self.state.lock();
        match self.to_write_back(&mut state)? {
            Some(backing) if !state.clean() => state.write_back_failing(&backing, reaches),
            _ => Ok(()),
        }
    }

    /// Where a flush brings what was written; `None` when there is nothing to bring anywhere.
    fn to_write_back(&self, state: &mut State) -> io::Result<Option<Arc<RealFile>>> {
        if !state.exists && self.nameless.load(Ordering::Relaxed) {
            return Ok(None); // removed before it ever was durable: there is nothing to keep
        }
        self.backing(state) // none if it was found on the disk and never opened: nothing was written
    }

    /// Pages that a failed flush took for clean may be dropped from memory: from then on, those for which `keep`
    /// answers false read as the disk has them.
    pub(super) fn evict(&self, keep: &mut impl FnMut() -> bool) {
        let mut state = self.state.lock();
        state
            .pages
            .retain(|_, page| page.state != PageState::Lost || keep());
    }

    /// The power goes: of what is not flushed, what `keep` chooses reaches the backing.
    pub(super) fn lose(&self, keep: &mut impl FnMut() -> bool) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(backing) = state.backing.clone() else {
            return Ok(());
        };
        if !state.length_lost {
            if state.base_len < state.real_len && !keep() {
                return Ok(());
            }
            state.reserve = None;
            let mut punched = Spans::default();
            for hole in state.punched.iter().filter(|_| keep()) {
                punched.add(hole);
            }
            state.punched = punched;
            state.cut_backing(&backing)?;
        }
        for (number, page) in std::mem::take(&mut state.pages) {
            if page.state != PageState::Dirty {
                continue;
            }
            for (i, sector) in state.shown(number, &page).chunks(SECTOR).enumerate() {
                if keep() {
                    backing.write_at(number * PAGE_BYTES + (i * SECTOR) as u64, sector)?;
                }
            }
        }
        Ok(())
    }
}
