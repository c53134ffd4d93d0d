//! The services, played through without a network: what each frame is answered with, and what becomes of sessions.
//!
//! | file | its one idea |
//! |---|---|
//! | [`stops`] | what counts after a stop, and in which order |

mod stops;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use config::Config;
use proptest::prelude::*;
use prost::Message;
use shm_proto::{MotorIndex, Nanos};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::arm::Parts;
use super::channel::{Channel, Later, Transport};
use super::desk::{Answer, Desk};
use super::frame::{Frame, Header, Kind, MessageNumber, Method, SessionNumber};
use super::intake::Heard;
use super::method;
use super::vectors;
use crate::access::Access;
use crate::lanyard::Orders;
use crate::link::Link;
use crate::motion::{Motion, NoWire, SendError, Wire};
use crate::proto::kortex::{
    ActuatorCommand, ArmState, ArmStateInformation, Command, ConnectionList, CreateSessionInfo, Error,
    JointSpeed, JointSpeeds, NotificationHandle, ServoingMode, ServoingModeInformation,
    ServoingModeNotification,
};
use crate::sessions::testing::Watcher;
use crate::sessions::{Entity, Hold, Rules, Sessions};
use crate::transport::Connection;

pub const ROBOT: &str = r#"
[front]
keys = "/nonexistent/keys.toml"
grant_timeout = "20ms"

[[bus]]
name = "can0"

[[motor]]
name = "shoulder"
bus = "can0"
driver = "odrive"
node = 1
firmware = "0.6"
after_stop = "hold"
max_rpm = 600

[kortex]
tcp = "127.0.0.1"

[[kortex.joint]]
motor = "shoulder"
gear_ratio = 100
"#;

pub const NONE: SessionNumber = SessionNumber(0);
/// What an answer of "no session" has for codes.
const NO_SESSION: (u8, u16) = (1, 54);

/// A robot's services; the test plays the supervisor.
pub struct Setting {
    pub watcher: Watcher,
    pub sessions: Arc<Sessions>,
    pub motion: Arc<Motion>,
    pub desk: Arc<Desk>,
}

impl Setting {
    pub fn new() -> Self {
        Self::with("")
    }

    /// `more` is what else `[kortex]` says.
    pub fn with(more: &str) -> Self {
        Self::of(&ROBOT.replace("tcp = \"127.0.0.1\"\n", &format!("tcp = \"127.0.0.1\"\n{more}\n")))
    }

    pub fn of(text: &str) -> Self {
        Self::over(text, Arc::new(NoWire))
    }

    /// With a bus.
    fn over(text: &str, wire: Arc<dyn Wire>) -> Self {
        let config = Arc::new(Config::parse(Path::new("test.toml"), text).unwrap());
        let watcher = Watcher::with_room(8);
        let link = Link::to(watcher.attachment.clone());
        let rules = Rules { most_per_entity: 4, ..Rules::relaxed() };
        let sessions = Arc::new(Sessions::new(Arc::clone(&link), rules));
        let motion = Motion::start_over(Arc::clone(&config), &[wire]);
        let orders = Arc::new(Orders::new(&config, Arc::clone(&link), Arc::clone(&motion)));
        let (access, _) = Access::start(&config).unwrap();
        let parts = Parts { link, sessions: Arc::clone(&sessions), motion: Arc::clone(&motion), orders };
        let desk = Desk::new(config.kortex.as_ref().unwrap(), access, parts);
        Self { watcher, sessions, motion, desk }
    }

    pub fn client(&self) -> Client {
        self.client_over(Transport::Tcp)
    }

    pub fn client_over(&self, transport: Transport) -> Client {
        let address = ([127, 0, 0, 1], 1).into();
        let (channel, outbox) = Channel::new(Connection::new(address, address), transport);
        Client { desk: Arc::clone(&self.desk), channel, outbox, session: NONE, last: 0 }
    }
}

/// A client, without its network.
pub struct Client {
    desk: Arc<Desk>,
    pub channel: Arc<Channel>,
    pub outbox: mpsc::Receiver<Frame>,
    pub session: SessionNumber,
    last: u16,
}

impl Client {
    /// The bytes of a request in its session.
    pub fn request(&self, method: Method, message: &impl Message) -> Bytes {
        self.request_with(99, method, message)
    }

