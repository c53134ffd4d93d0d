//! Other people's Python packages: the clients that the demo and the tests drive Lanyard with, and the packages for
//! the same drives that its frames are compared with.
//!
//! What lives here: the pinned lists of packages and the virtual environments they are installed in.
//! They are unchanged; that is the point of testing with them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::install::{PYTHON, ensure_packages, ensure_tool, run_quietly};
use crate::packages::{lock_cache, remove_folder};
use crate::workspace::{Workspace, say};

/// A virtual environment and what is installed in it, at the versions the tests were written against.
pub struct Environment {
    /// Its folder in the cache.
    folder: &'static str,
    requirements: &'static [&'static str],
}

/// The clients of the demo and of the tests on a rig.
pub const CLIENTS: Environment = Environment {
    folder: "venv",
    requirements: &[
        "viam-sdk==0.85.1",
        "python-can==4.6.1",
        "canopen==2.4.1",
        "cantools==45.1.0",
        "grpcio==1.85.3",
        "paho-mqtt==2.1.0",
    ],
};

/// What `tests/peers` compares with. Apart from the clients, because it is ten times as large and no rig needs it.
pub const PEERS: Environment = Environment {
    folder: "venv-peers",
    requirements: &[
        "canopen==2.4.1",
        "cantools==45.1.0",
        "damiao-motor==1.0.6",
        "dronecan==1.0.27",
        "moteus==1.1.1",
        "odrive-can==2.1.0",
        "tinymovr==3.2.0",
    ],
};

/// The interpreter of a virtual environment that has all of its packages, made when there is none.
///
/// # Errors
/// Without Python or its venv module (and without root to install them), or when PyPI cannot be
/// reached.
pub fn ensure_venv(workspace: &Workspace, environment: &Environment) -> Result<PathBuf> {
    let folder = workspace.cache().join(environment.folder);
    let python = folder.join("bin/python");
    let stamp = folder.join("lanyard-requirements");
    let wanted = environment.requirements.join("\n");
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
    say(format!("installing {} (PyPI)", environment.requirements.join(", ")));
    run_quietly(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--retries", "5", "--timeout", "30"])
            .args(environment.requirements),
    )
    .context("cannot install the Python packages; is PyPI reachable from here?")?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}
