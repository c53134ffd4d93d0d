//! Counting test results.
//!
//! What lives here: [`Tally`], which reads the output of Rust's test harness as it streams by and
//! adds up the `test result:` lines.

/// What the test programs reported so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and whatever else counts as a failure.
    pub failed: u64,
    /// Tests that were skipped.
    pub ignored: u64,
    /// How many summary lines were seen.
    pub summaries: u64,
    line: Vec<u8>,
}

impl Tally {
    /// Takes the next piece of output, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.take_line(&String::from_utf8_lossy(&line));
            } else {
                self.line.push(byte);
            }
        }
    }

    fn take_line(&mut self, line: &str) {
        let Some(summary) = line.trim().strip_prefix("test result: ") else { return };
        let Some((_verdict, counts)) = summary.split_once(". ") else { return };
        self.summaries += 1;
        for part in counts.split(';') {
            let Some((number, word)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Adds another tally's counts to this one.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.summaries += other.summaries;
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn adds_up_summaries_cut_at_any_byte() {
        let text = "running 3 tests\n\
            test a ... ok\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            noise about 7 passed; nothing\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.20s\n";
        for cut in 0..text.len() {
            let mut tally = Tally::default();
            tally.feed(&text.as_bytes()[..cut]);
            tally.feed(&text.as_bytes()[cut..]);
            assert_eq!((tally.passed, tally.failed, tally.ignored, tally.summaries), (4, 2, 1, 2));
        }
    }
}