    /// The same, under that number.
    pub fn request_with(&self, number: u16, method: Method, message: &impl Message) -> Bytes {
        let header = Header {
            kind: Kind::Request,
            device: 0,
            error: (0, 0),
            session: self.session,
            message: MessageNumber(number),
            method,
        };
        Frame { header, payload: message.encode_to_vec().into() }.encode()
    }

    /// Asks for something that takes its time, and leaves it undone until it is awaited.
    pub fn ask(&self, method: Method, message: &impl Message) -> Later {
        match self.desk.ask(&self.channel, &self.request(method, message), Heard::now()) {
            Answer::Later(call) => call,
            Answer::Now(frame) => panic!("{frame:?}"),
            Answer::Nothing => panic!("no answer"),
        }
    }

    /// Sends bytes. Returns what they are answered with.
    async fn send(&self, bytes: &[u8]) -> Option<Frame> {
        match self.desk.ask(&self.channel, bytes, Heard::now()) {
            Answer::Now(frame) => Some(frame),
            Answer::Later(call) => Some(call.await),
            Answer::Nothing => None,
        }
    }

    pub async fn call_as(&mut self, session: SessionNumber, method: Method, message: &impl Message) -> Frame {
        self.last += 1;
        let header = Header {
            kind: Kind::Request,
            device: 0,
            error: (0, 0),
            session,
            message: MessageNumber(self.last),
            method,
        };
        let request = Frame { header, payload: message.encode_to_vec().into() };
        let answer = self.send(&request.encode()).await.expect("every request is answered");
        assert_eq!(
            (answer.header.kind, answer.header.message, answer.header.method),
            (Kind::Response, header.message, method)
        );
        answer
    }

    pub async fn call(&mut self, method: Method, message: &impl Message) -> Frame {
        self.call_as(self.session, method, message).await
    }

    /// The codes of an answer.
    pub async fn codes(&mut self, method: Method, message: &impl Message) -> (u8, u16) {
        self.call(method, message).await.header.error
    }

    /// Opens a session with these times, in milliseconds.
    pub async fn open(&mut self, session: u32, connection: u32) {
        let answer = self.call_as(NONE, method::CREATE_SESSION, &times(session, connection)).await;
        assert_eq!(answer.header.error, (0, 0));
        assert_ne!(answer.header.session, NONE);
        self.session = answer.header.session;
    }
}

pub fn times(session: u32, connection: u32) -> CreateSessionInfo {
    CreateSessionInfo {
        username: "admin".to_owned(),
        password: "admin".to_owned(),
        session_inactivity_timeout: session,
        connection_inactivity_timeout: connection,
    }
}

pub fn text(answer: &Frame) -> String {
    Error::decode(&answer.payload[..]).unwrap().error_sub_string
}

pub fn speeds(joint: u32, value: f32) -> JointSpeeds {
    JointSpeeds {
        joint_speeds: vec![JointSpeed { joint_identifier: joint, value, duration: 0 }],
        duration: 0,
    }
}

/// Fails if a frame of a real client is not answered with the frame that it took, where both are the server's only choice.
#[tokio::test]
async fn the_golden_conversation_goes_as_it_did() {
    let setting = Setting::new();
    let client = setting.client();
    setting.desk.promise(SessionNumber(1));
    let golden = vectors::tcp();
    let mut answered = 0;
    for pair in golden.windows(2) {
        let [(asked, request), (took, answer)] = pair else { unreachable!() };
        let same = asked.split(' ').nth(2) == took.split(' ').nth(2);
        if !asked.contains("C->S") || !took.contains("S->C") || !same {
            continue;
        }
        let [request, theirs] = [request, answer].map(|bytes| Frame::read(&bytes[12..]).unwrap());
        // Only the first session's; what moves waits for drives, and errors have words of their own.
        let plain =
            [method::CREATE_SESSION, method::KEEP_ALIVE, method::GET_SERVOING_MODE, method::CLOSE_SESSION];
        if theirs.header.session != SessionNumber(1) || !plain.contains(&request.header.method) {
            continue;
        }
        assert_eq!(client.send(&request.encode()).await, Some(theirs), "{asked}");
        answered += 1;
    }
    assert_eq!(answered, 4);
}

