//! Links that carry CAN frames: which ones pass, what keeps them alive, and what they do when their target is gone.

use shm_proto::verdicts::{MotorState, Reason};
use shm_proto::{Nanos, TripId};

use super::*;

/// Speed 0 for the motor, and 20 turns a second, which is twice what it may.
const REST: &str = "< send 02D 8 0 0 0 0 0 0 0 0 >";
const TOO_FAST: &str = "< send 02D 8 0 0 a0 41 0 0 0 0 >";
/// A set-point for the motor beside it, which is another's.
const OTHERS: &str = "< send 04D 8 0 0 0 40 0 0 0 0 >";
/// Something of another device on the operator's bus.
const UNRELATED: &str = "< send 7A0 2 1 2 >";

/// The frames of these elements as cannelloni sends them.
fn frames(elements: &[&str]) -> Vec<u8> {
    let frame = |element: &&str| {
        let words: Vec<u32> =
            element.split(' ').filter_map(|word| u32::from_str_radix(word, 16).ok()).collect();
        let bytes: Vec<u8> = words[1..].iter().map(|word| u8::try_from(*word).unwrap()).collect();
        [&words[0].to_be_bytes()[..], &bytes].concat()
    };
    elements.iter().flat_map(frame).collect()
}

fn datagram_of(elements: &[&str]) -> Vec<u8> {
    [&[2, 0, 1, 0, u8::try_from(elements.len()).unwrap()][..], &frames(elements)].concat()
}

/// Beats of every kind, and what asks for a driver besides.
const EVERY_BEAT: [&str; 5] = [
    "",
    "beat = \"commands\"\n",
    "beat = \"bytes\"\n",
    "require_progress = \"300ms\"\n",
    "min_rate = 2\nbeat = \"commands\"\n",
];

async fn socketcand(more: &str) -> (Robot, TcpStream, TcpStream, SocketAddr) {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, &format!("speaks = \"socketcand\"\n{more}"), "");
    let at = robot.open(Protocol::Tcp).await;
    let client = connect(at).await;
    let far = accept(&target).await;
    (robot, client, far, at)
}

#[tokio::test]
async fn frames_for_other_motors_are_answered_and_do_not_pass() {
    let (robot, mut client, mut far, at) = socketcand(DRIVES_FRAMES).await;
    client.write_all(format!("{OTHERS}{TURN}{UNRELATED}{REST}").as_bytes()).await.unwrap();
    expect(&mut far, format!("{TURN}{REST}").as_bytes()).await;
    let first =
        "< error frame 04D reaches motor \"right\", which is not one of this link's (motors of its target) >";
    let second = "< error frame 7A0 is for no motor of this link; \"also\" of its target can list it >";
    expect(&mut client, format!("{first}{second}").as_bytes()).await;
    let stats = robot.stats(Protocol::Tcp, at);
    assert_eq!((stats.refused, stats.trips, robot.driving()), (2, 0, 1));
    assert!(stats.why.unwrap().contains("frame 7A0"));
    let right = MotorIndex(1);
    assert!(robot.watcher.attachment.beats.owner(right).is_none(), "the other motor was taken");
}

