//! What test programs are told to run on rigs.
//!
//! What lives here: the programs ([`test_programs`]), how their tests are split over rigs side by side ([`split`]), the shell script
//! that runs one rig's share ([`script`]) and what is read from what it prints ([`Lines`]).

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::rig::guest::quoted;
use crate::told::Told;
use crate::workspace::{Workspace, say};

/// A test program and what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    program: PathBuf,
    arguments: Vec<String>,
}

/// Fewer tests of a program than these are not worth a second rig, which takes seconds to start.
const WORTH_IT: usize = 16;

/// A list of jobs for each of at most that many rigs: all programs with these arguments, every test on one of them.
///
/// A program with many tests is split by turns: neighbours in the list are of one kind, and take about as long. The others run on
/// the first.
///
/// # Errors
/// When a program does not list its tests.
pub fn split(programs: &[TestProgram], selection: &[&str], rigs: usize) -> Result<Vec<Vec<Job>>> {
    let mut lists = vec![Vec::new()];
    for program in programs {
        let tests = if rigs > 1 { listed(&program.path, selection)? } else { Vec::new() };
        if tests.len() < WORTH_IT {
            let arguments = selection.iter().map(|&word| word.to_owned()).collect();
            lists[0].push(Job { program: program.path.clone(), arguments });
            continue;
        }
        lists.resize(rigs.max(lists.len()), Vec::new());
        for (first, list) in lists.iter_mut().enumerate() {
            let turns = tests.iter().skip(first).step_by(rigs).cloned();
            let arguments = ["--exact".to_owned()].into_iter().chain(turns).collect();
            list.push(Job { program: program.path.clone(), arguments });
        }
    }
    Ok(lists)
}

