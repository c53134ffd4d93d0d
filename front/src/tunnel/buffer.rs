//! Where a read or a datagram lies while it is passed on: one place for each thread, because it never waits there.

use std::cell::RefCell;

use tokio::io::ReadBuf;

/// As much as a burst of a thousand CAN frames takes, and more than the longest datagram: 65507 bytes over IPv4.
pub const LENGTH: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; LENGTH].into_boxed_slice());
}

/// Lends this thread's buffer. Not to be borrowed once more meanwhile.
///
/// # Panics
///
/// When it is.
pub fn with<T>(act: impl FnOnce(&mut ReadBuf<'_>) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| act(&mut ReadBuf::new(buffer)))
}
