//! `lanyard doctor`: what no configuration file can show, because it is in the machine and its drives.
//!
//! What lives here: findings, each with why it matters and what mends it, and how they are printed. Each kind of
//! thing that is looked at has a file of its own. What must never live here: a change of anything; a frame that is not
//! a drive's own harmless question ([`drivers::Watchdog::ask`]).

mod access;
mod drives;
mod wire;

use std::io::{self, Write};
use std::path::Path;

use config::Config;
use serde::Serialize;

use crate::source::Source;
use crate::table::wrap;

const WIDTH: usize = 100;

/// How a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// In order.
    Good,
    /// Nobody can tell from here.
    Unknown,
    /// Needs a human.
    Attention,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, and why it matters.
    pub found: String,
    /// What mends it, if anything has to be done.
    pub remedy: Option<String>,
}

/// Looks at everything the file names. True: nothing needs a human.
///
/// # Errors
/// The file has mistakes, or nobody takes the output.
pub fn run(file: &Path, socket: Option<&Path>, json: bool, out: &mut dyn Write) -> anyhow::Result<bool> {
    let config = Config::load(file)?;
    let socket = socket.unwrap_or(&config.supervisor.socket);
    // Without a supervisor nobody can be driving through Lanyard, and the drives can be asked all the same.
    let status = Source::connect(socket).ok().map(|source| source.status());
    let mut wire = wire::Can::new(&config);
    let mut findings = drives::examine(&config, status.as_ref(), &mut wire);
    findings.extend(access::examine(&config));
    if json {
        writeln!(out, "{}", serde_json::to_string(&findings)?)?;
    } else {
        print(out, &findings)?;
    }
    Ok(findings.iter().all(|finding| finding.verdict != Verdict::Attention))
}

fn print(out: &mut dyn Write, findings: &[Finding]) -> io::Result<()> {
    for Finding { subject, verdict, found, remedy } in findings {
        let mark = match verdict {
            Verdict::Good => "ok",
            Verdict::Unknown => "??",
            Verdict::Attention => "!!",
        };
        hang(out, &format!("{mark}  "), &format!("{subject}: {found}"))?;
        if let Some(remedy) = remedy {
            hang(out, "    -> ", remedy)?;
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (attention, unknown) = (count(Verdict::Attention), count(Verdict::Unknown));
    writeln!(
        out,
        "{} looked at: {attention} need attention, {unknown} cannot be told from here",
        findings.len()
    )
}

/// A paragraph behind a mark, its further lines as far in as the first.
fn hang(out: &mut dyn Write, mark: &str, text: &str) -> io::Result<()> {
    for (index, line) in wrap(text, WIDTH - mark.len()).iter().enumerate() {
        let before = if index == 0 { mark } else { &" ".repeat(mark.len()) };
        writeln!(out, "{before}{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_marked_and_counted() {
        let finding = |verdict, remedy: Option<&str>| Finding {
            subject: "motor \"a\" (odrive)".to_owned(),
            verdict,
            found: "own watchdog".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let findings = [
            finding(Verdict::Good, None),
            finding(Verdict::Unknown, Some("look")),
            finding(Verdict::Attention, Some("mend")),
        ];
        let mut out = Vec::new();
        print(&mut out, &findings).unwrap();
        let expected = "ok  motor \"a\" (odrive): own watchdog\n??  motor \"a\" (odrive): own watchdog\n    -> look\n\
                        !!  motor \"a\" (odrive): own watchdog\n    -> mend\n\
                        3 looked at: 1 need attention, 1 cannot be told from here\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
