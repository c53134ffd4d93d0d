//! Lines on standard error, for the journal. Never from the real-time thread.
//!
//! Whatever reads them may stand still: a journal that hangs, a full disk, a terminal that was stopped. An operator's stop
//! must not wait for it. So a line that cannot be written at once is dropped and counted, and the count is told before the
//! next line that can be written.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::time::TimeSpec;
use nix::unistd::write;

/// Bytes of a line, at most. A pipe that can be written at all takes that many at once (PIPE_BUF).
const LINE_BYTES: usize = 4096;

/// Writes one line, or counts it as lost. A closed standard error is no reason to stop.
pub fn line(text: &str) {
    static LINES: Mutex<Lines> = Mutex::new(Lines { lost: 0, cut: Cut::No });
    // Held only for writes that do not wait.
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.write(io::stderr().as_fd(), text);
}

/// Whether the last line was written without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    No,
    Yes,
}

/// What is known of the lines that were written before.
#[derive(Debug)]
struct Lines {
    lost: u64,
    cut: Cut,
}

impl Lines {
    fn write(&mut self, to: BorrowedFd<'_>, text: &str) {
        if self.lost > 0 {
            let lost = format!("{} lines of this log are lost: nothing read them in time", self.lost);
            if !self.try_one(to, &lost) {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if !self.try_one(to, text) {
            self.lost += 1;
        }
    }

    /// Writes one line if that needs no waiting. Says whether it did.
    fn try_one(&mut self, to: BorrowedFd<'_>, text: &str) -> bool {
        let before = if self.cut == Cut::Yes { "\n" } else { "" };
        let mut whole = format!("{before}lanyard-supervisor: {text}");
        whole.truncate(whole.floor_char_boundary(LINE_BYTES - 1));
        whole.push('\n');
        match write_at_once(to, whole.as_bytes()) {
            Ok(count) => {
                self.cut = if count < whole.len() { Cut::Yes } else { Cut::No };
                true
            }
            // Nobody will ever read it, and waiting for a reader would not help.
            Err(Errno::EPIPE | Errno::EBADF | Errno::EIO | Errno::ENOSPC) => true,
            Err(_) => false,
        }
    }
}

/// Writes what fits without waiting.
fn write_at_once(to: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    // The journal is a socket, whose room may be less than a line.
    match send(to.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
        Err(Errno::ENOTSOCK) => {}
        done => return done,
    }
    let mut ready = [PollFd::new(to, PollFlags::POLLOUT)];
    let at_once = TimeSpec::from_duration(Duration::ZERO);
    if ppoll(&mut ready, Some(at_once), None)? == 0 {
        return Err(Errno::EAGAIN);
    }
    write(to, bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use nix::unistd::pipe;

    use super::{Cut, Lines};

    /// A write that waits for its reader would wait for ever.
    const SOON: Duration = Duration::from_secs(20);

    fn fill(lines: &mut Lines, to: &OwnedFd) {
        let began = Instant::now();
        while lines.lost < 10 {
            lines.write(to.as_fd(), &"x".repeat(300));
            assert!(began.elapsed() < SOON, "it never gets full");
        }
        assert!(began.elapsed() < SOON, "a line was waited for");
    }

    fn read_all(mut from: impl Read, until: &str) -> String {
        let mut text = String::new();
        let mut bytes = [0; 65_536];
        while !text.contains(until) {
            let count = from.read(&mut bytes).unwrap();
            assert!(count > 0, "closed before {until:?} came: {text}");
            text += std::str::from_utf8(&bytes[..count]).unwrap();
        }
        text
    }

    #[test]
    fn a_log_that_nothing_reads_keeps_nobody_waiting_and_tells_what_it_lost() {
        let (pipe_reader, pipe_writer) = pipe().unwrap();
        let (socket_reader, socket_writer) = UnixStream::pair().unwrap();
        let ends = [(pipe_reader, pipe_writer), (socket_reader.into(), socket_writer.into())];
        for (reader, writer) in ends {
            let mut lines = Lines { lost: 0, cut: Cut::No };
            fill(&mut lines, &writer);
            let mut reader = std::fs::File::from(reader);
            // Room again.
            let _ = reader.read(&mut [0; 65_536]).unwrap();
            lines.write(writer.as_fd(), "after");
            let text = read_all(reader, "lanyard-supervisor: after\n");
            let told: Vec<&str> = text.lines().filter(|line| line.contains("lost")).collect();
            assert_eq!(
                told,
                ["lanyard-supervisor: 10 lines of this log are lost: nothing read them in time"]
            );
            assert_eq!(lines.lost, 0);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_at_a_character() {
        let (reader, writer) = pipe().unwrap();
        let mut lines = Lines { lost: 0, cut: Cut::No };
        lines.write(writer.as_fd(), &"\u{e4}".repeat(4_000));
        lines.write(writer.as_fd(), "next");
        let text = read_all(std::fs::File::from(reader), "next\n");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_log_whose_reader_is_gone_is_no_loss() {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let mut lines = Lines { lost: 0, cut: Cut::No };
        lines.write(OwnedFd::from(writer).as_fd(), "to nobody");
        assert_eq!(lines.lost, 0);
    }
}
