//! `cargo xtask bench --against COMMIT`: this tree's figures beside another commit's, from the same minutes.
//!
//! What lives here: a copy of the other commit in a git worktree under `target/` with a target folder of its own
//! ([`check_out`]), the two benchmarks in turns ([`compare`]), and the table of ratios. Only the other commit's
//! `lanyard-bench` is run, never its xtask: any commit that has that program can be compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::bench::{Peers, Program};
use crate::install::output_of;
use crate::workspace::{Workspace, find_program, say};

/// From this ratio on a figure is called worse: a change that costs more than a tenth has to be explained.
const WORSE: f64 = 1.1;

/// Another commit, checked out beside this tree.
pub struct Old {
    /// Its workspace.
    pub workspace: Workspace,
    /// Its name for people: what was asked for, and the hash.
    pub commit: String,
}

/// Both benchmarks, built.
#[derive(Debug)]
pub struct Sides {
    /// This tree's.
    pub new: Program,
    /// The other commit's.
    pub old: Program,
    /// The other commit's name for people.
    pub commit: String,
}

/// Checks a commit out into `target/against/tree`. It is built into `target/against/target`, which is kept: the next
/// comparison builds only what differs.
///
/// # Errors
/// When there is no git, this is no git repository, or there is no such commit.
pub fn check_out(workspace: &Workspace, commit: &str) -> Result<Old> {
    if find_program("git").is_none() {
        bail!("--against needs git, which is not installed; run `apt-get install git` and try again");
    }
    let git =
        |arguments: &[&OsStr]| output_of(Command::new("git").arg("-C").arg(&workspace.root).args(arguments));
    git(&["rev-parse".as_ref(), "--git-dir".as_ref()]).with_context(|| {
        format!("--against needs the history, and {} is in no git repository", workspace.root.display())
    })?;
    let wanted = format!("{commit}^{{commit}}");
    // Not a commit, but an option.
    let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted].map(AsRef::as_ref);
    let hash = git(&arguments)
        .ok()
        .and_then(|hash| Some(String::from_utf8(hash).ok()?.trim().to_owned()))
        .with_context(|| {
            format!(
                "--against {commit}: no such commit here; name one that `git log` shows, or fetch it first"
            )
        })?;
    let folder = workspace.target.join("against");
    let (tree, target) = (folder.join("tree"), folder.join("target"));
    let name = format!("{commit} ({})", &hash[..hash.len().min(12)]);
    say(format!("checking {name} out into {}", tree.display()));
    if tree.join(".git").exists() {
        output_of(
            Command::new("git")
                .arg("-C")
                .arg(&tree)
                .args(["checkout", "--quiet", "--force", "--detach", &hash]),
        )?;
    } else {
        // Twice --force: a worktree of that name whose folder was removed with the target folder.
        let add = ["worktree", "add", "--quiet", "--force", "--force", "--detach"].map(OsStr::new);
        git(&[&add[..], &[tree.as_os_str(), hash.as_ref()]].concat())?;
    }
    let workspace = Workspace::at(&tree, &target).with_context(|| format!("{name} cannot be built"))?;
    if !workspace.binaries_of("tests").iter().any(|program| program == "lanyard-bench") {
        bail!(
            "--against {commit}: that commit has no benchmark (the program lanyard-bench of the crate tests)"
        );
    }
    Ok(Old { workspace, commit: name })
}

/// The figures of one run, by name.
type Figures = BTreeMap<String, f64>;

