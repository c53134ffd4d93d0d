//! What a frame that somebody else sends means to the drives of a bus: which of them it reaches, and what it tells them.
//!
//! What lives here: the one classifier of foreign frames. It reads the drive's own tables ([`Drive::owns`],
//! [`Drive::commands`], stop stages, enable programme) and asks the family for what no table has
//! ([`crate::Protocol::told`]). What must never live here: a rule about who may send such a frame.

use crate::drive::Drive;
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::units::RevolutionsPerSecond;

/// What a frame tells a drive that it reaches, in the family's own words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told {
    /// How to move.
    SetPoint(Demand),
    /// To forget its fault: the family's clear frame. It moves nothing.
    Clear,
    /// Something that neither sets a motor moving nor shows that somebody drives it: a question, a setting.
    Other,
    /// What the drive's tables say of it.
    AsListed,
}

/// What a set-point asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Demand {
    /// Standing still: speed 0, or no torque.
    Still,
    /// A speed, which need not be a finite number.
    Speed(RevolutionsPerSecond),
    /// A position, a torque, a current, a duty, or several of them.
    Other,
}

/// What a frame is to a drive that it reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Heard {
    /// A report of the drive's own: whoever else sends it speaks in the drive's name.
    Report,
    /// The sign of life that the supervisor sends ([`Drive::heartbeat`]).
    Heartbeat,
    /// A command, a setting or a question.
    Command(Meaning),
}

/// What a frame tells a drive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Meaning {
    /// Its part in driving.
    pub role: Role,
    /// It is a frame of the drive's stop programme, or the broadcast that stops.
    pub stops: bool,
    /// It would energise or move the drive ([`Drive::is_motion`]).
    pub moves: bool,
}

/// The part of a frame in driving a motor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// It says how to move.
    SetPoint(Demand),
    /// It brings the drive to follow set-points, or could.
    Enabling,
    /// It takes the drive's fault away.
    Clear,
    /// A stop that is no set-point, a question, a setting.
    Other,
}

impl Meaning {
    /// Whether it shows that somebody drives this motor: a set-point, 0 included, or an enabling frame.
    #[must_use]
    pub const fn drives(&self) -> bool {
        matches!(self.role, Role::SetPoint(_) | Role::Enabling)
    }

    /// Whether it asks for nothing but standing still: a stop, a set-point of 0, a cleared fault.
    #[must_use]
    pub const fn is_neutral(&self) -> bool {
        self.stops || matches!(self.role, Role::Clear | Role::SetPoint(Demand::Still))
    }

    /// The speed that it asks for, where it says one.
    #[must_use]
    pub const fn speed(&self) -> Option<RevolutionsPerSecond> {
        match self.role {
            Role::SetPoint(Demand::Still) => Some(RevolutionsPerSecond::ZERO),
            Role::SetPoint(Demand::Speed(speed)) => Some(speed),
            Role::SetPoint(Demand::Other) | Role::Enabling | Role::Clear | Role::Other => None,
        }
    }
}

impl Drive {
    /// What the frame is to this drive; `None` when it does not reach it.
    ///
    /// A frame on one of the drive's identifiers reaches it, whatever is in it. A frame that several drives take
    /// reaches each of them.
    #[must_use]
    pub fn hears(&self, frame: &Frame) -> Option<Heard> {
        let id = frame.id();
        if self.heartbeat.is_some_and(|heartbeat| heartbeat.frame.id() == id) {
            return Some(Heard::Heartbeat);
        }
        if !self.is_reached_by(frame) {
            return None;
        }
        // A remote request, or an empty frame, asks for the report.
        let says_something = frame.format() != Format::Remote && !frame.payload().is_empty();
        if self.decode(frame).is_some() || says_something && self.is_only_report(id) {
            return Some(Heard::Report);
        }
        Some(Heard::Command(self.meaning(frame)))
    }

    /// Whether the frame reaches this drive.
    pub(crate) fn is_reached_by(&self, frame: &Frame) -> bool {
        self.protocol.is_reached_by(frame).unwrap_or_else(|| self.lists(frame.id()))
    }

    /// Whether the identifier is in one of the drive's tables of what it takes.
    fn lists(&self, id: ArbitrationId) -> bool {
        self.owns.contains(&id) || self.commands.contains(&id) || self.shares.contains(&id)
    }

    /// Whether frames with the identifier are the drive's own reports, and never commands to it.
    #[must_use]
    pub fn is_only_report(&self, id: ArbitrationId) -> bool {
        self.reports.contains(&id) && !self.commands.contains(&id)
    }

    /// What a frame that reaches the drive tells it.
    fn meaning(&self, frame: &Frame) -> Meaning {
        let moves = self.is_motion(frame);
        let stops = self.is_stop(frame);
        // On an identifier that the family does not watch, a frame that moves the drive does not count as motion either.
        let is_watched = self.commands.contains(&frame.id());
        let is_understood = frame.format() != Format::FdBrs || self.format == Format::FdBrs;
        let told = if is_understood { self.protocol.told(frame) } else { Told::Other };
        let role = match told {
            Told::SetPoint(_) if is_watched && !moves => Role::SetPoint(Demand::Still),
            Told::SetPoint(demand) => Role::SetPoint(demand.exactly()),
            Told::Clear => Role::Clear,
            Told::Other => Role::Other,
            Told::AsListed if moves || self.is_enabling(frame) => Role::Enabling,
            Told::AsListed => Role::Other,
        };
        Meaning { role, stops, moves }
    }

    fn is_stop(&self, frame: &Frame) -> bool {
        let staged = self.stop.stages().iter().any(|stage| stage.frames.as_slice().contains(frame));
        staged || self.broadcast == Some(*frame)
    }

    /// Whether it is of the enable programme. What only asks is no command, and what stops as well brings no drive up.
    fn is_enabling(&self, frame: &Frame) -> bool {
        let asks = |list: &FrameList| list.as_slice().contains(frame);
        let listed = self.enable.steps().iter().any(|step| step.frames.as_slice().contains(frame));
        let in_passing = frame.format() == Format::Remote || asks(&self.poll) || self.is_stop(frame);
        listed && !in_passing
    }
}

impl Demand {
    /// A speed of 0 is standing still, in families where the frame that says so closes a loop as well.
    fn exactly(self) -> Self {
        match self {
            Self::Speed(speed) if speed.0 == 0.0 => Self::Still,
            other => other,
        }
    }
}

/// What a frame is to each of these drives of one bus that it reaches, with what the caller knows the drive by.
pub fn heard_by<'a, K>(
    drives: impl IntoIterator<Item = (K, &'a Drive)>,
    frame: &Frame,
) -> impl Iterator<Item = (K, Heard)> {
    drives.into_iter().filter_map(move |(key, drive)| drive.hears(frame).map(|heard| (key, heard)))
}
