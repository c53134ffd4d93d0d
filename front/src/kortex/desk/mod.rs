//! All services, whatever carries the calls.
//!
//! A call passes in this order: it is a frame, its session is this connection's and alive, the session may do it. Sessions,
//! and everything that is known already, are answered at once; what waits for a drive, a password or the supervisor is
//! carried out beside, so that no heartbeat waits for it.
//!
//! What lives here: what each call does, in terms of sessions, arm and base. What must never live here: a transport, or what a
//! frame is made of.
//!
//! | file | its one idea |
//! |---|---|
//! | [`session_calls`] | calls that are about sessions |
//! | [`arm_calls`] | calls that are about the arm, here or at the base behind |

mod arm_calls;
mod session_calls;

use std::sync::Arc;
use std::time::Duration;

use config::Kortex;
use keys::Role;
use prost::Message;
use shm_proto::Window;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use self::session_calls::roles;
use super::arm::{Arm, Parts};
use super::channel::{Channel, Later};
use super::control::Arbitration;
use super::frame::{Frame, Header, Kind, Method, SessionNumber};
use super::intake::Heard;
use super::method;
use super::refusal::{Refusal, Sub};
use super::roster::{Gone, Heeded, Listed, Roster, Standing};
use super::sequence::{Late, Urge};
use super::topics::Topics;
use super::upstream::{self, Base};
use crate::access::Access;
use crate::proto::kortex::{
    AccessControlOptions, ArmState, ArmStateNotification, SessionStatus, SessionStatusHandle, Timestamp,
};

