//! The file of keys on the disk: who may read and write it, and how it changes.
//!
//! It is never written in place: a reader sees the old file or the new one, also after a power cut. Writers take a
//! lock on the folder, so that two of them lose nothing; readers need none.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use crate::secret::{hex, random_bytes};
use crate::{Keys, KeysError, parse};

/// The front's group reads it, nobody else: hashes of full-entropy secrets are of no use to anybody, those of
/// passwords would be.
const MODE: u32 = 0o640;
/// What nobody but owner and group may do, and the group may not.
const FORBIDDEN: u32 = 0o027;

/// A file of keys, by its path.
#[derive(Clone, Debug)]
pub struct KeysFile {
    path: PathBuf,
}

impl KeysFile {
    /// The file at a path; it need not exist.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys in it; none if there is no such file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, has mistakes, or others could read or change it.
    pub fn load(&self) -> Result<Keys, KeysError> {
        match self.read()? {
            Some(current) => parse::keys(&self.path, &current.text),
            None => Ok(Keys::none()),
        }
    }

    pub(crate) fn error(&self, what: impl Into<String>) -> KeysError {
        KeysError::of_file(&self.path, what)
    }

    /// Text and metadata, if there is such a file.
    fn read(&self) -> Result<Option<Current>, KeysError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error(format!("cannot read the keys: {error}"))),
        };
        let unreadable = |error: io::Error| self.error(format!("cannot read the keys: {error}"));
        let metadata = file.metadata().map_err(unreadable)?;
        let mode = metadata.mode() & 0o777;
        if mode & FORBIDDEN != 0 {
            let path = self.path.display();
            return Err(self.error(format!(
                "others than its owner may change the keys, or others than its group read them (mode {mode:o}); \
                 look whether all keys are yours, then `chmod 640 {path}`"
            )));
        }
        let text = io::read_to_string(&mut file).map_err(unreadable)?;
        Ok(Some(Current { text, uid: metadata.uid(), gid: metadata.gid() }))
    }

    /// Replaces the text by what `change` makes of it, while nobody else can. A new file gets its group from
    /// `sibling`, a file that the front reads, too.
    pub(crate) fn change<T>(
        &self,
        sibling: Option<&Path>,
        change: impl FnOnce(&str) -> Result<(String, T), KeysError>,
    ) -> Result<T, KeysError> {
        // What a symbolic link names is replaced, not the link.
        let real = Self { path: fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone()) };
        let folder = real.path.parent().filter(|folder| folder.is_dir());
        let folder = folder.ok_or_else(|| self.error("cannot write the keys: there is no such folder"))?;
        let unwritable = |error: io::Error| self.error(format!("cannot write the keys: {error}"));
        let lock = File::open(folder).map_err(unwritable)?;
        lock.lock().map_err(unwritable)?;
        let current = real.read()?;
        let (text, outcome) = change(current.as_ref().map_or("", |current| &current.text))?;
        // What is written can be read again, or is not written.
        parse::keys(&self.path, &text)?;
        let owner = match &current {
            Some(current) => Some((Some(current.uid), current.gid)),
            None => {
                sibling.and_then(|sibling| fs::metadata(sibling).ok()).map(|sibling| (None, sibling.gid()))
            }
        };
        replace(&real.path, folder, &text, owner).map_err(unwritable)?;
        // The name is safe only when the folder is.
        lock.sync_all().map_err(unwritable)?;
        Ok(outcome)
    }
}

/// A file as it was read.
struct Current {
    text: String,
    uid: u32,
    gid: u32,
}

/// Puts a new file in a path's place, all at once; it belongs to `owner`, if that is given.
fn replace(path: &Path, folder: &Path, text: &str, owner: Option<(Option<u32>, u32)>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.join(format!(".{name}.{}", hex(&random_bytes::<8>())));
    // Nobody else's until it has its group.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = (|| {
        if let Some((uid, gid)) = owner {
            let now = file.metadata()?;
            let uid = uid.filter(|uid| *uid != now.uid());
            let gid = Some(gid).filter(|gid| *gid != now.gid());
            if uid.is_some() || gid.is_some() {
                fchown(&file, uid, gid)?;
            }
        }
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&draft);
    }
    written
}
