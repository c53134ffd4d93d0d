//! The built command against a stand-in for the supervisor's socket.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, listen, socket};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use shm_proto::handover::{Message, receive, send};
use shm_proto::verdicts::{Degraded, Identity, Phase, ResetPolicy};
use shm_proto::{Capacity, Nanos, TripId, TripSeen, VerdictSegment};

/// A directory of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lanyard-ctl-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("supervisor.sock")
    }

    /// The operators' socket beside it.
    fn operator_socket(&self) -> PathBuf {
        let folder = self.0.join("operator");
        std::fs::create_dir_all(&folder).unwrap();
        folder.join("supervisor.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn verdicts() -> (VerdictSegment, OwnedFd) {
    let now = Nanos::now();
    let identity = Identity { config_hash: 1, pid: 42, started: now, policy: ResetPolicy::Auto };
    let (segment, fd) = VerdictSegment::create(Capacity::DEFAULT, &identity, &[], &[]).unwrap();
    segment.phase(Phase::Armed);
    // Somewhat ahead, so that a slow test machine makes no silent supervisor.
    segment.beat(1, Nanos(now.0 + 600_000_000_000));
    (segment, fd)
}

/// Trip 7, of which everything is known.
const SEVENTH: TripSeen = TripSeen { trip: TripId(7), violations: 2 };

/// Answers `answers` requests: with the verdicts, trip 7 to a stop, its own id to the reset of trip 7.2.
fn serve(path: &Path, verdicts: OwnedFd, answers: usize) {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&listener, Backlog::new(4).unwrap()).unwrap();
    thread::spawn(move || {
        for _ in 0..answers {
            let fd = accept(listener.as_raw_fd()).unwrap();
            // SAFETY: the descriptor has just been made by accept and has no other owner.
            let client = unsafe { OwnedFd::from_raw_fd(fd) };
            let (request, _) = receive(client.as_fd()).unwrap().unwrap();
            let answer = match request {
                Message::Observe { .. } => Message::View { capacity: Capacity::DEFAULT },
                Message::Estop => Message::Done { trip: TripId(7) },
                Message::Reset { seen } if seen == SEVENTH => Message::Done { trip: TripId(7) },
                _ => Message::Refused("no motor is held by that trip".to_owned()),
            };
            let fds = [verdicts.as_fd()];
            let fds = if matches!(answer, Message::View { .. }) { &fds[..] } else { &[] };
            send(client.as_fd(), &answer, fds).unwrap();
        }
    });
}

fn lanyard(socket: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanyard"));
    command.arg("--socket").arg(socket).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn status_has_an_exit_code_for_scripts() {
    let folder = Folder::new("status");
    let (segment, fd) = verdicts();
    serve(&folder.socket(), fd, 3);
    let well = lanyard(&folder.socket(), &["status"]);
    assert_eq!(well.status.code(), Some(0), "{}", text(&well.stdout));
    assert!(text(&well.stdout).starts_with("supervisor ARMED   pid 42   "));
    segment.degraded(Degraded::Memory.number());
    let degraded = lanyard(&folder.socket(), &["status"]);
    assert_eq!(degraded.status.code(), Some(2));
    assert!(text(&degraded.stdout).contains("\n!! DEGRADED, memory not locked"));
    let json = lanyard(&folder.socket(), &["status", "--json"]);
    assert_eq!(json.status.code(), Some(2));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["degraded"][0], "memory not locked");
}

#[test]
fn a_stop_tells_its_trip_and_a_reset_wants_it() {
    let folder = Folder::new("estop");
    let (_segment, fd) = verdicts();
    serve(&folder.operator_socket(), fd.try_clone().unwrap(), 3);
    // Two: the stop, and a look whether it is on disk.
    serve(&folder.socket(), fd, 2);
    let stopped = lanyard(&folder.socket(), &["estop"]);
    assert_eq!(stopped.status.code(), Some(0));
    let said = text(&stopped.stdout);
    assert!(said.starts_with("trip 7: every motor was told to stop"), "{said}");
    assert!(said.contains("\nIt is on disk"), "{said}");
    assert!(said.ends_with("lanyard reset 7\n"), "{said}");
    let other = lanyard(&folder.socket(), &["reset", "6"]);
    assert_eq!(other.status.code(), Some(1));
    let said = text(&other.stderr);
    assert_eq!(
        said,
        "lanyard: trip 6 was not reset: the supervisor refused: no motor is held by that trip\n"
    );
    assert_eq!(lanyard(&folder.socket(), &["reset", "7"]).status.code(), Some(1), "it was violated since");
    assert_eq!(lanyard(&folder.socket(), &["reset", "7.2"]).status.code(), Some(0));
}

