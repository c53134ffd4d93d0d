//! The kernel and the bus: frames that were handed over and are not on the wire yet.
//!
//! Front and supervisor have a queue each, and either may be served first for any length of time. That
//! covers every order a queueing discipline, a priority band or a slow adapter can produce between the
//! two sockets; within one socket frames keep their order. An interface that goes down drops both.

use crate::drive::Drive;
use crate::process::Process;
use crate::queue::Queue;

/// What the front sends. An enabling frame is a motion frame: it lets the motor move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrontFrame {
    /// May move the motor (`Drive::is_motion`).
    Motion,
    /// The first stage of the stop programme.
    Stop,
}

/// What the supervisor's socket hears, in the order of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A motion frame of the front.
    Motion,
    /// A motion frame of somebody else, from the wire. In the whole model there is nobody else.
    OtherMaster,
    /// What a program of this computer says in the drive's name.
    Forged,
    /// The drive says what it is doing, often enough for any proof.
    Report(Drive),
}

/// What the kernel answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Taken.
    Ok,
    /// ENOBUFS.
    QueueFull,
    /// ENETDOWN.
    Down,
}

/// One interface and its bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wire {
    /// Whether the interface is up, as opposed to what the supervisor knows of it.
    pub up: bool,
    /// Handed over by the front.
    pub front: Queue<FrontFrame>,
    /// Handed over by the supervisor: a stage of the stop programme.
    pub supervisor: Option<u8>,
    /// A motion frame was received for the supervisor and is not read yet. What the drive reports after
    /// it is read after it; what it reported before it is as good as read at once.
    pub motion_unread: bool,
}

impl Wire {
    /// An idle bus.
    pub const IDLE: Self = Self { up: true, front: Queue::EMPTY, supervisor: None, motion_unread: false };

    /// The front hands a frame to the kernel. A stop right behind a stop is as good as one.
    pub fn send_of_front(&mut self, frame: FrontFrame) -> Sent {
        let up = self.up;
        let repeated = frame == FrontFrame::Stop && self.front.last() == Some(frame);
        answer(up, up && (repeated || self.front.push(frame)))
    }

    /// The supervisor hands the frames of a stage to the kernel.
    pub fn send_of_supervisor(&mut self, stage: u8) -> Sent {
        let answer = self.answer_to_supervisor();
        if answer == Sent::Ok {
            self.supervisor = Some(stage);
        }
        answer
    }

    /// What the kernel would answer the supervisor now.
    #[must_use]
    pub fn answer_to_supervisor(&self) -> Sent {
        answer(self.up, self.supervisor.is_none())
    }

    /// Whether the next frame of the front can go onto the wire. Of a supervisor that does not read, one frame that waits
    /// for it stands for all of them.
    #[must_use]
    pub fn front_can_go(&self, process: Process) -> bool {
        match self.front.first() {
            Some(FrontFrame::Motion) => self.up && (!self.motion_unread || process.is_absent()),
            Some(FrontFrame::Stop) => self.up,
            None => false,
        }
    }

    /// The interface goes down: what waits is lost.
    pub fn go_down(&mut self) {
        self.up = false;
        self.front = Queue::EMPTY;
        self.supervisor = None;
    }
}

fn answer(up: bool, room: bool) -> Sent {
    match (up, room) {
        (false, _) => Sent::Down,
        (true, false) => Sent::QueueFull,
        (true, true) => Sent::Ok,
    }
}
