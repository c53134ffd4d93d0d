//! A client's Stop: sent at once, and again after every call that went before it.
//!
//! It goes on whatever becomes of its client. The answer to the last message of it is its answer.

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Collected};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::{Code, Status};

use super::ask::{body_of, framed};
use super::turns::{Next, Stopping};

/// A whole answer.
pub struct Whole {
    parts: http::response::Parts,
    body: Collected<Bytes>,
}

impl Whole {
    /// Reads an answer to its end.
    ///
    /// # Errors
    ///
    /// When it breaks off.
    pub async fn read(answer: Response<Body>) -> Result<Self, Status> {
        let (parts, body) = answer.into_parts();
        Ok(Self { body: body.collect().await?, parts })
    }

    /// Why the server has not done it.
    fn refused(&self) -> Option<Status> {
        let status = Status::from_header_map(&self.parts.headers)
            .or_else(|| self.body.trailers().and_then(Status::from_header_map));
        status.filter(|status| status.code() != Code::Ok)
    }

    /// As it came.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        Response::from_parts(self.parts, Body::new(self.body))
    }
}

/// How a Stop went.
pub enum Outcome {
    /// The server has stopped what it was to stop. The answer.
    Stopped(Response<Body>),
    /// It has not, and says why. Its answer.
    Refused(Response<Body>),
    /// It was not heard to have done so.
    Failed(Status),
}

/// Sends a Stop as often as is needed, each time by `send`, and says how that went.
pub async fn carry_out<F>(mut stopping: Stopping, send: impl Fn() -> F) -> Outcome
where
    F: Future<Output = Result<Whole, Status>> + Send + 'static,
{
    let mut messages: Vec<JoinHandle<Result<Whole, Status>>> = Vec::new();
    while stopping.next().await == Next::Send {
        messages.push(tokio::spawn(send()));
    }
    let Some(last) = messages.pop() else {
        // What came after it was sent before it was looked at: that has taken its place.
        return Outcome::Stopped(done());
    };
    let answer = answer_of(last).await;
    let mut stopped_before = false;
    let mut open = answer.is_err();
    for message in messages {
        if message.is_finished() {
            stopped_before |= answer_of(message).await.is_ok_and(|answer| answer.refused().is_none());
        } else {
            // It must not be carried out when the next command has been.
            message.abort();
            open = true;
        }
    }
    if !open {
        stopping.answered();
    }
    let again = |why: Status| {
        if stopped_before {
            let told = format!(
                "the upstream has stopped, but did not do so again after the calls before this Stop had ended: {}",
                why.message()
            );
            Status::unavailable(told)
        } else {
            why
        }
    };
    match answer {
        Err(why) => Outcome::Failed(again(why)),
        Ok(answer) => match answer.refused() {
            None => Outcome::Stopped(answer.into_response()),
            Some(why) if stopped_before || why.code() == Code::Unavailable => Outcome::Failed(again(why)),
            Some(_) => Outcome::Refused(answer.into_response()),
        },
    }
}

async fn answer_of(message: JoinHandle<Result<Whole, Status>>) -> Result<Whole, Status> {
    message.await.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

/// What servers answer to a Stop that they have carried out: a message without fields.
fn done() -> Response<Body> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let body = body_of(framed(&[])).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    response
}
