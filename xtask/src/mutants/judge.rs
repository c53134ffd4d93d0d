//! Running cargo-mutants over one share of a part, and what became of each mutant.
//!
//! The tests that catch most come first. Only what those leave is judged by the part's further tests, which cost more to
//! build and to run.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::parts::Part;
use crate::shard::Shard;
use crate::workspace::say;

/// Seconds for all tests of a part; they take one to fifteen. A mutant that loops is caught, too.
const PATIENCE: &str = "60";

/// What becomes of mutants, by name (`FILE:LINE:COLUMN: replace ...`).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A test failed.
    pub caught: Vec<String>,
    /// The tests did not end.
    pub timed_out: Vec<String>,
    /// It does not compile.
    pub unviable: Vec<String>,
    /// No test failed.
    pub missed: Vec<String>,
}

impl Outcome {
    /// As cargo-mutants writes it: a file for each fate, a name on each line.
    fn read(folder: &Path) -> Self {
        let names = |file: &str| {
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        };
        Self {
            caught: names("caught.txt"),
            timed_out: names("timeout.txt"),
            unviable: names("unviable.txt"),
            missed: names("missed.txt"),
        }
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let Self { caught, timed_out, unviable, missed } = self;
        for (file, names) in [
            ("caught.txt", caught),
            ("timeout.txt", timed_out),
            ("unviable.txt", unviable),
            ("missed.txt", missed),
        ] {
            let lines: String = names.iter().flat_map(|name| [name.as_str(), "\n"]).collect();
            fs::write(folder.join(file), lines).with_context(|| format!("cannot write {file}"))?;
        }
        Ok(())
    }

    /// Puts what became of the missed ones in their place. Others are left out: of fields that a structure may go without,
    /// cargo-mutants 27 judges all, whatever names it is given.
    ///
    /// # Errors
    /// When they were not all judged: a name that no longer exists is none that was caught.
    fn settle(&mut self, later: Self) -> Result<()> {
        let asked = std::mem::take(&mut self.missed);
        let of_them =
            |names: Vec<String>| names.into_iter().filter(|name| asked.contains(name)).collect::<Vec<_>>();
        let [caught, timed_out, unviable, missed] =
            [later.caught, later.timed_out, later.unviable, later.missed].map(of_them);
        let judged = caught.len() + timed_out.len() + unviable.len() + missed.len();
        ensure!(
            judged == asked.len(),
            "{judged} of {} survivors were judged again: their file has changed, so judge the whole share",
            asked.len()
        );
        self.caught.extend(caught);
        self.timed_out.extend(timed_out);
        self.unviable.extend(unviable);
        self.missed = missed;
        Ok(())
    }
}

/// One share of a part before cargo-mutants.
pub struct Judge<'a> {
    /// cargo-mutants.
    pub program: &'a Path,
    /// The copy of the working tree.
    pub tree: &'a Path,
    /// Where the outcome of this share is kept.
    pub folder: &'a Path,
    /// The part.
    pub part: &'a Part,
}

