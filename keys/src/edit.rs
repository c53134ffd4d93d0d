//! Adding and revoking keys, with everything else in the file left as it was: comments, order, keys of others.

use std::path::Path;
use std::time::{Duration, SystemTime};

use config::duration;
use toml::Value;

use crate::{Hash, Key, KeyId, KeysError, KeysFile, Password, Role, Secret, parse};

/// What a new file begins with.
const HEAD: &str = "\
# Keys of clients that may call lanyard-front. `lanyard keys add`, `lanyard keys revoke` write this file, and
# the front reads it again when it changes. It holds no secret; see docs/access.md.
";

/// A key that is to be made.
#[derive(Clone, Debug)]
pub struct Draft {
    name: String,
    role: Role,
    window: Option<Duration>,
}

impl Draft {
    /// A key of that name and role; its sessions have the window of the configuration, or a shorter one.
    ///
    /// # Errors
    ///
    /// When no key may be called so, or have that window.
    pub fn new(name: &str, role: Role, window: Option<&str>) -> Result<Self, String> {
        parse::check_name(name)?;
        let window = window.map(parse::check_window).transpose()?;
        Ok(Self { name: name.to_owned(), role, window })
    }
}

impl KeysFile {
    /// Makes a key; the secret is nowhere but in what this returns. A new file gets its group from `sibling`, a file
    /// that the front reads, too.
    ///
    /// # Errors
    ///
    /// When the name is taken, or the file has mistakes or cannot be written.
    pub fn add(&self, draft: &Draft, sibling: Option<&Path>) -> Result<(Key, Secret), KeysError> {
        let secret = Secret::random();
        Ok((self.add_with(draft, Hash::of(&secret), sibling)?, secret))
    }

    /// Makes a key for who has that password.
    ///
    /// # Errors
    ///
    /// As for [`Self::add`].
    pub fn add_with_password(
        &self,
        draft: &Draft,
        password: &Password,
        sibling: Option<&Path>,
    ) -> Result<Key, KeysError> {
        self.add_with(draft, Hash::of_password(password.reveal()), sibling)
    }

    fn add_with(&self, draft: &Draft, hash: Hash, sibling: Option<&Path>) -> Result<Key, KeysError> {
        let Draft { name, role, window } = draft.clone();
        let key = Key { id: KeyId::random(), name, role, window, created: SystemTime::now(), hash };
        self.change(sibling, |text| {
            if parse::keys(self.path(), text)?.iter().any(|other| other.name == key.name) {
                let what =
                    format!("there is a key \"{}\" already; revoke it, or choose another name", key.name);
                return Err(self.error(what));
            }
            let text = if text.is_empty() { HEAD } else { text };
            let end = if text.ends_with('\n') { "" } else { "\n" };
            Ok((format!("{text}{end}\n{}", lines(&key)), ()))
        })?;
        Ok(key)
    }

    /// Takes a key away; who uses it is not let in any more.
    ///
    /// # Errors
    ///
    /// When there is no such key, or the file has mistakes or cannot be written.
    pub fn revoke(&self, id: KeyId) -> Result<Key, KeysError> {
        self.change(None, |text| {
            let keys = parse::keys(self.path(), text)?;
            let lines = parse::lines_of(self.path(), text, id)?;
            let (Some(key), Some(lines)) = (keys.get(id), lines) else {
                return Err(self.error(format!("there is no key {id}")));
            };
            let before = &text[..lines.start];
            // The empty line that was put before it.
            let before = before.strip_suffix("\n\n").map_or(before, |rest| &before[..=rest.len()]);
            let text = format!("{before}{}", &text[lines.end..]);
            if parse::keys(self.path(), &text)?.iter().count() + 1 == keys.iter().count() {
                Ok((text, key.clone()))
            } else {
                Err(self.error("each key must be written as a [[key]] of its own, one value a line"))
            }
        })
    }
}

/// A key as it stands in the file.
fn lines(key: &Key) -> String {
    let window = key.window.map(duration::show);
    let created = humantime::format_rfc3339_seconds(key.created).to_string();
    let values = [
        ("id", Some(key.id.to_string())),
        ("name", Some(key.name.clone())),
        ("role", Some(key.role.to_string())),
        ("window", window),
        ("created", Some(created)),
        ("hash", Some(key.hash.to_string())),
    ];
    let lines = values.into_iter().filter_map(|(name, value)| Some((name, Value::String(value?))));
    lines.fold("[[key]]\n".to_owned(), |text, (name, value)| format!("{text}{name} = {value}\n"))
}
