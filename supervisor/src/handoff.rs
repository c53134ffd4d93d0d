//! One value at a time from a thread that may wait to another: what to write, and what became of it.
//!
//! A channel of the standard library does the same and more; five of them are a twentieth of the program, all of which is
//! locked in memory. The real-time thread must never use this one: it locks.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The place for one value, empty.
pub fn handoff<T>() -> (Giver<T>, Taker<T>) {
    let shared = Arc::new(Shared {
        place: Mutex::new(Place { value: None, giver: Side::There }),
        changed: Condvar::new(),
    });
    (Giver(Arc::clone(&shared)), Taker(shared))
}

/// The side that gives.
#[derive(Debug)]
pub struct Giver<T>(Arc<Shared<T>>);

/// The side that takes.
#[derive(Debug)]
pub struct Taker<T>(Arc<Shared<T>>);

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited<T> {
    /// A value.
    Value(T),
    /// Nothing yet.
    Nothing,
    /// Nothing, and nothing will come: the other side is gone.
    Gone,
}

#[derive(Debug)]
struct Shared<T> {
    place: Mutex<Place<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Place<T> {
    value: Option<T>,
    giver: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    There,
    Gone,
}

impl<T> Place<T> {
    /// Whether there is nothing yet, and something may come. By `&mut`, as a condition variable asks.
    fn is_awaited(&mut self) -> bool {
        self.value.is_none() && self.giver == Side::There
    }
}

impl<T> Shared<T> {
    /// A thread that panicked with the lock in hand has left a whole value or none.
    fn lock(&self) -> MutexGuard<'_, Place<T>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Giver<T> {
    /// Puts a value there, in place of one that was not taken.
    pub fn give(&self, value: T) {
        self.0.lock().value = Some(value);
        self.0.changed.notify_one();
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        self.0.lock().giver = Side::Gone;
        self.0.changed.notify_one();
    }
}

impl<T> Taker<T> {
    /// Waits for a value; `None` once none will come.
    pub fn wait(&self) -> Option<T> {
        let place = self.0.changed.wait_while(self.0.lock(), Place::is_awaited);
        place.unwrap_or_else(PoisonError::into_inner).value.take()
    }

    /// Waits for a value for that time at most.
    pub fn wait_for(&self, patience: Duration) -> Waited<T> {
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), patience, Place::is_awaited);
        let mut place = waited.unwrap_or_else(PoisonError::into_inner).0;
        match (place.value.take(), place.giver) {
            (Some(value), _) => Waited::Value(value),
            (None, Side::There) => Waited::Nothing,
            (None, Side::Gone) => Waited::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::{Waited, handoff};

    #[test]
    fn a_value_is_taken_once_and_the_last_one_also_after_its_giver() {
        let (giver, taker) = handoff();
        assert_eq!(taker.wait_for(Duration::ZERO), Waited::Nothing);
        giver.give(1);
        giver.give(2);
        assert_eq!(taker.wait_for(Duration::ZERO), Waited::Value(2));
        assert_eq!(taker.wait_for(Duration::from_millis(1)), Waited::Nothing);
        giver.give(3);
        drop(giver);
        assert_eq!(taker.wait(), Some(3));
        assert_eq!((taker.wait(), taker.wait_for(Duration::ZERO)), (None, Waited::Gone));
    }

    #[test]
    fn whoever_waits_is_woken_by_a_value_and_by_the_end() {
        let ((questions, asked), (answers, answered)) = (handoff::<u32>(), handoff());
        let other = thread::spawn(move || {
            while let Some(question) = asked.wait() {
                answers.give(question + 1);
            }
        });
        for question in 0..1000 {
            questions.give(question);
            assert_eq!(answered.wait_for(Duration::from_secs(60)), Waited::Value(question + 1));
        }
        drop(questions);
        other.join().unwrap();
        assert_eq!(answered.wait(), None);
    }
}
