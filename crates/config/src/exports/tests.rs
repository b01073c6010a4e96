//! exports(5) files: what is understood, what is noted, what is refused.

use super::*;
use proptest::prelude::*;

fn read(text: &str) -> Exports {
    parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn refused(text: &str) -> String {
    match parse(text) {
        Ok(exports) => panic!("{text:?} was taken: {exports:?}"),
        Err(e) => e.to_string(),
    }
}

/// Options in words: `rw secure root 65534:65534`.
fn words(options: &ClientOptions) -> String {
    let squash = &options.squash;
    let access = if options.read_only { "ro" } else { "rw" };
    let port = if options.secure { "secure" } else { "insecure" };
    let mode = format!("{:?}", squash.mode).to_lowercase();
    format!(
        "{access} {port} {mode} {}:{}",
        squash.anonuid, squash.anongid
    )
}

fn only(text: &str) -> (String, String) {
    let exports = read(&format!("/a {text}"));
    let [client] = &exports.exports[0].clients[..] else {
        panic!("one client: {exports:?}")
    };
    (client.who.to_string(), words(&client.options))
}

#[test]
fn a_usual_file() {
    let exports = read(
        "# exports\n\
         /srv/www   10.0.0.0/24(rw,no_root_squash)  *(ro)   # the web\n\
         \n\
         \"/with blank\"  master(rw)\n\
         /by\\040octal/   trusty.example.org(rw) \\\n\
           10.1.0.0/255.255.0.0(rw,all_squash,anonuid=5,anongid=6)\n\
         /defaults -rw,insecure  a  b(ro)  -ro c\n",
    );
    let told: Vec<String> = (exports.exports.iter())
        .flat_map(|e| {
            e.clients
                .iter()
                .map(|c| format!("{} {} {}", e.path, c.who, words(&c.options)))
        })
        .collect();
    assert_eq!(
        told,
        [
            "/srv/www 10.0.0.0/24 rw secure none 65534:65534",
            "/srv/www * ro secure root 65534:65534",
            "/with blank master rw secure root 65534:65534",
            "/by octal trusty.example.org rw secure root 65534:65534",
            "/by octal 10.1.0.0/16 rw secure all 5:6",
            "/defaults a rw insecure root 65534:65534",
            "/defaults b ro insecure root 65534:65534",
            "/defaults c ro insecure root 65534:65534",
        ]
    );
    assert!(exports.notes.is_empty(), "{:?}", exports.notes);
    let first = &exports.exports[0];
    assert_eq!((first.uid, first.gid, first.mode), (0, 0, 0o755));
}

#[test]
fn forms_of_clients() {
    for (text, who) in [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::0:1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("10.0.0.77/24", "10.0.0.0/24"),
        ("10.0.0.77/255.255.255.0", "10.0.0.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("0.0.0.0/0.0.0.0", "0.0.0.0/0"),
        ("10.0.0.1/32", "10.0.0.1/32"),
        ("2001:db8:1::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
        ("Host.Example.ORG.", "host.example.org"),
        ("*.Example.org", "*.example.org"),
        ("node?", "node?"),
        ("*", "*"),
    ] {
        assert_eq!(
            only(text),
            (who.into(), "ro secure root 65534:65534".into())
        );
    }
}

#[test]
fn the_last_of_contradicting_options_counts() {
    for (options, expect) in [
        ("rw,ro", "ro secure root"),
        ("ro,rw", "rw secure root"),
        ("no_root_squash,all_squash", "ro secure all"),
        ("all_squash,no_all_squash", "ro secure root"),
        ("no_root_squash,root_squash", "ro secure root"),
        ("insecure,secure,insecure", "ro insecure root"),
        ("", "ro secure root"),
        (",rw,,", "rw secure root"),
    ] {
        let told = only(&format!("*({options})")).1;
        assert!(told.starts_with(expect), "{options}: {told}");
    }
}

#[test]
fn lines_for_a_path_add_up() {
    let exports = read("/a 10.0.0.1(rw)\n/b *\n/a/ 10.0.0.2\n");
    let counts: Vec<_> = exports.exports.iter().map(|e| e.clients.len()).collect();
    assert_eq!(counts, [2, 1]);
    let why = refused("/a 10.0.0.1(rw)\n\n/a 10.0.0.2 10.0.0.1(ro)\n");
    assert!(
        why.contains("line 3") && why.contains("10.0.0.1 twice"),
        "{why}"
    );
    refused("/a host HOST");
    refused("/a 10.0.0.0/8 10.0.0.5/8");
    refused("/a * (rw)");
}

#[test]
fn comments_and_continued_lines() {
    assert_eq!(
        read("#/a * \\\n /b *\n").exports.len(),
        0,
        "a comment goes on"
    );
    assert_eq!(read("/a * # \\\n /b *\n/c *").exports.len(), 2);
    assert_eq!(read("/a \\\n\\\n  * \\").exports[0].clients.len(), 1);
    assert_eq!(read("\u{feff}/a *\r\n/b *\r\n").exports.len(), 2);
    assert_eq!(read("\"/a#b\" *").exports[0].path, "/a#b");
    assert_eq!(read("/\\303\\244 *").exports[0].path, "/\u{e4}");
    assert_eq!(read("/a\\b *").exports[0].path, "/a\\b");
    assert!(
        refused("\n/a \\\n *(zz)").contains("line 2"),
        "where it begins"
    );
}

#[test]
fn what_has_no_effect_is_noted_once() {
    let noted = |text: &str| read(text).notes;
    let notes = noted("/a *(rw,sync,no_subtree_check)\n/b *(sync)\n/c 10.0.0.1(sync)");
    assert_eq!(notes.len(), 2);
    assert!(
        notes[1].starts_with("line 1: \"sync\" (and 2 more): "),
        "{notes:?}"
    );
    for option in [
        "async",
        "subtree_check",
        "wdelay",
        "no_wdelay",
        "hide",
        "nohide",
        "crossmnt",
        "no_acl",
        "acl",
        "auth_nlm",
        "no_auth_nlm",
        "secure_locks",
        "insecure_locks",
        "pnfs",
        "no_pnfs",
        "fsid=0",
        "fsid=root",
        "mp",
        "mountpoint=/x",
        "mp=/y",
        "security_label",
        "sec=sys",
    ] {
        let notes = noted(&format!("/a *({option})"));
        assert_eq!(notes.len(), 1, "{option}: {notes:?}");
    }
    assert!(noted("/a *(async)")[0].contains("always answers after"));
}

#[test]
fn likely_mistakes_are_noted() {
    let notes = read("/a host (rw)\n").notes;
    assert!(
        notes[0].contains("line 1: \"(rw)\" stands alone"),
        "{notes:?}"
    );
    let exports = read("/a -rw\n");
    assert!(
        exports.notes[0].contains("names no client"),
        "{:?}",
        exports.notes
    );
    assert_eq!(
        words(&exports.exports[0].clients[0].options),
        "rw secure root 65534:65534"
    );
}

#[test]
fn every_mistake_is_named_with_its_line() {
    for (line, expect) in [
        ("a *", "not absolute"),
        ("/ *", "volume's root"),
        ("/a/../b *", "component"),
        ("/a//b *", "component"),
        ("\"/a *", "quote is not closed"),
        ("/a\\377 *", "not UTF-8"),
        ("/a *(rw", "end with \")\""),
        ("/a *(rw, sync)", "no blanks"),
        ("/a *rw)", "without its \"(\""),
        ("/a *(rw)x", "end with \")\""),
        (
            "/a @group(rw)",
            "netgroups (\"@group\") are not supported: list networks",
        ),
        ("/a gss/krb5(rw)", "Kerberos is not supported yet"),
        ("/a 10.0.0.0/33", "is no network"),
        ("/a 10.0.0.0/255.0.255.0", "is no network"),
        ("/a 10.0.0.0/+8", "is no network"),
        ("/a 10.0.0.0/", "is no network"),
        ("/a 2001:db8::/129", "is no network"),
        ("/a 2001:db8::/255.0.0.0", "is no network"),
        ("/a host/24", "is no network"),
        ("/a 10.0.0", "is no address"),
        ("/a 10.0.0.256", "is no address"),
        ("/a 192.168.*", "not for addresses"),
        ("/a host[1-3]", "brackets"),
        ("/a ho_st!", "no address, network or host name"),
        // With an empty label: one dot at the end would mean another host than two.
        ("/a host..", "no address, network or host name"),
        ("/a .host", "no address, network or host name"),
        ("/a *..example.org", "no address, network or host name"),
        ("/a *(rwx)", "did you mean \"rw\"?"),
        ("/a *(no_root_sqash)", "did you mean \"no_root_squash\"?"),
        ("/a *(anonuid)", "not written so"),
        ("/a *(rw=1)", "not written so"),
        ("/a *(bananas)", "no option \"bananas\""),
        ("/a *(anonuid=-2)", "0 to 4294967294"),
        ("/a *(anongid=4294967295)", "0 to 4294967294"),
        ("/a *(anonuid=)", "0 to 4294967294"),
        ("/a *(sec=krb5p)", "Kerberos would be promised"),
        ("/a *(sec=sys:krb5)", "Kerberos would be promised"),
        ("/a *(refer=/x@host)", "referrals"),
        ("/a *(replicas=/x@host)", "referrals"),
        ("/a *(xprtsec=tls)", "TLS"),
        ("/a -rwx *", "did you mean"),
    ] {
        let why = refused(&format!("# first\n/fine *\n{line}\n"));
        assert!(
            why.starts_with("line 3: ") && why.contains(expect),
            "{line}: {why}"
        );
    }
}

#[test]
fn everything_is_bounded() {
    let many = |n: usize| (0..n).map(|i| format!("/e{i} *\n")).collect::<String>();
    assert_eq!(read(&many(EXPORTS_MAX)).exports.len(), EXPORTS_MAX);
    assert!(refused(&many(EXPORTS_MAX + 1)).starts_with("line 1025: more than"));
    let clients = |n: usize| {
        let list: String = (0..n).map(|i| format!(" h{i}")).collect();
        format!("/a{list}")
    };
    read(&clients(CLIENTS_PER_EXPORT_MAX));
    assert!(refused(&clients(CLIENTS_PER_EXPORT_MAX + 1)).contains("use networks"));
    let full = (0..=CLIENTS_MAX / CLIENTS_PER_EXPORT_MAX)
        .map(|i| clients(CLIENTS_PER_EXPORT_MAX).replacen("/a", &format!("/a{i}"), 1) + "\n");
    assert!(refused(&full.collect::<String>()).starts_with("line 17: "));
    let long = format!("/a *\n/b {}", "x \\\n".repeat(40_000));
    assert!(refused(&long).starts_with("line 2: longer than"));
    let noted: String = (0..200).map(|i| format!("/n{i}\n")).collect();
    assert_eq!(read(&noted).notes.len(), NOTES_MAX);
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn nothing_made_of_its_parts_panics(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("/a"), Just(" "), Just("\\"), Just("\n"), Just("\""), Just("#"), Just("("),
                Just(")"), Just("-"), Just("rw"), Just(","), Just("="), Just("anonuid"),
                Just("10.0.0.0"), Just("/24"), Just("*"), Just("?"), Just("@g"), Just("::1"),
                Just("\\040"), Just("\\777"), Just("sync"), Just("sec=sys"), Just("\u{e4}"),
            ],
            0..60,
        ),
    ) {
        let text = parts.concat();
        if let Ok(exports) = parse(&text) {
            for export in &exports.exports {
                prop_assert!(path_problem(&export.path).is_none());
                prop_assert!(!export.clients.is_empty());
                prop_assert!(check_clients(&export.clients).is_ok());
            }
        }
    }
}
