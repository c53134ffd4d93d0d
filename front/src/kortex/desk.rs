//! All services, whatever carries the calls.
//!
//! A call passes in this order: it is a frame, its session is this connection's and alive, the session may do it. Sessions,
//! and everything that is known already, are answered at once; what waits for a drive, a password or the supervisor is
//! carried out beside, so that no heartbeat waits for it.

use std::sync::Arc;
use std::time::Duration;

use config::Kortex;
use keys::Role;
use prost::Message;
use shm_proto::{Nanos, Window};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::arm::{Arm, Others, Parts};
use super::channel::{Channel, Later, Transport};
use super::control::Arbitration;
use super::frame::{Frame, Header, Kind, Method, SessionNumber};
use super::method;
use super::refusal::{Refusal, Sub};
use super::roster::{Gone, Leaving, Listed, Roster, Standing};
use super::topics::Topics;
use super::upstream::{self, Base};
use crate::access::{Access, Caller, Rejection};
use crate::proto::kortex::{
    AccessControlOptions, ActuatorInformation, ArmState, ArmStateInformation, ArmStateNotification, Command,
    Connection, Connection3, ConnectionList, ConnectionList3, ConnectionType, CreateSessionInfo, JointSpeed,
    JointSpeeds, NotificationHandle, ServoingMode, ServoingModeInformation, ServoingModeNotification,
    SessionStatus, SessionStatusHandle, TemporaryRoleRequest, Timestamp, UserPermission, UserProfileHandle,
    UserRole,
};

/// How often silent sessions are looked for, and changes of the arm's state. The supervisor does not wait for it.
const LOOK: Duration = Duration::from_millis(20);

/// Longest user name or password that is looked at.
const LONGEST_CREDENTIAL: usize = 256;

/// What becomes of a frame.
pub enum Answer {
    /// This goes back at once.
    Now(Frame),
    /// This goes back when it is done.
    Later(Later),
    /// Nothing goes back.
    Nothing,
}

/// The services.
pub struct Desk {
    settings: Kortex,
    access: Arc<Access>,
    sessions: Arc<crate::sessions::Sessions>,
    roster: Roster,
    arm: Arc<Arm>,
    topics: Topics,
    /// A real base, for what is not served here.
    base: Option<Arc<Base>>,
    status: watch::Sender<SessionStatus>,
}

type Outcome = Result<Frame, Refusal>;

impl Desk {
    /// The services of this robot's arm.
    #[must_use]
    pub fn new(settings: &Kortex, access: Arc<Access>, parts: Parts) -> Arc<Self> {
        let sessions = Arc::clone(&parts.sessions);
        Arc::new(Self {
            settings: settings.clone(),
            access,
            roster: Roster::new(Arc::clone(&sessions), settings.clone()),
            sessions,
            arm: Arc::new(Arm::new(settings, parts)),
            topics: Topics::default(),
            base: settings.upstream.clone().map(Base::new),
            status: watch::Sender::default(),
        })
    }

    /// Looks after sessions and state for as long as the program runs.
    pub async fn keep(self: Arc<Self>) {
        let mut departures = self.sessions.departures();
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut state = self.arm.state();
        loop {
            tokio::select! {
                departed = departures.recv() => {
                    // Its sender lives as long as the sessions.
                    let Some(departed) = departed else { return };
                    if let Some(session) = self.roster.watched_by(departed.id) {
                        self.arm.control.release(session);
                        if let Some(base) = self.base.clone() {
                            tokio::spawn(async move { base.stop(session).await });
                        }
                    }
                }
                _ = ticks.tick() => {
                    let over = self.roster.sweep();
                    self.gone(&over);
                    let now = self.arm.state();
                    if now != std::mem::replace(&mut state, now) {
                        self.tell_state(now);
                    }
                }
            }
        }
    }

    fn tell_state(&self, state: ArmState) {
        let told = ArmStateNotification { active_state: state.into(), timestamp: Some(timestamp()) };
        self.topics.publish(method::ARM_STATE_TOPIC, &told);
    }