#[tokio::test]
async fn listed_frames_pass_and_keep_nothing_alive() {
    for beat in EVERY_BEAT {
        let more = format!("{SHORT_FRAMES}also = [\"7A0\", \"04D\"]\n{beat}");
        let (robot, mut client, mut far, at) = socketcand(&more).await;
        client.write_all(UNRELATED.as_bytes()).await.unwrap();
        expect(&mut far, UNRELATED.as_bytes()).await;
        assert_eq!(robot.driving(), 0, "{beat}: it drives nothing");
        // To list a frame of another motor gives nobody that motor.
        client.write_all(OTHERS.as_bytes()).await.unwrap();
        robot.until("it is refused", |robot| robot.stats(Protocol::Tcp, at).refused == 1).await;
        client.write_all(TURN.as_bytes()).await.unwrap();
        expect(&mut far, TURN.as_bytes()).await;
        assert_eq!(robot.driving(), 1);
        let noise = tokio::spawn(async move {
            while client.write_all(UNRELATED.as_bytes()).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        robot.until("its driver is missed", |robot| robot.stats(Protocol::Tcp, at).trips == 1).await;
        robot.until("its session is over", |robot| robot.driving() == 0).await;
        timeout(SOON, noise).await.expect("it is let go").unwrap();
    }
}

/// A question shows that a program lives, and not that it drives; the set-point 0 does.
#[tokio::test]
async fn only_what_drives_the_motors_is_a_beat() {
    let asks = "< send 029 0 >";
    for (element, beat, holds) in [
        (REST, "", true),
        (TURN, "beat = \"commands\"\n", true),
        (asks, "", false),
        (asks, "beat = \"commands\"\n", false),
        (asks, "beat = \"bytes\"\n", true),
        ("< send 027 4 1 0 0 0 >", "", false),
        ("< send 027 4 8 0 0 0 >", "", true),
        ("< echo >", "", false),
    ] {
        let (robot, mut client, mut far, at) = socketcand(&format!("{SHORT_FRAMES}{beat}")).await;
        client.write_all(TURN.as_bytes()).await.unwrap();
        expect(&mut far, TURN.as_bytes()).await;
        let from = tokio::time::Instant::now();
        while from.elapsed() < Duration::from_millis(900)
            && client.write_all(element.as_bytes()).await.is_ok()
        {
            sleep(Duration::from_millis(20)).await;
        }
        let trips = robot.stats(Protocol::Tcp, at).trips;
        assert_eq!(trips == 0, holds, "{element} with {beat:?}: {trips} trips");
    }
}

#[tokio::test]
async fn questions_and_stops_pass_without_driving() {
    let (robot, mut client, mut far, at) = socketcand(SHORT_FRAMES).await;
    // Estimates, idle, cleared errors.
    for element in ["< send 029 0 >", "< send 027 8 1 0 0 0 0 0 0 0 >", "< send 038 1 0 >"] {
        client.write_all(element.as_bytes()).await.unwrap();
        expect(&mut far, element.as_bytes()).await;
    }
    sleep(Duration::from_millis(400)).await;
    assert_eq!((robot.driving(), robot.stats(Protocol::Tcp, at).trips), (0, 0), "nobody drove");
    client.write_all(REST.as_bytes()).await.unwrap();
    expect(&mut far, REST.as_bytes()).await;
    assert_eq!(robot.driving(), 1, "a set-point of 0 is one");
}

#[tokio::test]
async fn settings_of_a_motor_that_another_session_drives_are_refused() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, &format!("speaks = \"socketcand\"\n{DRIVES_FRAMES}"), "");
    let at = robot.open(Protocol::Tcp).await;
    let mut first = connect(at).await;
    let mut far_first = accept(&target).await;
    first.write_all(TURN.as_bytes()).await.unwrap();
    expect(&mut far_first, TURN.as_bytes()).await;
    let mut second = connect(at).await;
    let mut far_second = accept(&target).await;
    // Limits; then idle, which anybody may say.
    let idle = "< send 027 8 1 0 0 0 0 0 0 0 >";
    second.write_all(format!("< send 02F 8 0 0 0 0 0 0 0 0 >{idle}").as_bytes()).await.unwrap();
    expect(&mut far_second, idle.as_bytes()).await;
    expect(&mut second, b"< error frame 02F would change a setting of motor \"left\"").await;
    assert_eq!(robot.driving(), 1, "and the first goes on");
    first.write_all(TURN.as_bytes()).await.unwrap();
    expect(&mut far_first, TURN.as_bytes()).await;
}

#[tokio::test]
async fn a_speed_above_the_greatest_cuts_the_link() {
    let (robot, mut client, mut far, at) = socketcand(SHORT_FRAMES).await;
    client.write_all(TURN.as_bytes()).await.unwrap();
    expect(&mut far, TURN.as_bytes()).await;
    client.write_all(format!("{REST}{TOO_FAST}").as_bytes()).await.unwrap();
    assert_eq!(rest(&mut far).await, (Vec::new(), RESET), "not one byte of what came with it");
    robot.until("it is a trip", |robot| robot.stats(Protocol::Tcp, at).trips == 1).await;
    let why = robot.stats(Protocol::Tcp, at).why.unwrap();
    for word in ["motor \"left\"", "1200.0 rpm", "max_rpm 600.0"] {
        assert!(why.contains(word), "{why}");
    }
    robot.until("its session is over", |robot| robot.driving() == 0).await;

    let (target, address) = udp_socket().await;
    let robot = Robot::new("udp", address, &format!("speaks = \"cannelloni\"\n{DRIVES_FRAMES}"), "");
    let at = robot.open(Protocol::Udp).await;
    let (client, _) = udp_socket().await;
    client.send_to(&datagram_of(&[TURN]), at).await.unwrap();
    assert_eq!(datagram(&target).await.0, datagram_of(&[TURN]));
    client.send_to(&datagram_of(&[REST, TOO_FAST]), at).await.unwrap();
    robot.until("it is a trip", |robot| robot.stats(Protocol::Udp, at).trips == 1).await;
    assert!(robot.stats(Protocol::Udp, at).why.unwrap().contains("1200.0 rpm"));
    nothing_comes(&target).await;
    robot.until("its session is over", |robot| robot.driving() == 0).await;
}

