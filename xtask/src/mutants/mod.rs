//! `cargo xtask mutants`: do the tests notice when the code that decides is changed?
//!
//! What lives here: fetching cargo-mutants, running it over the parts of [`parts`], and the comparison of the survivors
//! with `tests/mutants.txt`, which says of each survivor why it may. All parts take many hours, so it is no part of
//! `cargo xtask test`: it is a job of its own, which `--part` and `--shard` divide, and `--table` adds up.
//!
//! What costs is building: for each mutant the mutated crate and the tests linked with it. So it runs in a copy of the
//! working tree that stays in `target/mutants/tree` with its build, without debug information, and each file is
//! judged by the tests that are about it.

mod judge;
mod parts;
mod results;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shard::Shard;
use crate::workspace::{Workspace, say};
use judge::{Judge, Outcome};
use parts::{JUDGED, Part};
use results::{Counts, Line};

/// Survivors that may, each with its reason.
const ACCEPTED: &str = "tests/mutants.txt";

/// Arguments of `cargo xtask mutants`.
#[derive(Args, Debug)]
pub struct MutantsArgs {
    /// Judge only mutants whose name (`FILE:LINE:COLUMN: replace ...`) matches; such a run is not kept for the table
    #[arg(long, value_name = "REGEX", conflicts_with = "again")]
    only: Option<String>,
    /// Judge this part only; may be given several times
    #[arg(long, value_name = "NAME")]
    part: Vec<String>,
    /// Judge the K-th of N equal shares of each part, K from 1
    #[arg(long, value_name = "K/N", default_value = "1/1")]
    shard: Shard,
    /// Judge those that the last run of the same share has not seen caught, after tests were added
    #[arg(long)]
    again: bool,
    /// Show the parts, with the files and tests of each
    #[arg(long, conflicts_with_all = ["only", "part", "again", "table"])]
    list: bool,
    /// Show what was found so far, over all shares
    #[arg(long, conflicts_with_all = ["only", "part", "again"])]
    table: bool,
}

/// `cargo xtask mutants`.
///
/// # Errors
/// When cargo-mutants cannot be had or does not run. A survivor that is not accepted is an exit code.
pub fn main(workspace: &Workspace, args: &MutantsArgs) -> Result<u8> {
    if args.list {
        print!("{}", parts::list());
        return Ok(0);
    }
    let root = workspace.target.join("mutants");
    let kept = root.join("results");
    if args.table {
        let lines = results::parse(&fs::read_to_string(&kept).unwrap_or_default())?;
        print!("{}", results::table(JUDGED.iter().map(|part| part.name), &lines));
        return Ok(0);
    }
    let wanted = wanted(&args.part)?;
    let program = ensure_cargo_mutants(workspace)?;
    let tree = root.join("tree");
    tree::copy(&workspace.root, &tree)?;
    let accepted = accepted(&fs::read_to_string(workspace.root.join(ACCEPTED)).unwrap_or_default())?;
    let mut missed = Vec::new();
    for part in wanted {
        let folder = root.join(format!("{}-{}", part.name, args.shard.as_name()));
        let judge = Judge { program: &program, tree: &tree, folder: &folder, part };
        let outcome =
            if args.again { judge.again()? } else { judge.share(args.shard, args.only.as_deref())? };
        let (counts, survivors) = count(&outcome, &accepted);
        println!("{}: {counts}", part.name);
        if args.only.is_none() {
            let line =
                Line { part: part.name.to_owned(), shard: args.shard, judged: state(workspace)?, counts };
            results::append(&kept, &line)?;
        }
        missed.extend(survivors);
    }
    for mutant in &missed {
        println!("survives: {mutant}");
    }
    Ok(u8::from(!missed.is_empty()))
}

/// The parts of these names; all of them without a name.
fn wanted(names: &[String]) -> Result<Vec<&'static Part>> {
    if names.is_empty() {
        return Ok(JUDGED.iter().collect());
    }
    let find = |name: &String| {
        let part = JUDGED.iter().find(|part| part.name == name);
        part.with_context(|| format!("there is no part {name:?}: see `cargo xtask mutants --list`"))
    };
    names.iter().map(find).collect()
}

/// Counts an outcome, and names the survivors that are not accepted.
fn count(outcome: &Outcome, accepted: &BTreeMap<String, String>) -> (Counts, Vec<String>) {
    let verdict = judge(&outcome.missed, accepted);
    let counts = Counts {
        caught: outcome.caught.len(),
        timed_out: outcome.timed_out.len(),
        unviable: outcome.unviable.len(),
        accepted: verdict.accepted,
        survive: verdict.missed.len(),
    };
    (counts, verdict.missed)
}

/// Which state of the tree is judged: the commit with its day, and whether anything was changed since.
fn state(workspace: &Workspace) -> Result<String> {
    let git = |args: &[&str]| -> Result<String> {
        let output = Command::new("git").arg("-C").arg(&workspace.root).args(args).output();
        let output = output.context("cannot start git")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = if git(&["status", "--porcelain"])?.is_empty() { "" } else { "+" };
    Ok(format!("{}{changed}", git(&["log", "-1", "--format=%cs/%h"])?))
}

fn ensure_cargo_mutants(workspace: &Workspace) -> Result<PathBuf> {
    let root = workspace.target.join("tools");
    let program = root.join("bin").join("cargo-mutants");
    if !program.is_file() {
        say("installing cargo-mutants from crates.io (some minutes)");
        let root = root.display().to_string();
        workspace.run_cargo(&["install", "--locked", "--root", &root, "cargo-mutants"])?;
    }
    Ok(program)
}

/// The list of accepted survivors: `mutant | why` on each line, `#` for remarks. The last bar counts: a mutant may
/// be about one.
fn accepted(text: &str) -> Result<BTreeMap<String, String>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.rsplit_once(" | ") {
            Some((mutant, why)) if !why.trim().is_empty() => Ok((mutant.to_owned(), why.to_owned())),
            _ => bail!("{ACCEPTED}: write `mutant | why it may survive`, not {line:?}"),
        })
        .collect()
}

/// What became of the survivors.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    accepted: usize,
    missed: Vec<String>,
}

fn judge(missed: &[String], accepted: &BTreeMap<String, String>) -> Verdict {
    let mut verdict = Verdict::default();
    for mutant in missed {
        if accepted.contains_key(&without_place(mutant)) {
            verdict.accepted += 1;
        } else {
            verdict.missed.push(mutant.clone());
        }
    }
    verdict
}

/// `file:12:3: replace ...` without line and column, which change with every edit above.
fn without_place(mutant: &str) -> String {
    let Some((place, deed)) = mutant.split_once(": ") else { return mutant.to_owned() };
    let file = place.split(':').next().unwrap_or(place);
    format!("{file}: {deed}")
}

#[cfg(test)]
mod tests {
    use super::{accepted, judge};

    #[test]
    fn survivors_are_compared_without_their_line() {
        let list = accepted("# remark\n\na/b.rs: replace x with y in f | it is the same\n").unwrap();
        assert!(
            accepted("a: replace | with ^ in f | why\n").unwrap().contains_key("a: replace | with ^ in f")
        );
        let missed =
            ["a/b.rs:1:2: replace x with y in f", "a/b.rs:9:9: replace x with z in f"].map(str::to_owned);
        let verdict = judge(&missed, &list);
        assert_eq!(verdict.accepted, 1);
        assert_eq!(verdict.missed, ["a/b.rs:9:9: replace x with z in f"]);
        assert!(accepted("a/b.rs: replace x with y in f\n").is_err(), "a reason is needed");
    }
}
