//! Where paths come from: all short ones of a supervisor whose surroundings do as they please, and long
//! random ones of the whole model.

use std::collections::HashSet;

use lanyard_model::drive::Drive;
use lanyard_model::process::Process;
use lanyard_model::shared::{Owner, SLOTS, Word};
use lanyard_model::supervisor::{Before, Bus, Core, Log, NO_TRIP, Pause, Settings, TripSeen};
use lanyard_model::wire::Sent;
use lanyard_model::{Action, Forgers, Scope, System, front};

use super::{Input, Lateness, Move, Twin, Which};

/// How far a tour goes from where it starts.
const DEPTH: usize = 4;
/// Sessions opened on a tour.
const OPENS: u8 = 3;
/// Actions of one random walk.
const STEPS: usize = 400;

/// Paths that together make every input in every state that is reached with fewer than [`DEPTH`] inputs
/// from the start, from a motor that runs while a second session lives, and from its stop by an operator.
pub fn tour(settings: Settings) -> Vec<Vec<Move>> {
    let first = Owner { slot: 0, incarnation: 1 };
    let running = [
        Input::Report(Drive::Off),
        Input::Report(Drive::Off),
        Input::Open(0),
        Input::Open(1),
        Input::Take(first),
        Input::Tick,
        Input::Report(Drive::Turning),
    ];
    let stopped = [running.as_slice(), &[Input::Estop, Input::Report(Drive::Off), Input::Report(Drive::Off)]];
    let mut known = HashSet::new();
    let mut layer = Vec::new();
    for prefix in [Vec::new(), running.to_vec(), stopped.concat()] {
        let mut twin = Twin::started(Before::None, settings);
        let path: Vec<Move> = prefix.iter().map(|input| Move { input: *input, answer: Sent::Ok }).collect();
        for step in &path {
            twin.apply(*step, settings);
        }
        known.insert(key(&twin));
        layer.push((twin, path));
    }
    let mut paths = Vec::new();
    for depth in 1..=DEPTH {
        let mut next = Vec::new();
        for (twin, path) in layer {
            for step in moves(&twin) {
                let mut after = twin;
                after.apply(step, settings);
                let mut longer: Vec<Move> = path.clone();
                longer.push(step);
                if known.insert(key(&after)) && depth < DEPTH {
                    next.push((after, longer));
                } else {
                    paths.push(longer);
                }
            }
        }
        layer = next;
    }
    paths
}

/// The state up to the numbers of trips, of which only equality counts.
fn key(twin: &Twin) -> Twin {
    let mut key = *twin;
    key.core.trips = NO_TRIP;
    key.core.motor.trip = twin.core.motor.trip.min(1);
    key.core.motor.violations = twin.core.motor.violations.min(1);
    key.core.latch = match twin.core.latch {
        NO_TRIP => NO_TRIP,
        latch if latch == twin.core.motor.trip => 1,
        _ => 2,
    };
    key
}

/// Everything that can be told to a supervisor in that state, sensible or not.
fn moves(twin: &Twin) -> Vec<Move> {
    let mut inputs = vec![Input::Tick, Input::Motion, Input::OtherMaster, Input::Estop];
    inputs.extend([Lateness::BelievesFeedback, Lateness::DistrustsFeedback].map(Input::LateTick));
    inputs.extend([Input::Overtaken, Input::Killed, Input::Press]);
    inputs.extend([Drive::Off, Drive::Holding, Drive::Turning, Drive::Faulted].map(Input::Report));
    // Whatever would have an effect if it were believed.
    inputs.extend([Drive::Off, Drive::Turning, Drive::Faulted].map(Input::Forged));
    inputs.extend([Which::Motors, Which::Latch].map(Input::Reset));
    if twin.core.motor.trip > 1 {
        let seen = TripSeen { trip: twin.core.motor.trip - 1, violations: 0 };
        inputs.push(Input::Reset(Which::Noted(seen)));
    }
    if twin.core.motor.violations > 0 {
        // Before the last violation.
        let seen = TripSeen { trip: twin.core.motor.trip, violations: twin.core.motor.violations - 1 };
        inputs.push(Input::Reset(Which::Noted(seen)));
    }
    for bus in [Bus::Well, Bus::Doubtful, Bus::Gone] {
        if twin.core.bus != bus {
            inputs.push(Input::Bus(bus));
        }
    }
    let lives = [twin.core.owner(0).is_some(), twin.core.owner(1).is_some()];
    for due in [[true, false], [false, true], [true, true]] {
        if (0..2).all(|slot| lives[slot] || !due[slot]) {
            inputs.push(Input::Expire(due));
        }
    }
    if twin.core.front {
        inputs.push(Input::FrontEnded);
        if twin.core.front_watched {
            inputs.push(Input::FrontSilent);
        } else if !twin.beats.front_beats {
            inputs.push(Input::FrontSpeaks);
        }
    } else {
        inputs.push(Input::Attach);
    }
    let opened: u8 = twin.beats.rings.iter().map(|ring| ring.incarnation).sum();
    for slot in 0..SLOTS {
        let ring = twin.beats.rings[usize::from(slot)];
        let seen = twin.core.sessions[usize::from(slot)].incarnation == ring.incarnation;
        if opened < OPENS && seen && !lives[usize::from(slot)] {
            inputs.push(Input::Open(slot));
        }
        if ring.word == Word::Alive {
            inputs.push(Input::Close(slot));
        }
        for incarnation in 1..=ring.incarnation {
            let owner = Owner { slot, incarnation };
            if twin.beats.owner_word != Some(owner) {
                inputs.push(Input::Take(owner));
            }
        }
    }
    let mut moves = Vec::new();
    for input in inputs {
        moves.push(Move { input, answer: Sent::Ok });
        if matches!(input, Input::Tick | Input::Motion | Input::OtherMaster | Input::Estop) {
            moves.push(Move { input, answer: Sent::QueueFull });
            moves.push(Move { input, answer: Sent::Down });
        }
    }
    moves
}

