//! The grant/trip/reset state machine of Lanyard as a model that is checked completely.
//!
//! What lives here: front, supervisor, kernel, bus and drive as plain data ([`System`]), everything that
//! can happen next ([`Action`]), and what must hold in every state ([`properties`]). The explorer
//! `stateright` visits every state that any interleaving reaches (`tests/exhaustive.rs`); the
//! supervisor's part is held against the real `supervisor::core::Core` (`tests/conformance`, `tests/joint`), so it
//! cannot drift from the code. What must never live here: a rule the code does not have.
//!
//! | file | its one idea | models |
//! |---|---|---|
//! | [`front`] | one motor's task and its permit | `front/src/motion/{actor,grant}.rs` |
//! | [`supervisor`] | grants, trips, stops, resets | `supervisor/src/core/` |
//! | [`process`] | whether the loop comes round; jobs of the kernel; the FIFO | `supervisor/src/runtime.rs` |
//! | [`joint`] | a small model of its own: two motors in one frame | `core/together.rs`, `front/src/motion/line.rs` |
//! | [`shared`] | rings and the owner word | `shm-proto` |
//! | [`wire`] | frames handed over and not yet on the bus | kernel, CAN |
//! | [`drive`] | obeys the last frame, reports when it likes | `drivers` |
//! | [`properties`] | what must hold, and what must be reached | - |
//!
//! # What is abstracted, and why that is sound
//!
//! * **One motor, one bus, two slots.** Motors share only sessions, trips and the bus; a second motor adds
//!   stops, never a grant. Motors of one frame share that, too, and have a model of their own ([`joint`]). The stop of
//!   *all* motors of a session is tested in `supervisor/tests/core/sessions.rs`.
//! * **Time is order.** A deadline passes whenever it likes ([`Action::Expire`]), also two in one pass; a
//!   tick comes whenever it likes. Stages are counted in ticks, so every stop has its bound.
//! * **Beats in time are not modelled**: they change nothing but a deadline. Lying beats are `shm-proto`'s.
//! * **A step of the supervisor is one action, handing its frames to the kernel a second one.** Between the
//!   two the front may run: the grant is revoked and the stop is not out yet. Within a step nothing of the
//!   front is read twice but owner words, whose change is as good as one before the next step. For two motors of one
//!   frame it is not, see [`joint`].
//! * **Feedback is proof at once.** A report stands for enough readings in a row; the readings before the
//!   last one decide nothing. A report is read as it is sent, but never before a motion frame that was on the
//!   bus before it.
//! * **Queues are short** (two frames of the front, one stage of the supervisor), and refuse more as the
//!   kernel does. Frames of one socket keep their order;
//!   between the sockets any order is possible.
//! * **Trip numbers are renamed** so that only which of them are equal and which is newer is kept; nothing
//!   compares them otherwise. This makes the space finite.
//! * **What a supervisor finds of the one before is its beginning** ([`supervisor::Before`]): what it makes of the words
//!   themselves is tested in `supervisor/tests/core/inheritance.rs`. One that dies within the model leaves what it has
//!   published, and the next one's `inherit` is a rule of the model, held against the real one.
//! * **A loop that hangs stands still between two of its actions**, or with a decision that is not handed over. Its pause
//!   is shorter or longer than `max_lateness`, or so long that feedback is old. The next supervisor starts whenever it
//!   likes, also at once.
//! * **The kernel's time is order, too.** `kernel_stop` is one unit, each stage another. A stage is sent at any moment
//!   and any number of times; the last one goes on for ever. None comes out after the put-off: a stop too many moves
//!   nothing.
//! * **The front's view of the loop ages by itself**: before or after the kernel begins. A front whose supervisor was
//!   replaced goes on by the old one's words until they are old ([`front::FORMER`]).
//! * **A press is a state of the FIFO**: there since the pass under way, waking the next one, or seen. Which of its bytes
//!   housekeeping reads is tested in `supervisor/src/estop.rs`.
//! * **Rare events have a budget** ([`Scope`]): how many sessions are opened, how often the front dies,
//!   falls silent, and so on. The space is complete for the budget, not beyond.
//!
//! # What is not shown
//!
//! * What lies on disk of a latch. A death within the model leaves the words in memory, which systemd or the holder
//!   keeps; a loss of power does not (`supervisor/tests/core/latches.rs`).
//! * The kernel's silence after its last stage, where a stop feeds a drive's watchdog
//!   (`supervisor/tests/kernel_jobs.rs`).
//! * A bus that fails while the supervisor hangs or is dead.
//!
//! * A report that waited in the socket while the loop stood still. It counts as old as the pause, so it proves nothing
//!   (`supervisor/tests/core/freshness.rs`); what it may do is cause a stop.
//!
//! A motion frame that is in the kernel's queue when its front is killed, and comes out only after a new
//! front has been attached and its session granted the motor, moves the motor under that grant. The model
//! has this, and no property forbids it: nothing on the bus tells such a frame from the new session's.
//! In the same way a late frame may come out under the grant of a newer session of the same front, whose
//! own set-points then follow it on the same socket.

