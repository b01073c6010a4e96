//! READDIR and READDIRPLUS: complete, within the client's limits, never in a circle.

use crate::server::{Server, encoded, results};
use haven_proto::nfs3::*;

const FILES: usize = 40;

fn filled() -> (Server, Vec<String>) {
    let mut s = Server::new();
    let root = s.root.clone();
    let mut names = vec![".".to_owned(), "..".to_owned()];
    for i in 0..FILES {
        let name = "n".repeat(1 + i * 6) + &i.to_string();
        s.file(&root, &name);
        names.push(name);
    }
    (s, names)
}

fn readdir(s: &mut Server, cookie: Cookie3, count: u32) -> ReaddirRes {
    let (dir, cookieverf) = (s.root.clone(), Cookieverf3::default());
    s.nfs(Args3::Readdir(ReaddirArgs {
        dir,
        cookie,
        cookieverf,
        count,
    }))
}

fn readdirplus(s: &mut Server, cookie: Cookie3, dircount: u32, maxcount: u32) -> ReaddirplusRes {
    let (dir, cookieverf) = (s.root.clone(), Cookieverf3::default());
    s.nfs(Args3::Readdirplus(ReaddirplusArgs {
        dir,
        cookie,
        cookieverf,
        dircount,
        maxcount,
    }))
}

fn text(name: &Filename3) -> String {
    String::from_utf8(name.0.to_vec()).unwrap()
}

#[test]
fn readdir_lists_all_within_count() {
    let (mut s, names) = filled();
    for count in [400, 401, 512, 600, 1_000, 4_096, 65_536, u32::MAX] {
        let (mut listed, mut cookie) = (Vec::new(), Cookie3(0));
        for round in 0.. {
            assert!(round <= names.len(), "never loops");
            let res = readdir(&mut s, cookie, count);
            assert!(encoded(&res).len() <= count as usize, "count {count}");
            let ok = res.ok_or_status().unwrap();
            assert!(ok.eof || !ok.entries.is_empty());
            for entry in &ok.entries {
                assert!(entry.cookie > cookie);
                cookie = entry.cookie;
                listed.push(text(&entry.name));
            }
            if ok.eof {
                break;
            }
        }
        assert_eq!(listed, names, "count {count}");
    }
}

#[test]
fn readdirplus_lists_all_within_maxcount() {
    let (mut s, names) = filled();
    for maxcount in [600, 601, 700, 4_096, 65_536] {
        let (mut listed, mut cookie) = (Vec::new(), Cookie3(0));
        for round in 0.. {
            assert!(round <= names.len(), "never loops");
            let res = readdirplus(&mut s, cookie, maxcount, maxcount);
            assert!(encoded(&res).len() <= maxcount as usize, "{maxcount}");
            let ok = res.ok_or_status().unwrap();
            for entry in &ok.entries {
                assert!(entry.cookie > cookie);
                cookie = entry.cookie;
                listed.push(text(&entry.name));
            }
            if ok.eof {
                break;
            }
        }
        assert_eq!(listed, names, "{maxcount}");
    }
}

#[test]
fn dircount_is_a_hint_that_shortens_no_answer() {
    let (mut s, names) = filled();
    for maxcount in [600, 4_096, 65_536] {
        let answer = readdirplus(&mut s, Cookie3(0), u32::MAX, maxcount);
        for dircount in [0, 1, 8, 280, 512, 4_096, maxcount] {
            let same = readdirplus(&mut s, Cookie3(0), dircount, maxcount);
            assert_eq!(same, answer, "{dircount}, {maxcount}");
        }
    }
    let all = readdirplus(&mut s, Cookie3(0), 1, 65_536)
        .ok_or_status()
        .unwrap();
    assert_eq!((all.entries.len(), all.eof), (names.len(), true));
}

#[test]
fn too_small_and_never_too_long() {
    let (mut s, _) = filled();
    let mut fitted = 0;
    for count in 0..300 {
        let res = readdir(&mut s, Cookie3(0), count);
        match res.failure() {
            Some(status) => assert_eq!((status, fitted), (Nfsstat3::TooSmall, 0), "{count}"),
            None => {
                fitted += 1;
                assert!(encoded(&res).len() <= count as usize);
            }
        }
        let plus = readdirplus(&mut s, Cookie3(0), 4_096, count);
        assert!(plus.failure().is_some() || encoded(&plus).len() <= count as usize);
    }
    assert!(fitted > 100);
    let too_small = Some(Nfsstat3::TooSmall);
    assert_eq!(
        readdirplus(&mut s, Cookie3(0), 4_096, 240).failure(),
        too_small
    );
}

