//! The arm that clients find: joints whose motors hang on CAN.
//!
//! A command is for the whole arm. Joints that it does not name come to rest (or go on, if only one joint was to be
//! changed), and all motors are the session's from then on: when it falls silent, the arm stops, not a joint.
//!
//! Commands and stops are taken in the order in which they arrived, and carried out side by side: which of them counts is
//! decided by their [`Origin`]s, motor by motor.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::{Joint, Kortex};
use drivers::RevolutionsPerSecond;
use shm_proto::verdicts::{MotorState, MotorVerdict};
use shm_proto::{MotorIndex, Nanos, TripId};
use tokio::time::sleep;
use tracing::warn;

use super::control::Control;
use super::refusal::{Refusal, Sub};
use crate::lanyard::Orders;
use crate::link::Link;
use crate::motion::{Motion, MotionError, Notes, Target};
use crate::order::Origin;
use crate::proto::kortex::{
    ActuatorFeedback, ArmState, BaseFeedback, Feedback, JointAngle, JointAngles, JointSpeed, JointSpeeds,
};
use crate::sessions::{Hold, Sessions, Use};

const DEGREES: f64 = 360.0;
/// `EMERGENCY_STOP_ACTIVATED` of Kinova's SafetyIdentifier.
const FAULT_EMERGENCY_STOP: u32 = 0x80_0000;
/// `JOINT_FAULT` of the same.
const FAULT_JOINT: u32 = 0x10;

/// Which joints a command leaves as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Those that it does not name come to rest.
    Rest,
    /// Those that it does not name go on.
    GoOn,
}

/// Whether a session has to clear a fault of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has.
    Uncleared,
    /// None has.
    None,
}

/// The arm.
pub struct Arm {
    joints: Vec<Joint>,
    /// Those of the joints, in their order, and then those that a base behind drives.
    motors: Vec<MotorIndex>,
    link: Arc<Link>,
    sessions: Arc<Sessions>,
    motion: Arc<Motion>,
    orders: Arc<Orders>,
    /// Who has it.
    pub control: Control,
    /// What was commanded last, degrees per second for each joint.
    speeds: Mutex<Commanded>,
    /// Counts commands and stops in the order of their arrival: what is known of an older one is out of date.
    epoch: AtomicU64,
    /// The stop that arrived last. Motors keep their own; a base behind may have none on CAN.
    stop: Mutex<Option<Origin>>,
}

#[derive(Debug)]
struct Commanded {
    /// Under which watch: what an ended one had commanded is over, too.
    under: Option<Hold>,
    speeds: Vec<f64>,
}

impl Commanded {
    fn is_under(&self, hold: &Hold) -> bool {
        let same =
            |under: &Hold| Arc::ptr_eq(&under.attachment, &hold.attachment) && under.owner == hold.owner;
        self.under.as_ref().is_some_and(same)
    }
}

/// What the arm needs of the front.
#[derive(Clone)]
pub struct Parts {
    /// The connection to the supervisor.
    pub link: Arc<Link>,
    /// All sessions.
    pub sessions: Arc<Sessions>,
    /// All motors.
    pub motion: Arc<Motion>,
    /// An operator's orders.
    pub orders: Arc<Orders>,
}

/// What a command makes of the arm.
struct Plan {
    targets: Vec<Target>,
    /// Its place among commands and stops.
    epoch: u64,
    /// Whether anything turns.
    moves: bool,
}

impl Arm {
    /// The arm of a configuration, at rest.
    #[must_use]
    pub fn new(settings: &Kortex, parts: Parts) -> Self {
        let joints = settings.joints.iter().map(|joint| joint.motor);
        let behind = settings.upstream.iter().flat_map(|base| base.motors.iter().copied());
        let Parts { link, sessions, motion, orders } = parts;
        Self {
            motors: joints
                .chain(behind)
                .map(|motor| MotorIndex(u16::try_from(motor).unwrap_or(u16::MAX)))
                .collect(),
            link,
            sessions,
            motion,
            orders,
            control: Control::new(crate::sessions::window(settings.control_grace).0),
            speeds: Mutex::new(Commanded { under: None, speeds: vec![0.0; settings.joints.len()] }),
            joints: settings.joints.clone(),
            epoch: AtomicU64::new(0),
            stop: Mutex::default(),
        }
    }