#![forbid(unsafe_code)]

pub mod drive;
pub mod front;
pub mod joint;
pub mod process;
pub mod properties;
pub mod queue;
pub mod shared;
pub mod supervisor;
pub mod wire;

use shm_proto::verdicts::{Reason, SessionState};
use stateright::{Model, Property};

use drive::Drive;
use front::{Actor, Beat, FORMER, Front};
use process::{Fifo, Interference, Job, KERNEL_STOP, Pressed, Process};
use properties::{Broken, Witness};
use shared::{Beats, Owner, Ring, SLOTS, Word};
use supervisor::{
    Before, Bus, Core, Due, Held, Latch, Log, NO_TRIP, Occasion, Pause, Settings, State, Step, TripId,
    TripSeen,
};
use wire::{Heard, Wire};

/// What is configured, and how often each rare event may happen.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The supervisor's configuration.
    pub settings: Settings,
    /// How the supervisor before it ended.
    pub before: Before,
    /// Sessions opened, all slots together.
    pub opens: u8,
    /// `lanyard estop`.
    pub estops: u8,
    /// The interface goes down.
    pub bus_failures: u8,
    /// The controller becomes error-passive.
    pub bus_doubts: u8,
    /// The front process dies.
    pub front_deaths: u8,
    /// A front starts again.
    pub front_starts: u8,
    /// The front falls silent.
    pub front_silences: u8,
    /// The drive gives up by itself.
    pub drive_faults: u8,
    /// The drive turns without a frame: it was switched off and on, or an input of its own commands it.
    pub drive_starts: u8,
    /// Somebody writes into the FIFO of the operator's stop. Where the supervisor may die, that comes only while a session
    /// has the motor.
    pub presses: u8,
    /// The supervisor's loop stands still.
    pub hangs: u8,
    /// The supervisor is killed. Where stop may be pressed, that comes after a press, and before the operator reads its
    /// number.
    pub supervisor_deaths: u8,
    /// Whether programs of this computer speak in the drive's name.
    pub forgers: Forgers,
}

/// Whether programs of this computer speak in the drive's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgers {
    /// None does.
    None,
    /// They say whatever would have an effect if it were believed.
    Some,
}

/// How much of a [`Scope`] has been used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    opens: u8,
    estops: u8,
    bus_failures: u8,
    bus_doubts: u8,
    front_deaths: u8,
    pub(crate) front_starts: u8,
    front_silences: u8,
    drive_faults: u8,
    drive_starts: u8,
    presses: u8,
    hangs: u8,
    supervisor_deaths: u8,
}

/// The operator: reads a trip's number, and may use it much later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operator {
    /// The trip last read.
    pub noted: TripSeen,
    /// What became of the last reset of a trip that held the motor.
    pub reset: Reset,
}

/// What became of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reset {
    /// None yet.
    None,
    /// It was accepted, and nothing was granted since.
    Accepted,
    /// It was accepted, and a session was granted the motor after it.
    Granted,
}

/// What has set the drive in motion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mover {
    /// A frame.
    Frame,
    /// Nothing that was on the bus.
    Itself,
}

