//! Clients over TCP: the conversation of a real one, and those that mean harm.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use config::Config;
use mqtt5_protocol::packet::connack::ConnAckPacket;
use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::packet::disconnect::DisconnectPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::packet::subscribe::SubscribePacket;
use mqtt5_protocol::packet::unsubscribe::UnsubscribePacket;
use mqtt5_protocol::packet::{MqttPacket, pingreq::PingReqPacket};
use mqtt5_protocol::{
    ConnectOptions, FixedHeader, Packet, PropertyId, PropertyValue, QoS, ReasonCode, WillMessage,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::arm::Parts;
use super::super::channel::{Channel, Transport};
use super::super::desk::Desk;
use super::super::frame::{Frame, Header, Kind, MessageNumber, Method, SessionNumber};
use super::super::intake::Heard;
use super::super::{method, vectors};
use super::client::Client as Served;
use super::names::Names;
use super::packet::{MOST_PACKET, put, take};
use crate::access::Access;
use crate::lanyard::Orders;
use crate::link::Link;
use crate::motion::{Motion, NoWire};
use crate::proto::kortex::{CreateSessionInfo, Error, ServoingMode, ServoingModeInformation, SessionStatus};
use crate::sessions::testing::Watcher;
use crate::sessions::{Rules, Sessions};
use crate::transport::Connection;

/// Only says when to give up.
const SOON: Duration = Duration::from_secs(10);
/// What would have happened has happened by then.
const A_WHILE: Duration = Duration::from_millis(200);
/// The name in the golden packets; ours are as long.
const GOLDEN_NAME: &str = "auto-00000001";
/// A key called "admin" whose secret is "admin".
const KEY: &str = r#"
[[key]]
id = "6f2b1c1e-5a57-4a52-9d5b-0c6b1f5d2a11"
name = "admin"
role = "administer"
created = "2026-01-01T00:00:00Z"
hash = "$sha256$00000000000000000000000000000000$db8be0952b86353f8900d2e1ea3891b2a8de6066cca8c394ad10e0a0654e94b7"
"#;
const ROBOT: &str = r#"
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
mqtt = "127.0.0.1:0"
max_connections = 16

[[kortex.joint]]
motor = "shoulder"
"#;

/// A port with services behind it; the test plays the supervisor.
struct Setting {
    address: SocketAddr,
    desk: Arc<Desk>,
    ending: watch::Sender<bool>,
    _watcher: Watcher,
    _tasks: JoinSet<()>,
}

impl Setting {
    async fn new() -> Self {
        Self::with(Path::new("/nonexistent/keys.toml")).await
    }

    async fn with(keys: &Path) -> Self {
        Self::of(&format!("[front]\nkeys = \"{}\"\n{ROBOT}", keys.display())).await
    }

    async fn of(text: &str) -> Self {
        let config = Arc::new(Config::parse(Path::new("test.toml"), text).unwrap());
        let watcher = Watcher::with_room(8);
        let link = Link::to(watcher.attachment.clone());
        let sessions = Arc::new(Sessions::new(Arc::clone(&link), Rules::relaxed()));
        let motion = Motion::start_over(Arc::clone(&config), &[Arc::new(NoWire)]);
        let orders = Arc::new(Orders::new(&config, Arc::clone(&link), Arc::clone(&motion)));
        let (access, _) = Access::start(&config).unwrap();
        let parts = Parts { link, sessions, motion, orders };
        let desk = Desk::new(config.kortex.as_ref().unwrap(), access, parts);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ending, told) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&desk).keep());
        tasks.spawn(super::serve(listener, Arc::clone(&desk), told));
        Self { address, desk, ending, _watcher: watcher, _tasks: tasks }
    }

    /// A client that has said nothing yet.
    async fn stranger(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, come: BytesMut::new(), name: String::new(), last: 0, session: SessionNumber(0) }
    }

    /// A client like a real one, which can be answered.
    async fn client(&self) -> Client {
        let mut client = self.stranger().await;
        client.connect(&ConnectOptions::new("")).await;
        let answers = client.answers();
        assert_eq!(client.subscribe(&[&answers]).await, [0]);
        client
    }

    /// Waits until there are so many sessions.
    async fn has_sessions(&self, number: usize) {
        let mut status = self.desk.status();
        timeout(SOON, status.wait_for(|status| status.sessions.len() == number)).await.unwrap().unwrap();
    }
}

/// A client, as hostile as a test wants it.
struct Client {
    stream: TcpStream,
    come: BytesMut,
    name: String,
    last: u16,
    session: SessionNumber,
}

impl Client {
    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn send(&mut self, packet: &impl MqttPacket) {
        let mut out = BytesMut::new();
        packet.encode(&mut out).unwrap();
        self.send_bytes(&out).await;
    }