    /// Sessions that are over let go of everything.
    fn gone(&self, gone: &[Gone]) {
        if gone.is_empty() {
            return;
        }
        for gone in gone {
            self.arm.control.release(gone.session);
            self.topics.forget(gone.session);
            if let Some(base) = self.base.clone() {
                let gone = *gone;
                tokio::spawn(async move { base.close(gone).await });
            }
        }
        self.tell_sessions();
    }

    fn tell_sessions(&self) {
        let handle = |listed: Listed| SessionStatusHandle {
            session_identifier: listed.session.0.into(),
            user_identifier: 0,
            roles: roles(&listed),
        };
        self.status
            .send_replace(SessionStatus { sessions: self.roster.list().into_iter().map(handle).collect() });
    }

    /// Every session, and again whenever one comes, goes or gets another role.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<SessionStatus> {
        self.status.subscribe()
    }

    /// The sessions of a connection, and how long each may be silent.
    #[must_use]
    pub fn sessions_of(&self, channel: &Channel) -> Vec<(SessionNumber, Window)> {
        self.roster.of(channel)
    }

    /// A connection is over: its sessions end, and what they drive is stopped.
    pub fn left(&self, channel: &Channel) {
        channel.leave();
        let gone = self.roster.leave(channel);
        self.gone(&gone);
    }

    /// Subscribes a client to a topic that it has only named. `false`: there is no such topic, or it has too many.
    #[must_use]
    pub fn subscribe(&self, channel: &Arc<Channel>, topic: Method) -> bool {
        is_topic(topic) && self.topics.subscribe(channel, SessionNumber::default(), topic).is_ok()
    }

    /// Ends that.
    pub fn unsubscribe(&self, channel: &Channel, topic: Method) {
        self.topics.leave(channel, topic);
    }

    /// One frame, as it came.
    #[must_use]
    pub fn ask(self: &Arc<Self>, channel: &Arc<Channel>, bytes: &[u8]) -> Answer {
        let frame = match Frame::read(bytes) {
            Ok(frame) => frame,
            Err(defect) => return defect.answer().map_or(Answer::Nothing, Answer::Now),
        };
        match frame.header.kind {
            Kind::Request => self.request(channel, &frame),
            Kind::Pong => {
                // An answer to nobody is none.
                drop(self.roster.beat(channel, frame.header.session));
                Answer::Nothing
            }
            Kind::Ping => {
                let header = Header { kind: Kind::Pong, ..frame.header };
                Answer::Now(Frame { header, payload: frame.payload })
            }
            Kind::Raw | Kind::Response | Kind::Notification => Answer::Nothing,
        }
    }

    fn request(self: &Arc<Self>, channel: &Arc<Channel>, frame: &Frame) -> Answer {
        let answered = match frame.header.method {
            method::CREATE_SESSION => self.create(channel, frame),
            _ => self.roster.beat(channel, frame.header.session).and_then(|standing| {
                let call = Call { channel, frame, standing };
                self.serve(&call)
            }),
        };
        answered.unwrap_or_else(|refusal| Answer::Now(Frame::refused(&frame.header, &refusal)))
    }

    /// Runs beside other calls; its refusal is an answer, too.
    fn later(
        header: Header,
        call: impl Future<Output = Outcome> + Send + 'static,
    ) -> Result<Answer, Refusal> {
        Ok(Answer::Later(Box::pin(async move {
            call.await.unwrap_or_else(|refusal| Frame::refused(&header, &refusal))
        })))
    }

    fn create(self: &Arc<Self>, channel: &Arc<Channel>, frame: &Frame) -> Result<Answer, Refusal> {
        let header = frame.header;
        let info: CreateSessionInfo = message(frame)?;
        if info.username.len() > LONGEST_CREDENTIAL || info.password.len() > LONGEST_CREDENTIAL {
            let text = format!("user name and password have at most {LONGEST_CREDENTIAL} bytes");
            return Err(Refusal::protocol(Sub::InvalidParam, text));
        }
        if !self.access.is_required() && self.base.is_none() {
            return self.created(channel, Caller::anonymous(), &info, header).map(Answer::Now);
        }
        let (desk, channel) = (Arc::clone(self), Arc::clone(channel));
        Self::later(header, async move {
            let caller = if desk.access.is_required() {
                desk.log_in(&channel, &info.username, &info.password).await?
            } else {
                Caller::anonymous()
            };
            let created = desk.created(&channel, caller, &info, header)?;
            desk.open_behind(&channel, created.header.session, &info).await?;
            Ok(created)
        })
    }

    /// Opens a session's other half at the base behind, if there is one; without it there is none here either.
    async fn open_behind(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        session: SessionNumber,
        info: &CreateSessionInfo,
    ) -> Result<(), Refusal> {
        let Some(base) = &self.base else { return Ok(()) };
        let desk = Arc::downgrade(self);
        let lost = move || {
            if let Some(desk) = desk.upgrade() {
                desk.roster.stop(session);
            }
        };
        let opened = base.open(channel, session, info, lost).await;
        // It may have ended meanwhile, or its connection.
        let lives = self.roster.beat(channel, session);
        if opened.is_err() || lives.is_err() {
            let gone = self.roster.close(channel, session).ok().flatten();
            self.gone(&[gone.unwrap_or(Gone { session, leaving: Leaving::Nothing })]);
        }
        opened.and(lives.map(drop))
    }

    fn created(
        &self,
        channel: &Channel,
        caller: Caller,
        info: &CreateSessionInfo,
        header: Header,
    ) -> Outcome {
        let session = self.roster.open(channel, caller, info)?;
        if channel.has_left() {
            // While its password was looked at; nobody else would close it.
            self.left(channel);
            return Err(Refusal::no_session());
        }
        channel.connection.note_call(http::Version::HTTP_11);
        self.tell_sessions();
        Ok(Frame::answer(&header, session, &()))
    }

    async fn log_in(&self, channel: &Channel, user: &str, password: &str) -> Result<Caller, Refusal> {
        let (access, connection) = (Arc::clone(&self.access), Arc::clone(&channel.connection));
        let (user, password) = (user.to_owned(), password.to_owned());
        // A password is hashed for a hundred milliseconds: not on a thread that beats.
        let checked = tokio::task::spawn_blocking(move || access.password(&user, &password, &connection));
        checked.await.unwrap_or(Err(Rejection::Wrong)).map_err(|rejection| match rejection {
            Rejection::Wrong => Refusal::device(Sub::InvalidPassword, "invalid user name or password"),
            Rejection::NoRandomness => {
                Refusal::device(Sub::MethodFailed, "this computer has no random numbers")
            }
            Rejection::Later(wait) => {
                let text = format!("too many failed logins; try again in {} s", wait.as_secs() + 1);
                Refusal::device(Sub::InvalidPassword, text)
            }
        })
    }

    fn serve(self: &Arc<Self>, call: &Call<'_>) -> Result<Answer, Refusal> {
        if call.frame.header.device != 0 {
            let text =
                format!("there is no device {}; only the base (0) is served", call.frame.header.device);
            return Err(Refusal::protocol(Sub::InvalidDevice, text));
        }
        match call.frame.header.method {
            method::CLOSE_SESSION => {
                let gone = self.roster.close(call.channel, call.standing.session)?;
                self.gone(gone.as_slice());
                Ok(call.done())
            }
            method::KEEP_ALIVE => Ok(call.done()),
            method::GET_CONNECTIONS => Ok(self.connections(call)),
            method::ADD_TEMPORARY_USER_ROLE => self.promote(call),
            method::REMOVE_TEMPORARY_USER_ROLE => {
                self.roster.demote(call.channel, call.standing.session)?;
                self.tell_sessions();
                Ok(call.done())
            }
            method::SET_ACCESS_CONTROL => self.set_access_control(call),
            method::GET_ACCESS_CONTROL => Ok(call.now(&AccessControlOptions {
                single_source_control: self.arm.control.arbitration() == Arbitration::SingleSource,
                bypass_remote_access: false,
            })),
            method => match &self.base {
                Some(base) if !self.is_ours(method) => self.pass(call, base),
                _ => self.at_the_arm(call),
            },
        }
    }

    /// Whether a method is this arm's, though there is a base behind.
    fn is_ours(&self, method: Method) -> bool {
        // Those that stop, and what clears a stop, are for both.
        [method::STOP, method::APPLY_EMERGENCY_STOP, method::CLEAR_FAULTS].contains(&method)
            || (self.arm.joints() > 0 && method::NATIVE.contains(&method))
    }

    /// Passes a call on to the base behind. One that moves something is the session's last use of the arm.
    fn pass(&self, call: &Call<'_>, base: &Arc<Base>) -> Result<Answer, Refusal> {
        let (base, frame, session) = (Arc::clone(base), call.frame.clone(), call.standing.session);
        if !upstream::moves(frame.header.method) {
            return Self::later(frame.header, async move { base.pass(session, &frame).await });
        }
        call.needs(Role::Operate)?;
        let hold = self.roster.hold(call.channel, session)?;
        let (arm, since) = (Arc::clone(&self.arm), self.arm.asked());
        Self::later(frame.header, async move {
            let _under_way = arm.claim(&hold).await?;
            arm.not_stopped(since)?;
            let answer = base.pass(session, &frame).await;
            if arm.not_stopped(since).is_err() {
                // It may have gone out before this command did.
                base.stop(session).await;
            }
            answer
        })
    }

    /// Does something here, and has the base behind do the same, both at once. What fails here counts first.
    fn both(
        &self,
        call: &Call<'_>,
        here: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) -> Result<Answer, Refusal> {
        let Some(base) = self.base.clone() else { return call.later(here) };
        let (frame, session) = (call.frame.clone(), call.standing.session);
        Self::later(frame.header, async move {
            let (here, there) = tokio::join!(here, base.pass(session, &frame));
            here?;
            there
        })
    }

    fn at_the_arm(self: &Arc<Self>, call: &Call<'_>) -> Result<Answer, Refusal> {
        match call.frame.header.method {
            method::UNSUBSCRIBE => {
                let handle: NotificationHandle = message(call.frame)?;
                self.topics.unsubscribe(call.channel, handle.identifier)?;
                Ok(call.done())
            }
            topic if is_topic(topic) => {
                let handle = self.topics.subscribe(call.channel, call.standing.session, topic)?;
                Ok(call.now(&NotificationHandle { identifier: handle.0.into() }))
            }
            _ => self.move_or_look(call),
        }
    }

    fn move_or_look(self: &Arc<Self>, call: &Call<'_>) -> Result<Answer, Refusal> {
        match call.frame.header.method {
            method::STOP => {
                let stop = self.arm.stop();
                self.both(call, stop)
            }
            method::SEND_JOINT_SPEEDS => {
                let asked: JointSpeeds = message(call.frame)?;
                let longest = asked.joint_speeds.iter().map(|joint| joint.duration).filter(|time| *time > 0);
                // The arm is one: the shortest time that anything was to last is when it comes to rest.
                let duration = longest.chain((asked.duration > 0).then_some(asked.duration)).min();
                self.drive(call, asked.joint_speeds, Others::Rest, duration.unwrap_or(0))
            }
            method::SEND_SELECTED_JOINT_SPEED => {
                let asked: JointSpeed = message(call.frame)?;
                let duration = asked.duration;
                self.drive(call, vec![asked], Others::GoOn, duration)
            }
            method::APPLY_EMERGENCY_STOP => {
                call.needs(Role::Operate)?;
                let stop = self.arm.stop_everything();
                self.both(call, async move { stop.await.map(drop) })
            }
            method::CLEAR_FAULTS => {
                let trips = self.arm.trips();
                if !trips.is_empty() {
                    call.needs(Role::Administer)?;
                }
                let arm = Arc::clone(&self.arm);
                self.both(call, async move { arm.reset(trips).await })
            }
            method::SET_SERVOING_MODE => self.set_servoing_mode(call),
            method::GET_SERVOING_MODE => {
                Ok(call.now(&ServoingModeInformation { servoing_mode: ServoingMode::SingleLevel.into() }))
            }
            method::GET_ARM_STATE => {
                let active_state = self.arm.state().into();
                Ok(call.now(&ArmStateInformation { active_state, connection: None }))
            }
            method::GET_ACTUATOR_COUNT => Ok(call.now(&ActuatorInformation { count: self.arm.joints() })),
            method::GET_MEASURED_JOINT_ANGLES => Ok(call.now(&self.arm.angles()?)),
            method::GET_MEASURED_JOINT_SPEEDS => Ok(call.now(&self.arm.speeds_now()?)),
            method::REFRESH => {
                let asked: Command = message(call.frame)?;
                if !asked.actuators.is_empty() {
                    let text = "actuators are commanded in low-level servoing, which is not served; use \
                                Base.SendJointSpeedsCommand";
                    return Err(Refusal::device(Sub::ServoingMode, text));
                }
                Ok(call.now(&self.arm.feedback(asked.frame_id)))
            }
            method::REFRESH_FEEDBACK => Ok(call.now(&self.arm.feedback(0))),
            Method { service, function } if method::SERVICES.contains(&service) => {
                let text = format!("method {function} of service {service} is not served by Lanyard");
                Err(Refusal::protocol(Sub::UnsupportedMethod, text))
            }
            Method { service, .. } => {
                let text = format!("service {service} is not served by Lanyard");
                Err(Refusal::protocol(Sub::UnsupportedService, text))
            }
        }
    }

    fn drive(
        self: &Arc<Self>,
        call: &Call<'_>,
        asked: Vec<JointSpeed>,
        others: Others,
        duration: u32,
    ) -> Result<Answer, Refusal> {
        call.needs(Role::Operate)?;
        let session = call.standing.session;
        self.arm.check(&asked)?;
        self.arm.control.take(session, Nanos::now())?;
        let hold =
            self.roster.hold(call.channel, session).inspect_err(|_| self.arm.control.release(session))?;
        let (arm, since) = (Arc::clone(&self.arm), self.arm.asked());
        call.later(async move { arm.drive(hold, since, &asked, others, duration).await })
    }

    fn set_servoing_mode(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        call.needs(Role::Operate)?;
        let asked: ServoingModeInformation = message(call.frame)?;
        if asked.servoing_mode() != ServoingMode::SingleLevel {
            let text = "only SINGLE_LEVEL_SERVOING (2) is served: Lanyard closes the loop";
            return Err(Refusal::protocol(Sub::InvalidParam, text));
        }
        let servoing_mode = ServoingMode::SingleLevel.into();
        let told = ServoingModeNotification { servoing_mode, timestamp: Some(timestamp()) };
        self.topics.publish(method::SERVOING_MODE_TOPIC, &told);
        Ok(call.done())
    }

    fn connections(&self, call: &Call<'_>) -> Answer {
        let listed = self.roster.list();
        match call.channel.transport {
            Transport::Tcp | Transport::Udp => {
                let connection = |listed: Listed| Connection {
                    user_handle: Some(handle(&listed)),
                    connection_information: from(&listed),
                    connection_identifier: listed.session.0.into(),
                };
                call.now(&ConnectionList { connection: listed.into_iter().map(connection).collect() })
            }
            Transport::Mqtt => {
                let connection = |listed: Listed| Connection3 {
                    user_handle: Some(handle(&listed)),
                    connection_information: from(&listed),
                    is_local: listed.peer.remote.is_some_and(|remote| remote.ip().is_loopback()),
                    session_identifier: listed.session.0.into(),
                    connection_inactivity_timeout: u32::try_from(listed.window.0 / 1_000_000).unwrap_or(0),
                    roles: roles(&listed),
                    connection_type: ConnectionType::MqttTcp.into(),
                    is_webapp: false,
                    username: listed.user.clone(),
                };
                let user_connections: Vec<_> = listed.into_iter().map(connection).collect();
                let connection = user_connections.clone();
                call.now(&ConnectionList3 { connection, user_connections })
            }
        }
    }

    /// More rights: those of a user of that name, for who knows the password.
    fn promote(self: &Arc<Self>, call: &Call<'_>) -> Result<Answer, Refusal> {
        call.needs(Role::Operate)?;
        let asked: TemporaryRoleRequest = message(call.frame)?;
        let TemporaryRoleRequest { role_identifier: name, password } = asked;
        if name.is_empty() || name.len() > LONGEST_CREDENTIAL || password.len() > LONGEST_CREDENTIAL {
            let text =
                format!("a role has a name, and name and password have at most {LONGEST_CREDENTIAL} bytes");
            return Err(Refusal::protocol(Sub::InvalidParam, text));
        }
        let (desk, channel) = (Arc::clone(self), Arc::clone(call.channel));
        let session = call.standing.session;
        call.later(async move {
            let user = name.to_lowercase();
            let role = match (desk.access.is_required(), user.as_str()) {
                // Who may operate already loses nothing by saying so.
                (false, _) | (true, "operator" | "operate") => Role::Operate,
                (true, _) => desk.log_in(&channel, &user, &password).await?.role,
            };
            desk.roster.promote(&channel, session, name, role)?;
            desk.tell_sessions();
            Ok(())
        })
    }

    fn set_access_control(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        call.needs(Role::Administer)?;
        let asked: AccessControlOptions = message(call.frame)?;
        if asked.bypass_remote_access {
            let text = "bypass_remote_access is not served: who may do what is said by the keys";
            return Err(Refusal::protocol(Sub::InvalidParam, text));
        }
        let single = asked.single_source_control;
        self.arm.control.arbitrate(if single { Arbitration::SingleSource } else { Arbitration::Open });
        Ok(call.done())
    }

    /// Connections at once on one port.
    #[must_use]
    pub const fn most_connections(&self) -> usize {
        self.settings.max_connections
    }
}