/// Everything there is, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct System {
    /// The supervisor.
    pub core: Core,
    /// Whether its loop comes round.
    pub process: Process,
    /// The kernel's jobs.
    pub job: Job,
    /// The FIFO of the operator's stop.
    pub fifo: Fifo,
    /// The front.
    pub front: Front,
    /// What the front has written for the supervisor.
    pub beats: Beats,
    /// Kernel and bus.
    pub wire: Wire,
    /// The drive.
    pub drive: Drive,
    /// By what it turns, if it does.
    pub mover: Mover,
    /// The operator.
    pub operator: Operator,
    /// What a bystander has seen of the motor under its grant, or at rest.
    pub witness: Witness,
    /// A bystander's memory of the FIFO.
    pub pressed: Pressed,
    /// A bystander's memory of the kernel's stops.
    pub interference: Interference,
    /// For how many units of the kernel's time nothing was put off, up to `kernel_stop`.
    pub absent: u8,
    /// Used budget.
    pub spent: Spent,
    /// The first rule a step has broken.
    pub broken: Option<Broken>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The supervisor's tick.
    Tick,
    /// The deadlines of these slots have passed.
    Expire(Due),
    /// The front's own deadline has passed.
    FrontSilent,
    /// The front's process descriptor says that it ended.
    FrontEnded,
    /// A front is attached.
    Attach,
    /// The supervisor reads a motion frame from its socket.
    Receive,
    /// The kernel takes or refuses the stage the supervisor has decided on.
    SupervisorSends,
    /// The supervisor learns that the interface is down.
    NoticeDown,
    /// The supervisor learns that the interface is up.
    NoticeUp,
    /// The supervisor learns that the controller is error-passive.
    NoticeDoubt,
    /// The supervisor learns that it no longer is.
    NoticeWell,
    /// An operator's stop through one of the supervisor's sockets.
    Estop,
    /// Somebody writes into the FIFO of the operator's stop.
    Press,
    /// The loop wakes because something lies in the FIFO.
    HeedStop,
    /// Housekeeping reads from the FIFO what the loop has seen.
    Drain,
    /// The loop stands still.
    Hang,
    /// It goes on after a pause of that length.
    GoOn(Pause),
    /// The loop comes to the kernel's jobs.
    PutOff,
    /// The supervisor is killed.
    SupervisorDies,
    /// The next one starts.
    SupervisorStarts,
    /// A front that lives is attached to it.
    Reattach,
    /// A unit of the kernel's time is over.
    KernelTime,
    /// A frame of the kernel's jobs goes onto the wire.
    KernelFrame,
    /// The supervisor's last word is older than `kernel_stop` for the front.
    BeatGrowsOld,
    /// The same of the supervisor before.
    FormerGrowsOld,
    /// A program of this computer says that of the drive.
    Forge(Drive),
    /// The operator reads the number of the trip that holds the motor.
    NoteTrip,
    /// `lanyard reset` with that number.
    Reset,
    /// The front opens a session in a slot.
    Open(u8),
    /// A session says goodbye.
    Close(u8),
    /// A session that lives commands the motor.
    Command(u8),
    /// The motor's task takes its next step.
    FrontSteps,
    /// The command ends: a stop is asked for, its client is gone, or the grant does not come in time.
    Conclude,
    /// The front gives up on a stop that does not get out.
    GiveUp,
    /// The front is killed.
    FrontDies,
    /// The front's oldest frame goes onto the wire.
    FrontFrame,
    /// The supervisor's oldest frame goes onto the wire.
    SupervisorFrame,
    /// The interface goes down.
    BusFails,
    /// The interface comes up.
    BusRecovers,
    /// The drive reports, and the supervisor reads it.
    Report,
    /// The drive gives up.
    DriveFails,
    /// The drive turns without a frame.
    DriveStarts,
    /// A front that was silent beats again.
    FrontSpeaks,
}

impl System {
    /// The supervisor has just started and a front is attached.
    #[must_use]
    pub fn started() -> Self {
        let mut wire = Wire::IDLE;
        wire.send_of_supervisor(0);
        Self {
            core: Core::started(),
            process: Process::Runs,
            job: Job::ARMED,
            fifo: Fifo::Empty,
            front: Front::STARTED,
            beats: Beats::FRESH,
            wire,
            // Nobody knows what the motors were doing.
            drive: Drive::Turning,
            mover: Mover::Frame,
            operator: Operator { noted: TripSeen::NONE, reset: Reset::None },
            witness: Witness::Doubts,
            pressed: Pressed::No,
            interference: Interference::None,
            absent: 0,
            spent: Spent::default(),
            broken: None,
        }
    }