    /// How many joints it has.
    #[must_use]
    pub fn joints(&self) -> u32 {
        u32::try_from(self.joints.len()).unwrap_or(u32::MAX)
    }

    fn speeds(&self) -> MutexGuard<'_, Commanded> {
        self.speeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has joints turn at these speeds, which [`Self::check`] has seen: until the next command, or for `duration` seconds
    /// if that is not 0. To be called in the order in which commands arrive; what it returns may run in any.
    ///
    /// # Errors
    ///
    /// When a motor cannot, or something newer has come; then none turns by this command.
    pub fn drive(
        self: &Arc<Self>,
        hold: Hold,
        origin: Origin,
        asked: &[JointSpeed],
        others: Others,
        duration: u32,
    ) -> Result<impl Future<Output = Result<(), Refusal>> + Send + use<>, Refusal> {
        let under_way = self.sessions.use_resource(&hold, Kortex::ARM, &self.motors)?;
        let Plan { targets, epoch, moves } = self.plan(&hold, asked, others);
        let arm = Arc::clone(self);
        Ok(async move {
            if let Err(error) = arm.motion.turn(&hold, &origin, &targets).await {
                arm.forget(epoch);
                return Err(error.into());
            }
            drop(under_way);
            if !moves {
                arm.rest(epoch);
            } else if duration > 0 {
                tokio::spawn(arm.end_after(duration, epoch, hold, origin));
            }
            Ok(())
        })
    }

    /// Works out what each joint does from this command on.
    fn plan(&self, hold: &Hold, asked: &[JointSpeed], others: Others) -> Plan {
        let mut commanded = self.speeds();
        if others == Others::Rest || !commanded.is_under(hold) {
            commanded.speeds.fill(0.0);
        }
        commanded.under = Some(hold.clone());
        for joint in asked {
            let place = usize::try_from(joint.joint_identifier).unwrap_or(usize::MAX);
            if let Some(speed) = commanded.speeds.get_mut(place) {
                *speed = f64::from(joint.value);
            }
        }
        let moves = commanded.speeds.iter().any(|speed| *speed != 0.0);
        Plan { targets: self.targets(&commanded.speeds), epoch: self.next(), moves }
    }

    /// Takes the arm for a session that has a base behind move it. The command is under way until the [`Use`] is dropped.
    ///
    /// # Errors
    ///
    /// When a motor is not granted, or a stop keeps it from being moved.
    pub async fn claim(&self, hold: &Hold, origin: &Origin) -> Result<Use, Refusal> {
        self.is_free(origin)?;
        let under_way = self.sessions.use_resource(hold, Kortex::ARM, &self.motors)?;
        self.motion.claim(hold, origin, &self.motors[self.joints.len()..]).await?;
        self.not_stopped(origin)?;
        Ok(under_way)
    }

    /// Brings the arm to rest when the time of a command is over. It counts as that command does: a newer one, or a stop,
    /// has taken its place.
    async fn end_after(self: Arc<Self>, seconds: u32, epoch: u64, hold: Hold, origin: Origin) {
        sleep(Duration::from_secs(seconds.into())).await;
        self.forget(epoch);
        let rest = self.targets(&vec![0.0; self.joints.len()]);
        match self.motion.turn(&hold, &origin, &rest).await {
            Ok(()) => self.rest(epoch),
            // Stopped already, or another's by now.
            Err(
                MotionError::SessionExpired
                | MotionError::NotGranted { .. }
                | MotionError::OlderThanTrip { .. }
                | MotionError::Superseded,
            ) => {}
            Err(error) => {
                warn!("the time of a joint speed command is over, and the arm is stopped: {error}");
                // Reported by whoever sends it; the supervisor is the next to stop it.
                drop(self.motion.halt(&self.motors).await);
            }
        }
    }

