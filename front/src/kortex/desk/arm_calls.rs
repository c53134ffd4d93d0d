//! Calls that are about the arm: here, at the base behind, or at both.

use std::sync::Arc;

use keys::Role;
use shm_proto::Nanos;

use super::super::arm::{Fault, Others};
use super::super::frame::Method;
use super::super::intent::Notice;
use super::super::method;
use super::super::refusal::{Refusal, Sub};
use super::super::upstream::{self, Base};
use super::{Answer, Call, Desk, is_topic, message, timestamp};
use crate::proto::kortex::{
    ActuatorInformation, ArmStateInformation, Command, JointSpeed, JointSpeeds, NotificationHandle,
    ServoingMode, ServoingModeInformation, ServoingModeNotification,
};

/// Whether a call waits until those before it are on their way to the base behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Haste {
    /// It stops something, and waits for nobody.
    Overtakes,
    /// It waits.
    InTurn,
}

impl Desk {
    /// Passes a call on to the base behind. One that moves something is the session's last use of the arm.
    pub(super) fn pass(&self, call: &Call<'_>, base: &Arc<Base>) -> Result<Answer, Refusal> {
        let (base, frame, session) = (Arc::clone(base), call.frame.clone(), call.standing().session);
        if !upstream::moves(frame.header.method) {
            let turn = base.turn(session)?;
            return Self::later(frame.header, async move {
                turn.come().await;
                base.pass(session, &frame, turn).await
            });
        }
        call.needs(Role::Operate)?;
        // First this: of a base that is lost a client has to know, whatever else keeps it from driving.
        let turn = base.turn(session)?;
        self.arm.not_latched()?;
        let hold = self.roster.hold(call.channel, &call.heeded)?;
        let (arm, origin) = (Arc::clone(&self.arm), call.heeded.origin.clone());
        Self::later(frame.header, async move {
            turn.come().await;
            let _under_way = arm.claim(&hold, &origin).await?;
            let answer = base.pass(session, &frame, turn).await;
            if arm.not_stopped(&origin).is_err() {
                // It may have gone out before this command did.
                base.stop(session).await;
            }
            answer
        })
    }

    /// Carries out a call that shows that its client knows of a stop, here and at the base behind, and notes when it is
    /// answered.
    fn take_notice(
        self: &Arc<Self>,
        call: &Call<'_>,
        notice: Notice,
        haste: Haste,
        here: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) -> Result<Answer, Refusal> {
        let (desk, heeded) = (Arc::clone(self), call.heeded.clone());
        let noted = move || desk.roster.noticed(&heeded, notice);
        match self.both(call, haste, here)? {
            Answer::Later(answer) => Ok(Answer::Later(Box::pin(async move {
                let answer = answer.await;
                let counts = match notice {
                    // A stop that failed is none.
                    Notice::Stop => answer.header.error == (0, 0),
                    // What is left to be cleared is left to an operator, not to this client.
                    Notice::ClearFaults => true,
                };
                if counts {
                    noted();
                }
                answer
            }))),
            answer @ (Answer::Now(_) | Answer::Nothing) => Ok(answer),
        }
    }

    /// Does something here, and has the base behind do the same, both at once. What fails here counts first.
    fn both(
        &self,
        call: &Call<'_>,
        haste: Haste,
        here: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) -> Result<Answer, Refusal> {
        let Some(base) = self.base.clone() else { return call.later(here) };
        let (frame, session) = (call.frame.clone(), call.standing().session);
        let turn = base.turn(session);
        Self::later(frame.header, async move {
            let there = async {
                let turn = turn?;
                match haste {
                    Haste::Overtakes => (),
                    Haste::InTurn => turn.come().await,
                }
                base.pass(session, &frame, turn).await
            };
            let (here, there) = tokio::join!(here, there);
            here?;
            there
        })
    }

    pub(super) fn at_the_arm(self: &Arc<Self>, call: &Call<'_>) -> Result<Answer, Refusal> {
        match call.frame.header.method {
            method::UNSUBSCRIBE => {
                let handle: NotificationHandle = message(call.frame)?;
                self.topics.unsubscribe(call.channel, handle.identifier)?;
                Ok(call.done())
            }
            topic if is_topic(topic) => {
                let handle = self.topics.subscribe(call.channel, call.standing().session, topic)?;
                Ok(call.now(&NotificationHandle { identifier: handle.0.into() }))
            }
            _ => self.move_or_look(call),
        }
    }

    fn move_or_look(self: &Arc<Self>, call: &Call<'_>) -> Result<Answer, Refusal> {
        match call.frame.header.method {
            method::STOP => {
                let stop = at_once(self.arm.stop(&call.heeded.origin));
                self.take_notice(call, Notice::Stop, Haste::Overtakes, stop)
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
                let stop = at_once(self.arm.stop_everything(&call.heeded.origin));
                self.both(call, Haste::Overtakes, async move { stop.await.map(drop) })
            }
            method::CLEAR_FAULTS => {
                call.needs(Role::Operate)?;
                let (arm, origin) = (Arc::clone(&self.arm), call.heeded.origin.clone());
                let clearing = async move { arm.clear_faults(&origin) };
                self.take_notice(call, Notice::ClearFaults, Haste::InTurn, clearing)
            }
            method::SET_SERVOING_MODE => self.set_servoing_mode(call),
            method::GET_SERVOING_MODE => {
                Ok(call.now(&ServoingModeInformation { servoing_mode: ServoingMode::SingleLevel.into() }))
            }
            method::GET_ARM_STATE => {
                let active_state = self.arm.state(self.fault()).into();
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
                Ok(call.now(&self.arm.feedback(asked.frame_id, self.fault())))
            }
            method::REFRESH_FEEDBACK => Ok(call.now(&self.arm.feedback(0, self.fault()))),
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
        let session = call.standing().session;
        self.arm.check(&asked)?;
        self.arm.not_latched()?;
        self.arm.control.take(session, Nanos::now())?;
        let hold = self
            .roster
            .hold(call.channel, &call.heeded)
            .inspect_err(|_| self.arm.control.release(session))?;
        call.later(self.arm.drive(hold, call.heeded.origin.clone(), &asked, others, duration)?)
    }

    /// Whether a session has to clear a fault of a drive.
    pub(super) fn fault(&self) -> Fault {
        if self.roster.has_fault() { Fault::Uncleared } else { Fault::None }
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
}

/// Has a stop begin now, and go on whatever becomes of its call: too many others of its connection may be under way.
fn at_once<T: Send + 'static>(
    stop: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> impl Future<Output = Result<T, Refusal>> + Send + 'static {
    let stopping = tokio::spawn(stop);
    async move {
        let ended = Refusal::device(Sub::RouterUnavailable, "this program ends, and the arm with it");
        stopping.await.unwrap_or(Err(ended))
    }
}
