//! The order of a command, played through: both sides of the shared memory in one process, and a record
//! of frames in place of a bus.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use config::Config;
use drivers::{ArbitrationId, Frame, Observation, Power, Revolutions, RevolutionsPerSecond};
use shm_proto::layout::BeatLayout;
use shm_proto::verdicts::{
    Identity, MotorState, MotorVerdict, Reason, ResetPolicy, SessionState, SessionVerdict,
};
use shm_proto::{
    BeatSegment, BeatView, Capacity, Generation, Incarnation, MotorIndex, Nanos, Owner, SessionId, SlotIndex,
    TripId, VerdictSegment, VerdictView, memory,
};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::wire::{SendError, Wire};
use super::{Motion, MotionError, Notes, Station, Target, Travel, stations};
use crate::link::Attachment;
use crate::order::Origin;
use crate::sessions::Hold;

const LEFT: MotorIndex = MotorIndex(0);
const RIGHT: MotorIndex = MotorIndex(1);
const SERVO: MotorIndex = MotorIndex(2);
const ROTOR_1: MotorIndex = MotorIndex(3);
const ROTOR_3: MotorIndex = MotorIndex(4);

/// Command numbers of CANSimple as in drivers/src/odrive.rs.
const CONTROLLER_MODE: u16 = 0x0B;
const INPUT_VEL: u16 = 0x0D;
const AXIS_STATE: u16 = 0x07;

const CONFIG: &str = r#"
[front]
refresh = "20ms"
grant_timeout = "100ms"
enable_timeout = "200ms"

[[bus]]
name = "can0"

[[motor]]
name = "left"
bus = "can0"
driver = "odrive"
node = 1
firmware = "0.6"
after_stop = "hold"
max_rpm = 600

[[motor]]
name = "right"
bus = "can0"
driver = "odrive"
node = 2
firmware = "0.6"
after_stop = "hold"
max_rpm = 600
reversed = true

[[motor]]
name = "servo"
bus = "can0"
driver = "cia402"
node = 5
counts_per_rev = 4096
after_stop = "hold"
max_rpm = 600

[[motor]]
name = "rotor1"
bus = "can0"
driver = "dji"
model = "c620"
id = 1
after_stop = "release"
max_rpm = 6000

[[motor]]
name = "rotor3"
bus = "can0"
driver = "dji"
model = "c620"
id = 3
after_stop = "release"
max_rpm = 6000

[[base]]
name = "rotors"
left = ["rotor1"]
right = ["rotor3"]
wheel_circumference_mm = 300
width_mm = 400
"#;

/// Two wheels, a servo, and two rotors that one frame commands, on one bus.
pub fn configuration() -> Config {
    Config::parse(Path::new("test.toml"), CONFIG).expect("a good configuration")
}

fn verdicts() -> (VerdictSegment, VerdictView) {
    let identity = Identity { config_hash: 0, pid: 1, started: Nanos::now(), policy: ResetPolicy::Manual };
    let names = ["left", "right", "servo", "rotor1", "rotor3"];
    let (segment, fd) =
        VerdictSegment::create(Capacity::DEFAULT, &identity, &names, &["can0"]).expect("a memfd");
    let view = VerdictView::map(fd.as_fd(), Capacity::DEFAULT).expect("a mapping");
    (segment, view)
}

/// The verdict on a motor of which nothing was published yet.
pub fn nothing_known() -> MotorVerdict {
    let (_segment, view) = verdicts();
    view.motor(LEFT).expect("a motor")
}

/// What happens when a frame is sent.
type Reaction = Box<dyn FnMut(&Frame) -> Result<(), SendError> + Send>;

/// A bus that only writes down what is sent.
#[derive(Default)]
struct Record {
    frames: Mutex<Vec<Frame>>,
    reaction: Mutex<Option<Reaction>>,
}

