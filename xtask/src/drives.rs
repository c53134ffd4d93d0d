//! `cargo xtask drives`: docs/drives.md, written from the registry of drive families.
//!
//! What a family can do is said once, in its own file in `drivers/src/`; what the document says of it is taken from
//! a drive that was really built. A test of this crate fails when the two differ.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use drivers::registry::{self, Common, Family};
use drivers::{
    AfterStop, Drive, Feeds, Format, Frame, PollWhen, RevolutionsPerSecond, Setpoint, Settings, Value,
    WatchdogSet,
};

use crate::workspace::Workspace;

/// Arguments of `cargo xtask drives`.
#[derive(Args, Debug)]
pub struct DrivesArgs {
    /// Write docs/drives.md instead of printing it
    #[arg(long)]
    write: bool,
}

/// `cargo xtask drives`.
///
/// # Errors
/// When a family's own example cannot be built, or the file cannot be written.
pub fn main(workspace: &Workspace, args: &DrivesArgs) -> Result<u8> {
    let text = document()?;
    if args.write {
        let path = path(workspace);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
    } else {
        print!("{text}");
    }
    Ok(0)
}

fn path(workspace: &Workspace) -> PathBuf {
    workspace.root.join("docs/drives.md")
}

const HEAD: &str = "\
# Drive families

Written by `cargo xtask drives --write` from the code (`drivers/src/`); `cargo xtask test` fails when it is out of date.

