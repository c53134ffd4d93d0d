//! `cargo xtask test`: everything that can be checked, in one command.
//!
//! What lives here: the order of the checks, the running of the tests on a rig, and the final count.
//! What is called `unit` are the tests of all crates but `tests`, on this machine; what is called `loom`
//! is the shared-memory code under the model checker of that name; what is called `vcan` are the tests
//! of the crate `tests`, on a rig that is started once; all but one test program, `controller`, which
//! needs CAN controllers and gets the emulated PC that has them. One of the vcan tests is run a second time where
//! it can be strict, see [`SOAK`].

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::node::{self, Node};
use crate::python;
use crate::rig::{self, Controllers, Kind, Request, TIMED_OUT, WhereArgs};
use crate::tally::Tally;
use crate::units;
use crate::workspace::{Workspace, say};

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Format, lints, dependency rules, the units of systemd and the tests that need no CAN
    Unit,
    /// Of `unit` what looks at the units in `systemd/` alone
    Systemd,
    /// The tests of the crate `tests`, on a rig
    Vcan,
    /// What needs QEMU: the test program `controller`, with emulated CAN controllers, and the soak of the real-time
    /// loop without a single page fault
    Controller,
}

/// A part that runs on a rig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RigPart {
    Vcan,
    Controller,
    Soak,
}

impl RigPart {
    fn name(self) -> &'static str {
        match self {
            Self::Vcan => "vcan",
            Self::Controller => CONTROLLER,
            Self::Soak => "soak",
        }
    }

    /// Whether a test program belongs to it.
    fn has(self, program: &TestProgram) -> bool {
        match self {
            Self::Vcan => program.name != CONTROLLER,
            Self::Controller => program.name == CONTROLLER,
            Self::Soak => program.name == "vcan",
        }
    }

    /// What the test programs are told to run; `None` when nothing of it is wanted.
    fn selection(self, wanted: Option<&str>) -> Option<Vec<&str>> {
        match self {
            Self::Vcan | Self::Controller => Some(wanted.into_iter().collect()),
            Self::Soak => wanted.is_none_or(|part| SOAK.contains(part)).then(|| vec!["--exact", SOAK]),
        }
    }
}

/// Of the vcan tests the one that counts page faults. User-mode Linux has some of its own, QEMU's kernel has none.
const SOAK: &str = "realtime::armed_loop_costs_nothing_but_time";

/// The test program that needs CAN controllers.
const CONTROLLER: &str = "controller";

/// Arguments of `cargo xtask test`.
#[derive(Args, Debug)]
pub struct TestArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Run only a part
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Run only tests with this in their name
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// The tests on a rig are killed after this time, each part for itself: twice what they take on a quiet machine
    #[arg(long, default_value_t = 2400, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

/// What went wrong besides failing tests, for the end of the report.
#[derive(Default)]
struct Report {
    tally: Tally,
    problems: Vec<String>,
}

impl Report {
    /// A failure that no test program has counted.
    fn problem(&mut self, text: impl Into<String>) {
        self.tally.failed += 1;
        self.problems.push(text.into());
    }

    /// Takes over what a run of tests has counted. A skipped test is a test that does not guard
    /// anything, so it counts as a failure.
    fn include(&mut self, tally: &Tally, what: &str) {
        self.tally.add(tally);
        self.tally.failed += tally.ignored;
        if tally.ignored > 0 {
            self.problems.push(format!("{what}: {} ignored; no test may be skipped", tally.ignored));
        }
    }
}

/// `cargo xtask test`. The last line on stdout is `N passed, N failed`.
///
/// # Errors
/// When cargo cannot be started. Failures are counted, and make the exit code 1.
pub fn main(workspace: &Workspace, args: &TestArgs) -> Result<u8> {
    let mut report = Report::default();
    let wants = |part| args.only.is_none_or(|only| only == part);
    if (wants(Part::Unit) && args.filter.is_none()) || args.only == Some(Part::Systemd) {
        match units::check(workspace) {
            // Looked at as a whole: one test.
            Ok(()) => report.tally.passed += 1,
            Err(error) => report.problem(format!("{error:#}")),
        }
    }
    if wants(Part::Unit) {
        if args.filter.is_none() {
            check_style(workspace, &mut report);
        }
        unit_tests(workspace, args, &mut report)?;
        loom_tests(workspace, args, &mut report)?;
    }
    let on_rig = [
        (Part::Vcan, RigPart::Vcan),
        (Part::Controller, RigPart::Controller),
        (Part::Controller, RigPart::Soak),
    ];
    for (_, part) in on_rig.into_iter().filter(|(part, _)| wants(*part)) {
        // A rig that cannot be had is a failure like any other; what ran before it still counts.
        if let Err(error) = rig_tests(workspace, args, part, &mut report) {
            report.problem(format!("{}: {error:#}", part.name()));
        }
    }
    if report.tally.passed + report.tally.failed == 0 {
        let filter = args.filter.as_deref().unwrap_or_default();
        report.problem(format!("no test has `{filter}` in its name"));
    }
    for problem in &report.problems {
        say(format!("failure: {problem}"));
    }
    println!("{} passed, {} failed", report.tally.passed, report.tally.failed);
    Ok(u8::from(report.tally.failed > 0))
}

