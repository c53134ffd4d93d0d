//! `lanyard doctor`: what no configuration file can show, because it is in the machine and its drives.
//!
//! What lives here: findings, each with why it matters and what mends it, and how they are printed. Each kind of
//! thing that is looked at has a file of its own; what it looks at is given to it, so that tests can show it a
//! machine that is made up. What must never live here: a change of anything; a frame that is not a drive's own
//! harmless question ([`drivers::Watchdog::ask`]).

mod access;
mod drives;
mod interfaces;
mod kernel;
mod link;
mod machine;
mod process;
mod processor;
mod service;
mod settings;
mod wire;

use std::io::{self, Write};
use std::path::Path;

use clap::ValueEnum;
use config::Config;
use serde::Serialize;

use self::machine::Machine;
use crate::source::Source;
use crate::table::wrap;

const WIDTH: usize = 100;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Area {
    /// Kernel, processors, clock, and what the running supervisor was given
    Machine,
    /// The CAN interfaces
    Interfaces,
    /// The services, and who watches over them
    Services,
    /// The drives' own watchdogs, asked for over CAN
    Drives,
    /// Keys, certificate, and what is open to other computers
    Access,
    /// Settings that are often not meant
    Settings,
}

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

impl Finding {
    /// Something in order.
    fn good(subject: &str, found: String) -> Self {
        Self { subject: subject.to_owned(), verdict: Verdict::Good, found, remedy: None }
    }

    /// Something that cannot be told from here, and how it could be.
    fn unknown(subject: &str, found: String, remedy: Option<&str>) -> Self {
        let remedy = remedy.map(str::to_owned);
        Self { subject: subject.to_owned(), verdict: Verdict::Unknown, found, remedy }
    }

    /// Something that needs a human, and what mends it.
    fn attention(subject: &str, found: String, remedy: &str) -> Self {
        let remedy = Some(remedy.to_owned());
        Self { subject: subject.to_owned(), verdict: Verdict::Attention, found, remedy }
    }
}

/// What to look at, and how to say it.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The configuration.
    pub file: &'a Path,
    /// Where the supervisor answers, if not where the configuration says.
    pub socket: Option<&'a Path>,
    /// Nothing else; `None`: everything.
    pub only: Option<Area>,
    /// As JSON.
    pub json: bool,
}

/// Looks at everything the order names. True: nothing needs a human.
///
/// # Errors
/// The file has mistakes, or nobody takes the output.
pub fn run(order: Order<'_>, out: &mut dyn Write) -> anyhow::Result<bool> {
    let config = Config::load(order.file)?;
    let socket = order.socket.unwrap_or(&config.supervisor.socket);
    // Without a supervisor nobody can be driving through Lanyard, and the drives can be asked all the same.
    let status = Source::connect(socket).ok().map(|source| source.status());
    let machine = Machine::at(Path::new("/"));
    let look = |area| match area {
        Area::Machine => {
            let mut findings = kernel::examine(&config, &machine);
            findings.extend(processor::examine(&config, &machine));
            findings.extend(process::examine(&config, status.as_ref(), &machine));
            findings
        }
        Area::Interfaces => interfaces::examine(&config, &link::Kernel),
        Area::Services => service::examine(&machine, &service::Systemctl),
        Area::Drives => drives::examine(&config, status.as_ref(), &mut wire::Can::new(&config)),
        Area::Access => access::examine(&config),
        Area::Settings => settings::examine(&config),
    };
    let wanted = |area: &&Area| order.only.is_none_or(|only| only == **area);
    let findings: Vec<Finding> =
        Area::value_variants().iter().filter(wanted).flat_map(|area| look(*area)).collect();
    if order.json {
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

/// A robot for tests: the smallest configuration, with something before it.
#[cfg(test)]
fn robot(head: &str) -> Config {
    const REST: &str = "[[bus]]\nname = \"can0\"\n[[motor]]\nname = \"m\"\nbus = \"can0\"\ndriver = \"odrive\"\n\
        firmware = \"0.6\"\nnode = 1\nafter_stop = \"hold\"\nmax_rpm = 1\n";
    let config = Config::parse(Path::new("robot.toml"), &format!("{head}{REST}"));
    config.unwrap_or_else(|error| panic!("{error}"))
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
