//! What was found: one line for each share of a part that was judged, and the table that adds them up.
//!
//! Lines are only ever added, and the last one of a share counts. So what several machines have found is put together
//! by putting their files one behind the other.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::shard::Shard;

/// What became of the mutants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// A test failed.
    pub caught: usize,
    /// The tests did not end.
    pub timed_out: usize,
    /// It does not compile.
    pub unviable: usize,
    /// No test failed, and the list of accepted survivors says why that is right.
    pub accepted: usize,
    /// No test failed.
    pub survive: usize,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.caught += other.caught;
        self.timed_out += other.timed_out;
        self.unviable += other.unviable;
        self.accepted += other.accepted;
        self.survive += other.survive;
    }

    fn all(&self) -> usize {
        self.caught + self.timed_out + self.unviable + self.accepted + self.survive
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caught, timed_out, unviable, accepted, survive } = self;
        write!(
            f,
            "{caught} caught, {timed_out} timed out, {unviable} do not compile, {accepted} survive and are accepted, \
             {survive} survive"
        )
    }
}

/// What one run has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The part.
    pub part: String,
    /// Which share of it.
    pub shard: Shard,
    /// Which state of the tree: day and commit.
    pub judged: String,
    /// The outcome.
    pub counts: Counts,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, shard, judged, counts } = self;
        let Counts { caught, timed_out, unviable, accepted, survive } = counts;
        write!(f, "{part} {shard} {judged} {caught} {timed_out} {unviable} {accepted} {survive}")
    }
}

/// Adds a line to the file of results.
///
/// # Errors
/// When the file cannot be written.
pub fn append(file: &Path, line: &Line) -> Result<()> {
    let opened = OpenOptions::new().create(true).append(true).open(file);
    let mut opened = opened.with_context(|| format!("cannot open {}", file.display()))?;
    writeln!(opened, "{line}").with_context(|| format!("cannot write {}", file.display()))
}

/// The lines of a file of results.
///
/// # Errors
/// When a line is none of this version's; the file can be deleted.
pub fn parse(text: &str) -> Result<Vec<Line>> {
    text.lines()
        .map(|line| parse_line(line).with_context(|| format!("not a line of results: {line:?}")))
        .collect()
}

fn parse_line(line: &str) -> Result<Line> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [part, shard, judged, caught, timed_out, unviable, accepted, survive] = words[..] else {
        bail!("it has {} words instead of 8", words.len())
    };
    let counts = Counts {
        caught: caught.parse()?,
        timed_out: timed_out.parse()?,
        unviable: unviable.parse()?,
        accepted: accepted.parse()?,
        survive: survive.parse()?,
    };
    Ok(Line { part: part.to_owned(), shard: shard.parse()?, judged: judged.to_owned(), counts })
}

/// The table over all parts, in their order, with what is missing of each.
pub fn table<'a>(parts: impl IntoIterator<Item = &'a str>, lines: &[Line]) -> String {
    let mut text =
        String::from("part | mutants | caught | timed out | do not compile | accepted | survive | judged\n");
    text.push_str("---|---|---|---|---|---|---|---\n");
    let mut sum = Counts::default();
    for part in parts {
        let shares = latest(part, lines);
        let mut counts = Counts::default();
        shares.iter().for_each(|line| counts.add(&line.counts));
        sum.add(&counts);
        row(&mut text, part, &counts, &when(&shares));
    }
    row(&mut text, "all", &sum, "");
    text
}

fn row(text: &mut String, name: &str, counts: &Counts, judged: &str) {
    let Counts { caught, timed_out, unviable, accepted, survive } = counts;
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{name} | {} | {caught} | {timed_out} | {unviable} | {accepted} | {survive} | {judged}",
        counts.all()
    );
}

/// The last line of each share of a part, divided as it was the last time.
fn latest<'a>(part: &str, lines: &'a [Line]) -> Vec<&'a Line> {
    let of_part = || lines.iter().rev().filter(|line| line.part == part);
    let Some(last) = of_part().next() else { return Vec::new() };
    last.shard.siblings().filter_map(|shard| of_part().find(|line| line.shard == shard)).collect()
}

/// Which states were judged, and how much was not.
fn when(shares: &[&Line]) -> String {
    let Some(first) = shares.first() else { return "not run".to_owned() };
    let mut states: Vec<&str> = shares.iter().map(|line| line.judged.as_str()).collect();
    states.sort_unstable();
    states.dedup();
    let states = states.join(" ");
    let count = first.shard.count();
    if shares.len() == count { states } else { format!("{states}; {} of {count} shares", shares.len()) }
}

#[cfg(test)]
mod tests {
    use super::{parse, table};

    #[test]
    fn the_last_line_of_each_share_counts() {
        let lines = parse(
            "stop 1/1 2026-01-01/aaa 1 0 0 0 9\n\
             stop 1/2 2026-01-02/bbb 5 1 0 0 3\n\
             stop 1/2 2026-01-02/bbb 7 1 0 1 0\n\
             stop 2/2 2026-01-03/ccc 4 0 2 0 0\n\
             core 2/3 2026-01-03/ccc 3 0 0 0 0\n",
        )
        .expect("lines");
        let table = table(["stop", "core", "beats"], &lines);
        let row = |name: &str| table.lines().find(|line| line.starts_with(name)).expect("a row").to_owned();
        assert_eq!(row("stop"), "stop | 15 | 11 | 1 | 2 | 1 | 0 | 2026-01-02/bbb 2026-01-03/ccc");
        assert_eq!(row("core"), "core | 3 | 3 | 0 | 0 | 0 | 0 | 2026-01-03/ccc; 1 of 3 shares");
        assert_eq!(row("beats"), "beats | 0 | 0 | 0 | 0 | 0 | 0 | not run");
        assert_eq!(row("all"), "all | 18 | 14 | 1 | 2 | 1 | 0 | ");
    }

    #[test]
    fn a_line_is_read_back() {
        let text = "stop 1/2 2026-01-02/bbb 5 1 0 0 3";
        assert_eq!(parse(text).expect("a line")[0].to_string(), text);
        assert!(parse("stop 1/2 5 1 0 0 3").is_err());
    }
}
