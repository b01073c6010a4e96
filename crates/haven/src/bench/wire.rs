//! Calls written and results read without an allocation of their own.
//!
//! The generator shares the machine with the server it measures, so a call is a copy of a prepared header
//! plus a few fields, and a result is read where it was received. What happens once (mounting, making
//! directories) goes through the typed messages of the `proto` crate instead: see `remote`.

use super::pattern::Pattern;
use bytes::Bytes;
use haven_proto::nfs3::{self, Fattr3, Nfsstat3, Proc3};
use haven_rpc::{Credential, Outcome, decode_reply, encode_call};
use haven_xdr::Gather;
use std::io::{self, IoSlice, Write};
use std::ops::Range;

/// Where the transaction id, the procedure and the record mark's length lie in a framed call.
const XID_AT: usize = 4;
const PROC_AT: usize = 24;
/// "Last fragment" in a record mark.
const LAST: u32 = 0x8000_0000;
/// Slices given to one vectored write.
const SLICES_MAX: usize = 64;
/// Bytes of the header of the usual reply: xid, REPLY, MSG_ACCEPTED, empty verifier, SUCCESS.
const REPLY_HEADER_BYTES: usize = 24;

/// The head of every call of one caller: record mark, header, credential, verifier.
#[derive(Debug, Clone)]
pub(super) struct Template(Bytes);

impl Template {
    pub(super) fn new(cred: &Credential) -> Self {
        let null = Proc3::Null.to_wire();
        let call = encode_call(0, nfs3::PROGRAM, nfs3::VERSION, null, cred, Gather::new());
        Self(haven_rpc::record::frame(call).into_bytes())
    }
}

/// Calls that wait to be sent over one connection. File data are not copied into it: a cut says where
/// which part of the pattern belongs.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    cuts: Vec<Cut>,
    /// How much of everything is sent already.
    sent: usize,
}

#[derive(Debug)]
struct Cut {
    at: usize,
    data: Range<usize>,
}