    /// The next packet and its bytes; `None` when the connection has ended.
    async fn next(&mut self) -> Option<(Packet, Bytes)> {
        loop {
            if let Some(header) =
                FixedHeader::decode(&mut &self.come[..]).ok().filter(|_| self.come.len() > 1)
            {
                let length = header.encoded_len() + header.remaining_length as usize;
                if self.come.len() >= length {
                    let bytes = self.come.split_to(length).freeze();
                    let mut body = bytes.slice(header.encoded_len()..);
                    let packet = Packet::decode_from_body(header.packet_type, &header, &mut body).unwrap();
                    assert!(!body.has_remaining());
                    return Some((packet, bytes));
                }
            }
            match timeout(SOON, self.stream.read_buf(&mut self.come)).await.expect("nothing comes") {
                // What was still to be read of a hostile client's bytes resets its connection.
                Ok(0) | Err(_) => return None,
                Ok(_) => (),
            }
        }
    }

    /// The next packet that is no question whether the client is there.
    async fn packet(&mut self) -> Option<(Packet, Bytes)> {
        loop {
            match self.next().await {
                Some((Packet::Publish(publish), _)) if publish.topic_name.starts_with("ping/") => (),
                other => return other,
            }
        }
    }

    async fn message(&mut self) -> PublishPacket {
        match self.packet().await {
            Some((Packet::Publish(publish), _)) => publish,
            other => panic!("{other:?}"),
        }
    }

    /// Nothing comes for a while.
    async fn hears_nothing(&mut self) {
        if let Ok(heard) = timeout(A_WHILE, self.packet()).await {
            panic!("{heard:?}");
        }
    }

    /// The connection is ended, with this reason or none.
    async fn is_told(&mut self, reason: Option<ReasonCode>) {
        let told = match self.packet().await {
            Some((Packet::Disconnect(disconnect), _)) => Some(disconnect.reason_code),
            Some((Packet::ConnAck(refusal), _)) => Some(refusal.reason_code),
            Some(other) => panic!("{other:?}"),
            None => None,
        };
        assert_eq!(told, reason);
        assert!(told.is_none() || self.packet().await.is_none(), "it goes on");
    }

    async fn connect(&mut self, options: &ConnectOptions) -> ConnAckPacket {
        self.send(&ConnectPacket::new(options.clone())).await;
        let Some((Packet::ConnAck(taken), _)) = self.packet().await else { panic!("not taken") };
        assert_eq!((taken.reason_code, taken.session_present), (ReasonCode::Success, false));
        self.name = assigned(&taken);
        taken
    }

    fn answers(&self) -> String {
        format!("res/{}", self.name)
    }

    /// The codes it is answered with.
    async fn subscribe(&mut self, topics: &[&str]) -> Vec<u8> {
        self.last += 1;
        let mut packet = SubscribePacket::new(self.last);
        for topic in topics {
            packet = packet.add_filter(*topic, QoS::AtMostOnce);
        }
        self.send(&packet).await;
        let Some((Packet::SubAck(answer), _)) = self.packet().await else { panic!("no SUBACK") };
        assert_eq!(answer.packet_id, self.last);
        answer.reason_codes.into_iter().map(|code| code as u8).collect()
    }

    async fn publish(&mut self, topic: &str, payload: Bytes) {
        self.send(&PublishPacket::new(topic, payload, QoS::AtMostOnce)).await;
    }

    fn request(&mut self, method: Method, message: &impl Message) -> Frame {
        self.last += 1;
        let message_number = MessageNumber(self.last);
        let header = Header {
            kind: Kind::Request,
            device: 0,
            error: (0, 0),
            session: self.session,
            message: message_number,
            method,
        };
        Frame { header, payload: message.encode_to_vec().into() }
    }

    /// Sends a request as a real client does.
    async fn ask(&mut self, frame: &Frame, topic: &str, response: &str) {
        let mut packet = PublishPacket::new(topic, frame.encode(), QoS::AtMostOnce)
            .with_response_topic(response.to_owned())
            .with_correlation_data(frame.header.message.0.to_be_bytes().to_vec());
        packet.properties.add_user_property("who".to_owned(), "me".to_owned());
        self.send(&packet).await;
    }

    /// The next answer.
    async fn answer(&mut self) -> Frame {
        let message = self.message().await;
        assert_eq!(message.topic_name, self.answers());
        Frame::read(&message.payload).unwrap()
    }

    async fn call(&mut self, method: Method, message: &impl Message) -> Frame {
        let frame = self.request(method, message);
        let answers = self.answers();
        self.ask(&frame, &format!("req/{}/{}", method.service, method.function), &answers).await;
        let answer = self.answer().await;
        assert_eq!((answer.header.kind, answer.header.message), (Kind::Response, frame.header.message));
        answer
    }

    /// Opens a session with these times, in milliseconds.
    async fn open(&mut self, session: u32, connection: u32) {
        let info = CreateSessionInfo {
            username: "admin".to_owned(),
            password: "admin".to_owned(),
            session_inactivity_timeout: session,
            connection_inactivity_timeout: connection,
        };
        let answer = self.call(method::CREATE_SESSION, &info).await;
        assert_eq!(answer.header.error, (0, 0), "{answer:?}");
        self.session = answer.header.session;
    }

    async fn keep_alive(&mut self) -> (u8, u16) {
        self.call(method::KEEP_ALIVE, &()).await.header.error
    }

