//! Calls under way, by the id that client and server both know ("opid"): to be listed, waited for and cancelled.
//!
//! Every call is an operation, as in Viam: its id is the client's if it sent a UUID, else a new one, and comes back in the
//! response. Only heartbeats are none: they are answered from memory, and nobody could name one in time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::sync::{Notify, watch};
use tonic::Status;
use tower::{Layer, Service};
use uuid::Uuid;

use super::proto::robot::Operation;

const OPID: HeaderName = HeaderName::from_static("opid");
const SESSION: HeaderName = HeaderName::from_static("viam-sid");
/// What is no operation.
const HEARTBEAT: &str = "/viam.robot.v1.RobotService/SendSessionHeartbeat";

/// Every call under way.
#[derive(Debug, Default)]
pub struct Operations {
    running: Mutex<BTreeMap<Uuid, Entry>>,
}

#[derive(Debug)]
struct Entry {
    operation: Operation,
    cancel: Arc<Notify>,
    /// Closed when the call ends.
    end: watch::Receiver<()>,
}

/// One call; it is under way until this is dropped, however the call ends.
#[derive(Debug)]
pub struct Running {
    operations: Arc<Operations>,
    id: Uuid,
    cancel: Arc<Notify>,
    _end: watch::Sender<()>,
}

/// The call that a request belongs to; part of the extensions of every request that is an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationId(pub Uuid);

impl Operations {
    fn running(&self) -> MutexGuard<'_, BTreeMap<Uuid, Entry>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a call has begun, under the wanted id unless another call has it: nobody hides another's call, or is
    /// cancelled in its place.
    fn begin(self: &Arc<Self>, wanted: Option<Uuid>, method: &str, session_id: Option<String>) -> Running {
        let (sender, end) = watch::channel(());
        let cancel = Arc::new(Notify::new());
        let mut running = self.running();
        let id = wanted.filter(|id| !running.contains_key(id)).unwrap_or_else(Uuid::new_v4);
        let operation = Operation {
            id: id.to_string(),
            method: method.to_owned(),
            started: Some(SystemTime::now().into()),
            session_id,
        };
        running.insert(id, Entry { operation, cancel: Arc::clone(&cancel), end });
        Running { operations: Arc::clone(self), id, cancel, _end: sender }
    }

    /// The calls under way, but for the one that asks.
    #[must_use]
    pub fn list(&self, asking: Option<OperationId>) -> Vec<Operation> {
        let running = self.running();
        let others = running.iter().filter(|(id, _)| asking != Some(OperationId(**id)));
        others.map(|(_, entry)| entry.operation.clone()).collect()
    }

    /// Whether that is the id of a call under way here.
    #[must_use]
    pub fn runs(&self, id: &str) -> bool {
        parse(id).is_ok_and(|id| self.running().contains_key(&id))
    }

    /// Ends a call: it is answered with CANCELLED, and a motion that it waits for is stopped.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for what is no id, NOT_FOUND when no such call is under way.
    pub fn cancel(&self, id: &str) -> Result<(), Status> {
        let id = parse(id)?;
        let running = self.running();
        let entry = running.get(&id).ok_or_else(|| {
            Status::not_found(format!("no operation {id} is under way; GetOperations lists those that are"))
        })?;
        entry.cancel.notify_one();
        Ok(())
    }

    /// Returns when a call has ended; at once if there is no such one.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for what is no id.
    pub async fn ended(&self, id: &str) -> Result<(), Status> {
        let id = parse(id)?;
        let end = self.running().get(&id).map(|entry| entry.end.clone());
        if let Some(mut end) = end {
            // Nothing is ever sent: it changes by being closed.
            while end.changed().await.is_ok() {}
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.operations.running().remove(&self.id);
    }
}

fn parse(id: &str) -> Result<Uuid, Status> {
    Uuid::try_parse(id)
        .map_err(|error| Status::invalid_argument(format!("the operation id is not a UUID: {error}")))
}

/// The id that the client wants, if it sent exactly one UUID.
fn wanted(headers: &HeaderMap) -> Option<Uuid> {
    let mut ids = headers.get_all(OPID).iter();
    let id = ids.next()?;
    if ids.next().is_some() {
        return None;
    }
    Uuid::try_parse(id.to_str().ok()?).ok()
}

/// Makes every call of a service an operation.
#[derive(Clone, Debug)]
pub struct AsOperations(pub Arc<Operations>);

impl<S> Layer<S> for AsOperations {
    type Service = Operated<S>;