impl Record {
    fn sent(&self) -> Vec<Frame> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn react(&self, reaction: impl FnMut(&Frame) -> Result<(), SendError> + Send + 'static) {
        *self.reaction.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(reaction));
    }

    /// What an ODrive was told, as command numbers in order.
    fn told(&self, node: u16) -> Vec<u16> {
        let commands = self.sent().into_iter().filter_map(|frame| match frame.id() {
            ArbitrationId::Standard(id) if id >> 5 == node => Some(id & 0x1F),
            _ => None,
        });
        commands.collect()
    }

    /// What the controllers 1 and 3 were told in their common frame, in counts.
    fn currents(&self) -> Vec<(i16, i16)> {
        let joint = self.sent().into_iter().filter(|frame| frame.id() == ArbitrationId::standard(0x200));
        let parts = joint.map(|frame| {
            let [a, b, _, _, c, d, _, _] = frame.payload().try_into().expect("eight bytes");
            (i16::from_be_bytes([a, b]), i16::from_be_bytes([c, d]))
        });
        parts.collect()
    }

    /// The last speed an ODrive was told.
    fn last_speed(&self, node: u16) -> Option<f32> {
        let id = ArbitrationId::standard(node << 5 | INPUT_VEL);
        let frame = self.sent().into_iter().rfind(|frame| frame.id() == id)?;
        Some(f32::from_le_bytes(frame.payload().get(..4)?.try_into().ok()?))
    }
}

impl Wire for Record {
    fn send(&self, frame: &Frame) -> Result<(), SendError> {
        if let Some(reaction) = &mut *self.reaction.lock().unwrap_or_else(PoisonError::into_inner) {
            reaction(frame)?;
        }
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).push(*frame);
        Ok(())
    }
}

/// A robot whose supervisor is the test.
struct Robot {
    motion: Arc<Motion>,
    stations: Vec<Arc<Station>>,
    record: Arc<Record>,
    verdicts: Arc<VerdictSegment>,
    beats: Arc<BeatView>,
    attachment: Arc<Attachment>,
}

impl Robot {
    /// Its supervisor publishes, but grants nothing by itself.
    fn new() -> Self {
        let capacity = Capacity::DEFAULT;
        let generation = Generation(1);
        let fd = memory::create("test-beats", BeatLayout::new(capacity).words()).expect("a memfd");
        let segment = BeatSegment::map(fd.as_fd(), capacity, generation).expect("a mapping");
        memory::seal(fd.as_fd()).expect("seals");
        let beats = BeatView::map(fd.as_fd(), capacity, generation).expect("a mapping");
        let (verdicts, view) = verdicts();
        // A moment that never lies in the past: this supervisor does not fall silent by itself.
        verdicts.beat(1, Nanos::NEVER);

        let config = Arc::new(configuration());
        let stations = stations(&config);
        let record = Arc::new(Record::default());
        let wire: Arc<dyn Wire> = Arc::<Record>::clone(&record);
        Self {
            motion: Motion::over(config, stations.clone(), &[wire]),
            stations,
            record,
            verdicts: Arc::new(verdicts),
            beats: Arc::new(beats),
            attachment: Attachment::new(segment, view),
        }
    }

    /// A robot that grants every wish within a millisecond and whose drives come up when told to.
    fn willing() -> (Self, JoinHandle<()>) {
        let robot = Self::new();
        let (verdicts, beats) = (Arc::clone(&robot.verdicts), Arc::clone(&robot.beats));
        let granting = tokio::spawn(async move {
            loop {
                for motor in [LEFT, RIGHT, SERVO, ROTOR_1, ROTOR_3] {
                    verdicts.grant(motor, Owner::from_word(beats.owner_word(motor)));
                }
                sleep(Duration::from_millis(1)).await;
            }
        });
        let stations = robot.stations.clone();
        robot.record.react(move |frame| {
            for (node, station) in (1_u16..=2).zip(&stations) {
                if frame.id() == ArbitrationId::standard(node << 5 | AXIS_STATE) {
                    station.feedback.take_in(&power(Power::On));
                }
            }
            Ok(())
        });
        (robot, granting)
    }

    fn session(&self, slot: u16, state: SessionState) -> Hold {
        let owner = Owner { slot: SlotIndex(slot), incarnation: Incarnation::new(1) };
        let verdict = SessionVerdict {
            session: SessionId(1),
            incarnation: owner.incarnation,
            state,
            deadline: Nanos::NEVER,
            last_beat: Nanos::now(),
            trip: TripId::NONE,
            beats: 1,
            window: 0,
        };
        self.verdicts.session(owner.slot, &verdict);
        Hold { attachment: Arc::clone(&self.attachment), owner }
    }

    fn turn(&self, hold: &Hold, targets: &[(MotorIndex, f32)]) -> JoinHandle<Result<(), MotionError>> {
        let targets: Vec<Target> = targets
            .iter()
            .map(|(motor, speed)| Target { motor: *motor, speed: RevolutionsPerSecond(*speed) })
            .collect();
        let (motion, hold, origin) = (Arc::clone(&self.motion), hold.clone(), Origin::of_a_test());
        tokio::spawn(async move { motion.turn(&hold, &origin, &targets).await })
    }

