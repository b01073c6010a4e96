//! Messages about who belongs to the cluster: what members ask of the leader, and what machines that want to join
//! say, which is for others to read.
//!
//! It must not know connections.

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use haven_pki::KeyId;
use haven_pki::SecretHash;

use crate::codec;
use crate::codec::DecodeError;
use crate::codec::Reader;
use crate::net::frame::Frame;
use crate::net::frame::WireError;
use crate::net::message::AFFAIR;
use crate::net::message::JOIN;
use crate::net::message::JOINED;
use crate::net::message::SETTLED;
use crate::net::message::open;
use crate::roster::Applicant;

/// What a machine says that wants to join; what it says is for others.
pub(crate) fn join(request: Bytes) -> Frame {
    let mut frame = Frame::of_kind(JOIN);
    frame.parts.push(request);
    frame
}

pub(crate) fn read_join(body: &Bytes) -> Result<Bytes, WireError> {
    open(body, JOIN)?;
    Ok(body.slice(1..))
}

pub(crate) fn joined(answer: Bytes) -> Frame {
    let mut frame = Frame::of_kind(JOINED);
    frame.parts.push(answer);
    frame
}

pub(crate) fn read_joined(body: &Bytes) -> Result<Bytes, WireError> {
    open(body, JOINED)?;
    Ok(body.slice(1..))
}

/// What a member asks of the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Affair {
    /// To let a token count.
    Token {
        hash: SecretHash,
        expires: u64,
        now: u64,
    },
    /// To let a machine in for a token.
    Admit {
        secret: SecretHash,
        applicant: Applicant,
        now: u64,
    },
    /// To remove a node.
    Remove { id: u64 },
}

pub(crate) fn affair(affair: &Affair) -> Frame {
    let mut frame = Frame::of_kind(AFFAIR);
    let out = &mut frame.head;
    match affair {
        Affair::Token { hash, expires, now } => {
            out.put_u8(0);
            out.put_slice(&hash.0);
            out.put_u64_le(*expires);
            out.put_u64_le(*now);
        }
        Affair::Admit {
            secret,
            applicant,
            now,
        } => {
            out.put_u8(1);
            out.put_slice(&secret.0);
            put_applicant(out, applicant);
            out.put_u64_le(*now);
        }
        Affair::Remove { id } => {
            out.put_u8(2);
            out.put_u64_le(*id);
        }
    }
    frame
}

fn put_applicant(out: &mut BytesMut, applicant: &Applicant) {
    codec::put_text(out, &applicant.name);
    codec::put_text(out, &applicant.address.to_string());
    out.put_slice(&applicant.key.0);
}

fn get_applicant(r: &mut Reader<'_>) -> Result<Applicant, DecodeError> {
    Ok(Applicant {
        name: codec::get_text(r)?,
        address: codec::get_address(r)?,
        key: KeyId(codec::get_hash(r)?),
    })
}

pub(crate) fn read_affair(body: &[u8]) -> Result<Affair, WireError> {
    let mut r = open(body, AFFAIR)?;
    let affair = match r.u8()? {
        0 => Affair::Token {
            hash: SecretHash(codec::get_hash(&mut r)?),
            expires: r.u64()?,
            now: r.u64()?,
        },
        1 => Affair::Admit {
            secret: SecretHash(codec::get_hash(&mut r)?),
            applicant: get_applicant(&mut r)?,
            now: r.u64()?,
        },
        2 => Affair::Remove { id: r.u64()? },
        value => {
            return Err(DecodeError::Unknown {
                what: "affair",
                value,
            }
            .into());
        }
    };
    r.end()?;
    Ok(affair)
}

/// An affair is settled; one that is not is refused.
pub(crate) fn settled(value: u64) -> Frame {
    let mut frame = Frame::of_kind(SETTLED);
    frame.head.put_u64_le(value);
    frame
}

pub(crate) fn read_settled(body: &[u8]) -> Result<u64, WireError> {
    let mut r = open(body, SETTLED)?;
    let value = r.u64()?;
    r.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affairs_come_back_and_cut_ones_are_refused() {
        let applicant = Applicant {
            name: "b".into(),
            address: "192.0.2.1:7400".parse().unwrap(),
            key: KeyId([7; 32]),
        };
        let hash = SecretHash([9; 32]);
        let all = [
            Affair::Token {
                hash,
                expires: 8,
                now: 7,
            },
            Affair::Admit {
                secret: hash,
                applicant,
                now: 7,
            },
            Affair::Remove { id: 3 },
        ];
        for sent in all {
            let bytes = affair(&sent).head.freeze();
            assert_eq!(read_affair(&bytes).unwrap(), sent);
            for cut in 0..bytes.len() {
                assert!(read_affair(&bytes[..cut]).is_err(), "{sent:?} cut at {cut}");
            }
        }
        assert_eq!(read_settled(&settled(5).head).unwrap(), 5);
    }
}