impl Outbox {
    /// Appends a call; `fields` writes its arguments.
    pub(super) fn call(
        &mut self,
        template: &Template,
        xid: u32,
        proc: Proc3,
        fields: impl FnOnce(&mut Fields<'_>),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&template.0);
        self.patch(start + XID_AT, xid);
        self.patch(start + PROC_AT, proc.to_wire());
        let mut body = Fields {
            out: self,
            data_bytes: 0,
        };
        fields(&mut body);
        let data_bytes = body.data_bytes;
        let len = self.bytes.len() - start - XID_AT + data_bytes;
        self.patch(start, LAST | u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// Sends what the socket takes. True: nothing is left.
    pub(super) fn flush(&mut self, socket: &mut impl Write, pattern: &Pattern) -> io::Result<bool> {
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.unsent(pattern, &mut slices);
            if count == 0 {
                self.bytes.clear();
                self.cuts.clear();
                self.sent = 0;
                return Ok(true);
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Fills `slices` with what is unsent; gives how many.
    fn unsent<'a>(&'a self, pattern: &'a Pattern, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.sent;
        let mut count = 0;
        let mut from = 0;
        let mut add = |piece: &'a [u8]| {
            let piece = piece.get(skip..).unwrap_or_else(|| {
                skip -= piece.len();
                &[]
            });
            if !piece.is_empty() {
                skip = 0;
                if count < slices.len() {
                    slices[count] = IoSlice::new(piece);
                    count += 1;
                }
            }
        };
        for cut in &self.cuts {
            add(&self.bytes[from..cut.at]);
            add(pattern.slice(cut.data.clone()));
            from = cut.at;
        }
        add(&self.bytes[from..]);
        count
    }

    fn patch(&mut self, at: usize, word: u32) {
        self.bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
    }
}

/// Writes the arguments of one call.
pub(super) struct Fields<'a> {
    out: &'a mut Outbox,
    data_bytes: usize,
}

impl Fields<'_> {
    pub(super) fn u32(&mut self, value: u32) {
        self.out.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.out.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn opaque(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.out.bytes.extend_from_slice(value);
        self.pad(value.len());
    }

    /// A part of the pattern, as an opaque.
    pub(super) fn data(&mut self, range: Range<usize>) {
        let len = range.len();
        self.u32(u32::try_from(len).unwrap_or(u32::MAX));
        let at = self.out.bytes.len();
        self.out.cuts.push(Cut { at, data: range });
        self.data_bytes += len;
        self.pad(len);
    }

    fn pad(&mut self, len: usize) {
        let fill = len.next_multiple_of(4) - len;
        self.out.bytes.extend_from_slice(&[0; 3][..fill]);
    }
}

/// Reads the results of one call. Of a long record only the beginning may be there; `whole` counts all.
pub(super) struct Results<'a> {
    bytes: &'a [u8],
    pos: usize,
    whole: usize,
}

impl<'a> Results<'a> {
    /// Reads the reply's header.
    ///
    /// # Errors
    /// When it is not the reply to a call that was executed, in words.
    pub(super) fn open(record: &'a [u8], whole: usize) -> Result<(u32, Self), String> {
        let mut r = Self {
            bytes: record,
            pos: 0,
            whole,
        };
        let xid = r.u32()?;
        const USUAL: [u8; REPLY_HEADER_BYTES - 4] = {
            let mut words = [0; REPLY_HEADER_BYTES - 4];
            words[3] = 1; // REPLY; MSG_ACCEPTED, AUTH_NONE, length 0 and SUCCESS are all zero.
            words
        };
        if record.get(4..REPLY_HEADER_BYTES) == Some(&USUAL) {
            r.pos = REPLY_HEADER_BYTES;
            return Ok((xid, r));
        }
        let reply = decode_reply(Bytes::copy_from_slice(record)).map_err(|e| e.to_string())?;
        match reply.outcome {
            // A verifier that is not empty: the results follow it.
            Outcome::Success(results) => r.pos = record.len() - results.len(),
            Outcome::Error(e) => return Err(format!("the server did not execute a call: {e}")),
            Outcome::Denied(e) => return Err(format!("the server denied a call: {e}")),
        }
        Ok((xid, r))
    }

    /// The status, which must be NFS3_OK.
    pub(super) fn ok(&mut self, proc: Proc3) -> Result<(), String> {
        match self.u32()? {
            0 => Ok(()),
            other => Err(super::remote::failed(
                proc,
                Nfsstat3::from_wire(other),
                other,
            )),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_be_bytes)
    }

    /// A fixed-length opaque of a multiple of four bytes.
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.bytes.get(self.pos..).and_then(|b| b.first_chunk());
        self.pos += N;
        bytes.copied().ok_or_else(|| "a reply is cut short".into())
    }

    pub(super) fn opaque(&mut self) -> Result<&'a [u8], String> {
        let len = self.u32()? as usize;
        let end = self.pos.saturating_add(len);
        let bytes = self.bytes.get(self.pos..end);
        self.pos = end.next_multiple_of(4);
        bytes.ok_or_else(|| "a reply is cut short".into())
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.pos += bytes;
    }

    /// `post_op_attr`.
    pub(super) fn skip_attributes(&mut self) -> Result<(), String> {
        if self.u32()? != 0 {
            self.skip(Fattr3::WIRE_BYTES);
        }
        Ok(())
    }

    /// `wcc_data`.
    pub(super) fn skip_wcc(&mut self) -> Result<(), String> {
        if self.u32()? != 0 {
            self.skip(24);
        }
        self.skip_attributes()
    }

    /// The rest, as far as it was kept.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.pos..).unwrap_or_default()
    }

    /// How many bytes of the record are behind this point, kept or not.
    pub(super) fn remaining(&self) -> usize {
        self.whole.saturating_sub(self.pos)
    }

    /// Checks that the results end here.
    pub(super) fn end(&self) -> Result<(), String> {
        if self.pos == self.whole {
            Ok(())
        } else {
            Err(format!(
                "a reply has {} bytes where {} were expected",
                self.whole, self.pos
            ))
        }
    }
}
