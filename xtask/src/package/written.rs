//! What the programs and the example say of themselves: manual pages and completions, written when they are packed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::install::{output_of, run_quietly};
use crate::workspace::Workspace;

use super::layout::{Entry, Form};
use super::manual;
use super::programs::Programs;

/// The shells, and where each looks for what packages bring.
pub const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/lanyard"),
    ("zsh", "usr/share/zsh/vendor-completions/_lanyard"),
    ("fish", "usr/share/fish/vendor_completions.d/lanyard.fish"),
];

/// Writes everything into a folder, made anew, and says where it goes.
///
/// # Errors
/// When the command does not run or does not write what it should.
pub fn write(workspace: &Workspace, programs: &Programs, folder: &Path) -> Result<Vec<Entry>> {
    let _ = fs::remove_dir_all(folder);
    let pages = folder.join("pages");
    fs::create_dir_all(&pages).with_context(|| format!("cannot make {}", pages.display()))?;
    run_quietly(programs.command("lanyard")?.args(["man", "--out"]).arg(&pages))?;
    let mut entries = Vec::new();
    for file in fs::read_dir(&pages)? {
        entries.push(page(file?.path()));
    }
    ensure!(entries.len() > 5, "`lanyard man` wrote {} pages only", entries.len());
    let example = workspace.root.join("lanyard.example.toml");
    let example =
        fs::read_to_string(&example).with_context(|| format!("cannot read {}", example.display()))?;
    let configuration = folder.join("lanyard.toml.5");
    fs::write(&configuration, manual::page(&example, &workspace.version()?))?;
    entries.push(page(configuration));
    for (shell, to) in COMPLETIONS {
        let script = output_of(programs.command("lanyard")?.args(["completions", shell]))?;
        let from = folder.join(shell);
        fs::write(&from, script).with_context(|| format!("cannot write {}", from.display()))?;
        entries.push(Entry { from, to: to.to_owned(), mode: 0o644, form: Form::Plain });
    }
    Ok(entries)
}

/// A page, which names its section at its end, where man(1) looks for it.
fn page(from: PathBuf) -> Entry {
    let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let section = from.extension().unwrap_or_default().to_string_lossy().into_owned();
    Entry { from, to: format!("usr/share/man/man{section}/{name}.gz"), mode: 0o644, form: Form::Gzip }
}
