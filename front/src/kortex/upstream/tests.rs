//! A base behind, played by the test: it notes what it is asked, and answers as it is told to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use prost::Message;
use shm_proto::verdicts::SessionState;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::super::channel::Transport;
use super::super::desk::Desk;
use super::super::frame::{Frame, Header, Kind, MessageNumber, Method, SessionNumber};
use super::super::method;
use super::super::refusal::{Refusal, Sub};
use super::super::stream;
use super::super::tests::{Client, NONE, ROBOT, Setting, text, times};
use super::mqtt::Broker;
use crate::proto::kortex::{
    CreateSessionInfo, NotificationHandle, ServoingMode, ServoingModeInformation, SessionStatus,
};

const SOON: Duration = Duration::from_secs(5);
/// Long enough for what must not happen to have happened.
const A_WHILE: Duration = Duration::from_millis(150);
/// A session's number there.
const THERE: SessionNumber = SessionNumber(77);
/// `Base.SendTwistCommand`: moves, and is not served here.
const TWIST: Method = Method::of(0x2_0079);
/// `DeviceManager.ReadAllDevices`.
const DEVICES: Method = Method::of(0x17_0001);

/// How the base behaves.
#[derive(Clone, Copy, Default)]
struct Manners {
    /// So many Stops are left unanswered.
    deaf: u32,
    /// So many are refused.
    stuck: u32,
    /// No session is opened.
    closed: bool,
    /// This is never answered.
    ignores: Option<Method>,
    /// Nothing is answered any more.
    hangs: bool,
}

struct There {
    seen: mpsc::UnboundedReceiver<Frame>,
    manners: Arc<Mutex<Manners>>,
    /// Frames that go to its clients unasked.
    news: mpsc::UnboundedSender<Frame>,
    serving: JoinHandle<()>,
}

fn answer(manners: &Mutex<Manners>, request: &Frame) -> Option<Frame> {
    let mut manners = manners.lock().unwrap();
    let Header { method, session, .. } = request.header;
    if method == method::CREATE_SESSION {
        let wrong = Refusal::device(Sub::InvalidPassword, "not you");
        return Some(if manners.closed {
            Frame::refused(&request.header, &wrong)
        } else {
            Frame::answer(&request.header, THERE, &())
        });
    }
    if manners.hangs || manners.ignores == Some(method) {
        return None;
    }
    if method == method::STOP && manners.deaf > 0 {
        manners.deaf -= 1;
        return None;
    }
    if method == method::STOP && manners.stuck > 0 {
        manners.stuck -= 1;
        return Some(Frame::refused(
            &request.header,
            &Refusal::device(Sub::MethodFailed, "the brake is stuck"),
        ));
    }
    // What it says is what was said to it: passed on unchanged, it comes back unchanged.
    let header = Header { kind: Kind::Response, session, ..request.header };
    Some(Frame { header, payload: request.payload.clone() })
}

impl There {
    async fn tcp() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp = \"{}\"", listener.local_addr().unwrap());
        let (noted, seen) = mpsc::unbounded_channel();
        let (news, mut unasked) = mpsc::unbounded_channel::<Frame>();
        let manners = Arc::<Mutex<Manners>>::default();
        let theirs = Arc::clone(&manners);
        let serving = tokio::spawn(async move {
            let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            let mut come = BytesMut::new();
            loop {
                tokio::select! {
                    read = stream.read_buf(&mut come) => {
                        if read.unwrap() == 0 {
                            return;
                        }
                        while let Some(bytes) = stream::take(&mut come).unwrap() {
                            let frame = Frame::read(&bytes).unwrap();
                            if let Some(answer) = answer(&theirs, &frame) {
                                stream.write_all(&stream::put(&answer.encode())).await.unwrap();
                            }
                            drop(noted.send(frame));
                        }
                    }
                    Some(frame) = unasked.recv() => stream.write_all(&stream::put(&frame.encode())).await.unwrap(),
                }
            }
        });
        (Self { seen, manners, news, serving }, address)
    }

    async fn udp() -> (Self, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = format!("udp = \"{}\"", socket.local_addr().unwrap());
        let (noted, seen) = mpsc::unbounded_channel();
        let (news, _) = mpsc::unbounded_channel();
        let manners = Arc::<Mutex<Manners>>::default();
        let theirs = Arc::clone(&manners);
        let serving = tokio::spawn(async move {
            let mut datagram = [0; 1_000];
            loop {
                let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
                let frame = Frame::read(&datagram[..length]).unwrap();
                if let Some(answer) = answer(&theirs, &frame) {
                    socket.send_to(&answer.encode(), from).await.unwrap();
                }
                drop(noted.send(frame));
            }
        });
        (Self { seen, manners, news, serving }, address)
    }

    /// What it is asked next, but for signs of life.
    async fn next(&mut self) -> Frame {
        let next = async {
            loop {
                let frame = self.seen.recv().await.unwrap();
                if frame.header.method != method::KEEP_ALIVE {
                    return frame;
                }
            }
        };
        timeout(SOON, next).await.expect("the base is asked something")
    }

    /// Whether it is asked nothing but whether it is there.
    async fn is_left_alone(&mut self) -> bool {
        timeout(A_WHILE, async {
            while self.seen.recv().await.unwrap().header.method == method::KEEP_ALIVE {}
        })
        .await
        .is_err()
    }
}

