//! One motor's drive with everything prebuilt: what the supervisor and the front hold per motor.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::enable::EnableProgramme;
use crate::feedback::{Fault, Observation};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::meaning::Told;
use crate::stop::StopProgramme;
use crate::units::{Amperes, RevolutionsPerSecond};
use crate::watchdog::{Feeds, Watchdog, WatchdogReading};

/// What only a family's own code can say of a drive, in frames. None of it allocates.
pub trait Protocol: fmt::Debug + Send + Sync {
    /// The frames that make an enabled drive turn at this speed, which may be any.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList;

    /// The frames that make an enabled drive produce this current; empty for drives that take a speed
    /// ([`Setpoint::Velocity`]).
    fn current(&self, current: Amperes) -> FrameList {
        let _ = current;
        FrameList::EMPTY
    }

    /// What a received frame says of this drive; `None` for frames of others, of wrong length, or without news.
    fn decode(&self, frame: &Frame) -> Option<Observation>;

    /// Whether a frame that reaches this drive keeps its own watchdog content, whatever else it does. Where no source
    /// tells, it does: then no frame of the kind is ever repeated without end.
    fn feeds_watchdog(&self, frame: &Frame) -> Feeds;

    /// Whether a frame, sent by anyone, would energise or move this drive. When a frame cannot be understood
    /// but is addressed to a command id of the drive, the answer is yes.
    fn is_motion(&self, frame: &Frame) -> bool;

    /// Whether a frame with this identifier could mean anything to this drive, or to a drive of its family on
    /// the same bus that nobody has configured here. Those of [`Drive::owns`], [`Drive::reports`] and
    /// [`Drive::commands`] need not be repeated.
    fn may_hear(&self, id: ArbitrationId) -> bool;

    /// What a frame that reaches this drive tells it, as far as the drive's tables do not say. The speed of every frame of
    /// [`Self::velocity`] is read back here, and the frame that clears a fault is known here.
    fn told(&self, frame: &Frame) -> Told;

    /// Whether the family has a frame that takes a fault away, which [`Self::told`] knows.
    fn has_clear_frame(&self) -> bool {
        false
    }

    /// Whether a frame reaches this drive, where identifiers alone do not tell: frames that name their drive in the
    /// payload, and those of the network that everybody takes. `None`: as the drive's tables of identifiers say.
    fn is_reached_by(&self, frame: &Frame) -> Option<bool> {
        let _ = frame;
        None
    }

    /// The frame after which a drive listens again that another master has told to be deaf; `None` for families that
    /// cannot be told so. It neither energises nor moves the drive.
    fn wake(&self) -> Option<Frame> {
        None
    }

    /// Whether a frame, sent by anyone, makes this drive deaf to its stops until it is woken.
    fn deafens(&self, frame: &Frame) -> bool {
        let _ = frame;
        false
    }

    /// A fault in the words of the drive's manual; the bare number where a family has none.
    ///
    /// # Errors
    ///
    /// When `out` does not take the text.
    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{:#x}", fault.0)
    }

    /// What a frame, sent in answer to [`Watchdog::ask`], says of the drive's own watchdog.
    fn watchdog(&self, frame: &Frame) -> Option<WatchdogReading> {
        let _ = frame;
        None
    }
}