    /// Answers PINGs for a while. Returns how many came.
    async fn answers_pings(&mut self, time: Duration) -> u32 {
        let (until, mut pings) = (Instant::now() + time, 0);
        while let Ok(next) = tokio::time::timeout_at(until, self.next()).await {
            let Some((Packet::Publish(ping), _)) = next else { panic!("{next:?}") };
            assert_eq!(ping.topic_name, format!("ping/{}", self.session));
            let mut frame = Frame::read(&ping.payload).unwrap();
            assert_eq!(frame, Frame::ping(self.session));
            frame.header.kind = Kind::Pong;
            self.publish(&format!("pong/{}", self.session), frame.encode()).await;
            pings += 1;
        }
        pings
    }
}

fn assigned(taken: &ConnAckPacket) -> String {
    match taken.properties.get(PropertyId::AssignedClientIdentifier) {
        Some(PropertyValue::Utf8String(name)) => name.clone(),
        other => panic!("{other:?}"),
    }
}

fn published(bytes: &Bytes) -> PublishPacket {
    let header = FixedHeader::decode(&mut &bytes[..]).unwrap();
    let mut body = bytes.slice(header.encoded_len()..);
    match Packet::decode_from_body(header.packet_type, &header, &mut body).unwrap() {
        Packet::Publish(publish) => publish,
        other => panic!("{other:?}"),
    }
}

/// Golden bytes, with the name that the client has here: it is as long.
fn renamed(bytes: &Bytes, name: &str) -> Bytes {
    assert_eq!(name.len(), GOLDEN_NAME.len());
    let mut bytes = bytes.to_vec();
    let at: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(GOLDEN_NAME.as_bytes())).collect();
    for at in at {
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
    }
    bytes.into()
}