    /// Everything that can happen now.
    pub fn actions(&self, scope: &Scope, actions: &mut Vec<Action>) {
        self.actions_of_process(scope, actions);
        if self.front.alive {
            self.actions_of_front(scope, actions);
        }
        self.actions_outside(scope, actions);
    }

    fn actions_of_process(&self, scope: &Scope, actions: &mut Vec<Action>) {
        match self.process {
            Process::Hangs => self.ends_of_pause(actions),
            Process::Dead => actions.push(Action::SupervisorStarts),
            _ if self.core.outbox.is_some() => actions.push(Action::SupervisorSends),
            Process::Ticked | Process::Starts => actions.push(Action::PutOff),
            Process::Returns(_) => {
                self.actions_of_supervisor(scope, actions);
                actions.push(Action::PutOff);
            }
            Process::Runs => {
                self.actions_of_supervisor(scope, actions);
                if self.fifo == Fifo::Seen {
                    actions.push(Action::Drain);
                }
            }
        }
        if !self.process.is_absent() && self.spent.hangs < scope.hangs {
            actions.push(Action::Hang);
        }
        // What was not pressed yet, or is read and reset by then, makes no difference to a death.
        let is_pressed = matches!(self.pressed, Pressed::Lately | Pressed::Before | Pressed::Heard);
        let may_die =
            (scope.presses == 0 || is_pressed) && self.spent.supervisor_deaths < scope.supervisor_deaths;
        if self.process != Process::Dead && may_die {
            actions.push(Action::SupervisorDies);
        }
    }

    /// How long the pause was. The kernel begins after a longer time than `max_lateness`, but counts from an earlier moment.
    fn ends_of_pause(&self, actions: &mut Vec<Action>) {
        match self.job {
            Job::PutOff { .. } => actions.extend([Pause::Short, Pause::Late].map(Action::GoOn)),
            Job::Sends { stage: 0 } => {
                actions.extend([Pause::Short, Pause::Late, Pause::Long].map(Action::GoOn));
            }
            Job::Sends { .. } => actions.push(Action::GoOn(Pause::Long)),
        }
    }

    fn actions_of_supervisor(&self, scope: &Scope, actions: &mut Vec<Action>) {
        if self.fifo == Fifo::Wakes {
            actions.push(Action::HeedStop);
            return;
        }
        actions.push(Action::Tick);
        let lives = [self.core.owner(0).is_some(), self.core.owner(1).is_some()];
        for due in [[true, false], [false, true], [true, true]] {
            if (0..2).all(|slot| lives[slot] || !due[slot]) {
                actions.push(Action::Expire(due));
            }
        }
        if self.core.front && self.core.front_watched && self.spent.front_silences < scope.front_silences {
            actions.push(Action::FrontSilent);
        }
        if self.core.front && !self.front.alive {
            actions.push(Action::FrontEnded);
        }
        if !self.front.alive && self.spent.front_starts < scope.front_starts {
            actions.push(Action::Attach);
        }
        if self.front.alive && !self.core.front {
            actions.push(Action::Reattach);
        }
        if scope.forgers == Forgers::Some {
            let said = [Drive::Off, Drive::Holding, Drive::Turning, Drive::Faulted];
            actions.extend(said.map(Action::Forge));
        }
        if self.wire.motion_unread {
            actions.push(Action::Receive);
        } else if self.wire.up {
            actions.push(Action::Report);
        }
        match (self.core.bus, self.wire.up) {
            (Bus::Well | Bus::Doubtful, false) => actions.push(Action::NoticeDown),
            (Bus::Gone, true) => actions.push(Action::NoticeUp),
            (Bus::Well, true) if self.spent.bus_doubts < scope.bus_doubts => {
                actions.push(Action::NoticeDoubt);
            }
            (Bus::Doubtful, true) => actions.push(Action::NoticeWell),
            (Bus::Well, true) | (Bus::Gone, false) => {}
        }
        if self.spent.estops < scope.estops {
            actions.push(Action::Estop);
        }
        if self.trip_on_show() != TripSeen::NONE && self.trip_on_show() != self.operator.noted {
            actions.push(Action::NoteTrip);
        }
        if self.operator.noted != TripSeen::NONE {
            actions.push(Action::Reset);
        }
    }