/// A robot with that base behind it, which has no joints of its own.
fn robot(address: &str, more: &str) -> Setting {
    let [front, _] = ROBOT.split("[[kortex.joint]]").collect::<Vec<_>>()[..] else { panic!("{ROBOT}") };
    let front = front.replace("tcp = \"127.0.0.1\"", "tcp = \"127.0.0.1\"\nudp = \"127.0.0.1\"");
    Setting::of(&format!("{front}[kortex.upstream]\n{address}\nstop_timeout = \"100ms\"\n{more}\n"))
}

async fn opened(setting: &Setting, there: &mut There) -> Client {
    let mut client = setting.client();
    client.open(0, 0).await;
    assert_eq!(there.next().await.header.method, method::CREATE_SESSION);
    client
}

#[tokio::test]
async fn a_call_goes_there_and_back_under_numbers_of_its_own() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    // So that the numbers differ.
    let mut first = setting.client();
    let mut client = setting.client();
    for _ in 0..3 {
        assert_eq!(first.call_as(NONE, method::KEEP_ALIVE, &()).await.header.error, (1, 54));
    }
    client.open(0, 0).await;
    let login = there.next().await;
    let info = CreateSessionInfo::decode(&login.payload[..]).unwrap();
    assert_eq!(
        (info.username.as_str(), info.password.as_str(), login.header.session),
        ("admin", "admin", NONE)
    );
    for method in [DEVICES, TWIST, method::SEND_JOINT_SPEEDS, method::REFRESH_FEEDBACK] {
        let message = NotificationHandle { identifier: 4_711 };
        let answer = client.call(method, &message).await;
        assert_eq!((answer.header.error, answer.header.session), ((0, 0), client.session), "{method:?}");
        assert_eq!(answer.payload, message.encode_to_vec());
        let asked = there.next().await;
        assert_eq!((asked.header.method, asked.header.session), (method, THERE));
        assert_eq!(asked.payload, message.encode_to_vec());
    }
}

#[tokio::test]
async fn only_what_moves_is_watched() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    let mut client = opened(&setting, &mut there).await;
    client.call(DEVICES, &()).await;
    assert!(setting.sessions.list().is_empty());
    client.call(TWIST, &()).await;
    assert_eq!(setting.sessions.list().len(), 1);
    assert!(setting.sessions.is_used("kortex/arm"));
}

#[tokio::test]
async fn a_session_that_falls_silent_is_stopped_there_too_until_that_is_answered() {
    for manners in [
        Manners::default(),
        Manners { deaf: 2, ..Manners::default() },
        Manners { stuck: 2, ..Manners::default() },
    ] {
        let (mut there, address) = There::tcp().await;
        let setting = robot(&address, "");
        let keeping = tokio::spawn(Arc::clone(&setting.desk).keep());
        let mut client = opened(&setting, &mut there).await;
        *there.manners.lock().unwrap() = manners;
        client.call(TWIST, &()).await;
        assert_eq!(there.next().await.header.method, TWIST);
        let anonymous = crate::sessions::Entity::anonymous();
        let watch = setting.sessions.list()[0].id;
        let hold = setting.sessions.hold(&anonymous, watch).unwrap();
        setting.watcher.says(watch, hold.owner, SessionState::Tripped);
        assert!(setting.sessions.beat(&anonymous, watch).is_err());
        for _ in 0..=manners.deaf + manners.stuck {
            assert_eq!(there.next().await.header.method, method::STOP);
        }
        assert!(there.is_left_alone().await, "one that is answered is enough");
        assert_eq!(client.codes(method::KEEP_ALIVE, &()).await, (0, 0));
        keeping.abort();
    }
}

