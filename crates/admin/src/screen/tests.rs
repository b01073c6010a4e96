use super::*;
use crate::cases;
use crate::judge::judge;
use crate::types::Facts;

/// Set to write the expected screens anew; look at the difference before committing it.
const BLESS: &str = "HAVEN_BLESS";

fn golden(name: &str, facts: Facts) {
    let drawn = draw(&judge(facts), Dress::Plain);
    let path = format!("{}/screens/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, &drawn).unwrap();
    }
    let expect = std::fs::read_to_string(&path).unwrap();
    assert_eq!(drawn, expect, "{path}; set {BLESS}=1 to accept");
    let lines: Vec<&str> = drawn.lines().collect();
    assert!(lines.len() <= 23, "{name} has {} lines", lines.len());
    for line in lines {
        let width = line.chars().count();
        assert!(width <= COLUMNS, "{width}: {line}");
    }
}

#[test]
fn screens_are_as_agreed_and_fit_a_terminal() {
    golden("healthy", cases::healthy());
    golden("one-node-down", cases::one_node_down());
    golden("no-quorum", cases::no_quorum());
    golden("catching-up", cases::catching_up());
    golden("address-conflict", cases::address_conflict());
    golden("standby", cases::standby());
    golden("moved-twice", cases::moved_twice());
    golden("settings-differ", cases::settings_differ());
    golden("address-changed", cases::address_changed());
    golden("copied", cases::copied());
    golden("clock-ahead", cases::clock_ahead());
}

#[test]
fn colours_change_nothing_but_colours() {
    let status = judge(cases::one_node_down());
    let coloured = draw(&status, Dress::Colours);
    let mut bare = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        bare += before;
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(bare + rest, draw(&status, Dress::Plain));
}

#[test]
fn nothing_that_a_node_says_reaches_the_terminal_raw() {
    let mut facts = cases::healthy();
    cases::edit(&mut facts, 1, |b| {
        b.trouble = Some("\x1b[2J\u{7}bad".into())
    });
    assert!(!draw(&judge(facts), Dress::Plain).contains(['\x1b', '\u{7}']));
}
