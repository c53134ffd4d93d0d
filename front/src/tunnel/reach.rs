//! Which CAN frames may go on to a target, and what they say of its motors.
//!
//! What lives here: the one rule for every protocol that carries frames. A frame passes if every motor that it reaches on the
//! bus is the target's, or if it reaches none and its identifier is listed. What must never live here: what the bytes of a
//! family mean, which is for `drivers` to say.

use config::{Config, TunnelTarget};
use drivers::meaning::heard_by;
use drivers::{ArbitrationId, Drive, Format, Frame, Heard, Meaning, RevolutionsPerSecond};
use shm_proto::MotorIndex;
use thiserror::Error;

/// A motor on the target's bus.
#[derive(Debug)]
struct Neighbour {
    motor: MotorIndex,
    name: String,
    drive: Drive,
    is_targets: bool,
}

/// What may pass to one target.
#[derive(Debug)]
pub struct Reach {
    neighbours: Vec<Neighbour>,
    also: Vec<ArbitrationId>,
}

/// How a link stands to the target's motors when a frame comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It drives them.
    Drives,
    /// No session has any of them.
    Free,
    /// Another session has at least one.
    Taken,
}

/// A frame that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It reaches the target's motors.
    Ours(Effect),
    /// Its identifier is listed; what it means nobody here knows.
    Listed,
}

/// What a frame does to the target's motors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// It shows that somebody drives them.
    pub drives: bool,
    /// It commands them: it drives, stops, or clears a fault.
    pub commands: bool,
    /// The motors must be granted before it goes on.
    pub needs_grant: bool,
    /// Motors that it asks to stand still, or whose fault it clears.
    pub resting: Vec<MotorIndex>,
    /// Motors whose family's clear frame it is; of a family that has none, any frame that asks to stand still.
    pub cleared: Vec<MotorIndex>,
}

/// Why a frame does not pass.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refusal {
    /// No configured motor hears it.
    #[error("frame {0} is for no motor of this link; \"also\" of its target can list it")]
    Nobody(ArbitrationId),
    /// It reaches a motor that is not the target's.
    #[error("frame {id} reaches motor \"{motor}\", which is not one of this link's (motors of its target)")]
    Foreign {
        /// The frame.
        id: ArbitrationId,
        /// The motor.
        motor: String,
    },
    /// It is what a drive itself says.
    #[error("frame {id} is a report of motor \"{motor}\", and a link must not speak for a drive")]
    Report {
        /// The frame.
        id: ArbitrationId,
        /// The motor.
        motor: String,
    },
    /// It is what the supervisor says.
    #[error(
        "frame {0} is the sign of life that drives have from Lanyard's supervisor, and nobody else sends it"
    )]
    Heartbeat(ArbitrationId),
    /// Nobody here sees what the server's kernel would send on it.
    #[error("channel {0} of ISO-TP is not listed in \"also\" of this link's target, or reaches a motor")]
    Channel(ArbitrationId),
    /// Another session drives the motor.
    #[error("frame {id} would change a setting of motor \"{motor}\" while another session drives it")]
    Taken {
        /// The frame.
        id: ArbitrationId,
        /// The motor.
        motor: String,
    },
    /// The speed is above what the motor may turn at: the link ends.
    #[error("motor \"{motor}\": {error}")]
    TooFast {
        /// The motor.
        motor: String,
        /// The speed that was asked for, and the one that is allowed.
        error: drivers::VelocityError,
    },
}

impl Reach {
    /// That of a target; `None` where nothing is known of what passes, or nothing is behind it.
    #[must_use]
    pub fn of(target: &TunnelTarget, config: &Config) -> Option<Self> {
        let bus = target.motors_bus?;
        let on_bus =
            config.motors.iter().enumerate().filter(|(_, motor)| motor.buses().any(|other| other == bus));
        let neighbours = on_bus.filter_map(|(place, motor)| {
            Some(Neighbour {
                motor: MotorIndex(u16::try_from(place).ok()?),
                name: motor.name.clone(),
                drive: motor.drive.clone(),
                is_targets: target.motors.contains(&place),
            })
        });
        Some(Self { neighbours: neighbours.collect(), also: target.also.clone() })
    }

    /// Whether a frame may go on, and what it does.
    ///
    /// # Errors
    /// It must not.
    pub fn judge(&self, frame: &Frame, standing: Standing) -> Result<Passage, Refusal> {
        let drives = self.neighbours.iter().map(|neighbour| (neighbour, &neighbour.drive));
        let mut effect = None;
        for (neighbour, heard) in heard_by(drives, frame) {
            let id = frame.id();
            let motor = || neighbour.name.clone();
            let meaning = match heard {
                Heard::Heartbeat => return Err(Refusal::Heartbeat(id)),
                Heard::Report => return Err(Refusal::Report { id, motor: motor() }),
                Heard::Command(_) if !neighbour.is_targets => {
                    return Err(Refusal::Foreign { id, motor: motor() });
                }
                Heard::Command(meaning) => meaning,
            };
            if let Some(speed) = meaning.speed() {
                neighbour.may_turn_at(speed)?;
            }
            let changes = !meaning.stops && frame.format() != Format::Remote;
            if standing == Standing::Taken && changes && !meaning.drives() && !meaning.moves {
                return Err(Refusal::Taken { id, motor: motor() });
            }
            neighbour.add(&meaning, effect.get_or_insert_with(Effect::default));
        }
        match effect {
            Some(effect) => Ok(Passage::Ours(effect)),
            None if self.also.contains(&frame.id()) => Ok(Passage::Listed),
            None => Err(Refusal::Nobody(frame.id())),
        }
    }

    /// Whether frames of this identifier may go on of which nobody sees the bytes: listed ones that reach no motor.
    ///
    /// # Errors
    /// They must not.
    pub fn judge_channel(&self, id: ArbitrationId) -> Result<Passage, Refusal> {
        // What is too short to name its drive may be for any.
        match self.judge(&Frame::classic(id, &[]), Standing::Free) {
            Ok(Passage::Listed) => Ok(Passage::Listed),
            Ok(Passage::Ours(_)) | Err(_) => Err(Refusal::Channel(id)),
        }
    }
}

impl Neighbour {
    fn may_turn_at(&self, speed: RevolutionsPerSecond) -> Result<(), Refusal> {
        let allowed = self.drive.may_turn_at(speed);
        allowed.map_err(|error| Refusal::TooFast { motor: self.name.clone(), error })
    }

    /// Notes what a frame does to this motor.
    fn add(&self, meaning: &Meaning, effect: &mut Effect) {
        let clears = matches!(meaning.role, drivers::Role::Clear);
        effect.drives |= meaning.drives();
        effect.commands |= meaning.drives() || meaning.stops || clears;
        effect.needs_grant |= meaning.moves || meaning.drives() && !meaning.is_neutral();
        if meaning.is_neutral() {
            effect.resting.push(self.motor);
        }
        if clears || meaning.is_neutral() && !self.drive.has_clear_frame() {
            effect.cleared.push(self.motor);
        }
    }
}