    fn actions_of_front(&self, scope: &Scope, actions: &mut Vec<Action>) {
        for slot in 0..SLOTS {
            let newest = self.beats.newest(slot);
            let open = self.beats.rings[usize::from(slot)].word == Word::Alive
                && Front::session_alive(&self.core, newest);
            let seen_off = newest.incarnation == self.core.sessions[usize::from(slot)].incarnation
                && self.core.owner(slot).is_none();
            // The slots are alike; which of them is used first makes no difference.
            let in_turn = slot == 0 || self.beats.rings[0].incarnation > 0;
            if seen_off && in_turn && self.core.front && self.spent.opens < scope.opens {
                actions.push(Action::Open(slot));
            }
            if open {
                actions.push(Action::Close(slot));
                if self.takes_command(newest) {
                    actions.push(Action::Command(slot));
                }
            }
        }
        match self.front.actor {
            Actor::Idle => {}
            Actor::Obtaining(owner) => {
                actions.push(Action::Conclude);
                if self.front.holds(&self.core, owner) || self.front.waits_in_vain(&self.core, owner) {
                    actions.push(Action::FrontSteps);
                }
            }
            Actor::Driving(_) => actions.extend([Action::Conclude, Action::FrontSteps]),
            Actor::Stopping => {
                actions.push(Action::FrontSteps);
                if !self.wire.up || !self.wire.front.has_room() {
                    actions.push(Action::GiveUp);
                }
            }
            Actor::Taking(_) | Actor::Permitted(_) | Actor::Sent(_) => actions.push(Action::FrontSteps),
        }
        if self.spent.front_deaths < scope.front_deaths {
            actions.push(Action::FrontDies);
        }
        if !self.beats.front_beats {
            actions.push(Action::FrontSpeaks);
        }
    }

    /// Whether the task is at a point where it looks at its desk, and a command would be news to it.
    fn takes_command(&self, of: Owner) -> bool {
        match self.front.actor {
            Actor::Idle | Actor::Stopping => true,
            Actor::Obtaining(owner) | Actor::Driving(owner) => owner != of,
            Actor::Taking(_) | Actor::Permitted(_) | Actor::Sent(_) => false,
        }
    }

    fn actions_outside(&self, scope: &Scope, actions: &mut Vec<Action>) {
        if self.wire.front_can_go(self.process) {
            actions.push(Action::FrontFrame);
        }
        if self.process.is_absent() {
            actions.push(Action::KernelTime);
            if self.front.alive && self.front.beat == Beat::Young {
                actions.push(Action::BeatGrowsOld);
            }
        }
        if self.front.former == Beat::Young {
            actions.push(Action::FormerGrowsOld);
        }
        if self.wire.up && self.job.sends().is_some() {
            actions.push(Action::KernelFrame);
        }
        let something_moves = scope.supervisor_deaths == 0 || self.core.motor.owner().is_some();
        if self.spent.presses < scope.presses && something_moves {
            actions.push(Action::Press);
        }
        if self.wire.up && self.wire.supervisor.is_some() {
            actions.push(Action::SupervisorFrame);
        }
        if self.wire.up {
            if self.spent.bus_failures < scope.bus_failures {
                actions.push(Action::BusFails);
            }
        } else {
            actions.push(Action::BusRecovers);
        }
        if self.spent.drive_faults < scope.drive_faults && self.drive == Drive::Turning {
            actions.push(Action::DriveFails);
        }
        let stands = matches!(self.drive, Drive::Off | Drive::Holding);
        if self.spent.drive_starts < scope.drive_starts && stands {
            actions.push(Action::DriveStarts);
        }
    }

    /// The trip that `lanyard status` tells to reset.
    fn trip_on_show(&self) -> TripSeen {
        let motor = &self.core.motor;
        let trip = match (self.core.latch, motor.latch) {
            (NO_TRIP, Latch::Held) => motor.trip,
            (latch, _) => latch,
        };
        let is_motors = motor.latch == Latch::Held && motor.trip == trip;
        TripSeen { trip, violations: if is_motors { motor.violations } else { 0 } }
    }