/// Fails if a real client's packets are not answered with what it took from another server: the same bytes, but for the
/// text of a refusal, and for the service that did not answer there and does here.
#[tokio::test]
async fn the_golden_conversation_goes_as_it_did() {
    let folder = std::env::temp_dir().join(format!("lanyard-mqtt-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let keys = folder.join("keys.toml");
    std::fs::write(&keys, KEY).unwrap();
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    let setting = Setting::with(&keys).await;
    setting.desk.promise(SessionNumber(1));
    let mut client = setting.stranger().await;
    let (mut answers, mut extra) = (0, 0);
    for (what, golden) in vectors::mqtt() {
        let golden = if client.name.is_empty() { golden } else { renamed(&golden, &client.name) };
        if what.contains("C->S") {
            client.send_bytes(&golden).await;
            continue;
        }
        if what.contains("PING") {
            // Ours come at times of their own; the first when it was subscribed to.
            assert_eq!(published(&golden).payload, Frame::ping(SessionNumber(1)).encode());
            continue;
        }
        let (mut packet, mut bytes) = client.packet().await.unwrap();
        if what.contains("UNSUBACK") && matches!(packet, Packet::Publish(_)) {
            extra += 1;
            (packet, bytes) = client.packet().await.unwrap();
        }
        match packet {
            Packet::ConnAck(taken) => client.name = assigned(&taken),
            Packet::Publish(answer) if what.contains("RESPONSE") => {
                answers += 1;
                let golden_answer = published(&golden);
                let (ours, theirs) = (Frame::read(&answer.payload), Frame::read(&golden_answer.payload));
                let (ours, theirs) = (ours.unwrap().header, theirs.unwrap().header);
                assert_eq!(ours, theirs, "{what}");
                if ours.error == (0, 0) {
                    assert_eq!(bytes, golden, "{what}");
                } else {
                    assert_eq!(answer.topic_name, golden_answer.topic_name);
                    let correlation = |packet: &PublishPacket| {
                        format!("{:?}", packet.properties.get(PropertyId::CorrelationData))
                    };
                    assert_eq!(correlation(&answer), correlation(&golden_answer));
                }
            }
            _ => assert_eq!(bytes, golden, "{what}"),
        }
    }
    assert_eq!((answers, extra), (8, 1));
    assert!(client.packet().await.is_none(), "DISCONNECT");
    drop(std::fs::remove_dir_all(&folder));
}

#[test]
fn golden_packets_are_read_and_written_as_they_were() {
    let mut out = BytesMut::new();
    let taken =
        ConnAckPacket::new(false, ReasonCode::Success).with_assigned_client_id(GOLDEN_NAME.to_owned());
    put(&mut out, &taken).unwrap();
    let golden = vectors::mqtt().into_iter().find(|(what, _)| what.contains("CONNACK")).unwrap().1;
    assert_eq!(out, golden);
    let from_client: Vec<_> = vectors::mqtt().into_iter().filter(|(what, _)| what.contains("C->S")).collect();
    let stream: Vec<u8> = from_client.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    for piece in [1, 2, 7, 100, stream.len()] {
        let (mut come, mut taken) = (BytesMut::new(), 0);
        for chunk in stream.chunks(piece) {
            come.extend_from_slice(chunk);
            while take(&mut come).unwrap().is_some() {
                taken += 1;
            }
        }
        assert_eq!((taken, come.len()), (from_client.len(), 0));
    }
}

#[tokio::test]
async fn only_version_5_is_spoken() {
    let setting = Setting::new().await;
    for connect in [
        &b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0"[..],
        b"\x10\x0e\0\x06MQIsdp\x03\x02\0\x3c\0\0",
        b"\x10\x0c\0\x04MQTT\x06\x02\0\x3c\0\0",
    ] {
        let mut client = setting.stranger().await;
        client.send_bytes(connect).await;
        client.is_told(Some(ReasonCode::UnsupportedProtocolVersion)).await;
    }
}

#[tokio::test]
async fn what_is_no_client_gets_no_answer() {
    let setting = Setting::new().await;
    // Another packet first, other protocols, packets that there are not, a CONNECT cut short, one with more behind it.
    for bytes in [
        &b"\xc0\0"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0",
        b"\0\0",
        b"\x10\x06\0\x04MQTT",
        b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\0\0",
        b"\x10\xff\xff\xff\xff",
    ] {
        let mut client = setting.stranger().await;
        client.send_bytes(bytes).await;
        client.is_told(None).await;
    }
}

#[tokio::test]
async fn who_sends_no_connect_is_not_waited_for() {
    let setting = Setting::new().await;
    let mut client = setting.stranger().await;
    client.send_bytes(b"\x10").await;
    client.is_told(None).await;
}

/// Fails if room is made for a packet before it is known to be short enough: the length alone is sent.
#[tokio::test]
async fn a_packet_that_is_too_long_ends_the_connection_at_once() {
    let setting = Setting::new().await;
    let mut stranger = setting.stranger().await;
    stranger.send_bytes(b"\x10\xff\xff\xff\x7f").await;
    stranger.is_told(Some(ReasonCode::PacketTooLarge)).await;
    let mut client = setting.client().await;
    client.send_bytes(b"\x30\xff\xff\xff\x7f").await;
    client.is_told(Some(ReasonCode::PacketTooLarge)).await;
    let length = |length: usize| {
        let mut come = BytesMut::from(&b"\x30"[..]);
        mqtt5_protocol::encoding::encode_variable_int(&mut come, u32::try_from(length).unwrap()).unwrap();
        take(&mut come).map(drop).map_err(|fault| fault.reason)
    };
    assert_eq!(length(MOST_PACKET - 4), Ok(()));
    assert_eq!(length(MOST_PACKET - 3), Err(ReasonCode::PacketTooLarge));
}

#[tokio::test]
async fn what_is_not_advertised_ends_the_connection_with_its_reason() {
    let setting = Setting::new().await;
    let message = |qos| PublishPacket::new("req/1/3", &b""[..], qos).with_packet_id(1);
    for (packet, reason) in [
        (message(QoS::AtLeastOnce), ReasonCode::QoSNotSupported),
        (message(QoS::ExactlyOnce), ReasonCode::QoSNotSupported),
        (message(QoS::AtMostOnce).with_retain(true), ReasonCode::RetainNotSupported),
        (message(QoS::AtMostOnce).with_topic_alias(1), ReasonCode::TopicAliasInvalid),
    ] {
        let mut client = setting.client().await;
        client.send(&packet).await;
        client.is_told(Some(reason)).await;
    }
    let mut client = setting.client().await;
    client
        .send(&SubscribePacket::new(9).add_filter("ping/1", QoS::AtMostOnce).with_subscription_identifier(1))
        .await;
    client.is_told(Some(ReasonCode::SubscriptionIdentifiersNotSupported)).await;
    let mut client = setting.client().await;
    client.send(&ConnectPacket::new(ConnectOptions::new(""))).await;
    client.is_told(Some(ReasonCode::ProtocolError)).await;
    // What a server says.
    let mut client = setting.client().await;
    client.send_bytes(b"\xd0\0").await;
    client.is_told(Some(ReasonCode::ProtocolError)).await;
    let mut client = setting.client().await;
    client.send_bytes(b"\x30\x01\0").await;
    client.is_told(Some(ReasonCode::MalformedPacket)).await;
    let mut client = setting.stranger().await;
    let mut connect = ConnectPacket::new(ConnectOptions::new(""));
    connect.properties.set_authentication_method("SCRAM".to_owned());
    client.send(&connect).await;
    client.is_told(Some(ReasonCode::BadAuthenticationMethod)).await;
}

#[tokio::test]
async fn a_client_is_told_what_is_not_to_be_had() {
    let setting = Setting::new().await;
    let mut client = setting.stranger().await;
    let mut connect = ConnectOptions::new("my-arm");
    connect.properties.session_expiry_interval = Some(3600);
    let taken = client.connect(&connect).await;
    assert_eq!(client.name, "my-arm");
    assert_eq!(taken.properties.get_maximum_qos(), Some(0));
    assert_eq!(taken.properties.get_session_expiry_interval(), Some(0));
    assert_eq!(taken.maximum_packet_size(), Some(65_536));
    for property in [
        PropertyId::RetainAvailable,
        PropertyId::WildcardSubscriptionAvailable,
        PropertyId::SubscriptionIdentifierAvailable,
        PropertyId::SharedSubscriptionAvailable,
    ] {
        assert!(matches!(taken.properties.get(property), Some(PropertyValue::Byte(0))), "{property:?}");
    }
    let mut other = setting.stranger().await;
    other.connect(&connect).await;
    assert!(other.name.starts_with("auto-"), "{}", other.name);
    assert_eq!(client.subscribe(&["res/my-arm"]).await, [0], "nobody is thrown out");
}

#[tokio::test]
async fn nobody_subscribes_to_what_is_another_ones() {
    let setting = Setting::new().await;
    let mut owner = setting.client().await;
    owner.open(10_000, 2_000).await;
    let ping = format!("ping/{}", owner.session);
    assert_eq!(owner.subscribe(&[&ping]).await, [0]);
    let mut thief = setting.client().await;
    let asked =
        [&ping, &owner.answers(), "#", "res/+", "$share/a/sessions/status", "", "req/1/1", "sessions/killed"];
    assert_eq!(thief.subscribe(&asked).await, [0x87, 0x87, 0xA2, 0xA2, 0x9E, 0x8F, 0x87, 0]);
    // However many it wants, it has few.
    let topics: Vec<String> = (0..100).map(|service| format!("services/pong/{service}")).collect();
    let codes = thief.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 64 - 2);
    assert_eq!(codes.last(), Some(&0x97));
    // Both of its requests are asked with another's topic for the answer.
    let frame = thief.request(method::STOP, &());
    thief.ask(&frame, "req/2/112", &owner.answers()).await;
    let answer = thief.answer().await;
    assert_eq!(answer.header.error, (1, 3));
    let said = Error::decode(&answer.payload[..]).unwrap().error_sub_string;
    assert!(said.contains(&thief.answers()), "{said}");
    thief.publish(&owner.answers(), frame.encode()).await;
    thief.publish(&ping, frame.encode()).await;
    owner.hears_nothing().await;
}

#[tokio::test]
async fn a_topic_and_its_frame_agree() {
    let setting = Setting::new().await;
    let mut client = setting.client().await;
    client.open(10_000, 2_000).await;
    let answers = client.answers();
    let mut frame = client.request(method::KEEP_ALIVE, &());
    for (device, topic, codes) in [
        (0, "req/1/3", (0, 0)),
        (0, "left/req/1/3", (0, 0)),
        (0, "req/2/112", (1, 3)),
        (0, "dev/01/3", (1, 3)),
        (4, "dev/41/3", (1, 52)),
        (4, "dev/51/3", (1, 3)),
    ] {
        frame.header.device = device;
        client.ask(&frame, topic, &answers).await;
        assert_eq!(client.answer().await.header.error, codes, "{topic}");
    }
    // Without a topic for the answer it comes to the client's own, and other frames call nothing.
    frame.header.device = 0;
    client.publish("req/1/3", frame.encode()).await;
    assert_eq!(client.answer().await.header.error, (0, 0));
    for kind in [Kind::Pong, Kind::Ping, Kind::Raw, Kind::Response, Kind::Notification] {
        frame.header.kind = kind;
        client.publish("req/1/3", frame.encode()).await;
    }
    frame.header.kind = Kind::Request;
    client.publish(&format!("pong/{}", client.session), frame.encode()).await;
    client.publish("nobody/knows/this", frame.encode()).await;
    client.publish("req/1/3", Bytes::from_static(b"garbage")).await;
    client.hears_nothing().await;
    // Long correlation data is kept for nobody.
    let packet =
        PublishPacket::new("req/1/3", frame.encode(), QoS::AtMostOnce).with_correlation_data(vec![0; 257]);
    client.send(&packet).await;
    assert_eq!(client.answer().await.header.error, (1, 3));
}

/// Fails if nothing asks, if the answer is no beat, or if silence is not found out.
#[tokio::test]
async fn a_session_lives_by_its_answers_to_pings_and_no_longer() {
    let setting = Setting::new().await;
    let mut client = setting.client().await;
    client.open(1_500, 400).await;
    let ping = format!("ping/{}", client.session);
    assert_eq!(client.subscribe(&[&ping]).await, [0]);
    // 40 if nothing is late, and not one more. Unheard for 1.5 s, the session would be over.
    let pings = client.answers_pings(Duration::from_secs(4)).await;
    assert!((8..=41).contains(&pings), "{pings}");
    assert_eq!(client.keep_alive().await, (0, 0));
    // It does not answer any more: its session ends, its connection does not.
    setting.has_sessions(0).await;
    assert_eq!(client.keep_alive().await, (1, 54));
    client.hears_nothing().await;
    client.open(1_500, 400).await;
}

#[tokio::test]
async fn sessions_are_told_of_to_who_has_one() {
    let setting = Setting::new().await;
    let (mut client, mut other) = (setting.client().await, setting.client().await);
    assert_eq!(client.subscribe(&["sessions/status", "sessions/killed"]).await, [0, 0]);
    other.open(10_000, 2_000).await;
    client.hears_nothing().await;
    let status = |message: &PublishPacket| {
        assert_eq!(message.topic_name, "sessions/status");
        let sessions = SessionStatus::decode(&message.payload[..]).unwrap().sessions;
        sessions.into_iter().map(|session| session.session_identifier).collect::<Vec<_>>()
    };
    assert_eq!(other.subscribe(&["sessions/status"]).await, [0]);
    assert_eq!(status(&other.message().await), [u32::from(other.session.0)], "at once");
    client.open(10_000, 2_000).await;
    let mut both = [other.session.0, client.session.0].map(u32::from);
    both.sort_unstable();
    assert_eq!(status(&other.message().await), both);
    assert_eq!(status(&client.message().await), both);
    drop(other);
    assert_eq!(status(&client.message().await), [u32::from(client.session.0)]);
}

#[tokio::test]
async fn a_topic_is_told_of_once_however_often_it_was_subscribed_to() {
    let setting = Setting::new().await;
    let (mut client, mut stranger) = (setting.client().await, setting.client().await);
    client.open(10_000, 2_000).await;
    for client in [&mut client, &mut stranger] {
        assert_eq!(client.subscribe(&["notif/2/154", "notif/2/154", "notif/2/1"]).await, [0, 0, 0x87]);
        assert_eq!(client.subscribe(&["notif/2/154"]).await, [0]);
    }
    assert_eq!(client.call(method::SERVOING_MODE_TOPIC, &()).await.header.error, (0, 0));
    let mode = ServoingModeInformation { servoing_mode: ServoingMode::SingleLevel.into() };
    let frame = client.request(method::SET_SERVOING_MODE, &mode);
    client.publish("req/2/152", frame.encode()).await;
    let (first, second) = (client.message().await, client.message().await);
    let (told, answered) =
        if first.topic_name.starts_with("notif") { (first, second) } else { (second, first) };
    assert_eq!((told.topic_name.as_str(), answered.topic_name), ("notif/2/154", client.answers()));
    let header = Frame::read(&told.payload).unwrap().header;
    assert_eq!((header.kind, header.method), (Kind::Notification, method::SERVOING_MODE_TOPIC));
    client.hears_nothing().await;
    stranger.hears_nothing().await;
    // Ended is ended.
    client.send(&UnsubscribePacket::new(77).add_filter("notif/2/154").add_filter("notif/2/1")).await;
    let Some((Packet::UnsubAck(ended), _)) = client.packet().await else { panic!("no UNSUBACK") };
    assert_eq!(ended.reason_codes.into_iter().map(|code| code as u8).collect::<Vec<_>>(), [0, 0x11]);
    assert_eq!(client.call(method::SET_SERVOING_MODE, &mode).await.header.error, (0, 0));
    client.hears_nothing().await;
}

#[tokio::test]
async fn services_answer_who_asks_and_only_those_that_are_there() {
    let setting = Setting::new().await;
    let (mut client, mut other) = (setting.client().await, setting.client().await);
    let topics = ["services/pong/1/left", "services/pong/1", "services/pong/9"];
    assert_eq!(client.subscribe(&topics).await, [0; 3]);
    assert_eq!(other.subscribe(&topics).await, [0; 3]);
    client.publish("services/ping/9", Bytes::new()).await;
    client.publish("services/ping/1", Bytes::from_static(b"x")).await;
    client.publish("services/ping/2", Bytes::new()).await;
    client.publish("services/ping/1/left", Bytes::new()).await;
    let pong = client.message().await;
    assert_eq!((pong.topic_name.as_str(), pong.payload.len()), ("services/pong/1/left", 0));
    client.hears_nothing().await;
    other.hears_nothing().await;
}

/// Fails if subscriptions of sessions that are over use up what a client may have.
#[tokio::test]
async fn a_client_may_have_many_sessions_one_after_another() {
    let setting = Setting::new().await;
    let mut client = setting.client().await;
    for _ in 0..100 {
        client.open(10_000, 10_000).await;
        let ping = format!("ping/{}", client.session);
        assert_eq!(client.subscribe(&[&ping]).await, [0]);
        assert_eq!(client.call(method::CLOSE_SESSION, &()).await.header.error, (0, 0));
        client.session = SessionNumber(0);
    }
}

#[tokio::test]
async fn a_client_gets_no_longer_packets_than_it_takes() {
    let setting = Setting::new().await;
    let mut client = setting.stranger().await;
    let mut connect = ConnectOptions::new("");
    connect.properties.maximum_packet_size = Some(43);
    client.connect(&connect).await;
    let answers = client.answers();
    assert_eq!(client.subscribe(&[&answers]).await, [0]);
    let frame = client.request(method::KEEP_ALIVE, &());
    client.ask(&frame, "req/1/3", &answers).await;
    client.hears_nothing().await;
    connect.properties.maximum_packet_size = Some(0);
    let mut client = setting.stranger().await;
    client.send(&ConnectPacket::new(connect)).await;
    client.is_told(Some(ReasonCode::ProtocolError)).await;
}

/// Fails if a call is left without an answer because too many others are under way.
#[tokio::test]
async fn every_call_is_answered_however_many_come_together() {
    let setting = Setting::new().await;
    let mut client = setting.client().await;
    client.open(60_000, 60_000).await;
    let mut all = BytesMut::new();
    for _ in 0..100 {
        let frame = client.request(method::STOP, &());
        PublishPacket::new("req/2/112", frame.encode(), QoS::AtMostOnce).encode(&mut all).unwrap();
    }
    client.send_bytes(&all).await;
    let mut codes = Vec::new();
    for _ in 0..100 {
        codes.push(client.answer().await.header.error);
    }
    // The others are told that it was too much.
    assert!(codes.iter().all(|code| [(0, 0), (3, 1)].contains(code)), "{codes:?}");
    assert!(codes.iter().filter(|code| **code == (0, 0)).count() >= 32, "{codes:?}");
}

/// Fails if what a client does not read is kept for it, or if it holds up others.
#[tokio::test]
async fn a_client_that_does_not_read_loses_its_connection_and_nobody_else_notices() {
    let setting = Setting::new().await;
    let (mut client, mut other) = (setting.client().await, setting.client().await);
    other.open(60_000, 60_000).await;
    client.open(60_000, 60_000).await;
    let frame = client.request(method::KEEP_ALIVE, &());
    let mut many = BytesMut::new();
    for _ in 0..1_000 {
        PublishPacket::new("req/1/3", frame.encode(), QoS::AtMostOnce).encode(&mut many).unwrap();
    }
    // The kernels take some megabytes; after that, nobody reads what it asks.
    while timeout(Duration::from_secs(1), client.stream.write_all(&many)).await.is_ok_and(|sent| sent.is_ok())
    {
    }
    assert_eq!(other.keep_alive().await, (0, 0));
    setting.has_sessions(1).await;
    assert_eq!(other.keep_alive().await, (0, 0));
}

/// Fails if a last will is refused, or if anybody ever gets it.
#[tokio::test]
async fn a_last_will_is_taken_and_never_published() {
    let setting = Setting::new().await;
    let mut other = setting.client().await;
    assert_eq!(other.subscribe(&["sessions/killed", "services/pong/1"]).await, [0, 0]);
    for topic in ["sessions/killed".to_owned(), "services/pong/1".to_owned(), other.answers()] {
        let mut client = setting.stranger().await;
        client.connect(&ConnectOptions::new("").with_will(WillMessage::new(topic, b"gone".to_vec()))).await;
    }
    other.hears_nothing().await;
}

#[tokio::test]
async fn who_is_silent_for_longer_than_its_keep_alive_is_gone() {
    let setting = Setting::new().await;
    let mut client = setting.stranger().await;
    let keep_alive = |seconds| ConnectOptions::new("").with_keep_alive(Duration::from_secs(seconds));
    client.connect(&keep_alive(1)).await;
    let begun = Instant::now();
    for _ in 0..4 {
        sleep(Duration::from_millis(500)).await;
        client.send(&PingReqPacket::default()).await;
        assert!(matches!(client.packet().await, Some((Packet::PingResp, _))));
    }
    // Half a packet is none.
    client.send_bytes(b"\x30").await;
    client.is_told(Some(ReasonCode::KeepAliveTimeout)).await;
    assert!(begun.elapsed() >= Duration::from_millis(3_500));
}

#[tokio::test]
async fn the_end_of_a_connection_ends_its_sessions() {
    let setting = Setting::new().await;
    for end in 0..3 {
        let mut client = setting.client().await;
        client.open(60_000, 60_000).await;
        setting.has_sessions(1).await;
        match end {
            0 => client.send(&DisconnectPacket::normal()).await,
            1 => client.send_bytes(b"\x30\xff\xff\xff\x7f").await,
            _ => drop(client),
        }
        setting.has_sessions(0).await;
    }
    let mut client = setting.client().await;
    client.open(60_000, 60_000).await;
    setting.ending.send_replace(true);
    client.is_told(Some(ReasonCode::ServerShuttingDown)).await;
    setting.has_sessions(0).await;
}

/// Fails if connections are not counted, or if many of them keep a session from its heartbeat.
#[tokio::test]
async fn a_thousand_connections_put_nobody_out_who_has_a_session() {
    let setting = Setting::new().await;
    let mut client = setting.client().await;
    client.open(2_000, 2_000).await;
    let ping = format!("ping/{}", client.session);
    assert_eq!(client.subscribe(&[&ping]).await, [0]);
    let crowd = async {
        // As many at a time as a test may have descriptors for.
        for _ in 0..10 {
            let mut crowd = Vec::new();
            for _ in 0..100 {
                let mut stranger = setting.stranger().await;
                stranger.stream.write_all(&vectors::mqtt()[0].1).await.ok();
                crowd.push(stranger);
            }
            let mut open = 0;
            for stranger in &mut crowd {
                // Those that had to go are told, or find it closed.
                let ended = async { while let Some((Packet::ConnAck(_), _)) = stranger.next().await {} };
                open += u32::from(timeout(Duration::from_millis(20), ended).await.is_err());
            }
            assert!(open <= 16, "{open} are open");
        }
    };
    tokio::select! {
        () = crowd => (),
        pings = client.answers_pings(Duration::from_secs(60)) => panic!("{pings}"),
    }
    assert_eq!(client.keep_alive().await, (0, 0));
}

/// What this process has in memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What a connection takes that has subscribed and says nothing, in KiB: [`PIECE`] to read into, a queue of 64 frames of 100
/// bytes, one of 32 answers, its task, and as much again for what an allocator makes of it. Both ends are in this process.
///
/// [`PIECE`]: super::connection
const MOST_IDLE: u64 = 2 * (8 + 7 + 4 + 4);
/// What it takes when it has sent all but the end of the longest packet: its buffer doubles until the packet fits.
const MOST_BUSY: u64 = MOST_IDLE + 2 * MOST_PACKET as u64 / 1024;
/// Set in the process that has nothing else in memory.
const ALONE: &str = "LANYARD_TEST_ALONE";

/// Fails if a thousand connections take more memory than a thousand times what one may take.
#[test]
fn a_thousand_connections_take_bounded_memory() {
    if std::env::var_os(ALONE).is_none() {
        // Other tests would count, and two thousand descriptors are more than a process has without asking.
        let name = "kortex::mqtt::tests::a_thousand_connections_take_bounded_memory";
        let mut alone = std::process::Command::new("sh");
        alone.args(["-c", "ulimit -n 4096 && exec \"$0\" --exact \"$1\" --nocapture"]);
        let ended = alone.arg(std::env::current_exe().unwrap()).arg(name).env(ALONE, "yes").output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        println!("{said}{}", String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let robot = ROBOT.replace("max_connections = 16", "max_connections = 1024");
        let setting = Setting::of(&format!("[front]\nkeys = \"/nonexistent/keys.toml\"\n{robot}")).await;
        let before = resident();
        let mut crowd = Vec::new();
        for _ in 0..1_000 {
            crowd.push(setting.client().await);
        }
        let idle = (resident() - before) / 1_000;
        let mut packet = BytesMut::from(&b"\x30"[..]);
        let length = u32::try_from(MOST_PACKET - 4).unwrap();
        mqtt5_protocol::encoding::encode_variable_int(&mut packet, length).unwrap();
        packet.resize(MOST_PACKET - 1, 0);
        for client in &mut crowd {
            client.send_bytes(&packet).await;
        }
        // All of it is read when somebody who came later is answered.
        let mut last = setting.client().await;
        last.open(60_000, 60_000).await;
        sleep(A_WHILE).await;
        assert_eq!(last.keep_alive().await, (0, 0));
        let busy = (resident() - before) / 1_000;
        println!("a connection takes {idle} KiB, and {busy} KiB with a packet that is not whole");
        assert!(idle <= MOST_IDLE, "{idle} KiB");
        assert!(busy >= u64::from(length) / 1024, "it was not read: {busy} KiB");
        assert!(busy <= MOST_BUSY, "{busy} KiB");
    });
}

/// Bytes that a client might send: golden packets, changed, cut and mixed.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let golden: Vec<Bytes> = vectors::mqtt().into_iter().map(|(_, bytes)| bytes).collect();
    let changed = (
        proptest::sample::select(golden),
        proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        any::<proptest::sample::Index>(),
        any::<bool>(),
    );
    let changed = changed.prop_map(|(golden, changes, cut, shorten)| {
        let mut bytes = golden.to_vec();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if shorten {
            bytes.truncate(2 + cut.index(bytes.len() - 1));
            bytes[1] = u8::try_from(bytes.len() - 2).unwrap().min(127);
        }
        bytes
    });
    prop_oneof![4 => changed, 1 => proptest::collection::vec(any::<u8>(), 0..80)]
}

/// Fails if bytes that anybody can send end the program.
#[tokio::test]
async fn no_packets_do_harm() {
    let setting = Setting::new().await;
    let names = Arc::new(Names::default());
    let address = setting.address;
    let cases = proptest::collection::vec(packets(), 1..6);
    let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() };
    let ran = TestRunner::new(config).run(&cases, |packets| {
        let (channel, _outbox) = Channel::new(Connection::new(address, address), Transport::Mqtt);
        let (late, _answers) = mpsc::channel(32);
        let name = names.take("", channel.id());
        let mut client = Served::new(&setting.desk, &channel, name, usize::MAX, late);
        let (mut come, mut out) = (BytesMut::new(), BytesMut::new());
        for bytes in packets {
            come.extend_from_slice(&bytes);
            while let Ok(Some(packet)) = take(&mut come) {
                if client.receive(packet, Heard::now(), &mut out).is_err() {
                    break;
                }
            }
            client.ping(Instant::now(), &mut out).unwrap();
        }
        setting.desk.left(&channel);
        Ok(())
    });
    ran.unwrap();
}
