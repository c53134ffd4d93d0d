//! The server behind the front: calls that are not ours go there and back unchanged, and what moves something does so
//! under a session of ours.
//!
//! A monitored call passes in this order: the session lives, the resource was last used by it, the motors behind the
//! resource are granted to it, no Stop for its last user is under way; then it goes on, and is taken back when the
//! session ends. The upstream drives those motors over CAN by itself; the supervisor stops them.
//!
//! What must never live here: a message that is decoded further than its resource's name, a frame to a motor, or
//! anything that a heartbeat waits for.
//!
//! | file | its one idea |
//! |---|---|
//! | [`route`] | TCP, TLS or a Unix socket |
//! | [`lane`] | one connection, watched and made anew |
//! | [`gathering`] | calls that go out together share one write |
//! | [`call`] | one call, there and back |
//! | [`peek`] | the name in a call's first message |
//! | [`monitored`] | which methods move something |
//! | [`resources`] | what is known of the upstream's resources |
//! | [`stopper`] | the upstream's own Stop when a session has ended |
//! | [`merge`] | answers that have our part and theirs |
//! | [`ask`], [`login`] | calls of the front's own |

mod ask;
mod call;
mod gathering;
#[cfg(test)]
mod guarded;
mod lane;
mod login;
mod merge;
mod monitored;
mod peek;
mod resources;
mod route;
mod stopper;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::{Config, OnLoss, ViamSid};
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::debug;

pub use ask::{body_of, framed, message_of};
use call::{Over, UNREAD, pass_on};
use lane::{Keeper, Lane};
use login::Login;
pub use merge::Question;
pub use monitored::{Call, Component, call};
pub use peek::{Replayed, name};
use resources::Resources;
use route::{Route, RouteError};
use stopper::{Errand, Stops};

use crate::access::Caller;
use crate::motion::Motion;
use crate::sessions::{Cause, Departure, Sessions};
use crate::viam::refusal::because;
use crate::viam::{association, metadata};

const RESOURCE_NAMES: &str = "/viam.robot.v1.RobotService/ResourceNames";
const VIAM_SID: &str = "viam-sid";

/// By what right calls are made upstream.
enum Credentials {
    /// Each client's own.
    Clients,
    /// The front's.
    Ours(Login),
}

/// The server behind the front.
pub struct Upstream {
    settings: config::Upstream,
    /// For all calls but stops.
    calls: Lane,
    /// For stops: however many calls hang, these get through.
    stops: Lane,
    credentials: Credentials,
    resources: Resources,
    stopping: Arc<Stops>,
    sessions: Arc<Sessions>,
    motion: Arc<Motion>,
    _keepers: [Keeper; 2],
}

/// The tasks that act for the upstream; they end when this is dropped.
#[derive(Debug)]
pub struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// The keys of the resources that the front serves itself.
#[must_use]
pub fn native(config: &Config) -> HashSet<String> {
    use crate::viam::resources::{BASE, MOTOR, key, native};
    let motors = native(config).map(|(_, motor)| key(MOTOR, &motor.name));
    motors.chain(config.bases.iter().map(|base| key(BASE, &base.name))).collect()
}

