//! `cargo xtask test`: everything that can be checked, in one command.
//!
//! What lives here: the order of the checks, the running of the tests on a rig, and the final count.
//! What is called `unit` are the tests of all crates but `tests`, on this machine; what is called `loom`
//! is the shared-memory code under the model checker of that name; what is called `vcan` are the tests
//! of the crate `tests`, on a rig that is started once; all but three test programs: `controller`, which
//! needs CAN controllers and gets the emulated PC that has them, `system`, which is run in a whole Debian that
//! boots ([`system`]), and `campaign`, of which a sample is played ([`campaign`]). One of the vcan tests is run a second time where
//! it can be strict, see [`SOAK`].

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::campaign;
use crate::jobs::{self, Job, Lines, TestProgram};
use crate::node::{self, Node};
use crate::proxies::{self, Proxies};
use crate::python;
use crate::retried::{self, List, Retried, Verdict};
use crate::rig::{self, Controllers, Kind, Request, TIMED_OUT, VCANS, WhereArgs};
use crate::system;
use crate::tally::Tally;
use crate::told::Told;
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
    /// A Debian that boots with Lanyard's package installed: the test program `system`
    System,
    /// A sample of the campaign (`cargo xtask campaign`), at the times of an installed robot
    Campaign,
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
            Self::Vcan => ![CONTROLLER, system::PROGRAM, campaign::PROGRAM].contains(&program.name.as_str()),
            Self::Controller => program.name == CONTROLLER,
            Self::Soak => program.name == "vcan",
        }
    }

    /// Where it runs.
    fn place(self, asked: &WhereArgs) -> WhereArgs {
        match self {
            Self::Vcan => WhereArgs { kind: Some(rig::choose(asked, VCANS)), ..asked.clone() },
            // Two processors: while one is kept from serving its adapter, the other runs everything else.
            Self::Controller | Self::Soak => {
                WhereArgs { kind: Some(Kind::Qemu), cpus: Some(2), ..asked.clone() }
            }
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
    /// Count a test that passed only in a second run as failed, unless the stall meter or tests/retried.txt excuses it
    #[arg(long)]
    strict: bool,
    /// The tests on a rig are killed after this time, each part for itself: twice what they take on a quiet machine
    #[arg(long, default_value_t = 2400, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl TestArgs {
    /// The command that runs the tests of the rig in QEMU, where there is no user-mode Linux.
    fn in_qemu(&self) -> String {
        let filter = self.filter.as_deref().map_or_else(String::new, |name| format!(" --filter {name}"));
        format!("cargo xtask test --only vcan --kind qemu{filter}")
    }

    fn built(&self) -> Built {
        if self.only.is_some() { Built::Apart } else { Built::Together }
    }
}

/// How crates are built. Cargo builds what crates share with the features that those it is to build want of it together,
/// and again for every other choice of crates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Built {
    /// All crates and their tests in one go, and nothing twice: a third of the time, when everything is to be run.
    Together,
    /// What a part needs: shorter, when only that is wanted.
    Apart,
}

impl Built {
    fn build(self) -> &'static [&'static str] {
        match self {
            Self::Together => &["build", "--workspace", "--bins", "--tests"],
            Self::Apart => &["build", "--workspace", "--bins"],
        }
    }

    /// To be followed by arguments of the test programs.
    fn unit_tests(self) -> &'static [&'static str] {
        match self {
            Self::Together => &["test", "--workspace", "--no-fail-fast", "--config", NOT_ON_A_RIG],
            Self::Apart => &["test", "--workspace", "--exclude", "tests", "--no-fail-fast"],
        }
    }

    /// What builds the test programs that run on a rig.
    fn rig_tests(self) -> &'static [&'static str] {
        match self {
            Self::Together => &["test", "--workspace", "--no-run"],
            Self::Apart => &["test", "-p", "tests", "--no-run"],
        }
    }
}

/// Has cargo run every test program but those of the crate `tests`: to leave the crate out would build others anew.
const NOT_ON_A_RIG: &str =
    r#"target.'cfg(all())'.runner = ["sh", "-c", "[ \"$CARGO_PKG_NAME\" = tests ] || exec \"$@\"", "sh"]"#;

/// What becomes of a test that passed only in a second run, and that nothing excuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Retries {
    /// It is told and counts as passed.
    #[default]
    Told,
    /// It counts as failed.
    Failures,
}

/// What went wrong besides failing tests, for the end of the report.
#[derive(Default)]
struct Report {
    tally: Tally,
    problems: Vec<String>,
    /// The tests that may fail once.
    excused: List,
    retries: Retries,
    retried: Vec<Retried>,
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

