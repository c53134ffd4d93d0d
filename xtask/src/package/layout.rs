//! Where every file of the package goes.
//!
//! What lives here: the table of what is packed from where to where, with its permissions. systemd/README.md says the
//! same to people; a test holds the two against each other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A file of the package.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What is copied.
    pub from: PathBuf,
    /// Where it is on the robot, without the leading `/`.
    pub to: String,
    /// Its permissions.
    pub mode: u32,
    /// How it is packed.
    pub form: Form,
}

impl Entry {
    /// A program of `/usr/bin`.
    pub fn program(from: PathBuf, name: &str) -> Self {
        Self { from, to: format!("usr/bin/{name}"), mode: 0o755, form: Form::Plain }
    }
}

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Plain,
    /// Compressed with gzip, as Debian wants manual pages and changelogs; `to` ends in `.gz`.
    Gzip,
    /// As it is; when the package is upgraded, dpkg keeps what somebody has changed.
    Conffile,
}

/// What everybody may read.
const READABLE: u32 = 0o644;

/// The configuration gets secrets (the token of a server behind): others must not read it from its first moment on.
const SECRET: u32 = 0o640;

/// Folders of which every file is packed: from where, to where.
///
/// Nothing goes to `/etc/systemd`: a file there changes somebody's interfaces or services as soon as it is there. Those are
/// packed as templates, and not as documentation, which minimal images leave out.
const FOLDERS: [(&str, &str); 8] = [
    ("systemd/sysusers.d", "usr/lib/sysusers.d"),
    ("systemd/tmpfiles.d", "usr/lib/tmpfiles.d"),
    ("systemd/modules-load.d", "usr/lib/modules-load.d"),
    ("systemd/preset", "usr/lib/systemd/system-preset"),
    ("systemd/udev", "usr/lib/udev/rules.d"),
    ("systemd/network", "usr/share/lanyard/network"),
    ("systemd/examples", "usr/share/lanyard/examples"),
    ("docs", "usr/share/doc/lanyard"),
];

/// What files of `systemd/` itself are packed, by how their names end: units.
const UNITS: [&str; 3] = ["service", "socket", "target"];

/// Single files: from where, to where, permissions, form.
const FILES: [(&str, &str, u32, Form); 9] = [
    ("lanyard.example.toml", "etc/lanyard/lanyard.toml", SECRET, Form::Conffile),
    // As it came, to compare with: the other is edited.
    ("lanyard.example.toml", "usr/share/lanyard/lanyard.example.toml", READABLE, Form::Plain),
    ("README.md", "usr/share/doc/lanyard/README.md", READABLE, Form::Plain),
    ("ARCHITECTURE.md", "usr/share/doc/lanyard/ARCHITECTURE.md", READABLE, Form::Plain),
    ("systemd/debian/copyright", "usr/share/doc/lanyard/copyright", READABLE, Form::Plain),
    ("systemd/debian/lintian-overrides", "usr/share/lintian/overrides/lanyard", READABLE, Form::Plain),
    ("supervisor/lanyard-supervisor.8", "usr/share/man/man8/lanyard-supervisor.8.gz", READABLE, Form::Gzip),
    ("front/lanyard-front.8", "usr/share/man/man8/lanyard-front.8.gz", READABLE, Form::Gzip),
    ("systemd/debian/changelog", "usr/share/doc/lanyard/changelog.gz", READABLE, Form::Gzip),
];