/// One motor's drive.
#[derive(Clone, Debug)]
pub struct Drive {
    /// The family's name.
    pub family: &'static str,
    /// The family's own code, with this drive's parameters.
    pub protocol: Arc<dyn Protocol>,
    /// How it is stopped.
    pub stop: StopProgramme,
    /// How it is brought to follow velocity commands.
    pub enable: EnableProgramme,
    /// What an enabled drive is told: a speed, or a current with the speed kept by the front.
    pub setpoint: Setpoint,
    /// Frames that ask the drive for feedback and neither enable nor move the motor. Empty for families whose
    /// polls would, and for drives that report by themselves.
    ///
    /// **One frame a turn**: each poll turn sends the next frame of the list, and the first after the
    /// last. A drive may take only one request at a time and drop a second that comes before its answer.
    pub poll: FrameList,
    /// When it may be asked.
    pub poll_when: PollWhen,
    /// The first stop stage, addressed to every drive of the family on the bus at once. Sent before the motors'
    /// own frames when, and only when, all of them are to be stopped. Drives of one bus that are to be stopped
    /// together must have the same one.
    pub broadcast: Option<Frame>,
    /// A sign of life that the supervisor itself sends and the drive watches; `None` for families
    /// without. Drives of one bus may have the same frame in common: it is sent once for all.
    pub heartbeat: Option<Heartbeat>,
    /// Every id that is this drive's by its protocol, used or not: no other drive of the bus may have any
    /// of them.
    pub owns: Vec<ArbitrationId>,
    /// Ids that drives of this family have in common on a bus, and that no other family may have there:
    /// broadcasts, frames for several motors.
    pub shares: Vec<ArbitrationId>,
    /// The one frame in which this drive and others are commanded together, if that is how the family works.
    pub slot: Option<Slot>,
    /// Ids on which this drive reports.
    pub reports: Vec<ArbitrationId>,
    /// Ids on which this drive takes commands, shared ones too; the bus guard watches them.
    pub commands: Vec<ArbitrationId>,
    /// The drive's own watchdog on whoever commands it.
    pub watchdog: Watchdog,
    /// Largest speed that may be commanded.
    pub max_speed: RevolutionsPerSecond,
    /// Format of its frames: an FD family needs an FD bus.
    pub format: Format,
}

/// What an enabled drive follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Setpoint {
    /// A speed, which the drive keeps by itself: [`Protocol::velocity`].
    Velocity,
    /// A current: [`Protocol::current`]. The front keeps the speed.
    Current(SpeedLoop),
}

/// How the front keeps the speed of a drive that takes currents: proportional and integral, within a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpeedLoop {
    /// Amperes for each revolution per second that is missing.
    pub proportional: f32,
    /// Amperes per second for each revolution per second that is missing.
    pub integral: f32,
    /// The most current, either way.
    pub limit: Amperes,
}

/// When a drive may be asked for feedback. While it is being stopped it always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollWhen {
    /// At any time: the polls do not feed the drive's own watchdog.
    Always,
    /// Only when it has said nothing for a while: the polls feed the drive's own watchdog, or may, or are
    /// themselves a gentle stop. A drive that answers every command is heard while somebody drives it.
    WhenSilent,
}

/// A drive's part of a frame that commands several drives at once.
///
/// Whoever sends the frame commands all of them, so the frame has one owner: the motors in it are granted to
/// one session only, and stopped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The frame's identifier.
    pub id: ArbitrationId,
    /// The bits of its payload that are this drive's part; not whole bytes in every family.
    pub mask: [u8; 8],
}

impl Slot {
    /// A part of whole bytes.
    ///
    /// # Panics
    ///
    /// When it does not lie within eight bytes: a mistake in a family's own code.
    #[must_use]
    pub const fn of_bytes(id: ArbitrationId, first: usize, bytes: usize) -> Self {
        let mut mask = [0; 8];
        let mut at = first;
        while at < first + bytes {
            mask[at] = 0xFF;
            at += 1;
        }
        Self { id, mask }
    }

    /// `frame` with this drive's part taken from `own`, which commands this drive; unchanged when either is
    /// another frame than this one.
    #[must_use]
    pub fn overlay(&self, frame: &Frame, own: &Frame) -> Frame {
        let is_this = |frame: &Frame| frame.id() == self.id && frame.format() == Format::Classic;
        if !is_this(frame) || !is_this(own) || own.payload().len() != frame.payload().len() {
            return *frame;
        }
        let mut payload = [0; 8];
        let all = payload.iter_mut().zip(frame.payload()).zip(own.payload()).zip(self.mask);
        all.for_each(|(((to, frame), own), mask)| *to = frame & !mask | own & mask);
        Frame::classic(self.id, &payload[..frame.payload().len()])
    }
}

