//! The slots: small values beside the log, each in two alternating checksummed copies in one file.
//!
//! Invariants
//! - A slot has a valid copy from the file's creation on; both invalid means damage.
//! - At opening the newest copies are written into a new file, which takes the old one's place, before anything is done
//!   because of what they say: a flush of an earlier process may have failed.
//! - The copy that was last known durable is never overwritten: a write goes to the other one, and
//!   again to that one until a flush has made it durable.
//!
//! The file's existence also says that a log was made here, so it comes before any segment.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crc32c::crc32c;
use haven_disk::{Disk, DiskFile, renew};

use crate::LogError;
use crate::format::{NUMBER_MAX, VERSION, check_version, u32_at, u64_at};

pub(crate) const SLOTS_NAME: &str = "SLOTS";
const SLOTS_NEW: &str = "SLOTS.new";
const MAGIC: [u8; 8] = *b"HAVENSLT";
const HEADER_FIELDS: usize = 24;
const PAGE: usize = 4096;
const COPY_HEADER: usize = 32;
const COPY_MAGIC: u32 = 0x544f_4c53;
/// Copy numbers fit the two pages of a slot.
const COPIES: usize = 2;
const SLOT_COUNT: usize = 5;

/// The most bytes a slot keeps.
pub const SLOT_BYTES_MAX: usize = PAGE - COPY_HEADER;

/// A small durable value beside the log. What it means is the owner's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The vote.
    Vote,
    /// What is known to be committed.
    Committed,
    /// The identity of the last purged record.
    Purged,
    /// What the owner may have forgotten, in a log that took the place of a damaged one.
    Forgotten,
}

impl Slot {
    fn number(self) -> usize {
        match self {
            Slot::Vote => 1,
            Slot::Committed => 2,
            Slot::Purged => 3,
            Slot::Forgotten => 4,
        }
    }
}

/// What the log itself keeps in slot 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Records up to here are gone.
    pub(crate) purged: u64,
    /// Records up to here are known to be durable (there may be more). It never is beyond the log's
    /// end, so a log that ends before it lost something.
    pub(crate) durable: u64,
    /// The first segment that belongs to the log; older files are leftovers.
    pub(crate) base_seq: u64,
    /// The base segment may not have been made yet.
    pub(crate) awaits_base: bool,
    /// Records are being removed from the end; what is gone may not be so durably.
    pub(crate) cutting: bool,
}

const META: usize = 0;
const META_BYTES: usize = 25;
/// Bits of the last byte.
const AWAITS_BASE: u8 = 1;
const CUTTING: u8 = 2;

struct State {
    value: Vec<u8>,
    generation: u64,
    /// Which copy holds `value`.
    copy: usize,
    /// That copy was not flushed yet.
    dirty: bool,
}

pub(crate) struct Slots {
    file: Arc<dyn DiskFile>,
    log_id: u64,
    slots: Vec<State>,
}

