//! Which calls the front answers itself, and which go to the server behind it.
//!
//! Without such a server all are its own. With one its own are: sessions, its motors and bases, and what it would not
//! have another one answer; the stop of everything goes both ways at once, and what is asked about the robot as a whole
//! has an answer from both.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service;

use crate::upstream::{self, Call, Question, Replayed, Upstream};
use crate::viam::Operations;

/// Largest request of a call that goes both ways: names and a free-form part.
const MOST_BYTES: usize = 4 << 20;

/// The server behind and what is ours beside it.
pub struct Behind {
    /// The server.
    pub upstream: Arc<Upstream>,
    /// The keys of the front's own resources.
    pub native: HashSet<String>,
    /// The calls under way here.
    pub operations: Arc<Operations>,
}

/// Sends each call where it belongs.
#[derive(Clone)]
pub struct Dispatch {
    own: Routes,
    behind: Option<Arc<Behind>>,
}

/// Where a call belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To the front.
    Own,
    /// To the server behind.
    Upstream,
    /// That depends, or to both.
    Shared(Shared),
}

/// What both sides have a part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shared {
    /// To the front, when it has the operation of that id.
    Operation,
    /// To both, and both answer.
    Both(Question),
    /// To both at once.
    StopAll,
    /// To whoever has the resource.
    Resource(Call),
}

impl Place {
    fn of(path: &str) -> Self {
        if let Some(question) = Question::of(path) {
            return Self::Shared(Shared::Both(question));
        }
        if let Some(method) = path.strip_prefix("/viam.robot.v1.RobotService/") {
            return match method {
                "StartSession" | "SendSessionHeartbeat" | "GetSessions" => Self::Own,
                "StopAll" => Self::Shared(Shared::StopAll),
                "CancelOperation" | "BlockForOperation" => Self::Shared(Shared::Operation),
                _ => Self::Upstream,
            };
        }
        if path.starts_with("/proto.rpc.webrtc.v1.SignalingService/") || path.starts_with("/lanyard.") {
            return Self::Own;
        }
        match upstream::call(path) {
            Call::Foreign => Self::Upstream,
            call => Self::Shared(Shared::Resource(call)),
        }
    }
}

impl Dispatch {
    /// Everything to the front's own services, but for what belongs to the server behind.
    #[must_use]
    pub const fn new(own: Routes, behind: Option<Arc<Behind>>) -> Self {
        Self { own, behind }
    }
}

impl Service<Request<Body>> for Dispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.own, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let place = match &self.behind {
            None => Place::Own,
            Some(_) => Place::of(request.uri().path()),
        };
        match (&self.behind, place) {
            (None, _) | (_, Place::Own) => Box::pin(self.own.call(request)),
            (Some(behind), Place::Upstream) => {
                let upstream = Arc::clone(&behind.upstream);
                Box::pin(async move { Ok(upstream.pass(request.map(Replayed::untouched)).await) })
            }
            (Some(behind), Place::Shared(shared)) => {
                let (behind, own) = (Arc::clone(behind), self.own.clone());
                Box::pin(async move { Ok(behind.answer(shared, own, request).await) })
            }
        }
    }
}

impl Behind {
    async fn answer(&self, shared: Shared, own: Routes, request: Request<Body>) -> Response<Body> {
        let answer = match shared {
            Shared::Operation => self.operation(own, request).await,
            Shared::Both(question) => self.both(question, own, request).await,
            Shared::StopAll => self.stop_all(own, request).await,
            Shared::Resource(call) => self.resource(call, own, request).await,
        };
        answer.unwrap_or_else(Status::into_http)
    }

    async fn resource(
        &self,
        call: Call,
        own: Routes,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let component = match call {
            Call::Monitored(component) | Call::Stop(component) | Call::Other(component) => component,
            Call::Foreign => return Ok(self.upstream.pass(request.map(Replayed::untouched)).await),
        };
        let of_a_kind = |key: &String| key.split_once('/').is_some_and(|(kind, _)| kind == component.kind);
        if let Call::Other(_) = call
            && !self.native.iter().any(of_a_kind)
        {
            return Ok(self.upstream.pass(request.map(Replayed::untouched)).await);
        }
        let (name, request) = named(request).await?;
        if self.native.contains(&crate::viam::resources::key(component.kind, &name)) {
            return Ok(at_home(own, request.map(Body::new)).await);
        }
        Ok(match call {
            Call::Monitored(_) => self.upstream.command(component, &name, request).await,
            Call::Stop(_) => self.upstream.stop(component, &name, request).await?,
            Call::Other(_) | Call::Foreign => self.upstream.pass(request).await,
        })
    }

