//! What no file that git tracks may hold, whatever its language: leftovers of a merge, links that lead nowhere,
//! too much for one file, what only one machine knows; and scripts that could end without a word.
//!
//! The rules look at a [`Tree`], which is paths and texts, so that their tests need no files. Files that are no text are
//! there as paths only.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// A file of Rust has at most so many lines without its test module (docs/STYLE.md).
const LINES_MAX: usize = 800;

/// How a line begins that a merge left behind.
const MARKERS: &[&str] = &["<<<<<<< ", "||||||| ", ">>>>>>> "];

/// A whole line that a merge left behind. It could underline a heading of Markdown: ours begin with `#`.
const DIVIDER: &str = "=======";

/// What a text must not name, and what that is. Put together here, so that this file does not name it.
const FOREIGN: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a directory of one machine"),
    (concat!("/ho", "me/"), "a directory of one machine"),
    (concat!("sparse", "+http"), "a registry of one's own"),
    (concat!("replace", "-with"), "a registry of one's own"),
    (concat!("index", "-url"), "a registry of one's own"),
];

/// The files that git tracks.
struct Tree {
    paths: BTreeSet<String>,
    texts: BTreeMap<String, String>,
}

/// Something that must not be, and where it is.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    path: String,
    line: usize,
    what: String,
}

/// Checks the files that git tracks, as they are in the working tree.
pub fn check() -> Result<(), String> {
    let tree = tracked()?;
    let faults: Vec<Fault> = [leftovers, links, lengths, foreign, mute]
        .iter()
        .flat_map(|rule| rule(&tree))
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    let told = faults
        .iter()
        .map(|f| format!("\n  {}:{}: {}", f.path, f.line, f.what));
    Err(told.collect())
}

fn tracked() -> Result<Tree, String> {
    let root = super::root();
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(&root)
        .output()
        .map_err(|e| format!("cannot run git: {e}"))?;
    if !listed.status.success() {
        let why = String::from_utf8_lossy(&listed.stderr);
        return Err(format!("git ls-files: {}", why.trim()));
    }
    let listed = String::from_utf8_lossy(&listed.stdout);
    let mut tree = Tree {
        paths: BTreeSet::new(),
        texts: BTreeMap::new(),
    };
    for path in listed.split_terminator('\0') {
        // One that was removed, but not yet from git's list, is not there for a link either.
        let Ok(bytes) = fs::read(root.join(path)) else {
            continue;
        };
        tree.paths.insert(path.to_owned());
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => drop(tree.texts.insert(path.to_owned(), text)),
            _ => {}
        }
    }
    if tree.texts.is_empty() {
        return Err("git tracks no text here".into());
    }
    Ok(tree)
}

/// Leftovers of a merge.
fn leftovers(tree: &Tree) -> Vec<Fault> {
    let is_marker =
        |line: &str| line == DIVIDER || MARKERS.iter().any(|marker| line.starts_with(marker));
    let mut faults = Vec::new();
    for (path, text) in &tree.texts {
        for (at, line) in text.lines().enumerate() {
            if is_marker(line) {
                faults.push(fault(path, at, "a leftover of a merge".into()));
            }
        }
    }
    faults
}

/// Links in Markdown to files or headings that are not there.
fn links(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (path, text) in tree.texts.iter().filter(|(path, _)| is_markdown(path)) {
        for (at, line) in prose(text) {
            for target in targets(&line) {
                if let Err(why) = follow(tree, path, target) {
                    faults.push(fault(path, at, format!("the link to {target}: {why}")));
                }
            }
        }
    }
    faults
}

/// Files of Rust that are too long, those of tests included.
fn lengths(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (path, text) in tree.texts.iter().filter(|(path, _)| path.ends_with(".rs")) {
        let lines = lines_without_tests(text);
        if lines > LINES_MAX {
            let what = format!("{lines} lines without its test module, more than {LINES_MAX}");
            faults.push(fault(path, 0, what));
        }
    }
    faults
}

/// What says something about the machine or the network where it was written.
fn foreign(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (path, text) in &tree.texts {
        for (at, line) in text.lines().enumerate() {
            for (word, what) in FOREIGN.iter().filter(|(word, _)| line.contains(word)) {
                faults.push(fault(path, at, format!("names {word}: {what}")));
            }
        }
    }
    faults
}