/// Runs both in turns, the older first, and prints the ratios; writes them to `json`, too.
///
/// # Errors
/// When a benchmark fails, or what it has measured cannot be read.
pub fn compare(
    sides: &Sides,
    peers: &Peers,
    only: Option<&str>,
    rounds: u32,
    json: Option<&Path>,
) -> Result<u8> {
    let file = Scratch::new();
    let measure = |program: &Program, whose: &str| -> Result<Figures> {
        let status = program.run(peers, only, Some(&file.0), Stdio::null())?;
        if !status.success() {
            bail!("the benchmark of {whose} failed ({status}); its messages are above");
        }
        let text = fs::read(&file.0).with_context(|| format!("cannot read {}", file.0.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("the benchmark of {whose} wrote no figures"))
    };
    let (mut old, mut new) = (Runs::default(), Runs::default());
    say("measuring; leave the machine alone meanwhile");
    for round in 1..=rounds {
        say(format!("round {round} of {rounds}: {}", sides.commit));
        old.add(measure(&sides.old, &sides.commit)?);
        say(format!("round {round} of {rounds}: this tree"));
        new.add(measure(&sides.new, "this tree")?);
    }
    let lines = Comparison::of(&old, &new);
    println!("\nold is {}, new is this tree; medians of {rounds} runs each, in turns\n", sides.commit);
    println!("{:<38} {:>14} {:>14} {:>9}", "figure", "old", "new", "new/old");
    lines.iter().for_each(|line| println!("{line}"));
    let worse = lines.iter().filter(|line| line.judged() == Judged::Worse).count();
    println!("\n{worse} of {} figures are worse by more than {WORSE} times", lines.len());
    if let Some(path) = json {
        let all: BTreeMap<&str, _> = lines
            .iter()
            .map(|line| (line.name.as_str(), json!({ "old": line.old, "new": line.new })))
            .collect();
        let text = serde_json::to_string_pretty(&all).context("the ratios as JSON")? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(0)
}

/// A file that is gone when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("lanyard-bench-{}.json", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // There is none when nothing was measured.
        drop(fs::remove_file(&self.0));
    }
}

/// What one side has measured in all rounds, by name.
#[derive(Debug, Default)]
struct Runs(BTreeMap<String, Vec<f64>>);

impl Runs {
    fn add(&mut self, figures: Figures) {
        for (name, figure) in figures {
            self.0.entry(name).or_default().push(figure);
        }
    }

    /// The median of a figure: the lower one of the middle two.
    fn median(&self, name: &str) -> Option<f64> {
        let mut all = self.0.get(name)?.clone();
        all.sort_by(f64::total_cmp);
        all.get((all.len() - 1) / 2).copied()
    }

    /// By how many times the runs of one figure differ among themselves.
    fn spread(&self, name: &str) -> f64 {
        let all = self.0.get(name).map_or(&[][..], Vec::as_slice);
        let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        ratio(most, least)
    }
}

/// How many times `one` is `other`; nothing is as much as nothing.
fn ratio(one: f64, other: f64) -> f64 {
    if one == other { 1.0 } else { one / other }
}

/// What a figure is better for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    /// Time, memory, processor time.
    Lower,
    /// Work done in a time.
    Higher,
}

impl Better {
    /// Read from the name, whose end is the unit.
    fn of(name: &str) -> Self {
        let rate = name.ends_with("per_s") || name.ends_with("per_core_s");
        if rate || name.ends_with(".trips") { Self::Higher } else { Self::Lower }
    }
}

/// What a ratio says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    /// The new one does no worse.
    Fine,
    /// It does worse by more than [`WORSE`].
    Worse,
    /// One side has not measured it.
    Alone,
}

/// One line of the table.
#[derive(Debug)]
struct Comparison {
    name: String,
    old: Option<f64>,
    new: Option<f64>,
    /// By how many times the older one's runs differ among themselves.
    spread: f64,
}

impl Comparison {
    fn of(old: &Runs, new: &Runs) -> Vec<Self> {
        let names: BTreeSet<&String> = old.0.keys().chain(new.0.keys()).collect();
        names
            .into_iter()
            .map(|name| Self {
                name: name.clone(),
                old: old.median(name),
                new: new.median(name),
                spread: old.spread(name),
            })
            .collect()
    }

    fn ratio(&self) -> Option<f64> {
        Some(ratio(self.new?, self.old?))
    }

    /// By how many times the new one does worse; below 1 it does better.
    fn worse_by(&self) -> Option<f64> {
        Some(match Better::of(&self.name) {
            Better::Lower => ratio(self.new?, self.old?),
            Better::Higher => ratio(self.old?, self.new?),
        })
    }

