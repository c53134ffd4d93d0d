//! HTTP requests get their numbers where a connection's requests come in: in the connection's own task, before a task of
//! their own exists.
//!
//! A request is looked at once while its number is taken. Most are whole by then, because their head and their body came
//! in one read. Of the others the end gets a number of its own, when it is read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use shm_proto::Nanos;
use tonic::body::Body;

use super::arrival::Arrival;
use crate::deadline;

/// Frames that are taken of a body while its number is taken: the one message of a call, and its end.
const FRAMES_AT_ONCE: usize = 4;

/// The arrival of a request's beginning, and of its end once that has come; part of the request's extensions.
#[derive(Clone, Debug)]
pub struct Stamp {
    began: Arrival,
    end: End,
    /// When the time is over that its client gave it.
    deadline: Option<Nanos>,
}

/// The arrival of a request's end.
#[derive(Clone, Debug)]
enum End {
    /// It came with the beginning.
    WithTheBeginning,
    /// It is noted when the body is read to its end.
    Noted(Arc<OnceLock<Arrival>>),
}

impl Stamp {
    /// The arrival of its first bytes.
    #[must_use]
    pub const fn began(&self) -> Arrival {
        self.began
    }

    /// The arrival of its last bytes. One whose end was not read is as late as can be: now.
    #[must_use]
    pub fn complete(&self) -> Arrival {
        match &self.end {
            End::WithTheBeginning => self.began,
            End::Noted(end) => end.get().copied().unwrap_or_else(Arrival::now),
        }
    }

    /// When the time is over that its client gave it, if it gave one.
    #[must_use]
    pub const fn deadline(&self) -> Option<Nanos> {
        self.deadline
    }

    fn new(began: Arrival, end: End, headers: &HeaderMap) -> Self {
        Self { began, end, deadline: deadline::of(headers, began.at()) }
    }

    /// Makes the stamp of a request that has come in whole, for tests without a transport.
    #[cfg(test)]
    #[must_use]
    pub fn whole(headers: &HeaderMap) -> Self {
        Self::new(Arrival::now(), End::WithTheBeginning, headers)
    }
}

/// Gives a request its number. To be called in the task of its connection, in the order in which requests come in.
#[must_use]
pub fn stamped(request: Request<Incoming>) -> Request<Body> {
    let began = Arrival::now();
    // Over HTTP/1 nothing of the body can have come yet, and the next request is read only when this one was answered.
    let is_alone = request.version() < Version::HTTP_2;
    let (mut parts, mut rest) = request.into_parts();
    let ready = if is_alone { VecDeque::new() } else { take_ready(&mut rest) };
    let (end, noted) = if rest.is_end_stream() {
        (End::WithTheBeginning, None)
    } else {
        let noted = Arc::new(OnceLock::new());
        (End::Noted(Arc::clone(&noted)), Some(noted))
    };
    let stamp = Stamp::new(began, end, &parts.headers);
    parts.extensions.insert(stamp);
    Request::from_parts(parts, Body::new(Taken { ready, rest, noted }))
}

/// Takes what of a body has come already. Its later reader registers itself.
fn take_ready(body: &mut Incoming) -> VecDeque<Result<Frame<Bytes>, hyper::Error>> {
    let mut ready = VecDeque::new();
    let mut context = Context::from_waker(Waker::noop());
    while ready.len() < FRAMES_AT_ONCE && !body.is_end_stream() {
        match Pin::new(&mut *body).poll_frame(&mut context) {
            Poll::Ready(Some(frame)) => ready.push_back(frame),
            Poll::Ready(None) | Poll::Pending => break,
        }
    }
    ready
}

/// A body of which the beginning was taken already.
struct Taken {
    ready: VecDeque<Result<Frame<Bytes>, hyper::Error>>,
    rest: Incoming,
    /// Where the arrival of the end is noted, if that has not come.
    noted: Option<Arc<OnceLock<Arrival>>>,
}

impl Taken {
    fn note_end(&mut self) {
        if let Some(noted) = self.noted.take() {
            // It is set here only.
            let _ = noted.set(Arrival::now());
        }
    }
}

impl http_body::Body for Taken {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(frame) = self.ready.pop_front() {
            return Poll::Ready(Some(frame));
        }
        let polled = Pin::new(&mut self.rest).poll_frame(cx);
        if self.rest.is_end_stream() || matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.note_end();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ready.is_empty() { self.rest.size_hint() } else { SizeHint::default() }
    }
}