/// A call of a session that lives.
struct Call<'a> {
    channel: &'a Arc<Channel>,
    frame: &'a Frame,
    standing: Standing,
}

impl Call<'_> {
    fn now(&self, message: &impl Message) -> Answer {
        Answer::Now(Frame::answer(&self.frame.header, self.standing.session, message))
    }

    fn done(&self) -> Answer {
        self.now(&())
    }

    fn later(
        &self,
        work: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) -> Result<Answer, Refusal> {
        let (header, session) = (self.frame.header, self.standing.session);
        Desk::later(header, async move {
            work.await?;
            Ok(Frame::answer(&header, session, &()))
        })
    }

    fn needs(&self, role: Role) -> Result<(), Refusal> {
        if self.standing.role >= role {
            return Ok(());
        }
        let text = format!(
            "the user of this session has the role \"{}\", and this takes \"{role}\"",
            self.standing.role
        );
        Err(Refusal::protocol(Sub::SessionAccess, text))
    }
}

/// What a call says.
fn message<M: Message + Default>(frame: &Frame) -> Result<M, Refusal> {
    M::decode(&frame.payload[..]).map_err(|error| {
        let text = format!("the payload is not what method {:?} takes: {error}", frame.header.method);
        Refusal::protocol(Sub::PayloadDecoding, text)
    })
}

