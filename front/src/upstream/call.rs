//! One call through to the upstream and back: headers, message bytes and trailers as they are.
//!
//! Nothing is decoded. Deadlines, compression and sizes are between client and upstream. When either side takes
//! the call back, the other learns it at once; when the call must end for a reason of ours, the client gets that
//! reason and the upstream a reset.
//!
//! A call is given to `h2` only when the upstream has room for it and, a command, when its turn has come: what `h2` has
//! taken it sends, whatever happens meanwhile.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderName};
use http::{Request, Response, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tonic::Status;
use tonic::body::Body;

use super::lane::{Lane, Slot};
use super::peek::Replayed;
use super::route::Route;
use super::streams::Stream;
use super::turns::Place;

/// How long a client may leave its answer unread before the call is given up: as much of the upstream as it
/// occupies is meant for somebody who listens.
pub const UNREAD: Duration = Duration::from_secs(30);

/// How much of a call is sent whether the upstream has room for it or not.
const SHORT: usize = 16 * 1024;
/// How much of an answer is read before its client asks for it.
const READ_AHEAD: usize = 64 * 1024;

/// Resolves when a call must end, with what its client is to be told.
pub type Over = Pin<Box<dyn Future<Output = Status> + Send>>;

/// Headers that are about one connection only.
pub const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What a call depends on beside its client and the upstream.
#[derive(Default)]
pub struct Terms {
    /// When it must end.
    pub over: Option<Over>,
    /// Its place in the order, where it moves something.
    pub place: Option<Place>,
}

/// Passes a call on and returns the answer. A call that cannot be passed on is answered with the reason.
pub async fn pass_on(
    lane: &Lane,
    request: Request<Replayed>,
    terms: Terms,
    unread: Duration,
) -> Response<Body> {
    passed_on(lane, request, terms, unread).await.unwrap_or_else(Status::into_http)
}

async fn passed_on(
    lane: &Lane,
    request: Request<Replayed>,
    terms: Terms,
    unread: Duration,
) -> Result<Response<Body>, Status> {
    let Terms { mut over, mut place } = terms;
    let (parts, mut body) = request.into_parts();
    let outgoing = outgoing(parts, &lane.route);
    let whole = body.is_end_stream();
    let kept = (!whole).then(|| body.keep(SHORT));
    let mut fresh = true;
    let (answer, leash, sending, stream) = loop {
        let Slot { mut sender, stream } = tokio::select! {
            biased;
            why = settled(&mut over) => return Err(why),
            slot = slot(lane, &mut place) => slot?,
        };
        // From here to the end of sending nothing is waited for: the order was decided a moment ago.
        let (mut answer, to) = sender.send_request(outgoing.clone(), whole).map_err(|error| {
            not_sent(&mut place);
            refusal(lane, &error)
        })?;
        let leash = Arc::new(Leash { stream: Mutex::new(to), verdict: OnceLock::new() });
        let mut sending = (!whole).then(|| sending(body, Arc::clone(&leash)));
        let answered = loop {
            tokio::select! {
                biased;
                why = settled(&mut over) => {
                    leash.cut(why.clone());
                    return Err(why);
                }
                () = settled(&mut sending) => sending = None,
                answer = &mut answer => break answer,
            }
        };
        let error = match answered {
            Ok(answer) => break (answer, leash, sending, stream),
            Err(error) => error,
        };
        if !is_untouched(&error) {
            return Err(refusal(lane, &error));
        }
        // The upstream has not begun with it: it may be sent again.
        not_sent(&mut place);
        let again = match &kept {
            None => Some(Replayed::untouched(Body::empty())),
            Some(kept) => kept.again(),
        };
        match again.filter(|_| fresh && error.is_go_away()) {
            Some(again) => body = again,
            None => return Err(refusal(lane, &error)),
        }
        fresh = false;
    };
    let (parts, received) = answer.into_parts();
    if received.is_end_stream() {
        if let Some(place) = &mut place {
            place.answered();
        }
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    let mut answer = Answer {
        received,
        stage: Stage::Messages,
        ahead: VecDeque::new(),
        leash,
        pace: Arc::default(),
        attendant: None,
        lane: lane.clone(),
        under_way: Some((stream, place)),
    };
    // Most answers are all there by now, and need nobody to look after them.
    std::future::poll_fn(|cx| {
        answer.read_ahead(cx);
        Poll::Ready(())
    })
    .await;
    if answer.stage != Stage::Done {
        let (leash, pace) = (Arc::clone(&answer.leash), Arc::clone(&answer.pace));
        answer.attendant = Some(tokio::spawn(attend(leash, sending, over, pace, unread)).abort_handle());
    }
    Ok(Response::from_parts(parts, Body::new(answer)))
}

/// Room for a call, and its turn.
async fn slot(lane: &Lane, place: &mut Option<Place>) -> Result<Slot, Status> {
    let Some(place) = place else { return lane.slot().await };
    // What came in the same moment, and before or after it, is looked at first.
    tokio::task::yield_now().await;
    loop {
        place.turn().await?;
        let slot = tokio::select! {
            slot = lane.slot() => slot?,
            why = place.voided() => return Err(why),
        };
        if place.leave()? {
            return Ok(slot);
        }
    }
}

fn not_sent(place: &mut Option<Place>) {
    if let Some(place) = place {
        place.not_sent();
    }
}

/// Whether the upstream says that it has not begun with a call: it has said goodbye to the connection before, or
/// refuses the call itself.
fn is_untouched(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (error.is_go_away() || refused)
}

/// The future's value if there is a future.
async fn settled<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// The request as it goes on: to the same path of another server, without what was about the first connection.
fn outgoing(mut parts: http::request::Parts, route: &Route) -> Request<()> {
    let host = || parts.headers.get(header::HOST)?.to_str().ok()?.parse().ok();
    let authority = parts.uri.authority().cloned().or_else(host).unwrap_or_else(|| route.authority.clone());
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(route.scheme());
    uri.authority = Some(authority);
    uri.path_and_query =
        parts.uri.path_and_query().cloned().or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
    // All three are there, so this is a URI.
    parts.uri = Uri::from_parts(uri).unwrap_or_default();
    for name in HOP_BY_HOP {
        parts.headers.remove(name);
    }
    parts.headers.remove(header::HOST);
    if parts.version < Version::HTTP_2 {
        // A body that was translated on its way (gRPC-web) has another length.
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.insert(header::TE, http::HeaderValue::from_static("trailers"));
    }
    let mut request = Request::new(());
    *request.method_mut() = parts.method;
    *request.uri_mut() = parts.uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = parts.headers;
    request
}

/// What a client is told when its call has failed on the way.
fn refusal(lane: &Lane, error: &h2::Error) -> Status {
    if !error.is_reset() {
        let why = lane.is_open().err();
        return match why {
            Some(why) => Status::unavailable(&*why),
            None => Status::unavailable(format!("the upstream {} is lost: {error}", lane.route.shown)),
        };
    }
    let told = format!("the upstream {} has reset the call: {error}", lane.route.shown);
    // As gRPC maps them.
    match error.reason() {
        Some(Reason::CANCEL) => Status::cancelled(told),
        Some(Reason::REFUSED_STREAM) => Status::unavailable(told),
        Some(Reason::ENHANCE_YOUR_CALM) => Status::resource_exhausted(told),
        Some(Reason::INADEQUATE_SECURITY) => Status::permission_denied(told),
        _ => Status::internal(told),
    }
}

/// The way to end a call from outside.
struct Leash {
    stream: Mutex<SendStream<Bytes>>,
    /// Why it was ended.
    verdict: OnceLock<Status>,
}

impl Leash {
    fn stream(&self) -> MutexGuard<'_, SendStream<Bytes>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, why: Status) {
        if self.verdict.set(why).is_ok() {
            self.stream().send_reset(Reason::CANCEL);
        }
    }
}

/// Sends a request's messages, as fast as the upstream takes them.
fn sending(body: Replayed, leash: Arc<Leash>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        if let Err(why) = send(body, &leash).await {
            leash.cut(why);
        }
    })
}