/// A frame whose absence makes the drive stop by itself.
///
/// It is sent by the very thread that watches over the sessions and never by a timer of the kernel: the
/// kernel goes on sending when that thread hangs.
///
/// In some families the same frame says which drives may run. Drives of one bus then have one frame in common,
/// and the marks of those that are granted are or-ed into it: whoever is not granted is switched off by it.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// The frame, as it is while nobody is granted.
    pub frame: Frame,
    /// The bits of its payload that let this drive run; all zero for families where the frame says nothing.
    pub mark: [u8; 8],
    /// How long the drive waits for the next one. Send at least three times as often.
    pub window: Duration,
}

/// A speed that may not be commanded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VelocityError {
    /// Not a finite number.
    NotFinite,
    /// Faster than the motor's configured maximum.
    TooFast {
        /// What was asked for.
        asked: RevolutionsPerSecond,
        /// The configured maximum.
        most: RevolutionsPerSecond,
    },
}

impl fmt::Display for VelocityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite => write!(f, "the speed is not a finite number"),
            Self::TooFast { asked, most } => {
                write!(f, "{:.1} rpm is faster than this motor's max_rpm {:.1}", asked.rpm(), most.rpm())
            }
        }
    }
}

impl core::error::Error for VelocityError {}

impl Drive {
    /// The frames that make an enabled drive turn at `velocity`.
    ///
    /// # Errors
    ///
    /// When the speed is not finite or above the configured maximum.
    pub fn velocity(&self, velocity: RevolutionsPerSecond) -> Result<FrameList, VelocityError> {
        self.may_turn_at(velocity)?;
        Ok(self.protocol.velocity(velocity))
    }

    /// Whether that speed may be commanded.
    ///
    /// # Errors
    ///
    /// When the speed is not finite or above the configured maximum.
    pub fn may_turn_at(&self, velocity: RevolutionsPerSecond) -> Result<(), VelocityError> {
        if !velocity.0.is_finite() {
            return Err(VelocityError::NotFinite);
        }
        if velocity.0.abs() > self.max_speed.0 {
            return Err(VelocityError::TooFast { asked: velocity, most: self.max_speed });
        }
        Ok(())
    }

    /// A fault in words.
    #[must_use]
    pub fn explain(&self, fault: Fault) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.protocol.fault_words(fault, &mut text);
        text
    }

    /// See [`Protocol::decode`].
    #[must_use]
    pub fn decode(&self, frame: &Frame) -> Option<Observation> {
        self.protocol.decode(frame)
    }

    /// See [`Protocol::has_clear_frame`].
    #[must_use]
    pub fn has_clear_frame(&self) -> bool {
        self.protocol.has_clear_frame()
    }

    /// See [`Protocol::is_motion`].
    #[must_use]
    pub fn is_motion(&self, frame: &Frame) -> bool {
        self.protocol.is_motion(frame)
    }

    /// Whether the frame keeps the watchdog of this drive content: it reaches the drive, and counts there.
    #[must_use]
    pub fn feeds_watchdog(&self, frame: &Frame) -> Feeds {
        if self.heartbeat.is_some_and(|heartbeat| heartbeat.frame.id() == frame.id()) {
            return Feeds::Yes;
        }
        if self.is_reached_by(frame) { self.protocol.feeds_watchdog(frame) } else { Feeds::No }
    }

    /// Whether a frame with this identifier could mean anything to this drive, or to a drive of its family
    /// on the same bus that nobody has configured here.
    #[must_use]
    pub fn may_hear(&self, id: ArbitrationId) -> bool {
        let heartbeat = self.heartbeat.iter().map(|heartbeat| heartbeat.frame.id());
        let own = self.owns.iter().chain(&self.shares).chain(&self.reports).chain(&self.commands).copied();
        own.chain(heartbeat).any(|known| known == id) || self.protocol.may_hear(id)
    }
}