/// Scripts that do not begin by sourcing `tests/strict`, by themselves or through what they source.
fn mute(tree: &Tree) -> Vec<Fault> {
    let is_strict = |line: &str| {
        let sourced = line.strip_prefix(". ").map(|file| file.trim_matches('"'));
        let name = sourced.and_then(|file| file.rsplit('/').next());
        matches!(name, Some("strict" | "lab" | "cluster-lab"))
    };
    let scripts = tree.texts.iter().filter(|(_, text)| is_bash(text));
    scripts
        .filter(|(_, text)| !text.lines().any(is_strict))
        .map(|(path, _)| fault(path, 0, "does not source tests/strict".into()))
        .collect()
}

fn is_bash(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    first.starts_with("#!") && first.ends_with("bash")
}

/// `at` counts lines from 0.
fn fault(path: &str, at: usize, what: String) -> Fault {
    Fault {
        path: path.to_owned(),
        line: at + 1,
        what,
    }
}

fn is_markdown(path: &str) -> bool {
    path.ends_with(".md")
}

/// The lines of a Markdown text that are no code, with their places; spans of code within them are cut out.
fn prose(text: &str) -> Vec<(usize, String)> {
    let lines = unfenced(text).into_iter();
    lines.map(|(at, line)| (at, without_spans(line))).collect()
}

/// The lines of a Markdown text outside fenced code, with their places.
fn unfenced(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut fence: Option<&str> = None;
    for (at, line) in text.lines().enumerate() {
        let opens = ["```", "~~~"]
            .into_iter()
            .find(|mark| line.trim_start().starts_with(mark));
        match (fence, opens) {
            (None, None) => lines.push((at, line)),
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (Some(_), _) => {}
        }
    }
    lines
}

/// A line without what stands between backticks. One that nothing closes is a character like others.
fn without_spans(line: &str) -> String {
    let mut left = String::new();
    let mut rest = line;
    while let Some(begin) = rest.find('`') {
        let ticks = rest[begin..].len() - rest[begin..].trim_start_matches('`').len();
        let (mark, after) = rest[begin..].split_at(ticks);
        left.push_str(&rest[..begin]);
        match after.split_once(mark) {
            Some((_, behind)) => rest = behind,
            None => {
                left.push_str(mark);
                rest = after;
            }
        }
    }
    left + rest
}

/// Where the links in a line lead: `](target "title")`, `[name]: target`, and the attributes of HTML.
fn targets(line: &str) -> Vec<&str> {
    let until = |open: &str, close: char| -> Vec<&str> {
        let begun = line.split(open).skip(1);
        begun
            .filter_map(|rest| Some(rest.split_once(close)?.0))
            .collect()
    };
    let mut found = until("](", ')');
    found.extend(until("src=\"", '"'));
    found.extend(until("href=\"", '"'));
    if line.starts_with('[')
        && !line.starts_with("[^")
        && let Some((_, target)) = line.split_once("]: ")
    {
        found.push(target);
    }
    let bare = |target: &str| Some(target.split_whitespace().next()?.len());
    found
        .into_iter()
        .map(str::trim_start)
        .map(|target| &target[..bare(target).unwrap_or(0)])
        .map(|target| target.trim_start_matches('<').trim_end_matches('>'))
        .collect()
}

/// Whether a link in the file `from` leads to something.
fn follow(tree: &Tree, from: &str, target: &str) -> Result<(), &'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, heading) = match target.split_once('#') {
        Some((path, heading)) => (path, Some(heading)),
        None => (target, None),
    };
    let path = if path.is_empty() && heading.is_some() {
        from.to_owned()
    } else {
        resolve(from, path).ok_or("it leads out of the repository")?
    };
    let below = format!("{path}/");
    if !tree.paths.contains(&path) && !tree.paths.iter().any(|p| p.starts_with(&below)) {
        return Err("git tracks no such file or directory");
    }
    match (heading, tree.texts.get(&path)) {
        (Some(heading), Some(text)) if is_markdown(&path) && !anchors(text).contains(heading) => {
            Err("there is no such heading")
        }
        _ => Ok(()),
    }
}

