//! Motion over CAN: the only code of the front that sends frames to motors.
//!
//! A command passes in this order, and no frame goes out before the end of it: the session lives, the
//! motor's owner word is taken, the supervisor's grant is seen, the drive is enabled if it does not say
//! that it is, every motor of the command is that far. Then the set-point is sent, and sent again every
//! refresh for the drive's own watchdog; the grant is looked at before and after every frame.
//!
//! | file | its one idea |
//! |---|---|
//! | [`actor`] | the one task that moves a motor |
//! | [`desk`] | how commands and stops reach it: nothing queues up |
//! | [`mailbox`] | in what order commands and stops count |
//! | [`intent`] | whether a command for a motor that was stopped is meant |
//! | [`grant`] | whether a session may move a motor, and if not, why |
//! | [`group`] | motors of one command start and fail together |
//! | [`enable`] | how the steps of an enable programme end |
//! | [`travel`] | how fast to turn to come to rest at a distance |
//! | [`feedback`] | what a drive said last |
//! | [`regulator`] | the speed of a drive that takes currents |
//! | [`line`] | frames that command several motors at once |
//! | [`bus`], [`interface`], [`wire`] | CAN sockets |

mod actor;
mod bus;
mod desk;
mod enable;
mod error;
mod feedback;
mod grant;
mod group;
mod intent;
mod interface;
mod line;
mod mailbox;
mod regulator;
#[cfg(test)]
mod tests;
mod travel;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use config::Config;
use drivers::{Power, Revolutions, RevolutionsPerSecond, VelocityError};
use shm_proto::{MotorIndex, Nanos};
use tokio::sync::oneshot;

use crate::order::Origin;
use crate::sessions::Hold;
use actor::{Actor, Times};
use bus::{Bus, Listener};
use desk::{Aim, Answer, Desk, Job, Stage};
pub use error::{MotionError, MotionStartError};
use feedback::Feedback;
pub use grant::Permit;
use group::Group;
pub use intent::Notes;
use intent::{Facts, Intent, Objection};
use line::Line;
use mailbox::Refused;
use travel::Leg;
#[cfg(test)]
pub use wire::NoWire;
pub use wire::{SendError, Wire};

/// A motor and the speed it is to turn at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The motor.
    pub motor: MotorIndex,
    /// Its speed; positive is the robot's direction, as the configuration has it.
    pub speed: RevolutionsPerSecond,
}

/// A motor and how far it is to turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Travel {
    /// The motor.
    pub motor: MotorIndex,
    /// Its speed on the way; the direction is the sign of speed times revolutions.
    pub speed: RevolutionsPerSecond,
    /// How far.
    pub revolutions: f64,
}

/// What is known of a motor, in the robot's direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Measured speed.
    pub velocity: Option<RevolutionsPerSecond>,
    /// Measured position.
    pub position: Option<Revolutions>,
    /// The drive's word on its power stage.
    pub power: Option<Power>,
    /// The set-point that is being sent; `None` when nothing is.
    pub commanded: Option<RevolutionsPerSecond>,
    /// Whether the drive was heard within half a second.
    pub fresh: bool,
}

/// What the tasks around one motor share.
struct Station {
    desk: Desk,
    feedback: Feedback,
    intent: Intent,
    /// The set-point as bits, drive's direction; NaN: none.
    commanded: AtomicU32,
}

impl Station {
    fn new() -> Arc<Self> {
        let commanded = AtomicU32::new(f32::NAN.to_bits());
        Arc::new(Self { desk: Desk::new(), feedback: Feedback::new(), intent: Intent::default(), commanded })
    }

    fn set_commanded(&self, speed: Option<RevolutionsPerSecond>) {
        let bits = speed.map_or(f32::NAN, |speed| speed.0).to_bits();
        self.commanded.store(bits, Ordering::Relaxed);
    }

    fn commanded(&self) -> Option<RevolutionsPerSecond> {
        let speed = f32::from_bits(self.commanded.load(Ordering::Relaxed));
        (!speed.is_nan()).then_some(RevolutionsPerSecond(speed))
    }
}

/// Moves the configured motors.
pub struct Motion {
    config: Arc<Config>,
    stations: Vec<Arc<Station>>,
}