    /// What the action makes of this state; what the supervisor did goes into `log`.
    #[must_use]
    pub fn after(mut self, action: Action, settings: Settings, log: &mut Log) -> Self {
        let before = self;
        let mut accepted = false;
        {
            let pause = self.process.pause();
            let mut step = Step { core: &mut self.core, settings, beats: &self.beats, pause, log };
            match action {
                Action::Tick => step.tick(),
                Action::HeedStop => step.press(),
                Action::PutOff if before.is_overtaken() => step.overtaken(),
                Action::SupervisorStarts => {
                    self.front.outlive_supervisor(&before.core);
                    *step.core = before.core.succeeded(settings, step.log);
                }
                Action::Reattach => {
                    step.attach();
                    (self.beats, self.front.beat) = (Beats::FRESH, Beat::Young);
                }
                Action::Forge(_) => step.received(Heard::Forged),
                Action::Expire(due) => step.expire(due),
                Action::FrontSilent => {
                    self.spent.front_silences += 1;
                    step.front_silent();
                    self.beats.front_beats = false;
                }
                Action::FrontEnded => step.detach(Reason::FrontDead),
                Action::Attach => {
                    self.spent.front_starts += 1;
                    step.attach();
                    self.front = Front::STARTED;
                    self.beats = Beats::FRESH;
                }
                Action::Receive => {
                    self.wire.motion_unread = false;
                    step.received(Heard::Motion);
                }
                Action::Report => step.received(Heard::Report(self.drive)),
                Action::NoticeDown => step.bus(Bus::Gone),
                Action::NoticeUp | Action::NoticeWell => step.bus(Bus::Well),
                Action::NoticeDoubt => {
                    self.spent.bus_doubts += 1;
                    step.bus(Bus::Doubtful);
                }
                Action::Estop => {
                    self.spent.estops += 1;
                    step.press();
                }
                Action::Reset => accepted = step.reset(self.operator.noted),
                Action::SupervisorSends => {
                    if let Some(stage) = self.core.outbox {
                        self.core.sent(self.wire.send_of_supervisor(stage));
                    }
                }
                Action::NoteTrip => self.operator.noted = before.trip_on_show(),
                _ => self.step_elsewhere(action),
            }
        }
        self.advance_process(action, settings);
        self.remember(&before, action, accepted);
        self.operator.reset = match (self.operator.reset, accepted) {
            (_, true) if self.core.motor.latch != before.core.motor.latch => Reset::Accepted,
            (Reset::Accepted, _) if self.core.motor.owner().is_some() => Reset::Granted,
            (reset, _) => reset,
        };
        // What was seen of a motor that is nobody's says nothing of it under a grant, and the other way round.
        let motors = [&before.core.motor, &self.core.motor];
        let stays_granted = motors.iter().all(|motor| motor.owner().is_some());
        let is_believed = action != Action::GoOn(Pause::Long);
        self.witness = if is_believed && (stays_granted || self.core.motor.is_at_rest()) {
            before.witness.after(&before, action)
        } else {
            Witness::Doubts
        };
        self.broken = self.broken.or_else(|| properties::broken(&before, action, accepted, &self));
        self
    }

