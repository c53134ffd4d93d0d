//! `lanyard import-viam`: from the configuration of a viam-server to a lanyard.toml for standing in front of it.
//!
//! What lives here: reading viam-server's JSON, and writing what can be known from it, with a mark on every line that a
//! person must fill in. What is not understood is named, on stderr and in the file: nothing is lost silently.
//!
//! What must never live here: a guess about a motor. Which drive hangs on which bus is not in viam-server's
//! configuration, and a wrong guess would send a stop to somebody else. Nor a secret: keys are counted, never copied.

mod address;
mod behind;
mod duration;
mod robot;
#[cfg(test)]
mod tests;
mod write;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, bail};

use robot::Robot;

/// Largest configuration that is read. Real ones have kilobytes; a file that has more is another file.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// A lanyard.toml and what must be said about it.
struct Import {
    /// The file's text.
    text: String,
    /// What a person should know and the file alone would not make them notice.
    notes: Vec<String>,
}

/// Reads viam-server's configuration, writes the file to `to` or to `out`, and its notes to `errors`.
///
/// # Errors
///
/// When the JSON cannot be read or is none of viam-server's, with line and column; when `to` exists already.
pub fn run(
    from: &Path,
    to: Option<&Path>,
    out: &mut dyn Write,
    errors: &mut dyn Write,
) -> anyhow::Result<()> {
    let name = from.display();
    let Import { text, notes } = import(&name.to_string(), &read(from)?)?;
    match to {
        Some(to) => {
            write_new(to, &text)?;
            writeln!(errors, "{}: written; now run  lanyard check {}", to.display(), to.display())?;
        }
        None => out.write_all(text.as_bytes())?,
    }
    for note in notes {
        writeln!(errors, "{name}: {note}")?;
    }
    Ok(())
}

fn read(from: &Path) -> anyhow::Result<String> {
    let name = from.display();
    let cannot = || format!("cannot read viam-server's configuration {name}");
    let length = fs::metadata(from).with_context(cannot)?.len();
    if length > MOST_BYTES {
        bail!("{name} has {length} bytes; a configuration of viam-server has at most {MOST_BYTES}");
    }
    fs::read_to_string(from).with_context(cannot)
}

/// Never over a file that is there: it may be the one that was filled in by hand.
fn write_new(to: &Path, text: &str) -> anyhow::Result<()> {
    let name = to.display();
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(to).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                anyhow::anyhow!("{name} exists already; name another file, or move it away")
            }
            _ => anyhow::anyhow!("cannot write {name}: {error}"),
        })?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {name}"))
}

/// `from` is for messages.
fn import(from: &str, json: &str) -> anyhow::Result<Import> {
    let robot = Robot::parse(from, json)?;
    write::file(from, &robot)
}
