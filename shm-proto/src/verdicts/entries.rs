//! What is published about a session, a motor, a bus.

use super::words::{BusHealth, MotorState, Reason, SessionState};
use crate::ids::{Incarnation, Owner, SessionId, TripId};
use crate::time::Nanos;

/// What is published about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionVerdict {
    /// The session.
    pub session: SessionId,
    /// Which session of the slot.
    pub incarnation: Incarnation,
    /// The verdict.
    pub state: SessionState,
    /// When it will count as silent.
    pub deadline: Nanos,
    /// Its last accepted beat.
    pub last_beat: Nanos,
    /// The trip that ended it.
    pub trip: TripId,
    /// Beats accepted.
    pub beats: u64,
    /// Its window, nanoseconds.
    pub window: u64,
}

/// What is published about a motor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MotorVerdict {
    /// Whose it is.
    pub grant: Option<Owner>,
    /// What it is doing.
    pub state: MotorState,
    /// Index of the stop stage it is in or ended in.
    pub stage: u64,
    /// The trip that stopped it last.
    pub trip: TripId,
    /// Why it was stopped last.
    pub reason: Option<Reason>,
    /// When the first stop frame of that trip was handed to the kernel.
    pub first_stop: Nanos,
    /// When a stop frame of that trip was first seen to be acknowledged on the wire; zero while it is not,
    /// or where the interface does not tell.
    pub confirmed: Nanos,
    /// When standstill was proven after that trip; zero while it is not.
    pub standstill: Nanos,
    /// Stop frames sent since the supervisor started.
    pub stops_sent: u64,
    /// Measured speed, revolutions per second; `None` before the first reading.
    pub velocity: Option<f32>,
    /// Measured position, revolutions; `None` before the first reading.
    pub position: Option<f64>,
    /// The drive's word on its power stage, as [`MotorVerdict::POWER_NAMES`] numbers it; 0 unknown.
    pub power: u64,
    /// The drive's fault code; 0 none.
    pub fault: u64,
    /// When the drive was heard last.
    pub feedback: Nanos,
    /// Motion frames answered by the bus guard.
    pub guarded: u64,
    /// Index of its bus.
    pub bus: u64,
    /// 1 when an operator must clear [`MotorVerdict::trip`] before the motor may be granted again.
    pub latched: u64,
    /// How often the stop of [`MotorVerdict::trip`] was violated: somebody moved or energised the motor although it was
    /// held. Counted for all motors of the trip together, so the highest of theirs is the trip's.
    pub violations: u64,
    /// Since when the motor, which no session has, turns although its drive has no torque; zero while it does not, by
    /// the last that its drive said.
    pub moves: Nanos,
}

impl MotorVerdict {
    /// How old a drive's word may be that anything is believed by, nanoseconds: five times the slowest feedback that a
    /// family has by default (100 ms: heartbeats of ODrive and CANopen).
    pub const FEEDBACK_WINDOW_NS: u64 = 500_000_000;

    /// Whether the proof of standstill still holds at that moment. The moment of the proof stays where it is while the motor
    /// is driven again or pushed, and while its drive says nothing.
    #[must_use]
    pub fn is_proven_to_stand_still(&self, now: Nanos) -> bool {
        match self.state {
            MotorState::Idle | MotorState::Stopped => {
                self.standstill != Nanos::ZERO
                    && self.moves == Nanos::ZERO
                    && now.since(self.feedback) <= Self::FEEDBACK_WINDOW_NS
            }
            MotorState::Granted | MotorState::Stopping | MotorState::Unverified => false,
        }
    }

    /// Names of the power numbers.
    pub const POWER_NAMES: [&'static str; 6] = ["unknown", "off", "transition", "on", "quick stop", "fault"];
}

/// What the supervisor before this one last knew of a motor. It is told and proves nothing: who has it in hand has no
/// way to pass it for what a drive says now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PastEvidence {
    /// When the motor was last proven to stand still; zero if it never was.
    pub standstill: Nanos,
    /// When its drive was last heard; zero if it never was.
    pub feedback: Nanos,
}

/// How a bus works and what has gone over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusVerdict {
    /// 1 works, 0 does not.
    pub up: u64,
    /// Frames handed to the kernel.
    pub sent: u64,
    /// Frames the kernel refused.
    pub errors: u64,
    /// The last error number, 0 if none.
    pub last_error: u64,
    /// Frames received.
    pub received: u64,
    /// How well it works.
    pub health: BusHealth,
    /// 1 when the interface tells which frames were really acknowledged on the wire (IFF_ECHO).
    pub confirms: u64,
    /// Frames of ours that were acknowledged on the wire; stays 0 where the interface does not tell.
    pub confirmed: u64,
    /// Error frames that the interface reported.
    pub error_frames: u64,
    /// Frames refused because the transmit queue was full.
    pub queue_full: u64,
    /// The controller's transmit error counter, as last reported.
    pub tx_errors: u64,
    /// The controller's receive error counter, as last reported.
    pub rx_errors: u64,
    /// Frames of other programs of this computer that spoke for a drive or for the interface, and were not believed.
    pub disbelieved: u64,
    /// When the last of them came; zero before the first.
    pub disbelieved_at: Nanos,
}

impl BusVerdict {
    /// A bus that works and over which nothing has gone yet.
    pub const FRESH: Self = Self {
        up: 1,
        sent: 0,
        errors: 0,
        last_error: 0,
        received: 0,
        health: BusHealth::Unknown,
        confirms: 0,
        confirmed: 0,
        error_frames: 0,
        queue_full: 0,
        tx_errors: 0,
        rx_errors: 0,
        disbelieved: 0,
        disbelieved_at: Nanos::ZERO,
    };
}