#[tokio::test]
async fn a_datagram_with_a_foreign_frame_is_refused_whole() {
    let (target, address) = udp_socket().await;
    let robot = Robot::new("udp", address, &format!("speaks = \"cannelloni\"\n{DRIVES_FRAMES}"), "");
    let at = robot.open(Protocol::Udp).await;
    let (client, _) = udp_socket().await;
    client.send_to(&datagram_of(&[TURN, OTHERS]), at).await.unwrap();
    client.send_to(&datagram_of(&[UNRELATED, REST]), at).await.unwrap();
    nothing_comes(&target).await;
    let stats = robot.stats(Protocol::Udp, at);
    assert_eq!((stats.refused, stats.trips, robot.driving()), (2, 0, 0));
    assert!(stats.why.unwrap().contains("frame 7A0"), "the reason is the last one's");
    client.send_to(&datagram_of(&[REST, TURN]), at).await.unwrap();
    assert_eq!(datagram(&target).await.0, datagram_of(&[REST, TURN]));
    assert_eq!(robot.driving(), 1);
}

/// Whoever drives through a target that is not there can stop nothing through it.
#[tokio::test]
async fn a_target_of_udp_that_is_gone_ends_the_link_at_once() {
    let (target, address) = udp_socket().await;
    let robot = Robot::new("udp", address, &format!("speaks = \"cannelloni\"\n{DRIVES_FRAMES}"), "");
    let at = robot.open(Protocol::Udp).await;
    let (client, _) = udp_socket().await;
    client.send_to(&datagram_of(&[TURN]), at).await.unwrap();
    assert_eq!(datagram(&target).await.0, datagram_of(&[TURN]));
    drop(target);
    client.send_to(&datagram_of(&[TURN]), at).await.unwrap();
    robot.until("its session is over", |robot| robot.driving() == 0).await;
    let stats = robot.stats(Protocol::Udp, at);
    assert_eq!((stats.state, stats.trips), (State::Expired, 1));
    assert!(
        stats.why.as_deref().is_some_and(|why| why.starts_with("its target is lost: Connection refused"))
    );
    assert!(robot.tunnels.list(Protocol::Udp).is_empty(), "whoever goes on must ask anew");
    // Where nothing is driven nothing ends.
    let (gone, address) = udp_socket().await;
    drop(gone);
    let robot = Robot::new("udp", address, "", "");
    let at = robot.open(Protocol::Udp).await;
    for _ in 0..10 {
        client.send_to(b"news", at).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(robot.tunnels.list(Protocol::Udp).len(), 1);
    assert!(robot.stats(Protocol::Udp, at).refused > 0);
}

#[tokio::test]
async fn cannelloni_over_tcp_greets_drives_and_falls_silent() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, &format!("speaks = \"cannelloni\"\n{SHORT_FRAMES}"), "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    let mut far = accept(&target).await;
    client.write_all(b"CANNELLON").await.unwrap();
    sleep(Duration::from_millis(20)).await;
    client.write_all(b"Iv1").await.unwrap();
    expect(&mut far, b"CANNELLONIv1").await;
    // What comes back is nobody's business here.
    far.write_all(b"CANNELLONIv1").await.unwrap();
    expect(&mut client, b"CANNELLONIv1").await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!((robot.driving(), robot.stats(Protocol::Tcp, at).trips), (0, 0), "a greeting drives nothing");
    let turn = frames(&[TURN]);
    let (half, other) = turn.split_at(7);
    client.write_all(&[&frames(&[UNRELATED]), half].concat()).await.unwrap();
    robot.until("one is refused", |robot| robot.stats(Protocol::Tcp, at).refused == 1).await;
    assert_eq!(robot.driving(), 0, "half a frame is none");
    client.write_all(other).await.unwrap();
    expect(&mut far, &turn).await;
    assert_eq!(robot.driving(), 1);
    assert_eq!(rest(&mut far).await, (Vec::new(), RESET));
    robot.until("it is a trip", |robot| robot.stats(Protocol::Tcp, at).trips == 1).await;
    // A defect, and a client of another protocol.
    for (bytes, says) in
        [(&[&b"CANNELLONIv1"[..], &[0xFF; 9]].concat()[..], "identifier"), (b"< open can0 >", "CANNELLONIv1")]
    {
        let mut client = connect(at).await;
        let mut far = accept(&target).await;
        client.write_all(bytes).await.unwrap();
        assert_eq!(rest(&mut far).await.1, RESET);
        robot
            .until("it is told", |robot| {
                robot.stats(Protocol::Tcp, at).why.is_some_and(|why| why.contains(says))
            })
            .await;
    }
}