/// How often silent sessions are looked for, and changes of the arm's state. The supervisor does not wait for it.
const LOOK: Duration = Duration::from_millis(20);

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
        let mut state = self.arm.state(self.fault());
        loop {
            tokio::select! {
                departed = departures.recv() => {
                    // Its sender lives as long as the sessions.
                    let Some(departed) = departed else { return };
                    if let Some(session) = self.roster.departed(departed.id) {
                        self.arm.control.release(session);
                        if let Some(base) = self.base.clone() {
                            tokio::spawn(async move { base.stop(session).await });
                        }
                    }
                }
                _ = ticks.tick() => {
                    let over = self.roster.sweep();
                    self.gone(&over);
                    let now = self.arm.state(self.fault());
                    if now != std::mem::replace(&mut state, now) {
                        self.tell_state(now);
                    }
                }
            }
        }
    }

    /// Returns when the base behind has been told of every session that is over, or does not answer.
    pub async fn settle(&self) {
        if let Some(base) = &self.base {
            base.settle().await;
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
            if let Some(base) = &self.base {
                base.close(*gone);
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
        if self.is_from_behind(topic) {
            channel.wanted.send_if_modified(|wanted| wanted.insert(topic));
            return true;
        }
        is_topic(topic) && self.topics.subscribe(channel, SessionNumber::default(), topic).is_ok()
    }

    /// Ends that.
    pub fn unsubscribe(&self, channel: &Channel, topic: Method) {
        channel.wanted.send_if_modified(|wanted| wanted.remove(&topic));
        self.topics.leave(channel, topic);
    }

    /// Whether a base behind tells of that, and this program does not.
    fn is_from_behind(&self, topic: Method) -> bool {
        self.base.is_some() && !self.is_ours(topic)
    }

    /// Has the next session get that number.
    #[cfg(test)]
    pub fn promise(&self, number: SessionNumber) {
        self.roster.promise(number);
    }

    /// One frame, as it came. To be called for the frames of a connection in their order.
    #[must_use]
    pub fn ask(self: &Arc<Self>, channel: &Arc<Channel>, bytes: &[u8], heard: Heard) -> Answer {
        let frame = match Frame::read(bytes) {
            Ok(frame) => frame,
            Err(defect) => return defect.answer().map_or(Answer::Nothing, Answer::Now),
        };
        match frame.header.kind {
            Kind::Request => self.request(channel, &frame, heard),
            Kind::Pong => {
                // An answer to nobody is none.
                drop(self.roster.heed(channel, &frame.header, Urge::Neither, heard));
                Answer::Nothing
            }
            Kind::Ping => {
                let header = Header { kind: Kind::Pong, ..frame.header };
                Answer::Now(Frame { header, payload: frame.payload })
            }
            Kind::Raw | Kind::Response | Kind::Notification => Answer::Nothing,
        }
    }

    fn request(self: &Arc<Self>, channel: &Arc<Channel>, frame: &Frame, heard: Heard) -> Answer {
        let answered = match frame.header.method {
            method::CREATE_SESSION => self.create(channel, frame),
            method => {
                let heeded = self.roster.heed(channel, &frame.header, self.urge(method), heard);
                heeded.and_then(|heeded| self.in_order(&Call { channel, frame, heeded }))
            }
        };
        answered.unwrap_or_else(|refusal| Answer::Now(Frame::refused(&frame.header, &refusal)))
    }

    /// Serves a call, unless it would move something after what was sent later.
    fn in_order(self: &Arc<Self>, call: &Call<'_>) -> Result<Answer, Refusal> {
        match call.heeded.order {
            Ok(()) => self.serve(call),
            // The first of both is answered.
            Err(Late::Repeated) => Ok(Answer::Nothing),
            Err(Late::Overtaken) => {
                let text =
                    "a command or a Stop that was sent after this command has arrived before it, and counts";
                Err(Refusal::device(Sub::MethodFailed, text))
            }
        }
    }

    /// What a method does to the arm.
    fn urge(&self, method: Method) -> Urge {
        match method {
            method::STOP | method::APPLY_EMERGENCY_STOP => Urge::Stops,
            method::SEND_JOINT_SPEEDS | method::SEND_SELECTED_JOINT_SPEED => Urge::Moves,
            method if self.is_from_behind(method) && upstream::moves(method) => Urge::Moves,
            _ => Urge::Neither,
        }
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

    fn serve(self: &Arc<Self>, call: &Call<'_>) -> Result<Answer, Refusal> {
        if call.frame.header.device != 0 {
            let text =
                format!("there is no device {}; only the base (0) is served", call.frame.header.device);
            return Err(Refusal::protocol(Sub::InvalidDevice, text));
        }
        match call.frame.header.method {
            method::CLOSE_SESSION => {
                let gone = self.roster.close(call.channel, call.standing().session)?;
                self.gone(gone.as_slice());
                Ok(call.done())
            }
            method::KEEP_ALIVE => Ok(call.done()),
            method::GET_CONNECTIONS => Ok(self.connections(call)),
            method::ADD_TEMPORARY_USER_ROLE => self.promote(call),
            method::REMOVE_TEMPORARY_USER_ROLE => {
                self.roster.demote(call.channel, call.standing().session)?;
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
    heeded: Heeded,
}

impl Call<'_> {
    const fn standing(&self) -> &Standing {
        &self.heeded.standing
    }

    fn now(&self, message: &impl Message) -> Answer {
        Answer::Now(Frame::answer(&self.frame.header, self.standing().session, message))
    }

    fn done(&self) -> Answer {
        self.now(&())
    }

    fn later(
        &self,
        work: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) -> Result<Answer, Refusal> {
        let (header, session) = (self.frame.header, self.standing().session);
        Desk::later(header, async move {
            work.await?;
            Ok(Frame::answer(&header, session, &()))
        })
    }

    fn needs(&self, role: Role) -> Result<(), Refusal> {
        if self.standing().role >= role {
            return Ok(());
        }
        let text = format!(
            "the user of this session has the role \"{}\", and this takes \"{role}\"",
            self.standing().role
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

fn timestamp() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp { sec: u32::try_from(now.as_secs()).unwrap_or(u32::MAX), usec: now.subsec_micros() }
}
