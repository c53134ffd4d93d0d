//! The server behind the front: calls that are not ours go there and back unchanged, and what moves something does so
//! under a session of ours.
//!
//! A monitored call passes in this order: the session lives, nothing newer for the resource has arrived, the resource was
//! last used by the session, the motors behind it are granted to it, no Stop for its last user is under way, what arrived
//! before it is done, the upstream has room for it; then it goes on, and is taken back when the session ends, when
//! its deadline passes, or when something newer has waited long enough. The upstream drives those motors over CAN by
//! itself; the supervisor stops them.
//!
//! What must never live here: a message that is decoded further than its resource's name, a frame to a motor, or
//! anything that a heartbeat waits for.
//!
//! | file | its one idea |
//! |---|---|
//! | [`route`] | TCP, TLS or a Unix socket |
//! | [`lane`] | the way for one kind of calls: a connection, watched and made anew |
//! | [`streams`] | how many calls a connection has under way |
//! | [`gathering`] | calls that go out together share one write |
//! | [`call`] | one call, there and back |
//! | [`admission`] | which call for a resource may leave, and when |
//! | [`turns`] | the tasks that wait for that |
//! | [`stopping`] | a client's Stop: at once, and again after what went before it |
//! | [`deadline`] | until when a client waits |
//! | [`peek`] | the name in a call's first message |
//! | [`monitored`] | which methods move something |
//! | [`resources`] | what is known of the upstream's resources |
//! | [`stopper`] | the upstream's own Stop when a session has ended |
//! | [`merge`] | answers that have our part and theirs |
//! | [`ask`], [`login`] | calls of the front's own |

mod admission;
mod ask;
mod call;
mod deadline;
mod gathering;
#[cfg(test)]
mod guarded;
mod lane;
mod login;
mod merge;
mod monitored;
#[cfg(test)]
mod ordered;
mod peek;
mod resources;
mod route;
mod stopper;
mod stopping;
mod streams;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::{Config, OnLoss, ViamSid};
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use shm_proto::MotorIndex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::debug;

use admission::Scope;
pub use ask::{body_of, framed, message_of};
use call::{Terms, UNREAD, pass_on};
use lane::{Awaited, Keeper, Lane};
use login::Login;
pub use merge::Question;
pub use monitored::{Call, Component, call};
pub use peek::{Replayed, name};
use resources::Resources;
use route::{Route, RouteError};
use stopper::{Errand, Stops};
use stopping::{Outcome, Whole};
use turns::Turns;

use crate::motion::{Motion, Notes};
use crate::order::{Origin, StopAhead};
use crate::sessions::{Cause, Departure, Driven, Sessions, Stopped};
use crate::transport::Connection;
use crate::viam::refusal::because;
use crate::viam::{association, metadata};

