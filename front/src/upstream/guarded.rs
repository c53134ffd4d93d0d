//! Tests of everything between a client and the upstream: whose session a command runs under, and what is stopped
//! when that ends. The test plays the supervisor.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Config;
use shm_proto::verdicts::SessionState::{Closed, Tripped};
use shm_proto::{SessionId, Window};
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use super::testing::{Answered, Backend, Client, SLOW_STOP, SOON, Seen, front, message};
use super::{Tasks, Upstream};
use crate::access::Access;
use crate::dispatch::{Behind, Dispatch};
use crate::gate::Gate;
use crate::lanyard::Orders;
use crate::link::Link;
use crate::motion::{Motion, NoWire};
use crate::native;
use crate::sessions::testing::Watcher;
use crate::sessions::{Entity, Peer, Rules, Sessions};

pub const ARM: &str = "/viam.component.arm.v1.ArmService/MoveToPosition";
pub const ARM_THAT_TAKES_LONG: &str = "/viam.component.arm.v1.ArmService/MoveToJointPositions";
pub const ARM_STOP: &str = "/viam.component.arm.v1.ArmService/Stop";
const GANTRY: &str = "/viam.component.gantry.v1.GantryService/MoveToPosition";
const GANTRY_STOP: &str = "/viam.component.gantry.v1.GantryService/Stop";
const GRIPPER: &str = "/viam.component.gripper.v1.GripperService/Open";
const GRIPPER_STOP: &str = "/viam.component.gripper.v1.GripperService/Stop";
pub const SERVO: &str = "/viam.component.servo.v1.ServoService/Move";
pub const SERVO_STOP: &str = "/viam.component.servo.v1.ServoService/Stop";
pub const STOP_ALL: &str = "/viam.robot.v1.RobotService/StopAll";
const START_SESSION: &str = "/viam.robot.v1.RobotService/StartSession";
const NAMES: &str = "/viam.robot.v1.RobotService/ResourceNames";

/// Long enough that nothing but what a test does ends a session.
const LONG: Window = Window::from_millis(60_000);
/// How long a Stop holds its sender's other connections off.
pub const HOLD: Duration = Duration::from_millis(250);
/// What would have happened has happened by then.
pub const A_WHILE: Duration = Duration::from_millis(100);

const ROBOT: &str = r#"
[front]
keys = "/nonexistent/keys.toml"

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
"#;

pub struct Setting {
    pub backend: Backend,
    watcher: Watcher,
    pub sessions: Arc<Sessions>,
    pub client: Client,
    /// Where the front listens.
    pub address: SocketAddr,
    _tasks: Tasks,
}

/// A front with an upstream behind it; `more` is what else `[upstream]` says.
pub async fn setting(more: &str) -> Setting {
    let mut setting = setting_before(Backend::start().await, more).await;
    // What the front asks for by itself.
    setting.backend.call_of(NAMES).await;
    setting
}

pub async fn setting_before(backend: Backend, more: &str) -> Setting {
    let text =
        format!("[upstream]\naddress = \"http://{}\"\nwindow = \"400ms\"\n{more}\n{ROBOT}", backend.address);
    let config =
        Arc::new(Config::parse(Path::new("test.toml"), &text).unwrap_or_else(|error| panic!("{error}")));
    let watcher = Watcher::with_room(8);
    let link = Link::to(watcher.attachment.clone());
    let sessions = Arc::new(Sessions::new(Arc::clone(&link), Rules::of(&config)));
    let motion = Motion::start_over(Arc::clone(&config), &[Arc::new(NoWire)]);
    let operations = Arc::default();
    let orders = Arc::new(Orders::new(&config, Arc::clone(&link), Arc::clone(&motion)));
    let routes = native::routes(&config, &link, &sessions, &motion, &orders, &operations);
    let own = super::native(&config);
    let settings = config.upstream.as_ref().unwrap();
    let (upstream, tasks) =
        Upstream::start(settings, HOLD, own.clone(), Arc::clone(&sessions), motion).unwrap();
    let open =
        async { tokio::join!(upstream.commands.open(), upstream.stops.open(), upstream.others.open()) };
    timeout(SOON, open).await.unwrap();
    let behind = Behind { upstream, native: own, operations };
    let dispatch = Dispatch::new(routes, Some(Arc::new(behind)));
    let (access, _) = Access::start(&config).unwrap();
    let serve = move |request| {
        let gate = Gate::new(dispatch.clone(), Arc::clone(&access));
        async move { gate.oneshot(request).await.unwrap_or_else(|never| match never {}) }
    };
    let address = front(serve).await;
    let client = Client::connect(address).await;
    Setting { backend, watcher, sessions, client, address, _tasks: tasks }
}