#[tokio::test]
async fn a_session_that_ends_is_stopped_and_closed_there() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    let mut client = opened(&setting, &mut there).await;
    client.call(TWIST, &()).await;
    there.next().await;
    setting.desk.left(&client.channel);
    assert_eq!(there.next().await.header.method, method::STOP);
    assert_eq!(there.next().await.header.method, method::CLOSE_SESSION);
}

#[tokio::test]
async fn a_session_that_only_looked_is_closed_there_and_stops_nobody() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    let mut client = opened(&setting, &mut there).await;
    assert_eq!(client.codes(method::CLOSE_SESSION, &()).await, (0, 0));
    assert_eq!(there.next().await.header.method, method::CLOSE_SESSION);
}

#[tokio::test]
async fn a_command_that_a_stop_has_overtaken_does_not_reach_the_base() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    let client = opened(&setting, &mut there).await;
    let twist = client.ask(TWIST, &());
    let stop = client.ask(method::STOP, &());
    assert_eq!(twist.await.header.error, (3, 1));
    assert_eq!(stop.await.header.error, (0, 0));
    assert_eq!(there.next().await.header.method, method::STOP);
    assert!(there.is_left_alone().await);
}

/// Calls are carried out side by side, in whatever order their tasks come to run.
#[tokio::test]
async fn calls_reach_the_base_in_the_order_in_which_they_came() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    let client = opened(&setting, &mut there).await;
    let order = |number| NotificationHandle { identifier: number };
    let calls = [1, 2, 3].map(|number| client.ask(TWIST, &order(number)));
    let calls: Vec<_> = calls.into_iter().rev().map(tokio::spawn).collect();
    for number in [1, 2, 3] {
        assert_eq!(there.next().await.payload, order(number).encode_to_vec());
    }
    for call in calls {
        assert_eq!(call.await.unwrap().header.error, (0, 0));
    }
}

#[tokio::test]
async fn a_stop_waits_for_no_other_call_and_later_ones_wait_for_it() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    let client = opened(&setting, &mut there).await;
    let (before, stop, after) =
        (client.ask(TWIST, &()), client.ask(method::STOP, &()), client.ask(DEVICES, &()));
    let after = tokio::spawn(after);
    assert!(there.is_left_alone().await);
    assert_eq!(stop.await.header.error, (0, 0));
    assert_eq!(there.next().await.header.method, method::STOP);
    assert!(there.is_left_alone().await);
    assert_eq!(before.await.header.error, (3, 1));
    assert_eq!(after.await.unwrap().header.error, (0, 0));
    assert_eq!(there.next().await.header.method, DEVICES);
}

#[tokio::test]
async fn a_call_that_is_not_answered_keeps_none_waiting() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    let mut client = opened(&setting, &mut there).await;
    there.manners.lock().unwrap().ignores = Some(TWIST);
    let hanging = tokio::spawn(client.ask(TWIST, &()));
    assert_eq!(there.next().await.header.method, TWIST);
    for method in [DEVICES, method::KEEP_ALIVE, method::STOP] {
        assert_eq!(timeout(SOON, client.codes(method, &())).await.unwrap(), (0, 0), "{method:?}");
    }
    assert!(!hanging.is_finished());
    hanging.abort();
}

/// Fails if a client gives up by itself before it is told; those in C++ do after 3 s.
#[tokio::test]
async fn that_a_base_hangs_is_told_in_time() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    let mut client = opened(&setting, &mut there).await;
    there.manners.lock().unwrap().hangs = true;
    let asked = tokio::time::Instant::now();
    let answer = client.call(DEVICES, &()).await;
    assert!(asked.elapsed() < Duration::from_secs(3));
    assert_eq!(answer.header.error, (3, 131));
}

#[tokio::test]
async fn a_stop_is_carried_out_on_both_sides() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "motors = [\"shoulder\"]");
    let mut client = opened(&setting, &mut there).await;
    assert_eq!(client.codes(method::STOP, &()).await, (0, 0));
    assert_eq!(there.next().await.header.method, method::STOP);
}