    async fn operation(&self, own: Routes, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (id, request) = named(request).await?;
        if self.operations.runs(&id) {
            Ok(at_home(own, request.map(Body::new)).await)
        } else {
            Ok(self.upstream.pass(request).await)
        }
    }

    async fn both(
        &self,
        question: Question,
        own: Routes,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let path = request.uri().path().to_owned();
        let headers = request.headers().clone();
        let (ours, trailers) = upstream::message_of(at_home(own, request).await).await?;
        let merged = self.upstream.merged(question, &path, &headers, &ours).await;
        Ok(answer_of(&merged, trailers))
    }

    /// The motors of this robot do not wait for the server behind, nor the other way round.
    async fn stop_all(&self, own: Routes, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let whole = Limited::new(body, MOST_BYTES).collect().await;
        let bytes = whole.map_err(|error| Status::resource_exhausted(error.to_string()))?.to_bytes();
        let ours = Request::from_parts(parts.clone(), upstream::body_of(bytes.clone()));
        let (ours, theirs) =
            tokio::join!(async { upstream::message_of(at_home(own, ours).await).await }, async {
                upstream::message_of(self.upstream.stop_all(parts, bytes).await?).await
            },);
        let done = "the motors that Lanyard drives itself, and those it knows of, were told to stop over CAN";
        match (ours, theirs) {
            (Ok((message, trailers)), Ok(_)) => Ok(answer_of(&message, trailers)),
            // A server that has no such call has nothing else to stop by it.
            (Ok((message, trailers)), Err(why)) if why.code() == Code::Unimplemented => {
                Ok(answer_of(&message, trailers))
            }
            (Ok(_), Err(why)) => {
                Err(Status::new(why.code(), format!("{done}; the upstream: {}", why.message())))
            }
            (Err(why), _) => Err(why),
        }
    }
}

async fn at_home(mut own: Routes, request: Request<Body>) -> Response<Body> {
    match own.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The name, or id, in a request's first message, and the request as it was.
async fn named(request: Request<Body>) -> Result<(String, Request<Replayed>), Status> {
    let (parts, body) = request.into_parts();
    let (name, body) = upstream::name(&parts.headers, body).await?;
    Ok((name, Request::from_parts(parts, body)))
}

/// An answer with one message.
fn answer_of(message: &Bytes, mut trailers: HeaderMap) -> Response<Body> {
    trailers.entry("grpc-status").or_insert(http::HeaderValue::from_static("0"));
    let body = http_body_util::Full::new(upstream::framed(message));
    let mut response = Response::new(Body::new(body.with_trailers(std::future::ready(Some(Ok(trailers))))));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    use super::{Place, Question, Shared};

    #[test]
    fn every_call_has_its_place() {
        let robot = |method: &str| Place::of(&format!("/viam.robot.v1.RobotService/{method}"));
        for method in ["StartSession", "SendSessionHeartbeat", "GetSessions"] {
            assert_eq!(robot(method), Place::Own, "{method}");
        }
        assert_eq!(robot("ResourceNames"), Place::Shared(Shared::Both(Question::Names)));
        assert_eq!(robot("GetMachineStatus"), Place::Shared(Shared::Both(Question::Status)));
        assert_eq!(robot("ResourceRPCSubtypes"), Place::Shared(Shared::Both(Question::Subtypes)));
        assert_eq!(robot("GetOperations"), Place::Shared(Shared::Both(Question::Operations)));
        assert_eq!(robot("StopAll"), Place::Shared(Shared::StopAll));
        assert_eq!(robot("CancelOperation"), Place::Shared(Shared::Operation));
        assert_eq!(robot("BlockForOperation"), Place::Shared(Shared::Operation));
        for path in [
            "/viam.robot.v1.RobotService/FrameSystemConfig",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/proto.rpc.v1.AuthService/Authenticate",
            "/viam.service.motion.v1.MotionService/Move",
        ] {
            assert_eq!(Place::of(path), Place::Upstream, "{path}");
        }
        assert_eq!(Place::of("/proto.rpc.webrtc.v1.SignalingService/Call"), Place::Own);
        assert_eq!(Place::of("/lanyard.v1.LanyardService/EndSession"), Place::Own);
        assert!(matches!(
            Place::of("/viam.component.motor.v1.MotorService/Stop"),
            Place::Shared(Shared::Resource(_))
        ));
        assert!(matches!(
            Place::of("/viam.component.arm.v1.ArmService/IsMoving"),
            Place::Shared(Shared::Resource(_))
        ));
    }
}