/// What the supervisor sees of one random walk through the whole model.
pub fn walk(before: Before, settings: Settings, seed: u64) -> Vec<Move> {
    let scope = Scope {
        settings,
        before,
        opens: 20,
        estops: 3,
        bus_failures: 6,
        bus_doubts: 3,
        front_deaths: 3,
        front_starts: 3,
        front_silences: 3,
        drive_faults: 3,
        drive_starts: 3,
        presses: 3,
        hangs: 6,
        supervisor_deaths: 3,
        forgers: Forgers::Some,
    };
    let mut random = Random(seed);
    let mut system = System::started();
    system.core = Core::started_after(before, settings);
    let mut path = Vec::new();
    let mut actions = Vec::new();
    for _ in 0..STEPS {
        actions.clear();
        system.actions(&scope, &mut actions);
        // The real core hands its frames over within the step.
        let action = match (system.process, system.core.outbox) {
            // By the clock what was heard is old at once, and no input but the tick moves the real one's clock.
            (Process::Returns(Pause::Long), None) => Action::Tick,
            (Process::Hangs | Process::Dead, _) | (_, None) => random.choose(&actions),
            (_, Some(_)) => Action::SupervisorSends,
        };
        if matches!(
            (action, system.process),
            (Action::Expire(_), Process::Returns(Pause::Late | Pause::Long))
        ) {
            // In the real one it comes with the late tick, which is another input.
            continue;
        }
        if let Some(input) = seen_by_supervisor(&system, action) {
            path.push(Move { input, answer: system.wire.answer_to_supervisor() });
        }
        system = system.after(action, settings, &mut Log::default());
    }
    path
}

fn seen_by_supervisor(system: &System, action: Action) -> Option<Input> {
    Some(match action {
        Action::Tick => match system.process.pause() {
            Pause::Short => Input::Tick,
            Pause::Late => Input::LateTick(Lateness::BelievesFeedback),
            Pause::Long => Input::LateTick(Lateness::DistrustsFeedback),
        },
        Action::PutOff if system.is_overtaken() => Input::Overtaken,
        Action::SupervisorStarts => Input::Killed,
        Action::HeedStop => Input::Press,
        Action::Forge(drive) => Input::Forged(drive),
        Action::Expire(due) => Input::Expire(due),
        Action::FrontSilent => Input::FrontSilent,
        Action::FrontEnded => Input::FrontEnded,
        Action::Attach | Action::Reattach => Input::Attach,
        Action::Receive => Input::Motion,
        Action::Report => Input::Report(system.drive),
        Action::NoticeDown => Input::Bus(Bus::Gone),
        Action::NoticeDoubt => Input::Bus(Bus::Doubtful),
        Action::NoticeUp | Action::NoticeWell => Input::Bus(Bus::Well),
        Action::Estop => Input::Press,
        Action::Reset => Input::Reset(Which::Noted(system.operator.noted)),
        Action::Open(slot) => Input::Open(slot),
        Action::Close(slot) => Input::Close(slot),
        Action::FrontDies => Input::FrontDies,
        Action::FrontSpeaks => Input::FrontSpeaks,
        Action::FrontSteps => match system.front.actor {
            front::Actor::Taking(owner) => Input::Take(owner),
            _ => return None,
        },
        Action::SupervisorSends
        | Action::Press
        | Action::Drain
        | Action::Hang
        | Action::GoOn(_)
        | Action::PutOff
        | Action::SupervisorDies
        | Action::KernelTime
        | Action::KernelFrame
        | Action::BeatGrowsOld
        | Action::FormerGrowsOld
        | Action::NoteTrip
        | Action::Command(_)
        | Action::Conclude
        | Action::GiveUp
        | Action::FrontFrame
        | Action::SupervisorFrame
        | Action::BusFails
        | Action::BusRecovers
        | Action::DriveFails
        | Action::DriveStarts => return None,
    })
}

/// SplitMix64: the same walks on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn choose(&mut self, actions: &[Action]) -> Action {
        let place = self.next() % actions.len() as u64;
        actions[usize::try_from(place).unwrap_or(0)]
    }
}