    /// What was commanded up to then is over, unless something newer has come.
    fn forget(&self, epoch: u64) {
        let mut commanded = self.speeds();
        if self.epoch.load(Ordering::Relaxed) == epoch {
            commanded.speeds.fill(0.0);
        }
    }

    /// Nothing more is expected of who has the arm, unless something newer has come.
    fn rest(&self, epoch: u64) {
        if self.epoch.load(Ordering::Relaxed) == epoch {
            self.sessions.rest(Kortex::ARM);
        }
    }

    fn next(&self) -> u64 {
        self.epoch.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether these are speeds of joints that there are.
    ///
    /// # Errors
    ///
    /// INVALID_PARAM, saying which is not.
    pub fn check(&self, asked: &[JointSpeed]) -> Result<(), Refusal> {
        let wrong = |text| Err(Refusal::protocol(Sub::InvalidParam, text));
        let mut seen = HashSet::new();
        for joint in asked {
            let number = joint.joint_identifier;
            if number >= self.joints() {
                return wrong(format!(
                    "there is no joint {number}; this arm has {}, the first is 0",
                    self.joints()
                ));
            }
            if !seen.insert(number) {
                return wrong(format!("joint {number} is named twice"));
            }
            if !joint.value.is_finite() {
                return wrong(format!("the speed of joint {number} is no number: {}", joint.value));
            }
        }
        if asked.is_empty() { wrong("no joint is named".to_owned()) } else { Ok(()) }
    }

    fn targets(&self, speeds: &[f64]) -> Vec<Target> {
        let target = |((motor, joint), degrees): ((&MotorIndex, &Joint), &f64)| {
            #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution drives take")]
            let speed = RevolutionsPerSecond((degrees / DEGREES * joint.gear_ratio) as f32);
            Target { motor: *motor, speed }
        };
        self.motors.iter().zip(&self.joints).zip(speeds).map(target).collect()
    }

    fn last_stop(&self) -> MutexGuard<'_, Option<Origin>> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no stop has arrived after this command began.
    ///
    /// # Errors
    ///
    /// METHOD_FAILED when one has.
    pub fn not_stopped(&self, command: &Origin) -> Result<(), Refusal> {
        let is_void = |stop: &Origin| command.began().is_before(stop.complete());
        if self.last_stop().as_ref().is_some_and(is_void) {
            return Err(Refusal::device(Sub::MethodFailed, "a Stop has come after this command, and counts"));
        }
        Ok(())
    }

    /// Whether no stop keeps this command from moving a base behind.
    fn is_free(&self, command: &Origin) -> Result<(), Refusal> {
        self.not_stopped(command)?;
        let stop = self.last_stop().clone();
        let Some(stop) = stop.filter(|stop| stop.sender().is_elsewhere(command.sender())) else {
            return Ok(());
        };
        match command.began().left_of(self.sessions.rules().stop_hold, stop.complete().at()) {
            None => Ok(()),
            Some(left) => {
                let left = left.as_nanos().div_ceil(1_000_000);
                let text = format!(
                    "the arm was stopped over another connection of yours; a command over this one is taken in {left} ms"
                );
                Err(Refusal::device(Sub::MethodFailed, text))
            }
        }
    }

    /// Notes that a stop has arrived: what arrived before it is void. Returns its place among commands and stops.
    fn note_stop(&self, stop: &Origin) -> u64 {
        {
            let mut last = self.last_stop();
            if last.as_ref().is_none_or(|last| last.complete().is_before(stop.complete())) {
                *last = Some(stop.clone());
            }
        }
        let mut commanded = self.speeds();
        commanded.speeds.fill(0.0);
        self.next()
    }

    /// Stops the arm, whoever has it. To be called in the order in which stops arrive; what it returns may run in any.
    ///
    /// # Errors
    ///
    /// When a stop did not get onto its bus.
    pub fn stop(
        self: &Arc<Self>,
        origin: &Origin,
    ) -> impl Future<Output = Result<(), Refusal>> + Send + use<> {
        let epoch = self.note_stop(origin);
        let (arm, origin) = (Arc::clone(self), origin.clone());
        async move {
            // With Kinova's arms a Stop clears no fault.
            arm.motion.stop(&origin, &arm.motors, Notes::Stop).await?;
            arm.rest(epoch);
            Ok(())
        }
    }

    /// Stops everything and keeps it stopped. To be called as [`Self::stop`].
    ///
    /// # Errors
    ///
    /// When the supervisor was not reached.
    pub fn stop_everything(
        self: &Arc<Self>,
        origin: &Origin,
    ) -> impl Future<Output = Result<TripId, Refusal>> + Send + use<> {
        self.note_stop(origin);
        let orders = Arc::clone(&self.orders);
        let unreached =
            |why: tonic::Status| Refusal::device(Sub::RouterUnavailable, why.message().to_owned());
        async move { orders.stop_everything().await.map_err(unreached) }
    }

    /// Whether nothing keeps the arm stopped until an operator resets it.
    ///
    /// # Errors
    ///
    /// ROBOT_IN_FAULT when something does, with the command that clears it.
    pub fn not_latched(&self) -> Result<(), Refusal> {
        let Some(resets) = self.resets() else { return Ok(()) };
        let text = format!("the arm is kept stopped: run {resets} on the robot when it may move again");
        Err(Refusal::device(Sub::RobotInFault, text))
    }

    /// The commands that let the arm move again, if it is kept stopped.
    fn resets(&self) -> Option<String> {
        let trips = self.trips();
        let resets: Vec<String> = trips.iter().map(|trip| format!("`lanyard reset {trip}`")).collect();
        (!resets.is_empty()).then(|| resets.join(", "))
    }

    /// Notes that a party knows of what has stopped it, faults of drives included. What waits for a person at the robot goes
    /// on waiting.
    ///
    /// # Errors
    ///
    /// ROBOT_IN_FAULT when something does, with the command that clears it.
    pub fn clear_faults(&self, origin: &Origin) -> Result<(), Refusal> {
        self.motion.acknowledge(origin, &self.motors, Notes::StopAndDriveFault);
        let Some(resets) = self.resets() else { return Ok(()) };
        let text = format!(
            "your own faults are cleared, but nothing that comes over the network lets this arm move again: run \
             {resets} on the robot when it may"
        );
        Err(Refusal::device(Sub::RobotInFault, text))
    }

    /// The trips that keep something from moving until an operator resets them.
    fn trips(&self) -> Vec<TripId> {
        let Some(attachment) = self.link.current() else { return Vec::new() };
        let motors = self.verdicts().into_iter().filter(|verdict| verdict.latched != 0);
        let mut trips: Vec<_> =
            motors.map(|verdict| verdict.trip).chain([attachment.verdicts.latch()]).collect();
        trips.retain(|trip| *trip != TripId::NONE);
        trips.sort_by_key(|trip| trip.0);
        trips.dedup();
        trips
    }

    fn verdicts(&self) -> Vec<MotorVerdict> {
        let Some(attachment) = self.link.current() else { return Vec::new() };
        self.motors.iter().filter_map(|motor| attachment.verdicts.motor(*motor)).collect()
    }

    /// What it does. `fault`: whether a session has to clear one.
    #[must_use]
    pub fn state(&self, fault: Fault) -> ArmState {
        if self.link.current().is_none() {
            return ArmState::Idle;
        }
        if self.fault_bits(fault) != 0 {
            return ArmState::InFault;
        }
        match self.control.holder(Nanos::now()) {
            Some(_) => ArmState::ManuallyControlled,
            None => ArmState::ServoingReady,
        }
    }

    /// What keeps it from moving, in Kinova's bits. A motor that is being stopped for a trip is in fault until it is proven
    /// to stand still: nobody may take it for ready.
    fn fault_bits(&self, fault: Fault) -> u32 {
        let latched = self.link.current().is_some_and(|link| link.verdicts.latch() != TripId::NONE);
        let is_being_stopped = |verdict: &MotorVerdict| match verdict.state {
            MotorState::Stopping => verdict.trip != TripId::NONE,
            MotorState::Unverified => true,
            MotorState::Idle | MotorState::Granted | MotorState::Stopped => false,
        };
        let ails =
            |verdict: &MotorVerdict| verdict.fault != 0 || verdict.latched != 0 || is_being_stopped(verdict);
        let joint = fault == Fault::Uncleared || self.verdicts().iter().any(ails);
        (if latched { FAULT_EMERGENCY_STOP } else { 0 }) | (if joint { FAULT_JOINT } else { 0 })
    }

    /// Position (degrees) and speed (degrees per second) of each joint, as far as its drive tells them.
    fn measured(&self) -> impl Iterator<Item = (u32, Option<f32>, Option<f32>)> {
        (0..).zip(self.motors.iter().zip(&self.joints)).map(|(number, (motor, joint))| {
            let reading = self.motion.reading(*motor);
            let degrees = |revolutions: f64| revolutions / joint.gear_ratio * DEGREES;
            #[expect(clippy::cast_possible_truncation, reason = "f32 is what clients get")]
            let (angle, speed) = (
                reading.position.map(|position| degrees(position.0).rem_euclid(DEGREES) as f32),
                reading.velocity.map(|velocity| degrees(f64::from(velocity.0)) as f32),
            );
            (number, angle.filter(|_| reading.fresh), speed.filter(|_| reading.fresh))
        })
    }

    /// Where the joints are.
    ///
    /// # Errors
    ///
    /// When a drive does not tell: an angle that is made up would be believed.
    pub fn angles(&self) -> Result<JointAngles, Refusal> {
        let angle = |(joint_identifier, angle, _)| match angle {
            Some(value) => Ok(JointAngle { joint_identifier, value }),
            None => Err(unknown(joint_identifier, "position")),
        };
        Ok(JointAngles { joint_angles: self.measured().map(angle).collect::<Result<_, _>>()? })
    }

    /// How fast the joints turn.
    ///
    /// # Errors
    ///
    /// When a drive does not tell.
    pub fn speeds_now(&self) -> Result<JointSpeeds, Refusal> {
        let speed = |(joint_identifier, _, speed)| match speed {
            Some(value) => Ok(JointSpeed { joint_identifier, value, duration: 0 }),
            None => Err(unknown(joint_identifier, "speed")),
        };
        let joint_speeds = self.measured().map(speed).collect::<Result<_, _>>()?;
        Ok(JointSpeeds { joint_speeds, duration: 0 })
    }

    /// All of it at once, as cyclic clients want it. What a drive does not tell is no number. `fault` as for
    /// [`Self::state`].
    #[must_use]
    pub fn feedback(&self, frame_id: u32, fault: Fault) -> Feedback {
        let actuator = |(number, angle, speed): (u32, Option<f32>, Option<f32>)| ActuatorFeedback {
            // Device in the first two bytes; the first joint of an arm is device 1.
            command_id: (number + 1) << 16 | frame_id & 0xFFFF,
            status_flags: 0,
            position: angle.unwrap_or(f32::NAN),
            velocity: speed.unwrap_or(f32::NAN),
        };
        let base = BaseFeedback {
            active_state_connection_identifier: self
                .control
                .holder(Nanos::now())
                .map_or(0, |session| session.0.into()),
            active_state: self.state(fault).into(),
            fault_bank_a: self.fault_bits(fault),
        };
        Feedback { frame_id, base: Some(base), actuators: self.measured().map(actuator).collect() }
    }
}

fn unknown(joint: u32, what: &str) -> Refusal {
    let text =
        format!("the drive of joint {joint} does not tell its {what}, or was not heard for half a second");
    Refusal::device(Sub::RobotNotReady, text)
}