#[tokio::test]
async fn a_motor_that_is_not_granted_keeps_a_command_from_the_base() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "motors = [\"shoulder\"]");
    let mut client = opened(&setting, &mut there).await;
    assert_eq!(client.codes(TWIST, &()).await, (3, 22));
    assert_eq!(client.codes(DEVICES, &()).await, (0, 0));
    assert_eq!(there.next().await.header.method, DEVICES);
}

#[tokio::test]
async fn who_is_not_let_in_there_is_not_let_in_here() {
    let (there, address) = There::tcp().await;
    there.manners.lock().unwrap().closed = true;
    let setting = robot(&address, "");
    let mut client = setting.client();
    let answer = client.call_as(NONE, method::CREATE_SESSION, &times(0, 0)).await;
    assert_eq!((answer.header.error, text(&answer).as_str()), ((3, 15), "not you"));
    assert_eq!(answer.header.session, NONE);
    assert!(setting.desk.sessions_of(&client.channel).is_empty());
}

#[tokio::test]
async fn a_base_that_is_not_there_says_where_it_was_looked_for() {
    let setting = robot("tcp = \"127.0.0.1:1\"", "");
    let mut client = setting.client();
    let answer = client.call_as(NONE, method::CREATE_SESSION, &times(0, 0)).await;
    assert_eq!(answer.header.error, (3, 108));
    assert!(text(&answer).contains("the base 127.0.0.1:1 is not reached"), "{}", text(&answer));
}

#[tokio::test]
async fn a_base_that_is_lost_takes_what_it_moved_along() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    let mut client = setting.client();
    // Longer than this test takes: nothing ends because it was silent.
    client.open(0, 60_000).await;
    there.next().await;
    client.call(TWIST, &()).await;
    assert_eq!(setting.sessions.list().len(), 1);
    there.serving.abort();
    let stopped = async {
        while !setting.sessions.list().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, stopped).await.unwrap();
    let answer = client.call(DEVICES, &()).await;
    assert_eq!(answer.header.error, (3, 108));
    assert!(text(&answer).contains("is lost: close this session and open another"), "{}", text(&answer));
}

#[tokio::test]
async fn news_reach_the_client_under_its_own_number() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    let mut client = opened(&setting, &mut there).await;
    let news = Frame::notification(THERE, MessageNumber(9), method::ARM_STATE_TOPIC, &());
    there.news.send(news.clone()).unwrap();
    let told = timeout(SOON, client.outbox.recv()).await.unwrap().unwrap();
    assert_eq!(told.header, Header { session: client.session, ..news.header });
}

#[tokio::test]
async fn a_session_is_kept_alive_there_whatever_its_client_does() {
    let (mut there, address) = There::tcp().await;
    let setting = robot(&address, "");
    let _client = opened(&setting, &mut there).await;
    for _ in 0..3 {
        let beat = timeout(SOON, there.seen.recv()).await.unwrap().unwrap();
        assert_eq!((beat.header.method, beat.header.session), (method::KEEP_ALIVE, THERE));
    }
}

/// Lanyard's own end of a broker, with an arm of its own behind it, plays the base.
#[tokio::test]
async fn a_client_over_mqtt_is_passed_on_over_mqtt() {
    let there = Setting::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("mqtt = \"{}\"", listener.local_addr().unwrap());
    let (_ending, told) = tokio::sync::watch::channel(false);
    let serving = tokio::spawn(super::super::mqtt::serve(listener, Arc::clone(&there.desk), told));
    let setting = robot(&address, "");
    let mut client = setting.client_over(Transport::Mqtt);
    // So that it is asked several times whether it is there, while this test lasts.
    client.open(0, 400).await;
    let mut status = there.desk.status();
    let sessions = |status: &SessionStatus| status.sessions.len();
    assert_eq!(sessions(&status.borrow_and_update()), 1);
    assert_eq!(client.codes(method::GET_ARM_STATE, &()).await, (0, 0));
    let answer = client.call(DEVICES, &()).await;
    assert_eq!((answer.header.error, answer.header.session), ((1, 4), client.session));
    assert_eq!(text(&answer), "service 23 is not served by Lanyard");
    sleep(Duration::from_millis(600)).await;
    assert_eq!(client.codes(method::GET_ARM_STATE, &()).await, (0, 0));
    setting.desk.left(&client.channel);
    let closed = async {
        while sessions(&status.borrow_and_update()) > 0 {
            status.changed().await.unwrap();
        }
    };
    timeout(SOON, closed).await.unwrap();
    serving.abort();
}

