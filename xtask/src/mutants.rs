//! `cargo xtask mutants`: do the tests notice when the code that decides is changed?
//!
//! What lives here: fetching cargo-mutants, the list of files whose mutants must not survive with the tests that
//! have to notice, and the comparison of the survivors with `tests/mutants.txt`, which says of each survivor why
//! it may. It takes the better part of an hour, so it is no part of `cargo xtask test`.
//!
//! What costs is building: some 680 times the mutated crate and the tests linked with it. So it runs in a copy of the
//! working tree that stays in `target/mutants/tree` with its build, without debug information, and each file is
//! judged by the tests that are about it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace::{Workspace, say};

/// Files that are judged by the same tests.
struct Part {
    name: &'static str,
    files: &'static [&'static str],
    /// Which test programs of the package, as `cargo test` takes them.
    tests: &'static [&'static str],
}

/// What decides whether a motor is stopped: the believer of beats, the state machine, the kernel's stop.
const JUDGED: [Part; 3] = [
    Part { name: "core", files: &["supervisor/src/core/*.rs"], tests: &["--test", "core"] },
    Part {
        name: "beats",
        files: &["shm-proto/src/beat.rs", "shm-proto/src/beats.rs", "shm-proto/src/record.rs"],
        // Not those of the hand-over and the seals: they take seconds and have nothing to do with beats.
        tests: &[
            "--lib",
            "--test",
            "concurrent",
            "--test",
            "hostile_ring",
            "--test",
            "killed_writer",
            "--test",
            "ring",
            "--test",
            "validate",
            "--test",
            "verdicts",
        ],
    },
    Part {
        name: "kernel",
        files: &["supervisor/src/kernel_stop.rs", "supervisor/src/kernel_frame.rs"],
        tests: &["--lib"],
    },
];

/// Seconds for all tests of a part; they take one to five. A mutant that loops is caught, too.
const PATIENCE: &str = "30";

/// Survivors that may, each with its reason.
const ACCEPTED: &str = "tests/mutants.txt";

/// Arguments of `cargo xtask mutants`.
#[derive(Args, Debug)]
pub struct MutantsArgs {
    /// Judge only mutants whose name (`FILE:LINE:COLUMN: replace ...`) matches
    #[arg(long, value_name = "REGEX")]
    only: Option<String>,
}

/// `cargo xtask mutants`.
///
/// # Errors
/// When cargo-mutants cannot be had or does not run. A survivor that is not accepted is an exit code.
pub fn main(workspace: &Workspace, args: &MutantsArgs) -> Result<u8> {
    let program = ensure_cargo_mutants(workspace)?;
    let root = workspace.target.join("mutants");
    let tree = root.join("tree");
    copy_tree(&workspace.root, &tree)?;
    let accepted = accepted(&fs::read_to_string(workspace.root.join(ACCEPTED)).unwrap_or_default())?;
    let mut missed = Vec::new();
    for part in JUDGED {
        let output = root.join(part.name);
        // Left from the run before, should there be no mutant of this part this time.
        let _ = fs::remove_dir_all(&output);
        say(format!("cargo mutants on {}", part.files.join(", ")));
        let mut command = Command::new(&program);
        command.args(["mutants", "--in-place", "--no-shuffle", "--colors=never", "--timeout", PATIENCE]);
        command.arg("--dir").arg(&tree).arg("--output").arg(&output);
        command.args(part.files.iter().flat_map(|file| ["--file", file]));
        command.args(args.only.iter().flat_map(|only| ["--re", only]));
        command.arg("--").args(part.tests);
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("CARGO_TARGET_DIR");
        let status = command.stdin(Stdio::null()).status().context("cannot start cargo-mutants")?;
        // 0: all caught; 2: some missed; 3: some timed out. Anything else: it did not run.
        if !matches!(status.code(), Some(0 | 2 | 3)) {
            bail!("cargo-mutants failed ({status}); its messages are above");
        }
        let read = |name: &str| fs::read_to_string(output.join("mutants.out").join(name)).unwrap_or_default();
        let verdict = judge(&read("missed.txt"), &accepted);
        let count = |name: &str| read(name).lines().count();
        println!(
            "{}: {} caught, {} timed out, {} do not compile, {} survive and are accepted, {} survive",
            part.name,
            count("caught.txt"),
            count("timeout.txt"),
            count("unviable.txt"),
            verdict.accepted,
            verdict.missed.len()
        );
        missed.extend(verdict.missed);
    }
    for mutant in &missed {
        println!("survives: {mutant}");
    }
    Ok(u8::from(!missed.is_empty()))
}

/// Brings the copy to the state of the working tree. Files that are the same are left alone, so that only what
/// has changed is built again; a mutant that an interrupted run has left is undone.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.arg("-C").arg(from).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().context("cannot start git")?;
    if !output.status.success() {
        bail!("git ls-files failed in {}: {}", from.display(), String::from_utf8_lossy(&output.stderr));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    let wanted: Vec<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
    let sources = to.join("sources.txt");
    for gone in fs::read_to_string(&sources).unwrap_or_default().lines() {
        if !from.join(gone).is_file() {
            let _ = fs::remove_file(to.join(gone));
        }
    }
    for name in &wanted {
        let Ok(content) = fs::read(from.join(name)) else { continue };
        let copy = to.join(name);
        if fs::read(&copy).is_ok_and(|old| old == content) {
            continue;
        }
        fs::create_dir_all(copy.parent().unwrap_or(to))?;
        fs::write(&copy, content).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    fs::write(&sources, wanted.join("\n"))?;
    Ok(())
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
        assert!(
            accepted("a: replace | with ^ in f | why\n").unwrap().contains_key("a: replace | with ^ in f")
        );
        let verdict = judge("a/b.rs:1:2: replace x with y in f\na/b.rs:9:9: replace x with z in f\n", &list);
        assert_eq!(verdict.accepted, 1);
        assert_eq!(verdict.missed, ["a/b.rs:9:9: replace x with z in f"]);
        assert!(accepted("a/b.rs: replace x with y in f\n").is_err(), "a reason is needed");
    }
}