impl Motion {
    /// Opens every bus and starts a task per bus and per motor.
    ///
    /// # Errors
    ///
    /// When an interface is missing, down or not what the configuration says.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(config: Arc<Config>) -> Result<Arc<Self>, MotionStartError> {
        let stations = stations(&config);
        let mut wires: Vec<Arc<dyn Wire>> = Vec::new();
        for (index, settings) in config.buses.iter().enumerate() {
            let motors = config.motors.iter().zip(&stations).filter(|(motor, _)| motor.bus == index);
            let listeners = motors
                .map(|(motor, station)| Listener { drive: motor.drive.clone(), station: Arc::clone(station) })
                .collect();
            wires.push(Bus::open(settings, listeners)?);
        }
        Ok(Self::over(config, stations, &wires))
    }

    /// Starts a task per motor over other wires than CAN interfaces, one per bus.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start_over(config: Arc<Config>, wires: &[Arc<dyn Wire>]) -> Arc<Self> {
        let stations = stations(&config);
        Self::over(config, stations, wires)
    }

    /// Starts a task per motor over one wire per bus.
    fn over(config: Arc<Config>, stations: Vec<Arc<Station>>, wires: &[Arc<dyn Wire>]) -> Arc<Self> {
        let times = Times {
            refresh: config.front.refresh,
            grant: config.front.grant_timeout,
            enable: config.front.enable_timeout,
        };
        let lines: Vec<_> = wires.iter().map(|wire| Line::new(Arc::clone(wire))).collect();
        for (motor, station) in config.motors.iter().zip(&stations) {
            let (Some(line), Some(bus)) = (lines.get(motor.bus), config.buses.get(motor.bus)) else {
                continue;
            };
            let actor = Actor::new(Arc::clone(station), Arc::clone(line), motor, &bus.name, times);
            tokio::spawn(actor.run());
        }
        Arc::new(Self { config, stations })
    }

    /// Makes motors turn until told otherwise. Returns when every set-point is on its way; from then on
    /// they are kept up until a newer command, a stop, or the end of the grant.
    ///
    /// # Errors
    ///
    /// When any of the motors cannot; then none of them goes on with this command.
    pub async fn turn(&self, hold: &Hold, origin: &Origin, targets: &[Target]) -> Result<(), MotionError> {
        self.admit(hold)?;
        let aims = targets.iter().map(|target| {
            let speed = self.checked_speed(target.motor, target.speed)?;
            Ok((target.motor, Aim::Turn(speed)))
        });
        let aims: Vec<_> = aims.collect::<Result<_, MotionError>>()?;
        self.carry_out(hold, origin, aims).await
    }

    /// Turns motors by a distance. Returns when every one of them has arrived.
    ///
    /// # Errors
    ///
    /// When any of the motors cannot; then none of them goes on with this command.
    pub async fn travel(&self, hold: &Hold, origin: &Origin, legs: &[Travel]) -> Result<(), MotionError> {
        self.admit(hold)?;
        let aims = legs.iter().map(|leg| {
            let speed = self.checked_speed(leg.motor, leg.speed)?;
            if !leg.revolutions.is_finite() {
                return Err(self.unfit(leg.motor, "the distance is not a finite number"));
            }
            if speed.0 == 0.0 && leg.revolutions != 0.0 {
                return Err(self.unfit(leg.motor, "at speed 0 no distance is ever done; give a speed"));
            }
            Ok((leg.motor, Aim::Travel(Leg::new(speed, leg.revolutions))))
        });
        let aims: Vec<_> = aims.collect::<Result<_, MotionError>>()?;
        self.carry_out(hold, origin, aims).await
    }

    /// Takes motors for a session that has them driven by somebody else, a server behind the front. Returns when the
    /// supervisor has granted every one. No frame is sent, and whatever this side was doing with them ends.
    ///
    /// # Errors
    ///
    /// When any of them is not granted.
    pub async fn claim(
        &self,
        hold: &Hold,
        origin: &Origin,
        motors: &[MotorIndex],
    ) -> Result<(), MotionError> {
        self.admit(hold)?;
        self.carry_out(hold, origin, motors.iter().map(|motor| (*motor, Aim::Leave)).collect()).await
    }

    /// Whether a session has motors, to be looked at as often as is wanted.
    #[must_use]
    pub fn permits(&self, hold: &Hold, motors: &[MotorIndex]) -> Vec<Permit> {
        let named = |motor: &MotorIndex| {
            let name = self.config.motors.get(usize::from(motor.0)).map_or("", |settings| &settings.name);
            Permit::new(hold, *motor, name, self.patience())
        };
        motors.iter().map(named).collect()
    }

    /// Stops motors at some party's wish: whatever they are doing or waiting for ends if it arrived before, and the
    /// controlled stop goes out, with or without a session. Returns when it has gone out. The party has then taken note of
    /// what `notes` says.
    ///
    /// # Errors
    ///
    /// When it did not get onto a bus within half a second.
    pub async fn stop(
        &self,
        origin: &Origin,
        motors: &[MotorIndex],
        notes: Notes,
    ) -> Result<(), MotionError> {
        // All are asked before any is waited for.
        let asked = self.ask(motors, |desk| desk.ask_stop(origin));
        let mut answer = Ok(());
        for (motor, number) in asked {
            // A command that was sent after this stop is at work: the stop has had its time.
            let Some(number) = number else { continue };
            let stopped = self.stopped(motor, number).await;
            if stopped.is_ok() {
                self.note(origin, motor, notes);
            }
            answer = answer.and(stopped);
        }
        answer
    }

    /// Stops motors for a reason of this program's own: whatever they are doing or waiting for ends. No party has taken
    /// note of anything by it.
    ///
    /// # Errors
    ///
    /// As for [`Self::stop`].
    pub async fn halt(&self, motors: &[MotorIndex]) -> Result<(), MotionError> {
        let asked = self.ask(motors, |desk| Some(desk.ask_own_stop()));
        let mut answer = Ok(());
        for (motor, number) in asked {
            if let Some(number) = number {
                answer = answer.and(self.stopped(motor, number).await);
            }
        }
        answer
    }

    fn ask(
        &self,
        motors: &[MotorIndex],
        ask: impl Fn(&Desk) -> Option<u64>,
    ) -> Vec<(MotorIndex, Option<u64>)> {
        let asked = |motor: &MotorIndex| Some((*motor, ask(&self.station(*motor)?.desk)));
        motors.iter().filter_map(asked).collect()
    }

    async fn stopped(&self, motor: MotorIndex, number: u64) -> Result<(), MotionError> {
        match self.station(motor) {
            Some(station) => station.desk.stopped(number).await,
            None => Ok(()),
        }
    }

    /// Remembers that a party has taken note of a stop of motors, and of their drives' faults if `notes` says so, by another
    /// call than a Stop. To be called when its answer is given.
    pub fn acknowledge(&self, origin: &Origin, motors: &[MotorIndex], notes: Notes) {
        for motor in motors {
            self.note(origin, *motor, notes);
        }
    }

    fn note(&self, origin: &Origin, motor: MotorIndex, notes: Notes) {
        let Some(station) = self.station(motor) else { return };
        station.intent.note(origin, notes, Nanos::now());
    }

    fn station(&self, motor: MotorIndex) -> Option<&Arc<Station>> {
        self.stations.get(usize::from(motor.0))
    }

    /// What is known of a motor.
    #[must_use]
    pub fn reading(&self, motor: MotorIndex) -> Reading {
        let place = usize::from(motor.0);
        let (Some(station), Some(settings)) = (self.stations.get(place), self.config.motors.get(place))
        else {
            return Reading::default();
        };
        let oriented = |speed: RevolutionsPerSecond| orient(settings, speed);
        let feedback = &station.feedback;
        Reading {
            velocity: feedback.velocity().map(|velocity| oriented(velocity.value)),
            position: feedback
                .position()
                .map(|position| Revolutions(position.value.0 * settings.direction.sign())),
            power: feedback.power().map(|power| power.value),
            commanded: station.commanded().map(oriented),
            fresh: feedback.fresh(),
        }
    }

    /// The speed in the drive's direction, if it may be commanded.
    fn checked_speed(
        &self,
        motor: MotorIndex,
        speed: RevolutionsPerSecond,
    ) -> Result<RevolutionsPerSecond, MotionError> {
        let Some(settings) = self.config.motors.get(usize::from(motor.0)) else {
            return Err(self.unfit(motor, "no such motor is configured"));
        };
        let speed = orient(settings, speed);
        let refused = |error: VelocityError| MotionError::Speed { motor: settings.name.clone(), error };
        settings.drive.velocity(speed).map(|_| speed).map_err(refused)
    }

    fn unfit(&self, motor: MotorIndex, what: &str) -> MotionError {
        let name = self.config.motors.get(usize::from(motor.0)).map(|settings| settings.name.clone());
        MotionError::Drive {
            motor: name.unwrap_or_else(|| format!("number {}", motor.0)),
            what: what.to_owned(),
        }
    }

    /// A session that is over touches nothing, not even what another one has set moving.
    fn admit(&self, hold: &Hold) -> Result<(), MotionError> {
        grant::alive(&hold.attachment, hold.owner, self.patience())
    }

    async fn carry_out(
        &self,
        hold: &Hold,
        origin: &Origin,
        aims: Vec<(MotorIndex, Aim)>,
    ) -> Result<(), MotionError> {
        if origin.is_over(Nanos::now()) {
            return Err(MotionError::DeadlineOver);
        }
        let patience = self.patience();
        let mut seen = HashSet::new();
        if let Some((motor, _)) = aims.iter().find(|(motor, _)| !seen.insert(*motor)) {
            return Err(self.unfit(*motor, "one command names it twice"));
        }
        let mut permits = Vec::with_capacity(aims.len());
        for (motor, aim) in aims {
            let place = usize::from(motor.0);
            let (Some(station), Some(settings)) = (self.stations.get(place), self.config.motors.get(place))
            else {
                continue;
            };
            let permit = Permit::new(hold, motor, &settings.name, patience);
            self.is_meant(station, settings, &permit, origin)?;
            permits.push((station, settings, permit, aim));
        }
        let group = Arc::new(Group::new(permits.len()));
        let mut replies = Vec::with_capacity(permits.len());
        let mut answer = Ok(());
        for (station, settings, permit, aim) in permits {
            let (reply, told) = oneshot::channel();
            let job =
                Job { permit, aim, group: Arc::clone(&group), reply: Some(reply), stage: Stage::Preparing };
            match station.desk.post(origin, job, self.config.front.stop_hold) {
                Ok(()) => {
                    station.intent.note_command(origin);
                    replies.push(told);
                }
                Err((_, refused)) => {
                    // The others of the command come to rest, as they do when a newer command takes one of them.
                    group.break_up();
                    answer = answer.and(Err(not_taken(&settings.name, refused)));
                }
            }
        }
        let carried_out = first_reason(replies).await;
        answer.and(carried_out)
    }

    /// Checks that a command for a motor that was stopped, or whose drive has failed, is meant.
    fn is_meant(
        &self,
        station: &Station,
        settings: &config::Motor,
        permit: &Permit,
        origin: &Origin,
    ) -> Result<(), MotionError> {
        let Some(verdict) = permit.verdict() else { return Ok(()) };
        let facts = Facts {
            verdict: &verdict,
            latch: permit.latch(),
            policy: self.config.supervisor.reset,
            fault_since: station.feedback.fault_since(),
            hold: self.config.front.stop_hold,
        };
        let motor = settings.name.clone();
        let millis = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        Err(match facts.objection(&station.intent, origin) {
            None => return Ok(()),
            Some(Objection::NotNow) => permit.lost(),
            Some(Objection::Old(trip)) => MotionError::OlderThanTrip { motor, trip },
            Some(Objection::NoNeutral(trip)) => MotionError::StopFirst { motor, trip },
            Some(Objection::TooSoon(left)) => MotionError::TooSoonAfterStop { motor, left_ms: millis(left) },
            Some(Objection::DriveFault) => {
                let what = station.feedback.describe(&settings.drive);
                MotionError::DriveFault { motor, what }
            }
        })
    }

    /// How long the supervisor may be silent: as long as it lets the front be, and never longer than the kernel waits
    /// before it sends the stops in its stead. A motion frame between two of those would undo the first.
    fn patience(&self) -> Duration {
        let supervisor = &self.config.supervisor;
        supervisor.front_window.min(supervisor.kernel_stop)
    }
}

