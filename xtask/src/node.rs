//! Other people's packages for Node, and a browser: the TypeScript client that the tests drive Lanyard with.
//!
//! What lives here: the pinned list of packages and the folder they are installed in. They are unchanged; that is the
//! point of testing with them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::install::{CHROMIUM, NODE, NPM, ensure_tool, output_of, run_quietly};
use crate::packages::{lock_cache, remove_folder};
use crate::workspace::{Workspace, say};

/// What is installed, at the versions the tests were written against.
const PACKAGES: [&str; 3] =
    ["@viamrobotics/sdk@0.61.1", "@connectrpc/connect-node@1.7.0", "@connectrpc/connect@1.7.0"];
/// The first Node whose `fetch` is there without asking for it.
const OLDEST: u32 = 18;

/// Where the TypeScript client runs: Node with its packages, and a browser.
pub struct Node {
    /// The program.
    pub program: PathBuf,
    /// The folder that has `node_modules`.
    pub folder: PathBuf,
    /// A browser.
    pub chromium: PathBuf,
}

/// Node with all of the packages, installed when they are not there.
///
/// # Errors
/// Without Node, npm or Chromium (and without root to install them), or when the registry of npm cannot be reached.
pub fn ensure(workspace: &Workspace) -> Result<Node> {
    let node = Node {
        program: ensure_tool(NODE)?,
        folder: workspace.cache().join("node"),
        chromium: ensure_tool(CHROMIUM)?,
    };
    is_new_enough(&node)?;
    let stamp = node.folder.join("lanyard-packages");
    let wanted = PACKAGES.join("\n");
    let complete = || fs::read_to_string(&stamp).is_ok_and(|have| have == wanted);
    if complete() {
        return Ok(node);
    }
    let _lock = lock_cache(workspace)?;
    if complete() {
        return Ok(node);
    }
    let npm = ensure_tool(NPM)?;
    remove_folder(&node.folder)?;
    fs::create_dir_all(&node.folder).with_context(|| format!("cannot create {}", node.folder.display()))?;
    say(format!("installing {} (npm) into {}", PACKAGES.join(", "), node.folder.display()));
    // No script of a package is run: none of these needs one.
    run_quietly(
        Command::new(npm)
            .args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--prefix"])
            .arg(&node.folder)
            .args(PACKAGES),
    )
    .context("cannot install the packages for Node; is the registry of npm reachable from here?")?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(node)
}

fn is_new_enough(node: &Node) -> Result<()> {
    let version = output_of(Command::new(&node.program).arg("--version"))?;
    let version = String::from_utf8_lossy(&version).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST) {
        bail!("{} is Node {version}; the TypeScript SDK needs {OLDEST} or newer", node.program.display());
    }
    Ok(())
}
