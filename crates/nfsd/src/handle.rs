//! File handles: what names an inode to clients, equal on every replica and for ever.
//!
//! Layout (32 bytes, integers big-endian):
//!
//! | bytes  | meaning |
//! |--------|---------|
//! | 0      | format version, 2 |
//! | 1      | zero |
//! | 2..4   | number of the export that the client came through |
//! | 4..8   | generation of the inode |
//! | 8..16  | inode number |
//! | 16..24 | first half of the volume id |
//! | 24..32 | SipHash-2-4 over bytes 0..24 and the whole volume id |
//!
//! Invariants
//! - Without the key nobody makes a handle that [`HandleCodec::decode`] takes. So whoever has one was
//!   given it, through the export that it names.
//! - [`claimed_export`] believes what it reads: what is decided by it must be followed by a `decode`.
//!
//! It must not know whether the inode exists, nor what an export allows.

use haven_fs::Ino;
use siphasher::sip::SipHasher24;
use std::fmt;

/// Length of every handle.
pub const HANDLE_BYTES: usize = 32;
const VERSION: u8 = 2;
/// Where the export's number begins.
const EXPORT_AT: usize = 2;
/// Where the checksum begins.
const SUM_AT: usize = 24;
/// Half of a volume id.
const VOLUME_HALF_BYTES: usize = 8;

/// A volume's stable id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub [u8; 16]);

impl VolumeId {
    /// The half that is in handles and is the file system id.
    pub fn first_half(&self) -> [u8; VOLUME_HALF_BYTES] {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        [a, b, c, d, e, f, g, h]
    }

    /// The other half.
    pub fn second_half(&self) -> [u8; VOLUME_HALF_BYTES] {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        [a, b, c, d, e, f, g, h]
    }
}

/// The secret behind a volume's handles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HandleKey(pub [u8; 16]);

impl fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandleKey(..)")
    }
}

/// The number of an export: given when its directory is first made, kept with its path for ever, never
/// given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportId(pub u16);

/// What a handle says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The export that the client came through.
    pub export: ExportId,
    /// The inode.
    pub ino: Ino,
    /// Its generation: an inode with another one is not meant.
    pub generation: u32,
}

/// Why a handle means nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// It was never given out.
    #[error("not a handle of this format, or forged")]
    Bad,
    /// It belongs to another volume.
    #[error("handle of another volume")]
    Stale,
}

/// The export that a handle claims to come from: good enough to find the rules that apply, and no proof.
///
/// # Errors
/// [`HandleError::Bad`] for what has not the form of a handle.
pub fn claimed_export(handle: &[u8]) -> Result<ExportId, HandleError> {
    match handle {
        [VERSION, 0, high, low, rest @ ..] if rest.len() == HANDLE_BYTES - 4 => {
            Ok(ExportId(u16::from_be_bytes([*high, *low])))
        }
        _ => Err(HandleError::Bad),
    }
}

/// Makes and reads the handles of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandleCodec {
    volume: VolumeId,
    key: HandleKey,
}

impl HandleCodec {
    /// For this volume, with this secret.
    pub const fn new(volume: VolumeId, key: HandleKey) -> Self {
        Self { volume, key }
    }

    /// The handle of an inode.
    pub fn encode(&self, target: Target) -> [u8; HANDLE_BYTES] {
        let mut handle = [0; HANDLE_BYTES];
        handle[0] = VERSION;
        handle[EXPORT_AT..4].copy_from_slice(&target.export.0.to_be_bytes());
        handle[4..8].copy_from_slice(&target.generation.to_be_bytes());
        handle[8..16].copy_from_slice(&target.ino.0.to_be_bytes());
        handle[16..SUM_AT].copy_from_slice(&self.volume.first_half());
        let sum = self.sum(&handle);
        handle[SUM_AT..].copy_from_slice(&sum);
        handle
    }

    /// What a received handle says.
    ///
    /// # Errors
    /// [`HandleError::Stale`] for a handle of another volume (whose key is unknown here, so its
    /// checksum is not looked at); [`HandleError::Bad`] for all else.
    pub fn decode(&self, handle: &[u8]) -> Result<Target, HandleError> {
        let export = claimed_export(handle)?;
        let handle: &[u8; HANDLE_BYTES] = handle.try_into().map_err(|_| HandleError::Bad)?;
        if handle[16..SUM_AT] != self.volume.first_half() {
            return Err(HandleError::Stale);
        }
        if handle[SUM_AT..] != self.sum(handle) {
            return Err(HandleError::Bad);
        }
        let (mut generation, mut ino) = ([0; 4], [0; 8]);
        generation.copy_from_slice(&handle[4..8]);
        ino.copy_from_slice(&handle[8..16]);
        Ok(Target {
            export,
            ino: Ino(u64::from_be_bytes(ino)),
            generation: u32::from_be_bytes(generation),
        })
    }

    fn sum(&self, handle: &[u8; HANDLE_BYTES]) -> [u8; 8] {
        let mut text = [0; SUM_AT + 16];
        text[..SUM_AT].copy_from_slice(&handle[..SUM_AT]);
        text[SUM_AT..].copy_from_slice(&self.volume.0);
        SipHasher24::new_with_key(&self.key.0)
            .hash(&text)
            .to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TARGET: Target = Target {
        export: ExportId(0x0a0b),
        ino: Ino(0x0102_0304_0506_0708),
        generation: 9,
    };

    fn codec(volume: u8, key: u8) -> HandleCodec {
        HandleCodec::new(VolumeId([volume; 16]), HandleKey([key; 16]))
    }

    #[test]
    fn layout_is_as_documented() {
        let handle = codec(7, 1).encode(TARGET);
        assert_eq!(handle[..8], [2, 0, 10, 11, 0, 0, 0, 9]);
        assert_eq!(handle[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(handle[16..24], [7; 8]);
        assert_eq!(codec(7, 1).decode(&handle), Ok(TARGET));
        assert_eq!(claimed_export(&handle), Ok(ExportId(0x0a0b)));
    }

    #[test]
    fn what_has_not_the_form_claims_nothing() {
        let handle = codec(7, 1).encode(TARGET);
        let (mut old, mut odd) = (handle, handle);
        (old[0], odd[1]) = (1, 1);
        for bytes in [
            &[][..],
            &handle[..31],
            &[&handle[..], &[0]].concat(),
            &old,
            &odd,
        ] {
            assert_eq!(claimed_export(bytes), Err(HandleError::Bad));
        }
    }

    #[test]
    fn other_volumes_are_stale_and_other_keys_forged() {
        let handle = codec(7, 1).encode(TARGET);
        assert_eq!(codec(8, 1).decode(&handle), Err(HandleError::Stale));
        assert_eq!(codec(7, 2).decode(&handle), Err(HandleError::Bad));
        let mut twin = [7; 16];
        twin[15] = 0;
        let twin = HandleCodec::new(VolumeId(twin), HandleKey([1; 16]));
        assert_eq!(
            twin.decode(&handle),
            Err(HandleError::Bad),
            "the whole id is in the checksum"
        );
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let codec = codec(7, 1);
        let handle = codec.encode(TARGET);
        for bit in 0..HANDLE_BYTES * 8 {
            let mut forged = handle;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(codec.decode(&forged).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(codec(7, 1).decode(&bytes).is_err());
        }
    }
}