/// Ends early, and without an error, when the upstream wants no more.
async fn send(mut body: Replayed, leash: &Leash) -> Result<(), Status> {
    let mut unasked = SHORT;
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                let last = body.is_end_stream();
                // A call's beginning waits for no room: it goes out with its headers, and is all of most calls.
                let sent = if data.len() <= unasked {
                    unasked -= data.len();
                    leash.stream().send_data(data, last)
                } else {
                    send_data(data, last, leash).await
                };
                if sent.is_err() || last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    // Fails when the upstream has ended the call, which its answer tells.
                    drop(leash.stream().send_trailers(trailers));
                    return Ok(());
                }
            }
        }
    }
    drop(leash.stream().send_data(Bytes::new(), true));
    Ok(())
}

async fn send_data(mut data: Bytes, last: bool, leash: &Leash) -> Result<(), h2::Error> {
    if data.is_empty() {
        return if last { leash.stream().send_data(data, true) } else { Ok(()) };
    }
    while !data.is_empty() {
        leash.stream().reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| {
            let mut stream = leash.stream();
            loop {
                let room = stream.capacity();
                if room > 0 {
                    return Poll::Ready(Ok(room));
                }
                match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Err(Reason::CANCEL.into())),
                }
            }
        });
        let piece = data.split_to(room.await?.min(data.len()));
        let end = last && data.is_empty();
        leash.stream().send_data(piece, end)?;
    }
    Ok(())
}

