//! Frames: what every transport of Kortex carries, in both generations.
//!
//! A frame is a protobuf message with a header of four words of bit fields and a payload (reference: kortex.md, 1.4). What
//! arrives is an allegation: [`Frame::read`] makes a frame of it or says what is wrong, and how to answer.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;

use super::refusal::{Refusal, Sub};
use crate::proto::kortex as wire;

/// The only version of the header there is, and of every service.
const VERSION: u32 = 1;
/// Longest payload that a header can name: 24 bits.
const MOST_PAYLOAD: usize = (1 << 24) - 1;

/// A session's number, as clients send it: 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionNumber(pub u16);

impl fmt::Display for SessionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a client numbers its requests with; the answer has the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MessageNumber(pub u16);

/// A function of a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Method {
    /// The service, 12 bits.
    pub service: u16,
    /// The function.
    pub function: u16,
}

impl Method {
    /// The method of that number, which has the service above 16 bits of function.
    #[must_use]
    pub const fn of(number: u32) -> Self {
        Self { service: ((number >> 16) & 0xFFF) as u16, function: (number & 0xFFFF) as u16 }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        (self.service as u32) << 16 | self.function as u32
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.function)
    }
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call.
    Request,
    /// Something between the two ends of a transport.
    Raw,
    /// The answer to a call, or its error.
    Response,
    /// What was subscribed to.
    Notification,
    /// "Are you there?"
    Ping,
    /// "I am."
    Pong,
}

impl Kind {
    const ALL: [(u32, Self); 6] = [
        (1, Self::Request),
        (2, Self::Raw),
        (3, Self::Response),
        (5, Self::Notification),
        (7, Self::Ping),
        (8, Self::Pong),
    ];

    fn of(number: u32) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == number).map(|(_, kind)| *kind)
    }

    fn number(self) -> u32 {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(number, _)| *number)
    }
}

/// A frame's header, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// Which device of the arm; 0 is its base.
    pub device: u8,
    /// Error and sub-error; both 0 where there is none. Only answers have them.
    pub error: (u8, u16),
    /// The session, or none.
    pub session: SessionNumber,
    /// The request's number.
    pub message: MessageNumber,
    /// What is called.
    pub method: Method,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Its message, in protobuf.
    pub payload: Bytes,
}

/// What is no frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// Why, as a client is told.
    pub refusal: Refusal,
    /// What could be read of the header: a client that waits for an answer gets one.
    pub header: Option<Header>,
}

impl Defect {
    /// What the sender is told; `None` when it is not known what it asked, or it did not ask.
    #[must_use]
    pub fn answer(&self) -> Option<Frame> {
        let header = self.header.filter(|header| header.kind == Kind::Request)?;
        Some(Frame::refused(&header, &self.refusal))
    }
}

impl Frame {
    /// Reads a frame.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, Defect> {
        let defect = |sub, text: String, header| Defect { refusal: Refusal::protocol(sub, text), header };
        let frame = wire::Frame::decode(bytes)
            .map_err(|error| defect(Sub::FrameDecoding, format!("this is no frame: {error}"), None))?;
        let Some(words) = frame.header else {
            return Err(defect(Sub::FrameDecoding, "a frame without header".to_owned(), None));
        };
        let version = words.frame_info >> 28;
        if version != VERSION {
            let text = format!("header version {version}; version {VERSION} is spoken here");
            // Another version may have other fields: they are not looked at.
            return Err(defect(Sub::HeaderVersion, text, None));
        }
        let number = words.frame_info >> 24 & 0xF;
        let header = Header::of(&words, Kind::of(number).unwrap_or(Kind::Request));
        if Kind::of(number).is_none() {
            return Err(defect(
                Sub::FrameType,
                format!("frames of type {number} are not known"),
                Some(header),
            ));
        }
        let alleged = words.payload_info & 0x00FF_FFFF;
        if u32::try_from(frame.payload.len()) != Ok(alleged) {
            let text =
                format!("the header says {alleged} bytes of payload, {} have come", frame.payload.len());
            return Err(defect(Sub::FrameDecoding, text, Some(header)));
        }
        Ok(Self { header, payload: frame.payload })
    }

    /// The frame as it is sent. A payload that no header can describe is left out.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let Self { header, payload } = self;
        let payload = if payload.len() > MOST_PAYLOAD { Bytes::new() } else { payload.clone() };
        wire::Frame { header: Some(header.words(&payload)), payload }.encode_to_vec().into()
    }

    /// The answer to a request: `session` is the one its client is in from now on.
    #[must_use]
    pub fn answer(request: &Header, session: SessionNumber, message: &impl prost::Message) -> Self {
        let header = Header { kind: Kind::Response, error: (0, 0), session, ..*request };
        Self { header, payload: message.encode_to_vec().into() }
    }

    /// The answer to a request that is not carried out.
    #[must_use]
    pub fn refused(request: &Header, refusal: &Refusal) -> Self {
        let header = Header { kind: Kind::Response, error: refusal.codes(), ..*request };
        Self { header, payload: refusal.message().encode_to_vec().into() }
    }

    /// What was subscribed to under that handle.
    #[must_use]
    pub fn notification(
        session: SessionNumber,
        handle: MessageNumber,
        method: Method,
        message: &impl prost::Message,
    ) -> Self {
        let header =
            Header { kind: Kind::Notification, device: 0, error: (0, 0), session, message: handle, method };
        Self { header, payload: message.encode_to_vec().into() }
    }

    /// Asks a client of generation 3 whether it is there.
    #[must_use]
    pub fn ping(session: SessionNumber) -> Self {
        let header = Header {
            kind: Kind::Ping,
            device: 0,
            error: (0, 0),
            session,
            message: MessageNumber(0),
            method: Method::of(0),
        };
        Self { header, payload: Bytes::new() }
    }
}

