//! `#[derive(Xdr)]`: the forms that RFC 4506 gives to what is declared, and their limits.

use bytes::Bytes;
use haven_xdr::{
    Decode, Encode, Reader, SHARE_BYTES_MIN, Writer, Xdr, XdrError, XdrErrorKind, decode_all,
    encode_all,
};
use std::fmt::Debug;

/// The words as XDR.
fn words(words: &[u32]) -> Bytes {
    let bytes = words.iter().flat_map(|word| word.to_be_bytes());
    bytes.collect::<Vec<_>>().into()
}

fn is<T: Encode + Decode + PartialEq + Debug>(value: T, wire: &[u32]) {
    assert_eq!(encode_all(&value).into_bytes(), words(wire));
    assert_eq!(decode_all::<T>(words(wire)), Ok(value));
}

fn refused<T: Decode + Debug>(wire: &[u32]) -> XdrError {
    decode_all::<T>(words(wire)).expect_err("this has no meaning")
}

const LIMIT: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Xdr)]
#[repr(u32)]
#[xdr(name = "status")]
enum Status {
    Perm = 1,
    Io = 5,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Xdr)]
struct Lists {
    #[xdr(max = LIMIT)]
    array: Vec<u32>,
    #[xdr(list, max = LIMIT)]
    list: Vec<u32>,
}

#[derive(Debug, PartialEq, Eq, Xdr)]
struct Data {
    before: u32,
    #[xdr(max = 2 * SHARE_BYTES_MIN)]
    data: Bytes,
    after: u32,
}

#[derive(Debug, PartialEq, Eq, Xdr)]
struct Nothing;

#[derive(Debug, PartialEq, Eq, Xdr)]
#[xdr(name = "how")]
enum How {
    #[xdr(case = 0)]
    Void,
    #[xdr(case = 7)]
    Pair(u32, bool),
    #[xdr(case = Status::Io)]
    Named {
        #[xdr(max = LIMIT)]
        items: Vec<u32>,
        // Also the names that the generated code uses must be free for fields.
        reader: u32,
        writer: u32,
    },
}

#[derive(Debug, PartialEq, Eq, Xdr)]
enum Res<T, F> {
    #[xdr(case = 0)]
    Ok(T),
    #[xdr(default)]
    Fail(Status, F),
}

#[derive(Debug, PartialEq, Eq, Xdr)]
enum Errno {
    #[xdr(case = 0)]
    Ok([u32; 2]),
    #[xdr(default)]
    Fail(u32),
}

#[test]
fn fields_follow_each_other() {
    is(Nothing, &[]);
    let lists = Lists {
        array: vec![8, 9],
        list: vec![8, 9],
    };
    is(lists, &[2, 8, 9, 1, 8, 1, 9, 0]);
    is(Lists::default(), &[0, 0]);
}

#[test]
fn limits_hold_before_what_follows_is_read() {
    let array = refused::<Lists>(&[3]);
    assert_eq!(array.kind, XdrErrorKind::TooLong { len: 3, max: 2 });
    let list = refused::<Lists>(&[0, 1, 8, 1, 8, 1]);
    assert_eq!(list.kind, XdrErrorKind::TooLong { len: 3, max: 2 });
    let data = refused::<Data>(&[0, u32::MAX]);
    assert!(matches!(data.kind, XdrErrorKind::TooLong { max: 1024, .. }));
}

#[test]
#[should_panic(expected = "longer than its limit")]
fn what_is_too_long_is_not_written() {
    let array = vec![0; LIMIT + 1];
    encode_all(&Lists {
        array,
        list: Vec::new(),
    });
}

#[test]
#[should_panic(expected = "longer than its limit")]
fn a_list_that_is_too_long_is_not_written() {
    let list = vec![0; LIMIT + 1];
    encode_all(&Lists {
        array: Vec::new(),
        list,
    });
}

#[test]
fn long_data_are_not_copied() {
    let data = Bytes::from(vec![7; SHARE_BYTES_MIN]);
    let value = Data {
        before: 1,
        data: data.clone(),
        after: 2,
    };
    let gather = encode_all(&value);
    assert_eq!(gather.segments()[1].as_ptr(), data.as_ptr());
    assert_eq!(decode_all::<Data>(gather.into_bytes()), Ok(value));
}

#[test]
fn enums_have_their_values_only() {
    is(Status::Io, &[5]);
    assert_eq!(Status::from_wire(1), Some(Status::Perm));
    assert_eq!(Status::from_wire(2), None);
    assert_eq!(Status::Io.to_wire(), 5);
    let error = XdrError {
        offset: 0,
        kind: XdrErrorKind::NotInEnum {
            what: "status",
            value: 2,
        },
    };
    assert_eq!(refused::<Status>(&[2]), error);
}

#[test]
fn a_discriminant_chooses_the_arm() {
    is(How::Void, &[0]);
    is(How::Pair(3, true), &[7, 3, 1]);
    let named = How::Named {
        items: vec![9],
        reader: 1,
        writer: 2,
    };
    is(named, &[5, 1, 9, 1, 2]);
    let error = refused::<How>(&[1]);
    assert_eq!(
        error.to_string(),
        "malformed XDR data at byte 0: 1 is not a value of how"
    );
    assert_eq!(refused::<How>(&[0, 0]).kind, XdrErrorKind::Trailing(4));
}

#[test]
fn the_default_arm_keeps_the_discriminant() {
    is(Res::<u32, ()>::Ok(8), &[0, 8]);
    is(Res::<u32, bool>::Fail(Status::Perm, true), &[1, 1]);
    let unknown = refused::<Res<u32, bool>>(&[2, 1]).kind;
    assert_eq!(
        unknown,
        XdrErrorKind::NotInEnum {
            what: "status",
            value: 2
        }
    );
    is(Errno::Ok([3, 4]), &[0, 3, 4]);
    is(Errno::Fail(2), &[2]);
}

#[test]
#[should_panic(expected = "another arm's discriminant")]
fn the_default_arm_is_no_way_around_the_others() {
    encode_all(&Errno::Fail(0));
}

#[test]
fn fixed_arrays_have_no_count() {
    is([1_u32, 2, 3], &[1, 2, 3]);
    let mut r = Reader::new(words(&[1]));
    let kind = <[u32; 2]>::decode(&mut r).unwrap_err().kind;
    assert_eq!(kind, XdrErrorKind::Truncated { need: 4, have: 0 });
    let mut w = Writer::new();
    [*b"abcd"; 2].encode(&mut w);
    assert_eq!(w.finish().into_bytes(), "abcdabcd");
}