/// Fails if a client that keeps its number over the end of this program can get the same one again.
#[tokio::test]
async fn the_number_that_a_client_has_is_not_given_to_it_again() {
    let setting = Setting::new();
    let mut client = setting.client();
    client.open(0, 0).await;
    for _ in 0..50 {
        let held = client.session;
        let answer = client.call_as(held, method::CREATE_SESSION, &times(0, 0)).await;
        let given = answer.header.session;
        assert!(answer.header.error == (0, 0) && given != held && given != NONE, "{given} after {held}");
        client.session = held;
        assert_eq!(client.codes(method::CLOSE_SESSION, &()).await, (0, 0));
        client.session = given;
    }
}

#[tokio::test]
async fn a_number_is_worth_nothing_to_another_connection() {
    let setting = Setting::new();
    let (mut one, mut other) = (setting.client(), setting.client());
    one.open(0, 0).await;
    let unknown = SessionNumber(4_711);
    for method in [method::KEEP_ALIVE, method::STOP, method::CLOSE_SESSION, method::GET_CONNECTIONS] {
        let theirs = other.call_as(one.session, method, &()).await;
        other.last -= 1;
        let nobodys = other.call_as(unknown, method, &()).await;
        assert_eq!(theirs.header.error, NO_SESSION);
        // But for the number that was sent, the same bytes.
        let header = Header { session: unknown, ..theirs.header };
        assert_eq!(Frame { header, payload: theirs.payload }, nobodys);
    }
    assert_eq!(one.codes(method::KEEP_ALIVE, &()).await, (0, 0));
    one.desk.left(&other.channel);
    assert_eq!(one.codes(method::KEEP_ALIVE, &()).await, (0, 0));
    one.desk.left(&one.channel);
    assert_eq!(one.codes(method::KEEP_ALIVE, &()).await, NO_SESSION);
}

#[tokio::test]
async fn times_have_bounds_and_none_is_the_default() {
    let setting = Setting::new();
    let mut client = setting.client();
    for (session, connection, word) in [
        (0, 29, "connection_inactivity_timeout must be 30 to 60000 ms, or 0 for 2000 ms, not 29"),
        (0, 60_001, "not 60001"),
        (29, 0, "session_inactivity_timeout must be 30 to 86400000 ms, or 0 for 60000 ms, not 29"),
        (u32::MAX, 0, "not 4294967295"),
    ] {
        let answer = client.call_as(NONE, method::CREATE_SESSION, &times(session, connection)).await;
        assert_eq!((answer.header.error, answer.header.session), ((1, 3), NONE));
        assert!(text(&answer).contains(word), "{}", text(&answer));
    }
    client.open(0, 0).await;
    assert_eq!(setting.desk.sessions_of(&client.channel)[0].1.0, 2_000_000_000);
    // Closing a session stops what it drives, so that the shorter time counts.
    let mut hasty = setting.client();
    hasty.open(1_000, 2_000).await;
    assert_eq!(setting.desk.sessions_of(&hasty.channel)[0].1.0, 1_000_000_000);
}

#[tokio::test]
async fn a_silent_session_is_closed_and_only_its_own_call_hears_of_it() {
    let setting = Setting::new();
    let (mut silent, mut lively) = (setting.client(), setting.client());
    silent.open(60, 0).await;
    lively.open(0, 0).await;
    sleep(Duration::from_millis(80)).await;
    assert_eq!(silent.codes(method::KEEP_ALIVE, &()).await, NO_SESSION);
    assert_eq!(lively.codes(method::KEEP_ALIVE, &()).await, (0, 0));
}

#[tokio::test]
async fn without_a_call_a_silent_session_is_closed_too() {
    let setting = Setting::new();
    let mut client = setting.client();
    client.open(60, 0).await;
    let keeping = tokio::spawn(Arc::clone(&setting.desk).keep());
    let gone = async {
        while !setting.desk.sessions_of(&client.channel).is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    keeping.abort();
}

#[tokio::test]
async fn who_drives_is_watched_and_who_only_looks_is_not() {
    let setting = Setting::new();
    let mut client = setting.client();
    client.open(0, 0).await;
    assert!(setting.sessions.list().is_empty(), "who only looks is not watched");
    // No supervisor grants anything here: the command fails, under a session of ours.
    assert_eq!(client.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 1.0)).await.0, 3);
    let [watch] = &setting.sessions.list()[..] else { panic!("one watch") };
    let first = watch.id;
    assert_eq!(client.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 1.0)).await.0, 3);
    assert_eq!(setting.sessions.list()[0].id, first, "the same goes on");

    assert_eq!(client.codes(method::CLOSE_SESSION, &()).await, (0, 0));
    assert!(setting.sessions.list().is_empty(), "what it drove is stopped");
    assert_eq!(client.codes(method::KEEP_ALIVE, &()).await, NO_SESSION);
}

