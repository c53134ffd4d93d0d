//! What reads bytes of Kortex's clients, for the fuzzer: each is given any bytes, and what must hold is asserted.

use bytes::BytesMut;

use super::frame::Frame;
use super::{mqtt, stream};
use crate::Parser;

/// All of them.
pub const PARSERS: [Parser; 3] = [
    Parser { name: "kortex-frame", feed: frame },
    Parser { name: "kortex-stream", feed: frames },
    Parser { name: "kortex-mqtt", feed: mqtt::feed },
];

/// What was read is written so that it is read as the same.
fn frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::read(bytes) {
        let again = Frame::read(&frame.encode());
        assert!(again.is_ok_and(|again| again == frame), "it is read as another one");
    }
}

/// Every frame is one that was there, and what is left is less than one.
fn frames(bytes: &[u8]) {
    let mut come = BytesMut::from(bytes);
    let mut taken = 0;
    while let Ok(Some(frame)) = stream::take(&mut come) {
        assert!((1..=stream::MOST_FRAME).contains(&frame.len()), "a frame of {} bytes", frame.len());
        taken += stream::HEAD + frame.len();
    }
    assert_eq!(taken + come.len(), bytes.len());
}