    fn travel(
        &self,
        hold: &Hold,
        motor: MotorIndex,
        speed: f32,
        revolutions: f64,
    ) -> JoinHandle<Result<(), MotionError>> {
        let leg = Travel { motor, speed: RevolutionsPerSecond(speed), revolutions };
        let (motion, hold, origin) = (Arc::clone(&self.motion), hold.clone(), Origin::of_a_test());
        tokio::spawn(async move { motion.travel(&hold, &origin, &[leg]).await })
    }

    /// Reports that a rotor turns at this speed, as often as its controller would, nearly.
    fn spins(&self, motor: MotorIndex, speed: f32) -> JoinHandle<()> {
        let station = Arc::clone(&self.stations[usize::from(motor.0)]);
        let speed = Some(RevolutionsPerSecond(speed));
        tokio::spawn(async move {
            loop {
                station.feedback.take_in(&Observation { velocity: speed, ..Observation::default() });
                sleep(Duration::from_millis(2)).await;
            }
        })
    }

    fn place(&self, motor: MotorIndex, position: f64) {
        let observation = Observation {
            position: Some(Revolutions(position)),
            velocity: Some(RevolutionsPerSecond::ZERO),
            ..Observation::default()
        };
        self.stations[usize::from(motor.0)].feedback.take_in(&observation);
    }
}

fn power(power: Power) -> Observation {
    Observation { power: Some(power), ..Observation::default() }
}

async fn pass(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}

#[tokio::test]
async fn no_grant_no_frame() {
    let robot = Robot::new();
    let hold = robot.session(0, SessionState::Live);
    let answer = robot.turn(&hold, &[(LEFT, 1.0)]).await.expect("no panic");
    let Err(MotionError::NotGranted { motor, why }) = answer else { panic!("{answer:?}") };
    assert_eq!(motor, "left");
    assert!(why.contains("has not granted it within 100 ms"), "{why}");
    assert_eq!(robot.record.sent(), [], "not even a stop: nothing was ever moved");
    assert_eq!(Owner::from_word(robot.beats.owner_word(LEFT)), Some(hold.owner), "the wish was written");
}

#[tokio::test]
async fn refusals_name_the_trip() {
    let robot = Robot::new();
    let hold = robot.session(0, SessionState::Live);
    let mut verdict = nothing_known();
    verdict.state = MotorState::Stopped;
    verdict.trip = TripId(7);
    verdict.reason = Some(Reason::OperatorStop);
    verdict.latched = 1;
    robot.verdicts.motor(LEFT, &verdict);
    let answer = robot.turn(&hold, &[(LEFT, 1.0)]).await.expect("no panic");
    assert_eq!(
        answer.map_err(|error| error.to_string()),
        Err("motor \"left\" may not move: it was stopped by trip 7 (operator stop); run `lanyard reset 7` \
             when it may move again"
            .to_owned())
    );
}

#[tokio::test]
async fn a_session_that_is_over_touches_nothing() {
    let (robot, _granting) = Robot::willing();
    let good = robot.session(0, SessionState::Live);
    robot.turn(&good, &[(LEFT, 1.0)]).await.expect("no panic").expect("it turns");
    for state in [SessionState::Tripped, SessionState::Closed, SessionState::Vacant] {
        let hold = robot.session(1, state);
        let answer = robot.turn(&hold, &[(LEFT, 5.0)]).await.expect("no panic");
        assert_eq!(answer, Err(MotionError::SessionExpired));
    }
    pass(50).await;
    assert_eq!(robot.record.last_speed(1), Some(1.0), "the other session's motion goes on");
    assert_eq!(Owner::from_word(robot.beats.owner_word(LEFT)), Some(good.owner));
}

#[tokio::test]
async fn waiting_ends_with_the_session() {
    let robot = Robot::new();
    let hold = robot.session(0, SessionState::Live);
    let began = std::time::Instant::now();
    let turning = robot.turn(&hold, &[(LEFT, 1.0)]);
    pass(20).await;
    robot.session(0, SessionState::Tripped);
    assert_eq!(turning.await.expect("no panic"), Err(MotionError::SessionExpired));
    assert!(began.elapsed() < Duration::from_millis(90), "it did not wait for the grant's time");
    assert_eq!(robot.record.sent(), []);
}

