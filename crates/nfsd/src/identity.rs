//! Who the volume is: fixed by the first entry of its log, and what follows from it.

use crate::handle::{HandleCodec, HandleKey, VolumeId};
use haven_proto::nfs3::Writeverf3;

/// Bytes of a stored identity: volume id, then key.
const STORED_BYTES: usize = 32;

/// A volume's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    volume_id: VolumeId,
    handle_key: HandleKey,
    handles: HandleCodec,
}

impl Identity {
    /// From its two parts.
    pub const fn new(volume_id: VolumeId, handle_key: HandleKey) -> Self {
        Self {
            volume_id,
            handle_key,
            handles: HandleCodec::new(volume_id, handle_key),
        }
    }

    /// The volume's id.
    pub const fn volume_id(&self) -> VolumeId {
        self.volume_id
    }

    /// Makes and reads the volume's file handles.
    pub const fn handles(&self) -> &HandleCodec {
        &self.handles
    }

    /// The file system id that clients see.
    pub fn fsid(&self) -> u64 {
        u64::from_be_bytes(self.volume_id.first_half())
    }

    /// The write verifier. It never changes: what was acknowledged is in the log, durable on a
    /// majority, so there is no unstable data that a restart could lose (RFC 1813 section 3.3.7).
    pub fn writeverf(&self) -> Writeverf3 {
        Writeverf3(self.volume_id.second_half())
    }

    /// As kept in the system table.
    pub(crate) fn to_stored(&self) -> [u8; STORED_BYTES] {
        let mut stored = [0; STORED_BYTES];
        stored[..16].copy_from_slice(&self.volume_id.0);
        stored[16..].copy_from_slice(&self.handle_key.0);
        stored
    }

    /// From the system table; `None` if that is no identity.
    pub(crate) fn from_stored(stored: &[u8]) -> Option<Self> {
        let stored: &[u8; STORED_BYTES] = stored.try_into().ok()?;
        let (volume_id, key) = stored.split_first_chunk::<16>()?;
        Some(Self::new(
            VolumeId(*volume_id),
            HandleKey(*key.first_chunk()?),
        ))
    }
}
