//! What counts after a stop, and in which order: a session that was stopped, pipelined commands, datagrams, latches.

use shm_proto::verdicts::{MotorState, MotorVerdict, Reason, SessionState, SessionVerdict};
use shm_proto::{MotorIndex, Nanos, TripId};

use super::{
    ArmState, ArmStateInformation, Bus, Client, Duration, Error, Frame, Heard, JointSpeeds, Message, Method,
    Setting, Transport, method, simple_robot, sleep, speeds, text,
};
use crate::kortex::desk::Answer;
use crate::kortex::tcp;

/// `stop_hold` of the configuration, and room for the test's own haste.
const HOLD: Duration = Duration::from_millis(260);
/// What a session that was stopped is answered with.
const STOPPED: (u8, u16) = (3, 54);
const IN_FAULT: (u8, u16) = (3, 22);
const MOTOR: MotorIndex = MotorIndex(0);

impl Setting {
    fn with_bus() -> Self {
        Self::over(&simple_robot(), std::sync::Arc::<Bus>::default())
    }

    /// What the supervisor says of the motor.
    fn verdict(&self) -> MotorVerdict {
        self.watcher.attachment.verdicts.motor(MOTOR).unwrap()
    }

    /// Ends the session that drives, as the supervisor does: the motor is being stopped first.
    fn trip(&self, trip: u64, reason: Reason) {
        let (watch, hold) = (self.sessions.list()[0].id, self.hold());
        let now = Nanos::now();
        let verdict = MotorVerdict {
            state: MotorState::Stopping,
            grant: None,
            trip: TripId(trip),
            reason: Some(reason),
            first_stop: now,
            standstill: Nanos::ZERO,
            ..self.verdict()
        };
        self.watcher.verdicts.motor(MOTOR, &verdict);
        self.watcher.verdicts.grant(MOTOR, None);
        let ended = SessionVerdict {
            session: watch,
            incarnation: hold.owner.incarnation,
            state: SessionState::Tripped,
            deadline: now,
            last_beat: now,
            trip: TripId(trip),
            beats: 1,
            window: 0,
        };
        self.watcher.verdicts.session(hold.owner.slot, &ended);
    }

    /// Says that the motor stands still.
    fn proves_rest(&self) {
        let verdict = MotorVerdict { state: MotorState::Stopped, standstill: Nanos::now(), ..self.verdict() };
        self.watcher.verdicts.motor(MOTOR, &verdict);
    }
}

async fn drives(client: &mut Client) -> ((u8, u16), String) {
    let answer = client.call(method::SEND_JOINT_SPEEDS, &speeds(0, 5.0)).await;
    let text = Error::decode(&answer.payload[..]).map(|error| error.error_sub_string).unwrap_or_default();
    (answer.header.error, text)
}

#[tokio::test]
async fn who_was_stopped_drives_again_only_after_its_own_stop_or_clear_faults() {
    for notice in [method::STOP, method::CLEAR_FAULTS] {
        let setting = Setting::with_bus();
        let mut client = setting.driver(Transport::Tcp).await;
        let first = setting.sessions.list()[0].id;
        setting.trip(7, Reason::Expired);
        setting.proves_rest();
        assert_eq!(client.codes(method::KEEP_ALIVE, &()).await, (0, 0), "its session lives on");
        sleep(HOLD).await;
        let asked = "the motors of this session were stopped (trip 7, session expired); call ClearFaults or Stop, then \
                     command again";
        for _ in 0..3 {
            assert_eq!(drives(&mut client).await, (STOPPED, asked.to_owned()));
        }
        let zero = client.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 0.0)).await;
        assert_eq!(zero, STOPPED, "it may hide the next one");
        assert!(setting.sessions.list().is_empty(), "nothing is watched that may not drive");

        let mut other = setting.client();
        other.open(0, 0).await;
        assert_eq!(other.codes(notice, &()).await, (0, 0));
        assert_eq!(drives(&mut client).await.0, STOPPED, "another session's counts for that one");

        assert_eq!(client.codes(notice, &()).await, (0, 0));
        let (codes, text) = drives(&mut client).await;
        assert!(codes == STOPPED && text.contains("command again in "), "{text}");
        sleep(HOLD).await;
        // From here on it is for the supervisor to say.
        assert_eq!(drives(&mut client).await.0, IN_FAULT, "not granted");
        let [watch] = &setting.sessions.list()[..] else { panic!("one watch") };
        assert_ne!(watch.id, first);
    }
}