#[tokio::test]
async fn whatever_a_session_asks_keeps_what_it_drives_going() {
    let setting = Setting::new();
    let mut client = setting.client();
    client.open(0, 1_000).await;
    client.call(method::SEND_JOINT_SPEEDS, &speeds(0, 1.0)).await;
    let watch = setting.sessions.list()[0].id;
    // Together longer than it may be silent, with room for a machine that stands still.
    for method in [method::KEEP_ALIVE, method::GET_ARM_STATE, Method::of(0x2_0079), method::GET_CONNECTIONS] {
        sleep(Duration::from_millis(400)).await;
        client.call(method, &()).await;
        assert_eq!(setting.sessions.list().first().map(|watch| watch.id), Some(watch), "{method:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_takes_its_watch_along() {
    let setting = Setting::new();
    let mut client = setting.client();
    client.open(0, 0).await;
    client.call(method::SEND_JOINT_SPEEDS, &speeds(0, 1.0)).await;
    assert_eq!(setting.sessions.list().len(), 1);
    setting.desk.left(&client.channel);
    assert!(setting.sessions.list().is_empty());
}

#[tokio::test]
async fn a_session_for_a_connection_that_is_over_is_none() {
    let setting = Setting::new();
    let mut client = setting.client();
    // As it is when the connection ends while a password is looked at.
    setting.desk.left(&client.channel);
    let answer = client.call_as(NONE, method::CREATE_SESSION, &times(0, 0)).await;
    assert_eq!(answer.header.error, NO_SESSION);
    assert!(setting.desk.sessions_of(&client.channel).is_empty());
}

#[tokio::test]
async fn there_are_only_so_many_sessions() {
    let setting = Setting::new();
    let mut client = setting.client();
    for _ in 0..4 {
        client.open(0, 0).await;
    }
    let answer = client.call_as(NONE, method::CREATE_SESSION, &times(0, 0)).await;
    assert_eq!((answer.header.error, answer.header.session), ((3, 1), NONE));
    assert_eq!(client.codes(method::CLOSE_SESSION, &()).await, (0, 0));
    client.open(0, 0).await;
}

#[tokio::test]
async fn a_command_that_cannot_be_is_refused_before_anything_moves() {
    let setting = Setting::new();
    let mut client = setting.client();
    client.open(0, 0).await;
    let joint = |joint_identifier, value| JointSpeed { joint_identifier, value, duration: 0 };
    for (asked, word) in [
        (vec![], "no joint is named"),
        (vec![joint(1, 1.0)], "there is no joint 1; this arm has 1, the first is 0"),
        (vec![joint(0, 1.0), joint(0, 2.0)], "joint 0 is named twice"),
        (vec![joint(0, f32::NAN)], "is no number: NaN"),
        (vec![joint(0, f32::INFINITY)], "is no number: inf"),
        // 37 degrees a second of the joint are 616 rpm of its motor, which may have 600.
        (vec![joint(0, 37.0)], "616.7 rpm is faster than this motor's max_rpm 600.0"),
    ] {
        let answer =
            client.call(method::SEND_JOINT_SPEEDS, &JointSpeeds { joint_speeds: asked, duration: 0 }).await;
        assert_eq!(answer.header.error, (1, 3), "{word}");
        assert!(text(&answer).contains(word), "{}", text(&answer));
    }
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let setting = Setting::new();
    let mut client = setting.client();
    client.open(0, 0).await;
    assert_eq!(client.codes(Method::of(0x2_0079), &()).await, (1, 5));
    let answer = client.call(Method::of(0x10_0001), &()).await;
    assert_eq!(
        (answer.header.error, text(&answer)),
        ((1, 4), "service 16 is not served by Lanyard".to_owned())
    );
    let low = Command { frame_id: 1, actuators: vec![ActuatorCommand::default()] };
    assert_eq!(client.codes(method::REFRESH, &low).await, (3, 75));
    let low = ServoingModeInformation { servoing_mode: ServoingMode::LowLevel.into() };
    assert_eq!(client.codes(method::SET_SERVOING_MODE, &low).await, (1, 3));
    // Field 1 is a message there.
    assert_eq!(client.codes(method::SEND_JOINT_SPEEDS, &NotificationHandle { identifier: 7 }).await, (1, 13));
    let header = Header {
        kind: Kind::Request,
        device: 3,
        error: (0, 0),
        session: client.session,
        message: MessageNumber(99),
        method: method::KEEP_ALIVE,
    };
    let device = Frame { header, payload: bytes::Bytes::new() };
    assert_eq!(client.send(&device.encode()).await.unwrap().header.error, (1, 52));
}

/// Calls are carried out side by side, in whatever order their tasks come to run.
#[tokio::test]
async fn a_command_never_comes_after_a_stop_that_was_asked_for_later() {
    let setting = Setting::new();
    let mut client = setting.client();
    client.open(0, 0).await;
    let drive = client.ask(method::SEND_JOINT_SPEEDS, &speeds(0, 1.0));
    let stop = client.ask(method::STOP, &());
    let stopped = drive.await;
    assert_eq!(stopped.header.error, (3, 1));
    assert!(
        text(&stopped).contains("a stop, for one of the same motors took its place"),
        "{}",
        text(&stopped)
    );
    assert_eq!(stop.await.header.error, (0, 0));
    // A newer one is carried out, as far as it can be here.
    assert_eq!(client.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 1.0)).await, (3, 22));
}