#[tokio::test]
async fn a_silent_supervisor_moves_nothing() {
    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    robot.turn(&hold, &[(LEFT, 1.0)]).await.expect("no panic").expect("it turns");
    robot.verdicts.beat(2, Nanos(Nanos::now().0.saturating_sub(10_000_000_000)));
    pass(60).await;
    assert_eq!(robot.record.last_speed(1), Some(0.0), "its grants are worth nothing any more");
    let answer = robot.turn(&hold, &[(LEFT, 1.0)]).await.expect("no panic");
    assert_eq!(answer, Err(MotionError::SupervisorGone));
}

#[tokio::test]
async fn enables_once_then_refreshes() {
    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    robot.turn(&hold, &[(RIGHT, 2.0)]).await.expect("no panic").expect("it turns");
    let told = robot.record.told(2);
    assert_eq!(told.get(..5), Some([0x18, CONTROLLER_MODE, INPUT_VEL, AXIS_STATE, INPUT_VEL].as_slice()));
    assert_eq!(robot.record.last_speed(2), Some(-2.0), "right is reversed");
    let reading = robot.motion.reading(RIGHT);
    assert_eq!(reading.commanded, Some(RevolutionsPerSecond(2.0)));
    assert_eq!(reading.power, Some(Power::On));
    assert!(reading.fresh);

    pass(110).await;
    let refreshed = robot.record.told(2).len() - told.len();
    assert!((2..=6).contains(&refreshed), "{refreshed} refreshes in 110 ms");

    robot.turn(&hold, &[(RIGHT, -3.0)]).await.expect("no panic").expect("it turns");
    assert_eq!(robot.record.told(2).iter().filter(|command| **command == AXIS_STATE).count(), 1);
    assert_eq!(robot.record.last_speed(2), Some(3.0));
}

#[tokio::test]
async fn a_grant_lost_while_sending_is_followed_by_the_stop() {
    let robot = Robot::new();
    let hold = robot.session(0, SessionState::Live);
    robot.verdicts.grant(LEFT, Some(hold.owner));
    let (verdicts, station) = (Arc::clone(&robot.verdicts), Arc::clone(&robot.stations[0]));
    robot.record.react(move |frame| {
        if frame.id() == ArbitrationId::standard(1 << 5 | AXIS_STATE) {
            station.feedback.take_in(&power(Power::On));
        } else if frame.payload().get(..4) == Some(&1.0_f32.to_le_bytes()) {
            // The supervisor trips the session at the very moment the set-point goes out.
            verdicts.grant(LEFT, None);
        }
        Ok(())
    });
    let answer = robot.turn(&hold, &[(LEFT, 1.0)]).await.expect("no panic");
    let Err(MotionError::NotGranted { why, .. }) = answer else { panic!("{answer:?}") };
    assert!(why.contains("has taken the grant back"), "{why}");
    let told = robot.record.told(1);
    assert_eq!(
        told.get(4..),
        Some([INPUT_VEL, CONTROLLER_MODE, INPUT_VEL].as_slice()),
        "set-point, then stop"
    );
    assert_eq!(robot.record.last_speed(1), Some(0.0));
    pass(60).await;
    assert_eq!(robot.record.told(1), told, "and nothing after it");
}