/// As they lie in a buffer that fills while the network, or this program, stands still.
#[tokio::test]
async fn nothing_that_waited_with_its_own_stop_moves_anything() {
    let setting = Setting::with_bus();
    let mut client = setting.driver(Transport::Tcp).await;
    setting.trip(7, Reason::FrontSilent);
    setting.proves_rest();
    let all = [
        client.ask_any(method::SEND_JOINT_SPEEDS, &speeds(0, 20.0)),
        client.ask_any(method::STOP, &()),
        client.ask_any(method::SEND_JOINT_SPEEDS, &speeds(0, 30.0)),
    ];
    let mut codes = Vec::new();
    for answer in all {
        codes.push(answered(answer).await.header.error);
    }
    assert_eq!(codes, [STOPPED, (0, 0), STOPPED]);
    sleep(HOLD).await;
    assert_eq!(drives(&mut client).await.0, IN_FAULT, "what comes later does not wait for another Stop");
}

#[tokio::test]
async fn a_fault_of_a_drive_waits_for_clear_faults() {
    let setting = Setting::with_bus();
    let mut client = setting.driver(Transport::Tcp).await;
    setting.trip(7, Reason::DriveFault);
    setting.proves_rest();
    let (codes, text) = drives(&mut client).await;
    assert_eq!(codes, IN_FAULT);
    assert!(text.contains("trip 7, drive fault") && text.contains("call ClearFaults, then"), "{text}");
    assert_eq!(state(&mut client).await, ArmState::InFault);
    assert_eq!(client.codes(method::STOP, &()).await, (0, 0));
    sleep(HOLD).await;
    assert!(drives(&mut client).await.1.contains("call ClearFaults, then"));
    assert_eq!(client.codes(method::CLEAR_FAULTS, &()).await, (0, 0));
    assert_eq!(state(&mut client).await, ArmState::ServoingReady);
    sleep(HOLD).await;
    let (_, text) = drives(&mut client).await;
    assert!(text.contains("has not granted it"), "{text}");
}

#[tokio::test]
async fn clear_faults_says_how_a_latch_is_reset_and_resets_none() {
    let setting = Setting::with_bus();
    let mut client = setting.driver(Transport::Tcp).await;
    setting.trip(9, Reason::OperatorStop);
    setting.proves_rest();
    setting.watcher.verdicts.latch(TripId(9));
    let answer = client.call(method::CLEAR_FAULTS, &()).await;
    assert_eq!(answer.header.error, IN_FAULT);
    assert!(text(&answer).contains("run `lanyard reset 9` on the robot"), "{}", text(&answer));
    assert_eq!(setting.watcher.attachment.verdicts.latch(), TripId(9));
    sleep(HOLD).await;
    let (codes, text) = drives(&mut client).await;
    assert!(codes == IN_FAULT && text.contains("lanyard reset 9"), "the latch alone is left: {text}");
}

async fn state(client: &mut Client) -> ArmState {
    let answer = client.call(method::GET_ARM_STATE, &()).await;
    ArmStateInformation::decode(&answer.payload[..]).unwrap().active_state()
}

#[tokio::test]
async fn the_arm_is_in_fault_from_a_trip_until_it_stands_still() {
    let setting = Setting::with_bus();
    let mut client = setting.driver(Transport::Tcp).await;
    assert_eq!(state(&mut client).await, ArmState::ManuallyControlled);
    setting.trip(7, Reason::FeedbackLost);
    assert_eq!(state(&mut client).await, ArmState::InFault);
    let unverified = MotorVerdict { state: MotorState::Unverified, ..setting.verdict() };
    setting.watcher.verdicts.motor(MOTOR, &unverified);
    assert_eq!(state(&mut client).await, ArmState::InFault);
    setting.proves_rest();
    assert_ne!(state(&mut client).await, ArmState::InFault);
    // The stop with which a supervisor begins is for no trip.
    let starting = MotorVerdict { state: MotorState::Stopping, trip: TripId::NONE, ..setting.verdict() };
    setting.watcher.verdicts.motor(MOTOR, &starting);
    assert_ne!(state(&mut client).await, ArmState::InFault);
}