/// A bus that writes down what is sent, and at the first frame has something else happen.
#[derive(Default)]
struct Bus {
    sent: Mutex<Vec<drivers::Frame>>,
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Wire for Bus {
    fn send(&self, frame: &drivers::Frame) -> Result<(), SendError> {
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
        self.sent.lock().unwrap().push(*frame);
        Ok(())
    }
}

/// A robot whose drive turns as soon as it is told, without being enabled before.
pub fn simple_robot() -> String {
    let vesc = "driver = \"vesc\"\nid = 1\npole_pairs = 7\nafter_stop = \"release\"";
    let odrive = "driver = \"odrive\"\nnode = 1\nfirmware = \"0.6\"\nafter_stop = \"hold\"";
    ROBOT.replace(odrive, vesc)
}

impl Setting {
    /// A client whose session the supervisor lets drive, and which does.
    pub async fn driver(&self, transport: Transport) -> Client {
        let mut client = self.client_over(transport);
        client.open(0, 0).await;
        // Not granted, but from now on it is known who asks.
        assert_eq!(client.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 10.0)).await, (3, 22));
        self.watcher.verdicts.beat(2, Nanos::NEVER);
        self.watcher.verdicts.grant(MotorIndex(0), Some(self.hold().owner));
        assert_eq!(client.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 10.0)).await, (0, 0), "granted");
        client
    }

    /// How the motors know the one session that drives.
    pub fn hold(&self) -> Hold {
        let watch = self.sessions.list()[0].id;
        self.sessions.hold(&Entity::anonymous(), watch).unwrap()
    }
}

/// Whether each of these frames is a stop.
fn stops(frames: &[drivers::Frame]) -> Vec<bool> {
    frames.iter().map(|frame| frame.payload().iter().all(|byte| *byte == 0)).collect()
}

#[tokio::test]
async fn a_stop_that_is_asked_for_while_a_frame_goes_out_is_the_last_to_be_heard() {
    let bus = Arc::<Bus>::default();
    let setting = Setting::over(&simple_robot(), Arc::<Bus>::clone(&bus));
    let mut client = setting.driver(Transport::Tcp).await;
    let before = std::mem::take(&mut *bus.sent.lock().unwrap());
    assert_eq!(stops(&before).last(), Some(&false), "it turns: {before:?}");

    let (desk, channel) = (Arc::clone(&setting.desk), Arc::clone(&client.channel));
    let stop = client.request(method::STOP, &());
    // Nobody waits for its answer, and it is carried out all the same.
    let asked = move || drop(desk.ask(&channel, &stop, Heard::now()));
    *bus.meanwhile.lock().unwrap() = Some(Box::new(asked));
    client.call(method::SEND_JOINT_SPEEDS, &speeds(0, 20.0)).await;
    let is_stopped = async {
        while stops(&bus.sent.lock().unwrap()).last() != Some(&true) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), is_stopped).await.expect("no stop");
    sleep(Duration::from_millis(100)).await;
    let sent = bus.sent.lock().unwrap().clone();
    assert_eq!((stops(&sent).first(), stops(&sent).last()), (Some(&false), Some(&true)), "{sent:?}");
}