fn check_style(workspace: &Workspace, report: &mut Report) {
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--features", "tests/bench", "--", "-D", "warnings"];
    for args in [&["fmt", "--all", "--check"][..], &clippy[..]] {
        if let Err(error) = workspace.run_cargo(args) {
            report.problem(format!("{error:#}"));
        }
    }
}

/// The tests that need no CAN. The dependency rules are among them, as tests of xtask itself.
fn unit_tests(workspace: &Workspace, args: &TestArgs, report: &mut Report) -> Result<()> {
    if let Err(error) = workspace.run_cargo(&["build", "--workspace", "--bins"]) {
        report.problem(format!("{error:#}"));
        return Ok(());
    }
    let mut command = workspace.cargo();
    command.args(["test", "--workspace", "--exclude", "tests", "--no-fail-fast"]);
    // Without them only the comparisons with them fail, each saying so.
    match python::ensure_venv(workspace, &python::PEERS) {
        Ok(python) => drop(command.env("LANYARD_PEERS_PYTHON", python)),
        Err(error) => report.problem(format!("{error:#}")),
    }
    if let Some(filter) = &args.filter {
        command.args(["--", filter]);
    }
    say("cargo test --workspace --exclude tests");
    count_tests(command, "unit", report).map(drop)
}

/// The shared-memory code under the model checker loom, which replaces its atomics: `--cfg loom` changes what
/// every crate is compiled to, so it has a target folder of its own.
fn loom_tests(workspace: &Workspace, args: &TestArgs, report: &mut Report) -> Result<()> {
    let mut command = workspace.cargo();
    command.args(["test", "-p", "shm-proto", "--test", "loom", "--release"]);
    command.arg("--target-dir").arg(workspace.target.join("loom"));
    command.env("RUSTFLAGS", "--cfg loom").env_remove("CARGO_ENCODED_RUSTFLAGS");
    // The checker's speed hardly depends on it, the time to build does.
    command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    if let Some(filter) = &args.filter {
        command.args(["--", filter]);
    }
    say("RUSTFLAGS=\"--cfg loom\" cargo test -p shm-proto --test loom --release");
    let ran = count_tests(command, "loom", report)?;
    if ran == 0 && args.filter.is_none() {
        report.problem("loom: not a single test was run");
    }
    Ok(())
}

