//! The client's side of generation 3: a base that speaks MQTT is asked as its real clients ask it.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::packet::subscribe::SubscribePacket;
use mqtt5_protocol::packet::unsubscribe::UnsubscribePacket;
use mqtt5_protocol::{ConnectOptions, Packet, PropertyId, PropertyValue, QoS};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::frame::{Frame, Header, Kind, Method, SessionNumber};
use super::super::method;
use super::super::mqtt::packet::{Fault, put, take_from_server};

/// What is read at a time.
const PIECE: usize = 8 * 1024;

/// The connection.
pub struct Broker {
    stream: TcpStream,
    come: BytesMut,
    /// What is to be sent before anything else is done.
    out: BytesMut,
    /// Where its answers come.
    answers: String,
    /// What it is to tell of.
    topics: BTreeSet<Method>,
    /// The number of the last packet that had one.
    last: u16,
}

fn topic(method: &Method) -> String {
    format!("notif/{}/{}", method.service, method.function)
}

fn other(fault: Fault) -> io::Error {
    io::Error::other(fault)
}

impl Broker {
    /// Connects, and subscribes to its answers.
    ///
    /// # Errors
    ///
    /// When nobody is there, or it is no such base.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        // A Stop must not wait for more to fill a segment.
        stream.set_nodelay(true)?;
        let (come, out) = (BytesMut::with_capacity(PIECE), BytesMut::new());
        let mut broker = Self { stream, come, out, answers: String::new(), topics: BTreeSet::new(), last: 0 };
        // Without a name, as real clients do; signs of life come from the session, more often than any keep alive.
        put(&mut broker.out, &ConnectPacket::new(ConnectOptions::new(""))).map_err(other)?;
        let Packet::ConnAck(taken) = broker.packet().await? else {
            return Err(io::Error::other("it speaks MQTT, but does not answer CONNECT"));
        };
        let Some(PropertyValue::Utf8String(name)) =
            taken.properties.get(PropertyId::AssignedClientIdentifier)
        else {
            let text = format!("it does not say where answers come (CONNACK {:?})", taken.reason_code);
            return Err(io::Error::other(text));
        };
        broker.answers = format!("res/{name}");
        broker.subscribe(&broker.answers.clone())?;
        match broker.packet().await? {
            Packet::SubAck(_) => Ok(broker),
            _ => Err(io::Error::other("it speaks MQTT, but does not answer SUBSCRIBE")),
        }
    }

    fn number(&mut self) -> u16 {
        self.last = self.last.wrapping_add(1).max(1);
        self.last
    }

    fn subscribe(&mut self, topic: &str) -> io::Result<()> {
        let packet = SubscribePacket::new(self.number()).add_filter(topic, QoS::AtMostOnce);
        put(&mut self.out, &packet).map_err(other)
    }

    /// Has the base tell of these topics, and of no others. Sent with what is received or sent next.
    ///
    /// # Errors
    ///
    /// There are none: topics of numbers are short.
    pub fn follow(&mut self, topics: &BTreeSet<Method>) -> io::Result<()> {
        for ended in &self.topics - topics {
            let packet = UnsubscribePacket::new(self.number()).add_filter(topic(&ended));
            put(&mut self.out, &packet).map_err(other)?;
        }
        for begun in topics - &self.topics {
            self.subscribe(&topic(&begun))?;
        }
        self.topics.clone_from(topics);
        Ok(())
    }

    /// The next packet. May be dropped at any time and asked again.
    async fn packet(&mut self) -> io::Result<Packet> {
        loop {
            if !self.out.is_empty() {
                self.stream.write_buf(&mut self.out).await?;
            } else if let Some(packet) = take_from_server(&mut self.come).map_err(other)? {
                return Ok(packet);
            } else if self.stream.read_buf(&mut self.come).await? == 0 {
                return Err(io::Error::other("the base closed the connection"));
            }
        }
    }

    /// The next frame. May be dropped at any time and asked again.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn receive(&mut self) -> io::Result<Bytes> {
        loop {
            match self.packet().await? {
                Packet::Publish(publish) => {
                    // What is no frame is for nobody.
                    let Ok(frame) = Frame::read(&publish.payload) else { continue };
                    match frame.header {
                        Header { kind: Kind::Ping, session, .. } => self.pong(frame, session)?,
                        Header { method: method::CREATE_SESSION, session, .. } if session.0 != 0 => {
                            self.subscribe(&format!("ping/{session}"))?;
                            return Ok(publish.payload);
                        }
                        _ => return Ok(publish.payload),
                    }
                }
                Packet::Disconnect(why) => {
                    return Err(io::Error::other(format!("the base ended it: {:?}", why.reason_code)));
                }
                _ => {}
            }
        }
    }

    fn pong(&mut self, ping: Frame, session: SessionNumber) -> io::Result<()> {
        let header = Header { kind: Kind::Pong, ..ping.header };
        let pong = Frame { header, payload: ping.payload };
        let topic = format!("pong/{session}");
        put(&mut self.out, &PublishPacket::new(topic, pong.encode(), QoS::AtMostOnce)).map_err(other)
    }

    /// Sends a request.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        let Method { service, function } = frame.header.method;
        let packet = PublishPacket::new(format!("req/{service}/{function}"), frame.encode(), QoS::AtMostOnce)
            .with_response_topic(self.answers.clone())
            .with_correlation_data(frame.header.message.0.to_be_bytes().to_vec());
        put(&mut self.out, &packet).map_err(other)?;
        self.stream.write_all_buf(&mut self.out).await
    }
}