impl Header {
    #[expect(clippy::cast_possible_truncation, reason = "every field is masked to its width")]
    const fn of(words: &wire::Header, kind: Kind) -> Self {
        Self {
            kind,
            device: (words.frame_info >> 16 & 0xFF) as u8,
            error: ((words.frame_info >> 12 & 0xF) as u8, (words.frame_info & 0xFFF) as u16),
            session: SessionNumber((words.message_info >> 16) as u16),
            message: MessageNumber(words.message_info as u16),
            method: Method::of(words.service_info & 0x0FFF_FFFF),
        }
    }

    fn words(&self, payload: &Bytes) -> wire::Header {
        let (error, sub) = self.error;
        // A ping is for no service, and real ones have no version of it either.
        let service = match self.kind {
            Kind::Ping | Kind::Pong => 0,
            Kind::Request | Kind::Raw | Kind::Response | Kind::Notification => VERSION << 28,
        };
        wire::Header {
            frame_info: VERSION << 28
                | self.kind.number() << 24
                | u32::from(self.device) << 16
                | u32::from(error & 0xF) << 12
                | u32::from(sub & 0xFFF),
            message_info: u32::from(self.session.0) << 16 | u32::from(self.message.0),
            service_info: service | self.method.number(),
            payload_info: u32::try_from(payload.len()).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::vectors;
    use super::*;

    #[test]
    fn every_golden_frame_is_read_and_written_as_it_was() {
        let golden = vectors::all();
        assert!(golden.len() > 50, "{} frames", golden.len());
        for (what, bytes) in golden {
            let frame = Frame::read(&bytes).unwrap_or_else(|defect| panic!("{what}: {defect:?}"));
            assert_eq!(frame.encode(), bytes, "{what}");
        }
    }

    #[test]
    fn what_is_no_frame_is_answered_where_it_asked_something() {
        let (_, good) = vectors::all().into_iter().find(|(what, _)| what.contains("KeepAlive")).unwrap();
        let with = |change: fn(&mut wire::Header)| {
            let mut frame = wire::Frame::decode(&good[..]).unwrap();
            change(frame.header.as_mut().unwrap());
            Frame::read(&frame.encode_to_vec()).unwrap_err()
        };
        let codes = |defect: &Defect| defect.refusal.codes();
        for version in [0, 2, 15] {
            let bad = wire::Header { frame_info: version << 28 | 1 << 24, ..wire::Header::default() };
            let frame = wire::Frame { header: Some(bad), payload: Bytes::new() };
            let defect = Frame::read(&frame.encode_to_vec()).unwrap_err();
            assert_eq!((codes(&defect), defect.answer()), ((1, 9), None));
        }
        let unknown = with(|header| header.frame_info = 1 << 28 | 4 << 24);
        assert_eq!(codes(&unknown), (1, 10));
        assert_eq!(unknown.answer().unwrap().header.error, (1, 10));
        let short = with(|header| header.payload_info = 1);
        assert_eq!(codes(&short), (1, 8));
        for garbage in [&b""[..], b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", b"\x08\x01", &[0xFF; 40]] {
            let defect = Frame::read(garbage).unwrap_err();
            assert_eq!((codes(&defect), defect.answer()), ((1, 8), None), "{garbage:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(frame) = Frame::read(&bytes) {
                let again = Frame::read(&frame.encode());
                prop_assert!(again.is_ok());
            }
        }

        #[test]
        fn a_header_survives_its_words(info in any::<[u32; 3]>()) {
            let [frame_info, message_info, service_info] = info;
            let frame_info = frame_info & 0x00FF_FFFF | 0x1100_0000;
            let service_info = service_info & 0x0FFF_FFFF | 0x1000_0000;
            let words = wire::Header { frame_info, message_info, service_info, payload_info: 0 };
            prop_assert_eq!(Header::of(&words, Kind::Request).words(&Bytes::new()), words);
        }
    }
}
