//! A connection's task that lets others write first.
//!
//! Calls that go out together share one write. Whatever wakes the connection, it comes last of all tasks that can
//! run: by then each of them has given it what it has, and the kernel, and the process at the other end, are
//! troubled once instead of once per call. A call that is alone waits for nobody.

use std::pin::Pin;
use std::task::{Context, Poll};

/// The task.
#[derive(Debug)]
pub struct Gathering<F> {
    inner: F,
    turn: Turn,
}

/// Whose turn it is.
#[derive(Debug)]
enum Turn {
    /// The others'.
    Others,
    /// Its own.
    Own,
}

impl<F> Gathering<F> {
    /// That task.
    pub const fn new(inner: F) -> Self {
        Self { inner, turn: Turn::Own }
    }
}

impl<F: Future + Unpin> Future for Gathering<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.turn {
            Turn::Others => {
                self.turn = Turn::Own;
                // Waking oneself while one runs queues one behind everybody else.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Turn::Own => {
                self.turn = Turn::Others;
                Pin::new(&mut self.inner).poll(cx)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// What tasks have written, and who is to send it.
    #[derive(Default)]
    struct Outbox {
        written: AtomicU32,
        sender: Notify,
        sent: Mutex<Vec<u32>>,
    }

    /// How much goes out at a time when eight tasks write, one after the other, on one thread of tokio's.
    fn sent_by<F: Future<Output = ()> + Send + 'static>(
        task: impl FnOnce(Pin<Box<dyn Future<Output = ()> + Send>>) -> F + Send + 'static,
    ) -> Vec<u32> {
        let outbox: &'static Outbox = Box::leak(Box::default());
        let sending = Box::pin(async {
            loop {
                outbox.sender.notified().await;
                outbox.sent.lock().unwrap().push(outbox.written.swap(0, Ordering::Relaxed));
            }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let all = async move {
            tokio::spawn(task(sending));
            tokio::task::yield_now().await;
            let write = || async {
                outbox.written.fetch_add(1, Ordering::Relaxed);
                outbox.sender.notify_one();
            };
            for _ in 0..8 {
                tokio::spawn(write());
            }
            while outbox.sent.lock().unwrap().iter().sum::<u32>() < 8 {
                tokio::task::yield_now().await;
            }
        };
        runtime.block_on(async { tokio::spawn(all).await.unwrap() });
        outbox.sent.lock().unwrap().clone()
    }

    #[test]
    fn what_is_written_together_goes_out_together() {
        // As tokio has it: who is woken runs next.
        let alone = sent_by(|sending| sending);
        assert!(alone.len() >= 4, "{alone:?}: there is nothing to be gained any more");
        let together = sent_by(Gathering::new);
        assert!(together.len() <= 2, "{together:?}");
    }
}