/// Whether the client reads its answer.
#[derive(Debug, Default)]
struct Pace {
    /// How often it asked for more.
    asked: AtomicU64,
    /// It has all there is, and waits for more.
    waits: AtomicBool,
}

/// Looks after a call whose answer has begun: sends the rest of its messages, and ends it when it must end.
async fn attend(
    leash: Arc<Leash>,
    mut sending: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    mut over: Option<Over>,
    pace: Arc<Pace>,
    unread: Duration,
) {
    let mut asked = None;
    let mut look = Box::pin(sleep(unread));
    loop {
        tokio::select! {
            biased;
            why = settled(&mut over) => return leash.cut(why),
            () = settled(&mut sending) => sending = None,
            () = &mut look => {
                let now = pace.asked.load(Ordering::Relaxed);
                if !pace.waits.load(Ordering::Relaxed) && asked == Some(now) {
                    return leash.cut(Status::resource_exhausted(format!(
                        "the answer was left unread for {} s", unread.as_secs()
                    )));
                }
                asked = Some(now);
                look.set(sleep(unread));
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Messages,
    Trailers,
    Done,
}

/// The upstream's messages and trailers on their way to the client.
struct Answer {
    received: RecvStream,
    /// How far it was read.
    stage: Stage,
    /// What was read and has not gone on.
    ahead: VecDeque<Result<Frame<Bytes>, Status>>,
    leash: Arc<Leash>,
    pace: Arc<Pace>,
    attendant: Option<AbortHandle>,
    lane: Lane,
    /// Until the upstream has ended the call.
    under_way: Option<(Stream, Option<Place>)>,
}

impl Answer {
    /// Reads what is there, up to the end of a short answer.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        let mut room = READ_AHEAD;
        while room > 0 && self.stage != Stage::Done {
            let Poll::Ready(Some(frame)) = self.poll(cx) else { return };
            let length = frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
            room = room.saturating_sub(length);
            self.ahead.push_back(frame);
        }
    }

    /// What the client gets instead of the rest.
    fn broken(&mut self, error: h2::Error) -> Option<Result<Frame<Bytes>, Status>> {
        self.stage = Stage::Done;
        self.under_way = None;
        let status = match self.leash.verdict.get() {
            Some(verdict) => verdict.clone(),
            // The client gets the upstream's reset as it is.
            None if error.is_reset() => {
                let mut status = refusal(&self.lane, &error);
                status.set_source(Arc::new(error));
                return Some(Err(status));
            }
            None => refusal(&self.lane, &error),
        };
        let mut trailers = HeaderMap::new();
        Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.stage == Stage::Messages {
            match ready!(self.received.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only for more than was received.
                    drop(self.received.flow_control().release_capacity(data.len()));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(self.broken(error)),
                None => self.stage = Stage::Trailers,
            }
        }
        if self.stage == Stage::Trailers {
            let trailers = ready!(self.received.poll_trailers(cx));
            return Poll::Ready(match trailers {
                Ok(trailers) => {
                    self.stage = Stage::Done;
                    if let Some((_, Some(mut place))) = self.under_way.take() {
                        place.answered();
                    }
                    trailers.map(|trailers| Ok(Frame::trailers(trailers)))
                }
                Err(error) => self.broken(error),
            });
        }
        Poll::Ready(None)
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = self.ahead.pop_front() {
            return Poll::Ready(Some(frame));
        }
        self.pace.asked.fetch_add(1, Ordering::Relaxed);
        let polled = self.poll(cx);
        self.pace.waits.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Done && self.ahead.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(attendant) = &self.attendant {
            attendant.abort();
        }
        if self.stage != Stage::Done {
            self.leash.stream().send_reset(Reason::CANCEL);
        }
    }
}
