//! The verdict: everything is read back and held against what the clients were told.

use super::{Acknowledged, LINE_BYTES, Target, list, log_name, names_dir, read_all};
use haven_client::Client;
use std::collections::BTreeSet;

/// Bytes read at a time.
const READ_BYTES: u32 = 1 << 20;
/// Bytes of a READDIR answer.
const READDIR_BYTES: u32 = 32 << 10;
/// Problems described in words; more are only counted.
const PROBLEMS_MAX: usize = 10;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged, but not there.
    pub lost: u64,
    /// Done more than once.
    pub doubled: u64,
    /// Lines in the wrong order.
    pub out_of_order: u64,
    /// What else is wrong, and the first of the above, in words.
    pub problems: Vec<String>,
}

impl Verdict {
    /// Whether everything is as it must be.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    fn problem(&mut self, what: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(what);
        }
    }
}

/// Reads everything back with a fresh client.
pub async fn verify(target: &Target, told: &Acknowledged) -> Verdict {
    let mut verdict = Verdict {
        doubled: told.doubled,
        problems: told.problems.clone(),
        ..Verdict::default()
    };
    let client = target.client();
    if let Err(why) = read_back(&client, &target.export, told, &mut verdict).await {
        verdict.problem(format!("reading back: {why}"));
    }
    verdict
}

async fn read_back(
    client: &Client,
    export: &str,
    told: &Acknowledged,
    verdict: &mut Verdict,
) -> Result<(), String> {
    let root = client
        .mount(export)
        .await
        .map_err(|e| format!("mount: {e}"))?;
    for (index, lines) in told.lines.iter().enumerate() {
        let name = log_name(index);
        let found = client
            .lookup(&root, name.as_str())
            .await
            .map_err(|e| format!("{name}: {e}"))?;
        let bytes = read_all(client, &found.object, READ_BYTES)
            .await
            .map_err(|e| format!("{name}: {e}"))?;
        check_lines(&name, &bytes, *lines, verdict);
    }
    for (index, names) in told.names.iter().enumerate() {
        let name = names_dir(index);
        let found = client
            .lookup(&root, name.as_str())
            .await
            .map_err(|e| format!("{name}: {e}"))?;
        let there = list(client, &found.object, READDIR_BYTES)
            .await
            .map_err(|e| format!("{name}: {e}"))?;
        check_names(&name, &there, *names, verdict);
    }
    Ok(())
}

/// One unacknowledged line may follow: its WRITE was executed, its COMMIT never answered.
fn check_lines(name: &str, bytes: &[u8], told: u64, verdict: &mut Verdict) {
    let mut seen = BTreeSet::new();
    let mut before: Option<(u64, u64)> = None;
    for chunk in bytes.chunks(LINE_BYTES) {
        let Some((number, time)) = parse(chunk) else {
            verdict.lost += 1;
            verdict.problem(format!("{name}: line {} is damaged", seen.len()));
            continue;
        };
        if !seen.insert(number) {
            verdict.doubled += 1;
            verdict.problem(format!("{name}: line {number} is there twice"));
        }
        if before.is_some_and(|(n, t)| number <= n || time < t) {
            verdict.out_of_order += 1;
            verdict.problem(format!("{name}: line {number} is out of order"));
        }
        before = Some((number, time));
    }
    let missing = (0..told).filter(|n| !seen.contains(n)).count() as u64;
    if missing > 0 {
        verdict.lost += missing;
        verdict.problem(format!(
            "{name}: {missing} of {told} acknowledged lines are missing"
        ));
    }
    if seen.iter().any(|n| *n > told) {
        verdict.problem(format!("{name}: lines that nobody wrote"));
    }
}

fn parse(line: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(line).ok()?;
    if text.len() != LINE_BYTES || !text.ends_with('\n') {
        return None;
    }
    Some((
        text.get(..10)?.parse().ok()?,
        text.get(11..24)?.parse().ok()?,
    ))
}

fn check_names(dir: &str, there: &[String], told: u64, verdict: &mut Verdict) {
    let set: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    if set.len() != there.len() {
        verdict.problem(format!("{dir}: a name is listed twice"));
    }
    let mut expected = BTreeSet::new();
    for number in (0..told).filter(|n| Acknowledged::stays(*n)) {
        expected.insert(format!("kept-{number}"));
    }
    for name in &expected {
        if !set.contains(name.as_str()) {
            verdict.lost += 1;
            verdict.problem(format!("{dir}: {name} is missing"));
        }
    }
    for name in set {
        if !expected.contains(name) {
            verdict.lost += 1;
            verdict.problem(format!("{dir}: {name} should have been renamed or removed"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(numbers: &[u64]) -> Vec<u8> {
        let mut all = Vec::new();
        for number in numbers {
            let mut line = format!("{number:010} {:013} ", 1_000 + number);
            line.extend(std::iter::repeat_n('.', LINE_BYTES - 1 - line.len()));
            all.extend_from_slice(line.as_bytes());
            all.push(b'\n');
        }
        all
    }

    fn lines(numbers: &[u64], told: u64) -> Verdict {
        let mut verdict = Verdict::default();
        check_lines("log", &text(numbers), told, &mut verdict);
        verdict
    }

    #[test]
    fn lost_doubled_and_disordered_lines_are_found() {
        assert!(lines(&[0, 1, 2], 3).is_clean());
        assert!(
            lines(&[0, 1, 2, 3], 3).is_clean(),
            "one line more may have been executed"
        );
        assert_eq!(lines(&[0, 2], 3).lost, 1);
        assert_eq!(lines(&[0, 1], 3).lost, 1);
        assert_eq!(lines(&[0, 1, 1, 2], 3).doubled, 1);
        assert_eq!(lines(&[0, 2, 1], 3).out_of_order, 1);
        assert!(
            !lines(&[0, 1, 2, 3, 4], 3).is_clean(),
            "nobody wrote line 4"
        );
        let mut verdict = Verdict::default();
        check_lines("log", &text(&[0, 1])[..100], 2, &mut verdict);
        assert!(verdict.lost > 0, "a cut line");
    }

    #[test]
    fn lost_and_left_over_names_are_found() {
        let names = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|n| (*n).to_owned()).collect();
            let mut verdict = Verdict::default();
            check_names("names", &list, 6, &mut verdict);
            verdict
        };
        assert!(names(&["kept-0", "kept-4"]).is_clean());
        assert_eq!(names(&["kept-0"]).lost, 1, "missing");
        assert_eq!(
            names(&["kept-0", "kept-4", "kept-5"]).lost,
            1,
            "not removed"
        );
        assert_eq!(names(&["kept-0", "kept-4", "new-3"]).lost, 1, "not renamed");
    }
}