/// The path from the root of what the file `from` calls `path`; one that begins with `/` does so there.
fn resolve(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = match path.starts_with('/') {
        true => Vec::new(),
        false => from.split('/').collect(),
    };
    // The file's own name.
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// What the headings of a Markdown text are called in links, as GitHub and GitLab do it: in lower case, words
/// joined by hyphens, without punctuation; one that comes again gets a number.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in unfenced(text) {
        let title = line.trim_start_matches('#');
        if !(1..=6).contains(&(line.len() - title.len())) || !title.starts_with(' ') {
            continue;
        }
        let name: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            })
            .collect();
        let again = (1..).map(|n| format!("{name}-{n}"));
        let mut names = std::iter::once(name.clone()).chain(again);
        found.extend(names.find(|name| !found.contains(name)));
    }
    found
}

/// How many lines a file of Rust has besides modules under `#[cfg(test)]` that stand in it. The file is formatted: such a
/// module ends with the first brace that begins a line.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let (mut count, mut at) = (0, 0);
    while at < lines.len() {
        match test_module(&lines[at..]) {
            Some(length) => at += length,
            None => {
                count += 1;
                at += 1;
            }
        }
    }
    count
}

/// How many lines a test module has that begins here.
fn test_module(lines: &[&str]) -> Option<usize> {
    if lines.first() != Some(&"#[cfg(test)]") {
        return None;
    }
    // Other attributes may follow, over several lines.
    let is_attribute = |line: &&&str| line.starts_with(['#', ' ', ')']);
    let attributes = 1 + lines[1..].iter().take_while(is_attribute).count();
    let opens = lines.get(attributes)?;
    if !opens.contains("mod ") || !opens.ends_with('{') {
        return None;
    }
    let inside = lines[attributes..].iter().position(|line| *line == "}")?;
    Some(attributes + inside + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let own = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        let texts: BTreeMap<String, String> = files.iter().map(own).collect();
        Tree {
            paths: texts.keys().cloned().collect(),
            texts,
        }
    }

    /// Where the faults are.
    fn places(faults: &[Fault]) -> Vec<(&str, usize)> {
        faults.iter().map(|f| (f.path.as_str(), f.line)).collect()
    }

    #[test]
    fn leftovers_of_a_merge_are_found_in_every_kind_of_file() {
        let (ours, base, theirs) = ("<".repeat(7), "|".repeat(7), ">".repeat(7));
        let left =
            format!("one\n{ours} HEAD\ntwo\n{base} 1b2e\n=======\r\nthree\n{theirs} remote\n");
        let found = tree(&[("a.md", &left), ("b.rs", &left), ("setup", "=======\n")]);
        let lines = [2, 4, 5, 7];
        let want = lines.map(|line| ("a.md", line)).into_iter();
        let want = want.chain(lines.map(|line| ("b.rs", line)));
        let want: Vec<_> = want.chain([("setup", 1)]).collect();
        assert_eq!(places(&leftovers(&found)), want);
    }

    #[test]
    fn rulers_arrows_and_quoted_markers_are_no_leftovers() {
        let (ours, ruler) = ("<".repeat(7), "=".repeat(8));
        let text = format!("{ruler}\n {ours} HEAD\n{ours}HEAD\nTitle\n===\n>>>>>> six\n");
        assert_eq!(leftovers(&tree(&[("a.md", &text)])), []);
    }

    #[test]
    fn a_link_to_what_is_not_tracked_is_found() {
        let page = "[a](b.md) and [c](gone.md)\n![d](../x.svg)\n\n[e]: /docs/none.md\n<img src=\"p.png\">\n\
                    [up](../../x)\n";
        let found = tree(&[("docs/a.md", page), ("docs/b.md", ""), ("x.svg", "")]);
        let want = [4, 5, 6].map(|line| ("docs/a.md", line));
        assert_eq!(places(&links(&found))[1..], want);
        assert_eq!(places(&links(&found))[0], ("docs/a.md", 1));
        assert!(links(&found)[0].what.contains("gone.md"));
    }

    #[test]
    fn a_link_to_a_heading_needs_that_heading() {
        let page = "# The `way` to disk, again\n## Twice\n## Twice\n```\n# No heading\n```\n#none\n\
                    [a](#the-way-to-disk-again) [b](#twice-1) [c](b.md#there \"title\")\n\
                    [d](#twice-2)\n[e](#no-heading)\n[f](#none)\n[g](b.md#gone)\n[h](x.rs#L5)\n";
        let found = tree(&[("a.md", page), ("b.md", "### There\n"), ("x.rs", "")]);
        let want = [9, 10, 11, 12].map(|line| ("a.md", line));
        assert_eq!(places(&links(&found)), want);
    }

    #[test]
    fn other_hosts_directories_and_code_are_no_broken_links() {
        let page = "[a](https://example.com/x.md) [b](mailto:x@example.com) [c](docs/) [d](./docs/b.md)\n\
                    `[e](gone.md)` and ``[f](`gone`.md)``\n```text\n[g](gone.md)\n```\n~~~\n```\n[h](gone.md)\n~~~\n";
        let found = tree(&[("a.md", page), ("docs/b.md", ""), ("c.rs", "[i](gone.md)")]);
        assert_eq!(links(&found), []);
        let after = format!("{page}`a` tick ` and [j](gone.md)\n");
        let found = tree(&[("a.md", &after), ("docs/b.md", "")]);
        assert_eq!(places(&links(&found)), [("a.md", 10)]);
    }

    #[test]
    fn a_file_is_as_long_as_its_lines_without_its_test_module() {
        let full = "let x = 1;\n".repeat(LINES_MAX);
        let tests = format!("#[cfg(test)]\n#[allow(\n    x\n)]\nmod tests {{\n    {full}}}\n");
        let over = |text: &str| !lengths(&tree(&[("crates/a/src/b.rs", text)])).is_empty();
        assert!(!over(&full));
        assert!(!over(&format!("{full}{tests}")));
        assert!(over(&format!("{full}// one more\n")));
        assert!(over(&format!("{tests}{full}// one more\n")));
        // A module in a file of its own, and a function for tests, are lines like others.
        assert!(over(&format!("{full}#[cfg(test)]\nmod tests;\n")));
        assert!(over(&format!("{full}#[cfg(test)]\nfn f() {{\n}}\n")));
        let long = format!("{full}\n");
        assert_eq!(
            lengths(&tree(&[("a.md", &long), ("tests/t.rs", &long)])).len(),
            1
        );
    }

    #[test]
    fn what_only_one_machine_knows_is_found() {
        for (word, _) in FOREIGN {
            let text = format!("fine\nsee {word}x\n");
            assert_eq!(
                places(&foreign(&tree(&[("a.toml", &text)]))),
                [("a.toml", 2)]
            );
        }
        assert_eq!(foreign(&tree(&[("a.md", "works/ in network/x\n")])), []);
    }

    #[test]
    fn a_script_that_is_not_strict_is_found() {
        let strict = "#!/usr/bin/env bash\n# words\n. \"$(dirname \"$0\")/../tests/strict\"\n";
        let lab = "#!/bin/bash\nnodes=1\n. \"$(dirname \"$0\")/lab\"\n";
        let own = "#!/bin/bash\nset -euo pipefail\n# . tests/strict\n";
        let found = tree(&[
            ("a", strict),
            ("b", lab),
            ("c", own),
            ("make-tree", "#!/usr/bin/env perl\n"),
            ("d.rs", "#![no_main]\n"),
        ]);
        assert_eq!(places(&mute(&found)), [("c", 1)]);
    }

    /// Runs a script after `tests/strict`: its status, and what it said.
    fn run_strictly(script: &str) -> (Option<i32>, String) {
        let script = format!(". tests/strict\n{script}\n");
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(crate::root())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    }

    #[test]
    fn a_script_that_ends_early_says_where() {
        for (script, line) in [
            ("true\nfalse\ntrue", "line 3"),
            ("asked() { false | cat; }\nwant=$(asked)", "line 3"),
            ("inner() { false; }\ninner", "line 2"),
        ] {
            let (status, said) = run_strictly(script);
            assert_eq!(status, Some(1), "{script}");
            assert!(said.contains(line), "{script}: {said}");
            assert_eq!(said.lines().count(), 1, "{script}: {said}");
        }
    }

    #[test]
    fn what_is_asked_about_ends_no_script() {
        let script = "asked() { false | cat; }\nif asked; then :; fi\nasked || true\n\
                      if [ \"$(asked)\" = x ]; then :; fi\n! false\nx=$(asked) || true\nexit 7";
        assert_eq!(run_strictly(script), (Some(7), String::new()));
    }

    #[test]
    fn the_repository_itself_is_read() {
        let own = tracked().unwrap();
        assert!(own.texts.contains_key("xtask/src/tidy.rs"));
        assert!(own.texts.contains_key("README.md"));
    }
}