/// The names of the tests that a program would run with these arguments.
fn listed(program: &Path, selection: &[&str]) -> Result<Vec<String>> {
    let output = Command::new(program)
        .args(selection)
        .args(["--list", "--format", "terse"])
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        bail!("{} --list: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect())
}

/// The shell script that runs jobs one after the other. A program that ends without its summary line (101 is the
/// harness's own code for failed tests) is reported on a line that [`Lines`] picks up.
pub fn script(jobs: &[Job]) -> OsString {
    let mut script = format!(
        "run() {{ echo; echo \"     Running ${{1##*/}}\"; \"$@\" --test-threads=1 </dev/null; code=$?; \
         case $code in 0|101) ;; *) echo; echo \"{CRASH}${{1##*/}} (exit code $code)\" ;; esac; }}\n"
    )
    .into_bytes();
    for job in jobs {
        script.extend_from_slice(b"run");
        let arguments = job.arguments.iter().map(OsStr::new);
        for word in [job.program.as_os_str()].into_iter().chain(arguments) {
            script.push(b' ');
            script.extend_from_slice(&quoted(word));
        }
        script.push(b'\n');
    }
    script.extend_from_slice(b"exit 0");
    OsString::from_vec(script)
}

/// How the runner reports a test program that did not end by itself.
const CRASH: &str = "rig: test program died: ";

/// Collects what is told of each test, and the runner's reports of dead test programs.
#[derive(Default)]
pub struct Lines {
    line: Vec<u8>,
    /// What the runner said of test programs that died.
    pub crashes: Vec<String>,
    /// What the programs that did not die have told.
    pub told: Told,
}

impl Lines {
    /// Takes the next piece of output, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                self.told.take_line(&line);
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
#[derive(Clone, Debug)]
pub struct TestProgram {
    /// The name of its target: a folder in `tests/tests`, or a library or program with tests inside.
    pub name: String,
    /// Of the program.
    pub path: PathBuf,
}

/// Builds the test programs of the crate `tests`, with these arguments for cargo.
///
/// # Errors
/// When they cannot be built.
pub fn test_programs(workspace: &Workspace, cargo: &[&str]) -> Result<Vec<TestProgram>> {
    say(format!("cargo {}", cargo.join(" ")));
    let manifest = workspace.root.join("tests/Cargo.toml");
    let mut command: Command = workspace.cargo();
    command.args(cargo).arg("--message-format=json-render-diagnostics");
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let mut programs = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read what cargo prints")?;
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        let ours = message["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest);
        if ours && message["reason"] == "compiler-artifact" && message["profile"]["test"] == true {
            let name = message["target"]["name"].as_str().unwrap_or_default().to_owned();
            let path = message["executable"].as_str().map(|path| Path::new(path).to_owned());
            programs.extend(path.map(|path| TestProgram { name, path }));
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    if !status.success() {
        bail!("`cargo {}` failed ({status}); its messages are above", cargo.join(" "));
    }
    programs.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::{CRASH, Job, Lines, TestProgram, script, split};

    fn job(program: &str, arguments: &[&str]) -> Job {
        Job { program: program.into(), arguments: arguments.iter().map(|&word| word.to_owned()).collect() }
    }

    fn run(jobs: &[Job]) -> Vec<u8> {
        let output = Command::new("sh").arg("-c").arg(script(jobs)).output().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    #[test]
    fn the_runner_reports_programs_that_die() {
        let mut lines = Lines::default();
        lines.feed(&run(&[job("true", &[]), job("/no/such", &[])]));
        assert_eq!(lines.crashes, [format!("{CRASH}such (exit code 127)")]);
    }

    #[test]
    fn the_runner_passes_its_arguments_to_every_program() {
        let text = String::from_utf8(run(&[job("echo", &["a b", "c"]), job("echo", &["d'"])])).unwrap();
        let expected =
            "\n     Running echo\na b c --test-threads=1\n\n     Running echo\nd' --test-threads=1\n";
        assert_eq!(text, expected);
    }

    /// A program that lists as many tests.
    fn program(folder: &Path, tests: usize) -> TestProgram {
        let path = folder.join(tests.to_string());
        let script = format!(
            "#!/bin/sh\nfor n in $(seq {tests}); do echo a::$n: test; done\necho 'more: benchmark'\n"
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        TestProgram { name: String::new(), path }
    }

    #[test]
    fn every_test_runs_on_exactly_one_rig() {
        let folder = std::env::temp_dir().join(format!("lanyard-jobs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (few, many) = (program(&folder, 15), program(&folder, 101));
        let names = |list: &[Job], path: &PathBuf| -> Vec<String> {
            let jobs: Vec<&Job> = list.iter().filter(|job| job.program == *path).collect();
            assert!(jobs.len() < 2);
            jobs.into_iter().flat_map(|job| job.arguments.clone()).collect()
        };
        for rigs in 1..5 {
            let lists = split(&[few.clone(), many.clone()], &["a"], rigs).unwrap();
            assert_eq!(lists.len(), rigs);
            for (number, list) in lists.iter().enumerate() {
                assert_eq!(names(list, &few.path), if number == 0 { vec!["a"] } else { vec![] });
            }
            if rigs == 1 {
                assert_eq!(names(&lists[0], &many.path), ["a"]);
                continue;
            }
            let mut all = Vec::new();
            for list in &lists {
                let names = names(list, &many.path);
                assert_eq!(names[0], "--exact");
                assert!((100 / rigs..=100 / rigs + 1).contains(&(names.len() - 1)), "{}", names.len());
                all.extend_from_slice(&names[1..]);
            }
            all.sort();
            let mut expected: Vec<String> = (1..=101).map(|number| format!("a::{number}")).collect();
            expected.sort();
            assert_eq!(all, expected);
        }
        assert_eq!(split(&[few], &[], 4).unwrap().len(), 1, "not worth a second one");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_program_that_lists_nothing_is_an_error() {
        let missing = TestProgram { name: String::new(), path: "/no/such".into() };
        assert!(split(&[missing], &[], 2).is_err());
    }

    #[test]
    fn failed_tests_are_known_by_name() {
        let mut lines = Lines::default();
        lines.feed(b"test a::b ... ok\ntest a::c ... FAILED\nnoise FAILED\ntest result: FAILED. 1 passed");
        assert_eq!(lines.told.failed, ["a::c"]);
    }
}
