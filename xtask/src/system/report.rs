//! What the tests in the machine say, read as it comes.
//!
//! What lives here: [`Reading`], which counts, and decides whether the machine came to its end as it was to. A test
//! program that dies, a boot that is missing and a machine that hangs are failures that no test has counted.

use std::time::Duration;

use super::Outcome;
use crate::rig::sandbox::Ending;
use crate::tally::Tally;
use crate::told::Told;

/// How the machine's runner begins a line of its own.
const RUNNER: &str = "boot-test: ";
/// What it says at the beginning of a boot, with its number.
const BOOT: &str = "boot ";
/// What it says when a program ended in a way that no test program does.
const DIED: &str = "died: ";
/// What it says before it switches the machine off.
const END: &str = "end";
/// How often a whole run boots: once by the host, once by the hardware watchdog.
const BOOTS: u64 = 2;

/// The output so far.
#[derive(Debug, Default)]
pub struct Reading {
    tally: Tally,
    line: Vec<u8>,
    told: Told,
    died: Vec<String>,
    boots: u64,
    ended: bool,
    /// The test that was running when the output broke off.
    running: Option<String>,
}

impl Reading {
    /// Takes the next piece of output, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.tally.feed(bytes);
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                self.take_line(line.trim_end());
            } else {
                self.line.push(byte);
            }
        }
    }

    fn take_line(&mut self, line: &str) {
        if let Some(word) = line.strip_prefix(RUNNER) {
            if word.starts_with(BOOT) {
                self.boots += 1;
            } else if word == END {
                self.ended = true;
            } else if let Some(who) = word.strip_prefix(DIED) {
                self.died.push(who.to_owned());
            }
        }
        self.told.take_line(line);
    }

    /// What the run came to, now that the machine is off. `everything`: both boots were to happen.
    pub fn outcome(
        mut self,
        ending: Ending,
        timeout: Duration,
        everything: bool,
        last_words: impl FnOnce() -> String,
    ) -> Outcome {
        self.running = String::from_utf8_lossy(&self.line).trim().strip_prefix("test ").map(str::to_owned);
        let mut problems: Vec<String> =
            self.died.iter().map(|who| format!("system: a test program died: {who}")).collect();
        if !self.ended {
            let how = match ending {
                Ending::TimedOut => format!("was switched off after {} s", timeout.as_secs()),
                Ending::Exit(code) => format!("died (QEMU's exit code {code})"),
            };
            let during = self.running.map(|test| format!(" during: {test}")).unwrap_or_default();
            problems.push(format!(
                "system: the machine {how} in boot {}{during}{}",
                self.boots,
                last_words()
            ));
        } else if everything && self.boots != BOOTS {
            problems.push(format!("system: {} boots instead of {BOOTS}", self.boots));
        }
        Outcome { tally: self.tally, told: self.told, problems }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Reading;
    use crate::rig::sandbox::Ending;

    const FIRST: &str = "boot-test: boot 1\n\nrunning 2 tests\ntest first::a ... ok\ntest first::b ... FAILED\n\n\
                         test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 9s\n";
    const SECOND: &str = "boot-test: boot 2\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 2 filtered \
                          out; finished in 1s\nboot-test: end\n";
    const LIMIT: Duration = Duration::from_secs(60);

    fn read(text: &str, ending: Ending) -> super::Outcome {
        let mut reading = Reading::default();
        text.bytes().for_each(|byte| reading.feed(&[byte]));
        reading.outcome(ending, LIMIT, true, || "\nlast words".to_owned())
    }

    #[test]
    fn both_boots_are_counted() {
        let outcome = read(&format!("{FIRST}{SECOND}"), Ending::Exit(0));
        assert_eq!((outcome.tally.passed, outcome.tally.failed), (4, 1));
        assert_eq!(outcome.told.failed, ["first::b"]);
        assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
    }

    #[test]
    fn a_machine_that_hangs_is_a_failure_with_its_last_words() {
        let outcome = read(&format!("{FIRST}test first::c ... "), Ending::TimedOut);
        let [problem] = outcome.problems.try_into().unwrap();
        assert!(problem.contains("switched off after 60 s in boot 1 during: first::c ..."), "{problem}");
        assert!(problem.ends_with("last words"), "{problem}");
    }

    #[test]
    fn a_machine_that_ends_too_early_is_a_failure_whatever_qemu_says() {
        for text in ["", FIRST] {
            let outcome = read(text, Ending::Exit(0));
            assert!(outcome.problems[0].contains("died"), "{:?}", outcome.problems);
        }
    }

    #[test]
    fn a_watchdog_that_does_not_bite_is_a_failure() {
        let outcome = read(&format!("{FIRST}boot-test: end\n"), Ending::Exit(0));
        assert_eq!(outcome.problems, ["system: 1 boots instead of 2"]);
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let text = format!("{FIRST}boot-test: died: first:: (exit code 134)\n{SECOND}");
        let outcome = read(&text, Ending::Exit(0));
        assert_eq!(outcome.problems, ["system: a test program died: first:: (exit code 134)"]);
    }
}