    /// Whether the put-off that is next finds its jobs sent already. One that has just started had none.
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        self.process != Process::Starts && self.job.sends().is_some()
    }

    /// Where the loop stands after that, and what lies in its FIFO.
    fn advance_process(&mut self, action: Action, settings: Settings) {
        match action {
            Action::Tick | Action::Expire(_) => {
                self.publish_beat();
                if action == Action::Tick {
                    if matches!(self.process, Process::Returns(_)) {
                        self.process = Process::Ticked;
                    }
                    if self.fifo == Fifo::Pressed {
                        self.fifo = Fifo::Wakes;
                    }
                }
            }
            Action::HeedStop => self.fifo = Fifo::Seen,
            Action::Drain => self.fifo = Fifo::Empty,
            Action::Press => {
                self.spent.presses += 1;
                if self.fifo != Fifo::Wakes {
                    self.fifo = Fifo::Pressed;
                }
            }
            Action::Hang => {
                self.spent.hangs += 1;
                self.process = Process::Hangs;
            }
            Action::GoOn(pause) => {
                self.process = Process::Returns(pause);
                match pause {
                    // What waited is as good as said now.
                    Pause::Short | Pause::Late => {}
                    Pause::Long => self.core.forget_feedback(),
                }
            }
            Action::PutOff => {
                (self.process, self.job) = (Process::Runs, Job::ARMED);
                self.publish_beat();
            }
            Action::SupervisorDies => {
                self.spent.supervisor_deaths += 1;
                (self.process, self.core.outbox) = (Process::Dead, None);
            }
            Action::SupervisorStarts => {
                self.process = Process::Starts;
                self.wire.motion_unread = false;
                if self.fifo != Fifo::Empty {
                    self.fifo = Fifo::Wakes;
                }
            }
            Action::KernelTime => self.job.pass_time(settings.after),
            _ => {}
        }
    }

    /// The loop has come round, for the front that is attached.
    fn publish_beat(&mut self) {
        if self.core.front && self.front.alive {
            self.front.beat = Beat::Young;
        }
    }

    /// Lets the bystanders remember it.
    fn remember(&mut self, before: &Self, action: Action, accepted: bool) {
        let motor = &self.core.motor;
        let names_press = before.operator.noted.trip == before.core.latch;
        self.pressed = match (action, before.pressed) {
            (Action::Press, Pressed::Before) => Pressed::Before,
            (Action::Press, _) => Pressed::Lately,
            (Action::Tick | Action::SupervisorStarts, Pressed::Lately) => Pressed::Before,
            (Action::HeedStop | Action::Estop, _) => Pressed::Heard,
            (Action::NoteTrip, Pressed::Heard) => Pressed::Read,
            (Action::Reset, Pressed::Heard | Pressed::Read) if accepted && names_press => Pressed::No,
            (_, pressed) => pressed,
        };
        self.absent = match action {
            Action::KernelTime => KERNEL_STOP.min(before.absent + 1),
            Action::PutOff => 0,
            _ => before.absent,
        };
        let is_tripped = motor.owner().is_none() && motor.occasion == Occasion::Trip;
        self.interference = match action {
            Action::KernelTime if self.job.sends().is_some() => Interference::Stopped,
            Action::PutOff if is_tripped => Interference::None,
            _ => before.interference,
        };
    }

    /// Front, bus and drive.
    fn step_elsewhere(&mut self, action: Action) {
        match action {
            Action::Open(slot) => {
                self.spent.opens += 1;
                let ring = &mut self.beats.rings[usize::from(slot)];
                *ring = Ring { incarnation: ring.incarnation + 1, word: Word::Alive };
            }
            Action::Close(slot) => self.beats.rings[usize::from(slot)].word = Word::Close,
            Action::Command(slot) => self.front.command(self.beats.newest(slot)),
            Action::FrontSteps => self.front_steps(),
            Action::Conclude => self.front.conclude(),
            Action::GiveUp => self.front.give_up(),
            Action::FrontDies => {
                self.spent.front_deaths += 1;
                self.beats.front_beats = false;
                self.front.die();
            }
            Action::FrontFrame => {
                if let Some(frame) = self.wire.front.pop() {
                    self.drive.obey(frame);
                    self.mover = Mover::Frame;
                    if frame == wire::FrontFrame::Motion {
                        self.wire.motion_unread = true;
                    }
                }
            }
            Action::SupervisorFrame => {
                if let Some(stage) = self.wire.supervisor.take() {
                    self.drive.stop(stage);
                    self.mover = Mover::Frame;
                }
            }
            Action::BusFails => {
                self.spent.bus_failures += 1;
                self.wire.go_down();
            }
            Action::BusRecovers => self.wire.up = true,
            Action::KernelFrame => {
                if let Some(stage) = self.job.sends() {
                    self.drive.stop(stage);
                    self.mover = Mover::Frame;
                }
            }
            Action::BeatGrowsOld => self.front.beat = Beat::Old,
            Action::FormerGrowsOld => self.front.former = Beat::Old,
            Action::DriveFails => {
                self.spent.drive_faults += 1;
                self.drive = Drive::Faulted;
                self.mover = Mover::Frame;
            }
            Action::DriveStarts => {
                self.spent.drive_starts += 1;
                self.drive = Drive::Turning;
                self.mover = Mover::Itself;
            }
            Action::FrontSpeaks => self.beats.front_beats = true,
            _ => {}
        }
    }

    fn front_steps(&mut self) {
        match self.front.actor {
            Actor::Idle => {}
            Actor::Taking(owner) => self.front.take(&mut self.beats, owner),
            Actor::Obtaining(owner) | Actor::Driving(owner) => self.front.look(&self.core, owner),
            Actor::Permitted(owner) => self.front.send(&self.core, &mut self.wire, owner),
            Actor::Sent(owner) => self.front.look_again(&self.core, owner),
            Actor::Stopping => self.front.send_stop(&mut self.wire),
        }
    }

    /// The same state with trips renamed 1, 2, 3 in their order, and with what nothing depends on any more
    /// forgotten: the reason of a stop whose frames are out (but for that of the start), and how a session
    /// ended.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        let mut known = [self.core.motor.trip, self.core.latch, self.operator.noted.trip];
        known.sort_unstable();
        let rank = |trip: TripId| {
            let mut rank = 0;
            let mut last = NO_TRIP;
            for other in known {
                if other != last && other <= trip {
                    rank += 1;
                    last = other;
                }
            }
            rank
        };
        let newest = rank(known[2]);
        // Of violations all that counts is whether the operator knows of all of them.
        let noted = &mut self.operator.noted;
        let unknown = noted.trip == self.core.motor.trip && noted.violations != self.core.motor.violations;
        (noted.violations, self.core.motor.violations) = (0, u8::from(unknown));
        noted.trip = rank(noted.trip);
        self.core.motor.trip = rank(self.core.motor.trip);
        self.core.latch = rank(self.core.latch);
        self.core.trips = newest;
        if self.core.latch == NO_TRIP {
            self.core.held = Held::All;
        }
        let follows_former = match self.front.actor {
            Actor::Taking(owner)
            | Actor::Obtaining(owner)
            | Actor::Permitted(owner)
            | Actor::Sent(owner)
            | Actor::Driving(owner) => owner == FORMER,
            Actor::Idle | Actor::Stopping => false,
        };
        if !follows_former {
            self.front.former = Beat::Old;
        }
        let settled = self.core.outbox.is_none() && self.core.motor.reason != Reason::Startup;
        if settled {
            self.core.motor.reason = Reason::Violation;
        }
        if matches!(self.core.motor.state, State::Idle | State::Granted { .. }) {
            // The stop before it is over.
            self.core.motor.occasion = Occasion::Trip;
        }
        if !matches!(self.core.motor.state, State::Stopping { .. } | State::Unverified) {
            self.core.motor.restarts = 0;
        }
        for (session, ring) in self.core.sessions.iter_mut().zip(&mut self.beats.rings) {
            if is_over(session.state) {
                session.state = SessionState::Tripped;
                if ring.incarnation == session.incarnation {
                    ring.word = Word::Close;
                }
            }
        }
        self
    }
}

