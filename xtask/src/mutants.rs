//! `cargo xtask mutants`: do the tests notice when the code that decides is changed?
//!
//! What lives here: fetching cargo-mutants, the list of files whose mutants must not survive, and the
//! comparison of the survivors with `tests/mutants.txt`, which says of each survivor why it may. It takes
//! the better part of an hour, so it is no part of `cargo xtask test`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace::{Workspace, say};

/// What decides whether a motor is stopped: the believer of beats, the state machine, the kernel's stop.
const JUDGED: &[&str] = &[
    "shm-proto/src/beat.rs",
    "shm-proto/src/beats.rs",
    "shm-proto/src/record.rs",
    "supervisor/src/core/*.rs",
    "supervisor/src/kernel_stop.rs",
    "supervisor/src/kernel_frame.rs",
];

/// Survivors that may, each with its reason.
const ACCEPTED: &str = "tests/mutants.txt";

/// Arguments of `cargo xtask mutants`.
#[derive(Args, Debug)]
pub struct MutantsArgs {
    /// Judge only these files (globs as cargo-mutants takes them) instead of the whole list
    #[arg(long, value_name = "GLOB")]
    file: Vec<String>,
    /// Mutants tried at the same time
    #[arg(long, default_value_t = 1, value_name = "N")]
    jobs: u32,
}

/// `cargo xtask mutants`.
///
/// # Errors
/// When cargo-mutants cannot be had or does not run. A survivor that is not accepted is an exit code.
pub fn main(workspace: &Workspace, args: &MutantsArgs) -> Result<u8> {
    let program = ensure_cargo_mutants(workspace)?;
    let output = workspace.target.join("mutants");
    let given: Vec<&str> = args.file.iter().map(String::as_str).collect();
    let files = if given.is_empty() { JUDGED } else { &given[..] };
    say(format!("cargo mutants on {}", files.join(", ")));
    let mut command = Command::new(program);
    command.current_dir(&workspace.root).args(["mutants", "--no-shuffle", "--colors=never"]);
    // A mutant that loops is caught, too; the tests themselves take seconds.
    command.args(["--timeout", "120", "--jobs", &args.jobs.to_string(), "--output"]).arg(&output);
    for file in files {
        command.args(["--file", file]);
    }
    let status = command.stdin(Stdio::null()).status().context("cannot start cargo-mutants")?;
    // 0: all caught; 2: some missed; 3: some timed out. Anything else: it did not run.
    if !matches!(status.code(), Some(0 | 2 | 3)) {
        bail!("cargo-mutants failed ({status}); its messages are above");
    }
    let read = |name: &str| fs::read_to_string(output.join("mutants.out").join(name)).unwrap_or_default();
    let accepted = accepted(&fs::read_to_string(workspace.root.join(ACCEPTED)).unwrap_or_default())?;
    let verdict = judge(&read("missed.txt"), &accepted);
    let count = |name: &str| read(name).lines().count();
    println!(
        "{} caught, {} timed out, {} do not compile, {} survive and are accepted, {} survive",
        count("caught.txt"),
        count("timeout.txt"),
        count("unviable.txt"),
        verdict.accepted,
        verdict.missed.len()
    );
    for mutant in &verdict.missed {
        println!("survives: {mutant}");
    }
    Ok(u8::from(!verdict.missed.is_empty()))
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

/// The list of accepted survivors: `mutant | why` on each line, `#` for remarks.
fn accepted(text: &str) -> Result<BTreeMap<String, String>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split_once(" | ") {
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

fn judge(missed: &str, accepted: &BTreeMap<String, String>) -> Verdict {
    let mut verdict = Verdict::default();
    for line in missed.lines() {
        if accepted.contains_key(&without_place(line)) {
            verdict.accepted += 1;
        } else {
            verdict.missed.push(line.to_owned());
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
        let verdict = judge("a/b.rs:1:2: replace x with y in f\na/b.rs:9:9: replace x with z in f\n", &list);
        assert_eq!(verdict.accepted, 1);
        assert_eq!(verdict.missed, ["a/b.rs:9:9: replace x with z in f"]);
        assert!(accepted("a/b.rs: replace x with y in f\n").is_err(), "a reason is needed");
    }
}
