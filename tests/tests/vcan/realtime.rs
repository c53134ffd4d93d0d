//! What the real-time thread promises of itself: it costs nothing but time, it notices when it was late, and
//! it takes nobody's silence for granted after a pause.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use shm_proto::beat::RawBeat;
use shm_proto::handover::{self, Attached};
use shm_proto::verdicts::SessionState;
use shm_proto::{BeatWriter, Ending, MotorIndex, Nanos, Owner, SessionId, SlotIndex, TripId, Window};
use tests::clock::Moment;
use tests::expect;
use tests::intruder::Intruder;
use tests::robot::{ARM, LEFT, RIGHT, Robot, START, STILL, Setup};
use tests::status::locked_pages_fault_once;

use crate::impostor::{config_hash, seize};
use crate::scene::{is_session_expired, play, sessionless, start_session};

/// All the sessions a supervisor can watch.
const SESSIONS: u16 = 1024;
/// How long the soak lasts: some seven rounds of everything that can happen.
const SOAK: Duration = Duration::from_secs(20);
/// How often the crowd moves; also the rig's tick.
const STEP: Duration = Duration::from_millis(10);
/// A seat has its turn every so many steps: 160 ms, well within the shortest window of the crowd.
const TURN: u16 = 16;
/// The first seats drive; the last ones lie.
const DRIVERS: u16 = 3;
const LIARS: u16 = 24;
/// How many steps each act of the drivers lasts; the silent one's window is less than two of them.
const ACT: u64 = 30;
const DRIVERS_WINDOW: Window = Window::from_millis(400);

/// Numbers without a pattern that a test could rely on: splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB)
    }

    fn below(&mut self, end: u16) -> u16 {
        u16::try_from(self.roll() % u64::from(end)).unwrap_or(0)
    }
}

/// Whether a session goes on beating.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Beats,
    Silent,
}

struct Seat {
    writer: BeatWriter,
    mood: Mood,
}

/// What a crowd has been through, so that an empty run is noticed.
#[derive(Debug, Default)]
struct Told {
    tripped: u32,
    closed: u32,
    granted: u32,
    stops: u32,
    attached: u32,
}

/// A front with every session there can be, played by the test.
struct Crowd {
    attached: Attached,
    front: BeatWriter,
    seats: Vec<Seat>,
    dice: Dice,
    told: Told,
}

impl Crowd {
    fn attach(robot: &Robot, dice: Dice, told: Told) -> Result<Self> {
        // The supervisor may not have noticed yet that the front before has hung up.
        let hash = config_hash(robot)?;
        let attached = expect::within(START, "a place for the front", || {
            handover::attach(&robot.lanyard.front_socket(), hash).map_err(|error| error.to_string())
        })?;
        let seat = |slot| Some(Seat { writer: attached.beats.writer(SlotIndex(slot))?, mood: Mood::Beats });
        let seats = (0..SESSIONS).map(seat).collect::<Option<Vec<_>>>().context("fewer slots than asked")?;
        let mut front = attached.beats.front_writer();
        front.open(SessionId(1), Window::from_millis(5_000));
        let mut crowd = Self { attached, front, seats, dice, told };
        crowd.told.attached += 1;
        for slot in 0..SESSIONS {
            crowd.open(slot, Nanos::now());
        }
        Ok(crowd)
    }

    /// Ends the connection; what the next front needs remains.
    fn hang_up(self) -> (Dice, Told) {
        (self.dice, self.told)
    }

    fn open(&mut self, slot: u16, at: Nanos) -> Owner {
        let window = if slot < DRIVERS {
            DRIVERS_WINDOW
        } else {
            Window::from_millis(600 + u64::from(self.dice.below(2_000)))
        };
        let session = SessionId(u128::from(self.dice.roll()));
        let seat = &mut self.seats[usize::from(slot)];
        seat.mood = Mood::Beats;
        seat.writer.open_at(session, window, at)
    }