    fn judged(&self) -> Judged {
        match self.worse_by() {
            None => Judged::Alone,
            Some(times) if times > WORSE => Judged::Worse,
            Some(_) => Judged::Fine,
        }
    }

    fn note(&self) -> String {
        let better = match Better::of(&self.name) {
            Better::Lower => "lower",
            Better::Higher => "higher",
        };
        match (self.judged(), self.old) {
            (Judged::Fine, _) => String::new(),
            (Judged::Alone, None) => "  only the new one measures it".to_owned(),
            (Judged::Alone, Some(_)) => "  only the old one measures it".to_owned(),
            (Judged::Worse, _) => format!(
                "  WORSE: {better} is better; the old one's own runs differ by {:.2} times",
                self.spread
            ),
        }
    }
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let figure =
            |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.1}"));
        let ratio = self.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let (name, note) = (&self.name, self.note());
        write!(f, "{name:<38} {:>14} {:>14} {ratio:>9}{note}", figure(self.old), figure(self.new))
    }
}

#[cfg(test)]
mod tests {
    use super::{Better, Comparison, Judged, Runs};

    fn runs(figures: &[(&str, f64)]) -> Runs {
        let mut runs = Runs::default();
        for (name, figure) in figures {
            runs.add([((*name).to_owned(), *figure)].into());
        }
        runs
    }

    #[test]
    fn names_say_which_way_is_better() {
        for name in ["front.heartbeats_per_s", "front.proxy.calls_per_core_s", "trip.idle.trips"] {
            assert_eq!(Better::of(name), Better::Higher, "{name}");
        }
        for name in
            ["front.proxy.added_p50_us", "supervisor.cpu_percent.64", "shm.publish_ns", "supervisor.faults"]
        {
            assert_eq!(Better::of(name), Better::Lower, "{name}");
        }
    }

    #[test]
    fn medians_are_compared_and_what_is_worse_is_said() {
        let old =
            runs(&[("a_us", 10.0), ("a_us", 12.0), ("a_us", 90.0), ("b_per_s", 100.0), ("gone_us", 1.0)]);
        let new = runs(&[("a_us", 13.0), ("a_us", 14.0), ("a_us", 14.5), ("b_per_s", 95.0), ("c_us", 1.0)]);
        let lines = Comparison::of(&old, &new);
        let judged: Vec<_> = lines.iter().map(|line| (line.name.as_str(), line.judged())).collect();
        let expected = [
            ("a_us", Judged::Worse),
            ("b_per_s", Judged::Fine),
            ("c_us", Judged::Alone),
            ("gone_us", Judged::Alone),
        ];
        assert_eq!(judged, expected);
        let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert!(
            text[0].contains("12.0") && text[0].contains("14.0") && text[0].contains("1.17"),
            "{}",
            text[0]
        );
        assert!(text[0].ends_with("WORSE: lower is better; the old one's own runs differ by 9.00 times"));
        assert!(text[1].ends_with("0.95"), "{}", text[1]);
        assert!(text[2].ends_with("only the new one measures it"), "{}", text[2]);
        assert!(text[3].ends_with("only the old one measures it"), "{}", text[3]);
    }

    #[test]
    fn a_rate_that_falls_is_worse() {
        let lines = Comparison::of(&runs(&[("b_per_s", 100.0)]), &runs(&[("b_per_s", 90.0)]));
        assert_eq!(lines[0].judged(), Judged::Worse);
        let lines = Comparison::of(&runs(&[("b_per_s", 100.0)]), &runs(&[("b_per_s", 120.0)]));
        assert_eq!(lines[0].judged(), Judged::Fine);
    }

    #[test]
    fn nothing_beside_nothing_is_no_change() {
        let lines =
            Comparison::of(&runs(&[("supervisor.faults", 0.0)]), &runs(&[("supervisor.faults", 0.0)]));
        assert_eq!(lines[0].judged(), Judged::Fine);
        let lines =
            Comparison::of(&runs(&[("supervisor.faults", 0.0)]), &runs(&[("supervisor.faults", 1.0)]));
        assert_eq!(lines[0].judged(), Judged::Worse);
    }
}
