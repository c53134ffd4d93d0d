//! Where things are: the workspace, its target folder, and cargo itself.
//!
//! What lives here: [`Workspace`], the way every task starts cargo, and [`say`], the one way in
//! which tasks report progress.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The variable by which cargo is told where to build.
const TARGET: &str = "CARGO_TARGET_DIR";

/// Prints one line of progress to stderr. Stdout belongs to what the tasks run.
pub fn say(text: impl AsRef<str>) {
    eprintln!("xtask: {}", text.as_ref());
}

/// The workspace this xtask was built from, or another commit's, as `cargo metadata` describes it.
pub struct Workspace {
    /// The folder with the top `Cargo.toml`.
    pub root: PathBuf,
    /// Where cargo builds: `target/`, unless the caller's cargo configuration says otherwise.
    pub target: PathBuf,
    metadata: Value,
    /// What cargo itself is told of the target folder.
    told: Option<PathBuf>,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// When cargo cannot be started or cannot read the workspace.
    pub fn find() -> Result<Self> {
        // `cargo run` tells the path of the package that is running; without cargo in between
        // (a copied binary), the path at build time has to do.
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        Self::of(&package, None)
    }

    /// The workspace in another folder, which builds into `target`.
    ///
    /// # Errors
    /// When cargo cannot read the workspace there.
    pub fn at(folder: &Path, target: &Path) -> Result<Self> {
        Self::of(folder, Some(target))
    }

    fn of(folder: &Path, told: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(cargo());
        command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]);
        command.arg(folder.join("Cargo.toml")).stderr(Stdio::inherit());
        command.envs(told.map(|target| (TARGET, target)));
        let output = command.output().context("cannot start cargo; is Rust installed and on PATH?")?;
        if !output.status.success() {
            bail!("`cargo metadata` failed for {} ({})", folder.display(), output.status);
        }
        let metadata: Value =
            serde_json::from_slice(&output.stdout).context("`cargo metadata` did not answer with JSON")?;
        let folder = |key: &str| {
            metadata[key]
                .as_str()
                .map(PathBuf::from)
                .with_context(|| format!("`cargo metadata` answered without {key}"))
        };
        let (root, target) = (folder("workspace_root")?, folder("target_directory")?);
        fs::create_dir_all(&target).with_context(|| format!("cannot create {}", target.display()))?;
        // The rig binds this folder at the same path, so the path must be the real one.
        let target = target.canonicalize().with_context(|| format!("cannot resolve {}", target.display()))?;
        Ok(Self { root, target, metadata, told: told.map(Path::to_owned) })
    }

    /// Where downloads, unpacked kernels and the Python clients are kept. Deleting it is always safe.
    pub fn cache(&self) -> PathBuf {
        self.target.join("rig")
    }

    /// A cargo command, started in the workspace's root.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(&self.root).envs(self.told.iter().map(|target| (TARGET, target)));
        command
    }

    /// The names of the programs a package of the workspace builds.
    pub fn binaries_of(&self, package: &str) -> Vec<String> {
        let packages = self.metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
        packages
            .iter()
            .filter(|p| p["name"] == package)
            .filter_map(|p| p["targets"].as_array())
            .flatten()
            .filter(|t| t["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == "bin")))
            .filter_map(|t| t["name"].as_str().map(str::to_owned))
            .collect()
    }

    /// The version of the programs, which is that of the whole workspace.
    ///
    /// # Errors
    /// When cargo does not know the supervisor.
    pub fn version(&self) -> Result<String> {
        let packages = self.metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
        let version = packages.iter().find(|p| p["name"] == "supervisor").and_then(|p| p["version"].as_str());
        version.map(str::to_owned).context("`cargo metadata` answered without the supervisor's version")
    }

    /// Runs cargo, with what it prints going to stderr, and says what it was doing when it fails.
    ///
    /// # Errors
    /// When cargo cannot be started or fails.
    pub fn run_cargo(&self, args: &[&str]) -> Result<()> {
        say(format!("cargo {}", args.join(" ")));
        let status = self
            .cargo()
            .args(args)
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .status()
            .context("cannot start cargo")?;
        if !status.success() {
            bail!("`cargo {}` failed ({status}); its messages are above", args.join(" "));
        }
        Ok(())
    }
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Whether this process is root. Read from /proc, because the standard library does not tell.
pub fn is_root() -> bool {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|line| line.starts_with("Uid:"))?;
            line.split_whitespace().nth(2).map(|effective| effective == "0")
        })
        .unwrap_or(false)
}

/// The folders of PATH plus the ones for administrators' tools, which Debian leaves out of an
/// ordinary user's PATH although `ip` and `modprobe` live there.
pub fn search_path() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    for extra in ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
        if !folders.iter().any(|folder| folder == Path::new(extra)) {
            folders.push(extra.into());
        }
    }
    folders
}

/// The full path of a program, or none if it is not installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}