    fn close(&mut self, slot: u16) {
        self.seats[usize::from(slot)].writer.close(Ending::Client);
        self.told.closed += 1;
    }

    fn take(&mut self, motor: u16, slot: u16) {
        let owner = self.seats[usize::from(slot)].writer.owner();
        self.attached.beats.take_motor(MotorIndex(motor), owner);
    }

    /// Whether the supervisor has ended the session in the seat.
    fn is_over(&self, slot: u16) -> bool {
        let (incarnation, state) = self.attached.verdicts.session_state(SlotIndex(slot));
        incarnation == self.seats[usize::from(slot)].writer.owner().incarnation
            && matches!(state, SessionState::Tripped | SessionState::Closed)
    }

    /// Everybody whose turn it is beats, or comes back after a trip; one leaves and returns, one falls
    /// silent.
    fn mill_about(&mut self, step: u64) {
        let now = Nanos::now();
        self.front.beat_at(now);
        let turn = u16::try_from(step % u64::from(TURN)).unwrap_or(0);
        for slot in (DRIVERS..SESSIONS).filter(|slot| slot % TURN == turn) {
            if self.is_over(slot) {
                self.told.tripped += 1;
                self.open(slot, now);
            } else if self.seats[usize::from(slot)].mood == Mood::Beats {
                self.seats[usize::from(slot)].writer.beat_at(now);
            }
        }
        let leaves = DRIVERS + self.dice.below(SESSIONS - DRIVERS);
        self.close(leaves);
        self.open(leaves, Nanos::now());
        let falls_silent = DRIVERS + self.dice.below(SESSIONS - DRIVERS);
        self.seats[usize::from(falls_silent)].mood = Mood::Silent;
        for _ in 0..8 {
            self.lie();
        }
    }

    /// Writes nonsense into a ring at the back.
    fn lie(&mut self) {
        let slot = SESSIONS - 1 - self.dice.below(LIARS);
        let lie = RawBeat {
            counter: self.dice.roll() >> self.dice.below(64),
            session: u128::from(self.dice.roll()),
            window: self.dice.roll() >> self.dice.below(64),
            timestamp: self.dice.roll() >> self.dice.below(64),
            tag: self.dice.roll() >> self.dice.below(64),
            crc: self.dice.roll(),
        };
        self.seats[usize::from(slot)].writer.write_raw(&lie);
    }

    /// One act of the play that the first three sessions give with the motors, over and over.
    fn perform(&mut self, act: u64, robot: &Robot, stranger: &Intruder) -> Result<()> {
        const FIRST: u16 = 0;
        const SECOND: u16 = 1;
        const THIRD: u16 = 2;
        // In the order of the configuration.
        const LEFT_INDEX: u16 = 0;
        const RIGHT_INDEX: u16 = 1;
        const ARM_INDEX: u16 = 2;
        match act {
            0 => {
                for slot in [FIRST, SECOND, THIRD] {
                    self.open(slot, Nanos::now());
                }
                self.take(LEFT_INDEX, FIRST);
                self.take(RIGHT_INDEX, FIRST);
                self.take(ARM_INDEX, THIRD);
            }
            1 => {
                for (index, motor) in [(LEFT_INDEX, &LEFT), (RIGHT_INDEX, &RIGHT)] {
                    if self.attached.verdicts.granted(MotorIndex(index)).is_some() {
                        self.told.granted += 1;
                        // Velocity control, closed loop, 2 rev/s.
                        let axis = u16::from(motor.node) << 5;
                        stranger.send(axis | 0x0B, &[2, 0, 0, 0, 1, 0, 0, 0])?;
                        stranger.send(axis | 0x07, &[8, 0, 0, 0])?;
                        stranger.send(axis | 0x0D, &[0, 0, 0, 0x40, 0, 0, 0, 0])?;
                    }
                }
            }
            2 => self.take(RIGHT_INDEX, SECOND),
            3 => self.seats[usize::from(FIRST)].mood = Mood::Silent,
            // Its window ends.
            4 => {}
            5 => self.close(SECOND),
            6 => {
                let mut ghost = self.seats[usize::from(THIRD)].writer.owner();
                ghost.slot = SlotIndex(u16::MAX);
                self.attached.beats.take_motor(MotorIndex(ARM_INDEX), ghost);
            }
            _ => {
                handover::estop(&robot.lanyard.socket)?;
                self.told.stops += 1;
            }
        }
        Ok(())
    }