const RESOURCE_NAMES: &str = "/viam.robot.v1.RobotService/ResourceNames";
const VIAM_SID: &str = "viam-sid";
/// How long a command waits until a Stop that came before it over its connection is looked at. That takes microseconds once it
/// is all here.
const LOOKED_AT_WITHIN: Duration = Duration::from_millis(50);
/// Largest Stop: a name and a free-form part.
const MOST_STOP_BYTES: usize = 4 << 20;
/// How long one message of a client's Stop may go unanswered before it is given up: a robot that takes longer to come to
/// rest is not told so by its server.
const LONGEST_STOP: Duration = Duration::from_secs(30);

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
    /// For what moves something: however many watch, these get through.
    commands: Lane,
    /// For stops: however many commands hang, these get through.
    stops: Lane,
    /// For everything else.
    others: Lane,
    turns: Arc<Turns>,
    credentials: Credentials,
    resources: Resources,
    stopping: Arc<Stops>,
    sessions: Arc<Sessions>,
    motion: Arc<Motion>,
    _keepers: [Keeper; 3],
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
    /// Connects in the background. `native` are the keys of the front's own resources, `hold` is how long a Stop holds its
    /// sender's other connections off.
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
        hold: Duration,
        native: HashSet<String>,
        sessions: Arc<Sessions>,
        motion: Arc<Motion>,
    ) -> Result<(Arc<Self>, Tasks), RouteError> {
        let native = Arc::new(native);
        let route = Route::new(&settings.address)?;
        let lane = |name, awaited| Lane::keep(route.clone(), settings.window, name, awaited);
        let (commands, commands_keeper) = lane("for commands", moving(&sessions, &native));
        let (stops, stops_keeper) = lane("for stops", Arc::new(|| false));
        let (others, others_keeper) = lane("for other calls", Arc::new(|| false));
        let credentials = match &settings.login {
            Some(key) => Credentials::Ours(Login::new(key.clone())),
            None => Credentials::Clients,
        };
        let departures = sessions.departures();
        let upstream = Arc::new(Self {
            settings: settings.clone(),
            commands,
            stops,
            others,
            turns: Turns::new(hold),
            credentials,
            resources: Resources::new(settings.clone()),
            stopping: Arc::default(),
            sessions,
            motion,
            _keepers: [commands_keeper, stops_keeper, others_keeper],
        });
        let tasks = vec![
            tokio::spawn(Arc::clone(&upstream).mourn(departures, Arc::clone(&native))),
            tokio::spawn(Arc::clone(&upstream).watch(native)),
            tokio::spawn(Arc::clone(&upstream).learn_names()),
        ];
        Ok((upstream, Tasks(tasks)))
    }

    /// Passes a call on that moves nothing.
    pub async fn pass(&self, request: Request<Replayed>) -> Response<Body> {
        self.on(&self.others, request, Terms::default()).await
    }

    /// Passes the stop of everything on.
    ///
    /// # Errors
    ///
    /// Why the upstream was not heard to have stopped everything.
    pub async fn stop_all(
        self: &Arc<Self>,
        parts: http::request::Parts,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let origin = Origin::of(&parts.extensions)?;
        match self.stop_in_turn(&origin, Scope::Everything, parts, body).await {
            Outcome::Stopped(answer) | Outcome::Refused(answer) => Ok(answer),
            Outcome::Failed(why) => Err(why),
        }
    }

    /// Passes a Stop on. Where the upstream cannot stop the resource, the motors behind it are stopped on CAN.
    ///
    /// # Errors
    ///
    /// Why the upstream was not heard to have stopped it.
    pub async fn stop(
        self: &Arc<Self>,
        component: &Component,
        name: &str,
        request: Request<Replayed>,
    ) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let whole = Limited::new(body, MOST_STOP_BYTES).collect().await;
        let body = whole.map_err(|error| Status::resource_exhausted(error.to_string()))?.to_bytes();
        let key = key(component, name);
        if self.resources.admit(component.kind, name, &key).is_err() {
            // Nothing of that name is let through that could move.
            let request = Request::from_parts(parts, Replayed::untouched(body_of(body)));
            return Ok(self.on(self.lane_for_stops(), request, Terms::default()).await);
        }
        let origin = Origin::of(&parts.extensions)?;
        let motors = self.resources.motors(component.kind, name);
        let scope = scope(&key, &motors);
        match self.stop_in_turn(&origin, scope.clone(), parts, body).await {
            Outcome::Stopped(answer) => {
                // A command that waited for this moves it again.
                if self.turns.is_newest(&origin, &scope) {
                    self.sessions.rest(&key);
                }
                self.motion.acknowledge(&origin, &motors, Notes::StopAndDriveFault);
                self.sessions.note_stop(&origin, Stopped::One(Driven { resource: &key, motors: &motors }));
                Ok(answer)
            }
            Outcome::Refused(answer) => Ok(answer),
            Outcome::Failed(why) => Err(self.stopped_on_can(&motors, why).await),
        }
    }

    /// Carries a Stop out, even when its client does not wait for it.
    async fn stop_in_turn(
        self: &Arc<Self>,
        origin: &Origin,
        scope: Scope,
        parts: http::request::Parts,
        body: Bytes,
    ) -> Outcome {
        let stopping = self.turns.stop(origin, scope);
        if let Some(ahead) = parts.extensions.get::<Arc<StopAhead>>() {
            ahead.looked_at();
        }
        let upstream = Arc::clone(self);
        let send = move || {
            let request = Request::from_parts(parts.clone(), Replayed::untouched(body_of(body.clone())));
            Arc::clone(&upstream).send_stop(request)
        };
        let stopped = tokio::spawn(stopping::carry_out(stopping, send)).await;
        stopped.unwrap_or_else(|error| Outcome::Failed(Status::internal(error.to_string())))
    }

    async fn send_stop(self: Arc<Self>, request: Request<Replayed>) -> Result<Whole, Status> {
        let sent =
            async { Whole::read(self.on(self.lane_for_stops(), request, Terms::default()).await).await };
        let late = |_| {
            let shown = &self.stops.route.shown;
            Err(Status::unavailable(format!(
                "the upstream {shown} has not answered a Stop within {} s",
                LONGEST_STOP.as_secs()
            )))
        };
        tokio::time::timeout(LONGEST_STOP, sent).await.unwrap_or_else(late)
    }

    /// The lane that a Stop goes out on: its own, or any that is open with room on it.
    fn lane_for_stops(&self) -> &Lane {
        let lanes = [&self.stops, &self.commands, &self.others];
        lanes.into_iter().find(|lane| lane.has_room()).unwrap_or(&self.stops)
    }

    async fn stopped_on_can(&self, motors: &[MotorIndex], why: Status) -> Status {
        if motors.is_empty() {
            return why;
        }
        let told = match self.motion.halt(motors).await {
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
            Ok(terms) => self.on(&self.commands, Request::from_parts(parts, body), terms).await,
            Err(why) => why.into_http(),
        }
    }

    /// Everything that comes before a command waits for its turn. Returns its place, and what ends it.
    async fn admitted(
        &self,
        component: &'static Component,
        name: &str,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Terms, Status> {
        let call = association::monitored(&self.sessions, extensions, headers)?;
        let deadline = call.origin.deadline();
        self.commands.is_open().map_err(|why| Status::unavailable(&*why))?;
        let key = key(component, name);
        self.resources.admit(component.kind, name, &key)?;
        let motors = self.resources.motors(component.kind, name);
        let scope = scope(&key, &motors);
        self.turns.check(&call.origin, &scope, &key)?;
        let hold = call.hold(&self.sessions, Driven { resource: &key, motors: &motors })?;
        let under_way = self.sessions.use_resource(&hold, &key, &motors)?;
        // Only what may have the resource takes the place of what waits for it.
        let place = self.turns.command(&call.origin, scope, &key)?;
        if let Credentials::Clients = self.credentials {
            self.resources.note_credentials(&key, headers.get(header::AUTHORIZATION));
        }
        let granted = async {
            if !motors.is_empty() {
                self.motion.claim(&hold, &call.origin, &motors).await?;
            }
            self.stopping.quiet(&key).await;
            stops_looked_at(extensions, &call.origin).await;
            Ok::<_, Status>(())
        };
        tokio::select! {
            biased;
            granted = granted => granted?,
            why = place.voided() => return Err(why),
            why = deadline::passed(deadline) => return Err(why),
        }
        let entity = call.origin.sender().entity().clone();
        let id = metadata::session_id(headers)?;
        let sessions = Arc::clone(&self.sessions);
        let cut = place.cut();
        let over = async move {
            let _under_way = under_way;
            tokio::select! {
                biased;
                ended = sessions.ended(&hold) => because(ended.into(), id.and_then(|id| sessions.why(&entity, id))),
                why = cut => why,
                why = deadline::passed(deadline) => why,
            }
        };
        Ok(Terms { over: Some(Box::pin(over)), place: Some(place) })
    }

    async fn on(&self, lane: &Lane, mut request: Request<Replayed>, terms: Terms) -> Response<Body> {
        let headers = request.headers_mut();
        if self.settings.viam_sid == ViamSid::Strip {
            headers.remove(VIAM_SID);
        }
        let login = match &self.credentials {
            Credentials::Clients => return pass_on(lane, request, terms, UNREAD).await,
            Credentials::Ours(login) => login,
        };
        let token = match login.token(lane).await {
            Ok(token) => token,
            Err(why) => return why.into_http(),
        };
        headers.insert(header::AUTHORIZATION, token.clone());
        let answer = pass_on(lane, request, terms, UNREAD).await;
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
        let theirs = self.ask(&self.others, path, more, &[], merge::WITHIN).await;
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
        let mut losses = self.commands.losses();
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
        let mut losses = self.others.losses();
        loop {
            self.others.open().await;
            losses.mark_unchanged();
            match self.ask(&self.others, RESOURCE_NAMES, HeaderMap::new(), &[], merge::WITHIN).await {
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

/// Waits until the stops that came before a command over its connection have their place in the order. One whose end is not
/// here counts as newer by then: it is not waited for long.
async fn stops_looked_at(extensions: &Extensions, origin: &Origin) {
    let Some(connection) = extensions.get::<Arc<Connection>>() else { return };
    drop(tokio::time::timeout(LOOKED_AT_WITHIN, connection.ahead.none_before(origin.began())).await);
}

/// What a call for a resource is for.
fn scope(key: &str, motors: &[MotorIndex]) -> Scope {
    Scope::Resource { key: key.into(), motors: motors.into() }
}

/// Whether a session keeps something of the upstream's moving: as long as it does, the upstream has to show that it lives.
fn moving(sessions: &Arc<Sessions>, native: &Arc<HashSet<String>>) -> Awaited {
    let (sessions, native) = (Arc::clone(sessions), Arc::clone(native));
    Arc::new(move || sessions.is_anything_moving(|key| !native.contains(key)))
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

    fn unsettled(&self, resource: &str) -> Option<Duration> {
        let (kind, name) = resource.split_once('/')?;
        self.turns.unsettled(&scope(resource, &self.resources.motors(kind, name)))
    }
}