fn is_topic(method: Method) -> bool {
    [method::SERVOING_MODE_TOPIC, method::ARM_STATE_TOPIC].contains(&method)
}

/// Kinova's permissions for reading, changing and deleting, as far as a role has them.
fn handle(listed: &Listed) -> UserProfileHandle {
    let permission = match listed.role {
        Role::Observe => 1,
        Role::Operate => 3,
        Role::Administer => 7,
    };
    UserProfileHandle { identifier: listed.session.0.into(), permission }
}

fn roles(listed: &Listed) -> Vec<UserRole> {
    let permissions: &[UserPermission] = match listed.role {
        Role::Observe => &[UserPermission::ReadOnly],
        Role::Operate => &[UserPermission::ReadOnly, UserPermission::Operate],
        Role::Administer => &[UserPermission::ReadOnly, UserPermission::Operate, UserPermission::Configure],
    };
    let permissions: Vec<i32> = permissions.iter().map(|permission| (*permission).into()).collect();
    let own = UserRole { identifier: listed.role.to_string(), permissions };
    let temporary =
        listed.temporary.clone().map(|identifier| UserRole { identifier, permissions: Vec::new() });
    [own].into_iter().chain(temporary).collect()
}

fn from(listed: &Listed) -> String {
    listed.peer.remote.map_or_else(String::new, |remote| remote.to_string())
}

fn timestamp() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp { sec: u32::try_from(now.as_secs()).unwrap_or(u32::MAX), usec: now.subsec_micros() }
}
