//! One client: what it has subscribed to, and what becomes of what it publishes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mqtt5_protocol::packet::pingresp::PingRespPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::packet::suback::{SubAckPacket, SubAckReasonCode};
use mqtt5_protocol::packet::subscribe::SubscribePacket;
use mqtt5_protocol::packet::unsuback::{UnsubAckPacket, UnsubAckReasonCode};
use mqtt5_protocol::packet::unsubscribe::UnsubscribePacket;
use mqtt5_protocol::{Packet, PropertyId, PropertyValue, QoS, ReasonCode};
use prost::Message as _;
use shm_proto::Window;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::super::channel::{Channel, Later};
use super::super::desk::{Answer, Desk};
use super::super::frame::{Frame, Header, Kind, SessionNumber};
use super::super::intake::Heard;
use super::super::method;
use super::super::refusal::{Refusal, Sub};
use super::names::Name;
use super::packet::{Fault, message, put};
use super::topics::{self, Destination, Filter};
use crate::proto::kortex::SessionStatus;

/// Subscriptions of one client: a real one has four, and one for each topic that it is told of.
const MOST_SUBSCRIPTIONS: usize = 64;
/// Longest correlation data: real ones have two bytes, and they are kept for as long as a call takes.
const MOST_CORRELATION: usize = 256;
/// How many PINGs fall into a session's window: three may be late.
const PINGS: u32 = 4;
/// Longest time between two of them. A client that is gone is written to every so often, so that TCP finds out.
const SELDOM: Duration = Duration::from_secs(5);

/// An answer that took its time.
#[derive(Debug)]
pub struct Answered {
    frame: Frame,
    correlation: Option<Bytes>,
}

/// A client that is connected.
pub struct Client {
    desk: Arc<Desk>,
    channel: Arc<Channel>,
    /// Held for as long as it is connected.
    _name: Name,
    /// The topic of its answers.
    answers: String,
    /// By topic.
    subscriptions: BTreeMap<String, Filter>,
    /// When a session is to be asked next whether its client is there.
    pings: HashMap<SessionNumber, Instant>,
    /// Where answers go that take their time.
    late: mpsc::Sender<Answered>,
    /// Longest packet that it takes.
    longest: usize,
}

impl Client {
    /// A client that has subscribed to nothing yet.
    #[must_use]
    pub fn new(
        desk: &Arc<Desk>,
        channel: &Arc<Channel>,
        name: Name,
        longest: usize,
        late: mpsc::Sender<Answered>,
    ) -> Self {
        Self {
            desk: Arc::clone(desk),
            channel: Arc::clone(channel),
            answers: format!("res/{}", name.as_str()),
            _name: name,
            subscriptions: BTreeMap::new(),
            pings: HashMap::new(),
            late,
            longest,
        }
    }

