//! A folder of a test's own, gone when the test is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// The user and group `nobody` of Debian.
const NOBODY: u32 = 65_534;

/// The folder.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one. Its path is short: socket paths must fit into 108 bytes.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lanyard-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        // As systemd makes a service's folder: owned by whom the supervisor becomes, which is nobody in tests.
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY))
            .with_context(|| format!("cannot give away {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Best effort: what is left is in the folder for temporary files.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