/// The supervisor has stopped the motor just now, for that reason, and it stands still.
fn stop_motor(robot: &Robot, reason: Reason) {
    let now = Nanos::now();
    let mut verdict = robot.watcher.attachment.verdicts.motor(MOTOR).expect("a motor");
    verdict.state = MotorState::Stopped;
    verdict.reason = Some(reason);
    verdict.trip = TripId(7);
    (verdict.first_stop, verdict.standstill) = (now, now);
    robot.watcher.verdicts.motor(MOTOR, &verdict);
}

/// Another link says this and drives nothing by it: not one byte goes on. Returns what is said of it.
async fn turned_away(robot: &Robot, target: &TcpListener, at: SocketAddr, says: &str) -> String {
    let refused = robot.stats(Protocol::Tcp, at).refused;
    let mut client = connect(at).await;
    client.write_all(says.as_bytes()).await.unwrap();
    assert_eq!(rest(&mut accept(target).await).await, (Vec::new(), RESET), "{says}");
    robot.until("it is told", |robot| robot.stats(Protocol::Tcp, at).refused > refused).await;
    robot.stats(Protocol::Tcp, at).why.unwrap()
}

/// Longer than `stop_hold`.
const HELD: Duration = Duration::from_millis(400);
const CLEAR: &str = "< send 038 1 0 >";

#[tokio::test]
async fn what_was_stopped_moves_again_after_a_neutral_frame_only() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, &format!("speaks = \"socketcand\"\n{DRIVES_FRAMES}"), "");
    let at = robot.open(Protocol::Tcp).await;
    stop_motor(&robot, Reason::Expired);
    sleep(HELD).await;
    let why = turned_away(&robot, &target, at, TURN).await;
    assert!(why.contains("trip 7") && why.contains("send Stop first"), "{why}");
    // A question, and the other motor's speed, are no stop.
    let why = turned_away(&robot, &target, at, &format!("< send 029 0 >{OTHERS}{TURN}")).await;
    assert!(why.contains("send Stop first"), "{why}");
    // Speed 0 passes, and with it comes no motion that is as fast behind.
    let mut client = connect(at).await;
    let mut far = accept(&target).await;
    client.write_all(REST.as_bytes()).await.unwrap();
    expect(&mut far, REST.as_bytes()).await;
    let why = turned_away(&robot, &target, at, TURN).await;
    assert!(why.contains("too soon") || why.contains("stop_hold"), "{why}");
    sleep(HELD).await;
    client.write_all(TURN.as_bytes()).await.unwrap();
    expect(&mut far, TURN.as_bytes()).await;
    assert_eq!(robot.driving(), 1);
}

#[tokio::test]
async fn a_drives_fault_wants_the_drives_own_clear_frame() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, &format!("speaks = \"socketcand\"\n{DRIVES_FRAMES}"), "");
    let at = robot.open(Protocol::Tcp).await;
    stop_motor(&robot, Reason::DriveFault);
    let mut client = connect(at).await;
    let mut far = accept(&target).await;
    client.write_all(REST.as_bytes()).await.unwrap();
    expect(&mut far, REST.as_bytes()).await;
    sleep(HELD).await;
    let why = turned_away(&robot, &target, at, TURN).await;
    assert!(why.contains("fault of its drive") && why.contains("clears its errors"), "{why}");
    client.write_all(CLEAR.as_bytes()).await.unwrap();
    expect(&mut far, CLEAR.as_bytes()).await;
    sleep(HELD).await;
    client.write_all(TURN.as_bytes()).await.unwrap();
    expect(&mut far, TURN.as_bytes()).await;
    assert_eq!(robot.driving(), 1);
}

#[tokio::test]
async fn plain_bytes_are_no_stop() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, DRIVES, "");
    let at = robot.open(Protocol::Tcp).await;
    for reason in [Reason::Expired, Reason::DriveFault] {
        stop_motor(&robot, reason);
        let why = turned_away(&robot, &target, at, REST).await;
        assert!(why.contains("lanyard reset"), "{why}");
        sleep(HELD).await;
        turned_away(&robot, &target, at, REST).await;
    }
}