impl Upstream {
    /// Connects in the background. `native` are the keys of the front's own resources.
    ///
    /// # Errors
    ///
    /// When the configured certificates cannot be used.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(
        settings: &config::Upstream,
        native: HashSet<String>,
        sessions: Arc<Sessions>,
        motion: Arc<Motion>,
    ) -> Result<(Arc<Self>, Tasks), RouteError> {
        let route = Route::new(&settings.address)?;
        let (calls, calls_keeper) = Lane::keep(route.clone(), settings.window, "for calls");
        let (stops, stops_keeper) = Lane::keep(route, settings.window, "for stops");
        let credentials = match &settings.login {
            Some(key) => Credentials::Ours(Login::new(key.clone())),
            None => Credentials::Clients,
        };
        let departures = sessions.departures();
        let upstream = Arc::new(Self {
            settings: settings.clone(),
            calls,
            stops,
            credentials,
            resources: Resources::new(settings.clone()),
            stopping: Arc::default(),
            sessions,
            motion,
            _keepers: [calls_keeper, stops_keeper],
        });
        let native = Arc::new(native);
        let tasks = vec![
            tokio::spawn(Arc::clone(&upstream).mourn(departures, Arc::clone(&native))),
            tokio::spawn(Arc::clone(&upstream).watch(native)),
            tokio::spawn(Arc::clone(&upstream).learn_names()),
        ];
        Ok((upstream, Tasks(tasks)))
    }

    /// Passes a call on that moves nothing.
    pub async fn pass(&self, request: Request<Replayed>) -> Response<Body> {
        self.on(&self.calls, request, None).await
    }

    /// Passes the stop of everything on.
    pub async fn stop_all(&self, request: Request<Replayed>) -> Response<Body> {
        self.on(&self.stops, request, None).await
    }

    /// Passes a Stop on. Where the upstream cannot stop the resource, the motors behind it are stopped on CAN.
    pub async fn stop(
        &self,
        component: &Component,
        name: &str,
        request: Request<Replayed>,
    ) -> Response<Body> {
        let answer = self.on(&self.stops, request, None).await;
        // It is short, and what it says must be known.
        let (parts, body) = answer.into_parts();
        let refused = match Status::from_header_map(&parts.headers) {
            Some(status) if status.code() != Code::Ok => Some(status),
            _ => None,
        };
        let (body, refused) = match (refused, body.collect().await) {
            (Some(status), Ok(body)) => (Body::new(body), Some(status)),
            (None, Ok(body)) => {
                let status = body.trailers().and_then(Status::from_header_map);
                (Body::new(body), status.filter(|status| status.code() != Code::Ok))
            }
            (_, Err(status)) => return self.stopped_on_can(component, name, status).await.into_http(),
        };
        match refused {
            None => self.sessions.rest(&key(component, name)),
            Some(status) if status.code() == Code::Unavailable => {
                return self.stopped_on_can(component, name, status).await.into_http();
            }
            Some(_) => {}
        }
        Response::from_parts(parts, body)
    }

    async fn stopped_on_can(&self, component: &Component, name: &str, why: Status) -> Status {
        let motors = self.resources.motors(component.kind, name);
        if motors.is_empty() {
            return why;
        }
        let told = match self.motion.halt(&motors).await {
            Ok(()) => format!("{}; the motors behind it were told to stop over CAN", why.message()),
            Err(error) => format!("{}; nor can its motors be stopped over CAN: {error}", why.message()),
        };
        Status::new(why.code(), told)
    }

    /// Passes a call on that moves a resource, under its session and for as long as that lives.
    pub async fn command(
        self: &Arc<Self>,
        component: &'static Component,
        name: &str,
        request: Request<Replayed>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        match self.admitted(component, name, &parts.headers, &parts.extensions).await {
            Ok(over) => self.on(&self.calls, Request::from_parts(parts, body), Some(over)).await,
            Err(why) => why.into_http(),
        }
    }

    /// Everything that comes before a command goes on. Returns what ends it.
    async fn admitted(
        &self,
        component: &'static Component,
        name: &str,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Over, Status> {
        let call = association::monitored(&self.sessions, extensions, headers)?;
        self.calls.sender().map_err(|why| Status::unavailable(&*why))?;
        let key = key(component, name);
        self.resources.admit(component.kind, name, &key)?;
        let hold = call.hold(&self.sessions, &key)?;
        let motors = self.resources.motors(component.kind, name);
        let under_way = self.sessions.use_resource(&hold, &key, &motors)?;
        if let Credentials::Clients = self.credentials {
            self.resources.note_credentials(&key, headers.get(header::AUTHORIZATION));
        }
        if !motors.is_empty() {
            self.motion.claim(&hold, &call.origin, &motors).await?;
        }
        self.stopping.quiet(&key).await;
        let entity = Caller::of(extensions)?.entity.clone();
        let id = metadata::session_id(headers)?;
        let sessions = Arc::clone(&self.sessions);
        Ok(Box::pin(async move {
            let _under_way = under_way;
            let ended = sessions.ended(&hold).await;
            because(ended.into(), id.and_then(|id| sessions.why(&entity, id)))
        }))
    }

    async fn on(&self, lane: &Lane, mut request: Request<Replayed>, over: Option<Over>) -> Response<Body> {
        let headers = request.headers_mut();
        if self.settings.viam_sid == ViamSid::Strip {
            headers.remove(VIAM_SID);
        }
        let login = match &self.credentials {
            Credentials::Clients => return pass_on(lane, request, over, UNREAD).await,
            Credentials::Ours(login) => login,
        };
        let token = match login.token(lane).await {
            Ok(token) => token,
            Err(why) => return why.into_http(),
        };
        headers.insert(header::AUTHORIZATION, token.clone());
        let answer = pass_on(lane, request, over, UNREAD).await;
        if Status::from_header_map(answer.headers())
            .is_some_and(|status| status.code() == Code::Unauthenticated)
        {
            login.refused(&token).await;
        }
        answer
    }

    /// The answer to a question that has our part, `ours`, and the upstream's, which is asked with the client's headers.
    pub async fn merged(&self, question: Question, path: &str, headers: &HeaderMap, ours: &Bytes) -> Bytes {
        let mut more = headers.clone();
        for name in [VIAM_SID, "grpc-encoding", "grpc-accept-encoding", "content-length"] {
            more.remove(name);
        }
        for name in call::HOP_BY_HOP.iter().chain([&header::HOST]) {
            more.remove(name);
        }
        let theirs = self.ask(&self.calls, path, more, &[], merge::WITHIN).await;
        if let Err(why) = &theirs {
            debug!("{path}: {why}");
        }
        self.resources.names.merged(question, ours, theirs)
    }

    /// A call of the front's own. Of `more` the authorization is replaced where the front logs in itself.
    async fn ask(
        &self,
        lane: &Lane,
        path: &str,
        mut more: HeaderMap,
        message: &[u8],
        within: Duration,
    ) -> Result<Bytes, Status> {
        let login = match &self.credentials {
            Credentials::Clients => return ask::ask(lane, path, more, message, within).await,
            Credentials::Ours(login) => login,
        };
        let asking = async {
            let token = login.token(lane).await?;
            more.insert(header::AUTHORIZATION, token.clone());
            let answer = ask::ask(lane, path, more, message, within).await;
            if matches!(&answer, Err(why) if why.code() == Code::Unauthenticated) {
                login.refused(&token).await;
            }
            answer
        };
        let late = |_| Err(Status::deadline_exceeded(format!("no login within {} ms", within.as_millis())));
        tokio::time::timeout(within, asking).await.unwrap_or_else(late)
    }

    /// Stops what sessions used last when they have ended.
    async fn mourn(
        self: Arc<Self>,
        mut departures: mpsc::UnboundedReceiver<Departure>,
        native: Arc<HashSet<String>>,
    ) {
        while let Some(Departure { id, hold, cause, used }) = departures.recv().await {
            for used in used.into_iter().filter(|used| !native.contains(&*used.resource)) {
                let within = self.settings.stop_timeout;
                let errand =
                    Errand { resource: used.resource, session: id, cause, hold: hold.clone(), within };
                stopper::stop(&self.stopping, Arc::clone(&self), errand);
            }
        }
    }

    /// Ends the sessions that used the upstream's resources when it is lost.
    async fn watch(self: Arc<Self>, native: Arc<HashSet<String>>) {
        let mut losses = self.calls.losses();
        while losses.changed().await.is_ok() {
            match self.settings.on_loss {
                OnLoss::Stop => {
                    self.sessions.close_users_of(|key| !native.contains(key), Cause::UpstreamLost);
                }
                OnLoss::Ignore => {}
            }
        }
    }

    /// Asks for the names whenever the upstream is there again.
    async fn learn_names(self: Arc<Self>) {
        let mut losses = self.calls.losses();
        loop {
            self.calls.open().await;
            losses.mark_unchanged();
            match self.ask(&self.calls, RESOURCE_NAMES, HeaderMap::new(), &[], merge::WITHIN).await {
                Ok(names) => self.resources.names.note(&names),
                // Whoever may ask will ask.
                Err(why) => debug!("the upstream does not name its resources: {why}"),
            }
            if losses.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns when every Stop that is owed has been made or given up, but in time for the program's end.
    pub async fn settle(&self) {
        // Past it the supervisor has stopped the motors, and the upstream does not answer.
        drop(tokio::time::timeout(self.settings.stop_timeout, self.stopping.settled()).await);
    }
}

/// What a resource's use is noted under.
fn key(component: &Component, name: &str) -> String {
    crate::viam::resources::key(component.kind, name)
}

impl stopper::Behind for Upstream {
    fn lane(&self) -> &Lane {
        &self.stops
    }

    async fn stop(&self, path: &str, resource: &str, message: &[u8], within: Duration) -> Result<(), Status> {
        let mut more = HeaderMap::new();
        let used_with: Option<HeaderValue> = self.resources.credentials(resource);
        if let Some(credentials) = used_with {
            more.insert(header::AUTHORIZATION, credentials);
        }
        self.ask(&self.stops, path, more, message, within).await.map(drop)
    }

    fn is_used(&self, resource: &str) -> bool {
        self.sessions.is_used(resource)
    }
}