impl Client {
    /// Asks, and leaves what comes of it undone until it is awaited.
    fn ask_any(&self, method: Method, message: &impl Message) -> Answer {
        self.desk.ask(&self.channel, &self.request(method, message), Heard::now())
    }
}

async fn answered(answer: Answer) -> Frame {
    match answer {
        Answer::Now(frame) => frame,
        Answer::Later(call) => call.await,
        Answer::Nothing => panic!("no answer"),
    }
}

/// A command of a joint's program: degrees per second, or Stop.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Command {
    Speed(f32),
    Stop,
}

const COMMANDS: [Command; 4] =
    [Command::Speed(10.0), Command::Speed(20.0), Command::Speed(0.0), Command::Stop];

impl Command {
    fn ask(self, client: &Client) -> Answer {
        match self {
            Self::Speed(speed) => client.ask_any(method::SEND_JOINT_SPEEDS, &speeds(0, speed)),
            Self::Stop => client.ask_any(method::STOP, &()),
        }
    }

    /// The speed of the motor, in revolutions per second: it turns a hundred times for the joint's once.
    fn outcome(self) -> Option<f32> {
        match self {
            Self::Speed(speed) => Some(speed / 360.0 * 100.0),
            Self::Stop => None,
        }
    }
}

/// Every pair and triple of commands, come in one after the other and carried out in every order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_commanded_last_is_what_happens() {
    let setting = Setting::with_bus();
    let client = setting.driver(Transport::Tcp).await;
    let mut patterns: Vec<Vec<Command>> = Vec::new();
    for first in COMMANDS {
        for second in COMMANDS {
            patterns.push(vec![first, second]);
            patterns.extend(COMMANDS.map(|third| vec![first, second, third]));
        }
    }
    for (number, pattern) in patterns.iter().enumerate() {
        let mut answers: Vec<Answer> = pattern.iter().map(|command| command.ask(&client)).collect();
        let turn = number % answers.len();
        answers.rotate_left(turn);
        if number % 2 == 0 {
            answers.reverse();
        }
        let calls: Vec<_> = answers.into_iter().map(|answer| tokio::spawn(answered(answer))).collect();
        for call in calls {
            let error = call.await.unwrap().header.error;
            assert!([(0, 0), (3, 1)].contains(&error), "{pattern:?}: {error:?}");
        }
        let last = pattern[pattern.len() - 1];
        let (wanted, commanded) =
            (last.outcome(), || setting.motion.reading(MOTOR).commanded.map(|speed| speed.0));
        let right = || match (wanted, commanded()) {
            (None, None) => true,
            (Some(wanted), Some(seen)) => (wanted - seen).abs() < 0.01,
            _ => false,
        };
        let settles = async {
            while !right() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let settled = tokio::time::timeout(Duration::from_secs(5), settles).await;
        assert!(settled.is_ok(), "{pattern:?} ends with {:?}", commanded());
        sleep(Duration::from_millis(2)).await;
        assert!(right(), "{pattern:?} then goes on to {:?}", commanded());
    }
}

/// A number of a datagram, and what it says.
type Datagram = (u16, Command);
/// What a datagram is answered with, if it is.
type Codes = Option<(u8, u16)>;
/// The speed that is commanded in the end, if any is.
type Outcome = Option<f32>;

#[tokio::test]
async fn of_datagrams_the_one_that_was_sent_last_counts() {
    use Command::{Speed, Stop};
    let setting = Setting::with_bus();
    let client = setting.driver(Transport::Udp).await;
    let mut base = 100;
    let cases: [([Datagram; 2], Codes, Outcome); 5] = [
        ([(2, Stop), (1, Speed(10.0))], Some((3, 1)), Stop.outcome()),
        ([(2, Speed(0.0)), (1, Speed(10.0))], Some((3, 1)), Speed(0.0).outcome()),
        ([(2, Speed(20.0)), (1, Speed(10.0))], Some((3, 1)), Speed(20.0).outcome()),
        ([(2, Speed(20.0)), (2, Speed(20.0))], None, Speed(20.0).outcome()),
        // A stop is never too old.
        ([(2, Speed(20.0)), (1, Stop)], Some((0, 0)), Stop.outcome()),
    ];
    for (datagrams, second, outcome) in cases {
        let mut codes = Vec::new();
        for (number, command) in datagrams {
            let bytes = match command {
                Speed(speed) => {
                    client.request_with(base + number, method::SEND_JOINT_SPEEDS, &speeds(0, speed))
                }
                Stop => client.request_with(base + number, method::STOP, &()),
            };
            codes.push(client.send(&bytes).await.map(|answer| answer.header.error));
        }
        assert_eq!(codes, [Some((0, 0)), second], "{datagrams:?}");
        let commanded = setting.motion.reading(MOTOR).commanded.map(|speed| speed.0);
        let near = |(wanted, seen): (f32, f32)| (wanted - seen).abs() < 0.01;
        assert_eq!(outcome.is_some(), commanded.is_some(), "{datagrams:?}: {commanded:?}");
        assert!(outcome.zip(commanded).is_none_or(near), "{datagrams:?}: {commanded:?}");
        base += 10;
    }
}