impl Slots {
    /// Opens the slots of a log, `None` when no log was made here yet.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> Result<Option<Slots>, LogError> {
        let file = match disk.open(&dir.join(SLOTS_NAME), false) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(LogError::io("open the slots")(e)),
        };
        let page = read_page(&*file, 0)?;
        if page[..8] != MAGIC {
            return Err(LogError::damaged(SLOTS_NAME, 0, "it has no header"));
        }
        check_version(SLOTS_NAME, u32_at(&page, 8))?;
        if crc32c(&page[..HEADER_FIELDS]) != u32_at(&page, HEADER_FIELDS) {
            return Err(LogError::damaged(
                SLOTS_NAME,
                0,
                "the header's checksum is wrong",
            ));
        }
        let log_id = u64_at(&page, 16);
        let slots = (0..SLOT_COUNT)
            .map(|slot| read_slot(&*file, log_id, slot))
            .collect::<Result<_, _>>()?;
        Ok(Some(Slots {
            file,
            log_id,
            slots,
        }))
    }

    /// Makes the file, durably, with empty slots and this meta.
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &Path,
        log_id: u64,
        meta: Meta,
    ) -> Result<Slots, LogError> {
        let mut values = vec![(1, Vec::new()); SLOT_COUNT];
        values[META] = (1, meta.encode().to_vec());
        put(disk, dir, log_id, &values)?;
        Slots::open(disk, dir)?
            .ok_or_else(|| LogError::damaged(SLOTS_NAME, 0, "it vanished when it was made"))
    }

    /// Writes all that was read into a new file in place of the old one: afterwards it is durable, and so is its name.
    pub(crate) fn renewed(self, disk: &dyn Disk, dir: &Path) -> Result<Slots, LogError> {
        let values = self.slots.into_iter().map(|s| (s.generation, s.value));
        let values: Vec<_> = values.collect();
        put(disk, dir, self.log_id, &values)?;
        Slots::open(disk, dir)?
            .ok_or_else(|| LogError::damaged(SLOTS_NAME, 0, "it vanished when it was renewed"))
    }

    pub(crate) fn log_id(&self) -> u64 {
        self.log_id
    }

    pub(crate) fn meta(&self) -> Result<Meta, LogError> {
        Meta::decode(&self.slots[META].value)
    }

    pub(crate) fn save_meta(&mut self, meta: Meta) -> Result<(), LogError> {
        self.write(META, &meta.encode(), true)
    }

    /// As [`Slots::save_meta`], durable some time later.
    pub(crate) fn save_meta_lazily(&mut self, meta: Meta) -> Result<(), LogError> {
        self.write(META, &meta.encode(), false)
    }

    /// The value last saved, `None` when there never was one (or an empty one).
    pub(crate) fn read(&self, slot: Slot) -> Option<Vec<u8>> {
        let value = &self.slots[slot.number()].value;
        (!value.is_empty()).then(|| value.clone())
    }

    pub(crate) fn save(&mut self, slot: Slot, bytes: &[u8], durable: bool) -> Result<(), LogError> {
        self.write(slot.number(), bytes, durable)
    }

    fn write(&mut self, slot: usize, bytes: &[u8], durable: bool) -> Result<(), LogError> {
        let state = &mut self.slots[slot];
        let copy = if state.dirty {
            state.copy
        } else {
            (state.copy + 1) % COPIES
        };
        let generation = state.generation + 1;
        let page = encode_copy(self.log_id, slot, generation, bytes);
        self.file
            .write_at(copy_offset(slot, copy), &page)
            .map_err(LogError::io("write a slot"))?;
        *state = State {
            value: bytes.to_vec(),
            generation,
            copy,
            dirty: true,
        };
        if durable {
            self.file.sync().map_err(LogError::io("flush a slot"))?;
            for state in &mut self.slots {
                state.dirty = false; // one file: all are durable now
            }
        }
        Ok(())
    }
}

impl Meta {
    fn encode(self) -> [u8; META_BYTES] {
        let mut out = [0; META_BYTES];
        out[..8].copy_from_slice(&self.purged.to_le_bytes());
        out[8..16].copy_from_slice(&self.base_seq.to_le_bytes());
        out[16..24].copy_from_slice(&self.durable.to_le_bytes());
        let bit = |is: bool, bit: u8| if is { bit } else { 0 };
        out[24] = bit(self.awaits_base, AWAITS_BASE) | bit(self.cutting, CUTTING);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Meta, LogError> {
        if bytes.len() != META_BYTES {
            let offset = copy_offset(META, 0);
            return Err(LogError::damaged(
                SLOTS_NAME,
                offset,
                "the log's own slot is too short",
            ));
        }
        let meta = Meta {
            purged: u64_at(bytes, 0),
            base_seq: u64_at(bytes, 8),
            durable: u64_at(bytes, 16),
            awaits_base: bytes[24] & AWAITS_BASE != 0,
            cutting: bytes[24] & CUTTING != 0,
        };
        if [meta.purged, meta.base_seq, meta.durable]
            .iter()
            .any(|&number| number > NUMBER_MAX)
        {
            let why = format!("the log's own slot holds numbers that cannot be: {meta:?}");
            return Err(LogError::damaged(SLOTS_NAME, copy_offset(META, 0), why));
        }
        Ok(meta)
    }
}

/// Makes the file with these generations and values of the slots, durably.
fn put(
    disk: &dyn Disk,
    dir: &Path,
    log_id: u64,
    values: &[(u64, Vec<u8>)],
) -> Result<(), LogError> {
    let mut page = Vec::with_capacity(PAGE);
    page.extend_from_slice(&MAGIC);
    page.extend_from_slice(&VERSION.to_le_bytes());
    page.extend_from_slice(&[0; 4]);
    page.extend_from_slice(&log_id.to_le_bytes());
    page.extend_from_slice(&crc32c(&page).to_le_bytes());
    page.resize(PAGE, 0);
    let mut contents = page;
    for (slot, (generation, value)) in values.iter().enumerate() {
        contents.extend_from_slice(&encode_copy(log_id, slot, *generation, value));
        contents.extend_from_slice(&[0; PAGE]);
    }
    let (path, fresh) = (dir.join(SLOTS_NAME), dir.join(SLOTS_NEW));
    renew::replace(disk, &path, &fresh, &[&contents]).map_err(LogError::io("write the slots"))
}

fn copy_offset(slot: usize, copy: usize) -> u64 {
    ((1 + slot * COPIES + copy) * PAGE) as u64
}

fn encode_copy(log_id: u64, slot: usize, generation: u64, value: &[u8]) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE);
    page.extend_from_slice(&[0; 4]);
    page.extend_from_slice(&COPY_MAGIC.to_le_bytes());
    page.extend_from_slice(&log_id.to_le_bytes());
    page.extend_from_slice(&generation.to_le_bytes());
    page.extend_from_slice(&(slot as u32).to_le_bytes());
    page.extend_from_slice(&(value.len() as u32).to_le_bytes());
    page.extend_from_slice(value);
    let crc = crc32c(&page[4..]);
    page[..4].copy_from_slice(&crc.to_le_bytes());
    page.resize(PAGE, 0);
    page
}

