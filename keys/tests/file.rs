//! The file of keys: what is written can be read, nothing is lost, and mistakes are told with their line.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use lanyard_keys::{Draft, Key, KeyId, Keys, KeysFile, Kind, Password, Role};
use proptest::prelude::*;

/// A directory of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lanyard-keys-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> KeysFile {
        KeysFile::at(&self.0.join("keys.toml"))
    }

    fn write(&self, text: &str) -> KeysFile {
        let file = self.file();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(0o640)).unwrap();
        file
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn draft(name: &str, role: Role, window: Option<&str>) -> Draft {
    Draft::new(name, role, window).unwrap()
}

fn names(keys: &Keys) -> Vec<&str> {
    keys.iter().map(|key| key.name.as_str()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_key_is_added_used_and_revoked() {
    let folder = Folder::new("life");
    let file = folder.file();
    assert!(file.load().unwrap().is_empty(), "a file that is not there has no key");
    let (panel, secret) = file.add(&draft("panel", Role::Observe, Some("500ms")), None).unwrap();
    let (arm, arm_secret) = file.add(&draft("arm", Role::Administer, None), None).unwrap();

    let keys = file.load().unwrap();
    assert_eq!(names(&keys), ["panel", "arm"]);
    let found = keys.authenticate(&panel.id.to_string(), secret.reveal()).unwrap();
    assert_eq!((found.role, found.window), (Role::Observe, Some(std::time::Duration::from_millis(500))));
    let age = found.created.elapsed().unwrap();
    assert!(age.as_secs() < 600, "made {age:?} ago");
    assert!(keys.authenticate(&panel.id.to_string(), arm_secret.reveal()).is_none());
    let text = fs::read_to_string(file.path()).unwrap();
    assert!(!text.contains(secret.reveal()) && !text.contains(arm_secret.reveal()), "a secret is in {text}");

    let error = file.add(&draft("arm", Role::Operate, None), None).unwrap_err().to_string();
    assert!(error.contains("there is a key \"arm\" already"), "{error}");
    assert_eq!(file.revoke(panel.id).unwrap().name, "panel");
    let error = file.revoke(panel.id).unwrap_err().to_string();
    assert!(error.contains(&format!("there is no key {}", panel.id)), "{error}");
    let keys = file.load().unwrap();
    assert_eq!(names(&keys), ["arm"]);
    assert!(keys.authenticate(&arm.id.to_string(), arm_secret.reveal()).is_some());
    file.revoke(arm.id).unwrap();
    assert!(file.load().unwrap().is_empty());
    assert_eq!(folder.names(), ["keys.toml"], "something is left over");
}

#[test]
fn a_password_is_added_used_and_revoked() {
    let folder = Folder::new("password");
    let file = folder.file();
    let password = Password::new("correct horse".to_owned(), "ada").unwrap();
    let ada = file.add_with_password(&draft("ada", Role::Operate, Some("1s")), &password, None).unwrap();
    let (panel, secret) = file.add(&draft("panel", Role::Observe, None), None).unwrap();
    let text = fs::read_to_string(file.path()).unwrap();
    assert!(!text.contains("correct horse") && text.contains("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
    let keys = file.load().unwrap();
    let found = keys.authenticate_password("ada", "correct horse").unwrap();
    assert_eq!((found.id, found.role, found.hash.kind()), (ada.id, Role::Operate, Kind::Password));
    assert_eq!(keys.authenticate_named("panel", secret.reveal()).unwrap().id, panel.id);
    let error = file.add_with_password(&draft("panel", Role::Operate, None), &password, None).unwrap_err();
    assert!(error.to_string().contains("there is a key \"panel\" already"), "{error}");
    assert_eq!(file.revoke(ada.id).unwrap().name, "ada");
    assert!(file.load().unwrap().authenticate_password("ada", "correct horse").is_none());
}

#[test]
fn what_else_is_in_the_file_stays() {
    let folder = Folder::new("comments");
    let file = folder.file();
    let (first, _) = file.add(&draft("first", Role::Operate, None), None).unwrap();
    let written = fs::read_to_string(file.path()).unwrap();
    let noted = written.replace("[[key]]", "# Ada's, until June\n[[key]]");
    folder.write(&noted);
    let (second, _) = file.add(&draft("second", Role::Operate, None), None).unwrap();
    assert!(fs::read_to_string(file.path()).unwrap().starts_with(&noted));
    file.revoke(second.id).unwrap();
    assert_eq!(fs::read_to_string(file.path()).unwrap(), noted);
    file.revoke(first.id).unwrap();
    let left = fs::read_to_string(file.path()).unwrap();
    assert!(left.starts_with("# Keys of clients") && left.ends_with("# Ada's, until June\n"), "{left}");
}

/// Fails if two writers could read the same file before either has written.
#[test]
fn of_many_writers_at_once_none_loses_a_key() {
    let folder = Folder::new("writers");
    let file = folder.file();
    thread::scope(|scope| {
        for writer in 0..8 {
            let file = &file;
            scope.spawn(move || {
                for number in 0..5 {
                    let name = format!("{writer}-{number}");
                    file.add(&draft(&name, Role::Operate, None), None).unwrap();
                }
            });
        }
        // A reader sees whole files only.
        scope.spawn(|| {
            let mut most = 0;
            while most < 40 {
                let count = file.load().unwrap().iter().count();
                assert!(count >= most, "{count} keys after {most}");
                most = count;
            }
        });
    });
    assert_eq!(file.load().unwrap().iter().count(), 40);
    assert_eq!(folder.names(), ["keys.toml"]);
}

#[test]
fn the_file_is_nobody_elses() {
    let folder = Folder::new("modes");
    let file = folder.file();
    file.add(&draft("panel", Role::Operate, None), None).unwrap();
    assert_eq!(mode(file.path()), 0o640);
    for wrong in [0o644, 0o642, 0o660, 0o641] {
        fs::set_permissions(file.path(), Permissions::from_mode(wrong)).unwrap();
        let refusals = [
            file.load().unwrap_err(),
            file.add(&draft("other", Role::Operate, None), None).unwrap_err(),
            file.revoke(KeyId::random()).unwrap_err(),
        ];
        for error in refusals.map(|error| error.to_string()) {
            assert!(error.contains(&format!("mode {wrong:o}")) && error.contains("chmod 640"), "{error}");
        }
    }
    for right in [0o600, 0o640, 0o400] {
        fs::set_permissions(file.path(), Permissions::from_mode(right)).unwrap();
        assert_eq!(names(&file.load().unwrap()), ["panel"]);
    }
}

/// Only root may give a file to somebody else; without it there is nothing to see here.
#[test]
fn a_new_file_has_the_group_of_the_configuration_and_keeps_it() {
    let folder = Folder::new("group");
    let sibling = folder.0.join("lanyard.toml");
    fs::write(&sibling, "").unwrap();
    if std::os::unix::fs::chown(&sibling, None, Some(12_345)).is_err() {
        return;
    }
    let file = folder.file();
    file.add(&draft("one", Role::Operate, None), Some(&sibling)).unwrap();
    assert_eq!(fs::metadata(file.path()).unwrap().gid(), 12_345);
    file.add(&draft("two", Role::Operate, None), None).unwrap();
    assert_eq!((fs::metadata(file.path()).unwrap().gid(), mode(file.path())), (12_345, 0o640));
}

#[test]
fn a_link_is_followed_and_a_folder_must_be_there() {
    let folder = Folder::new("link");
    let file = folder.file();
    file.add(&draft("one", Role::Operate, None), None).unwrap();
    let link = KeysFile::at(&folder.0.join("link.toml"));
    std::os::unix::fs::symlink(file.path(), link.path()).unwrap();
    link.add(&draft("two", Role::Operate, None), None).unwrap();
    assert_eq!(names(&file.load().unwrap()), ["one", "two"]);
    let nowhere = KeysFile::at(Path::new("/no/such/folder/keys.toml"));
    let error = nowhere.add(&draft("one", Role::Operate, None), None).unwrap_err().to_string();
    assert!(error.contains("no such folder"), "{error}");
}

const GOOD: &str = "\
[[key]]
id = \"6ec5d3c6-49a4-4f0b-9d1e-6e5a2f1f7b01\"
name = \"panel\"
role = \"operate\"
created = \"2026-01-31T12:00:00Z\"
hash = \"$sha256$000102030405060708090a0b0c0d0e0f$67557c0d86179c45199f096d85b7aeb2b8b34bf423c403ba517f72bcc5913c4c\"
";

const SHA256: &str = "$sha256$000102030405060708090a0b0c0d0e0f$67557c0d86179c45199f096d85b7aeb2b8b34bf423c403ba517f72bcc5913c4c";

#[test]
fn mistakes_are_told_with_their_line() {
    let folder = Folder::new("mistakes");
    let twice = |old: &str, new: &str| format!("{GOOD}{}", GOOD.replace(old, new));
    let cases = [
        (GOOD.replace("name =", "nmae ="), 3, "nmae"),
        (GOOD.replace("panel", ""), 3, "1 to 64 characters"),
        (GOOD.replace("\"panel\"", "\"pa\\nnel\""), 3, "control character"),
        (GOOD.replace("operate", "drive"), 4, "key \"panel\": a role is observe, operate or administer"),
        (GOOD.replace("2026-01-31T12", "yesterday"), 5, "\"created\" must be a time"),
        (GOOD.replace("$sha256$", "$rot13$"), 6, "\"rot13\" is not known"),
        (
            GOOD.replace(
                SHA256,
                "$argon2id$v=19$m=262145,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
            ),
            6,
            "key \"panel\": the work of an argon2id hash is",
        ),
        (
            GOOD.replace(SHA256, "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA"),
            6,
            "key \"panel\": an argon2id hash is",
        ),
        (GOOD.replace("6ec5d3c6-", ""), 2, "\"id\" must be a UUID"),
        (
            GOOD.replace("role", "window = \"5m\"\nrole"),
            4,
            "a window is a duration from 30ms to 1m, not \"5m\"",
        ),
        (GOOD.replace("role", "window = \"soon\"\nrole"), 4, "not \"soon\""),
        (GOOD.replace("\nrole = \"operate\"", ""), 1, "missing field `role`"),
        (GOOD.replace("[[key]]", "[key]"), 1, ""),
        (GOOD.replace("[[key]]", "[[keys]]"), 1, "keys"),
        (twice("panel", "other"), 8, "is used twice"),
        (twice("6ec5d3c6", "7ec5d3c6"), 9, "the name \"panel\" is used twice"),
    ];
    for (text, line, words) in cases {
        let file = folder.write(&text);
        let error = file.load().unwrap_err().to_string();
        let expected = format!("{}:{line}: ", file.path().display());
        assert!(
            error.starts_with(&expected) && error.contains(words),
            "{error}\nlacks {expected}{words} in\n{text}"
        );
        assert!(file.add(&draft("new", Role::Operate, None), None).is_err());
        assert_eq!(fs::read_to_string(file.path()).unwrap(), text, "a file with a mistake was changed");
    }
    let keys = folder.write(GOOD).load().unwrap();
    assert!(keys.authenticate("6ec5d3c6-49a4-4f0b-9d1e-6e5a2f1f7b01", "secret").is_some());
}

#[test]
fn keys_that_stand_in_one_line_are_not_taken_away_together() {
    let folder = Folder::new("inline");
    let table = |id: &str, name: &str| {
        let key = GOOD.replace("[[key]]\n", "").replace("6ec5d3c6", id).replace("panel", name);
        format!("{{ {} }}", key.trim_end().replace('\n', ", "))
    };
    let text = format!("key = [{}, {}]\n", table("6ec5d3c6", "panel"), table("7ec5d3c6", "arm"));
    let file = folder.write(&text);
    let keys = file.load().unwrap();
    assert_eq!(names(&keys), ["panel", "arm"]);
    let id = keys.iter().next().unwrap().id;
    let error = file.revoke(id).unwrap_err().to_string();
    assert!(error.contains("a [[key]] of its own"), "{error}");
    assert_eq!(fs::read_to_string(file.path()).unwrap(), text);
}

#[test]
fn drafts_that_are_refused() {
    for (name, window, words) in [
        ("", None, "1 to 64 characters"),
        (" panel", None, "no space at its ends"),
        ("a\u{1b}[2Jb", None, "control character"),
        ("panel", Some("10ms"), "from 30ms to 1m"),
        ("panel", Some("2"), "not \"2\""),
    ] {
        let error = Draft::new(name, Role::Operate, window).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_added_is_found_again(
        wanted in prop::collection::btree_map("\\PC{1,20}", (0..3_usize, prop::option::of(30..=60_000_u32)), 1..5)
    ) {
        let folder = Folder::new("any");
        let mut added: Vec<(Key, String)> = Vec::new();
        for (name, (role, window)) in wanted {
            let window = window.map(|window| format!("{window}ms"));
            let Ok(draft) = Draft::new(&name, Role::ALL[role], window.as_deref()) else { continue };
            let (key, secret) = folder.file().add(&draft, None).unwrap();
            added.push((key, secret.reveal().to_owned()));
        }
        let keys = folder.file().load().unwrap();
        prop_assert_eq!(keys.iter().count(), added.len());
        for (key, secret) in &added {
            let found = keys.authenticate(&key.id.to_string(), secret).unwrap();
            prop_assert_eq!((&found.name, found.role, found.window), (&key.name, key.role, key.window));
        }
    }

    #[test]
    fn any_text_is_a_file_or_an_error(text in "(\\[\\[key\\]\\]\n|id = \"\\PC{0,40}\"\n|name = \"a\"\n|\\PC{0,20}\n){0,6}") {
        let folder = Folder::new("text");
        let _ = folder.write(&text).load();
    }
}