/// Runs a `cargo test`, takes over what it counts, and returns how many tests it ran.
fn count_tests(mut command: Command, what: &str, report: &mut Report) -> Result<u64> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let mut tally = Tally::default();
    let mut stdout = child.stdout.take().context("cargo test has no stdout")?;
    let mut buffer = [0; 8 * 1024];
    loop {
        match stdout.read(&mut buffer).context("cannot read what cargo test prints")? {
            0 => break,
            count => {
                rig::pass_through(&buffer[..count]);
                tally.feed(&buffer[..count]);
            }
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    if !status.success() && tally.failed == 0 {
        report.problem(format!("{what}: `cargo test` failed without a failing test ({status})"));
    }
    report.include(&tally, what);
    Ok(tally.passed + tally.failed)
}

/// The tests of the crate `tests` that belong to a part, all in one start of the rig.
fn rig_tests(workspace: &Workspace, args: &TestArgs, part: RigPart, report: &mut Report) -> Result<()> {
    let name = part.name();
    let Some(selection) = part.selection(args.filter.as_deref()) else { return Ok(()) };
    let python = python::ensure_venv(workspace, &python::CLIENTS)?;
    let node = node::ensure(workspace)?;
    workspace.run_cargo(&["build", "--workspace", "--bins"])?;
    let mut programs = test_programs(workspace)?;
    programs.retain(|program| part.has(program));
    if programs.is_empty() {
        bail!("the crate `tests` has no test program for it");
    }

    let mut runner = Runner { workspace, args, part, python, node, programs };
    say(format!("{} test programs on the rig", runner.programs.len()));
    let first = runner.run(&selection, report)?;
    if first.tally.passed + first.tally.failed == 0 && args.filter.is_none() {
        report.problem(format!("{name}: not a single test was run"));
    }
    let failed: Vec<&str> = first.failed.iter().map(String::as_str).collect();
    if failed.is_empty() || failed.len() > MOST_AGAIN || first.tally.failed != failed.len() as u64 {
        report.include(&first.tally, name);
        return Ok(());
    }
    // An emulated machine on a shared one stands still now and then, and a client that stands still is a
    // silent client. A failure that is Lanyard's own comes again in a fresh rig.
    say(format!("once more in a fresh rig: {}", failed.join(", ")));
    let exact: Vec<&str> = ["--exact"].into_iter().chain(failed.iter().copied()).collect();
    let second = runner.run(&exact, report)?;
    let recovered: Vec<&str> =
        failed.into_iter().filter(|name| !second.failed.iter().any(|again| again == name)).collect();
    if !recovered.is_empty() {
        println!("{name}: failed once and passed in a fresh rig: {}", recovered.join(", "));
    }
    let mut tally = second.tally;
    tally.passed += first.tally.passed;
    tally.ignored += first.tally.ignored;
    // A test that did not even run again has failed.
    tally.failed = (first.tally.failed + first.tally.passed).saturating_sub(tally.passed);
    report.include(&tally, name);
    Ok(())
}

/// More failures than this are no accident, and are not tried again.
const MOST_AGAIN: usize = 8;

/// What running tests on a rig needs.
struct Runner<'a> {
    workspace: &'a Workspace,
    args: &'a TestArgs,
    part: RigPart,
    python: PathBuf,
    node: Node,
    programs: Vec<TestProgram>,
}

/// What one run on a rig came to.
#[derive(Default)]
struct Outcome {
    tally: Tally,
    failed: Vec<String>,
}

impl Runner<'_> {
    /// Runs all test programs in one start of the rig, with these arguments for each.
    fn run(&mut self, arguments: &[&str], report: &mut Report) -> Result<Outcome> {
        let folder = self.workspace.root.join("tests");
        let mut command: Vec<OsString> =
            vec!["sh".into(), "-c".into(), script(arguments.len()).into(), "sh".into()];
        command.extend(arguments.iter().map(OsString::from));
        command.extend(self.programs.iter().map(|program| OsString::from(&program.path)));
        let timeout = Duration::from_secs(self.args.timeout);
        let mut request = Request::new(&self.args.place, &folder, timeout, command);
        if self.part != RigPart::Vcan {
            // Two processors: while one is kept from serving its adapter, the other runs everything else.
            request.place = WhereArgs { kind: Some(Kind::Qemu), cpus: Some(2), ..request.place };
        }
        if self.part == RigPart::Controller {
            request.controllers = Controllers::Pair;
        }
        request.env = vec![
            ("LANYARD_BIN_DIR".into(), self.workspace.target.join("debug").into()),
            ("LANYARD_PYTHON".into(), self.python.clone().into()),
            ("LANYARD_NODE".into(), self.node.program.clone().into()),
            ("LANYARD_NODE_PACKAGES".into(), self.node.folder.clone().into()),
            ("LANYARD_CHROMIUM".into(), self.node.chromium.clone().into()),
            ("CARGO_MANIFEST_DIR".into(), folder.into()),
            ("RUST_BACKTRACE".into(), "1".into()),
        ];
        let mut outcome = Outcome::default();
        let mut lines = Lines::default();
        let code = rig::run(self.workspace, &request, &mut |bytes| {
            rig::pass_through(bytes);
            outcome.tally.feed(bytes);
            lines.feed(bytes);
        })?;
        for line in lines.crashes {
            report.problem(line);
        }
        if code == TIMED_OUT {
            report.problem(format!("{}: not finished after {} s", self.part.name(), self.args.timeout));
        } else if code != 0 {
            report.problem(format!("{}: the runner ended with exit code {code}", self.part.name()));
        }
        outcome.failed = lines.failed;
        Ok(outcome)
    }
}