    /// Takes a packet, and writes what is answered at once. `false`: the client goes.
    ///
    /// # Errors
    ///
    /// When the connection must end.
    pub fn receive(&mut self, packet: Packet, heard: Heard, out: &mut BytesMut) -> Result<bool, Fault> {
        match packet {
            Packet::Publish(publish) => self.published(&publish, heard, out)?,
            Packet::Subscribe(subscribe) => self.subscribe(subscribe, out)?,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe, out)?,
            Packet::PingReq => put(out, &PingRespPacket::default())?,
            Packet::Disconnect(_) => return Ok(false),
            other => {
                let text = format!("{} within a connection", other.packet_type_name());
                return Err(Fault::new(ReasonCode::ProtocolError, text));
            }
        }
        Ok(true)
    }

    fn subscribe(&mut self, asked: SubscribePacket, out: &mut BytesMut) -> Result<(), Fault> {
        if asked.properties.contains(PropertyId::SubscriptionIdentifier) {
            let text = "a subscription with an identifier";
            return Err(Fault::new(ReasonCode::SubscriptionIdentifiersNotSupported, text));
        }
        let mut answer = SubAckPacket::new(numbered(asked.packet_id)?);
        let mut wants_status = false;
        for topic in asked.filters {
            let code = match self.admit(topic.filter) {
                Ok(filter) => {
                    wants_status |= filter == Filter::Status;
                    SubAckReasonCode::GrantedQoS0
                }
                Err(code) => code,
            };
            answer = answer.add_reason_code(code);
        }
        put(out, &answer)?;
        if wants_status {
            let status = self.desk.status().borrow().clone();
            self.tell_status(&status, out)?;
        }
        Ok(())
    }

    fn admit(&mut self, topic: String) -> Result<Filter, SubAckReasonCode> {
        let filter = topics::filter(&topic, &self.answers)?;
        if !self.subscriptions.contains_key(&topic) && !self.has_room() {
            return Err(SubAckReasonCode::QuotaExceeded);
        }
        match filter {
            Filter::Ping(session) => {
                if !self.sessions().iter().any(|(own, _)| *own == session) {
                    return Err(SubAckReasonCode::NotAuthorized);
                }
                self.pings.entry(session).or_insert_with(Instant::now);
            }
            Filter::Notifications(method) => {
                let known = self.subscriptions.values().any(|other| *other == filter);
                if !known && !self.desk.subscribe(&self.channel, method) {
                    return Err(SubAckReasonCode::NotAuthorized);
                }
            }
            Filter::Answers | Filter::Pong | Filter::Status | Filter::Killed => (),
        }
        self.subscriptions.insert(topic, filter);
        Ok(filter)
    }

    /// Whether there is room for one more. Real clients do not end the subscription of a session that is over, and may
    /// have many, one after another.
    fn has_room(&mut self) -> bool {
        if self.subscriptions.len() >= MOST_SUBSCRIPTIONS {
            let sessions: HashMap<SessionNumber, Window> = self.sessions().into_iter().collect();
            self.subscriptions.retain(|_, filter| match filter {
                Filter::Ping(session) => sessions.contains_key(session),
                _ => true,
            });
        }
        self.subscriptions.len() < MOST_SUBSCRIPTIONS
    }

    fn unsubscribe(&mut self, asked: &UnsubscribePacket, out: &mut BytesMut) -> Result<(), Fault> {
        let mut answer = UnsubAckPacket::new(numbered(asked.packet_id)?);
        for topic in &asked.filters {
            answer = match self.subscriptions.remove(topic) {
                None => answer.add_reason_code(UnsubAckReasonCode::NoSubscriptionExisted),
                Some(filter) => {
                    self.end(filter);
                    answer.add_success()
                }
            };
        }
        put(out, &answer)
    }

    fn end(&mut self, filter: Filter) {
        match filter {
            Filter::Ping(session) => drop(self.pings.remove(&session)),
            Filter::Notifications(method) if !self.subscriptions.values().any(|other| *other == filter) => {
                self.desk.unsubscribe(&self.channel, method);
            }
            Filter::Notifications(_) | Filter::Answers | Filter::Pong | Filter::Status | Filter::Killed => (),
        }
    }

    fn published(&mut self, publish: &PublishPacket, heard: Heard, out: &mut BytesMut) -> Result<(), Fault> {
        if publish.qos != QoS::AtMostOnce {
            return Err(Fault::new(ReasonCode::QoSNotSupported, "a message with a QoS above 0"));
        }
        if publish.retain {
            return Err(Fault::new(ReasonCode::RetainNotSupported, "a message that is to be retained"));
        }
        if publish.properties.contains(PropertyId::TopicAlias) {
            return Err(Fault::new(ReasonCode::TopicAliasInvalid, "a topic alias"));
        }
        let topic = publish.topic_name.as_str();
        match topics::destination(topic) {
            Some(Destination::Service { service, pong }) => {
                if method::SERVICES.contains(&service) && publish.payload.is_empty() {
                    self.publish(&pong, Bytes::new(), None, out)?;
                }
                Ok(())
            }
            Some(destination @ Destination::Pong(_)) => {
                self.pong(&destination, &publish.payload, heard);
                Ok(())
            }
            Some(destination @ (Destination::Method(_) | Destination::Device { .. })) => {
                self.request(&destination, publish, heard, out)
            }
            None => {
                // Ending the connection would stop an arm over a message that nobody needs.
                debug!("{} publishes to \"{}\", for nobody", self.answers, topic.escape_debug());
                Ok(())
            }
        }
    }

    fn pong(&self, destination: &Destination<'_>, bytes: &[u8], heard: Heard) {
        let pong = Frame::read(bytes)
            .is_ok_and(|frame| frame.header.kind == Kind::Pong && destination.is_for(&frame.header));
        if pong {
            // Nothing is answered to it.
            drop(self.desk.ask(&self.channel, bytes, heard));
        }
    }

    fn request(
        &self,
        destination: &Destination<'_>,
        publish: &PublishPacket,
        heard: Heard,
        out: &mut BytesMut,
    ) -> Result<(), Fault> {
        let header = match Frame::read(&publish.payload) {
            Ok(frame) => Some(frame.header),
            Err(defect) => defect.header,
        };
        // Without one nobody knows what it asks.
        let Some(header) = header.filter(|header| header.kind == Kind::Request) else { return Ok(()) };
        let wish = correlation(publish, &self.answers).and_then(|correlation| {
            let (method, device) = (header.method, header.device);
            let text = || format!("the frame calls {method:?} of device {device}, its topic is for another");
            destination.is_for(&header).then_some(correlation).ok_or_else(text)
        });
        let (answer, correlation) = match wish {
            Ok(correlation) => (self.desk.ask(&self.channel, &publish.payload, heard), correlation),
            Err(text) => {
                let refusal = Refusal::protocol(Sub::InvalidParam, text);
                (Answer::Now(Frame::refused(&header, &refusal)), None)
            }
        };
        match answer {
            Answer::Now(frame) => self.answer(&Answered { frame, correlation }, out),
            Answer::Later(call) => self.attend(call, header, correlation, out),
            Answer::Nothing => Ok(()),
        }
    }

    /// Carries a call out beside others; its answer goes where the request says.
    fn attend(
        &self,
        call: Later,
        header: Header,
        correlation: Option<Bytes>,
        out: &mut BytesMut,
    ) -> Result<(), Fault> {
        let (late, wanted) = (self.late.clone(), correlation.clone());
        let taken = self.channel.carry_out(async move {
            let answered = Answered { frame: call.await, correlation: wanted };
            // Fails when the client has gone.
            drop(late.send(answered).await);
        });
        if taken {
            return Ok(());
        }
        let busy = Refusal::device(Sub::MethodFailed, "too many calls of this connection are under way");
        self.answer(&Answered { frame: Frame::refused(&header, &busy), correlation }, out)
    }

    /// Sends an answer.
    ///
    /// # Errors
    ///
    /// As for [`put`].
    pub fn answer(&self, answered: &Answered, out: &mut BytesMut) -> Result<(), Fault> {
        let Answered { frame, correlation } = answered;
        self.publish(&self.answers, frame.encode(), correlation.as_ref(), out)
    }

    /// Tells of a change, if it has a session: who has not logged in learns nothing.
    ///
    /// # Errors
    ///
    /// As for [`put`].
    pub fn notify(&self, frame: &Frame, out: &mut BytesMut) -> Result<(), Fault> {
        let Header { kind, method, .. } = frame.header;
        if kind != Kind::Notification || self.sessions().is_empty() {
            return Ok(());
        }
        for (topic, _) in self.subscribed(Filter::Notifications(method)) {
            self.publish(topic, frame.encode(), None, out)?;
        }
        Ok(())
    }

    /// Tells of all sessions, if the client wants to know, and has one itself: who has not logged in learns nothing.
    ///
    /// # Errors
    ///
    /// As for [`put`].
    pub fn tell_status(&self, status: &SessionStatus, out: &mut BytesMut) -> Result<(), Fault> {
        for (topic, _) in self.subscribed(Filter::Status) {
            if !self.sessions().is_empty() {
                self.publish(topic, status.encode_to_vec().into(), None, out)?;
            }
        }
        Ok(())
    }

    /// When a session is to be asked next whether its client is there.
    #[must_use]
    pub fn next_ping(&self) -> Option<Instant> {
        self.pings.values().min().copied()
    }

    /// Asks the sessions whose time has come.
    ///
    /// # Errors
    ///
    /// As for [`put`].
    pub fn ping(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), Fault> {
        let windows: HashMap<SessionNumber, Window> = self.sessions().into_iter().collect();
        self.pings.retain(|session, _| windows.contains_key(session));
        let due = |(session, at): (&SessionNumber, &Instant)| (*at <= now).then_some(*session);
        let due: Vec<SessionNumber> = self.pings.iter().filter_map(due).collect();
        for session in due {
            let window = windows.get(&session).map_or(SELDOM, |window| Duration::from_nanos(window.0));
            self.pings.insert(session, now + SELDOM.min(window / PINGS));
            self.publish(&format!("ping/{session}"), Frame::ping(session).encode(), None, out)?;
        }
        Ok(())
    }

    /// Sends a message, if the client has subscribed to its topic and takes one of that size.
    fn publish(
        &self,
        topic: &str,
        payload: Bytes,
        correlation: Option<&Bytes>,
        out: &mut BytesMut,
    ) -> Result<(), Fault> {
        if !self.subscriptions.contains_key(topic) {
            return Ok(());
        }
        let before = out.len();
        put(out, &message(topic, payload, correlation))?;
        if out.len() - before > self.longest {
            debug!("{} takes no packet of {} bytes", self.answers, out.len() - before);
            out.truncate(before);
        }
        Ok(())
    }

    fn subscribed(&self, filter: Filter) -> impl Iterator<Item = (&String, &Filter)> {
        self.subscriptions.iter().filter(move |(_, other)| **other == filter)
    }

    fn sessions(&self) -> Vec<(SessionNumber, Window)> {
        self.desk.sessions_of(&self.channel)
    }
}

/// What the answer to a request is to be sent with, or what is wrong with how it wants to be answered.
fn correlation(publish: &PublishPacket, answers: &str) -> Result<Option<Bytes>, String> {
    let data = match publish.properties.get(PropertyId::CorrelationData) {
        // A copy: it would keep the whole packet in memory.
        Some(PropertyValue::BinaryData(data)) if data.len() <= MOST_CORRELATION => {
            Some(Bytes::copy_from_slice(data))
        }
        Some(_) => return Err(format!("correlation data has at most {MOST_CORRELATION} bytes")),
        None => None,
    };
    match publish.properties.get(PropertyId::ResponseTopic) {
        // A client publishes into no other's topics through us.
        Some(PropertyValue::Utf8String(topic)) if topic != answers => {
            Err(format!("answers to this client go to \"{answers}\""))
        }
        _ => Ok(data),
    }
}

fn numbered(packet: u16) -> Result<u16, Fault> {
    if packet == 0 {
        return Err(Fault::new(ReasonCode::ProtocolError, "a packet with the number 0"));
    }
    Ok(packet)
}
