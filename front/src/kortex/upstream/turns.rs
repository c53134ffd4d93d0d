//! Calls of one session go to the base in the order in which they came, though each is carried out beside the others.
//!
//! A call has its turn when every earlier one is on its way or given up. It does not wait for their answers, which may never
//! come. A Stop waits for nobody, and those that came after it wait for it as for any other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The calls of a session that are not on their way yet.
#[derive(Debug, Default)]
pub struct Turns {
    book: Mutex<Book>,
    passed: Notify,
}

#[derive(Debug, Default)]
struct Book {
    next: u64,
    waiting: BTreeSet<u64>,
}

/// A call's place among them, until this is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    number: u64,
}

impl Turns {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place behind all others.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Turn {
        let mut book = self.book();
        let number = book.next;
        book.next += 1;
        book.waiting.insert(number);
        Turn { turns: Arc::clone(self), number }
    }
}

impl Turn {
    /// Returns when nobody is before it.
    pub async fn come(&self) {
        loop {
            // Made before the look, so that none that passes meanwhile is missed.
            let passed = self.turns.passed.notified();
            if self.turns.book().waiting.first() == Some(&self.number) {
                return;
            }
            passed.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.book().waiting.remove(&self.number);
        self.turns.passed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn has_come(turn: &Turn) -> bool {
        timeout(Duration::from_millis(20), turn.come()).await.is_ok()
    }

    #[tokio::test]
    async fn a_turn_comes_when_all_before_it_are_over_in_whatever_order_those_end() {
        let turns = Arc::<Turns>::default();
        let [first, second, third] = std::array::from_fn(|_| turns.take());
        assert!(has_come(&first).await);
        // Given up before it had come.
        drop(second);
        assert!(!has_come(&third).await);
        let waiting = tokio::spawn(async move { third.come().await });
        tokio::task::yield_now().await;
        drop(first);
        timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    }
}