#[tokio::test]
async fn a_grant_lost_later_ends_the_motion_of_the_whole_group() {
    let (robot, granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    robot.turn(&hold, &[(LEFT, 1.0), (RIGHT, 1.0)]).await.expect("no panic").expect("it turns");
    granting.abort();
    let _ = granting.await;
    robot.verdicts.grant(LEFT, None);
    pass(60).await;
    assert_eq!(robot.record.last_speed(1), Some(0.0));
    assert_eq!(robot.record.last_speed(2).map(f32::abs), Some(0.0), "one wheel alone would turn the base");
    assert_eq!(robot.motion.reading(RIGHT).commanded, None);
    pass(600).await;
    let (left, right) = (robot.record.told(1).len(), robot.record.told(2).len());
    pass(60).await;
    assert_eq!(robot.record.told(1).len(), left, "silence afterwards");
    assert!(robot.record.told(2).len() > right, "still held: it hears its stop");
    assert_eq!(robot.record.last_speed(2).map(f32::abs), Some(0.0));
    robot.verdicts.grant(RIGHT, None);
    pass(60).await;
    let count = robot.record.sent().len();
    pass(60).await;
    assert_eq!(robot.record.sent().len(), count, "silence afterwards");
}

#[tokio::test]
async fn a_travel_says_that_its_session_tripped() {
    let (robot, granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    robot.place(LEFT, 4.0);
    let travelling = robot.travel(&hold, LEFT, 1.0, 100.0);
    pass(50).await;
    granting.abort();
    let _ = granting.await;
    // As the supervisor does it: the grant first, the session's state after.
    robot.verdicts.grant(LEFT, None);
    robot.session(0, SessionState::Tripped);
    assert_eq!(travelling.await.expect("no panic"), Err(MotionError::SessionExpired));
    assert_eq!(robot.record.last_speed(1), Some(0.0));
}

#[tokio::test]
async fn a_motor_that_is_claimed_for_somebody_else_is_granted_and_left_alone() {
    let robot = Robot::new();
    let hold = robot.session(0, SessionState::Live);
    let refused = robot.motion.claim(&hold, &Origin::of_a_test(), &[LEFT]).await;
    assert!(matches!(refused, Err(MotionError::NotGranted { .. })), "{refused:?}");
    assert_eq!(Owner::from_word(robot.beats.owner_word(LEFT)), Some(hold.owner));

    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    robot.turn(&hold, &[(LEFT, 1.0)]).await.expect("no panic").expect("it turns");
    robot.motion.claim(&hold, &Origin::of_a_test(), &[LEFT, RIGHT]).await.expect("both are granted");
    let sent = robot.record.sent().len();
    pass(100).await;
    assert_eq!(robot.record.sent().len(), sent, "whoever drives it now is not disturbed");

    // Not even by a stop that is still being repeated.
    robot.motion.stop(&Origin::of_a_test(), &[RIGHT], Notes::StopAndDriveFault).await.expect("it is told");
    robot.motion.claim(&hold, &Origin::of_a_test(), &[RIGHT]).await.expect("it is granted");
    let sent = robot.record.sent().len();
    pass(150).await;
    assert_eq!(robot.record.sent().len(), sent);
    let over = robot.session(1, SessionState::Tripped);
    assert_eq!(
        robot.motion.claim(&over, &Origin::of_a_test(), &[LEFT]).await,
        Err(MotionError::SessionExpired)
    );
}

#[tokio::test]
async fn the_newest_command_counts() {
    let (robot, _granting) = Robot::willing();
    let (first, second) = (robot.session(0, SessionState::Live), robot.session(1, SessionState::Live));
    robot.place(LEFT, 0.0);
    let travelling = robot.travel(&first, LEFT, 1.0, 100.0);
    pass(50).await;
    robot.turn(&second, &[(LEFT, 3.0)]).await.expect("no panic").expect("it turns");
    assert_eq!(travelling.await.expect("no panic"), Err(MotionError::Superseded));
    pass(50).await;
    assert_eq!(robot.record.last_speed(1), Some(3.0));
    assert_eq!(Owner::from_word(robot.beats.owner_word(LEFT)), Some(second.owner));
}

#[tokio::test]
async fn a_drive_that_does_not_come_up_stops_its_group() {
    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    let answer = robot.turn(&hold, &[(LEFT, 1.0), (SERVO, 1.0)]).await.expect("no panic");
    let Err(MotionError::Drive { motor, what }) = answer else { panic!("{answer:?}") };
    assert_eq!(motor, "servo");
    assert!(what.contains("did not come up within 200 ms: step 1 of "), "{what}");
    assert!(what.contains("nothing was ever heard from this drive"), "{what}");
    assert_eq!(robot.record.last_speed(1), Some(0.0), "left never started without servo");
    let started =
        robot.record.sent().iter().any(|frame| frame.payload().get(..4) == Some(&1.0_f32.to_le_bytes()));
    assert!(!started);
    assert_eq!(robot.motion.reading(LEFT).commanded, None);
}

#[tokio::test]
async fn a_drive_that_falls_out_is_not_commanded_any_more() {
    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    robot.turn(&hold, &[(LEFT, 1.0), (RIGHT, 1.0)]).await.expect("no panic").expect("it turns");
    robot.stations[0].feedback.take_in(&power(Power::Fault));
    pass(60).await;
    assert_eq!(robot.motion.reading(LEFT).commanded, None);
    assert_eq!(robot.record.last_speed(2).map(f32::abs), Some(0.0));
}

#[tokio::test]
async fn a_stop_needs_no_grant_and_waits_for_nothing() {
    let robot = Robot::new();
    let hold = robot.session(0, SessionState::Live);
    let turning = robot.turn(&hold, &[(LEFT, 1.0)]);
    pass(10).await;
    robot.motion.stop(&Origin::of_a_test(), &[LEFT], Notes::StopAndDriveFault).await.expect("it goes out");
    assert_eq!(turning.await.expect("no panic"), Err(MotionError::Superseded));
    assert_eq!(robot.record.told(1), [CONTROLLER_MODE, INPUT_VEL]);
    pass(120).await;
    let told = robot.record.told(1).len();
    assert!((4..=8).contains(&told), "repeated while nothing proves standstill: {told}");
    for _ in 0..4 {
        robot.place(LEFT, 0.0);
        pass(5).await;
    }
    let told = robot.record.told(1).len();
    pass(120).await;
    assert_eq!(robot.record.told(1).len(), told, "proven: no more repeats");
}

#[tokio::test]
async fn a_stop_ends_a_motion() {
    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    robot.turn(&hold, &[(LEFT, 1.0), (RIGHT, 1.0)]).await.expect("no panic").expect("it turns");
    robot.motion.stop(&Origin::of_a_test(), &[LEFT], Notes::StopAndDriveFault).await.expect("it goes out");
    pass(60).await;
    assert_eq!(robot.record.last_speed(1), Some(0.0));
    assert_eq!(robot.motion.reading(LEFT).commanded, None);
    assert_eq!(robot.record.last_speed(2), Some(-1.0), "once running, each motor has its own commands");
}

/// Fails if a drive with a watchdog hears nothing while its session holds it and lets it stand still, or goes on
/// hearing from a front whose grant is gone.
#[tokio::test]
async fn a_motor_that_waits_hears_its_stop_as_long_as_it_is_held() {
    let (robot, granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    robot.turn(&hold, &[(LEFT, 1.0)]).await.expect("no panic").expect("it turns");
    robot.motion.stop(&Origin::of_a_test(), &[LEFT], Notes::StopAndDriveFault).await.expect("it goes out");
    for _ in 0..4 {
        robot.place(LEFT, 0.0);
        pass(5).await;
    }
    let at_rest = robot.record.told(1).len();
    pass(300).await;
    let heard = robot.record.told(1).len() - at_rest;
    assert!(heard >= 6, "{heard} frames in 300 ms");
    assert_eq!(robot.record.last_speed(1), Some(0.0));
    granting.abort();
    let _ = granting.await;
    robot.verdicts.grant(LEFT, None);
    pass(60).await;
    let at_end = robot.record.told(1).len();
    pass(200).await;
    assert_eq!(robot.record.told(1).len(), at_end, "the supervisor's to stop");
}

#[tokio::test]
async fn nobody_waits_any_more() {
    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    robot.place(LEFT, 0.0);
    let travelling = robot.travel(&hold, LEFT, 1.0, 100.0);
    pass(50).await;
    travelling.abort();
    pass(60).await;
    assert_eq!(robot.record.last_speed(1), Some(0.0));
}

#[tokio::test]
async fn a_full_queue_is_put_up_with_for_a_while() {
    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    robot.turn(&hold, &[(LEFT, 1.0)]).await.expect("no panic").expect("it turns");
    let mut refused = 0;
    robot.record.react(move |_| {
        refused += 1;
        if refused <= 3 { Err(SendError::Busy) } else { Ok(()) }
    });
    robot.turn(&hold, &[(LEFT, 2.0)]).await.expect("no panic").expect("the fourth try gets out");
    assert_eq!(robot.record.last_speed(1), Some(2.0));
    robot.record.react(|_| Err(SendError::Busy));
    let answer = robot.turn(&hold, &[(LEFT, 3.0)]).await.expect("no panic");
    let Err(MotionError::Bus { bus, what }) = answer else { panic!("{answer:?}") };
    assert_eq!(bus, "can0");
    assert!(what.starts_with("the transmit queue has been full for 500 ms"), "{what}");
}

#[tokio::test]
async fn a_travel_arrives() {
    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    robot.place(RIGHT, 1.0);
    let travelling = robot.travel(&hold, RIGHT, 5.0, -2.0);
    // The drive follows at once; right is reversed, so it turns forward.
    let mut position = 1.0;
    while !travelling.is_finished() && position < 10.0 {
        let speed = robot.record.last_speed(2).map_or(0.0, f64::from);
        position += speed * 0.005;
        robot.place(RIGHT, position);
        pass(5).await;
    }
    travelling.await.expect("no panic").expect("it arrives");
    assert!((position - 3.0).abs() < 0.2, "at {position}");
    assert_eq!(robot.record.last_speed(2), Some(0.0));
    assert_eq!(robot.motion.reading(RIGHT).commanded, None);
}

#[tokio::test]
async fn a_travel_needs_a_position() {
    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    let answer = robot.travel(&hold, LEFT, 1.0, 1.0).await.expect("no panic");
    let Err(MotionError::Drive { what, .. }) = answer else { panic!("{answer:?}") };
    assert!(what.contains("has reported no position"), "{what}");
    assert_eq!(robot.record.last_speed(1), Some(0.0));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    let refused = |targets: &[(MotorIndex, f32)]| robot.turn(&hold, targets);
    for targets in [
        [(LEFT, 1.0), (RIGHT, 11.0)].as_slice(),
        &[(LEFT, f32::NAN)],
        &[(LEFT, 1.0), (LEFT, 2.0)],
        &[(MotorIndex(9), 1.0)],
    ] {
        assert!(refused(targets).await.expect("no panic").is_err(), "{targets:?}");
    }
    for (speed, revolutions) in [(0.0, 1.0), (1.0, f64::NAN)] {
        assert!(robot.travel(&hold, LEFT, speed, revolutions).await.expect("no panic").is_err());
    }
    assert_eq!(robot.record.sent(), []);
}

/// 16 384 counts are 20 A, and 0.1 A for each missing revolution per second is the family's default.
const COUNTS_AT_10: i16 = 819;

#[tokio::test]
async fn a_drive_that_takes_currents_is_brought_to_its_speed() {
    let (robot, _granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    let reports = robot.spins(ROTOR_1, 0.0);
    pass(10).await;
    robot.turn(&hold, &[(ROTOR_1, 10.0)]).await.expect("no panic").expect("it turns");
    assert_eq!(robot.motion.reading(ROTOR_1).commanded, Some(RevolutionsPerSecond(10.0)));
    pass(100).await;
    let currents = robot.record.currents();
    assert!(currents.iter().any(|(one, _)| *one > COUNTS_AT_10), "it pushes harder with time: {currents:?}");
    assert!(currents.iter().all(|(one, three)| *one >= 0 && *three == 0), "{currents:?}");
    reports.abort();
    let reports = robot.spins(ROTOR_1, 60.0);
    pass(100).await;
    assert!(robot.record.currents().iter().any(|(one, _)| *one < 0), "too fast: it brakes");
    reports.abort();
    let _ = reports.await;
    pass(150).await;
    assert_eq!(robot.record.currents().last(), Some(&(0, 0)), "nobody says how fast it turns: no current");
    let answer = robot.turn(&hold, &[(ROTOR_1, 101.0)]).await.expect("no panic");
    assert!(matches!(answer, Err(MotionError::Speed { .. })), "{answer:?}");
}

#[tokio::test]
async fn motors_of_one_frame_are_told_together_and_stopped_apart() {
    let (robot, granting) = Robot::willing();
    let hold = robot.session(0, SessionState::Live);
    let _reports = [robot.spins(ROTOR_1, 0.0), robot.spins(ROTOR_3, 0.0)];
    pass(10).await;
    let targets = [(ROTOR_1, 10.0), (ROTOR_3, -10.0)];
    robot.turn(&hold, &targets).await.expect("no panic").expect("they turn");
    pass(100).await;
    let currents = robot.record.currents();
    assert!(currents.iter().any(|(one, three)| *one > 0 && *three < 0), "{currents:?}");

    robot.motion.stop(&Origin::of_a_test(), &[ROTOR_1], Notes::StopAndDriveFault).await.expect("it goes out");
    let before = robot.record.currents().len();
    pass(150).await;
    let after = robot.record.currents().split_off(before);
    assert!(after.iter().all(|(one, _)| *one == 0), "{after:?}");
    assert!(after.iter().any(|(_, three)| *three < 0), "the other one goes on: {after:?}");

    granting.abort();
    let _ = granting.await;
    robot.verdicts.grant(ROTOR_3, None);
    pass(60).await;
    assert_eq!(robot.record.currents().last(), Some(&(0, 0)));
}
