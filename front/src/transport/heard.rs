//! A byte stream that tells when something came: from a client, or from a server behind.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;

/// Who is told that bytes have come.
pub trait Listener {
    /// Bytes have come.
    fn heard(&self);
}

impl Listener for Arc<Connection> {
    fn heard(&self) {
        self.note_heard();
    }
}

/// Counts how often.
impl Listener for Arc<AtomicU64> {
    fn heard(&self) {
        self.fetch_add(1, Ordering::Relaxed);
    }
}

/// The stream.
#[derive(Debug)]
pub struct Heard<S, L> {
    stream: S,
    listener: L,
}

impl<S, L> Heard<S, L> {
    /// Tells that listener.
    #[must_use]
    pub const fn new(stream: S, listener: L) -> Self {
        Self { stream, listener }
    }

    /// Who is told.
    pub const fn listener(&self) -> &L {
        &self.listener
    }
}

impl<S: AsyncRead + Unpin, L: Listener + Unpin> AsyncRead for Heard<S, L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.listener.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin, L: Unpin> AsyncWrite for Heard<S, L> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