    /// The drivers beat on every step, because their windows are short.
    fn keep_driving(&mut self) {
        let now = Nanos::now();
        for slot in 0..DRIVERS {
            if self.seats[usize::from(slot)].mood == Mood::Beats && !self.is_over(slot) {
                self.seats[usize::from(slot)].writer.beat_at(now);
            }
        }
    }
}

fn counter(robot: &Robot, name: &str) -> Result<u64> {
    robot.lanyard.status()?["counters"][name].as_u64().with_context(|| format!("no counter {name}"))
}

/// How many page faults without a disk are right: none, but where [`locked_pages_fault_once`]. There count, once
/// each, the rings of every front (a page per session), the verdicts on 1024 sessions (128 KiB), and the code
/// that first runs after arming. The loop passes some 500 times a second: one fault per pass would be more
/// than all of these.
fn first_touches(fronts: u32) -> u64 {
    if locked_pages_fault_once() { u64::from(fronts) * (u64::from(SESSIONS) + 16) + 128 } else { 0 }
}

/// P7. Fails if the real-time thread allocates, faults or is late while 1024 sessions beat, open, close, fall
/// silent, lie and drive, fronts come and go, and operators stop and reset.
#[test]
fn armed_loop_costs_nothing_but_time() -> Result<()> {
    let setup = Setup::base()
        .with(&ARM)
        .without_front()
        .supervisor_key("max_sessions", "1024")
        .supervisor_key("front_window", "\"5s\"");
    play(setup, |robot, _| {
        let began = Moment::now();
        let stranger = Intruder::local("vcan0")?;
        let mut crowd = Crowd::attach(robot, Dice(0x0050_AC00), Told::default())?;
        let start = Instant::now();
        let mut step = 0;
        while start.elapsed() < SOAK {
            crowd.mill_about(step);
            crowd.keep_driving();
            if step.is_multiple_of(ACT) {
                let act = step / ACT % 9;
                if act < 8 {
                    crowd.perform(act, robot, &stranger)?;
                } else {
                    // In every other round another front takes the place of this one.
                    clear_latch(robot, &mut crowd)?;
                    if (step / ACT / 9).is_multiple_of(2) {
                        let (dice, told) = crowd.hang_up();
                        crowd = Crowd::attach(robot, dice, told)?;
                    }
                }
            }
            step += 1;
            std::thread::sleep(STEP);
        }
        let status = robot.lanyard.status()?;
        let count = |name: &str| status["counters"][name].as_u64().unwrap_or(u64::MAX);
        let told = &crowd.told;
        println!("{told:?} {}", status["counters"]);
        for zero in ["allocations", "major_faults"] {
            ensure!(count(zero) == 0, "{zero}: {}", status["counters"]);
        }
        ensure!(
            count("minor_faults") <= first_touches(told.attached),
            "minor_faults: {}",
            status["counters"]
        );
        let stalled = robot.stalls.between(began, Moment::now());
        ensure!(
            count("self_overruns") == 0 || stalled > Duration::from_secs(1),
            "later than 1 s, and the machine stood still for {stalled:?} only: {}",
            status["counters"]
        );
        // Half of what a machine that does nothing else comes to; an empty run has none.
        for (name, least) in [("loops", 1_000), ("trips", 1_000), ("beats", 20_000), ("stop_frames", 50)] {
            ensure!((least..u64::MAX).contains(&count(name)), "{name}: {}", status["counters"]);
        }
        let rejects = status["rejects"].as_object().context("no rejects")?;
        ensure!(rejects.values().filter(|kind| kind.as_u64() > Some(0)).count() >= 2, "{rejects:?}");
        ensure!(told.tripped >= 500 && told.closed >= 500, "{told:?}");
        ensure!(told.granted >= 4 && told.stops >= 2 && told.attached >= 2, "{told:?}");
        let events = robot.lanyard.events()?;
        for reason in ["session expired", "closed by client", "corrupt beats", "operator stop", "front dead"]
        {
            let seen = events.iter().any(|event| event.kind() == "trip" && event.reason() == reason);
            ensure!(seen, "no motor was stopped for: {reason}");
        }
        Ok(())
    })
}

