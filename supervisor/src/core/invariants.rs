//! What holds between any two inputs, whatever they were.
//!
//! Each line of [`INVARIANTS`] is a sentence about the whole state and what is published of it. Debug builds look at all of
//! them after every step; the model's conformance and the fuzzer after every input. A sentence that is broken is a mistake
//! in the core, never in an input. It costs one pass over motors, sessions and sign-of-life frames for each sentence, and
//! no allocation.

use shm_proto::verdicts::{Counter, Phase, SessionState};
use shm_proto::{Nanos, SlotIndex, TripId};

use super::health::Reach;
use super::motor::{Latch, MOST_RESTARTS, Motor, State};
use super::sessions::Session;
use super::{Core, Held, motor_index};

/// A sentence, and whether it is true.
type Invariant = (&'static str, fn(&Core) -> bool);

/// All of them.
const INVARIANTS: &[Invariant] = &[
    // -- Who may move --
    ("a granted motor follows a session that lives", |core| {
        core.all_granted(|motor| motor.owner().is_some_and(|owner| core.sessions.live(owner).is_some()))
    }),
    ("a granted motor's session was in time in the last pass", |core| {
        core.all_granted(|motor| {
            motor.owner().is_some_and(|owner| core.sessions.deadline(owner.slot) > core.stepped)
        })
    }),
    ("a granted motor has a front that answers for it", |core| core.all_granted(|_| core.front.is_some())),
    ("a granted motor's front was in time in the last pass", |core| {
        let deadline = core.sessions.deadline(core.sessions.front_slot());
        core.all_granted(|_| deadline > core.stepped && deadline != Nanos::NEVER)
    }),
    ("a granted motor is held by nothing", |core| core.all_granted(|motor| motor.latch == Latch::Open)),
    ("nothing is granted before every motor was told to stop, or once the end has begun", |core| {
        core.phase == Phase::Armed || core.all_granted(|_| false)
    }),
    ("while a motor of a frame is being stopped, no other motor of that frame is driven", |core| {
        let stops = |motor: &Motor| motor.owner().is_none() && !motor.is_at_rest();
        core.places().all(|one| {
            !stops(&core.motors[one])
                || core
                    .places()
                    .all(|other| !core.are_mates(one, other) || core.motors[other].owner().is_none())
        })
    }),
    // -- What is held --
    ("an operator's stop holds every motor until another trip is reset", |core| {
        core.latch == TripId::NONE
            || core.held == Held::Some
            || core.motors.iter().all(|motor| motor.latch == Latch::Held)
    }),
    ("a held motor is held by a trip", |core| core.all_held(|motor| motor.trip != TripId::NONE)),
    ("a held motor is held for a reason", |core| core.all_held(|motor| motor.reason.is_some())),
    ("a held motor is not idle", |core| {
        core.phase == Phase::Starting || core.all_held(|motor| !matches!(motor.state, State::Idle { .. }))
    }),
    // -- Numbers --
    ("trip numbers never fall", |core| core.trips >= core.counted),
    ("a motor's trip has a number that was given", |core| {
        core.motors.iter().all(|motor| motor.trip <= core.trips)
    }),
    ("a session's trip has a number that was given", |core| {
        core.slots().all(|(_, session)| session.trip <= core.trips)
    }),
    ("an operator's stop has a number that was given", |core| core.latch <= core.trips),
    ("the trip of a supervisor that died is told before anybody may drive", |core| {
        core.phase == Phase::Starting || core.died.is_none()
    }),
    // -- Stops --
    ("a motor is in a stage of its own programme", |core| {
        core.motors.iter().all(|motor| match motor.state {
            State::Idle { stage } | State::Stopping { stage, .. } | State::Stopped { stage } => {
                stage < motor.drive.stop.stages().len()
            }
            State::Granted { .. } | State::Unverified { .. } => true,
        })
    }),
    ("a stage is repeated after it began", |core| {
        core.motors.iter().all(|motor| match motor.state {
            State::Stopping { since, again, .. } => since <= again,
            _ => true,
        })
    }),
    ("a standstill is proven after a stop frame was handed over", |core| {
        core.motors.iter().all(|motor| match motor.state {
            State::Stopped { .. } => motor.first_stop != Nanos::ZERO && motor.standstill != Nanos::ZERO,
            _ => true,
        })
    }),
    ("a stop frame is confirmed after one was handed over", |core| {
        core.motors.iter().all(|motor| motor.confirmed == Nanos::ZERO || motor.first_stop != Nanos::ZERO)
    }),
    ("a stop begins again a bounded number of times", |core| {
        core.motors.iter().all(|motor| motor.restarts <= MOST_RESTARTS)
    }),
    ("a drive is permitted to run only while it is driven or its stop leaves it torque", |core| {
        core.motors.iter().all(|motor| {
            let stages = motor.drive.stop.stages();
            let stage = match motor.state {
                State::Granted { .. } => return true,
                State::Idle { stage } | State::Stopping { stage, .. } | State::Stopped { stage } => stage,
                State::Unverified { .. } => stages.len().saturating_sub(1),
            };
            !motor.may_run() || stages.get(stage).is_some_and(|stage| stage.kind.leaves_torque())
        })
    }),
    // -- Signs of life --
    ("a sign of life is withdrawn only where nothing that hears it is driven", |core| {
        core.no_hearer_of_withdrawn(|motor| motor.owner().is_some())
    }),
    ("a sign of life that an axis needs to hold is never withdrawn", |core| {
        core.no_hearer_of_withdrawn(Motor::is_to_hold)
    }),
    // -- Sessions --
    ("a session that lives has a deadline", |core| {
        core.living().all(|(slot, _)| core.sessions.deadline(slot) != Nanos::NEVER)
    }),
    ("a session that does not live has none", |core| {
        core.slots().all(|(slot, session)| {
            session.state == SessionState::Live || core.sessions.deadline(slot) == Nanos::NEVER
        })
    }),
    ("no beat is from the future", |core| {
        core.living().all(|(_, session)| session.last_beat <= core.observed)
    }),
    ("no deadline lies further than a window behind the last beat", |core| {
        core.living().all(|(slot, session)| {
            let window = session.bound.map_or(0, |bound| bound.window.0);
            core.sessions.deadline(slot) <= session.last_beat.after(window)
        })
    }),
    ("no session is silent for longer than the motor allows that it drives", |core| {
        core.all_granted(|motor| {
            let session = motor.owner().and_then(|owner| core.sessions.live(owner).map(|s| (owner.slot, s)));
            session.is_some_and(|(slot, session)| {
                core.sessions.deadline(slot) <= session.last_beat.after(motor.max_window.0)
            })
        })
    }),
    ("a window is within its bounds", |core| {
        let (shortest, longest) = core.settings.windows;
        core.living().all(|(_, session)| {
            session.bound.is_some_and(|bound| (shortest..=longest).contains(&bound.window))
        })
    }),
    ("the earliest deadline is known", |core| core.sessions.first_deadline() == core.sessions.earliest()),
    ("the next tick is not further away than a tick", |core| {
        core.next_tick <= core.stepped.max(core.observed).after(core.settings.tick)
            || core.stepped == Nanos::ZERO
    }),
    // -- What is published --
    ("the published grant is the motor's owner", |core| {
        core.is_published(|at, motor| core.verdicts.told_motor(motor_index(at)).grant == motor.owner())
    }),
    ("the published state and stage are the motor's", |core| {
        core.is_published(|at, motor| {
            let (told, verdict) = (core.verdicts.told_motor(motor_index(at)), motor.verdict());
            (told.state, told.stage) == (verdict.state.number(), verdict.stage)
        })
    }),
    ("the published latch and trip are the motor's", |core| {
        core.is_published(|at, motor| {
            let told = core.verdicts.told_motor(motor_index(at));
            (told.latched, told.trip) == (u64::from(motor.latch == Latch::Held), motor.trip)
        })
    }),
    ("the published session is the one in the slot", |core| {
        core.phase == Phase::Starting
            || core.slots().all(|(slot, _)| {
                let verdict = core.sessions.verdict(slot);
                core.verdicts.told_session(slot) == (verdict.incarnation, verdict.state.number())
            })
    }),
    ("the published stop of an operator is the one in force", |core| {
        core.phase == Phase::Starting || core.verdicts.told_latch() == core.latch
    }),
    ("the published number of the last trip is the last trip's", |core| {
        core.phase == Phase::Starting || core.verdicts.told_counter(Counter::Trips) == core.trips.0
    }),
    ("the published phase is the one it is in", |core| core.verdicts.told_phase() == core.phase.number()),
    ("no more of the latches is called kept than has changed", |core| {
        let (changes, kept) = core.verdicts.told_latch_changes();
        kept <= changes
    }),
    ("a bus counts as up exactly when frames get through", |core| {
        core.buses.iter().all(|bus| (bus.verdict.up == 1) == (bus.reach() == Reach::Well))
    }),
];

impl Core {
    /// The first sentence that is not true, if any. To be asked between two inputs.
    pub fn check_invariants(&mut self) -> Option<&'static str> {
        let broken = INVARIANTS.iter().find(|(_, holds)| !holds(self));
        self.counted = self.trips;
        broken.map(|(name, _)| *name)
    }

    fn places(&self) -> std::ops::Range<usize> {
        0..self.motors.len()
    }

    fn all_granted(&self, holds: impl Fn(&Motor) -> bool) -> bool {
        self.motors.iter().filter(|motor| motor.owner().is_some()).all(holds)
    }

    fn all_held(&self, holds: impl Fn(&Motor) -> bool) -> bool {
        self.motors.iter().filter(|motor| motor.latch == Latch::Held).all(holds)
    }

    /// Whether no motor is such a one that hears a sign of life which is no longer sent.
    fn no_hearer_of_withdrawn(&self, is: impl Fn(&Motor) -> bool) -> bool {
        let withdrawn = self.heartbeats.iter().filter(|heartbeat| heartbeat.is_withdrawn());
        let mut hearers = withdrawn.flat_map(|heartbeat| &heartbeat.hearers);
        !hearers.any(|hearer| self.motors.get(*hearer).is_some_and(&is))
    }

    /// The front's own slot is not among them.
    fn slots(&self) -> impl Iterator<Item = (SlotIndex, &Session)> {
        (0..self.sessions.len()).map(SlotIndex).filter_map(|slot| Some((slot, self.sessions.get(slot)?)))
    }

    fn living(&self) -> impl Iterator<Item = (SlotIndex, &Session)> {
        self.slots().filter(|(_, session)| session.state == SessionState::Live)
    }

    /// What is taken over is not published before every motor was told to stop.
    fn is_published(&self, holds: impl Fn(usize, &Motor) -> bool) -> bool {
        self.phase == Phase::Starting || self.motors.iter().enumerate().all(|(at, motor)| holds(at, motor))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::path::Path;

    use config::Config;
    use drivers::Frame;
    use shm_proto::beat::Bound;
    use shm_proto::layout::BeatLayout;
    use shm_proto::verdicts::{Identity, Reason, ResetPolicy};
    use shm_proto::{
        BeatSegment, BeatView, Generation, Incarnation, Owner, SessionId, VerdictSegment, Window,
    };

    use super::super::heartbeats::Voice;
    use super::super::motor::{Permit, Run};
    use super::super::{Front, SendError, Wire};
    use super::*;

    /// Two motors of one command frame, and one whose drive hears a sign of life and may not lose its torque.
    const ROBOT: &str = r#"
[[bus]]
name = "can0"
[[motor]]
name = "a"
bus = "can0"
driver = "dji"
model = "c620"
id = 1
after_stop = "release"
max_rpm = 300
[[motor]]
name = "b"
bus = "can0"
driver = "dji"
model = "c620"
id = 2
after_stop = "release"
max_rpm = 300
[[motor]]
name = "c"
bus = "can0"
driver = "cia402"
transport = "sdo"
counts_per_rev = 4096
node = 40
after_stop = "hold"
max_rpm = 300
[[base]]
name = "base1"
left = ["a"]
right = ["b"]
wheel_circumference_mm = 500
width_mm = 400
"#;
    const SECOND: u64 = 1_000_000_000;
    const NOW: Nanos = Nanos(100 * SECOND);
    const OWNER: Owner = Owner { slot: SlotIndex(0), incarnation: Incarnation::new(1) };

    struct Silence;

    impl Wire for Silence {
        fn send(&mut self, _bus: usize, _frame: &Frame) -> Result<(), SendError> {
            Ok(())
        }

        fn now(&mut self) -> Nanos {
            Nanos::ZERO
        }
    }

    /// A core of which one motor is driven, one is held, and one is being stopped.
    fn core() -> Core {
        let config = Config::parse(Path::new("test.toml"), ROBOT).expect("the robot is valid");
        let capacity = config.supervisor.capacity;
        let identity = Identity { config_hash: 1, pid: 1, started: Nanos(1), policy: ResetPolicy::Auto };
        let (verdicts, _fd) =
            VerdictSegment::create(capacity, &identity, &["a", "b", "c"], &["can0"]).expect("a memfd");
        let mut core = crate::start::build_core(&config, 1, verdicts);
        core.start(NOW, &mut Silence);
        core.step(NOW.after(SECOND / 100), &mut Silence);
        let words = BeatLayout::new(capacity).words();
        let fd = shm_proto::memory::create("beats", words).expect("a memfd");
        let _front = BeatSegment::map(fd.as_fd(), capacity, Generation(1)).expect("a mapping");
        shm_proto::memory::seal(fd.as_fd()).expect("seals");
        let view = BeatView::map(fd.as_fd(), capacity, Generation(1)).expect("a mapping");
        core.front = Some(Front { view, pid: 1 });
        core.sessions.watch_front(NOW.after(2 * SECOND));
        let window = Window::from_millis(1_000);
        let bound = Bound { session: SessionId(1), incarnation: OWNER.incarnation, window };
        core.sessions.slots[0] = Session {
            bound: Some(bound),
            state: SessionState::Live,
            last_beat: NOW,
            beats: 1,
            ..Session::VACANT
        };
        core.sessions.deadlines[0] = NOW.after(SECOND);
        core.sessions.first = core.sessions.earliest();
        core.observed = NOW;
        for motor in &mut core.motors[..2] {
            motor.follow(OWNER, Run::NotSeen);
        }
        let trip = core.next_trip();
        let held = &mut core.motors[2];
        (held.latch, held.trip, held.reason) = (Latch::Held, trip, Some(Reason::Expired));
        core.motors[0].follow(OWNER, Run::NotSeen);
        for place in 0..core.motors.len() {
            core.verdicts.grant(motor_index(place), core.motors[place].owner());
        }
        core.publish_all(NOW);
        core
    }

    fn holds(name: &str, core: &Core) -> bool {
        let found = INVARIANTS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("there is no \"{name}\"")).1(core)
    }

    /// How to break each, by its place: exactly as many as there are.
    fn wounds() -> Vec<fn(&mut Core)> {
        vec![
            |core| core.sessions.slots[0].state = SessionState::Tripped,
            |core| core.sessions.deadlines[0] = core.stepped,
            |core| core.front = None,
            |core| core.sessions.unwatch_front(),
            |core| core.motors[0].latch = Latch::Held,
            |core| core.phase = Phase::Stopping,
            |core| core.motors[1].state = State::Stopping { stage: 0, since: NOW, again: NOW },
            |core| core.latch = TripId(1),
            |core| core.motors[2].trip = TripId::NONE,
            |core| core.motors[2].reason = None,
            |core| core.motors[2].state = State::Idle { stage: 0 },
            |core| core.counted = TripId(2),
            |core| core.motors[0].trip = TripId(2),
            |core| core.sessions.slots[0].trip = TripId(2),
            |core| core.latch = TripId(2),
            |core| core.died = Some((TripId(1), NOW)),
            |core| core.motors[2].state = State::Stopped { stage: 99 },
            |core| core.motors[2].state = State::Stopping { stage: 0, since: NOW, again: Nanos::ZERO },
            |core| {
                core.motors[2].state = State::Stopped { stage: 0 };
                core.motors[2].standstill = Nanos::ZERO;
            },
            |core| {
                core.motors[2].confirmed = NOW;
                core.motors[2].first_stop = Nanos::ZERO;
            },
            |core| core.motors[2].restarts = MOST_RESTARTS + 1,
            |core| {
                let stages = core.motors[0].drive.stop.stages();
                let without =
                    stages.iter().position(|stage| !stage.kind.leaves_torque()).expect("there is one");
                core.motors[0].state = State::Stopped { stage: without };
                core.motors[0].permit = Permit::Given;
            },
            |core| {
                core.heartbeats[0].voice = Voice::Withdrawn;
                core.heartbeats[0].hearers.push(0);
            },
            |core| core.heartbeats[0].voice = Voice::Withdrawn,
            |core| core.sessions.deadlines[0] = Nanos::NEVER,
            |core| core.sessions.deadlines[1] = NOW,
            |core| core.sessions.slots[0].last_beat = core.observed.after(1),
            |core| core.sessions.deadlines[0] = NOW.after(SECOND + 1),
            |core| core.motors[0].max_window = Window(1),
            |core| {
                let bound = core.sessions.slots[0].bound.as_mut();
                bound.expect("it lives").window = Window(1);
            },
            |core| core.sessions.first = Nanos::NEVER,
            |core| core.next_tick = NOW.after(3600 * SECOND),
            |core| core.verdicts.grant(motor_index(0), None),
            |core| core.motors[2].state = State::Unverified { again: NOW },
            |core| core.motors[2].latch = Latch::Open,
            |core| core.sessions.slots[1].state = SessionState::Closed,
            |core| core.verdicts.latch(TripId(1)),
            |core| core.trips = TripId(2),
            |core| core.verdicts.phase(Phase::Ended),
            |core| core.verdicts.latches_kept(1_000),
            |core| core.buses[0].verdict.up = 0,
        ]
    }

    /// Fails if a sentence can never be false, or if two have one name.
    #[test]
    fn each_can_be_broken() {
        let wounds = wounds();
        assert_eq!(wounds.len(), INVARIANTS.len());
        assert_eq!(core().check_invariants(), None);
        for ((name, _), wound) in INVARIANTS.iter().zip(wounds) {
            let mut core = core();
            assert!(holds(name, &core), "{name}");
            wound(&mut core);
            assert!(!holds(name, &core), "not broken: {name}");
            assert!(core.check_invariants().is_some(), "{name}");
        }
    }

    /// Fails if a core that contradicts itself goes on.
    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "broken: a bus counts as up exactly when frames get through")]
    fn a_step_that_ends_in_contradiction_is_the_last() {
        let mut core = core();
        core.buses[0].verdict.up = 0;
        core.step(NOW.after(SECOND / 50), &mut Silence);
    }
}
