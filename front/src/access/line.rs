//! One password at a time.
//!
//! Each takes a core for tens of milliseconds, tens of mebibytes, and the bandwidth of the memory, which the threads that
//! keep the heartbeats need, too. Whoever likes can send passwords: so one is looked at at once, some stand in line, and the
//! others are told to come again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Passwords in line, with the one that is being looked at: at a tenth of a second each the last is answered within the 3 s
/// after which Kinova's clients in C++ give up. Each keeps a thread waiting.
pub const LONGEST: usize = 16;

/// When whoever found the line full may come again: it is gone by then.
pub const AGAIN: Duration = Duration::from_secs(2);

/// Those whose password is to be looked at.
#[derive(Debug, Default)]
pub struct Line {
    length: AtomicUsize,
    turn: Mutex<()>,
}

/// A place in the line.
#[derive(Debug)]
pub struct Place<'a> {
    line: &'a Line,
}

impl Line {
    /// A place at its end; `None` when it is full.
    #[must_use]
    pub fn join(&self) -> Option<Place<'_>> {
        let longer = |length: usize| (length < LONGEST).then_some(length + 1);
        self.length.fetch_update(Ordering::Relaxed, Ordering::Relaxed, longer).ok()?;
        Some(Place { line: self })
    }

    /// Whether nobody else may join.
    #[cfg(test)]
    pub fn is_full(&self) -> bool {
        self.length.load(Ordering::Relaxed) == LONGEST
    }
}

impl Place<'_> {
    /// Waits until nobody else's password is looked at; until the guard is dropped nobody else's is.
    pub fn wait(&self) -> MutexGuard<'_, ()> {
        self.line.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.length.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn one_at_a_time_some_in_line_and_the_others_are_sent_away() {
        let (line, served) = (Line::default(), AtomicUsize::new(0));
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let first = line.join().unwrap();
        let turn = first.wait();
        thread::scope(|scope| {
            for _ in 1..LONGEST {
                let place = line.join().unwrap();
                let (served, inside, most) = (&served, &inside, &most);
                scope.spawn(move || {
                    let _turn = place.wait();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(1));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    served.fetch_add(1, Ordering::SeqCst);
                });
            }
            assert!(line.join().is_none(), "the line has no end");
            thread::sleep(Duration::from_millis(20));
            assert_eq!(served.load(Ordering::SeqCst), 0, "somebody did not wait");
            drop(turn);
        });
        assert_eq!((served.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (LONGEST - 1, 1));
        drop(first);
        assert_eq!((0..=LONGEST).map_while(|_| line.join().map(std::mem::forget)).count(), LONGEST);
    }
}