fn stations(config: &Config) -> Vec<Arc<Station>> {
    config.motors.iter().map(|_| Station::new()).collect()
}

/// From the robot's direction to the drive's, or back.
fn orient(settings: &config::Motor, speed: RevolutionsPerSecond) -> RevolutionsPerSecond {
    match settings.direction {
        config::Direction::Forward => speed,
        config::Direction::Reversed => RevolutionsPerSecond(-speed.0),
    }
}

/// Why a desk has not taken a command for that motor.
fn not_taken(motor: &str, refused: Refused) -> MotionError {
    match refused {
        Refused::Older => MotionError::Superseded,
        Refused::Held(left) => MotionError::HeldAfterStop {
            motor: motor.to_owned(),
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1),
        },
    }
}

/// Waits for every motor of a command. When one fails the others are superseded: the reason is that of
/// the one that failed.
async fn first_reason(replies: Vec<oneshot::Receiver<Answer>>) -> Result<(), MotionError> {
    let mut answer = Ok(());
    for reply in replies {
        match (reply.await.unwrap_or(Err(MotionError::Superseded)), &answer) {
            (Err(MotionError::Superseded), Err(_)) => {}
            (Err(error), Ok(()) | Err(MotionError::Superseded)) => answer = Err(error),
            _ => {}
        }
    }
    answer
}