/// The supervisor's end of the FIFO beside the socket of [`Folder`].
fn fifo(folder: &Folder) -> File {
    let path = folder.0.join("supervisor.estop");
    mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

/// Fails if the command does not press, or believes a stop that is older than its own.
#[test]
fn a_stop_is_pressed_and_told_when_it_shows() {
    let folder = Folder::new("press");
    let (segment, fd) = verdicts();
    segment.latch(TripId(6));
    segment.pressed(Nanos::now());
    serve(&folder.socket(), fd, 8);
    let mut fifo = fifo(&folder);
    let supervisor = thread::spawn(move || {
        let mut byte = [0];
        fifo.read_exact(&mut byte).unwrap();
        thread::sleep(Duration::from_millis(200));
        segment.latch(TripId(8));
        segment.pressed(Nanos::now());
        segment
    });
    let stopped = lanyard(&folder.socket(), &["estop"]);
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    let said = text(&stopped.stdout);
    assert!(said.starts_with("trip 8: every motor was told to stop"), "{said}");
    assert!(said.contains("Every motor is proven to stand still."), "{said}");
    assert!(said.ends_with("lanyard reset 8\n"), "{said}");
    supervisor.join().unwrap();
}

/// Fails if a stop that nothing shows passes for one.
#[test]
fn a_stop_that_does_not_show_is_not_told() {
    let folder = Folder::new("unconfirmed");
    let (segment, fd) = verdicts();
    // Held by an earlier press.
    segment.latch(TripId(6));
    segment.pressed(Nanos::now());
    let _fifo = fifo(&folder);
    serve(&folder.socket(), fd, 16);
    let output = lanyard(&folder.socket(), &["estop"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.starts_with("lanyard: STOP WAS PRESSED AND IS NOT CONFIRMED, use the red button"), "{said}");
}

/// Fails if a script could give no password, or the password could be seen by who looks at its output.
#[test]
fn a_password_comes_from_standard_input() {
    let folder = Folder::new("password");
    std::fs::create_dir_all(&folder.0).unwrap();
    let file = folder.0.join("keys.toml");
    let add = |input: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lanyard"));
        command.arg("keys").arg("--file").arg(&file).args(["add", "ada", "--role", "operate", "--password"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, said) = add("short\n");
    assert_eq!((code, said.as_str()), (Some(1), "lanyard: a password has at least 8 characters\n"));
    assert!(!file.exists(), "a key was made of no password");
    let (code, said) = add("correct horse\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\n  user    ada\n") && !said.contains("correct horse"), "{said}");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("hash = \"$argon2id$v=19$") && !kept.contains("correct horse"), "{kept}");
}

#[test]
fn without_a_supervisor_every_command_fails_and_says_why() {
    let folder = Folder::new("nobody");
    let commands: [&[&str]; 6] = [
        &["status"],
        &["status", "--json"],
        &["status", "--watch"],
        &["estop"],
        &["reset", "1"],
        &["events"],
    ];
    for command in commands {
        let output = lanyard(&folder.socket(), command);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(text(&output.stderr).contains("does lanyard-supervisor run?"), "{command:?}");
        assert!(output.stdout.is_empty(), "{command:?}");
    }
    // A wrong command line is an error like any other, not "something is tripped".
    assert_eq!(lanyard(&folder.socket(), &["statu"]).status.code(), Some(1));
    assert_eq!(lanyard(&folder.socket(), &["--help"]).status.code(), Some(0));
}

#[test]
fn watching_into_a_pipe_ends_with_its_reader() {
    let folder = Folder::new("watch");
    let (_segment, fd) = verdicts();
    serve(&folder.socket(), fd, 1);
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanyard"));
    command.arg("--socket").arg(folder.socket()).args(["status", "--watch"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_configuration_is_checked_without_a_supervisor() {
    let folder = Folder::new("check");
    let file = folder.0.join("robot.toml");
    std::fs::write(&file, "[supervisor]\ntick = 5\n").unwrap();
    let output = lanyard(&folder.socket(), &["check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = text(&output.stderr);
    assert!(said.contains("robot.toml:2: [supervisor]: \"tick\" must be a text"), "{said}");
    assert_eq!(said.lines().count(), 3, "{said}");
}

#[test]
fn a_file_that_is_there_is_never_written_over() {
    let folder = Folder::new("import");
    let out = folder.0.join("lanyard.toml");
    let robot = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/import/pins.json");
    let import = || lanyard(&folder.socket(), &["import-viam", robot, "--out", out.to_str().unwrap()]);
    let first = import();
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    assert!(first.stdout.is_empty());
    assert!(text(&first.stderr).contains("viam-server must move"));
    std::fs::write(&out, "filled in by hand").unwrap();
    let second = import();
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("exists already"), "{}", text(&second.stderr));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "filled in by hand");
}
