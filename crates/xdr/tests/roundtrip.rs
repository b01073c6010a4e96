//! What the writer writes, the reader reads; what it does not understand, it refuses, with the place.

use bytes::Bytes;
use haven_xdr::{
    Gather, Reader, SHARE_BYTES_MIN, Writer, Xdr, XdrError, XdrErrorKind, decode_all, encode_all,
    padding,
};
use proptest::prelude::*;

fn reader(bytes: &[u8]) -> Reader {
    Reader::new(Bytes::copy_from_slice(bytes))
}

fn written(put: impl FnOnce(&mut Writer)) -> Bytes {
    let mut w = Writer::new();
    put(&mut w);
    w.finish().into_bytes()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
#[repr(u32)]
#[xdr(name = "colour")]
enum Colour {
    Red = 1,
    Blue = 7,
}

#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
struct Label(#[xdr(max = 5)] Bytes);

#[derive(Debug, Clone, PartialEq, Eq, Xdr)]
struct Thing {
    colour: Colour,
    label: Label,
    weight: Option<u64>,
    tag: [u8; 3],
}

#[test]
fn a_struct_has_the_layout_of_rfc_4506() {
    let thing = Thing {
        colour: Colour::Blue,
        label: Label(Bytes::from_static(b"hello")),
        weight: Some(0x0102_0304_0506_0708),
        tag: *b"xyz",
    };
    let wire = b"\0\0\0\x07\0\0\0\x05hello\0\0\0\0\0\0\x01\x01\x02\x03\x04\x05\x06\x07\x08xyz\0";
    assert_eq!(&encode_all(&thing).into_bytes()[..], wire);
    assert_eq!(decode_all::<Thing>(Bytes::from_static(wire)), Ok(thing));
}

#[test]
fn numbers_are_big_endian() {
    let wire = written(|w| {
        w.put_u32(0x0102_0304);
        w.put_i32(-2);
        w.put_u64(0x0102_0304_0506_0708);
        w.put_i64(-1);
        w.put_bool(true);
    });
    let expected = b"\x01\x02\x03\x04\xff\xff\xff\xfe\x01\x02\x03\x04\x05\x06\x07\x08\
        \xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x01";
    assert_eq!(&wire[..], expected);
}

#[test]
fn errors_say_where_and_leave_the_position() {
    let mut r = reader(b"\0\0\0\x01\0\0\0\x02\0\0");
    assert_eq!(r.u32(), Ok(1));
    let not_bool = XdrError {
        offset: 4,
        kind: XdrErrorKind::NotBool(2),
    };
    assert_eq!(r.clone().bool(), Err(not_bool));
    let truncated = XdrErrorKind::Truncated { need: 8, have: 6 };
    assert_eq!(
        r.u64(),
        Err(XdrError {
            offset: 4,
            kind: truncated
        })
    );
    assert_eq!(r.u32(), Ok(2));
    assert_eq!(
        r.finish(),
        Err(XdrError {
            offset: 8,
            kind: XdrErrorKind::Trailing(2)
        })
    );
    assert_eq!(&r.rest()[..], b"\0\0");
    assert_eq!(r.finish(), Ok(()));
}

#[test]
fn an_unknown_enum_value_is_named() {
    let error = decode_all::<Colour>(Bytes::from_static(b"\0\0\0\x02")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed XDR data at byte 0: 2 is not a value of colour"
    );
}

#[test]
fn opaque_checks_its_limit_before_the_data() {
    let mut r = reader(b"\0\0\0\x06abcdef\0\0");
    let too_long = XdrErrorKind::TooLong { len: 6, max: 5 };
    assert_eq!(
        r.opaque(5),
        Err(XdrError {
            offset: 0,
            kind: too_long
        })
    );
    assert_eq!(&r.opaque(6).unwrap()[..], b"abcdef");
    assert_eq!(r.remaining(), 0);
}

#[test]
fn opaque_takes_any_fill_bytes_but_wants_them_all() {
    assert_eq!(
        &reader(b"\0\0\0\x01a\xff\xff\xff").opaque(9).unwrap()[..],
        b"a"
    );
    let short = reader(b"\0\0\0\x01a\0\0").opaque(9).unwrap_err();
    assert_eq!(short.kind, XdrErrorKind::Truncated { need: 4, have: 3 });
    let fixed = reader(b"a\0\0").opaque_fixed::<1>().unwrap_err();
    assert_eq!(fixed.kind, XdrErrorKind::Truncated { need: 4, have: 3 });
}

#[test]
fn a_huge_announced_length_is_an_error_not_an_allocation() {
    let wire = b"\xff\xff\xff\xff\0\0\0\0";
    let opaque = reader(wire).opaque(usize::MAX).unwrap_err();
    assert!(matches!(
        opaque.kind,
        XdrErrorKind::Truncated { have: 4, .. }
    ));
    let array = reader(wire).array_of::<u32>(usize::MAX).unwrap_err();
    assert_eq!(array.offset, 8);
}

#[test]
fn a_list_ends_at_its_limit() {
    let wire = written(|w| w.put_list(&[7_u32, 8, 9]));
    assert_eq!(&wire[..8], b"\0\0\0\x01\0\0\0\x07");
    assert_eq!(
        Reader::new(wire.clone()).list_of::<u32>(3),
        Ok(vec![7, 8, 9])
    );
    let error = Reader::new(wire).list_of::<u32>(2).unwrap_err();
    assert_eq!(
        error,
        XdrError {
            offset: 16,
            kind: XdrErrorKind::TooLong { len: 3, max: 2 }
        }
    );
}

#[test]
fn large_payloads_are_neither_copied_out_nor_in() {
    let payload = Bytes::from(vec![7; SHARE_BYTES_MIN + 1]);
    let mut w = Writer::new();
    w.put_u32(1);
    w.put_opaque_shared(payload.clone());
    w.put_u32(2);
    let gather = w.finish();
    assert_eq!(gather.segments().len(), 3);
    assert_eq!(gather.segments()[1].as_ptr(), payload.as_ptr());
    assert_eq!(
        gather.len(),
        4 + 4 + payload.len() + padding(payload.len()) + 4
    );

    let flat = gather.into_bytes();
    let mut r = Reader::new(flat.clone());
    r.u32().unwrap();
    let read = r.opaque(payload.len()).unwrap();
    assert_eq!(read, payload);
    assert_eq!(read.as_ptr(), flat[8..].as_ptr());
    assert_eq!(r.u32(), Ok(2));
}

#[test]
fn a_small_payload_costs_no_segment() {
    let mut w = Writer::new();
    w.put_opaque_shared(Bytes::from(vec![7; SHARE_BYTES_MIN - 1]));
    assert_eq!(w.finish().segments().len(), 1);
}

#[test]
fn prefix_joins_a_short_first_segment_only() {
    let mut short = Gather::from(Bytes::from_static(b"body"));
    short.prefix(b"head");
    assert_eq!(short.segments(), [Bytes::from_static(b"headbody")]);

    let body = Bytes::from(vec![1; SHARE_BYTES_MIN]);
    let mut long = Gather::from(body.clone());
    long.prefix(b"head");
    assert_eq!(long.len(), 4 + body.len());
    assert_eq!(long.segments()[1].as_ptr(), body.as_ptr());

    let mut empty = Gather::new();
    empty.prefix(b"head");
    assert_eq!(empty.into_bytes(), "head");
}

#[test]
fn messages_are_equal_if_their_bytes_are() {
    let mut cut = Gather::from(Bytes::from_static(b"ab"));
    cut.push(Bytes::new());
    cut.push(Bytes::from_static(b"c"));
    assert_eq!(cut.segments().len(), 2);
    assert_eq!(cut, Gather::from(Bytes::from_static(b"abc")));
    assert_ne!(cut, Gather::from(Bytes::from_static(b"abd")));
    assert_ne!(cut, Gather::from(Bytes::from_static(b"ab")));
}

proptest! {
    #[test]
    fn opaque_of_any_length_comes_back(
        data in proptest::collection::vec(any::<u8>(), 0..2 * SHARE_BYTES_MIN),
        after: u32,
    ) {
        let data = Bytes::from(data);
        for shared in [false, true] {
            let wire = written(|w| {
                if shared { w.put_opaque_shared(data.clone()) } else { w.put_opaque(&data) }
                w.put_u32(after);
            });
            prop_assert_eq!(wire.len() % 4, 0);
            let mut r = Reader::new(wire);
            prop_assert_eq!(r.opaque(data.len()), Ok(data.clone()));
            prop_assert_eq!(r.u32(), Ok(after));
            prop_assert_eq!(r.finish(), Ok(()));
        }
    }

    #[test]
    fn arrays_and_options_come_back(items: Vec<Option<i64>>, flag: bool) {
        let wire = written(|w| {
            w.put_array(&items);
            w.put_bool(flag);
        });
        let mut r = Reader::new(wire);
        prop_assert_eq!(r.array_of(items.len()), Ok(items));
        prop_assert_eq!(r.bool(), Ok(flag));
    }

    #[test]
    fn any_prefix_of_a_message_is_refused(label in proptest::collection::vec(any::<u8>(), 0..=5)) {
        let thing = Thing {
            colour: Colour::Red, label: Label(label.into()), weight: Some(1), tag: [1; 3],
        };
        let wire = encode_all(&thing).into_bytes();
        for end in 0..wire.len() {
            prop_assert!(decode_all::<Thing>(wire.slice(..end)).is_err());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let all = Bytes::from(bytes);
        let _ = decode_all::<Thing>(all.clone());
        let _ = Reader::new(all.clone()).array_of::<Label>(usize::MAX);
        let _ = Reader::new(all.clone()).list_of::<Label>(usize::MAX);
        let _ = Reader::new(all.clone()).opaque(usize::MAX);
        let _ = Reader::new(all).opaque_fixed::<7>();
    }
}
