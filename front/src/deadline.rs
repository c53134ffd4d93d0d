//! Deadlines of calls: the time that a client gives a call (`grpc-timeout`), kept here, too.
//!
//! A client resets a call whose time is over, but the reset may never arrive. So a call that waited for longer is refused
//! before it reaches a motor ([`crate::motion::Motion`] looks), and one that moves something for longer is ended as by a
//! reset. A stop is carried out whenever it comes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use shm_proto::Nanos;
use tonic::Status;
use tower::{Layer, Service};

use crate::order::Stamp;

/// The header that carries it.
const TIMEOUT: &str = "grpc-timeout";
/// Digits it may have, by the gRPC protocol over HTTP/2.
const MAX_DIGITS: usize = 8;
/// Methods that stop something.
const STOPS: [&str; 3] = ["Stop", "StopAll", "EmergencyStop"];

/// Ends calls when their time is over.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines;

impl<S> Layer<S> for Deadlines {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner }
    }
}

/// A service whose calls end when their time is over.
#[derive(Clone, Debug)]
pub struct Limited<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Limited<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
    R: Default + 'static,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(left) = left(&request) else { return Box::pin(self.inner.call(request)) };
        let call = self.inner.call(request);
        Box::pin(async move {
            // Without any time left it is for the call to say: speed 0 is carried out, a motion is refused.
            if left.is_zero() {
                return call.await;
            }
            match tokio::time::timeout(left, call).await {
                Ok(answered) => answered,
                Err(_) => Ok(over()),
            }
        })
    }
}

fn over<R: Default>() -> Response<R> {
    Status::deadline_exceeded(
        "the time that this call was given (grpc-timeout) is over; what it moved was stopped",
    )
    .into_http()
}

/// Says how long a call may still take; `None`: as long as it wants.
fn left<B>(request: &Request<B>) -> Option<Duration> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default();
    let deadline = request.extensions().get::<Stamp>().and_then(Stamp::deadline);
    let deadline = deadline.filter(|_| !STOPS.contains(&method))?;
    Some(Duration::from_nanos(deadline.since(Nanos::now())))
}

/// Reads when the time of a call is over that began to arrive at `began`.
pub fn of(headers: &HeaderMap, began: Nanos) -> Option<Nanos> {
    let timeout = timeout(headers)?;
    Some(began.after(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)))
}

/// Reads the time that a client gives a call. One that is written otherwise than the protocol has it is none.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number =
        (1..=MAX_DIGITS).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tokio::time::Instant;
    use tonic::Code;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    fn request(path: &'static str, timeout: &'static str) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = path.parse().unwrap();
        request.headers_mut().insert(TIMEOUT, HeaderValue::from_static(timeout));
        let stamp = Stamp::whole(request.headers());
        request.extensions_mut().insert(stamp);
        request
    }

    #[test]
    fn times_are_read_as_the_protocol_has_them() {
        for (text, expected) in [
            ("1H", Some(3_600_000_000_000)),
            ("2M", Some(120_000_000_000)),
            ("1S", Some(1_000_000_000)),
            ("250m", Some(250_000_000)),
            ("7u", Some(7_000)),
            ("99999999n", Some(99_999_999)),
            ("999999999n", None),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("+1S", None),
            ("1", None),
            ("1s", None),
            ("1é", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(timeout(&headers).map(|time| time.as_nanos()), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_call_ends_at_its_deadline_and_what_stops_has_none() {
        let slow = service_fn(|_: Request<()>| async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            Ok::<_, Infallible>(Response::new(()))
        });
        let begun = Instant::now();
        let moved = Deadlines.layer(slow).oneshot(request("/s/GoFor", "100m")).await.unwrap();
        let status = Status::from_header_map(moved.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(begun.elapsed() >= Duration::from_millis(100), "it ended before its time");
        let stopped = Deadlines.layer(slow).oneshot(request("/s/Stop", "100m")).await.unwrap();
        assert!(Status::from_header_map(stopped.headers()).is_none(), "it was carried out");
    }

    #[tokio::test]
    async fn a_call_that_waited_for_longer_than_its_time_is_told_so() {
        let late = request("/s/SetPower", "1m");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(left(&late), Some(Duration::ZERO));
        let looks = service_fn(|request: Request<()>| async move {
            let deadline = request.extensions().get::<Stamp>().and_then(Stamp::deadline);
            assert!(deadline.is_some_and(|deadline| deadline <= Nanos::now()));
            Ok::<_, Infallible>(Response::new(()))
        });
        Deadlines.layer(looks).oneshot(late).await.unwrap();
    }
}