impl Setting {
    pub fn open(&self) -> SessionId {
        self.sessions.open(&Entity::anonymous(), Peer::default(), LONG).unwrap().id
    }

    /// What the supervisor says of a session.
    pub fn says(&self, id: SessionId, state: shm_proto::verdicts::SessionState) {
        let hold = self.sessions.hold(&Entity::anonymous(), id).unwrap();
        self.watcher.says(id, hold.owner, state);
        // The front's own look, which it takes every 10 ms.
        assert!(self.sessions.beat(&Entity::anonymous(), id).is_err());
    }

    pub async fn command(&mut self, path: &str, name: &str, session: SessionId) -> Answered {
        self.client.call(path, &[("viam-sid", &session.to_string())], &message(name)).await
    }
}

pub fn paths(seen: &[Seen]) -> Vec<&str> {
    let calls = seen.iter().filter_map(|seen| match seen {
        Seen::Call(request) => Some(request.uri().path()),
        Seen::Reset(_) => None,
    });
    calls.collect()
}

#[tokio::test]
async fn a_command_without_a_living_session_never_reaches_the_upstream() {
    let mut setting = setting("").await;
    let gone = setting.open();
    setting.says(gone, Tripped);
    for id in [gone, SessionId(7)] {
        assert_eq!(setting.command(ARM, "arm1", id).await.status(), ("3", "SESSION_EXPIRED"));
    }
    let refused = setting.client.call(ARM, &[("viam-sid", "x")], &message("arm1")).await;
    assert_eq!(refused.status().0, "2");
    assert_eq!(paths(&setting.backend.so_far()), <[&str; 0]>::default());
    let id = setting.open();
    assert_eq!(setting.command(ARM, "arm1", id).await.status().0, "0");
    // What moves nothing needs no session.
    let asked =
        setting.client.call("/viam.component.arm.v1.ArmService/IsMoving", &[], &message("arm1")).await;
    assert_eq!(asked.status().0, "0");
}

#[tokio::test]
async fn session_ids_are_taken_off_or_left_as_configured() {
    for (more, kept) in [("", false), ("viam_sid = \"keep\"", true)] {
        let mut setting = setting(more).await;
        let id = setting.open();
        setting.command(ARM, "arm1", id).await;
        let seen = setting.backend.call_of(ARM).await;
        assert_eq!(seen.headers().contains_key("viam-sid"), kept);
        setting.client.call("/test.Echo/Echo", &[("viam-sid", "any")], b"x").await;
        let seen = setting.backend.call_of("/test.Echo/Echo").await;
        assert_eq!(seen.headers().contains_key("viam-sid"), kept);
    }
}

#[tokio::test]
async fn a_command_in_flight_ends_with_its_session() {
    let mut setting = setting("").await;
    let id = setting.open();
    let sid = id.to_string();
    let mut call = setting.client.begin(ARM_THAT_TAKES_LONG, &[("viam-sid", &sid)]).await;
    call.stream.send_data(message("arm1"), true).unwrap();
    setting.backend.call_of(ARM_THAT_TAKES_LONG).await;
    setting.says(id, Tripped);
    assert_eq!(call.finish().await.status(), ("3", "SESSION_EXPIRED"));
    assert_eq!(setting.backend.reset().await, h2::Reason::CANCEL);
    setting.backend.call_of(ARM_STOP).await;
}

#[tokio::test]
async fn the_upstreams_stop_waits_for_the_supervisors_word_but_not_for_ever() {
    let mut setting = setting("").await;
    let me = Entity::anonymous();
    let id = setting.open();
    setting.command(ARM, "arm1", id).await;
    let hold = setting.sessions.hold(&me, id).unwrap();
    setting.backend.so_far();
    setting.sessions.close(&me, id).unwrap();
    sleep(A_WHILE).await;
    assert_eq!(paths(&setting.backend.so_far()), <[&str; 0]>::default(), "before the supervisor's word");
    setting.watcher.says(id, hold.owner, Closed);
    setting.backend.call_of(ARM_STOP).await;

    let id = setting.open();
    setting.command(ARM, "arm1", id).await;
    setting.sessions.close(&me, id).unwrap();
    setting.backend.call_of(ARM_STOP).await;
}