/// Resets the operator's trip as soon as the motors stand still, the crowd beating meanwhile.
fn clear_latch(robot: &Robot, crowd: &mut Crowd) -> Result<()> {
    let mut step = 0;
    expect::within(STILL, "the trip is reset", || {
        crowd.mill_about(step);
        step += 1;
        let latch = crowd.attached.verdicts.latch();
        if latch == TripId::NONE {
            return Ok(());
        }
        handover::reset(&robot.lanyard.operator_socket(), latch.into())
            .map(drop)
            .map_err(|error| error.to_string())
    })
}

/// Fails if a loop that was late by more than `max_lateness` lets a motor run on, ends sessions that drive
/// nothing, is not counted, or does not work afterwards.
#[test]
fn late_loop_stops_what_moves() -> Result<()> {
    let setup = Setup::base().window("5s").supervisor_key("max_lateness", "\"100ms\"");
    play(setup.supervisor_key("front_window", "\"5s\""), |robot, clients| {
        let mut idle = sessionless(robot, clients)?;
        let id = start_session(&mut idle, "")?;
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let before = counter(robot, "self_overruns")?;
        robot.supervisor()?.signal(Signal::SIGSTOP)?;
        std::thread::sleep(Duration::from_millis(400));
        let goes_on = Moment::now();
        robot.supervisor()?.signal(Signal::SIGCONT)?;
        robot.lanyard.wait_for_trip(goes_on, "self overrun", "left", START)?;
        let stop = robot.listener.wait_for_stop(&LEFT, goes_on, START)?;
        let after = robot.is_prompt(goes_on, Duration::from_millis(50), &stop)?;
        println!("self-overrun: first stop frame {after:.1} ms after it ran again");
        robot.verified(&LEFT)?;
        robot.no_motion_after(&LEFT, &stop)?;
        ensure!(counter(robot, "self_overruns")? == before + 1, "not counted once");
        ensure!(counter(robot, "worst_lateness_ns")? >= 300_000_000, "the worst lateness is not kept");
        let told = robot.lanyard.run(&["status"])?;
        ensure!(told.code == Some(2) && told.stdout.contains("self-overrun"), "status: {}", told.stdout);
        // Who drove nothing is left alone; who drove has to begin anew, which its SDK does by itself.
        idle.ask("heartbeat", json!({ "id": id }))?;
        let mut fresh = robot.client(clients)?;
        robot.drive(&mut fresh, &LEFT, 0.4)
    })
}

/// Fails if a session that beat in time is ended because the supervisor was not there to see it. The drive is
/// not enabled: its feedback plays no part.
#[test]
fn beats_in_time_count_however_late_they_are_read() -> Result<()> {
    let setup = Setup::base().without_front().supervisor_key("front_window", "\"5s\"");
    play(setup, |robot, _| {
        let window = Window::from_millis(500);
        let (attached, mut writer, from) = seize(robot, window)?;
        let from = Moment(i64::try_from(from.0)?);
        let beat_for = |writer: &mut BeatWriter, span: Duration| {
            let start = Instant::now();
            while start.elapsed() < span {
                writer.beat();
                std::thread::sleep(Duration::from_millis(25));
            }
        };
        beat_for(&mut writer, Duration::from_millis(200));
        robot.supervisor()?.signal(Signal::SIGSTOP)?;
        // 32 beats: half a ring, so that none is overwritten. Longer than the window, shorter than
        // `max_lateness`.
        beat_for(&mut writer, Duration::from_millis(800));
        robot.supervisor()?.signal(Signal::SIGCONT)?;
        beat_for(&mut writer, Duration::from_millis(800));
        let granted = attached.verdicts.granted(MotorIndex(0));
        ensure!(granted == Some(writer.owner()), "the motor is {granted:?}'s now");
        let stop = robot.listener.first(from, |frame| LEFT.is_stop(frame))?;
        ensure!(stop.is_none(), "stopped by {stop:?}");
        // Silence is still silence.
        robot.listener.wait_for_stop(&LEFT, from, START).map(drop)
    })
}