/// Both sides are Lanyard's own brokers, and the client is the one that Lanyard asks bases with.
#[tokio::test]
async fn news_of_a_base_over_mqtt_reach_who_subscribed_to_them_and_once() {
    let serve = async |desk: &Arc<Desk>, told| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (address, tokio::spawn(super::super::mqtt::serve(listener, Arc::clone(desk), told)))
    };
    let next = async |client: &mut Broker, within| {
        let next = timeout(within, client.receive()).await.ok();
        next.map(|frame| Frame::read(&frame.unwrap()).unwrap())
    };
    let (_ending, told) = tokio::sync::watch::channel(false);
    let there = Setting::new();
    let (address, base) = serve(&there.desk, told.clone()).await;
    let setting = robot(&format!("mqtt = \"{address}\""), "");
    let (address, front) = serve(&setting.desk, told).await;
    let mut changer = there.client();
    changer.open(60_000, 0).await;
    let mode = ServoingModeInformation { servoing_mode: ServoingMode::SingleLevel.into() };

    let mut client = Broker::connect(address).await.unwrap();
    let topic = BTreeSet::from([method::SERVOING_MODE_TOPIC]);
    let mut sessions = Vec::new();
    // Before it has a session, after it, and with two of them.
    client.follow(&topic).unwrap();
    for _ in 0..2 {
        client.send(&create()).await.unwrap();
        let opened = next(&mut client, SOON).await.expect("it is answered");
        assert_eq!(opened.header.error, (0, 0));
        sessions.push(opened.header.session);
        // By then the base knows what it is to tell.
        sleep(A_WHILE).await;
        assert_eq!(changer.codes(method::SET_SERVOING_MODE, &mode).await, (0, 0));
        let news = next(&mut client, SOON).await.expect("it is told");
        assert_eq!(news.header.kind, Kind::Notification);
        assert_eq!(news.header.method, method::SERVOING_MODE_TOPIC);
        assert!(sessions.contains(&news.header.session), "under one of its own numbers");
        assert_eq!(next(&mut client, A_WHILE).await, None, "and told again");
    }
    client.follow(&BTreeSet::new()).unwrap();
    assert_eq!(next(&mut client, A_WHILE).await, None);
    assert_eq!(changer.codes(method::SET_SERVOING_MODE, &mode).await, (0, 0));
    assert_eq!(next(&mut client, A_WHILE).await, None, "told of what it does not want to know any more");
    base.abort();
    front.abort();
}

fn create() -> Frame {
    let header = Header {
        kind: Kind::Request,
        device: 0,
        error: (0, 0),
        session: NONE,
        message: MessageNumber(1),
        method: method::CREATE_SESSION,
    };
    Frame { header, payload: times(60_000, 0).encode_to_vec().into() }
}

#[tokio::test]
async fn what_is_no_broker_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("mqtt = \"{}\"", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        sleep(SOON).await;
    });
    let setting = robot(&address, "");
    let mut client = setting.client_over(Transport::Mqtt);
    let answer = client.call_as(NONE, method::CREATE_SESSION, &times(0, 0)).await;
    assert_eq!(answer.header.error, (3, 108));
    assert!(text(&answer).contains("is not reached: "), "{}", text(&answer));
    serving.abort();
}

#[tokio::test]
async fn a_client_over_udp_is_passed_on_over_udp() {
    let (mut there, address) = There::udp().await;
    let setting = robot(&address, "");
    let mut client = setting.client_over(Transport::Udp);
    client.open(0, 0).await;
    assert_eq!(there.next().await.header.method, method::CREATE_SESSION);
    assert_eq!(client.codes(method::REFRESH, &()).await, (0, 0));
    assert_eq!(there.next().await.header.method, method::REFRESH);
    let mut other = setting.client();
    let answer = other.call_as(NONE, method::CREATE_SESSION, &times(0, 0)).await;
    assert_eq!(answer.header.error, (3, 108), "no base over TCP is configured");
}