/// The generation and value of a copy, if it is whole.
fn decode_copy(page: &[u8], log_id: u64, slot: usize) -> Option<(u64, Vec<u8>)> {
    let len = u32_at(page, 28) as usize;
    let value = page.get(COPY_HEADER..COPY_HEADER + len)?;
    let whole = u32_at(page, 0) == crc32c(&page[4..COPY_HEADER + len])
        && u32_at(page, 4) == COPY_MAGIC
        && u64_at(page, 8) == log_id
        && u32_at(page, 24) as usize == slot;
    whole.then(|| (u64_at(page, 16), value.to_vec()))
}

fn read_slot(file: &dyn DiskFile, log_id: u64, slot: usize) -> Result<State, LogError> {
    let mut newest: Option<State> = None;
    for copy in 0..COPIES {
        let offset = copy_offset(slot, copy);
        let page = read_page(file, offset)?;
        match decode_copy(&page, log_id, slot) {
            Some((generation, value)) => {
                if newest.as_ref().is_none_or(|n| n.generation < generation) {
                    newest = Some(State {
                        value,
                        generation,
                        copy,
                        dirty: false,
                    });
                }
            }
            None if page.iter().all(|&b| b == 0) => {}
            None => tracing::warn!(slot, copy, "a torn copy of a log slot is ignored"),
        }
    }
    newest.ok_or_else(|| {
        let why = format!("both copies of slot {slot} are unreadable");
        LogError::damaged(SLOTS_NAME, copy_offset(slot, 0), why)
    })
}

fn read_page(file: &dyn DiskFile, offset: u64) -> Result<Vec<u8>, LogError> {
    let mut page = vec![0; PAGE];
    file.read_at(offset, &mut page)
        .map_err(LogError::io("read the slots"))?;
    Ok(page)
}

/// Makes a file of slots one of log `log_id`, with right checksums on whatever its copies hold.
#[cfg(feature = "fuzzing")]
pub(crate) fn seal(log_id: u64, bytes: &mut [u8]) {
    for (number, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
        if number == 0 {
            page[16..HEADER_FIELDS].copy_from_slice(&log_id.to_le_bytes());
            let crc = crc32c(&page[..HEADER_FIELDS]);
            page[HEADER_FIELDS..HEADER_FIELDS + 4].copy_from_slice(&crc.to_le_bytes());
            continue;
        }
        let end = COPY_HEADER + u32_at(page, 28) as usize;
        page[8..16].copy_from_slice(&log_id.to_le_bytes());
        if let Some(filled) = page.get(4..end) {
            let crc = crc32c(filled);
            page[..4].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_be_are_damage() {
        let meta = |purged, durable, base_seq| Meta {
            purged,
            durable,
            base_seq,
            awaits_base: true,
            cutting: false,
        };
        let good = meta(3, 9, 2);
        assert_eq!(Meta::decode(&good.encode()).unwrap(), good);
        for bad in [
            meta(u64::MAX, 9, 2),
            meta(3, u64::MAX, 2),
            meta(3, 9, u64::MAX),
        ] {
            let error = Meta::decode(&bad.encode()).unwrap_err();
            assert!(error.to_string().contains("cannot be"), "{error}");
        }
    }
}