impl System {
    /// After a tick: a wish that this tick could have granted and did not, as its session is over, is
    /// refused by every later tick, too. Only then may it be forgotten: earlier would hide a grant to a
    /// session that is over.
    fn forget_refused_wish(&mut self) {
        let over = self.beats.owner_word.is_some_and(|owner| !Front::session_alive(&self.core, owner));
        if over && self.core.front && self.core.motor.may_be_granted() {
            self.beats.owner_word = None;
        }
    }
}

impl Model for Scope {
    type State = System;
    type Action = Action;

    fn init_states(&self) -> Vec<System> {
        let mut started = System::started();
        started.core = Core::started_after(self.before, self.settings);
        let mut left_behind = started;
        // The supervisor has been restarted, and a frame of the front before is still under way.
        left_behind.wire.send_of_front(wire::FrontFrame::Motion);
        vec![started, left_behind]
    }

    fn actions(&self, state: &System, actions: &mut Vec<Action>) {
        // Behind a broken rule there is nothing to look at.
        if state.broken.is_none() {
            state.actions(self, actions);
        }
    }

    fn next_state(&self, state: &System, action: Action) -> Option<System> {
        let mut next = state.after(action, self.settings, &mut Log::default()).canonical();
        if action == Action::Tick {
            next.forget_refused_wish();
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}

/// Whether a session of the supervisor is over.
#[must_use]
pub const fn is_over(state: SessionState) -> bool {
    matches!(state, SessionState::Tripped | SessionState::Closed)
}