    /// Judges what failed in the first run of a part and was run again, and corrects what that run has counted.
    fn settle(&mut self, part: &str, first: &Told, second: &Told, tally: &mut Tally) {
        let retried = retried::judge(part, first, second, &self.excused);
        let passes = |verdict: &Verdict| match verdict {
            Verdict::Excused(_) => true,
            Verdict::Unexcused(_) => self.retries == Retries::Told,
            Verdict::Failed(_) => false,
        };
        let excused = retried.iter().filter(|test| passes(&test.verdict)).count() as u64;
        tally.failed -= excused;
        tally.passed += excused;
        self.retried.extend(retried);
    }

    /// Prints every test that was run again, and how many.
    fn print_retried(&self) {
        for test in &self.retried {
            println!("{test}");
        }
        println!("retried: {}", self.retried.len());
    }
}

/// `cargo xtask test`. The last line on stdout is `N passed, N failed`.
///
/// # Errors
/// When cargo cannot be started. Failures are counted, and make the exit code 1.
pub fn main(workspace: &Workspace, args: &TestArgs) -> Result<u8> {
    let retries = if args.strict { Retries::Failures } else { Retries::Told };
    let mut report = Report { retries, ..Report::default() };
    match List::read(&workspace.root) {
        Ok(list) => report.excused = list,
        Err(error) => report.problem(format!("{error:#}")),
    }
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
            let error = rig::with_way_out(error, &args.in_qemu());
            report.problem(format!("{}: {error:#}", part.name()));
        }
    }
    if wants(Part::System)
        && let Err(error) = system_tests(workspace, args, &mut report)
    {
        report.problem(format!("system: {error:#}"));
    }
    if wants(Part::Campaign)
        && let Err(error) = campaign_sample(workspace, args, &mut report)
    {
        report.problem(format!("campaign: {error:#}"));
    }
    if report.tally.passed + report.tally.failed == 0 {
        let filter = args.filter.as_deref().unwrap_or_default();
        report.problem(format!("no test has `{filter}` in its name"));
    }
    for problem in &report.problems {
        say(format!("failure: {problem}"));
    }
    report.print_retried();
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
    if let Err(error) = workspace.run_cargo(args.built().build()) {
        report.problem(format!("{error:#}"));
        return Ok(());
    }
    let mut command = workspace.cargo();
    command.args(args.built().unit_tests());
    // Without them only the comparisons with them fail, each saying so.
    match python::ensure_venv(workspace, &python::PEERS) {
        Ok(python) => drop(command.env("LANYARD_PEERS_PYTHON", python)),
        Err(error) => report.problem(format!("{error:#}")),
    }
    if let Some(filter) = &args.filter {
        command.args(["--", filter]);
    }
    say("the tests of all crates but `tests`");
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
    let proxies = proxies::ensure(workspace)?;
    workspace.run_cargo(args.built().build())?;
    let mut programs = jobs::test_programs(workspace, args.built().rig_tests())?;
    programs.retain(|program| part.has(program));
    if programs.is_empty() {
        bail!("the crate `tests` has no test program for it");
    }

    let place = part.place(&args.place);
    let runner = Runner { workspace, args, place, part, python, node, proxies };
    let first = runner.run(jobs::split(&programs, &selection, runner.machines())?, report)?;
    if first.tally.passed + first.tally.failed == 0 && args.filter.is_none() {
        report.problem(format!("{name}: not a single test was run"));
    }
    let failed: Vec<&str> = first.told.failed.iter().map(String::as_str).collect();
    if failed.is_empty() || failed.len() > MOST_AGAIN || first.tally.failed != failed.len() as u64 {
        report.include(&first.tally, name);
        return Ok(());
    }
    // An emulated machine on a shared one stands still now and then, and a client that stands still is a
    // silent client. Whether that was it, the stall meter says; that it passes now proves nothing alone.
    say(format!("once more in a fresh rig: {}", failed.join(", ")));
    let exact: Vec<&str> = ["--exact"].into_iter().chain(failed.iter().copied()).collect();
    let second = runner.run(jobs::split(&programs, &exact, 1)?, report)?;
    let mut tally = first.tally;
    report.settle(name, &first.told, &second.told, &mut tally);
    report.include(&tally, name);
    Ok(())
}

