//! What Rust's test harness tells of each test.
//!
//! What lives here: [`Told`], which reads the harness's lines: the tests that passed and failed, and, from what a failed test
//! printed, the line of the stall meter ([`Meter`]). `tests/src/bound.rs` writes that line.

use std::time::Duration;

/// How the stall meter's line begins.
const METER: &str = "stall-meter: longest ";

/// What a failed test said of the machine it ran on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meter {
    /// How long the machine stood still at one go while the test ran.
    pub longest_stall: Duration,
    /// The time limit that failed; `None`: what failed was no time limit.
    pub bound: Option<Duration>,
}

impl Meter {
    /// Reads a line; `None` if it is no meter's, or a mutilated one.
    fn parse(line: &str) -> Option<Self> {
        let (longest, bound) = line.trim().strip_prefix(METER)?.split_once(", ")?;
        let bound = match bound {
            "no bound failed" => None,
            other => Some(millis(other.strip_prefix("bound that failed ")?)?),
        };
        Some(Self { longest_stall: millis(longest)?, bound })
    }
}

fn millis(text: &str) -> Option<Duration> {
    text.strip_suffix(" ms")?.parse().ok().map(Duration::from_millis)
}

/// The tests of some test programs, as far as they have told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The names of those that passed.
    pub passed: Vec<String>,
    /// The names of those that failed.
    pub failed: Vec<String>,
    /// Of a failed test each line of a stall meter: every robot of a test has its own.
    meters: Vec<(String, Meter)>,
    /// The test whose output follows.
    section: Option<String>,
}

impl Told {
    /// Takes the next line, without its end.
    pub fn take_line(&mut self, line: &str) {
        if let Some(section) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.section = Some(section.to_owned());
            return;
        }
        // The list of names after the sections, and the end of the program.
        if line == "failures:" || line.starts_with("test result:") {
            self.section = None;
            return;
        }
        if let (Some(section), Some(meter)) = (&self.section, Meter::parse(line)) {
            self.meters.push((section.clone(), meter));
            return;
        }
        let Some(test) = line.strip_prefix("test ") else { return };
        self.failed.extend(test.strip_suffix(" ... FAILED").map(str::to_owned));
        self.passed.extend(test.strip_suffix(" ... ok").map(str::to_owned));
    }

    /// What a failed test said of its machine.
    pub fn meters_of<'a>(&'a self, test: &'a str) -> impl Iterator<Item = Meter> + 'a {
        self.meters.iter().filter(move |(name, _)| name == test).map(|(_, meter)| *meter)
    }

    /// Takes over what others have told.
    pub fn add(&mut self, other: Self) {
        self.passed.extend(other.passed);
        self.failed.extend(other.failed);
        self.meters.extend(other.meters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 4 tests\ntest a::b ... ok\ntest a::c ... FAILED\nnoise FAILED\ntest a::d ... FAILED\n\
        stall-meter: longest 900 ms, bound that failed 1 ms\n\nfailures:\n\n---- a::c stdout ----\n  event | {}\n\
        stall-meter: longest 312 ms, bound that failed 15 ms\nError: late\n\n---- a::d stdout ----\n\
        stall-meter: longest 7 ms, no bound failed\n\n\nfailures:\n    a::c\n    a::d\n\n\
        stall-meter: longest 901 ms, bound that failed 1 ms\n\
        test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9s";

    fn told() -> Told {
        let mut told = Told::default();
        OUTPUT.lines().for_each(|line| told.take_line(line));
        told
    }

    #[test]
    fn tests_are_known_by_name() {
        let told = told();
        assert_eq!(told.passed, ["a::b"]);
        assert_eq!(told.failed, ["a::c", "a::d"]);
    }

    #[test]
    fn a_meter_belongs_to_the_test_in_whose_output_it_stands() {
        let told = told();
        let meter = |longest, bound: Option<u64>| Meter {
            longest_stall: Duration::from_millis(longest),
            bound: bound.map(Duration::from_millis),
        };
        assert_eq!(told.meters_of("a::c").collect::<Vec<_>>(), [meter(312, Some(15))]);
        assert_eq!(told.meters_of("a::d").collect::<Vec<_>>(), [meter(7, None)]);
        assert_eq!(told.meters_of("a::b").count(), 0);
    }

    #[test]
    fn a_mutilated_meter_is_none() {
        for line in [
            "stall-meter: longest 312 ms",
            "stall-meter: longest 312 ms, ",
            "stall-meter: longest 312, bound that failed 15 ms",
            "stall-meter: longest 312 ms, bound that failed 15",
            "stall-meter: longest -1 ms, bound that failed 15 ms",
            "longest 312 ms, bound that failed 15 ms",
        ] {
            assert_eq!(Meter::parse(line), None, "{line}");
        }
    }
}