#[test]
fn entries_carry_handles_and_attributes() {
    let mut s = Server::new();
    let root = s.root.clone();
    let sub = s.dir(&root, "sub");
    let ok = readdirplus(&mut s, Cookie3(0), 4_096, 4_096)
        .ok_or_status()
        .unwrap();
    assert_eq!(ok.dir_attributes, Some(s.getattr(&root).unwrap()));
    let [dot, dot_dot, entry] = &ok.entries[..] else {
        panic!("three entries")
    };
    assert_eq!(entry.name_handle.as_ref(), Some(&sub));
    assert_eq!(entry.name_attributes, Some(s.getattr(&sub).unwrap()));
    // Above the export nothing is shown.
    for own in [dot, dot_dot] {
        assert_eq!(own.name_handle.as_ref(), Some(&root));
        assert_eq!(own.fileid, ok.dir_attributes.unwrap().fileid);
    }
}

#[test]
fn cookies_survive_changes_and_bad_ones_are_refused() {
    let (mut s, names) = filled();
    let root = s.root.clone();
    let first = readdir(&mut s, Cookie3(0), 400).ok_or_status().unwrap();
    let last = first.entries.last().unwrap();
    let position = names.iter().position(|n| *n == text(&last.name)).unwrap();
    let cookie = last.cookie;
    s.remove(&root, &names[position]).ok_or_status().unwrap();
    s.file(&root, "later");
    let rest = readdir(&mut s, cookie, 65_536).ok_or_status().unwrap();
    let listed: Vec<_> = rest.entries.iter().map(|e| text(&e.name)).collect();
    assert_eq!(listed[..listed.len() - 1], names[position + 1..]);
    assert_eq!(listed.last().map(String::as_str), Some("later"));

    assert_eq!(
        readdir(&mut s, Cookie3(u64::MAX), 4_096).failure(),
        Some(Nfsstat3::BadCookie)
    );
    let cookieverf = Cookieverf3([1; 8]);
    let args = ReaddirArgs {
        dir: root,
        cookie,
        cookieverf,
        count: 4_096,
    };
    let refused = s.nfs::<ReaddirRes>(Args3::Readdir(args));
    assert_eq!(refused.failure(), Some(Nfsstat3::BadCookie));
}

#[test]
fn not_a_directory_and_no_permission() {
    let mut s = Server::new();
    let root = s.root.clone();
    let (cookie, cookieverf) = (Cookie3(0), Cookieverf3::default());
    let dir = s.file(&root, "f");
    let attr = Some(s.getattr(&dir).unwrap());
    let args = Args3::Readdir(ReaddirArgs {
        dir,
        cookie,
        cookieverf,
        count: 4_096,
    });
    assert_eq!(
        s.nfs::<ReaddirRes>(args),
        Res3::Fail(Nfsstat3::NotDir, attr)
    );
    let closed = s.dir(&root, "closed");
    s.setattr(&closed, crate::server::mode(0o711), None)
        .ok_or_status()
        .unwrap();
    s.as_user(7, 7);
    let args = Args3::Readdir(ReaddirArgs {
        dir: closed,
        cookie,
        cookieverf,
        count: 4_096,
    });
    assert_eq!(s.nfs::<ReaddirRes>(args).failure(), Some(Nfsstat3::Acces));
}

/// Memory that a client may make the server keep is counted in bytes of answers.
#[test]
fn a_long_listing_is_made_of_short_segments_and_no_longer_than_foretold() {
    let mut s = Server::new();
    let root = s.root.clone();
    let dir = s.dir(&root, "many");
    for n in 0..2_000 {
        s.file(&dir, &format!("{n:0100}"));
    }
    for count in [4_096, 100_000, 1 << 20] {
        let (cookie, cookieverf) = (Cookie3(0), Cookieverf3::default());
        let args = encoded(&ReaddirplusArgs {
            dir: dir.clone(),
            cookie,
            cookieverf,
            dircount: 0,
            maxcount: count,
        });
        let call = s.call(PROGRAM, VERSION, Proc3::Readdirplus.to_wire(), args);
        let reply = s.send(&call);
        assert!(reply.segments().iter().all(|s| s.len() <= 32 << 10));
        let full = reply.len() > 400_000 || reply.len() + 1_000 > count as usize;
        assert!(full, "{} of {count}", reply.len());
        let listed = results::<ReaddirplusRes>(reply).ok_or_status().unwrap();
        assert_eq!(listed.eof, listed.entries.len() == 2_002);
    }
}