/// The tests in a machine that boots, all in one start of it; what failed once more in a fresh one, see [`rig_tests`].
fn system_tests(workspace: &Workspace, args: &TestArgs, report: &mut Report) -> Result<()> {
    workspace.run_cargo(args.built().build())?;
    let programs = jobs::test_programs(workspace, args.built().rig_tests())?;
    let program = programs.iter().find(|program| program.name == system::PROGRAM);
    let program = &program.context("the crate `tests` has no test program for it")?.path;
    let timeout = Duration::from_secs(args.timeout);
    let wanted: Vec<&str> = args.filter.as_deref().into_iter().collect();
    let order = system::Order { program, arguments: &wanted, timeout };
    let first = system::run(workspace, &order)?;
    let mut tally = first.tally;
    first.problems.iter().for_each(|problem| report.problem(problem));
    let failed = &first.told.failed;
    if (1..=MOST_AGAIN).contains(&failed.len())
        && tally.failed == failed.len() as u64
        && first.problems.is_empty()
    {
        say(format!("once more in a fresh machine: {}", failed.join(", ")));
        let again: Vec<&str> = failed.iter().map(String::as_str).collect();
        let second = system::run(workspace, &system::Order { arguments: &again, ..order })?;
        second.problems.iter().for_each(|problem| report.problem(problem));
        // A machine that did not come to its end has not shown anything.
        if second.problems.is_empty() {
            report.settle("system", &first.told, &second.told, &mut tally);
        }
    }
    if tally.passed + tally.failed == 0 && args.filter.is_none() {
        report.problem("system: not a single test was run");
    }
    report.include(&tally, "system");
    Ok(())
}

/// Some cells of the campaign and a minute of health. Nothing of it is tried again: its clock
/// does not run while the computer is busy elsewhere.
fn campaign_sample(workspace: &Workspace, args: &TestArgs, report: &mut Report) -> Result<()> {
    let (tally, failures) = campaign::sample(workspace, args.filter.as_deref())?;
    for failure in failures {
        say(format!("campaign: {failure}"));
    }
    report.include(&tally, "campaign");
    Ok(())
}

/// More failures than this are no accident, and are not tried again.
const MOST_AGAIN: usize = 8;

/// What running tests on rigs needs.
struct Runner<'a> {
    workspace: &'a Workspace,
    args: &'a TestArgs,
    part: RigPart,
    place: WhereArgs,
    python: PathBuf,
    node: Node,
    proxies: Proxies,
}

/// What one run on rigs came to.
#[derive(Default)]
struct Outcome {
    tally: Tally,
    told: Told,
}

impl Runner<'_> {
    /// On how many machines side by side it is run.
    fn machines(&self) -> usize {
        match (self.part, self.place.kind) {
            // One processor each, which the tests keep busy; more than four machines were never tried.
            (RigPart::Vcan, Some(Kind::Uml)) => {
                std::thread::available_parallelism().map_or(1, |processors| processors.get().min(4))
            }
            _ => 1,
        }
    }

    /// Runs one list of jobs on each machine. What the first prints is passed on as it comes, the others' when
    /// they are done.
    fn run(&self, lists: Vec<Vec<Job>>, report: &mut Report) -> Result<Outcome> {
        let count = lists.len();
        if count > 1 {
            say(format!("{count} rigs side by side; what all but the first print follows at the end"));
        }
        let results: Vec<Result<Machine>> = std::thread::scope(|scope| {
            let start = |(number, jobs): (usize, Vec<Job>)| {
                let print = if number == 0 { Print::AsItComes } else { Print::Later(Vec::new()) };
                scope.spawn(move || self.run_on_one(&jobs, print))
            };
            let threads: Vec<_> = lists.into_iter().enumerate().map(start).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Machine>>| {
                thread.join().unwrap_or_else(|_| bail!("the thread that ran a rig panicked"))
            };
            threads.into_iter().map(join).collect()
        });
        let mut outcome = Outcome::default();
        for machine in results {
            let machine = machine?;
            if let Print::Later(bytes) = machine.print {
                rig::pass_through(&bytes);
            }
            for line in machine.lines.crashes {
                report.problem(line);
            }
            match machine.code {
                0 => {}
                TIMED_OUT => {
                    let limit = self.args.timeout;
                    report.problem(format!("{}: not finished after {limit} s", self.part.name()));
                }
                code => {
                    report.problem(format!("{}: the runner ended with exit code {code}", self.part.name()));
                }
            }
            outcome.tally.add(&machine.tally);
            outcome.told.add(machine.lines.told);
        }
        Ok(outcome)
    }

    fn run_on_one(&self, jobs: &[Job], mut print: Print) -> Result<Machine> {
        let folder = self.workspace.root.join("tests");
        let command: Vec<OsString> = vec!["sh".into(), "-c".into(), jobs::script(jobs)];
        let timeout = Duration::from_secs(self.args.timeout);
        let mut request = Request::new(&self.place, &folder, timeout, command);
        if self.part == RigPart::Controller {
            request.controllers = Controllers::Pair;
        }
        request.env = vec![
            ("LANYARD_BIN_DIR".into(), self.workspace.target.join("debug").into()),
            ("LANYARD_PYTHON".into(), self.python.clone().into()),
            ("LANYARD_NODE".into(), self.node.program.clone().into()),
            ("LANYARD_NODE_PACKAGES".into(), self.node.folder.clone().into()),
            ("LANYARD_CHROMIUM".into(), self.node.chromium.clone().into()),
            ("LANYARD_HAPROXY".into(), self.proxies.haproxy.clone().into()),
            ("LANYARD_NGINX".into(), self.proxies.nginx.clone().into()),
            ("LANYARD_PROXY_LIBRARIES".into(), self.proxies.libraries.clone()),
            ("CARGO_MANIFEST_DIR".into(), folder.into()),
            ("RUST_BACKTRACE".into(), "1".into()),
        ];
        let mut tally = Tally::default();
        let mut lines = Lines::default();
        let code = rig::run(self.workspace, &request, &mut |bytes| {
            match &mut print {
                Print::AsItComes => rig::pass_through(bytes),
                Print::Later(kept) => kept.extend_from_slice(bytes),
            }
            tally.feed(bytes);
            lines.feed(bytes);
        })?;
        Ok(Machine { tally, lines, code, print })
    }
}