/// Over a connection that keeps the order, numbers are the client's own affair.
#[tokio::test]
async fn over_tcp_numbers_say_nothing() {
    let setting = Setting::with_bus();
    let client = setting.driver(Transport::Tcp).await;
    for number in [9, 9, 3, 0xFFFF] {
        let bytes = client.request_with(number, method::SEND_JOINT_SPEEDS, &speeds(0, 10.0));
        assert_eq!(client.send(&bytes).await.unwrap().header.error, (0, 0));
    }
}

#[tokio::test]
async fn after_a_stop_the_same_party_moves_nothing_over_another_connection_for_a_while() {
    let setting = Setting::with_bus();
    let mut client = setting.driver(Transport::Tcp).await;
    let mut other = setting.client_over(Transport::Udp);
    other.open(0, 0).await;
    assert_eq!(other.codes(method::STOP, &()).await, (0, 0));
    let (codes, text) = drives(&mut client).await;
    assert!(codes == (3, 1) && text.contains("a command over this one is taken in "), "{codes:?} {text}");
    assert_eq!(setting.motion.reading(MOTOR).commanded, None);
    sleep(HOLD).await;
    assert_eq!(drives(&mut client).await.0, (0, 0));
}

/// Fails if a Stop goes under in what else its client has asked for.
#[tokio::test]
async fn a_stop_is_carried_out_however_many_calls_are_under_way() {
    let setting = Setting::with_bus();
    let client = setting.driver(Transport::Tcp).await;
    while client.channel.carry_out(std::future::pending()) {}
    let answer = tcp::ask(&setting.desk, &client.channel, &client.request(method::STOP, &()), Heard::now());
    assert_eq!(answer.map(|answer| answer.header.error), Some((3, 1)), "only its answer is not waited for");
    let stopped = async {
        while setting.motion.reading(MOTOR).commanded.is_some() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), stopped).await.expect("it turns on");
}

/// Fails if a command with a duration is not ended by it because of what came in between and was refused, or if a newer
/// command or a Stop is ended by it.
#[tokio::test]
async fn the_end_of_a_duration_ends_its_own_command_only() {
    let setting = Setting::with_bus();
    let mut client = setting.driver(Transport::Tcp).await;
    let commanded = || setting.motion.reading(MOTOR).commanded.map(|speed| speed.0.round());
    let second = |value| JointSpeeds { duration: 1, ..speeds(0, value) };
    assert_eq!(client.codes(method::SEND_JOINT_SPEEDS, &second(36.0)).await, (0, 0));
    assert_eq!(client.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 37.0)).await, (1, 3), "too fast");
    assert_eq!(commanded(), Some(10.0));
    sleep(Duration::from_millis(1_100)).await;
    assert_eq!(commanded(), Some(0.0));
    assert_eq!(client.codes(method::SEND_JOINT_SPEEDS, &second(36.0)).await, (0, 0));
    assert_eq!(client.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 18.0)).await, (0, 0));
    sleep(Duration::from_millis(1_100)).await;
    assert_eq!(commanded(), Some(5.0));
    assert_eq!(client.codes(method::SEND_JOINT_SPEEDS, &second(36.0)).await, (0, 0));
    assert_eq!(client.codes(method::STOP, &()).await, (0, 0));
    sleep(Duration::from_millis(1_100)).await;
    assert_eq!(commanded(), None, "a Stop stays one");
}
