//! One byte into a FIFO, and every way in which it does not get there.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use shm_proto::Nanos;
use shm_proto::estop::{NotPressed, press};

/// A path of its own for each test, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lanyard-press-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn fifo(name: &str) -> Self {
        let place = Self::new(name);
        mkfifo(&place.0, Mode::from_bits_truncate(0o600)).unwrap();
        place
    }

    /// As the supervisor opens it.
    fn open(&self) -> File {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&self.0).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn each_press_is_one_byte_and_knows_when_it_was() {
    let place = Place::fifo("byte");
    let mut supervisor = place.open();
    let before = Nanos::now();
    let first = press(&place.0).unwrap();
    let second = press(&place.0).unwrap();
    assert!(before <= first && first <= second && second <= Nanos::now());
    let mut bytes = [0; 16];
    assert_eq!(supervisor.read(&mut bytes).unwrap(), 2);
}

/// Fails if a press that went nowhere passes for one, or waits for a reader or for room.
#[test]
fn a_press_that_reaches_nothing_says_why_at_once() {
    let place = Place::new("nothing");
    assert!(matches!(press(&place.0), Err(NotPressed::Absent)));
    assert!(matches!(press(&place.0.join("below")), Err(NotPressed::Absent)));
    std::fs::write(&place.0, "a file").unwrap();
    assert!(matches!(press(&place.0), Err(NotPressed::Absent)), "no FIFO");
    assert_eq!(std::fs::read_to_string(&place.0).unwrap(), "a file");

    let place = Place::fifo("unheard");
    assert!(matches!(press(&place.0), Err(NotPressed::NotHeard)));
    let mut supervisor = place.open();
    while supervisor.write(&[0; 4096]).is_ok() {}
    while supervisor.write(&[0]).is_ok() {}
    assert!(matches!(press(&place.0), Err(NotPressed::Full)));
}
