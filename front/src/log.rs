//! The log: lines to stderr, written by a thread of their own.
//!
//! Whoever reads stderr may be stuck. A task that waited for it would take a thread of the runtime with
//! it, and soon the front's own beat; so lines are handed over without waiting, and lost when too many
//! wait already. The next line that gets through says how many.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

/// Lines that may wait: some seconds of a busy front.
const MOST_WAITING: usize = 4096;
/// How long the last lines are waited for when the program ends.
const LAST_LINES: Duration = Duration::from_millis(500);

enum Entry {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// The way to the writing thread.
#[derive(Clone)]
pub struct Log {
    entries: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Starts logging; how much is up to RUST_LOG.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn start() -> io::Result<Self> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let log = Self::to(io::stderr())?;
        let lines = log.clone();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(move || lines.clone())
            .init();
        Ok(log)
    }

    fn to(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (entries, waiting) = sync_channel(MOST_WAITING);
        let log = Self { entries, lost: Arc::default() };
        let lost = Arc::clone(&log.lost);
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&waiting, &lost, sink))?;
        Ok(log)
    }

    /// Waits a moment for the last lines.
    pub fn finish(&self) {
        let (written, done) = sync_channel(1);
        if self.entries.try_send(Entry::Flush(written)).is_ok() {
            // Nothing is left to do if they do not get through.
            let _ = done.recv_timeout(LAST_LINES);
        }
    }
}

fn write_all(entries: &Receiver<Entry>, lost: &AtomicU64, mut sink: impl Write) {
    while let Ok(entry) = entries.recv() {
        // A log that cannot be written has nowhere to say so.
        match entry {
            Entry::Line(line) => {
                let _ = sink.write_all(&line);
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _ = writeln!(sink, "lanyard-front: {lost} lines of the log were lost here");
                }
            }
            Entry::Flush(written) => {
                let _ = sink.flush();
                let _ = written.send(());
            }
        }
    }
}

impl Write for Log {
    /// Takes one line, which is how the formatter writes.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.entries.try_send(Entry::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Log, MOST_WAITING, Write};
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Writes nothing until it is let to.
    struct Stuck {
        gate: Option<Receiver<()>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if let Some(gate) = self.gate.take() {
                gate.recv().map_err(io::Error::other)?;
            }
            self.written.send(line.to_vec()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_no_time() {
        let (let_through, gate) = channel();
        let (written, pieces) = channel();
        let mut log = Log::to(Stuck { gate: Some(gate), written }).unwrap();
        for number in 0..MOST_WAITING + 10 {
            log.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        let_through.send(()).unwrap();
        // There is room again once what has waited is written.
        let newest_kept = format!("{}\n", MOST_WAITING - 1);
        let mut text = Vec::new();
        while !text.ends_with(newest_kept.as_bytes()) {
            text.extend(pieces.recv().unwrap());
        }
        log.write_all(b"last\n").unwrap();
        log.finish();
        text.extend(pieces.try_iter().flatten());
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("0\n"), "{}", &text[..40]);
        assert!(text.contains(" lines of the log were lost here\n"));
        assert!(text.ends_with("last\n"), "it goes on afterwards");
    }
}
