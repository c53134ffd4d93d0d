//! The model's supervisor against the real one: same inputs, same outputs, step by step.
//!
//! What lives here: paths of inputs ([`paths`]) and the real `supervisor::core::Core` with a front's
//! segment beside it and a clock that the path moves ([`real`]). After every step the words of the
//! verdict segment, the events and the frames are compared with what the model says. A core that is killed is followed by
//! another, which inherits what the first has published. What must never
//! live here: an allowance for a difference.

mod paths;
mod real;

use drivers::AfterStop;
use lanyard_model::drive::Drive;
use lanyard_model::shared::{Beats, Owner, Ring, Word};
use lanyard_model::supervisor::{Before, Bus, Core, Due, Log, Pause, Settings, Step, TripSeen};
use lanyard_model::wire::{Heard, Sent};
use shm_proto::verdicts::{Reason, ResetPolicy};

/// The policies and programmes there are.
const SETTINGS: [Settings; 5] = [
    Settings { policy: ResetPolicy::Auto, after: AfterStop::Release },
    Settings { policy: ResetPolicy::Auto, after: AfterStop::Hold },
    // The supervisor knows no difference to the automatic one.
    Settings { policy: ResetPolicy::Neutral, after: AfterStop::Release },
    Settings { policy: ResetPolicy::Manual, after: AfterStop::Release },
    Settings { policy: ResetPolicy::Manual, after: AfterStop::Hold },
];

/// What the supervisor can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Tick,
    /// A tick that comes later than `max_lateness`.
    LateTick(Lateness),
    /// A job of the kernel was put off when it was being sent already.
    Overtaken,
    /// The supervisor is killed, and the next one starts.
    Killed,
    Expire(Due),
    FrontSilent,
    FrontEnded,
    Attach,
    Motion,
    /// A motion frame from the wire.
    OtherMaster,
    Report(Drive),
    /// A program of the computer says that of the drive.
    Forged(Drive),
    Estop,
    /// Stop is pressed while it may be held already.
    Press,
    Reset(Which),
    Bus(Bus),
    /// Not inputs of a step, but words in the front's segment.
    Open(u8),
    Close(u8),
    Take(Owner),
    /// The process is gone; the supervisor does not know yet.
    FrontDies,
    /// It beats for itself again.
    FrontSpeaks,
}

/// How late a tick is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lateness {
    /// What the drive has said is believed all the same.
    BelievesFeedback,
    /// It no longer is.
    DistrustsFeedback,
}

impl Lateness {
    const fn pause(self) -> Pause {
        match self {
            Self::BelievesFeedback => Pause::Late,
            Self::DistrustsFeedback => Pause::Long,
        }
    }
}

/// Which trip a reset names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// The one that stopped the motor last.
    Motors,
    /// The one that holds everything.
    Latch,
    /// This one, read some time ago.
    Noted(TripSeen),
}

/// An input, and what the kernel answers to frames sent because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    input: Input,
    answer: Sent,
}

/// The model's supervisor and the words it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Twin {
    core: Core,
    beats: Beats,
}

/// What a step did besides changing state.
#[derive(Debug, Default)]
struct Done {
    log: Log,
    stage: Option<u8>,
    reset: Option<bool>,
}

impl Twin {
    fn started(before: Before, settings: Settings) -> Self {
        Self { core: Core::started_after(before, settings), beats: Beats::FRESH }
    }

    const fn trip(&self, which: Which) -> TripSeen {
        let motor = &self.core.motor;
        let trip = match which {
            Which::Motors => motor.trip,
            Which::Latch => self.core.latch,
            Which::Noted(seen) => return seen,
        };
        TripSeen { trip, violations: if motor.trip == trip { motor.violations } else { 0 } }
    }

