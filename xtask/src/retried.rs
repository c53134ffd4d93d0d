//! Failed tests that were run again: which of them count as passed.
//!
//! What lives here: the decision ([`judge`]), and the list of tests that are excused without it ([`List`], the file
//! `tests/retried.txt`). A failure that does not come again is a failure all the same: a mistake that shows in one run of ten
//! would pass otherwise. Only what the machine did is excused, and only as far as it was measured. See docs/rig.md.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::told::Told;

/// The list, in the workspace.
const FILE: &str = "tests/retried.txt";
/// The most tests on the list: more would hide that the tests, or the product, are not reliable.
const MOST_LISTED: usize = 5;

/// A test on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Its part and its name, `vcan front::x`.
    test: String,
    date: String,
    reason: String,
}

/// The tests that may fail once for a reason that the stall meter cannot see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(Vec<Entry>);

impl List {
    /// Reads the list of the workspace.
    ///
    /// # Errors
    /// It is missing, too long, or has a line that is wrong or names no test.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text, |test| is_in_the_source(root, test)).context(FILE)
    }

    fn parse(text: &str, exists: impl Fn(&str) -> bool) -> Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = parse_line(line).with_context(|| format!("line {number}"))?;
            ensure!(exists(&entry.test), "line {number}: there is no test `{}`; remove the line", entry.test);
            ensure!(
                entries.iter().all(|other| other.test != entry.test),
                "line {number}: `{}` is on the list already",
                entry.test
            );
            entries.push(entry);
        }
        ensure!(
            entries.len() <= MOST_LISTED,
            "{} tests are listed, at most {MOST_LISTED} may be; make one of them reliable first",
            entries.len()
        );
        Ok(Self(entries))
    }

    fn find(&self, test: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.test == test)
    }
}

/// Reads `part name | date | reason`.
fn parse_line(line: &str) -> Result<Entry> {
    let words: Vec<&str> = line.split('|').map(str::trim).collect();
    let [test, date, reason] = words[..] else { bail!("it is to be `part name | date | reason`") };
    ensure!(is_date(date), "`{date}` is no date like 2026-11-30");
    ensure!(!reason.is_empty(), "`{test}` has no reason");
    Ok(Entry { test: test.to_owned(), date: date.to_owned(), reason: reason.to_owned() })
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let number = |digits: &str, length| {
        (digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse().ok())
    };
    let within = |text, range: std::ops::RangeInclusive<u32>| {
        number(text, 2).flatten().is_some_and(|number: u32| range.contains(&number))
    };
    number(year, 4).is_some() && within(month, 1..=12) && within(day, 1..=31)
}

/// Whether the crate `tests` has a test of this part and name: its function in the file of its module.
fn is_in_the_source(root: &Path, test: &str) -> bool {
    let Some((part, name)) = test.split_once(' ') else { return false };
    // The soak is a test of the vcan's, see `crate::test`.
    let folder = root.join("tests/tests").join(if part == "soak" { "vcan" } else { part });
    let (module, function) = name.rsplit_once("::").unwrap_or(("main", name));
    let file = folder.join(module.replace("::", "/")).with_extension("rs");
    fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("#[test]\nfn {function}(")))
}

/// What a test that failed and was run again counts as, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Passed, for that reason.
    Excused(String),
    /// Passed in the second run, and nothing excuses the first: failed, where that is asked for.
    Unexcused(String),
    /// Failed, for that reason.
    Failed(String),
}

/// A test that was run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retried {
    /// Its part and its name.
    test: String,
    /// What it counts as.
    pub verdict: Verdict,
}

impl fmt::Display for Retried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (why, counted) = match &self.verdict {
            Verdict::Excused(why) => (why, "passed"),
            Verdict::Unexcused(why) => (why, "passed, with --strict as failed"),
            Verdict::Failed(why) => (why, "failed"),
        };
        write!(f, "retried: {}: {why}: counted as {counted}", self.test)
    }
}

/// Judges every test that failed in the first run and was then run again.
pub fn judge(part: &str, first: &Told, second: &Told, list: &List) -> Vec<Retried> {
    let judge = |name: &String| {
        let test = format!("{part} {name}");
        let verdict = if second.failed.contains(name) {
            Verdict::Failed("failed again".to_owned())
        } else if !second.passed.contains(name) {
            Verdict::Failed("did not come to its end when it was run again".to_owned())
        } else if let Some(Entry { date, reason, .. }) = list.find(&test) {
            Verdict::Excused(format!("in {FILE} since {date}: {reason}"))
        } else {
            excuse(first, name)
        };
        Retried { test, verdict }
    };
    first.failed.iter().map(judge).collect()
}