/// P6. Fails if the supervisor believes a front that lets a session go on after a pause of the whole machine
/// that was longer than its window: the beat is fresh and in the ring before the supervisor has looked.
#[test]
fn fresh_beat_after_a_pause_revives_nothing() -> Result<()> {
    let setup = Setup::base().without_front().supervisor_key("front_window", "\"5s\"");
    play(setup, |robot, _| {
        let (_attached, mut writer, from) = seize(robot, Window::from_millis(500))?;
        let from = Moment(i64::try_from(from.0)?);
        robot.supervisor()?.signal(Signal::SIGSTOP)?;
        std::thread::sleep(Duration::from_millis(800));
        for _ in 0..8 {
            writer.beat();
        }
        let goes_on = Moment::now();
        robot.supervisor()?.signal(Signal::SIGCONT)?;
        let trip = robot.lanyard.wait_for_trip(from, "session expired", "left", START)?;
        let deadline = trip.deadline().context("the trip has no deadline")?;
        ensure!(deadline < goes_on, "the deadline was {deadline}, it went on at {goes_on}");
        let stop = robot.listener.wait_for_stop(&LEFT, goes_on, START)?;
        robot.is_prompt(goes_on, Duration::from_millis(50), &stop)?;
        robot.verified(&LEFT).map(drop)
    })
}

/// P6. Fails if a session survives a pause of the whole machine that was longer than its window, although its
/// client beats at once when the machine goes on, before the supervisor has looked.
#[test]
fn paused_machine_expires_sessions_however_fresh_the_next_beat() -> Result<()> {
    // Shorter than `max_lateness` and the front's window, so that neither can be the reason.
    const PAUSE: Duration = Duration::from_millis(800);
    let setup = Setup::base().window("500ms").supervisor_key("front_window", "\"5s\"");
    play(setup, |robot, clients| {
        let mut client = robot.client(clients)?;
        let mut other = sessionless(robot, clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let id = client.ask("session", json!({}))?;
        let paused = robot.signal_front(Signal::SIGSTOP)?;
        robot.supervisor()?.signal(Signal::SIGSTOP)?;
        std::thread::sleep(PAUSE);
        robot.signal_front(Signal::SIGCONT)?;
        // The front knows by itself, before the supervisor has run.
        is_session_expired(&client.call("heartbeat", json!({ "id": id }))?.refusal()?)?;
        let goes_on = Moment::now();
        robot.supervisor()?.signal(Signal::SIGCONT)?;
        let trip = robot.lanyard.wait_for_trip(goes_on, "session expired", "left", START)?;
        let deadline = trip.deadline().context("the trip has no deadline")?;
        ensure!(deadline > paused && deadline < goes_on, "the deadline was {deadline}, paused at {paused}");
        ensure!(trip.last_beat() < Some(paused + PAUSE), "a beat after the pause counted: {trip:?}");
        let stop = robot.listener.wait_for_stop(&LEFT, goes_on, START)?;
        robot.is_prompt(goes_on, Duration::from_millis(50), &stop)?;
        robot.verified(&LEFT)?;
        robot.no_motion_after(&LEFT, &stop)?;
        // The SDK opens another session by itself; the one from before is over.
        let refused = other.call("heartbeat", json!({ "id": id }))?;
        is_session_expired(&refused.refusal()?)
    })
}
