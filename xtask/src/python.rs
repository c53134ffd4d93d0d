//! The Python clients that the demo and the tests drive Lanyard with.
//!
//! What lives here: the pinned list of packages and the virtual environment they are installed in.
//! They are other people's unchanged clients; that is the point of testing with them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::install::{PYTHON, ensure_packages, ensure_tool, run_quietly};
use crate::packages::{lock_cache, remove_folder};
use crate::workspace::{Workspace, say};

/// What is installed, at the versions the tests were written against.
const REQUIREMENTS: &[&str] =
    &["viam-sdk==0.85.1", "python-can==4.6.1", "canopen==2.4.1", "cantools==45.1.0"];

/// The interpreter of a virtual environment that has all clients, made when there is none.
///
/// # Errors
/// Without Python or its venv module (and without root to install them), or when PyPI cannot be
/// reached.
pub fn ensure_venv(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.cache().join("venv");
    let python = folder.join("bin/python");
    let stamp = folder.join("lanyard-requirements");
    let wanted = REQUIREMENTS.join("\n");
    let complete = || fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) && python.exists();
    if complete() {
        return Ok(python);
    }
    let _lock = lock_cache(workspace)?;
    if complete() {
        return Ok(python);
    }

    let system = ensure_tool(PYTHON)?;
    let create = || -> Result<()> {
        remove_folder(&folder)?;
        run_quietly(Command::new(&system).args(["-m", "venv"]).arg(&folder))
    };
    say(format!("creating a Python environment in {}", folder.display()));
    if let Err(error) = create() {
        // Debian's python3 comes without what venv needs; the module is a package of its own.
        ensure_packages(&["python3-venv"], "`python3 -m venv` does not work")
            .with_context(|| format!("{error:#}"))?;
        create()?;
    }
    say(format!("installing {} (PyPI)", REQUIREMENTS.join(", ")));
    run_quietly(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--retries", "5", "--timeout", "30"])
            .args(REQUIREMENTS),
    )
    .context("cannot install the Python clients; is PyPI reachable from here?")?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}