/// When what a machine prints is passed on.
enum Print {
    AsItComes,
    /// After all are done: two at once nobody could read.
    Later(Vec<u8>),
}

/// What one machine's run came to.
struct Machine {
    tally: Tally,
    lines: Lines,
    code: u8,
    print: Print,
}

#[cfg(test)]
mod tests {
    use super::{Report, Retries, RigPart, SOAK, TestProgram};
    use crate::tally::Tally;
    use crate::told::Told;
    use crate::{campaign, system};

    #[test]
    fn every_test_program_belongs_to_exactly_one_part() {
        for (name, part) in
            [("vcan", RigPart::Vcan), ("controller", RigPart::Controller), ("lanyard-sim", RigPart::Vcan)]
        {
            let program = TestProgram { name: name.to_owned(), path: name.into() };
            let parts = [RigPart::Vcan, RigPart::Controller].into_iter().filter(|part| part.has(&program));
            assert_eq!(parts.collect::<Vec<_>>(), [part], "{name}");
        }
        // It ends services and fills the disk: in its own machine only.
        for name in [system::PROGRAM, campaign::PROGRAM] {
            let program = TestProgram { name: name.to_owned(), path: name.into() };
            assert!(
                ![RigPart::Vcan, RigPart::Controller, RigPart::Soak].iter().any(|part| part.has(&program))
            );
        }
    }

    #[test]
    fn the_soak_is_one_test_and_runs_when_it_is_wanted() {
        assert_eq!(RigPart::Soak.selection(None), Some(vec!["--exact", SOAK]));
        assert_eq!(RigPart::Soak.selection(Some("armed_loop")), Some(vec!["--exact", SOAK]));
        assert_eq!(RigPart::Soak.selection(Some("front::")), None);
        assert_eq!(RigPart::Vcan.selection(Some("front::")), Some(vec!["front::"]));
    }

    /// Fails if a test that recovered counts as passed without an excuse, or one is counted twice.
    #[test]
    fn only_an_excused_test_moves_from_failed_to_passed() {
        let run = |text: &str| {
            let (mut tally, mut told) = (Tally::default(), Told::default());
            tally.feed(text.as_bytes());
            text.lines().for_each(|line| told.take_line(line));
            (tally, told)
        };
        let (mut tally, first) = run(
            "test a ... ok\ntest b ... FAILED\ntest c ... FAILED\ntest d ... FAILED\n\
             ---- b stdout ----\nstall-meter: longest 312 ms, bound that failed 15 ms\n\
             ---- c stdout ----\nstall-meter: longest 312 ms, no bound failed\n\
             ---- d stdout ----\nstall-meter: longest 312 ms, bound that failed 15 ms\n\
             test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9s\n",
        );
        let (_, second) = run("test b ... ok\ntest c ... ok\ntest d ... FAILED\n");
        let mut told_only = tally.clone();
        Report::default().settle("vcan", &first, &second, &mut told_only);
        assert_eq!((told_only.passed, told_only.failed), (3, 1), "without --strict it is told");
        let mut report = Report { retries: Retries::Failures, ..Report::default() };
        report.settle("vcan", &first, &second, &mut tally);
        report.include(&tally, "vcan");
        assert_eq!((report.tally.passed, report.tally.failed), (2, 2));
        let told: Vec<String> = report.retried.iter().map(ToString::to_string).collect();
        assert!(told[0].ends_with("counted as passed") && told[0].contains("vcan b"), "{told:?}");
        assert!(told[1..].iter().all(|line| line.ends_with("as failed")), "{told:?}");
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