#[tokio::test]
async fn a_stop_that_fails_is_tried_again_and_one_that_hangs_holds_up_no_other() {
    let mut setting = setting("stop_timeout = \"200ms\"").await;
    let id = setting.open();
    setting.command(GRIPPER, "gripper1", id).await;
    setting.command(GANTRY, "gantry1", id).await;
    setting.command(ARM, "arm1", id).await;
    setting.backend.so_far();
    setting.says(id, Tripped);
    let begun = Instant::now();
    let mut seen = Vec::new();
    let has = |seen: &[Seen], path, times| paths(seen).iter().filter(|seen| **seen == path).count() == times;
    while !has(&seen, ARM_STOP, 1) {
        seen.push(setting.backend.sees().await);
    }
    // Behind the one that hangs it would come when that is given up.
    assert!(begun.elapsed() < Duration::from_millis(200), "it waited {:?} for others", begun.elapsed());
    while !(has(&seen, GANTRY_STOP, 3) && has(&seen, GRIPPER_STOP, 5)) {
        seen.push(setting.backend.sees().await);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(paths(&setting.backend.so_far()), <[&str; 0]>::default(), "more than needed");
}

#[tokio::test]
async fn what_another_session_has_taken_over_is_not_stopped() {
    let mut setting = setting("").await;
    let (first, second) = (setting.open(), setting.open());
    setting.command(ARM, "arm1", first).await;
    setting.command(SERVO, "servo1", first).await;
    setting.command(ARM, "arm1", second).await;
    setting.backend.so_far();
    setting.says(first, Tripped);
    setting.backend.call_of(SERVO_STOP).await;
    sleep(A_WHILE).await;
    assert_eq!(paths(&setting.backend.so_far()), <[&str; 0]>::default(), "the arm is the second's");
}

#[tokio::test]
async fn what_is_taken_over_between_two_tries_is_not_stopped_any_more() {
    let mut setting = setting("").await;
    let (first, second) = (setting.open(), setting.open());
    setting.command(GANTRY, "gantry1", first).await;
    setting.says(first, Tripped);
    // It fails, and would be tried again after 100 ms.
    setting.backend.call_of(GANTRY_STOP).await;
    setting.command(GANTRY, "gantry1", second).await;
    sleep(5 * A_WHILE).await;
    assert_eq!(paths(&setting.backend.so_far()), [GANTRY], "the gantry is the second's");
}

#[tokio::test]
async fn a_command_waits_for_a_stop_under_way_and_is_not_overtaken_by_it() {
    let mut setting = setting("").await;
    let (first, second) = (setting.open(), setting.open());
    setting.command(SERVO, "servo1", first).await;
    setting.says(first, Tripped);
    setting.backend.call_of(SERVO_STOP).await;
    let begun = Instant::now();
    // Another servo need not wait.
    setting.command(SERVO, "servo2", second).await;
    assert!(begun.elapsed() < SLOW_STOP, "it waited {:?}", begun.elapsed());
    setting.backend.so_far();
    setting.command(SERVO, "servo1", second).await;
    // The Stop was seen by the upstream when the time began.
    assert!(begun.elapsed() >= SLOW_STOP - A_WHILE, "it went on after {:?}", begun.elapsed());
    sleep(2 * SLOW_STOP).await;
    assert_eq!(paths(&setting.backend.so_far()), [SERVO], "another Stop came");
}

#[tokio::test]
async fn commands_that_hang_keep_no_stop_waiting() {
    let backend = Backend::start_at("127.0.0.1:0".parse().unwrap(), 10).await;
    let mut setting = setting_before(backend, "").await;
    let (id, other) = (setting.open(), setting.open());
    setting.command(SERVO, "servo1", other).await;
    let sid = id.to_string();
    let mut hanging = Vec::new();
    // As many as there is room for: each of its own arm, since of one arm only the newest goes on.
    for number in 1..=10 {
        let mut call = setting.client.begin(ARM_THAT_TAKES_LONG, &[("viam-sid", &sid)]).await;
        call.stream.send_data(message(&format!("arm{number}")), true).unwrap();
        setting.backend.call_of(ARM_THAT_TAKES_LONG).await;
        hanging.push(call);
    }
    let mut stop = setting.client.begin(ARM_STOP, &[]).await;
    stop.stream.send_data(message("arm1"), true).unwrap();
    setting.backend.call_of(ARM_STOP).await;
    let mut all = setting.client.begin(STOP_ALL, &[]).await;
    all.stream.send_data(super::framed(&[]), true).unwrap();
    setting.backend.call_of(STOP_ALL).await;
    // The front's own Stop, after a session that has nothing to do with those that hang.
    setting.says(other, Tripped);
    setting.backend.call_of(SERVO_STOP).await;
    let beat = "/viam.robot.v1.RobotService/SendSessionHeartbeat";
    assert_eq!(setting.client.call(beat, &[], &message(&sid)).await.status().0, "0");
    setting.says(id, Tripped);
    for call in hanging {
        assert_eq!(call.finish().await.status(), ("3", "SESSION_EXPIRED"));
    }
    for stop in [stop, all] {
        assert_eq!(stop.finish().await.status().0, "0");
    }
}

#[tokio::test]
async fn a_lost_upstream_ends_who_used_it_and_nobody_else_and_its_names_are_kept() {
    let mut setting = setting("").await;
    let (user, other) = (setting.open(), setting.open());
    setting.command(ARM, "arm1", user).await;
    let names = |answered: &Answered| {
        let text = String::from_utf8_lossy(&answered.body).into_owned();
        ["left", "arm1"].map(|name| text.contains(name))
    };
    let asked = setting.client.call(NAMES, &[], &super::framed(&[])).await;
    assert_eq!(names(&asked), [true, true]);
    let me = Entity::anonymous();
    setting.backend.hang(true);
    let begun = Instant::now();
    while setting.sessions.beat(&me, user).is_ok() {
        assert!(begun.elapsed() < SOON, "its session goes on");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(setting.sessions.beat(&me, other).is_ok(), "the other one has not used it");
    let asked = setting.client.call(NAMES, &[], &super::framed(&[])).await;
    assert_eq!(names(&asked), [true, true]);
    let refused = setting.command(ARM, "arm1", other).await;
    assert_eq!(refused.status().0, "14");
    assert!(setting.sessions.beat(&me, other).is_ok());
    // It is told to stop when it can be reached again.
    setting.backend.so_far();
    setting.backend.hang(false);
    setting.backend.call_of(ARM_STOP).await;
}

#[tokio::test]
async fn a_lost_upstream_ends_nobody_where_that_is_wanted() {
    let mut setting = setting("on_loss = \"ignore\"").await;
    let user = setting.open();
    setting.command(ARM, "arm1", user).await;
    setting.backend.hang(true);
    let begun = Instant::now();
    while setting.command(ARM, "arm1", user).await.status().0 != "14" {
        assert!(begun.elapsed() < SOON, "it is not lost");
    }
    sleep(A_WHILE).await;
    assert!(setting.sessions.beat(&Entity::anonymous(), user).is_ok());
}

#[tokio::test]
async fn the_front_logs_in_with_its_own_key_and_again_when_its_token_is_refused() {
    let file = std::env::temp_dir().join(format!("lanyard-key-{}", std::process::id()));
    std::fs::write(&file, "secret\n").unwrap();
    let more = format!("key_id = \"me\"\nkey_file = \"{}\"", file.display());
    let mut setting = setting(&more).await;
    let mine = [("authorization", "Bearer mine")];
    let refused = setting.client.call("/test.Auth/Check", &mine, b"x").await;
    assert_eq!(refused.status().0, "16");
    let seen = setting.backend.call_of("/test.Auth/Check").await;
    assert_eq!(seen.headers()["authorization"], "Bearer token-1");
    assert_eq!(setting.client.call("/test.Auth/Check", &mine, &message("")).await.status().0, "0");

    std::fs::remove_file(&file).unwrap();
    let mut setting = setting_before(Backend::start().await, &more).await;
    let refused = setting.client.call("/test.Echo/Echo", &mine, b"x").await;
    let (status, why) = refused.status();
    assert!(status == "14" && why.contains("cannot%20log%20in"), "{refused:?}");
}

#[tokio::test]
async fn by_whose_right_something_was_used_it_is_stopped() {
    let mut setting = setting("").await;
    // The login is whose session it is.
    let mine = [("authorization", "Bearer mine")];
    let started = setting.client.call(START_SESSION, &mine, &super::framed(&[])).await;
    let id = std::str::from_utf8(&started.body[7..][..36]).unwrap();
    let headers = [("viam-sid", id), mine[0]];
    assert_eq!(setting.client.call(ARM, &headers, &message("arm1")).await.status().0, "0");
    assert_eq!(setting.backend.call_of(ARM).await.headers()["authorization"], "Bearer mine");
    setting.client.call("/lanyard.v1.LanyardService/EndSession", &mine, &message(id)).await;
    assert_eq!(setting.backend.call_of(ARM_STOP).await.headers()["authorization"], "Bearer mine");
}

#[tokio::test]
async fn names_that_are_made_up_do_not_pile_up() {
    let mut setting = setting("").await;
    let id = setting.open();
    let mut refused = 0;
    for number in 0..300 {
        let answered = setting.command(ARM, &format!("no-arm-{number}"), id).await;
        refused += usize::from(answered.status().0 == "8");
    }
    assert_eq!(refused, 300 - 256);
    assert_eq!(setting.command(ARM, "arm1", id).await.status().0, "0", "the upstream has told of it");
}