How to read it. *Stages* are what a stop goes through, each repeated until the drive's own feedback proves it, the next
one when the proof does not come in time; with `after_stop = \"release\"` the torque is taken away at standstill. *Proof* is
the feedback that is believed. *Own watchdog* is the drive's, the last layer when the whole computer is gone; `lanyard
doctor` reads it back where the protocol can tell. No family was tried on hardware by this project: what the sources leave
open is listed as unverified.

";

/// The whole text.
fn document() -> Result<String> {
    let mut text = HEAD.to_owned();
    text +=
        "| driver | stages | proof | own watchdog | sign of life | all at once | bytes checked against |\n";
    text += "|---|---|---|---|---|---|---|\n";
    let families = registry::FAMILIES.iter().map(|family| Ok((family, example(family)?)));
    let families: Vec<(&Family, Drive)> = families.collect::<Result<_>>()?;
    for (family, drive) in &families {
        row(&mut text, family, drive)?;
    }
    for (family, drive) in &families {
        section(&mut text, family, drive)?;
    }
    Ok(text)
}

/// A drive of the family as its own example has it.
fn example(family: &Family) -> Result<Drive> {
    let max_speed = RevolutionsPerSecond(50.0);
    let common = Common { after: AfterStop::Release, standstill: None, max_speed };
    registry::build(family, &(family.example)(), &common)
        .with_context(|| format!("the example of driver \"{}\"", family.name))
}

fn stages(drive: &Drive) -> String {
    let names: Vec<&str> = drive.stop.stages().iter().map(|stage| stage.kind.name()).collect();
    names.join(", ")
}

fn watchdog(drive: &Drive) -> &'static str {
    match (drive.watchdog.set, drive.watchdog.ask.as_slice().is_empty()) {
        (WatchdogSet::ByLanyard(_), false) => "set by Lanyard, read back",
        (WatchdogSet::ByLanyard(_), true) => "set by Lanyard",
        (WatchdogSet::ByHand, false) => "set by hand, read back",
        (WatchdogSet::ByHand, true) => "set by hand",
        (WatchdogSet::Off, _) => "off in the example",
        (WatchdogSet::Missing, _) => "none known",
    }
}

/// What the kernel sends by itself, and how it ends.
fn unattended(drive: &Drive) -> &'static str {
    let last = drive.unattended_stages().last().map(|stage| stage.frames);
    let feeds = |frame: &Frame| drive.feeds_watchdog(frame) == Feeds::Yes;
    if last.is_some_and(|frames| frames.as_slice().iter().any(feeds)) {
        "the kernel sends each stage for about `stage_timeout`, and then nothing: a stop feeds this watchdog, too, or may"
    } else {
        "the kernel sends each stage for about `stage_timeout`, and the last one for ever: no stop feeds this watchdog"
    }
}

fn row(text: &mut String, family: &Family, drive: &Drive) -> Result<()> {
    let heartbeat = match &drive.heartbeat {
        Some(heartbeat) if heartbeat.mark != [0; 8] => "permits running",
        Some(_) => "watched by the drive",
        None => "-",
    };
    let together = match (&drive.broadcast, &drive.slot) {
        (Some(_), _) => "broadcast",
        (None, Some(_)) => "joint frame",
        (None, None) => "-",
    };
    writeln!(
        text,
        "| [{name}](#{name}) | {} | {} | {} | {heartbeat} | {together} | {} |",
        stages(drive),
        family.sheet.proof,
        watchdog(drive),
        family.sheet.vectors,
        name = family.name,
    )?;
    Ok(())
}

fn section(text: &mut String, family: &Family, drive: &Drive) -> Result<()> {
    let Family { name, about, keys, sheet, .. } = family;
    write!(
        text,
        "\n## {name}\n\n{about}.\n\n```toml\n[[motor]]\nname = \"joint\"\nbus = \"can0\"\ndriver = \"{name}\"\n"
    )?;
    write!(text, "after_stop = \"release\"\nmax_rpm = 300\n{}```\n\n", settings(&(family.example)()))?;
    for key in *keys {
        writeln!(text, "* `{}`: {}", key.name, key.about)?;
    }
    let commanded = match drive.setpoint {
        Setpoint::Velocity => "a speed, which the drive keeps",
        Setpoint::Current(_) => "a current; the front keeps the speed",
    };
    let bus = match drive.format {
        Format::FdBrs => "CAN FD with bit-rate switch",
        Format::Classic | Format::Remote => "classic CAN",
    };
    writeln!(text, "\nCommanded by {commanded}. Needs {bus}. Stages: {}.", stages(drive))?;
    let asked = match (drive.poll.as_slice().is_empty(), drive.poll_when) {
        (true, _) => "Never asked: it reports by itself, or asking would do harm",
        (false, PollWhen::Always) => "Asked at any time: that does not feed its watchdog",
        (false, PollWhen::WhenSilent) => {
            "Asked only while it is stopped or silent: that feeds its watchdog, or may, or is itself a gentle stop"
        }
    };
    writeln!(text, "{asked}.")?;
    let still = drive.stop.stage(0).proof;
    writeln!(
        text,
        "Stands still at {:.2} rpm or less in {} readings, unless `standstill_rpm` says otherwise.",
        still.max_speed.rpm(),
        still.samples
    )?;
    writeln!(text, "\nOwn watchdog: {}.", drive.watchdog.advice)?;
    writeln!(text, "\nWithout the supervisor: {}.", unattended(drive))?;
    if !sheet.unverified.is_empty() {
        writeln!(text, "\nUnverified on hardware:\n")?;
        for item in sheet.unverified {
            writeln!(text, "* {item}")?;
        }
    }
    Ok(())
}

/// Keys and values as lines of TOML.
fn settings(settings: &Settings) -> String {
    settings.entries().map(|(key, value)| format!("{key} = {}\n", toml(value))).collect()
}

fn toml(value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Text(text) => format!("{text:?}"),
        Value::Flag(flag) => flag.to_string(),
        Value::Integers(numbers) => format!("{numbers:?}"),
        Value::Texts(texts) => format!("{texts:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{document, path};
    use crate::workspace::Workspace;

    #[test]
    fn the_table_of_drives_is_what_the_code_says() {
        let workspace = Workspace::find().unwrap();
        let written = std::fs::read_to_string(path(&workspace)).unwrap_or_default();
        let said = document().unwrap();
        let differs = written.lines().zip(said.lines()).find(|(written, said)| written != said);
        assert!(written == said, "docs/drives.md is out of date ({differs:?}): cargo xtask drives --write");
    }
}