/// The shell script that runs the test programs one after the other. A program that ends without
/// its summary line (101 is the harness's own code for failed tests) is reported on a line that
/// [`Crashes`] picks up.
///
/// The first `arguments` parameters are for every program, the others are the programs.
fn script(arguments: usize) -> String {
    let names: Vec<String> = (0..arguments).map(|number| format!("argument{number}")).collect();
    let take: String = names.iter().map(|name| format!("{name}=$1; shift; ")).collect();
    let pass: String = names.iter().map(|name| format!("\"${name}\" ")).collect();
    format!(
        "{take}for program in \"$@\"; do echo; echo \"     Running ${{program##*/}}\"; \
         \"$program\" {pass}--test-threads=1 </dev/null; code=$?; \
         case $code in 0|101) ;; *) echo; echo \"{CRASH}${{program##*/}} (exit code $code)\" ;; esac; done; exit 0"
    )
}

/// How the runner reports a test program that did not end by itself.
const CRASH: &str = "rig: test program died: ";

/// Collects the names of failed tests, and the runner's reports of dead test programs.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    crashes: Vec<String>,
    failed: Vec<String>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                let failed = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
                self.failed.extend(failed.map(str::to_owned));
                if line.starts_with(CRASH) {
                    self.crashes.push(line);
                }
            } else {
                self.line.push(byte);
            }
        }
    }
}

/// A test program of the crate `tests`.
#[derive(Debug)]
struct TestProgram {
    /// The name of its target: a folder in `tests/tests`, or a library or program with tests inside.
    name: String,
    path: PathBuf,
}

/// Builds the test programs of the crate `tests`.
fn test_programs(workspace: &Workspace) -> Result<Vec<TestProgram>> {
    say("cargo test -p tests --no-run");
    let mut command: Command = workspace.cargo();
    command.args(["test", "-p", "tests", "--no-run", "--message-format=json-render-diagnostics"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let mut programs = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read what cargo prints")?;
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        if message["reason"] == "compiler-artifact" && message["profile"]["test"] == true {
            let name = message["target"]["name"].as_str().unwrap_or_default().to_owned();
            let path = message["executable"].as_str().map(|path| Path::new(path).to_owned());
            programs.extend(path.map(|path| TestProgram { name, path }));
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    if !status.success() {
        bail!("`cargo test -p tests --no-run` failed ({status}); its messages are above");
    }
    programs.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{CRASH, Lines, Report, RigPart, SOAK, TestProgram, script};
    use crate::tally::Tally;

    #[test]
    fn the_runner_reports_programs_that_die() {
        let output = Command::new("sh").args(["-c", &script(0), "sh", "true", "/no/such"]).output().unwrap();
        assert!(output.status.success());
        let mut lines = Lines::default();
        lines.feed(&output.stdout);
        assert_eq!(lines.crashes, [format!("{CRASH}such (exit code 127)")]);
    }

    #[test]
    fn the_runner_passes_its_arguments_to_every_program() {
        let output = Command::new("sh").args(["-c", &script(2), "sh", "a b", "c", "echo"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.ends_with("\na b c --test-threads=1\n"), "{text}");
    }

    #[test]
    fn every_test_program_belongs_to_exactly_one_part() {
        for (name, part) in
            [("vcan", RigPart::Vcan), ("controller", RigPart::Controller), ("lanyard-sim", RigPart::Vcan)]
        {
            let program = TestProgram { name: name.to_owned(), path: name.into() };
            let parts = [RigPart::Vcan, RigPart::Controller].into_iter().filter(|part| part.has(&program));
            assert_eq!(parts.collect::<Vec<_>>(), [part], "{name}");
        }
    }

    #[test]
    fn the_soak_is_one_test_and_runs_when_it_is_wanted() {
        assert_eq!(RigPart::Soak.selection(None), Some(vec!["--exact", SOAK]));
        assert_eq!(RigPart::Soak.selection(Some("armed_loop")), Some(vec!["--exact", SOAK]));
        assert_eq!(RigPart::Soak.selection(Some("front::")), None);
        assert_eq!(RigPart::Vcan.selection(Some("front::")), Some(vec!["front::"]));
    }

    #[test]
    fn failed_tests_are_known_by_name() {
        let mut lines = Lines::default();
        lines.feed(b"test a::b ... ok\ntest a::c ... FAILED\nnoise FAILED\ntest result: FAILED. 1 passed");
        assert_eq!(lines.failed, ["a::c"]);
    }

    #[test]
    fn a_skipped_test_is_a_failure() {
        let mut report = Report::default();
        let mut tally = Tally::default();
        tally.feed(
            b"test result: ok. 3 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0s\n",
        );
        report.include(&tally, "unit");
        assert_eq!((report.tally.passed, report.tally.failed), (3, 2));
        assert_eq!(report.problems.len(), 1);
    }
}
