//! `cargo xtask fuzz`: any bytes as the whole beat segment, against the supervisor's core, or to a parser of the front.
//!
//! What lives here: building the package `lanyard-fuzz` with LLVM's coverage counters, running it, and the
//! short report. What it must never do to the machine: the corpus and what was found stay in `target/fuzz`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::install::{Tool, ensure_tool, output_of};
use crate::workspace::{Workspace, say};

/// Compiles the fuzzing engine.
const CXX: Tool = Tool { program: "g++", package: "g++" };

/// What makes LLVM count which branches were taken and which values were compared, as the engine wants it. These
/// flags work with a stable compiler; the sanitizers, which do not, would find nothing in code without `unsafe`.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Seconds one input may take before it counts as a loop. One takes less than a millisecond; a machine that
/// stands still for a moment must not look like one.
const LOOP_AFTER: &str = "20";

/// Arguments of `cargo xtask fuzz`.
#[derive(Args, Debug)]
pub struct FuzzArgs {
    /// How long
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// What is fed: beats (the whole segment), kortex-frame, kortex-stream, kortex-mqtt, socketcand, cannelloni,
    /// cannelloni-stream, tunnel-target or tunnel-request
    #[arg(long, default_value = "beats", value_name = "NAME")]
    of: String,
}

/// `cargo xtask fuzz`. The exit code is 1 when an input was found that does harm.
///
/// # Errors
/// When the fuzzer cannot be built or started.
pub fn main(workspace: &Workspace, args: &FuzzArgs) -> Result<u8> {
    ensure_tool(CXX)?;
    let folder = workspace.target.join("fuzz");
    let (corpus, found) = (folder.join("corpus").join(&args.of), folder.join("found").join(&args.of));
    for path in [&corpus, &found] {
        fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    let before = files(&found)?;
    let program = build(workspace, &folder)?;
    say(format!("fuzzing {} for {} s, the corpus is {}", args.of, args.seconds, corpus.display()));
    let mut child = Command::new(program)
        .env("LANYARD_FUZZ", &args.of)
        .arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-timeout={LOOP_AFTER}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-max_len=16384", "-print_final_stats=1"])
        .arg(&corpus)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the fuzzer")?;
    let stderr = child.stderr.take().context("the fuzzer has no stderr")?;
    let mut summary = Summary::default();
    for line in BufReader::new(stderr).lines() {
        let line = line.context("cannot read what the fuzzer prints")?;
        eprintln!("{line}");
        summary.take(&line);
    }
    let status = child.wait().context("cannot wait for the fuzzer")?;
    println!(
        "{} executions, {} branches covered, {} inputs kept",
        summary.executions,
        summary.coverage,
        files(&corpus)?.len()
    );
    if status.success() {
        return Ok(0);
    }
    for path in files(&found)?.iter().filter(|path| !before.contains(path)) {
        println!("found: {}", path.display());
        println!("to look at it: LANYARD_FUZZ={} cargo run -p lanyard-fuzz -- {}", args.of, path.display());
    }
    println!("the fuzzer ended with {status}");
    Ok(1)
}

/// Builds the fuzzer and returns its path. The target is named so that the flags are for it alone: a build
/// script or a procedural macro with coverage counters does not link.
fn build(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let version = output_of(Command::new("rustc").arg("-vV"))?;
    let version = String::from_utf8_lossy(&version).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("`rustc -vV` does not name the host")?;
    let target = folder.join("build");
    say("cargo build -p lanyard-fuzz, with coverage counters");
    let status = workspace
        .cargo()
        .args(["build", "--release", "-p", "lanyard-fuzz", "--target", host, "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", COVERAGE)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // What overflows or breaks an assumption shall be seen; what is merged across crates is not counted well.
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_STRIP", "false")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo build -p lanyard-fuzz` failed ({status}); its messages are above");
    }
    Ok(target.join(host).join("release").join("lanyard-fuzz"))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// The figures at the end of what libFuzzer prints.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    executions: u64,
    coverage: u64,
}

impl Summary {
    fn take(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            let place = match word {
                "cov:" => &mut self.coverage,
                "stat::number_of_executed_units:" => &mut self.executions,
                _ => continue,
            };
            if let Some(number) = words.next().and_then(|number| number.parse().ok()) {
                *place = number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn the_figures_are_read_from_what_the_fuzzer_prints() {
        let mut summary = Summary::default();
        for line in [
            "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 30Mb",
            "#4096\tpulse  cov: 345 ft: 1200 corp: 77/3Kb lim: 40 exec/s: 2048 rss: 41Mb",
            "stat::number_of_executed_units: 123456",
            "stat::average_exec_per_sec:     2000",
        ] {
            summary.take(line);
        }
        assert_eq!(summary, Summary { executions: 123_456, coverage: 345 });
    }
}
