//! Bulletins as bytes: a node's report.
//!
//! Invariants: what a peer sends is bounded and may be garbage; it is taken as a whole or not at all.
//!
//! It must not know how bulletins travel.

use crate::NodeReport;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// First byte of a bulletin.
const FORMAT: u8 = 3;
/// Format and number.
const HEAD_BYTES: usize = 1 + 8;
/// Longest report.
const REPORT_BYTES_MAX: usize = 16 << 10;
/// Longest text about trouble in a report.
const TROUBLE_BYTES_MAX: usize = 1 << 10;

/// What one node tells the others of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bulletin {
    /// Tells it from the node's bulletin before.
    pub number: u64,
    /// How the node is.
    pub report: NodeReport,
}

impl Bulletin {
    /// A bulletin of at most `bytes_max` bytes. Too long a text in the report is cut. `None`: the report is too long.
    pub fn encode(number: u64, mut report: NodeReport, bytes_max: usize) -> Option<Bytes> {
        if let Some(trouble) = &mut report.trouble {
            let end = (0..=TROUBLE_BYTES_MAX)
                .rev()
                .find(|i| trouble.is_char_boundary(*i));
            trouble.truncate(end.unwrap_or(0));
        }
        let report = serde_json::to_vec(&report).ok()?;
        if report.len() > REPORT_BYTES_MAX || HEAD_BYTES + report.len() > bytes_max {
            return None;
        }
        let mut out = BytesMut::with_capacity(HEAD_BYTES + report.len());
        out.put_u8(FORMAT);
        out.put_u64(number);
        out.put_slice(&report);
        Some(out.freeze())
    }

    /// The number of what may be a bulletin, without a look at the rest.
    pub fn number_of(bytes: &Bytes) -> Option<u64> {
        let mut head = bytes.clone();
        (head.try_get_u8().ok()? == FORMAT)
            .then(|| head.try_get_u64().ok())
            .flatten()
    }

    /// `None` if it is no bulletin of at most `bytes_max` bytes.
    pub fn decode(mut bytes: Bytes, bytes_max: usize) -> Option<Self> {
        if bytes.len() > bytes_max {
            return None;
        }
        let number = Self::number_of(&bytes)?;
        bytes.advance(HEAD_BYTES);
        if bytes.len() > REPORT_BYTES_MAX {
            return None;
        }
        let report = serde_json::from_slice(&bytes).ok()?;
        Some(Self { number, report })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 64 << 10;

    fn report() -> NodeReport {
        NodeReport {
            node: "b".into(),
            applied: 77,
            trouble: Some("ü".repeat(TROUBLE_BYTES_MAX)),
            ..NodeReport::default()
        }
    }

    #[test]
    fn bulletins_survive_the_way_and_long_words_are_cut() {
        let bytes = Bulletin::encode(9, report(), BYTES_MAX).unwrap();
        assert_eq!(Bulletin::number_of(&bytes), Some(9));
        let told = Bulletin::decode(bytes, BYTES_MAX).unwrap();
        assert_eq!((told.number, told.report.applied), (9, 77));
        let trouble = told.report.trouble.unwrap();
        assert!(trouble.len() <= TROUBLE_BYTES_MAX && trouble.starts_with("üü"));
        assert!(Bulletin::encode(9, report(), 100).is_none());
    }

    #[test]
    fn garbage_is_refused_wherever_it_is_cut() {
        let bytes = Bulletin::encode(1, report(), BYTES_MAX).unwrap();
        for cut in 0..bytes.len() {
            let taken = Bulletin::decode(bytes.slice(..cut), BYTES_MAX);
            assert!(taken.is_none(), "{cut} bytes");
        }
        let long = [&bytes[..], &[b' '; REPORT_BYTES_MAX]].concat();
        assert!(Bulletin::decode(long.into(), BYTES_MAX).is_none());
        assert!(Bulletin::decode(bytes.clone(), bytes.len() - 1).is_none());
        let other = Bytes::from_static(b"\x01\0\0\0\0\0\0\0\0");
        assert!(Bulletin::number_of(&other).is_none());
    }
}
