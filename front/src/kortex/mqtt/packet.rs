//! MQTT packets on a byte stream.
//!
//! What is in a packet is read and written by `mqtt5-protocol`: it has both sides of version 5 and no unsafe code of its own,
//! does not panic over what it reads, and leaves it to its caller when a packet is whole, so that nothing is kept for one
//! that is too long. (`mqute-codec` panics over a CONNECT that is cut short, which would end the front; `mqtt-proto` has
//! unsafe code in what it reads with; `rmqtt-codec` brings regular expressions, a calendar and JSON along.)

use bytes::{Buf as _, Bytes, BytesMut};
use mqtt5_protocol::packet::MqttPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::{FixedHeader, MqttError, Packet, PacketType, QoS, ReasonCode};
use thiserror::Error;

use super::super::stream::MOST_FRAME;

/// Longest packet that is taken, head and all.
pub const MOST_PACKET: usize = MOST_FRAME;
/// Longest head: its kind and four bytes of length.
const MOST_HEAD: usize = 5;
/// What a CONNECT begins with since version 3.1.1: a name, then the version.
const NAME: &[u8] = b"\0\x04MQTT";
/// What it began with before.
const OLD_NAME: &[u8] = b"\0\x06MQIsdp";
/// The version that is spoken here.
const VERSION: u8 = 5;

/// Why a connection is ended, in MQTT's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct Fault {
    /// What its client is told.
    pub reason: ReasonCode,
    /// What the log is told.
    pub text: String,
}

impl Fault {
    /// A fault.
    #[must_use]
    pub fn new(reason: ReasonCode, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

impl From<MqttError> for Fault {
    fn from(error: MqttError) -> Self {
        Self::new(ReasonCode::MalformedPacket, error.to_string())
    }
}

/// Takes the next packet off what has come; `None` while it is not whole.
///
/// # Errors
///
/// When what has come is no packet that a client may send here: as soon as that shows, not when more of it has come.
pub fn take(come: &mut BytesMut) -> Result<Option<Packet>, Fault> {
    take_of(come, is_for_a_client)
}

/// The same, from a base: what only servers say.
///
/// # Errors
///
/// As for [`take`].
pub fn take_from_server(come: &mut BytesMut) -> Result<Option<Packet>, Fault> {
    take_of(come, is_for_a_server)
}

/// Whether a packet of that kind is one that its sender may send.
type MaySend = fn(PacketType, &[u8]) -> Result<(), Fault>;

fn take_of(come: &mut BytesMut, may: MaySend) -> Result<Option<Packet>, Fault> {
    let head = &come[..come.len().min(MOST_HEAD)];
    // The last byte of the length is the first one without the highest bit.
    let is_whole = head.len() == MOST_HEAD || head.iter().skip(1).any(|byte| byte & 0x80 == 0);
    if !is_whole {
        return Ok(None);
    }
    let header = FixedHeader::decode(&mut &head[..])?;
    let length = header.encoded_len() + usize::try_from(header.remaining_length).unwrap_or(usize::MAX);
    if length > MOST_PACKET {
        let text = format!("a packet of {length} bytes; at most {MOST_PACKET} are taken");
        return Err(Fault::new(ReasonCode::PacketTooLarge, text));
    }
    if come.len() < length {
        return Ok(None);
    }
    let mut body = come.split_to(length).freeze();
    body.advance(header.encoded_len());
    may(header.packet_type, &body)?;
    read(&header, body).map(Some)
}

fn is_for_a_client(kind: PacketType, body: &[u8]) -> Result<(), Fault> {
    match kind {
        PacketType::Connect => version(body),
        PacketType::Publish
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::PingReq
        | PacketType::Disconnect => Ok(()),
        // What a server says, and what follows from a QoS that nothing is sent with here.
        other => Err(Fault::new(ReasonCode::ProtocolError, format!("{other:?} is not for a client"))),
    }
}

fn is_for_a_server(kind: PacketType, _: &[u8]) -> Result<(), Fault> {
    match kind {
        PacketType::ConnAck
        | PacketType::Publish
        | PacketType::SubAck
        | PacketType::UnsubAck
        | PacketType::PingResp
        | PacketType::Disconnect => Ok(()),
        other => Err(Fault::new(ReasonCode::ProtocolError, format!("{other:?} is not for a server"))),
    }
}

fn read(header: &FixedHeader, mut body: Bytes) -> Result<Packet, Fault> {
    let packet = Packet::decode_from_body(header.packet_type, header, &mut body)?;
    if body.has_remaining() {
        let text = format!("{} bytes behind the end of {}", body.len(), packet.packet_type_name());
        return Err(Fault::new(ReasonCode::MalformedPacket, text));
    }
    Ok(packet)
}

/// What follows the version is laid out as the version says.
fn version(body: &[u8]) -> Result<(), Fault> {
    let other = body.starts_with(OLD_NAME)
        || body
            .strip_prefix(NAME)
            .is_some_and(|rest| rest.first().is_some_and(|version| *version != VERSION));
    if other {
        let text = "it does not speak version 5 of MQTT";
        return Err(Fault::new(ReasonCode::UnsupportedProtocolVersion, text));
    }
    Ok(())
}

/// Writes a packet behind others.
///
/// # Errors
///
/// When it has a text of more than 65535 bytes.
pub fn put(out: &mut BytesMut, packet: &impl MqttPacket) -> Result<(), Fault> {
    packet.encode(out).map_err(|error| Fault::new(ReasonCode::UnspecifiedError, error.to_string()))
}

/// A message. What is wanted with an answer is what its request was sent with.
#[must_use]
pub fn message(topic: &str, payload: Bytes, correlation: Option<&Bytes>) -> PublishPacket {
    let mut message = PublishPacket::new(topic, payload, QoS::AtMostOnce);
    if let Some(data) = correlation {
        message.properties.set_correlation_data(data.clone());
    }
    message
}