/// Judges by the stall meter alone. Where a test has several, each must excuse it.
fn excuse(first: &Told, name: &str) -> Verdict {
    let mut verdict =
        Verdict::Unexcused("passed in a second run, and the first shows no stall meter".to_owned());
    for meter in first.meters_of(name) {
        let longest = meter.longest_stall.as_millis();
        let Some(bound) = meter.bound else {
            return Verdict::Unexcused(
                "passed in a second run, but what failed in the first was no time limit".to_owned(),
            );
        };
        if meter.longest_stall <= bound {
            return Verdict::Unexcused(format!(
                "passed in a second run, but the machine stood still for {longest} ms at most in the first, not longer \
                 than the bound of {} ms",
                bound.as_millis()
            ));
        }
        verdict = Verdict::Excused(format!(
            "the machine stood still for {longest} ms, longer than the bound of {} ms",
            bound.as_millis()
        ));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "vcan a::b | 2026-11-30 | the test's own thread is an ordinary one";

    fn list(lines: &[&str]) -> Result<List> {
        List::parse(&lines.join("\n"), |test| !test.ends_with("unknown"))
    }

    fn told(lines: &str) -> Told {
        let mut told = Told::default();
        lines.lines().for_each(|line| told.take_line(line));
        told
    }

    /// A first run in which `a::b` fails, having printed that, and a second with that line.
    fn judged(printed: &str, second: &str, list: &List) -> Verdict {
        let first = told(&format!("test a::b ... FAILED\n---- a::b stdout ----\n{printed}\nfailures:"));
        let mut retried = judge("vcan", &first, &told(second), list);
        assert_eq!(retried.len(), 1);
        retried.remove(0).verdict
    }

    fn passes(printed: &str) -> bool {
        matches!(judged(printed, "test a::b ... ok", &List::default()), Verdict::Excused(_))
    }

    #[test]
    fn a_stall_longer_than_the_bound_excuses_and_nothing_else_does() {
        assert!(passes("stall-meter: longest 312 ms, bound that failed 15 ms"));
        assert!(passes("stall-meter: longest 16 ms, bound that failed 15 ms"));
        assert!(!passes("stall-meter: longest 15 ms, bound that failed 15 ms"));
        assert!(!passes("stall-meter: longest 3 ms, bound that failed 15 ms"));
        assert!(!passes("stall-meter: longest 9000 ms, no bound failed"));
        assert!(!passes(""));
    }

    #[test]
    fn each_meter_of_a_test_must_excuse_it() {
        let (good, bad) = (
            "stall-meter: longest 312 ms, bound that failed 15 ms",
            "stall-meter: longest 312 ms, no bound failed",
        );
        assert!(passes(&format!("{good}\n{good}")));
        assert!(!passes(&format!("{good}\n{bad}")));
        assert!(!passes(&format!("{bad}\n{good}")));
    }

    #[test]
    fn only_a_test_that_passed_again_can_be_excused() {
        let (meter, list) = ("stall-meter: longest 312 ms, bound that failed 15 ms", list(&[A]).unwrap());
        assert!(matches!(judged(meter, "test a::b ... FAILED", &list), Verdict::Failed(_)));
        assert!(matches!(judged(meter, "", &list), Verdict::Failed(_)));
        assert!(matches!(judged(meter, "test a::b ... FAILED\ntest a::b ... ok", &list), Verdict::Failed(_)));
    }

    #[test]
    fn a_listed_test_is_excused_in_its_own_part_only() {
        let list = list(&[A]).unwrap();
        assert!(matches!(judged("", "test a::b ... ok", &list), Verdict::Excused(_)));
        let first = told("test a::b ... FAILED");
        let retried = judge("system", &first, &told("test a::b ... ok"), &list);
        assert!(matches!(retried[0].verdict, Verdict::Unexcused(_)));
    }

    #[test]
    fn every_retried_test_is_told_with_its_reason() {
        let first = told(
            "test a::b ... FAILED\n---- a::b stdout ----\nstall-meter: longest 312 ms, bound that failed 15 ms",
        );
        let retried = judge("vcan", &first, &told("test a::b ... ok"), &List::default());
        let expected = "retried: vcan a::b: the machine stood still for 312 ms, longer than the bound of 15 ms: counted as \
                        passed";
        assert_eq!(retried[0].to_string(), expected);
    }

    #[test]
    fn the_list_takes_five_and_refuses_a_sixth() {
        let line = |number: usize| format!("vcan a::b{number} | 2026-11-30 | a reason");
        let lines: Vec<String> = (0..6).map(line).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(list(&lines[..5]).unwrap().0.len(), 5);
        let error = list(&lines).unwrap_err().to_string();
        assert!(error.contains("6 tests are listed, at most 5"), "{error}");
    }

    #[test]
    fn a_wrong_line_is_an_error() {
        for line in [
            "vcan a::b",
            "vcan a::b | 2026-11-30",
            "vcan a::b | 2026-11-30 |",
            "vcan a::b | 2026-13-30 | a reason",
            "vcan a::b | 2026-11-32 | a reason",
            "vcan a::b | soon | a reason",
            "vcan a::unknown | 2026-11-30 | a reason",
            &format!("{A}\n{A}"),
        ] {
            assert!(list(&[line]).is_err(), "{line}");
        }
        assert_eq!(list(&["# a comment", "", A]).unwrap().0.len(), 1);
    }

    #[test]
    fn the_list_of_this_tree_is_right() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        List::read(&root).unwrap();
        assert!(!is_in_the_source(&root, "vcan front::no_such_test"));
        assert!(is_in_the_source(&root, "vcan front::second_front_is_refused"));
        assert!(is_in_the_source(&root, "soak realtime::armed_loop_costs_nothing_but_time"));
    }
}