    fn layer(&self, inner: S) -> Operated<S> {
        Operated { inner, operations: Arc::clone(&self.0) }
    }
}

/// A service whose calls are operations.
#[derive(Clone, Debug)]
pub struct Operated<S> {
    inner: S,
    operations: Arc<Operations>,
}

impl<S, B, R> Service<Request<B>> for Operated<S>
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let method = request.uri().path();
        if method == HEARTBEAT {
            return Box::pin(self.inner.call(request));
        }
        let headers = request.headers();
        let session = headers.get(SESSION).and_then(|id| id.to_str().ok()).map(str::to_owned);
        let running = self.operations.begin(wanted(headers), method, session);
        request.extensions_mut().insert(OperationId(running.id));
        let call = self.inner.call(request);
        Box::pin(async move {
            let mut response = tokio::select! {
                Ok(response) = call => response,
                // Dropping the call is what ends it: a motion that nobody waits for is stopped.
                () = running.cancel.notified() => cancelled(),
            };
            if let Ok(id) = HeaderValue::from_str(&running.id.to_string()) {
                response.headers_mut().insert(OPID, id);
            }
            Ok(response)
        })
    }
}

fn cancelled<R: Default>() -> Response<R> {
    Status::cancelled("the operation was cancelled by CancelOperation").into_http()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;
    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const ID: &str = "01234567-89ab-4def-8123-456789abcdef";

    fn request(method: &str, headers: &[(HeaderName, &str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = method.parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    /// A service whose calls never end; the first tells when it is dropped.
    fn endless(operations: &Arc<Operations>) -> (Operated<impl Endless + use<>>, oneshot::Receiver<()>) {
        let (dropped, gone) = oneshot::channel::<()>();
        let dropped = Arc::new(Mutex::new(Some(dropped)));
        let service = service_fn(move |_: Request<()>| {
            let held = dropped.lock().unwrap().take();
            async move {
                let _held = held;
                std::future::pending::<Result<Response<()>, Infallible>>().await
            }
        });
        (AsOperations(Arc::clone(operations)).layer(service), gone)
    }

    trait Endless:
        Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send + 'static> + Clone
    {
    }
    impl<S> Endless for S where
        S: Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send + 'static> + Clone
    {
    }

    #[tokio::test]
    async fn a_call_is_listed_under_the_clients_id_until_it_is_cancelled_and_then_dropped() {
        let operations = Arc::<Operations>::default();
        let (service, gone) = endless(&operations);
        let call = service.oneshot(request("/s/Method", &[(OPID, ID), (SESSION, "sid")]));
        let call = tokio::spawn(call);
        while operations.list(None).is_empty() {
            tokio::task::yield_now().await;
        }
        let listed = operations.list(None);
        assert_eq!((listed[0].id.as_str(), listed[0].method.as_str()), (ID, "/s/Method"));
        assert_eq!(listed[0].session_id.as_deref(), Some("sid"));
        let mut waiting = std::pin::pin!(operations.ended(ID));
        assert!(timeout(Duration::from_millis(20), waiting.as_mut()).await.is_err(), "it has not ended");

        operations.cancel(ID).unwrap();
        let response = timeout(SOON, call).await.unwrap().unwrap().unwrap();
        assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), Code::Cancelled);
        assert_eq!(response.headers()[OPID], ID);
        assert!(
            timeout(SOON, gone).await.unwrap().is_err(),
            "the call goes on behind the back of its client"
        );
        timeout(SOON, waiting).await.unwrap().unwrap();
        assert!(operations.list(None).is_empty());
        assert_eq!(operations.cancel(ID).unwrap_err().code(), Code::NotFound);
        timeout(SOON, operations.ended(ID)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_no_single_uuid_or_is_taken_is_given_another() {
        let operations = Arc::<Operations>::default();
        let taken = operations.begin(Some(Uuid::try_parse(ID).unwrap()), "/s/Other", None);
        let answer = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
        for headers in [&[][..], &[(OPID, "x")], &[(OPID, ID)], &[(OPID, ID), (OPID, ID)]] {
            let service = AsOperations(Arc::clone(&operations)).layer(answer);
            let response = service.oneshot(request("/s/Method", headers)).await.unwrap();
            let id = response.headers()[OPID].to_str().unwrap();
            assert!(Uuid::try_parse(id).is_ok() && id != ID, "{headers:?}: {id}");
        }
        assert_eq!(operations.list(None).len(), 1, "the other call is still known");
        assert!(operations.list(Some(OperationId(taken.id))).is_empty(), "who asks is not told of itself");
        for wrong in ["", "x"] {
            assert_eq!(operations.cancel(wrong).unwrap_err().code(), Code::InvalidArgument);
            assert_eq!(operations.ended(wrong).await.unwrap_err().code(), Code::InvalidArgument);
        }
    }

    #[tokio::test]
    async fn a_call_whose_client_has_gone_is_no_longer_listed() {
        let operations = Arc::<Operations>::default();
        let (mut service, _gone) = endless(&operations);
        let call = service.call(request("/s/Method", &[]));
        assert_eq!(operations.list(None).len(), 1);
        drop(call);
        assert!(operations.list(None).is_empty());
    }

    #[tokio::test]
    async fn a_heartbeat_is_no_operation() {
        let operations = Arc::<Operations>::default();
        let (mut service, _gone) = endless(&operations);
        let _call = service.call(request(HEARTBEAT, &[]));
        assert!(operations.list(None).is_empty());
    }
}