impl Judge<'_> {
    /// Judges every mutant of the share whose name matches.
    ///
    /// # Errors
    /// When cargo-mutants does not run.
    pub fn share(&self, shard: Shard, only: Option<&str>) -> Result<Outcome> {
        say(format!("cargo mutants on {}, share {shard}", self.part.files.join(", ")));
        // Left from the run before, should there be no mutant of this share this time.
        let _ = fs::remove_dir_all(self.folder);
        let shard = shard.for_cargo_mutants();
        let mut which = vec!["--shard", &shard];
        which.extend(only.iter().flat_map(|only| ["--re", only]));
        let mut outcome = self.run(self.part.tests, &which)?;
        // Before the further tests as well: whoever interrupts these goes on with `--again`.
        outcome.write(self.folder)?;
        self.settle(&mut outcome, self.part.further)?;
        outcome.write(self.folder)?;
        Ok(outcome)
    }

    /// Judges the survivors of the last run anew.
    ///
    /// # Errors
    /// When there was no such run, its files have changed since, or cargo-mutants does not run.
    pub fn again(&self) -> Result<Outcome> {
        ensure!(
            self.folder.join("missed.txt").exists(),
            "{}: this share was not judged yet, so leave out --again",
            self.part.name
        );
        say(format!("cargo mutants on the survivors of {}", self.part.name));
        let mut outcome = Outcome::read(self.folder);
        self.settle(&mut outcome, self.part.tests)?;
        self.settle(&mut outcome, self.part.further)?;
        outcome.write(self.folder)?;
        Ok(outcome)
    }

    /// Lets these tests judge what was missed so far.
    fn settle(&self, outcome: &mut Outcome, tests: &[&str]) -> Result<()> {
        if tests.is_empty() || outcome.missed.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = outcome.missed.iter().map(|name| format!("^{}$", escaped(name))).collect();
        let which: Vec<&str> = names.iter().flat_map(|name| ["--re", name]).collect();
        outcome.settle(self.run(tests, &which)?)
    }

    /// Runs cargo-mutants on the part's files.
    fn run(&self, tests: &[&str], which: &[&str]) -> Result<Outcome> {
        let mut command = Command::new(self.program);
        command.args(["mutants", "--in-place", "--no-shuffle", "--colors=never", "--timeout", PATIENCE]);
        command.arg("--dir").arg(self.tree).arg("--output").arg(self.folder);
        command.args(self.part.files.iter().flat_map(|file| ["--file", file]));
        command.args(which);
        // Behind `--` they would not hold for building, and every test program of the package would be built each time.
        command.args(tests.iter().map(|word| format!("--cargo-arg={word}")));
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("CARGO_TARGET_DIR");
        let status = command.stdin(Stdio::null()).status().context("cannot start cargo-mutants")?;
        // 0: all caught; 2: some missed; 3: some timed out. Anything else: it did not run.
        if !matches!(status.code(), Some(0 | 2 | 3)) {
            bail!("cargo-mutants failed ({status}); its messages are above");
        }
        Ok(Outcome::read(&self.folder.join("mutants.out")))
    }
}

/// The name as a regular expression that matches nothing else.
fn escaped(name: &str) -> String {
    let is_special = |letter: char| r"\.+*?()|[]{}^$#&-~".contains(letter);
    name.chars().flat_map(|letter| is_special(letter).then_some('\\').into_iter().chain([letter])).collect()
}

#[cfg(test)]
mod tests {
    use super::{Outcome, escaped};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Fails if a survivor whose name has changed counts as caught.
    #[test]
    fn every_survivor_is_judged_again() {
        let mut outcome =
            Outcome { caught: names(&["a"]), missed: names(&["b", "c", "d"]), ..Outcome::default() };
        // Whatever else was judged is not what was asked.
        let later = || Outcome { caught: names(&["b"]), missed: names(&["d", "e"]), ..Outcome::default() };
        let fresh = |outcome: &Outcome| Outcome { missed: outcome.missed.clone(), ..Outcome::default() };
        assert!(fresh(&outcome).settle(later()).is_err(), "nobody judged c");
        let later = Outcome { timed_out: names(&["c"]), ..later() };
        outcome.settle(later).expect("all were judged");
        assert_eq!(outcome.caught, ["a", "b"]);
        assert_eq!(outcome.timed_out, ["c"]);
        assert_eq!(outcome.missed, ["d"]);
    }

    #[test]
    fn a_name_is_matched_as_it_is() {
        let name = "a/b.rs:1:2: replace <impl T for U>::f -> Option<(u8, [u8; 4])> with |x| x + 1";
        assert_eq!(
            escaped(name),
            r"a/b\.rs:1:2: replace <impl T for U>::f \-> Option<\(u8, \[u8; 4\]\)> with \|x\| x \+ 1"
        );
    }
}