/// Every file of the package but the programs and what they write themselves, sorted by where it goes.
///
/// # Errors
/// When a folder cannot be listed, or two files would go to the same place.
pub fn files(root: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for path in list(&root.join("systemd"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && path.extension().is_some_and(|end| UNITS.iter().any(|unit| end == *unit)) {
            entries.push(plain(path, format!("usr/lib/systemd/system/{name}")));
        }
    }
    for (from, to) in FOLDERS {
        tree(&root.join(from), to, &mut entries)?;
    }
    for (from, to, mode, form) in FILES {
        entries.push(Entry { from: root.join(from), to: to.to_owned(), mode, form });
    }
    entries.sort_by(|one, other| one.to.cmp(&other.to));
    for pair in entries.windows(2) {
        ensure!(pair[0].to != pair[1].to, "two files would be /{}", pair[0].to);
    }
    Ok(entries)
}

fn plain(from: PathBuf, to: String) -> Entry {
    Entry { from, to, mode: READABLE, form: Form::Plain }
}

fn tree(folder: &Path, to: &str, entries: &mut Vec<Entry>) -> Result<()> {
    for path in list(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let to = format!("{to}/{name}");
        if path.is_dir() {
            tree(&path, &to, entries)?;
        } else {
            entries.push(plain(path, to));
        }
    }
    Ok(())
}

/// The files and folders in a folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries
        .map(|entry| Ok(entry.with_context(|| format!("cannot list {}", folder.display()))?.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::{Form, files, list};
    use crate::workspace::Workspace;

    fn root() -> PathBuf {
        Workspace::find().unwrap().root
    }

    /// The rows of the table in systemd/README.md: a file or a folder of that folder, and where it goes.
    fn table(root: &Path) -> Vec<(String, String)> {
        let text = fs::read_to_string(root.join("systemd/README.md")).unwrap();
        let cell = |cell: &str| Some(cell.split('`').nth(1)?.to_owned());
        let row = |line: &str| {
            let mut cells = line.strip_prefix('|')?.split('|');
            Some((cell(cells.next()?)?, cell(cells.next()?)?))
        };
        text.lines().filter_map(row).collect()
    }

    fn below(folder: &Path, found: &mut Vec<PathBuf>) {
        for path in list(folder).unwrap() {
            if path.is_dir() {
                below(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_file_for_the_robot_goes_where_the_readme_says() {
        let root = root();
        let (table, packed) = (table(&root), files(&root).unwrap());
        assert!(table.len() > 8, "{table:?}");
        let mut found = Vec::new();
        below(&root.join("systemd"), &mut found);
        for path in found {
            let name = path.strip_prefix(root.join("systemd")).unwrap().to_str().unwrap();
            if name == "README.md" || name.starts_with("debian/") {
                continue;
            }
            // A row names the file, or its folder: the rest of the path is kept.
            let Some((said, rest)) = table.iter().find_map(|(row, to)| {
                let rest = if row == name {
                    path.file_name()?.to_str()?
                } else {
                    name.strip_prefix(row.strip_suffix('/')?)?
                };
                Some((to.trim_matches('/'), rest.trim_start_matches('/')))
            }) else {
                panic!("systemd/README.md does not say where {name} goes");
            };
            let there = packed.iter().find(|entry| entry.from == path);
            let there = there.unwrap_or_else(|| panic!("{name} is not packed"));
            assert_eq!(there.to, format!("{said}/{rest}"), "{name}");
            assert_eq!((there.mode, there.form), (0o644, Form::Plain), "{name}");
        }
    }

    #[test]
    fn what_the_units_and_the_package_name_is_packed() {
        let root = root();
        let packed: BTreeSet<String> = files(&root).unwrap().into_iter().map(|entry| entry.to).collect();
        for unit in list(&root.join("systemd")).unwrap().iter().filter(|path| path.is_file()) {
            let text = fs::read_to_string(unit).unwrap();
            for page in text.lines().filter_map(|line| line.strip_prefix("Documentation=file:///")) {
                assert!(packed.contains(page), "{}: {page}", unit.display());
            }
        }
        for needed in ["usr/share/doc/lanyard/copyright", "usr/share/doc/lanyard/changelog.gz"] {
            assert!(packed.contains(needed), "{needed}");
        }
    }

    #[test]
    fn nothing_changes_a_machine_by_being_there_and_the_configuration_is_no_ones_to_read() {
        let entries = files(&root()).unwrap();
        let below_etc: Vec<_> = entries.iter().filter(|entry| entry.to.starts_with("etc/")).collect();
        assert_eq!(below_etc.len(), 1, "{below_etc:?}");
        assert_eq!(below_etc[0].to, "etc/lanyard/lanyard.toml");
        assert_eq!((below_etc[0].mode, below_etc[0].form), (0o640, Form::Conffile));
    }
}
