//! The machine as its files show it: /proc and /sys under a root, which in tests is a made-up one.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the files of a machine are.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine whose files are under that folder; "/" is this one.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// What a file holds, without blanks around it; `None` where there is none to read.
    pub fn read(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The number a file holds.
    pub fn number(&self, path: &str) -> Option<i64> {
        self.read(path)?.parse().ok()
    }

    /// The names in a folder, sorted; none where there is no folder.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// Whether a list of processors as the kernel writes it ("0-2,5") names one.
pub fn lists(list: &str, processor: usize) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&processor),
            _ => false,
        }
    })
}

#[cfg(test)]
pub mod made_up {
    //! A machine for tests: a folder with the files it is given.

    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Machine;

    static COUNT: AtomicU32 = AtomicU32::new(0);

    pub struct MadeUp(PathBuf);

    impl MadeUp {
        pub fn with(files: &[(&str, &str)]) -> Self {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("lanyard-machine-{}-{number}", std::process::id());
            let made = Self(std::env::temp_dir().join(name));
            fs::create_dir_all(&made.0).unwrap();
            for (path, text) in files {
                made.write(path, text);
            }
            made
        }

        pub fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // As the kernel does it: with an end of line.
            fs::write(path, format!("{text}\n")).unwrap();
        }

        pub fn machine(&self) -> Machine {
            Machine::at(&self.0)
        }
    }

    impl Drop for MadeUp {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::lists;
    use super::made_up::MadeUp;

    #[test]
    fn a_list_of_processors_is_read_as_the_kernel_writes_it() {
        for (list, processor, expected) in [
            ("3", 3, true),
            ("0-2", 3, false),
            ("0-2,5,7-9", 8, true),
            ("0-2,5,7-9", 6, false),
            ("", 0, false),
            ("(null)", 0, false),
        ] {
            assert_eq!(lists(list, processor), expected, "{list:?} {processor}");
        }
    }

    #[test]
    fn what_is_not_there_is_nothing() {
        let made = MadeUp::with(&[("/sys/a", "7")]);
        let machine = made.machine();
        assert_eq!(machine.number("/sys/a"), Some(7));
        assert_eq!(machine.read("/sys/b"), None);
        assert_eq!(machine.names("/sys"), ["a"]);
        assert!(machine.names("/proc").is_empty());
    }
}