    fn apply(&mut self, step: Move, settings: Settings) -> Done {
        let mut done = Done::default();
        let named = match step.input {
            Input::Reset(which) => self.trip(which),
            _ => TripSeen::NONE,
        };
        let pause = match step.input {
            Input::LateTick(lateness) => lateness.pause(),
            _ => Pause::Short,
        };
        let mut core = Step { core: &mut self.core, settings, beats: &self.beats, pause, log: &mut done.log };
        match step.input {
            Input::Tick | Input::LateTick(_) => core.tick(),
            Input::Overtaken => core.overtaken(),
            Input::Killed => *core.core = core.core.succeeded(settings, core.log),
            Input::Press => core.press(),
            Input::Expire(due) => core.expire(due),
            Input::FrontSilent => {
                core.front_silent();
                self.beats.front_beats = false;
            }
            Input::FrontEnded => core.detach(Reason::FrontDead),
            Input::Attach => {
                core.attach();
                self.beats = Beats::FRESH;
            }
            Input::Motion => core.received(Heard::Motion),
            Input::OtherMaster => core.received(Heard::OtherMaster),
            Input::Report(drive) => core.received(Heard::Report(drive)),
            Input::Forged(_) => core.received(Heard::Forged),
            Input::Estop => core.estop(),
            Input::Reset(_) => done.reset = Some(core.reset(named)),
            Input::Bus(bus) => core.bus(bus),
            Input::Open(slot) => {
                let ring = &mut self.beats.rings[usize::from(slot)];
                *ring = Ring { incarnation: ring.incarnation + 1, word: Word::Alive };
            }
            Input::Close(slot) => self.beats.rings[usize::from(slot)].word = Word::Close,
            Input::Take(owner) => self.beats.owner_word = Some(owner),
            Input::FrontDies => self.beats.front_beats = false,
            Input::FrontSpeaks => self.beats.front_beats = true,
        }
        done.stage = self.core.outbox;
        if done.stage.is_some() {
            self.core.sent(step.answer);
        }
        done
    }
}

/// Runs a path through both.
fn compare(before: Before, settings: Settings, path: &[Move]) {
    let mut twin = Twin::started(before, settings);
    let mut real = real::Real::started(before, settings, path);
    for (index, step) in path.iter().enumerate() {
        let earlier = twin;
        let done = twin.apply(*step, settings);
        let outcome = real.apply(&earlier, *step, &path[index + 1..]);
        let difference = real.difference(&twin, &done, &outcome);
        if let Some(what) = difference {
            panic!("{settings:?}, {before:?}, {:?}\nmodel and code differ: {what}", &path[..=index]);
        }
    }
}

#[test]
fn every_short_path_does_the_same_in_model_and_code() {
    for settings in SETTINGS {
        let paths = paths::tour(settings);
        let steps: usize = paths.iter().map(Vec::len).sum();
        println!("{settings:?}: {} paths, {steps} steps", paths.len());
        assert!(paths.len() > 5_000, "the tour has lost most of its paths");
        for path in &paths {
            compare(Before::None, settings, path);
        }
    }
}

#[test]
fn long_random_walks_of_the_whole_model_do_the_same_in_model_and_code() {
    const WALKS: u64 = 200;
    for settings in SETTINGS {
        let mut steps = 0;
        for seed in 0..WALKS {
            let path = paths::walk(Before::None, settings, seed);
            steps += path.len();
            compare(Before::None, settings, &path);
        }
        println!("{settings:?}: {WALKS} walks, {steps} steps of the supervisor");
        assert!(steps > 10_000, "the walks have become short");
    }
}

/// What the supervisor before left open changes nothing but the beginning: the walks of a first one, as far as they make
/// sense, and every input right after the start.
#[test]
fn walks_after_a_supervisor_that_died_do_the_same_in_model_and_code() {
    const WALKS: u64 = 60;
    for settings in SETTINGS {
        let mut steps = 0;
        for before in
            [Before::DiedDriving, Before::LeftOpen(Reason::Expired), Before::LeftOpen(Reason::OperatorStop)]
        {
            for seed in 0..WALKS {
                let path = paths::walk(before, settings, seed);
                steps += path.len();
                compare(before, settings, &path);
            }
        }
        println!("{settings:?}: {steps} steps of the supervisor");
        assert!(steps > 10_000, "the walks have become short");
    }
}