#[tokio::test]
async fn two_sessions_do_not_have_the_arm_at_once() {
    let setting = Setting::with("control_grace = \"1s\"");
    let (mut one, mut two) = (setting.client(), setting.client());
    one.open(0, 0).await;
    two.open(0, 0).await;
    one.call(method::SEND_JOINT_SPEEDS, &speeds(0, 1.0)).await;
    let state = |frame: &Frame| ArmStateInformation::decode(&frame.payload[..]).unwrap().active_state();
    assert_eq!(two.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 1.0)).await, (3, 130));
    assert_eq!(state(&two.call(method::GET_ARM_STATE, &()).await), ArmState::ManuallyControlled);
    sleep(Duration::from_millis(1_020)).await;
    assert_eq!(state(&two.call(method::GET_ARM_STATE, &()).await), ArmState::ServoingReady);
    assert_ne!(two.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 1.0)).await, (3, 130));
    assert_eq!(one.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 1.0)).await, (3, 130));
    two.call(method::CLOSE_SESSION, &()).await;
    assert_ne!(one.codes(method::SEND_JOINT_SPEEDS, &speeds(0, 1.0)).await, (3, 130));
}

#[tokio::test]
async fn who_subscribes_is_told_until_it_has_enough() {
    let setting = Setting::new();
    let (mut client, mut other) = (setting.client(), setting.client());
    client.open(0, 0).await;
    other.open(0, 0).await;
    let answer = client.call(method::SERVOING_MODE_TOPIC, &()).await;
    let handle = NotificationHandle::decode(&answer.payload[..]).unwrap();
    let single = ServoingModeInformation { servoing_mode: ServoingMode::SingleLevel.into() };
    assert_eq!(other.codes(method::SET_SERVOING_MODE, &single).await, (0, 0));
    let told = client.outbox.try_recv().unwrap();
    assert_eq!((told.header.kind, told.header.method), (Kind::Notification, method::SERVOING_MODE_TOPIC));
    assert_eq!(u32::from(told.header.message.0), handle.identifier);
    assert_eq!(told.header.session, client.session);
    let message = ServoingModeNotification::decode(&told.payload[..]).unwrap();
    assert_eq!(message.servoing_mode(), ServoingMode::SingleLevel);
    assert!(other.outbox.try_recv().is_err(), "who has not subscribed is told nothing");

    assert_eq!(other.codes(method::UNSUBSCRIBE, &handle).await, (1, 3), "another's subscription");
    assert_eq!(client.codes(method::UNSUBSCRIBE, &handle).await, (0, 0));
    other.call(method::SET_SERVOING_MODE, &single).await;
    assert!(client.outbox.try_recv().is_err());

    client.call(method::SERVOING_MODE_TOPIC, &()).await;
    client.call(method::CLOSE_SESSION, &()).await;
    other.call(method::SET_SERVOING_MODE, &single).await;
    assert!(client.outbox.try_recv().is_err(), "its session is over");
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_connection_and_nobody_waits() {
    let setting = Setting::new();
    let (mut deaf, mut other) = (setting.client(), setting.client());
    deaf.open(0, 0).await;
    other.open(0, 0).await;
    deaf.call(method::SERVOING_MODE_TOPIC, &()).await;
    let single = ServoingModeInformation { servoing_mode: ServoingMode::SingleLevel.into() };
    for _ in 0..100 {
        assert_eq!(other.codes(method::SET_SERVOING_MODE, &single).await, (0, 0));
    }
    assert!(deaf.channel.connection.is_dismissed() && !other.channel.connection.is_dismissed());
}

#[tokio::test]
async fn every_session_is_listed() {
    let setting = Setting::new();
    let (mut one, mut two) = (setting.client(), setting.client());
    one.open(0, 0).await;
    two.open(0, 0).await;
    let answer = one.call(method::GET_CONNECTIONS, &()).await;
    let listed = ConnectionList::decode(&answer.payload[..]).unwrap().connection;
    let numbers: Vec<u32> = listed.iter().map(|one| one.connection_identifier).collect();
    let mut opened = [one.session, two.session].map(|session| u32::from(session.0));
    opened.sort_unstable();
    assert_eq!(numbers, opened);
    assert_eq!(listed[0].connection_information, "127.0.0.1:1");
    assert_eq!(listed[0].user_handle.unwrap().permission, 7);
}

#[tokio::test]
async fn pings_pongs_and_noise_are_taken_as_what_they_are() {
    let setting = Setting::new();
    let mut client = setting.client();
    client.open(1_000, 0).await;
    let header = Header {
        kind: Kind::Pong,
        device: 0,
        error: (0, 0),
        session: client.session,
        message: MessageNumber(0),
        method: Method::of(0),
    };
    let pong = Frame { header, payload: bytes::Bytes::new() };
    // Longer than the session may be silent, with room for a machine that stands still.
    for _ in 0..3 {
        sleep(Duration::from_millis(400)).await;
        assert_eq!(client.send(&pong.encode()).await, None);
    }
    assert_eq!(client.codes(method::KEEP_ALIVE, &()).await, (0, 0), "pongs are signs of life");
    for kind in [Kind::Response, Kind::Notification, Kind::Raw] {
        let noise = Frame { header: Header { kind, ..header }, payload: bytes::Bytes::new() };
        assert_eq!(client.send(&noise.encode()).await, None);
    }
    let ping = Frame { header: Header { kind: Kind::Ping, ..header }, payload: bytes::Bytes::new() };
    assert_eq!(client.send(&ping.encode()).await.unwrap().header.kind, Kind::Pong);
    assert_eq!(client.send(b"\xff\xff").await, None);
}

/// Every method that is served, and one that is not.
fn any_method() -> impl Strategy<Value = Method> {
    let session = (1..=9_u32).prop_map(|function| Method::of(0x1_0000 | function));
    let base = prop_oneof![0x60..0x72_u32, 0x7C..0x9C_u32, 0xA8..0xB4_u32];
    let base = base.prop_map(|function| Method::of(0x2_0000 | function));
    let cyclic = (0..6_u32).prop_map(|function| Method::of(0x3_0000 | function));
    prop_oneof![session, base, cyclic, any::<u32>().prop_map(Method::of)]
}

/// Fails if a payload, whatever it is, ends the program, is left without an answer, or harms another's session.
#[test]
fn no_payload_does_harm() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let setting = Setting::new();
    let mut bystander = setting.client();
    runtime.block_on(bystander.open(0, 0));
    let bystander = std::cell::RefCell::new(bystander);
    let payload = proptest::collection::vec(any::<u8>(), 0..48);
    let plain = prop_oneof![
        payload,
        // Speeds, as near to real ones as bytes at random come.
        proptest::collection::vec((0..3_u32, any::<f32>(), 0..2_u32), 0..3).prop_map(|joints| {
            let joint =
                |(joint_identifier, value, duration)| JointSpeed { joint_identifier, value, duration };
            let joint_speeds = joints.into_iter().map(joint).collect();
            JointSpeeds { joint_speeds, duration: 0 }.encode_to_vec()
        }),
    ];
    proptest!(|(method in any_method(), payload in plain, device in prop_oneof![9 => Just(0_u8), 1 => any::<u8>()])| {
        let mut client = setting.client();
        runtime.block_on(async {
            client.open(0, 0).await;
            let header = Header {
                kind: Kind::Request,
                device,
                error: (0, 0),
                session: client.session,
                message: MessageNumber(7),
                method,
            };
            let request = Frame { header, payload: payload.into() };
            let answer = client.send(&request.encode()).await.expect("every request is answered");
            assert_eq!((answer.header.kind, answer.header.message), (Kind::Response, MessageNumber(7)));
            setting.desk.left(&client.channel);
        });
        prop_assert_eq!(runtime.block_on(bystander.borrow_mut().codes(method::KEEP_ALIVE, &())), (0, 0));
    });
}
