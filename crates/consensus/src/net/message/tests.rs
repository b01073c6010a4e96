//! Every message comes back as it was sent, and nothing else is believed.

use super::*;
use crate::Wanted;
use crate::options::BASE_BYTES_MAX;
use crate::options::POST_BYTES_MAX;
use crate::options::TOPICS_MAX;
use crate::types::AppendRequest;
use crate::types::Command;
use crate::types::Entry;
use crate::types::LeaderId;
use crate::types::VoteResponse;
use crate::types::log_id;
use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::StreamAppendError;
use openraft::vote::RaftLeaderId;

fn body(frame: Frame) -> Bytes {
    let mut all = frame.head;
    frame.parts.iter().for_each(|part| all.put_slice(part));
    all.freeze()
}

fn leader(term: u64, node: u64) -> Vote {
    Vote {
        leader_id: LeaderId::new(term, node),
        committed: true,
    }
}

fn request() -> AppendRequest {
    let payload = |text: &'static [u8]| EntryPayload::Normal(Command(Bytes::from_static(text)));
    AppendRequest {
        vote: leader(5, 2),
        prev_log_id: Some(log_id(3, 8)),
        leader_commit: Some(log_id(3, 7)),
        entries: vec![
            Entry {
                log_id: log_id(4, 9),
                payload: payload(b"one"),
            },
            Entry {
                log_id: log_id(5, 10),
                payload: EntryPayload::Blank,
            },
            Entry {
                log_id: log_id(5, 11),
                payload: payload(b"three"),
            },
        ],
    }
}

#[test]
fn appends_come_back_as_slices_of_the_frame() {
    let sent = body(append(&request()));
    let got = read_append(2, &sent).unwrap();
    assert_eq!(format!("{got:?}"), format!("{:?}", request()));
    let EntryPayload::Normal(Command(third)) = &got.entries[2].payload else {
        panic!()
    };
    assert_eq!(&third[..], b"three");
    assert!(sent.as_ptr_range().contains(&third.as_ptr()));
}

#[test]
fn append_of_an_impostor_or_cut_short_is_refused() {
    let sent = body(append(&request()));
    assert!(read_append(3, &sent).is_err());
    for cut in 0..sent.len() {
        assert!(read_append(2, &sent.slice(..cut)).is_err(), "cut at {cut}");
    }
    let mut late = request();
    late.vote = leader(4, 2);
    assert!(
        read_append(2, &body(append(&late))).is_err(),
        "entries of a later term"
    );
    let mut back = request();
    back.entries.swap(0, 2);
    assert!(
        read_append(2, &body(append(&back))).is_err(),
        "terms that fall"
    );
}

#[test]
fn random_bytes_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for len in 0..400usize {
        let bytes: Bytes = (0..len)
            .map(|i| {
                seed = seed
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                if i == 0 {
                    (seed >> 60) as u8
                } else {
                    (seed >> 33) as u8 & 3
                }
            })
            .collect();
        let _ = read_append(0, &bytes);
        let _ = read_hello(&bytes);
        let _ = read_ballot(0, &bytes);
        let _ = read_snapshot(0, &bytes);
        let _ = read_appended(&bytes);
        let _ = read_voted(&bytes);
        let _ = read_wanted(&bytes);
        let _ = read_told(&bytes);
    }
}

#[test]
fn hellos_come_back_and_foreign_ones_do_not() {
    for purpose in Purpose::ALL {
        let sent = Hello {
            version: PROTOCOL_VERSION,
            cluster: "store-a".into(),
            from: 1,
            to: 2,
            purpose,
            listens: Some("[2001:db8::1]:7400".parse().unwrap()),
            process: 0xfeed,
        };
        assert_eq!(read_hello(&body(hello(&sent))).unwrap(), sent);
    }
    let sent = Hello {
        version: PROTOCOL_VERSION,
        cluster: "x".into(),
        from: 1,
        to: 2,
        purpose: Purpose::Votes,
        listens: None,
        process: 0,
    };
    let mut bytes = body(hello(&sent)).to_vec();
    // Of another version only the beginning can be read.
    bytes[5] = 9;
    bytes.truncate(17);
    assert_eq!(read_greeting(&bytes).unwrap(), (9, 1));
    assert!(read_hello(&bytes).is_err());
    bytes[1] = b'X';
    assert!(read_greeting(&bytes).is_err());
    let said = body(unfit(7, Fault::Removed, "go"));
    let heard = read_reception(&said).unwrap();
    assert_eq!(heard, Err((7, Fault::Removed, "go".into())));
    assert_eq!(read_reception(&body(welcome())).unwrap(), Ok(()));
}

#[test]
fn what_is_wanted_and_kept_comes_back() {
    let base = Bytes::from(vec![3; BASE_BYTES_MAX]);
    for sent in [Wanted::Everything, Wanted::Since(base), Wanted::Position] {
        assert_eq!(read_wanted(&body(wanted(&sent))).unwrap(), sent);
    }
    let long = Wanted::Since(Bytes::from(vec![3; BASE_BYTES_MAX + 1]));
    assert!(read_wanted(&body(wanted(&long))).is_err());
    for upto in [None, Some(0), Some(7)] {
        let sent = Kept {
            upto,
            witness: upto.is_some(),
        };
        assert_eq!(read_told(&body(kept(sent))).unwrap(), Told::Kept(sent));
    }
    let sent = Bytes::from_static(b"who is there");
    let told = read_told(&body(hint(sent.clone()))).unwrap();
    assert_eq!(told, Told::Hint(sent));
    for sent in [Bytes::new(), Bytes::from(vec![7; POST_BYTES_MAX])] {
        let told = read_told(&body(post(TOPICS_MAX - 1, sent.clone()))).unwrap();
        assert_eq!(told, Told::Post(TOPICS_MAX - 1, sent));
    }
    assert!(read_told(&body(post(TOPICS_MAX, Bytes::new()))).is_err());
    let long = Bytes::from(vec![7; POST_BYTES_MAX + 1]);
    assert!(read_told(&body(post(0, long))).is_err());
    assert!(read_told(&body(post(0, Bytes::new())).slice(..2)).is_err());
}

#[test]
fn refusals_replace_any_answer() {
    let bytes = body(refused("starting\nup"));
    let err = read_voted(&bytes).unwrap_err();
    assert_eq!(err.to_string(), "refused by the peer: starting?up");
    assert!(read_welcome(&body(welcome())).is_ok());
}

#[test]
fn answers_come_back() {
    for result in [
        Ok(None),
        Ok(Some(log_id(2, 3))),
        Err(StreamAppendError::Conflict(log_id(2, 3))),
        Err(StreamAppendError::HigherVote(leader(9, 1))),
    ] {
        assert_eq!(read_appended(&body(appended(&result))).unwrap(), result);
    }
    let response = VoteResponse::new(leader(3, 1), Some(log_id(2, 2)), true);
    assert_eq!(read_voted(&body(voted(&response))).unwrap(), response);
    assert_eq!(
        read_installed(&body(installed(leader(3, 1)))).unwrap(),
        leader(3, 1)
    );
}
